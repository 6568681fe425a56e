"""Optimal transport between clouds of points, and how far a flow is from it.

Plans and distances are those of POT, the Python Optimal Transport library (Flamary et al. 2021), with our shapes, units
and errors. ``source`` is a cloud x (n, d) and ``target`` a cloud y (m, d); their weights a (n,) and b (m,) are at least
0 and sum to 1, None for equal ones. Costs are squared Euclidean distances, latent². Results are detached, in the dtype
of the first argument. Other shapes, empty clouds, integers, NaN, entries whose squares overflow and unsound weights are
a ValueError everywhere.
Source, where no other is named: Peyré & Cuturi, Computational Optimal Transport, 2019.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

__all__ = [
    "Plan", "efficiency", "gaussian_map", "gaussian_wasserstein", "hopf_lax", "kinetic_energy", "map_1d",
    "optimal_plan", "ot_gap", "sinkhorn", "wasserstein",
]  # fmt: skip


def _require_shape(what: str, x: Tensor, shape: tuple[int | str, ...], hint: str = "") -> None:
    """Refuse what does not have this shape, in which a letter stands for any size but 0."""
    pairs = zip(shape, x.shape, strict=False)
    if x.ndim != len(shape) or any(want != got for want, got in pairs if not isinstance(want, str)):
        expected = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        raise ValueError(f"{what} must be ({expected}), got {tuple(x.shape)}{hint and '; ' + hint}")
    if not x.numel():
        raise ValueError(f"{what} is empty, of shape {tuple(x.shape)}: give at least one point of one dimension")


def _require_sound(what: str, x: Tensor, shape: tuple[int | str, ...], hint: str = "") -> None:
    _require_shape(what, x, shape, hint)
    if not x.is_floating_point():
        raise ValueError(f"{what} must be floating-point, got {x.dtype}; convert it by .float() or .double()")
    if bad := int((~x.isfinite()).sum()):
        raise ValueError(
            f"{what} has {bad} NaN or infinite entries of {x.numel()}; drop these points, or find where they arose"
        )
    if (largest := x.detach().abs().max().item()) > 1e140:
        raise ValueError(f"{what} has entries up to {largest:.3g}, whose squares overflow; rescale it below 1e140")


def _array(what: str, x: Tensor, shape: tuple[int | str, ...], hint: str = "") -> np.ndarray:
    """x as the float64 array that POT needs, once its shape and entries are known to be sound."""
    _require_sound(what, x, shape, hint)
    return x.detach().cpu().double().numpy()


def _clouds(source: Tensor, target: Tensor) -> tuple[np.ndarray, np.ndarray]:
    x = _array("source", source, ("n", "d"), "points on a line are x[:, None]")
    return x, _array("target", target, ("m", x.shape[1]), "both clouds must lie in the space of the source")


def _weights(what: str, weights: Tensor | None, count: int) -> np.ndarray:
    if weights is None:
        return np.full(count, 1 / count)
    w = _array(what, weights, (count,), "give one weight per point, or None for equal weights")
    if w.min() < 0 or abs(w.sum() - 1) > 1e-5:  # as good as single precision sums thousands of weights
        raise ValueError(f"{what} must be at least 0 and sum to 1, the least is {w.min():.6g}, the sum {w.sum():.6g}")
    return w / w.sum()


def _unit(*arrays: np.ndarray) -> float:
    """A power of two near the largest entry: in this unit no square underflows, and no digit changes."""
    return 2.0 ** math.frexp(max(abs(array).max() for array in arrays))[1]


def _problem(
    source: Tensor, target: Tensor, a: Tensor | None, b: Tensor | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """a, b, the costs (n, m) of the clouds moved to median 0, and the unit of length in which they are.

    Moving a cloud changes the cost of all plans by the same amount, so the best plan stays, and a large shift between
    the clouds hides no digits, nor does an outlier; nor does cdist expand the square, as ot.dist does.
    """
    x, y = _clouds(source, target)
    x, y = x - np.median(x, 0), y - np.median(y, 0)
    unit = _unit(x, y)
    costs = cdist(x / unit, y / unit, "sqeuclidean")
    return _weights("weights a", a, len(x)), _weights("weights b", b, len(y)), costs, unit


@dataclass
class Plan:
    """A coupling of two clouds: P_ij ≥ 0, ``matrix`` (n, m), is the mass that goes from x_i to y_j.

    Its row sums are a and its column sums b; ``cost`` is Σ_ij P_ij ‖x_i - y_j‖², latent².
    """

    source: Tensor
    target: Tensor
    matrix: Tensor
    cost: float

    def displacement(self, s: float) -> tuple[Tensor, Tensor]:
        """McCann's interpolation, 0 ≤ s ≤ 1: mass P_ij at (1 - s) x_i + s y_j, as points (p, d) and weights (p,).

        For an optimal plan it is the geodesic of W₂: W₂(μ_0, μ_s) = s W₂(μ_0, μ_1). Source: McCann 1997.
        """
        if not 0 <= s <= 1:
            raise ValueError(f"s must lie between 0 (source) and 1 (target), got {s}")
        i, j = self.matrix.nonzero(as_tuple=True)
        return torch.lerp(self.source[i], self.target[j], s), self.matrix[i, j]

    def barycentric_map(self) -> Tensor:
        """T(x_i) = Σ_j P_ij y_j / a_i, (n, d), NaN for a point without mass; Brenier's map if no mass is split."""
        return self.matrix @ self.target / self.matrix.sum(1, keepdim=True)


def _plan(source: Tensor, target: Tensor, matrix: np.ndarray) -> Plan:
    x, y = _clouds(source, target)
    unit = _unit(x, y)
    cost = float((matrix * cdist(x / unit, y / unit, "sqeuclidean")).sum() * unit * unit)
    source = source.detach()
    return Plan(source, target.detach().to(source), torch.from_numpy(matrix).to(source), cost)


def optimal_plan(
    source: Tensor, target: Tensor, a: Tensor | None = None, b: Tensor | None = None, iterations: int = 10_000_000
) -> Plan:
    """argmin_P Σ_ij P_ij ‖x_i - y_j‖² with marginals a and b: Kantorovich's problem, by the network simplex.

    Exact, in time about cubic in the number of points: 2,000 points against 2,000 take about a second. A RuntimeError
    if so many ``iterations`` (pivots) do not suffice, or if rounding hides the optimum, as it can where outliers carry
    next to no mass: no plan is returned whose cost is not known to be the least, by the dual problem, to eight digits.

    >>> optimal_plan(torch.tensor([[0.0], [10.0]]), torch.tensor([[12.0], [1.0]])).cost
    2.5
    """
    a, b, costs, _ = _problem(source, target, a, b)
    reduced = costs - costs.min(1, keepdims=True)  # the same best plan, without what an outlier costs in any case
    reduced -= reduced.min(0)
    ceiling = reduced.max()
    while True:
        matrix, gap = _certified(a, b, reduced, ceiling, iterations)
        cost = (matrix * costs).sum()
        if gap <= 1e-8 * cost:
            return _plan(source, target, matrix)
        # What no good plan uses may be cheaper than it is: outliers then hide no more digits of the others' costs.
        before, ceiling = ceiling, 2 * min(costs.shape) * reduced[matrix > 0].max()
        if not 0 < ceiling < 0.1 * before:
            raise RuntimeError(
                f"no optimal plan of {len(a)} x {len(b)} points: the one found may cost {gap / cost:.1e} of its cost "
                "more than the best; leave out outliers, or points of next to no weight"
            )


def _certified(
    a: np.ndarray, b: np.ndarray, costs: np.ndarray, ceiling: float, iterations: int
) -> tuple[np.ndarray, float]:
    """The best plan for costs cut off at a ceiling, and how much more than the best it can cost without the ceiling.

    For any u and v with u_i + v_j ≤ C_ij, as are 0 and 0 here, no plan costs less than Σ a_i u_i + Σ b_j v_j. Source:
    section 2.5.
    """
    import ot

    scale = ceiling or 1.0  # POT's tolerance is absolute: tiny costs would end in any plan, unnoticed
    options = {"numItermax": iterations, "log": True, "center_dual": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what POT would warn of is raised below
        matrix, log = ot.emd(a, b, np.minimum(costs, ceiling) / scale, **options)
    if log["warning"]:
        raise RuntimeError(
            f"no optimal plan of {len(a)} x {len(b)} points after {iterations} iterations; give more iterations or "
            f"fewer points (POT: {log['warning']})"
        )
    slack = costs - scale * log["u"][:, None]
    slack -= slack.min(0)  # less the best v
    slack -= slack.min(1, keepdims=True)  # and what u can gain
    return matrix, float(min((matrix * slack).sum(), (matrix * costs).sum()))  # costs are at least 0


def sinkhorn(
    source: Tensor,
    target: Tensor,
    epsilon: float,
    a: Tensor | None = None,
    b: Tensor | None = None,
    iterations: int = 10_000,
    tolerance: float = 1e-7,
) -> Plan:
    """argmin_P Σ_ij P_ij ‖x_i - y_j‖² + ε Σ_ij P_ij log P_ij with marginals a and b, ε > 0 in latent² per nat.

    ``cost`` is the first sum only; cost - W₂² ≥ 0 is the bias of the entropy, which vanishes with ε. For ε → ∞ the plan
    becomes a ⊗ b. Iterations run on logarithms, so a small ε does not overflow, but their number grows like 1/ε. A
    RuntimeError if after ``iterations`` the column sums are farther from b than ``tolerance``, in Euclidean norm; the
    row sums are a exactly. Source: Cuturi 2013.
    """
    import ot

    if not 0 < epsilon < math.inf:
        raise ValueError(f"epsilon must be positive and finite, got {epsilon}; for epsilon = 0 use optimal_plan")
    a, b, costs, unit = _problem(source, target, a, b)
    kept, matrix = np.ix_(a > 0, b > 0), np.zeros_like(costs)  # no logarithm of 0
    options = {"numItermax": iterations, "stopThr": tolerance, "warn": False, "log": True}
    with np.errstate(over="ignore", invalid="ignore"):  # POT also reports exp of its logarithms, which are not used
        matrix[kept], log = ot.bregman.sinkhorn_log(a[a > 0], b[b > 0], costs[kept], epsilon / unit / unit, **options)
    if not log["err"][-1] < tolerance:
        raise RuntimeError(
            f"after {iterations} iterations at epsilon = {epsilon} the target's marginal is off by "
            f"{log['err'][-1]:.1e}, not {tolerance:.1e}; give a larger epsilon, more iterations or a larger tolerance"
        )
    return _plan(source, target, matrix)


def wasserstein(source: Tensor, target: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> float:
    """W₂ = √(min_P Σ_ij P_ij ‖x_i - y_j‖²), latent units, by :func:`optimal_plan`.

    >>> wasserstein(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    5.0
    """
    return math.sqrt(optimal_plan(source, target, a, b).cost)


def _gaussians(*moments: Tensor) -> tuple[np.ndarray, ...]:
    """m_0, m_1, S_0, S_1, the order in which POT takes them, from m_0, S_0, m_1, S_1."""
    means, covariances = [], []
    for i in (0, 1):
        d = len(means[0]) if means else "d"
        m = _array(f"mean_{i}", moments[2 * i], (d,), "both Gaussians must lie in one space")
        s = _array(f"covariance_{i}", moments[2 * i + 1], (len(m), len(m)), f"mean_{i} has {len(m)} dimensions")
        if (asymmetry := abs(s - s.T).max()) > 1e-5 * abs(s).max():
            raise ValueError(f"covariance_{i} must be symmetric, S and its transpose differ by {asymmetry:.3g}")
        eigenvalues = np.linalg.eigvalsh(s)
        if eigenvalues[0] <= max(1e-8 * eigenvalues[-1], 1e-140):  # POT's square roots would end in NaN
            raise ValueError(
                f"covariance_{i} must be positive definite, its eigenvalues go from {eigenvalues[0]:.3g} to "
                f"{eigenvalues[-1]:.3g}; add at least 1e-8 of the largest to the diagonal"
            )
        means, covariances = [*means, m], [*covariances, s]
    return *means, *covariances


def gaussian_wasserstein(mean_0: Tensor, covariance_0: Tensor, mean_1: Tensor, covariance_1: Tensor) -> float:
    """W₂ of two Gaussians: W₂² = ‖m_0 - m_1‖² + tr( S_0 + S_1 - 2 (S_0^½ S_1 S_0^½)^½ ), after Bures.

    Means (d,) and covariances (d, d), symmetric and positive definite, or it is a ValueError. In latent units, good to
    1e-7 of the standard deviations (the trace cancels). Source: remark 2.31.
    """
    import ot

    return float(ot.gaussian.bures_wasserstein_distance(*_gaussians(mean_0, covariance_0, mean_1, covariance_1)))


def gaussian_map(mean_0: Tensor, covariance_0: Tensor, mean_1: Tensor, covariance_1: Tensor) -> tuple[Tensor, Tensor]:
    """Brenier's map T(x) = A x + b between Gaussians: A = S_0^-½ (S_0^½ S_1 S_0^½)^½ S_0^-½ and b = m_1 - A m_0.

    A (d, d) is symmetric and positive definite, so T is the gradient of the convex ½ xᵀ A x + b·x.
    """
    import ot

    matrix, offset = ot.gaussian.bures_wasserstein_mapping(*_gaussians(mean_0, covariance_0, mean_1, covariance_1))
    return torch.from_numpy(matrix).to(mean_0), torch.from_numpy(offset).to(mean_0)


def map_1d(source: Tensor, target: Tensor) -> Tensor:
    """Brenier's map on a line, both (n,): T(x_i), (n,), is the point of the target that has the rank of x_i.

    Equal source points get their targets in some order. Source: remark 2.28.

    >>> map_1d(torch.tensor([5.0, -1.0, 2.0]), torch.tensor([10.0, 30.0, 20.0]))
    tensor([30., 10., 20.])
    """
    x = _array("source", source, ("n",))
    _array("target", target, (len(x),), "a map by rank needs as many targets as sources")
    image = torch.empty_like(source.detach())
    image[source.argsort()] = target.detach().to(image).sort().values
    return image


def kinetic_energy(z: Tensor) -> Tensor:
    """T Σ_{t<T} ‖z_{t+1} - z_t‖² = ∫₀¹ ‖v‖² ds of paths z (B, T+1, d) in T equal times, s = t/T: (B,), latent².

    Differentiable. Its mean over particles is at least W₂² of the clouds at the ends, with equality for straight motion
    at constant speed under an optimal plan. Source: Benamou & Brenier 2000.

    >>> kinetic_energy(torch.tensor([[[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]]]))
    tensor([50.])
    """
    _require_shape("z", z, ("B", "T+1", "d"))
    steps = z.shape[1] - 1
    if steps < 1:
        raise ValueError(f"paths need at least 2 positions (one step), got z of shape {tuple(z.shape)}")
    return steps * z.diff(dim=1).square().sum((1, 2))


def _energy(z: Tensor) -> tuple[Tensor, float]:
    """Paths (B, T+1, d) as float64, known to be sound, in their own unit, and their mean kinetic energy."""
    paths = _array("z", z, ("B", "T+1", "d"))
    z = torch.from_numpy(paths / _unit(paths))
    return z, kinetic_energy(z).mean().item()


def efficiency(z: Tensor) -> float:
    """E ‖z_T - z_0‖² / E kinetic_energy(z), from 0 (all return) to 1 (all go straight at constant speed, or stand)."""
    z, energy = _energy(z)
    return (z[:, -1] - z[:, 0]).square().sum(1).mean().item() / energy if energy else 1.0


def ot_gap(z: Tensor) -> float:
    """E kinetic_energy(z) / W₂²(cloud at t = 0, cloud at t = T) ≥ 1, 1 for optimal transport; z (B, T+1, d).

    It is (1 / efficiency) · (E ‖z_T - z_0‖² / W₂²): how directly particles go, times how well starts and ends are
    paired. Infinite when particles move and end as the same cloud; a ValueError when none moves (0/0). W₂ is exact, so
    give some thousand particles at most. Source: Benamou & Brenier 2000.
    """
    z, energy = _energy(z)
    if not energy:
        raise ValueError("no particle moves, so the gap is 0/0; check that the flow has been trained")
    optimum = optimal_plan(z[:, 0], z[:, -1]).cost
    return energy / optimum if optimum else math.inf


def hopf_lax(initial: Tensor, support: Tensor, z: Tensor, t: float) -> Tensor:
    """u(z, t) = min_y [ u_0(y) + ‖z - y‖² / (2t) ] over given points y: the Hopf-Lax formula, differentiable.

    With y everywhere it is the viscosity solution of ∂_t u + ½ ‖∇u‖² = 0, u(·, 0) = u_0. On a grid of y it is an upper
    bound that falls as the grid gets finer. ``initial`` u_0(y) (n,), ``support`` y (n, d), z (B, d) and t > 0 give
    (B,), latent² per time, with memory B n. Source: Evans, Partial Differential Equations, section 3.3.
    """
    if not 0 < t < math.inf:
        raise ValueError(f"t must be positive and finite, got {t}; at t = 0 the solution is u_0 itself")
    _require_sound("support", support, ("n", "d"), "points on a line are y[:, None]")
    _require_sound("initial", initial, (len(support),), "give one value for each point of the support")
    _require_sound("z", z, ("B", support.shape[1]), "z must lie in the space of the support")
    distances = torch.cdist(z, support, compute_mode="donot_use_mm_for_euclid_dist")
    return (initial + distances.square() / (2 * t)).amin(1)
