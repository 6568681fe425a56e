"""Plans, distances, motion and Hopf-Lax against hand calculation, permutations, linear programs and closed forms."""

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from draws import double, rng
from draws import normal as cloud
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment, linprog
from torch.autograd import gradcheck

from poflow_lite.transport import (
    efficiency,
    gaussian_map,
    gaussian_wasserstein,
    hopf_lax,
    kinetic_energy,
    map_1d,
    optimal_plan,
    ot_gap,
    sinkhorn,
    wasserstein,
)

seeds, nan = st.integers(0, 9999), math.nan
approx, close = pytest.approx, torch.testing.assert_close


def weights(n, seed=0):
    return torch.rand(n, generator=rng(1000 + seed), dtype=torch.float64).add(0.05).softmax(0)


def costs(x, y):
    """All ‖x_i - y_j‖², one pair at a time."""
    return np.array([[((a - b) ** 2).sum() for b in y.numpy()] for a in x.numpy()])


def linear_program(x, y, a, b):
    """Kantorovich's problem as a linear program in the n m entries of the plan."""
    n, m = len(x), len(y)
    rows, columns = np.kron(np.eye(n), np.ones((1, m))), np.kron(np.ones((1, n)), np.eye(m))
    marginals = np.concatenate([a.numpy(), b.numpy()])
    return linprog(costs(x, y).ravel(), A_eq=np.vstack([rows, columns])[:-1], b_eq=marginals[:-1]).fun


def assignment(x, y):
    """W₂² of equally many points of equal weight, by the Hungarian algorithm."""
    c = costs(x, y)
    return c[linear_sum_assignment(c)].mean()


def assert_marginals(plan, a, b, atol=1e-12):
    assert (plan.matrix >= 0).all()
    close(plan.matrix.sum(1), a, rtol=0, atol=atol)
    close(plan.matrix.sum(0), b, rtol=0, atol=atol)


# --- exact plans --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 5])
def test_a_translation_costs_its_length_and_couples_each_point_with_its_image(d):
    x, shift = cloud(30, d), torch.arange(1.0, d + 1)
    plan = optimal_plan(x, x + shift)
    close(plan.matrix, torch.eye(30).double() / 30)
    assert math.sqrt(plan.cost) == approx(shift.norm().item())
    close(plan.barycentric_map(), x + shift)
    assert wasserstein(x, x.flip(0)) == 0  # exactly: the same cloud


@given(seed=seeds, n=st.integers(1, 7), m=st.integers(1, 7))
def test_unequal_weights_and_sizes_give_the_linear_program(seed, n, m):
    x, y, a, b = cloud(n, 2, seed=seed), cloud(m, 2, seed=seed + 1), weights(n, seed), weights(m, seed + 1)
    plan = optimal_plan(x, y, a, b)
    assert plan.cost == approx(linear_program(x, y, a, b))
    assert_marginals(plan, a, b)
    assert wasserstein(x, y, a, b) ** 2 == approx(plan.cost)
    assert optimal_plan(y, x, b, a).cost == approx(plan.cost)


@pytest.mark.parametrize("solve", [optimal_plan, lambda x, y, *w: sinkhorn(x, y, 0.5, *w)])
def test_points_without_mass_play_no_part(solve):
    x, y, a = cloud(5, 2), cloud(4, 2, seed=1), double(0.5, 0, 0.2, 0.3, 0)
    plan, alone = solve(x, y, a), solve(x[a > 0], y, a[a > 0])
    assert plan.cost == approx(alone.cost)
    close(plan.matrix[a > 0], alone.matrix)
    assert (plan.matrix[a == 0] == 0).all()
    assert plan.barycentric_map().isnan().all(1).tolist() == (a == 0).tolist()


@pytest.mark.parametrize(("scale", "shift"), [(1e-12, 0), (1e-6, 0), (1e6, 0), (1, 1e7)])
def test_neither_the_unit_of_length_nor_a_large_shift_changes_the_plan(scale, shift):
    """The simplex of POT has an absolute tolerance, below which any plan would do; its costs would lose digits."""
    x, y = cloud(50, 3), cloud(50, 3, seed=1)
    found = wasserstein(scale * x + shift, scale * y + shift) / scale
    assert found == approx(math.sqrt(assignment(x, y)), rel=1e-6)
    close(optimal_plan(scale * x, scale * y + shift).matrix, optimal_plan(x, y).matrix)


def test_results_are_detached_and_of_the_dtype_of_the_source():
    x, y = cloud(8, 2).float().requires_grad_(), cloud(9, 2, seed=1).requires_grad_()
    plan = sinkhorn(x, y, 1.0)
    results = [*optimal_plan(x, y, weights(8).float()).displacement(0.5), plan.matrix, plan.source, plan.target]
    results += [plan.barycentric_map(), map_1d(x[:, 0], y[:8, 0])]
    results += gaussian_map(torch.zeros(2), torch.eye(2), torch.ones(2).double(), 4 * torch.eye(2).double())
    assert all(result.dtype == torch.float32 and not result.requires_grad for result in results)
    assert isinstance(plan.cost, float)
    assert plan.matrix.sum().item() == approx(1)


@pytest.mark.parametrize("s", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_displacement_walks_the_geodesic_at_constant_speed(s):
    x, y, a, b = cloud(9, 2), 2 * cloud(11, 2, seed=1) - 1, weights(9), weights(11, 1)
    points, w = optimal_plan(x, y, a, b).displacement(s)
    assert (w > 0).all()
    whole = math.sqrt(linear_program(x, y, a, b))
    assert wasserstein(x, points, a, w) == approx(s * whole, abs=1e-7)
    assert wasserstein(points, y, w, b) == approx((1 - s) * whole, abs=1e-7)


# --- Sinkhorn -----------------------------------------------------------------------------------------------------


def test_sinkhorn_satisfies_the_conditions_of_optimality():
    """ε log P + C = f_i + g_j, and the marginals hold: what makes a coupling the only minimiser."""
    x, y, a, b = cloud(7, 2), cloud(5, 2, seed=1), weights(7), weights(5, 1)
    plan = sinkhorn(x, y, 0.7, a, b, tolerance=1e-12)
    assert_marginals(plan, a, b, 1e-11)
    sums = 0.7 * plan.matrix.log() + torch.from_numpy(costs(x, y))
    close(sums - sums[:1] - sums[:, :1] + sums[0, 0], torch.zeros(7, 5).double())


def test_from_small_to_large_epsilon_the_plan_goes_from_optimal_to_independent():
    x, y, a, b = cloud(12, 2), cloud(10, 2, seed=1), weights(12), weights(10, 1)
    plans = {e: sinkhorn(x, y, e, a, b, tolerance=1e-10) for e in (1e6, 100, 10, 3, 1, 0.3, 0.1, 0.03)}
    bias = [plan.cost - linear_program(x, y, a, b) for plan in plans.values()]
    distance = [(plan.matrix - a[:, None] * b).abs().sum().item() for plan in plans.values()]
    assert all(more > less > -1e-8 for more, less in pairwise(bias))
    assert distance == sorted(distance)
    assert bias[0] > 0.5
    assert bias[-1] < 1e-3
    assert distance[0] < 1e-5
    assert distance[-1] > 0.3


def test_a_small_epsilon_does_not_overflow():
    """exp(-C/ε) is 0 in double precision for all but equal points: only logarithms can hold it."""
    x, y = double([0], [1], [3]), double([0.5], [1.5], [4.0])
    assert np.exp(-costs(x, y) / 1e-4).max() == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        close(sinkhorn(x, y, 1e-4).matrix, torch.eye(3).double() / 3, rtol=0, atol=1e-7)


@pytest.mark.parametrize("far", [1e4, 1e6, 1e8, 1e12, 1e100])
def test_an_outlier_does_not_spoil_the_plan_of_the_others(far):
    """In both clouds; from 1e6 on the others were paired ever worse, at 1e8 to four times the cost."""
    x, y = cloud(50, 2), cloud(50, 2, seed=1)
    x[0] = y[0] = far
    rows, columns = linear_sum_assignment(costs(x, y))
    assert optimal_plan(x, y).cost == approx(costs(x, y)[rows, columns].mean(), rel=1e-8)
    assert wasserstein(x, y) == approx(wasserstein(x[1:], y[1:]) * math.sqrt(49 / 50), rel=1e-8)


@pytest.mark.parametrize("weight", [1e-6, 1e-9, 1e-12])
def test_an_outlier_of_next_to_no_weight_costs_what_it_must(weight):
    """In one cloud, at 1e6: it goes to the nearest point, to first order in its weight, the others as without it."""
    x, y = cloud(50, 2), cloud(50, 2, seed=1)
    a = torch.full((51,), (1 - weight) / 50).double()
    a[0] = weight
    found = optimal_plan(torch.cat([double([1e6, 1e6]), x]), y, a)
    nearest = (y - 1e6).square().sum(1).min().item()
    assert found.cost == approx(optimal_plan(x, y).cost + weight * nearest, rel=1e-4)


def test_a_worse_plan_is_never_returned_in_silence(monkeypatch):
    """POT may give one without a warning; here it gives the independent plan, whose dual shows that it is not best."""
    x, y = cloud(20, 2), cloud(20, 2, seed=1)
    log = {"warning": None, "u": np.zeros(20), "v": np.zeros(20)}
    monkeypatch.setattr("ot.emd", lambda a, b, *costs, **options: (np.outer(a, b), log))
    for measure in (optimal_plan, wasserstein):
        with pytest.raises(
            RuntimeError, match=r"the one found may cost .* of its cost more than the best; leave out outl"
        ):
            measure(x, y)


@pytest.mark.parametrize("unit", [1e-170, 1e-120, 1e120])
def test_any_unit_of_length_will_do(unit):
    x, y = cloud(20, 2), cloud(20, 2, seed=1)
    assert torch.equal(optimal_plan(x * unit, y * unit).matrix, optimal_plan(x, y).matrix)
    paths = torch.stack([x, x + y, y], 1)
    assert efficiency(paths * unit) == approx(efficiency(paths))
    assert ot_gap(paths * 1e-20) == approx(ot_gap(paths))


def test_plans_that_do_not_converge_are_refused_without_a_warning():
    x, y = cloud(30, 2), cloud(30, 2, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match=r"no optimal plan of 30 x 30 points after 3 iterations; give more iter"):
            optimal_plan(x, y, iterations=3)
        with pytest.raises(RuntimeError, match=r"after 20 iterations at epsilon = 0.01 .* not 1.0e-07; give a larger"):
            sinkhorn(x, y, 0.01, iterations=20)


def covariance(d, seed):
    root = cloud(d, d + 2, seed=seed)
    return root @ root.T / (d + 2)


def bures(m0, s0, m1, s1):
    """The formula, by the matrix square root of scipy."""
    root = sqrtm(s0.numpy())
    cross = sqrtm(root @ s1.numpy() @ root).real
    return math.sqrt((m0 - m1).square().sum() + s0.trace() + s1.trace() - 2 * np.trace(cross))


@given(seed=seeds, d=st.integers(1, 5))
def test_gaussian_distance_is_that_of_bures_and_attained_by_the_map(seed, d):
    m0, m1 = cloud(2, d, seed=seed)
    s0, s1 = covariance(d, seed), covariance(d, seed + 1)
    found = gaussian_wasserstein(m0, s0, m1, s1)
    assert found == approx(bures(m0, s0, m1, s1), rel=1e-6)
    matrix, offset = gaussian_map(m0, s0, m1, s1)
    close(matrix, matrix.T)
    assert torch.linalg.eigvalsh(matrix).min() > 0
    close(matrix @ s0 @ matrix.T, s1)
    close(matrix @ m0 + offset, m1)
    excess = matrix - torch.eye(d).double()
    cost = (m1 - m0).square().sum() + (excess @ s0 @ excess.T).trace()  # E ‖T(x) - x‖²
    assert math.sqrt(cost) == approx(found, rel=1e-6)


@given(seed=seeds, n=st.integers(1, 8), ties=st.booleans())
def test_map_1d_sorts_and_is_optimal(seed, n, ties):
    x, y = cloud(2, n, seed=seed)
    if ties:
        x, y = x.round(), (2 * y).round() / 2
    image = map_1d(x, y)
    assert image.sort().values.tolist() == y.sort().values.tolist()
    assert (image[x.argsort(stable=True)].diff() >= 0)[x.sort().values.diff() > 0].all()
    plan = optimal_plan(x[:, None], y[:, None])
    assert (image - x).square().mean().item() == approx(plan.cost)
    if not ties:
        close(image, plan.barycentric_map()[:, 0])


def motion(times, start, end):
    """Paths from start to end that have gone the fraction times[t] of the way at t: (B, T+1, d)."""
    return torch.lerp(start[:, None], end[:, None], torch.as_tensor(times, dtype=torch.float64)[:, None])


def test_energy_by_hand_and_its_gradient():
    z = double([[0, 0], [3, 4], [3, 4]], [[0, 0], [1, 0], [1, 2]])
    assert kinetic_energy(z).tolist() == [2 * 25, 2 * (1 + 4)]
    assert gradcheck(kinetic_energy, cloud(6, 2).reshape(2, 3, 2).requires_grad_())
    assert efficiency(z) == approx((25 + 5) / (50 + 10))


@pytest.mark.parametrize(
    ("times", "gap"),
    [(torch.linspace(0, 1, n + 1), 1) for n in (1, 2, 7)]  # constant speed
    + [(torch.linspace(0, 1, n + 1).double() ** 2, (4 - 1 / n**2) / 3) for n in (2, 5, 400)]  # ∫ (2s)² ds = 4/3
    + [([0.0, *torch.linspace(0, 1, n).tolist()], n / (n - 1)) for n in (2, 5, 8)],  # a standing first step
)
def test_straight_motion_pays_for_its_time_table_alone(times, gap):
    x = cloud(20, 3)
    z = motion(times, x, 2 * x + 1)  # the gradient of a convex function: optimal
    assert ot_gap(z) == approx(gap)
    assert efficiency(z) == approx(1 / gap)
    close(kinetic_energy(z), gap * (x + 1).square().sum(1))


@given(seed=seeds, n=st.integers(1, 8), steps=st.integers(1, 5), detour=st.floats(0, 2))
def test_no_motion_beats_optimal_transport_and_the_gap_has_two_factors(seed, n, steps, detour):
    """Any coupling, any detour, any time table: energy is at least W₂² of the ends."""
    x, y = cloud(n, 2, seed=seed), cloud(n, 2, seed=seed + 1)
    times = torch.rand(steps - 1, generator=rng(seed), dtype=torch.float64).sort().values
    z = motion([0.0, *times.tolist(), 1.0], x, y)
    z[:, 1:-1] += detour * torch.randn(z[:, 1:-1].shape, generator=rng(seed), dtype=torch.float64)
    exact, moved = assignment(x, y), (y - x).square().sum(1).mean().item()
    gap, straight, energy = ot_gap(z), efficiency(z), kinetic_energy(z).mean().item()
    assert energy >= exact * (1 - 1e-12)
    assert 0 <= straight <= 1 + 1e-12
    assert gap == approx(energy / exact)
    assert gap == approx(moved / exact / straight)


def test_bad_couplings_and_motion_that_leads_nowhere():
    z = motion([0, 0.5, 1], double([0], [1]), double([3], [1]))  # instead of 0 → 1 and 1 → 3
    assert efficiency(z) == approx(1)
    assert ot_gap(z) == approx((9 + 0) / (1 + 4))
    swap = motion([0, 1], double([0], [1]), double([1], [0]))
    assert ot_gap(swap) == math.inf
    assert efficiency(torch.cat([swap, swap[:, :1]], 1)) == 0
    assert efficiency(cloud(5, 2)[:, None].expand(5, 4, 2)) == 1


def line(spacing, reach=4.0):
    return torch.arange(-reach, reach, spacing, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("t", [0.1, 1.0, 2.5])
@pytest.mark.parametrize("a", [0.0, 0.5, 2.0])
def test_hopf_lax_of_quadratic_and_linear_functions_in_closed_form(a, t):
    """½ a ‖y‖² + b·y becomes a known quadratic or line; a grid only adds its rounding of y."""
    y, z, b = torch.cartesian_prod(*2 * [line(0.05, 3.0)[:, 0]]), cloud(20, 2).clamp(-1, 1), double(0.5, -0.3)
    square = a * z.square().sum(1) / (2 * (1 + a * t))
    for initial, exact, bend in (
        (0.5 * a * y.square().sum(1), square, a + 1 / t),
        (y @ b, z @ b - 0.5 * b @ b * t, 1 / t),
    ):
        error = hopf_lax(initial, y, z, t) - exact
        assert error.min() > -1e-12
        assert error.max() < bend * 0.025**2 + 1e-12


def test_hopf_lax_twice_is_hopf_lax_of_the_sum_of_the_times():
    """Also past the shock, where waves have met."""
    y, z = line(5e-3), double([-1.0], [0.2], [0.7])
    initial = torch.sin(2 * y[:, 0])
    once = hopf_lax(initial, y, z, 1.0)
    close(hopf_lax(hopf_lax(initial, y, y, 0.4), y, z, 0.6), once, rtol=0, atol=1e-4)
    assert (once - hopf_lax(initial, y, z, 0.6)).abs().max() > 0.05


# --- refusals: a function, its arguments, what it says ------------------------------------------------------------

X, M, S = cloud(3, 2), double(0, 0), torch.eye(2).double()
CLOUDS = [
    ((torch.zeros(3), X), r"source must be \(n, d\), got \(3,\); points on a line are x\[:, None\]"),
    ((X, cloud(4, 3)), r"target must be \(m, 2\), got \(4, 3\); both clouds must lie in the space"),
    ((double([0, nan], [math.inf, 1]), X), r"source has 2 NaN or infinite entries of 4; drop these"),
    ((torch.zeros(3, 2, dtype=torch.long), X), r"source must be floating-point, got torch.int64; convert"),
]
WEIGHTS = [
    ((X, X, double(0.5, 0.5)), r"weights a must be \(3,\), got \(2,\); give one weight per point, or None"),
    ((X, X, None, double(0.7, 0.5, -0.2)), r"weights b must be at least 0 and sum to 1, the least is -0.2, the sum 1"),
    ((X, X, double(1, 1, 0.5)), r"weights a must be at least 0 and sum to 1, the least is 0.5, the sum 2.5"),
    ((X, X, None, double(0.5, 0.5, nan)), r"weights b has 1 NaN or infinite entries of 3"),
]
GAUSSIANS = [
    ((M, S, double(0), S), r"mean_1 must be \(2,\), got \(1,\); both Gaussians must lie in one space"),
    ((M, S, M, double([1])), r"covariance_1 must be \(2, 2\), got \(1, 1\); mean_1 has 2 dimensions"),
    ((M, double([1, 0.5], [0, 1]), M, S), r"covariance_0 must be symmetric, .* differ by 0.5"),
    ((M, double([1, 2], [2, 1]), M, S), r"covariance_0 must be positive definite, its eigenvalues go from -1 to 3"),
    ((M, S, M, double([1, 1], [1, 1])), r"covariance_1 must be positive definite, .* to 2; add at least 1e-8 of"),
]
PATHS = [
    ((X,), r"z must be \(B, T\+1, d\), got \(3, 2\)"),
    ((X[:, None],), r"at least 2 positions \(one step\), got z of shape \(3, 1, 2\)"),
]
REFUSED = [
    *((f, *row) for f in (optimal_plan, lambda x, y: sinkhorn(x, y, 1.0)) for row in CLOUDS),
    *((f, *row) for f in (wasserstein, lambda x, y, *w: sinkhorn(x, y, 1.0, *w)) for row in WEIGHTS),
    *((f, *row) for f in (gaussian_wasserstein, gaussian_map) for row in GAUSSIANS),
    *((f, *row) for f in (kinetic_energy, efficiency, ot_gap) for row in PATHS),
    *((sinkhorn, (X, X, e), f"epsilon must be positive and finite, got {e}; for eps") for e in (0.0, -1.0, nan)),
    *((optimal_plan(X, X).displacement, (s,), rf"s must lie between 0 .*, got {s}") for s in (-0.1, 1.5, nan)),
    *((hopf_lax, (X[:, 0], X, X, t), f"t must be positive and finite, got {t}; at") for t in (0.0, -1.0, nan)),
    *((f, (1e150 * X, X), "source has entries up to .* whose squares over") for f in (optimal_plan, wasserstein)),
    (gaussian_map, (X[0], 1e-150 * torch.eye(2).double()) * 2, "covariance_0 must be positive definite"),
    *((hopf_lax, (X[:, 0], x, z, 1.0), "has 6 NaN or infinite") for x, z in ((X / 0, X), (X, X / 0))),
    (efficiency, (torch.full((1, 3, 2), nan),), "z has 6 NaN or infinite entries of 6"),
    (ot_gap, (X[:, None].expand(3, 4, 2),), "no particle moves, so the gap is 0/0; check that"),
    (map_1d, (X[:, 0], cloud(4, 2)[:, 0]), r"target must be \(3,\), got \(4,\); a map by rank needs as many"),
    (hopf_lax, (X[:2, 0], X, X, 1.0), r"initial must be \(3,\), got \(2,\); give one value for each point"),
    (hopf_lax, (X[:, 0], X, X[:, :1], 1.0), r"z must be \(B, 2\), got \(3, 1\); z must lie in the space of the sup"),
]


@pytest.mark.parametrize(("function", "arguments", "message"), REFUSED)
def test_what_is_unsound_is_refused_in_words(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
