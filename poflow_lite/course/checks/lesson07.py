"""Checks of lesson 07, the flow-factorized VAE: densities along a flow, Hamilton-Jacobi, the KL term, drawn frames."""

import itertools
import math

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal, one_by_one


def _standard_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I), (B,), nats."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)


@Exercise
def pushed_log_density(f: Function) -> Claims:
    """f(log_q0 (B,), hessians (B, T, d, d)) -> (B, T+1): log q_t along the path of each particle, nats."""
    log_q0, identity = doubles(0.3, -1.2, 2.0), torch.eye(2).double().expand(3, 1, 2, 2)
    hint = "A flat potential moves nothing: log q_t must stay log q_0 for t = 0..T"
    yield f(log_q0, 0 * identity.expand(3, 4, 2, 2)), log_q0[:, None].expand(3, 5), hint
    fall = f(log_q0, identity)[:, 1] - log_q0
    yield (fall < 0).all(), "H = I doubles all lengths, so the density must fall: look at the sign of the log-det"
    hint = "H = I in two dimensions makes volumes 4 times larger: log q falls by log 4; a trace is first-order only"
    yield fall, [-math.log(4)] * 3, hint
    swap = doubles([0.0, 0.6], [0.6, 0.0]).expand(3, 1, 2, 2)
    hint = "H = [[0, 0.6], [0.6, 0]] has det(I + H) = 0.64: neither the sums of its rows nor its diagonal give it"
    yield f(log_q0, swap)[:, 1] - log_q0, [-math.log(1 - 0.36)] * 3, hint
    factor = 0.3 * normal(3, 4, 2, 2)
    hessians, z, matrix = factor @ factor.mT, normal(3, 2, seed=1), identity[:, 0]
    hint = "A particle's density depends on its own path only: nothing may be averaged over the batch"
    yield f(log_q0, hessians), one_by_one(f, log_q0, hessians), hint
    expected = [_standard_normal(z)]
    for t in range(4):
        step = identity[:, 0] + hessians[:, t]
        z, matrix = (step @ z[..., None])[..., 0], step @ matrix
        expected.append(MultivariateNormal(torch.zeros_like(z), matrix @ matrix.mT).log_prob(z))
    hint = "Under linear steps N(0, I) becomes N(0, M Mᵀ): log q_t takes off the log-dets of all steps before t"
    yield f(expected[0], hessians), torch.stack(expected, 1), hint
    return "follows the density exactly through every step"


@Exercise
def residual(f: Function) -> Claims:
    """f(u, z (B, d), t (B,)) -> (B,): R = ∂_t u + ½‖∇u‖² of a potential u(z, t) by autograd."""
    z, t = normal(6, 3), torch.arange(6).double()
    hint = "u = ½‖z‖² has ∇u = z and R = ½‖z‖²: mind the factor ½ and sum, not average, over latents, for each sample"
    yield f(lambda z, t: 0.5 * z.square().sum(-1) + 0 * t, z, t), 0.5 * z.square().sum(-1), hint
    hint = "u = t² has ∇u = 0 and ∂_t u = 2t for each sample's own t: no sum over the batch, sign +"
    yield f(lambda z, t: t.square() + 0 * z.sum(-1), z, t), 2 * t, hint
    hint = "u = ½‖z‖² / (t + 4) solves the Hamilton-Jacobi equation: R must vanish"
    yield f(lambda z, t: 0.5 * z.square().sum(-1) / (t + 4), z, t), 0 * t, hint
    return "vanishes on a solution of the Hamilton-Jacobi equation"


@Exercise
def frame_kl(f: Function) -> Claims:
    """f(log_q0 (B,), log_det (B,), z0 (B, d), z1 (B, d), variance) -> (B,): samples of log q_1(z_1) - log p_1(z_1)."""
    z0, v = normal(20_000, 2), 2.5
    log_q0, zero, matrix = _standard_normal(z0), torch.zeros(20_000).double(), doubles([1.4, 0.3], [0.3, 0.8])
    hint = "Nothing moves and p = q = N(0, I): each sample must give 0. Sum over latents, one value for each; mind 2π"
    yield f(log_q0, zero, z0, z0, 1.0), zero, hint
    hint = "Moved as the prior each gives 0: log q_0 - log-det, prior at z_1, `variance` no standard deviation"
    yield f(log_q0, zero + math.log(v), z0, v**0.5 * z0, v), zero, hint  # d/2 log v with d = 2
    found = f(log_q0, matrix.logdet().expand(20_000), z0, z0 @ matrix.T, v)
    yield found.std() > 1e-6, "The samples of log q_1 - log p_1 differ from each other: do not average them yourself"
    gaussians = (matrix @ matrix.T, v * torch.eye(2).double())
    exact = kl_divergence(*(MultivariateNormal(torch.zeros(2).double(), covariance) for covariance in gaussians))
    hint = "For z_1 = M z_0 the average must approach KL(N(0, M Mᵀ) ‖ N(0, v I)), which is in closed form"
    yield found.mean(), exact, hint, 0.02
    return f"averages to the closed form, {exact:.3f} nats, and is 0 where posterior and prior agree"


@Exercise
def sum_from_drawn(f: Function) -> Claims:
    """f(first (B,), drawn (B, S), horizon) -> (B,): an unbiased estimate of a sum over frames 0..T."""
    terms = normal(3, 6)
    first, later = terms[:, 0], terms[:, 1:]
    yield f(first, later, 5), terms.sum(1), "With all T frames drawn the estimate must be their sum, (B,)"
    for size in (1, 2):
        estimates = [f(first, later[:, list(subset)], 5) for subset in itertools.combinations(range(5), size)]
        hint = f"Averaged over all subsets of {size} it must be the sum: frame 0 counts once, each drawn one for T/S"
        yield torch.stack(estimates).mean(0), terms.sum(1), hint
    return "is unbiased: its average over all subsets is the whole sum"
