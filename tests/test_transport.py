"""Plans, distances, motion and Hopf-Lax against hand calculation, permutations, linear programs and closed forms."""

import math
import warnings
from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment, linprog
from torch.autograd import gradcheck

from poflow_lite.transport import (
    entropic_plan,
    gaussian_map,
    gaussian_wasserstein,
    hopf_lax,
    monotone_map,
    optimal_plan,
    ot_gap,
    path_energy,
    sliced_wasserstein,
    straightness,
    wasserstein,
)

seeds = st.integers(0, 9999)


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def cloud(n, d=2, seed=0):
    return torch.randn(n, d, generator=rng(seed), dtype=torch.float64)


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
    torch.testing.assert_close(plan.matrix.sum(1), a, rtol=0, atol=atol)
    torch.testing.assert_close(plan.matrix.sum(0), b, rtol=0, atol=atol)


# --- exact plans --------------------------------------------------------------------------------------------------


def test_distances_by_hand():
    assert wasserstein(double([0, 0]), double([3, 4])) == pytest.approx(5)
    # on a line, 0 → 1 and 10 → 12 (cost (1 + 4) / 2), whatever the order of the points
    assert wasserstein(double([0], [10]), double([12], [1])) == pytest.approx(math.sqrt(2.5))
    # all of the mass at 0 goes to 2 with weight ¼ and to -4 with weight ¾: ¼·4 + ¾·16
    assert wasserstein(double([0]), double([2], [-4]), None, double(0.25, 0.75)) == pytest.approx(math.sqrt(13))


def test_plan_by_hand_when_mass_must_split():
    """0 (⅔) and 1 (⅓) to 0 (½) and 1 (½): 1/6 has to move by 1."""
    plan = optimal_plan(double([0], [1]), double([0], [1]), double(2, 1) / 3, double(1, 1) / 2)
    torch.testing.assert_close(plan.matrix, double([3, 1], [0, 2]) / 6)
    assert plan.cost == pytest.approx(1 / 6)
    torch.testing.assert_close(plan.barycentric_map(), double([0.25], [1]))


@pytest.mark.parametrize("d", [1, 2, 5])
def test_a_translation_costs_its_length_and_couples_each_point_with_its_image(d):
    x, shift = cloud(30, d), torch.arange(1.0, d + 1)
    plan = optimal_plan(x, x + shift)
    torch.testing.assert_close(plan.matrix, torch.eye(30).double() / 30)
    assert wasserstein(x, x + shift) == pytest.approx(shift.norm().item())
    torch.testing.assert_close(plan.barycentric_map(), x + shift)


def test_the_distance_of_a_cloud_from_itself_is_exactly_zero():
    x = cloud(40, 3)
    assert wasserstein(x, x[torch.randperm(40, generator=rng())]) == 0


@given(seed=seeds, n=st.integers(1, 6), d=st.integers(1, 3))
def test_no_permutation_is_cheaper_and_one_is_as_cheap(seed, n, d):
    x, y = cloud(n, d, seed), cloud(n, d, seed + 1)
    c = costs(x, y)
    best = min(sum(c[i, j] for i, j in enumerate(p)) for p in permutations(range(n))) / n
    assert optimal_plan(x, y).cost == pytest.approx(best)


@pytest.mark.parametrize("seed", range(4))
def test_equal_weights_give_the_assignment(seed):
    x, y = cloud(60, 3, seed), 2 * cloud(60, 3, seed + 50) + 1
    c = costs(x, y)
    rows, columns = linear_sum_assignment(c)
    plan = optimal_plan(x, y)
    assert plan.cost == pytest.approx(c[rows, columns].mean())
    assert plan.matrix.argmax(1).tolist() == columns.tolist()
    uniform = torch.ones(60).double() / 60
    assert_marginals(plan, uniform, uniform)


@given(seed=seeds, n=st.integers(1, 7), m=st.integers(1, 7))
def test_unequal_weights_and_sizes_give_the_linear_program(seed, n, m):
    x, y, a, b = cloud(n, 2, seed), cloud(m, 2, seed + 1), weights(n, seed), weights(m, seed + 1)
    plan = optimal_plan(x, y, a, b)
    assert plan.cost == pytest.approx(linear_program(x, y, a, b))
    assert_marginals(plan, a, b)
    assert wasserstein(x, y, a, b) ** 2 == pytest.approx(plan.cost)
    assert optimal_plan(y, x, b, a).cost == pytest.approx(plan.cost)


def test_points_without_mass_play_no_part():
    x, y, a = cloud(5), cloud(4, seed=1), double(0.5, 0, 0.2, 0.3, 0)
    for plan, alone in [
        (optimal_plan(x, y, a), optimal_plan(x[a > 0], y, a[a > 0])),
        (entropic_plan(x, y, 0.5, a), entropic_plan(x[a > 0], y, 0.5, a[a > 0])),
    ]:
        assert plan.cost == pytest.approx(alone.cost)
        torch.testing.assert_close(plan.matrix[a > 0], alone.matrix)
        assert (plan.matrix[a == 0] == 0).all()
        assert plan.barycentric_map().isnan().all(1).tolist() == (a == 0).tolist()


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6])
def test_the_plan_does_not_depend_on_the_unit_of_length(scale):
    """The simplex of POT has an absolute tolerance, below which any plan would do."""
    x, y = cloud(50, 3), cloud(50, 3, 1)
    assert wasserstein(scale * x, scale * y) / scale == pytest.approx(math.sqrt(assignment(x, y)))


def test_a_large_shift_hides_no_digits():
    x, y = cloud(50, 3), cloud(50, 3, 1)
    near = assignment(x, y)
    assert wasserstein(x + 1e7, y + 1e7) ** 2 == pytest.approx(near, rel=1e-6)
    torch.testing.assert_close(optimal_plan(x, y + 1e7).matrix, optimal_plan(x, y).matrix)


def test_weights_that_sum_to_one_in_single_precision_only_are_rescaled():
    plan = optimal_plan(cloud(3), cloud(3, seed=1), double(0.2, 0.3, 0.500005), double(0.2, 0.3, 0.499995))
    assert_marginals(plan, double(0.2, 0.3, 0.500005) / 1.000005, double(0.2, 0.3, 0.499995) / 0.999995)


def test_results_are_detached_and_of_the_dtype_of_the_source():
    x, y = cloud(8).float().requires_grad_(), cloud(9, seed=1).requires_grad_()
    for plan in (optimal_plan(x, y, weights(8).float()), entropic_plan(x, y, 1.0)):
        points, mass = plan.displacement(0.5)
        for result in (plan.source, plan.target, plan.matrix, points, mass, plan.barycentric_map()):
            assert result.dtype == torch.float32
            assert not result.requires_grad
        assert isinstance(plan.cost, float)
        assert plan.matrix.sum().item() == pytest.approx(1)
    line = cloud(8)[:, 0].float().requires_grad_()
    assert monotone_map(line, cloud(8)[:, 1]).dtype == torch.float32
    matrix, offset = gaussian_map(torch.zeros(2), torch.eye(2), torch.ones(2).double(), 4 * torch.eye(2).double())
    assert matrix.dtype == offset.dtype == torch.float32


# --- McCann's interpolation ---------------------------------------------------------------------------------------


def test_displacement_starts_at_the_source_and_ends_at_the_target():
    x, y, a, b = cloud(6), cloud(7, seed=1), weights(6), weights(7, 1)
    plan = optimal_plan(x, y, a, b)
    for s, end, mass in ((0, x, a), (1, y, b)):
        points, w = plan.displacement(s)
        at = (points[:, None] == end).all(2).double()  # exactly at a point of the end
        assert at.sum(1).tolist() == [1] * len(points)
        torch.testing.assert_close(w @ at, mass)


@pytest.mark.parametrize("s", [0.25, 0.5, 0.9])
def test_displacement_walks_the_geodesic_at_constant_speed(s):
    x, y, a, b = cloud(9), 2 * cloud(11, seed=1) - 1, weights(9), weights(11, 1)
    plan = optimal_plan(x, y, a, b)
    points, w = plan.displacement(s)
    whole = math.sqrt(linear_program(x, y, a, b))
    assert wasserstein(x, points, a, w) == pytest.approx(s * whole)
    assert wasserstein(points, y, w, b) == pytest.approx((1 - s) * whole)


def test_displacement_of_a_plan_that_is_not_optimal_is_no_geodesic():
    """The test above can fail: the ends are the same, the middle is not half-way."""
    x, y = cloud(9), cloud(9, seed=1)
    points, w = entropic_plan(x, y, 20.0).displacement(0.5)
    assert wasserstein(x, points, None, w / w.sum()) + wasserstein(points, y, w / w.sum()) > 1.05 * wasserstein(x, y)


def test_energy_of_displacement_attains_the_minimum_of_benamou_and_brenier():
    x, y, a, b = cloud(9, 3), cloud(11, 3, 1), weights(9), weights(11, 1)
    plan = optimal_plan(x, y, a, b)
    path = torch.stack([plan.displacement(t / 5)[0] for t in range(6)], 1)
    energy = (plan.displacement(0.5)[1] * path_energy(path)).sum().item()
    assert energy == pytest.approx(linear_program(x, y, a, b))


# --- entropic plans -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 4.0])
def test_entropic_plan_of_two_points_in_closed_form(epsilon):
    """Points 0 and 1 stay with mass ½ / (1 + exp(-1/ε)) each."""
    plan = entropic_plan(double([0], [1]), double([0], [1]), epsilon)
    stay = 0.5 / (1 + math.exp(-1 / epsilon))
    torch.testing.assert_close(plan.matrix, double([stay, 0.5 - stay], [0.5 - stay, stay]))
    assert plan.cost == pytest.approx(1 - 2 * stay, abs=1e-12)


def test_entropic_plan_satisfies_the_conditions_of_optimality():
    """ε log P + C = f_i + g_j, and the marginals hold: what makes a coupling the only minimiser."""
    x, y, a, b = cloud(7), cloud(5, seed=1), weights(7), weights(5, 1)
    plan = entropic_plan(x, y, 0.7, a, b, tolerance=1e-12)
    assert_marginals(plan, a, b, 1e-11)
    sums = 0.7 * plan.matrix.log() + torch.from_numpy(costs(x, y))
    torch.testing.assert_close(sums - sums[:1] - sums[:, :1] + sums[0, 0], torch.zeros(7, 5).double())


def test_bias_of_the_entropy_falls_to_zero_with_epsilon():
    x, y, a, b = cloud(12), cloud(10, seed=1), weights(12), weights(10, 1)
    exact = linear_program(x, y, a, b)
    bias = [entropic_plan(x, y, e, a, b, tolerance=1e-10).cost - exact for e in (100, 10, 3, 1, 0.3, 0.1, 0.03)]
    assert all(more > less > -1e-8 for more, less in pairwise(bias))
    assert bias[0] > 0.5
    assert bias[-1] < 1e-3


def test_entropic_plan_becomes_independent_as_epsilon_grows():
    x, y, a, b = cloud(12), cloud(10, seed=1), weights(12), weights(10, 1)
    independent = a[:, None] * b
    distance = [(entropic_plan(x, y, e, a, b).matrix - independent).abs().sum().item() for e in (1, 1e2, 1e4, 1e6)]
    assert distance == sorted(distance, reverse=True)
    assert distance[0] > 0.3
    assert distance[-1] < 1e-5


def test_a_small_epsilon_does_not_overflow():
    """exp(-C/ε) is 0 in double precision for all but equal points: only logarithms can hold it."""
    x, y = double([0], [1], [3]), double([0.5], [1.5], [4.0])
    assert np.exp(-costs(x, y) / 1e-4).max() == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = entropic_plan(x, y, 1e-4)
    torch.testing.assert_close(plan.matrix, torch.eye(3).double() / 3, rtol=0, atol=1e-7)


def test_plans_that_do_not_converge_are_refused_without_a_warning():
    x, y = cloud(30), cloud(30, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match=r"no optimal plan of 30 x 30 points after 3 iterations; give more iter"):
            optimal_plan(x, y, iterations=3)
        with pytest.raises(RuntimeError, match=r"after 20 iterations at epsilon = 0.01 .* not 1.0e-07; give a larger"):
            entropic_plan(x, y, 0.01, iterations=20)


# --- distances and maps -------------------------------------------------------------------------------------------


def covariance(d, seed):
    root = cloud(d, d + 2, seed)
    return root @ root.T / (d + 2)


def bures(m0, s0, m1, s1):
    """The formula, by the matrix square root of scipy."""
    root = sqrtm(s0.numpy())
    cross = sqrtm(root @ s1.numpy() @ root).real
    return math.sqrt((m0 - m1).square().sum() + s0.trace() + s1.trace() - 2 * np.trace(cross))


@given(seed=seeds, d=st.integers(1, 5))
def test_gaussian_distance_is_that_of_bures_and_attained_by_the_map(seed, d):
    m0, m1 = cloud(2, d, seed)
    s0, s1 = covariance(d, seed), covariance(d, seed + 1)
    found = gaussian_wasserstein(m0, s0, m1, s1)
    assert found == pytest.approx(bures(m0, s0, m1, s1), rel=1e-6)
    matrix, offset = gaussian_map(m0, s0, m1, s1)
    torch.testing.assert_close(matrix, matrix.T)
    assert torch.linalg.eigvalsh(matrix).min() > 0
    torch.testing.assert_close(matrix @ s0 @ matrix.T, s1)
    torch.testing.assert_close(matrix @ m0 + offset, m1)
    excess = matrix - torch.eye(d).double()
    cost = (m1 - m0).square().sum() + (excess @ s0 @ excess.T).trace()  # E ‖T(x) - x‖²
    assert math.sqrt(cost) == pytest.approx(found, rel=1e-6)


def test_gaussians_on_a_line_by_hand():
    """N(1, 3²) to N(-2, 5²): W₂² = 3² + (5 - 3)², T(x) = -2 + (x - 1) 5/3."""
    arguments = double(1), double([9]), double(-2), double([25])
    assert gaussian_wasserstein(*arguments) == pytest.approx(math.sqrt(13))
    matrix, offset = gaussian_map(*arguments)
    torch.testing.assert_close(matrix, double([5 / 3]))
    torch.testing.assert_close(offset, double(-2 - 5 / 3))


def test_samples_of_gaussians_are_as_far_apart_as_the_gaussians():
    m1, s1 = double(2, -1), double([1.0, 0.6], [0.6, 2.0])
    x, y = cloud(1200), m1 + cloud(1200, seed=1) @ torch.linalg.cholesky(s1).T
    exact = gaussian_wasserstein(torch.zeros(2).double(), torch.eye(2).double(), m1, s1)
    assert wasserstein(x, y) == pytest.approx(exact, rel=0.05)


@given(seed=seeds, n=st.integers(1, 8), ties=st.booleans())
def test_monotone_map_sorts_and_is_optimal(seed, n, ties):
    x, y = cloud(2, n, seed)
    if ties:
        x, y = x.round(), (2 * y).round() / 2
    image = monotone_map(x, y)
    assert image.sort().values.tolist() == y.sort().values.tolist()
    assert (image[x.argsort(stable=True)].diff() >= 0)[x.sort().values.diff() > 0].all()
    assert (image - x).square().mean().item() == pytest.approx(optimal_plan(x[:, None], y[:, None]).cost)
    if not ties:
        torch.testing.assert_close(image[x.argsort()], y.sort().values, rtol=0, atol=0)
        torch.testing.assert_close(image, optimal_plan(x[:, None], y[:, None]).barycentric_map()[:, 0])


def test_monotone_map_by_hand():
    assert monotone_map(double(5, -1, 2), double(10, 30, 20)).tolist() == [30, 10, 20]
    assert monotone_map(double(2, 2, 1), double(7, 7, 8)).sort().values.tolist() == [7, 7, 8]
    assert monotone_map(double(2, 2, 1), double(7, 7, 8))[2] == 7


def test_sliced_distance_is_deterministic_and_leaves_global_generators_alone():
    x, y = cloud(40, 3), cloud(30, 3, 1)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = sliced_wasserstein(x, y, 5)
    assert sliced_wasserstein(x, y, 5) == first
    assert sliced_wasserstein(x, y, 5, seed=1) != first
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


@given(seed=seeds, n=st.integers(1, 12), m=st.integers(1, 12), d=st.integers(1, 4))
def test_sliced_distance_lies_between_zero_and_the_distance(seed, n, m, d):
    x, y = cloud(n, d, seed), cloud(m, d, seed + 1)
    found, exact = sliced_wasserstein(x, y, 20, seed), wasserstein(x, y)
    assert sliced_wasserstein(x, x.flip(0)) == pytest.approx(0, abs=1e-12)
    assert 0 < found <= exact * (1 + 1e-9)
    if d == 1:
        assert found == pytest.approx(exact)


def test_sliced_distance_of_a_translation():
    """E (θ·a)² = ‖a‖² / d over directions in d dimensions."""
    x = cloud(10, 3)
    found = sliced_wasserstein(x, x + double(1, 2, 2), projections=20_000)
    assert found == pytest.approx(3 / math.sqrt(3), rel=0.02)


# --- motion -------------------------------------------------------------------------------------------------------


def motion(times, start, end):
    """Paths from start to end that have gone the fraction times[t] of the way at t: (B, T+1, d)."""
    return torch.lerp(start[:, None], end[:, None], torch.as_tensor(times, dtype=torch.float64)[:, None])


def test_energy_by_hand_and_its_gradient():
    z = double([[0, 0], [3, 4], [3, 4]], [[0, 0], [1, 0], [1, 2]])
    assert path_energy(z).tolist() == [2 * 25, 2 * (1 + 4)]
    assert gradcheck(path_energy, cloud(6, 2).reshape(2, 3, 2).requires_grad_())
    assert straightness(z) == pytest.approx((25 + 5) / (50 + 10))


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_straight_motion_at_constant_speed_has_neither_detour_nor_gap(steps):
    x = cloud(20, 3)
    z = motion(torch.linspace(0, 1, steps + 1), x, 2 * x + 1)  # the gradient of a convex function: optimal
    assert straightness(z) == pytest.approx(1)
    assert ot_gap(z) == pytest.approx(1)
    torch.testing.assert_close(path_energy(z), (x + 1).square().sum(1))


@pytest.mark.parametrize("steps", [2, 5, 400])
def test_uniform_acceleration_costs_four_thirds(steps):
    """s² has ∫ (2s)² ds = 4/3; in T steps, (4 - 1/T²) / 3."""
    x = cloud(20, 3)
    z = motion(torch.linspace(0, 1, steps + 1).double() ** 2, x, x + 1)
    assert ot_gap(z) == pytest.approx((4 - 1 / steps**2) / 3)
    assert straightness(z) == pytest.approx(3 / (4 - 1 / steps**2))


@pytest.mark.parametrize("steps", [2, 5, 8])
def test_a_standing_first_step_costs_one_part_in_t_minus_one(steps):
    x = cloud(20, 3)
    times = [0.0, *torch.linspace(0, 1, steps).tolist()]
    assert ot_gap(motion(times, x, x + 1)) == pytest.approx(steps / (steps - 1))


@given(seed=seeds, n=st.integers(1, 8), steps=st.integers(1, 5), detour=st.floats(0, 2))
def test_no_motion_beats_optimal_transport_and_the_gap_has_two_factors(seed, n, steps, detour):
    """Any coupling, any detour, any time table: energy is at least W₂² of the ends."""
    x, y = cloud(n, 2, seed), cloud(n, 2, seed + 1)
    times = torch.rand(steps - 1, generator=rng(seed), dtype=torch.float64).sort().values
    z = motion([0.0, *times.tolist(), 1.0], x, y)
    z[:, 1:-1] += detour * torch.randn(z[:, 1:-1].shape, generator=rng(seed), dtype=torch.float64)
    exact, moved = assignment(x, y), (y - x).square().sum(1).mean().item()
    gap, straight = ot_gap(z), straightness(z)
    assert path_energy(z).mean().item() >= exact * (1 - 1e-12)
    assert gap == pytest.approx(path_energy(z).mean().item() / exact)
    assert 0 <= straight <= 1 + 1e-12
    assert gap == pytest.approx(moved / exact / straight)


def test_a_bad_coupling_is_a_gap_without_a_detour():
    """0 → 3 and 1 → 1 instead of 0 → 1 and 1 → 3: (9 + 0) / (1 + 4)."""
    z = motion([0, 0.5, 1], double([0], [1]), double([3], [1]))
    assert straightness(z) == pytest.approx(1)
    assert ot_gap(z) == pytest.approx(9 / 5)


def test_motion_that_leads_nowhere():
    still = cloud(5)[:, None].expand(5, 4, 2)
    assert straightness(still) == 1
    with pytest.raises(ValueError, match="no particle moves, so the gap is 0/0; check that"):
        ot_gap(still)
    swap = motion([0, 1], double([0], [1]), double([1], [0]))
    assert ot_gap(swap) == math.inf
    assert straightness(torch.cat([swap, swap[:, :1]], 1)) == 0


# --- Hopf-Lax -----------------------------------------------------------------------------------------------------


def line(spacing, reach=4.0):
    return torch.arange(-reach, reach, spacing, dtype=torch.float64)[:, None]


def square(spacing, reach=3.0):
    return torch.cartesian_prod(line(spacing, reach)[:, 0], line(spacing, reach)[:, 0])


@pytest.mark.parametrize("t", [0.1, 1.0, 2.5])
@pytest.mark.parametrize("a", [0.0, 0.5, 2.0])
def test_hopf_lax_of_quadratic_and_linear_functions_in_closed_form(a, t):
    """½ a ‖y‖² becomes a ‖z‖² / (2 (1 + a t)) and b·y becomes b·z - ½ ‖b‖² t; a grid only adds its rounding of y."""
    spacing, y, z = 0.05, square(0.05), cloud(20, 2).clamp(-1, 1)
    rounding = 0.5 * (a + 1 / t) * 2 * (spacing / 2) ** 2
    error = hopf_lax(0.5 * a * y.square().sum(1), y, z, t) - a * z.square().sum(1) / (2 * (1 + a * t))
    assert error.min() > -1e-12
    assert error.max() < rounding + 1e-12
    b = double(0.5, -0.3)
    error = hopf_lax(y @ b, y, z, t) - (z @ b - 0.5 * b @ b * t)
    assert error.min() > -1e-12
    assert error.max() < 0.5 / t * 2 * (spacing / 2) ** 2 + 1e-12


def test_hopf_lax_solves_the_hamilton_jacobi_equation():
    y = line(2e-4)
    initial, z = torch.sin(2 * y[:, 0]), double([-1.1], [-0.4], [0.3], [0.9]).requires_grad_()
    t, step = 0.15, 1e-2  # before characteristics meet, at t = ¼
    u = hopf_lax(initial, y, z, t)
    gradient = torch.autograd.grad(u.sum(), z)[0]
    rate = (hopf_lax(initial, y, z, t + step) - hopf_lax(initial, y, z, t - step)) / (2 * step)
    torch.testing.assert_close(rate, -0.5 * gradient.square().sum(1), rtol=0, atol=5e-3)
    assert rate.abs().max() > 0.5
    ahead, behind = (hopf_lax(initial, y, z.detach() + h, t) for h in (step, -step))
    torch.testing.assert_close((ahead - behind) / (2 * step), gradient[:, 0], rtol=0, atol=5e-3)


def test_hopf_lax_twice_is_hopf_lax_of_the_sum_of_the_times():
    """Also past the shock, where waves have met."""
    y, z = line(5e-3), double([-1.0], [0.2], [0.7])
    initial = torch.sin(2 * y[:, 0])
    once = hopf_lax(initial, y, z, 1.0)
    twice = hopf_lax(hopf_lax(initial, y, y, 0.4), y, z, 0.6)
    torch.testing.assert_close(twice, once, rtol=0, atol=1e-4)
    assert (once - hopf_lax(initial, y, z, 0.6)).abs().max() > 0.05


# --- refusals -----------------------------------------------------------------------------------------------------

BAD_CLOUDS = [
    (torch.zeros(3), cloud(3), r"source must be \(n, d\), got \(3,\); points on a line are x\[:, None\]"),
    (cloud(3), torch.zeros(3, 1, 2), r"target must be \(m, 2\), got \(3, 1, 2\)"),
    (cloud(3, 2), cloud(4, 3), r"target must be \(m, 2\), got \(4, 3\); both clouds must lie in the space"),
    (cloud(0), cloud(3), r"source is empty, of shape \(0, 2\): give at least one"),
    (cloud(3), cloud(0), r"target is empty, of shape \(0, 2\)"),
    (double([0, math.nan], [math.inf, 1]), cloud(3), r"source has 2 NaN or infinite entries of 4; drop these"),
    (cloud(3), double([0, -math.inf]), "target has 1 NaN or infinite entries of 2"),
    (torch.zeros(3, 2, dtype=torch.long), cloud(3), r"source must be floating-point, got torch.int64; convert"),
]


@pytest.mark.parametrize(("source", "target", "message"), BAD_CLOUDS)
@pytest.mark.parametrize(
    "function", [optimal_plan, wasserstein, sliced_wasserstein, lambda x, y: entropic_plan(x, y, 1.0)]
)
def test_unsound_clouds_are_refused(function, source, target, message):
    with pytest.raises(ValueError, match=message):
        function(source, target)


@pytest.mark.parametrize("side", ["source_weights", "target_weights"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5, 0.5], r"must be \(3,\), got \(2,\); give one weight per point, or None"),
        ([0.7, 0.5, -0.2], r"must not be negative, the smallest is -0.2"),
        ([1.0, 1.0, 0.5], r"must sum to 1, they sum to 2.5; divide them by their sum"),
        ([0.5, 0.5, math.nan], r"has 1 NaN or infinite entries of 3"),
    ],
)
def test_unsound_weights_are_refused(side, values, message):
    bad = {side: torch.tensor(values)}
    for function in (optimal_plan, wasserstein, lambda x, y, **w: entropic_plan(x, y, 1.0, **w)):
        with pytest.raises(ValueError, match=f"{side} {message}"):
            function(cloud(3), cloud(3), **bad)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf])
def test_a_penalty_that_is_not_positive_is_refused(epsilon):
    with pytest.raises(ValueError, match=f"epsilon must be positive and finite, got {epsilon}; for epsilon = 0 use"):
        entropic_plan(cloud(3), cloud(3), epsilon)


@pytest.mark.parametrize("s", [-0.1, 1.5, math.nan])
def test_a_displacement_outside_its_interval_is_refused(s):
    with pytest.raises(ValueError, match=rf"s must lie between 0 \(source\) and 1 \(target\), got {s}"):
        optimal_plan(cloud(3), cloud(3)).displacement(s)


def test_other_unsound_arguments_are_refused():
    with pytest.raises(ValueError, match="at least 1 projection is needed, got 0"):
        sliced_wasserstein(cloud(3), cloud(3), 0)
    with pytest.raises(ValueError, match=r"target must be \(3,\), got \(4,\); a map by rank needs as many"):
        monotone_map(cloud(3)[:, 0], cloud(4)[:, 0])
    with pytest.raises(ValueError, match=r"source must be \(n,\), got \(3, 2\)"):
        monotone_map(cloud(3), cloud(3))


@pytest.mark.parametrize("function", [gaussian_wasserstein, gaussian_map])
def test_what_is_no_gaussian_is_refused(function):
    m, s = double(0, 0), torch.eye(2).double()
    for arguments, message in [
        ((m, s, double(0), s), r"mean_1 must be \(2,\), got \(1,\); both Gaussians must lie in one space"),
        ((m[None], s, m, s), r"mean_0 must be \(d,\), got \(1, 2\)"),
        ((m, s, m, double([1])), r"covariance_1 must be \(2, 2\), got \(1, 1\); mean_1 has 2 dimensions"),
        ((m, double([1, 0.5], [0, 1]), m, s), r"covariance_0 must be symmetric, .* differ by 0.5"),
        ((m, double([1, 2], [2, 1]), m, s), r"covariance_0 must be positive definite, its eigenvalues go from -1 to 3"),
        ((m, s, m, double([1, 1], [1, 1])), r"covariance_1 must be positive definite, .* to 2; add at least 1e-8 of"),
        ((m, s, m, math.nan * s), r"covariance_1 has 4 NaN or infinite entries of 4"),
    ]:
        with pytest.raises(ValueError, match=message):
            function(*arguments)


@pytest.mark.parametrize("function", [path_energy, straightness, ot_gap])
def test_what_is_no_path_is_refused(function):
    with pytest.raises(ValueError, match=r"z must be \(B, T\+1, d\), got \(3, 2\)"):
        function(cloud(3))
    with pytest.raises(ValueError, match=r"at least 2 positions \(one step\), got z of shape \(3, 1, 2\)"):
        function(cloud(3)[:, None])
    with pytest.raises(ValueError, match=r"z is empty, of shape \(0, 4, 2\)"):
        function(torch.zeros(0, 4, 2))
    if function is not path_energy:
        with pytest.raises(ValueError, match="z has 6 NaN or infinite entries of 6"):
            function(torch.full((1, 3, 2), math.nan))


def test_unsound_arguments_of_hopf_lax_are_refused():
    y, z = cloud(5), cloud(3)
    for t in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"t must be positive and finite, got {t}; at t = 0 the solution is u_0"):
            hopf_lax(y[:, 0], y, z, t)
    with pytest.raises(ValueError, match=r"initial must be \(5,\), got \(4,\); give one value for each point"):
        hopf_lax(y[:4, 0], y, z, 1.0)
    with pytest.raises(ValueError, match=r"support must be \(n, d\), got \(5,\); points on a line are y\[:, None\]"):
        hopf_lax(y[:, 0], y[:, 0], z, 1.0)
    with pytest.raises(ValueError, match=r"z must be \(B, 2\), got \(3, 1\); z must lie in the space of the support"):
        hopf_lax(y[:, 0], y, z[:, :1], 1.0)
