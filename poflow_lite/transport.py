"""Optimal transport between clouds of points, and how far a flow is from it.

The plans and distances are those of POT, the Python Optimal Transport library (Flamary et al. 2021); what is added here
is our shapes, our units and our errors. A cloud is a tensor (n, d) with one weight per point, uniform unless given.
Costs are squared Euclidean distances, hence in latent². Results are detached, in the dtype of the first cloud.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Plan",
    "entropic_plan",
    "gaussian_map",
    "gaussian_wasserstein",
    "hopf_lax",
    "monotone_map",
    "optimal_plan",
    "ot_gap",
    "path_energy",
    "sliced_wasserstein",
    "straightness",
    "wasserstein",
]


# --- what may come in ---------------------------------------------------------------------------------------------


def _require_shape(what: str, x: Tensor, shape: tuple[int | str, ...], hint: str = "") -> None:
    """Refuse what does not have this shape, in which a letter stands for any size but 0."""
    pairs = zip(shape, x.shape, strict=False)
    if x.ndim != len(shape) or any(want != got for want, got in pairs if not isinstance(want, str)):
        expected = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        raise ValueError(f"{what} must be ({expected}), got {tuple(x.shape)}{hint and '; ' + hint}")
    if not x.numel():
        raise ValueError(f"{what} is empty, of shape {tuple(x.shape)}: give at least one point of one dimension")


def _array(what: str, x: Tensor, shape: tuple[int | str, ...], hint: str = "") -> np.ndarray:
    """x as the float64 array that POT needs, once its shape and all its entries are known to be sound."""
    _require_shape(what, x, shape, hint)
    if not x.is_floating_point():
        raise ValueError(f"{what} must be floating-point, got {x.dtype}; convert it by .float() or .double()")
    if bad := int((~x.isfinite()).sum()):
        raise ValueError(
            f"{what} has {bad} NaN or infinite entries of {x.numel()}; drop these points, or find where they arose"
        )
    return x.detach().cpu().double().numpy()


def _clouds(source: Tensor, target: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds (n, d) and (m, d) in the same space."""
    x = _array("source", source, ("n", "d"), "points on a line are x[:, None]")
    return x, _array("target", target, ("m", x.shape[1]), "both clouds must lie in the space of the source")


def _weights(what: str, weights: Tensor | None, count: int) -> np.ndarray:
    """(count,) weights that sum to 1; uniform for None."""
    if weights is None:
        return np.full(count, 1 / count)
    w = _array(what, weights, (count,), "give one weight per point, or None for equal weights")
    if w.min() < 0:
        raise ValueError(f"{what} must not be negative, the smallest is {w.min():.6g}")
    if abs(w.sum() - 1) > 1e-5:  # as good as single precision sums thousands of weights
        raise ValueError(f"{what} must sum to 1, they sum to {w.sum():.6g}; divide them by their sum")
    return w / w.sum()


def _paths(z: Tensor) -> Tensor:
    """Paths (B, T+1, d) as float64, known to be sound."""
    return torch.from_numpy(_array("z", z, ("B", "T+1", "d")))


def _costs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """‖x_i - y_j‖², (n, m); by differences, since ot.dist expands the square and cancels digits far from the origin."""
    from scipy.spatial.distance import cdist

    return cdist(x, y, "sqeuclidean")


def _problem(source: Tensor, target: Tensor, source_weights: Tensor | None, target_weights: Tensor | None) -> tuple:
    """Weights a (n,), b (m,) and costs (n, m) of the clouds moved to mean 0.

    Moving a cloud changes the cost of all plans by the same amount, so the best is the same; a large shift between the
    clouds then hides no digits of what is to be compared.
    """
    x, y = _clouds(source, target)
    a, b = _weights("source_weights", source_weights, len(x)), _weights("target_weights", target_weights, len(y))
    return a, b, _costs(x - x.mean(0), y - y.mean(0))


# --- plans --------------------------------------------------------------------------------------------------------


@dataclass
class Plan:
    """A coupling P of two clouds: P_ij is the mass that goes from x_i to y_j.

    Attributes:
        source: x, (n, d).
        target: y, (m, d).
        matrix: P, (n, m), non-negative, sums to 1; its row sums are the weights of x, its column sums those of y.
        cost: Σ_ij P_ij ‖x_i - y_j‖², latent²; W₂² if no plan with these marginals is cheaper.
    """

    source: Tensor
    target: Tensor
    matrix: Tensor
    cost: float

    def displacement(self, s: float) -> tuple[Tensor, Tensor]:
        """McCann's displacement interpolation: mass P_ij at (1 - s) x_i + s y_j.

        If the plan is optimal, this is the geodesic of W₂: W₂(μ_0, μ_s) = s W₂(μ_0, μ_1), McCann 1997.

        Args:
            s: how far to go, from 0 (source) to 1 (target).

        Returns:
            The points (p, d) and their weights (p,), one for each of the p pairs with positive mass.

        Raises:
            ValueError: for s outside [0, 1].
        """
        if not 0 <= s <= 1:
            raise ValueError(f"s must lie between 0 (source) and 1 (target), got {s}")
        i, j = self.matrix.nonzero(as_tuple=True)
        return torch.lerp(self.source[i], self.target[j], s), self.matrix[i, j]

    def barycentric_map(self) -> Tensor:
        """T(x_i) = Σ_j P_ij y_j / Σ_j P_ij, the mean of where x_i goes: (n, d), NaN for a point without mass.

        It is Brenier's map wherever the plan does not split mass. Source: Peyré & Cuturi 2019, chapter 4.
        """
        return self.matrix @ self.target / self.matrix.sum(1, keepdim=True)


def _plan(source: Tensor, target: Tensor, matrix: np.ndarray) -> Plan:
    cost = float((matrix * _costs(*_clouds(source, target))).sum())
    source = source.detach()
    return Plan(source, target.detach().to(source), torch.from_numpy(matrix).to(source), cost)


def optimal_plan(
    source: Tensor,
    target: Tensor,
    source_weights: Tensor | None = None,
    target_weights: Tensor | None = None,
    iterations: int = 10_000_000,
) -> Plan:
    """argmin_P Σ_ij P_ij ‖x_i - y_j‖² with marginals a and b: Kantorovich's problem, by the network simplex of POT.

    Exact, in time about cubic in the number of points: 2,000 points against 2,000 take about a second.

    Args:
        source, target: x (n, d) and y (m, d).
        source_weights, target_weights: a (n,) and b (m,), each summing to 1; None for 1/n and 1/m.
        iterations: the most pivots that are made.

    Raises:
        ValueError: for clouds or weights of the wrong shape, with NaN, or weights that are negative or not normalised.
        RuntimeError: if ``iterations`` did not suffice. Source: Peyré & Cuturi 2019, chapter 3.
    """
    import ot

    a, b, costs = _problem(source, target, source_weights, target_weights)
    scaled = costs / (costs.max() or 1.0)  # POT's tolerance is absolute: tiny costs would end in any plan, unnoticed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what POT would warn of is raised below
        matrix, log = ot.emd(a, b, scaled, numItermax=iterations, log=True)
    if log["warning"]:
        raise RuntimeError(
            f"no optimal plan of {len(a)} x {len(b)} points after {iterations} iterations; give more iterations or "
            f"fewer points (POT: {log['warning']})"
        )
    return _plan(source, target, matrix)


def entropic_plan(
    source: Tensor,
    target: Tensor,
    epsilon: float,
    source_weights: Tensor | None = None,
    target_weights: Tensor | None = None,
    iterations: int = 10_000,
    tolerance: float = 1e-7,
) -> Plan:
    """argmin_P Σ_ij P_ij ‖x_i - y_j‖² + ε Σ_ij P_ij log P_ij with marginals a and b, by Sinkhorn's algorithm.

    The penalty is minus the entropy of P; given the marginals, it differs from KL(P ‖ a ⊗ b) by a constant. Iterations
    run on logarithms, so a small ε does not overflow, but their number grows like 1/ε. ``cost`` is the first sum only:
    cost - W₂² ≥ 0 is the bias of the entropy. It vanishes with ε; for ε → ∞ the plan becomes a ⊗ b.

    Args:
        source, target: x (n, d) and y (m, d).
        epsilon: ε > 0, latent² (per nat).
        source_weights, target_weights: a (n,) and b (m,), each summing to 1; None for 1/n and 1/m.
        iterations: the most that are made.
        tolerance: how far, in Euclidean norm, the column sums may be from b; the row sums are a exactly.

    Raises:
        ValueError: for ε ≤ 0, and as in :func:`optimal_plan`.
        RuntimeError: if the marginals do not hold after ``iterations``. Source: Cuturi 2013; Peyré & Cuturi 2019, 4.4.
    """
    import ot

    if not 0 < epsilon < math.inf:
        raise ValueError(f"epsilon must be positive and finite, got {epsilon}; for epsilon = 0 use optimal_plan")
    a, b, costs = _problem(source, target, source_weights, target_weights)
    kept = np.ix_(a > 0, b > 0)  # no logarithm of 0
    with np.errstate(over="ignore"):  # POT also reports exp of its logarithms, which we do not use
        part, log = ot.bregman.sinkhorn_log(
            a[a > 0],
            b[b > 0],
            costs[kept],
            epsilon,
            numItermax=iterations,
            stopThr=tolerance,
            warn=False,
            log=True,
        )
    if not log["err"][-1] < tolerance:
        raise RuntimeError(
            f"after {iterations} iterations at epsilon = {epsilon} the target's marginal is off by "
            f"{log['err'][-1]:.1e}, not {tolerance:.1e}; give a larger epsilon, more iterations or a larger tolerance"
        )
    matrix = np.zeros_like(costs)
    matrix[kept] = part
    return _plan(source, target, matrix)


# --- distances and maps -------------------------------------------------------------------------------------------


def wasserstein(
    source: Tensor, target: Tensor, source_weights: Tensor | None = None, target_weights: Tensor | None = None
) -> float:
    """W₂ = √(min_P Σ_ij P_ij ‖x_i - y_j‖²) in latent units (not squared); arguments and errors of optimal_plan."""
    return math.sqrt(optimal_plan(source, target, source_weights, target_weights).cost)


def sliced_wasserstein(source: Tensor, target: Tensor, projections: int = 128, seed: int = 0) -> float:
    """√( mean over directions θ of W₂²(θ·x, θ·y) ), in latent units; at most W₂, as no projection stretches.

    Args:
        source, target: (n, d) and (m, d), with equal weights.
        projections: number of directions, uniform on the sphere: the error of the mean falls as 1/√projections.
        seed: of a generator of its own; the same directions for the same seed.

    Raises:
        ValueError: for unsound clouds or no projection. Source: Bonneel et al. 2015.
    """
    import ot

    if projections < 1:
        raise ValueError(f"at least 1 projection is needed, got {projections}")
    x, y = _clouds(source, target)
    directions = np.random.default_rng(seed).standard_normal((x.shape[1], projections))  # POT would reseed its own
    directions /= np.linalg.norm(directions, axis=0)
    return float(ot.sliced_wasserstein_distance(x, y, projections=directions))


def _gaussian(mean: Tensor, covariance: Tensor, index: int, d: int | str) -> tuple[np.ndarray, np.ndarray]:
    m = _array(f"mean_{index}", mean, (d,), "both Gaussians must lie in one space")
    s = _array(f"covariance_{index}", covariance, (len(m), len(m)), f"mean_{index} has {len(m)} dimensions")
    if (asymmetry := abs(s - s.T).max()) > 1e-5 * abs(s).max():
        raise ValueError(f"covariance_{index} must be symmetric, S and its transpose differ by {asymmetry:.3g}")
    if (eigenvalues := np.linalg.eigvalsh(s))[0] <= 1e-8 * eigenvalues[-1]:  # POT's square roots would end in NaN
        raise ValueError(
            f"covariance_{index} must be positive definite, its eigenvalues go from {eigenvalues[0]:.3g} to "
            f"{eigenvalues[-1]:.3g}; add at least 1e-8 of the largest to the diagonal"
        )
    return m, s


def _gaussians(mean_0: Tensor, covariance_0: Tensor, mean_1: Tensor, covariance_1: Tensor) -> tuple[np.ndarray, ...]:
    """m_0, m_1, S_0, S_1, the order in which POT takes them."""
    m0, s0 = _gaussian(mean_0, covariance_0, 0, "d")
    m1, s1 = _gaussian(mean_1, covariance_1, 1, len(m0))
    return m0, m1, s0, s1


def gaussian_wasserstein(mean_0: Tensor, covariance_0: Tensor, mean_1: Tensor, covariance_1: Tensor) -> float:
    """W₂² = ‖m_0 - m_1‖² + tr( S_0 + S_1 - 2 (S_0^½ S_1 S_0^½)^½ ), the Bures-Wasserstein distance; its square root.

    Args:
        mean_0, mean_1: (d,).
        covariance_0, covariance_1: (d, d), symmetric and positive definite.

    Returns:
        W₂(N(m_0, S_0), N(m_1, S_1)), latent units; good to 1e-7 of the standard deviations (the trace cancels).

    Raises:
        ValueError: for wrong shapes, NaN, or a matrix that is no covariance. Source: Peyré & Cuturi 2019, remark 2.31.
    """
    import ot

    return float(ot.gaussian.bures_wasserstein_distance(*_gaussians(mean_0, covariance_0, mean_1, covariance_1)))


def gaussian_map(mean_0: Tensor, covariance_0: Tensor, mean_1: Tensor, covariance_1: Tensor) -> tuple[Tensor, Tensor]:
    """Brenier's map T(x) = A x + b between Gaussians: A = S_0^-½ (S_0^½ S_1 S_0^½)^½ S_0^-½ and b = m_1 - A m_0.

    A is symmetric and positive definite, so T is the gradient of a convex potential, ½ xᵀ A x + b·x.

    Args:
        mean_0, mean_1, covariance_0, covariance_1: as in :func:`gaussian_wasserstein`, with the same errors.

    Returns:
        A (d, d) and b (d,). Source: Peyré & Cuturi 2019, remark 2.31.
    """
    import ot

    matrix, offset = ot.gaussian.bures_wasserstein_mapping(*_gaussians(mean_0, covariance_0, mean_1, covariance_1))
    return torch.from_numpy(matrix).to(mean_0), torch.from_numpy(offset).to(mean_0)


def monotone_map(source: Tensor, target: Tensor) -> Tensor:
    """Brenier's map on a line: T(x_i) is the point of the target that has the rank of x_i.

    Args:
        source, target: (n,), equally many points.

    Returns:
        (n,), in the order of the source; equal source points get their targets in some order.

    Raises:
        ValueError: for wrong shapes or NaN. Source: Peyré & Cuturi 2019, remark 2.28.
    """
    import ot

    x = _array("source", source, ("n",))
    y = _array("target", target, (len(x),), "a map by rank needs as many targets as sources")
    unit = np.ones(len(x))  # whole masses leave no crumbs, as 1/n would
    plan = ot.emd_1d(x, y, unit, unit, dense=False)
    moved, image = plan.data > 0.5, torch.empty_like(source.detach())
    image[plan.row[moved]] = target.detach().to(image)[plan.col[moved]]
    return image


# --- motion -------------------------------------------------------------------------------------------------------


def path_energy(z: Tensor) -> Tensor:
    """T Σ_{t<T} ‖z_{t+1} - z_t‖² = ∫₀¹ ‖v‖² ds of straight pieces walked in equal times, with s = t/T from 0 to 1.

    Its mean over particles is at least W₂² of the clouds at the ends (Benamou & Brenier 2000), with equality for
    straight motion at constant speed under an optimal plan.

    Args:
        z: (B, T+1, d), positions at equal intervals of time, T ≥ 1.

    Returns:
        (B,), latent², differentiable.

    Raises:
        ValueError: for another shape, or paths without a step.
    """
    _require_shape("z", z, ("B", "T+1", "d"))
    steps = z.shape[1] - 1
    if steps < 1:
        raise ValueError(f"paths need at least 2 positions (one step), got z of shape {tuple(z.shape)}")
    return steps * z.diff(dim=1).square().sum((1, 2))


def straightness(z: Tensor) -> float:
    """E ‖z_T - z_0‖² / E path_energy(z), from 0 (all return) to 1 (all go straight at constant speed: Cauchy-Schwarz).

    1 also when nothing moves, as a standing particle has taken no detour.

    Args:
        z: (B, T+1, d), as in :func:`path_energy`.

    Raises:
        ValueError: for another shape or NaN.
    """
    z = _paths(z)
    energy = path_energy(z).mean().item()
    return (z[:, -1] - z[:, 0]).square().sum(1).mean().item() / energy if energy else 1.0


def ot_gap(z: Tensor) -> float:
    """E path_energy(z) / W₂²(cloud at t = 0, cloud at t = T) ≥ 1; 1 exactly for optimal transport.

    It is (1 / straightness) · (E ‖z_T - z_0‖² / W₂²): how straight the paths are, times how well starts and ends are
    paired. Infinite when particles move and end as the same cloud.

    Args:
        z: (B, T+1, d), as in :func:`path_energy`; W₂ is exact, so some thousand particles at most.

    Raises:
        ValueError: for another shape, NaN, or when nothing moves (0/0). Source: Benamou & Brenier 2000.
    """
    z = _paths(z)
    energy = path_energy(z).mean().item()
    if not energy:
        raise ValueError("no particle moves, so the gap is 0/0; check that the flow has been trained")
    optimum = optimal_plan(z[:, 0], z[:, -1]).cost
    return energy / optimum if optimum else math.inf


def hopf_lax(initial: Tensor, support: Tensor, z: Tensor, t: float) -> Tensor:
    """u(z, t) = min_y [ u_0(y) + ‖z - y‖² / (2t) ] over given points y: the Hopf-Lax formula.

    With y everywhere it is the viscosity solution of ∂_t u + ½ ‖∇u‖² = 0, u(·, 0) = u_0. On a grid of y
    it is an upper bound that falls as the grid gets finer.

    Args:
        initial: u_0(y), (n,).
        support: y, (n, d).
        z: (B, d).
        t: time since the start, > 0.

    Returns:
        (B,), latent² per time, differentiable. Memory B n.

    Raises:
        ValueError: for t ≤ 0 or shapes that do not fit. Source: Evans, Partial Differential Equations, section 3.3.
    """
    if not 0 < t < math.inf:
        raise ValueError(f"t must be positive and finite, got {t}; at t = 0 the solution is u_0 itself")
    _require_shape("support", support, ("n", "d"), "points on a line are y[:, None]")
    _require_shape("initial", initial, (len(support),), "give one value for each point of the support")
    _require_shape("z", z, ("B", support.shape[1]), "z must lie in the space of the support")
    distances = torch.cdist(z, support, compute_mode="donot_use_mm_for_euclid_dist")
    return (initial + distances.square() / (2 * t)).amin(1)
