"""The table and the figure of the comparison: every model, moved by what serves it best and by all else, over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from poflow_lite import plotting
from poflow_lite.experiments.comparison import relative_error
from poflow_lite.studies.study import as_measured, mean_and_spread, t_interval

Result = Mapping[str, Any]

FORMS = {
    "sequence": ".1f",
    "predictive": ".2f",
    "squared error": ".2f",
    "frame": ".1f",
    "vp_score": ".2f",
    "naming": ".3f",
    "mig": ".2f",
    "disentanglement": ".2f",
    "completeness": ".2f",
    "informativeness": ".2f",
    "cost": ".2f",
}
"""What is measured besides the errors, and how it is printed."""
OF_CODES = ("mig", "disentanglement", "completeness", "informativeness")
"""What is measured of a model's codes, whatever moves them, where factors are given."""
SCORES = tuple(name for name in FORMS if name not in (*OF_CODES, "cost"))
"""What is measured of a single operator, the one that a run itself chose on validation images."""
_COLUMNS = {
    "sequence": "Sequence: log p(x_0…x_T | k) ÷ (T + 1), all frames sharing z_0, in nats a frame under N(x̂, I).",
    "predictive": "Predictive: log p(x_t | x_0, k), mean over t > 0, in nats; the encoder's q(z_0 | x_0) stands for "
    "the true posterior.",
    "squared error": "Squared error: summed over the pixels of a frame that is predicted from the mean code.",
    "frame": "Frame: log p(x_t | k), each frame by itself, in nats: the larger of two estimates. Empty where the prior "
    "is pushed forward, which has no frame-wise reading.",
    "VP score": "VP score: accuracy of a small network that names k from generated pairs.",
    "naming": "Naming: share of sequences whose k has the largest posterior.",
    "MIG": "MIG: mutual information gap, between each factor and the two latents that know most of it.",
    "disentanglement": "Disentanglement, completeness, informativeness: DCI by random forests, of posterior means of "
    "single images. Completeness is to the base of the number of latents, and compares codes of one size alone.",
    "cost": "Cost: median time of a training step, models in turns, ÷ that of the plain VAE, or of the cheapest model "
    "where it is missing.",
}
"""Column of the table ↦ what it holds."""
OURS = ("free-flow", "flow-factorized", "weakly-supervised")
"""Models that are no rivals of each other."""


def rows(result: Result) -> pd.DataFrame:
    """What was measured, unrounded: a row for every run and operator, and "floor" for its reconstruction.

    Columns: "model", with the varied settings if there are any, "seed", "operator", whether the run itself "chose" it
    on validation images and was scored with it, the error of each transformation, "validation", the error on
    validation images ÷ no motion, mean over transformations, the log-likelihoods "sequence", "predictive" and "frame"
    (the tighter of its estimates), "squared error" of a predicted frame, "vp_score" and "naming" (share of sequences
    named by the joint posterior of k); "clustering_accuracy", :data:`OF_CODES` and "cost", time of a step ÷ that of the
    plain VAE, or of the cheapest model, belong to the model and stand in the row of its floor.

    Raises:
        ValueError: if no cell is done.
    """
    costs = next((cell["milliseconds"] for cell in result["cells"] if "costs_of" in cell), {})
    unit, lines = costs.get("vae", min(costs.values(), default=1.0)), []
    for cell in _runs(result):
        label = [cell["model"], *(f"{name} = {cell['settings'][name]}" for name in result["settings"]["vary"] or ())]
        floor = {"equivariance_error": cell["references"]["reconstruction_floor"]}
        floor |= {"clustering_accuracy": cell.get("clustering_accuracy"), **cell.get("factor_scores", {})}
        floor["cost"] = costs[cell["model"]] / unit if cell["model"] in costs else None
        still = cell["references"]["no_motion"]
        for operator, entry in {"floor": floor, **cell["operators"]}.items():
            own = {name: entry.get(name) for name in (*FORMS, "clustering_accuracy")}
            if chosen_on := entry.get("validation_error"):
                own["validation"] = relative_error(chosen_on, still)
            if likelihood := entry.get("log_likelihood"):
                own |= {name: likelihood.get(name) for name in ("sequence", "predictive")}
                own["squared error"] = likelihood.get("squared_error")
                own["frame"] = max(likelihood["frame"].values(), default=None)
            first = {"model": ", ".join(label), "seed": cell["seed"], "operator": operator}
            first["chose"] = operator == cell["chosen"]
            lines.append({**first, **entry["equivariance_error"], **own})
    found = pd.DataFrame(lines)
    return found.astype(dict.fromkeys(found.columns[4:], float))


def _runs(result: Result) -> list[Mapping[str, Any]]:
    found = [cell for cell in result["cells"] if "operators" in cell]
    if not found:
        raise ValueError("no cell of the comparison is done: there is nothing to put into a table")
    return found


def best_operators(result: Result) -> dict[str, str]:
    """Model ↦ the operator that serves it best, by the least error on validation images, mean over seeds.

    "own", which looks at a second frame, is no choice.
    """
    relative = rows(result).groupby(["model", "operator"], sort=False)["validation"].mean()
    relative = relative.drop(["floor", "own"], level="operator", errors="ignore")
    return dict(relative.groupby("model", sort=False).idxmin().tolist())


def served(result: Result) -> dict[str, pd.DataFrame]:
    """Model ↦ a row for each seed, of :func:`rows`: errors by :func:`best_operators`, scores by what the run chose.

    Only the operator that a run chose has scores. Where runs of a model disagree, its errors are those of one operator
    and its scores those of several, and :func:`notes` says so.
    """
    found, best = rows(result), best_operators(result)
    of_seeds = found.set_index("seed")
    tables = {}
    for model, operator in best.items():
        own = of_seeds[of_seeds["model"] == model]
        scored, moved = own[own["chose"]], own[own["operator"] == operator]
        tables[model] = moved.assign(**{name: scored[name] for name in SCORES})
    return tables


def leads(result: Result, ours: str = "free-flow") -> pd.DataFrame:
    """``ours`` against the best rival in everything that is measured, each model moved by what was chosen for it.

    Rivals are all models but :data:`OURS`. The best one is that with the best mean over seeds. Differences are paired:
    runs of one seed share data and, but for MSP and the Topographic VAE, initial networks.

    Returns:
        A row for each "measure": mean of "ours", name and mean of the "rival", and "difference", with its 95 %
        t-interval over seeds "low" to "high" (NaN for one seed): relative for errors, where below 0 is better, in nats
        for the likelihood of sequences, where above 0 is better.
    """
    chosen, lines, names = served(result), [], list(_runs(result)[0]["references"]["no_motion"])
    for measure in [*names, "sequence"] if ours in chosen else []:
        values = {model: frame[measure].dropna() for model, frame in chosen.items()}
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
    groups, chosen_runs = dict(list(rows(result).groupby(["model", "operator"], sort=False))), served(result)
    for mark, chosen in (("chosen", best.items()), ("", [name for name in groups if name not in best.items()])):
        for model, operator in chosen:
            own, floor = groups[model, operator], groups[model, "floor"]
            whole = {name: floor[name].values for name in (*OF_CODES, "cost")}
            shown = chosen_runs[model].assign(**whole) if mark else own.assign(**_NO_SCORES)
            forms = dict.fromkeys(errors, ".0f") | FORMS
            texts = {name: mean_and_spread(_known(shown[name]), form) for name, form in forms.items()}
            lines.append({"": mark, "model": model, "moved by": operator, **texts})
    found = pd.DataFrame(lines).fillna("").rename(columns={"vp_score": "VP score", "mig": "MIG"})
    return found.loc[:, (found != "").any()]  # what was not measured has no column


_NO_SCORES = dict.fromkeys(SCORES)
"""Operators that were not chosen have none, or those of the runs alone that chose them."""


def _known(values: pd.Series) -> list[float | None]:
    """Values over seeds, ``None`` where there is none; the cost of a model, which no seed changes, once."""
    found = values.unique() if values.name == "cost" else values
    return [None if pd.isna(value) else value for value in found]


def notes(result: Result) -> list[str]:
    """What the columns are, what the models share and in what they differ."""
    runs, shown = _runs(result), table(result).columns
    seeds = sorted({cell["seed"] for cell in runs})
    said = [
        f"{_trained(result)}, {runs[0]['device']}, seed{'s' * (len(seeds) > 1)} "
        f"{', '.join(map(str, seeds))}{': mean ± standard deviation' * (len(seeds) > 1)}.",
        " ".join(
            [
                "Errors: L1 pixel intensities summed over frames.",
                *(text for name, text in _COLUMNS.items() if name in shown),
                "Floor: frames encoded and decoded by themselves. Linear: the ridge map, one affine map for each "
                "transformation and frame, fitted with k to 2,000 training images at most. Chosen: the operator with "
                "the least error on validation images, all transformations weighing alike.",
            ]
        ),
    ]
    said += _scored(result)
    held = leads(result)
    said += [_said_of(line) for line in held.to_dict("records")]
    if len(held) and held["low"].notna().all():
        said.append(
            "95 %: Student's t of differences in pairs of a seed, for each measure by itself. The best rival is that "
            "with the best mean on these images, which favours it."
        )
    for model, shares in rows(result).dropna(subset="clustering_accuracy").groupby("model", sort=False):
        each = shares["clustering_accuracy"]
        singly = f"; by seed: {', '.join(f'{share:.0%}' for share in each)}" if len(each) > 1 else ""
        said.append(f"{model} names {each.mean():.1%} of the sequences rightly (best matching{singly}).")
    if any("clustering_accuracy" in cell for cell in runs):
        said.append("A model that names k may know few labels or none; its ridge map is told all. Its own is its flow.")
    varied = result["settings"]["vary"] or ()
    built = {cell["model"]: as_measured(result, _as_built(cell["settings"])) for cell in runs}
    own = {model: [f"{k} {v}" for k, v in found.items() if k not in varied] for model, found in built.items()}
    shared = set.intersection(*map(set, own.values()))
    parts = {"The same for all": [text for text in own[runs[0]["model"]] if text in shared]}
    parts |= {model: [text for text in found if text not in shared] for model, found in own.items()}
    return said + [f"{title}: {', '.join(found)}." for title, found in parts.items() if found]


def _trained(result: Result) -> str:
    """Data, budget and numbers of steps, which a study may set apart from its budget's."""
    first = _runs(result)[0]
    steps = sorted({cell["settings"]["steps"] for cell in _runs(result)})
    return f"{first['data_set']}, budget {first['budget']}, {' or '.join(f'{count:,}' for count in steps)} steps"


def _scored(result: Result) -> list[str]:
    """How many sequences the likelihoods have, how exact that makes them, and which runs chose another operator."""
    own = [cell["operators"][cell["chosen"]] for cell in _runs(result)]
    found = [entry["log_likelihood"] for entry in own if entry.get("log_likelihood")]
    errors = [likelihood["standard_error"]["sequence"] for likelihood in found if "standard_error" in likelihood]
    said = []
    if errors:
        said.append(
            f"Likelihoods: {found[0]['sequences']:,} sequences, {found[0]['samples']:,} samples; standard error of "
            f"sequence over sequences, within a run, {min(errors):.2f} to {max(errors):.2f}."
        )
    chose = rows(result).query("chose")
    mixed = chose.groupby("model", sort=False)["operator"].agg(lambda own: ", ".join(own) if own.nunique() > 1 else "")
    if found and (texts := [f"{model}: {own}" for model, own in mixed.items() if own]):
        said.append(
            "Scores belong to the operator that each run chose, errors to the one with the least mean over the seeds. "
            f"Choices that differ, by seed: {'; '.join(texts)}."
        )
    return said


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
    """:func:`comparison_dots` of a result, under what it says."""
    title = "\n".join(filter(None, [_message(result), _trained(result)]))
    return comparison_dots(rows(result), _runs(result)[0]["references"]["no_motion"], best_operators(result), title)


def _message(result: Result) -> str:
    """In what free-flow is ahead of the best rival and in what behind, beyond the 95 % interval."""
    found, said = leads(result), []
    if found.empty or found["low"].isna().all():
        return ""
    sign = found["measure"].ne("sequence") * 2 - 1  # errors are better below 0
    better, worse = (found[["low", "high"]].mul(sign * way, axis=0).max(axis=1) < 0 for way in (1, -1))
    for word, which in (("ahead", better), ("behind", worse), ("undecided", ~better & ~worse)):
        if which.any():
            said.append(f"{word} on {', '.join(found['measure'][which])}")
    return f"free-flow against the best rival: {'; '.join(said)}"


def comparison_dots(
    found: pd.DataFrame, no_motion: Mapping[str, float], chosen: Mapping[str, str], title: str = ""
) -> Figure:
    """One line for each model: its chosen operator, all others and its floor; a panel for each error, sequence, cost.

    Args:
        found: as :func:`rows` gives it.
        no_motion: k ↦ error, the unit of the first panels.
        chosen: model ↦ operator, as :func:`best_operators` gives it.
        title: says which data and budget are shown.
    """
    panels = {k: f"{k}: error ÷ no motion" for k in no_motion}
    unit = "plain VAE's" if "vae" in chosen else "cheapest model's"
    scores = {"sequence": "log-likelihood, nats a frame", "cost": f"step ÷ {unit}"}
    panels |= {name: label for name, label in scores.items() if found[name].notna().any()}
    models, lines = list(chosen), -(-len(panels) // 3)
    fig, axes = plotting.figure(10.5, lines * (0.9 + 0.25 * len(models)), lines, 3, squeeze=False, sharey=True)
    for (name, heading), axis in zip(panels.items(), axes.flat, strict=False):
        values = found.assign(x=found[name] / no_motion.get(name, 1.0)).dropna(subset="x")
        if name in SCORES:  # of one operator for each run, whichever it chose
            values = values[values["chose"]].assign(operator=values["model"].map(chosen))
        spread = values.groupby(["model", "operator"], sort=False)["x"].agg(["mean", "std"]).fillna(0.0)
        for (model, operator), (centre, width) in spread.iterrows():
            at, look = models.index(model), _looks(model, operator, chosen, name)
            if name in no_motion and centre > EDGE:
                centre, look = EDGE, _FAR
            axis.errorbar(centre, at, xerr=width if look["zorder"] == 3 else None, **look)
        axis.set(xlabel=heading, yticks=range(len(models)), yticklabels=[_moved(m, chosen[m]) for m in models])
        axis.locator_params(axis="x", nbins=4)
        axis.grid(axis="y", linewidth=0.4, alpha=0.6)
        if name in no_motion:
            axis.axvline(1.0, color="0.4", linewidth=0.8, linestyle="--")
            axis.set_xlim(0, 1.15)
    axes[0, 0].set_ylim(len(models) - 0.4, -0.6)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    _explain(fig, chosen, far=bool((found[list(no_motion)] > EDGE * pd.Series(no_motion)).any(axis=None)))
    fig.suptitle(title, fontsize=10)
    return fig


EDGE = 1.1
"""Error ÷ no motion at which the axis ends; what lies beyond is drawn there, as a triangle."""
_FAR = {"fmt": ">", "color": "0.7", "markersize": 4, "zorder": 1}


def _explain(fig: Figure, chosen: Mapping[str, str], far: bool) -> None:
    """A legend below all panels, of the markers that :func:`_looks` gives."""
    ours, rivals = (next(((m, o, chosen) for m, o in chosen.items() if m.startswith(OURS) is own), None)
                    for own in (True, False))  # fmt: skip
    shown = {"ours, chosen on validation images": ours, "a rival, chosen likewise": rivals}
    looks = {label: _looks(*of, "") for label, of in shown.items() if of}
    looks |= {"another operator": _looks("", "", {}, "")} | ({f"one beyond {EDGE}": _FAR} if far else {})
    looks["floor: frames coded alone"] = _looks("", "floor", {}, "")
    handles = [Line2D([], [], label=label, **_marker(look)) for label, look in looks.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)


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
