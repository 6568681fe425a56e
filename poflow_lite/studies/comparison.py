"""The comparison: every model with every latent operator under the same metrics, over seeds, in one table."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from poflow_lite.checkpoints import prepare_folder, write_json
from poflow_lite.datasets import Sequences
from poflow_lite.experiments import load_run, sample_batch, train
from poflow_lite.grid import run_grid
from poflow_lite.metrics import (
    MedianFrame,
    autoencode,
    equivariance_errors,
    index_accuracy,
    log_likelihood,
    no_motion,
    predict,
)
from poflow_lite.models import VAE, WeaklySupervisedVAE
from poflow_lite.operators import OPERATORS, fit_operator, moved_by, training_latents
from poflow_lite.predictability import generated_pairs, vp_score
from poflow_lite.provenance import command, versions
from poflow_lite.recipes import Recipe, build_model, recipe, sequences
from poflow_lite.training import resolve_device, step_generator

__all__ = ["TRANSPORTS", "compare", "compare_cell", "measure_operators", "step_costs"]

TRANSPORTS = {"topographic-vae": "roll", "poflow": "flow", "flow-factorized": "flow", "weakly-supervised": "flow"}
"""Model ↦ what its own way to move latents is called; all others stand still, which is the operator "identity"."""


def compare(
    data: str,
    models: Sequence[str],
    out: str | Path,
    *,
    budget: str = "lecture",
    seeds: Sequence[int] = (0,),
    vary: tuple[str, Sequence[Any]] | None = None,
    split: str = "test",
    images: int = 2000,
    scores: bool = True,
    jobs: int = 1,
    backend: str = "loky",
    device: str = "auto",
    progress: bool = True,
    **changes: Any,
) -> dict[str, Any]:
    """Train and measure every model with every seed, and write ``comparison.json`` into ``out``.

    All models get the same data, networks, likelihood, optimiser and number of steps. A cell that is done is not run
    again, and a cell that fails does not stop the others: see :func:`grid.run_grid`.

    Args:
        data, budget: as for :func:`experiments.train`.
        models: of :data:`recipes.MODELS`.
        out: folder of the grid, one folder inside for each cell.
        seeds: of the runs.
        vary: a setting and its values: every model is run with each of them. This is how settings are chosen.
        split: "test" for figures that are reported, "validation" for choices.
        images: images that are measured, at most, the first ones.
        scores: measure likelihoods and VP scores too, not only equivariance errors.
        jobs, backend: as for :func:`grid.run_grid`.
        device: "auto", "cpu" or "cuda".
        changes: settings that differ from the recipe, in all models.

    Returns:
        The content of ``comparison.json``: where it comes from, settings, one cell for each run with what
        :func:`compare_cell` measured, costs from :func:`step_costs`, and the cells that failed.

    Raises:
        ValueError, FileNotFoundError: for a mistake in the arguments, before anything is trained.
    """
    variants = [{}] if vary is None else [{vary[0]: value} for value in vary[1]]
    settings, cells, varied = {}, {}, {}
    common = {"data": data, "budget": budget, "split": split, "images": images, "scores": scores, "device": device}
    for seed, model, variant in itertools.product(seeds, models, variants):
        settings[model] = recipe(data, budget, model, **{**changes, **variant})
        name = "-".join([model, *(f"{key}-{value}" for key, value in variant.items()), f"seed-{seed}"])
        cells[name] = {"model": model, "seed": seed, "settings": asdict(settings[model]), **common}
        varied[name] = variant
    first = next(iter(settings.values()), recipe(data, budget))
    measured, training = (sequences(data, name, first) for name in (split, "train"))
    chosen = resolve_device(device)
    done, failures = run_grid(compare_cell, cells, out, jobs=jobs, backend=backend, progress=progress)
    costs = step_costs(settings, training, chosen, progress=progress) if vary is None else {}
    result = {
        "data_set": f"{measured.name}, {min(images, len(measured)):,} measured",
        "budget": budget,
        "command": command(),
        "versions": versions(),
        "settings": {model: _settled(settings[model], vary) for model in settings},
        "cells": [{"variant": varied[name], **cell} for name, cell in done.items()],
        "costs": costs,
        "failed": failures,
    }
    write_json(prepare_folder(out) / "comparison.json", result)
    return json.loads(json.dumps(result))  # as in the file: tuples have become lists


def _settled(settings: Recipe, vary: tuple[str, Sequence[Any]] | None) -> dict[str, Any]:
    """The settings that all cells of a model share: without the one that is varied, which each cell names itself."""
    left_out = () if vary is None else (vary[0],)
    shared = {name: value for name, value in asdict(settings).items() if name not in left_out}
    return shared | {"own": {name: value for name, value in settings.own.items() if name not in left_out}}


def compare_cell(
    folder: Path,
    model: str,
    data: str,
    budget: str,
    seed: int,
    split: str,
    images: int,
    scores: bool,
    device: str,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Train one model with one seed in ``folder`` and measure it: what one cell of the grid does.

    The settings are those of the whole recipe, so that a cell made by another recipe is never taken for this one.
    """
    changes = {name: value for name, value in settings.items() if name != "own"} | settings["own"]
    train(model, data, budget, folder, seed=seed, device=device, resume=True, progress=False, **changes)
    run = load_run(folder, device)
    training, held_out = (sequences(data, name, run.settings) for name in ("train", split))
    return {
        "model": model,
        "seed": seed,
        "device": run.config["device"],
        "seconds": run.history[-1]["seconds"],
        **measure_operators(model, run.model, run.settings, training, held_out.first(images), seed, scores),
    }


def measure_operators(
    name: str,
    model: VAE,
    settings: Recipe,
    training: Sequences,
    held_out: Sequences,
    seed: int = 0,
    scores: bool = True,
) -> dict[str, Any]:
    """Everything the comparison measures of one trained model.

    Args:
        name: of :data:`recipes.MODELS`.
        model: trained.
        settings: say how many images and samples the log-likelihood takes.
        training: operators are fitted to these, and to nothing else.
        held_out: measured.
        seed: of random start poses, and of the network behind the VP score.
        scores: measure likelihoods and VP scores too.

    Returns:
        "references" (no motion, median frame, reconstruction floor) and "operators", each with the equivariance error
        of every k; with ``scores`` also each operator's "prediction", nats a frame, and "vp_score", and the model's
        "reconstruction", nats a frame; and "index_accuracy" of a model that infers k.
    """
    latents = training_latents(model, training, seed=seed)
    movers = {operator: moved_by(model, fit_operator(operator, model, training, latents)) for operator in OPERATORS}
    if name in TRANSPORTS:
        movers[TRANSPORTS[name]] = model
    references = {
        "no_motion": no_motion,
        "median_frame": MedianFrame(
            training, images=min(2000, settings.test_images), generator=torch.Generator().manual_seed(seed)
        ),
        "reconstruction_floor": partial(autoencode, model),
    }
    predictors = {operator: partial(predict, moved) for operator, moved in movers.items()}
    errors = equivariance_errors({**references, **predictors}, held_out)
    operators = {}
    sizes = {"images": settings.likelihood_images, "samples": settings.samples}
    for operator, moved in movers.items():
        operators[operator] = {"equivariance_error": errors[operator]}
        if scores:
            operators[operator] |= {
                "prediction": log_likelihood(moved, held_out, estimates=["prediction"], **sizes).prediction,
                "vp_score": vp_score(*generated_pairs(predictors[operator], held_out), seeds=[seed]).mean,
            }
    result = {"references": {reference: errors[reference] for reference in references}, "operators": operators}
    if scores:
        measured = log_likelihood(model, held_out, estimates=["reconstruction"], **sizes)
        result["reconstruction"] = measured.reconstruction
    if isinstance(model, WeaklySupervisedVAE):
        result["index_accuracy"], _ = index_accuracy(model, held_out)
    return result


def step_costs(
    settings: dict[str, Recipe],
    training: Sequences,
    device: torch.device,
    rounds: int = 20,
    progress: bool = False,
) -> dict[str, float]:
    """Median milliseconds of one training step of each model, taken in turns so that a busy machine slows all alike.

    Args:
        settings: model name ↦ recipe.
        training: what the steps draw from.
        device: where.
        rounds: steps of each model, after one that is not counted.
        progress: show a bar.
    """
    from tqdm.auto import tqdm

    form = training.image_shape, len(training.names)
    models = {name: build_model(name, chosen, *form).to(device).train() for name, chosen in settings.items()}
    optimizers = {name: torch.optim.Adam(model.parameters()) for name, model in models.items()}
    taken: dict[str, list[float]] = {name: [] for name in models}
    for step in tqdm(range(rounds + 1), disable=not progress, desc="cost of a step", leave=False):
        for name, model in models.items():
            sample_batch(model, training, settings[name], step_generator(0, step, "data"))  # a scene remembers it
            began = time.perf_counter()
            batch = sample_batch(model, training, settings[name], step_generator(0, step, "data")).to(device)
            loss = model.terms(batch, step_generator(0, step, "noise", device)).loss
            optimizers[name].zero_grad()
            loss.backward()
            optimizers[name].step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            taken[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(values[1:]) for name, values in taken.items()}
