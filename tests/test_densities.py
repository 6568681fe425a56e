"""Densities on grids and their samples against SciPy, closed forms of Gaussians, orders of convergence and physics."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg, stats
from scipy.sparse.linalg import expm_multiply
from torch.distributions import MultivariateNormal, kl_divergence

from poflow_lite.densities import (
    FokkerPlanck,
    Grid,
    continuity_residual,
    euler_maruyama,
    gaussian_mixture,
    grid_kl,
    kl_rate,
    langevin,
    sample,
    score,
)
from poflow_lite.flows import DiffusionPrior

PLANE = Grid((0.0, -1.0), (3.0, 1.0), (3, 4))


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def gaussian(grid, variance=1.0, mean=0.0):
    """N(mean, variance I) on the grid, by SciPy."""
    d = len(grid.cells)
    law = stats.multivariate_normal(np.full(d, mean), variance * np.eye(d))
    return torch.from_numpy(np.atleast_1d(law.pdf(grid.points.numpy())))


def still(points):
    return torch.zeros_like(points)


def moments(grid, p):
    """Mean and variance of a density on a line."""
    z = grid.axes[0]
    mean = grid.integrate(p * z)
    return mean, grid.integrate(p * z.square()) - mean.square()


def error(found, expected):
    return (found - expected).abs().max().item()


@pytest.fixture
def random_state_untouched():
    """Neither PyTorch's nor NumPy's global generator moves while the test runs."""
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    yield
    assert torch.equal(torch.get_rng_state(), torch_before)
    numpy_after = np.random.get_state()  # noqa: NPY002
    assert numpy_after[2] == numpy_before[2]
    assert (numpy_after[1] == numpy_before[1]).all()


# --- grids --------------------------------------------------------------------------------------------------------


def test_grid_by_hand():
    assert PLANE.spacing == (1.0, 0.5)
    assert PLANE.volume == 0.5
    assert [axis.tolist() for axis in PLANE.axes] == [[0.5, 1.5, 2.5], [-0.75, -0.25, 0.25, 0.75]]
    assert PLANE.points.shape == (12, 2)
    assert PLANE.points.dtype == torch.float64
    assert PLANE.points[:5].tolist() == [[0.5, -0.75], [0.5, -0.25], [0.5, 0.25], [0.5, 0.75], [1.5, -0.75]]


def test_a_line_and_a_cube():
    line = Grid.cube(1, 4, dimensions=1)
    assert line == Grid((-1,), (1,), (4,))
    assert line.points.tolist() == [[-0.75], [-0.25], [0.25], [0.75]]
    cube = Grid.cube(2.0, 2, dimensions=3)
    assert cube.points.shape == (8, 3)
    assert cube.points[1].tolist() == [-1, -1, 1]
    assert cube.volume == 8


def test_the_image_has_the_first_coordinate_along_its_first_axis():
    image = PLANE.image(PLANE.points.T)  # the two coordinates as images
    assert image.shape == (2, 3, 4)
    torch.testing.assert_close(image[0], double(0.5, 1.5, 2.5)[:, None].expand(3, 4))
    torch.testing.assert_close(image[1], double(-0.75, -0.25, 0.25, 0.75).expand(3, 4))


def test_the_midpoint_rule_is_exact_for_bilinear_functions_and_of_second_order_for_squares():
    x, y = PLANE.points.T
    assert PLANE.integrate(torch.ones(12)).item() == 6
    assert PLANE.integrate(2 * x + y + x * y).item() == pytest.approx(18)
    torch.testing.assert_close(PLANE.integrate(torch.stack([x, y])), double(9.0, 0.0))
    short = 6 - PLANE.integrate(x**2 * torch.ones(12)).item() / 3  # ∫ x² = 18, short by h²/12 for each unit of area
    assert short == pytest.approx(6 / 12 / 3)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_gaussian_integrates_to_one(d):
    grid = Grid.cube(7, 24, d)
    assert grid.integrate(gaussian(grid)).item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((), (), ()), "at least 1, got 0, 0 and 0"),
        (((0.0,), (1.0, 1.0), (3,)), "one entry for each dimension, at least 1, got 1, 2 and 1"),
        (((0.0, 1.0), (1.0, 1.0), (3, 3)), r"low must be below high, both finite, got low=\(0.0, 1.0\)"),
        (((0.0,), (math.inf,), (3,)), "both finite"),
        (((0.0,), (1.0,), (0,)), r"integers of at least 1, got \(0,\)"),
        (((0.0,), (1.0,), (2.5,)), r"integers of at least 1, got \(2.5,\)"),
    ],
)
def test_bad_grids_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Grid(*arguments)


def test_bad_cubes_are_refused():
    with pytest.raises(ValueError, match="low must be below high"):
        Grid.cube(-1.0, 5)
    with pytest.raises(ValueError, match="got 0, 0 and 0"):
        Grid.cube(1.0, 5, dimensions=0)


@pytest.mark.parametrize("shape", [(), (11,), (3, 4)])
def test_values_that_do_not_fit_the_grid_are_refused(shape):
    for method in (PLANE.integrate, PLANE.image):
        with pytest.raises(ValueError, match=r"must be \(..., 12\), one number for each cell of the \(3, 4\) grid"):
            method(torch.zeros(shape))


# --- densities with a formula -------------------------------------------------------------------------------------

MEANS = double([-1.0, 0.5], [2.0, 0.0], [0.0, -3.0])
SCALES = double([0.5, 1.0], [1.5, 0.3], [1.0, 1.0])
WEIGHTS = double(1.0, 2.0, 5.0)


def scipy_mixture(z):
    laws = [stats.multivariate_normal(m, np.diag(s**2)) for m, s in zip(MEANS.numpy(), SCALES.numpy(), strict=True)]
    return sum(w / 8 * law.pdf(z) for w, law in zip(WEIGHTS.tolist(), laws, strict=True))


def test_mixture_is_that_of_scipy():
    z = 2 * normal(4, 5, 2)
    found = gaussian_mixture(MEANS, SCALES, WEIGHTS).log_prob(z)
    np.testing.assert_allclose(found.exp(), scipy_mixture(z.numpy()))


def test_one_scale_for_each_component_and_equal_weights():
    z = normal(6, 2)
    same = gaussian_mixture(MEANS, SCALES[:, :1].expand(3, 2), torch.ones(3))
    torch.testing.assert_close(gaussian_mixture(MEANS, SCALES[:, 0]).log_prob(z), same.log_prob(z))


def test_samples_of_a_mixture_have_its_moments(random_state_untouched):
    z = sample(gaussian_mixture(MEANS, SCALES, WEIGHTS), 100_000, seeded())
    weights = (WEIGHTS / 8)[:, None]
    mean = (weights * MEANS).sum(0)
    second = (weights * (MEANS.square() + SCALES.square())).sum(0)
    assert z.shape == (100_000, 2)
    assert error(z.mean(0), mean) < 0.03
    assert error(z.square().mean(0), second) < 0.1


def test_samples_of_a_mixture_are_distributed_as_it_is():
    z = sample(gaussian_mixture(MEANS, SCALES, WEIGHTS), 5_000, seeded(1)).numpy()
    for j in range(2):
        weights, means, scales = (x.numpy() for x in (WEIGHTS / 8, MEANS[:, j], SCALES[:, j]))
        cdf = (weights * stats.norm.cdf(z[:, j, None], means, scales)).sum(-1)
        assert stats.kstest(cdf, "uniform").pvalue > 0.01


def test_samples_follow_from_the_generator_alone():
    mixture = gaussian_mixture(MEANS, SCALES)
    torch.manual_seed(1)
    first = sample(mixture, 10, seeded(3))
    torch.manual_seed(2)
    assert torch.equal(sample(mixture, 10, seeded(3)), first)
    assert not torch.equal(sample(mixture, 10, seeded(4)), first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((MEANS[0], SCALES), r"means must be \(M, d\), at least one of each, got \(2,\)"),
        ((MEANS[:0], SCALES[:0]), r"got \(0, 2\)"),
        ((MEANS, SCALES[:2]), r"scales must be \(3,\) or \(3, 2\) as the means are, got \(2, 2\)"),
        ((MEANS, 0 * SCALES), "scales must be positive and finite, got values from 0.0 to 0.0"),
        ((MEANS, SCALES * math.inf), "scales must be positive and finite"),
        ((MEANS, SCALES, WEIGHTS[:2]), r"weights must be \(3,\), one for each component, got \(2,\)"),
        ((MEANS, SCALES, -WEIGHTS), "weights must be non-negative, finite and not all 0"),
        ((MEANS, SCALES, 0 * WEIGHTS), "not all 0, got"),
    ],
)
def test_bad_mixtures_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gaussian_mixture(*arguments)


def test_a_sample_of_nothing_is_refused():
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        sample(gaussian_mixture(MEANS, SCALES), 0, seeded())


def test_score_of_a_gaussian():
    mean, root = normal(3), normal(3, 3, seed=1)
    covariance = root @ root.T + torch.eye(3)
    z = normal(5, 3, seed=2)
    with torch.no_grad():  # gradients are taken all the same
        found = score(MultivariateNormal(mean, covariance).log_prob, z)
    torch.testing.assert_close(found, -torch.linalg.solve(covariance, (z - mean).T).T)
    assert not found.requires_grad
    assert not z.requires_grad


def test_score_of_a_mixture_is_the_difference_quotient():
    log_density, z, h = gaussian_mixture(MEANS, SCALES, WEIGHTS).log_prob, normal(5, 2), 1e-5
    steps = h * torch.eye(2, dtype=torch.float64)
    quotient = torch.stack([(log_density(z + e) - log_density(z - e)) / (2 * h) for e in steps], -1)
    torch.testing.assert_close(score(log_density, z), quotient, rtol=1e-7, atol=1e-8)


def test_bad_scores_are_refused():
    z = normal(4, 2)
    with pytest.raises(ValueError, match=r"z must be \(B, d\), got \(2,\); points on a line are z\[:, None\]"):
        score(lambda z: -z.square().sum(-1), z[0])
    with pytest.raises(ValueError, match=r"log_density must return \(4,\), one number per point, got \(4, 2\)"):
        score(lambda z: -z.square(), z)
    with pytest.raises(ValueError, match="must be computed from z by PyTorch"):
        score(lambda z: -z.detach().square().sum(-1), z)


# --- the continuity equation --------------------------------------------------------------------------------------

Q, LINEAR = np.array([[0.2, 0.3], [0.3, -0.4]]), np.array([0.5, -0.2])


def moved_mixture(t, z):
    """Two Gaussians moved by u = ½ zᵀQz + b·z: dm/dt = Qm + b and dS/dt = QS + SQ, solved by matrix exponentials."""
    flow = linalg.expm(t * Q)
    affine = linalg.expm(t * np.block([[Q, LINEAR[:, None]], [np.zeros((1, 3))]]))
    total = 0
    for weight, mean, covariance in (
        (0.3, np.array([-1.0, 0.5]), np.diag([0.5, 1.0])),
        (0.7, np.array([1.0, 0.0]), np.array([[0.8, 0.3], [0.3, 0.6]])),
    ):
        now = affine @ np.append(mean, 1)
        total = total + weight * stats.multivariate_normal(now[:2], flow @ covariance @ flow.T).pdf(z)
    return torch.from_numpy(total)


def residual_of_moved_mixture(cells, dt, sign=1.0):
    grid = Grid((-5.0, -4.0), (5.0, 4.0), (cells, cells + 2))
    velocity = sign * (grid.points @ torch.from_numpy(Q) + torch.from_numpy(LINEAR))
    before, now, after = (moved_mixture(1 + n * dt, grid.points.numpy()) for n in (-1, 0, 1))
    return continuity_residual(grid, before, now, after, velocity, dt).abs().max().item()


def test_continuity_residual_vanishes_with_second_order():
    coarse, fine, finest = (residual_of_moved_mixture(50 * n, 0.2 / n) for n in (1, 2, 4))
    assert finest < 2e-3
    assert coarse / fine == pytest.approx(4, rel=0.15)
    assert fine / finest == pytest.approx(4, rel=0.05)


def test_continuity_residual_sees_a_wrong_velocity():
    assert residual_of_moved_mixture(200, 0.05, sign=-1.0) > 0.05
    assert residual_of_moved_mixture(200, 0.05, sign=1.1) > 0.005


def test_continuity_residual_is_exact_for_quadratic_fluxes_up_to_the_walls():
    """p = (1 + t + t²) x y, v = (x/y, 1) at t = 0: ∂_t p = xy and ∇·(p v) = 2x + x."""
    x, y = PLANE.points.T
    before, now, after = ((1 + t + t**2) * x * y for t in (-0.5, 0, 0.5))
    velocity = torch.stack([x / y, torch.ones_like(x)], -1)
    torch.testing.assert_close(continuity_residual(PLANE, before, now, after, velocity, 0.5), x * y + 3 * x)


def test_bad_residuals_are_refused():
    p, v = torch.ones(12), torch.ones(12, 2)
    for dt in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"dt must be positive and finite, got {dt}"):
            continuity_residual(PLANE, p, p, p, v, dt)
    for i, name in enumerate(("before", "now", "after")):
        densities = [p, p, p]
        densities[i] = p[:11]
        with pytest.raises(ValueError, match=rf"{name} must be \(12,\), as the grid has cells, got \(11,\)"):
            continuity_residual(PLANE, *densities, v, 1.0)
    with pytest.raises(ValueError, match=r"velocity must be \(12, 2\), as the grid has points, got \(12,\)"):
        continuity_residual(PLANE, p, p, p, p, 1.0)
    with pytest.raises(ValueError, match="now has NaN or infinite entries"):
        continuity_residual(PLANE, p, p / 0, p, v, 1.0)
    with pytest.raises(ValueError, match=r"at least 3 cells along each dimension, got \(2, 6\)"):
        continuity_residual(Grid((0.0, 0.0), (1.0, 1.0), (2, 6)), p, p, p, v, 1.0)


# --- the Fokker-Planck equation: its matrix -----------------------------------------------------------------------


def bernoulli(x):
    return x / math.expm1(x) if x else 1.0


@pytest.mark.parametrize(("diffusion", "v"), [(0.3, 1.0), (0.3, -2.0), (2.0, 0.5), (0.7, 0.0)])
def test_matrix_of_three_cells_by_hand(diffusion, v):
    """F = (D/h) [B(-vh/D) p_i - B(vh/D) p_{i+1}] through the two inner faces, nothing through the walls."""
    h = 0.5
    forth = diffusion / h**2 * bernoulli(-v * h / diffusion)
    back = diffusion / h**2 * bernoulli(v * h / diffusion)
    expected = [[-forth, back, 0], [forth, -forth - back, back], [0, forth, -back]]
    equation = FokkerPlanck(Grid((0.0,), (1.5,), (3,)), lambda z: torch.full_like(z, v), diffusion)
    np.testing.assert_allclose(equation.matrix.toarray(), expected, rtol=1e-12)


def test_without_diffusion_the_scheme_is_upwind():
    grid = Grid((-1.5,), (1.5,), (3,))
    expected = [[-2, 0, 0], [2, 0, 2], [0, 0, -2]]  # v = 2 at the left face and -2 at the right one
    for diffusion in (0.0, 1e-9):
        matrix = FokkerPlanck(grid, lambda z: -4 * z, diffusion).matrix.toarray()
        np.testing.assert_allclose(matrix, expected, atol=1e-8)


def test_the_velocity_is_asked_for_at_the_centres_of_the_faces():
    asked = []
    FokkerPlanck(Grid((0.0, 0.0), (2.0, 2.0), (2, 2)), lambda z: asked.append(z.tolist()) or still(z), 1.0)
    assert asked == [[[1.0, 0.5], [1.0, 1.5]], [[0.5, 1.0], [1.5, 1.0]]]


def random_velocity(d, seed):
    weights, shift = 2 * normal(2, d, d, seed=seed), 3 * normal(d, seed=seed + 1000)
    return lambda z: 3 * torch.tanh(z @ weights[0]) @ weights[1] + shift


@given(
    seed=st.integers(0, 999),
    cells=st.sampled_from([(9,), (1,), (5, 7), (1, 6), (3, 4, 2)]),
    diffusion=st.sampled_from([0.0, 1e-3, 0.1, 1.0, 20.0]),
)
def test_mass_is_conserved_and_densities_stay_positive_in_any_velocity(seed, cells, diffusion):
    d = len(cells)
    equation = FokkerPlanck(Grid((-1.0,) * d, (1.5,) * d, cells), random_velocity(d, seed), diffusion)
    matrix = equation.matrix.toarray()
    np.testing.assert_allclose(matrix.sum(0), 0, atol=1e-13 * max(1, abs(matrix).max()))
    assert (matrix - np.diag(np.diag(matrix)) >= 0).all()
    p = torch.zeros(len(matrix), dtype=torch.float64)
    p[seed % len(matrix)] = 1 / equation.grid.volume  # all the mass in one cell: the hardest start
    times = double(0.0, 0.01, 0.3, 2.0)
    moved = equation.evolve(p, times)
    assert (moved >= 0).all()
    torch.testing.assert_close(equation.grid.integrate(moved), torch.ones(4), rtol=0, atol=1e-12, check_dtype=False)
    for t, found in zip(times, moved, strict=True):
        np.testing.assert_allclose(found, linalg.expm(t.item() * matrix) @ p.numpy(), atol=1e-12 * p.max().item())


def test_evolution_is_the_matrix_exponential_of_scipy_over_long_times():
    grid = Grid.cube(3, 30)
    equation = FokkerPlanck(grid, random_velocity(2, 1), 0.5)
    p, times = gaussian(grid, 0.1), [0.0, 0.5, 0.5, 4.0]
    expected = np.stack([expm_multiply(t * equation.matrix, p.numpy()) for t in times])
    np.testing.assert_allclose(equation.evolve(p, times), expected, atol=1e-12)


def test_evolution_starts_anew_at_every_time_and_draws_nothing(random_state_untouched):
    equation = FokkerPlanck(PLANE, random_velocity(2, 0), 0.5)
    p = torch.rand(12, generator=seeded())  # float32
    both, half = equation.evolve(p, [1.0, 2.0]), equation.evolve(p, [1.0])
    assert both.dtype == torch.float64
    torch.testing.assert_close(equation.evolve(half[0], [1.0])[0], both[1])
    assert equation.evolve(p, [0.0])[0].tolist() == p.tolist()


# --- the Fokker-Planck equation: what it solves -------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2])
def test_heat_from_a_gaussian_is_the_diffusing_prior_at_second_order(d):
    prior, errors = DiffusionPrior(1, 0.4).double(), []
    times = [0.5, 1.0, 2.0]
    for cells in (20, 40, 80):
        grid = Grid.cube(8, cells, d)
        found = FokkerPlanck(grid, still, prior.diffusion.item()).evolve(gaussian(grid), times)
        k = torch.zeros(len(grid.points), dtype=torch.long)
        expected = torch.stack([prior.log_prob(grid.points, t, k).exp().detach() for t in times])
        errors.append(error(found, expected))
    assert errors[2] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)


def test_heat_is_convolution_with_the_heat_kernel():
    grid, diffusion, t = Grid((-10.0,), (10.0,), (401,)), 0.3, 1.5
    start = gaussian_mixture(double([-2.0], [1.5]), double(0.5, 0.8), double(0.4, 0.6)).log_prob(grid.points).exp()
    kernel = stats.norm.pdf(grid.axes[0].numpy(), 0, math.sqrt(2 * diffusion * t)) * grid.volume
    expected = torch.from_numpy(np.convolve(start.numpy(), kernel, mode="same"))
    found = FokkerPlanck(grid, still, diffusion).evolve(start, [t])[0]
    assert error(found, expected) < 1e-4
    assert error(start, expected) > 0.1


def test_ornstein_uhlenbeck_mean_and_variance():
    """dz = -a z dt + √(2D) dW: m = m_0 e^{-at}, S = D/a + (S_0 - D/a) e^{-2at}, at order h²."""
    a, diffusion, times, errors = 0.8, 0.5, [0.3, 1.0, 3.0], []
    for cells in (60, 120):
        grid = Grid((-6.0,), (6.0,), (cells,))
        found = FokkerPlanck(grid, lambda z: -a * z, diffusion).evolve(gaussian(grid, 0.3, mean=1.5), times)
        errors.append([])
        for t, p in zip(times, found, strict=True):
            mean, variance = moments(grid, p)
            level = diffusion / a
            exact = 1.5 * math.exp(-a * t), level + (0.3 - level) * math.exp(-2 * a * t)
            errors[-1].append(max(abs(mean.item() - exact[0]), abs(variance.item() - exact[1])))
    assert max(errors[1]) < 4e-3
    assert max(errors[0]) / max(errors[1]) == pytest.approx(4, rel=0.1)


def test_transport_without_diffusion_carries_the_mean():
    grid = Grid((-4.0,), (6.0,), (200,))
    p = FokkerPlanck(grid, lambda z: torch.full_like(z, 0.7), 0.0).evolve(gaussian(grid, 0.2), [2.0])[0]
    mean, variance = moments(grid, p)
    assert mean.item() == pytest.approx(1.4, abs=1e-6)
    assert variance.item() == pytest.approx(0.2 + 0.7 * 0.05 * 2, abs=1e-3)  # upwind spreads like D = vh/2


def double_well(z):
    return (z.square() - 1).square().sum(-1)


def downhill(z):
    return -4 * z * (z.square() - 1)


def boltzmann(grid, diffusion):
    p = (-double_well(grid.points) / diffusion).exp()
    return p / grid.integrate(p)


@pytest.mark.parametrize("d", [1, 2])
def test_stationary_density_of_a_double_well_at_second_order(d, random_state_untouched):
    errors = []
    for cells in (30, 60, 120) if d == 1 else (15, 30, 60):
        grid = Grid.cube(2.2, cells, d)
        found = FokkerPlanck(grid, downhill, 0.4).stationary()
        assert grid.integrate(found).item() == pytest.approx(1, abs=1e-12)
        assert (found > 0).all()
        errors.append(error(found, boltzmann(grid, 0.4)))
    assert errors[2] < 0.01
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)


def test_stationary_density_is_accurate_where_it_is_tiny():
    """With a linear potential the flux is exact, so exp(-V/D) is met to rounding, down to e^-200 at the far wall."""
    grid = Grid((0.0,), (10.0,), (50,))
    found = FokkerPlanck(grid, lambda z: torch.full_like(z, -10.0), 0.5).stationary()
    expected = torch.exp(-20 * grid.axes[0])
    torch.testing.assert_close(found, expected / grid.integrate(expected), rtol=1e-9, atol=0)


def test_every_density_converges_to_the_stationary_one():
    grid = Grid((-2.2,), (2.2,), (60,))
    equation = FokkerPlanck(grid, downhill, 0.4)
    p = torch.zeros(60, dtype=torch.float64)
    p[3] = 1 / grid.volume
    early, late = equation.evolve(p, [0.5, 200.0])
    assert error(late, equation.stationary()) < 1e-8
    assert error(early, equation.stationary()) > 0.1


def test_kl_to_the_stationary_density_decreases_at_the_rate_of_the_fisher_information():
    """H-theorem: d/dt KL(q ‖ p) = -D ∫ q ‖∇ log(q/p)‖² ≤ 0."""
    grid, diffusion, dt = Grid((-2.2,), (2.2,), (400,)), 0.4, 1e-4
    equation = FokkerPlanck(grid, downhill, diffusion)
    start, p = gaussian(grid, 0.05, mean=-0.6), equation.stationary()
    divergence = grid_kl(grid, equation.evolve(start, torch.linspace(0, 20, 51)), p)
    assert (divergence.diff() < 0).all()
    assert divergence[0] > 1
    assert divergence[-1] < 0.01
    for t in (0.05, 0.5, 2.0):
        before, q, after = equation.evolve(start, [t - dt, t, t + dt])
        rate = (grid_kl(grid, after, p) - grid_kl(grid, before, p)).item() / (2 * dt)
        slope = torch.gradient((q / p).log(), spacing=grid.spacing[0])[0]
        assert rate == pytest.approx(-diffusion * grid.integrate(q * slope.square()).item(), rel=2e-3)


def test_a_rotation_keeps_the_gaussian_stationary():
    """v = -a z + ω Jz: the rotation runs along the circles of equal density and leaves N(0, D/a) as it is."""
    errors, turn = [], 1.5 * double([0.0, -1.0], [1.0, 0.0])
    for cells in (24, 48):
        grid = Grid.cube(5, cells)
        equation = FokkerPlanck(grid, lambda z: -0.8 * z + z @ turn.T, 0.8)
        errors.append(error(equation.stationary(), gaussian(grid)))
        assert error(equation.evolve(gaussian(grid), [3.0])[0], gaussian(grid)) < 2 * errors[-1]
    assert errors[1] < 2e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)


def test_a_rotation_turns_a_density_anticlockwise():
    grid = Grid.cube(4, 60)
    start = gaussian_mixture(double([1.5, 0.0]), double(0.5)).log_prob(grid.points).exp()
    turn = math.pi / 2 * double([0.0, -1.0], [1.0, 0.0])
    p = FokkerPlanck(grid, lambda z: z @ turn.T, 0.05).evolve(start, [1.0])[0]
    mean = grid.integrate(p * grid.points.T)
    torch.testing.assert_close(mean, double(0.0, 1.5), rtol=0, atol=0.01)


@pytest.mark.parametrize("diffusion", [-0.1, math.nan, math.inf])
def test_a_diffusion_that_is_negative_or_not_finite_is_refused(diffusion):
    with pytest.raises(ValueError, match=f"diffusion must be non-negative and finite, got {diffusion}"):
        FokkerPlanck(PLANE, still, diffusion)


def test_bad_velocities_are_refused():
    with pytest.raises(ValueError, match=r"velocity must be \(8, 2\), as the points it is given, got \(8, 1\)"):
        FokkerPlanck(PLANE, lambda z: z[:, :1], 1.0)
    with pytest.raises(ValueError, match="velocity has NaN or infinite entries"):
        FokkerPlanck(PLANE, lambda z: z / 0, 1.0)


def test_bad_evolutions_are_refused():
    equation, p = FokkerPlanck(PLANE, still, 1.0), torch.ones(12)
    with pytest.raises(ValueError, match=r"density must be \(..., 12\), .* got \(11,\)"):
        equation.evolve(p[:11], [1.0])
    with pytest.raises(ValueError, match=r"density must be one density \(N,\), got \(2, 12\)"):
        equation.evolve(p.expand(2, 12), [1.0])
    for bad in (-p, p / 0):
        with pytest.raises(ValueError, match="density must be non-negative and finite; give densities"):
            equation.evolve(bad, [1.0])
    for times in ([], [-1.0], [2.0, 1.0], [math.inf], [math.nan]):
        with pytest.raises(ValueError, match="times must be at least one, ascending from 0 or later, and finite, got"):
            equation.evolve(p, times)


def test_a_stationary_density_that_is_not_unique_is_refused():
    with pytest.raises(ValueError, match="there are many stationary densities; give diffusion > 0"):
        FokkerPlanck(PLANE, still, 0.0).stationary()


def test_a_stationary_density_that_is_not_found_is_refused():
    grid = Grid((-2.0,), (2.0,), (100,))
    for diffusion in (0.03, 0.01, 0.001):  # barriers of 33 D, 100 D and 1000 D
        equation = FokkerPlanck(grid, downhill, diffusion)
        with pytest.raises(ValueError, match=f"with diffusion {diffusion} particles hardly ever cross the barriers"):
            equation.stationary()


# --- particles ----------------------------------------------------------------------------------------------------


def one_step_law(paths, noise):
    """ρ and s of z' = ρ z + s ε, read off the paths (B, steps + 1, 1) that the noise (B, steps, 1) has made."""
    inputs = torch.stack([paths[:, :-1].flatten(), noise.flatten()], -1)
    solution = torch.linalg.lstsq(inputs, paths[:, 1:].flatten()[:, None])
    torch.testing.assert_close(inputs @ solution.solution, paths[:, 1:].flatten()[:, None])
    return solution.solution.flatten().tolist()


def noise_of(seed, shape, steps):
    """The ε that a seed gives: what particles that stand still are moved by."""
    path = euler_maruyama(
        lambda z, t: torch.zeros_like(z), torch.zeros(shape, dtype=torch.float64), 0.5, 1.0, steps, seeded(seed)
    )
    return path.diff(dim=1)


def test_particles_that_stand_still_diffuse():
    noise = noise_of(0, (20_000, 2), 3)
    assert stats.kstest(noise.flatten(), "norm").pvalue > 0.01
    assert error(torch.corrcoef(noise.flatten(1).T), torch.eye(6)) < 0.03  # independent in time and dimension


def test_ornstein_uhlenbeck_particles_follow_the_discrete_recursion():
    a, diffusion, dt = 0.7, 0.3, 0.25
    z = normal(50, 1)
    paths = euler_maruyama(lambda z, t: -a * z, z, diffusion, dt, 8, seeded(5))
    assert paths.shape == (50, 9, 1)
    assert torch.equal(paths[:, 0], z)
    rho, s = one_step_law(paths, noise_of(5, (50, 1), 8))
    assert rho == pytest.approx(1 - a * dt)
    assert s**2 == pytest.approx(2 * diffusion * dt)
    # hence the stationary variance, 2 D dt / (1 - (1 - a dt)²) = (D/a) / (1 - a dt/2)
    assert s**2 / (1 - rho**2) == pytest.approx(diffusion / a / (1 - a * dt / 2))


def test_weak_error_is_of_first_order():
    """z_T is linear in the noises; the squares of its coefficients add up to its variance, without Monte Carlo."""
    a, diffusion, errors = 0.7, 0.3, []
    exact = diffusion / a * (1 - math.exp(-2 * a))
    for steps in (8, 16, 32):
        start = torch.zeros(100, 1, dtype=torch.float64)
        end = euler_maruyama(lambda z, t: -a * z, start, diffusion, 1 / steps, steps, seeded(2))[:, -1]
        coefficients = torch.linalg.lstsq(noise_of(2, (100, 1), steps)[..., 0], end).solution
        errors.append(coefficients.square().sum().item() - exact)
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.05)


def test_particles_have_the_moments_of_the_recursion():
    a, diffusion, dt, steps = 0.7, 0.3, 0.5, 4
    start = torch.full((40_000, 1), 2.0, dtype=torch.float64)
    end = euler_maruyama(lambda z, t: -a * z, start, diffusion, dt, steps, seeded())[:, -1]
    rho = 1 - a * dt
    variance = 2 * diffusion * dt * (1 - rho ** (2 * steps)) / (1 - rho**2)
    assert end.mean().item() == pytest.approx(2 * rho**steps, abs=4 * math.sqrt(variance / 40_000))
    assert end.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / 40_000))


def test_without_diffusion_the_method_is_that_of_euler_and_the_velocity_sees_the_time():
    path = euler_maruyama(lambda z, t: t * torch.ones_like(z), double([1.0, 2.0]), 0.0, 0.5, 4, seeded())
    torch.testing.assert_close(path[0, :, 0], double(1.0, 1.0, 1.25, 1.75, 2.5))
    torch.testing.assert_close(path[0, :, 1], path[0, :, 0] + 1)


def test_particles_and_the_grid_agree():
    """The same drift down a double well, told by samples and by cells."""
    grid = Grid((-3.0,), (3.0,), (300,))
    p = FokkerPlanck(grid, downhill, 0.4).evolve(gaussian(grid, 0.05, mean=-0.5), [0.5])[0]
    start = -0.5 + math.sqrt(0.05) * normal(4_000, 1)
    end = euler_maruyama(lambda z, t: downhill(z), start, 0.4, 0.005, 100, seeded(1))[:, -1, 0].numpy()
    edges = grid.axes[0].numpy() + grid.volume / 2
    assert stats.kstest(end, lambda x: np.interp(x, edges, p.cumsum(0).numpy() * grid.volume)).pvalue > 0.01


def test_langevin_of_a_gaussian_has_the_variance_of_its_discretisation():
    """z' = (1 - D dt) z + √(2 D dt) ε settles at the variance 2 D dt / (1 - (1 - D dt)²) = 1 / (1 - D dt/2)."""
    diffusion, dt = 0.8, 0.5
    paths = langevin(lambda z: -0.5 * z.square().sum(-1), normal(50, 1), diffusion, dt, 6, seeded(7))
    rho, s = one_step_law(paths, noise_of(7, (50, 1), 6))
    assert rho == pytest.approx(1 - diffusion * dt)
    assert s**2 / (1 - rho**2) == pytest.approx(1 / (1 - diffusion * dt / 2))


def test_langevin_samples_a_mixture(random_state_untouched):
    mixture = gaussian_mixture(double([-1.2], [1.0]), double(0.6, 0.5), double(0.3, 0.7))

    def cdf(x):
        return 0.3 * stats.norm.cdf(x, -1.2, 0.6) + 0.7 * stats.norm.cdf(x, 1.0, 0.5)

    start = normal(4_000, 1)
    path = langevin(mixture.log_prob, start, 1.0, 0.01, 800, seeded(3))
    assert path.shape == (4_000, 801, 1)
    assert stats.kstest(path[:, -1, 0], cdf).pvalue > 0.01
    assert stats.kstest(start[:, 0], cdf).pvalue < 1e-6


def test_particles_follow_from_the_generator_alone(random_state_untouched):
    z = normal(3, 2)
    first = langevin(lambda z: -z.square().sum(-1), z, 0.5, 0.1, 4, seeded(1))
    assert torch.equal(langevin(lambda z: -z.square().sum(-1), z, 0.5, 0.1, 4, seeded(1)), first)
    assert not torch.equal(langevin(lambda z: -z.square().sum(-1), z, 0.5, 0.1, 4, seeded(2)), first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": torch.zeros(3)}, r"z must be \(B, d\), got \(3,\)"),
        ({"diffusion": -1.0}, "diffusion must be non-negative and finite, got -1.0"),
        ({"diffusion": math.nan}, "diffusion must be non-negative and finite, got nan"),
        ({"dt": 0.0}, "dt must be positive and finite, got 0.0"),
        ({"dt": math.inf}, "dt must be positive and finite, got inf"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
    ],
)
def test_bad_simulations_are_refused(change, message):
    arguments = {"z": torch.zeros(3, 2), "diffusion": 1.0, "dt": 0.1, "steps": 2, "generator": seeded()} | change
    with pytest.raises(ValueError, match=message):
        euler_maruyama(lambda z, t: z, **arguments)
    with pytest.raises(ValueError, match=message):
        langevin(lambda z: z.sum(-1), **arguments)


def test_velocities_of_particles_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"velocity must be \(3, 2\), as the points z, got \(3,\)"):
        euler_maruyama(lambda z, t: z[:, 0], torch.zeros(3, 2), 1.0, 0.1, 2, seeded())
    with pytest.raises(ValueError, match="velocity has NaN or infinite entries"):  # the particles have diverged
        euler_maruyama(lambda z, t: z**9, torch.full((1, 1), 50.0), 0.0, 1.0, 9, seeded())


# --- the distance of two densities --------------------------------------------------------------------------------

STANDARD = (torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))


def test_kl_on_a_grid_is_that_of_gaussians():
    grid = Grid.cube(8, 160)
    q, p = MultivariateNormal(double(0.5, -1.0), double([0.8, 0.3], [0.3, 0.6])), MultivariateNormal(*STANDARD)
    found = grid_kl(grid, *(law.log_prob(grid.points).exp() for law in (q, p)))
    assert found.item() == pytest.approx(kl_divergence(q, p).item(), abs=1e-8)


def test_kl_on_a_grid_by_hand():
    grid = Grid((0.0,), (2.0,), (2,))
    one, half = double(1.0, 0.0), double(0.5, 0.5)
    assert grid_kl(grid, one, half).item() == pytest.approx(math.log(2))  # 0 log 0 = 0
    assert grid_kl(grid, half, one).item() == math.inf
    assert grid_kl(grid, one, one).item() == 0
    torch.testing.assert_close(grid_kl(grid, torch.stack([one, half]), half), double(math.log(2), 0.0))


def test_bad_divergences_are_refused():
    p = torch.ones(12)
    for name, pair in (("q", (p[:11], p)), ("p", (p, p[:11]))):
        with pytest.raises(ValueError, match=rf"{name} must be \(..., 12\)"):
            grid_kl(PLANE, *pair)
    for name, pair in (("q", (-p, p)), ("p", (p, p.log() - 1))):
        with pytest.raises(ValueError, match=f"{name} must be non-negative and finite; give densities, not their log"):
            grid_kl(PLANE, *pair)


def test_kl_rate_is_the_derivative_of_the_gaussian_kl():
    """q moved by u = ½ zᵀQz + b·z, p by ψ = -D log p, that is by the heat equation, both Gaussian at all times.

    What is averaged is a quadratic form of z, for which the Gauss-Hermite rule with 2 nodes (±1, of equal weight) for
    each dimension is exact.
    """
    diffusion, t, dt = 0.4, 0.7, 1e-4
    linear, b = torch.from_numpy(Q), torch.from_numpy(LINEAR)

    def q(t):
        flow = torch.from_numpy(linalg.expm(t * Q))
        affine = linalg.expm(t * np.block([[Q, LINEAR[:, None]], [np.zeros((1, 3))]]))
        mean = torch.from_numpy(affine @ np.array([0.5, -1.0, 1.0]))[:2]
        return MultivariateNormal(mean, flow @ double([0.8, 0.3], [0.3, 0.6]) @ flow.T)

    def p(t):
        return MultivariateNormal(STANDARD[0], (1 + 2 * diffusion * t) * STANDARD[1])

    numeric = (kl_divergence(q(t + dt), p(t + dt)) - kl_divergence(q(t - dt), p(t - dt))) / (2 * dt)
    nodes = torch.cartesian_prod(double(-1.0, 1.0), double(-1.0, 1.0))
    z = q(t).mean + nodes @ torch.linalg.cholesky(q(t).covariance_matrix).T
    score_q, score_p = score(q(t).log_prob, z), score(p(t).log_prob, z)
    found = kl_rate(z @ linear + b, -diffusion * score_p, score_q, score_p)
    assert found.shape == ()
    assert found.item() == pytest.approx(numeric.item(), abs=1e-7)
    assert abs(found.item()) > 0.1


def test_kl_rate_of_samples_is_minus_the_fisher_information_when_both_densities_diffuse():
    """Both moved by -D ∇log: E_q[-D ‖∇ log q - ∇ log p‖²]; the same velocity for both changes nothing."""
    z, diffusion = normal(7, 3), 0.3
    score_q, score_p = -z / 2, -z
    found = kl_rate(-diffusion * score_q, -diffusion * score_p, score_q, score_p)
    torch.testing.assert_close(found, -diffusion * z.square().sum(-1).mean() / 4)
    assert kl_rate(z, z, score_q, score_p).item() == 0


def test_bad_kl_rates_are_refused():
    z = torch.ones(4, 2)
    with pytest.raises(ValueError, match=r"posterior_velocity must be \(B, d\), got \(4,\)"):
        kl_rate(z[:, 0], z, z, z)
    for i, name in enumerate(("prior_velocity", "posterior_score", "prior_score")):
        arguments = [z, z, z]
        arguments[i] = z[:3]
        with pytest.raises(ValueError, match=rf"{name} must be \(4, 2\), as posterior_velocity, got \(3, 2\)"):
            kl_rate(z, *arguments)
