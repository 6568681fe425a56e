"""Tuning: every model over the same values of β and over those of one weight of its own, on validation images."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from poflow_lite import plotting
from poflow_lite.experiments import Recipe, load_run, recipe, sequences, train_recipe, validation_errors
from poflow_lite.io import require_known
from poflow_lite.settings import Count, Seed
from poflow_lite.studies.study import Study, mean_and_spread
from poflow_lite.training import resolve_device

BETAS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
OWN: dict[str, tuple[str, tuple[float, ...]] | None] = {
    "beta-vae": None,
    "factor-vae": ("gamma", (0.03, 0.1, 0.3, 1.0)),
    "slow-vae": ("transition", (0.003, 0.01, 0.03)),
    "topographic-vae": ("capsules", (1, 2, 4, 8)),
    "poflow": ("wave", (0.3, 1.0, 3.0)),
    "flow-factorized": ("autoencoding", (0.0125, 0.05, 0.2, 0.8)),
    "free-flow": ("autoencoding", (0.2, 0.5, 1.0)),
    "weakly-supervised": ("autoencoding", (0.05, 0.2, 0.8, 3.2, 12.8)),
    "msp": ("rows", (4, 8, 16)),
}
"""Model ↦ its own weight and the values that are tried of it; the plain VAE has neither this nor β."""


def cells(
    data: str = "mnist-10k",
    budget: str = "lecture",
    models: Sequence[str] = tuple(OWN),
    seeds: Sequence[Seed] = (0, 1),
    betas: Sequence[float] = BETAS,
    steps: Count = 800,
    images: Count = 300,
    device: str = "auto",
) -> dict[str, dict[str, Any]]:
    """A cell for each model, seed and value: of β with its own weight as it is by default, and of that weight.

    Args:
        data, budget: see :data:`datasets.DATASETS`, :data:`experiments.BUDGETS`.
        models: of :data:`OWN`.
        seeds: of the runs.
        betas: values of β, for all models alike.
        steps: of each training.
        images: validation images that are measured, at most, the first ones.
        device: "auto", "cpu" or "cuda".
    """
    resolve_device(device)
    common = {"data": data, "budget": budget, "steps": steps, "images": images, "device": device}
    grid = {}
    sequences(data, "validation", recipe(data, budget))  # are the data there?
    for seed, model in itertools.product(seeds, models):
        require_known("model that is tuned", model, OWN)
        for varied, weights in _tried(model, recipe(data, budget, model), betas):
            recipe(data, budget, model, **weights)  # a value that does not fit fails now
            name = f"{model}-{varied}-{weights[varied]}-seed-{seed}"
            grid[name] = {"model": model, "seed": seed, "varied": varied, "weights": weights, **common}
    return grid


def _tried(model: str, usual: Recipe, betas: Sequence[float]) -> Iterator[tuple[str, dict[str, float]]]:
    """Each training of a model: what is varied, and all its weights; the usual ones once, among those of β."""
    name, values = OWN[model] or ("", ())
    own = {name: usual.options[name]} if name else {}
    yield from (("beta", {"beta": beta, **own}) for beta in betas)
    yield from ((name, {"beta": usual.beta, name: value}) for value in values
                if value != own[name] or usual.beta not in betas)  # fmt: skip


def measure(
    folder: Path,
    model: str,
    seed: int,
    varied: str,
    weights: Mapping[str, float],
    data: str,
    budget: str,
    steps: int,
    images: int,
    device: str,
) -> dict[str, Any]:
    """Train, then move validation images by the ridge map and by the model's own motion: "errors", operator ↦ error."""
    how = {"seed": seed, "device": device, "resume": True, "progress": False}
    run = load_run(train_recipe(model, data, budget, folder, **how, steps=steps, **weights), device)
    training, validation = (sequences(data, split, run.settings) for split in ("train", "validation"))
    shown = validation.first(images)
    errors = validation_errors(run.model, training, shown)
    return {"data_set": f"{validation.name}, {len(shown):,} measured", "errors": errors}


# --- table and figure ---------------------------------------------------------------------------------------------


def errors(result: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each model and setting: "model", "setting", and "errors", value ↦ one for each seed.

    The error of a training is that of the operator with the least one, mean over transformations, ÷ no motion; "own",
    which looks at a second frame, is left out. So is a value of which a seed failed: others may have been lucky.
    """
    lines, seeds = [], len(result["settings"]["seeds"])
    for model in dict.fromkeys(cell["model"] for cell in result["cells"]):
        runs = [cell for cell in result["cells"] if cell["model"] == model]
        for name in dict.fromkeys(cell["varied"] for cell in runs):
            usual = {cell["weights"]["beta"] for cell in runs if cell["varied"] != "beta"}
            found: dict[float, list[float]] = {}
            for cell in runs:
                if cell["varied"] == name or (name != "beta" and cell["weights"]["beta"] in usual):
                    least = min(error for operator, error in cell["errors"].items() if operator != "own")
                    found.setdefault(cell["weights"][name], []).append(least)
            whole = {value: own for value, own in sorted(found.items()) if len(own) == seeds}
            lines += [{"model": model, "setting": name, "errors": whole}] if whole else []
    if not lines:
        raise ValueError("no value has been tried with all seeds: there is nothing to choose from")
    return pd.DataFrame(lines)


def level(tried: Mapping[float, Sequence[float]]) -> list[float]:
    """The values whose mean over seeds is within 1 % of the least: any of them may be taken."""
    means = {value: mean(found) for value, found in tried.items()}
    return [value for value, error in means.items() if error <= 1.01 * min(means.values())]


def table(result: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each model and setting: which values are level with the best, and mean ± spread over seeds of each."""
    shown = errors(result)
    texts = [
        ", ".join(f"{value:g}: {mean_and_spread(found, '.3f')}" for value, found in tried.items())
        for tried in shown["errors"]
    ]
    best = [", ".join(f"{value:g}" for value in level(tried)) for tried in shown["errors"]]
    return shown.drop(columns="errors").assign(**{"within 1 %": best, "value: error ÷ no motion": texts})


def notes(result: Mapping[str, Any]) -> list[str]:
    """What the errors are, which images choose operators, by which rule a recipe takes values, what is not ranked."""
    cell, seeds = result["cells"][0], result["settings"]["seeds"]
    several = len(seeds) > 1
    spread = ": mean ± standard deviation over seeds" * several
    said = [
        f"{cell['data_set']}. Trainings of {cell['steps']:,} steps, seed{'s' * several} {', '.join(map(str, seeds))}"
        f"{spread}.",
        "Error: mean over transformations ÷ that of no motion. Each trained model is moved by the ridge map or by its "
        "own motion, whichever has the least error on these same images. That favours models with both a little.",
        "A recipe takes a value whose mean is within 1 % of the least of its setting, and none at the edge of its "
        "grid: the one it had before, or the nearest to it.",
    ]
    usual = recipe(cell["data"], cell["budget"], cell["model"]).steps
    if usual != cell["steps"]:
        said.append(
            f"Weights are chosen after {cell['steps']:,} steps, while a recipe trains {usual:,}. The order of models "
            "changes with the steps, so this table does not rank them."
        )
    return said


TOP = 1.4
"""Where panels end: what lies above is an arrow with a number, so that small differences are seen beside it."""


def figure(result: Mapping[str, Any]) -> Figure:
    """One panel for each model: error ÷ its least one against the values of each setting, filled where they are level.

    Small markers are single seeds; an arrow stands for means above :data:`TOP`, or for a seed if the mean is below.
    """
    found = errors(result)
    panels = dict(list(found.groupby("model", sort=False)))
    rows, columns = -(-len(panels) // 3), min(3, len(panels))
    fig, axes = plotting.figure(3.3 * columns, 0.4 + 2.5 * rows, rows, columns, squeeze=False, sharey=True)
    lowest = 1.0
    for (model, own), axis in zip(panels.items(), axes.flat, strict=False):
        least = min(mean(seeds) for tried in own["errors"] for seeds in tried.values())
        for i, (setting, tried) in enumerate(zip(own["setting"], own["errors"], strict=True)):
            ratios = {value: [error / least for error in seeds] for value, seeds in tried.items()}
            look = {"color": plotting.COLORS[i], "marker": plotting.MARKERS[i]}
            _draw_setting(axis, setting, ratios, look)
            lowest = min(lowest, *map(min, ratios.values()))
        axis.set(xscale="log", title=f"{model}, least {least:.3f}", xlabel="value")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.legend(frameon=False, fontsize=9)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set(ylabel="error ÷ the least", ylim=(lowest - 0.02, TOP + 0.02))
    marks = {
        "within 1 % of the least of its setting": {"marker": "o", "ms": 6},
        "further off": {"marker": "o", "ms": 6, "mfc": "white"},
        "one seed": {"marker": "o", "ms": 3, "alpha": 0.4},
        "above the panel, with its number": {"marker": "^", "ms": 8},
    }
    handles = [Line2D([], [], ls="none", color="0.3", label=label, **look) for label, look in marks.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=4 if columns > 2 else 1, frameon=False, fontsize=9)
    return fig


def _draw_setting(axis: Axes, setting: str, ratios: Mapping[float, Sequence[float]], look: Mapping[str, Any]) -> None:
    """Errors of one setting, value ↦ one for each seed, ÷ the least of the model."""
    means, near = {value: mean(seeds) for value, seeds in ratios.items()}, level(ratios)
    axis.plot(list(means), list(means.values()), ms=6, label=setting, **look)
    far = [value for value in means if value not in near]
    axis.plot(far, [means[value] for value in far], ls="none", ms=6, mfc="white", zorder=3, **look)
    for value, seeds in ratios.items():
        axis.plot([value] * len(seeds), seeds, ls="none", ms=3, alpha=0.4, **look)
        above = [ratio for ratio in (means[value], *seeds) if ratio > TOP]
        if above:
            axis.plot(value, TOP, marker="^", ms=8, ls="none", color=look["color"])
            axis.annotate(f"{above[0]:.2f}", (value, TOP), (-2, -6), textcoords="offset points", va="top", fontsize=9)


STUDY = Study(
    "tuning", cells, measure, table, figure, notes, smoke={"models": ("slow-vae",), "seeds": (0,), "steps": 12}
)
