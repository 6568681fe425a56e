"""Explicit Runge-Kutta steps along a velocity field: what they are made of, and how each changes a log-density."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from poflow_lite.fields import Field


def log_det_identity_plus(hessian: Tensor) -> Tensor:
    """log |det(I + H)|, exactly, by an LU factorisation.

    To first order it is the trace of H (the Laplacian); it is never the logarithm of the row sums of I + H.

    Args:
        hessian: (..., d, d).

    Returns:
        (...), nats; -inf where I + H is singular.

    Raises:
        ValueError: for matrices that are not square.
    """
    if hessian.ndim < 2 or hessian.shape[-1] != hessian.shape[-2]:
        raise ValueError(f"the Hessian must be (..., d, d), got {tuple(hessian.shape)}")
    identity = torch.eye(hessian.shape[-1], dtype=hessian.dtype, device=hessian.device)
    return torch.linalg.slogdet(identity + hessian).logabsdet


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


class Passage(NamedTuple):
    """S substeps in a row: sizes h (S,), also as numbers, times of their stages t (S, R), weights y (B, K)."""

    sizes: list[float]
    h: Tensor
    t: Tensor
    y: Tensor


class Stages(NamedTuple):
    """Where S substeps evaluate the field: points z (B, S, R, d), times t (S, R), weights y (B, K), sizes h (S,)."""

    z: Tensor
    t: Tensor
    y: Tensor
    h: Tensor

    def map(self, function: Callable[..., Tensor], *per_sample: Tensor) -> Tensor:
        """``function(z, t, y, ...)`` at all points in one batch: (B, S, R, *whatever it returns)."""
        repeated = [tensor.repeat_interleave(self.t.numel(), 0) for tensor in (self.y, *per_sample)]
        found = function(self.z.flatten(0, 2), self.t.flatten().repeat(len(self.z)), *repeated)
        return found.unflatten(0, self.z.shape[:3])


# --- the change of log-density of each substep, (B, S) ------------------------------------------------------------


def step_jacobians(field: Field, stages: Stages, method: RungeKutta) -> Tensor:
    """M with I + M = ∂z'/∂z, the exact Jacobian of each numerical substep by the chain rule: (B, S, d, d)."""
    jacobians, slopes, h = stages.map(field.jacobian).unbind(2), [], stages.h[:, None, None]
    for jacobian, row in zip(jacobians, method.matrix, strict=True):
        before = weighted(row, slopes)
        slopes.append(jacobian if before is None else jacobian + jacobian @ (h * before))
    return h * weighted(method.weights, slopes)


def weighted(weights: Sequence[float], tensors: Sequence[Tensor]) -> Tensor | None:
    """Σ_i w_i x_i over the weights that are not 0; ``None`` if all are."""
    total = None
    for weight, tensor in zip(weights, tensors, strict=True):
        if weight:
            scaled = tensor if weight == 1 else weight * tensor
            total = scaled if total is None else total + scaled
    return total


def _exact(field: Field, stages: Stages, method: RungeKutta, _: torch.Generator | None) -> Tensor:
    """log |det ∂z'/∂z| of the numerical step: the density is exact for the map that is made, however coarse."""
    return log_det_identity_plus(step_jacobians(field, stages, method))


def _trace(field: Field, stages: Stages, method: RungeKutta, _: torch.Generator | None) -> Tensor:
    """∫ ∇·v dt along the path by the step's own quadrature: the density of the continuous-time flow."""
    return stages.h * (stages.map(field.divergence) @ stages.z.new_tensor(method.weights))


def _hutchinson(field: Field, stages: Stages, method: RungeKutta, generator: torch.Generator | None) -> Tensor:
    """The same with ∇·v estimated by eᵀ(∂v/∂z)e, one random e of ±1 for each path (Hutchinson 1990; Grathwohl 2019)."""
    shape = (len(stages.z), stages.z.shape[-1])
    signs = 2 * torch.randint(0, 2, shape, generator=generator, device=stages.z.device).to(stages.z) - 1
    traces = torch.einsum("bsrd,bd->bsr", stages.map(field.jvp, signs), signs)
    return stages.h * (traces @ stages.z.new_tensor(method.weights))


def _none(field: Field, stages: Stages, method: RungeKutta, _: torch.Generator | None) -> Tensor:
    """0, as if volumes never changed. Wrong on purpose, unless the field is divergence-free: it is for the ablation."""
    return stages.z.new_zeros(stages.z.shape[:2])


LOG_DETS: dict[str, Callable[..., Tensor]] = {
    "exact": _exact,
    "trace": _trace,
    "hutchinson": _hutchinson,
    "none": _none,
}
