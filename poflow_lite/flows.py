"""Flows on the latent space: following a velocity field step by step, the density it makes, and the diffusing prior.

One frame is one unit of time. A frame is crossed in ``substeps`` explicit Runge-Kutta steps; the paper's flow is one
Euler step, z_{t+1} = z_t + ∇u(z_t, t).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poflow_lite.errors import require_known
from poflow_lite.fields import Field
from poflow_lite.objectives import hamilton_jacobi_residual
from poflow_lite.potentials import Force, Potential, mixing_weights

__all__ = [
    "DENSITIES",
    "METHODS",
    "DiffusionPrior",
    "Flow",
    "Path",
    "PotentialFlow",
    "RungeKutta",
    "StaticPrior",
    "log_det_identity_plus",
]


def log_det_identity_plus(hessian: Tensor) -> Tensor:
    """log |det(I + H)|, exactly, by an LU factorisation.

    To first order it is the trace of H (the Laplacian); it is never the logarithm of the row sums of I + H.

    Args:
        hessian: (..., d, d).

    Returns:
        (...), nats; -inf where I + H is singular.
    """
    identity = torch.eye(hessian.shape[-1], dtype=hessian.dtype, device=hessian.device)
    return torch.linalg.slogdet(identity + hessian).logabsdet


# --- explicit Runge-Kutta steps -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class RungeKutta:
    """An explicit step z' = z + h Σ_i b_i v_i with stages v_i = v(z + h Σ_{j<i} a_ij v_j, t + c_i h).

    Attributes:
        nodes: c.
        matrix: the rows of a, row i holding i numbers.
        weights: b.
        order: the error after a fixed time is O(h^order).
    """

    nodes: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    order: int


METHODS: dict[str, RungeKutta] = {
    "euler": RungeKutta((0.0,), ((),), (1.0,), 1),
    "midpoint": RungeKutta((0.0, 0.5), ((), (0.5,)), (0.0, 1.0), 2),
    "rk4": RungeKutta((0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), 4),
}


@dataclass
class _Stages:
    """Where the stages of some steps evaluate the field: z (B, ..., R, d), at t (B, ..., R), R stages a step."""

    z: Tensor
    t: Tensor
    k: Tensor  # (B, K)

    def map(self, function: Callable[..., Tensor], *per_sample: Tensor) -> Tensor:
        """``function(z, t, k, ...)`` at all points in one batch: (B, ..., R, *whatever it returns)."""
        count = self.t[0].numel()
        rest = [tensor.repeat_interleave(count, 0) for tensor in (self.k, *per_sample)]
        return function(self.z.flatten(0, -2), self.t.flatten(), *rest).unflatten(0, self.t.shape)


# --- the change of log-density, three ways, and the way to leave it out -------------------------------------------


def _step_jacobians(field: Field, stages: _Stages, method: RungeKutta, h: float) -> Tensor:
    """M with I + M = ∂z'/∂z, the exact Jacobian of each numerical step by the chain rule: (B, ..., d, d)."""
    jacobians, slopes = stages.map(field.jacobian).unbind(-3), []
    for jacobian, row in zip(jacobians, method.matrix, strict=True):
        before = [h * a * slope for a, slope in zip(row, slopes, strict=True) if a]
        slopes.append(jacobian + jacobian @ sum(before) if before else jacobian)
    return sum(h * b * slope for b, slope in zip(method.weights, slopes, strict=True))


def _exact(field: Field, stages: _Stages, method: RungeKutta, h: float, _: torch.Generator | None) -> Tensor:
    """log |det ∂z'/∂z| of the numerical step: the density is exact for the map that is made, however coarse."""
    return log_det_identity_plus(_step_jacobians(field, stages, method, h))


def _laplacian(field: Field, stages: _Stages, method: RungeKutta, h: float, _: torch.Generator | None) -> Tensor:
    """∫ ∇·v dt along the path by the step's own quadrature: the density of the continuous-time flow."""
    return h * stages.map(field.divergence) @ stages.z.new_tensor(method.weights)


def _hutchinson(
    field: Field, stages: _Stages, method: RungeKutta, h: float, generator: torch.Generator | None
) -> Tensor:
    """The same with ∇·v estimated by eᵀ(∂v/∂z)e, one random e of ±1 for each path (Hutchinson 1990; Grathwohl 2019)."""
    shape = (len(stages.z), stages.z.shape[-1])
    draws = torch.randint(0, 2, shape, generator=generator, device=stages.z.device)
    signs = 2 * draws.to(stages.z) - 1
    turned = stages.map(field.jacobian_vector, signs)
    traces = torch.einsum("b...d,bd->b...", turned, signs)
    return h * traces @ stages.z.new_tensor(method.weights)


def _ignored(field: Field, stages: _Stages, method: RungeKutta, h: float, _: torch.Generator | None) -> Tensor:
    """0, as if volumes never changed. Wrong on purpose, unless the field is divergence-free: it is for the ablation."""
    return stages.z.new_zeros(stages.z.shape[:-2])


DENSITIES: dict[str, Callable[..., Tensor]] = {
    "exact": _exact,
    "laplacian": _laplacian,
    "hutchinson": _hutchinson,
    "ignored": _ignored,
}


@dataclass
class Path:
    """Particles followed through T steps.

    Attributes:
        z: (B, T+1, d), positions, ``z[:, 0]`` the start.
        log_det: (B, T), log |det ∂z_{t+1}/∂z_t| of each frame, nats.
        velocity: (B, T, d), the velocity at ``z[:, :-1]``, latent units per frame.
    """

    z: Tensor
    log_det: Tensor
    velocity: Tensor

    def log_density(self, start: Tensor) -> Tensor:
        """log q_t(z_t) = log q_0(z_0) - Σ_{s<t} log |det ∂z_{s+1}/∂z_s|, from ``start`` = log q_0(z_0): (B, T+1)."""
        lost = F.pad(self.log_det.cumsum(1), (1, 0))
        return start[:, None] - lost

    def departures(self, k: Tensor, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Where and when each step begins, in one batch: z_t (B T, d), t = start .. start+T-1 (B T,), and k of each."""
        batch, steps = self.velocity.shape[:2]
        t = torch.arange(start, start + steps, dtype=self.z.dtype, device=self.z.device).repeat(batch)
        return self.z[:, :-1].flatten(0, 1), t, k.repeat_interleave(steps, 0)


class Flow(nn.Module):
    """The map z_t ↦ z_{t+1} that a velocity field makes, its inverse, and the density it carries along.

    Args:
        field: a velocity field (:class:`fields.Field`).
        method: one of :data:`METHODS`: "euler", "midpoint" or "rk4".
        substeps: steps of size h = 1 / substeps that cross one frame.
        density: one of :data:`DENSITIES`. "exact" is the log-determinant of the numerical map; "laplacian" integrates
            the divergence, which is the density of the continuous flow, up to O(h^order); "hutchinson" estimates that
            without bias from one random direction for each path; "ignored" is 0, to see what the density is good for.

    Raises:
        ValueError: for an unknown method or density, or ``substeps`` below 1.
    """

    def __init__(self, field: Field, method: str = "euler", substeps: int = 1, density: str = "exact"):
        super().__init__()
        require_known("method", method, METHODS)
        require_known("density", density, DENSITIES)
        if substeps < 1:
            raise ValueError(f"substeps must be at least 1, got {substeps}")
        self.field, self.substeps = field, substeps
        self.method, self._change_of_density = METHODS[method], DENSITIES[density]

    def step(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """z_{t+1} from z_t = z: (B, d)."""
        return self._frame(z, t, k)[0]

    def log_det(self, z: Tensor, t: Tensor | float, k: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """log |det ∂z_{t+1}/∂z_t| of the frame that leaves z at time t: (B,), nats."""
        return self._log_det(self._frame(z, t, k)[1], generator)

    def rollout(
        self, z: Tensor, k: Tensor, steps: int, start: int = 0, generator: torch.Generator | None = None
    ) -> Path:
        """Follow particles from z at time ``start`` through ``steps`` frames.

        Args:
            z: (B, d).
            k: (B,) integers or (B, K) weights; the same at every step.
            steps: T ≥ 1.
            start: time of z, in frames.
            generator: draws the random directions of the "hutchinson" density.

        Raises:
            ValueError: if ``steps`` is below 1, or z or k do not fit the field.
        """
        if steps < 1:
            raise ValueError(f"a rollout needs at least 1 step, got {steps}")
        k = mixing_weights(k, self.field.transformations)  # checked once, not at every step
        positions, stages, velocities = [z], [], []
        for t in range(start, start + steps):
            z, passed, velocity = self._frame(z, float(t), k)
            positions.append(z)
            stages.append(passed)
            velocities.append(velocity)
        whole = _Stages(torch.stack([s.z for s in stages], 1), torch.stack([s.t for s in stages], 1), k)
        return Path(torch.stack(positions, 1), self._log_det(whole, generator), torch.stack(velocities, 1))

    @torch.no_grad()
    def inverse(self, z: Tensor, k: Tensor, steps: int, start: int = 0, iterations: int = 50) -> Tensor:
        """The points z_start from which ``rollout(z_start, k, steps, start)`` ends in z, by Newton's method.

        Args:
            z: (B, d), at time ``start + steps``.
            k, steps, start: as for :meth:`rollout`.
            iterations: Newton iterations allowed for one step.

        Returns:
            (B, d), to about the ¾ of the digits that the dtype holds.

        Raises:
            ValueError: for a z that is not finite, or if some step cannot be undone: where no pre-image is found, or
                where the step folds space at the one that is found: its Jacobian has a determinant ≤ 0, or is symmetric
                with an eigenvalue ≤ 0. Other pre-images may then exist; where the fold lies elsewhere they can exist
                unnoticed, so look at :meth:`smallest_eigenvalue` as well.
        """
        if steps < 1:
            raise ValueError(f"an inverse needs at least 1 step, got {steps}")
        if not z.isfinite().all():
            raise ValueError("z holds NaN or infinite coordinates, which no particle can have come to")
        k = mixing_weights(k, self.field.transformations).to(z)
        for i in reversed(range(steps * self.substeps)):
            z = self._undo(z, start + i / self.substeps, k, iterations)
        return z

    def smallest_eigenvalue(self, path: Path, k: Tensor, start: int = 0) -> Tensor:
        """Smallest eigenvalue of the symmetric part of each step's Jacobian, least of a frame's substeps: (B, T).

        For one Euler step along ∇u that is the matrix I + ∇²u. While it is positive everywhere, no two points of a
        convex region are sent to the same place; where it reaches 0, a gradient step folds space onto itself.
        """
        stages = self._frame(*path.departures(mixing_weights(k, self.field.transformations), start))[1]
        jacobians = _step_jacobians(self.field, stages, self.method, 1 / self.substeps)
        symmetric = 0.5 * (jacobians + jacobians.mT)
        return 1 + torch.linalg.eigvalsh(symmetric)[..., 0].amin(1).unflatten(0, path.velocity.shape[:2])

    def _frame(self, z: Tensor, t: Tensor | float, k: Tensor) -> tuple[Tensor, _Stages, Tensor]:
        """One frame: z_{t+1}, the stages passed, (B, substeps, R, d), and the velocity at the start."""
        k = mixing_weights(k, self.field.transformations).to(z)
        t = torch.as_tensor(t, dtype=z.dtype, device=z.device).expand(len(z))
        points, times, velocity = [], [], None
        for i in range(self.substeps):
            z, where, when, first = self._substep(z, t + i / self.substeps, k)
            points.append(where)
            times.append(when)
            velocity = first if velocity is None else velocity
        return z, _Stages(torch.stack(points, 1), torch.stack(times, 1), k), velocity

    def _substep(self, z: Tensor, t: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One Runge-Kutta step: where it ends, the points (B, R, d) and times (B, R) of its stages, its first slope."""
        h, slopes, points = 1 / self.substeps, [], []
        times = [t + node * h for node in self.method.nodes]
        for time, row in zip(times, self.method.matrix, strict=True):
            points.append(z + sum(h * a * slope for a, slope in zip(row, slopes, strict=True) if a))
            slopes.append(self.field.velocity(points[-1], time, k))
        end = z + sum(h * b * slope for b, slope in zip(self.method.weights, slopes, strict=True) if b)
        return end, torch.stack(points, 1), torch.stack(times, 1), slopes[0]

    def _log_det(self, stages: _Stages, generator: torch.Generator | None) -> Tensor:
        """Of stages (B, ..., substeps, R, d), summed over the substeps of a frame: (B, ...)."""
        return self._change_of_density(self.field, stages, self.method, 1 / self.substeps, generator).sum(-1)

    def _undo(self, target: Tensor, t: float, k: Tensor, iterations: int) -> Tensor:
        """The pre-image of ``target`` under the substep that begins at time t: Newton's method with backtracking."""
        times, h = target.new_full((len(target),), t), 1 / self.substeps
        tolerance = torch.finfo(target.dtype).eps ** 0.75 * (1 + target.norm(dim=1))
        z = target - h * self.field.velocity(target, times, k)  # right to first order
        for _ in range(iterations):
            end, points, when, _ = self._substep(z, times, k)
            error = (end - target).norm(dim=1)
            jacobian = _step_jacobians(self.field, _Stages(points, when, k), self.method, h)
            jacobian = jacobian + torch.eye(jacobian.shape[-1], dtype=z.dtype, device=z.device)
            if (error <= tolerance).all():
                break
            direction = torch.linalg.solve_ex(jacobian, (end - target)[..., None])[0][..., 0]
            z = self._backtrack(z, direction, target, times, k, error)
        lowest = 0.5 * torch.linalg.eigvalsh(jacobian + jacobian.mT)[:, 0]
        symmetric = (jacobian - jacobian.mT).abs().amax((1, 2)) <= tolerance
        bad = ~(error <= tolerance) | (torch.linalg.det(jacobian) <= 0) | (symmetric & (lowest <= 0))
        if bad.any():
            raise ValueError(
                f"the step at t = {t:g} cannot be undone at {int(bad.sum())} of {len(z)} points: it folds space there "
                f"(smallest eigenvalue of its Jacobian {lowest.min():.2g}, it must be positive). Use more substeps, or "
                "a flow trained with a larger Hamilton-Jacobi weight"
            )
        return z

    def _backtrack(self, z: Tensor, direction: Tensor, target: Tensor, t: Tensor, k: Tensor, error: Tensor) -> Tensor:
        """z minus the longest of the steps 1, ½, ¼, … along ``direction`` that brings each point closer."""
        length, best = torch.ones_like(error), z
        pending = torch.ones_like(error, dtype=torch.bool)
        for _ in range(12):
            trial = z - length[:, None] * direction
            closer = pending & ((self._substep(trial, t, k)[0] - target).norm(dim=1) < error)
            best = torch.where(closer[:, None], trial, best)
            pending = pending & ~closer
            length = length / 2
            if not pending.any():
                break
        return best


class PotentialFlow(Flow):
    """The flow z_{t+1} = z_t + ∇u^k(z_t, t) along the gradient of potentials: curl-free, as optimal transport is.

    Args:
        potential: the K potentials.
        method, substeps, density: as for :class:`Flow`; the defaults are the paper's explicit step.
    """

    @property
    def potential(self) -> Potential:
        """u^k, the field's potential."""
        return self.field

    def residuals(self, path: Path, k: Tensor, force: Force | None = None, start: int = 0) -> Tensor:
        """R = ∂_t u + ½‖∇u‖² - f at the points (z_t, t), t = start .. start+T-1, of a path: (B, T)."""
        points = path.departures(k, start)
        push = force(*points) if force is not None else 0.0
        rate = self.potential.time_derivative(*points)
        residuals = hamilton_jacobi_residual(rate, path.velocity.flatten(0, 1), push)
        return residuals.unflatten(0, path.velocity.shape[:2])


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
        diffusion = self._of_each(k)
        t = torch.as_tensor(t, dtype=diffusion.dtype, device=diffusion.device)
        return 1 + 2 * t * (diffusion[:, None] if t.ndim == 2 else diffusion)

    def log_prob(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """log p_t(z | k) in nats: z (B, d) with t a number or (B,), or z (B, n, d) with t (B, n)."""
        variance = self.variance(t, k)
        return -0.5 * (z.square().sum(-1) / variance + z.shape[-1] * torch.log(2 * math.pi * variance))

    def potential(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """ψ^k(z, t) = -D_k log p_t(z | k): (B,), for z (B, d)."""
        return -self._of_each(k) * self.log_prob(z, t, k)

    def particles(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """Where ∇ψ carries a particle of p_0 by time t: z_t = z_0 √(1 + 2 D_k t), (B, d)."""
        return z * self.variance(t, k).sqrt()[..., None]

    def _of_each(self, k: Tensor) -> Tensor:
        """D of each sample, mixed where k is: (B,)."""
        diffusion = self.diffusion
        return mixing_weights(k, self.transformations).to(diffusion) @ diffusion


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
