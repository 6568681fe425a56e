"""Checks of lesson 00, start here: the cost of standing still, distance on the colour circle, mixed velocities."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from poflow_lite.check._common import attempt, close, passed, require

__all__ = ["hue_distance", "mixed_velocity", "no_motion_error"]


def no_motion_error(function: Callable[[Tensor], Tensor]) -> None:
    """Check ``function(frames (B, T+1, C, H, W)) -> scalar``, the L1 error of predicting frame 0 for every t.

    Properties: stills cost nothing, brighter and darker both count, every frame is compared with frame 0 and not with
    the one before, sums over frames, channels and pixels, and the mean is over sequences.
    """
    still = torch.full((3, 4, 2, 2, 2), 0.5, dtype=torch.float64)
    found = attempt(function, still)
    require(found.ndim == 0, f"return one number for the whole batch, a tensor of shape (), got {tuple(found.shape)}")
    close(found, 0.0, "Where nothing moves, standing still is perfect: compare the frames with frame 0")

    jump = torch.zeros(1, 4, 2, 2, 2, dtype=torch.float64)
    jump[:, 1:] = 1.0
    close(
        attempt(function, jump),
        24.0,
        "Three frames of 2×2×2 numbers, all of them wrong by 1, make an error of 24: every frame is compared with "
        "frame 0 (not with the frame before), and the error is a sum over frames, channels and pixels (no mean)",
    )
    swinging = still.clone()
    swinging[:, 1], swinging[:, 2] = 0.75, 0.25
    require(
        attempt(function, swinging) > 1e-6,
        "A frame that is brighter and one that is darker must not cancel: take absolute values before you add",
    )
    close(attempt(function, jump / 2), 12.0, "Half the difference is half the error: absolute values, no squares")
    close(
        attempt(function, torch.cat([jump, still[:2], jump])),
        12.0,
        "Two sequences with an error of 24 and two stills with 0 have a mean of 12: average over the sequences of the "
        "batch, and compare each with its own frame 0",
    )
    passed("no_motion_error is the yardstick: what standing still costs")


def hue_distance(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``function(a, b) -> same shape``, the angle between hues in degrees, the short way round the circle.

    Properties: zero for equal hues and for whole turns, symmetric, never above 180, and nothing changes when both
    hues are turned alike.
    """
    a = torch.tensor([10.0, 0.0, 90.0, 20.0], dtype=torch.float64)
    b = torch.tensor([50.0, 180.0, 60.0, 20.0], dtype=torch.float64)
    found = attempt(function, a, b)
    require((found >= 0).all(), "A distance is never negative, whichever hue comes first")
    close(found, torch.tensor([40.0, 180.0, 30.0, 0.0]), "10° and 50° are 40° apart: degrees, one for each pair")
    seam = attempt(function, a.new_tensor([350.0, 10.0, 0.0]), a.new_tensor([10.0, 350.0, 359.0]))
    close(
        seam,
        torch.tensor([20.0, 20.0, 1.0]),
        "350° and 10° are 20° apart, across red: a circle has no seam. Take the short way, min(d, 360 - d)",
    )
    turns = attempt(function, a.new_tensor([0.0, 730.0, -30.0]), a.new_tensor([720.0, 0.0, 1050.0]))
    close(turns, torch.tensor([0.0, 10.0, 0.0]), "Whole turns change no hue: take the difference modulo 360 first")
    generator = torch.Generator().manual_seed(0)
    a, b, turn = 1440 * torch.rand(3, 500, dtype=torch.float64, generator=generator) - 720
    found = attempt(function, a, b)
    require((found <= 180).all(), "No two hues are more than 180° apart")
    close(attempt(function, b, a), found, "The distance from a to b is that from b to a")
    close(attempt(function, a + turn, b + turn), found, "Turning both hues alike must not change their distance")
    passed("hue_distance lives on the circle: 350° and 10° are 20° apart")


def mixed_velocity(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``function(weights (B, K), velocities (B, K, d)) -> (B, d)``, Σ_k y_k v^k for every sample.

    Properties: a one-hot weight selects a flow, no weight means no motion, linear in the weights without
    normalisation, and each sample is mixed with its own weights.
    """
    generator = torch.Generator().manual_seed(0)
    velocities = torch.randn(3, 3, 3, dtype=torch.float64, generator=generator)
    one_hot = torch.eye(3, dtype=torch.float64)[[2, 0, 1]]
    found = attempt(function, one_hot, velocities)
    close(
        found,
        velocities[torch.arange(3), torch.tensor([2, 0, 1])],
        "A weight of 1 on one k and 0 on the others selects that k's velocity for each sample: sum over k, the axis of "
        "length K, and keep samples and latent dimensions apart, (B, d)",
    )
    close(attempt(function, 0 * one_hot, velocities), torch.zeros(3, 3), "With all weights 0 nothing moves")
    close(
        attempt(function, 2 * one_hot, velocities),
        2 * found,
        "Twice the weights, twice the velocity: weights are not normalised, and need not sum to 1",
    )
    weights = torch.randn(3, 3, dtype=torch.float64, generator=generator)
    by_hand = sum(weights[:, k, None] * velocities[:, k] for k in range(3))
    close(attempt(function, weights, velocities), by_hand, "The mixture is y_1 v^1 + … + y_K v^K, a sum and no mean")
    one = torch.ones(2, 4, dtype=torch.float64)
    fields = torch.randn(2, 4, 5, dtype=torch.float64, generator=generator)
    close(attempt(function, one, fields), fields.sum(1), "With all weights 1 the velocities add up: (2, 4, 5) ↦ (2, 5)")
    passed("mixed_velocity is what the sliders of this lesson do")
