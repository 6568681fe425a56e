"""Letters and sprites, drawn by this package: two more data sets in the form of the digits, to generalise to.

Both are made of straight pieces. A letter is a pen that follows strokes, bright where the distance from them is below
the pen's radius; a sprite is filled, bright where the signed distance from its outline is negative. Either way the edge
falls off linearly over one pixel: the share of a pixel that lies within a straight, upright edge.

Coordinates: x to the right, y down; about the square [0, 1]² where shapes are written down, in pixels from the centre
of the image where they are drawn. Angles in degrees, anticlockwise as seen on the screen, from the right.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from poflow_lite.datasets.stills import SPLITS, Stills, in_red

__all__ = ["LETTERS", "SPRITES", "coverage", "distance", "inside", "load_letters", "load_sprites", "pieces"]

Line = tuple[tuple[float, float], ...]
"""Points (x, y) that are joined by straight pieces."""

PIXELS, REACH = 28, 10.0
"""Along each side of an image, and how far from its centre anything is drawn: 20 pixels, framed by 4 empty ones."""


# --- shapes -------------------------------------------------------------------------------------------------------


def _arc(x: float, y: float, a: float, b: float, first: float, last: float, step: float = 18.0) -> Line:
    """Part of the ellipse about (x, y) with half axes a and b, from one angle to another."""
    count = max(1, round(abs(last - first) / step))
    angles = [math.radians(first + (last - first) * i / count) for i in range(count + 1)]
    return tuple((x + a * math.cos(angle), y - b * math.sin(angle)) for angle in angles)


def _bowl(top: float, bottom: float, left: float, right: float) -> Line:
    """A bow to the right that starts and ends at a stem at x = left."""
    middle, radius = (top + bottom) / 2, (bottom - top) / 2
    turn = max(left, right - 1.1 * radius)
    return ((left, top), *_arc(turn, middle, right - turn, radius, 90, -90), (left, bottom))


_STEM: Line = ((0.14, 0), (0.14, 1))

LETTERS: dict[str, tuple[Line, ...]] = {
    "A": (((0.08, 1), (0.5, 0), (0.92, 1)), ((0.25, 0.63), (0.75, 0.63))),
    "B": (_STEM, _bowl(0, 0.47, 0.14, 0.78), _bowl(0.47, 1, 0.14, 0.88)),
    "C": (_arc(0.55, 0.5, 0.45, 0.5, 48, 312),),
    "D": (_STEM, _bowl(0, 1, 0.14, 0.92)),
    "E": (((0.84, 0), (0.14, 0), (0.14, 1), (0.84, 1)), ((0.14, 0.49), (0.72, 0.49))),
    "F": (((0.86, 0), (0.14, 0), (0.14, 1)), ((0.14, 0.47), (0.72, 0.47))),
    "G": ((*_arc(0.53, 0.5, 0.45, 0.5, 48, 345), (0.97, 0.53), (0.6, 0.53)),),
    "H": (_STEM, ((0.86, 0), (0.86, 1)), ((0.14, 0.5), (0.86, 0.5))),
    "I": (((0.5, 0), (0.5, 1)), ((0.24, 0), (0.76, 0)), ((0.24, 1), (0.76, 1))),
    "J": (((0.4, 0), (0.98, 0)), ((0.72, 0), (0.72, 0.7), *_arc(0.43, 0.7, 0.29, 0.3, 0, -165))),
    "K": (_STEM, ((0.84, 0), (0.14, 0.58)), ((0.4, 0.365), (0.9, 1))),
    "L": (((0.16, 0), (0.16, 1), (0.84, 1)),),
    "M": (((-0.06, 1), (0.04, 0), (0.5, 0.7), (0.96, 0), (1.06, 1)),),
    "N": (((0.12, 1), (0.12, 0), (0.88, 1), (0.88, 0)),),
    "O": (_arc(0.5, 0.5, 0.44, 0.5, 90, 450),),
    "P": (_STEM, _bowl(0, 0.54, 0.14, 0.86)),
    "Q": (_arc(0.48, 0.47, 0.44, 0.47, 90, 450), ((0.56, 0.62), (0.98, 1.04))),
    "R": (_STEM, _bowl(0, 0.52, 0.14, 0.84), ((0.42, 0.52), (0.9, 1))),
    "S": ((*_arc(0.5, 0.25, 0.36, 0.25, 25, 252), *_arc(0.5, 0.74, 0.38, 0.26, 72, -155)),),
    "T": (((0.04, 0), (0.96, 0)), ((0.5, 0), (0.5, 1))),
    "U": (((0.1, 0), (0.1, 0.6), *_arc(0.5, 0.6, 0.4, 0.4, 180, 360), (0.9, 0)),),
    "V": (((0.06, 0), (0.5, 1), (0.94, 0)),),
    "W": (((-0.16, 0), (0.18, 1), (0.5, 0.22), (0.82, 1), (1.16, 0)),),
    "X": (((0.1, 0), (0.9, 1)), ((0.9, 0), (0.1, 1))),
    "Y": (((0.06, 0), (0.5, 0.5), (0.94, 0)), ((0.5, 0.5), (0.5, 1))),
    "Z": (((0.1, 0), (0.9, 0), (0.1, 1), (0.9, 1)),),
}
"""The strokes of each capital letter, as a pen draws them."""


def _spokes(radii: Sequence[float], first: float = 90.0) -> Line:
    """A closed polygon whose corners lie at equal angles and these distances from (0.5, 0.5)."""
    angles = [math.radians(first + 360 * i / len(radii)) for i in range(len(radii) + 1)]
    return tuple(
        (0.5 + r * math.cos(angle), 0.5 - r * math.sin(angle))
        for r, angle in zip((*radii, radii[0]), angles, strict=True)
    )


def _heart() -> Line:
    """x = 16 sin³ s, y = 13 cos s - 5 cos 2s - 2 cos 3s - cos 4s, closed."""
    turn = [2 * math.pi * i / 40 for i in range(41)]
    heights = [13 * math.cos(s) - 5 * math.cos(2 * s) - 2 * math.cos(3 * s) - math.cos(4 * s) for s in turn]
    return tuple((0.5 + 0.5 * math.sin(s) ** 3, 0.42 - y / 32) for s, y in zip(turn, heights, strict=True))


def _cross(arm: float = 0.19) -> Line:
    near, far = 0.5 - arm, 0.5 + arm
    quarter = ((near, 0.0), (far, 0.0), (far, near), (1.0, near), (1.0, far), (far, far), (far, 1.0), (near, 1.0))
    return (*quarter, (near, far), (0.0, far), (0.0, near), (near, near), (near, 0.0))


def _crescent(tip: float = 48.0, middle: float = 0.7) -> Line:
    """A disc less another one; its tips lie at ± ``tip``, the middle of the other disc at x = ``middle``."""
    outer = _arc(0.5, 0.5, 0.5, 0.5, tip, 360 - tip, 11)
    across, up = outer[0][0] - middle, 0.5 - outer[0][1]
    radius, angle = math.hypot(across, up), math.degrees(math.atan2(up, across))
    return (*outer, *_arc(middle, 0.5, radius, radius, 360 - angle, angle, 11)[1:])


SPRITES: dict[str, tuple[Line, ...]] = {
    "square": (_spokes([0.7] * 4, 45),),
    "triangle": (_spokes([0.6] * 3),),
    "ellipse": (_arc(0.5, 0.5, 0.32, 0.5, 0, 360, 9),),
    "heart": (_heart(),),
    "star": (_spokes([0.5, 0.21] * 5),),
    "cross": (_cross(),),
    "ring": (_arc(0.5, 0.5, 0.5, 0.5, 0, 360, 10), _arc(0.5, 0.5, 0.27, 0.27, 0, 360, 15)),
    "moon": (_crescent(),),
}
"""The closed outlines of each shape; what lies within an odd number of them is filled."""


# --- drawing ------------------------------------------------------------------------------------------------------


def pieces(shapes: Sequence[tuple[Line, ...]], longest: float = math.inf) -> Tensor:
    """The straight pieces of each shape, both ends: (N, S, 2, 2).

    Those with fewer than S are filled up with pieces of length 0 at the end of their last.

    Args:
        shapes: N of them.
        longest: longer pieces are divided into equal ones, so that a bent letter has bent strokes.
    """
    found = []
    for lines in shapes:
        short = []
        for line in lines:
            for (x, y), (u, v) in itertools.pairwise(line):
                parts = max(1, math.ceil(math.dist((x, y), (u, v)) / longest))
                ends = [(x + (u - x) * i / parts, y + (v - y) * i / parts) for i in range(parts + 1)]
                short += itertools.pairwise(ends)
        found.append(torch.tensor(short))
    most = max(map(len, found))
    return torch.stack([torch.cat([one, one[-1:, 1:].expand(most - len(one), 2, 2)]) for one in found])


def distance(points: Tensor, ends: Tensor) -> Tensor:
    """Distance of points (P, 2) from the nearest of straight pieces (B, S, 2, 2): (B, P), in the units of both."""
    (x, y), (ax, ay), (bx, by) = points.unbind(-1), ends[:, :, 0].unbind(-1), ends[:, :, 1].unbind(-1)
    dx, dy = (bx - ax)[:, None], (by - ay)[:, None]  # (B, 1, S)
    px, py = x[:, None] - ax[:, None], y[:, None] - ay[:, None]  # (B, P, S)
    along = ((px * dx + py * dy) / (dx.square() + dy.square()).clamp(min=1e-12)).clamp(0, 1)
    return ((px - along * dx).square() + (py - along * dy).square()).amin(-1).sqrt()


def inside(points: Tensor, ends: Tensor) -> Tensor:
    """Whether points (P, 2) lie within an odd number of the closed outlines (B, S, 2, 2): (B, P).

    A ray to the left of the point crosses the outlines that often.
    """
    (x, y), (ax, ay), (bx, by) = points.unbind(-1), ends[:, :, 0].unbind(-1), ends[:, :, 1].unbind(-1)
    ax, ay, bx, by = (value[:, None] for value in (ax, ay, bx, by))  # (B, 1, S)
    x, y = x[:, None], y[:, None]
    level = torch.where(ay == by, 1.0, by - ay)  # a level piece is never crossed
    crossed = ((ay > y) != (by > y)) & (ax + (y - ay) / level * (bx - ax) < x)
    return crossed.sum(-1) % 2 == 1


def coverage(signed: Tensor) -> Tensor:
    """½ - d, clamped to [0, 1]: brightness of a pixel whose middle lies d pixels outside an edge, d < 0 inside it."""
    return (0.5 - signed).clamp(0, 1)


def _pixel_middles() -> Tensor:
    """(P, 2), pixels from the centre of the image, row by row."""
    line = torch.arange(PIXELS) - (PIXELS - 1) / 2
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([columns, rows], -1).flatten(0, 1)


def _draw(ends: Tensor, pen: Tensor | None = None, batch: int = 64) -> Tensor:
    """Grey images (N, 28, 28) of pieces in pixels, drawn with pens of these radii (N,), or filled."""
    points, drawn = _pixel_middles(), []
    for rows in torch.arange(len(ends)).split(batch):
        away = distance(points, ends[rows])
        away = away - pen[rows, None] if pen is not None else torch.where(inside(points, ends[rows]), -away, away)
        drawn.append(coverage(away).unflatten(1, (PIXELS, PIXELS)))
    return torch.cat(drawn)


def _between(low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _turned(ends: Tensor, degrees: Tensor) -> Tensor:
    """Turned anticlockwise about the origin, each shape by its own angle (N,)."""
    cosine, sine = (f(torch.deg2rad(degrees))[:, None, None] for f in (torch.cos, torch.sin))
    x, y = ends.unbind(-1)
    return torch.stack([cosine * x + sine * y, cosine * y - sine * x], -1)


def _fitted(ends: Tensor, reach: Tensor) -> Tensor:
    """Moved to the middle and enlarged until the larger of width and height is 2 ``reach`` (N,), in pixels."""
    flat = ends.flatten(1, 2)
    low, high = flat.amin(1), flat.amax(1)
    factor = 2 * reach / (high - low).amax(1)
    return (ends - ((low + high) / 2)[:, None, None]) * factor[:, None, None, None]


def _bent(ends: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Displaced by three long waves of random direction, length and phase: strokes that meet still meet.

    Each wave moves a point by at most ``strength`` in x and in y, in the units of ``ends``.
    """
    count, waves = len(ends), 3
    frequency = torch.rand(count, waves, 2, generator=generator) - 0.5  # waves of at least √2 times the square
    phase = 2 * math.pi * torch.rand(count, waves, generator=generator)
    push = strength * (2 * torch.rand(count, waves, 2, generator=generator) - 1)
    angle = 2 * math.pi * torch.einsum("nspc,nwc->nspw", ends, frequency) + phase[:, None, None]
    return ends + torch.einsum("nspw,nwc->nspc", angle.sin(), push)


# --- data sets ----------------------------------------------------------------------------------------------------


def _labels(count: int, classes: int, generator: torch.Generator) -> Tensor:
    """Each label equally often, in random order."""
    return torch.arange(count)[torch.randperm(count, generator=generator)] % classes


def load_letters(split: str) -> Stills:
    """Capital letters A to Z as if by hand: 1,248 for training, 182 for validation, 364 for testing.

    Each image has its own pen (radius 0.8 to 1.35 pixels), proportions, slant, bends and a rotation of up to 10°; then
    the letter is brought to the middle, 17 to 20 pixels wide or high. Each split has a seed of its own, so
    that no image is in two of them, and every letter occurs equally often.
    """
    count, seed = dict(zip(SPLITS, zip((1248, 182, 364), range(3), strict=True), strict=True))[split]
    generator = torch.Generator().manual_seed(seed)
    labels = _labels(count, len(LETTERS), generator)
    ends = pieces(list(LETTERS.values()), longest=0.35)[labels] - 0.5
    ends = _bent(ends, 0.09, generator)
    width, slant = _between(0.66, 1, count, generator), _between(-0.12, 0.3, count, generator)
    x, y = ends.unbind(-1)
    ends = torch.stack([width[:, None, None] * x - slant[:, None, None] * y, y], -1)
    ends = _turned(ends, _between(-10, 10, count, generator))
    pen = _between(0.8, 1.35, count, generator)
    ends = _fitted(ends, _between(8.5, REACH, count, generator) - pen)
    return Stills(in_red(_draw(ends, pen)), labels, "letters", split, tuple(LETTERS))


def load_sprites(split: str) -> Stills:
    """Filled shapes, eight kinds: 1,280 for training, 184 for validation, 360 for testing.

    Each image has its own size (14 to 20 pixels wide or high), proportions (narrower by up to a third) and
    orientation (any), in the manner of dSprites (Matthey et al. 2017), which has three shapes in one place each. Each
    split has a seed of its own, and every shape occurs equally often.
    """
    count, seed = dict(zip(SPLITS, zip((1280, 184, 360), range(3), strict=True), strict=True))[split]
    generator = torch.Generator().manual_seed(seed)
    labels = _labels(count, len(SPRITES), generator)
    ends = pieces(list(SPRITES.values()))[labels] - 0.5
    ends = ends * torch.stack([_between(0.67, 1, count, generator), torch.ones(count)], -1)[:, None, None]
    ends = _turned(ends, _between(-180, 180, count, generator))
    ends = _fitted(ends, _between(7, REACH, count, generator))
    return Stills(in_red(_draw(ends)), labels, "sprites", split, tuple(SPRITES))
