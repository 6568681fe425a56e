"""The exercises of lesson 11: plausible wrong answers fail, each with its hint."""

import math

import pytest
import torch

from poflow_lite.check import CheckFailed, lesson11

# --- exercise 1: a paired interval --------------------------------------------------------------------------------


def ends(centre, reach):
    return torch.stack([centre - reach, centre + reach])


def error_of(difference, **options):
    return difference.std(**options) / math.sqrt(len(difference))


def pooled(a, b):
    return ((a.var() + b.var()) / len(a)).sqrt()


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda a, b, c: ends((a - b).mean(), c * pooled(a, b)), "differences first", id="unpaired"),
        pytest.param(lambda a, b, c: ends((b - a).mean(), c * error_of(b - a)), "in this order", id="sign"),
        pytest.param(lambda a, b, c: ends((a / b - 1).mean(), c * error_of(a / b)), "not relative", id="relative"),
        pytest.param(lambda a, b, c: ends((a - b).mean(), c * (a - b).std()), "divided by √n", id="no √n"),
        pytest.param(lambda a, b, c: ends((a - b).mean(), c * (a - b).std() / len(a)), "√n once", id="n for √n"),
        pytest.param(
            lambda a, b, c: ends((a - b).mean(), c * error_of(a - b, correction=0)), "n - 1", id="biased spread"
        ),
        pytest.param(
            lambda a, b, c: ends((a - b).mean(), (1.96 if c > 2 else c) * error_of(a - b)), "neither 1.96", id="normal"
        ),
        pytest.param(lambda a, b, c: ends((a - b).mean(), -c * error_of(a - b)), "comes first", id="ends swapped"),
        pytest.param(lambda a, b, c: ends((a - b).median(), c * error_of(a - b)), "mean of the diff", id="median"),
        pytest.param(lambda a, b, c: (a - b).mean(), "lower and upper end", id="no interval"),
    ],
)
def test_wrong_interval_fails(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson11.paired_interval(wrong)


# --- exercise 2: verdicts -----------------------------------------------------------------------------------------


def judge(low, high, equal):
    found = torch.full_like(low, 2, dtype=torch.long)
    found[equal] = 0
    found[low > 0] = 1
    found[high < 0] = -1
    return found


def equal_first(low, high, margin):
    found = judge(low, high, low < low - 1)
    found[(-margin < low) & (high < margin)] = 0
    return found


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda a, b, m: judge(a, b, (a <= 0) & (b >= 0)), "Not significant", id="holds 0"),
        pytest.param(lambda a, b, m: judge(a, b, (-m < a) | (b < m)), "both ends", id="or for and"),
        pytest.param(lambda a, b, m: judge(a, b, (a + b).abs() < 2 * m), "nor the middle", id="middle"),
        pytest.param(lambda a, b, m: -judge(a, b, (-m < a) & (b < m)), "above 0", id="sign"),
        pytest.param(lambda a, b, m: judge(a, b, (a > -0.05) & (b < 0.05)), "an argument", id="fixed margin"),
        pytest.param(equal_first, "small difference", id="equal first"),
        pytest.param(lambda a, b, m: judge(a, b, a < a - 1), "equal, 0", id="never equal"),
        pytest.param(lambda a, b, m: judge(a, b, (-m < a) & (b < m)).float().mean(), "each interval", id="mean"),
    ],
)
def test_wrong_verdicts_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson11.verdicts(wrong)


# --- exercise 3: an exponent --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda c, p: (p[:, None] * c).sum(0), "add up to 1", id="no shares"),
        pytest.param(lambda c, p: p.mean().expand(c.shape[1]), "exponent rises", id="plain mean"),
        pytest.param(lambda c, p: p.max().expand(c.shape[1]), "mean of their powers", id="largest power"),
        pytest.param(lambda c, p: p[c.argmax(0)], "mean of their powers", id="power of the dearest term"),
        pytest.param(
            lambda c, p: (p @ c).sum().expand(c.shape[1]) / c.sum(), "exponent rises", id="shares over all sizes"
        ),
        pytest.param(lambda c, p: p @ (c / c.sum(1, keepdim=True)), "add up to 1", id="shares along sizes"),
        pytest.param(lambda c, p: p @ c.softmax(0), "small|exponent|share", id="softmax"),
        pytest.param(lambda c, p: p @ c / c[p > 0].sum(0), "overhead", id="overhead left out"),
        pytest.param(lambda c, p: (p @ c / c.sum(0)).log(), "own power", id="logarithm"),
        pytest.param(lambda c, p: p[:, None] * c / c.sum(0), "at each size", id="not added up"),
    ],
)
def test_wrong_exponent_fails(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson11.local_exponent(wrong)


# --- exercise 4: a small determinant ------------------------------------------------------------------------------


def eye(n):
    return torch.eye(n, dtype=torch.float64)


def large(weight, bend):
    return eye(weight.shape[1]) + (weight.T * bend[:, None]) @ weight


def small(weight, bend):
    return eye(len(weight)) + bend[:, :, None] * (weight @ weight.T)


def logabs(matrix):
    return torch.linalg.slogdet(matrix).logabsdet


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda w, b: logabs(large(w, b)), "as many as building", id="d × d"),
        pytest.param(lambda w, b: torch.linalg.det(small(w, b)).abs(), "the logarithm taken", id="no logarithm"),
        pytest.param(lambda w, b: torch.logdet(small(w, b)), "absolute value", id="no absolute value"),
        pytest.param(lambda w, b: logabs(small(w, b) - eye(len(w))), "identity added", id="no identity"),
        pytest.param(lambda w, b: (b * w.square().sum(1)).sum(1), "1 \\+ b", id="trace"),
        pytest.param(
            lambda w, b: (1 + b * w.square().sum(1)).abs().log().sum(1), "is not W Wᵀ", id="diagonal of the Gram matrix"
        ),
        pytest.param(lambda w, b: logabs(small(w, b.square())), "not squared", id="bend squared"),
        pytest.param(lambda w, b: logabs(small(w, b.mean(0, keepdim=True).expand_as(b))), "enters once", id="mean"),
        pytest.param(lambda w, b: -logabs(small(w, b)), "enters once", id="sign"),
        pytest.param(lambda w, b: logabs(small(w, b)).sum(), "each point", id="sum over points"),
    ],
)
def test_wrong_determinant_fails(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson11.small_determinant(wrong)


def test_the_lemma_is_the_determinant_of_the_potential_in_the_package():
    """With K = 1 and no quadratic part the Hessian of a potential is WᵀDW."""
    from lesson_helpers import solution

    from poflow_lite.flows import log_det_identity_plus
    from poflow_lite.potentials import Potential

    potential = Potential(6, 1, width=4).double()
    z, k = torch.randn(5, 6, dtype=torch.float64), torch.zeros(5, dtype=torch.long)
    h = potential._hidden(z, potential._arguments(z, 0.0, k)[2])[:, 0]
    bend = potential.outer[0] * (1 - torch.tanh(h).square())
    found = solution("11-ablations-and-cost", "small_determinant")(potential.inner[0], bend)
    torch.testing.assert_close(found, log_det_identity_plus(potential.hessian(z, 0.0, k)))
