"""The exercises of lesson 05: plausible wrong answers fail, each with its hint."""

import pytest
import torch

from poflow_lite.check import CheckFailed, lesson05

# --- exercise 1: the monotone map ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda x, y: y, "argsort of the argsort", id="nothing sorted"),
        pytest.param(lambda x, y: y.sort().values, "in the order of `source`", id="in sorted order"),
        pytest.param(lambda x, y: y.sort().values[x.argsort()], "inverse permutation", id="one argsort"),
        pytest.param(lambda x, y: y[x.argsort().argsort()], "sorted images", id="targets not sorted"),
        pytest.param(
            lambda x, y: y.sort(descending=True).values[x.argsort().argsort()], "most expensive", id="reversed"
        ),
        pytest.param(lambda x, y: x + y.mean() - x.mean(), "exactly one source", id="shift of the mean"),
        pytest.param(lambda x, y: y[(x[:, None] - y).abs().argmin(1)], "exactly one source", id="nearest target"),
        pytest.param(lambda x, y: y.sort().values[:, None], "one image for each", id="a column"),
    ],
)
def test_wrong_maps_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson05.monotone_map(wrong)


# --- exercise 2: the action of a path -----------------------------------------------------------------------------


def steps(z):
    return z.shape[1] - 1


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda z: z.diff(dim=1).square().sum((1, 2)), "factor T", id="factor T forgotten"),
        pytest.param(lambda z: z.diff(dim=1).square().sum((1, 2)) / steps(z), "factor T", id="divided by T"),
        pytest.param(
            lambda z: steps(z) * z.diff(dim=1).square().mean((1, 2)), "not average", id="mean over coordinates"
        ),
        pytest.param(lambda z: steps(z) * z.diff(dim=1).square().sum((1, 2)) / 2, "factor ½", id="kinetic ½"),
        pytest.param(lambda z: z.diff(dim=1).norm(dim=-1).sum(1), "square", id="length of the path"),
        pytest.param(lambda z: (z[:, -1] - z[:, 0]).square().sum(-1), "all steps", id="ends only"),
        pytest.param(
            lambda z: (steps(z) * z.diff(dim=1).square().sum((1, 2))).mean(), "expected shape", id="mean over particles"
        ),
        pytest.param(lambda z: steps(z) * z.diff(dim=0).square().sum((1, 2)), "expected shape", id="swapped axes"),
        pytest.param(lambda z: z.diff(dim=1).norm(dim=-1).sum(1).square(), "add up all steps", id="squared length"),
    ],
)
def test_wrong_actions_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson05.benamou_brenier(wrong)


# --- exercise 3: the optimal map of Gaussians ---------------------------------------------------------------------


def power(matrix, exponent):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values**exponent @ vectors.mT


def right(first, second):
    half, inverse = power(first, 0.5), power(first, -0.5)
    return inverse @ power(half @ second @ half, 0.5) @ inverse


def cholesky(first, second):
    return torch.linalg.cholesky(second) @ torch.linalg.inv(torch.linalg.cholesky(first))


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(cholesky, "not symmetric", id="triangular map"),
        pytest.param(lambda s, t: power(t, 0.5) @ power(s, -0.5), "not symmetric", id="roots on one side"),
        pytest.param(lambda s, t: -right(s, t), "mirrors", id="negative root"),
        pytest.param(lambda s, t: right(t, s), "not back", id="the way back"),
        pytest.param(lambda s, t: t @ torch.linalg.inv(s), "not variances", id="roots forgotten"),
        pytest.param(lambda s, t: power(power(s, 0.5) @ t @ power(s, 0.5), 0.5), "both sides", id="no inverse roots"),
        pytest.param(
            lambda s, t: (t.diagonal() / s.diagonal()).sqrt().diag(), "A S_0 Aᵀ = S_1", id="correlations ignored"
        ),
        pytest.param(
            lambda s, t: power(s, -0.5) @ (power(s, 0.5) @ t @ power(s, 0.5)).abs().sqrt() @ power(s, -0.5),
            "not of entries",
            id="root of entries",
        ),
    ],
)
def test_wrong_matrices_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson05.brenier_matrix(wrong)


# --- exercise 4: Sinkhorn in logarithms ---------------------------------------------------------------------------


def logarithmic(exponent, a, b, iterations):
    """The scaled plan of a given exponent -C/ε."""
    log_v = torch.zeros_like(b)
    for _ in range(iterations):
        log_u = a.log() - torch.logsumexp(exponent + log_v, 1)
        log_v = b.log() - torch.logsumexp(exponent + log_u[:, None], 0)
    return (log_u[:, None] + exponent + log_v).exp()


def without_logarithms(costs, a, b, epsilon, iterations):
    kernel, v = torch.exp(-costs / epsilon), torch.ones_like(b)
    for _ in range(iterations):
        u = a / (kernel @ v)
        v = b / (kernel.T @ u)
    return u[:, None] * kernel * v


def one_sided(costs, a, b, epsilon, iterations):
    return a[:, None] * torch.softmax(-costs / epsilon, 1)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(without_logarithms, "torch.logsumexp", id="underflow"),
        pytest.param(lambda c, a, b, e, n: logarithmic(c / e, a, b, n), "sign of the costs", id="sign"),
        pytest.param(lambda c, a, b, e, n: logarithmic(-c, a, b, n), "divided by ε", id="no epsilon"),
        pytest.param(lambda c, a, b, e, n: logarithmic(-c * e, a, b, n), "divided by ε", id="times epsilon"),
        pytest.param(one_sided, "in turn", id="rows only"),
        pytest.param(
            lambda c, a, b, e, n: logarithmic(-c / e, torch.ones_like(a) / 3, torch.ones_like(b) / 4, n),
            "must be a",
            id="uniform weights",
        ),
        pytest.param(lambda c, a, b, e, n: logarithmic(-c.T / e, b, a, n), "shape of the costs", id="swapped axes"),
        pytest.param(lambda c, a, b, e, n: a[:, None] * b, "log P_ij", id="independent"),
        pytest.param(
            lambda c, a, b, e, n: logarithmic(-c / e, a, b, n) / a[:, None], "must be a", id="conditional probabilities"
        ),
    ],
)
def test_wrong_plans_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson05.sinkhorn(wrong)


def test_a_second_solution_passes(capsys):
    lesson05.sinkhorn(lambda c, a, b, e, n: logarithmic(-c / e, a, b, n))
    lesson05.brenier_matrix(right)
    assert capsys.readouterr().out.count("✓") == 2
