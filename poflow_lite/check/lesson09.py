"""Checks of lesson 09, the experiments: the error of each transformation, paired differences, margins, densities."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from poflow_lite.check._common import attempt, close, passed, require

__all__ = ["error_by_transformation", "linear_log_density", "margin", "paired_difference"]


def error_by_transformation(function: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> None:
    """Check ``function(true, predicted (B, T+1, C, H, W), k (B,), transformations) -> (K,)``, equivariance errors.

    Properties: a perfect prediction has none, sums over frames, channels and pixels, frame 0 is not counted, the mean
    is over the sequences of one k only, and nothing depends on the order of the sequences.
    """
    k = torch.tensor([0, 1, 1, 2, 2, 2])
    true = torch.zeros(6, 3, 2, 2, 2, dtype=torch.float64)
    close(attempt(function, true, true, k, 3), torch.zeros(3), "A perfect prediction has error 0 for each k, (K,)")

    first = true.clone()
    first[:, 0] = 1.0
    close(attempt(function, true, first, k, 3), torch.zeros(3), "Frame 0 was given: count the frames t = 1..T only")

    size = torch.tensor([1.0, 2.0, 4.0, 3.0, 6.0, 9.0], dtype=torch.float64)
    predicted = true.clone()
    predicted[:, 1:] = -size[:, None, None, None, None]
    found = attempt(function, true, predicted, k, 3)
    require((found >= 0).all(), "Too dark and too bright are both errors: take absolute values before you add")
    close(
        found,
        torch.tensor([16.0, 48.0, 96.0]),
        "With all numbers of two frames, 2×2×2 each, wrong by 1; by 2 or 4; by 3, 6 or 9, the errors are 16·1, 16·3 "
        "and 16·6: sum over frames, channels and pixels, mean over the sequences of one k, no squares, "
        "and no mean over or from other transformations",
    )
    order = torch.tensor([5, 0, 3, 1, 4, 2])
    close(
        attempt(function, true[order], predicted[order], k[order], 3),
        found,
        "The order of the sequences must not matter: k says whose error it is, not the place in the batch",
    )
    passed("error_by_transformation keeps the transformations apart, whatever the order")


def paired_difference(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``function(ours (N,), theirs (N,)) -> (2,)``, the mean difference and its standard error, paired.

    Properties: ours minus theirs, no uncertainty where all images differ alike, falls with the root of N, and agrees
    with the spread of means over many redrawn test sets.
    """
    generator = torch.Generator().manual_seed(0)
    hard = 50 * torch.randn(400, dtype=torch.float64, generator=generator) + 300  # some images are hard for everyone
    found = attempt(function, hard, hard + 10)
    require(found.shape == (2,), f"return the mean difference and its standard error, (2,), got {tuple(found.shape)}")
    close(found[0], -10.0, "Where theirs errs by 10 more on every image, ours - theirs is -10: ours comes first")
    close(
        found[1],
        0.0,
        "Every image says the same, -10, so there is no uncertainty: take differences image by image first. "
        "That some images are hard for both models must cancel",
    )
    four = torch.tensor([1.0, 3.0, 5.0, 7.0], dtype=torch.float64)
    close(
        attempt(function, four, 0 * four)[1],
        math.sqrt(20 / 3 / 4),
        "Differences 1, 3, 5, 7 have the sample variance 20/3 (divide by N - 1), and the mean of 4 of them has a "
        "standard error of √(20/3) / √4: mind the division by √N",
    )
    noise = 8 * torch.randn(2, 500, 400, dtype=torch.float64, generator=generator)
    ours, theirs = hard + noise[0], hard + 10 + noise[1]
    spread = (ours - theirs).mean(1).std()
    errors = torch.stack([attempt(function, a, b)[1] for a, b in zip(ours[:50], theirs[:50], strict=True)])
    close(errors.mean(), spread, "The standard error must be what means scatter by over redrawn test sets", 0.1)
    passed(f"paired_difference foretells the scatter over redrawn test sets, {spread:.2f}")


def margin(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``function(ours (K,), baselines (M, K)) -> (K,)``, the share by which ours lies below the best of each k.

    Properties: 0 when level with the best, positive below it, the best is chosen for each k, adding a bad baseline
    changes nothing, and the unit of the errors does not matter.
    """
    ours = torch.tensor([70.0, 90.0, 120.0], dtype=torch.float64)
    single = torch.tensor([[100.0, 100.0, 100.0]], dtype=torch.float64)
    found = attempt(function, ours, single)
    require(found.shape == ours.shape, f"one share for each k, (K,), got {tuple(found.shape)}")
    require(
        found[0] > 0 and found[2] < 0, "70 lies below 100, so its margin is positive; 120 lies above, so it is negative"
    )
    close(
        found,
        torch.tensor([0.3, 0.1, -0.2]),
        "70, 90 and 120 against 100 are 0.3, 0.1 and -0.2: a share of the baseline, not of ours",
    )
    two = torch.tensor([[100.0, 900.0, 480.0], [700.0, 90.0, 240.0]], dtype=torch.float64)
    found = attempt(function, ours, two)
    close(
        found,
        torch.tensor([0.3, 0.0, 0.5]),
        "Each k has its own best baseline, the lowest error in its column: neither the mean nor the worst of the "
        "baselines, nor one baseline for all k",
    )
    more = torch.cat([two, torch.full((1, 3), 5000.0, dtype=torch.float64)])
    close(attempt(function, ours, more), found, "Adding a bad baseline must change nothing: compare with the best")
    close(attempt(function, 7 * ours, 7 * two), found, "A share has no unit: errors seven times as large give the same")
    passed("margin compares with the best baseline of each transformation")


def linear_log_density(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``function(log_q0 (B,), matrices (T, d, d)) -> (B, T)``, log q_t(A_t z_0 + b_t) for t = 1..T.

    Properties: rotations change nothing, contraction raises the density, reflections count by the size of their
    determinant, and each A_t starts from z_0, so that nothing is added up over t.
    """
    log_q0 = torch.tensor([0.5, -1.0], dtype=torch.float64)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    found = attempt(function, log_q0, torch.stack([turn, turn @ turn, turn.T]))
    close(found, log_q0[:, None].expand(2, 3), "Rotations keep volumes: log q_t = log q_0 for t = 1..T, shape (B, T)")
    half = 0.5 * torch.eye(2, dtype=torch.float64)
    shrunk = attempt(function, log_q0, half[None])
    require((shrunk[:, 0] > log_q0).all(), "A contraction packs probability tighter: log q rises. Mind the sign")
    close(
        shrunk[:, 0],
        log_q0 + math.log(4),
        "A = I/2 in two dimensions divides areas by 4, so log q rises by log 4: the determinant, not the trace",
    )
    mirror = torch.diag(torch.tensor([1.0, -2.0], dtype=torch.float64))
    found = attempt(function, log_q0, mirror[None])
    require(found.isfinite().all(), "A reflection has a negative determinant: take the logarithm of its absolute value")
    close(found[:, 0], log_q0 - math.log(2), "diag(1, -2) doubles areas: log q falls by log 2")
    both = attempt(function, log_q0, torch.stack([half, half]))
    close(
        both[:, 1],
        both[:, 0],
        "A_1 = A_2 = I/2, both maps from z_0: the density is the same at t = 1 and 2. "
        "Steps add up, maps from z_0 do not",
    )
    passed("linear_log_density knows what a matrix does to volumes")
