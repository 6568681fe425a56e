"""Checks of lesson 03, equivariance: the matrix exponential, the error round the square, the ridge map, capsules."""

import math

import torch

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal, one_by_one, uniform


@Exercise
def group_element(f: Function) -> Claims:
    """f(A (n, n), a) -> (n, n): exp(aA), the element of the group with the generator A."""
    turn = doubles([0.0, -1.0], [1.0, 0.0])
    hint = "a = 0 must give the identity matrix: the series starts with I, and exp is not taken entry by entry"
    yield f(turn, 0.0), torch.eye(2), hint
    slope = (f(turn, 1e-4) - f(turn, -1e-4)) / 2e-4
    yield slope, turn, "The derivative at a = 0 must be the generator A itself: look at the sign and the transpose"
    hint = "A diagonal generator gives exp(a λ): the terms of the series are (aA)^n / n!, with the factorial"
    yield f(doubles(1, -2).diag(), 0.7), doubles(math.exp(0.7), math.exp(-1.4)).diag(), hint
    hint = "T_a T_b = T_{a+b} must hold: take more terms of the series, or torch.linalg.matrix_exp"
    yield f(turn, -2.0) @ f(turn, 3.5), f(turn, 1.5), hint
    yield f(turn, math.pi / 2), turn, "A quarter turn must take (1, 0) to (0, 1)"
    return "composes, inverts, and has the generator as its derivative"


@Exercise
def equivariance_error(f: Function) -> Claims:
    """f(true, predicted, both (B, T+1, C, H, W)) -> (): mean over sequences of Σ_{t≥1} ‖x_t - x̂_t‖₁."""
    true = uniform(4, 6, 3, 5, 7)
    first, signs = true.clone(), torch.ones_like(true)
    first[:, 0] += 1
    signs[..., ::2] = -1
    yield f(true, true), 0.0, "A perfect prediction has the error 0, as one number, shape ()"
    yield f(true, first), 0.0, "Frame 0 was given, nobody predicted it: the sum runs over t = 1..T"
    hint = "An offset of 1 costs 3·5·7·5: sum over pixels, channels and frames, average over sequences only"
    yield f(true, true + 1), 525.0, hint
    yield f(true, true + signs), 525.0, "Errors of opposite sign must not cancel: absolute values come before any sum"
    hint = "Half the offset must have half the error: the norm is L1, neither squared nor rooted"
    yield f(true, true + 0.5), 262.5, hint
    return "counts every pixel of every later frame once"


@Exercise
def ridge_map(f: Function) -> Claims:
    """f(z0 (N, d), zt (N, d), ridge) -> (d, d + 1): [A | b] of the least mean ‖A z_0 + b - z_t‖² + ridge ‖A - I‖²."""
    z0, identity = 2.0 + normal(200, 3), torch.eye(3).double()
    exact = doubles([1.0, 0.5, 0.0, 1.0], [-0.7, 0.8, 0.2, -2.0], [0.0, 0.0, 1.3, 0.5])
    zt = z0 @ exact[:, :3].T + exact[:, 3]
    hint = "A tiny ridge: z_t = A z_0 + b must be recovered as [A | b]; mind the transpose, b = mean z_t - A mean z_0"
    yield f(z0, zt, 1e-9), exact, hint
    zt = zt + normal(200, 3, seed=1)
    hint = "A huge ridge leaves the translation, A = I: the penalty pulls A towards I, not 0, and does not touch b"
    yield f(z0, zt, 1e9), torch.cat([identity, (zt - z0).mean(0)[:, None]], 1), hint
    found = f(z0, zt, 0.4)
    matrix, shift = found[:, :3], found[:, 3]
    residual = z0 @ matrix.T + shift - zt
    yield residual.mean(0), [0.0] * 3, "The mean residual must vanish: b is fitted without a penalty"
    hint = "mean (A z_0 + b - z_t) z_0ᵀ + λ (A - I) must be 0: a mean over the N samples, not a sum, and λ not squared"
    yield residual.T @ z0 / len(z0) + 0.4 * (matrix - identity), 0 * matrix, hint
    return "solves the normal equations, from free regression to pure translation"


@Exercise
def capsule_code(f: Function) -> Claims:
    """f(z (B, n), u (B, n), mu, neighbours) -> (B, n): s = (z + μ) / √(W ∗ u²), one capsule of a topographic VAE.

    W is the mean over an odd number of neighbours on a circle of n places.
    """
    z, u = normal(2, 5, 8)
    two, ones = 0 * u + 2, 0 * u + 1
    hint = "With u = 2 the average of u² is 4 and s = z / 2: take a mean (not a sum) of squares, then the root"
    yield f(z, two, 0.0, 3), z / 2, hint
    yield f(z, two, 1.5, 3), (z + 1.5) / 2, "μ is added to z before the division: s = (z + μ) / √(W ∗ u²)"
    yield f(z, u, 0.0, 1), z / u.abs(), "With one neighbour s = z / |u|: square u, and take the root of the average"
    expected = doubles(1, 1, 9, 9, 9, 1, 1, 1).rsqrt().expand(5, 8)
    for place, hint in (
        (3, "A large u at place 3 must damp the places 2, 3 and 4 alike: the neighbourhood is centred"),
        (0, "A capsule is a circle: places 0 and n - 1 are neighbours"),
    ):
        peak = ones.clone()
        peak[:, place] = 5.0
        yield f(ones, peak, 0.0, 3), expected.roll(place - 3, 1), hint
    alone = one_by_one(lambda z, u: f(z.roll(2, -1), u.roll(2, -1), 0.3, 5).roll(-2, -1), z, u)
    yield f(z, u, 0.3, 5), alone, "Average over places, not samples, and no place of the circle may be special"
    return "shares variances round the circle, and commutes with every roll"
