"""Checks of lesson 02, disentanglement: total correlation, the agreement of two runs, an experiment with films."""

import math

import torch
from torch.distributions import MultivariateNormal, kl_divergence

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal


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
def udr(f: Function) -> Claims:
    """f(a (N, d_a), b (N, d_b)) -> (): how well the latents of two codes agree up to order, sign and scale."""
    code = torch.linalg.qr(normal(200, 3) - normal(200, 3).mean(0)).Q  # uncorrelated columns of mean 0
    found = f(code, code)
    yield found, (), "It is one number for a pair of codes"
    yield found, 1.0, "A code agrees with itself: 1. Is the sum divided by the number of latents of both codes?"
    hint = "A flipped sign is harmless: take the absolute value of each correlation"
    yield f(code, code * doubles(1, -1, -1)), 1.0, hint
    hint = "Scale and mean are harmless: it takes correlations, not covariances"
    yield f(code, 3 + code * doubles(5, 0.1, 20)), 1.0, hint
    yield f(code, code[:, [2, 0, 1]]), 1.0, "The order of latents is harmless: match each with its best partner"
    half = math.sqrt(0.5)
    turned = code[:, :2] @ doubles([half, -half], [half, half])
    hint = "Two latents turned by 45° give √½ / 2: the square of the best correlation over the sum of all"
    yield f(code[:, :2], turned), half / 2, hint
    more = torch.cat([code, code[:, :1] + code[:, 1:2]], 1)
    R = torch.tensor([[1, 0, 0, half], [0, 1, 0, half], [0, 0, 1, 0]]).double()
    expected = 3 + 0.5 / (2 * half) + 2 / (1 + half) + 1
    hint = "With 3 and 4 latents both sums count, one over each code, together over 3 + 4: which axis is which?"
    yield f(code, more), expected / sum(R.shape), hint
    yield f(more, code), expected / sum(R.shape), "It must not matter which code comes first"
    return "is 1 for codes that differ in order, sign and scale, and less for turned ones"


@Exercise
def one_or_both(f: Function) -> Claims:
    """f() -> (2, 8): MIGs of eight runs for Laplace steps of one factor at a time, and of both at once."""
    found = f()
    yield found, (2, 8), "Rows: one factor at a time, both at once. Columns: the eight runs"
    yield ((found >= 0) & (found <= 1)).all(), "A MIG lies between 0 and 1: return .migs, not the angles"
    yield (found.std(1) > 1e-4).all(), "Eight equal numbers: give the MIG of every run, not their mean"
    hint = "One factor at a time should give axes in nearly every run (mean MIG > 0.7): is the first row section 6's?"
    yield found[0].mean() > 0.7, hint
    hint = "Are the rows swapped, or were both trained on the same steps? One at a time found axes more surely here"
    yield found[0].mean() > found[1].mean() + 0.05, hint
    yield found[1].mean() > 0.25, "A mean MIG below 0.25 for both at once: are the steps of scale 0.28, and trained?"
    return "has the MIGs of all runs: sparse steps pull towards axes more strongly than merely heavy-tailed ones"
