"""Point clouds in the plane to carry onto one another: Gaussians, eight Gaussians on a circle, two moons."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from poflow_lite.io import require_known

Sampler = Callable[[int, torch.Generator], Tensor]
"""(number of points, generator) ↦ (n, d)."""


@dataclass(frozen=True)
class GaussianCloud:
    """A sampler of N(mean, covariance): d numbers, and d rows of d numbers, positive definite."""

    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]

    def __call__(self, count: int, generator: torch.Generator) -> Tensor:
        factor = torch.linalg.cholesky(torch.tensor(self.covariance))
        noise = torch.randn(count, len(self.mean), generator=generator)
        return torch.tensor(self.mean) + noise @ factor.T


def eight_gaussians(count: int, generator: torch.Generator) -> Tensor:
    """Eight round Gaussians of standard deviation 0.4, evenly placed on a circle of radius 4: (n, 2)."""
    angle = torch.randint(8, (count,), generator=generator) * (math.pi / 4)
    centres = 4 * torch.stack([angle.cos(), angle.sin()], 1)
    return centres + 0.4 * torch.randn(count, 2, generator=generator)


def two_moons(count: int, generator: torch.Generator) -> Tensor:
    """Two interlocking half circles of radius 2 about the origin, with noise of standard deviation 0.15: (n, 2)."""
    angle = math.pi * torch.rand(count, generator=generator)
    side = torch.randint(2, (count,), generator=generator) * 2.0 - 1  # +1 the upper moon, -1 the lower one
    moon = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1) * side[:, None]
    return 2 * moon + 0.15 * torch.randn(count, 2, generator=generator)


PAIRS: dict[str, tuple[Sampler, Sampler]] = {
    "gaussians": (
        GaussianCloud((0.0, 0.0), ((1.0, 0.0), (0.0, 1.0))),
        GaussianCloud((2.0, -1.0), ((2.0, 1.6), (1.6, 1.5))),
    ),
    "moons": (eight_gaussians, two_moons),
}
"""Source and target: N(0, I) → a tilted Gaussian, and eight Gaussians → two moons."""


@dataclass
class Clouds:
    """Two clouds of B points: ``source`` (B, d) is to be carried onto ``target`` (B, d)."""

    source: Tensor
    target: Tensor

    def to(self, device: torch.device | str) -> Clouds:
        """The same clouds on ``device``."""
        return Clouds(self.source.to(device), self.target.to(device))


def sample_pair(pair: str, count: int, generator: torch.Generator) -> Clouds:
    """Fresh points of both clouds of one of :data:`PAIRS`; a ValueError lists the known ones."""
    require_known("pair", pair, PAIRS)
    source, target = PAIRS[pair]
    return Clouds(source(count, generator), target(count, generator))
