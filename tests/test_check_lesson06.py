"""The exercises of lesson 06: plausible wrong answers fail, each with its hint."""

import re

import pytest
import torch

from poflow_lite.check import CheckFailed, lesson06

# --- exercise 1: d'Alembert ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda g, x, t, c: g(x - c * t) + g(x + c * t), "half", id="no halves"),
        pytest.param(lambda g, x, t, c: 0.5 * (g(x - c * t) - g(x + c * t)), "not subtracted", id="difference"),
        pytest.param(lambda g, x, t, c: g(x - c * t), "by c t", id="to the right only"),
        pytest.param(lambda g, x, t, c: 0.5 * (g(x) + g(x + c * t)), "each must move", id="one half stays"),
        pytest.param(lambda g, x, t, c: 0.5 * (g(x - t) + g(x + t)), "c = 0.7", id="speed forgotten"),
        pytest.param(lambda g, x, t, c: 0.5 * (g(x - c**2 * t) + g(x + c**2 * t)), "by c t", id="speed squared"),
        pytest.param(lambda g, x, t, c: 0.5 * (g(c * t - x) + g(x + c * t)), "must be g", id="mirrored"),
        pytest.param(lambda g, x, t, c: 0.5 * (g(x - c * t) + g(x + c * t)).sum(), "expected shape", id="summed"),
    ],
)
def test_wrong_waves_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson06.dalembert(wrong)


# --- exercise 2: the wave residual --------------------------------------------------------------------------------


def parts(u, z, t):
    """∂_tt u (B,) and the Hessian in z (B, d, d) of each sample."""

    def at(z, t):
        return u(z[None], t[None])[0]

    bend = torch.func.vmap(torch.func.grad(torch.func.grad(at, 1), 1))(z, t)
    return bend, torch.func.vmap(torch.func.hessian(at))(z, t)


def trace(h):
    return torch.diagonal(h, dim1=1, dim2=2).sum(1)


def answer(combine):
    """A student's function from ∂_tt u, the Hessian and c."""
    return lambda u, z, t, c: combine(*parts(u, z, t), c)


def rate_squared(u, z, t, c):
    rate = torch.func.vmap(torch.func.grad(lambda z, t: u(z[None], t[None])[0], 1))(z, t)
    return rate.square() - c**2 * trace(parts(u, z, t)[1])


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(answer(lambda b, h, c: b + c**2 * trace(h)), "minus sign", id="sign of the Laplacian"),
        pytest.param(answer(lambda b, h, c: b - c**2 * trace(h) / 3), "not an average", id="mean over dimensions"),
        pytest.param(answer(lambda b, h, c: b - c * trace(h)), re.escape("c²"), id="speed not squared"),
        pytest.param(answer(lambda b, h, c: b - trace(h)), re.escape("c²"), id="speed forgotten"),
        pytest.param(answer(lambda b, h, c: b - c**2 * h.sum((1, 2))), "mixed", id="row sums"),
        pytest.param(answer(lambda b, h, c: -(c**2) * trace(h)), "second derivative", id="no time derivative"),
        pytest.param(answer(lambda b, h, c: -b - c**2 * trace(h)), "sign", id="sign of ∂_tt"),
        pytest.param(answer(lambda b, h, c: b.sum() - c**2 * trace(h)), "own t", id="time summed over the batch"),
        pytest.param(answer(lambda b, h, c: (b - c**2 * trace(h)).mean()), "expected shape", id="mean over the batch"),
        pytest.param(answer(lambda b, h, c: (b - c**2 * trace(h)).square()), "minus sign", id="squared"),
        pytest.param(rate_squared, "second derivative", id="first derivative squared"),
    ],
)
def test_wrong_residuals_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson06.wave_defect(wrong)


# --- exercise 3: the path -----------------------------------------------------------------------------------------


def walk(step, keep_start=True):
    """A student's function that repeats ``step(gradient, path, t)``."""

    def follow(gradient, z, steps):
        path = [z]
        for t in range(steps):
            path.append(step(gradient, path, t))
        return torch.stack(path if keep_start else path[1:], 1)

    return follow


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(walk(lambda g, p, t: p[-1] - g(p[-1], t)), "does not take it off", id="downhill"),
        pytest.param(walk(lambda g, p, t: p[-1] + g(p[-1], t), False), "5 points", id="start left out"),
        pytest.param(walk(lambda g, p, t: p[-1] + g(p[0], t)), "present", id="gradient at the start"),
        pytest.param(walk(lambda g, p, t: p[-1] + g(p[-1], t + 1)), "start of each step", id="time of arrival"),
        pytest.param(walk(lambda g, p, t: p[-1] + g(p[-1], 0)), "second leaves at t = 1", id="time stands still"),
        pytest.param(walk(lambda g, p, t: p[0] + g(p[-1], t)), "everywhere", id="steps do not add up"),
        pytest.param(
            lambda g, z, n: walk(lambda g, p, t: p[-1] + g(p[-1], t))(g, z, n).transpose(0, 1), "5 points", id="swapped"
        ),
    ],
)
def test_wrong_paths_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson06.follow(wrong)


# --- exercise 4: visible motion -----------------------------------------------------------------------------------


def change(decode, z, v):
    return torch.func.jvp(decode, (z,), (v,))[1].flatten(1)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda f, z, v: change(f, z, v).square().sum(1), "logarithm", id="no logarithm"),
        pytest.param(lambda f, z, v: -change(f, z, v).square().sum(1).log1p(), "minus sign", id="sign of the loss"),
        pytest.param(lambda f, z, v: change(f, z, v).square().mean(1).log1p(), "no average", id="mean over pixels"),
        pytest.param(lambda f, z, v: change(f, z, v).norm(dim=1).log1p(), "no root", id="root"),
        pytest.param(lambda f, z, v: change(f, z, v).abs().sum(1).log1p(), "squares", id="absolute values"),
        pytest.param(lambda f, z, v: change(f, z, v).square().sum(1).log1p().mean(), "expected shape", id="batch mean"),
        pytest.param(lambda f, z, v: change(f, z, v).square().sum(1).log(), "stands still", id="1 forgotten"),
        pytest.param(
            lambda f, z, v: (f(z + v) - f(z)).flatten(1).square().sum(1).log1p(), "not a derivative", id="difference"
        ),
        pytest.param(lambda f, z, v: v.square().sum(1).log1p(), "J v = M v", id="motion of the latent"),
        pytest.param(
            lambda f, z, v: change(f, torch.zeros_like(z), v).square().sum(1).log1p(), "at z", id="another point"
        ),
    ],
)
def test_wrong_motions_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson06.visible_motion(wrong)
