"""Checks of lesson 11, ablations and cost: paired intervals, verdicts, local exponents, a small determinant."""

import math

import torch
from torch.utils.flop_counter import FlopCounterMode

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal, uniform


@Exercise
def paired_interval(f: Function) -> Claims:
    """f(values (n,), references (n,), critical) -> (2,): ends of the interval of the mean paired difference."""
    references = 100 + 5 * normal(6)
    found = f(references + 2, references, 4.3)
    yield found, (2,), "It has a lower and upper end, (2,)"
    yield found.mean(), 2.0, "2 above the references is 2: values - references, in this order, not relative"
    hint = "The same difference with every seed leaves no doubt: take differences first, then their standard deviation"
    yield found, [2.0, 2.0], hint
    low, high = f(references[:3] + doubles(1, 2, 6), references[:3], 1.0)
    yield low <= high, "The lower end comes first"
    yield 0.5 * (low + high), 3.0, "The interval has the mean of the differences in its middle"
    hint = "With the quantile 1 it reaches one standard error: the deviation with n - 1, divided by √n once"
    yield 0.5 * (high - low), math.sqrt(7 / 3), hint
    low, high = f(references[:3] + doubles(1, 2, 6), references[:3], 4.303)
    hint = "It reaches as many standard errors as `critical` says: neither 1.96 nor 2"
    yield 0.5 * (high - low), 4.303 * math.sqrt(7 / 3), hint
    ends = torch.stack([f(draw, doubles(0, 0, 0), 4.303) for draw in normal(2000, 3, seed=1)])
    share = ((ends[:, 0] < 0) & (ends[:, 1] > 0)).double().mean()
    yield abs(share - 0.95) < 0.02, f"Of 2,000 intervals at 95 %, {share:.1%} held the truth"
    return f"holds the truth in {share:.1%} of 2,000 studies of three seeds"


@Exercise
def verdicts(f: Function) -> Claims:
    """f(low (V,), high (V,), margin) -> integers (V,): 1 worse, -1 better, 0 equal within the margin, 2 undecided."""
    low, high = doubles(0.01, -0.30, -0.02, -0.02, -0.20, -0.20), doubles(0.30, -0.01, 0.03, 0.20, 0.02, 0.20)
    found = f(low, high, 0.05)
    yield found, (6,), "It is a verdict for each interval"
    yield found[:2], [1, -1], "[+1 %, +30 %] lies above 0: the error rises, worse, 1; its mirror image is better, -1"
    yield found[2], 0, "[-2 %, +3 %] holds 0 and lies within ± 5 %: equal, 0"
    hint = """[-2 %, +20 %] and the like hold 0 and reach beyond ± 5 %: undecided, 2. Not significant is not equal: both
        ends must lie within the margin, not one of them nor the middle"""
    yield found[3:], [2, 2, 2], hint
    hint = "With a margin of 25 % the intervals that hold 0 are all equal: the margin is an argument"
    yield f(low, high, 0.25), [1, -1, 0, 0, 0, 0], hint
    hint = "[+1 %, +3 %] is within the margin and yet above 0, a small difference: only those that hold 0 are equal"
    yield f(doubles(0.01, -0.03), doubles(0.03, -0.01), 0.05), [1, -1], hint
    return "keeps 'equal' and 'undecided' apart"


@Exercise
def local_exponent(f: Function) -> Claims:
    """f(costs (P, V), powers (P,)) -> (V,): the slope of log Σ_p c_p on log v at each size, for c_p ∝ v^powers_p."""
    sizes, powers, factors = doubles(4, 16, 64, 256), doubles(0, 1, 2), doubles([50.0], [8.0], [0.5])
    costs = factors * sizes ** powers[:, None]
    found = f(costs, powers)
    yield found, (4,), "It is an exponent at each size"
    hint = "A single term has its own power at every size: weights are shares, which add up to 1"
    yield f(costs[2:], powers[2:]), [2.0] * 4, hint
    hint = "Two terms that cost the same give the mean of their powers"
    yield f(torch.ones(2, 4).double(), doubles(1, 3)), [2.0] * 4, hint
    yield ((found > 0) & (found < 2)).all(), "An average lies between the smallest and the largest power"
    hint = "With size the exponent rises: weigh each power by its share of the cost *at that size*, not over all sizes"
    yield (found.diff() > 0).all(), hint
    hint = "An overhead, a term of power 0, pulls the exponent down at every size: it belongs to the total"
    yield (f(costs[1:], powers[1:]) > found).all(), hint
    above, below = ((factors * (sizes * (1 + s)) ** powers[:, None]).sum(0).log() for s in (1e-4, -1e-4))
    slope = (above - below) / (math.log1p(1e-4) - math.log1p(-1e-4))
    yield found, slope, "It must be the slope of log cost on log size: Σ_p (c_p / C) power_p"
    return "weighs powers by their share of the cost"


@Exercise
def small_determinant(f: Function) -> Claims:
    """f(weight (m, d), bend (B, m)) -> (B,): log |det(I + Wᵀ diag(bend) W)| by m × m determinants, nats."""
    weight, bend = normal(3, 5), 0.1 + 0.3 * uniform(4, 3)
    found = f(weight, bend)
    yield found, (4,), "It is a number for each point"
    hint = "Without bend the matrix is I, and log det I = 0: is the identity added, and the logarithm taken?"
    yield f(weight, 0 * bend), [0.0] * 4, hint
    hint = "For one hidden unit det(I + b w wᵀ) = 1 + b ‖w‖²: bend enters once, not squared, nor its root"
    yield f(weight[:1], bend[:, :1]), (1 + bend[:, 0] * weight[0].square().sum()).log(), hint
    whole = torch.eye(5) + torch.einsum("ji,bj,jk->bik", weight, bend, weight)
    hint = "It must equal the d × d determinant: I + D W Wᵀ, D = diag(bend) of each point; diag(W Wᵀ) is not W Wᵀ"
    yield found, whole.logdet(), hint
    hint = "Where the determinant is negative its absolute value counts: slogdet(…).logabsdet"
    yield f(weight, doubles([-3.0, 0.0, 0.0])), (3 * weight[0].square().sum() - 1).log()[None], hint
    with FlopCounterMode(display=False) as counter:
        f(normal(2, 400) / 20, bend[:, :2])
    products = counter.get_total_flops() / 2
    hint = f"For d = 400, m = 2 it took {products:,.0f} multiplications, as many as building d × d; W Wᵀ takes 1,600"
    yield products < 400**2, hint
    return "needs no d × d matrix"
