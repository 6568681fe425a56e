"""Checks of lesson 10, composing and generalising: brackets, symmetric splitting, segments in order, a fair score."""

import torch
from torch import Tensor

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal, uniform


@Exercise
def bracket(f: Function) -> Claims:
    """f(v, w, z (B, d)) -> (B, d): [v, w] = (∂w/∂z) v - (∂v/∂z) w at each point."""
    z, (a, b), constant = normal(5, 3), normal(2, 3, 3, seed=1), doubles(1, -2, 0.5)
    still, first, second, bent = (
        lambda x: constant.expand_as(x),
        lambda x: x @ a.T,
        lambda x: x @ b.T,
        lambda x: torch.stack([x[:, 1] * x[:, 2], x[:, 0].sin(), x[:, 0] * x[:, 1]], 1),
    )
    yield f(still, second, z), (5, 3), "It is a vector at each point, (B, d)"
    hint = """For a constant v and w(z) = B z the bracket is B v: how w changes along v, first. It is not w(v) - v(w),
        which puts a velocity where a point belongs; mind the sign, and B is not transposed (jvp, not vjp)"""
    yield f(still, second, z), (constant @ b.T).expand_as(z), hint
    hint = "For v(z) = A z and a constant w it is -A w: the second turn is subtracted"
    yield f(first, still, z), -(constant @ a.T).expand_as(z), hint
    eps = 1e-4
    one, other = z + eps * bent(z), z + eps * second(z)
    gap = (one + eps * second(one) - other - eps * bent(other)) / eps**2
    yield f(bent, second, z), gap, "It must be what two small steps in the two orders differ by, divided by ε²", 5e-3
    return "says how much the order of two small steps matters"


@Exercise
def strang(f: Function) -> Claims:
    """f(first, second, z (B, d), time, steps) -> (B, d): symmetric splitting.

    ``first(z, τ)`` and ``second(z, τ)`` carry points exactly along one flow for a time τ.
    """
    z, (a, b), shift = normal(6, 3), normal(2, 3, 3, seed=1), doubles(1, 0, 2)
    flows = [lambda x, tau, m=m: x @ torch.matrix_exp(tau * m).T for m in (a, b)]
    slides = [lambda x, tau: x + tau * shift, lambda x, tau: x - 3 * tau * shift.flip(0)]
    hint = "After time 2 each of two shifts has run for 2: the halves of the first add up; a step takes time ÷ steps"
    for steps in (1, 4):
        yield f(*slides, z, 2.0, steps), z + 2 * (shift - 3 * shift.flip(0)), hint
    exact = z @ torch.matrix_exp(a + b).T
    errors = [(f(*flows, z, 1.0, n) - exact).norm() for n in (16, 32, 64)]
    yield errors[2] < errors[0], "More steps must come closer to the flow of the sum: does `steps` matter?"
    hint = f"""Twice as many steps must quarter the error, here it fell by {errors[1] / errors[2]:.2f}. A factor of 2 is
        Lie-Trotter, all of the first and then all of the second: split the first in halves around the second"""
    yield 3.5 < errors[1] / errors[2] < 4.5, hint
    hint = "With minus the time the step retraces itself exactly: first for half, second, first for half"
    yield f(*flows, f(*flows, z, 1.0, 5), -1.0, 5), z, hint
    return "is of second order and can be undone"


@Exercise
def follow_phases(f: Function) -> Claims:
    """f(step, z (B, d), segments) -> (B, frames + 1, d): one segment after the other, each with a clock from 0.

    ``step(z, t, y)`` carries points from frame t of a motion to t + 1; ``segments`` lists (y (K,) weights, frames).
    """
    z, (one, two), calls = doubles([0.0, 1.0], [2.0, -1.0]), torch.eye(2).double(), []

    def clocked(x: Tensor, t: float, y: Tensor) -> Tensor:
        calls.append(float(t))
        return x + (1 + t) * y

    found = f(clocked, z, [(one, 3)])
    yield found, (2, 4, 2), "3 steps and the start make (B, 4, d): a last frame is the next segment's first, once"
    yield found, z[:, None] + one * doubles(0, 1, 3, 6)[:, None], "One segment from z: t = 0, 1, 2, with y"
    calls.clear()
    found = f(clocked, z, [(one, 2), (two, 3)])
    hint = f"Each segment has a clock of its own, from 0: expected t = 0, 1 and then 0, 1, 2, got {calls}"
    yield calls == [0, 1, 0, 1, 2], hint
    ends = doubles([0, 0], [1, 0], [3, 0], [3, 1], [3, 3], [3, 6])
    yield found, z[:, None] + ends, "The second segment begins where the first has ended, in the order given"
    yield f(clocked, z, [(one + two, 1)])[:, 1], z + 1, "Weights go to the step as they are: two ones move by both"
    return "hands over from segment to segment"


@Exercise
def trial_score(f: Function) -> Claims:
    """f(predicted, true, both (M, B, T+1, C, H, W)) -> (): error ÷ no motion, mean over the M motions."""
    true, other = uniform(2, 3, 4, 5, 1, 2, 2)
    still = true[:, :, :1].expand_as(true)
    halfway = still + 0.5 * (true - still)
    spoiled = halfway.clone()
    spoiled[:, :, 0] += 0.5
    yield f(still, true), (), "It is one number for a trial, shape ()"
    yield f(still, true), 1.0, "Standing still in the first true frame must score 1: that is the unit"
    yield f(halfway, true), 0.5, "Half of the way leaves half of the error: absolute, not squared"
    hint = "Frame 0 is given, not predicted: it must not count, and standing still repeats the *true* first frame"
    yield f(spoiled, true), 0.5, hint
    lively, uneven = doubles(0, 10, 0, 0.1).reshape(2, 1, 2, 1, 1, 1), doubles(0, 1, 0, 1e-3).reshape(1, 2, 2, 1, 1, 1)
    hint = "Every motion weighs alike: divide, motion by motion, then average, lest the largest change decides"
    yield f(doubles(0, 10, 0, 0).reshape(lively.shape), lively), 0.5, hint
    hint = "Within a motion divide sums over images and frames: image by image, one that hardly moves would decide"
    yield f(doubles(0, 1, 0, 0.1).reshape(uneven.shape), uneven), (0.1 - 1e-3) / (1 + 1e-3), hint
    error, unit = ((x - true)[:, :, 1:].abs().flatten(1).sum(1) for x in (other, still))
    yield f(other, true), (error / unit).mean(), "Sum absolute differences: roots of sums of squares are another norm"
    return "has standing still as its unit"
