"""Checks of lesson 11, ablations and cost: paired intervals, verdicts, local exponents, a small determinant."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from poflow_lite.check._common import attempt, close, passed, require

__all__ = ["local_exponent", "paired_interval", "small_determinant", "verdicts"]


def paired_interval(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Check ``function(values (n,), references (n,), critical) -> (2,)``, ends of the interval of the mean difference.

    Properties: what a seed adds to both cancels, variant less reference, ends in order, mean in the middle, unbiased
    standard error, the quantile that is passed; and it covers the truth as often as it says.
    """
    generator = torch.Generator().manual_seed(0)
    luck = 5 * torch.randn(6, generator=generator, dtype=torch.float64)
    references = 100 + luck
    found = attempt(function, references + 2, references, 4.3)
    require(found.shape == (2,), f"lower and upper end: expected shape (2,), got {tuple(found.shape)}")
    require(
        found.isfinite().all(), "Differences that are all alike have spread 0 and an interval of no length: no division"
    )
    close(
        found.mean(),
        2.0,
        "A variant that is 2 above its reference with every seed is 2 above it: values - references, in this order, "
        "not relative to anything",
    )
    close(
        found,
        [2.0, 2.0],
        "The same difference with every seed leaves no doubt, however much the seeds differ: take differences first, "
        "then their standard deviation",
    )
    difference = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    low, high = attempt(function, references[:3] + difference, references[:3], 1.0)
    require(low <= high, "The lower end comes first")
    close(0.5 * (low + high), 3.0, "The interval has the mean of the differences in its middle")
    close(
        0.5 * (high - low),
        math.sqrt(7.0 / 3),
        "With the quantile 1 it reaches one standard error to each side: the standard deviation with n - 1 "
        "in the denominator (7 = 14/2 is the variance of 1, 2, 6), divided by √n once",
    )
    low, high = attempt(function, references[:3] + difference, references[:3], 4.303)
    close(
        0.5 * (high - low),
        4.303 * math.sqrt(7.0 / 3),
        "It reaches as many standard errors as `critical` says: neither 1.96 nor 2",
    )
    draws = torch.randn(2000, 3, generator=generator, dtype=torch.float64)
    ends = torch.stack([attempt(function, draw, torch.zeros(3, dtype=torch.float64), 4.303) for draw in draws])
    share = ((ends[:, 0] < 0) & (ends[:, 1] > 0)).double().mean().item()
    require(abs(share - 0.95) < 0.02, f"Of 2,000 intervals at 95 %, {share:.1%} held the truth")
    passed(f"paired_interval holds the truth in {share:.1%} of 2,000 studies of three seeds")


def verdicts(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Check ``function(low (V,), high (V,), margin) -> integers (V,)``: 1 worse, -1 better, 0 equal, 2 undecided.

    Properties: mirrored intervals swap worse and better, an interval that holds 0 is equal only if all of it lies
    within the margin, one that does not hold 0 has a sign however close to 0, and the margin is an argument.
    """
    low = torch.tensor([0.01, -0.30, -0.02, -0.02, -0.20, -0.20], dtype=torch.float64)
    high = torch.tensor([0.30, -0.01, 0.03, 0.20, 0.02, 0.20], dtype=torch.float64)
    found = attempt(function, low, high, 0.05)
    require(found.shape == (6,), f"a verdict for each interval: expected shape (6,), got {tuple(found.shape)}")
    found = found.to(torch.long)
    require(found[0] == 1, "[+1 %, +30 %] lies above 0: the error rises, that is worse, 1")
    require(found[1] == -1, "[-30 %, -1 %] lies below 0: the error falls, that is better, -1")
    require(found[2] == 0, "[-2 %, +3 %] holds 0 and lies within ± 5 %: equal, 0")
    require(
        (found[3:] == 2).all(),
        "[-2 %, +20 %], [-20 %, +2 %] and [-20 %, +20 %] hold 0 and reach beyond ± 5 %: undecided, 2. "
        "Not significant is not equal: both ends must lie within the margin, not one of them nor the middle",
    )
    wide = attempt(function, low, high, 0.25).to(torch.long)
    require(
        wide.tolist() == [1, -1, 0, 0, 0, 0],
        "With a margin of 25 % the intervals that hold 0 are all equal: the margin is an argument",
    )
    close_by = torch.tensor([0.01, -0.03], dtype=torch.float64), torch.tensor([0.03, -0.01], dtype=torch.float64)
    require(
        attempt(function, *close_by, 0.05).tolist() == [1, -1],
        "[+1 %, +3 %] is within the margin and yet above 0: a small difference that is there. By the definition of the "
        "exercise it is worse, 1, and its mirror image better, -1; only intervals that hold 0 can be equal",
    )
    passed("verdicts keeps 'equal' and 'undecided' apart")


def local_exponent(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``function(costs (P, V), powers (P,)) -> (V,)``, the slope of log Σ_p c_p on log v at each size.

    Properties: the power of a single term, an average of powers whose weights add up to 1, pulled down by an overhead,
    unchanged by units, and equal to the slope found by small changes of the size.
    """
    sizes = torch.tensor([4.0, 16.0, 64.0, 256.0], dtype=torch.float64)
    powers = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    factors = torch.tensor([50.0, 8.0, 0.5], dtype=torch.float64)[:, None]
    costs = factors * sizes ** powers[:, None]
    found = attempt(function, costs, powers)
    require(found.shape == (4,), f"an exponent at each size: expected shape (4,), got {tuple(found.shape)}")
    close(
        attempt(function, costs[2:], powers[2:]),
        torch.full((4,), 2.0),
        "A single term has its own power at every size: weights are shares, which add up to 1",
    )
    even = attempt(function, torch.ones(2, 4, dtype=torch.float64), torch.tensor([1.0, 3.0], dtype=torch.float64))
    close(even, torch.full((4,), 2.0), "Two terms that cost the same give the mean of their powers")
    require(((found > 0) & (found < 2)).all(), "An average lies between the smallest and the largest power")
    require(
        (found.diff() > 0).all(),
        "With size the higher powers take over and the exponent rises: weigh each power by its share of the cost *at "
        "that size*, neither the largest power nor the plain mean, nor shares over all sizes",
    )
    require(
        (attempt(function, costs[1:], powers[1:]) > found).all(),
        "An overhead, a term of power 0, pulls the exponent down at every size: it belongs to the total",
    )
    close(attempt(function, 1000 * costs, powers), found, "Other units do not change an exponent")
    step = 1e-4
    above, below = ((factors * (sizes * (1 + s)) ** powers[:, None]).sum(0).log() for s in (step, -step))
    slope = (above - below) / (math.log1p(step) - math.log1p(-step))
    close(found, slope, "It must be the slope of log cost on log size: Σ_p (c_p / C) power_p")
    passed("local_exponent weighs powers by their share of the cost")


def small_determinant(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``function(weight (m, d), bend (B, m)) -> (B,)``, log |det(I + Wᵀ diag(bend) W)| by m × m determinants.

    Properties: one number a point, 0 without bend, the exact value for one hidden unit, that of the d × d determinant
    for several, also where it is negative; and PyTorch counts far fewer multiplications than a d × d matrix takes.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    bend = 0.1 + 0.3 * torch.rand(4, 3, generator=generator, dtype=torch.float64)
    found = attempt(function, weight, bend)
    require(found.shape == (4,), f"a number for each point: expected shape (4,), got {tuple(found.shape)}")
    close(
        attempt(function, weight, torch.zeros_like(bend)),
        torch.zeros(4),
        "Without bend the matrix is I, and log det I = 0: is the identity added, and the logarithm taken?",
    )
    one = attempt(function, weight[:1], bend[:, :1])
    expected = (1 + bend[:, 0] * weight[0].square().sum()).abs().log()
    close(
        one,
        expected,
        "For one hidden unit det(I + b w wᵀ) = 1 + b ‖w‖²: bend enters once, not squared, nor its root",
    )
    hessian = torch.einsum("ji,bj,jk->bik", weight, bend, weight)
    whole = torch.eye(5, dtype=torch.float64) + hessian
    close(
        found,
        torch.linalg.slogdet(whole).logabsdet,
        "It must equal the d × d determinant: I + D W Wᵀ with D = diag(bend), each point with its own. "
        "The trace is a first order only, and diag(W Wᵀ) is not W Wᵀ",
    )
    folded = torch.tensor([[-3.0, 0.0, 0.0]], dtype=torch.float64)
    close(
        attempt(function, weight, folded),
        (3 * weight[0].square().sum() - 1).log()[None],
        "Where the determinant is negative its absolute value counts: slogdet(…).logabsdet",
    )
    wide = torch.randn(2, 400, generator=generator, dtype=torch.float64) / 20
    with FlopCounterMode(display=False) as counter:
        attempt(function, wide, bend[:, :2])
    products = counter.get_total_flops() / 2
    require(
        products < 400**2,
        f"For d = 400 and m = 2 it took {products:,.0f} multiplications, as many as building d × d matrices does; "
        "W Wᵀ takes m² d = 1,600, once for all points",
    )
    passed("small_determinant needs no d × d matrix")
