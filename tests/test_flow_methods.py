"""Runge-Kutta steps, the three ways to a density, the inverse: orders of convergence, autograd, and what must fail."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torch.func import jacrev

from poflow_lite.fields import DivergenceFreeField, FunctionPotential
from poflow_lite.flows import DENSITIES, METHODS, Flow, PotentialFlow

K = torch.tensor([0, 1, 1, 0])
ALONE = torch.zeros(4, dtype=torch.long)
every_method = pytest.mark.parametrize("method", METHODS)


def points(latent=2, batch=4, seed=0):
    return torch.randn(batch, latent, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference(field, z, k, steps):
    """Positions and ∫ ∇·v dt at the end, by SciPy's adaptive integrator at tolerance 1e-12, one particle at a time."""
    ends, lost = [], []
    for point, index in zip(z, k, strict=True):

        def rate(t, state, index=index[None]):
            x = torch.from_numpy(state[:-1])[None]
            return np.append(field.velocity(x, t, index)[0].detach(), field.divergence(x, t, index).detach())

        start = np.append(point.numpy(), 0.0)
        solved = solve_ivp(rate, (0, steps), start, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
        ends.append(solved[:-1])
        lost.append(solved[-1])
    return torch.tensor(np.array(ends)), torch.tensor(np.array(lost))


# --- order of convergence -----------------------------------------------------------------------------------------


def orders(errors):
    """log₂ of how much each halving of the step gains."""
    return [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]


@every_method
@pytest.mark.parametrize("density", ["exact", "laplacian"])
def test_positions_and_log_densities_converge_at_the_order_of_the_method(make_potential, method, density):
    """Against the continuous flow; the exact log-determinant of the numerical map converges to it as well."""
    field, z = make_potential(2, 2, strength=0.5), points()
    end, lost = reference(field, z, K, 2)
    position, log_det = [], []
    for substeps in (4, 8, 16):
        path = Flow(field, method, substeps, density).rollout(z, K, 2)
        position.append((path.z[:, -1] - end).norm().item())
        log_det.append((path.log_det.sum(1) - lost).norm().item())
    assert orders(position) == pytest.approx([METHODS[method].order] * 2, abs=0.35)
    assert orders(log_det) == pytest.approx([METHODS[method].order] * 2, abs=0.35)


def test_a_time_dependent_potential_is_read_at_the_time_of_each_stage():
    """u = t z moves every particle by ∫ t dt = ½: Euler with n substeps errs by 1/(2n), the others not at all."""
    field = FunctionPotential(lambda z, t: t * z[:, 0], 1)
    z = points(1)
    for method, error in (("euler", 1 / 8), ("midpoint", 0.0), ("rk4", 0.0)):
        moved = Flow(field, method, 4).step(z, 0.0, ALONE)
        torch.testing.assert_close(moved, z + 0.5 - error)
        later = Flow(field, method, 4).step(z, torch.arange(4.0, dtype=torch.float64), ALONE)
        torch.testing.assert_close(later, z + 0.5 - error + torch.arange(4.0, dtype=torch.float64)[:, None])


def test_hamilton_jacobi_makes_straight_paths_so_that_euler_is_exact():
    """u = b·z - ½‖b‖² t solves the equation; every method at every step size ends at z + T b."""
    b = torch.tensor([1.0, -2.0], dtype=torch.float64)
    flow = PotentialFlow(FunctionPotential(lambda z, t: z @ b - 0.5 * (b @ b) * t, 2))
    path = flow.rollout(points(), ALONE, 3)
    torch.testing.assert_close(flow.residuals(path, ALONE), torch.zeros(4, 3, dtype=torch.float64))
    torch.testing.assert_close(path.z[:, -1], points() + 3 * b)


# --- densities ----------------------------------------------------------------------------------------------------


@every_method
@given(seed=st.integers(0, 99), latent=st.integers(1, 4), substeps=st.integers(1, 3))
def test_exact_density_is_the_log_determinant_of_the_numerical_map(make_potential, method, seed, latent, substeps):
    flow, z = Flow(make_potential(latent, 2, seed), method, substeps), points(latent, seed=seed)
    times = torch.tensor([0.0, 1.0, 2.5, 4.0], dtype=torch.float64)
    found = flow.log_det(z, times, K)
    for i in range(4):
        jacobian = jacrev(lambda x, i=i: flow.step(x[None], times[i : i + 1], K[i : i + 1])[0])(z[i])
        torch.testing.assert_close(found[i], torch.linalg.slogdet(jacobian).logabsdet)


@pytest.mark.parametrize("method", ["midpoint", "rk4"])
def test_exact_density_of_a_field_whose_jacobian_is_not_symmetric(method):
    """Where the order of the factors in the chain rule shows."""
    torch.manual_seed(1)
    flow, z = Flow(DivergenceFreeField(3, 2, horizon=4).double(), method), points(3)
    with torch.no_grad():
        flow.field.right.mul_(20)
    for i in range(4):
        jacobian = jacrev(lambda x, i=i: flow.step(x[None], 1.0, K[i : i + 1])[0])(z[i])
        found = flow.log_det(z[i : i + 1], 1.0, K[i : i + 1])[0]
        torch.testing.assert_close(found, torch.linalg.slogdet(jacobian).logabsdet)


@every_method
@pytest.mark.parametrize("density", DENSITIES)
def test_a_rollout_is_step_after_step(make_potential, method, density):
    flow, z = Flow(make_potential(3, 2), method, 2, density), points(3)
    path = flow.rollout(z, K, 3, start=1, generator=torch.Generator().manual_seed(0))
    for t in range(3):
        torch.testing.assert_close(path.z[:, t + 1], flow.step(path.z[:, t], t + 1.0, K))
        torch.testing.assert_close(path.velocity[:, t], flow.field.velocity(path.z[:, t], t + 1.0, K))
        expected = flow.log_det(path.z[:, t], t + 1.0, K, torch.Generator().manual_seed(0))
        torch.testing.assert_close(path.log_det[:, t], expected)  # one direction for the whole path


@every_method
def test_an_ignored_density_is_zero_and_moves_as_any_other(make_potential, method):
    field, z = make_potential(2, 2, strength=0.5), points()
    ignored, exact = (Flow(field, method, 2, density).rollout(z, K, 3) for density in ("ignored", "exact"))
    assert torch.equal(ignored.log_det, torch.zeros(4, 3, dtype=torch.float64))
    assert torch.equal(ignored.z, exact.z)
    assert exact.log_det.abs().min() > 1e-3
    start = torch.arange(4.0, dtype=torch.float64)
    assert torch.equal(ignored.log_density(start), start[:, None].expand(4, 4))


def test_hutchinson_is_unbiased_reproducible_and_exact_where_the_jacobian_is_diagonal(make_potential, make_quadratic):
    field, many = make_potential(3, 1, strength=0.5), 4000
    z, k = points(3, 1).expand(many, 3), torch.zeros(many, dtype=torch.long)
    draw = Flow(field, "rk4", 2, "hutchinson").rollout(z, k, 2, generator=torch.Generator().manual_seed(0)).log_det
    again = Flow(field, "rk4", 2, "hutchinson").rollout(z, k, 2, generator=torch.Generator().manual_seed(0)).log_det
    assert torch.equal(draw, again)
    truth = Flow(field, "rk4", 2, "laplacian").rollout(z[:1], k[:1], 2).log_det
    error = draw.std(0) / many**0.5
    assert (error > 0).all()
    assert ((draw.mean(0) - truth[0]).abs() < 4 * error).all()
    diagonal = make_quadratic([[[0.3, 0.0], [0.0, -0.2]]])
    flows = [Flow(diagonal, density=density).rollout(points(), ALONE, 2) for density in ("hutchinson", "laplacian")]
    torch.testing.assert_close(flows[0].log_det, flows[1].log_det)


def test_a_density_along_an_rk4_path_is_the_gaussian_of_the_matrix_exponential(make_quadratic):
    """q̇ under v = Qz stays Gaussian with covariance e^{Qt} e^{Qt}: closed form in continuous time."""
    q = torch.tensor([[0.3, 0.2], [0.2, -0.4]], dtype=torch.float64)
    flow, z = Flow(make_quadratic(q[None]), "rk4", 16, "laplacian"), points()
    path = flow.rollout(z, ALONE, 3)
    normal = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=torch.float64), torch.eye(2).double())
    found = path.log_density(normal.log_prob(z))
    for t in range(4):
        matrix = torch.linalg.matrix_exp(t * q)
        exact = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=torch.float64), matrix @ matrix.T)
        torch.testing.assert_close(found[:, t], exact.log_prob(path.z[:, t]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("density", DENSITIES)
def test_gradients_reach_every_parameter_through_every_density(make_potential, density):
    flow = Flow(make_potential(3, 2), "midpoint", 2, density)
    path = flow.rollout(points(3), K, 3, generator=torch.Generator().manual_seed(0))
    (path.z[:, -1].square().sum() + path.log_det.sum()).backward()
    for name, parameter in flow.named_parameters():
        if not name.endswith("gauge"):  # the gauge moves nothing
            assert parameter.grad.abs().sum() > 0, name


# --- the inverse --------------------------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inverse_undoes_a_rollout(make_potential, method, dtype):
    field = make_potential(3, 2, strength=0.4).to(dtype)
    flow, z = Flow(field, method, 2), points(3).to(dtype)
    end = flow.rollout(z, K, 4, start=1).z[:, -1].detach()
    assert (end - z).norm(dim=1).min() > 0.3
    found = flow.inverse(end, K, 4, start=1)
    assert found.dtype == dtype
    torch.testing.assert_close(found, z, rtol=0, atol=1e-3 if dtype == torch.float32 else 1e-9)


def test_inverse_of_an_affine_flow_is_one_matrix_solve(make_quadratic):
    q = [[[0.8, 0.3], [0.3, -0.5]]]
    flow, z = Flow(make_quadratic(q, [[1.0, -2.0]])), points()
    step = torch.eye(2).double() + torch.tensor(q[0], dtype=torch.float64)
    expected = torch.linalg.solve(step, (z - torch.tensor([1.0, -2.0]).double()).T).T
    torch.testing.assert_close(flow.inverse(z, ALONE, 1), expected)


def test_inverse_needs_newton_where_the_fixed_point_iteration_diverges(make_quadratic):
    """z + 3z: the map z ↦ target - 3z is no contraction, yet the step is invertible."""
    flow = Flow(make_quadratic([[[3.0, 0.0], [0.0, 3.0]]]))
    torch.testing.assert_close(flow.inverse(points(), ALONE, 2), points() / 16)


def test_inverse_backtracks_where_newtons_full_step_runs_away():
    """v = 5 arctan(3z): from afar Newton's own steps overshoot the bend at 0 and never come back."""
    flow = Flow(FunctionPotential(lambda z, t: 5 * (z * torch.atan(3 * z) - torch.log1p(9 * z**2) / 6).sum(1), 1))
    z = torch.linspace(-3, 3, 41, dtype=torch.float64)[:, None]
    k = torch.zeros(41, dtype=torch.long)
    torch.testing.assert_close(flow.inverse(flow.step(z, 0.0, k).detach(), k, 1), z, rtol=0, atol=1e-8)


def test_a_fold_is_refused_by_name(make_quadratic):
    """I + Q = -I mirrors space: a pre-image exists, but between here and the identity the flow has folded."""
    with pytest.raises(ValueError, match=r"step at t = 2 cannot be undone at 4 of 4 points.*eigenvalue .*-1.*substeps"):
        Flow(make_quadratic([[[-2.0, 0.0], [0.0, 0.5]]])).inverse(points(), ALONE, 1, start=2)


def test_a_point_reflection_is_a_fold_though_its_determinant_is_positive(make_quadratic):
    """I + Q = -½ I turns the plane by 180° in one gradient step, which no continuous gradient flow does."""
    with pytest.raises(ValueError, match="cannot be undone at 4 of 4 points"):
        Flow(make_quadratic([[[-1.5, 0.0], [0.0, -1.5]]])).inverse(points(), ALONE, 1)


def test_a_half_turn_by_a_rotating_field_can_be_undone():
    """Here the same Jacobian, -I, is reached honestly, by four steps that each turn by about 45°."""
    field = DivergenceFreeField(2, 1, width=1).double()
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.zero_()
        field.rotation[0, 0, 1], field.rotation[0, 1, 0] = -torch.pi, torch.pi
    flow, z = Flow(field, "rk4", 4), points()
    end = flow.step(z, 0.0, ALONE)
    torch.testing.assert_close(end, -z, rtol=0, atol=0.02)
    torch.testing.assert_close(flow.inverse(end.detach(), ALONE, 1), z)


def test_a_point_that_no_particle_reaches_is_refused():
    """z - z + 0.1 tanh z is bounded: 5 has no pre-image."""
    field = FunctionPotential(lambda z, t: (-0.5 * z**2 + 0.1 * torch.log(torch.cosh(z))).sum(1), 1)
    target = torch.tensor([[0.05], [5.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="cannot be undone at 1 of 2 points"):
        Flow(field).inverse(target, ALONE[:2], 1)
    with pytest.raises(ValueError, match="needs at least 1 step, got 0"):
        Flow(field).inverse(target, ALONE[:2], 0)
    with pytest.raises(ValueError, match="z holds NaN or infinite coordinates"):
        Flow(field).inverse(target / 0, ALONE[:2], 1)


def test_more_substeps_mend_a_fold():
    """u = -0.75 z² in one step mirrors; in four it contracts, as the continuous flow does."""
    field = FunctionPotential(lambda z, t: -0.75 * z.square().sum(1), 2)
    z = points()
    assert Flow(field).smallest_eigenvalue(Flow(field).rollout(z, ALONE, 1), ALONE).max() == pytest.approx(-0.5)
    fine = Flow(field, substeps=4)
    path = fine.rollout(z, ALONE, 1)
    assert fine.smallest_eigenvalue(path, ALONE).min() == pytest.approx(1 - 1.5 / 4)
    torch.testing.assert_close(fine.inverse(path.z[:, -1], ALONE, 1), z)


def test_smallest_eigenvalue_is_the_worst_of_the_substeps():
    """The bend passes z = 0 halfway: only the second substep of the frame stands in it."""
    field = FunctionPotential(lambda z, t: 2 * z[:, 0] - 3 * torch.exp(-8 * (z[:, 0] - 1) ** 2), 1)
    flow = Flow(field, substeps=2)
    z, k = torch.zeros(1, 1, dtype=torch.float64), ALONE[:1]
    path = flow.rollout(z, k, 1)
    middle = z + 0.5 * field.gradient(z, 0.0, k)
    eigenvalues = [1 + 0.5 * field.hessian(point, 0.0, k).item() for point in (z, middle)]
    assert eigenvalues[0] != pytest.approx(eigenvalues[1], abs=0.1)
    assert flow.smallest_eigenvalue(path, k).item() == pytest.approx(min(eigenvalues))


# --- bad input ----------------------------------------------------------------------------------------------------


def test_unknown_methods_and_densities_are_refused_with_the_known_ones(make_potential):
    field = make_potential()
    with pytest.raises(ValueError, match=r"unknown method 'heun'.*euler, midpoint, rk4"):
        Flow(field, "heun")
    with pytest.raises(ValueError, match=r"unknown density 'trace'.*exact, laplacian, hutchinson"):
        Flow(field, density="trace")
    with pytest.raises(ValueError, match="substeps must be at least 1, got 0"):
        Flow(field, substeps=0)
