"""The table and the figure of the ablations: what was measured, and what of it differs by more than seeds do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from poflow_lite import plotting
from poflow_lite.studies.study import as_measured, holm, mean_and_spread, t_interval, t_test

STANDARD = "standard"
REFERENCES = {("field", name): ("field", "gradient") for name in ("gradient", "free", "divergence-free")}
REFERENCES |= {("consistency", "free"): ("field", "free")}
"""(group, variant) ↦ (group, variant) that it is held against, where that is not the standard model.

A difference is to speak of one change. A penalty on the residual of a potential makes no sense without one, so the
three fields are compared without it, and agreement on a free field with that field alone.
"""

Cell = Mapping[str, Any]
LIKELIHOODS = ("sequence", "frame by x_0", "frame by x_t")


@dataclass(frozen=True)
class Difference:
    """Mean over seeds, ends of its 95 % t-interval, and p-value of the paired t-test; all but the mean NaN for one."""

    mean: float
    low: float
    high: float
    p: float

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    @property
    def marked(self) -> bool:
        """Whether the interval leaves out 0; never for a single seed."""
        return self.low > 0 or self.high < 0


def paired_difference(values: Sequence[float], references: Sequence[float]) -> Difference:
    """A variant less its reference, in pairs of the same seed.

    Runs of one seed share initial networks and data, so what a seed does to both cancels in their difference.

    Raises:
        ValueError: unless there are as many values as references, and one at least.
    """
    if len(values) != len(references) or not values:
        raise ValueError(f"pairs need as many values as references, got {len(values)} and {len(references)}")
    differences = [value - reference for value, reference in zip(values, references, strict=True)]
    return Difference(mean(differences), *t_interval(differences), t_test(differences))


@dataclass(frozen=True)
class Line:
    """One variant in its group, over all its seeds.

    Attributes:
        group, variant: as in :data:`ablations.ABLATIONS`.
        cells: of all seeds that are done, in their order.
        pairs: (cell, cell of its reference) of the seeds that both have.
        differences: measure of :func:`figures` ↦ difference from the reference, over the pairs; relative for the
            errors. Empty for a reference itself, for another task, and where nothing can be paired.
    """

    group: str
    variant: str
    cells: list[Cell]
    pairs: list[tuple[Cell, Cell]]
    differences: dict[str, Difference]

    @property
    def name(self) -> str:
        """Group and variant, as a row is called."""
        return _named(self.group, self.variant)

    @property
    def changed(self) -> list[str]:
        """Names of the settings in which it differs from its reference."""
        own, other = (cell["settings"] for cell in self.pairs[0]) if self.pairs else ({}, {})
        return [name for name in {**own, **other} if own.get(name) != other.get(name)]

    @property
    def another_task(self) -> bool:
        """Whether it had to predict other frames than its reference."""
        return not all(_same_task(*pair) for pair in self.pairs)


def _named(group: str, variant: str) -> str:
    return ": ".join(dict.fromkeys((group, variant)))


def _same_task(cell: Cell, other: Cell) -> bool:
    """Whether both had to predict the same: standing still is as wrong in both, but for rounding."""
    return all(math.isclose(error, other["no_motion"][k], rel_tol=1e-4) for k, error in cell["no_motion"].items())


def figures(cell: Cell) -> dict[str, float | None]:
    """What is shown of a cell: error ÷ no motion for each k, "error" for their mean, and the rest averaged over k.

    The OT gap is (1 / efficiency) · (E‖z_T - z_0‖² / W₂²). "pairing" is the second factor: 1 if ends are paired with
    starts as an optimal plan would, however crooked the way.
    """
    gaps, straight, ratios = cell["ot_gap"], cell["efficiency"], cell["ratio_to_no_motion"]
    known = None not in gaps.values()
    return {
        **ratios,
        "error": mean(ratios.values()),
        **likelihoods(cell),
        "ot_gap": mean(gaps.values()) if known else None,
        "efficiency": mean(straight.values()),
        "pairing": mean(gap * straight[k] for k, gap in gaps.items()) if known else None,
        **{name: cell[name] for name in ("smallest_eigenvalue", "milliseconds")},
    }


def likelihoods(cell: Cell) -> dict[str, float | None]:
    """The estimates of a cell in nats a frame by name, ``None`` for those that it does not have."""
    found = cell["log_likelihood"] or {"frame": {}}
    by_frame = {f"frame by {proposal}": found["frame"].get(proposal) for proposal in ("x_0", "x_t")}
    return {"sequence": found.get("sequence"), **by_frame}


def summarise(result: Mapping[str, Any]) -> list[Line]:
    """One line for each variant of each group that has a finished cell, the standard model first.

    Raises:
        ValueError: if no cell is done.
    """
    found: dict[tuple[str, str], dict[int, Cell]] = {}
    for cell in result["cells"]:
        for group, variant in cell["variants"]:
            found.setdefault((group, variant), {})[cell["seed"]] = cell
    if not found:
        raise ValueError("no cell of the ablations is done: there is nothing to put into a table")
    groups = dict.fromkeys([STANDARD, *result["settings"]["groups"]])
    return [_line(place, found, _errors(result)) for group in groups for place in found if place[0] == group]


def _line(place: tuple[str, str], found: Mapping[tuple[str, str], Mapping[int, Cell]], relative: Sequence[str]) -> Line:
    cells, references = found[place], found.get(REFERENCES.get(place, (STANDARD, STANDARD)), {})
    pairs = [(cell, references[seed]) for seed, cell in cells.items() if seed in references]
    compared = [pair for pair in pairs if pair[0] is not pair[1] and _same_task(*pair)]
    shown = [(figures(cell), figures(other)) for cell, other in compared]
    return Line(*place, list(cells.values()), pairs, _differences(shown, relative))


def _errors(result: Mapping[str, Any]) -> list[str]:
    return [*result["cells"][0]["no_motion"], "error"]


def _differences(pairs: Sequence[tuple[Cell, Cell]], relative: Sequence[str]) -> dict[str, Difference]:
    compared, found = [*relative, *LIKELIHOODS, "ot_gap", "efficiency", "pairing"], {}
    for name in compared if pairs else ():
        values = [(own[name], other[name]) for own, other in pairs]
        if name == "error":  # the mean of relative changes, not the change of the mean
            values = [(mean(own[k] / other[k] for k in relative[:-1]), 1.0) for own, other in pairs]
        elif name in relative:
            values = [(own / other, 1.0) for own, other in values]
        if all(value is not None for pair in values for value in pair):
            found[name] = paired_difference(*zip(*values, strict=True))
    return found


# --- the table ----------------------------------------------------------------------------------------------------

FORMS = dict.fromkeys(LIKELIHOODS, ".1f") | {"ot_gap": ".2f", "smallest_eigenvalue": ".2f"}
FORMS |= {"milliseconds": ".0f"}  # all others have three digits


def table(result: Mapping[str, Any]) -> pd.DataFrame:
    """Means ± spreads over seeds, and in brackets the difference from the reference ± its interval, bold if marked."""
    lines, errors = summarise(result), _errors(result)
    rows = []
    for line in lines:
        found = [figures(cell) for cell in line.cells]
        texts = {name: mean_and_spread([entry[name] for entry in found], FORMS.get(name, ".3f")) for name in found[0]}
        texts |= {
            name: f"{texts[name]} ({_changed(difference, name, name in errors)})".lstrip()
            for name, difference in line.differences.items()
        }
        rows.append({"group": line.group, "variant": line.variant, **texts})
    headings = {name: f"{name} ÷ no motion" for name in errors} | {"ot_gap": "OT gap", "milliseconds": "ms a step"}
    headings |= {"error": "mean error", "smallest_eigenvalue": "smallest eigenvalue"}
    return pd.DataFrame(rows).rename(columns=headings)


def _changed(difference: Difference, name: str, relative: bool) -> str:
    form, scale, unit = (".1f", 100, " %") if relative else (FORMS.get(name, ".3f"), 1, "")
    centre = f"{scale * difference.mean:+{form}}"
    text = centre + ("" if math.isnan(difference.half) else f" ± {scale * difference.half:{form}}") + unit
    return f"**{text}**" if difference.marked and float(centre) else text  # bold zeros would say nothing


def notes(result: Mapping[str, Any]) -> list[str]:
    """What the columns are, which row is held against which, and by which rule a difference is marked."""
    lines, first = summarise(result), result["cells"][0]
    seeds = sorted({cell["seed"] for cell in result["cells"]})
    said = [
        f"{_title(result)}, {first['device']}{'; mean ± standard deviation' * (len(seeds) > 1)}.",
        "÷ no motion: error in L1 pixel intensities summed over frames, over that of x_0 for every t; mean error: over "
        "k. Sequence: log p(x_0…x_T | k) ÷ (T + 1), all frames sharing z_0. Frame: log p(x_t | k) with the exact "
        "density of the flow, by proposals carried from x_0 or coded from x_t. All in nats under N(x̂, I). OT gap: "
        "kinetic energy ÷ W₂² of the clouds of posterior means at t = 0 and T, for each k pairing ÷ efficiency. "
        "Efficiency: 1 for straight paths at constant speed. Pairing: E‖z_T - z_0‖² ÷ W₂², 1 if an optimal plan "
        "pairs starts and ends as the flow does, as it does more easily for few points in many dimensions. Smallest "
        "eigenvalue: of the symmetric part of I + ∂v/∂z along these paths; at or below 0 the flow may fold. "
        "Milliseconds a step hold whatever else the machine did.",
        _held_against(lines),
        _rule([difference for line in lines for difference in line.differences.values()]),
    ]
    if any(cell["log_likelihood"] is None for cell in result["cells"]):
        said.append("An empty likelihood exceeded its ceiling: the flow folds, and its density is not exact.")
    if any((cell["log_likelihood"] or {}).get("frame") == {} for cell in result["cells"]):
        said.append("Frame is empty where the prior is pushed forward: it belongs to the other reading of the model.")
    standard = next((line.cells[0]["settings"] for line in lines if line.group == STANDARD), {})
    said.append(f"Standard: {', '.join(f'{k} {v}' for k, v in as_measured(result, standard).items())}.")
    own = {line.name: line.cells[0]["settings"] for line in lines if standard}
    other = {name: [f"{k} {v}" for k, v in s.items() if standard.get(k) != v] for name, s in own.items()}
    changed = [f"{name} ({', '.join(found)})" for name, found in other.items() if found]
    return [*said, *([f"What differs from it: {'; '.join(changed)}."] if changed else [])]


def _held_against(lines: Sequence[Line]) -> str:
    """Which row is held against which, and where brackets are missing or speak of more than one change."""
    others: dict[str, list[str]] = {}
    for line in lines:
        place = line.group, line.variant
        if line.differences and place in REFERENCES:
            others.setdefault(_named(*REFERENCES[place]), []).append(line.name)
    text = "".join(f"; of {' and '.join(names)} from {reference}" for reference, names in others.items())
    said = [f"In brackets: the difference from the standard model{text}."]
    if several := [f"{line.name} ({', '.join(line.changed)})" for line in lines if len(line.changed) > 1]:
        said.append(f"More than one setting differs from the reference in {'; '.join(several)}.")
    if elsewhere := [line.name for line in lines if line.another_task]:
        said.append(f"Held against nothing, as another no motion means another task: {', '.join(elsewhere)}.")
    if unpaired := [line.name for line in lines if not line.pairs]:
        said.append(f"Held against nothing, as no seed of their reference is done: {', '.join(unpaired)}.")
    return " ".join(said)


def _rule(differences: Sequence[Difference]) -> str:
    judged = [difference for difference in differences if not math.isnan(difference.p)]
    if not judged:
        return "With a single seed there is no interval to judge a difference by, and none is marked."
    return (
        "Differences are taken between runs of the same seed, which share initial networks and data. In brackets ± is "
        "half the width of the 95 % t-interval of their mean, outside it is the standard deviation over seeds. Bold: "
        f"the interval leaves out 0, and the mean is not 0 as printed. Of the {len(judged)} intervals here 5 %, so "
        f"{0.05 * len(judged):.1f}, would leave out 0 by chance if nothing differed; "
        f"{sum(difference.marked for difference in judged)} do. After Holm's correction for as many comparisons "
        f"{sum(holm([difference.p for difference in judged]))} remain."
    )


def _title(result: Mapping[str, Any]) -> str:
    first, seeds = result["cells"][0], sorted({cell["seed"] for cell in result["cells"]})
    return f"{first['data_set']}, budget {first['budget']}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


# --- the figure ---------------------------------------------------------------------------------------------------


def figure(result: Mapping[str, Any]) -> Figure:
    """:func:`ablation_dots` of a result."""
    return ablation_dots(summarise(result), _title(result))


def ablation_dots(lines: Sequence[Line], title: str = "") -> Figure:
    """A line for each variant: error ÷ its reference for each k, frame likelihood less its reference, OT gap.

    Args:
        lines: of :func:`summarise`; those of several results may be joined.
        title: says which data, budget and seeds are shown.
    """
    names = list(lines[0].cells[0]["no_motion"])
    fig, axes = plotting.figure(10.0, 1.3 + 0.24 * len(lines), 1, 3, sharey=True, width_ratios=(1.5, 1, 1))
    for place, line in enumerate(lines):
        for i, k in enumerate(names):
            at = place + 0.26 * (i - (len(names) - 1) / 2)
            _difference_dot(axes[0], line.differences.get(k), at, i, still=1.0)
        _difference_dot(axes[1], line.differences.get("frame by x_0"), place, len(names))
        if None not in (gaps := [figures(cell)["ot_gap"] for cell in line.cells]):
            marked = "ot_gap" in line.differences and line.differences["ot_gap"].marked
            spread = stdev(gaps) if len(gaps) > 1 else math.nan  # an interval of few seeds may reach below 0
            _dot(axes[2], mean(gaps), spread, place, len(names) + 1, marked)
            if line.group == STANDARD:
                axes[2].axvline(mean(gaps), color="0.4", linewidth=0.8, linestyle="--")
    captions = (
        "error ÷ error of the reference,\n95 % interval",
        "frame by x_0 less that of the\nreference (nats), 95 % interval",
        "OT gap, ± standard\ndeviation over seeds",
    )
    for axis, caption in zip(axes, captions, strict=True):
        axis.set_xlabel(caption)
        axis.grid(axis="y", linewidth=0.3, alpha=0.5)
    for axis, still in zip(axes, (1.0, 0.0), strict=False):
        axis.axvline(still, color="0.4", linewidth=0.8, linestyle="--")
    axes[1].set_xscale("symlog", linthresh=2)  # so that one number does not squeeze the others
    low, high = axes[1].get_xlim()
    axes[1].set_xlim(1.4 * min(low, -2.0), 1.4 * max(high, 2.0))  # the default margin is none on this scale
    axes[2].set_xscale("log")
    axes[2].xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    for axis in axes[1:]:
        axis.xaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
    axes[0].set_yticks(range(len(lines)), [line.name for line in lines])
    axes[0].set_ylim(len(lines) - 0.4, -0.6)
    looks = {k: {"color": plotting.COLORS[i], "marker": plotting.MARKERS[i]} for i, k in enumerate(names)}
    for label, face in (("beyond its 95 % interval", "0.4"), ("within, or a single seed", "white")):
        looks[label] = {"color": "0.4", "marker": "o", "markerfacecolor": face}
    handles = [Line2D([], [], linestyle="none", label=label, **look) for label, look in looks.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    fig.suptitle(title, fontsize=10)
    return fig


def _difference_dot(axis: Axes, difference: Difference | None, place: float, index: int, still: float = 0.0) -> None:
    """A difference with its interval, beside ``still``, where nothing differs."""
    if difference is not None:
        _dot(axis, still + difference.mean, difference.half, place, index, difference.marked)


def _dot(axis: Axes, centre: float, bar: float, place: float, index: int, marked: bool) -> None:
    """One figure with its bar, none if NaN, in the ``index``-th colour and marker; hollow if it is not marked."""
    color = plotting.COLORS[index % 10]
    style = {"color": color, "marker": plotting.MARKERS[index % 8], "markersize": 4.5, "capsize": 1.5}
    style |= {"linestyle": "none", "markerfacecolor": color if marked else "white", "elinewidth": 0.9}
    axis.errorbar(centre, place, xerr=None if math.isnan(bar) else bar, **style)
