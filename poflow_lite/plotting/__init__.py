"""Figures of the course, and figures with sliders."""

from poflow_lite.plotting.figures import (
    COLORS,
    MARKERS,
    arrows,
    cloud,
    density,
    equivariance_bars,
    figure,
    filmstrip,
    gif,
    image_grid,
    show,
    show_gif,
    tracks,
)
from poflow_lite.plotting.sliders import explore

__all__ = [
    "COLORS",
    "MARKERS",
    "arrows",
    "cloud",
    "density",
    "equivariance_bars",
    "explore",
    "figure",
    "filmstrip",
    "gif",
    "image_grid",
    "show",
    "show_gif",
    "tracks",
]
