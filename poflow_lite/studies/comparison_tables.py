"""The table and the figure of the comparison: every model, moved by what serves it best and by all else, over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from poflow_lite import plotting
from poflow_lite.studies.study import mean_and_spread

Result = Mapping[str, Any]

FORMS = {"sequence": ".1f", "frame": ".1f", "vp_score": ".2f", "cost": ".2f"}
"""What is measured besides the errors, and how it is printed."""


def rows(result: Result) -> pd.DataFrame:
    """What was measured, unrounded: a row for every run and operator, and "floor" for its reconstruction.

    Columns: "model", with the varied settings if there are any, "seed", "operator", the error of each transformation,
    the log-likelihoods "sequence" and "frame" (the tighter of its estimates) and "vp_score" of the operator;
    "clustering_accuracy" and "cost", time of a step ÷ that of the plain VAE, or of the cheapest model, belong to the
    model and stand in the row of its floor.

    Raises:
        ValueError: if no cell is done.
    """
    costs = next((cell["milliseconds"] for cell in result["cells"] if "costs_of" in cell), {})
    unit, lines = costs.get("vae", min(costs.values(), default=1.0)), []
    for cell in _runs(result):
        label = [cell["model"], *(f"{name} = {cell['settings'][name]}" for name in result["settings"]["vary"] or ())]
        floor = {"equivariance_error": cell["references"]["reconstruction_floor"]}
        floor["clustering_accuracy"] = cell.get("clustering_accuracy")
        floor["cost"] = costs[cell["model"]] / unit if cell["model"] in costs else None
        for operator, entry in {"floor": floor, **cell["operators"]}.items():
            own = {name: entry.get(name) for name in (*FORMS, "clustering_accuracy")}
            if likelihood := entry.get("log_likelihood"):
                own["sequence"] = likelihood.get("sequence")
                own["frame"] = max(likelihood["frame"].values(), default=None)
            first = {"model": ", ".join(label), "seed": cell["seed"], "operator": operator}
            lines.append({**first, **entry["equivariance_error"], **own})
    found = pd.DataFrame(lines)
    return found.astype(dict.fromkeys(found.columns[3:], float))


def _runs(result: Result) -> list[Mapping[str, Any]]:
    found = [cell for cell in result["cells"] if "operators" in cell]
    if not found:
        raise ValueError("no cell of the comparison is done: there is nothing to put into a table")
    return found


def _means(result: Result) -> pd.DataFrame:
    """Mean error over seeds of each transformation, for every (model, operator)."""
    names = list(_runs(result)[0]["references"]["no_motion"])
    return rows(result).groupby(["model", "operator"], sort=False)[names].mean()


def best_operators(result: Result) -> dict[str, str]:
    """Model ↦ the operator that serves it best, by the least error, all transformations weighing alike."""
    means = _means(result)
    relative = means.div(means.xs("floor", level="operator"), level="model").sum(axis=1)
    return dict(relative.drop("floor", level="operator").groupby("model", sort=False).idxmin().tolist())


def margins(result: Result, ours: str = "flow-factorized") -> dict[str, dict[str, float]]:
    """How far the flow of ``ours`` lies below the best baseline under each operator: operator ↦ k ↦ share.

    0.3 is an error 30 % below, a negative share one above. Baselines are all models but ``ours``, the weakly supervised
    one and the free flow, its variants; their own motions, "roll" and PoFlow's "flow", are operators as well.
    """
    means = _means(result)
    if (ours, "flow") not in means.index:
        return {}
    rivals = means[[not model.startswith((ours, "weakly-supervised", "free-flow")) for model, _ in means.index]]
    best = rivals.drop("floor", level="operator", errors="ignore").groupby("operator", sort=False).min()
    return (1 - means.loc[(ours, "flow")] / best).to_dict("index")


def table(result: Result) -> pd.DataFrame:
    """References, then each model moved by what serves it best, then all the rest: means ± spreads over seeds."""
    first, best = _runs(result)[0]["references"], best_operators(result)
    lines = []
    for name in ("no_motion", "median_frame"):
        errors = {k: f"{value:.0f}" for k, value in first[name].items()}
        lines.append({"": "reference", "model": name.replace("_", " "), "moved by": "", **errors})
    groups = dict(list(rows(result).groupby(["model", "operator"], sort=False)))
    for mark, chosen in (("best", best.items()), ("", [name for name in groups if name not in best.items()])):
        for model, operator in chosen:
            own, floor = groups[model, operator], groups[model, "floor"]
            shown = own.assign(cost=floor["cost"].values) if mark else own
            forms = dict.fromkeys(errors, ".0f") | FORMS
            texts = {name: mean_and_spread(_known(shown[name]), form) for name, form in forms.items()}
            lines.append({"": mark, "model": model, "moved by": operator, **texts})
    found = pd.DataFrame(lines).fillna("").rename(columns={"vp_score": "VP score"})
    return found.loc[:, (found != "").any()]  # what was not measured has no column


def _known(values: pd.Series) -> list[float | None]:
    """Values over seeds, ``None`` where there is none; the cost of a model, which no seed changes, once."""
    found = values.unique() if values.name == "cost" else values
    return [None if pd.isna(value) else value for value in found]


def notes(result: Result) -> list[str]:
    """What the columns are, what the models share and in what they differ."""
    runs = _runs(result)
    seeds = sorted({cell["seed"] for cell in runs})
    said = [
        f"{runs[0]['data_set']}, budget {runs[0]['budget']}, {runs[0]['device']}, seed{'s' * (len(seeds) > 1)} "
        f"{', '.join(map(str, seeds))}{': mean ± standard deviation' * (len(seeds) > 1)}.",
        "Errors: L1 pixel intensities summed over frames. Sequence: log p(x_0…x_T | k) ÷ (T + 1), all frames sharing "
        "z_0; frame: log p(x_t | k), each frame by itself; both in nats under N(x̂, I). "
        "Cost: time of a training step ÷ that of the plain VAE. Best: the operator with the least error of a model, "
        "all transformations weighing alike. Floor: frames encoded and decoded by themselves.",
    ]
    shares = {
        operator: ", ".join(f"{k} {round(share, 2) + 0.0:.0%}" for k, share in below.items())
        for operator, below in margins(result).items()
    }
    if shares:
        below = "; ".join(f"{operator} {share}" for operator, share in shares.items())
        said.append(f"The flow of flow-factorized lies below the best baseline under each operator: {below}.")
    for model, share in rows(result).groupby("model", sort=False)["clustering_accuracy"].mean().dropna().items():
        said.append(f"{model} names {share:.1%} of the sequences rightly (best matching).")
    hidden = {"test_images", *(result["settings"]["vary"] or ())}
    own = {cell["model"]: [f"{k} {v}" for k, v in cell["settings"].items() if k not in hidden] for cell in runs}
    shared = set.intersection(*map(set, own.values()))
    parts = {"The same for all": [text for text in own[runs[0]["model"]] if text in shared]}
    parts |= {model: [text for text in found if text not in shared] for model, found in own.items()}
    return said + [f"{title}: {', '.join(found)}." for title, found in parts.items() if found]


def figure(result: Result) -> Figure:
    """:func:`comparison_dots` of a result."""
    cell = _runs(result)[0]
    title = f"{cell['data_set']}, budget {cell['budget']}"
    return comparison_dots(rows(result), cell["references"]["no_motion"], title)


def comparison_dots(found: pd.DataFrame, no_motion: Mapping[str, float], title: str = "") -> Figure:
    """One line for each model, one marker for each way to move its latents; one panel for each thing measured.

    Args:
        found: as :func:`rows` gives it.
        no_motion: k ↦ error, the unit of the first panels.
        title: says which data and budget are shown.
    """
    panels = {k: f"{k}: error ÷ no motion" for k in no_motion}
    scores = {
        "sequence": "sequence (nats per frame)",
        "frame": "frame (nats)",
        "vp_score": "VP score",
        "cost": "time of a step ÷ plain VAE",
    }
    panels |= {name: label for name, label in scores.items() if found[name].notna().any()}
    models, operators = (list(found[name].unique()) for name in ("model", "operator"))
    looks = {"markers": [plotting.MARKERS[i % 8] for i in range(len(operators))]}
    looks["palette"] = [plotting.COLORS[i % 10] for i in range(len(operators))]
    lines = -(-len(panels) // 3)
    fig, axes = plotting.figure(10.5, lines * (0.9 + 0.27 * len(models)), lines, 3, squeeze=False, sharey=True)
    for (name, heading), axis in zip(panels.items(), axes.flat, strict=False):
        shown = found.assign(x=found[name] / no_motion.get(name, 1.0)).dropna(subset="x")
        order = {"order": models, "hue_order": operators, "linestyle": "none", "legend": False, "markersize": 6}
        sns.pointplot(
            shown,
            x="x",
            y="model",
            hue="operator",
            errorbar="sd",
            err_kws={"linewidth": 1.2},
            ax=axis,
            **order,
            **looks,
        )
        axis.set(xlabel=heading, ylabel="")
        axis.locator_params(axis="x", nbins=5)
        axis.grid(axis="y", linewidth=0.4, alpha=0.6)
    for axis in axes.flat[: len(no_motion)]:
        axis.axvline(1.0, color="0.4", linewidth=0.8, linestyle="--")
        axis.set_xlim(0, 1.45)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    handles = [
        Line2D([], [], linestyle="none", label=name, color=color, marker=marker)
        for name, color, marker in zip(operators, looks["palette"], looks["markers"], strict=True)
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    fig.suptitle(title, fontsize=10)
    return fig
