"""Checks of lesson 04, time-evolving densities: a conservative scheme, the diffusing prior, inverse steps, Langevin."""

import torch

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal, uniform

_POINTS = [0.5, -1.0], [2.0, 0.3], [-0.4, 0.8]


@Exercise
def continuity_rate(f: Function) -> Claims:
    """f(p (N,), v (N-1,), h) -> (N,): ∂_t p of cells of side h with velocities v at their inner walls."""
    p = doubles(1, 3, 2, 4)
    yield f(p, doubles(0, 0, 0), 0.5), 0 * p, "Where the velocity is 0 nothing changes"
    hint = "Mass is not conserved: what leaves a cell enters its neighbour, and nothing passes the outermost walls"
    yield f(uniform(40), uniform(39, seed=1) - 0.3, 0.1).sum().abs() < 1e-10, hint
    rate = f(p, doubles(0, 1, 0), 0.5)
    hint = "v > 0 at a wall moves mass to the right: the left cell must lose, the right one gain; look at the sign"
    yield rate[1] < 0 < rate[2], hint
    hint = "Between densities 3 and 2 with v = 1 flows 2.5, the mean of the two; divide by h once, h = 0.5"
    yield rate, doubles(0, -5, 5, 0), hint
    flux = normal(39) * 0.5 * (uniform(40)[1:] + uniform(40)[:-1])
    expected = -torch.nn.functional.pad(flux, (1, 1)).diff() / 0.1
    yield f(uniform(40), normal(39), 0.1), expected, "It must be minus the difference of the fluxes v p divided by h"
    return "conserves mass to the last digit"


@Exercise
def heat_particles(f: Function) -> Claims:
    """f(z0 (B, d), variance, diffusion, t) -> (B, d): where particles of N(0, variance I) are after t along ∇ψ."""
    z = normal(500, 3)
    for diffusion, t in ((0.3, 0.0), (0.0, 2.0)):
        hint = f"With D = {diffusion:g} and t = {t:g} nothing has spread: every particle must be where it started"
        yield f(z, 2.0, diffusion, t), z, hint
    unit = f(z, 1.0, 0.5, 3.0)
    yield (unit.norm(dim=1) > z.norm(dim=1)).all(), "Diffusion spreads: particles must move away from the centre"
    yield unit, 2 * z, "From variance 1 to 1 + 2 D t = 4 distances double. Mind the 2 in 2 D t, and the square root"
    hint = "From variance 0.25 to 0.25 + 2 D t = 1 distances double: divide by the variance at the start"
    yield f(0.5 * z, 0.25, 0.125, 3.0), z, hint
    hint = "1.5 frames and 2.5 more, from the variance reached, must be 4 frames at once"
    yield f(f(z, 0.7, 0.2, 1.5), 0.7 + 2 * 0.2 * 1.5, 0.2, 2.5), f(z, 0.7, 0.2, 4.0), hint
    return "spreads as the heat equation does, from any variance"


@Exercise
def invert_step(f: Function) -> Claims:
    """f(gradient, z (B, d), iterations) -> (B, d): the x with x + gradient(x) = z, by fixed-point iteration."""
    z, shift = doubles(*_POINTS), doubles(1, -2)
    hint = "A constant gradient: x = z - it takes that vector off once, not from the latest x; look at the sign"
    yield f(lambda x: shift.expand_as(x), z, 3), z - shift, hint
    yield f(lambda x: 0.5 * x, z, 1), 0.5 * z, "One iteration from x = z must give z - gradient(z)"
    hint = "The second iteration must evaluate the gradient at the x of the first: x = z - gradient(x)"
    yield f(lambda x: 0.5 * x, z, 2), 0.75 * z, hint
    hint = "After 60 iterations the step z + 0.6 sin z must be undone: run as many iterations as asked"
    yield f(lambda x: 0.6 * x.sin(), z + 0.6 * z.sin(), 60), z, hint
    return "undoes a step, one factor of the gradient's slope at each iteration"


@Exercise
def langevin_step(f: Function) -> Claims:
    """f(score, z (B, d), diffusion, dt, noise (B, d)) -> (B, d): one step of Langevin dynamics."""
    z, noise = doubles(*_POINTS), doubles([1.0, -0.5], [0.2, 2.0], [-1.0, 0.4])
    drift = f(lambda x: -x, z, 0.5, 0.1, 0 * noise)
    hint = "Without noise the step must climb log p, for a normal density towards the centre: look at its sign"
    yield drift.shape == z.shape and (drift.norm(dim=1) < z.norm(dim=1)).all(), hint
    for diffusion in (0.5, 2.0):
        hint = f"The drift is D dt times the score: {0.1 * diffusion:.2g} × (-z) for D = {diffusion:g} and dt = 0.1"
        yield f(lambda x: -x, z, diffusion, 0.1, 0 * noise), (1 - 0.1 * diffusion) * z, hint
    hint = "Without a score the jump has the variance 2 D dt: the noise is multiplied by its square root"
    yield f(torch.zeros_like, z, 0.5, 0.25, noise), z + 0.5 * noise, hint
    x = torch.zeros(20_000, 1).double()
    for step in range(150):
        x = f(lambda x: -(x - 1) / 0.25, x, 2.0, 0.01, normal(20_000, 1, seed=step))
    hint = "Many small steps must sample N(1, 0.25), whose score was given"
    yield torch.stack([x.mean(), x.var()]), doubles(1, 0.25), hint, 0.03
    return "samples the density whose score it follows"
