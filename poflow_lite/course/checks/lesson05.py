"""Checks of lesson 05, optimal transport: maps on a line, the Sinkhorn divergence, the numbers of an experiment."""

import itertools
import math

import torch
from torch import Tensor

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal
from poflow_lite.transport import wasserstein


@Exercise
def map_1d(f: Function) -> Claims:
    """f(source (n,), target (n,)) -> (n,): the optimal map between equally many points of a line."""
    source, target = doubles(0.3, 2.0, -1.0, 0.9, -0.2, 1.4), doubles(5, -3, 1, 0, 8, 2)
    found, ordered = f(source, target), target.sort().values
    yield found, (6,), "It is one image for each source point, (n,)"
    hint = "Every target must be the image of exactly one source: a map by rank only reorders the targets"
    yield found.sort().values, ordered, hint
    ascending = found[source.argsort()]
    hint = "The largest source went to the smallest target: this is the most expensive pairing"
    yield (ascending.diff() > 0).any(), hint
    hint = "Sorted sources need sorted images, given in the order of `source`. A rank is the argsort of the argsort"
    yield ascending, ordered, f"{hint}; one argsort is the inverse permutation"
    cheapest = min((source - target[list(p)]).square().sum() for p in itertools.permutations(range(6)))
    yield (source - found).square().sum(), cheapest, "Some other of the 720 pairings is cheaper"
    return "keeps the ranks, and none of the 720 pairings of six points is cheaper"


def _entropic(x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """min_P Σ P C + ε KL(P ‖ μ ⊗ ν) for C = ½‖x - y‖² and equal masses, by 2,000 steps on logarithms: ()."""
    cost, f, g = torch.cdist(x, y).square() / 2, x.new_zeros(len(x)), x.new_zeros(len(y))
    for _ in range(2000):
        f = -epsilon * (torch.logsumexp((g - cost) / epsilon, 1) - math.log(len(y)))
        g = -epsilon * (torch.logsumexp((f[:, None] - cost) / epsilon, 0) - math.log(len(x)))
    return f.mean() + g.mean()


@Exercise
def sinkhorn_divergence(f: Function) -> Claims:
    """f(x (n, d), y (m, d), epsilon) -> (): OT_ε(x, y) - ½ OT_ε(x, x) - ½ OT_ε(y, y), cost ½‖x - y‖², equal masses."""
    x, y = normal(7, 2), 0.7 * normal(9, 2, seed=1) + doubles(1.0, -0.5)
    found = f(x, y, 1.0)
    yield found, (), "A divergence is one number, a scalar tensor"
    hint = "It is not finite: with costs of thousands of ε, exp(-C/ε) is 0. Keep log a and log b, torch.logsumexp"
    yield f(x, x + 100, 0.5).isfinite(), hint
    hint = "A cloud must be at 0 from itself: subtract half of either cloud's entropic cost with itself"
    yield f(x, x, 1.0), 0.0, hint
    yield found >= 0, "The Sinkhorn divergence is never negative: is the larger term OT_ε(x, y)?"
    hint = "A cloud moved by 2 along one axis is ½ · 2² = 2 away, whatever ε"
    yield (
        torch.stack([f(x, x + doubles(2, 0), e) for e in (0.5, 1.0, 10.0)]),
        [2.0, 2.0, 2.0],
        f"{hint}: mind the ½ of C",
    )
    hint = "For large ε only the means count: ½‖mean difference‖². C is divided by ε, and masses are 1/n and 1/m"
    yield f(x, y, 1e4), 0.5 * (x.mean(0) - y.mean(0)).square().sum(), hint, 1e-3
    apart = 5 * torch.arange(6).double()[:, None]
    near = (apart + 0.3 * normal(6, 1)).flip(0)
    hint = "For small ε it is ½ W₂²"
    yield f(apart, near, 0.02), 0.5 * wasserstein(apart, near) ** 2, hint, 1e-3
    hint = "It is near, but the value of OT_ε is Σ P C + ε KL(P ‖ μ⊗ν), for all three terms"
    exact = _entropic(x, y, 1.0) - _entropic(x, x, 1.0) / 2 - _entropic(y, y, 1.0) / 2
    yield found, exact, hint, 1e-3
    return "is 0 from a cloud to itself, ½‖shift‖² for a moved cloud, and finite for a small ε"


@Exercise
def penalty(f: Function) -> Claims:
    """f() -> (3, 2), measured: rows λ_HJ = 0, 1 and 30, columns OT gap and end error."""
    found = f()
    yield found, (3, 2), "Rows: λ = 0, 1, 30. Columns: OT gap, end error"
    gap, end = found.double().T
    yield (gap >= 1).all(), "Column 0 is the OT gap, ≥ 1 by Benamou-Brenier: the columns may be swapped"
    hint = "End errors of 500 points lie between 0.2 and 0.7 after 150 steps: was it trained, and is it endpoint_error?"
    yield ((end > 0.2) & (end < 0.7)).all(), hint
    hint = "The end errors differ by more than 0.15: same seed, steps and sizes for all three?"
    yield end.max() - end.min() < 0.15, hint
    yield gap[2] < gap[0], "The gap should fall with the penalty: is λ = 0 the first row?"
    yield gap[2] < gap[1] < gap[0], "The gap at λ = 1 should lie between the others"
    hint = "With λ = 30 the gap comes below 1.12, without a penalty it stays above it"
    yield gap[2] < 1.12 < gap[0], hint
    return "has the numbers of three trainings: the penalty lowers the gap, the end error hardly changes"
