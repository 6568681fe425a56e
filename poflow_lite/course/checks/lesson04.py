"""Checks of lesson 04, time-evolving densities: the diffusing prior, a conservative scheme, leaks over a barrier."""

import torch

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal, uniform


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
def leak_rates(f: Function) -> Claims:
    """f() -> (3,), measured: the late rate at which log KL falls, per frame, for D = 0.3, 0.45 and 0.6."""
    found = f()
    yield found, (3,), "One rate for each of D = 0.3, 0.45 and 0.6"
    found = found.double()
    yield (found > 0).all(), "Give the rates of fall: positive numbers, -d/dt log KL"
    yield (found.diff() > 0).all(), "More noise crosses a barrier sooner: the rates must rise; look at their order"
    hint = "A rate is per frame, about 0.16 for D = 0.45 as in section 6: did you divide by the time between values?"
    yield 0.1 < found[1] < 0.25, hint
    barrier = (found[2] / found[0]).log() / (1 / 0.3 - 1 / 0.6)
    hint = f"By Kramers' law your rates see a barrier of {barrier:.2f}; it is about 1.06. Is log KL straight by then?"
    yield 0.9 < barrier < 1.5, hint
    return "rises with the noise as Kramers' law says: the rates see the barrier of the left well"
