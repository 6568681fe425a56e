"""Figures of the course: filmstrips, bars, curves, animations. None touches matplotlib's global state.

Images are (C, H, W) in [0, 1], in colour (C = 3) or grey (C = 1); what lies outside is clipped.
"""

from __future__ import annotations

import io
import textwrap
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

__all__ = [
    "COLORS", "MARKERS", "arrows", "cloud", "density", "equivariance_bars", "figure", "filmstrip", "gif",
    "image_grid", "show", "show_gif", "tracks",
]  # fmt: skip

COLORS: list[tuple[float, float, float]] = list(sns.color_palette("colorblind"))
"""Palette that stays distinct in the common colour-vision deficiencies."""
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
"""Second channel beside colour: use the i-th marker with the i-th colour."""
SHADES = 20_000
"""Colours above which a figure shows scenes, whose shades a palette would turn into bands."""


def figure(width: float = 7.0, height: float = 3.0, rows: int = 1, columns: int = 1, **options: Any) -> tuple:
    """A figure with a grid of axes, laid out so that nothing overlaps: ``(figure, axes)`` as from ``plt.subplots``."""
    fig = Figure(figsize=(width, height), layout="constrained", dpi=100)
    axes = fig.subplots(rows, columns, **options)
    for axis in np.atleast_1d(axes).flat:
        axis.spines[["top", "right"]].set_visible(False)
    return fig, axes


# --- what readers see, and what they hear -------------------------------------------------------------------------


def show(fig: Figure, alt: str) -> None:
    """Display a figure in a notebook, sharp on a page too, with its alternative text for readers who do not see it."""
    _show("image/png", png(fig), alt, screen_width(fig))


def show_gif(data: bytes, alt: str) -> None:
    """Display an animation made by :func:`gif` with its alternative text."""
    _show("image/gif", data, alt)


def _show(kind: str, data: bytes, alt: str, width: int | None = None) -> None:
    from IPython.display import display

    display({"text/html": image_tag(kind, data, alt, width), "text/plain": f"[figure] {alt}"}, raw=True)


def image_tag(kind: str, data: bytes, alt: str, width: int | None = None) -> str:
    """JupyterLab and nbconvert ignore an alternative text in the metadata of an image, and nbconvert GIFs: so HTML."""
    if not alt.strip():
        raise ValueError("alt is empty: say in a sentence what the figure shows, for readers who do not see it")
    size = "" if width is None else f' width="{width}"'
    source = f"data:{kind};base64,{b64encode(data).decode()}"
    return f'<img src="{source}" alt="{escape(alt)}"{size} style="max-width:100%;height:auto">'


def picture(fig: Figure, alt: str) -> str:
    """A figure as HTML, with its alternative text."""
    return image_tag("image/png", png(fig), alt, screen_width(fig))


def png(fig: Figure) -> bytes:
    """A figure as PNG, as sharp as a page wants it; if it has few shades with a palette, in two fifths of the bytes."""
    picture, buffer = _opaque(fig, dpi=160), io.BytesIO()
    if picture.getcolors(SHADES) is not None:
        picture = picture.quantize(256)
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def screen_width(fig: Figure) -> int:
    """Pixels that a figure takes on a screen, of which each has more than one in the picture."""
    return round(100 * fig.get_figwidth())


# --- images -------------------------------------------------------------------------------------------------------


def _pixels(image: Tensor) -> np.ndarray:
    """(C, H, W) in [0, 1] ↦ bytes, (H, W, 3) in colour or (H, W) in grey."""
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"an image must be (3, H, W) in colour or (1, H, W) in grey, got {tuple(image.shape)}")
    pixels = (image.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    return pixels[..., 0] if image.shape[0] == 1 else pixels


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
    height = size * rows + 0.1 * bool(title) + 0.2 * len(title.splitlines())
    fig, axes = figure(width, height, rows, columns, squeeze=False)
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0, rect=(0.01, 0.0, 0.98, 0.99))
    for (row, column), axis in np.ndenumerate(axes):
        axis.imshow(_pixels(images[row, column]), cmap="gray", vmin=0, vmax=255)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        if column == 0 and row < len(row_labels):
            axis.set_ylabel(row_labels[row], rotation=0, ha="right", va="center", fontsize=9)
        if row == 0 and column < len(column_labels):
            axis.set_title(column_labels[column], fontsize=9)
    if title:
        fig.suptitle(title, fontsize=10)
    return fig


def filmstrip(true: Tensor, predicted: Tensor, names: Sequence[str], title: str = "") -> Figure:
    """True frames over predicted ones, both (N, T+1, C, H, W): a pair of rows for each of the N named sequences."""
    rows = [image for pair in zip(true, predicted, strict=True) for image in pair]
    labels = [label for name in names for label in (f"{name}: true", "predicted")]
    columns = [f"t = {t}" for t in range(true.shape[1])]
    return image_grid(torch.stack(rows), labels, columns, title)


def gif(frames: Tensor, path: str | Path | None = None, scale: int = 3, milliseconds: int = 180) -> bytes:
    """Animate a grid of image sequences (rows, columns, T+1, C, H, W), forth and back: GIF bytes for :func:`show_gif`.

    ``path`` is a file to write as well, ``scale`` the enlargement of a pixel, ``milliseconds`` what a frame lasts.
    """
    from PIL import Image

    pictures = []
    for t in range(frames.shape[2]):
        rows = [np.concatenate([_pixels(image) for image in row[:, t]], 1) for row in frames]
        picture = Image.fromarray(np.concatenate(rows, 0))
        pictures.append(picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST))
    data = _animation(pictures, milliseconds)
    if path is not None:
        Path(path).write_bytes(data)
    return data


def few_colors(fig: Figure) -> Any:
    """A figure as a PIL image of 100 dots an inch and 64 colours, a third of the bytes: one frame of many."""
    return _opaque(fig, dpi=100).quantize(64)


def _opaque(fig: Figure, dpi: int) -> Any:
    """A figure as a PIL image without a transparent channel, which GIFs misread in a palette."""
    from PIL import Image

    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi)
    return Image.open(buffer).convert("RGB")


def _animation(pictures: list[Any], milliseconds: int) -> bytes:
    loop = pictures + pictures[-2:0:-1]  # forth and back
    buffer = io.BytesIO()
    loop[0].save(buffer, "GIF", save_all=True, append_images=loop[1:], duration=milliseconds, loop=0)
    return buffer.getvalue()


# --- curves and bars ----------------------------------------------------------------------------------------------


def equivariance_bars(errors: Mapping[str, Mapping[str, float]], title: str = "") -> Figure:
    """Equivariance errors as groups of bars, one group for each transformation, one colour for each predictor.

    ``errors`` is predictor ↦ transformation ↦ L1 error, as ``metrics.equivariance_errors`` returns it; bars stand in
    this order, and "equivariance_error" is labelled "model".
    """
    names = list(next(iter(errors.values())))
    fig, axis = figure(7, 2.8)
    width = 0.8 / len(errors)
    for i, (kind, heights) in enumerate(errors.items()):
        places = np.arange(len(names)) + (i - (len(errors) - 1) / 2) * width
        style = {"color": COLORS[i], "hatch": ["", "//", "..", "xx"][i % 4]}
        style["label"] = "model" if kind == "equivariance_error" else kind.replace("_", " ")
        bars = axis.bar(places, [heights[name] for name in names], width * 0.92, **style)
        axis.bar_label(bars, fmt="%.0f", fontsize=8, padding=1)
    axis.set(xticks=range(len(names)), xticklabels=names, ylabel="L1 error over all frames", title=title)
    axis.legend(frameon=False, fontsize=8)
    return fig


# --- points and densities in the plane ----------------------------------------------------------------------------


def cloud(axis: Axes, points: Tensor, index: int = 0, label: str | None = None, size: float = 6) -> None:
    """Points (n, 2) on an axis, in the ``index``-th colour and marker of the course."""
    x, y = points.detach().cpu().T
    style = {"color": COLORS[index], "marker": MARKERS[index], "s": size, "linewidths": 0, "alpha": 0.6}
    axis.scatter(x, y, label=label, **style)
    axis.set_aspect("equal")


def tracks(axis: Axes, paths: Tensor, color: Any = "0.5") -> None:
    """Paths (B, T+1, 2) as thin lines on an axis."""
    axis.plot(*paths.detach().cpu().permute(2, 1, 0).numpy(), color=color, linewidth=0.6, zorder=0)
    axis.set_aspect("equal")


def density(
    axis: Axes, grid: Any, values: Tensor, contours: int | Sequence[float] = 0, top: float | None = None
) -> None:
    """A density (N,) on a two-dimensional ``densities.Grid`` as shades of blue below everything else.

    ``contours`` is how many lines are drawn, or their levels in ascending order; ``top`` the value of the darkest
    shade: give the same to all panels that are to be compared.
    """
    x, y = (axes.numpy() for axes in grid.axes)
    image = grid.image(values.detach().cpu()).T.numpy()
    axis.pcolormesh(x, y, image, cmap="Blues", vmin=0, vmax=top, shading="nearest", rasterized=True, zorder=-2)
    if contours:
        axis.contour(x, y, image, contours, colors="0.3", linewidths=0.6, zorder=-1)
    axis.set_aspect("equal")


def arrows(axis: Axes, points: Tensor, vectors: Tensor, index: int = 1) -> None:
    """A vector field: an arrow ``vectors`` (n, 2), in the units of the axes, at each of ``points`` (n, 2)."""
    x, y, u, v = torch.cat([points, vectors], 1).detach().cpu().T
    axis.quiver(x, y, u, v, angles="xy", scale_units="xy", scale=1, color=COLORS[index], width=0.005)
    axis.set_aspect("equal")
