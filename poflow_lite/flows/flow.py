"""Flows on the latent space: following a velocity field step by step, its inverse, and the density it makes.

One frame is one unit of time. A frame is crossed in ``substeps`` explicit Runge-Kutta steps; the paper's flow is one
Euler step, z_{t+1} = z_t + ∇u(z_t, t).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poflow_lite.fields import Field, Force, mixing_weights
from poflow_lite.fields.protocol import times_of
from poflow_lite.flows.runge_kutta import LOG_DETS, METHODS, Passage, Stages, step_jacobians, weighted
from poflow_lite.objectives import hamilton_jacobi_residual


class Trajectory:
    """Latents carried along a clock of n + 1 times.

    Attributes:
        z: (B, n+1, d), positions, ``z[:, 0]`` the start.
        velocity: (B, n, d), latent units per frame, where each step starts; of a step back, minus that where it ends.
        clock: (n,), frames at which the velocities were taken: those of the starts, or held at the last trained step.
        weights: y (B, K), what moved them; as it was given, where no one asked.
        times: (n+1,), frames.

    Args:
        log_det: (B, n), or a function that finds it where it is read, with gradients or without as is the rule there.
    """

    def __init__(
        self,
        z: Tensor,
        log_det: Tensor | Callable[[], Tensor],
        velocity: Tensor,
        weights: Tensor,
        times: Tensor,
        clock: Tensor | None = None,
    ):
        self.z, self.velocity, self.weights, self.times = z, velocity, weights, times
        self.clock, self._log_det = times[:-1] if clock is None else clock, log_det

    @property
    def log_det(self) -> Tensor:
        """log |det ∂z_{i+1}/∂z_i| of each step, nats: (B, n)."""
        if not isinstance(self._log_det, Tensor):
            self._log_det = self._log_det()
        return self._log_det

    def log_density(self, start: Tensor) -> Tensor:
        """log q_t(z_t) = log q_0(z_0) - Σ_{s<t} log |det ∂z_{s+1}/∂z_s|, from ``start`` = log q_0(z_0): (B, n+1)."""
        if start.shape != self.z.shape[:1]:  # or it would broadcast to (B, B, n+1)
            raise ValueError(f"start must be ({len(self.z)},), a number for each path, got {tuple(start.shape)}")
        return start[:, None] - F.pad(self.log_det.cumsum(1), (1, 0))

    def step_starts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where and when each step starts, in one batch: z (B n, d), t (B n,) and y (B n, K)."""
        batch, steps = self.velocity.shape[:2]
        t = self.clock.to(self.z).repeat(batch)
        return self.z[:, :-1].flatten(0, 1), t, self.weights.repeat_interleave(steps, 0)


class LatentOperator(Protocol):
    """What carries latents: a flow, a table of affine maps, or a model by its own motion."""

    def rollout(self, z: Tensor, y: Tensor, times: Sequence[float]) -> Trajectory:
        """Carry z (B, d) from ``times[0]`` along a clock, moved by the weights y (B, K); backwards where it falls."""
        ...


def clock_of(times: Sequence[float]) -> list[float]:
    """Times in frames as numbers; a ValueError unless they rise or fall all along, with one step at least."""
    clock = [float(t) for t in times]
    steps = [later - t for t, later in itertools.pairwise(clock)]
    if not steps or not all(0 < (step if steps[0] > 0 else -step) < math.inf for step in steps):
        raise ValueError(f"times must rise or fall all along, with one step at least, got {clock}; and be finite")
    return clock


class NotInvertible(ValueError):
    """A step of a flow cannot be undone: it folds space."""


def _require_rising(trajectory: Trajectory) -> None:
    if trajectory.times[-1] < trajectory.times[0]:
        raise ValueError("the clock of this trajectory falls: roll out the way there, and look at that")


class Flow(nn.Module):
    """The map z_t ↦ z_{t+1} that a velocity field makes, its inverse, and the density it carries along.

    Beyond the last step that was trained the velocity is that of this step: the clock stops, the motion goes on.

    Args:
        field: a velocity field (:class:`fields.Field`).
        method: one of :data:`METHODS`: "euler", "midpoint" or "rk4".
        substeps: Runge-Kutta steps that cross one step of the clock.
        log_det: one of :data:`LOG_DETS`. "exact" is the log-determinant of the numerical map; "trace" integrates the
            divergence, which is the density of the continuous flow, up to O(h^order); "hutchinson" estimates that
            without bias from one random direction for each path; "none" is 0, to see what the density is good for.

    Raises:
        ValueError: for an unknown method or log_det, or ``substeps`` below 1.
    """

    def __init__(self, field: Field, method: str = "euler", substeps: int = 1, log_det: str = "exact"):
        super().__init__()
        for what, name, known in (("method", method, METHODS), ("log_det", log_det, LOG_DETS)):
            if name not in known:
                raise ValueError(f"unknown {what} {name!r}; known: {', '.join(known)}")
        if not (isinstance(substeps, Integral) and substeps >= 1):
            raise ValueError(f"substeps must be at least 1, got {substeps}")
        self.field, self.substeps = field, substeps
        self.method, self._log_det = METHODS[method], LOG_DETS[log_det]

    def step(self, z: Tensor, t: float, y: Tensor, size: float = 1.0) -> Tensor:
        """z_{t+size} from z_t = z: (B, d)."""
        return self.rollout(z, y, (t, t + size)).z[:, 1]

    def rollout(
        self, z: Tensor, y: Tensor, times: Sequence[float], generator: torch.Generator | None = None
    ) -> Trajectory:
        """Follow particles from z along a clock; where it falls, back to where they came from, by Newton's method.

        Args:
            z: (B, d), at ``times[0]``.
            y: (B,) integers k or (B, K) weights; the same at every step.
            times: n + 1 times in frames, rising, such as ``range(T + 1)``, or falling.
            generator: draws the random directions of the "hutchinson" log-determinant.

        Raises:
            ValueError: for a clock that stands, turns or has no step, or if z or y do not fit the field.
            NotInvertible: for a falling clock, where no pre-image is found, or where the step folds space at the one
                that is found: its Jacobian has a determinant ≤ 0, or is symmetric with an eigenvalue ≤ 0. Other
                pre-images may exist unnoticed where the fold lies elsewhere: see :meth:`smallest_eigenvalue`.
        """
        clock = clock_of(times)
        steps, backwards = list(itertools.pairwise(clock)), clock[-1] < clock[0]
        if not z.is_floating_point():
            raise ValueError(f"z must be floating-point, got {tuple(z.shape)} of {z.dtype}")
        y = mixing_weights(y, self.field.transformations).to(z)
        times_of(self.field, z, 0.0, y)  # all shapes, checked once
        passage = self._passage([(later, t) if backwards else (t, later) for t, later in steps], z, y)
        follow = self._follow_back if backwards else self._follow
        positions, velocity, points = follow(z, passage)

        def log_det() -> Tensor:
            stages = Stages(points.unflatten(1, passage.t.shape), passage.t, y, passage.h)
            found = self._log_det(self.field, stages, self.method, generator).unflatten(1, (len(steps), -1)).sum(2)
            return -found if backwards else found

        held = None if backwards else passage.t[:: self.substeps, 0]
        return Trajectory(positions, log_det, velocity, y, torch.tensor(clock, dtype=z.dtype), held)

    def residuals(self, trajectory: Trajectory, force: Force | None = None) -> Tensor:
        """R = ∂_t u + ½‖∇u‖² - f where each step starts, for a field with a potential and a rising clock: (B, n)."""
        _require_rising(trajectory)
        points = trajectory.step_starts()
        push = force(*points) if force is not None else 0.0
        rate = self.field.time_derivative(*points)
        residuals = hamilton_jacobi_residual(rate, trajectory.velocity.flatten(0, 1), push)
        return residuals.unflatten(0, trajectory.velocity.shape[:2])

    def smallest_eigenvalue(self, trajectory: Trajectory) -> Tensor:
        """Smallest eigenvalue of the symmetric part of each step's Jacobian, least of its substeps: (B, n).

        For one Euler step along ∇u that is the matrix I + ∇²u. While it is positive everywhere, no two points of a
        convex region are sent to the same place; where it reaches 0, a gradient step folds space onto itself.
        """
        _require_rising(trajectory)
        z, y = trajectory.z, trajectory.weights
        passage, lowest = self._passage(list(itertools.pairwise(trajectory.times.tolist())), z, y), []
        for step in range(z.shape[1] - 1):
            points = torch.stack(self._cross(z[:, step], passage, step)[1], 1)
            own = slice(step * self.substeps, (step + 1) * self.substeps)
            stages = Stages(points.unflatten(1, (self.substeps, -1)), passage.t[own], y, passage.h[own])
            jacobians = step_jacobians(self.field, stages, self.method)
            lowest.append(1 + torch.linalg.eigvalsh(0.5 * (jacobians + jacobians.mT))[..., 0].amin(1))
        return torch.stack(lowest, 1)

    def _passage(self, steps: Sequence[tuple[float, float]], z: Tensor, y: Tensor) -> Passage:
        """What crossing the given (t, later) takes, for particles like z moved by y."""
        sizes, times = [], []
        for t, later in steps:
            h = (later - t) / self.substeps
            end = self.field.horizon  # beyond the last step that was trained, the clock is held
            begin = min(t, end - min(later - t, 1.0))
            sizes += [h] * self.substeps
            times += [[min(begin + i * h + node * h, end) for node in self.method.nodes] for i in range(self.substeps)]
        return Passage(sizes, *(torch.tensor(x, dtype=z.dtype, device=z.device) for x in (sizes, times)), y)

    def _follow(self, z: Tensor, passage: Passage) -> tuple[Tensor, Tensor, Tensor]:
        """Positions (B, n+1, d), velocities (B, n, d) and the points of all stages (B, S R, d) from z on."""
        quickly = getattr(self.field, "euler_path", None)
        if self.method == METHODS["euler"] and quickly is not None:
            path = quickly(z, passage.t[:, 0], passage.y, passage.sizes)
            velocity = path.diff(dim=1) / passage.h[:, None]
            return path[:, :: self.substeps], velocity[:, :: self.substeps], path[:, :-1]
        positions, slopes, points = [z], [], []
        for step in range(len(passage.sizes) // self.substeps):
            end, passed, slope = self._cross(positions[-1], passage, step)
            positions.append(end)
            slopes.append(slope)
            points += passed
        return tuple(torch.stack(parts, 1) for parts in (positions, slopes, points))

    def _cross(self, z: Tensor, passage: Passage, step: int) -> tuple[Tensor, list[Tensor], Tensor]:
        """One step of the clock: where it ends, the points of all its stages, and the velocity at its start."""
        points, first = [], None
        for substep in range(step * self.substeps, (step + 1) * self.substeps):
            z, where, slope = self._substep(z, passage, substep)
            points += where
            first = slope if first is None else first
        return z, points, first

    def _substep(self, z: Tensor, passage: Passage, substep: int) -> tuple[Tensor, list[Tensor], Tensor]:
        """One Runge-Kutta step: where it ends, the points (B, d) of its stages, its first slope."""
        slopes, points, h = [], [], passage.sizes[substep]
        for t, row in zip(passage.t[substep], self.method.matrix, strict=True):
            before = weighted(row, slopes)
            points.append(z if before is None else torch.add(z, before, alpha=h))
            slopes.append(self.field.velocity(points[-1], t, passage.y))
        return torch.add(z, weighted(self.method.weights, slopes), alpha=h), points, slopes[0]

    # --- backwards ---------------------------------------------------------------------------------------------------

    def _follow_back(self, z: Tensor, passage: Passage) -> tuple[Tensor, Tensor, Tensor]:
        """:meth:`_follow` to where z came from: the way there crosses the passage's steps, the way back is theirs."""
        positions, slopes, points = [z], [], []
        for step in range(len(passage.sizes) // self.substeps):
            z = positions[-1]
            for substep in reversed(range(step * self.substeps, (step + 1) * self.substeps)):
                z = self._undo(z, passage, substep)
            positions.append(z)
            _, passed, slope = self._cross(positions[-1], passage, step)
            slopes.append(-slope)
            points += passed
        return tuple(torch.stack(parts, 1) for parts in (positions, slopes, points))

    def _undo(self, target: Tensor, passage: Passage, substep: int) -> Tensor:
        """The pre-image z of ``target`` under a substep, with its gradients where they are asked for.

        By the implicit function theorem these are those of one more step of Newton's from a z that is held fixed.
        """
        if not target.isfinite().all():
            raise ValueError("z holds NaN or infinite coordinates, which no particle can have come to")
        z, jacobian = self._search(target, passage, substep)
        if not torch.is_grad_enabled():
            return z
        missed = self._substep(z, passage, substep)[0] - target
        return z - torch.linalg.solve(jacobian, missed[..., None])[..., 0]

    @torch.no_grad()
    def _search(self, target: Tensor, passage: Passage, substep: int, iterations: int = 50) -> tuple[Tensor, Tensor]:
        """That z, to about ¾ of the dtype's digits, and the Jacobian of the substep there, (B, d, d)."""
        tolerance = torch.finfo(target.dtype).eps ** 0.75 * (1 + target.norm(dim=1))
        own = slice(substep, substep + 1)
        z = target - passage.h[own] * self.field.velocity(target, passage.t[substep, 0], passage.y)  # to first order
        identity = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        for _ in range(iterations):
            end, points, _ = self._substep(z, passage, substep)
            error = (end - target).norm(dim=1)
            stages = Stages(torch.stack(points, 1)[:, None], passage.t[own], passage.y, passage.h[own])
            jacobian = identity + step_jacobians(self.field, stages, self.method)[:, 0]
            if (error <= tolerance).all():
                break
            direction = torch.linalg.solve_ex(jacobian, (end - target)[..., None])[0][..., 0]
            z = self._backtrack(z, direction, target, passage, substep, error)
        lowest = 0.5 * torch.linalg.eigvalsh(jacobian + jacobian.mT)[:, 0]
        symmetric = (jacobian - jacobian.mT).abs().amax((1, 2)) <= tolerance
        folded = torch.linalg.slogdet(jacobian).sign <= 0  # of many dimensions the determinant itself would underflow
        bad = ~(error <= tolerance) | folded | (symmetric & (lowest <= 0))
        if bad.any():
            raise NotInvertible(
                f"the step at t = {passage.t[substep, 0]:g} cannot be undone at {int(bad.sum())} of {len(z)} points: "
                f"it folds space there (smallest eigenvalue of its Jacobian {lowest.min():.2g}, it must be positive). "
                "Use more substeps, or a flow trained with a larger Hamilton-Jacobi weight"
            )
        return z, jacobian

    def _backtrack(
        self, z: Tensor, direction: Tensor, target: Tensor, passage: Passage, substep: int, error: Tensor
    ) -> Tensor:
        """z minus the longest of the steps 1, ½, ¼, … along ``direction`` that brings each point closer."""
        best, pending = z, torch.ones_like(error, dtype=torch.bool)
        for halvings in range(12):
            trial = z - direction / 2**halvings
            closer = pending & ((self._substep(trial, passage, substep)[0] - target).norm(dim=1) < error)
            best = torch.where(closer[:, None], trial, best)
            pending = pending & ~closer
            if not pending.any():
                break
        return best
