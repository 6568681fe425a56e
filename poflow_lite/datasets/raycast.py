"""A small ray caster: rays from a pinhole camera, the surfaces they meet first, and Lambert's law for the light there.

Everything is batched over scenes (B) and rays (P), and runs where its tensors are; what is the same in all scenes may
lack the axis B. Coordinates: x to the right, y up, z away from the viewer. A surface is met at the least positive
distance; ``math.inf`` where it is missed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

NEAR = 1e-4
"""Distances below this do not count: a ray does not meet the surface that it starts from."""


@dataclass
class Rays:
    """Half lines o + t d: ``origin`` o, (B, 3, 1) or (B, 3, P), and ``direction`` d, (B, 3, P), of length 1."""

    origin: Tensor
    direction: Tensor

    def at(self, distance: Tensor) -> Tensor:
        """Points at distances (B, P): (B, 3, P)."""
        return self.origin + distance.unsqueeze(-2) * self.direction


Intersection = tuple[Tensor, Callable[[Tensor], Tensor]]
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
# Centres, ends and half extents are (B, 3); radii and heights are (B,), or numbers.


def sphere(rays: Rays, centre: Tensor, radius: Tensor | float) -> Intersection:
    """A sphere, from outside: ‖o + t d - c‖ = r."""
    centre, radius = centre.unsqueeze(-1), _column(radius, centre)
    offset = rays.origin - centre
    half = _dot(offset, rays.direction)
    discriminant = half.square() - _dot(offset, offset) + radius.square()
    distance = -half - discriminant.clamp_min(0).sqrt()
    met = (discriminant >= 0) & (distance > NEAR)
    return torch.where(met, distance, math.inf), lambda point: (point - centre) / radius.unsqueeze(-2)


def box(rays: Rays, centre: Tensor, half: Tensor, turn: float = 0.0) -> Intersection:
    """A box turned about the vertical axis by ``turn`` radians, from outside, by the slabs between opposite faces."""
    local = Rays(_about_vertical(rays.origin - centre.unsqueeze(-1), -turn), _about_vertical(rays.direction, -turn))
    near, far = _slabs(local, half)
    distance = near.amax(-2)
    met = (distance <= far.amin(-2)) & (distance > NEAR)

    def normal(point: Tensor) -> Tensor:
        return _about_vertical(_face(_about_vertical(point - centre.unsqueeze(-1), -turn), half), turn)

    return torch.where(met, distance, math.inf), normal


def room(rays: Rays, centre: Tensor, half: Tensor) -> Intersection:
    """A box from inside: walls, floor and ceiling."""
    local = Rays(rays.origin - centre.unsqueeze(-1), rays.direction)
    return _slabs(local, half)[1].amin(-2), lambda point: -_face(point - centre.unsqueeze(-1), half)


def cylinder(rays: Rays, centre: Tensor, radius: Tensor | float, half: Tensor | float) -> Intersection:
    """An upright cylinder with its two lids, from outside; ``half`` is half its height."""
    centre, radius, half = centre.unsqueeze(-1), _column(radius, centre), _column(half, centre)
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


def capsule(rays: Rays, start: Tensor, end: Tensor, radius: Tensor | float) -> Intersection:
    """All points within ``radius`` of the segment from ``start`` to ``end``, from outside.

    The ray meets the cylinder around the segment's line; where it does so beyond an end, it meets that end's sphere.
    """
    tips = [sphere(rays, tip, radius)[0] for tip in (start, end)]
    start, axis, radius = start.unsqueeze(-1), (end - start).unsqueeze(-1), _column(radius, start)
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


def _column(value: Tensor | float, like: Tensor) -> Tensor:
    """A number for each scene as a column beside its rays, on the device of another tensor: (B,) → (B, 1)."""
    return torch.as_tensor(value, device=like.device).unsqueeze(-1)


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


class Hits(NamedTuple):
    """What each ray meets first: where and with which normal, (B, 3, P), and the surface's number, (B, P), uint8.

    Points and normals are in half precision, which an 8-bit image cannot tell from single.
    """

    point: Tensor
    normal: Tensor
    surface: Tensor


def nearest(rays: Rays, intersections: Sequence[tuple[int, Intersection]]) -> Hits:
    """The first surface along each ray, which must meet one; several intersections may have the same surface number."""
    best = intersections[0][1][0]
    which = torch.zeros_like(best, dtype=torch.uint8)
    for place, (_, (distance, _)) in enumerate(intersections[1:], 1):
        which = torch.where(distance < best, place, which).to(torch.uint8)
        best = torch.minimum(best, distance)
    point, numbers = rays.at(best), torch.tensor([number for number, _ in intersections], device=best.device)
    normal = torch.zeros_like(point)
    for place, (_, (_, normals)) in enumerate(intersections):
        seen = which == place
        columns = seen.any(0).nonzero()[:, 0]  # most surfaces are seen by few rays, and the others need no normal
        part = normals(point[..., columns])
        normal[..., columns] = torch.where(seen[:, columns].unsqueeze(-2), part, normal[..., columns])
    return Hits(point.half(), normal.half(), numbers.to(torch.uint8)[which.int()])


@dataclass
class Light:
    """A small lamp at ``position`` (B, 3) in a room whose walls send some of its light back.

    A surface near the lamp and facing it receives ``intensity`` (B,), half of it at the distance ``reach``, and every
    surface receives ``ambient``.
    """

    position: Tensor
    intensity: Tensor
    ambient: float = 0.35
    reach: float = 6.0


def irradiance(point: Tensor, normal: Tensor, light: Light, shadowed: Tensor | None = None) -> Tensor:
    """Lambert's law: ambient + intensity · max(0, n · l) / (1 + (r / reach)²), (B, P), l the direction to the lamp.

    Points and normals are (B, 3, P), the lamp is r away; where ``shadowed`` (B, P), only the ambient light arrives.
    """
    towards = light.position.unsqueeze(-1) - point
    distance2 = _dot(towards, towards)
    facing = _dot(towards, normal).clamp_min(0) * distance2.rsqrt()
    direct = _column(light.intensity, facing) * facing / (1 + distance2 / light.reach**2)
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


class Cache:
    """A function of integers that keeps its latest results.

    Args:
        function: keys (B,) ↦ tensors whose first axis is B.
        limit: bytes that may be kept between calls; the oldest results go first.
        together: how many missing keys are computed at once.
    """

    def __init__(self, function: Callable[[Tensor], tuple[Tensor, ...]], limit: int = 128 * 2**20, together: int = 4):
        self.function, self.limit, self.together = function, limit, together
        self.kept: dict[int, tuple[Tensor, ...]] = {}  # in the order in which they were computed

    def __call__(self, keys: Tensor) -> tuple[Tensor, ...]:
        """The function's values at keys (B,), B ≥ 1."""
        wanted = keys.tolist()
        missing = sorted(set(wanted) - self.kept.keys())
        for start in range(0, len(missing), self.together):
            part = missing[start : start + self.together]
            values = self.function(torch.tensor(part, device=keys.device))
            self.kept |= dict(zip(part, zip(*values, strict=True), strict=True))
        found = tuple(map(torch.stack, zip(*(self.kept[key] for key in wanted), strict=True)))
        size = sum(value[0].numel() * value.element_size() for value in found)
        for key in list(self.kept)[: max(0, len(self.kept) - self.limit // size)]:
            del self.kept[key]
        return found
