"""The exercises of lesson 01: plausible wrong answers fail, each with its hint."""

import math
import re

import pytest
import torch
from lesson_helpers import solution
from torch.nn import functional as F

from poflow_lite.check import CheckFailed, lesson01


def fails(name, function, hint):
    with pytest.raises(CheckFailed, match=re.escape(hint)):
        getattr(lesson01, name)(function)


# --- exercise 1: KL between two Gaussians -------------------------------------------------------------------------


def elementwise_kl(mean_q, scale_q, mean_p, scale_p):
    ratio = (scale_q / scale_p).square()
    return 0.5 * (ratio + ((mean_q - mean_p) / scale_p).square() - 1 - ratio.log())


def unsquared_reference(mean_q, scale_q, mean_p, scale_p):
    ratio = (scale_q / scale_p).square()
    return 0.5 * (ratio + (mean_q - mean_p).square() / scale_p - 1 - ratio.log()).sum(-1)


def scales_as_variances(mean_q, scale_q, mean_p, scale_p):
    return elementwise_kl(mean_q, scale_q.sqrt(), mean_p, scale_p.sqrt()).sum(-1)


def no_half(mean_q, scale_q, mean_p, scale_p):
    return 2 * elementwise_kl(mean_q, scale_q, mean_p, scale_p).sum(-1)


def wrong_sign_of_log(mean_q, scale_q, mean_p, scale_p):
    ratio = (scale_q / scale_p).square()
    return 0.5 * (ratio + ((mean_q - mean_p) / scale_p).square() - 1 + ratio.log()).sum(-1)


def unsquared_shift(mean_q, scale_q, mean_p, scale_p):
    ratio = (scale_q / scale_p).square()
    return 0.5 * (ratio + ((mean_q - mean_p) / scale_p).abs() - 1 - ratio.log()).sum(-1)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (lambda *a: elementwise_kl(*a).mean(-1), "a shift by 2 in each of 4 dimensions"),
        (lambda *a: elementwise_kl(*a).sum(0), "sum over the last axis"),
        (lambda *a: elementwise_kl(*a).sum(-1).mean(), "sum over the last axis"),
        (elementwise_kl, "sum over the last axis"),
        (lambda *a: -elementwise_kl(*a).sum(-1), "never negative"),
        (wrong_sign_of_log, "never negative"),
        (lambda mq, sq, mp, sp: elementwise_kl(mp, sp, mq, sq).sum(-1), "Scales are standard deviations"),
        (scales_as_variances, "divided by σ_p before it is squared"),
        (unsquared_reference, "divided by σ_p before it is squared"),
        (unsquared_shift, "a shift by 2 in each of 4 dimensions"),
        (no_half, "a shift by 2 in each of 4 dimensions"),
    ],
)
def test_wrong_gaussian_kl_fails(wrong, hint):
    fails("gaussian_kl", wrong, hint)


# --- exercise 2: the loss of a VAE --------------------------------------------------------------------------------


def cross_entropy(logits, x):
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1)


def kl(mean, log_variance):
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def elbo_with(reconstruction=lambda c: c.sum(-1), price=lambda m, v, beta: beta * kl(m, v).sum(-1)):
    """The reference loss with one part replaced."""

    def negative_elbo(logits, x, mean, log_variance, beta=1.0):
        return reconstruction(cross_entropy(logits, x)) + price(mean, log_variance, beta)

    return negative_elbo


def through_a_sigmoid(logits, x, mean, log_variance, beta=1.0):
    rate = logits.sigmoid()
    return -(x * rate.log() + (1 - x) * (1 - rate).log()).flatten(1).sum(-1) + beta * kl(mean, log_variance).sum(-1)


def beta_on_everything(logits, x, mean, log_variance, beta=1.0):
    return beta * (cross_entropy(logits, x).sum(-1) + kl(mean, log_variance).sum(-1))


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (elbo_with(reconstruction=lambda c: c.mean(-1)), "mean over pixels"),
        (elbo_with(reconstruction=lambda c: -c.sum(-1)), "the other sign"),
        (elbo_with(reconstruction=lambda c: c.sum()), "must be -log p(x | z) alone"),
        (elbo_with(price=lambda m, v, beta: -beta * kl(m, v).sum(-1)), "must raise the loss"),
        (elbo_with(price=lambda m, v, beta: beta * kl(m, 2 * v).sum(-1)), "taken for a log standard deviation"),
        (elbo_with(price=lambda m, v, beta: beta * kl(m, v).mean(-1)), "differs from KL"),
        (elbo_with(price=lambda m, v, beta: kl(m, v).sum(-1)), "beta must multiply the KL"),
        (beta_on_everything, "beta must multiply the KL"),
        (lambda *a, **o: elbo_with()(*a, **o).mean(), "one loss per sample"),
        (through_a_sigmoid, "work with the logits"),
    ],
)
def test_wrong_negative_elbo_fails(wrong, hint):
    fails("negative_elbo", wrong, hint)


# --- exercise 3: the continuous Bernoulli -------------------------------------------------------------------------


def plain_bernoulli(logits, x):
    return x * logits - F.softplus(logits)


def log_c(logits):
    return (logits / torch.tanh(logits / 2)).log()


def series_without_safe_branch(logits, x):
    series = math.log(2) + logits.square() / 12
    return torch.where(logits.abs() < 0.01, series, log_c(logits)) + plain_bernoulli(logits, x)


def constant_at_half(logits, x):
    small = logits.abs() < 0.1
    safe = torch.where(small, torch.ones_like(logits), logits)
    return torch.where(small, torch.full_like(logits, math.log(2)), log_c(safe)) + plain_bernoulli(logits, x)


def cut_from_the_logits(logits, x):
    return solution("01-variational-autoencoders", "continuous_bernoulli")(logits.detach(), x)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (plain_bernoulli, "Is log C added"),
        (lambda logits, x: plain_bernoulli(logits, x) - log_c(logits), "Is log C added"),
        (lambda logits, x: plain_bernoulli(logits, x) + (logits / torch.tanh(logits)).log(), "Is log C added"),
        (lambda logits, x: plain_bernoulli(logits, 1 - x) + log_c(logits), "is not the continuous Bernoulli"),
        (lambda logits, x: (plain_bernoulli(logits, x) + log_c(logits)).exp(), "Is log C added"),
        (lambda logits, x: (plain_bernoulli(logits, x) + log_c(logits)).sum(-1), "elementwise"),
        (lambda logits, x: plain_bernoulli(logits, x) + log_c(logits), "not finite near ℓ = 0"),
        (constant_at_half, "inaccurate near ℓ = 0"),
        (series_without_safe_branch, "differentiates both branches"),
        (cut_from_the_logits, "cannot be differentiated"),
    ],
)
def test_wrong_continuous_bernoulli_fails(wrong, hint):
    fails("continuous_bernoulli", wrong, hint)


# --- exercise 4: the importance-weighted estimate -----------------------------------------------------------------


def weights(log_conditional, mean, scale, noise):
    z = mean + scale * noise
    return log_conditional(z), (0.5 * (noise.square() - z.square()) + scale.log()).sum(-1)


def mean_of_logs(*arguments):
    likelihood, ratio = weights(*arguments)
    return (likelihood + ratio).mean(0)


def estimate_with(combine, reduce=lambda w: torch.logsumexp(w, 0) - math.log(len(w))):
    return lambda *arguments: reduce(combine(*weights(*arguments)))


def scale_as_variance(log_conditional, mean, scale, noise):
    z = mean + scale.sqrt() * noise
    ratio = (0.5 * (noise.square() - z.square()) + scale.log()).sum(-1)
    return torch.logsumexp(log_conditional(z) + ratio, 0) - math.log(len(noise))


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (mean_of_logs, "the ELBO"),
        (estimate_with(torch.add, lambda w: torch.logsumexp(w, 0)), "subtract log S"),
        (estimate_with(torch.add, lambda w: torch.logsumexp(w, 1) - math.log(w.shape[1])), "average over the samples"),
        (estimate_with(torch.sub), "not the exact log p(x)"),
        (estimate_with(lambda likelihood, ratio: likelihood), "not the exact log p(x)"),
        (estimate_with(torch.add, lambda w: w.exp().mean(0).log()), "do not exponentiate the weights"),
        (scale_as_variance, "not the exact log p(x)"),
        (lambda f, m, s, noise: estimate_with(torch.add)(f, m, s, noise.transpose(0, 1)), "stopped with"),
    ],
)
def test_wrong_marginal_log_likelihood_fails(wrong, hint):
    fails("marginal_log_likelihood", wrong, hint)
