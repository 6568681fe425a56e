"""The table and the figure of the comparison: every model, moved by what serves it best and by all else, over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import mean
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from poflow_lite import plotting
from poflow_lite.studies.study import as_measured, mean_and_spread, t_interval

Result = Mapping[str, Any]

FORMS = {
    "sequence": ".1f",
    "predictive": ".2f",
    "squared error": ".2f",
    "frame": ".1f",
    "vp_score": ".2f",
    "naming": ".3f",
    "cost": ".2f",
}
"""What is measured besides the errors, and how it is printed."""
_COLUMNS = {
    "sequence": "Sequence: log p(x_0…x_T | k) ÷ (T + 1), all frames sharing z_0, in nats under N(x̂, I).",
    "predictive": "Predictive: log p(x_t | x_0, k), with q(z_0 | x_0) for the exact posterior.",
    "squared error": "Squared error: of a frame predicted from the mean code.",
    "frame": "Frame: log p(x_t | k), each frame by itself, in nats under N(x̂, I).",
    "VP score": "VP score: accuracy of a small network that names k from generated pairs.",
    "naming": "Naming: share of sequences whose k has the largest posterior.",
    "cost": "Cost: time of a training step ÷ that of the plain VAE, or of the cheapest model where it is missing.",
}
"""Column of the table ↦ what it holds."""
OURS = ("free-flow", "flow-factorized", "weakly-supervised")
"""Models that are no rivals of each other."""


def rows(result: Result) -> pd.DataFrame:
    """What was measured, unrounded: a row for every run and operator, and "floor" for its reconstruction.

    Columns: "model", with the varied settings if there are any, "seed", "operator", the error of each transformation,
    "validation", the error on validation images ÷ no motion, mean over transformations, the log-likelihoods "sequence",
    "predictive" and "frame" (the tighter of its estimates), "squared error" of a predicted frame, "vp_score" and
    "naming" (share of sequences named by the joint posterior of k) of the operator; "clustering_accuracy" and "cost",
    time of a step ÷ that of the plain VAE, or of the cheapest model, belong to the model and stand in the row of its
    floor.

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
        still = cell["references"]["no_motion"]
        for operator, entry in {"floor": floor, **cell["operators"]}.items():
            own = {name: entry.get(name) for name in (*FORMS, "clustering_accuracy")}
            if chosen_on := entry.get("validation_error"):
                own["validation"] = mean(error / still[k] for k, error in chosen_on.items())
            if likelihood := entry.get("log_likelihood"):
                own |= {name: likelihood.get(name) for name in ("sequence", "predictive")}
                own["squared error"] = likelihood.get("squared_error")
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
    """Model ↦ the operator that serves it best, by the least error on validation images, mean over seeds.

    "own", which looks at a second frame, is no choice. In records without validation errors the images that were
    measured have to choose, and :func:`notes` says so.
    """
    found, means = rows(result), _means(result)
    relative = means.div(means.xs("floor", level="operator"), level="model").sum(axis=1)
    if "validation" in found:
        relative = found.groupby(["model", "operator"], sort=False)["validation"].mean()
    relative = relative.drop(["floor", "own"], level="operator", errors="ignore")
    return dict(relative.groupby("model", sort=False).idxmin().tolist())


def leads(result: Result, ours: str = "free-flow") -> pd.DataFrame:
    """``ours`` against the best rival in everything that is measured, each model moved by what was chosen for it.

    Rivals are all models but :data:`OURS`. The best one is that with the best mean over seeds. Differences are paired:
    runs of one seed share data and initial networks.

    Returns:
        A row for each "measure": mean of "ours", name and mean of the "rival", and "difference", with its 95 %
        t-interval over seeds "low" to "high" (NaN for one seed): relative for errors, where below 0 is better, in nats
        for the likelihood of sequences, where above 0 is better.
    """
    found = rows(result).set_index(["model", "operator"])
    chosen = {model: found.loc[[(model, operator)]] for model, operator in best_operators(result).items()}
    lines, names = [], list(_runs(result)[0]["references"]["no_motion"])
    for measure in [*names, "sequence"] if ours in chosen else []:
        values = {model: frame.set_index("seed")[measure].dropna() for model, frame in chosen.items()}
        rivals = {m: v for m, v in values.items() if m.split(",")[0] not in OURS and len(v)}
        if not rivals or not len(values[ours]):
            continue
        rival = min(rivals, key=lambda model: rivals[model].mean() * (1 if measure in names else -1))
        pairs = pd.concat([values[ours], rivals[rival]], axis=1, join="inner", keys=["ours", "rival"])
        differences = pairs["ours"] / pairs["rival"] - 1 if measure in names else pairs["ours"] - pairs["rival"]
        low, high = t_interval(differences.tolist())
        means = {"ours": values[ours].mean(), "rival": rival, "its": rivals[rival].mean()}
        lines.append({"measure": measure, **means, "difference": differences.mean(), "low": low, "high": high})
    return pd.DataFrame(lines)


def table(result: Result) -> pd.DataFrame:
    """References, then each model moved by what was chosen for it, then all the rest: means ± spreads over seeds."""
    first, best = _runs(result)[0]["references"], best_operators(result)
    lines = []
    for name in ("no_motion", "median_frame"):
        errors = {k: f"{value:.0f}" for k, value in first[name].items()}
        lines.append({"": "reference", "model": name.replace("_", " "), "moved by": "", **errors})
    groups = dict(list(rows(result).groupby(["model", "operator"], sort=False)))
    for mark, chosen in (("chosen", best.items()), ("", [name for name in groups if name not in best.items()])):
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
    runs, shown = _runs(result), table(result).columns
    seeds = sorted({cell["seed"] for cell in runs})
    said = [
        f"{runs[0]['data_set']}, budget {runs[0]['budget']}, {runs[0]['device']}, seed{'s' * (len(seeds) > 1)} "
        f"{', '.join(map(str, seeds))}{': mean ± standard deviation' * (len(seeds) > 1)}.",
        " ".join(
            [
                "Errors: L1 pixel intensities summed over frames.",
                *(text for name, text in _COLUMNS.items() if name in shown),
                "Floor: frames encoded and decoded by themselves. Linear: the ridge map, one affine map for each "
                "transformation and frame. Chosen: the operator with the least error on "
                f"{'validation' if 'validation' in rows(result) else 'these'} images, all transformations weighing "
                "alike.",
            ]
        ),
    ]
    said += [_said_of(line) for line in leads(result).to_dict("records")]
    for model, share in rows(result).groupby("model", sort=False)["clustering_accuracy"].mean().dropna().items():
        said.append(f"{model} names {share:.1%} of the sequences rightly (best matching).")
    varied = result["settings"]["vary"] or ()
    built = {cell["model"]: as_measured(result, _as_built(cell["settings"])) for cell in runs}
    own = {model: [f"{k} {v}" for k, v in found.items() if k not in varied] for model, found in built.items()}
    shared = set.intersection(*map(set, own.values()))
    parts = {"The same for all": [text for text in own[runs[0]["model"]] if text in shared]}
    parts |= {model: [text for text in found if text not in shared] for model, found in own.items()}
    return said + [f"{title}: {', '.join(found)}." for title, found in parts.items() if found]


def _as_built(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a model, "latent" the size of its codes: MSP has a code of rows × columns numbers in its place."""
    own = {"latent": settings["rows"] * settings["columns"]} if {"rows", "columns"} <= settings.keys() else {}
    return {**settings, **own}


def _said_of(lead: Mapping[str, Any]) -> str:
    """A row of :func:`leads` as a sentence."""
    unit, of = (1, " nats a frame") if lead["measure"] == "sequence" else (100, " %")
    difference, low, high = (f"{unit * lead[name]:+.1f}" for name in ("difference", "low", "high"))
    interval = "" if math.isnan(lead["low"]) else f" (95 %: {low} to {high})"
    return f"free-flow against the best rival, {lead['measure']}: {difference}{of} against {lead['rival']}{interval}."


def figure(result: Result) -> Figure:
    """:func:`comparison_dots` of a result."""
    cell = _runs(result)[0]
    title = f"{cell['data_set']}, budget {cell['budget']}"
    return comparison_dots(rows(result), cell["references"]["no_motion"], best_operators(result), title)


def comparison_dots(
    found: pd.DataFrame, no_motion: Mapping[str, float], chosen: Mapping[str, str], title: str = ""
) -> Figure:
    """One line for each model, one panel for each thing measured: its chosen operator, all others, and its floor.

    Args:
        found: as :func:`rows` gives it.
        no_motion: k ↦ error, the unit of the first panels.
        chosen: model ↦ operator, as :func:`best_operators` gives it.
        title: says which data and budget are shown.
    """
    panels = {k: f"{k}: error ÷ no motion" for k in no_motion}
    unit = "plain VAE's" if "vae" in chosen else "cheapest model's"
    scores = {"sequence": "log-likelihood, nats a frame", "vp_score": "VP score", "cost": f"step ÷ {unit}"}
    panels |= {name: label for name, label in scores.items() if found[name].notna().any()}
    models, lines = list(chosen), -(-len(panels) // 3)
    fig, axes = plotting.figure(10.5, lines * (0.9 + 0.25 * len(models)), lines, 3, squeeze=False, sharey=True)
    for (name, heading), axis in zip(panels.items(), axes.flat, strict=False):
        values = found.assign(x=found[name] / no_motion.get(name, 1.0)).dropna(subset="x")
        spread = values.groupby(["model", "operator"], sort=False)["x"].agg(["mean", "std"]).fillna(0.0)
        for (model, operator), (centre, width) in spread.iterrows():
            at, look = models.index(model), _looks(model, operator, chosen, name)
            axis.errorbar(centre, at, xerr=width if look["zorder"] == 3 else None, **look)
        axis.set(xlabel=heading, yticks=range(len(models)), yticklabels=[_moved(m, chosen[m]) for m in models])
        axis.locator_params(axis="x", nbins=5)
        axis.grid(axis="y", linewidth=0.4, alpha=0.6)
    axes[0, 0].invert_yaxis()
    for axis in axes.flat[: len(no_motion)]:
        axis.axvline(1.0, color="0.4", linewidth=0.8, linestyle="--")
        axis.set_xlim(0, 1.1)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    shown = {"chosen on validation images": (*next(iter(chosen.items())), chosen), "another operator": ("", "", {})}
    shown["coding alone"] = ("", "floor", {})
    handles = [Line2D([], [], label=label, **_marker(_looks(*of, ""))) for label, of in shown.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    fig.suptitle(title, fontsize=10)
    return fig


def _looks(model: str, operator: str, chosen: Mapping[str, str], panel: str) -> dict[str, Any]:
    """Markers: strong colour for our chosen motions, dark for the rivals', light for all else, a bar for the floor."""
    if chosen.get(model) == operator or panel == "cost":
        color = plotting.COLORS[1] if model.startswith(OURS) else "0.2"
        return {"fmt": "o", "color": color, "markersize": 6, "zorder": 3}
    if operator == "floor":
        return {"fmt": "|", "color": "0.35", "markersize": 9, "zorder": 2}
    return {"fmt": "o", "color": "0.8", "markersize": 4, "zorder": 1}


def _marker(look: Mapping[str, Any]) -> dict[str, Any]:
    return {"marker": look["fmt"], "color": look["color"], "markersize": look["markersize"], "linestyle": "none"}


def _moved(model: str, operator: str) -> str:
    names = {"linear": "ridge map"}
    return f"{model}, {names.get(operator, operator)}"
