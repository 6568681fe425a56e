"""A small ray caster: rays from a pinhole camera, the surfaces they meet first, and Lambert's law for the light there.

Everything is batched over scenes (B) and rays (P), and runs where its tensors are; what is the same in all scenes may
lack the axis B. Coordinates: x to the right, y up, z away from the viewer. A surface is met at the least positive
distance; ``math.inf`` where it is missed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "Hits",
    "Light",
    "Meeting",
    "Memory",
    "Rays",
    "average_samples",
    "box",
    "camera_rays",
    "capsule",
    "cylinder",
    "hue_colour",
    "irradiance",
    "nearest",
    "room",
    "shadow_rays",
    "sphere",
]

NEAR = 1e-4
"""Distances below this do not count: a ray does not meet the surface that it starts from."""


@dataclass
class Rays:
    """Half lines o + t d.

    Attributes:
        origin: o, (B, 3, 1) for rays from one point, (B, 3, P) otherwise.
        direction: d, (B, 3, P), of length 1.
    """

    origin: Tensor
    direction: Tensor

    def at(self, distance: Tensor) -> Tensor:
        """Points at distances (B, P): (B, 3, P)."""
        return self.origin + distance.unsqueeze(-2) * self.direction


Meeting = tuple[Tensor, Callable[[Tensor], Tensor]]
"""Where rays meet one surface: distance (B, P), inf where they miss it, and a function from points on it, (B, 3, P), to
the unit normals there, turned towards the viewer."""


def camera_rays(position: Tensor, target: Tensor, size: int, view: float = 45.0, samples: int = 2) -> Rays:
    """Rays of a pinhole camera, ``samples``² of each pixel on a regular grid, row by row from the upper left.

    Args:
        position, target: where the camera is and what it looks at, (B, 3); it is held upright.
        size: pixels along each side of the image.
        view: angle of view from side to side, degrees.
        samples: along each side of a pixel.
    """
    forward = F.normalize(target - position, dim=-1)
    right = F.normalize(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]).to(forward).expand_as(forward), forward))
    up = torch.linalg.cross(forward, right)
    ticks = (torch.arange(size * samples, dtype=torch.float64) + 0.5) / (size * samples) * 2 - 1
    ticks = (ticks * math.tan(math.radians(view / 2))).to(forward)
    down, across = torch.meshgrid(ticks, ticks, indexing="ij")
    forward, right, up = (axis.unsqueeze(-1) for axis in (forward, right, up))
    direction = forward + across.flatten() * right - down.flatten() * up
    return Rays(position.unsqueeze(-1), direction * _dot(direction, direction).rsqrt().unsqueeze(-2))


def average_samples(values: Tensor, size: int, samples: int = 2) -> Tensor:
    """Values at the rays of :func:`camera_rays`, (..., P), averaged over each pixel: (..., size, size)."""
    grid = values.unflatten(-1, (size * samples, size * samples))
    return F.avg_pool2d(grid.flatten(0, -3).unsqueeze(0), samples).squeeze(0).unflatten(0, values.shape[:-1])


# --- surfaces -----------------------------------------------------------------------------------------------------


def sphere(rays: Rays, centre: Tensor, radius: Tensor | float) -> Meeting:
    """A sphere around ``centre`` (B, 3) of ``radius`` (B,), from outside: ‖o + t d - c‖ = r."""
    centre, radius = centre.unsqueeze(-1), _column(radius)
    offset = rays.origin - centre
    half = _dot(offset, rays.direction)
    discriminant = half.square() - _dot(offset, offset) + radius.square()
    distance = -half - discriminant.clamp_min(0).sqrt()
    met = (discriminant >= 0) & (distance > NEAR)
    return torch.where(met, distance, math.inf), lambda point: (point - centre) / radius.unsqueeze(-2)


def box(rays: Rays, centre: Tensor, half: Tensor, turn: float = 0.0) -> Meeting:
    """A box, from outside, by the slabs between its three pairs of faces.

    Args:
        rays: which are cast.
        centre: (B, 3).
        half: half its extent along its own axes, (B, 3).
        turn: about the vertical axis, radians.
    """
    local = Rays(_about_vertical(rays.origin - centre.unsqueeze(-1), -turn), _about_vertical(rays.direction, -turn))
    near, far = _slabs(local, half)
    distance = near.amax(-2)
    met = (distance <= far.amin(-2)) & (distance > NEAR)

    def normal(point: Tensor) -> Tensor:
        return _about_vertical(_face(_about_vertical(point - centre.unsqueeze(-1), -turn), half), turn)

    return torch.where(met, distance, math.inf), normal


def room(rays: Rays, centre: Tensor, half: Tensor) -> Meeting:
    """A box as :func:`box` has it, from inside: walls, floor and ceiling."""
    local = Rays(rays.origin - centre.unsqueeze(-1), rays.direction)
    return _slabs(local, half)[1].amin(-2), lambda point: -_face(point - centre.unsqueeze(-1), half)


def cylinder(rays: Rays, centre: Tensor, radius: Tensor | float, half: Tensor | float) -> Meeting:
    """An upright cylinder with its two lids, from outside: ``centre`` (B, 3), ``radius`` and half its height (B,)."""
    centre, radius, half = centre.unsqueeze(-1), _column(radius), _column(half)
    x, y, z = (rays.origin - centre).unbind(-2)
    dx, dy, dz = rays.direction.unbind(-2)
    speed = (dx * dx + dz * dz).clamp_min(1e-12)
    middle = -(x * dx + z * dz) / speed
    reach2 = middle.square() - (x * x + z * z - radius.square()) / speed
    reach = reach2.clamp_min(0).sqrt()
    climb = torch.where(dy.abs() < 1e-9, 1e-9, dy)
    lid_middle, lid_reach = -y / climb, (half / climb).abs()
    enter = torch.maximum(middle - reach, lid_middle - lid_reach)
    leave = torch.minimum(middle + reach, lid_middle + lid_reach)
    met = (reach2 >= 0) & (enter <= leave) & (enter > NEAR)

    def normal(point: Tensor) -> Tensor:
        x, y, z = (point - centre).unbind(-2)
        on_lid = half - y.abs() < radius - (x * x + z * z).sqrt()
        still = torch.zeros_like(x)
        side, lid = torch.stack([x / radius, still, z / radius], -2), torch.stack([still, y.sign(), still], -2)
        return torch.where(on_lid.unsqueeze(-2), lid, side)

    return torch.where(met, enter, math.inf), normal


def capsule(rays: Rays, start: Tensor, end: Tensor, radius: Tensor | float) -> Meeting:
    """All points within ``radius`` (B,) of the segment from ``start`` to ``end`` (B, 3), from outside.

    The ray meets the cylinder around the segment's line; where it does so beyond an end, it meets that end's sphere.
    """
    tips = [sphere(rays, tip, radius)[0] for tip in (start, end)]
    start, axis, radius = start.unsqueeze(-1), (end - start).unsqueeze(-1), _column(radius)
    offset, length2 = rays.origin - start, _dot(axis, axis)
    along, place = _dot(axis, rays.direction), _dot(axis, offset)
    a = (length2 - along.square()).clamp_min(1e-12)
    b = length2 * _dot(rays.direction, offset) - place * along
    c = length2 * (_dot(offset, offset) - radius.square()) - place.square()
    discriminant = b.square() - a * c
    distance = (-b - discriminant.clamp_min(0).sqrt()) / a
    height = place + distance * along
    on_side = (discriminant >= 0) & (height > 0) & (height < length2) & (distance > NEAR)

    def normal(point: Tensor) -> Tensor:
        share = (_dot(point - start, axis) / length2).clamp(0, 1)
        return (point - start - share.unsqueeze(-2) * axis) / radius.unsqueeze(-2)

    return torch.minimum(torch.where(on_side, distance, math.inf), torch.minimum(*tips)), normal


def _column(value: Tensor | float) -> Tensor:
    """A number for each scene as a column beside its rays: (B,) → (B, 1)."""
    return torch.as_tensor(value).unsqueeze(-1)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Inner products of vectors (..., 3, P): (..., P). Written out, because sums over an axis of 3 are slow."""
    (a, b, c), (x, y, z) = one.unbind(-2), other.unbind(-2)
    return a * x + b * y + c * z


def _about_vertical(vectors: Tensor, angle: float) -> Tensor:
    """Vectors (..., 3, P) turned about the vertical axis."""
    if angle == 0:
        return vectors
    x, y, z = vectors.unbind(-2)
    cosine, sine = math.cos(angle), math.sin(angle)
    return torch.stack([cosine * x + sine * z, y, cosine * z - sine * x], -2)


def _slabs(local: Rays, half: Tensor) -> tuple[Tensor, Tensor]:
    """Distances at which rays enter and leave the slab between each pair of faces: two (B, 3, P)."""
    direction = torch.where(local.direction.abs() < 1e-9, 1e-9, local.direction)
    middle, reach = -local.origin / direction, (half.unsqueeze(-1) / direction).abs()
    return middle - reach, middle + reach


def _face(point: Tensor, half: Tensor) -> Tensor:
    """Outward normals of a box, (B, 3, P), at points on its faces: that of the face which is nearest."""
    gap = half.unsqueeze(-1) - point.abs()
    return torch.where(gap == gap.amin(-2, keepdim=True), point.sign(), 0.0)


# --- what is seen -------------------------------------------------------------------------------------------------


@dataclass
class Hits:
    """What each ray meets first, in half precision, which an 8-bit image cannot tell from single.

    Attributes:
        point, normal: where and with which normal, (B, 3, P).
        surface: the number of the surface, (B, P), uint8.
    """

    point: Tensor
    normal: Tensor
    surface: Tensor


def nearest(rays: Rays, meetings: Sequence[tuple[int, Meeting]]) -> Hits:
    """The first surface along each ray.

    Args:
        rays: which were cast; each must meet something.
        meetings: the number of a surface and where rays meet it; several may carry the same number.
    """
    best = meetings[0][1][0]
    which = torch.zeros_like(best, dtype=torch.uint8)
    for place, (_, (distance, _)) in enumerate(meetings[1:], 1):
        which = torch.where(distance < best, place, which).to(torch.uint8)
        best = torch.minimum(best, distance)
    point, numbers = rays.at(best), torch.tensor([number for number, _ in meetings], device=best.device)
    normal = torch.zeros_like(point)
    for place, (_, (_, normals)) in enumerate(meetings):
        seen = which == place
        columns = seen.any(0).nonzero()[:, 0]  # most surfaces are seen by few rays, and the others need no normal
        part = normals(point[..., columns])
        normal[..., columns] = torch.where(seen[:, columns].unsqueeze(-2), part, normal[..., columns])
    return Hits(point.half(), normal.half(), numbers.to(torch.uint8)[which.int()])


@dataclass
class Light:
    """A small lamp in a room whose walls send some of its light back.

    Attributes:
        position: (B, 3).
        intensity: (B,), what a surface near the lamp and facing it receives.
        ambient: what every surface receives from everywhere.
        reach: distance at which the lamp's light has fallen to half.
    """

    position: Tensor
    intensity: Tensor
    ambient: float = 0.35
    reach: float = 6.0


def irradiance(point: Tensor, normal: Tensor, light: Light, shadowed: Tensor | None = None) -> Tensor:
    """Lambert's law: ambient + intensity · max(0, n · l) / (1 + (r / reach)²), (B, P), l the direction to the lamp.

    Args:
        point, normal: (B, 3, P).
        light: its position is r away.
        shadowed: (B, P), points that receive the ambient light only.
    """
    towards = light.position.unsqueeze(-1) - point
    distance2 = _dot(towards, towards)
    facing = _dot(towards, normal).clamp_min(0) * distance2.rsqrt()
    direct = _column(light.intensity) * facing / (1 + distance2 / light.reach**2)
    return light.ambient + (direct if shadowed is None else torch.where(shadowed, 0.0, direct))


def shadow_rays(point: Tensor, normal: Tensor, light: Light) -> tuple[Rays, Tensor]:
    """Rays from points (B, 3, P), lifted a little off their surface, to the lamp, and how far away it is, (B, P)."""
    origin = point + 0.02 * normal
    towards = light.position.unsqueeze(-1) - origin
    distance = _dot(towards, towards).sqrt()
    return Rays(origin, towards / distance.unsqueeze(-2)), distance


def hue_colour(hue: Tensor, saturation: float = 0.85, value: float = 1.0) -> Tensor:
    """Red, green and blue, (..., 3), of a hue in [0, 1) on the HSV colour circle."""
    offsets = torch.tensor([0.0, 4.0, 2.0], device=hue.device)
    ramp = ((torch.remainder(6 * hue[..., None] + offsets, 6.0) - 3).abs() - 1).clamp(0, 1)
    return value * (1 - saturation + saturation * ramp)


# --- what need not be computed twice ------------------------------------------------------------------------------


class Memory:
    """A function of an integer that remembers its latest results, computing all that are missing at once.

    Args:
        function: keys (B,) ↦ tensors whose first axis is B.
        keys: how many keys there are, 0..keys-1.
        limit: bytes that may be kept.
        together: keys that are computed at once.
    """

    def __init__(
        self, function: Callable[[Tensor], tuple[Tensor, ...]], keys: int, limit: int = 128 * 2**20, together: int = 4
    ):
        self.function, self.keys, self.limit, self.together = function, keys, limit, together
        self.rows: tuple[Tensor, ...] = ()
        self.row_of_key = self.key_of_row = torch.empty(0)
        self.next = 0

    def __call__(self, keys: Tensor) -> tuple[Tensor, ...]:
        """The function's values at keys (B,)."""
        wanted = keys.unique()
        if not self.rows:
            self._allocate(self.function(wanted[:1]))
        if len(wanted) > len(self.key_of_row):  # more than there is room for
            return tuple(map(torch.cat, zip(*(self(part) for part in keys.split(len(self.key_of_row))), strict=True)))
        missing = wanted[self.row_of_key[wanted] < 0]
        if len(missing):
            self._keep(missing, wanted)
        rows = self.row_of_key[keys]
        return tuple(kept[rows] for kept in self.rows)

    def _allocate(self, example: tuple[Tensor, ...]) -> None:
        size = sum(value.numel() * value.element_size() for value in example)
        count = max(1, min(self.keys, self.limit // size))
        self.rows = tuple(torch.empty(count, *v.shape[1:], dtype=v.dtype, device=v.device) for v in example)
        self.row_of_key = torch.full((self.keys,), -1, device=example[0].device)
        self.key_of_row = torch.full((count,), -1, device=example[0].device)

    def _keep(self, missing: Tensor, wanted: Tensor) -> None:
        """Compute what is missing and write it over the oldest rows that are not wanted now."""
        count = len(self.key_of_row)
        order = torch.arange(self.next, self.next + count, device=missing.device) % count
        free = order[~torch.isin(self.key_of_row[order], wanted)][: len(missing)]
        forgotten = self.key_of_row[free]
        self.row_of_key[forgotten[forgotten >= 0]] = -1
        for rows, keys in zip(free.split(self.together), missing.split(self.together), strict=True):
            for kept, value in zip(self.rows, self.function(keys), strict=True):
                kept[rows] = value
        self.row_of_key[missing], self.key_of_row[free] = free, missing
        self.next = int(free[-1] + 1) % count
