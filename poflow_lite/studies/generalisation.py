"""Generalisation: every model on every task, over seeds, in one table."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from poflow_lite import experiments, plotting
from poflow_lite.experiments import load_run, recipe, sequences, train_recipe
from poflow_lite.io import require_known
from poflow_lite.metrics import OrderGaps
from poflow_lite.operators import fit_operators
from poflow_lite.settings import Count, Seed, Split
from poflow_lite.studies.study import Study
from poflow_lite.studies.tasks import TASKS, TRAININGS, measure_round_trip, measure_task, task_sequences

TOLD = ("vae", "beta-vae", "factor-vae", "slow-vae", "topographic-vae", "poflow", "flow-factorized")
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{model: (model, {}) for model in TOLD},
    "free flow": ("flow-factorized", {"field": "free", "hamilton_jacobi": 0.0, "consistency": 0.1}),
}
"""Column of the table ↦ model and options: the seven, and ours with a field that need not be a gradient and a flow that
is asked to end where the encoder puts the last frame. Every model of :data:`experiments.MODELS` may be named as well.
"""

OURS = ("flow-factorized", "free flow")
TOGETHER = {"as trained": "two at once", "random starts": "random starts two at once"}
"""Task of each transformation alone ↦ task of pairs that shows the same images from the same starts."""


# --- the grid -----------------------------------------------------------------------------------------------------


def cells(
    data: str = "digits",
    models: Sequence[str] = tuple(MODELS),
    tasks: Sequence[str] = tuple(TASKS),
    seeds: Sequence[Seed] = (0,),
    budget: str = "lecture",
    split: Split = "test",
    images: Count = 120,
    device: str = "auto",
    changes: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """One cell for each model, way of training that the tasks need, and seed; it is measured on all its tasks.

    Args:
        data: still images that transformations move.
        models, tasks: of :data:`MODELS` or :data:`experiments.MODELS`, and of :data:`tasks.TASKS`.
        images: images of the split that are shown in each task, at most.
        seeds, budget, split, device, changes: as for the comparison.
    """
    grid, trainings = {}, {}
    for name in tasks:
        require_known("task", name, TASKS)
        trainings.setdefault(TASKS[name].training, []).append(name)
    for name in {(TASKS[name].data, TASKS[name].left_out): name for name in tasks}.values():
        task_sequences(TASKS[name], data, split, 1)  # are the data there?
    common = {"budget": budget, "split": split, "images": images, "device": device}
    for seed, training, model in itertools.product(seeds, trainings, models):
        base, options = _entry(model)
        differing = {"data": data, **(changes or {}), **options, **TRAININGS[training]}
        source = differing.pop("data")
        settings = asdict(recipe(source, budget, base, **differing))
        settings |= settings.pop("options")
        cell = {"model": model, "training": training, "tasks": trainings[training], "seed": seed, "data": source}
        grid[f"{_slug(model)}-{_slug(training)}-seed-{seed}"] = {**cell, **common, "settings": settings}
    return grid


def _entry(model: str) -> tuple[str, dict[str, Any]]:
    require_known("model", model, dict.fromkeys([*MODELS, *experiments.MODELS]))
    return MODELS.get(model, (model, {}))


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.replace(" %", "-percent")).strip("-").lower()


def measure(folder: Path, **cell: Any) -> dict[str, Any]:
    """Train one model in one way with one seed in ``folder``, and try it on its tasks.

    Returns:
        "errors", task ↦ what :func:`tasks.measure_task` finds, "round_trip" of :func:`tasks.measure_round_trip`, both
        with operators that are fitted to the training split, "seconds" of training and the "device".
    """
    how = {"seed": cell["seed"], "device": cell["device"], "resume": True, "progress": False}
    named = _entry(cell["model"])[0], cell["data"], cell["budget"]
    run = load_run(train_recipe(*named, folder, **how, **cell["settings"]), cell["device"])
    training = sequences(cell["data"], "train", run.settings)
    operators = fit_operators(run.model, training, images=run.settings.operator_images, seed=cell["seed"])
    size = cell["split"], cell["images"], run.settings.horizon
    shown = {name: task_sequences(TASKS[name], cell["data"], *size) for name in cell["tasks"]}
    return {
        "errors": {name: measure_task(run.model, operators, TASKS[name], shown[name]) for name in shown},
        "round_trip": measure_round_trip(run.model, operators, shown[cell["tasks"][0]]),
        "seconds": run.history[-1]["seconds"],
        "device": run.config["device"],
    }


# --- the table ----------------------------------------------------------------------------------------------------


def standings(result: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each task and model: "task", "model", "operator", "error", "spread", "floor", "seeds".

    Error and floor are ÷ no motion, means over motions and seeds; the spread is a standard deviation over seeds, NaN
    for one. Ours are moved by their flows. All others get the operator with the least mean error in that very task,
    chosen afterwards and on the test images: an advantage that the flow does not have.
    """
    rows = []
    for task in TASKS:
        found = [cell for cell in result["cells"] if task in cell["errors"]]
        for model in dict.fromkeys(cell["model"] for cell in found):
            runs = [cell["errors"][task] for cell in found if cell["model"] == model]
            ratios = {name: [_ratio(run, name) for run in runs] for name in runs[0] if name != "no motion"}
            floor = mean(ratios.pop("floor"))
            complete = {name: values for name, values in ratios.items() if None not in values}
            best = "flow" if model in OURS and "flow" in complete else min(complete, key=lambda n: mean(complete[n]))
            spread = stdev(complete[best]) if len(runs) > 1 else None
            rows.append([task, model, best, mean(complete[best]), spread, floor, len(runs)])
    return pd.DataFrame(rows, columns=["task", "model", "operator", "error", "spread", "floor", "seeds"])


def _ratio(run: Mapping[str, Mapping[str, float]], operator: str) -> float | None:
    """Error ÷ no motion, mean over the motions; ``None`` where the operator could not make one of them."""
    errors, still = run.get(operator, {}), run["no motion"]
    if errors.keys() != still.keys():
        return None
    return mean(errors[motion] / still[motion] for motion in still)


def _wide(found: pd.DataFrame, column: str) -> pd.DataFrame:
    """One column of the standings as a table, a row a task and a column a model, both in their order."""
    return found.pivot(index="task", columns="model", values=column).loc[found.task.unique(), found.model.unique()]


def table(result: Mapping[str, Any]) -> pd.DataFrame:
    """What people read: error ± spread (operator), the least of each row in bold; the floor is that of ours."""
    found = standings(result)
    spreads = found.spread.map(" ± {:.2f}".format, na_action="ignore").fillna("")
    texts = found.error.map("{:.2f}".format) + spreads
    found["text"] = texts.where(~_least(found), "**" + texts + "**")
    found["text"] += (" (" + found.operator + ")").where(found.operator != "flow", "")
    wide, floors = _wide(found, "text"), _wide(found, "floor")
    if OURS[0] in floors:
        wide["floor"] = floors[OURS[0]].map("{:.2f}".format, na_action="ignore")
    return wide.fillna("").rename_axis(columns=None).reset_index()


def _least(found: pd.DataFrame) -> pd.Series:
    return found.error == found.groupby("task").error.transform("min")


def notes(result: Mapping[str, Any]) -> list[str]:
    """What the table shows, by which rules, and what it leaves out: superposition and the way back."""
    errors, known = _wide(standings(result), "error"), result["settings"]
    rivals = errors.drop(columns=list(OURS), errors="ignore").min(axis=1).fillna(float("inf"))
    ours = [name for name in OURS if name in errors]
    seeds = sorted({cell["seed"] for cell in result["cells"]})
    return [
        *(
            f"{name} has less error than all but ours in {(errors[name] <= rivals).sum()} of {len(errors)} tasks."
            for name in ours
        ),
        "Equivariance error ÷ no motion, mean over the motions of a task"
        + (" ± standard deviation over seeds " if len(seeds) > 1 else "; seed ")
        + ", ".join(map(str, seeds))
        + f". {' and '.join(OURS)} are moved by their flows; every other model by whatever has the least error in that "
        f"very task, named beside it. Floor: true frames encoded and decoded by {OURS[0]}. {known['data']} "
        f"({known['split']}, at most {known['images']:,} images a task), budget {known['budget']}.",
        *(line for name in ours for line in (*_superposed(result, name), *_round_trip(result, name))),
    ]


def _superposed(result: Mapping[str, Any], model: str) -> list[str]:
    """One line for each kind of start: two at once by the flow, against the larger error of the two alone."""
    lines = []
    for alone, together in TOGETHER.items():
        runs = [cell["errors"] for cell in result["cells"] if cell["model"] == model]
        ratios = [
            run[together]["flow"][pair] / max(run[alone]["flow"][moving] for moving in pair.split(" + "))
            for run in runs
            if {alone, together} <= run.keys()
            for pair in run[together].get("flow", {})
        ]
        if ratios:
            lines.append(
                f"{together.capitalize()} by the flow of {model}: {min(ratios):.2f} to {max(ratios):.2f} times the "
                f"larger error of the two alone ({alone}), in pixels."
            )
    return lines


def _round_trip(result: Mapping[str, Any], model: str) -> list[str]:
    """How the flow returns to the first frame, and in how many cases it does."""
    own = [cell["round_trip"] for cell in result["cells"] if cell["model"] == model]
    trips = [ratio for trip in own for ratio in trip.get("flow", {}).values()]
    possible = sum(len(trip.get("identity", {})) for trip in own)
    if not trips:
        return []
    cases = f"all {possible}" if len(trips) == possible else f"{len(trips)} of {possible}"
    folds = "" if len(trips) == possible else "; in the others some step folds space"
    return [
        f"There and back by the flow of {model}: {max(trips):.3f} times the error of the first frame merely encoded "
        f"and decoded, at worst, in {cases} cases{folds}."
    ]


# --- figures ------------------------------------------------------------------------------------------------------


def standings_map(result: Mapping[str, Any]) -> Figure:
    """A heat map of the errors with their numbers, ◂ the least of each row; last the floor of ours."""
    found, known = standings(result), result["settings"]
    found["text"] = found.error.map("{:.2f}".format) + _least(found).map({True: " ◂", False: ""})
    last = f"floor of {OURS[0]}"
    values, floors, texts = (_wide(found, column) for column in ("error", "floor", "text"))
    if OURS[0] in floors:
        values[last], texts[last] = floors[OURS[0]], floors[OURS[0]].map("{:.2f}".format)
    fig, axis = plotting.figure(1.0 + 0.87 * values.shape[1], 1.6 + 0.3 * len(values))
    sns.heatmap(values, ax=axis, annot=texts.fillna(""), fmt="", cmap="cividis_r", vmin=0, vmax=1.2,
                annot_kws={"fontsize": 8}, cbar_kws={"shrink": 0.6, "label": "error ÷ no motion"})  # fmt: skip
    for text in axis.texts:
        text.set_color("w" if float(text.get_text().rstrip(" ◂")) > 0.62 else "k")
    axis.set(xlabel="", ylabel="")
    axis.set_xticks(axis.get_xticks(), list(values), rotation=35, ha="left")
    axis.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    fig.suptitle(f"{known['data']} ({known['split']}), budget {known['budget']}; ◂ least of the row", fontsize=9)
    return fig


def order_gap_bars(gaps: OrderGaps, commuting: Sequence[Sequence[bool]], title: str = "") -> Figure:
    """Bars of the true and the learned gap of the two orders for each pair of transformations, commuting ones first.

    Args:
        gaps: of :func:`metrics.order_gaps`.
        commuting: (K, K), which pairs truly commute.
        title: says what was shown.
    """
    pairs = sorted(itertools.combinations(range(len(gaps.names)), 2), key=lambda pair: not commuting[pair[0]][pair[1]])
    fig, axis = plotting.figure(6.8, 1.2 + 0.28 * len(pairs))
    for k, (label, values) in enumerate({"true": gaps.true, "learned": gaps.learned}.items()):
        lengths = [float(values[i, j] + values[j, i]) / 2 for i, j in pairs]
        style = {"color": plotting.COLORS[k], "hatch": ["", "//"][k], "label": label}
        axis.barh(np.arange(len(pairs)) + 0.4 * k, lengths, 0.38, **style)
    axis.axhline(sum(commuting[i][j] for i, j in pairs) - 0.3, color="0.4", linewidth=0.8, linestyle="--")
    axis.set_yticks(np.arange(len(pairs)) + 0.2, [f"{gaps.names[i]}, {gaps.names[j]}" for i, j in pairs])
    axis.invert_yaxis()
    axis.set(xlabel="gap of the two orders, L1 of the last frame", title="above the line: pairs that commute")
    axis.legend(frameon=False, fontsize=8, loc="upper right")
    fig.suptitle(title, fontsize=9)
    return fig


STUDY = Study("generalisation", cells, measure, table, standings_map, notes, smoke={"images": 4})
