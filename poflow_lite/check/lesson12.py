"""Checks of lesson 12, beyond: logistic noise, the price of spikes, targets of flow matching, circulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from poflow_lite.check._common import attempt, close, passed, require

__all__ = ["circulation", "logistic_noise", "matching_target", "spike_kl"]


def logistic_noise(function: Callable[[Tensor], Tensor]) -> None:
    """Check ``function(u) -> noise`` of the same shape, logistic noise from uniform numbers.

    Properties: finite, 0 at ½, odd around it, rising, and the inverse of σ: a spike is on with probability σ(l).
    """
    u = torch.linspace(0.02, 0.98, 97, dtype=torch.float64)
    found = attempt(function, u)
    require(found.shape == u.shape, f"a number for each u: expected shape {tuple(u.shape)}, got {tuple(found.shape)}")
    require(found.isfinite().all(), "For 0 < u < 1 the noise is finite: is one of the logarithms taken of 1 - 1?")
    close(
        found[48],
        0.0,
        "At u = ½ a fair coin pushes neither way. The noise is the difference of two logarithms, of u and of 1 - u; "
        "one logarithm alone, or one Gumbel, -log(-log u), is lopsided",
    )
    close(found + found.flip(0), torch.zeros_like(u), "Noise at u and at 1 - u must cancel: it is symmetric")
    require((found.diff() > 0).all(), "The noise must rise with u: log u - log(1 - u), and not the reverse")
    close(torch.sigmoid(found), u, "σ(noise) must give u back: no factor, natural logarithms")
    close(attempt(function, u.reshape(1, 97)), found[None], "Keep the shape of u")
    passed("logistic_noise turns a spike on with probability σ(l)")


def spike_kl(function: Callable[[Tensor, float], Tensor]) -> None:
    """Check ``function(q (B, M), p) -> (B,)``, Σ_m KL(Bernoulli(q_m) ‖ Bernoulli(p)), nats.

    Properties: 0 where q = p, positive elsewhere, not symmetric in q and p, added up over fields, not over the batch.
    """
    p = 0.2
    same = torch.full((3, 4), p, dtype=torch.float64)
    close(attempt(function, same, p), torch.zeros(3), "With q = p there is nothing to pay, for each sequence: (B,)")
    q = torch.tensor([[0.9], [0.01]], dtype=torch.float64)
    found = attempt(function, q, p)
    require((found > 0).all(), "A divergence is positive where q ≠ p: both states count, on and off; mind the sign")
    on, off = q[:, 0], 1 - q[:, 0]
    expected = on * (on / p).log() + off * (off / (1 - p)).log()
    close(
        found,
        expected,
        "q log(q/p) + (1-q) log((1-q)/(1-p)): the mean is over q, on and off both count, natural logarithms. "
        "KL(p ‖ q) is another number",
    )
    wide = q.expand(2, 5)
    close(attempt(function, wide, p), 5 * expected, "Five fields pay five times as much: sum over m, no mean")
    mixed = torch.tensor([[0.9, 0.01], [0.01, 0.9]], dtype=torch.float64)
    close(attempt(function, mixed, p), expected.sum().expand(2), "Each sequence adds up its own fields: axis 1")
    fair = math.log(2) + on * on.log() + off * off.log()
    close(attempt(function, q, 0.5), fair, "p is an argument: do not fix it at the value of the lesson")
    passed("spike_kl charges every field for what it says")


def matching_target(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Check ``function(start (B, d), end (B, d), tau (B,)) -> (2, B, d)``, point on the line and velocity there.

    Properties: the line begins and ends where it should, the velocity is constant and carries start to end in one
    frame, and it is the slope of the point in τ.
    """
    generator = torch.Generator().manual_seed(0)
    start, end = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    zero, one = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    found = attempt(function, start, end, zero)
    require(found.shape == (2, 4, 3), f"stack point and velocity: expected shape (2, 4, 3), got {tuple(found.shape)}")
    close(found[0], start, "At τ = 0 the point is the start: which end does τ weigh?")
    close(attempt(function, start, end, one)[0], end, "At τ = 1 the point is the end")
    close(
        found[1],
        end - start,
        "The velocity is end - start, in this order, for a whole frame: no factor τ or 1 - τ, no unit length",
    )
    tau = torch.tensor([0.25, 0.5, 0.75, 0.1], dtype=torch.float64)
    middle = attempt(function, start, end, tau)
    close(middle[1], end - start, "The velocity on a straight line is the same at every τ")
    close(
        middle[0],
        (1 - tau)[:, None] * start + tau[:, None] * end,
        "(1 - τ) start + τ end, each row with its own τ: tau[:, None]",
    )
    passed("matching_target needs no simulation")


def circulation(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``function(values (n, d), corners (n, d)) -> ()``, Σ_i v_i · (c_{i+1} - c_i) around a closed polygon.

    Properties: 0 for constant fields, which needs the closing edge, twice the area for a rotation, its sign that of the
    sense of turning, linear in the field, in any dimension.
    """
    angle = torch.arange(12, dtype=torch.float64) * 2 * math.pi / 12
    corners = torch.stack([2 * angle.cos(), angle.sin()], 1)
    middles = 0.5 * (corners + corners.roll(-1, 0))
    found = attempt(function, torch.tensor([[1.0, -2.0]], dtype=torch.float64).expand(12, 2), corners)
    require(found.shape == (), f"one number for the whole loop, shape (), got {tuple(found.shape)}")
    close(
        found,
        0.0,
        "A constant field does no work around a closed loop: the last edge goes back to the first corner, "
        "and the sign of each edge counts",
    )
    turning = torch.stack([-middles[:, 1], middles[:, 0]], 1)
    area = 0.5 * (corners[:, 0] * corners.roll(-1, 0)[:, 1] - corners[:, 1] * corners.roll(-1, 0)[:, 0]).sum()
    found = attempt(function, turning, corners)
    require(found > 0, "Turning with the loop is positive: an edge is the next corner minus this one")
    close(
        found,
        2 * area,
        "For v = (-y, x) it is twice the area inside: a sum over edges and coordinates, no mean, no unit vectors. "
        "values[i] belongs to the edge from corners[i] to corners[i + 1]",
    )
    close(attempt(function, 3 * turning, corners), 6 * area, "Three times the field is three times the circulation")
    lifted = [torch.cat([part, part.new_ones(12, 1)], 1) for part in (turning, corners)]
    close(attempt(function, *lifted), 2 * area, "It must work in any dimension: dot products, not the plane's cross")
    passed("circulation is what no gradient has")
