"""Checks of lesson 01, variational autoencoders: a KL, the continuous Bernoulli, the numbers of an experiment."""

import math

import torch
from torch import Tensor
from torch.distributions import ContinuousBernoulli, Normal, kl_divergence
from torch.nn.functional import softplus

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
def annealing(f: Function) -> Claims:
    """f() -> (2, 2), measured: rows β = 1 throughout and β annealed, columns active latents and test ELBO, nats."""
    found = f()
    yield found, (2, 2), "Rows: constant β, annealed β. Columns: active latents, test ELBO"
    active, elbo = found.double().T
    hint = "Column 0 counts the latents above 0.1 nats: whole numbers from 1 to 32"
    yield (active == active.round()).all() and (active >= 1).all() and (active <= 32).all(), hint
    yield (elbo < 0).all(), "Column 1 is the ELBO, not the loss: cross-entropy minus a divergence is negative"
    hint = "After 400 steps the test ELBO lies between -150 and -95 nats: summed over pixels, minus the KL, with β = 1?"
    yield ((elbo > -150) & (elbo < -95)).all(), hint
    hint = "The two bounds differ by more than 10 nats: same seed, 400 steps each, β = 1 from step 200 on?"
    yield (elbo[1] - elbo[0]).abs() < 10, hint
    hint = "Annealing should leave at least as many latents active: is constant β the first row, β = 0 where it starts?"
    yield active[1] >= active[0], hint
    return (
        "has the counts and bounds of two trainings: a cheap start keeps latents alive, the bounds are a few nats apart"
    )
