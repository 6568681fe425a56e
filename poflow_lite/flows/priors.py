"""Priors p_t(z | k) that evolve: the diffusing one, and the one that stays."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DiffusionPrior(nn.Module):
    """The prior p_t(z | k) = N(0, (1 + 2 D_k t) I): N(0, I) spread by the heat equation ∂_t p = D_k Δp.

    It is the continuity equation with the potential ψ^k = -D_k log p_t. Each D_k > 0 is trained, through a softplus. A
    mixture spreads with D = Σ_k |y_k| D_k: a field that runs backwards spreads no less.

    Args:
        transformations: K.
        diffusion: initial D_k, latent² per frame; a positive number.

    Raises:
        ValueError: if ``diffusion`` is not positive and finite.
    """

    def __init__(self, transformations: int, diffusion: float = 0.05):
        super().__init__()
        if not 0 < diffusion < math.inf:
            raise ValueError(f"the diffusion coefficient must be positive and finite, got {diffusion}")
        self.transformations = transformations
        self.raw = nn.Parameter(torch.full((transformations,), diffusion + math.log(-math.expm1(-diffusion))))

    @property
    def diffusion(self) -> Tensor:
        """D_k, (K,), latent² per frame."""
        return F.softplus(self.raw)

    def variance(self, t: Tensor | float, y: Tensor) -> Tensor:
        """1 + 2 D t for each sample: t a number, (B,) or (B, n), y (B, K); the result has shape (B,) or (B, n)."""
        spread = self._spread(y)
        t = torch.as_tensor(t, dtype=spread.dtype, device=spread.device)
        return 1 + 2 * t * (spread[:, None] if t.ndim == 2 else spread)

    def log_prob(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """log p_t(z | y) in nats: z (B, d) with t a number or (B,), or z (B, n, d) with t (B, n)."""
        variance = self.variance(t, y)
        return -0.5 * (z.square().sum(-1) / variance + z.shape[-1] * torch.log(2 * math.pi * variance))

    def potential(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """ψ(z, t) = -D log p_t(z | y): (B,), for z (B, d)."""
        return -self._spread(y) * self.log_prob(z, t, y)

    def _spread(self, y: Tensor) -> Tensor:
        """D = Σ_k |y_k| D_k of each sample: (B,)."""
        if y.ndim != 2 or not y.is_floating_point():
            raise ValueError(
                f"a prior takes weights y (B, {self.transformations}), got {tuple(y.shape)} of {y.dtype}; "
                "make them of an index by fields.mixing_weights(k, K)"
            )
        dtype = torch.promote_types(y.dtype, self.diffusion.dtype)
        return y.abs().to(dtype) @ self.diffusion.to(y.device, dtype)

    def particles(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """Where ∇ψ carries a particle of p_0 by time t: z_t = z_0 √(1 + 2 D t), (B, d)."""
        return z * self.variance(t, y).sqrt()[..., None]


class StaticPrior(DiffusionPrior):
    """The prior that stays p_t(z | k) = N(0, I) for all t: a :class:`DiffusionPrior` with D_k = 0, not trained.

    Args:
        transformations: K.
    """

    def __init__(self, transformations: int):
        nn.Module.__init__(self)
        self.transformations = transformations
        self.register_buffer("zero", torch.zeros(transformations), persistent=False)

    @property
    def diffusion(self) -> Tensor:
        """D_k = 0, (K,)."""
        return self.zero
