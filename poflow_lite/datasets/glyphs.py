"""Letters and sprites, drawn by this package: two more data sets in the form of the digits, to generalise to.

The shapes are characters of DejaVu Sans, a free font that comes with matplotlib. Their outlines are bent, slanted,
narrowed and turned, then filled by Pillow at eight times the resolution and averaged.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from poflow_lite.datasets.images import SPLITS, LabelledImages, in_red

LETTERS = {letter: letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
SPRITES = {
    "square": "■", "triangle": "▲", "disc": "●", "half disc": "◗",
    "heart": "♥", "star": "★", "cross": "✚", "ring": "O",
}  # fmt: skip
"""Kind ↦ the character that is drawn."""

PIXELS, REACH, FINE = 28, 9.9, 8
"""Along each side; how far from the middle anything is drawn, so that 4 pixels around stay empty; how much finer."""


def outlines(character: str, bold: bool = False) -> list[Tensor]:
    """The closed outlines of a character, (n, 2) each, x to the right, y down, about its middle, larger extent 1.

    Straight lines are divided, so that they can be bent.
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.path import Path
    from matplotlib.textpath import TextPath

    font = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    polygons = TextPath((0, 0), character, size=100, prop=font).to_polygons(closed_only=True)
    points = np.concatenate(polygons)
    low, high = points.min(0), points.max(0)
    placed = [(polygon - (low + high) / 2) / (high - low).max() * [1, -1] for polygon in polygons]
    return [torch.tensor(Path(polygon).interpolated(3).vertices, dtype=torch.float32) for polygon in placed]


def fill(polygons: list[Tensor], pen: float = 0.0) -> Tensor:
    """What lies within an odd number of closed polygons (n, 2), in pixels from the middle: (28, 28) uint8, 255 inside.

    Args:
        polygons: the outlines.
        pen: radius of the pen that follows them, pixels: it adds to what is filled, or takes away if it is negative.
    """
    from PIL import Image, ImageChops, ImageDraw

    side = PIXELS * FINE
    corners = [[tuple(point) for point in (FINE * polygon + side / 2).round().tolist()] for polygon in polygons]
    image = Image.new("1", (side, side))
    for polygon in corners:
        one = Image.new("1", (side, side))
        ImageDraw.Draw(one).polygon(polygon, fill=1)
        image = ImageChops.logical_xor(image, one)
    if width := round(2 * FINE * abs(pen)):
        for polygon in corners:
            ImageDraw.Draw(image).line(polygon, fill=int(pen > 0), width=width, joint="curve")
    return torch.from_numpy(np.asarray(image.convert("L").reduce(FINE)).copy())


def _between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _bent(polygons: list[Tensor], strength: float, generator: torch.Generator) -> list[Tensor]:
    """Displaced by three long waves of random direction, length and phase, by at most ``strength`` each in x and y."""
    frequency = torch.rand(3, 2, generator=generator) - 0.5  # waves of at least √2 times the square
    phase = 2 * math.pi * torch.rand(3, generator=generator)
    push = strength * (2 * torch.rand(3, 2, generator=generator) - 1)
    return [p + (2 * math.pi * p @ frequency.T + phase).sin() @ push for p in polygons]


def _placed(polygons: list[Tensor], shape: Tensor, degrees: float, reach: float) -> list[Tensor]:
    """Multiplied by ``shape`` (2, 2), turned anticlockwise, moved to the middle, the larger extent made 2 ``reach``."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = torch.tensor([[cosine, sine], [-sine, cosine]]) @ shape
    polygons = [polygon @ matrix.T for polygon in polygons]
    points = torch.cat(polygons)
    low, high = points.amin(0), points.amax(0)
    return [(polygon - (low + high) / 2) * (2 * reach / (high - low).max()) for polygon in polygons]


def _letter(polygons: list[Tensor], generator: torch.Generator) -> Tensor:
    bent = _bent(polygons, 0.09, generator)
    shape = torch.tensor([[_between(0.66, 1, generator), -_between(-0.12, 0.3, generator)], [0.0, 1.0]])
    degrees, pen = _between(-10, 10, generator), _between(-0.3, 0.4, generator)
    return fill(_placed(bent, shape, degrees, _between(8.5, REACH, generator) - max(pen, 0)), pen)


def _sprite(polygons: list[Tensor], generator: torch.Generator) -> Tensor:
    shape = torch.diag(torch.tensor([_between(0.67, 1, generator), 1.0]))
    return fill(_placed(polygons, shape, _between(-180, 180, generator), _between(7, REACH, generator)))


def load_letters(split: str) -> LabelledImages:
    """Capital letters A to Z as if by hand: 1,248 for training, 182 for validation, 364 for testing.

    Each image has its own weight, proportions, slant, bends and a rotation of up to 10°; then the letter is brought to
    the middle, 17 to 20 pixels wide or high. Each split has a seed of its own, so that no image is in two of them, and
    every letter occurs equally often.
    """
    return _drawn("letters", split, LETTERS, (1248, 182, 364))


def load_sprites(split: str) -> LabelledImages:
    """Filled shapes, eight kinds: 1,280 for training, 184 for validation, 360 for testing.

    Each image has its own size (14 to 20 pixels wide or high), proportions (narrower by up to a third) and
    orientation (any), in the manner of dSprites (Matthey et al. 2017), which has three shapes in one place each. Each
    split has a seed of its own, and every shape occurs equally often.
    """
    return _drawn("sprites", split, SPRITES, (1280, 184, 360))


def _drawn(data: str, split: str, kinds: dict[str, str], counts: tuple[int, int, int]) -> LabelledImages:
    seed = SPLITS.index(split)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(counts[seed])[torch.randperm(counts[seed], generator=generator)] % len(kinds)
    draw, bold = {"letters": (_letter, False), "sprites": (_sprite, True)}[data]
    shapes = [outlines(character, bold) for character in kinds.values()]
    images = torch.stack([draw(shapes[label], generator) for label in labels])
    source = "drawn by poflow_lite from DejaVu Sans (Bitstream Vera licence)"
    return LabelledImages(in_red(images), labels, data, split, tuple(kinds), source=source)
