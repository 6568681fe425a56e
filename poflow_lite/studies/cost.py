"""Cost: time and memory of a training step against each size, and training until an error is reached.

The cosine takes the learning rate of a training to 0 in its own number of steps, so the error falls late and a point on
the curve of a longer training says nothing of a shorter one: each number of steps is a training of its own. Trainings
side by side slow one another; their seconds are steps × the median time of a step, measured when nothing else runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, Locator, LogLocator, NullLocator

from poflow_lite import plotting
from poflow_lite.experiments import load_run, recipe, sequences, train_recipe, validation_errors
from poflow_lite.io import machine, require_known
from poflow_lite.settings import Count, Flag, Positive, Seed
from poflow_lite.studies import comparison
from poflow_lite.studies import cost_measures as measures
from poflow_lite.studies.cost_measures import AXES
from poflow_lite.studies.study import Study
from poflow_lite.training import resolve_device

LEADING = "free-flow"
"""The model that others are shown beside."""
Result = Mapping[str, Any]
Cells = dict[str, dict[str, Any]]


def cells(
    data: str = "digits",
    budget: str = "lecture",
    models: Sequence[str] = comparison.MODELS_COMPARED,
    sized: Sequence[str] = ("vae", "free-flow", "flow-factorized"),
    axes: Sequence[str] = tuple(AXES),
    seeds: Sequence[Seed] = (0,),
    steps: Sequence[Count] = (125, 250, 500, 1000, 2000),
    thresholds: Sequence[Positive] = (0.5, 0.35, 0.25),
    images: Count = 100,
    rounds: Count = 7,
    memory: Flag = True,
    device: str = "auto",
    changes: Mapping[str, Any] | None = None,
) -> Cells:
    """Cells of memory, one for each size, and of training, one for each model, number of steps and seed.

    Args:
        data, budget, changes: name the recipe, and what differs from it in all models.
        models: of :data:`experiments.MODELS`, trained until they reach errors.
        sized: those whose steps are measured against each size.
        axes: sizes of :data:`cost_measures.AXES`.
        seeds, steps: of the trainings.
        thresholds: errors to be reached, as shares of that of no motion.
        images: of the validation split, on which errors are measured, at most.
        rounds: repetitions of each timing.
        memory: measure memory too, always on the CPU, which takes a few seconds for each model and value.
        device: "auto", "cpu" or "cuda", for times and training.
    """
    if not (models and sized and axes and steps) or "steps" in (changes or {}):
        raise ValueError(
            "costs need models, sized ones, axes and numbers of steps, which are no change of the recipe, "
            f"got {list(models)}, {list(sized)}, {list(axes)} and {list(steps)}"
        )
    recipe_of = {"data": data, "budget": budget, **(changes or {})}
    for axis in axes:
        require_known("axis", axis, AXES)
        for model, value in product(sized, AXES[axis]):  # what does not fit a model fails now
            measures.on_noise(model, *measures.settings_at(model, axis, value, **recipe_of), torch.device("cpu"))
    for model in models:
        measures.on_noise(model, recipe(model=model, **recipe_of), measures.STANDARD_K, torch.device("cpu"))
    sequences(data, "train", recipe(model=models[0], **recipe_of))  # and data that are missing are missed
    found = _against("memory", sized, axes if memory else (), recipe_of)
    for model, count, seed in product(models, steps, seeds):
        place = {"kind": "training", "model": model, "steps": count, "seed": seed, "images": images}
        found[f"{model}-steps-{count}-seed-{seed}"] = {**place, "device": device, "recipe_of": recipe_of}
    return found


def alone(
    models: Sequence[str], sized: Sequence[str], axes: Sequence[str], rounds: int, device: str, **settings: Any
) -> Cells:
    """Cells of time: one for each size, on noise, and one of the recipe's own step, on the data."""
    recipe_of = {"data": settings["data"], "budget": settings["budget"], **(settings["changes"] or {})}
    parts = "flow-factorized" in sized
    times = _against("time", sized, axes, recipe_of, rounds=rounds, parts=parts, device=device)
    whole = comparison.alone(models=models, device=device, vary=None, **settings)
    return times | {name: {"kind": "recipe", **cell} for name, cell in whole.items()}


def _against(
    kind: str, models: Sequence[str], axes: Sequence[str], recipe_of: Mapping[str, Any], **options: Any
) -> Cells:
    """A cell for each size. It names its machine and recipe so that what others gave is not taken for it."""
    facts = {"machine": machine(resolve_device(options.get("device", "cpu")))}
    facts["reference"] = asdict(recipe(model=models[0], **recipe_of)) | {"transformations": measures.STANDARD_K}
    shared = {"kind": kind, "models": list(models), "options": {**options, **recipe_of}, **facts}
    return {f"{kind}-{axis}": {"axis": axis, "values": list(AXES[axis]), **shared} for axis in axes}


def measure(folder: Path, kind: str, **arguments: Any) -> dict[str, Any]:
    """Measure a cell: "time" or "memory" of a step against a size, time of the "recipe"'s own step, or a "training"."""
    if kind in ("time", "memory"):
        place = (arguments[name] for name in ("models", "axis", "values"))
        return (measures.step_times if kind == "time" else measures.step_memory)(*place, **arguments["options"])
    return (comparison.measure if kind == "recipe" else _training)(folder, **arguments)


def _training(
    folder: Path, model: str, steps: int, seed: int, images: int, device: str, recipe_of: Mapping[str, Any]
) -> dict[str, Any]:
    how = {"steps": steps, "seed": seed, "device": device, "resume": True, "progress": False}
    run = load_run(train_recipe(model, out=folder, **recipe_of, **how), device)
    training, held_out = (sequences(recipe_of["data"], split, run.settings) for split in ("train", "validation"))
    return {
        "data_set": f"{held_out.name}, {images:,} measured at most",
        "errors": validation_errors(run.model, training, held_out.first(images)),
        "seconds": run.history[-1]["seconds"],
        "machine": run.config["device"],
    }


# --- what people read ---------------------------------------------------------------------------------------------

_UNITS = {"time": "ms a step", "memory": "MiB beyond the weights"}


def _of(result: Result, *kinds: str) -> list[Mapping[str, Any]]:
    return [cell for kind in kinds for cell in result["cells"] if cell["kind"] == kind]


def mean_errors(result: Result) -> dict[str, tuple[float, dict[int, float]]]:
    """Model ↦ milliseconds of a step, and number of steps ↦ error averaged over seeds, where no seed is missing.

    The error is that of the operator with the least mean, on the validation images.
    """
    lines = [
        [cell["model"], cell["steps"], cell["seed"], operator, error]
        for cell in _of(result, "training")
        for operator, error in cell["errors"].items()
    ]
    found = pd.DataFrame(lines, columns=["model", "steps", "seed", "operator", "error"])
    least = {}
    for model, own in found.groupby("model"):
        seeds = own.pivot(index=["steps", "operator"], columns="seed", values="error").dropna()
        least[model] = seeds.mean(axis=1).groupby("steps").min().to_dict()
    times = next((cell["milliseconds"] for cell in _of(result, "recipe")), {})
    return {model: (times[model], least[model]) for model in times if model in least}


def table(result: Result) -> pd.DataFrame:
    """Time and memory of each model and part against each size, and what it takes to reach each threshold."""
    lines, thresholds = [], result["settings"]["thresholds"]
    for cell in _of(result, "time", "memory"):
        for name, curve in cell["curves"].items():
            slope, low, high = map(_two_digits, (curve["exponent"] or dict.fromkeys(("slope", "low", "high"))).values())
            lines.append({
                "measured": _UNITS[cell["kind"]], "against": cell["axis"].replace("_", " "), "model": name,
                "at": ", ".join(map(str, cell["values"])), "found": ", ".join(f"{x:.4g}" for x in curve["measured"]),
                "exponent": slope if low == high else f"{slope} ({low} to {high})",
                "formula": _two_digits(cell["formula"].get(name, {}).get("exponent")),
            })  # fmt: skip
    for model, (milliseconds, errors) in mean_errors(result).items():
        needed = [next((steps for steps, error in errors.items() if error <= mark), None) for mark in thresholds]
        texts = ["never" if steps is None else f"{steps * milliseconds / 1e3:.1f} ({steps:,})" for steps in needed]
        line = {"measured": f"s of training (steps of {milliseconds:.1f} ms)", "against": "error ÷ no motion"}
        at = ", ".join(f"{threshold:g}" for threshold in thresholds)
        lines.append({**line, "model": model, "at": at, "found": ", ".join(texts)})
    return pd.DataFrame(lines).fillna("")


def _two_digits(exponent: float | None) -> str:
    return "" if exponent is None else f"{round(exponent, 2) + 0.0:.2f}"  # without the sign of -0.00


def notes(result: Result) -> list[str]:
    """At which sizes was measured, and what errors are those of."""
    said = []
    for cell in _of(result, "time", "memory")[:1]:
        names = (*AXES, "frames", "width", "channels", "steps")
        sizes = ", ".join(f"{name} {cell['reference'][name]}" for name in names)
        said.append(
            f"Times and memory: {cell['machine']}; noise, {sizes} but for the one varied; medians of repetitions in "
            "turns. Exponent: slope of log time on log size at the three largest (95 % of bootstrap). Formula: that of "
            "its multiplications."
        )
    for cell in _of(result, "training")[:1]:
        said.append(
            f"Errors: {cell['data_set']}, by the operator with the least one there (ridge map, own motion), "
            f"mean over k and over seeds {result['settings']['seeds']}, each number of steps with its own schedule. "
            "Seconds: steps × the median time of a step of the recipe, measured alone."
        )
    return said


def figure(result: Result) -> Figure:
    """Time and memory of a step against each size, log-log, and the error of trainings against their seconds.

    At most four lines a panel. The transport of the flow-factorized VAE is black; a dashed line through its last point
    has the exponent of the formula. The model that leads is in every panel of errors, with three others.
    """
    panels, settings, found = _of(result, "time", "memory"), result["settings"], mean_errors(result)
    others = [model for model in found if model != LEADING]
    groups = [others[i : i + 3] for i in range(0, len(others), 3)]
    rows = -(-(len(panels) + len(groups)) // 3)
    fig, axes = plotting.figure(11.5, 2.9 * rows, rows, 3, squeeze=False)
    free = list(axes.flat)
    for cell in panels:
        _draw_size(free.pop(0), cell)
    for group in groups:
        axis = free.pop(0)
        for model in [*group, *([LEADING] if LEADING in found else [])]:
            milliseconds, errors = found[model]
            seconds = [steps * milliseconds / 1e3 for steps in errors]
            axis.plot(seconds, list(errors.values()), label=model, **_style(model, group))
        for threshold in settings["thresholds"]:
            axis.axhline(threshold, color="0.5", linewidth=0.7, linestyle=":", zorder=0)
        axis.set(xscale="log", xlabel="seconds of training", ylabel="error ÷ no motion", ylim=(0, None))
        axis.legend(frameon=False, fontsize=8)
        _plain_ticks(axis.xaxis)
    for axis in free:
        axis.set_visible(False)
    fig.suptitle(f"What a step costs, and what seconds buy: {settings['data']}, {settings['budget']}", fontsize=11)
    return fig


def _draw_size(axis: Axes, cell: Mapping[str, Any]) -> None:
    """One panel: time or memory of each model, and the transport with its formula, against one size."""
    sizes = np.array(cell["values"])
    shown = {name: curve["measured"] for name, curve in cell["curves"].items() if name != measures.NETWORKS}
    for name, measured in shown.items():
        axis.plot(sizes, measured, label=name, **_style(name, list(shown)))
    axis.set(xscale="log", yscale="log", xlabel=cell["axis"].replace("_", " "), ylabel=_UNITS[cell["kind"]])
    low, high = axis.get_ylim()
    axis.set_ylim(low / 1.3, high * 1.3)  # a steep formula is cut off, not the measurement squeezed
    if formula := cell["formula"].get(measures.TRANSPORT):
        slope = (sizes / sizes[-1]) ** formula["exponent"]
        axis.plot(sizes, shown[measures.TRANSPORT][-1] * slope, "k--", linewidth=0.8, label="formula")
    axis.legend(frameon=False, fontsize=7)
    _plain_ticks(axis.xaxis, FixedLocator(sizes))
    _plain_ticks(axis.yaxis)


def _style(name: str, among: Sequence[str]) -> dict[str, Any]:
    """The model that leads in the strongest colour, the others by their place, the transport black."""
    if name == measures.TRANSPORT:
        return {"color": "black", "marker": "d", "markersize": 4}
    if name == LEADING:
        return {"color": plotting.COLORS[1], "marker": "o", "markersize": 5, "linewidth": 2.2, "zorder": 3}
    i = [model for model in among if model != LEADING].index(name)
    return {"color": plotting.COLORS[(0, 2, 4)[i % 3]], "marker": plotting.MARKERS[1 + i % 7], "markersize": 4}


def _plain_ticks(axis: Axis, places: Locator | None = None) -> None:
    """Plain numbers on a logarithmic axis, by default at 1, 2, 5, 10, …."""
    axis.set_major_locator(places or LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


SMOKE = {"steps": (2, 4), "images": 4, "rounds": 1, "axes": ("horizon",), "memory": False}
STUDY = Study("cost", cells, measure, table, figure, notes, alone, smoke=SMOKE)
