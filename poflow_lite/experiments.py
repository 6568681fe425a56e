"""Runs: training a model by its recipe into a folder, loading and evaluating what lies in one."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from poflow_lite.checkpoints import load_checkpoint, prepare_folder, save_checkpoint, write_atomically, write_json
from poflow_lite.datasets import Batch, Sequences, transformation_names
from poflow_lite.metrics import (
    MedianFrame,
    autoencode,
    equivariance_errors,
    index_accuracy,
    log_likelihood,
    no_motion,
    predict,
    smallest_eigenvalue,
)
from poflow_lite.models import VAE, FlowFactorizedVAE, WeaklySupervisedVAE
from poflow_lite.provenance import command, machine, versions
from poflow_lite.recipes import BUDGETS, MODELS, Recipe, build_model, recipe, sequences
from poflow_lite.training import Schedule, fit, load_weights, resolve_device

__all__ = [
    "BUDGETS",
    "MODELS",
    "Recipe",
    "Run",
    "build_model",
    "evaluate",
    "kl_tradeoff",
    "load_run",
    "recipe",
    "sample_batch",
    "sequences",
    "train",
]

CHECKPOINT, CONFIG, METRICS = "checkpoint.safetensors", "config.json", "metrics.json"


def train(
    model: str,
    data: str,
    budget: str,
    out: str | Path,
    *,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    **changes: Any,
) -> Path:
    """Train a model and leave ``config.json`` and ``checkpoint.safetensors`` in ``out``.

    Args:
        model, data, budget: names, see :data:`MODELS`, :data:`poflow_lite.datasets.DATASETS`, :data:`BUDGETS`.
        out: folder of the run.
        seed: of weights and every draw.
        device: "auto", "cpu" or "cuda".
        resume: continue an interrupted run with the same settings.
        overwrite: replace a run that is there.
        changes: fields of :class:`Recipe`, or options of the model, that differ from the budget's.

    Raises:
        ValueError, FileNotFoundError, OSError: each says what came, what was expected and what to do.
    """
    settings = recipe(data, budget, model, **changes)
    chosen = resolve_device(device)
    training = sequences(data, "train", settings)
    built = build_model(model, settings, training.image_shape, len(training.names), seed)
    folder = prepare_folder(out)
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists() and not (resume or overwrite):
        raise ValueError(
            f"{folder} already holds a run: add --resume to continue it, or choose another folder with --out"
        )
    if overwrite:
        for name in (CHECKPOINT, METRICS):
            (folder / name).unlink(missing_ok=True)
    run = json.loads(json.dumps({"model": model, "data": data, "budget": budget, "seed": seed, **asdict(settings)}))
    notes = {"data_set": training.name, "device": machine(chosen), "versions": versions(), "command": command()}
    if not checkpoint.exists():
        write_json(folder / CONFIG, {**run, **notes})
    if progress:
        print(f"{model}, budget {budget}, seed {seed}, on {training.name}, {notes['device']}")
    fit(
        built,
        partial(sample_batch, built, training, settings),
        Schedule(settings.steps, settings.learning_rate),
        seed=seed,
        device=chosen,
        checkpoint=checkpoint,
        run=run,
        notes=notes,
        resume=resume,
        progress=progress,
    )
    if isinstance(built, WeaklySupervisedVAE):
        _, matching = index_accuracy(built, training.first(500), seed=seed)
        built.reorder(matching)
        save_checkpoint(checkpoint, built, load_checkpoint(checkpoint).metadata)
    return folder


def sample_batch(model: VAE, training: Sequences, settings: Recipe, generator: torch.Generator) -> Batch:
    """What one training step of a model sees: some frames of some sequences, neighbours where it asks for them."""
    consecutive = getattr(model, "consecutive", False)
    return training.sample(settings.batch_size, settings.frames, generator, consecutive)


@dataclass
class Run:
    """A trained model with its configuration and training history."""

    model: VAE
    settings: Recipe
    config: dict[str, Any]
    history: list[dict[str, float]]


def load_run(place: str | Path, device: str = "auto") -> Run:
    """Load what :func:`train` left in a folder, or a checkpoint by the path of its file.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if its checkpoint is damaged, foreign, unfinished or does not fit the configuration.
    """
    path = Path(place) if Path(place).is_file() else Path(place) / CHECKPOINT
    saved = load_checkpoint(path)
    run = saved.metadata["run"]
    lacking = [name for name in Recipe.__dataclass_fields__ if name not in run]
    if lacking:
        raise ValueError(
            f"{path} was made by another version of this package ({', '.join(lacking)} missing): train again"
        )
    fields = {name: run[name] for name in Recipe.__dataclass_fields__}
    settings = Recipe(**fields | {name: tuple(fields[name]) for name in ("channels", "left_out")})
    if saved.metadata["step"] < settings.steps:
        raise ValueError(
            f"{path} stopped at step {saved.metadata['step']} of {settings.steps}: "
            "finish it with `poflow-lite train --resume`"
        )
    image_shape, transformations = (3, settings.pixels, settings.pixels), len(transformation_names(run["data"]))
    model = build_model(run["model"], settings, image_shape, transformations, run["seed"])
    load_weights(model, saved.model, path)
    config = {**run, **saved.metadata["notes"]}
    return Run(model.to(resolve_device(device)).eval(), settings, config, saved.metadata["history"])


def evaluate(
    folder: str | Path, *, device: str = "auto", split: str = "test", progress: bool = True, pictures: bool = True
) -> dict[str, Any]:
    """Measure the run in ``folder`` and write ``metrics.json`` and the pictures of :func:`save_pictures` into it.

    Args:
        folder: of a finished run.
        split: "test" for figures that are reported, "validation" for choices.
        pictures: write the pictures too.

    Returns:
        The content of ``metrics.json``: errors in L1 pixel intensities summed over frames, likelihoods in nats a frame.
    """
    run = load_run(folder, device)
    folder = prepare_folder(folder)
    began = time.perf_counter()
    settings = run.settings
    training, held_out = (sequences(run.config["data"], name, settings) for name in ("train", split))
    measured = held_out.first(settings.test_images)
    poses = torch.Generator().manual_seed(run.config["seed"])
    errors = equivariance_errors(
        {
            "equivariance_error": partial(predict, run.model),
            "no_motion": no_motion,
            "median_frame": MedianFrame(training, images=min(2000, settings.test_images), generator=poses),
            "reconstruction_floor": partial(autoencode, run.model),
        },
        measured,
        progress=progress,
    )
    likelihood = log_likelihood(
        run.model, measured, images=settings.likelihood_images, samples=settings.samples, progress=progress
    )
    metrics = {
        **{name: run.config[name] for name in ("model", "data", "budget", "seed", "device", "versions")},
        "data_set": f"{held_out.name}, {len(measured):,} measured",
        "command": run.config["command"],
        "seconds": {"train": run.history[-1]["seconds"], "evaluate": time.perf_counter() - began},
        **errors,
        "ratio_to_no_motion": {k: errors["equivariance_error"][k] / errors["no_motion"][k] for k in held_out.names},
        "log_likelihood": asdict(likelihood),
        "settings": {name: run.config[name] for name in Recipe.__dataclass_fields__},
    }
    if isinstance(run.model, FlowFactorizedVAE):
        batch = measured.sample(min(64, len(measured)), generator=torch.Generator().manual_seed(0))
        metrics["smallest_eigenvalue"] = smallest_eigenvalue(run.model, batch)
        metrics["diffusion"] = dict(zip(held_out.names, run.model.prior.diffusion.tolist(), strict=True))
    if isinstance(run.model, WeaklySupervisedVAE):
        metrics["index_accuracy"], _ = index_accuracy(run.model, measured)
    if pictures:
        save_pictures(run.model, measured, folder, f"{run.config['model']} on {held_out.name}")
    write_json(folder / METRICS, metrics)
    return metrics


def save_pictures(model: VAE, held_out: Sequences, folder: Path, title: str) -> None:
    """Write three pictures of a model into a folder.

    ``filmstrip.png`` has true over predicted frames of one image under each k, ``motion.gif`` the same moving, a column
    for each k, and ``traversal.gif`` predictions for several images, a row for each k.
    """
    from poflow_lite import plotting

    transformations = torch.arange(len(held_out.names))
    generator = torch.Generator().manual_seed(0)
    batch = held_out.batch(torch.zeros(len(transformations), dtype=torch.long), transformations, generator=generator)
    predicted, scale = predict(model, batch), max(1, 128 // held_out.image_shape[-1])
    strip = plotting.filmstrip(batch.frames, predicted, held_out.names, title)
    write_atomically(folder / "filmstrip.png", lambda path: strip.savefig(path, dpi=150, format="png"))
    moving = plotting.gif(torch.stack([batch.frames, predicted]), scale=scale)
    write_atomically(folder / "motion.gif", lambda path: path.write_bytes(moving))

    images = torch.arange(min(6, len(held_out))).repeat_interleave(len(transformations))
    batch = held_out.batch(images, transformations.repeat(len(images) // len(transformations)), generator=generator)
    grid = plotting.gif(predict(model, batch).unflatten(0, (-1, len(transformations))).transpose(0, 1), scale=scale)
    write_atomically(folder / "traversal.gif", lambda path: path.write_bytes(grid))


def kl_tradeoff(
    data: str,
    budget: str,
    weights: Sequence[float],
    out: str | Path,
    *,
    seeds: Sequence[int] = (0,),
    device: str = "auto",
    progress: bool = True,
) -> dict[str, Any]:
    """Train one flow-factorized VAE for each KL weight β and seed; write ``tradeoff.json`` and ``tradeoff.png``.

    Measured on the validation split, because β is chosen from it. A cell that is done is not run again.

    Args:
        data, budget: as for :func:`train`.
        weights: values of β.
        out: folder; each cell gets one of its own inside.
        seeds: of the runs.

    Returns:
        ``{"data_set", "command", "versions", "device", "cells": [...]}``; a cell has β, seed and what was measured.
    """
    folder = prepare_folder(out)
    cells = []
    for beta in weights:
        for seed in seeds:
            place = folder / f"beta-{beta:g}-seed-{seed}"
            if not (place / METRICS).exists():
                options = {"seed": seed, "device": device, "progress": progress}
                train("flow-factorized", data, budget, place, resume=True, beta=beta, **options)
                evaluate(place, device=device, split="validation", progress=progress, pictures=False)
            metrics = json.loads((place / METRICS).read_text(encoding="utf-8"))
            kept = ("equivariance_error", "ratio_to_no_motion", "reconstruction_floor", "log_likelihood", "seconds")
            cells.append({"kl_weight": beta, "seed": seed, **{name: metrics[name] for name in kept}})
    common = ("data_set", "budget", "device", "versions")
    result = {**{name: metrics[name] for name in common}, "command": command(), "cells": cells}
    from poflow_lite import plotting

    figure = plotting.tradeoff_curves(cells, f"{metrics['data_set']}, budget {budget}")
    write_atomically(folder / "tradeoff.png", lambda path: figure.savefig(path, dpi=150, format="png"))
    write_json(folder / "tradeoff.json", result)
    return result
