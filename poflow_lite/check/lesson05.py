"""Checks of lesson 05, optimal transport: maps on a line, the action of a path, Gaussians, Sinkhorn in logarithms."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from poflow_lite.check._common import attempt, close, passed, require

__all__ = ["benamou_brenier", "brenier_matrix", "monotone_map", "sinkhorn"]


def monotone_map(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``function(source (n,), target (n,)) -> (n,)``, the optimal map between equally many points of a line.

    Properties: each target is used once, ranks are kept, the answer follows the order in which the sources come and
    ignores that of the targets, and no pairing at all is cheaper.
    """
    source = torch.tensor([0.3, 2.0, -1.0, 0.9, -0.2, 1.4], dtype=torch.float64)
    target = torch.tensor([5.0, -3.0, 1.0, 0.0, 8.0, 2.0], dtype=torch.float64)
    found = attempt(function, source, target)
    require(found.shape == source.shape, f"one image for each source point, (n,), got {tuple(found.shape)}")
    close(
        found.sort().values,
        target.sort().values,
        "Every target must be the image of exactly one source: a map by rank only reorders the targets",
    )
    ascending = found[source.argsort()]
    require(
        ascending[0] < ascending[-1] or (ascending.diff() > 0).any(),
        "The largest source went to the smallest target: larger must go to larger, this is the most expensive pairing",
    )
    close(
        ascending,
        target.sort().values,
        "Sorted sources must have sorted images, given in the order of `source`: entry i is where source[i] goes. "
        "The rank of a point is the argsort of the argsort; one argsort is the inverse permutation",
    )
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    close(attempt(function, source, target[order]), found, "In which order the targets are listed must not matter")
    cheapest = min((source - target[list(p)]).square().sum().item() for p in itertools.permutations(range(6)))
    close((source - found).square().sum(), cheapest, "Some other of the 720 pairings is cheaper")
    passed("monotone_map keeps the ranks, and none of the 720 pairings of six points is cheaper")


def benamou_brenier(function: Callable[[Tensor], Tensor]) -> None:
    """Check ``function(z (B, T+1, d)) -> (B,)``, the action ∫₀¹ ‖v‖² ds of straight pieces walked in equal times.

    Properties: 0 at rest, the squared distance for one straight step and for the same line in any number of equal
    steps, 4/3 of it for a start that accelerates from rest, each particle on its own.
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    move = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    squared = move.square().sum(-1)
    still = attempt(function, start[:, None].expand(5, 4, 3))
    close(still, torch.zeros_like(squared), "A particle at rest has no energy, and each of the B particles has its own")
    one = attempt(function, torch.stack([start, start + move], 1))
    close(
        one,
        squared,
        "One straight step costs the squared distance: square, sum (not average) over the d coordinates, no factor ½",
    )
    for steps in (2, 8):
        s = torch.linspace(0, 1, steps + 1, dtype=torch.float64)[None, :, None]
        close(
            attempt(function, start[:, None] + s * move[:, None]),
            squared,
            f"The same line in {steps} equal steps costs the same: with s = t/T a step of length ℓ takes the time 1/T, "
            "so its speed is Tℓ and it adds T²ℓ²/T. Look for the factor T",
        )
    s = torch.linspace(0, 1, 401, dtype=torch.float64)[None, :, None]
    close(
        attempt(function, start[:, None] + s**2 * move[:, None]),
        4 / 3 * squared,
        "At position s² of the line the speed is 2s and the action ∫ 4s² ds = 4/3 of the squared distance: "
        "add up all steps, the ends alone do not know how the time was spent",
    )
    z = torch.randn(4, 6, 2, dtype=torch.float64, generator=generator)
    found = attempt(function, z)
    alone = torch.cat([attempt(function, z[i : i + 1]) for i in range(4)])
    close(found, alone, "A particle's action depends on its own path only")
    require(
        (found >= (z[:, -1] - z[:, 0]).square().sum(-1)).all(),
        "No path may cost less than a straight line to its end",
    )
    passed("benamou_brenier is the squared distance for straight paths and more for every other")


def brenier_matrix(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``function(S_0 (d, d), S_1 (d, d)) -> (d, d)``, the optimal linear map from N(0, S_0) to N(0, S_1).

    Properties: it carries one covariance to the other, and it is symmetric and positive definite: a gradient of a
    convex function. Many matrices have the first property, one has all.
    """
    wide, narrow = torch.tensor([4.0, 1.0], dtype=torch.float64), torch.tensor([9.0, 0.25], dtype=torch.float64)
    along_the_axes = attempt(function, wide.diag(), narrow.diag())
    close(
        along_the_axes.abs(),
        (narrow / wide).sqrt().diag(),
        "From diag(4, 1) to diag(9, ¼) the axes are stretched by 3/2 and ½: standard deviations, not variances, "
        "from S_0 to S_1 and not back, and all of it times S_0^-½ on both sides",
    )
    generator = torch.Generator().manual_seed(0)
    for d in (2, 4):
        factors = torch.randn(2, d, d + 2, dtype=torch.float64, generator=generator)
        first, second = factors @ factors.mT / d
        found = attempt(function, first, second)
        close(
            found @ first @ found.mT,
            second,
            "A must carry N(0, S_0) to N(0, S_1), A S_0 Aᵀ = S_1; is every root the root of a matrix, not of entries?",
        )
        close(
            found,
            found.mT,
            "A carries S_0 to S_1 but is not symmetric, so it is no gradient: it rotates besides, and pays for that. "
            "Roots of S_0 belong on both sides, S_0^-½ (S_0^½ S_1 S_0^½)^½ S_0^-½",
        )
        require(
            torch.linalg.eigvalsh(found).min() > 0,
            "A is symmetric and carries S_0 to S_1, but it has a negative eigenvalue: it mirrors the cloud, so it is "
            "the gradient of no convex function. Take the positive root",
        )
    passed("brenier_matrix carries one Gaussian to the other and is symmetric and positive definite")


def sinkhorn(function: Callable[[Tensor, Tensor, Tensor, float, int], Tensor]) -> None:
    """Check ``function(costs (n, m), a (n,), b (m,), epsilon, iterations) -> (n, m)``, the entropic plan.

    Properties: both marginals, the form u_i exp(-C_ij / ε) v_j, the limit a ⊗ b for large ε, and the optimal pairing,
    without overflow, for small ε.
    """
    generator = torch.Generator().manual_seed(0)
    costs = 3 * torch.rand(3, 4, dtype=torch.float64, generator=generator)
    a = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    b = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    found = attempt(function, costs, a, b, 0.5, 500)
    require(found.shape == costs.shape, f"a plan has the shape of the costs, (n, m), got {tuple(found.shape)}")
    close(found.sum(1), a, "Row i sends the mass a_i: the sums over j must be a")
    close(found.sum(0), b, "Column j receives the mass b_j: the sums over i must be b. Update u and v in turn")
    close(
        _double_differences(found.log()),
        _double_differences(-costs / 0.5),
        "log P_ij + C_ij/ε must be a function of i plus a function of j: "
        "mind the sign of the costs, and that they are divided by ε",
    )
    close(
        attempt(function, costs, a, b, 1e6, 50),
        a[:, None] * b,
        "For ε → ∞ entropy is all that counts, and the plan becomes the product a_i b_j",
    )
    apart = 1e4 * (1 - torch.eye(3, dtype=torch.float64)[[1, 2, 0]]) + 1e3
    third = torch.full((3,), 1 / 3, dtype=torch.float64)
    sharp = attempt(function, apart, third, third, 1.0, 50)
    require(
        sharp.isfinite().all(),
        "With costs in the thousands of ε, exp(-C/ε) is 0 and 0/0 is not a number: "
        "work on log u and log v with torch.logsumexp, and take exp only once, at the end",
    )
    close(sharp, torch.eye(3, dtype=torch.float64)[[1, 2, 0]] / 3, "For ε → 0 the plan must be the cheapest pairing")
    passed("sinkhorn has both marginals and Gibbs' form, and survives a small ε")


def _double_differences(matrix: Tensor) -> Tensor:
    """M_ij - M_0j - M_i0 + M_00: what is left of a matrix when functions of i plus functions of j do not count."""
    return matrix - matrix[:1] - matrix[:, :1] + matrix[0, 0]
