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
from torch import Tensor

from poflow_lite.densities import Grid

__all__ = [
    "COLORS",
    "MARKERS",
    "arrows",
    "cloud",
    "density",
    "equivariance_bars",
    "figure",
    "figure_gif",
    "filmstrip",
    "gif",
    "image_grid",
    "show",
    "show_gif",
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
