"""The exercises of lesson 04: plausible wrong answers fail, each with its hint."""

import math

import pytest
import torch

from poflow_lite.check import CheckFailed, lesson04

# --- exercise 1: the continuity equation in boxes -----------------------------------------------------------------


def from_flux(flux, h):
    """What closed cells gain from the flux to the right through their inner walls."""
    closed = torch.zeros_like(flux[:1])
    return -torch.cat([closed, flux, closed]).diff() / h


def mean(p):
    return 0.5 * (p[:-1] + p[1:])


def open_at_the_ends(p, v, h):
    flux = v * mean(p)
    return -torch.cat([flux[:1], flux, flux[-1:]]).diff() / h


def open_where_nothing_moves(p, v, h):
    flux = torch.cat([0.3 * v[:1] * p[:1], v * mean(p), 0.3 * v[-1:] * p[-1:]])
    return -flux.diff() / h


def differences_at_centres(p, v, h):
    at_cells = torch.nn.functional.pad(mean(v), (1, 1))
    return -torch.gradient(p * at_cells, spacing=h)[0]


def velocity_outside_the_divergence(p, v, h):
    return torch.nn.functional.pad(-v * p.diff() / h, (0, 1))


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda p, v, h: -from_flux(v * mean(p), h), "look at the sign", id="sign"),
        pytest.param(lambda p, v, h: from_flux(v * mean(p), 1.0), "divide by h", id="h forgotten"),
        pytest.param(lambda p, v, h: from_flux(v * mean(p), h**2), "divide by h once", id="h twice"),
        pytest.param(lambda p, v, h: from_flux(v * mean(p), 2 * h), "divide by h once", id="central difference"),
        pytest.param(lambda p, v, h: from_flux(v * 2 * mean(p), h), "mean of the two", id="sum for mean"),
        pytest.param(lambda p, v, h: from_flux(v * p[:-1], h), "mean of the two", id="left cell"),
        pytest.param(lambda p, v, h: from_flux(v * p[1:], h), "mean of the two", id="right cell"),
        pytest.param(lambda p, v, h: from_flux(v, h), "mean of the two", id="density forgotten"),
        pytest.param(lambda p, v, h: from_flux(v * (p[:-1] * p[1:]).sqrt(), h), "mean of the two", id="geometric mean"),
        pytest.param(lambda p, v, h: -(v * mean(p)).diff() / h, "expected shape", id="ends left out"),
        pytest.param(open_at_the_ends, "not conserved", id="ends copied"),
        pytest.param(open_where_nothing_moves, "not conserved", id="open ends"),
        pytest.param(differences_at_centres, "not conserved", id="not conservative"),
        pytest.param(velocity_outside_the_divergence, "not conserved", id="velocity outside"),
    ],
)
def test_wrong_rates_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson04.continuity_rate(wrong)


# --- exercise 2: particles of the heat equation -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda z, s, D, t: z * math.sqrt(1 + 2 * D * t), "variance at the start", id="unit start"),
        pytest.param(lambda z, s, D, t: z * math.sqrt(s + 2 * D * t), "where it started", id="not divided"),
        pytest.param(lambda z, s, D, t: z * (s + 2 * D * t) / s, "square root", id="root forgotten"),
        pytest.param(lambda z, s, D, t: z * math.sqrt(1 + D * t / s), "Mind the 2", id="2 forgotten"),
        pytest.param(lambda z, s, D, t: z * math.sqrt(1 + 4 * D * t / s), "Mind the 2", id="4 for 2"),
        pytest.param(lambda z, s, D, t: z * math.sqrt(1 + 2 * D * t / s**2), "variance at the start", id="s squared"),
        pytest.param(lambda z, s, D, t: z / math.sqrt(1 + 2 * D * t / s), "away from the centre", id="inverse"),
        pytest.param(lambda z, s, D, t: z + math.sqrt(2 * D * t), "away from the centre", id="shift"),
        pytest.param(lambda z, s, D, t: z * (1 + D * t / s), "square root", id="one Euler step"),
        pytest.param(
            lambda z, s, D, t: z + math.sqrt(2 * D * t) * torch.randn(z.shape, generator=torch.Generator()),
            "away from the centre",
            id="Brownian motion",
        ),
        pytest.param(lambda z, s, D, t: (z * math.sqrt(1 + 2 * D * t / s)).mean(0), "expected shape", id="averaged"),
    ],
)
def test_wrong_particles_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson04.heat_particles(wrong)


# --- exercise 3: a step undone ------------------------------------------------------------------------------------


def iterate(update):
    def function(gradient, z, iterations):
        x = z
        for _ in range(iterations):
            x = update(gradient, z, x)
        return x

    return function


def one_iteration_too_many(gradient, z, iterations):
    return iterate(lambda g, z, x: z - g(x))(gradient, z, iterations + 1)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(iterate(lambda g, z, x: z + g(x)), "look at the sign", id="sign"),
        pytest.param(iterate(lambda g, z, x: x - g(x)), "not from the latest x", id="descent"),
        pytest.param(iterate(lambda g, z, x: x - g(z)), "not from the latest x", id="z and x exchanged"),
        pytest.param(iterate(lambda g, z, x: z - g(z)), "at the x of the first", id="gradient at z"),
        pytest.param(lambda g, z, n: z - g(z), "at the x of the first", id="a single iteration"),
        pytest.param(one_iteration_too_many, "One iteration", id="one too many"),
        pytest.param(
            lambda g, z, n: iterate(lambda g, z, x: z - g(x))(g, z, min(n, 3)), "as many iterations", id="stops early"
        ),
        pytest.param(iterate(lambda g, z, x: 0.5 * (x + z - g(x))), "takes that vector off once", id="damped"),
        pytest.param(lambda g, z, n: z, "takes that vector off once", id="nothing"),
    ],
)
def test_wrong_inverses_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson04.invert_step(wrong)


# --- exercise 4: a Langevin step ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda s, z, D, dt, e: z - D * dt * s(z) + math.sqrt(2 * D * dt) * e, "its sign", id="sign"),
        pytest.param(lambda s, z, D, dt, e: z + dt * s(z) + math.sqrt(2 * D * dt) * e, "D dt times", id="D forgotten"),
        pytest.param(lambda s, z, D, dt, e: z + D * s(z) + math.sqrt(2 * D * dt) * e, "D dt times", id="dt forgotten"),
        pytest.param(lambda s, z, D, dt, e: z + D * dt * s(z) + math.sqrt(D * dt) * e, "2 D dt", id="2 forgotten"),
        pytest.param(lambda s, z, D, dt, e: z + D * dt * s(z) + 2 * D * dt * e, "square root", id="no root"),
        pytest.param(
            lambda s, z, D, dt, e: z + D * dt * s(z) + math.sqrt(2 * D) * dt * e, "square root", id="dt outside"
        ),
        pytest.param(lambda s, z, D, dt, e: z + D * dt * s(z) + math.sqrt(2 * dt) * e, "2 D dt", id="noise without D"),
        pytest.param(lambda s, z, D, dt, e: D * dt * s(z) + math.sqrt(2 * D * dt) * e, "D dt times", id="z forgotten"),
        pytest.param(lambda s, z, D, dt, e: z + D * dt * s(z), "variance 2 D dt", id="noise forgotten"),
        pytest.param(
            lambda s, z, D, dt, e: z + 0.5 * D * dt * s(z) + math.sqrt(D * dt) * e, "D dt times", id="half the time"
        ),
        pytest.param(
            lambda s, z, D, dt, e: z + D * dt * s(z).clamp(-1, 1) + math.sqrt(2 * D * dt) * e,
            "D dt times",
            id="clipped",
        ),
        pytest.param(
            lambda s, z, D, dt, e: z + 0.5 * dt * s(z) + math.sqrt(2 * 0.5 * dt) * e, "for D = 2", id="D fixed"
        ),
        pytest.param(
            lambda s, z, D, dt, e: (z + D * dt * s(z) + math.sqrt(2 * D * dt) * e).mean(0),
            "climb",
            id="mean",
        ),
    ],
)
def test_wrong_langevin_steps_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson04.langevin_step(wrong)
