"""The figures of the studies: dots with their spread over seeds, heat maps, bars, costs on logarithmic axes."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from poflow_lite.commutators import OrderGaps
from poflow_lite.plotting import COLORS, MARKERS, figure

__all__ = ["comparison_dots", "cost_panels", "order_gap_bars", "standings_dots", "standings_map"]


def comparison_dots(rows: Sequence[Any], no_motion: Mapping[str, float], title: str = "") -> Figure:
    """One line for each model, one marker for each way to move its latents; one panel for each thing measured.

    Args:
        rows: :class:`tables.Row` of every model and operator.
        no_motion: k ↦ error, the unit of the first panels.
        title: says which data and budget are shown.
    """
    panels: list[tuple[str, Callable[[Any], Any]]] = [
        (f"{k}: error ÷ no motion", lambda row, k=k: [(value or 0) / no_motion[k] for value in row.errors[k]])
        for k in no_motion
    ]
    scores = {"prediction": "prediction (nats per frame)", "vp_score": "VP score", "cost": "time of a step ÷ plain VAE"}
    for name, label in scores.items():
        if any(getattr(row, name) is not None for row in rows):
            panels.append((label, lambda row, name=name: getattr(row, name)))
    labels, operators = (list(dict.fromkeys(getattr(row, name) for row in rows)) for name in ("label", "operator"))
    lines = -(-len(panels) // 3)
    fig, axes = figure(10.5, lines * (0.9 + 0.27 * len(labels)), lines, 3, squeeze=False, sharey=True)
    for (heading, read), axis in zip(panels, axes.flat, strict=False):
        for row in rows:
            found = read(row)
            if found is None:
                continue
            i = operators.index(row.operator)
            style = {"color": COLORS[i], "marker": MARKERS[i], "markersize": 6, "capsize": 2, "alpha": 0.85}
            axis.errorbar(found[0], labels.index(row.label), xerr=found[1] or None, linestyle="none", **style)
        axis.set(xlabel=heading, yticks=range(len(labels)), yticklabels=labels)
        axis.grid(axis="y", linewidth=0.4, alpha=0.6)
    for axis in axes.flat[: len(no_motion)]:
        axis.axvline(1.0, color="0.4", linewidth=0.8, linestyle="--")
        axis.set_xlim(0, 1.45)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    axes[0, 0].invert_yaxis()
    handles = [
        Line2D([], [], color=COLORS[i], marker=MARKERS[i], linestyle="none", label=name)
        for i, name in enumerate(operators)
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    if title:
        fig.suptitle(title, fontsize=10)
    return fig


def standings_dots(table: Mapping[str, Mapping[str, Any]], ours: Sequence[str] = (), title: str = "") -> Figure:
    """One line for each trial, one marker for each model: what fraction of no motion's error it is left with.

    Args:
        table: trial ↦ model ↦ :class:`generalisation.Entry`.
        ours: models whose markers have a black edge.
        title: says which data and budget are shown.
    """
    models = list(dict.fromkeys(model for row in table.values() for model in row))
    fig, axis = figure(9.0, 1.6 + 0.32 * len(table))
    shift = np.linspace(-0.3, 0.3, max(len(models), 2))
    for i, model in enumerate(models):
        lines = [line for line, row in enumerate(table.values()) if model in row]
        entries = [row[model] for row in table.values() if model in row]
        spreads = None if any(entry.spread is None for entry in entries) else [entry.spread for entry in entries]
        style = {"color": COLORS[i], "marker": MARKERS[i], "markersize": 6, "capsize": 2, "label": model}
        style |= {"markersize": 9, "markeredgecolor": "black", "zorder": 3} if model in ours else {}
        places = np.array(lines) + shift[i]
        axis.errorbar([entry.error for entry in entries], places, xerr=spreads, linestyle="none", **style)
    for line in range(0, len(table), 2):
        axis.axhspan(line - 0.5, line + 0.5, color="0.95", zorder=0)
    axis.axvline(1.0, color="0.4", linewidth=0.8, linestyle="--")
    axis.set(xlabel="equivariance error ÷ no motion", yticks=range(len(table)), yticklabels=list(table), xlim=(0, None))
    axis.set_ylim(len(table) - 0.5, -0.5)
    fig.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    if title:
        fig.suptitle(title, fontsize=10)
    return fig


def standings_map(table: Mapping[str, Mapping[str, Any]], floor_of: str, title: str = "") -> Figure:
    """The same as a heat map with its numbers, the least of each row marked; last the floor of one model.

    Args:
        table: trial ↦ model ↦ :class:`generalisation.Entry`.
        floor_of: the model whose floor is shown.
        title: says which data are shown.
    """
    models = list(dict.fromkeys(model for row in table.values() for model in row))
    values = np.full((len(table), len(models) + 1), np.nan)
    for i, row in enumerate(table.values()):
        values[i, [models.index(model) for model in row]] = [entry.error for entry in row.values()]
        values[i, -1] = row[floor_of].floor if floor_of in row else np.nan
    fig, axis = figure(1.0 + 0.87 * len(models), 1.6 + 0.3 * len(table))
    image = axis.imshow(values, cmap="cividis_r", vmin=0, vmax=1.2, aspect="auto")
    least = np.nanmin(values[:, :-1], axis=1)
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            text = f"{value:.2f}" + (" ◂" if j < len(models) and value == least[i] else "")
            axis.text(j, i, text, ha="center", va="center", fontsize=8, color="w" if value > 0.62 else "k")
    axis.set_xticks(range(len(models) + 1), [*models, f"floor of {floor_of}"], rotation=35, ha="left")
    axis.set_yticks(range(len(table)), list(table))
    axis.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    fig.colorbar(image, ax=axis, shrink=0.6, label="error ÷ no motion")
    if title:
        fig.suptitle(title, fontsize=9)
    return fig


def order_gap_bars(gaps: OrderGaps, commuting: Sequence[Sequence[bool]], title: str = "") -> Figure:
    """Bars of the true and the learned gap of the two orders for each pair of transformations, commuting ones first.

    Args:
        gaps: of :func:`commutators.order_gaps`.
        commuting: (K, K), which pairs truly commute.
        title: says what was shown.
    """
    pairs = sorted(itertools.combinations(range(len(gaps.names)), 2), key=lambda pair: not commuting[pair[0]][pair[1]])
    fig, axis = figure(6.8, 1.2 + 0.28 * len(pairs))
    for k, (label, values) in enumerate({"true": gaps.true, "learned": gaps.learned}.items()):
        lengths = [float(values[i, j] + values[j, i]) / 2 for i, j in pairs]
        style = {"color": COLORS[k], "hatch": ["", "//"][k], "label": label}
        axis.barh(np.arange(len(pairs)) + 0.4 * k, lengths, 0.38, **style)
    axis.axhline(sum(commuting[i][j] for i, j in pairs) - 0.3, color="0.4", linewidth=0.8, linestyle="--")
    axis.set_yticks(np.arange(len(pairs)) + 0.2, [f"{gaps.names[i]}, {gaps.names[j]}" for i, j in pairs])
    axis.invert_yaxis()
    axis.set(xlabel="gap of the two orders, L1 of the last frame", title="above the line: pairs that commute")
    axis.legend(frameon=False, fontsize=8, loc="upper right")
    if title:
        fig.suptitle(title, fontsize=9)
    return fig


# --- costs --------------------------------------------------------------------------------------------------------

_SIZES = {
    "latent": "latent dimension d",
    "horizon": "horizon T (frames)",
    "transformations": "transformations K",
    "batch_size": "batch size B (sequences)",
    "pixels": "pixels along each side",
}


def cost_panels(result: Mapping[str, Any], title: str = "") -> Figure:
    """Time and memory of a step against each size, log-log, and the error of trainings against their seconds.

    Beside each panel stands the fitted exponent of each line. Parts of the flow-factorized VAE are black; thin dashed
    lines through their last point have the exponent of the formula.

    Args:
        result: of :func:`cost_study.study_costs`.
        title: says what was measured where.
    """
    studies = [*(("times", found) for found in result["times"].values()),
               *(("memory", found) for found in result["memory"].values())]  # fmt: skip
    rows = -(-(len(studies) + 1) // 3)
    fig, axes = figure(11.5, 2.7 * rows + 1.0, rows, 3, squeeze=False)
    models = list(result["training"]["milliseconds"])
    styles = {name: {"color": COLORS[i], "marker": MARKERS[i], "linewidth": 1} for i, name in enumerate(models)}
    parts = dict.fromkeys(name for found in result["times"].values() for name in found["formula"])
    for name, face, marker in zip(parts, ("black", "white"), ("d", "o"), strict=False):
        styles[name] = {"color": "black", "marker": marker, "markerfacecolor": face, "linewidth": 1.8}
    for (kind, found), axis in zip(studies, axes.flat, strict=False):
        _cost_panel(axis, kind, found, styles)
    _error_panel(axes.flat[len(studies)], result["training"], styles)
    for axis in axes.flat[len(studies) + 1 :]:
        axis.set_visible(False)
    handles = [Line2D([], [], markersize=5, label=name, **style) for name, style in styles.items()]
    if parts:
        handles.append(Line2D([], [], color="black", linestyle="--", linewidth=0.8, label="exponent of the formula"))
    fig.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    if title:
        fig.suptitle(textwrap.fill(title, 130), fontsize=10)
    return fig


def _cost_panel(axis: Axes, kind: str, found: Mapping[str, Any], styles: Mapping[str, Mapping[str, Any]]) -> None:
    values, labels = found["values"], []
    for name, curve in found["curves"].items():
        height = curve["milliseconds" if kind == "times" else "mebibytes"]
        exponent = curve["exponent"]["slope"] if kind == "times" else curve["exponent"]
        formula = found.get("formula", {}).get(name)
        text = "" if exponent is None else f"{round(exponent, 2) + 0.0:.2f}"
        if formula is not None:
            text += f" ({round(formula['exponent'], 2) + 0.0:.2f})"
            slope = [height[-1] * (value / values[-1]) ** formula["exponent"] for value in values]
            axis.plot(values, slope, color=styles[name]["color"], linestyle="--", linewidth=0.8, zorder=1)
        labels.append(axis.plot(values, height, markersize=4, label=text, **styles[name])[0])
    heights = [height for curve in labels for height in curve.get_ydata() if height > 0]
    axis.set(xscale="log", yscale="log", xlabel=_SIZES[found["axis"]])
    axis.set(ylabel="milliseconds a step" if kind == "times" else "MiB beyond the weights")
    if heights:
        axis.set_ylim(
            min(heights) / 1.5, max(heights) * 1.5
        )  # a steep formula is cut off, not the measurement squeezed
    axis.set_xticks(values, list(map(str, values)))
    axis.set_xticks([], minor=True)
    _plain_ticks(axis.yaxis)
    note = "exponent" + (" (formula)" if found.get("formula") else "")
    axis.legend(title=note, title_fontsize=7, fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _plain_ticks(axis: Any) -> None:
    """1, 2, 5, 10, … on a logarithmic axis, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _error_panel(axis: Axes, training: Mapping[str, Any], styles: Mapping[str, Mapping[str, Any]]) -> None:
    for model, milliseconds in training["milliseconds"].items():
        budgets = sorted({cell["steps"] for cell in training["cells"] if cell["model"] == model})
        errors = [
            np.mean([cell["error"] for cell in training["cells"] if (cell["model"], cell["steps"]) == (model, steps)])
            for steps in budgets
        ]
        axis.plot([steps * milliseconds / 1e3 for steps in budgets], errors, markersize=4, **styles[model])
    for threshold in dict.fromkeys(row["threshold"] for row in training["reached"]):
        axis.axhline(threshold, color="0.5", linewidth=0.7, linestyle=":", zorder=0)
    axis.set(xscale="log", xlabel="seconds of training", ylabel="error ÷ no motion", ylim=(0, None))
    _plain_ticks(axis.xaxis)
