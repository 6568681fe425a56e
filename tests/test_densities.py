"""Densities on grids and their samples against SciPy, closed forms of Gaussians, orders of convergence and physics."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from draws import double, normal, rng
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg, stats
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

PLANE = Grid((0.0, -1.0), (3.0, 1.0), (3, 4))
approx, close, nan, inf = pytest.approx, torch.testing.assert_close, math.nan, math.inf


def gaussian(grid, variance=1.0, mean=0.0):
    """N(mean, variance I) on the grid, by SciPy."""
    d = len(grid.cells)
    law = stats.multivariate_normal(np.full(d, mean), variance * np.eye(d))
    return torch.from_numpy(np.atleast_1d(law.pdf(grid.points.numpy())))


def still(points):
    return torch.zeros_like(points)


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
    assert PLANE.points[:5].tolist() == [[0.5, -0.75], [0.5, -0.25], [0.5, 0.25], [0.5, 0.75], [1.5, -0.75]]
    image = PLANE.image(PLANE.points.T)  # the two coordinates as images: the first along the first axis
    close(image[0], double(0.5, 1.5, 2.5)[:, None].expand(3, 4))
    close(image[1], double(-0.75, -0.25, 0.25, 0.75).expand(3, 4))
    assert Grid.cube(1, 4, dimensions=1).points.tolist() == [[-0.75], [-0.25], [0.25], [0.75]]
    assert Grid.cube(2.0, 2, dimensions=3).points[1].tolist() == [-1, -1, 1]


def test_the_midpoint_rule_is_exact_for_bilinear_functions_and_of_second_order_for_squares():
    x, y = PLANE.points.T
    assert PLANE.integrate(2 * x + y + x * y).item() == approx(18)
    close(PLANE.integrate(torch.stack([x, y])), double(9.0, 0.0))
    assert PLANE.integrate(x**2).item() == approx(18 - 6 / 12)  # ∫ x² = 18, short by h²/12 for each unit of area
    for d in (1, 2, 3):
        grid = Grid.cube(7, 24, d)
        assert grid.integrate(gaussian(grid)).item() == approx(1, abs=1e-9)


MEANS = double([-1.0, 0.5], [2.0, 0.0], [0.0, -3.0])
SCALES = double([0.5, 1.0], [1.5, 0.3], [1.0, 1.0])
WEIGHTS = double(1.0, 2.0, 5.0)


def test_mixture_is_that_of_scipy():
    z = 2 * normal(4, 5, 2)
    laws = [stats.multivariate_normal(m, np.diag(s**2)) for m, s in zip(MEANS.numpy(), SCALES.numpy(), strict=True)]
    expected = sum(w / 8 * law.pdf(z.numpy()) for w, law in zip(WEIGHTS.tolist(), laws, strict=True))
    np.testing.assert_allclose(gaussian_mixture(MEANS, SCALES, WEIGHTS).log_prob(z).exp(), expected)
    same = gaussian_mixture(MEANS, SCALES[:, :1].expand(3, 2), torch.ones(3))
    close(gaussian_mixture(MEANS, SCALES[:, 0]).log_prob(z), same.log_prob(z))


def test_a_component_of_weight_zero_takes_no_part():
    mixture = gaussian_mixture(torch.tensor([[0.0], [4.0]]), torch.tensor([0.1, 0.1]), torch.tensor([1.0, 0.0]))
    z = torch.tensor([[4.0], [0.1]])
    close(mixture.log_prob(z).numpy(), stats.norm(0, 0.1).logpdf(z[:, 0]).astype(np.float32))  # -798.6 and 0.88
    with torch.no_grad():  # gradients are taken all the same
        found = score(mixture.log_prob, z)
    close(found, -100 * z)
    assert not found.requires_grad
    assert sample(mixture, 1000, rng()).max() < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("scales", "weights"),
    [
        ([0.1, 0.1], [1, 0]),
        ([0.1, 1e-18], [1, 0]),  # its distance over its scale is 0 / 0 in single precision
        ([0.1, 0.1], [1, 1e-300]),
        ([0.1, 0.1], [3e-320, 0]),
        ([0.1, 0.1], [1e300, 1e300]),
        ([0.2, 0.1], [1e-30, 1e-30]),
    ],
)
def test_a_mixture_of_any_weights_has_the_density_and_gradients_of_its_definition(scales, weights, dtype):
    weights = double(*weights).requires_grad_()
    mixture = gaussian_mixture(torch.tensor([[0.0], [4.0]], dtype=dtype), torch.tensor(scales, dtype=dtype), weights)
    shares = [w / max(weights.tolist()) for w in weights.tolist()]
    for z in (0.0, 1.0, 4.0):
        laws = zip(shares, (0, 4), scales, strict=True)
        parts = [math.log(w) + stats.norm(m, s).logpdf(z) for w, m, s in laws if w]
        found = mixture.log_prob(torch.tensor([[z]], dtype=dtype))
        assert found.item() == approx(np.logaddexp.reduce(parts) - math.log(sum(shares)), rel=1e-5, abs=1e-5)
        assert torch.autograd.grad(found.sum(), weights, retain_graph=True)[0].isfinite().all()
    assert mixture.mean.dtype == dtype


def test_samples_of_a_mixture_are_distributed_as_it_is(random_state_untouched):
    mixture = gaussian_mixture(MEANS, SCALES, WEIGHTS)
    z = sample(mixture, 5_000, rng(1)).numpy()
    for j in range(2):
        weights, means, scales = (x.numpy() for x in (WEIGHTS / 8, MEANS[:, j], SCALES[:, j]))
        cdf = (weights * stats.norm.cdf(z[:, j, None], means, scales)).sum(-1)
        assert stats.kstest(cdf, "uniform").pvalue > 0.01
    first, same, other = (sample(mixture, 10, rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_continuity_residual_is_exact_for_quadratic_fluxes_up_to_the_walls():
    """p = (1 + t + t²) x y, v = (x/y, 1) at t = 0: ∂_t p = xy and ∇·(p v) = 2x + x."""
    x, y = PLANE.points.T
    before, now, after = ((1 + t + t**2) * x * y for t in (-0.5, 0, 0.5))
    velocity = torch.stack([x / y, torch.ones_like(x)], -1)
    close(continuity_residual(PLANE, before, now, after, velocity, 0.5), x * y + 3 * x)


# --- the Fokker-Planck equation -----------------------------------------------------------------------


@pytest.mark.parametrize(("diffusion", "v"), [(0.3, 1.0), (0.3, -2.0), (2.0, 0.5), (0.7, 0.0)])
def test_matrix_of_three_cells_by_hand(diffusion, v):
    """F = (D/h) [B(-vh/D) p_i - B(vh/D) p_{i+1}] through the two inner faces, nothing through the walls."""
    h = 0.5
    x = v * h / diffusion
    forth, back = (diffusion / h**2 * (y / math.expm1(y) if y else 1.0) for y in (-x, x))
    expected = [[-forth, back, 0], [forth, -forth - back, back], [0, forth, -back]]
    equation = FokkerPlanck(Grid((0.0,), (1.5,), (3,)), lambda z: torch.full_like(z, v), diffusion)
    np.testing.assert_allclose(equation.matrix.toarray(), expected, rtol=1e-12)


def test_a_motion_of_too_many_jumps_is_refused_and_not_waited_for():
    grid = Grid((0.0,), (1.0,), (20,))
    equation = FokkerPlanck(grid, lambda z: torch.zeros_like(z), 1e6)
    with pytest.raises(
        ValueError, match=r"jumps between cells up to t = 1, at most 1e\+07 are followed: take a coarser"
    ):
        equation.evolve(torch.full((20,), 1.0), [1.0])


@pytest.mark.parametrize("diffusion", [0.0, 1e-9])
def test_without_diffusion_the_scheme_is_upwind(diffusion):
    matrix = FokkerPlanck(Grid((-1.5,), (1.5,), (3,)), lambda z: -4 * z, diffusion).matrix.toarray()
    expected = [[-2, 0, 0], [2, 0, 2], [0, 0, -2]]  # v = 2 at the left face and -2 at the right one
    np.testing.assert_allclose(matrix, expected, atol=1e-8)


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
    close(equation.grid.integrate(moved), torch.ones(4).double(), rtol=0, atol=1e-12)
    for t, found in zip(times, moved, strict=True):
        np.testing.assert_allclose(found, linalg.expm(t.item() * matrix) @ p.numpy(), atol=1e-12 * p.max().item())


@pytest.mark.parametrize("d", [1, 2])
def test_heat_from_a_gaussian_is_the_diffusing_prior_at_second_order(d, random_state_untouched):
    """N(0, (1 + 2Dt) I), which is what flows.DiffusionPrior holds."""
    errors, times = [], [0.5, 1.0, 2.0]
    for cells in (20, 40, 80):
        grid = Grid.cube(8, cells, d)
        found = FokkerPlanck(grid, still, 0.4).evolve(gaussian(grid), times)
        errors.append(error(found, torch.stack([gaussian(grid, 1 + 0.8 * t) for t in times])))
    assert errors[2] < 1e-3
    assert errors[0] / errors[1] == approx(4, rel=0.25)
    assert errors[1] / errors[2] == approx(4, rel=0.1)


def downhill(z):
    """-∇V of the double well V = Σ (z_i² - 1)²."""
    return -4 * z * (z.square() - 1)


@pytest.mark.parametrize(("d", "cells"), [(1, (30, 60, 120)), (2, (15, 30, 60))])
def test_stationary_density_of_a_double_well_at_second_order(d, cells, random_state_untouched):
    errors = []
    for n in cells:
        grid = Grid.cube(2.2, n, d)
        found = FokkerPlanck(grid, downhill, 0.4).stationary()
        assert grid.integrate(found).item() == approx(1, abs=1e-12)
        assert (found > 0).all()
        boltzmann = (-(grid.points.square() - 1).square().sum(-1) / 0.4).exp()
        errors.append(error(found, boltzmann / grid.integrate(boltzmann)))
    assert errors[2] < 0.01
    assert errors[1] / errors[2] == approx(4, rel=0.1)


def test_stationary_density_is_accurate_where_it_is_tiny():
    """With a linear potential the flux is exact, so exp(-V/D) is met to rounding, down to e^-200 at the far wall."""
    grid = Grid((0.0,), (10.0,), (50,))
    found = FokkerPlanck(grid, lambda z: torch.full_like(z, -10.0), 0.5).stationary()
    expected = torch.exp(-20 * grid.axes[0])
    close(found, expected / grid.integrate(expected), rtol=1e-9, atol=0)


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
        assert rate == approx(-diffusion * grid.integrate(q * slope.square()).item(), rel=2e-3)


def test_a_rotation_turns_a_density_anticlockwise_and_keeps_the_gaussian_stationary():
    """v = -a z + ω Jz: the rotation runs along the circles of equal density and leaves N(0, D/a) as it is."""
    errors, turn = [], double([0.0, -1.0], [1.0, 0.0])
    for cells in (24, 48):
        grid = Grid.cube(5, cells)
        equation = FokkerPlanck(grid, lambda z: -0.8 * z + 1.5 * z @ turn.T, 0.8)
        errors.append(error(equation.stationary(), gaussian(grid)))
    assert errors[1] < 2e-3
    assert errors[0] / errors[1] == approx(4, rel=0.15)
    start = gaussian_mixture(double([1.5, 0.0]), double(0.5)).log_prob(grid.points).exp()
    p = FokkerPlanck(grid, lambda z: math.pi / 2 * z @ turn.T, 0.05).evolve(start, [1.0])[0]
    close(grid.integrate(p * grid.points.T), double(0.0, 1.5), rtol=0, atol=0.01)


# --- particles ----------------------------------------------------------------------------------------------------


def noise_of(seed, shape, steps):
    """The ε that a seed gives: what particles that stand still are moved by."""
    path = euler_maruyama(lambda z, t: 0 * z, torch.zeros(shape).double(), 0.5, 1.0, steps, rng(seed))
    return path.diff(dim=1)


def test_particles_that_stand_still_diffuse():
    noise = noise_of(0, (20_000, 2), 3)
    assert stats.kstest(noise.flatten(), "norm").pvalue > 0.01
    assert error(torch.corrcoef(noise.flatten(1).T), torch.eye(6)) < 0.03  # independent in time and dimension


@pytest.mark.parametrize("a", [0.7, 0.8])
def test_linear_particles_follow_the_recursion_exactly(a):
    """z' = ρ z + s ε, read off the paths: ρ = 1 - a dt and s² = 2 D dt, and so the stationary variance."""
    diffusion, dt, z, arguments = 0.8, 0.25, normal(50, 1), (8, rng(5))
    if a == diffusion:  # Langevin of N(0, 1): v = -D z
        paths = langevin(lambda z: -0.5 * z.square().sum(-1), z, diffusion, dt, *arguments)
    else:
        paths = euler_maruyama(lambda z, t: -a * z, z, diffusion, dt, *arguments)
    inputs = torch.stack([paths[:, :-1].flatten(), noise_of(5, (50, 1), 8).flatten()], -1)
    solution = torch.linalg.lstsq(inputs, paths[:, 1:].flatten()[:, None]).solution
    close(inputs @ solution, paths[:, 1:].flatten()[:, None])
    rho, s = solution.flatten().tolist()
    assert torch.equal(paths[:, 0], z)
    assert rho == approx(1 - a * dt)
    assert s**2 == approx(2 * diffusion * dt)
    assert s**2 / (1 - rho**2) == approx(diffusion / a / (1 - a * dt / 2))


def test_without_diffusion_the_method_is_that_of_euler_and_the_velocity_sees_the_time():
    path = euler_maruyama(lambda z, t: t * torch.ones_like(z), double([1.0, 2.0]), 0.0, 0.5, 4, rng())
    close(path[0, :, 0], double(1.0, 1.0, 1.25, 1.75, 2.5))
    close(path[0, :, 1], path[0, :, 0] + 1)


def test_particles_and_the_grid_agree():
    """The same drift down a double well, told by samples and by cells."""
    grid = Grid((-3.0,), (3.0,), (300,))
    p = FokkerPlanck(grid, downhill, 0.4).evolve(gaussian(grid, 0.05, mean=-0.5), [0.5])[0]
    start = -0.5 + math.sqrt(0.05) * normal(4_000, 1)
    end = euler_maruyama(lambda z, t: downhill(z), start, 0.4, 0.005, 100, rng(1))[:, -1, 0].numpy()
    edges = grid.axes[0].numpy() + grid.volume / 2
    assert stats.kstest(end, lambda x: np.interp(x, edges, p.cumsum(0).numpy() * grid.volume)).pvalue > 0.01


def test_langevin_samples_a_mixture_with_its_generator_alone(random_state_untouched):
    mixture = gaussian_mixture(double([-1.2], [1.0]), double(0.6, 0.5), double(0.3, 0.7))

    def cdf(x):
        return 0.3 * stats.norm.cdf(x, -1.2, 0.6) + 0.7 * stats.norm.cdf(x, 1.0, 0.5)

    start = normal(4_000, 1)
    path = langevin(mixture.log_prob, start, 1.0, 0.01, 800, rng(3))
    assert path.shape == (4_000, 801, 1)
    assert stats.kstest(path[:, -1, 0], cdf).pvalue > 0.01
    assert stats.kstest(start[:, 0], cdf).pvalue < 1e-6


# --- the distance of two densities --------------------------------------------------------------------------------


def test_kl_on_a_grid_is_that_of_gaussians_and_by_hand():
    grid = Grid.cube(8, 160)
    q, p = (
        MultivariateNormal(double(0.5, -1.0), double([0.8, 0.3], [0.3, 0.6])),
        MultivariateNormal(double(0.0, 0.0), torch.eye(2).double()),
    )
    found = grid_kl(grid, *(law.log_prob(grid.points).exp() for law in (q, p)))
    assert found.item() == approx(kl_divergence(q, p).item(), abs=1e-8)
    one, half = double(1.0, 0.0), double(0.5, 0.5)
    found = grid_kl(Grid((0.0,), (2.0,), (2,)), torch.stack([one, half, half]), torch.stack([half, half, one]))
    assert found.tolist() == [math.log(2), 0, inf]  # 0 log 0 = 0


def test_kl_rate_is_minus_the_fisher_information_when_both_densities_diffuse():
    """Both moved by -D ∇log: E_q[-D ‖∇ log q - ∇ log p‖²]; the same velocity for both changes nothing."""
    z, diffusion = normal(7, 3), 0.3
    found = kl_rate(diffusion * z / 2, diffusion * z, -z / 2, -z)
    close(found, -diffusion * z.square().sum(-1).mean() / 4)
    assert kl_rate(z, z, -z / 2, -z).item() == 0


# --- refusals: a function, its arguments, what it says ------------------------------------------------------------

P, V, Z = torch.ones(12), torch.ones(12, 2), torch.ones(4, 2)
EQUATION, WELL = FokkerPlanck(PLANE, still, 1.0), partial(FokkerPlanck, Grid((-2.0,), (2.0,), (100,)), downhill)
UNSOUND = ["diffusion must be non-negative and finite, got", "dt must be positive and finite, got", "steps must be at"]
REFUSED = [
    (Grid, ((0.0,), (1.0, 1.0), (3,)), r"one entry for each dimension, at least 1, got \[1, 2, 1\]"),
    (Grid, ((0.0, 1.0), (1.0, 1.0), (3, 3)), r"low must be below high, both finite, got low=\(0.0, 1.0\)"),
    (Grid, ((0.0,), (1.0,), (2.5,)), r"integers of at least 1, got \(2.5,\)"),
    *((PLANE.image, (torch.zeros(s),), r"must be \(..., 12\), one number for each cell") for s in ((), (11,), (3, 4))),
    (gaussian_mixture, (MEANS[0], SCALES), r"means must be \(M, d\), at least one of each, fl.*got \(2,\) of"),
    *((gaussian_mixture, (MEANS, x), r"scales must be \(3,\) or \(3, 2\), pos") for x in (SCALES[:2], 0 * SCALES)),
    (gaussian_mixture, (MEANS, SCALES, WEIGHTS[:2]), r"weights must be \(3,\), non-negative, finite and not all 0"),
    (gaussian_mixture, (MEANS, SCALES, -WEIGHTS), r"not all 0, got \[-1.0, -2.0, -5.0\]"),
    *((gaussian_mixture, (m, SCALES), "floating-point and finite, got") for m in (MEANS / 0, MEANS.int())),
    *((gaussian_mixture, (MEANS.float(), x * SCALES), "their squares in torch.float32 too") for x in (1e-30, 1e30)),
    (Grid, ((0.0, 0.0), (1e-200, 1e-200), (3, 3)), "volume of a cell must be positive and finite, got 0"),
    *((score, (lambda z: z.sum(1), z), r"z must be \(B, d\), got") for z in (Z.int(), Z[:0])),
    (score, (lambda z: z.sum(1).log(), 0 * Z), "the score has NaN or infinite entries"),
    (euler_maruyama, (still, Z / 0, 1.0, 0.1, 2, rng()), "z has NaN or infinite entries"),
    (euler_maruyama, (lambda z, t: 1e308 + 0 * z, Z.double(), 0.0, 1.0, 2, rng()), "last position has NaN or infinite"),
    *((kl_rate, (z, Z, Z, Z), "posterior_velocity") for z in (Z / 0, Z[:0])),
    (sample, (gaussian_mixture(MEANS, SCALES), 0, rng()), "count must be at least 1, got 0"),
    (score, (lambda z: z, Z[0]), r"z must be \(B, d\), got \(2,\) of torch.float32; points on a line are z\[:, None\]"),
    (score, (lambda z: -z, Z), r"log_density must return \(4,\), one number per point, got \(4, 2\)"),
    (score, (lambda z: z.detach().sum(-1), Z), "must be computed from z by PyTorch"),
    *((continuity_residual, (PLANE, P, P, P, V, dt), f"dt must be pos.* got {dt}") for dt in (0.0, -1.0, nan, inf)),
    (continuity_residual, (PLANE, P, P[:11], P, V, 1.0), r"now must be \(12,\), as the grid has cells, got \(11,\)"),
    (continuity_residual, (PLANE, P, P / 0, P, V, 1.0), "now has NaN or infinite entries"),
    (continuity_residual, (Grid.cube(1.0, 2), P, P, P, V, 1.0), r"at least 3 cells along each .*, got \(2, 2\)"),
    *((FokkerPlanck, (PLANE, still, d), f"{UNSOUND[0]} {d}") for d in (-0.1, nan, inf)),
    (FokkerPlanck, (PLANE, lambda z: z[:, :1], 1.0), r"velocity must be \(8, 2\), as the points it is .* \(8, 1\)"),
    (EQUATION.evolve, (P.expand(2, 12), [1.0]), r"density must be one density \(N,\), got \(2, 12\)"),
    *((EQUATION.evolve, (p, [1.0]), "density must be non-negative and finite; give densities") for p in (-P, P / 0)),
    *((EQUATION.evolve, (P, t), "times must be at least one, asc") for t in ([], [-1.0], [2.0, 1.0], [nan])),
    (FokkerPlanck(PLANE, still, 0.0).stationary, (), "there are many stationary densities; give diffusion > 0"),
    *(
        (WELL(d).stationary, (), f"with diffusion {d} particles hardly") for d in (0.03, 0.001)
    ),  # barriers of 33 D, 1000 D
    *((euler_maruyama, (still, Z, d, 0.1, 2, rng()), UNSOUND[0]) for d in (-1.0, nan)),
    *((euler_maruyama, (still, Z, 1.0, dt, 2, rng()), UNSOUND[1]) for dt in (0.0, inf)),
    (langevin, (lambda z: z.sum(-1), Z, 1.0, 0.1, 0, rng()), UNSOUND[2]),
    (euler_maruyama, (lambda z, t: z**9, 50 * Z, 0.0, 1.0, 9, rng()), "velocity has NaN or infinite"),  # diverged
    (grid_kl, (PLANE, P[:11], P), r"q must be \(..., 12\)"),
    (grid_kl, (PLANE, P, P.log() - 1), "p must be non-negative and finite; give densities, not their log"),
    (kl_rate, (Z[:, 0], Z, Z, Z), r"posterior_velocity must be \(B, d\), got \(4,\)"),
    (kl_rate, (Z, Z, Z, Z[:3]), r"prior_score must be \(4, 2\), as posterior_velocity, got \(3, 2\)"),
]


@pytest.mark.parametrize(("function", "arguments", "message"), REFUSED)
def test_what_is_unsound_is_refused_in_words(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
