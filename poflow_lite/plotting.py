"""Figures of the course: filmstrips, bars, curves, animations. None touches matplotlib's global state."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from poflow_lite.densities import Grid

__all__ = [
    "COLORS",
    "MARKERS",
    "arrows",
    "cloud",
    "comparison_dots",
    "cost_panels",
    "density",
    "equivariance_bars",
    "figure",
    "figure_gif",
    "filmstrip",
    "gif",
    "image_grid",
    "show",
    "show_gif",
    "standings_dots",
    "tracks",
    "tradeoff_curves",
    "training_curves",
]

COLORS: list[tuple[float, float, float]] = list(sns.color_palette("colorblind"))
"""Palette that stays distinct in the common colour-vision deficiencies."""
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
"""Second channel beside colour: use the i-th marker with the i-th colour."""


def figure(width: float = 7.0, height: float = 3.0, rows: int = 1, columns: int = 1, **options: Any) -> tuple:
    """A figure with a grid of axes, laid out so that nothing overlaps: ``(figure, axes)`` as from ``plt.subplots``."""
    fig = Figure(figsize=(width, height), layout="constrained", dpi=100)
    axes = fig.subplots(rows, columns, **options)
    for axis in np.atleast_1d(axes).flat:
        axis.spines[["top", "right"]].set_visible(False)
    return fig, axes


def show(fig: Figure, alt: str) -> None:
    """Display a figure in a notebook together with its alternative text, for readers who do not see it."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png")
    _show("image/png", buffer.getvalue(), alt)


def show_gif(data: bytes, alt: str) -> None:
    """Display an animation made by :func:`gif` together with its alternative text."""
    _show("image/gif", data, alt)


def _show(kind: str, data: bytes, alt: str) -> None:
    from IPython.display import display

    display({kind: data, "text/plain": f"[figure] {alt}"}, raw=True, metadata={kind: {"alt": alt}})


def _pixels(image: Tensor) -> np.ndarray:
    """(C, H, W) in [0, 1] → (H, W, C) bytes."""
    return (image.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)


def _bare(axis: Axes) -> None:
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def image_grid(
    images: Tensor,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    title: str = "",
    size: float = 0.72,
) -> Figure:
    """Images (rows, columns, C, H, W) on a grid, with labels at the left and on top; ``size`` in inches an image."""
    rows, columns = images.shape[:2]
    row_labels = [label.replace("_", " ") for label in row_labels]
    width = size * columns + 0.1 + 0.09 * max(map(len, row_labels), default=0)
    title = textwrap.fill(title, int(12 * width))  # characters of the title's size to an inch
    fig, axes = figure(
        width, size * rows + 0.1 * bool(title) + 0.2 * len(title.splitlines()), rows, columns, squeeze=False
    )
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0, rect=(0.01, 0.0, 0.98, 0.99))
    for (row, column), axis in np.ndenumerate(axes):
        axis.imshow(_pixels(images[row, column]))
        _bare(axis)
        if column == 0 and row < len(row_labels):
            axis.set_ylabel(row_labels[row], rotation=0, ha="right", va="center", fontsize=9)
        if row == 0 and column < len(column_labels):
            axis.set_title(column_labels[column], fontsize=9)
    if title:
        fig.suptitle(title, fontsize=10)
    return fig


def filmstrip(true: Tensor, predicted: Tensor, names: Sequence[str], title: str = "") -> Figure:
    """Rendered frames over predicted ones, a pair of rows for each sequence.

    Args:
        true, predicted: (N, T+1, C, H, W), N sequences.
        names: N labels, normally of the transformations.
        title: says which data and model are shown.
    """
    rows = [image for pair in zip(true, predicted, strict=True) for image in pair]
    labels = [label for name in names for label in (f"{name}: true", "predicted")]
    columns = [f"t = {t}" for t in range(true.shape[1])]
    return image_grid(torch.stack(rows), labels, columns, title)


def training_curves(history: Sequence[Mapping[str, float]], title: str = "", per: str = "sequence") -> Figure:
    """One panel for each term of the loss over optimiser steps, from the history that :func:`training.fit` returns.

    ``per`` is what a sample of the model is: a sequence, or a frame for models of single images.
    """
    terms = [name for name in history[0] if name not in ("step", "seconds", "learning_rate", "loss")]
    fig, axes = figure(3.2 * len(terms), 2.6, 1, len(terms), squeeze=False)
    steps = [entry["step"] for entry in history]
    for color, name, axis in zip(COLORS, terms, axes.flat, strict=False):
        axis.plot(steps, [entry[name] for entry in history], color=color, linewidth=1)
        axis.set(title=name.replace("_", " "), xlabel="optimiser step")
    axes[0, 0].set_ylabel(f"nats per {per}")
    if title:
        fig.suptitle(title, fontsize=10)
    return fig


def equivariance_bars(metrics: Mapping[str, Any], title: str = "") -> Figure:
    """Equivariance error of each transformation beside no-motion, median frame and floor, from a ``metrics.json``."""
    kinds = ["no_motion", "median_frame", "equivariance_error", "reconstruction_floor"]
    names = list(metrics["equivariance_error"])
    fig, axis = figure(7, 2.8)
    width = 0.8 / len(kinds)
    for i, kind in enumerate(kinds):
        places = np.arange(len(names)) + (i - (len(kinds) - 1) / 2) * width
        heights = [metrics[kind][name] for name in names]
        label = "model" if kind == "equivariance_error" else kind.replace("_", " ")
        bars = axis.bar(places, heights, width * 0.92, color=COLORS[i], label=label, hatch=["", "//", "", ".."][i])
        axis.bar_label(bars, fmt="%.0f", fontsize=8, padding=1)
    axis.set(xticks=range(len(names)), xticklabels=names, ylabel="L1 error over all frames", title=title)
    axis.legend(frameon=False, fontsize=8)
    return fig


def tradeoff_curves(cells: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Equivariance error (left) and log-likelihood (right) against the KL weight, mean and range over seeds.

    Args:
        cells: as in ``tradeoff.json``.
        title: says which data and budget are shown.
    """
    fig, (left, right) = figure(8.5, 3.2, 1, 2)
    weights = sorted({cell["kl_weight"] for cell in cells})

    def curve(axis: Axes, i: int, label: str, read: Callable[[Mapping[str, Any]], float]) -> None:
        values = [[read(cell) for cell in cells if cell["kl_weight"] == weight] for weight in weights]
        axis.plot(weights, [np.mean(v) for v in values], color=COLORS[i], marker=MARKERS[i], label=label)
        axis.fill_between(weights, [min(v) for v in values], [max(v) for v in values], color=COLORS[i], alpha=0.2)

    for i, name in enumerate(cells[0]["ratio_to_no_motion"]):
        curve(left, i, name, lambda cell, name=name: cell["ratio_to_no_motion"][name])
    for i, name in enumerate(("prediction", "reconstruction"), start=3):
        curve(right, i, name, lambda cell, name=name: cell["log_likelihood"][name])
    left.set(ylabel="equivariance error ÷ no motion", ylim=(0, None))
    right.set(ylabel="log-likelihood (nats per frame)")
    for axis in (left, right):
        axis.set(xscale="log", xlabel="KL weight β")
        axis.legend(frameon=False, fontsize=8)
    if title:
        fig.suptitle(title, fontsize=10)
    return fig


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


def standings_dots(table: Mapping[str, Mapping[str, Any]], title: str = "") -> Figure:
    """One line for each trial, one marker for each model: what fraction of no motion's error it is left with.

    Args:
        table: trial ↦ model ↦ :class:`generalisation.Entry`.
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


# --- points and densities in the plane ----------------------------------------------------------------------------


def _plane(axis: Axes) -> None:
    axis.set_aspect("equal")


def cloud(axis: Axes, points: Tensor, index: int = 0, label: str | None = None, size: float = 6) -> None:
    """Points (n, 2) on an axis, in the ``index``-th colour and marker of the course."""
    x, y = points.detach().cpu().T
    style = {"color": COLORS[index], "marker": MARKERS[index], "s": size, "linewidths": 0, "alpha": 0.6}
    axis.scatter(x, y, label=label, **style)
    _plane(axis)


def tracks(axis: Axes, paths: Tensor, color: Any = "0.5") -> None:
    """Paths (B, T+1, 2) as thin lines on an axis."""
    axis.plot(*paths.detach().cpu().permute(2, 1, 0), color=color, linewidth=0.6, zorder=0)
    _plane(axis)


def density(
    axis: Axes, grid: Grid, values: Tensor, contours: int | Sequence[float] = 0, top: float | None = None
) -> None:
    """A density (N,) on a two-dimensional grid as shades of blue below everything else, with contours if wanted.

    Args:
        contours: how many lines, or their levels in ascending order.
        top: value of the darkest shade; give the same to all panels that are to be compared.
    """
    x, y = (axes.numpy() for axes in grid.axes)
    image = grid.image(values.detach().cpu()).T.numpy()
    axis.pcolormesh(x, y, image, cmap="Blues", vmin=0, vmax=top, shading="nearest", rasterized=True, zorder=-2)
    if contours:
        axis.contour(x, y, image, contours, colors="0.3", linewidths=0.6, zorder=-1)
    _plane(axis)


def arrows(axis: Axes, points: Tensor, vectors: Tensor, index: int = 1) -> None:
    """A vector field: an arrow ``vectors`` (n, 2), in the units of the axes, at each of ``points`` (n, 2)."""
    x, y, u, v = torch.cat([points, vectors], 1).detach().cpu().T
    axis.quiver(x, y, u, v, angles="xy", scale_units="xy", scale=1, color=COLORS[index], width=0.005)
    _plane(axis)


def figure_gif(draw: Callable[[int], Figure], frames: int, milliseconds: int = 120, bounce: bool = False) -> bytes:
    """Animate ``draw(0), ..., draw(frames - 1)``, figures of one size: GIF bytes for :func:`show_gif`.

    Args:
        draw: frame number ↦ figure. Keep the limits of its axes fixed, or the picture jumps.
        frames: how many.
        milliseconds: duration of a frame.
        bounce: play it backwards after that.
    """
    from PIL import Image

    pictures = []
    for i in range(frames):
        buffer = io.BytesIO()
        draw(i).savefig(buffer, format="png")
        pictures.append(Image.open(buffer).convert("P", palette=Image.Palette.ADAPTIVE, colors=64))
    loop = pictures + pictures[-2:0:-1] if bounce else pictures
    buffer = io.BytesIO()
    loop[0].save(buffer, "GIF", save_all=True, append_images=loop[1:], duration=milliseconds, loop=0)
    return buffer.getvalue()


def gif(frames: Tensor, path: Path | None = None, scale: int = 3, milliseconds: int = 180) -> bytes:
    """Animate a grid of image sequences, forth and back: frames (rows, columns, T+1, C, H, W) → GIF bytes.

    Args:
        frames: values in [0, 1].
        path: where to write the file as well.
        scale: enlargement of a pixel.
        milliseconds: duration of a frame.
    """
    from PIL import Image

    pictures = []
    for t in range(frames.shape[2]):
        rows = [np.concatenate([_pixels(image) for image in row[:, t]], 1) for row in frames]
        picture = Image.fromarray(np.concatenate(rows, 0))
        pictures.append(picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST))
    loop = pictures + pictures[-2:0:-1]
    buffer = io.BytesIO()
    loop[0].save(buffer, "GIF", save_all=True, append_images=loop[1:], duration=milliseconds, loop=0)
    if path is not None:
        path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


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
