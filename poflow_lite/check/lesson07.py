"""Checks of lesson 07, the flow-factorized VAE: densities along a flow, Hamilton-Jacobi, the KL term, drawn frames."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from poflow_lite.check._common import attempt, close, passed, require

__all__ = ["frame_kl", "pushed_log_density", "residual", "sum_from_drawn"]


def pushed_log_density(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``function(log_q0 (B,), hessians (B, T, d, d)) -> (B, T+1)``, log q_t along the path of each particle.

    Properties: nothing changes where the potential is flat, expansion lowers the density, the determinant is one (not
    a trace, not row sums), steps add up, samples do not mix, and a Gaussian under linear steps keeps its closed form.
    """
    log_q0 = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)
    identity = torch.eye(2, dtype=torch.float64).expand(3, 1, 2, 2)
    still = attempt(function, log_q0, 0 * identity.expand(3, 4, 2, 2))
    close(
        still,
        log_q0[:, None].expand(3, 5),
        "A flat potential moves nothing: log q_t must stay log q_0 for t = 0..T",
    )
    doubled = attempt(function, log_q0, identity)[:, 1] - log_q0
    require((doubled < 0).all(), "H = I doubles all lengths, so the density must fall: look at the sign of the log-det")
    close(
        doubled,
        torch.full_like(doubled, -2 * math.log(2)),
        "H = I in two dimensions multiplies volumes by 4, so log q falls by log 4; "
        "the trace of H is only the first-order approximation of log|det(I + H)|",
    )
    swap = torch.tensor([[0.0, 0.6], [0.6, 0.0]], dtype=torch.float64).expand(3, 1, 2, 2)
    close(
        attempt(function, log_q0, swap)[:, 1] - log_q0,
        torch.full_like(log_q0, -math.log(1 - 0.36)),
        "H = [[0, 0.6], [0.6, 0]] has det(I + H) = 1 - 0.36: take the determinant of the matrix, "
        "neither the sums of its rows nor its diagonal",
    )
    generator = torch.Generator().manual_seed(0)
    factor = 0.3 * torch.randn(3, 4, 2, 2, dtype=torch.float64, generator=generator)
    hessians = factor @ factor.mT
    found = attempt(function, log_q0, hessians)
    alone = torch.cat([attempt(function, log_q0[i : i + 1], hessians[i : i + 1]) for i in range(3)])
    close(found, alone, "A particle's density depends on its own path only: nothing may be averaged over the batch")

    start = torch.randn(3, 2, dtype=torch.float64, generator=generator)
    z, matrix, expected = start, identity[:, 0], [_standard_normal(start)]
    for t in range(4):
        step = identity[:, 0] + hessians[:, t]
        z, matrix = (step @ z[..., None])[..., 0], step @ matrix
        expected.append(MultivariateNormal(torch.zeros_like(z), matrix @ matrix.mT).log_prob(z))
    close(
        attempt(function, expected[0], hessians),
        torch.stack(expected, 1),
        "Under linear steps N(0, I) becomes N(0, M Mᵀ), M the product of the steps: "
        "log q_t must take off the log-dets of all steps before t",
    )
    passed("pushed_log_density follows the density exactly through every step")


def residual(function: Callable[[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor], Tensor]) -> None:
    """Check ``function(u, z (B, d), t (B,)) -> (B,)``, R = ∂_t u + ½‖∇u‖² of a potential u(z, t) by autograd.

    Properties: 0 for the potential of a constant velocity, whatever the batch; ½‖∇u‖² summed over dimensions where u
    does not depend on time; ∂_t u of each sample; 0 for the spreading potential ½‖z‖² / (t + c).
    """
    generator = torch.Generator().manual_seed(0)
    z, t = torch.randn(6, 3, dtype=torch.float64, generator=generator), torch.arange(6, dtype=torch.float64)
    bowl = attempt(function, lambda z, t: 0.5 * z.square().sum(-1) + 0 * t, z, t)
    close(
        bowl,
        0.5 * z.square().sum(-1),
        "u = ½‖z‖² has ∇u = z and ∂_t u = 0, so R = ½‖z‖²: mind the factor ½ and sum, not average, "
        "over the latent dimensions; one value for each sample",
    )
    clock = attempt(function, lambda z, t: t.square() + 0 * z.sum(-1), z, t)
    close(clock, 2 * t, "u = t² has ∇u = 0 and ∂_t u = 2t for each sample's own t: no sum over the batch, sign +")
    b = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    straight = attempt(function, lambda z, t: z @ b - 0.5 * b.square().sum() * t, z, t)
    close(straight, torch.zeros_like(t), "u = b·z - ½‖b‖² t moves everything with velocity b: R must vanish")
    spread = attempt(function, lambda z, t: 0.5 * z.square().sum(-1) / (t + 4), z, t)
    close(spread, torch.zeros_like(t), "u = ½‖z‖² / (t + 4) solves the Hamilton-Jacobi equation: R must vanish")
    passed("residual vanishes on both solutions of the Hamilton-Jacobi equation and nowhere else")


def frame_kl(function: Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]) -> None:
    """Check ``function(log_q0 (B,), log_det (B,), z0 (B, d), z1 (B, d), variance) -> (B,)``, samples of a frame's KL.

    Each is log q_1(z_1) - log p_1(z_1). Properties: 0 at every sample when the posterior moves as the prior does, and
    on average the closed form of the KL divergence of two Gaussians for a linear flow.
    """
    generator = torch.Generator().manual_seed(0)
    z0 = torch.randn(20_000, 2, dtype=torch.float64, generator=generator)
    log_q0, variance = _standard_normal(z0), 2.5
    still = attempt(function, log_q0, torch.zeros_like(log_q0), z0, z0, 1.0)
    close(
        still,
        torch.zeros_like(log_q0),
        "Posterior and prior both N(0, I) and nothing moves: every sample must give 0. "
        "Sum over the latent dimensions and keep one value for each sample; mind (2π)^(d/2)",
    )
    spread = torch.full_like(log_q0, math.log(variance))  # d/2 log v with d = 2
    close(
        attempt(function, log_q0, spread, z0, variance**0.5 * z0, variance),
        torch.zeros_like(log_q0),
        "Where the posterior moves exactly as the prior, z_1 = √v z_0, every sample must give 0. "
        "Is log q_1 = log q_0 - log-det? Is the prior evaluated at z_1 as well? "
        "Is `variance` used as a variance, not a standard deviation?",
    )
    matrix = torch.tensor([[1.4, 0.3], [0.3, 0.8]], dtype=torch.float64)
    log_det = torch.linalg.slogdet(matrix).logabsdet.expand(len(z0))
    found = attempt(function, log_q0, log_det, z0, z0 @ matrix.T, variance)
    require(found.shape == log_q0.shape, f"one value for each sample, (B,), got {tuple(found.shape)}")
    require(found.std() > 1e-6, "the samples of log q_1 - log p_1 differ from each other: do not average them yourself")
    zero, identity = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    exact = kl_divergence(MultivariateNormal(zero, matrix @ matrix.T), MultivariateNormal(zero, variance * identity))
    close(
        found.mean(),
        exact,
        "For z_1 = M z_0 the average must approach KL(N(0, M Mᵀ) ‖ N(0, v I)), which is in closed form",
        tolerance=0.02,
    )
    passed(f"frame_kl averages to the closed form, {exact:.3f} nats, and is 0 where posterior and prior agree")


def sum_from_drawn(function: Callable[[Tensor, Tensor, int], Tensor]) -> None:
    """Check ``function(first (B,), drawn (B, S), horizon) -> (B,)``, an unbiased estimate of a sum over frames 0..T.

    Properties: exact where all frames are drawn, and exact on average over all subsets of S frames.
    """
    generator = torch.Generator().manual_seed(0)
    terms = torch.randn(3, 6, dtype=torch.float64, generator=generator)
    first, later, total = terms[:, 0], terms[:, 1:], terms.sum(1)
    close(attempt(function, first, later, 5), total, "With all T frames drawn the estimate must be their sum, (B,)")
    for size in (1, 2, 3):
        estimates = [
            attempt(function, first, later[:, list(subset)], 5) for subset in itertools.combinations(range(5), size)
        ]
        close(
            torch.stack(estimates).mean(0),
            total,
            f"Averaged over all subsets of {size} of 5 frames the estimate must be the whole sum: "
            "frame 0 is always there and counts once, each drawn frame stands for T/S frames",
        )
    passed("sum_from_drawn is unbiased: its average over all subsets is the whole sum")


def _standard_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I), (B,), nats."""
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi))
