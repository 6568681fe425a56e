"""Checks of lesson 02, disentanglement: MIG, total correlation, the SlowVAE's transition, the rotated posterior."""

import math

import torch
from torch.distributions import Laplace, MultivariateNormal, Normal, kl_divergence

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal, uniform


@Exercise
def mig(f: Function) -> Claims:
    """f(information (d, F), entropies (F,)) -> (): mean over factors of (largest - second largest) / entropy."""
    entropies = doubles(2, 1, 0.5)
    perfect = torch.cat([entropies.diag(), torch.zeros(2, 3)])
    hint = "A perfect code must score 1: divide each factor's gap by its own entropy, take the mean, not the sum"
    yield f(perfect, entropies), 1.0, hint
    hint = "A duplicated code must score 0: subtract what the second best latent knows. The latents are the rows"
    yield f(perfect[[0, 1, 2, 0, 1, 2]], entropies), 0.0, hint
    information = doubles([1.0, 0.1, 0.1], [0.4, 0.6, 0.2], [0.3, 0.5, 0.4], [0.2, 0.0, 0.0])
    hint = "It is between the two largest of a column, neither the smallest nor a mean; each gap has its own entropy"
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        yield f(information[order], entropies), (0.6 / 2 + 0.1 / 1 + 0.2 / 0.5) / 3, hint
    return "is 1 for a perfect code, 0 for a duplicated one, and the mean normalised gap between them"


@Exercise
def gaussian_total_correlation(f: Function) -> Claims:
    """f(covariance (..., d, d)) -> (...): KL(N(0, Σ) ‖ Π_i N(0, Σ_ii)), nats."""
    hint = "Independent latents have none, whatever their variances: divide the variances out, det Σ is not enough"
    yield f(doubles(0.2, 1, 8).diag()), 0.0, hint
    found = f(doubles([1.0, 0.8], [0.8, 1.0]))
    yield (found >= 0).all(), "A total correlation is a KL divergence and never negative: look at the sign"
    hint = "For two latents with correlation 0.8 it must be -½ log(1 - 0.8²): mind the factor ½ and the square"
    yield found, -0.5 * math.log(1 - 0.64), hint
    factor, zero = normal(4, 3, 3), torch.zeros(4, 3).double()
    covariance = factor @ factor.mT + 0.3 * torch.eye(3)
    product = MultivariateNormal(zero, torch.diag_embed(covariance.diagonal(dim1=1, dim2=2)))
    hint = "It is the KL to the product of marginals, one number a matrix, all correlations at once, not pair by pair"
    yield f(covariance), kl_divergence(MultivariateNormal(zero, covariance), product), hint
    return "is the KL divergence to the product of the marginals, whatever the units"


@Exercise
def slow_transition_kl(f: Function) -> Claims:
    """f(mean, scale, centre (B, d), rate) -> (B,): KL of a diagonal Gaussian to a product of Laplaces, nats."""
    (mean, centre), scale = normal(2, 5, 3), 0.2 + uniform(5, 3)
    found = f(mean, scale, centre, 3.0)
    yield found, (5,), "It is one value for each sample, summed over latents"
    hint = "A step up and the same step down must cost the same: δ erf(δ/…) is even, and so is the exponential"
    yield f(2 * centre - mean, scale, centre, 3.0), found, hint
    twice = f(*(torch.cat([part, part], 1) for part in (mean, scale, centre)), 3.0)
    yield twice, 2 * found, "Latents are independent: the same latents twice must cost twice as much, so sum over them"
    z = mean + scale * torch.linspace(-12, 12, 24_001).double()[:, None, None]  # quadrature over 12 σ
    log_q = Normal(mean, scale).log_prob(z)
    for rate, hint in (
        (1.0, "is the entropy ½ log(2πe σ²) taken off, is E|z - m| that of a folded normal?"),
        (6.0, "is λ in front of E|z - m|, and is log(λ/2) taken off?"),
    ):
        gap = log_q.exp() * (log_q - Laplace(centre, torch.full_like(centre, 1 / rate)).log_prob(z))
        expected = (gap.sum(0) * scale / 1000).sum(-1)
        yield f(mean, scale, centre, rate), expected, f"At λ = {rate:g} it differs from a numerical integral: {hint}"
    return "agrees with numerical integration, latent by latent"


@Exercise
def rotated_log_density(f: Function) -> Claims:
    """f(z_rotated, mean, scale (B, d), rotation (d, d)) -> (B,): log density of R z for z ~ N(mean, diag scale²)."""
    (mean, z), scale, rotation = normal(2, 6, 3), 0.3 + uniform(6, 3), torch.linalg.qr(normal(3, 3)).Q
    unmoved = Normal(mean, scale).log_prob(z).sum(-1)
    hint = "With R = I it is log N(z; μ, σ²), summed over latents; σ is a standard deviation, mind log σ and log 2π"
    yield f(z, mean, scale, torch.eye(3).double()), unmoved, hint
    hint = "q'(Rz) = q(z): turn z' back, z_rotated @ rotation for rows, before it meets the unrotated posterior"
    yield f(z @ rotation.T, mean, scale, rotation), unmoved, hint
    return "gives each rotated sample the density that it had before"
