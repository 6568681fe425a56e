"""Rendered scenes with the factor grids of Shapes3D, Falcor3D and Isaac3D: stand-ins that need no download.

They are no copies of those data sets and carry names of their own, but they have the same factors in the same order,
so that what is written for one runs on the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from poflow_lite.datasets.factors import FALCOR3D, ISAAC3D, SHAPES3D, FactorSpace
from poflow_lite.datasets.raycast import (
    Cache,
    Hits,
    Intersection,
    Light,
    Rays,
    average_samples,
    box,
    camera_rays,
    capsule,
    cylinder,
    hue_colour,
    irradiance,
    nearest,
    room,
    shadow_rays,
    sphere,
)
from poflow_lite.io import require_known


class Scene:
    """Images of a grid of factors, rendered when asked for: the geometry is traced, then lit, then coloured.

    What is traced and what is lit depends on some of the factors only, and is kept (see :class:`Cache`); colours only
    weigh the light that each surface sends to each pixel. A subclass says what there is to see, by the attributes and
    by four methods of the factors, (B,) each by its name: see :class:`Shapes3DLite`.

    Args:
        size, samples: pixels along each side, and rays along each side of a pixel.
        device: where to render.
    """

    title: str
    space: FactorSpace
    surfaces: tuple[str, ...]  # what has a colour of its own
    geometry: tuple[str, ...]  # factors that move camera or objects
    lighting: tuple[str, ...] = ()  # factors that move or dim the lamp
    shadows: bool = False  # whether objects cast shadows, which doubles the cost of lighting a geometry

    def __init__(self, size: int = 64, device: torch.device | str = "cpu", samples: int = 2):
        if size < 8 or samples < 1:
            raise ValueError(f"a scene needs at least 8 pixels and 1 sample along each side, got {size} and {samples}")
        self.size, self.device, self.samples = size, torch.device(device), samples
        self.name, self.image_shape = f"{self.title}, {size} px", (3, size, size)
        self._traced, self._lit = (self.space.subspace(n) for n in (self.geometry, self.geometry + self.lighting))
        cached = Cache(self._trace, limit=448 * 2**20)  # all geometries of each scene at 64 px
        self._hits = cached if self.lighting else self._trace
        self._layers = Cache(self._light_up)

    def to(self, device: torch.device | str) -> Scene:
        """The same scene, rendered on ``device``; itself, with what it has traced, if it is there already."""
        device = torch.device(device)
        return self if device == self.device else type(self)(self.size, device, self.samples)

    @torch.no_grad()
    def frames(self, index: Tensor, chunk: int = 32) -> Tensor:
        """Images of grid indices (...): (..., 3, H, W), uint8, ``chunk`` of them at once."""
        factors = self.space.factors(index.flatten().to(self.device))
        images = [self._render(part) for part in factors.split(chunk) if len(part)]
        empty = torch.empty(0, *self.image_shape, dtype=torch.uint8, device=self.device)
        return torch.cat([empty, *images]).view(*index.shape, *self.image_shape)

    @torch.no_grad()
    def coverage(self, index: Tensor) -> Tensor:
        """The share of each pixel that each surface covers, by grid indices (B,): (B, S, H, W), summing to 1."""
        keys = self._key(self.space.factors(index.to(self.device)), self._traced)
        return self._per_surface(torch.ones(()), self._hits(keys)[2])

    def _render(self, factors: Tensor) -> Tensor:
        (layers,) = self._layers(self._key(factors, self._lit))
        colours = self.colours(_named(factors, self.space))
        image = torch.bmm(colours.mT, layers.flatten(2)).unflatten(2, (self.size, self.size))
        return (image * 255).round_().clamp_(0, 255).to(torch.uint8)

    def _trace(self, keys: Tensor) -> Hits:
        factors = _named(self._traced.factors(keys), self._traced)
        rays = camera_rays(*self.camera(factors), self.size, samples=self.samples)
        return nearest(rays, self.intersections(rays, factors))

    def _light_up(self, keys: Tensor) -> tuple[Tensor]:
        """The light that each surface sends to each pixel if it is white: (B, S, H, W)."""
        factors = self._lit.factors(keys)
        named = _named(factors, self._lit)
        hits = Hits(*self._hits(self._traced.index(factors[:, : len(self.geometry)])))
        point, normal, light, shadowed = hits.point.float(), hits.normal.float(), self.light(named), None
        if self.shadows:
            rays, lamp = shadow_rays(point, normal, light)
            distances = torch.stack([distance for _, (distance, _) in self.intersections(rays, named)])
            shadowed = distances.amin(0) < lamp
        return (self._per_surface(irradiance(point, normal, light, shadowed), hits.surface),)

    def _per_surface(self, values: Tensor, surface: Tensor) -> Tensor:
        layers = [torch.where(surface == number, values, 0.0) for number in range(len(self.surfaces))]
        return average_samples(torch.stack(layers, 1), self.size, self.samples)

    def _key(self, factors: Tensor, subspace: FactorSpace) -> Tensor:
        return subspace.index(factors[:, [self.space.position(name) for name in subspace.names]])

    # --- helpers for those who describe a scene -------------------------------------------------------------------

    def values(self, factors: dict[str, Tensor], name: str, low: float, high: float) -> Tensor:
        """A factor's values as numbers that rise evenly from ``low`` to ``high``.

        They are looked up in a table: a number must not depend on which others are computed beside it.
        """
        return torch.linspace(low, high, self.space.sizes[self.space.position(name)], device=self.device)[factors[name]]

    def vector(self, *entries: Tensor | float) -> Tensor:
        """Numbers, or batches of them, as a batch of vectors."""
        parts = torch.broadcast_tensors(*(torch.as_tensor(e, dtype=torch.float32, device=self.device) for e in entries))
        return torch.stack(parts, -1)


class Shapes3DLite(Scene):
    """A cube, cylinder, ball or capsule in a coloured room, the camera circling it: the factors of Shapes3D."""

    title, space = "shapes3d-lite", SHAPES3D
    surfaces = ("floor", "wall", "object")
    geometry = ("scale", "shape", "orientation")
    shadows = True

    def camera(self, factors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Position and target, (B, 3) each."""
        table = torch.linspace(-30, 30, 15, device=self.device).deg2rad()
        angle = factors["orientation"]
        position = self.vector(4.3 * table.sin()[angle], 2.3, -4.3 * table.cos()[angle])
        return position, self.vector(0.0, 0.75, 0.0).expand_as(position)

    def intersections(self, rays: Rays, factors: dict[str, Tensor]) -> list[tuple[int, Intersection]]:
        """Every surface's number and where the rays meet it."""
        size = self.values(factors, "scale", 0.75, 1.25)

        def at(height: float) -> Tensor:
            return self.vector(0.0, height * size, 0.0)

        bodies = (
            box(rays, at(0.7), self.vector(0.7 * size, 0.7 * size, 0.7 * size), math.radians(25)),
            cylinder(rays, at(0.75), 0.65 * size, 0.75 * size),
            sphere(rays, at(0.8), 0.8 * size),
            capsule(rays, at(0.5), at(1.3), 0.5 * size),
        )
        walls = _room(rays, self.vector(0.0, 2.5, 0.0), self.vector(4.5, 2.5, 4.5))
        return [*walls, *_one_of(2, factors["shape"], bodies)]

    def light(self, factors: dict[str, Tensor]) -> Light:
        """The lamp."""
        return Light(self.vector(-2.0, 4.4, -1.8), torch.tensor(0.75, device=self.device), ambient=0.4, reach=8.0)

    def colours(self, factors: dict[str, Tensor]) -> Tensor:
        """Of all surfaces, (B, S, 3)."""
        hues = torch.stack([factors[name] for name in ("floor_hue", "wall_hue", "object_hue")], -1)
        return hue_colour(hues.float() / 10)


class Falcor3DLite(Scene):
    """A furnished room seen by a camera that moves, under a lamp that moves and dims: the factors of Falcor3D."""

    title, space = "falcor3d-lite", FALCOR3D
    surfaces = ("floor", "wall", "rug", "sofa", "table", "lamp", "picture")
    geometry = ("camera_x", "camera_y", "camera_z")
    lighting = ("lighting_intensity", "lighting_x", "lighting_y", "lighting_z")

    def camera(self, factors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        x, y, z = (
            self.values(factors, f"camera_{axis}", low, high)
            for axis, low, high in (("x", -1.5, 1.5), ("y", 1.3, 2.8), ("z", -5.4, -3.6))
        )
        return self.vector(x, y, z), self.vector(0.4 * x, 0.6 + 0.25 * y, 1.0)

    def intersections(self, rays: Rays, factors: dict[str, Tensor]) -> list[tuple[int, Intersection]]:
        def block(x: float, y: float, z: float, *half: float) -> Intersection:
            return box(rays, self.vector(x, y, z), self.vector(*half))

        return [
            *_room(rays, self.vector(0.0, 2.0, 0.0), self.vector(3.6, 2.0, 6.0)),
            (2, cylinder(rays, self.vector(0.0, 0.01, 0.2), 1.9, 0.01)),
            (3, block(0.2, 0.35, 2.6, 1.5, 0.35, 0.55)),
            (3, block(0.2, 0.9, 3.0, 1.5, 0.35, 0.18)),
            (3, block(-1.4, 0.55, 2.6, 0.2, 0.2, 0.55)),
            (3, block(1.8, 0.55, 2.6, 0.2, 0.2, 0.55)),
            (4, cylinder(rays, self.vector(-0.2, 0.5, 0.3), 0.75, 0.06)),
            (4, cylinder(rays, self.vector(-0.2, 0.22, 0.3), 0.12, 0.22)),
            (5, sphere(rays, self.vector(-0.4, 0.78, 0.3), 0.22)),
            (5, capsule(rays, self.vector(2.7, 0.0, 3.4), self.vector(2.7, 1.9, 3.4), 0.07)),
            (5, sphere(rays, self.vector(2.7, 2.1, 3.4), 0.38)),
            (6, block(-0.9, 2.4, 5.97, 1.1, 0.7, 0.03)),
        ]

    def light(self, factors: dict[str, Tensor]) -> Light:
        position = (
            self.values(factors, f"lighting_{axis}", low, high)
            for axis, low, high in (("x", -3.2, 3.2), ("y", 1.2, 3.8), ("z", -4.0, 1.5))
        )
        intensity = self.values(factors, "lighting_intensity", 0.4, 1.4)
        return Light(self.vector(*position), intensity, ambient=0.3, reach=5.0)

    def colours(self, factors: dict[str, Tensor]) -> Tensor:
        fixed = (
            (0.72, 0.55, 0.40), (0.85, 0.85, 0.78), (0.65, 0.25, 0.25), (0.25, 0.45, 0.70),
            (0.55, 0.38, 0.22), (0.95, 0.80, 0.35), (0.30, 0.60, 0.45),
        )  # fmt: skip
        return torch.tensor(fixed, device=self.device).expand(len(factors["camera_x"]), -1, -1)


class Isaac3DLite(Scene):
    """A robot arm that holds an object in a kitchen: the nine factors of Isaac3D."""

    title, space = "isaac3d-lite", ISAAC3D
    surfaces = ("floor", "wall", "robot", "object", "counter")
    geometry = ("object_shape", "robot_x", "robot_y", "camera_height", "object_scale")
    lighting = ("lighting_intensity", "lighting_y")

    def camera(self, factors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        height = self.values(factors, "camera_height", 1.4, 3.8)
        position = self.vector(0.0, height, -4.2)
        return position, self.vector(0.0, 1.15, 0.4).expand_as(position)

    def intersections(self, rays: Rays, factors: dict[str, Tensor]) -> list[tuple[int, Intersection]]:
        x, y = self.values(factors, "robot_x", -1.25, 1.25), self.values(factors, "robot_y", 0.75, 2.0)
        size = self.values(factors, "object_scale", 0.7, 1.3)
        held = self.vector(x, y, 0.0)
        hand, shoulder = held + self.vector(0.0, 0.45 * size + 0.12, 0.0), self.vector(0.0, 0.9, 1.9)
        span = hand - shoulder
        lift = (2.1 - span.square().sum(-1) / 4).clamp_min(0.05).sqrt()  # two links of length √2.1 each
        elbow = shoulder + span / 2 + self.vector(0.0, lift, 0.0)
        half = 0.42 * size
        bodies = (
            box(rays, held, self.vector(half, half, half), math.radians(30)),
            cylinder(rays, held, half, half),
            sphere(rays, held, 1.1 * half),
        )
        return [
            *_room(rays, self.vector(0.0, 2.5, 0.0), self.vector(4.5, 2.5, 6.5)),
            (2, cylinder(rays, self.vector(0.0, 0.45, 1.9), 0.45, 0.45)),
            (2, capsule(rays, shoulder, elbow, 0.2)),
            (2, capsule(rays, elbow, hand, 0.15)),
            (2, sphere(rays, hand, 0.22)),
            (4, box(rays, self.vector(0.0, 0.55, 5.6), self.vector(4.5, 0.55, 0.9))),
            *_one_of(3, factors["object_shape"], bodies),
        ]

    def light(self, factors: dict[str, Tensor]) -> Light:
        intensity = self.values(factors, "lighting_intensity", 0.4, 1.2)
        return Light(
            self.vector(-2.0, self.values(factors, "lighting_y", 0.8, 4.6), -2.5), intensity, ambient=0.3, reach=8.0
        )

    def colours(self, factors: dict[str, Tensor]) -> Tensor:
        quarters = torch.arange(4, device=self.device) / 4
        objects, walls = hue_colour(quarters), hue_colour(quarters + 0.12, saturation=0.4)
        floor, robot, counter = (
            self.vector(r, g, b) for r, g, b in ((0.55, 0.55, 0.58), (0.95, 0.75, 0.20), (0.80, 0.78, 0.74))
        )
        wall, held = walls[factors["wall_colour"]], objects[factors["object_colour"]]
        return torch.stack(torch.broadcast_tensors(floor, wall, robot, held, counter), 1)


def _named(factors: Tensor, space: FactorSpace) -> dict[str, Tensor]:
    return dict(zip(space.names, factors.unbind(-1), strict=True))


def _room(rays: Rays, centre: Tensor, half: Tensor) -> list[tuple[int, Intersection]]:
    """Floor (surface 0) and walls (surface 1) of a room."""
    distance, normal = room(rays, centre, half)
    below = normal(rays.at(distance))[..., 1, :] > 0.5
    return [
        (0, (torch.where(below, distance, math.inf), normal)),
        (1, (torch.where(below, math.inf, distance), normal)),
    ]


def _one_of(number: int, which: Tensor, bodies: Sequence[Intersection]) -> list[tuple[int, Intersection]]:
    """Of several bodies with one surface number, the one that ``which`` (B,) names in each scene."""
    return [
        (number, (torch.where(which[:, None] == body, distance, math.inf), normal))
        for body, (distance, normal) in enumerate(bodies)
    ]


SCENES = {scene.title: scene for scene in (Shapes3DLite, Falcor3DLite, Isaac3DLite)}
"""Name ↦ class."""


def load_scene(name: str, size: int = 64, device: torch.device | str = "cpu") -> Scene:
    """A rendered data set by its name; a ValueError lists the known ones."""
    require_known("scene", name, SCENES)
    return SCENES[name](size, device)
