"""How long a model must train until its equivariance error is below a share of that of standing still."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from poflow_lite.datasets import Sequences
from poflow_lite.experiments import load_run, train
from poflow_lite.grid import run_grid
from poflow_lite.metrics import equivariance_errors, no_motion, predict
from poflow_lite.models import VAE
from poflow_lite.operators import fit_operator, moved_by, training_latents
from poflow_lite.recipes import recipe, sequences
from poflow_lite.studies.comparison import TRANSPORTS, step_costs
from poflow_lite.training import resolve_device

__all__ = ["STEPS", "THRESHOLDS", "Reached", "first_budgets", "relative_error", "require_budgets", "time_to_error"]

STEPS = (125, 250, 500, 1000, 2000)
THRESHOLDS = (0.5, 0.35, 0.25)


@dataclass(frozen=True)
class Reached:
    """The shortest training that takes a model to a threshold.

    Attributes:
        model, threshold: which, and to what share of the error of no motion.
        steps: of the shortest training whose error, averaged over seeds, is at or below it; ``None`` if none is.
        seconds: what those steps take; ``None`` likewise.
        by_seed: seed ↦ the same steps for that seed alone.
    """

    model: str
    threshold: float
    steps: int | None
    seconds: float | None
    by_seed: dict[int, int | None]


def first_budgets(
    cells: Sequence[Mapping[str, Any]], milliseconds: Mapping[str, float], thresholds: Sequence[float] = THRESHOLDS
) -> list[Reached]:
    """For each model and threshold the first number of steps whose error is at or below it; nothing is interpolated.

    The cosine takes the learning rate of each training to 0 in its own number of steps, so the error falls late and a
    point on the curve of a longer training says nothing of a shorter one: each number of steps is a training of its
    own. A number of steps counts for the mean only if it was run with every seed of its model.

    Args:
        cells: with "model", "steps", "seed" and "error".
        milliseconds: model ↦ of one step.
        thresholds: shares of the error of no motion.
    """
    table = []
    for model, threshold in itertools.product(dict.fromkeys(cell["model"] for cell in cells), thresholds):
        errors = {(cell["steps"], cell["seed"]): cell["error"] for cell in cells if cell["model"] == model}
        budgets, seeds = (sorted({place[i] for place in errors}) for i in (0, 1))
        whole = [steps for steps in budgets if all((steps, seed) in errors for seed in seeds)]
        steps = next((n for n in whole if mean(errors[n, seed] for seed in seeds) <= threshold), None)
        seconds = None if steps is None else steps * milliseconds[model] / 1e3
        by_seed = {seed: next((n for n in budgets if errors.get((n, seed), threshold + 1) <= threshold), None)
                   for seed in seeds}  # fmt: skip
        table.append(Reached(model, threshold, steps, seconds, by_seed))
    return table


def require_budgets(steps: Sequence[int], thresholds: Sequence[float], images: int) -> None:
    """Raise a ValueError that says which of the arguments of :func:`time_to_error` cannot be."""
    if not steps or min(steps) < 1 or images < 1:
        raise ValueError(f"numbers of steps and images must be at least 1, got {list(steps)} and {images}")
    for threshold in thresholds:
        if not threshold > 0:
            raise ValueError(f"a threshold is a positive share of the error of no motion, got {threshold}")


def relative_error(name: str, model: VAE, training: Sequences, held_out: Sequences, seed: int = 0) -> float:
    """Equivariance error ÷ that of no motion, the mean over k, of a model moved by its own transport.

    A model without one is moved by the linear operator, the strongest, fitted to its latents of training images.

    Args:
        name: of :data:`recipes.MODELS`.
        model: trained.
        training: up to 500 of its images fit the operator.
        held_out: measured, all of it.
        seed: of random start poses.
    """
    if name not in TRANSPORTS:
        model = moved_by(model, fit_operator("linear", model, training, training_latents(model, training, 500, seed)))
    errors = equivariance_errors({"model": partial(predict, model), "still": no_motion}, held_out, seed=seed)
    return mean(errors["model"][k] / errors["still"][k] for k in held_out.names)


def time_to_error(
    models: Sequence[str],
    data: str,
    out: str | Path,
    *,
    budget: str = "lecture",
    steps: Sequence[int] = STEPS,
    seeds: Sequence[int] = (0,),
    thresholds: Sequence[float] = THRESHOLDS,
    images: int = 100,
    rounds: int = 20,
    jobs: int = 1,
    backend: str = "loky",
    device: str = "auto",
    progress: bool = True,
    **changes: Any,
) -> dict[str, Any]:
    """Train every model for several numbers of steps, each with its own schedule, and find the first that suffices.

    Cells that run side by side slow one another, so the seconds of the table are steps × the median time of a step, of
    all models in turns, measured once the cells are done and nothing else of this call runs; the seconds that each cell
    took itself are kept beside. Neither holds any evaluation. A cell that is done is not run again.

    Args:
        models: of :data:`recipes.MODELS`.
        data, budget: name the recipe.
        out: folder of the grid, one folder inside for each cell.
        steps: numbers of steps to train for.
        seeds: of the runs.
        thresholds: shares of the error of no motion.
        images: of the validation split that are measured, at most.
        rounds: steps that are timed of each model.
        jobs, backend: as for :func:`grid.run_grid`.
        device: "auto", "cpu" or "cuda".
        changes: settings that differ from the recipe, in all models.

    Returns:
        As JSON: "data_set", "cells" with model, steps, seed, error and seconds, "reached" with a :class:`Reached` for
        each model and threshold, "milliseconds" of a step and "recipe_seconds" of the recipe's own number of steps for
        each model, and "threads" and "jobs", the cells that failed under "failed".

    Raises:
        ValueError, FileNotFoundError: for a mistake in the arguments, before anything is trained.
    """
    require_budgets(steps, thresholds, images)
    settings = {model: recipe(data, budget, model, **changes) for model in models}
    cells = {}
    for model, count, seed in itertools.product(models, steps, seeds):
        chosen = asdict(recipe(data, budget, model, **changes | {"steps": count}))
        place = {"model": model, "data": data, "budget": budget, "seed": seed, "images": images, "device": device}
        cells[f"{model}-steps-{count}-seed-{seed}"] = {**place, "settings": chosen}
    form = next(iter(settings.values()), recipe(data, budget))
    training = sequences(data, "train", form)
    done, failed = run_grid(_cell, cells, out, jobs=jobs, backend=backend, progress=progress)
    milliseconds = step_costs(settings, training, resolve_device(device), rounds, progress)
    found = list(done.values())
    result = {
        "data_set": f"{sequences(data, 'validation', form).name}, {images:,} measured at most",
        "budget": budget,
        "cells": found,
        "milliseconds": milliseconds,
        "recipe_seconds": {model: chosen.steps * milliseconds[model] / 1e3 for model, chosen in settings.items()},
        "reached": [asdict(row) for row in first_budgets(found, milliseconds, thresholds)],
        "threads": torch.get_num_threads(),
        "jobs": jobs,
        "failed": failed,
    }
    return json.loads(json.dumps(result))


def _cell(
    folder: Path, model: str, data: str, budget: str, seed: int, images: int, device: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """Train one model for one number of steps with one seed, and measure it."""
    changes = {name: value for name, value in settings.items() if name != "own"} | settings["own"]
    train(model, data, budget, folder, seed=seed, device=device, resume=True, progress=False, **changes)
    run = load_run(folder, device)
    training, held_out = (sequences(data, split, run.settings) for split in ("train", "validation"))
    return {
        "model": model,
        "steps": run.settings.steps,
        "seed": seed,
        "error": relative_error(model, run.model, training, held_out.first(images), seed),
        "seconds": run.history[-1]["seconds"],
        "threads": torch.get_num_threads(),
        "device": run.config["device"],
    }
