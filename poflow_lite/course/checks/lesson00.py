"""Checks of lesson 00, start here: the cost of standing still, distance on the colour circle, mixed velocities."""

import torch

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal, uniform


@Exercise
def no_motion_error(f: Function) -> Claims:
    """f(frames (B, T+1, C, H, W)) -> (): mean over sequences of Σ_t ‖x_t - x_0‖₁, the error of predicting frame 0."""
    still, jump = torch.full((3, 4, 2, 2, 2), 0.5).double(), torch.zeros(1, 4, 2, 2, 2).double()
    swinging = still.clone()
    jump[:, 1:], swinging[:, 1], swinging[:, 2] = 1.0, 0.75, 0.25
    yield f(still), (), "Return one number for the whole batch"
    yield f(still), 0.0, "Where nothing moves, standing still is perfect: compare the frames with frame 0"
    hint = "Three frames of 2×2×2 numbers wrong by 1 make 24: add all up, each against frame 0 (not the frame before)"
    yield f(jump), 24.0, hint
    yield f(swinging) > 1e-6, "Brighter and darker frames must not cancel: take absolute values before you add"
    yield f(jump / 2), 12.0, "Half the difference is half the error: absolute values, no squares"
    hint = "Errors 24, 0, 0, 24 have a mean of 12: average over the sequences, each compared with its own frame 0"
    yield f(torch.cat([jump, still[:2], jump])), 12.0, hint
    return "is the yardstick: what standing still costs"


@Exercise
def hue_distance(f: Function) -> Claims:
    """f(a, b) -> same shape: the angle between two hues in degrees, the short way round the circle."""
    found = f(doubles(10, 0, 90, 20), doubles(50, 180, 60, 20))
    yield (found >= 0).all(), "A distance is never negative, whichever hue comes first"
    yield found, doubles(40, 180, 30, 0), "10° and 50° are 40° apart: degrees, one for each pair"
    hint = "350° and 10° are 20° apart, across red: a circle has no seam. Take the short way, min(d, 360 - d)"
    yield f(doubles(350, 10, 0), doubles(10, 350, 359)), doubles(20, 20, 1), hint
    hint = "Whole turns change no hue: take the difference modulo 360 first"
    yield f(doubles(0, 730, -30), doubles(720, 0, 1050)), doubles(0, 10, 0), hint
    a, b, turn = 1440 * uniform(3, 500) - 720
    yield f(a + turn, b + turn), f(b, a), "Turning both hues alike, or swapping them, must not change their distance"
    return "lives on the circle: 350° and 10° are 20° apart"


@Exercise
def mixed_velocity(f: Function) -> Claims:
    """f(weights (B, K), velocities (B, K, d)) -> (B, d): Σ_k y_k v^k for every sample."""
    velocities, one_hot, weights = normal(3, 3, 3), torch.eye(3).double()[[2, 0, 1]], normal(3, 3, seed=1)
    expected = velocities[[0, 1, 2], [2, 0, 1]]
    hint = "A one-hot weight selects k's velocity, each sample its own: sum over k, the axis of length K, and no other"
    yield f(one_hot, velocities), expected, hint
    yield f(0 * one_hot, velocities), 0 * expected, "With all weights 0 nothing moves"
    yield f(2 * one_hot, velocities), 2 * expected, "Twice the weights, twice the velocity: weights are not normalised"
    by_hand = sum(weights[:, k, None] * velocities[:, k] for k in range(3))
    yield f(weights, velocities), by_hand, "It is y_1 v^1 + … + y_K v^K, a sum, with each sample's own weights"
    return "is what the sliders of this lesson do"
