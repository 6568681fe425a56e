"""Comparison: every model with every latent operator under the same metrics, over seeds, in one table."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from poflow_lite.datasets import FactorSequences, Sequences
from poflow_lite.experiments import build_model, load_run, measure_operators, recipe, sequences, train_recipe
from poflow_lite.metrics import factor_scores
from poflow_lite.settings import Count, Flag, Seed, Split
from poflow_lite.studies.comparison_tables import figure, notes, table
from poflow_lite.studies.study import Study
from poflow_lite.training import resolve_device, step_generator

# --- the grid -----------------------------------------------------------------------------------------------------


MODELS_COMPARED = (
    *("vae", "beta-vae", "factor-vae", "slow-vae", "topographic-vae", "msp", "poflow"),
    *("flow-factorized", "free-flow", "weakly-supervised"),
)
"""The models that are compared where no others are named."""


def cells(
    data: str = "digits",
    budget: str = "lecture",
    models: Sequence[str] = MODELS_COMPARED,
    seeds: Sequence[Seed] = (0,),
    vary: Mapping[str, Sequence[Any]] | None = None,
    split: Split = "test",
    images: Count = 2000,
    scores: Flag = True,
    likelihood_images: Count = 200,
    samples: Count = 100,
    device: str = "auto",
    changes: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """A cell for each model and seed: the same data, likelihood, optimiser and number of steps.

    Networks are the same too, but for their ends: MSP has rows × columns latents, and the Topographic VAE's encoder
    gives twice as many numbers.

    Args:
        data, budget: see :data:`datasets.DATASETS`, :data:`experiments.BUDGETS`.
        models: of :data:`experiments.MODELS`; by default the paper's, without labels and with, and its rivals.
        seeds: of the runs.
        vary: settings of the recipe and their values: every model is run with each. This is how settings are chosen.
        split: "test" for figures that are reported, "validation" for choices. Operators are always chosen on
            validation images, by as many as are measured.
        images: images that are measured, at most, the first ones.
        scores: measure likelihoods and VP scores of the chosen operator too, not only equivariance errors, and where
            two factors or more are given MIG and DCI of the codes.
        likelihood_images, samples: for :func:`metrics.log_likelihood`.
        device: "auto", "cpu" or "cuda".
        changes: settings that differ from the budget's recipe, in all models.
    """
    vary, changes = vary or {}, changes or {}
    if other := [name for name in ("horizon", "start", "pixels") if name in vary]:
        raise ValueError(
            f"{', '.join(other)} cannot vary within a table: each value is another task, so a study of its own"
        )
    common = {"data": data, "budget": budget, "split": split, "images": images, "scores": scores, "device": device}
    common |= {"likelihood_images": likelihood_images, "samples": samples}
    runs = {}
    for seed, model, values in itertools.product(seeds, models, itertools.product(*vary.values())):
        variant = dict(zip(vary, values, strict=True))
        name = "-".join([model, *(f"{key}-{value}" for key, value in variant.items()), f"seed-{seed}"])
        runs[name] = model, seed, recipe(data, budget, model, **{**changes, **variant})
    resolve_device(device)
    grid = {}
    for name, (model, seed, settings) in runs.items():
        if not grid:
            _, training = (sequences(data, part, settings) for part in (split, "train"))
        build_model(model, settings, training.image_shape, len(training.names))  # options that do not fit fail now
        whole = {key: value for key, value in asdict(settings).items() if key != "options"} | settings.options
        grid[name] = {"model": model, "seed": seed, "settings": whole, **common}
    return grid


def alone(
    data: str,
    budget: str,
    models: Sequence[str],
    device: str,
    vary: Mapping[str, Sequence[Any]] | None,
    changes: Mapping[str, Any] | None,
    **others: Any,
) -> dict[str, dict[str, Any]]:
    """One cell that measures the cost of a step of all models in turns, where no setting is varied."""
    if vary:
        return {}
    arguments = {"costs_of": list(models), "data": data, "budget": budget, "device": device, "changes": changes or {}}
    return {f"costs-{'-'.join(models)}": arguments}


def measure(folder: Path, **arguments: Any) -> dict[str, Any]:
    """What a cell does: train a model and move it by every operator, or time the steps of all models."""
    return (_measure_costs if "costs_of" in arguments else _measure_run)(folder, **arguments)


def _measure_run(
    folder: Path,
    model: str,
    seed: int,
    data: str,
    budget: str,
    split: str,
    images: int,
    scores: bool,
    likelihood_images: int,
    samples: int,
    device: str,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Besides "data_set", "device" and "seconds" of training: what :func:`experiments.measure_operators` gives.

    And where factors are given "factor_scores", those of :func:`metrics.factor_scores`, from all scenes of the split.
    """
    how = {"seed": seed, "device": device, "resume": True, "progress": False}
    run = load_run(train_recipe(model, data, budget, folder, **how, **settings), device)
    training, validation, held_out = (sequences(data, name, run.settings) for name in ("train", "validation", split))
    shown = held_out.first(images)
    sizes = {"likelihood_images": likelihood_images, "samples": samples}
    sizes |= {"operator_images": run.settings.operator_images, "median_images": min(500, run.settings.test_images)}
    how = {"validation": validation.first(images), "scores": scores, "seed": seed}
    given = scores and isinstance(held_out, FactorSequences) and len(held_out.names) > 1
    return {
        "data_set": f"{held_out.name}, {len(shown):,} measured",
        "device": run.config["device"],
        "seconds": run.history[-1]["seconds"],
        **measure_operators(run.model, training, shown, **how, **sizes),
        **({"factor_scores": factor_scores(run.model, held_out, seed=seed)} if given else {}),
    }


def _measure_costs(
    folder: Path, costs_of: Sequence[str], data: str, budget: str, device: str, changes: Mapping[str, Any]
) -> dict[str, Any]:
    chosen = {model: recipe(data, budget, model, **changes) for model in costs_of}
    first = next(iter(chosen.values()))
    training = sequences(data, "train", first).to(resolve_device(device))
    form = training.image_shape, len(training.names)
    models = {model: build_model(model, settings, *form) for model, settings in chosen.items()}
    return {"milliseconds": step_costs(models, training, first.batch_size, first.frames, device=resolve_device(device))}


def step_costs(
    models: Mapping[str, torch.nn.Module],
    training: Sequences,
    batch_size: int = 32,
    frames: int = 2,
    rounds: int = 20,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Median milliseconds of one training step of each model, taken in turns so that a busy machine slows all alike.

    Args:
        models: name ↦ model; trained by the steps.
        training: what the steps draw from.
        batch_size, frames: as for :func:`experiments.train`.
        rounds: steps of each model, after one that is not counted, in which memory is found and code compiled.
        device: where.
    """
    device, taken = torch.device(device), {name: [] for name in models}
    optimizers = {name: torch.optim.Adam(model.to(device).train().parameters()) for name, model in models.items()}
    for step, (name, model) in itertools.product(range(rounds + 1), models.items()):
        options = getattr(model, "draws", {})
        training.sample(batch_size, frames, step_generator(0, step, "data"), **options)  # a scene remembers it
        began = time.perf_counter()
        batch = training.sample(batch_size, frames, step_generator(0, step, "data"), **options).to(device)
        loss = model.terms(batch, step_generator(0, step, "noise", device)).loss
        optimizers[name].zero_grad()
        loss.backward()
        optimizers[name].step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(values[1:]) for name, values in taken.items()}


STUDY = Study(
    "comparison",
    cells,
    measure,
    table,
    figure,
    notes,
    alone,
    smoke={"images": 8, "likelihood_images": 2, "samples": 10},
)
