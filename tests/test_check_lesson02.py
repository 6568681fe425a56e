"""The exercises of lesson 02: plausible wrong answers fail, each with its hint."""

import math
import re

import pytest
import torch

from poflow_lite.check import CheckFailed, lesson02

# --- exercise 1: the mutual information gap -----------------------------------------------------------------------


def gap(information, dim=0):
    first, second = information.topk(2, dim).values.unbind(dim)
    return first - second


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda i, h: gap(i).mean(), "its own entropy", id="not normalised"),
        pytest.param(lambda i, h: (gap(i) / h).sum(), "not the sum", id="sum for mean"),
        pytest.param(lambda i, h: gap(i) / h, "expected shape", id="one for each factor"),
        pytest.param(lambda i, h: gap(i).sum() / h.sum(), "neither the smallest", id="ratio of sums"),
        pytest.param(lambda i, h: (gap(i) / h.mean()).mean(), "neither the smallest", id="one entropy for all"),
        pytest.param(lambda i, h: (i.max(0).values / h).mean(), "second best", id="no gap"),
        pytest.param(lambda i, h: (gap(i[:3], 1) / h).mean(), "latents are the rows", id="axes swapped"),
        pytest.param(
            lambda i, h: ((i.max(0).values - i.min(0).values) / h).mean(), "second best", id="largest minus smallest"
        ),
        pytest.param(lambda i, h: -(gap(i) / h).mean(), "must score 1", id="sign"),
    ],
)
def test_wrong_gaps_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson02.mig(wrong)


# --- exercise 2: the total correlation of a Gaussian --------------------------------------------------------------


def variances(c):
    return torch.diagonal(c, dim1=-2, dim2=-1)


def right(c):
    return 0.5 * (variances(c).log().sum(-1) - torch.logdet(c))


def pair_by_pair(c):
    root = variances(c).sqrt()
    squared = (c / root[..., None] / root[..., None, :]).square()
    return -0.5 * torch.log1p(-squared.tril(-1)).sum((-2, -1))


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda c: -0.5 * torch.logdet(c), "divide the variances out", id="covariance, not correlation"),
        pytest.param(lambda c: -right(c), "sign", id="sign"),
        pytest.param(lambda c: 2 * right(c), "factor ½", id="no half"),
        pytest.param(
            lambda c: 0.5 * (variances(c).sqrt().log().sum(-1) - torch.logdet(c)),
            "divide the variances out",
            id="standard deviations",
        ),
        pytest.param(lambda c: right(c).sum(), "expected shape", id="batch summed"),
        pytest.param(lambda c: right(c) / c.shape[-1], "factor ½", id="mean over latents"),
        pytest.param(pair_by_pair, "pair by pair", id="pairwise"),
    ],
)
def test_wrong_total_correlations_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=re.escape(hint)):
        lesson02.gaussian_total_correlation(wrong)


# --- exercise 3: the transition -----------------------------------------------------------------------------------


def parts(mean, scale, centre):
    """E|z - m| and the entropy, latent by latent."""
    delta = mean - centre
    spread = math.sqrt(2 / math.pi) * scale * torch.exp(-0.5 * (delta / scale).square())
    distance = delta * torch.erf(delta / (math.sqrt(2) * scale)) + spread
    return distance, 0.5 * math.log(2 * math.pi * math.e) + scale.log()


def transition(m, s, c, rate):
    distance, entropy = parts(m, s, c)
    return rate * distance - math.log(rate / 2) - entropy


def no_entropy(m, s, c, rate):
    return (rate * parts(m, s, c)[0] - math.log(rate / 2)).sum(-1)


def entropy_added(m, s, c, rate):
    distance, entropy = parts(m, s, c)
    return (rate * distance - math.log(rate / 2) + entropy).sum(-1)


def no_normaliser(m, s, c, rate):
    distance, entropy = parts(m, s, c)
    return (rate * distance + math.log(2) - entropy).sum(-1)


def scale_for_rate(m, s, c, rate):
    distance, entropy = parts(m, s, c)
    return (distance / rate + math.log(2 * rate) - entropy).sum(-1)


def at_the_mean(m, s, c, rate):
    return (rate * (m - c).abs() - math.log(rate / 2) - parts(m, s, c)[1]).sum(-1)


def one_sided(m, s, c, rate):
    return (rate * (m - c) - math.log(rate / 2) - parts(m, s, c)[1]).sum(-1)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda *a: transition(*a).mean(-1), "sum over them", id="mean over latents"),
        pytest.param(lambda *a: transition(*a).sum(-1).mean(), "one value for each sample", id="batch averaged"),
        pytest.param(transition, "summed over latents", id="not summed"),
        (no_entropy, "is the entropy"),
        (entropy_added, "is the entropy"),
        (no_normaliser, "log(λ/2)"),
        (scale_for_rate, "λ in front"),
        (at_the_mean, "folded normal"),
        (one_sided, "same step down"),
    ],
)
def test_wrong_transitions_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=re.escape(hint)):
        lesson02.slow_transition_kl(wrong)


# --- exercise 4: the rotated posterior ----------------------------------------------------------------------------


def log_normal(z, mean, scale):
    return torch.distributions.Normal(mean, scale).log_prob(z)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda z, m, s, R: log_normal(z @ R.T, m, s).sum(-1), "turn z' back", id="wrong way round"),
        pytest.param(lambda z, m, s, R: log_normal(z, m @ R.T, s).sum(-1), "turn z' back", id="diagonal kept"),
        pytest.param(lambda z, m, s, R: log_normal(z, m, s).sum(-1), "turn z' back", id="not rotated"),
        pytest.param(
            lambda z, m, s, R: log_normal(z @ R, m @ R.T, s).sum(-1), "unrotated posterior", id="mean rotated as well"
        ),
        pytest.param(lambda z, m, s, R: log_normal(z @ R, m, s).mean(-1), "summed over latents", id="mean"),
        pytest.param(lambda z, m, s, R: log_normal(z @ R, m, s), "expected shape", id="not summed"),
        pytest.param(lambda z, m, s, R: log_normal(z @ R, m, s.sqrt()).sum(-1), "standard deviation", id="variance"),
        pytest.param(
            lambda z, m, s, R: -0.5 * ((z @ R - m) / s).square().sum(-1), "log σ", id="normalisation forgotten"
        ),
    ],
)
def test_wrong_rotated_densities_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=re.escape(hint)):
        lesson02.rotated_log_density(wrong)
