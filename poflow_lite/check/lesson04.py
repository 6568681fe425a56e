"""Checks of lesson 04, time-evolving densities: a conservative scheme, the diffusing prior, inverse steps, Langevin."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from poflow_lite.check._common import attempt, close, passed, require

__all__ = ["continuity_rate", "heat_particles", "invert_step", "langevin_step"]


def continuity_rate(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Check ``function(p (N,), v (N-1,), h) -> (N,)``, ∂_t p of cells of side h with velocities v at their inner walls.

    Properties: mass is conserved to rounding whatever p and v are; what a wall lets through leaves one cell and enters
    the next, and no other cell notices; the order of convergence is 2.
    """
    p, still = _double(1.0, 3.0, 2.0, 4.0), torch.zeros(3, dtype=torch.float64)
    close(attempt(function, p, still, 0.5), 0 * p, "Where the velocity is 0 nothing changes")
    generator = torch.Generator().manual_seed(0)
    random_p, random_v = (torch.rand(n, dtype=torch.float64, generator=generator) for n in (40, 39))
    total = attempt(function, random_p, random_v - 0.3, 0.1).sum()
    require(
        total.abs() < 1e-10,
        "Mass is not conserved: the rates of all cells must sum to 0. What leaves a cell through a wall must enter its "
        f"neighbour, and nothing may pass the outermost walls (the sum is {total:.3g})",
    )
    rate = attempt(function, p, _double(0.0, 1.0, 0.0), 0.5)
    require(
        rate.shape == p.shape and rate[1] < 0 < rate[2],
        "v > 0 at a wall moves mass to the right: the left cell must lose and the right one gain. "
        "One rate for each cell, (N,); look at the sign",
    )
    close(
        rate,
        _double(0.0, -5.0, 5.0, 0.0),
        "The wall between densities 3 and 2, with v = 1 and h = 0.5, lets 2.5 through per frame, and a cell's density "
        "changes by that divided by h = 0.5: take the mean of the two neighbours, and divide by h once",
    )
    errors = [_transport_error(function, cells) for cells in (40, 80)]
    require(
        errors[0] > 3 * errors[1],
        "Half the cell size must give about a quarter of the error on a smooth density: is the density at a wall the "
        f"mean of its two neighbours? (errors {errors[0]:.3g} and {errors[1]:.3g})",
    )
    passed("continuity_rate conserves mass to the last digit and is of second order")


def heat_particles(function: Callable[[Tensor, float, float, float], Tensor]) -> None:
    """Check ``function(z0 (B, d), variance, diffusion, t) -> (B, d)``, particles of N(0, variance I) along ∇ψ.

    Properties: they stay at t = 0 and without diffusion, the variance of the cloud grows by 2 D t whatever it was, the
    velocity is -D ∇log p_t, and two times in a row are one.
    """
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(500, 3, dtype=torch.float64, generator=generator)
    for diffusion, t in ((0.3, 0.0), (0.0, 2.0)):
        close(
            attempt(function, z, 2.0, diffusion, t),
            z,
            f"With D = {diffusion:g} and t = {t:g} nothing has spread yet: every particle must be where it started",
        )
    unit = attempt(function, z, 1.0, 0.5, 3.0)
    require(unit.shape == z.shape, f"one place for each particle, {tuple(z.shape)}, got {tuple(unit.shape)}")
    require((unit.norm(dim=1) > z.norm(dim=1)).all(), "Diffusion spreads: particles must move away from the centre")
    close(
        unit,
        2 * z,
        "From N(0, I) with D = 0.5 and t = 3 the variance becomes 1 + 2 D t = 4: distances double, "
        "as the standard deviation does. Mind the 2 in 2 D t, and the square root",
    )
    close(
        attempt(function, 0.5 * z, 0.25, 0.125, 3.0),
        z,
        "From N(0, 0.25 I) the variance 0.25 becomes 0.25 + 2 D t = 1 with D = 0.125, t = 3, so distances double: "
        "divide the variance at t by the variance at the start",
    )
    first = attempt(function, z, 0.7, 0.2, 1.5)
    close(
        attempt(function, first, 0.7 + 2 * 0.2 * 1.5, 0.2, 2.5),
        attempt(function, z, 0.7, 0.2, 4.0),
        "1.5 frames and then 2.5 more, from the variance reached, must be 4 frames at once",
    )
    passed("heat_particles spreads as the heat equation does, from any variance")


def invert_step(function: Callable[[Callable[[Tensor], Tensor], Tensor, int], Tensor]) -> None:
    """Check ``function(gradient, z (B, d), iterations) -> (B, d)``, the x with x + gradient(x) = z by iteration.

    Properties: one iteration is z - gradient(z), a constant gradient is undone at once, each iteration multiplies the
    error of a linear gradient by it, and a nonlinear step is undone after enough of them.
    """
    z = _double([0.5, -1.0], [2.0, 0.3], [-0.4, 0.8])
    shift = _double(1.0, -2.0)
    close(
        attempt(function, lambda x: shift.expand_as(x), z, 3),
        z - shift,
        "A constant gradient moves every particle by the same vector, so its inverse takes that vector off once, "
        "however many iterations: subtract the gradient from z, not from the latest x; and look at the sign",
    )
    close(
        attempt(function, lambda x: 0.5 * x, z, 1),
        0.5 * z,
        "One iteration from x = z must give z - gradient(z)",
    )
    close(
        attempt(function, lambda x: 0.5 * x, z, 2),
        0.75 * z,
        "The second iteration must evaluate the gradient at the x of the first: x = z - gradient(x)",
    )
    x = attempt(function, lambda x: 0.6 * torch.sin(x), z + 0.6 * torch.sin(z), 60)
    close(x, z, "After 60 iterations the step z + 0.6 sin z must be undone: run as many iterations as asked")
    passed("invert_step undoes a step, one factor of the gradient's slope at each iteration")


def langevin_step(function: Callable[[Callable[[Tensor], Tensor], Tensor, float, float, Tensor], Tensor]) -> None:
    """Check ``function(score, z (B, d), diffusion, dt, noise (B, d)) -> (B, d)``, one step of Langevin dynamics.

    Properties: without noise it climbs the log-density by D dt times the score, without a score its jumps have the
    variance 2 D dt, and many small steps sample the density whose score it was given, whatever D is.
    """
    z = _double([0.5, -1.0], [2.0, 0.3], [-0.4, 0.8])
    noise = _double([1.0, -0.5], [0.2, 2.0], [-1.0, 0.4])
    drift = attempt(function, lambda x: -x, z, 0.5, 0.1, 0 * noise)
    require(
        drift.shape == z.shape and (drift.norm(dim=1) < z.norm(dim=1)).all(),
        "Without noise the step must climb log p, for a normal density towards the centre: look at its sign",
    )
    for diffusion in (0.5, 2.0):
        close(
            attempt(function, lambda x: -x, z, diffusion, 0.1, 0 * noise),
            (1 - 0.1 * diffusion) * z,
            f"The drift is D dt times the score: {0.1 * diffusion:.2g} × (-z) for D = {diffusion:g} and dt = 0.1",
        )
    close(
        attempt(function, torch.zeros_like, z, 0.5, 0.25, noise),
        z + 0.5 * noise,
        "Without a score the jump must have the variance 2 D dt = 0.25, so the noise is multiplied by its square root, "
        "0.5, for D = 0.5 and dt = 0.25",
    )
    generator = torch.Generator().manual_seed(0)
    for diffusion in (0.5, 2.0):
        x = torch.zeros(20_000, 1, dtype=torch.float64)
        for _ in range(150):
            fresh = torch.randn(x.shape, dtype=x.dtype, generator=generator)
            x = attempt(function, lambda x: -(x - 1) / 0.25, x, diffusion, 0.02 / diffusion, fresh)
        moments = torch.stack([x.mean(), x.var()])
        close(
            moments,
            _double(1.0, 0.25),
            "Many small steps must sample N(1, 0.25), whose score was given, at any D: both the drift and the noise "
            "contain D and dt, the one as D dt, the other as √(2 D dt)",
            tolerance=0.03,
        )
    passed("langevin_step samples the density whose score it follows")


def _double(*values: float | list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _transport_error(function: Callable[..., Tensor], cells: int) -> float:
    """Largest error of ∂_t p for p = 1 + cos(πx)/2 carried by v = sin(πx) on [0, 1], where v vanishes at both ends."""
    h = 1 / cells
    x = h * (torch.arange(cells, dtype=torch.float64) + 0.5)
    walls = h * torch.arange(1, cells, dtype=torch.float64)
    exact = -math.pi * (torch.cos(math.pi * x) + 0.5 * torch.cos(2 * math.pi * x))
    found = attempt(function, 1 + 0.5 * torch.cos(math.pi * x), torch.sin(math.pi * walls), h)
    return (found - exact).abs().max().item()
