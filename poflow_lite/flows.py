"""Flows on the latent space: gradient steps of a potential, and the diffusing prior they are compared with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poflow_lite.potentials import Potential, mixing_weights

__all__ = ["DiffusionPrior", "Path", "PotentialFlow", "log_det_identity_plus"]


def log_det_identity_plus(hessian: Tensor) -> Tensor:
    """log |det(I + H)| of symmetric matrices, exactly, by an LU factorisation.

    To first order it is the trace of H (the Laplacian); it is never the logarithm of the row sums of I + H.

    Args:
        hessian: (..., d, d).

    Returns:
        (...), nats; -inf where I + H is singular.
    """
    identity = torch.eye(hessian.shape[-1], dtype=hessian.dtype, device=hessian.device)
    return torch.linalg.slogdet(identity + hessian).logabsdet


@dataclass
class Path:
    """Particles followed through T steps.

    Attributes:
        z: (B, T+1, d), positions, ``z[:, 0]`` the start.
        log_det: (B, T), log |det ∂z_{t+1}/∂z_t| of each step, nats.
        velocity: (B, T, d), the steps taken, latent units per frame.
    """

    z: Tensor
    log_det: Tensor
    velocity: Tensor

    def log_density(self, start: Tensor) -> Tensor:
        """log q_t(z_t) = log q_0(z_0) - Σ_{s<t} log |det(I + ∇²u(z_s, s))|, from ``start`` = log q_0(z_0): (B, T+1)."""
        lost = F.pad(self.log_det.cumsum(1), (1, 0))
        return start[:, None] - lost


class PotentialFlow(nn.Module):
    """The map z ↦ z + ∇u^k(z, t), one explicit Euler step per frame (dt = 1), and its exact change of density.

    Args:
        potential: the K potentials.
    """

    def __init__(self, potential: Potential):
        super().__init__()
        self.potential = potential

    def step(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """z_{t+1} = z_t + ∇u^k(z_t, t): (B, d)."""
        return z + self.potential.gradient(z, t, k)

    def log_det(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """log |det(I + ∇²u^k(z, t))| of the step that leaves z at time t: (B,), nats."""
        return log_det_identity_plus(self.potential.hessian(z, t, k))

    def rollout(self, z: Tensor, k: Tensor, steps: int, start: int = 0) -> Path:
        """Follow particles from z at time ``start`` through ``steps`` steps.

        Args:
            z: (B, d).
            k: (B,) integers or (B, K) weights; the same at every step.
            steps: T ≥ 1.
            start: time of z, in frames.

        Raises:
            ValueError: if ``steps`` is below 1, or z or k do not fit the potential.
        """
        if steps < 1:
            raise ValueError(f"a rollout needs at least 1 step, got {steps}")
        k = mixing_weights(k, self.potential.transformations)  # checked once, not at every step
        positions, velocities = [z], []
        for t in range(start, start + steps):
            velocities.append(self.potential.gradient(positions[-1], float(t), k))
            positions.append(positions[-1] + velocities[-1])
        path = torch.stack(positions, 1)
        log_det = log_det_identity_plus(self._hessians(path, k, start))
        return Path(path, log_det, torch.stack(velocities, 1))

    def smallest_eigenvalue(self, path: Path, k: Tensor, start: int = 0) -> Tensor:
        """Smallest eigenvalue of I + ∇²u along a path, (B, T): where it reaches 0, the step folds space onto itself."""
        return 1 + torch.linalg.eigvalsh(self._hessians(path.z, k, start))[..., 0]

    def _hessians(self, z: Tensor, k: Tensor, start: int) -> Tensor:
        """∇²u at the points (z_t, t), t = start .. start+T-1, of paths (B, T+1, d): (B, T, d, d), all at once."""
        batch, steps = len(z), z.shape[1] - 1
        times = torch.arange(start, start + steps, dtype=z.dtype, device=z.device).repeat(batch)
        flat = self.potential.hessian(z[:, :-1].flatten(0, 1), times, k.repeat_interleave(steps, 0))
        return flat.unflatten(0, (batch, steps))


class DiffusionPrior(nn.Module):
    """The prior p_t(z | k) = N(0, (1 + 2 D_k t) I): N(0, I) spread by the heat equation ∂_t p = D_k Δp.

    It is the continuity equation with the potential ψ^k = -D_k log p_t. Each D_k > 0 is trained, through a softplus.

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

    def variance(self, t: Tensor | float, k: Tensor) -> Tensor:
        """1 + 2 D_k t for each sample: t a number, (B,) or (B, n); the result has shape (B,) or (B, n)."""
        diffusion = mixing_weights(k, self.transformations).to(self.raw) @ self.diffusion  # (B,)
        t = torch.as_tensor(t, dtype=self.raw.dtype, device=self.raw.device)
        return 1 + 2 * t * (diffusion[:, None] if t.ndim == 2 else diffusion)

    def log_prob(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """log p_t(z | k) in nats: z (B, d) with t a number or (B,), or z (B, n, d) with t (B, n)."""
        variance = self.variance(t, k)
        return -0.5 * (z.square().sum(-1) / variance + z.shape[-1] * torch.log(2 * math.pi * variance))

    def potential(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """ψ^k(z, t) = -D_k log p_t(z | k): (B,), for z (B, d)."""
        diffusion = mixing_weights(k, self.transformations).to(self.raw) @ self.diffusion
        return -diffusion * self.log_prob(z, t, k)

    def particles(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """Where ∇ψ carries a particle of p_0 by time t: z_t = z_0 √(1 + 2 D_k t), (B, d)."""
        return z * self.variance(t, k).sqrt()[..., None]
