"""The exercises of lesson 07: plausible wrong answers fail, each with its hint."""

import math
import re

import pytest
import torch

from poflow_lite.check import CheckFailed, lesson07

# --- exercise 1: the density along a path -------------------------------------------------------------------------


def along_path(log_q0, change):
    """log q_0 followed by log q_0 minus the running sum of ``change`` (B, T)."""
    return torch.cat([log_q0[:, None], log_q0[:, None] - change.cumsum(1)], 1)


def eye(h):
    return torch.eye(h.shape[-1], dtype=h.dtype)


def trace(h):
    return torch.diagonal(h, dim1=-2, dim2=-1).sum(-1)


def log_det(h):
    return torch.linalg.slogdet(eye(h) + h).logabsdet


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda q, h: along_path(q, -log_det(h)), "sign", id="sign of the log-det"),
        pytest.param(lambda q, h: along_path(q, trace(h)), "first-order", id="trace for log-det"),
        pytest.param(
            lambda q, h: along_path(q, (1 + h.sum(-1)).abs().log().sum(-1)), "sums of its rows", id="row sums"
        ),
        pytest.param(
            lambda q, h: along_path(q, (1 + torch.diagonal(h, dim1=-2, dim2=-1)).log().sum(-1)),
            "nor its diagonal",
            id="diagonal only",
        ),
        pytest.param(lambda q, h: along_path(q, log_det(h) / h.shape[-1]), "log 4", id="mean over dimensions"),
        pytest.param(
            lambda q, h: along_path(q, log_det(h).mean(0, keepdim=True).expand(len(q), -1)),
            "averaged over the batch",
            id="mean over the batch",
        ),
        pytest.param(lambda q, h: q[:, None] - log_det(h).cumsum(1), "expected shape", id="t = 0 left out"),
        pytest.param(
            lambda q, h: torch.cat([q[:, None], q[:, None] - log_det(h)], 1), "all steps", id="steps not added up"
        ),
        pytest.param(lambda q, h: along_path(q, torch.linalg.slogdet(h).logabsdet), "flat", id="I forgotten"),
    ],
)
def test_wrong_densities_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson07.pushed_log_density(wrong)


# --- exercise 2: the Hamilton-Jacobi residual ---------------------------------------------------------------------


def parts(u, z, t):
    """∇u and ∂_t u of each sample."""
    z, t = z.requires_grad_(), t.requires_grad_()
    return torch.autograd.grad(u(z, t).sum(), (z, t))


def no_half(u, z, t):
    gradient, rate = parts(u, z, t)
    return rate + gradient.square().sum(-1)


def mean_over_dimensions(u, z, t):
    gradient, rate = parts(u, z, t)
    return rate + 0.5 * gradient.square().mean(-1)


def wrong_sign(u, z, t):
    gradient, rate = parts(u, z, t)
    return 0.5 * gradient.square().sum(-1) - rate


def norm_not_squared(u, z, t):
    gradient, rate = parts(u, z, t)
    return rate + 0.5 * gradient.norm(dim=-1)


def rate_summed_over_the_batch(u, z, t):
    gradient, rate = parts(u, z, t)
    return rate.sum() + 0.5 * gradient.square().sum(-1)


def mean_over_the_batch(u, z, t):
    gradient, rate = parts(u, z, t)
    return (rate + 0.5 * gradient.square().sum(-1)).mean()


def no_time_derivative(u, z, t):
    return 0.5 * parts(u, z, t)[0].square().sum(-1)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (no_half, "factor ½"),
        (mean_over_dimensions, "sum, not average"),
        (wrong_sign, re.escape("sign +")),
        (norm_not_squared, "½‖z‖²"),
        (rate_summed_over_the_batch, "no sum over the batch"),
        (mean_over_the_batch, "expected shape"),
        (no_time_derivative, "each sample's own t"),
    ],
)
def test_wrong_residuals_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson07.residual(wrong)


# --- exercise 3: samples of the KL term ---------------------------------------------------------------------------


def log_normal(z, variance):
    return -0.5 * (z.square() / variance + math.log(2 * math.pi * variance)).sum(-1)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda q, j, z0, z1, v: q + j - log_normal(z1, v), "log q_0 - log-det", id="sign of the log-det"),
        pytest.param(lambda q, j, z0, z1, v: q - j - log_normal(z0, v), "at z_1", id="prior at another point"),
        pytest.param(lambda q, j, z0, z1, v: q - j - log_normal(z1, v**2), "standard deviation", id="variance squared"),
        pytest.param(lambda q, j, z0, z1, v: q - j - log_normal(z1, v**0.5), "standard deviation", id="root taken"),
        pytest.param(lambda q, j, z0, z1, v: q - log_normal(z1, v), "log-det", id="log-det forgotten"),
        pytest.param(
            lambda q, j, z0, z1, v: q - j - log_normal(z1, v) / z1.shape[-1], "Sum over", id="mean over dimensions"
        ),
        pytest.param(
            lambda q, j, z0, z1, v: (q - j - log_normal(z1, v)).mean(), "one value for each", id="mean over the batch"
        ),
        pytest.param(
            lambda q, j, z0, z1, v: (q - j - log_normal(z1, v)).mean().expand(len(q)),
            "do not average",
            id="mean given to every sample",
        ),
        pytest.param(
            lambda q, j, z0, z1, v: (q - j - log_normal(z1, v)).abs(), "average must approach", id="absolute value"
        ),
    ],
)
def test_wrong_kl_samples_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson07.frame_kl(wrong)


# --- exercise 4: drawn frames -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda first, drawn, T: first + drawn.sum(1), "T/S", id="weight forgotten"),
        pytest.param(lambda first, drawn, T: T * drawn.mean(1), "must be their sum", id="frame 0 forgotten"),
        pytest.param(
            lambda first, drawn, T: (T + 1) / (drawn.shape[1] + 1) * (first + drawn.sum(1)),
            "counts once",
            id="one pool",
        ),
        pytest.param(lambda first, drawn, T: first + drawn.mean(1), "must be their sum", id="mean for a sum"),
        pytest.param(lambda first, drawn, T: (first + T * drawn.mean(1)).sum(), "expected shape", id="batch summed"),
    ],
)
def test_wrong_sums_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson07.sum_from_drawn(wrong)
