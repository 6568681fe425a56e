"""Checks of lesson 12, beyond: logistic noise, the price of spikes, targets of flow matching, circulation."""

import math

import torch

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal


@Exercise
def logistic_noise(f: Function) -> Claims:
    """f(u) -> same shape: logistic noise from uniform numbers, so that a spike is on with probability σ(l)."""
    u = torch.linspace(0.02, 0.98, 97).double()
    found = f(u)
    yield found, (97,), "It is a number for each u"
    hint = "At u = ½ a fair coin pushes neither way: log u minus log(1 - u); one logarithm, or one Gumbel, is lopsided"
    yield found[48], 0.0, hint
    yield (found.diff() > 0).all(), "The noise must rise with u: log u - log(1 - u), and not the reverse"
    yield torch.sigmoid(found), u, "σ(noise) must give u back: no factor, natural logarithms"
    return "turns a spike on with probability σ(l)"


@Exercise
def spike_kl(f: Function) -> Claims:
    """f(q (B, M), p) -> (B,): Σ_m KL(Bernoulli(q_m) ‖ Bernoulli(p)), nats."""
    hint = "With q = p there is nothing to pay, for each sequence: (B,)"
    yield f(torch.full((3, 4), 0.2).double(), 0.2), [0.0] * 3, hint
    q = doubles([0.9], [0.01])
    found, on, off = f(q, 0.2), q[:, 0], 1 - q[:, 0]
    yield (found > 0).all(), "A divergence is positive where q ≠ p: both states count, on and off; mind the sign"
    expected = on * (on / 0.2).log() + off * (off / 0.8).log()
    yield found, expected, "q log(q/p) + (1-q) log((1-q)/(1-p)), natural logarithms. KL(p ‖ q) is another number"
    yield f(q.expand(2, 5), 0.2), 5 * expected, "Five fields pay five times as much: sum over m, no mean"
    fair = math.log(2) + on * on.log() + off * off.log()
    yield f(q, 0.5), fair, "p is an argument: do not fix it at the value of the lesson"
    return "charges every field for what it says"


@Exercise
def matching_target(f: Function) -> Claims:
    """f(start (B, d), end (B, d), tau (B,)) -> (2, B, d): point on the line at τ, and velocity there."""
    (start, end), zero = normal(2, 4, 3), torch.zeros(4).double()
    found = f(start, end, zero)
    yield found, (2, 4, 3), "Stack point and velocity, (2, B, d)"
    yield found[0], start, "At τ = 0 the point is the start: which end does τ weigh?"
    yield f(start, end, zero + 1)[0], end, "At τ = 1 the point is the end"
    hint = "The velocity is end - start, in this order, for a whole frame: no factor τ or 1 - τ, no unit length"
    yield found[1], end - start, hint
    tau = doubles(0.25, 0.5, 0.75, 0.1)[:, None]
    point, velocity = f(start, end, tau[:, 0])
    yield velocity, end - start, "The velocity on a straight line is the same at every τ"
    yield point, (1 - tau) * start + tau * end, "(1 - τ) start + τ end, each row with its own τ: tau[:, None]"
    return "needs no simulation"


@Exercise
def circulation(f: Function) -> Claims:
    """f(values (n, d), corners (n, d)) -> (): Σ_i v_i · (c_{i+1} - c_i) around a closed polygon."""
    angle = torch.arange(12).double() * math.pi / 6
    corners = torch.stack([2 * angle.cos(), angle.sin()], 1)
    following = corners.roll(-1, 0)
    turning = 0.5 * (corners + following).flip(1) * doubles(-1, 1)  # v = (-y, x) at the middle of each edge
    twice = (corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0]).sum()  # the area inside
    constant, found = f(doubles(1, -2).expand(12, 2), corners), f(turning, corners)
    yield constant, (), "It is one number for the whole loop, shape ()"
    hint = "A constant field does no work: the last edge goes back to the first corner, the sign of each edge counts"
    yield constant, 0.0, hint
    yield found > 0, "Turning with the loop is positive: an edge is the next corner minus this one"
    hint = "For v = (-y, x) it is twice the area inside: a sum over edges and coordinates, no mean, no unit vectors"
    yield found, twice, hint
    lifted = (torch.nn.functional.pad(part, (0, 1), value=1.0) for part in (turning, corners))
    yield f(*lifted), twice, "It must work in any dimension: dot products, not the plane's cross"
    return "is what no gradient has"
