"""Checks of lesson 05, optimal transport: maps on a line, the action of a path, Gaussians, Sinkhorn in logarithms."""

import itertools

import torch

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal, one_by_one, uniform


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


@Exercise
def benamou_brenier(f: Function) -> Claims:
    """f(z (B, T+1, d)) -> (B,): the action ∫₀¹ ‖v‖² ds of straight pieces walked in equal times."""
    start, move = normal(2, 5, 1, 3)
    squared = move.square().sum((1, 2))
    yield f(start.expand(5, 4, 3)), 0 * squared, "A particle at rest has no energy, and each of the B has its own"
    hint = "One straight step costs the squared distance: square, sum (not average) over the d coordinates, no factor ½"
    yield f(torch.cat([start, start + move], 1)), squared, hint
    s = torch.linspace(0, 1, 9).double()[:, None]
    hint = "The same line in 8 equal steps costs the same: a step ℓ takes 1/T and adds T²ℓ²/T. Look for the factor T"
    yield f(start + s * move), squared, hint
    s = torch.linspace(0, 1, 401).double()[:, None]
    hint = "At position s² of a line the speed is 2s and the action ∫ 4s² ds = 4/3 of the square: add up all steps"
    yield f(start + s**2 * move), 4 / 3 * squared, hint
    z = normal(4, 6, 2)
    yield f(z), one_by_one(f, z), "A particle's action depends on its own path only"
    return "is the squared distance for straight paths and more for every other"


@Exercise
def brenier_matrix(f: Function) -> Claims:
    """f(S_0 (d, d), S_1 (d, d)) -> (d, d): the optimal linear map from N(0, S_0) to N(0, S_1)."""
    hint = "Axes stretch by standard deviations, not variances, from S_0 to S_1 and not back, S_0^-½ on both sides"
    yield f(doubles(4, 1).diag(), doubles(9, 0.25).diag()).abs(), doubles(1.5, 0.5).diag(), hint
    for d in (2, 4):
        factors = normal(2, d, d + 2)
        first, second = factors @ factors.mT / d
        found = f(first, second)
        hint = "A must carry N(0, S_0) to N(0, S_1), A S_0 Aᵀ = S_1; roots are those of a matrix, not of entries"
        yield found @ first @ found.mT, second, hint
        hint = "A carries S_0 to S_1 but is not symmetric, so it is no gradient: S_0^-½ belongs on both sides"
        yield found, found.mT, hint
        hint = "A negative eigenvalue: it mirrors the cloud and is no convex function's gradient. Take positive roots"
        yield torch.linalg.eigvalsh(found).min() > 0, hint
    return "carries one Gaussian to the other and is symmetric and positive definite"


@Exercise
def sinkhorn(f: Function) -> Claims:
    """f(costs (n, m), a (n,), b (m,), epsilon, iterations) -> (n, m): the entropic plan."""
    costs, a, b = 3 * uniform(3, 4), doubles(0.5, 0.3, 0.2), doubles(0.1, 0.2, 0.3, 0.4)
    found = f(costs, a, b, 0.5, 500)
    yield found, (3, 4), "A plan has the shape of the costs, (n, m)"
    yield found.sum(1), a, "Row i sends the mass a_i: the sums over j must be a"
    yield found.sum(0), b, "Column j receives the mass b_j: the sums over i must be b. Update u and v in turn"
    rest = found.log() + costs / 0.5
    hint = "log P_ij + C_ij/ε must be a function of i plus one of j: mind the sign of the costs, divided by ε"
    yield rest - rest[:1], (rest - rest[:1])[:, :1].expand(3, 4), hint
    pairing, third = torch.eye(3).double()[[1, 2, 0]], torch.full((3,), 1 / 3).double()
    hint = "With costs of thousands of ε, exp(-C/ε) is 0: keep log u and log v, torch.logsumexp, and exp at the end"
    yield f(1e4 * (1 - pairing) + 1e3, third, third, 1.0, 50), pairing / 3, hint
    return "has both marginals and Gibbs' form, and survives a small ε"
