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
from poflow_lite.datasets import TransformationSequences
from poflow_lite.experiments import load_run, recipe, sequences, train_recipe
from poflow_lite.io import require_known
from poflow_lite.metrics import OrderGaps
from poflow_lite.models import MSP
from poflow_lite.operators import fit_operators
from poflow_lite.settings import Count, Seed, Split
from poflow_lite.studies.study import Study, holm, t_interval, t_test
from poflow_lite.studies.tasks import TASKS, TRAININGS, lent_steps, measure_round_trip, measure_task, task_sequences

RIVALS = ("vae", "beta-vae", "factor-vae", "slow-vae", "topographic-vae", "poflow", "msp")
OURS = ("free-flow", "flow-factorized")
CAUSES: dict[str, tuple[str, dict[str, Any]]] = {
    f"{field}{' + agreement' if consistency else ''}": (
        "flow-factorized",
        {"field": field, "hamilton_jacobi": 0.0, "consistency": consistency},
    )
    for field in ("gradient", "free")
    for consistency in (0.0, 0.1)
}
"""Two causes apart: a field that is a gradient or free, and a flow that is asked to end where the encoder puts the last
frame or not, all else equal."""
_CAUSES_ARE = (
    "Gradient, free: flow-factorized without the Hamilton–Jacobi penalty, with a potential or a free field; "
    "+ agreement: consistency 0.1."
)

MODELS: dict[str, tuple[str, dict[str, Any]]] = {**{model: (model, {}) for model in (*RIVALS, *OURS)}, **CAUSES}
"""Column of the table ↦ model and options. Every model of :data:`experiments.MODELS` may be named as well."""

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
        settings = asdict(recipe(data, budget, base, **differing))  # of the study, whatever the model is trained on
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
        "errors", task ↦ what :func:`tasks.measure_task` finds, "validation", the same of validation images, and
        "round_trip" of :func:`tasks.measure_round_trip`, all with operators that are fitted to the training split,
        "seconds" of training and the "device".
    """
    how = {"seed": cell["seed"], "device": cell["device"], "resume": True, "progress": False}
    named = _entry(cell["model"])[0], cell["data"], cell["budget"]
    run = load_run(train_recipe(*named, folder, **how, **cell["settings"]), cell["device"])
    training = sequences(cell["data"], "train", run.settings)
    operators = fit_operators(run.model, training, images=run.settings.operator_images, seed=cell["seed"])
    if isinstance(run.model, MSP):
        operators["lent"] = lent_steps(run.model, training)

    def shown(name: str, split: str) -> TransformationSequences:
        return task_sequences(TASKS[name], cell["data"], split, cell["images"], run.settings.horizon)

    def errors(split: str) -> dict[str, dict[str, dict[str, float]]]:
        return {name: measure_task(run.model, operators, TASKS[name], shown(name, split)) for name in cell["tasks"]}

    return {
        "errors": errors(cell["split"]),
        "validation": errors("validation"),
        "round_trip": measure_round_trip(run.model, operators, shown(cell["tasks"][0], cell["split"])),
        "seconds": run.history[-1]["seconds"],
        "device": run.config["device"],
    }


# --- the table ----------------------------------------------------------------------------------------------------


def standings(result: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each task and model, with the columns below.

    Errors and floor are ÷ no motion, means over motions; "error" is the mean over seeds of "errors", seed ↦ error, the
    spread their standard deviation, NaN for one; "validation" is the mean error on validation images. Ours and the
    :data:`CAUSES` are moved by their flows, all others by the operator with the least mean error in that very task on
    validation images; so are ours where a step of the flow folds space and cannot be undone.
    """
    rows = []
    for task in TASKS:
        found = [cell for cell in result["cells"] if task in cell["errors"]]
        for model in dict.fromkeys(cell["model"] for cell in found):
            cells = [cell for cell in found if cell["model"] == model]
            tested = {name: _ratios(cells, task, name, "errors") for name in cells[0]["errors"][task]}
            floor = mean(tested.pop("floor"))
            tried = {name: _ratios(cells, task, name, "validation") for name in tested if name != "no motion"}
            able = {name: mean(errors) for name, errors in tried.items() if None not in (*errors, *tested[name])}
            by_flow = model in (*OURS, *CAUSES) and "flow" in able
            best = "flow" if by_flow else min(able, key=able.__getitem__)
            errors = dict(zip((cell["seed"] for cell in cells), tested[best], strict=True))
            spread = stdev(errors.values()) if len(errors) > 1 else None
            rows.append([task, model, best, mean(errors.values()), spread, floor, len(errors), errors, able[best]])
    columns = ["task", "model", "operator", "error", "spread", "floor", "seeds", "errors", "validation"]
    return pd.DataFrame(rows, columns=columns)


def _ratios(cells: Sequence[Mapping[str, Any]], task: str, operator: str, where: str) -> list[float | None]:
    """:func:`_ratio` of each cell, of test ("errors") or validation images."""
    return [_ratio(cell[where][task], operator) for cell in cells]


def verdicts(result: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each task: ours against a rival, in pairs of the same seed.

    Columns: "task", "ours" and "rival", each that with the least mean error on validation images (of ours first those
    that their flow moves), "difference", the relative one, "low" and "high", its 95 % t-interval over seeds, "p", of
    the paired t-test, and "verdict": "ours" or "rival" where the interval leaves out 0 and no model of the other side
    has a smaller mean error, else "tie", as always for a single seed. What is not moved by its flow is no merit of
    ours.
    """
    lines = []
    for task, found in standings(result).groupby("task", sort=False):
        own, others = found[found.model.isin(OURS)], found[found.model.isin(RIVALS)]
        if own.empty or others.empty:
            continue
        moved = own[own.operator == "flow"]
        ours, rival = (group.loc[group.validation.idxmin()] for group in (own if moved.empty else moved, others))
        pairs = pd.DataFrame({"ours": ours.errors, "rival": rival.errors}).dropna()
        if pairs.empty:  # no seed of both is done
            continue
        differences = (pairs.ours / pairs.rival - 1).tolist()
        low, high = t_interval(differences)
        ahead = high < 0 and ours.operator == "flow" and ours.error <= others.error.min()
        behind = low > 0 and rival.error <= own.error.min()
        verdict = "ours" if ahead else "rival" if behind else "tie"
        lines.append([task, ours.model, rival.model, mean(differences), low, high, t_test(differences), verdict])
    return pd.DataFrame(lines, columns=["task", "ours", "rival", "difference", "low", "high", "p", "verdict"])


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
    """What people read: error ± spread (operator); last the floor, and ours less the rival, bold where decided."""
    found = standings(result)
    spreads = found.spread.map(" ± {:.3f}".format, na_action="ignore").fillna("")
    operators = (" (" + found.operator + ")").where(found.operator != "flow", "")
    found["text"] = found.error.map("{:.3f}".format) + spreads + operators
    wide, floors = _wide(found, "text"), _wide(found, "floor")
    if own := [name for name in OURS if name in floors]:
        wide["floor"] = floors[own[0]].map("{:.2f}".format, na_action="ignore")
    held = verdicts(result).dropna(subset="low").set_index("task")
    if len(held):
        wide["difference (95 %)"] = held.apply(_held_against, axis=1)
    return wide.fillna("").rename_axis(columns=None).reset_index()


def _held_against(verdict: pd.Series) -> str:
    """A row of :func:`verdicts` in words."""
    difference, low, high = (f"{100 * verdict[name]:+.1f}" for name in ("difference", "low", "high"))
    text = f"{difference} % ({low} to {high})"
    return f"{verdict.ours} − {verdict.rival}: {text if verdict.verdict == 'tie' else f'**{text}**'}"


def _ahead(result: Mapping[str, Any], found: pd.DataFrame) -> pd.Series:
    """Which rows of the standings are first in their task, beyond the interval."""
    decided = verdicts(result)
    first = {row.task: row[row.verdict] for _, row in decided.iterrows() if row.verdict != "tie"}
    return found.model == found.task.map(first)


def notes(result: Mapping[str, Any]) -> list[str]:
    """What the table shows, by which rules, and what it leaves out: superposition and the way back."""
    known, decided = result["settings"], verdicts(result)
    seeds = sorted({cell["seed"] for cell in result["cells"]})
    counts = decided.verdict.value_counts()
    models = {cell["model"] for cell in result["cells"]}
    flows = [name for name in (*OURS, *CAUSES) if name in models]
    score = (
        f"Of {len(decided)} tasks ours ({' or '.join(OURS)}) is ahead in {counts.get('ours', 0)}, a rival in "
        f"{counts.get('rival', 0)}; {counts.get('tie', 0)} are open. Each side is held by the model with the least "
        "mean error on validation images; others of its own side may have less on test images. Their difference is "
        "bold where its 95 % interval leaves out 0 and no model of the other side has a smaller error. At 5 % each, "
        f"{len(decided)} tasks of equals would give {0.05 * len(decided):.1f} false verdicts; Holm's correction "
        f"leaves {sum(holm(list(decided.p.dropna())))}."
    )
    return [
        score if len(seeds) > 1 else "One seed: no interval, so no task is decided.",
        "Equivariance error ÷ no motion, mean over the motions of a task"
        + (" ± standard deviation over seeds " if len(seeds) > 1 else "; seed ")
        + ", ".join(map(str, seeds))
        + f". By their flows are moved: {'; '.join(flows)}. Every other model by what has the least error "
        f"in that very task on validation images, named beside it. Floor: true frames encoded and decoded by the first "
        f"of ours; it is no bound. {known['data']} ({known['split']}, at most {known['images']:,} images a task), "
        f"budget {known['budget']}.",
        "Linear: the ridge map, one for each frame; linear steps: one map a step, another for each t; linear step: one "
        "map for all steps; lent: MSP's mean matrix of each k; in turn: one motion after the other.",
        *([_CAUSES_ARE] if models & CAUSES.keys() else []),
        *_superposed(result, flows),
        *_round_trips(result, flows),
    ]


def _superposed(result: Mapping[str, Any], flows: Sequence[str]) -> list[str]:
    """One line for each kind of start: two at once by each flow, against the larger error of the two alone."""
    lines = []
    for alone, together in TOGETHER.items():
        said = []
        for model in flows:
            runs = [cell["errors"] for cell in result["cells"] if cell["model"] == model]
            ratios = [
                run[together]["flow"][pair] / max(run[alone]["flow"][moving] for moving in pair.split(" + "))
                for run in runs
                if {alone, together} <= run.keys()
                for pair in run[together].get("flow", {})
            ]
            said += [f"{model} {min(ratios):.2f} to {max(ratios):.2f}"] if ratios else []
        if said:
            what = f"{together.capitalize()} by a flow ÷ the larger error of the two alone ({alone}), in pixels"
            lines.append(f"{what}: {'; '.join(said)}.")
    return lines


def _round_trips(result: Mapping[str, Any], flows: Sequence[str]) -> list[str]:
    """How each flow returns to the first frame, and in how many cases it does."""
    said = []
    for model in flows:
        own = [cell["round_trip"] for cell in result["cells"] if cell["model"] == model]
        trips = [ratio for trip in own for ratio in trip.get("flow", {}).values()]
        possible = sum(len(trip.get("identity", {})) for trip in own)
        if trips:
            left_out = possible - len(trips)
            folds = f" ({left_out} of {possible} cases fold and are left out)" if left_out else ""
            said.append(f"{model} {max(trips):.3f}{folds}")
    what = "There and back by a flow ÷ the error of the first frame merely encoded and decoded, at worst"
    return [f"{what}: {'; '.join(said)}."] if said else []


# --- figures ------------------------------------------------------------------------------------------------------


def standings_map(result: Mapping[str, Any]) -> Figure:
    """A heat map of the errors with their numbers, ◂ which side is ahead beyond its interval; last a floor."""
    found, known = standings(result), result["settings"]
    found["text"] = found.error.map("{:.2f}".format) + _ahead(result, found).map({True: " ◂", False: ""})
    values, floors, texts = (_wide(found, column) for column in ("error", "floor", "text"))
    if own := [name for name in OURS if name in floors]:
        last = f"floor of {own[0]}"
        values[last], texts[last] = floors[own[0]], floors[own[0]].map("{:.2f}".format)
    fig, axis = plotting.figure(1.0 + 0.87 * values.shape[1], 1.6 + 0.3 * len(values))
    sns.heatmap(values, ax=axis, annot=texts.fillna(""), fmt="", cmap="cividis_r", vmin=0, vmax=1.2,
                annot_kws={"fontsize": 8}, cbar_kws={"shrink": 0.6, "label": "error ÷ no motion"})  # fmt: skip
    for text in axis.texts:
        text.set_color("w" if float(text.get_text().rstrip(" ◂")) > 0.62 else "k")
    axis.set(xlabel="", ylabel="")
    axis.set_xticks(axis.get_xticks(), list(values), rotation=35, ha="left")
    axis.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    said = f"{known['data']} ({known['split']}), budget {known['budget']}"
    counts = verdicts(result).verdict.value_counts()
    if found.seeds.max() > 1:
        ours, rival, tie = (counts.get(side, 0) for side in ("ours", "rival", "tie"))
        counted = f"of {ours + rival + tie} tasks ours is ahead in {ours}, a rival in {rival}; {tie} are open"
        said = f"{counted} (◂: its side is ahead beyond the 95 % interval)\n{said}"
    fig.suptitle(said, fontsize=9)
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
