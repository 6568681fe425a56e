"""Checks of lesson 10, composing and generalising: brackets, symmetric splitting, phases in order, a fair score."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from poflow_lite.check._common import attempt, close, passed, require

__all__ = ["bracket", "follow_phases", "strang", "trial_score"]

Field = Callable[[Tensor], Tensor]


def bracket(function: Callable[[Field, Field, Tensor], Tensor]) -> None:
    """Check ``function(v, w, z (B, d)) -> (B, d)``, [v, w] = (∂w/∂z) v - (∂v/∂z) w at each point.

    Properties: a constant field and a linear one give the matrix times the constant, with the sign of the order; linear
    fields that commute give 0; the bracket changes its sign with the order; and for bent fields it is what "first v,
    then w" and "first w, then v" differ by, to leading order.
    """
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    a, b = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)
    constant = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    def still(x):
        return constant.expand_as(x)

    def first(x):
        return x @ a.T

    def second(x):
        return x @ b.T

    def bent(x):
        return torch.stack([x[:, 1] * x[:, 2], x[:, 0].sin(), x[:, 0] * x[:, 1]], 1)

    found = attempt(function, still, second, z)
    require(found.shape == z.shape, f"a vector at each point: expected shape (5, 3), got {tuple(found.shape)}")
    close(
        found,
        (constant @ b.T).expand_as(z),
        "For a constant v and w(z) = B z the bracket is B v: how w changes along v, first. It is not w(v) - v(w), "
        "which puts a velocity where a point belongs; mind the sign, and B is not transposed (jvp, not vjp)",
    )
    close(
        attempt(function, first, still, z),
        -(constant @ a.T).expand_as(z),
        "For v(z) = A z and a constant w it is -A w: the second turn is subtracted",
    )
    diagonal = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
    close(
        attempt(function, lambda x: x * diagonal, lambda x: x * diagonal.flip(0), z),
        torch.zeros_like(z),
        "Two diagonal matrices commute, and so do their flows: the two turns must cancel",
    )
    close(attempt(function, first, second, z), z @ (b @ a - a @ b).T, "For A z and B z it is (B A - A B) z")
    found = attempt(function, bent, second, z)
    close(attempt(function, second, bent, z), -found, "[w, v] = -[v, w]")
    epsilon = 1e-4
    one, other = z + epsilon * bent(z), z + epsilon * second(z)
    gap = (one + epsilon * second(one) - other - epsilon * bent(other)) / epsilon**2
    close(found, gap, "It must be what two small steps in the two orders differ by, divided by ε²", tolerance=5e-3)
    passed("bracket says how much the order of two small steps matters")


def strang(function: Callable[..., Tensor]) -> None:
    """Check ``function(first, second, z (B, d), time, steps) -> (B, d)``, symmetric splitting.

    ``first(z, τ)`` and ``second(z, τ)`` carry points exactly along one flow for a time τ.

    Properties: no time, no motion; exact for flows that commute, in one step; each flow gets all of the time; with
    twice as many steps the error is a quarter; going the same time back undoes it.
    """
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    a, b = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)

    def along(matrix):
        return lambda x, tau: x @ torch.matrix_exp(tau * matrix).T

    close(attempt(function, along(a), along(b), z, 0.0, 3), z, "In no time nothing moves, however many steps")
    shift = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    slide = [lambda x, tau: x + tau * shift, lambda x, tau: x - 3 * tau * shift.flip(0)]
    expected = z + 2 * (shift - 3 * shift.flip(0))
    for steps in (1, 4):
        close(
            attempt(function, *slide, z, 2.0, steps),
            expected,
            f"Two shifts commute: after time 2 in {steps} steps each flow must have run for 2 in all. The halves of "
            "the first add up to a whole; a step takes time ÷ steps",
        )
    exact = z @ torch.matrix_exp(a + b).T
    errors = [(attempt(function, along(a), along(b), z, 1.0, n) - exact).norm().item() for n in (16, 32, 64)]
    require(errors[-1] < errors[0], "More steps must come closer to the flow of the sum: does `steps` matter?")
    ratio = errors[1] / max(errors[2], 1e-15)
    require(
        3.5 < ratio < 4.5,
        f"With twice as many steps the error must be a quarter, here it fell by a factor of {ratio:.2f}. A factor of 2 "
        "is Lie-Trotter, all of the first and then all of the second: split the first in halves around the second",
    )
    there = attempt(function, along(a), along(b), z, 1.0, 5)
    close(
        attempt(function, along(a), along(b), there, -1.0, 5),
        z,
        "The step is symmetric: with minus the time it retraces itself exactly. First for half, second, first for half",
    )
    passed("strang is of second order and can be undone")


def follow_phases(function: Callable[..., Tensor]) -> None:
    """Check ``function(step, z (B, d), phases) -> (B, frames + 1, d)``, one phase after the other.

    ``step(z, t, y)`` carries points from frame t of a motion to frame t + 1; ``phases`` is a list of (y, frames), y the
    weights (K,) of what moves.

    Properties: z comes first; a frame for each step; the clock of every phase begins at 0; a phase begins where the
    one before has ended; order and weights are those given.
    """
    z = torch.tensor([[0.0, 1.0], [2.0, -1.0]], dtype=torch.float64)
    one, two = torch.eye(2, dtype=torch.float64)
    calls: list[float] = []

    def clocked(x, t, y):
        calls.append(float(t))
        return x + (1 + t) * y

    found = attempt(function, clocked, z, [(one, 3)])
    require(
        found.shape == (2, 4, 2), f"3 steps and the start make (B, 4, d): expected (2, 4, 2), got {tuple(found.shape)}"
    )
    close(found[:, 0], z, "The path begins with z itself")
    close(found[:, 1:], z[:, None] + one * torch.tensor([1.0, 3.0, 6.0])[:, None], "One phase: t = 0, 1, 2, with y")
    calls.clear()
    found = attempt(function, clocked, z, [(one, 2), (two, 3)])
    require(
        found.shape == (2, 6, 2),
        f"2 and 3 steps make 6 frames: the last of a phase is the first of the next, and is not repeated; got "
        f"{tuple(found.shape)}",
    )
    require(
        calls == [0.0, 1.0, 0.0, 1.0, 2.0],
        f"Each phase has a clock of its own, from 0: expected t = 0, 1 and then 0, 1, 2, got {calls}",
    )
    ends = torch.tensor([[1.0, 0.0], [3.0, 0.0], [3.0, 1.0], [3.0, 3.0], [3.0, 6.0]], dtype=torch.float64)
    close(found[:, 1:], z[:, None] + ends, "The second phase begins where the first has ended, in the order given")

    def turning(x, t, y):  # two maps that do not commute
        quarter = torch.stack([-x[:, 1], x[:, 0]], 1)
        return y[0] * quarter + y[1] * (x + 1.0)

    expected = turning(turning(turning(z, 0, one), 1, one), 0, two)
    close(
        attempt(function, turning, z, [(one, 2), (two, 1)])[:, -1],
        expected,
        "First phase first: these two motions do not commute",
    )
    both = attempt(function, clocked, z, [(one + two, 1)])
    close(both[:, 1], z + 1, "Weights go to the step as they are: two ones move by both")
    passed("follow_phases hands over from phase to phase")


def trial_score(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``function(predicted, true) -> ()``, both (M, B, T+1, C, H, W): error ÷ no motion, mean over M motions.

    Properties: 1 for standing still, 0 for the truth; frame 0 does not count; absolute differences; within a motion the
    sums over all images are divided, and every motion weighs alike.
    """
    generator = torch.Generator().manual_seed(2)
    true = torch.rand(3, 4, 5, 1, 2, 2, generator=generator, dtype=torch.float64)
    still = true[:, :, :1].expand_as(true)
    found = attempt(function, still, true)
    require(found.shape == (), f"one number for a trial, shape (), got {tuple(found.shape)}")
    close(found, 1.0, "Standing still in the first true frame must score 1: that is the unit")
    close(attempt(function, true, true), 0.0, "The truth must score 0")
    halfway = still + 0.5 * (true - still)
    close(attempt(function, halfway, true), 0.5, "Half of the way leaves half of the error: absolute, not squared")
    spoiled = halfway.clone()
    spoiled[:, :, 0] += 0.5
    close(
        attempt(function, spoiled, true),
        0.5,
        "Frame 0 is given, not predicted: it must not count, and standing still repeats the *true* first frame",
    )
    over = true + (true - still)
    close(attempt(function, over, true), 1.0, "Too far is as wrong as not at all: take absolute values before summing")

    lively = torch.zeros(2, 3, 2, 1, 1, 1, dtype=torch.float64)
    lively[0, :, 1], lively[1, :, 1] = 10.0, 0.1  # the first motion changes a hundred times more pixels
    predicted = torch.zeros_like(lively)
    predicted[0, :, 1] = 10.0
    close(
        attempt(function, predicted, lively),
        0.5,
        "Every motion weighs alike: first divide, motion by motion, and then average. A quotient of sums over all "
        "motions is decided by those that change many pixels",
    )
    uneven = torch.zeros(1, 2, 2, 1, 1, 1, dtype=torch.float64)
    uneven[0, 0, 1], uneven[0, 1, 1] = 1.0, 1e-3
    guessed = torch.zeros_like(uneven)
    guessed[0, 0, 1], guessed[0, 1, 1] = 1.0, 0.1
    expected = (0.1 - 1e-3) / (1 + 1e-3)
    require(math.isfinite(float(attempt(function, guessed, uneven))), "The score must be finite")
    close(
        attempt(function, guessed, uneven),
        expected,
        "Within a motion divide the sums over all images and frames: image by image, one that hardly moves would "
        "decide the score",
    )
    other = torch.rand(true.shape, generator=generator, dtype=torch.float64)
    sums = [(x - true)[:, :, 1:].abs().flatten(1).sum(1) for x in (other, still)]
    close(
        attempt(function, other, true),
        (sums[0] / sums[1]).mean(),
        "Sum absolute differences over images, later frames and pixels, divide motion by motion, then average. Roots "
        "of sums of squares are another norm",
    )
    passed("trial_score has standing still as its unit")
