"""Grids of factors: every combination of a few factors of variation once, as Shapes3D, Falcor3D and Isaac3D have it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["FALCOR3D", "ISAAC3D", "SHAPES3D", "FactorImages", "FactorSpace"]


@dataclass(frozen=True)
class FactorSpace:
    """All combinations of n factors, in row-major order: the last factor runs fastest.

    The index of factors (f_1, …, f_n) is their number in mixed radix, i = ((f_1 s_2 + f_2) s_3 + f_3) …, with s the
    sizes; it is a bijection between the grid and 0..N-1, N = s_1 s_2 … s_n.

    Attributes:
        names: of the factors.
        sizes: how many values each has; factors take the values 0..size-1.

    Raises:
        ValueError: for no factors, as many names as there are not sizes, names that come twice, or sizes below 1.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.names or len(self.names) != len(self.sizes) or len(set(self.names)) != len(self.names):
            raise ValueError(f"each factor needs a name of its own and a size, got {self.names} and {self.sizes}")
        if min(self.sizes) < 1:
            raise ValueError(f"every factor needs at least one value, got sizes {self.sizes}")

    def __len__(self) -> int:
        return math.prod(self.sizes)

    @property
    def strides(self) -> tuple[int, ...]:
        """By how much the index grows when each factor grows by one."""
        products = itertools.accumulate(reversed(self.sizes), lambda a, b: a * b, initial=1)
        return tuple(reversed(list(products)[:-1]))

    def position(self, name: str) -> int:
        """Which factor carries a name.

        Raises:
            ValueError: for an unknown name; the message lists the known ones.
        """
        if name not in self.names:
            raise ValueError(f"unknown factor {name!r}; known: {', '.join(self.names)}")
        return self.names.index(name)

    def subspace(self, names: tuple[str, ...]) -> FactorSpace:
        """The grid of some of the factors, in the order given."""
        return FactorSpace(names, tuple(self.sizes[self.position(name)] for name in names))

    def index(self, factors: Tensor) -> Tensor:
        """Factors (..., n) ↦ index (...).

        Raises:
            ValueError: for factors that are not n integers, or one out of range.
        """
        sizes = torch.tensor(self.sizes, device=factors.device)
        if factors.shape[-1:] != sizes.shape or factors.is_floating_point():
            raise ValueError(
                f"expected integer factors (..., {len(sizes)}) ({', '.join(self.names)}), "
                f"got {tuple(factors.shape)} of {factors.dtype}"
            )
        outside = ((factors < 0) | (factors >= sizes)).reshape(-1, len(sizes)).any(0)
        if outside.any():
            name, size = next((n, s) for n, s, out in zip(self.names, self.sizes, outside, strict=True) if out)
            raise ValueError(f"the factor {name} takes the values 0..{size - 1}, and some value lies outside")
        return (factors * torch.tensor(self.strides, device=factors.device)).sum(-1)

    def factors(self, index: Tensor) -> Tensor:
        """Index (...) ↦ factors (..., n), the inverse of :meth:`index`.

        Raises:
            ValueError: for indices that are not integers in 0..N-1.
        """
        if index.is_floating_point() or (index.numel() and (index.min() < 0 or index.max() >= len(self))):
            raise ValueError(f"indices must be integers in 0..{len(self) - 1}, got {index.dtype} {index.flatten()[:4]}")
        sizes, strides = (torch.tensor(values, device=index.device) for values in (self.sizes, self.strides))
        return index[..., None] // strides % sizes

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Factors drawn uniformly and independently: (count, n)."""
        return torch.stack([torch.randint(size, (count,), generator=generator) for size in self.sizes], -1)

    def move(self, factors: Tensor, position: Tensor | int, values: Tensor) -> Tensor:
        """The same factors, except that one of them runs through given values, and no other is touched.

        Args:
            factors: (B, n).
            position: (B,), which factor moves in each row, or one for all.
            values: (B, m) or (m,), what it becomes in each of m frames.

        Returns:
            (B, m, n).
        """
        position = torch.as_tensor(position, device=factors.device).expand(len(factors))
        moving = torch.nn.functional.one_hot(position, len(self.sizes)).bool()[:, None]
        return torch.where(moving, values.expand(len(factors), -1)[..., None], factors[:, None])


class FactorImages(Protocol):
    """Images of a whole grid of factors, in a file, in a folder, or rendered when asked for.

    Attributes:
        space: the grid.
        image_shape: (3, H, W).
        name: which data these are, for titles and records.
    """

    space: FactorSpace
    image_shape: tuple[int, int, int]
    name: str

    def frames(self, index: Tensor) -> Tensor:
        """Images of grid indices (...): (..., 3, H, W), uint8."""
        ...


SHAPES3D = FactorSpace(
    ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation"),
    (10, 10, 10, 8, 4, 15),
)
"""3dshapes.h5 (Burgess & Kim 2018): 480,000 images."""

FALCOR3D = FactorSpace(
    ("lighting_intensity", "lighting_x", "lighting_y", "lighting_z", "camera_x", "camera_y", "camera_z"),
    (5, 6, 6, 6, 6, 6, 6),
)
"""Falcor3D (Nie et al. 2020): 233,280 images of a living room."""

ISAAC3D = FactorSpace(
    (
        "object_shape", "robot_x", "robot_y", "camera_height", "object_scale",
        "lighting_intensity", "lighting_y", "object_colour", "wall_colour",
    ),
    (3, 8, 5, 4, 4, 4, 6, 4, 4),
)  # fmt: skip
"""Isaac3D (Nie et al. 2020): 737,280 images of a robot arm in a kitchen."""
