"""Checks of lesson 06, PoFlow: d'Alembert's solution, the wave residual, following a potential, visible motion."""

import torch
from torch import Tensor

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal


@Exercise
def dalembert(f: Function) -> Claims:
    """f(g, x (n,), t, c) -> (n,): the wave on a line that starts at rest with the shape g."""
    x = torch.linspace(-4, 4, 33).double()

    def lump(x: Tensor) -> Tensor:  # not symmetric: the sides cannot be mistaken for each other
        return torch.exp(-(x**2)) * (1 + 0.5 * x)

    hint = "At t = 0 the wave must be g: two waves of *half* the height, added, not subtracted"
    yield f(lump, x, 0.0, 0.7), lump(x), hint
    hint = "After a long time both halves have left the window: each must move with time"
    yield f(lump, x, 200.0, 0.7).abs().max() < 1e-6, hint
    for side in (1, -1):
        hint = f"At t = 200 and c = 0.7 half of g, not mirrored, must sit at x = {side * 140}: g(x ∓ ct) moves by c t"
        yield f(lump, x + side * 140.0, 200.0, 0.7), 0.5 * lump(x), hint
    return "splits g into two halves that run away at speed c"


@Exercise
def wave_defect(f: Function) -> Claims:
    """f(u, z (B, d), t (B,), c) -> (B,): ∂_tt u - c² Δu of a potential u(z, t) by autograd."""
    z, t, weights = normal(6, 3), torch.arange(6).double(), doubles(1, 2, -1)

    def weighted(z: Tensor, t: Tensor) -> Tensor:
        return z.pow(3) @ weights / 6 + 0 * t.pow(3)

    hint = "u = Σ a_i z_i³/6 has Δu = Σ a_i z_i: mind the minus sign; it is a sum, not an average, for each sample"
    yield f(weighted, z, t, 1.0), -z @ weights, hint
    hint = "With c = 3 the Laplacian must count 9 times: the speed enters as c²"
    yield f(weighted, z, t, 3.0), -9 * z @ weights, hint
    hint = "u = z_1 z_2 has Δu = 0: only the diagonal of the Hessian counts, no mixed derivatives"
    yield f(lambda z, t: z[:, 0] * z[:, 1] + 0 * t.pow(3), z, t, 1.0), 0 * t, hint
    hint = "u = t³ has ∂_tt u = 6t for each sample's own t: the second derivative, with the sign +"
    yield f(lambda z, t: t.pow(3) + 0 * z.pow(3).sum(-1), z, t, 2.0), 6 * t, hint
    n = doubles(0.5, -1.0, 0.3)
    hint = "A plane wave of speed c solves the equation: the defect must vanish"
    yield f(lambda z, t: torch.sin(z @ n - 0.6 * n.norm() * t), z, t, 0.6), 0 * t, hint
    return "vanishes on plane waves at their own speed"


@Exercise
def follow(f: Function) -> Claims:
    """f(gradient, z (B, d), steps) -> (B, steps + 1, d): z_{t+1} = z_t + gradient(z_t, t) from t = 0."""
    z, steps = doubles([1.0, -2.0], [0.5, 3.0]), torch.arange(5).double()[:, None]
    path = f(lambda z, t: torch.ones_like(z), z, 4)
    yield path, (2, 5, 2), "4 steps visit 5 points, the start among them: (B, steps + 1, d)"
    hint = "∇u = (1, 1) everywhere: z_t = z_0 + (t, t); the step adds ∇u, it does not take it off"
    yield path, z[:, None] + steps, hint
    hint = "∇u = ½z multiplies z_t by 1.5 in each step: take the gradient at the *present* point, not at z_0"
    yield f(lambda z, t: 0.5 * z, z, 4), z[:, None] * 1.5**steps, hint
    hint = "∇u = (t, t): the first step leaves at t = 0, the second leaves at t = 1: the time of the start of each step"
    yield f(lambda z, t: t * torch.ones_like(z), z, 4), z[:, None] + steps * (steps - 1) / 2, hint
    return "takes each step from where the last one ended, at the time at which it starts"


@Exercise
def visible_motion(f: Function) -> Claims:
    """f(decode, z (B, d), velocity (B, d)) -> (B,): log(1 + ‖J v‖²) of the images decode(z), (B, C, H, W)."""
    (z, velocity), matrix = normal(2, 4, 3), normal(3, 40, seed=1)

    def linear(z: Tensor) -> Tensor:
        return (z @ matrix).unflatten(1, (2, 5, 4)) + 1

    def bent(z: Tensor) -> Tensor:
        return torch.sigmoid(linear(z))

    hint = "Where the velocity is 0 the image stands still: log(1 + 0) = 0, one value a sample"
    yield f(linear, z, 0 * velocity), [0.0] * 4, hint
    squares, found = (velocity @ matrix).square().sum(1), f(linear, z, velocity)
    yield (found > 0).all(), "log(1 + ‖J v‖²) is never negative: the minus sign belongs to the loss, not here"
    yield not torch.allclose(found, squares), "That is ‖J v‖² itself: the logarithm log(1 + …) is missing"
    hint = "x = M z has J v = M v: sum the *squares* over channels and pixels, no average and no root, then log(1 + …)"
    yield found, squares.log1p(), hint
    slope = bent(z).flatten(1) * (1 - bent(z).flatten(1)) * (velocity @ matrix)
    hint = "For a bent decoder take the derivative at z, along v (a difference of two images is not a derivative)"
    yield f(bent, z, velocity), slope.square().sum(1).log1p(), hint
    return "is log(1 + ‖J v‖²) for a linear and a bent decoder, and 0 where nothing moves"
