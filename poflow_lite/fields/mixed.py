"""Fields made of fields, and the driving force of the Hamilton-Jacobi equation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poflow_lite.fields.protocol import Field, times_of


class MixedFields(nn.Module):
    """v(z, t) = Σ_m g_m v^m(z, t), the fields of several families under one numbering.

    The first family's K_1 fields are 0..K_1-1, the next family's follow, up to M = Σ K_i. Weights g (B, M) may have any
    sign: half a field moves at half the speed, minus a field backwards. Gradients of potentials beside divergence-free
    fields make a Helmholtz decomposition whose parts are what they are by construction.

    Args:
        families: fields that are modules, on one latent space.

    Raises:
        ValueError: for no family, or families whose latent spaces differ.
    """

    def __init__(self, families: Sequence[Field]):
        super().__init__()
        spaces = sorted({family.latent for family in families})
        if len(spaces) != 1:
            raise ValueError(f"a mixture needs families of fields on one latent space, got dimensions {spaces}")
        self.families, self.latent = nn.ModuleList(families), spaces[0]
        self.sizes = [family.transformations for family in families]
        self.transformations, self.horizon = sum(self.sizes), min(family.horizon for family in families)

    def velocity(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """v: (B, d), latent units per frame."""
        return self._sum("velocity", z, t, y)

    def jacobian(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """∂v/∂z = Σ_m g_m ∂v^m/∂z: (B, d, d)."""
        return self._sum("jacobian", z, t, y)

    def jvp(self, z: Tensor, t: Tensor | float, y: Tensor, vector: Tensor) -> Tensor:
        """(∂v/∂z) e for vectors e (B, d): (B, d)."""
        return self._sum("jvp", z, t, y, vector)

    def divergence(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """∇·v: (B,), per frame."""
        return self._sum("divergence", z, t, y)

    def _sum(self, method: str, z: Tensor, t: Tensor | float, y: Tensor, *vector: Tensor) -> Tensor:
        """Σ over families of what is linear in the family's own weights."""
        times_of(self, z, t, y)
        weights = y.split(self.sizes, 1)
        return sum(getattr(f, method)(z, t, g, *vector) for f, g in zip(self.families, weights, strict=True))


class Force(nn.Module):
    """Driving force f^k(z, t) = -s^k(z, t)² ≤ 0 of the generalised Hamilton-Jacobi equation, s a small network.

    Args:
        latent: d.
        transformations: K, one output for each.
        width: hidden units.
        horizon: T, the unit of time inside the network.

    Raises:
        ValueError: for a horizon that is not positive; where it is called, for shapes that do not fit.
    """

    def __init__(self, latent: int, transformations: int, width: int = 32, horizon: int = 8):
        super().__init__()
        if not horizon > 0:
            raise ValueError(f"horizon must be positive, got {horizon}")
        self.latent, self.transformations, self.horizon = latent, transformations, horizon
        self.network = nn.Sequential(nn.Linear(latent + 1, width), nn.Tanh(), nn.Linear(width, transformations))

    def forward(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """f for z (B, d), t a number or (B,), y (B, K): (B,), never positive."""
        t = times_of(self, z, t, y)
        return -(y * self.network(torch.cat([z, t[:, None] / self.horizon], -1))).sum(-1).square()
