"""Cost: time and memory of a training step against each size, and training until an error is reached.

The cosine takes the learning rate of a training to 0 in its own number of steps, so the error falls late and a point on
the curve of a longer training says nothing of a shorter one: each number of steps is a training of its own. Trainings
side by side slow one another; their seconds are steps × the median time of a step, measured when nothing else runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

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
    shown = held_out.first(images)
    return {
        "data_set": f"{held_out.name}, {len(shown):,} measured",
        "errors": validation_errors(run.model, training, shown),
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
        seeds = own.pivot(index=["steps", "operator"], columns="seed", values="error")
        seeds = seeds.reindex(columns=result["settings"]["seeds"]).dropna()
        least[model] = seeds.mean(axis=1).groupby("steps").min().to_dict()
    times = next((cell["milliseconds"] for cell in _of(result, "recipe")), {})
    return {model: (times[model], least[model]) for model in times if least.get(model)}


def scatter(result: Result, kind: str = "time") -> dict[str, float]:
    """Model or part ↦ largest ÷ smallest of what the recipe's own sizes gave, measured anew for each axis.

    Nothing but the moment differs, so a single number of the table may be off by as much.
    """
    found: dict[str, list[float]] = {}
    for cell in _at_the_recipe(result, kind):
        at = cell["values"].index(cell["reference"][cell["axis"]])
        for name, curve in cell["curves"].items():
            found.setdefault(name, []).append(curve["measured"][at])
    return {name: max(values) / min(values) for name, values in found.items() if len(values) > 1 and min(values) > 0}


def _at_the_recipe(result: Result, kind: str) -> list[Mapping[str, Any]]:
    return [cell for cell in _of(result, kind) if cell["reference"][cell["axis"]] in cell["values"]]


def table(result: Result) -> pd.DataFrame:
    """Time and memory of each model and part against each size, and what it takes to reach each threshold."""
    lines, thresholds = [], result["settings"]["thresholds"]
    for cell in _of(result, "time", "memory"):
        for name, curve in cell["curves"].items():
            slope, low, high = map(_exponent, (curve["exponent"] or dict.fromkeys(("slope", "low", "high"))).values())
            lines.append({
                "measured": _UNITS[cell["kind"]], "against": _plain(cell["axis"]), "model": name,
                "at": ", ".join(map(str, cell["values"])), "found": ", ".join(map(two_digits, curve["measured"])),
                "exponent": slope if low == high else f"{slope} ({low} to {high})",
                "formula": _exponent(cell["formula"].get(name, {}).get("exponent")),
            })  # fmt: skip
    for model, (milliseconds, errors) in mean_errors(result).items():
        needed = [next((steps for steps, error in errors.items() if error <= mark), None) for mark in thresholds]
        taken = (None if steps is None else f"{two_digits(steps * milliseconds / 1e3)} ({steps:,})" for steps in needed)
        line = {"measured": f"s of training (steps of {two_digits(milliseconds)} ms)", "against": "error ÷ no motion"}
        at = ", ".join(f"{threshold:g}" for threshold in thresholds)
        lines.append({**line, "model": model, "at": at, "found": ", ".join(text or "never" for text in taken)})
    return pd.DataFrame(lines).fillna("")


def two_digits(x: float) -> str:
    """A measurement that scatters, to two significant digits.

    >>> [two_digits(x) for x in (1851.2, 57.8, 1.04, 0.0519)]
    ['1900', '58', '1.0', '0.052']
    """
    return np.format_float_positional(x, precision=2, unique=False, fractional=False).rstrip(".")


def _exponent(exponent: float | None) -> str:
    return "" if exponent is None else f"{round(exponent, 2) + 0.0:.2f}"  # without the sign of -0.00


def _plain(axis: str) -> str:
    return axis.replace("_", " ")


def notes(result: Result) -> list[str]:
    """At which sizes was measured, by how much that scatters, and what errors are those of."""
    said, known = [], result["settings"]
    kinds = {cell["kind"]: cell for cell in _of(result, "memory", "time")}
    for cell in list(kinds.values())[-1:]:
        names = (*AXES, "frames", "width", "channels", "steps")
        sizes = ", ".join(f"{_plain(name)} {cell['reference'][name]}" for name in names)
        said.append(f"Times and memory: {cell['machine']}, on noise. All sizes but the one varied: {sizes}.")
        said.append(" ".join(_said_of_sizes(result, kinds)))
    for cell in _of(result, "training")[:1]:
        seeds = known["seeds"]
        how_many = f"{len(seeds)} trainings, seeds" if len(seeds) > 1 else "One training, seed"
        mean = " Errors are means over seeds." if len(seeds) > 1 else " So no spread is known."
        said.append(
            f"Errors: {cell['data_set']}; means over transformations. The operator with the least error on these same "
            "images moves a model: the ridge map, or its own motion."
        )
        said.append(
            f"{how_many} {', '.join(map(str, seeds))}, for each model and number of steps, with a schedule of its own."
            f"{mean} Seconds: steps × the median time of a step of the recipe, measured alone; steps in brackets."
        )
    return said


def _said_of_sizes(result: Result, kinds: Mapping[str, Any]) -> list[str]:
    """Sentences on how each kind was measured, on its scatter, and on the columns of exponents."""
    said, rounds = [], result["settings"]["rounds"]
    if "time" in kinds:
        said.append(f"Times: medians of {rounds} repetition{'s' * (rounds > 1)}, all in turns.")
    if "memory" in kinds:
        said.append("Memory: measured once.")
    if found := scatter(result):
        wholes, parts = ([r for name, r in found.items() if (name in measures.PARTS) == part] for part in (False, True))
        axes = [_plain(cell["axis"]) for cell in _at_the_recipe(result, "time")]
        of_parts = f", and a part of it by up to {max(parts):.2f}" if parts else ""
        said.append(
            f"The same step, timed for each axis ({', '.join(axes)}), differs by up to a factor of {max(wholes):.2f}"
            f"{of_parts}: read exponents, not single times."
        )
    if found := scatter(result, "memory"):
        said.append(f"Its memory differs by up to a factor of {max(found.values()):.2f}.")
    between = " Brackets: 95 % of the bootstrap over repetitions." if "time" in kinds and rounds > 1 else ""
    said.append(f"Exponent: slope of log found on log size, at the three largest.{between}")
    if kinds.get("time", {}).get("formula"):
        said.append("Formula: the exponent of the multiplications of that part.")
    return said


def figure(result: Result) -> Figure:
    """Time and memory of a step against each size, log-log, and the error of trainings against their seconds.

    At most four lines a panel. The transport of the flow-factorized VAE is black; a dashed line through its last point
    has the exponent of the formula. The model that leads is in every panel of errors, with three others. Times, memory
    and errors begin a row each; one legend above holds for all sizes, one below for all errors.
    """
    found = mean_errors(result)
    others = [model for model in found if model != LEADING]
    groups = [others[i : i + 3] for i in range(0, len(others), 3)] or [[]] * (LEADING in found)
    known = result["settings"]
    looks = _looks([*known["models"], *known["sized"]])
    bands = [(_of(result, kind), partial(_draw_size, looks)) for kind in ("time", "memory")]
    bands.append((groups, partial(_draw_errors, looks, found, known["thresholds"])))
    rows = sum(-(-len(panels) // 3) for panels, _ in bands)
    fig, axes = plotting.figure(11.5, 1.5 + 2.7 * rows, rows, 3, squeeze=False)
    fig.get_layout_engine().set(wspace=0.05)
    free, shown = iter(axes), []
    for panels, draw in bands:
        labels: dict[str, Line2D] = {}
        for i in range(0, len(panels), 3):
            for axis, panel in zip_longest(next(free), panels[i : i + 3]):
                axis.set_visible(panel is not None)
                if panel is not None:
                    draw(axis, panel)
                    labels |= {line.get_label(): line for line in axis.lines}
        shown.append({name: line for name, line in labels.items() if not name.startswith("_")})
    where = f"{known['data']}, {known['budget']}"
    _legend(fig, shown[0] | shown[1], f"What a step costs: {where}", "upper")
    _legend(fig, shown[2], f"What seconds buy: {where}", "lower")
    return fig


def _legend(fig: Figure, shown: Mapping[str, Line2D], title: str, where: str) -> None:
    if shown:
        place = {"loc": f"outside {where} center", "ncols": 5, "frameon": False}
        fig.legend(shown.values(), shown.keys(), title=title, fontsize=10, title_fontsize=12, **place)


def _draw_size(looks: Mapping[str, Any], axis: Axes, cell: Mapping[str, Any]) -> None:
    """One panel: time or memory of each model, and the transport with its formula, against one size."""
    sizes = np.array(cell["values"])
    shown = {name: curve["measured"] for name, curve in cell["curves"].items() if name != measures.NETWORKS}
    for name, measured in shown.items():
        axis.plot(sizes, measured, label=name, **looks[name])
    axis.set(xscale="log", yscale="log", xlabel=_plain(cell["axis"]), ylabel=_UNITS[cell["kind"]])
    low, high = axis.get_ylim()
    axis.set_ylim(low / 1.1, high * 1.1)  # a steep formula is cut off, not the measurement squeezed
    if formula := cell["formula"].get(measures.TRANSPORT):
        slope = (sizes / sizes[-1]) ** formula["exponent"]
        axis.plot(sizes, shown[measures.TRANSPORT][-1] * slope, "k--", linewidth=0.8, label="its formula")
    _plain_ticks(axis.xaxis, sizes)
    _plain_ticks(axis.yaxis)


def _draw_errors(
    looks: Mapping[str, Any],
    found: Mapping[str, tuple[float, Mapping[int, float]]],
    thresholds: Sequence[float],
    axis: Axes,
    group: Sequence[str],
) -> None:
    """One panel: error of each model of a group, and of the one that leads, against seconds; limits fit all models."""
    for model in [*([LEADING] if LEADING in found else []), *group]:
        milliseconds, errors = found[model]
        seconds = [steps * milliseconds / 1e3 for steps in errors]
        axis.plot(seconds, list(errors.values()), label=model, **looks[model])
    for threshold in thresholds:
        axis.axhline(threshold, color="0.5", linewidth=0.7, linestyle=":", zorder=0)
    every = [(steps * each / 1e3, error) for each, errors in found.values() for steps, error in errors.items()]
    seconds, heights = zip(*every, strict=True)
    limits = {"xlim": (min(seconds) / 1.1, 1.1 * max(seconds)), "ylim": (0, 1.08 * max(heights))}
    axis.set(xscale="log", xlabel="seconds of training", ylabel="error ÷ no motion", **limits)
    _plain_ticks(axis.xaxis)


def _looks(models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Model or part ↦ its line, alike in all panels: the one that leads is the strongest, the transport black.

    Of three in a panel the first is the widest, so that it is seen under the others where curves coincide.
    """
    palette = ["0.15" if i is None else plotting.COLORS[i] for i in (0, 4, 7, 6, 3, None, 9, 2, 5)]
    looks: dict[str, dict[str, Any]] = {measures.TRANSPORT: {"color": "black", "marker": "d", "markersize": 4}}
    for i, name in enumerate(name for name in dict.fromkeys(models) if name != LEADING):
        look = {"markersize": (8, 6, 4)[i % 3], "linewidth": (2.4, 1.8, 1.2)[i % 3]}
        looks[name] = {"color": palette[i % 9], "marker": plotting.MARKERS[1 + i % 7], **look}
    return looks | {LEADING: {"color": plotting.COLORS[1], "marker": "o", "linewidth": 2.6, "zorder": 3}}


def _plain_ticks(axis: Axis, places: Sequence[float] | None = None) -> None:
    """Plain numbers on a logarithmic axis whose limits are set: by default 1, 2, 5, 10, …, or closer ones if these are
    fewer than three.
    """
    low, high = sorted(axis.get_view_interval())
    if places is None:
        for locator in (LogLocator(subs=(1.0, 2.0, 5.0)), MaxNLocator(5, steps=(1, 2, 5, 10))):
            places = [place for place in locator.tick_values(low, high) if low <= place <= high]
            if len(places) > 2:
                break
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


SMOKE = {"steps": (2, 4), "images": 4, "rounds": 1, "axes": ("horizon",), "memory": False}
STUDY = Study("cost", cells, measure, table, figure, notes, alone, smoke=SMOKE)
