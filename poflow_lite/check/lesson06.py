"""Checks of lesson 06, PoFlow: d'Alembert's solution, the wave residual, following a potential, visible motion."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from poflow_lite.check._common import attempt, close, passed, require

__all__ = ["dalembert", "follow", "visible_motion", "wave_defect"]

_Potential = Callable[[Tensor, Tensor], Tensor]


def dalembert(function: Callable[[Callable[[Tensor], Tensor], Tensor, float, float], Tensor]) -> None:
    """Check ``function(g, x (n,), t, c) -> (n,)``, the wave on a line that starts at rest with the shape g.

    Properties: g itself at t = 0, two halves that travel at speed c to both sides, at rest in the beginning, and the
    wave equation.
    """
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)

    def lump(x: Tensor) -> Tensor:  # not symmetric: the sides cannot be mistaken for each other
        return torch.exp(-(x**2)) * (1 + 0.5 * x)

    close(
        attempt(function, lump, x, 0.0, 0.7),
        lump(x),
        "At t = 0 the wave must be g: two waves of *half* the height, added, not subtracted",
    )
    far = attempt(function, lump, x, 200.0, 0.7)
    require(far.abs().max() < 1e-6, "After a long time both halves have left the window: each must move with time")
    right = attempt(function, lump, x + 140.0, 200.0, 0.7)
    close(
        right,
        0.5 * lump(x),
        "At t = 200 with c = 0.7 half of g must sit around x = +140, not mirrored: g(x - ct) moves to the right by c t",
    )
    left = attempt(function, lump, x - 140.0, 200.0, 0.7)
    close(left, 0.5 * lump(x), "At t = 200 with c = 0.7 the other half of g must sit around x = -140: g(x + ct)")
    slightly = (attempt(function, lump, x, 1e-4, 0.7) - lump(x)) / 1e-4
    close(slightly, torch.zeros_like(x), "The wave starts at rest: ∂_t u = 0 at t = 0", tolerance=1e-3)
    half = attempt(function, torch.sin, x, 2.0, 0.7)
    close(
        half,
        math.cos(1.4) * torch.sin(x),
        "g = sin gives the standing wave sin(x) cos(ct): does the function use its own t, c and g?",
    )
    passed("dalembert splits g into two halves that run away at speed c, and starts at rest")


def wave_defect(function: Callable[[_Potential, Tensor, Tensor, float], Tensor]) -> None:
    """Check ``function(u, z (B, d), t (B,), c) -> (B,)``, ∂_tt u - c² Δu of a potential u(z, t) by autograd.

    Properties: -c² Δu where time does nothing, Δ the sum of the pure second derivatives; ∂_tt u of each sample where
    space does nothing; 0 for plane waves and their sums at the right speed, and not at another.
    """
    generator = torch.Generator().manual_seed(0)
    z, t = torch.randn(6, 3, dtype=torch.float64, generator=generator), torch.arange(6, dtype=torch.float64)

    def weighted(z: Tensor, t: Tensor) -> Tensor:
        return z.pow(3) @ z.new_tensor([1.0, 2.0, -1.0]) / 6 + 0 * t.pow(3)

    close(
        attempt(function, weighted, z, t, 1.0),
        -z @ z.new_tensor([1.0, 2.0, -1.0]),
        "u = (z_1³ + 2 z_2³ - z_3³)/6 has Δu = z_1 + 2 z_2 - z_3 and ∂_tt u = 0: mind the minus sign; "
        "the Laplacian is a sum, not an average, of second derivatives, and there is one value for each sample",
    )
    close(
        attempt(function, weighted, z, t, 3.0),
        -9 * z @ z.new_tensor([1.0, 2.0, -1.0]),
        "With c = 3 the Laplacian must count 9 times: the speed enters as c²",
    )
    close(
        attempt(function, lambda z, t: z[:, 0] * z[:, 1] + 0 * t.pow(3), z, t, 1.0),
        torch.zeros_like(t),
        "u = z_1 z_2 has Δu = 0: only the diagonal of the Hessian belongs to the Laplacian, no mixed derivatives",
    )
    close(
        attempt(function, lambda z, t: t.pow(3) + 0 * z.pow(3).sum(-1), z, t, 2.0),
        6 * t,
        "u = t³ has ∂_tt u = 6t for each sample's own t: the second derivative, with the sign +",
    )
    n, m = z.new_tensor([0.5, -1.0, 0.3]), z.new_tensor([1.1, 0.2, 0.7])

    def waves(z: Tensor, t: Tensor) -> Tensor:
        return torch.sin(z @ n - 0.6 * n.norm() * t) + torch.cos(z @ m + 0.6 * m.norm() * t)

    close(
        attempt(function, waves, z, t, 0.6),
        torch.zeros_like(t),
        "A sum of two plane waves of speed c solves the equation: the defect must vanish",
    )
    require(
        attempt(function, waves, z, t, 1.2).abs().max() > 0.1, "At twice the speed these waves are no solution any more"
    )
    passed("wave_defect vanishes on plane waves and their sums at their own speed, and only there")


def follow(function: Callable[[_Potential, Tensor, int], Tensor]) -> None:
    """Check ``function(gradient, z (B, d), steps) -> (B, steps + 1, d)``, z_{t+1} = z_t + ∇u(z_t, t) from t = 0.

    ``gradient`` takes points (B, d) and a time. Properties: the start is kept, steps go uphill, each uses the
    position *and* the time at which it starts.
    """
    z = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
    path = attempt(function, lambda z, t: torch.ones_like(z), z, 4)
    require(
        path.shape == (2, 5, 2),
        f"4 steps visit 5 points, the start among them: expected shape (2, 5, 2), got {tuple(path.shape)}",
    )
    close(path[:, 0], z, "The first point of a path is where it starts, z_0")
    steps = torch.arange(5, dtype=torch.float64)[None, :, None]
    close(
        path,
        z[:, None] + steps,
        "∇u = (1, 1) everywhere: z_t = z_0 + (t, t); the step adds ∇u, it does not take it off",
    )
    close(
        attempt(function, lambda z, t: 0.5 * z, z, 4),
        z[:, None] * 1.5**steps,
        "∇u = ½z: each step multiplies z_t by 1.5, so the gradient has to be taken at the *present* point, not at z_0",
    )
    close(
        attempt(function, lambda z, t: t * torch.ones_like(z), z, 4),
        z[:, None] + steps * (steps - 1) / 2,
        "∇u = (t, t): the first step leaves at t = 0 and stays, the second leaves at t = 1; "
        "is the time that of the start of each step?",
    )
    passed("follow takes each step from where the last one ended, at the time at which it starts")


def visible_motion(function: Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor]) -> None:
    """Check ``function(decode, z (B, d), velocity (B, d)) -> (B,)``, log(1 + ‖J v‖²) of images (B, C, H, W).

    Properties: nothing moves where the velocity is 0, a linear decoder has J v in closed form, the norm is a sum of
    squares over all pixels and channels, the Jacobian is that of the point, and samples do not mix.
    """
    generator = torch.Generator().manual_seed(0)
    z, velocity = (torch.randn(4, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    matrix = torch.randn(3, 2 * 5 * 4, dtype=torch.float64, generator=generator)

    def linear(z: Tensor) -> Tensor:
        return (z @ matrix).unflatten(1, (2, 5, 4)) + 1

    still = attempt(function, linear, z, torch.zeros_like(velocity))
    close(still, torch.zeros(4), "Where the velocity is 0 the image stands still: log(1 + 0) = 0, one value a sample")
    squares = (velocity @ matrix).square().sum(1)
    found = attempt(function, linear, z, velocity)
    require((found > 0).all(), "log(1 + ‖J v‖²) is never negative: the minus sign belongs to the loss, not here")
    require(
        not torch.allclose(found.to(squares), squares), "That is ‖J v‖² itself: the logarithm log(1 + …) is missing"
    )
    close(
        found,
        torch.log1p(squares),
        "A linear decoder x = M z has J v = M v: sum the *squares* over channels and pixels, then the logarithm; "
        "no average and no root",
    )

    def bent(z: Tensor) -> Tensor:
        return torch.sigmoid(linear(z))

    slope = bent(z) * (1 - bent(z)) * (velocity @ matrix).unflatten(1, (2, 5, 4))
    close(
        attempt(function, bent, z, velocity),
        torch.log1p(slope.square().flatten(1).sum(1)),
        "With a sigmoid at the end J depends on the point: take the derivative at z, in the direction of the velocity "
        "(the difference of two decoded images is not a derivative)",
    )
    passed("visible_motion is log(1 + ‖J v‖²) for a linear and a bent decoder, and 0 where nothing moves")
