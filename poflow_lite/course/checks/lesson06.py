"""Checks of lesson 06, PoFlow: a struck string, the leapfrog scheme, and the numbers of three trainings."""

import torch
from torch import Tensor

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, normal


@Exercise
def struck_string(f: Function) -> Claims:
    """f(g, R, x (n,), t, c) -> (n,): the wave on a line that starts with shape g and rate R'."""
    x = torch.linspace(-4, 4, 33).double()

    def lump(x: Tensor) -> Tensor:  # not symmetric: the sides cannot be mistaken for each other
        return torch.exp(-(x**2)) * (1 + 0.5 * x)

    def flat(x: Tensor) -> Tensor:
        return 0 * x

    hint = "At t = 0 the wave must be g, whatever R is: two waves of *half* the height, added, not subtracted"
    yield f(lump, torch.sin, x, 0.0, 0.7), lump(x), hint
    for side in (1, -1):
        hint = f"Without a rate, at t = 200 and c = 0.7, half of g must sit at x = {side * 140}, not mirrored"
        yield f(lump, flat, x + side * 140.0, 200.0, 0.7), 0.5 * lump(x), hint
    hint = "The rate 1 everywhere, R(x) = x, lifts a flat string to the height t: mind the sign and the factor 1 / (2c)"
    yield f(flat, lambda x: x, x, 1.5, 0.7), 1.5 + 0 * x, hint
    hint = "The rate cos x makes sin(ct) cos(x) / c: R is already the antiderivative, evaluated at x + ct and x - ct"
    yield f(flat, torch.sin, x, 1.5, 0.7), torch.sin(torch.tensor(1.05)).double() * x.cos() / 0.7, hint
    return "has the shape and the rate that it starts with, and moves at speed c"


@Exercise
def leapfrog(f: Function) -> Claims:
    """f(u, c, h, tau, steps) -> (steps + 1, *u.shape): the wave that starts at rest as u, on a periodic grid."""
    u = normal(24)
    states = f(u, 0.5, 0.1, 0.1, 9)
    yield states, (10, 24), "9 steps give 10 heights, the start among them: (steps + 1, *u.shape)"
    yield states[0], u, "The first of the heights is u itself"
    hint = "With c τ = h the scheme is exact: the first step from rest is half of a full push"
    yield f(u, 2.0, 0.2, 0.1, 1)[1], 0.5 * (u.roll(1) + u.roll(-1)), hint
    hint = "With c τ = h, after s steps half of u has moved s places to each side, around the periodic grid"
    yield f(u, 2.0, 0.2, 0.1, 7)[7], 0.5 * (u.roll(7) + u.roll(-7)), hint
    hint = "With c = 0.5 and h = τ the first step is u + (c τ / h)² Δ / 2: c, τ and 1 / h enter squared"
    yield states[1], u + 0.125 * (u.roll(1) + u.roll(-1) - 2 * u), hint
    whole = f(u, 0.5, 0.1, 0.1, 30)
    back = 2 * whole[1:-1] - whole[2:] + 0.25 * (whole[1:-1].roll(1, 1) + whole[1:-1].roll(-1, 1) - 2 * whole[1:-1])
    yield back, whole[:-2], "Each three moments in a row must obey the formula, forwards and backwards alike"
    plate = torch.cos(torch.pi * torch.arange(8) / 4).double()[:, None] * torch.ones(1, 5).double()
    hint = "On a plate a wave along one side stays as it is on a line: each direction adds u(+h) + u(-h) - 2u"
    yield f(plate, 1.0, 0.1, 0.05, 6)[:, :, 0], f(plate[:, 0], 1.0, 0.1, 0.05, 6), hint
    yield f(plate.T, 1.0, 0.1, 0.05, 6).mT, f(plate, 1.0, 0.1, 0.05, 6), "Treat both sides of a plate alike"
    return "starts at rest, is exact at c τ = h, and runs backwards as well as forwards"


@Exercise
def three_speeds(f: Function) -> Claims:
    """f() -> (3, 2): error ÷ no motion and rms residual after training on with c = 0.05, learned, 2."""
    found = f()
    yield found, (3, 2), "Three rows, c = 0.05, learned, 2; two columns, error ÷ no motion and rms residual"
    error, residual = found.double().T
    hint = "Errors of the trained model lie between 0.2 and 0.9 of no motion: are the columns swapped?"
    yield ((error > 0.2) & (error < 0.9)).all(), hint
    yield (residual > 0).all(), "Residuals are positive: take the rms"
    yield residual.argmax() == 2, "At c = 2 the residual is the largest: was the speed fixed, by requires_grad_(False)?"
    yield error.argmax() == 2, "At c = 2 the error is the largest: were the rows c = 0.05, learned, 2, and wave = 1000?"
    hint = "The learned speed has the smallest error: start all three from the same model, with the same seed and steps"
    yield error.argmin() == 1, hint
    return "has the numbers of three trainings: a wrong speed costs, too fast a wave most"
