"""The exercises of lesson 03: plausible wrong answers fail, each with its hint."""

import re

import pytest
import torch

from poflow_lite.check import CheckFailed, lesson03

# --- exercise 1: group elements -----------------------------------------------------------------------------------


def series(A, a, terms=40, factorial=True):
    total, term = torch.eye(len(A), dtype=A.dtype), torch.eye(len(A), dtype=A.dtype)
    for n in range(1, terms):
        term = term @ A * a / (n if factorial else 1)
        total = total + term
    return total


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda A, a: (a * A).exp(), "entry by entry", id="exponential of the entries"),
        pytest.param(lambda A, a: series(A, -a), "sign", id="sign"),
        pytest.param(lambda A, a: series(A, a).T, "transpose", id="transposed"),
        pytest.param(lambda A, a: torch.eye(len(A)) + a * A, "factorial", id="first order only"),
        pytest.param(lambda A, a: series(A, a, factorial=False), "factorial", id="factorial forgotten"),
        pytest.param(lambda A, a: series(A, a) - torch.eye(len(A)), "starts with I", id="identity forgotten"),
        pytest.param(lambda A, a: series(A, 2 * a), "generator A itself", id="factor of two"),
        pytest.param(lambda A, a: series(A, a, terms=9), "more terms", id="too few terms"),
    ],
)
def test_wrong_group_elements_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson03.group_element(wrong)


# --- exercise 2: the error round the square -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda x, y: (x - y).abs().flatten(1).sum(1).mean(), "Frame 0", id="frame 0 counted"),
        pytest.param(lambda x, y: (x - y)[:, 1:].abs().mean(), "sum over pixels", id="mean over everything"),
        pytest.param(lambda x, y: (x - y)[:, 1:].abs().sum(), "average over sequences only", id="sum over sequences"),
        pytest.param(
            lambda x, y: (x - y)[:, 1:].abs().sum((2, 3, 4)).mean(), "and frames, average", id="mean over frames"
        ),
        pytest.param(
            lambda x, y: (x - y)[:, 1:].flatten(1).sum(1).abs().mean(), "must not cancel", id="absolute value too late"
        ),
        pytest.param(lambda x, y: (x - y)[:, 1:].square().flatten(1).sum(1).mean(), "norm is L1", id="squared"),
        pytest.param(
            lambda x, y: (x - y)[:, 1:].square().flatten(2).sum(2).sqrt().sum(1).mean(), "sum over pixels", id="L2 norm"
        ),
        pytest.param(lambda x, y: (x - y)[:, 1:].abs().flatten(1).sum(1), re.escape("shape ()"), id="not averaged"),
    ],
)
def test_wrong_errors_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson03.equivariance_error(wrong)


# --- exercise 3: the ridge map ------------------------------------------------------------------------------------


def solve(z0, zt, ridge, target=1.0, mean=True, transpose=False, offset="right"):
    x, y, identity = z0 - z0.mean(0), zt - zt.mean(0), torch.eye(z0.shape[1], dtype=z0.dtype)
    count = len(z0) if mean else 1
    A = torch.linalg.solve(x.T @ x / count + ridge * identity, x.T @ y / count + target * ridge * identity).T
    b = {"right": zt.mean(0) - A @ z0.mean(0), "shift": (zt - z0).mean(0), "none": 0 * zt.mean(0)}[offset]
    return torch.cat([A.T if transpose else A, b[:, None]], 1)


def penalised_offset(z0, zt, ridge):
    x = torch.cat([z0, torch.ones_like(z0[:, :1])], 1)
    goal = torch.eye(4, 3, dtype=z0.dtype)
    return torch.linalg.solve(
        x.T @ x / len(x) + ridge * torch.eye(4, dtype=x.dtype), x.T @ zt / len(x) + ridge * goal
    ).T


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda z0, zt, ridge: solve(z0, zt, ridge, target=0.0), "towards I, not 0", id="ridge to zero"),
        pytest.param(lambda z0, zt, ridge: solve(z0, zt, ridge, mean=False), "not a sum", id="sum for mean"),
        pytest.param(lambda z0, zt, ridge: solve(z0, zt, ridge, transpose=True), "transpose", id="transposed"),
        pytest.param(lambda z0, zt, ridge: solve(z0, zt, ridge, offset="shift"), "mean z_t - A mean z_0", id="shift"),
        pytest.param(
            lambda z0, zt, ridge: solve(z0, zt, ridge, offset="none"), "mean z_t - A mean z_0", id="no offset"
        ),
        pytest.param(lambda z0, zt, ridge: solve(z0, zt, ridge**2), "not squared", id="ridge squared"),
        pytest.param(lambda z0, zt, ridge: solve(zt, z0, ridge), "must be recovered", id="backwards"),
        pytest.param(penalised_offset, "does not touch b", id="offset penalised"),
        pytest.param(lambda z0, zt, ridge: solve(z0, zt, ridge)[:, :-1], "expected shape", id="offset left out"),
    ],
)
def test_wrong_ridge_maps_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson03.ridge_map(wrong)


# --- exercise 4: a capsule ----------------------------------------------------------------------------------------


def shared(u, neighbours):
    reach = neighbours // 2
    return sum(u.square().roll(i, -1) for i in range(-reach, reach + 1)) / neighbours


def not_a_circle(z, u, mu, neighbours):
    padded = torch.nn.functional.pad(u.square(), (neighbours // 2, neighbours // 2), mode="replicate")
    return (z + mu) / padded.unfold(-1, neighbours, 1).mean(-1).sqrt()


def one_sided(z, u, mu, neighbours):
    return (z + mu) / (sum(u.square().roll(i, -1) for i in range(neighbours)) / neighbours).sqrt()


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda z, u, m, n: (z + m) / (n * shared(u, n)).sqrt(), "not a sum", id="sum for mean"),
        pytest.param(lambda z, u, m, n: (z + m) / shared(u, n), "then the root", id="root forgotten"),
        pytest.param(lambda z, u, m, n: m + z / shared(u, n).sqrt(), "before the division", id="offset outside"),
        pytest.param(lambda z, u, m, n: z / shared(u, n).sqrt(), "μ is added", id="offset forgotten"),
        pytest.param(lambda z, u, m, n: (z + m) * shared(u, n).sqrt(), "s = z / 2", id="product"),
        pytest.param(
            lambda z, u, m, n: (z + m) / sum(u.abs().roll(i, -1) for i in range(-(n // 2), n // 2 + 1)) * n,
            "damp the places",
            id="mean of magnitudes",
        ),
        pytest.param(not_a_circle, "a circle", id="line for a circle"),
        pytest.param(one_sided, "centred", id="one-sided"),
        pytest.param(
            lambda z, u, m, n: (z + m) / u.square().mean(-1, keepdim=True).sqrt(), "one neighbour", id="whole capsule"
        ),
        pytest.param(
            lambda z, u, m, n: (z + m) / (shared(u, n) if n < 4 else shared(u, n).mean(0, keepdim=True)).sqrt(),
            "not samples",
            id="averaged over samples",
        ),
    ],
)
def test_wrong_capsules_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson03.capsule_code(wrong)
