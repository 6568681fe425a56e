"""Checks of lesson 03, equivariance: the matrix exponential, the error round the square, the ridge map, capsules."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from poflow_lite.check._common import attempt, close, passed, require

__all__ = ["capsule_code", "equivariance_error", "group_element", "ridge_map"]


def group_element(function: Callable[[Tensor, float], Tensor]) -> None:
    """Check ``function(A (n, n), a) -> (n, n)``, the element exp(aA) of the group with the generator A.

    Properties: the identity at a = 0, the generator as the derivative there, T_a T_b = T_{a+b}, the inverse at -a, and
    the closed forms of a rotation and of a stretch.
    """
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    identity = torch.eye(2, dtype=torch.float64)
    close(
        attempt(function, turn, 0.0),
        identity,
        "a = 0 must give the identity matrix: the series starts with I, and exp is not taken entry by entry",
    )
    slope = (attempt(function, turn, 1e-4) - attempt(function, turn, -1e-4)) / 2e-4
    close(slope, turn, "The derivative at a = 0 must be the generator A itself: look at the sign and the transpose")
    stretch = torch.diag(torch.tensor([1.0, -2.0], dtype=torch.float64))
    close(
        attempt(function, stretch, 0.7),
        torch.diag(torch.tensor([math.exp(0.7), math.exp(-1.4)], dtype=torch.float64)),
        "A diagonal generator must give exp(a λ) on the diagonal: the terms of the series are (aA)^n / n!, "
        "with the factorial, and enough of them",
    )
    for a, b in ((0.4, 1.1), (-2.0, 3.5)):
        close(
            attempt(function, turn, a) @ attempt(function, turn, b),
            attempt(function, turn, a + b),
            "T_a T_b = T_{a+b} must hold: take more terms of the series, or torch.linalg.matrix_exp",
        )
    quarter = attempt(function, turn, math.pi / 2)
    close(quarter, turn, "A quarter turn must take (1, 0) to (0, 1): is it a power of the matrix, row times column?")
    shear = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    close(attempt(function, shear, 3.0), identity + 3 * shear, "A² = 0 must give I + aA exactly")
    passed("group_element composes, inverts, and has the generator as its derivative")


def equivariance_error(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``function(true, predicted) -> ()``, E = mean over sequences of Σ_{t≥1} ‖x_t - x̂_t‖_1.

    Both arguments are (B, T+1, C, H, W). Properties: 0 for a perfect prediction; an offset of one unit costs one per
    pixel, channel and later frame; frame 0 is free; errors of both signs add; a mean, not a sum, over sequences.
    """
    generator = torch.Generator().manual_seed(0)
    true = torch.rand(4, 6, 3, 5, 7, dtype=torch.float64, generator=generator)
    zero = torch.zeros((), dtype=torch.float64)
    close(attempt(function, true, true), zero, "A perfect prediction has the error 0, as one number, shape ()")
    first = true.clone()
    first[:, 0] += 1
    close(attempt(function, true, first), zero, "Frame 0 was given, nobody predicted it: the sum runs over t = 1..T")
    close(
        attempt(function, true, true + 1),
        zero + 5 * 3 * 5 * 7,
        "An offset of 1 must cost 1 for each of the 3·5·7 pixel values of each of the T = 5 later frames: "
        "sum over pixels, channels and frames, average over sequences only",
    )
    signs = torch.ones(4, 6, 3, 5, 7, dtype=torch.float64)
    signs[..., ::2] = -1
    close(
        attempt(function, true, true + signs),
        zero + 525,
        "Errors of opposite sign must not cancel: take absolute values pixel by pixel, before any sum",
    )
    close(
        attempt(function, true, true + 0.5),
        zero + 262.5,
        "Half the offset must have half the error: the norm is L1, neither squared nor rooted",
    )
    passed("equivariance_error counts every pixel of every later frame once")


def ridge_map(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Check ``function(z0 (N, d), zt (N, d), ridge) -> (d, d + 1)``, the ridge map [A | b] of latents.

    It minimises mean ‖A z_0 + b - z_t‖² + ridge ‖A - I‖². Properties: an exact affine map is found with a tiny ridge, a
    huge one leaves the translation, and both derivatives of the objective vanish in between.
    """
    generator = torch.Generator().manual_seed(0)
    z0 = 2.0 + torch.randn(200, 3, dtype=torch.float64, generator=generator)
    matrix = torch.tensor([[1.0, 0.5, 0.0], [-0.7, 0.8, 0.2], [0.0, 0.0, 1.3]], dtype=torch.float64)
    shift = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    zt, identity = z0 @ matrix.T + shift, torch.eye(3, dtype=torch.float64)
    found = attempt(function, z0, zt, 1e-9)
    close(
        found,
        torch.cat([matrix, shift[:, None]], 1),
        "With a tiny ridge an exact map z_t = A z_0 + b must be recovered as [A | b]. Rows of A belong to the "
        "dimensions of z_t (mind the transpose), and b = mean z_t - A mean z_0",
    )
    zt = zt + torch.randn(200, 3, dtype=torch.float64, generator=generator)
    huge = attempt(function, z0, zt, 1e9)
    close(
        huge,
        torch.cat([identity, (zt - z0).mean(0)[:, None]], 1),
        "A huge ridge must leave the translation, A = I and b = mean (z_t - z_0): the penalty pulls A towards I, not 0,"
        " and does not touch b",
    )
    ridge = 0.4
    found = attempt(function, z0, zt, ridge)
    A, b = found[:, :3], found[:, 3]
    residual = z0 @ A.T + b - zt
    close(residual.mean(0), 0 * b, "The mean residual must vanish: b is fitted without a penalty")
    close(
        residual.T @ z0 / len(z0) + ridge * (A - identity),
        0 * A,
        "The derivative by A must vanish: mean (A z_0 + b - z_t) z_0ᵀ + λ (A - I) = 0. "
        "The first part is a mean over the N samples, not a sum, and λ is not squared",
    )
    passed("ridge_map solves the normal equations, from free regression to pure translation")


def capsule_code(function: Callable[[Tensor, Tensor, float, int], Tensor]) -> None:
    """Check ``function(z (B, n), u (B, n), mu, neighbours) -> (B, n)``, s of one capsule of a topographic VAE.

    s = (z + μ) / √(W ∗ u²), W the mean over an odd number of neighbours on a circle of n places. Properties: u alone
    with one neighbour; a mean of squares; neighbours on both sides; the circle closes; rolling commutes.
    """
    generator = torch.Generator().manual_seed(0)
    z, u = (torch.randn(5, 8, dtype=torch.float64, generator=generator) for _ in range(2))
    close(
        attempt(function, z, 0 * u + 2, 0.0, 3),
        z / 2,
        "With u = 2 everywhere the average of u² is 4 and s = z / 2: take a mean (not a sum) of squares, then the root",
    )
    close(
        attempt(function, z, 0 * u + 2, 1.5, 3),
        (z + 1.5) / 2,
        "μ is added to z before the division: s = (z + μ) / √(W ∗ u²)",
    )
    close(
        attempt(function, z, u, 0.0, 1),
        z / u.abs(),
        "With one neighbour s = z / |u|: square u, and take the root of the average",
    )
    peak = 0 * u + 1
    peak[:, 3] = 5.0
    squares = torch.ones(8, dtype=torch.float64)
    squares[2:5] = (25 + 1 + 1) / 3
    close(
        attempt(function, 0 * z + 1, peak, 0.0, 3),
        squares.rsqrt().expand(5, 8),
        "A large u at place 3 must damp the places 2, 3 and 4 alike: the neighbourhood is centred",
    )
    peak = peak.roll(-3, -1)
    close(
        attempt(function, 0 * z + 1, peak, 0.0, 3),
        squares.roll(-3).rsqrt().expand(5, 8),
        "A capsule is a circle: places 0 and n - 1 are neighbours",
    )
    require(
        torch.allclose(
            attempt(function, z.roll(2, -1), u.roll(2, -1), 0.3, 5), attempt(function, z, u, 0.3, 5).roll(2, -1)
        ),
        "Rolling z and u must roll s: no place of the circle may be special, and the samples must not mix",
    )
    alone = torch.cat([attempt(function, z[i : i + 1], u[i : i + 1], 0.3, 5) for i in range(5)])
    close(attempt(function, z, u, 0.3, 5), alone, "Each sample has its own variances: average over places, not samples")
    passed("capsule_code shares variances round the circle, and commutes with every roll")
