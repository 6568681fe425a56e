"""What all velocity fields share: their protocol, mixing weights, and the features of time."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor


def mixing_weights(k: Tensor, transformations: int) -> Tensor:
    """Weights y of the mixture Σ_k y_k v^k: one-hot rows for an index; weights are returned as they are.

    Args:
        k: (B,) integers in 0..K-1, or (B, K) weights (soft assignments, or several ones to superpose flows).
        transformations: K.

    Returns:
        (B, K).

    Raises:
        ValueError: for an index out of range or a shape that is neither.

    >>> mixing_weights(torch.tensor([1, 0]), 3)
    tensor([[0., 1., 0.],
            [1., 0., 0.]])
    """
    if k.ndim == 2 and k.shape[1] == transformations and k.is_floating_point():
        return k
    if k.ndim != 1 or k.is_floating_point() or k.is_complex() or k.dtype == torch.bool:
        raise ValueError(
            f"k must be (B,) integers or (B, {transformations}) floating-point weights, "
            f"got {tuple(k.shape)} of {k.dtype}"
        )
    if k.numel() and k.device.type == "cpu":  # a GPU would have to wait until values are read back
        low, high = (int(value) for value in k.aminmax())
        if low < 0 or high >= transformations:
            raise ValueError(
                f"k must lie in 0..{transformations - 1} for {transformations} transformations, "
                f"got values from {low} to {high}"
            )
    y = torch.zeros(len(k), transformations, device=k.device)
    return y.scatter_(1, k[:, None].long(), 1.0)  # F.one_hot looks at the values again


def time_features(t: Tensor, horizon: float, frequencies: int, order: int = 0) -> Tensor:
    """φ̂(t) = (1, τ, sin πτ, …, sin Fπτ, cos πτ, …, cos Fπτ) with τ = t / T, or its derivative d^n φ̂/dt^n.

    Args:
        t: (B,), frames.
        horizon: T, frames in which τ runs from 0 to 1.
        frequencies: F ≥ 0.
        order: n, 0 to 2.

    Returns:
        (B, 2 + 2F), per frame^n.

    Raises:
        ValueError: for another order, or an impossible horizon or number of frequencies.
    """
    if order not in (0, 1, 2) or not horizon > 0 or frequencies < 0:
        raise ValueError(
            "time features need order 0, 1 or 2, a positive horizon and frequencies of at least 0, "
            f"got {order}, {horizon} and {frequencies}"
        )
    tau = t[:, None] / horizon
    omega = math.pi * torch.arange(1, frequencies + 1, dtype=t.dtype, device=t.device)
    sine, cosine, one = torch.sin(omega * tau), torch.cos(omega * tau), torch.ones_like(tau)
    if order == 0:
        return torch.cat([one, tau, sine, cosine], -1)
    turns = (sine, cosine, -sine, -cosine)  # each derivative of a sine is the next of these
    line = [0 * one, one if order == 1 else 0 * one]
    return torch.cat([*line, omega**order * turns[order], omega**order * turns[order + 1]], -1) / horizon**order


class Field(Protocol):
    """What :class:`flows.Flow` asks of K velocity fields: z is (B, d), t a number or (B,) in frames, y (B, K).

    A field may also have ``euler_path(z, t, y, h)``, all points of n Euler steps at once, where that is cheaper.
    """

    latent: int
    transformations: int
    horizon: float

    def velocity(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """v: (B, d), latent units per frame."""
        ...

    def jacobian(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """∂v_i/∂z_j: (B, d, d)."""
        ...

    def jvp(self, z: Tensor, t: Tensor | float, y: Tensor, vector: Tensor) -> Tensor:
        """(∂v/∂z) e for vectors e (B, d): (B, d)."""
        ...

    def divergence(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """∇·v = tr ∂v/∂z: (B,), per frame."""
        ...


def times_of(field: Field, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
    """Times (B,) of points z (B, d) with weights y (B, K); a ValueError where shapes do not fit."""
    if z.ndim != 2 or z.shape[1] != field.latent or not z.is_floating_point():
        raise ValueError(f"z must be (B, {field.latent}), got {tuple(z.shape)} of {z.dtype}; points are floating-point")
    if y.shape != (len(z), field.transformations) or not y.is_floating_point():
        raise ValueError(
            f"{len(z)} points need weights y {(len(z), field.transformations)}, got {tuple(y.shape)} of {y.dtype}; "
            "make them of an index by fields.mixing_weights(k, K)"
        )
    t = torch.as_tensor(t, dtype=z.dtype, device=z.device)
    if t.ndim and t.shape != z.shape[:1]:
        raise ValueError(f"t must be a number or ({len(z)},), got {tuple(t.shape)}")
    return t.expand(len(z))
