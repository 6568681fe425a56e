"""The study of costs: times and memory of a step against each size beside the formula, and seconds to an error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from poflow_lite.checkpoints import prepare_folder, write_atomically, write_json
from poflow_lite.errors import require_known
from poflow_lite.grid import run_grid
from poflow_lite.provenance import command, machine, versions
from poflow_lite.recipes import MODELS, Recipe, build_model, recipe, sequences
from poflow_lite.studies.costs import AXES, fit_exponent, peak_memory, settings_at, step_time
from poflow_lite.studies.markdown import markdown_table, origin
from poflow_lite.studies.time_to_error import STEPS, THRESHOLDS, require_budgets, time_to_error
from poflow_lite.training import resolve_device

__all__ = ["cost_table", "study_costs"]


def study_costs(
    data: str,
    out: str | Path,
    *,
    budget: str = "lecture",
    axes: Sequence[str] | Mapping[str, Sequence[int]] = tuple(AXES),
    models: Sequence[str] = tuple(MODELS),
    seeds: Sequence[int] = (0,),
    steps: Sequence[int] = STEPS,
    thresholds: Sequence[float] = THRESHOLDS,
    images: int = 100,
    rounds: int = 7,
    memory: bool = True,
    jobs: int = 1,
    backend: str = "loky",
    device: str = "auto",
    progress: bool = True,
    **changes: Any,
) -> dict[str, Any]:
    """Measure all costs of all models and write ``costs.json``, ``costs.md`` and ``costs.png`` into ``out``.

    First the times, while this process is alone; then memory, each model and value in a process of its own; then the
    trainings. What is done is kept in folders inside and not done again, so that an interrupted study goes on.

    Args:
        data, budget: name the recipe; times and memory are measured on noise of its size, see :mod:`costs`.
        out: folder.
        axes: of :data:`costs.AXES`, with their values there or with others.
        models: of :data:`recipes.MODELS`.
        seeds, steps, thresholds, images: as for :func:`time_to_error.time_to_error`.
        rounds: repetitions of each timing.
        memory: measure memory too, which takes a few seconds for each model and value; always on the CPU.
        jobs, backend: cells of memory and training that run at once; times are measured one after another.
        device: "auto", "cpu" or "cuda", for times and training.
        progress: show bars.
        changes: settings that differ from the recipe, in all models.

    Returns:
        The content of ``costs.json``: where it comes from, "times" and "memory" by axis, "training", and "failed".

    Raises:
        ValueError, FileNotFoundError: for a mistake in the arguments, before anything is measured.
    """
    for axis in axes:
        require_known("axis", axis, AXES)
    values = {axis: tuple(axes[axis] if isinstance(axes, Mapping) else AXES[axis]) for axis in axes}
    require_budgets(steps, thresholds, images)
    places = _places(values, models, data, budget, changes)
    sequences(data, "train", recipe(data, budget, models[0], **changes))  # data that are missing are missed now
    folder, chosen = prepare_folder(out), resolve_device(device)
    common = {"data": data, "budget": budget, "changes": changes}
    where = {"threads": torch.get_num_threads(), "device": str(chosen)}
    cells = {
        axis: {"axis": axis, "values": values[axis], "models": list(models), "rounds": rounds, **where, **common}
        for axis in values
    }
    times, failed = run_grid(_time_cell, cells, folder / "times", progress=progress)
    grid = {"jobs": jobs, "backend": backend, "progress": progress}
    needed, missed = _memory(places, values, models, folder / "memory", grid) if memory else ({}, {})
    training = time_to_error(
        models, data, folder / "training", budget=budget, steps=steps, seeds=seeds, thresholds=thresholds,
        images=images, device=device, **grid, **changes,
    )  # fmt: skip
    result = {
        "command": command(),
        "versions": versions(),
        "device": machine(chosen),
        "budget": budget,
        "reference": asdict(recipe(data, budget, models[0], **changes)) | {"transformations": 3},
        "times": times,
        "memory": needed,
        "training": training,
        "failed": failed | missed | training.pop("failed"),
    }
    result = json.loads(json.dumps(result))  # as in the file: tuples have become lists
    _write(folder, result)
    return result


def _places(
    values: Mapping[str, Sequence[int]], models: Sequence[str], data: str, budget: str, changes: Mapping[str, Any]
) -> dict[tuple[str, str, int], tuple[Recipe, int]]:
    """Recipe and K of each (model, axis, value); a value that does not fit a model is refused, named."""
    if not models or not values:
        raise ValueError("name at least one model and one axis")
    places = {}
    for model in models:
        for axis, several in values.items():
            for value in several:
                settings, count = settings_at(model, axis, value, data, budget, **changes)
                try:
                    build_model(model, settings, (3, settings.pixels, settings.pixels), count)
                except ValueError as error:
                    raise ValueError(f"{model} cannot be built with {axis} = {value}: {error}") from None
                places[model, axis, value] = settings, count
    return places


def _time_cell(
    folder: Path,
    axis: str,
    values: Sequence[int],
    models: Sequence[str],
    data: str,
    budget: str,
    changes: dict[str, Any],
    rounds: int,
    threads: int,
    device: str,
) -> dict[str, Any]:
    """All steps against one size. The number of threads is an argument so that a cell of another is not taken."""
    options = {"data": data, "budget": budget, "rounds": rounds, "device": device, "parts": "flow-factorized" in models}
    return step_time(models, axis, values, **options, **changes).as_dict()


def _memory_cell(folder: Path, model: str, settings: dict[str, Any], transformations: int) -> dict[str, Any]:
    return {"mebibytes": peak_memory(model, Recipe(**settings), transformations)}


def _memory(
    places: Mapping[tuple[str, str, int], tuple[Recipe, int]],
    values: Mapping[str, Sequence[int]],
    models: Sequence[str],
    out: Path,
    grid: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, str]]:
    """By axis, the MiB of each model whose cells are all done, with exponents where all are positive; what failed."""
    cells = {
        f"{model}-{axis}-{value}": {"model": model, "settings": asdict(settings), "transformations": count}
        for (model, axis, value), (settings, count) in places.items()
    }
    done, failed = run_grid(_memory_cell, cells, out, **grid)
    found: dict[str, Any] = {}
    for axis, several in values.items():
        found[axis] = {"axis": axis, "values": list(several), "curves": {}}
        for model in models:
            names = [f"{model}-{axis}-{value}" for value in several]
            if all(name in done for name in names):
                taken = [done[name]["mebibytes"] for name in names]
                exponent = fit_exponent(several, taken).slope if min(taken) > 0 else None
                found[axis]["curves"][model] = {"mebibytes": taken, "exponent": exponent}
    return found, failed


def _write(folder: Path, result: dict[str, Any]) -> None:
    from poflow_lite.studies import figures

    write_json(folder / "costs.json", result)
    table = cost_table(result)
    write_atomically(folder / "costs.md", lambda path: path.write_text(table, encoding="utf-8"))
    figure = figures.cost_panels(result, _title(result))
    write_atomically(folder / "costs.png", lambda path: figure.savefig(path, dpi=150, format="png"))


# --- what is shown ------------------------------------------------------------------------------------------------


def cost_table(result: Mapping[str, Any]) -> str:
    """Markdown of what :func:`study_costs` found: tables of times and memory for each axis, and of seconds."""
    parts = []
    for axis, found in result["times"].items():
        parts.append(f"Milliseconds of a training step against {axis}:")
        lines = []
        for name, curve in found["curves"].items():
            fitted, formula = curve["exponent"], found["formula"].get(name)
            slope, low, high = (_two_digits(fitted[part]) for part in ("slope", "low", "high"))
            expected = "" if formula is None else _two_digits(formula["exponent"])
            times = [f"{milliseconds:.1f}" for milliseconds in curve["milliseconds"]]
            lines.append([name, *times, f"{slope} ({low} to {high})", expected])
        parts.append(markdown_table(["", *map(str, found["values"]), "exponent", "formula"], lines))
    for axis, found in result["memory"].items():
        parts.append(f"MiB that a training step needs beyond the weights, against {axis}:")
        lines = [
            [name, *(f"{mib:.0f}" for mib in curve["mebibytes"]), _two_digits(curve["exponent"])]
            for name, curve in found["curves"].items()
        ]
        parts.append(markdown_table(["", *map(str, found["values"]), "exponent"], lines))
    parts += [_training_table(result["training"]), "\n".join(_foot(result))]
    return "\n\n".join(parts) + "\n"


def _two_digits(exponent: float | None) -> str:
    return "" if exponent is None else f"{round(exponent, 2) + 0.0:.2f}"  # without the sign of -0.00


def _training_table(training: Mapping[str, Any]) -> str:
    thresholds = list(dict.fromkeys(row["threshold"] for row in training["reached"]))
    lines = []
    for model, milliseconds in training["milliseconds"].items():
        reached = {row["threshold"]: row for row in training["reached"] if row["model"] == model}
        cells = [_reached(reached.get(threshold)) for threshold in thresholds]
        lines.append([model, f"{milliseconds:.1f}", *cells, f"{training['recipe_seconds'][model]:.1f}"])
    headings = ["", "ms a step", *(f"{threshold:g} × no motion" for threshold in thresholds), "the recipe's steps"]
    return "Seconds of training (and steps) until the error is below:\n\n" + markdown_table(headings, lines)


def _reached(row: Mapping[str, Any] | None) -> str:
    return "never" if row is None or row["steps"] is None else f"{row['seconds']:.1f} ({row['steps']:,})"


def _foot(result: Mapping[str, Any]) -> list[str]:
    training, reference = result["training"], result["reference"]
    seeds = sorted({cell["seed"] for cell in training["cells"]})
    budgets = sorted({cell["steps"] for cell in training["cells"]})
    sizes = ("latent", "horizon", "transformations", "batch_size", "pixels", "frames", "width", "channels")
    return [
        "Times and memory: noise images, sizes " + ", ".join(f"{name} {reference[name]}" for name in sizes) + " but "
        "for the one varied; medians of repetitions in turns. Exponent: slope of log time on log size at the three "
        "largest (95 % of bootstrap). Formula: the same slope of the number of multiplications.",
        f"Errors: {training['data_set']}, mean over k and over seeds {', '.join(map(str, seeds))}; trainings of "
        f"{', '.join(map(str, budgets))} steps, each with its own schedule, {training['jobs']} at once. Seconds: "
        f"steps × the median time of a step, measured afterwards with {training['threads']} threads.",
        f"Budget {result['budget']}. {origin(result, result['device'])}",
    ]


def _title(result: Mapping[str, Any]) -> str:
    seeds = sorted({str(cell["seed"]) for cell in result["training"]["cells"]})
    errors = f"errors on {result['training']['data_set']}, seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"
    return f"Times and memory on noise, {errors}; {result['device']}"
