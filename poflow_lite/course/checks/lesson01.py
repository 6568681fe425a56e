"""Checks of lesson 01, variational autoencoders: a KL, the loss, the continuous Bernoulli, importance weights."""

import math

import torch
from torch import Tensor
from torch.distributions import ContinuousBernoulli, MultivariateNormal, Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal, uniform


def _differs(found: Tensor, wrong: Tensor, tolerance: float = 1e-3) -> bool:
    return not torch.allclose(found.to(wrong), wrong, rtol=tolerance, atol=tolerance)


@Exercise
def gaussian_kl(f: Function) -> Claims:
    """f(mean_q, scale_q, mean_p, scale_p, all (B, d)) -> (B,): KL(N(μ_q, diag σ_q²) ‖ N(μ_p, diag σ_p²)), nats."""
    (mean_q, mean_p), (scale_q, scale_p) = normal(2, 5, 3), 0.2 + 2 * uniform(2, 5, 3)
    q, p = Normal(mean_q, scale_q), Normal(mean_p, scale_p)
    found = f(mean_q, scale_q, mean_p, scale_p)
    yield found, (5,), "One number for each sample: sum over the last axis, the latents, and not over the batch"
    hint = "This is KL(p ‖ q), q and p are swapped: the scales of p, the reference, divide"
    yield _differs(found, kl_divergence(p, q).sum(-1)), hint
    zero, one = torch.zeros(1, 4).double(), torch.ones(1, 4).double()
    narrow = f(zero, 0.5 * one, zero, one)
    hint = "A Kullback-Leibler divergence is never negative: look at the signs"
    yield (found >= 0).all() and (narrow >= 0).all(), hint
    hint = "With all scales 1, a shift by 2 in each of 4 dimensions costs ½ · 2² nats a dimension, summed: 8"
    yield f(zero + 2, one, zero, one), [8.0], hint
    hint = "With scales 2, a shift by 2 costs ½ nat a dimension: 2. Is it divided by σ_p before it is squared?"
    yield f(zero + 2, 2 * one, zero, 2 * one), [2.0], hint
    hint = "From σ_q = ½ to σ_p = 1 it is log 2 - 3/8 nats a dimension. Scales are standard deviations, not variances"
    yield narrow, [4 * (math.log(2) - 0.375)], hint
    yield found, kl_divergence(q, p).sum(-1), "It differs from torch.distributions.kl_divergence(q, p)"
    return "is never negative, 0 only for equal distributions, summed over latents, and the right way round"


@Exercise
def negative_elbo(f: Function) -> Claims:
    """f(logits, x (B, C, H, W), mean, log_variance (B, d), beta=1) -> (B,): -log p(x | z) + β KL, Bernoulli pixels."""
    logits, x, (mean, log_variance) = normal(4, 3, 6, 6), uniform(4, 3, 6, 6), normal(2, 4, 5, seed=1)
    found, free = f(logits, x, mean, log_variance), f(logits, x, 0 * mean, 0 * mean)
    hint = "One loss per sample: sum over channels, pixels and latents; the mean over the batch comes later, once"
    yield found, (4,), hint
    expected = binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)
    hint = "The reconstruction term is a mean over pixels: they are independent given z, so log-probabilities add"
    yield _differs(free, expected / x[0].numel()), hint
    yield _differs(free, -expected), "The loss is minus the log-likelihood, yours has the other sign"
    yield free, expected, "Where q is the prior (mean 0, log-variance 0) the loss must be -log p(x | z) alone"
    price, prior = found - free, Normal(0.0, 1.0)
    yield (price > 0).all(), "The KL term must raise the loss: it is a divergence, never negative, and is added"
    hint = "log_variance is taken for a log standard deviation: σ² = exp(log_variance), σ = exp(log_variance / 2)"
    yield _differs(price, kl_divergence(Normal(mean, log_variance.exp()), prior).sum(-1)), hint
    kl = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), prior).sum(-1)
    yield price, kl, "The KL term differs from KL(N(μ, σ²) ‖ N(0, 1)) summed over latents"
    yield f(logits, x, mean, log_variance, beta=4.0) - free, 4 * kl, "beta must multiply the KL term, and only that"
    sure, empty = torch.full((1, 3, 2, 2), 200.0), torch.zeros(1, 2)
    hint = "Logits of 200 on empty pixels cost 200 nats each, not infinity: work with the logits, without a sigmoid"
    yield f(sure, 0 * sure, empty, empty), [2400.0], hint
    return "sums over pixels and latents, reads the log-variance correctly, has β on the KL alone, and is stable"


@Exercise
def continuous_bernoulli(f: Function) -> Claims:
    """f(logits, x) -> same shape: log density of the continuous Bernoulli on [0, 1], smooth at ℓ = 0, nats."""
    x = torch.linspace(0, 1, 2001).double()
    for logit in (-6.0, 0.3):
        logits = torch.full_like(x, logit)
        found = f(logits, x)
        yield found, (2001,), "The density is elementwise"
        area = torch.trapezoid(found.exp(), x)
        hint = f"At logit {logit} exp of it integrates to {area:.4f}, not 1. Is log C added, C = ℓ / tanh(ℓ / 2)?"
        yield abs(area - 1) < 1e-3, hint
        hint = f"At logit {logit} it integrates to 1 but is not the continuous Bernoulli: are x and 1 - x in place?"
        yield found, ContinuousBernoulli(logits=logits).log_prob(x), hint
    near = doubles(-0.02, -1e-3, -1e-6, 0, 1e-6, 1e-3, 0.02)
    found = f(near, torch.full_like(near, 0.25))
    yield found.isfinite().all(), "It is not finite near ℓ = 0, where ℓ / tanh(ℓ / 2) is 0 / 0: use a series there"
    series = math.log(2) + near.square() / 12 + 0.25 * near - softplus(near)
    yield found, series, "It is inaccurate near ℓ = 0, where log C ≈ log 2 + ℓ² / 12", 1e-6
    zero = doubles(0, 0, 0).requires_grad_()
    found = f(zero, torch.full_like(zero, 0.25))
    yield found.requires_grad, "The result cannot be differentiated by the logits: no detach(), item() or NumPy"
    slope = torch.autograd.grad(found.sum(), zero)[0]
    hint = "Its gradient at ℓ = 0 is not finite: torch.where differentiates both branches, give the other a harmless ℓ"
    yield slope.isfinite().all(), hint
    yield slope, [-0.25] * 3, "The gradient at ℓ = 0 and x = ¼ is x - ½ = -¼"
    return "integrates to one at every λ, with finite value and gradient at λ = ½"


@Exercise
def marginal_log_likelihood(f: Function) -> Claims:
    """f(log_conditional, mean (B, d), scale (B, d), noise (S, B, d)) -> (B,): importance-weighted log p(x), nats.

    The truth is known: x = W z + noise is Gaussian. ``log_conditional`` takes z (S, B, d) to log p(x | z) (S, B).
    """
    loadings, x, noise = normal(5, 2), 2 * normal(3, 5, seed=1), normal(4000, 3, 2, seed=2)
    exact = MultivariateNormal(torch.zeros(5).double(), loadings @ loadings.T + torch.eye(5)).log_prob(x)
    precision = torch.eye(2) + loadings.T @ loadings
    mean, scale = torch.linalg.solve(precision, loadings.T @ x.T).T, (1.3 * precision.diag().rsqrt()).expand(3, 2)

    def log_conditional(z: Tensor) -> Tensor:
        if z.ndim != 3 or z.shape[1:] != (3, 2):
            raise ValueError(f"log_conditional takes latents (S, B, d) = (S, 3, 2), got {tuple(z.shape)}")
        return Normal(z @ loadings.T, 1.0).log_prob(x).sum(-1)

    z = mean + scale * noise
    log_w = log_conditional(z) + (Normal(0.0, 1.0).log_prob(z) - Normal(mean, scale).log_prob(z)).sum(-1)
    found = f(log_conditional, mean, scale, noise)
    yield found, (3,), "One value for each image: average over the samples, axis 0, and leave the images alone"
    hint = "This is the mean of the log-weights, the ELBO; average the weights and take the logarithm afterwards"
    yield _differs(found, log_w.mean(0), 1e-6), hint
    hint = "This is the logarithm of the sum of the weights: subtract log S to make it that of their mean"
    yield _differs(found, log_w.logsumexp(0), 1e-6), hint
    hint = "It is not the exact log p(x) of a linear-Gaussian model: log w = log p(x | z) + log p(z) - log q(z)"
    yield found, exact, hint, 0.02
    hint = "With weights of e^-5000 it must stay finite: use torch.logsumexp, do not exponentiate the weights"
    yield f(lambda z: log_conditional(z) - 5000.0, mean, scale, noise), found - 5000.0, hint
    yield f(log_conditional, mean, scale, noise[:1]), log_w[0], "With one sample it is that sample's log-weight"
    return "is the exact log p(x) of a linear-Gaussian model, log w for one sample, and stable"
