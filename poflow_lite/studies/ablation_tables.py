"""Tables and the figure of the ablations: what was measured, and what of it differs by more than seeds do."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from poflow_lite import plotting
from poflow_lite.checkpoints import prepare_folder, write_atomically
from poflow_lite.studies.markdown import markdown_table, mean_and_spread, origin

__all__ = ["Difference", "Line", "chance", "paired_difference", "summarise", "write_tables"]

Cell = Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """A variant less its reference, in pairs of the same seed.

    Attributes:
        mean: over the seeds.
        spread: standard deviation over the seeds, of the differences; ``None`` for a single seed.
        marked: |mean| > 2 spread.
    """

    mean: float
    spread: float | None
    marked: bool


def paired_difference(values: Sequence[float], references: Sequence[float]) -> Difference:
    """The differences of two measurements of the same seeds, with the rule by which they are marked.

    Runs of one seed share initial networks and data, so what a seed does to both cancels in their difference. It is
    marked where its mean is further from 0 than twice its standard deviation over seeds; never for a single seed.

    Args:
        values: of a variant, one for each seed.
        references: of its reference, in the same order.

    Raises:
        ValueError: if they are not equally many, or none.
    """
    if len(values) != len(references) or not values:
        raise ValueError(f"pairs need as many values as references, got {len(values)} and {len(references)}")
    differences = [value - reference for value, reference in zip(values, references, strict=True)]
    centre = mean(differences)
    spread = stdev(differences) if len(differences) > 1 else None
    return Difference(centre, spread, spread is not None and abs(centre) > 2 * spread)


def chance(seeds: int) -> float:
    """How often normal differences with mean 0 are marked by :func:`paired_difference`: P(|t_{n-1}| > 2 √n)."""
    from scipy.stats import t

    return float(2 * t.sf(2 * math.sqrt(seeds), seeds - 1)) if seeds > 1 else 0.0


@dataclass(frozen=True)
class Line:
    """One variant in its group, over all its seeds.

    Attributes:
        group, variant: as in :data:`ablations.ABLATIONS`.
        cells: of all seeds that are done, in their order.
        differences: measure ↦ difference from the reference of the group, of the seeds that both have. A k stands for
            the relative difference of its error ÷ no motion, "error" for the mean of these; the others are in their
            own units, the OT gap and straightness averaged over k. Empty for a reference itself, and where nothing can
            be paired.
    """

    group: str
    variant: str
    cells: list[Cell]
    differences: dict[str, Difference]


def figures(cell: Cell) -> dict[str, float | None]:
    """What the tables show of a cell: error ÷ no motion for each k, and the rest averaged over k.

    The OT gap is (1 / straightness) · (E‖z_T - z_0‖² / W₂²). "pairing" is the second factor: 1 if ends are paired with
    starts as an optimal plan would, however crooked the way.
    """
    gaps, straight = cell["ot_gap"], cell["straightness"]
    pairing = [None if gap is None else gap * straight[k] for k, gap in gaps.items()]
    return {
        **cell["ratio_to_no_motion"],
        **{name: cell[name] for name in ("prediction", "reconstruction")},
        "ot_gap": _average(gaps.values()),
        "straightness": _average(straight.values()),
        "pairing": _average(pairing),
        **{name: cell[name] for name in ("smallest_eigenvalue", "milliseconds")},
    }


COMPARED = ("prediction", "reconstruction", "ot_gap", "straightness", "pairing")


def _average(values: Any) -> float | None:
    found = list(values)
    return None if None in found else mean(found)


def summarise(result: Mapping[str, Any]) -> list[Line]:
    """One line for each variant of each group that has a finished cell, the standard model first.

    Args:
        result: of :func:`ablations.ablate`.
    """
    by_name: dict[str, dict[int, Cell]] = {}
    for cell in result["cells"]:
        by_name.setdefault(cell["cell"], {})[cell["seed"]] = cell
    lines = []
    for row in result["rows"]:
        cells = by_name.get(row["cell"], {})
        reference = result["references"][row["group"]]
        pairs = [(cell, by_name.get(reference, {}).get(seed)) for seed, cell in cells.items()]
        pairs = [(cell, other) for cell, other in pairs if other is not None and row["cell"] != reference]
        if cells:
            lines.append(Line(row["group"], row["variant"], list(cells.values()), _differences(pairs)))
    return lines


def _differences(pairs: Sequence[tuple[Cell, Cell]]) -> dict[str, Difference]:
    if not pairs:
        return {}
    names = list(pairs[0][0]["ratio_to_no_motion"])
    both = [(figures(cell), figures(other)) for cell, other in pairs]
    relative = [{k: ours[k] / theirs[k] - 1 for k in names} for ours, theirs in both]
    still = [0.0] * len(pairs)
    found = {k: paired_difference([entry[k] for entry in relative], still) for k in names}
    found["error"] = paired_difference([mean(entry.values()) for entry in relative], still)
    for name in COMPARED:
        values = [(ours[name], theirs[name]) for ours, theirs in both]
        if all(value is not None for pair in values for value in pair):
            found[name] = paired_difference(*zip(*values, strict=True))
    return found


def write_tables(result: Mapping[str, Any], out: str | Path) -> str:
    """Write ``table.csv``, ``table.md`` and ``ablations.png`` into ``out``; give the Markdown.

    Raises:
        ValueError: if no cell is done.
    """
    if not result["cells"]:
        raise ValueError("no cell of the ablations is done: there is nothing to put into a table")
    folder, lines = prepare_folder(out), summarise(result)
    markdown = _markdown(lines, result)
    for name, text in {"table.csv": _csv(lines), "table.md": markdown}.items():
        write_atomically(folder / name, lambda path, text=text: path.write_text(text, encoding="utf-8"))
    title = f"{result['data_set']}, budget {result['budget']}, {_seeds(result)}"
    picture = ablation_dots(lines, title, _against(result))
    write_atomically(folder / "ablations.png", lambda path: picture.savefig(path, dpi=150, format="png"))
    return markdown


def _against(result: Mapping[str, Any]) -> dict[str, str]:
    """Group ↦ the variant that its others are held against, for groups that have one of their own."""
    rows = result["rows"]
    return {
        row["group"]: row["variant"]
        for row in rows
        if row["cell"] == result["references"][row["group"]] and row["cell"] != rows[0]["cell"]
    }


def _seeds(result: Mapping[str, Any]) -> str:
    seeds = sorted({cell["seed"] for cell in result["cells"]})
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _csv(lines: Sequence[Line]) -> str:
    """One line for each variant and seed, unrounded."""
    names = list(lines[0].cells[0]["no_motion"])
    by_k = ("equivariance_error", "no_motion", "reconstruction_floor", "ratio_to_no_motion", "ot_gap", "straightness")
    whole = ("prediction", "reconstruction", "smallest_eigenvalue", "milliseconds", "seconds")
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(["group", "variant", "seed", *(f"{name}_{k}" for name in by_k for k in names), *whole])
    for line in lines:
        for cell in line.cells:
            values = [cell[name][k] for name in by_k for k in names] + [cell[name] for name in whole]
            table.writerow([line.group, line.variant, cell["seed"], *values])
    return buffer.getvalue()


# --- Markdown -----------------------------------------------------------------------------------------------------

_FORMS = {"prediction": ".1f", "reconstruction": ".1f", "straightness": ".3f", "pairing": ".3f", "milliseconds": ".0f"}
_HEADINGS = {
    "error": "mean error",
    "ot_gap": "OT gap",
    "smallest_eigenvalue": "smallest eigenvalue",
    "milliseconds": "ms a step",
}


def _markdown(lines: Sequence[Line], result: Mapping[str, Any]) -> str:
    names = list(lines[0].cells[0]["no_motion"])
    measures, forms = list(figures(lines[0].cells[0])), dict.fromkeys(names, ".3f") | _FORMS
    measured = []
    for line in lines:
        found = [figures(cell) for cell in line.cells]
        texts = [_measured([entry[name] for entry in found], forms.get(name, ".2f")) for name in measures]
        measured.append([line.group, line.variant, *texts])
    headings = [f"{name} ÷ no motion" if name in names else _HEADINGS.get(name, name) for name in measures]
    parts = ["What was measured:", markdown_table(["group", "variant", *headings], measured, 2)]

    relative = [*names, "error"]
    compared = [*relative, *COMPARED]
    changed = [
        [line.group, line.variant, *(_changed(line.differences.get(name), name, relative) for name in compared)]
        for line in lines
        if line.differences
    ]
    if changed:
        headings = [
            f"{_HEADINGS.get(name, name)}, %" if name in relative else _HEADINGS.get(name, name) for name in compared
        ]
        table = markdown_table(["group", "variant", *headings], changed, 2)
        parts += ["Differences from the reference of each group:", table]
    return "\n\n".join([*parts, *_foot(lines, result)]) + "\n"


def _measured(values: Sequence[float | None], form: str) -> str:
    if None in values:
        return ""
    return mean_and_spread(values, form)


def _changed(difference: Difference | None, name: str, relative: Sequence[str]) -> str:
    if difference is None:
        return ""
    form, unit = (".1f", 100) if name in relative else (_FORMS.get(name, ".2f"), 1)
    centre = f"{unit * difference.mean:+{form}}"
    text = centre + ("" if difference.spread is None else f" ± {unit * difference.spread:{form}}")
    return f"**{text}**" if difference.marked and float(centre) else text  # bold zeros would say nothing


def _foot(lines: Sequence[Line], result: Mapping[str, Any]) -> list[str]:
    """What the columns are, by which rule a difference is marked, and where the figures come from."""
    count = len({cell["seed"] for cell in result["cells"]})
    if count > 1:
        rule = (
            "Differences are taken between runs of the same seed, which share initial networks and data; their mean is "
            "bold where it exceeds twice their standard deviation over the seeds, and is not 0 as printed. By chance "
            "alone that happens to "
            f"{chance(count):.0%} of normal differences with {count} seeds, and this table has "
            f"{sum(len(line.differences) for line in lines)} of them: single bold figures prove little."
        )
    else:
        rule = "With a single seed there is no spread to judge a difference by, and none is marked."
    held = " Differences are from the standard model" + "".join(
        f", in the group {group} from its {variant}" for group, variant in _against(result).items()
    )
    folded = any(cell["prediction"] is None or cell["reconstruction"] is None for cell in result["cells"])
    settings = {name: value for name, value in result["settings"].items() if name not in ("own", "test_images")}
    values = ", ".join(f"{name} {value}" for name, value in (settings | result["settings"]["own"]).items())
    foot = [
        f"{result['data_set']}, budget {result['budget']}; "
        f"{'mean ± standard deviation over' if count > 1 else 'of'} {_seeds(result)}.",
        "÷ no motion: error in L1 pixel intensities summed over frames, over that of x_0 for every t. Prediction, "
        "reconstruction: nats per frame under N(x̂, I), always with the exact density of the flow. OT gap: path energy "
        "÷ W₂² of the clouds of posterior means at t = 0 and T, which is pairing ÷ straightness for each k; "
        "straightness: 1 for straight paths at constant speed; pairing: E‖z_T - z_0‖² ÷ W₂², 1 if an optimal plan "
        "pairs starts and ends as the flow does, as it does more easily for few points in many dimensions. These three "
        "are averages over k. Smallest eigenvalue: of the symmetric part of I + ∂v/∂z along these paths; at or below 0 "
        "the flow may fold. Milliseconds a step hold whatever else the machine did.",
        f"{rule}{held}.",
        f"Standard: {values}.",
        origin(result, result["cells"][0]["device"]),
    ]
    if folded:
        foot.insert(2, "An empty likelihood exceeded its ceiling: the flow folds, and its density is not exact.")
    foot += [f"Left out: {name} ({reason})." for name, reason in result["left_out"].items()]
    return foot + [f"Failed: {name} ({reason})." for name, reason in result["failed"].items()]


# --- the figure ---------------------------------------------------------------------------------------------------


def ablation_dots(lines: Sequence[Line], title: str = "", against: Mapping[str, str] | None = None) -> Figure:
    """A line for each variant, grouped: error ÷ its reference for each k, prediction less its reference, OT gap.

    Args:
        lines: of :func:`summarise`.
        title: says which data, budget and seeds are shown.
        against: group ↦ name of its reference, where that is not the standard model.
    """
    names = list(lines[0].cells[0]["no_motion"])
    places, labels, headings = _places(lines, against or {})
    fig, axes = plotting.figure(10.0, 1.3 + 0.2 * len(labels), 1, 3, sharey=True, width_ratios=(1.5, 1, 1))
    for line, place in zip(lines, places, strict=True):
        for i, k in enumerate(names):
            shift = 0.26 * (i - (len(names) - 1) / 2)
            _dot(axes[0], line.differences.get(k), place + shift, i, offset=1.0)
        _dot(axes[1], line.differences.get("prediction"), place, len(names))
        gaps = [figures(cell)["ot_gap"] for cell in line.cells]
        if None not in gaps:
            marked = "ot_gap" in line.differences and line.differences["ot_gap"].marked
            spread = stdev(gaps) if len(gaps) > 1 else None
            _dot(axes[2], Difference(mean(gaps), spread, marked), place, len(names) + 1)
    axes[0].axvline(1.0, color="0.4", linewidth=0.8, linestyle="--")
    axes[1].axvline(0.0, color="0.4", linewidth=0.8, linestyle="--")
    standard = [figures(cell)["ot_gap"] for line in lines if line.group == "standard" for cell in line.cells]
    if standard and None not in standard:
        axes[2].axvline(mean(standard), color="0.4", linewidth=0.8, linestyle="--")
    axes[0].set_xlabel("error ÷ error of the reference")
    axes[1].set_xlabel("prediction less that of\nthe reference (nats per frame)")
    axes[2].set_xlabel("OT gap")
    axes[0].set_yticks(range(len(labels)), labels, fontsize=8)
    for i, label in enumerate(axes[0].get_yticklabels()):
        label.set_fontweight("bold" if i in headings else "normal")
    for axis in axes:
        _stretch(axis, signed=axis is axes[1])
        axis.grid(axis="y", linewidth=0.3, alpha=0.5)
        axis.tick_params(axis="y", length=0)
    axes[0].set_ylim(len(labels) - 0.4, -0.6)
    colors, markers = plotting.COLORS, plotting.MARKERS
    handles = [
        Line2D([], [], color=colors[i], marker=markers[i], linestyle="none", label=k) for i, k in enumerate(names)
    ]
    for label, filled in (("beyond twice the spread over seeds", "0.4"), ("within, or a single seed", "white")):
        style = {"color": "0.4", "marker": "o", "markerfacecolor": filled, "linestyle": "none"}
        handles.append(Line2D([], [], label=label, **style))
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    if title:
        fig.suptitle(title, fontsize=10)
    return fig


def _stretch(axis: Axes, signed: bool) -> None:
    """Give an axis of very different numbers a logarithmic scale, so that none squeezes the others.

    Ratios get one where they differ by more than a factor of 3; signed differences beyond ±10, outside ±2.
    """
    found = [float(bar.lines[0].get_xdata()[0]) for bar in axis.containers]
    low, high = min(found, default=1.0), max(found, default=1.0)
    if signed and max(-low, high) > 10:
        axis.set_xscale("symlog", linthresh=2)
        axis.set_xlim(1.6 * min(low, -2.0), 1.6 * max(high, 2.0))  # the default margin is none on this scale
        ticks = [sign * tick for tick in (2.0, 10.0, 50.0, 200.0, 1000.0) for sign in (-1, 1)]
    elif not signed and 0 < low < high / 3:
        axis.set_xscale("log")
        ticks = [0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0, 50.0, 100.0, 1000.0]
    else:
        return
    axis.minorticks_off()
    reach = 0.3 * abs(low), 0.1 * abs(high)
    shown = [tick for tick in sorted([*ticks, 0.0][: len(ticks) + signed]) if low - reach[0] <= tick <= high + reach[1]]
    axis.set_xticks(shown, [f"{tick:g}" for tick in shown])


def _places(lines: Sequence[Line], against: Mapping[str, str]) -> tuple[list[int], list[str], set[int]]:
    """Where each line stands from the top, the labels of all places, and which places hold the name of a group."""
    places, labels, headings = [], [], set()
    for i, line in enumerate(lines):
        if line.group != line.variant and (i == 0 or line.group != lines[i - 1].group):
            headings.add(len(labels))
            labels.append(line.group + (f" (against {against[line.group]})" if line.group in against else ""))
        places.append(len(labels))
        labels.append(line.variant)
    return places, labels, headings


def _dot(axis: Axes, difference: Difference | None, place: float, index: int, offset: float = 0.0) -> None:
    """One figure with its spread, in the ``index``-th colour and marker; hollow if it is not marked."""
    if difference is None:
        return
    color = plotting.COLORS[index]
    style = {"color": color, "marker": plotting.MARKERS[index], "markersize": 4.5, "capsize": 1.5, "elinewidth": 0.9}
    style |= {"linestyle": "none", "markerfacecolor": color if difference.marked else "white"}
    axis.errorbar(offset + difference.mean, place, xerr=difference.spread, **style)
