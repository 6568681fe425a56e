"""Priors p_t(z | k) that evolve: the diffusing one, the one that stays, and the one that the flow carries.

They are two readings of the model. Under the first two, each frame has a latent of its own, and k enters p only by D_k.
Under the third all frames share z_0, and k decides what is seen.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poflow_lite.flows.flow import Flow, Trajectory
from poflow_lite.flows.runge_kutta import LOG_DETS
from poflow_lite.objectives import diagonal_normal


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

    def path_kl(self, trajectory: Trajectory, log_q0: Callable[[], Tensor]) -> Tensor:
        """Σ_{t≥1} log q_t(z_t) - log p_t(z_t | k), one sample of the KL terms after t = 0, nats: (B,).

        Both densities are taken at the same z_t; ``log_q0`` gives log q_0(z_0), (B,).
        """
        z = trajectory.z
        times = trajectory.times[1:].to(z).expand(len(z), -1)
        log_p = self.log_prob(z[:, 1:], times, trajectory.weights)
        return (trajectory.log_density(log_q0())[:, 1:] - log_p).sum(1)

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


class PushforwardPrior(nn.Module):
    """The prior that the flow carries: z_0 ~ N(0, I) and z_t = φ_t^k(z_0), so that all frames share one z_0.

    log p_t(z_t | k) = log N(z_0; 0, I) - Σ_{s<t} log |det ∂z_{s+1}/∂z_s|. Posterior and prior are pushed by the same
    map, and KL(q_t ‖ p_t) = KL(q_0 ‖ p_0): the bound on log p(x_{0:T} | k) needs no determinant.

    Args:
        flow: φ; the model's own, which keeps its parameters.
    """

    def __init__(self, flow: Flow):
        super().__init__()
        self.transformations = flow.field.transformations
        object.__setattr__(self, "flow", flow)  # not as a submodule, or its parameters would be there twice

    def log_prob(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """log p_t(z | y), nats, by following z back: z (B, d) with t a number or (B,), or (B, n, d) with t (B, n).

        Raises:
            NotInvertible: where the flow cannot be followed back.
        """
        points, y = z.flatten(0, -2), y if z.ndim == 2 else y.repeat_interleave(z.shape[1], 0)
        t = torch.as_tensor(t, dtype=z.dtype, device=z.device).expand(z.shape[:-1]).flatten()
        log_p = self._log_start(points)
        for time in t[t > 0].unique().tolist():
            own = t == time
            back = self.flow.rollout(points[own], y[own], (time, *range(math.ceil(time) - 1, -1, -1)))
            log_p[own] = self._log_start(back.z[:, -1]) + back.log_det.sum(1)
        return log_p.unflatten(0, z.shape[:-1])

    @staticmethod
    def _log_start(z: Tensor) -> Tensor:
        return diagonal_normal(torch.zeros_like(z), torch.ones_like(z)).log_prob(z)

    def variance(self, t: Tensor, y: Tensor) -> Tensor:
        """1, (B,), of the N(0, I) to which a code of frame t by itself is held: p_t has no closed form."""
        return torch.ones_like(y[:, 0])

    def path_kl(self, trajectory: Trajectory, log_q0: Callable[[], Tensor]) -> Tensor:
        """0, (B,): one z_0 stands for all frames, and its KL is counted at t = 0."""
        return torch.zeros_like(trajectory.weights[:, 0])


def with_exact_density(model: Any) -> Any:
    """The same model, weights shared, whose flow has its exact log-determinant; itself where it has that, or no flow.

    A log-determinant that training left out or estimated would make an importance-weighted estimate wrong, and say
    nothing of the model.
    """
    flow = getattr(model, "flow", None)
    if not isinstance(flow, Flow) or flow._log_det is LOG_DETS["exact"]:
        return model
    other, own = copy.copy(model), copy.copy(flow)
    own._log_det = LOG_DETS["exact"]
    if isinstance(model, nn.Module):
        other._modules = dict(model._modules)  # which a copy shares
    other.flow = own
    if isinstance(prior := getattr(model, "prior", None), PushforwardPrior):
        other.prior = copy.copy(prior)
        object.__setattr__(other.prior, "flow", own)
    return other
