"""Full: long trainings for a GPU, each with its checkpoint, pictures and figures, beside what a laptop reaches."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from poflow_lite import plotting
from poflow_lite.experiments import build_model, evaluate_run, recipe, sequences, train_recipe
from poflow_lite.settings import Count, Seed
from poflow_lite.studies.study import Study, mean_and_spread
from poflow_lite.training import resolve_device


def cells(
    data: Sequence[str] = ("mnist", "shapes3d-lite"),
    models: Sequence[str] = ("free-flow",),
    seeds: Sequence[Seed] = (0,),
    budget: str = "full",
    images: Count = 10_000,
    device: str = "auto",
    changes: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """A cell for each data set, model and seed; its folder holds the checkpoint and the pictures.

    Args:
        data: of :data:`datasets.DATASETS`.
        models: of :data:`experiments.MODELS`.
        seeds: of the runs.
        budget: of :data:`experiments.BUDGETS`.
        images: test images that are measured, at most.
        device: "auto", "cpu" or "cuda".
        changes: settings that differ from the budget's recipe, in all models.
    """
    resolve_device(device)
    grid = {}
    for seed, name, model in itertools.product(seeds, data, models):
        settings = recipe(name, budget, model, **{**(changes or {}), "test_images": images})
        training = sequences(name, "train", settings)
        build_model(model, settings, training.image_shape, len(training.names))  # options that do not fit fail now
        whole = {key: value for key, value in asdict(settings).items() if key != "options"} | settings.options
        common = {"budget": budget, "device": device, "settings": whole}
        grid[f"{name}-{model}-seed-{seed}"] = {"data": name, "model": model, "seed": seed, **common}
    return grid


def measure(
    folder: Path, data: str, model: str, seed: int, budget: str, device: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Train, or go on where an interrupted training stopped; then what :func:`experiments.evaluate_run` writes."""
    how = {"seed": seed, "device": device, "resume": True, "progress": False}
    found = evaluate_run(train_recipe(model, data, budget, folder, **how, **settings), device=device, progress=False)
    return {name: value for name, value in found.items() if name not in ("model", "data", "seed", "budget", "settings")}


def _groups(result: Mapping[str, Any]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for cell in result["cells"]:
        found.setdefault((cell["data"], cell["model"]), []).append(cell)
    return found


def table(result: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each data set and model: error ÷ no motion of each transformation, likelihood, minutes of training."""
    lines = []
    for (data, model), runs in _groups(result).items():
        ratios = {
            k: mean_and_spread([run["ratio_to_no_motion"][k] for run in runs], ".3f")
            for k in runs[0]["ratio_to_no_motion"]
        }
        sequence = mean_and_spread([(run["log_likelihood"] or {}).get("sequence") for run in runs], ".1f")
        minutes = mean_and_spread([run["seconds"]["train"] / 60 for run in runs], ".1f")
        errors = ", ".join(f"{k} {text}" for k, text in ratios.items())
        row = {"data": data, "model": model, "error ÷ no motion": errors}
        lines.append(row | {"nats a frame": sequence, "minutes": minutes})
    return pd.DataFrame(lines)


def notes(result: Mapping[str, Any]) -> list[str]:
    """What was measured, where."""
    said = [f"{cell['data_set']}, {cell['device']}, {cell['settings']['steps']:,} steps." for cell in result["cells"]]
    return [" ".join(dict.fromkeys(said)), "Likelihood of whole sequences, in nats a frame under N(x̂, I)."]


def figure(result: Mapping[str, Any]) -> Figure:
    """One panel for each data set and model: error ÷ no motion, beside coding alone, mean over seeds."""
    groups = _groups(result)
    fig, axes = plotting.figure(3.4 * len(groups), 2.8, 1, len(groups), squeeze=False)
    for ((data, model), runs), axis in zip(groups.items(), axes.flat, strict=True):
        names = list(runs[0]["no_motion"])
        for name, marker, color in (
            ("equivariance_error", "o", plotting.COLORS[1]),
            ("reconstruction_floor", "|", "0.35"),
        ):
            means = [sum(run[name][k] / run["no_motion"][k] for run in runs) / len(runs) for k in names]
            axis.plot(means, range(len(names)), linestyle="none", marker=marker, color=color, markersize=8)
        axis.set(xlabel="error ÷ no motion", yticks=range(len(names)), yticklabels=names, title=f"{data}, {model}")
        axis.set_xlim(left=0)
        axis.invert_yaxis()
    return fig


SMOKE = {"data": ("digits",), "images": 8}
STUDY = Study("full", cells, measure, table, figure, notes, smoke=SMOKE)
