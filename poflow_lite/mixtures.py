"""Fields made of fields: several families side by side, mixed by one row of weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from poflow_lite.fields import Field
from poflow_lite.potentials import mixing_weights

__all__ = ["MixedFields"]


class MixedFields(nn.Module):
    """v(z, t) = Σ_m g_m v^m(z, t), the fields of several families under one numbering.

    The first family's K_1 fields are 0..K_1-1, the next family's follow, up to M = Σ K_i. An index m follows one field
    alone; weights g (B, M) may have any sign, as half a field moves at half the speed and minus a field runs backwards.
    With gradients of potentials and divergence-free fields as families it is a Helmholtz decomposition whose parts are
    what they are by construction.

    Args:
        families: velocity fields (:class:`fields.Field`) that are modules, on one latent space.

    Raises:
        ValueError: for no family, or families whose latent spaces differ.
    """

    def __init__(self, families: Sequence[Field]):
        super().__init__()
        if not families:
            raise ValueError("a mixture needs at least one family of fields, got none")
        spaces = {family.latent for family in families}
        if len(spaces) > 1:
            raise ValueError(f"all families must move one latent space, got dimensions {sorted(spaces)}")
        self.families, self.latent = nn.ModuleList(families), spaces.pop()
        self.sizes = [family.transformations for family in families]

    @property
    def transformations(self) -> int:
        """M, the number of fields in all families together."""
        return sum(self.sizes)

    def velocity(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """v: (B, d), latent units per frame."""
        return self._sum(k, lambda family, g: family.velocity(z, t, g))

    def jacobian(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """∂v/∂z = Σ_m g_m ∂v^m/∂z: (B, d, d)."""
        return self._sum(k, lambda family, g: family.jacobian(z, t, g))

    def jacobian_vector(self, z: Tensor, t: Tensor | float, k: Tensor, vector: Tensor) -> Tensor:
        """(∂v/∂z) e for vectors e (B, d): (B, d)."""
        return self._sum(k, lambda family, g: family.jacobian_vector(z, t, g, vector))

    def divergence(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """∇·v: (B,), per frame."""
        return self._sum(k, lambda family, g: family.divergence(z, t, g))

    def _sum(self, k: Tensor, part: Callable[[Field, Tensor], Tensor]) -> Tensor:
        """Σ over families of a part that is linear in the family's own weights."""
        weights = mixing_weights(k, self.transformations).split(self.sizes, 1)
        return torch.stack([part(family, g) for family, g in zip(self.families, weights, strict=True)]).sum(0)
