"""The exercises of lesson 08: plausible wrong answers fail, each with its hint."""

import math
import re

import pytest

from poflow_lite.check import CheckFailed, lesson08


def gumbel(u):
    return -(-u.log()).log()


# --- exercise 1: Gumbel-Softmax -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda a, u, tau: ((a - gumbel(u)) / tau).softmax(1), "both minus signs", id="noise subtracted"),
        pytest.param(lambda a, u, tau: ((a - u.log()) / tau).softmax(1), "both minus signs", id="one log"),
        pytest.param(lambda a, u, tau: ((a - u.log().log()) / tau).softmax(1), "finite", id="inner minus forgotten"),
        pytest.param(lambda a, u, tau: ((a + u) / tau).softmax(1), "G = -log", id="uniform noise"),
        pytest.param(lambda a, u, tau: ((a + gumbel(u[:, :1])) / tau).softmax(1), "one G for each", id="one Gumbel"),
        pytest.param(lambda a, u, tau: (a / tau).softmax(1), "softmax\\(logits\\)_k", id="no noise"),
        pytest.param(lambda a, u, tau: ((a.exp() + gumbel(u)) / tau).softmax(1), "added to the logits", id="exp"),
        pytest.param(lambda a, u, tau: ((a + gumbel(u)) * tau).softmax(1), "divide by it", id="times temperature"),
        pytest.param(lambda a, u, tau: ((a + gumbel(u)) / tau).softmax(0), "axis 1", id="swapped axes"),
        pytest.param(lambda a, u, tau: (a + gumbel(u)) / tau, "sum to 1", id="no softmax"),
        pytest.param(lambda a, u, tau: (a + gumbel(u) / tau).softmax(1), "must", id="only the noise divided"),
        pytest.param(lambda a, u, tau: (a + gumbel(u)).softmax(1), "divide by it", id="no temperature"),
        pytest.param(
            lambda a, u, tau: ((a + gumbel(u)).softmax(1) / tau).softmax(1), "one softmax", id="softmax taken twice"
        ),
        pytest.param(
            lambda a, u, tau: ((a + gumbel(u)) / tau).softmax(1).mean(0), re.escape("(B, K)"), id="batch averaged"
        ),
    ],
)
def test_wrong_relaxed_samples_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson08.gumbel_softmax(wrong)


# --- exercise 2: yes or no ----------------------------------------------------------------------------------------


def logistic(u):
    return u.log() - (1 - u).log()


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda a, u, tau: ((a + gumbel(u)) / tau).sigmoid(), "single Gumbel", id="one Gumbel"),
        pytest.param(lambda a, u, tau: (a / tau).sigmoid(), "probability sigmoid", id="no noise"),
        pytest.param(lambda a, u, tau: ((-a + logistic(u)) / tau).sigmoid(), "added to the logit", id="logit negated"),
        pytest.param(lambda a, u, tau: (a + logistic(u)) / tau, "between 0 and 1", id="no sigmoid"),
        pytest.param(lambda a, u, tau: ((a + logistic(u)) * tau).sigmoid(), "divide both", id="times temperature"),
        pytest.param(lambda a, u, tau: (a + logistic(u)).sigmoid(), "divide both", id="no temperature"),
        pytest.param(lambda a, u, tau: (a + logistic(u) / tau).sigmoid(), "sigmoid\\(logit\\)", id="noise divided"),
        pytest.param(
            lambda a, u, tau: ((a + logistic(u)) > 0).to(a), "divide both by the temperature", id="hard decision"
        ),
    ],
)
def test_wrong_decisions_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson08.gumbel_sigmoid(wrong)


def test_logistic_noise_of_either_sign_passes():
    lesson08.gumbel_sigmoid(lambda a, u, tau: ((a - logistic(u)) / tau).sigmoid())


# --- exercise 3: the bound with k latent --------------------------------------------------------------------------


def kl(logits):
    log_q = logits.log_softmax(1)
    return (log_q.exp() * log_q).sum(1) + math.log(logits.shape[1])


def expected(log_p, logits):
    return (logits.softmax(1) * log_p).sum(1)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda p, a: expected(p, a) + kl(a), "subtracted", id="sign of the divergence"),
        pytest.param(lambda p, a: expected(p, a), "subtracted", id="divergence forgotten"),
        pytest.param(
            lambda p, a: expected(p, a) - kl(a) + math.log(3), re.escape("mind + log K"), id="log K forgotten"
        ),
        pytest.param(lambda p, a: (a.softmax(1) * p).mean(1) - kl(a), "average of log", id="mean for sum"),
        pytest.param(lambda p, a: (expected(p, a) - kl(a)).mean(), "expected shape", id="mean over the batch"),
        pytest.param(lambda p, a: (a.softmax(0) * p).sum(1) - kl(a), "axis 1", id="swapped axes"),
        pytest.param(lambda p, a: (a * p).sum(1) - kl(a), "through a softmax", id="logits as weights"),
        pytest.param(
            lambda p, a: (a.softmax(1) * (p - (3 * a.softmax(1)).log())).sum(1), "log_softmax", id="0 times infinity"
        ),
        pytest.param(
            lambda p, a: (a.softmax(1) * p.exp()).sum(1).log() - kl(a), "average of log", id="log of the average"
        ),
    ],
)
def test_wrong_bounds_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson08.index_bound(wrong)


# --- exercise 4: all names in use ---------------------------------------------------------------------------------


def used(a):
    """log q̄."""
    return a.log_softmax(1).logsumexp(0) - math.log(len(a))


def divergence(log_q):
    """KL(uniform ‖ q)."""
    return -math.log(len(log_q)) - log_q.mean()


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda a: -math.log(3) - a.log_softmax(1).mean(), "not the average of the diver", id="averages"),
        pytest.param(lambda a: divergence(a.mean(0).log_softmax(0)), "It must be", id="average of logits"),
        pytest.param(lambda a: -divergence(used(a)), "Raising the logits", id="sign"),
        pytest.param(lambda a: divergence(used(a)) + math.log(a.shape[1]), "-log K", id="log K forgotten"),
        pytest.param(lambda a: -math.log(a.shape[1]) - used(a).sum(), "log K", id="sum over names"),
        pytest.param(lambda a: divergence(a.log_softmax(0).logsumexp(1)), "over the batch first", id="swapped axes"),
        pytest.param(
            lambda a: (used(a).exp() * used(a)).sum() + math.log(a.shape[1]), "whose slope is 0", id="other direction"
        ),
        pytest.param(lambda a: divergence(used(a)).detach(), "gradients must pass", id="no gradient"),
        pytest.param(lambda a: divergence(used(a))[None], "one number", id="an axis too many"),
        pytest.param(lambda a: divergence(a.softmax(1).mean(0).log()), "log_softmax", id="underflow"),
    ],
)
def test_wrong_penalties_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson08.use_penalty(wrong)
