"""Checks of lesson 07, the flow-factorized VAE: KL of a translation, two proposals for one number, agreement."""

import math

import torch
from torch.distributions import Independent, Normal, kl_divergence

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal, one_by_one


@Exercise
def translation_kl(f: Function) -> Claims:
    """f(mean, scale, velocity (B, d), diffusion, horizon) -> (B, T+1): KL(q_t ‖ p_t) of z_t = z_0 + t b, nats."""
    mean, velocity = normal(4, 3), normal(4, 3, seed=1)
    scale = normal(4, 3, seed=2).exp()
    hint = "One value for each sample and each t = 0..T"
    yield f(mean, scale, velocity, 0.3, 5), (4, 6), hint
    standard = Independent(Normal(0 * mean, 1 + 0 * mean), 1)
    start = kl_divergence(Independent(Normal(mean, scale), 1), standard)
    hint = "At t = 0 nothing has moved or spread: it is the KL of N(μ, diag σ²) to N(0, I), summed over latents"
    yield f(mean, scale, velocity, 0.3, 5)[:, 0], start, hint
    hint = "Without motion and diffusion the KL must not change with t"
    yield f(mean, scale, 0 * velocity, 0.0, 5), start[:, None].expand(4, 6), hint
    one, zero = doubles([1.0, 1.0]), doubles([0.0, 0.0])
    hint = "With D = 0, μ = 0, σ = 1 and b = (1, 1) it is ½ t² ‖b‖² = t²: the mean at t is μ + t b"
    yield f(zero, one, one, 0.0, 3), [[0.0, 1.0, 4.0, 9.0]], hint
    hint = "With b = 0, μ = 0, σ = 1 only the prior spreads, to the variance v = 1 + 2 D t: d/2 (1/v - 1 + log v)"
    v = 1 + doubles([0.0, 1.0, 2.0])
    yield f(zero, one, zero, 0.5, 2), 1 / v - 1 + v.log(), hint
    hint = "Each sample has its own mean, scale and velocity: nothing may be mixed over the batch"
    whole = f(mean, scale, velocity, 0.3, 5)
    yield whole, one_by_one(lambda m, s, b: f(m, s, b, 0.3, 5), mean, scale, velocity), hint
    prior = Independent(Normal(0 * mean, math.sqrt(1 + 2 * 0.3 * 5) + 0 * mean), 1)
    exact = kl_divergence(Independent(Normal(mean + 5 * velocity, scale), 1), prior)
    yield whole[:, 5], exact, "At t = 5 it must be the KL of N(μ + 5 b, diag σ²) to N(0, (1 + 10 D) I)"
    return "grows with the distance travelled and falls as the prior spreads after it"


@Exercise
def both_proposals(f: Function) -> Claims:
    """f(log_joint, log_q_a, log_q_b (B, 2S)) -> (B,): log p(x) from draws of the mixture of two proposals, nats."""
    log_joint, log_q = normal(3, 8), normal(3, 8, seed=1)
    yield f(log_joint, log_q, log_q), (3,), "One estimate for each of the B images"
    hint = "Two equal proposals are one: it must be log of the mean of the 2S weights p(x, z) / q(z)"
    plain = (log_joint - log_q).logsumexp(1) - math.log(8)
    yield f(log_joint, log_q, log_q), plain, hint
    other = normal(3, 8, seed=2)
    hint = "Where p(x, z) is c times the mixture ½ q_a + ½ q_b, every draw gives log c exactly"
    mixture = torch.logaddexp(log_q, other) - math.log(2)
    yield f(mixture + 1.5, log_q, other), [1.5] * 3, hint
    hint = "The two proposals play the same part: swapping them must change nothing"
    yield f(log_joint, log_q, other), f(log_joint, other, log_q), hint
    hint = "Logarithms near -2,000 underflow in exp: stay in logarithms (logaddexp, logsumexp)"
    yield f(log_joint - 2000, log_q, log_q), plain - 2000, hint
    yield f(log_joint, log_q - 2000, log_q - 2000), plain + 2000, hint
    hint = "Nothing may be averaged over the batch"
    yield f(log_joint, log_q, other), one_by_one(f, log_joint, log_q, other), hint
    z = torch.cat([normal(1, 20_000), 3 + 0.3 * normal(1, 20_000, seed=1)], 1)  # one proposal wide, one far off
    densities = [Normal(m, s).log_prob(z) for m, s in ((0.0, 1.0), (3.0, 0.3))]
    hint = "With one good proposal of two the estimate must come near the truth, here 0.7"
    yield f(Normal(0.3, 0.8).log_prob(z) + 0.7, *densities), [0.7], hint, 0.03
    return "uses both proposals, and is near the truth when only one of them is good"


@Exercise
def mending(f: Function) -> Claims:
    """f() -> (3, 2): as trained, with autoencoding, with agreement; distance in sds, as a share of the way."""
    found = f().double()
    yield found, (3, 2), "A row for each model: as trained, autoencoding = 0.5, agreement; columns sd and share"
    yield (found > 0).all() and found.isfinite().all(), "Distances are positive and finite"
    (trained, way), (_, coded), (agreed, near) = found
    hint = "As trained the latents lie many sd apart: is the first column in sds of q(z | x_T), not in latent units?"
    yield trained > 5, hint
    hint = "The second column is a share of the way that the codes travel: between 0.1 and 4 for every row"
    yield (found[:, 1] > 0.1).all() and (found[:, 1] < 4).all(), hint
    hint = "Agreement brings the two closer: less than half the sd, and a smaller share. Is the order of rows right?"
    yield agreed < trained / 2 and near < way, hint
    hint = "Autoencoding does not contain the flow: the share of the way should hardly fall. Train by `train`"
    yield coded > 0.8 * way, hint
    return "tells sd from share: autoencoding may widen the posterior, only agreement brings the two codes together"
