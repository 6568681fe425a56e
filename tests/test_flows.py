"""Steps, densities and the diffusing prior against Jacobians, Gaussian closed forms, quadrature and Monte Carlo."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.distributions import MultivariateNormal, kl_divergence
from torch.func import grad, hessian, jacrev, jvp

from poflow_lite.flows import DiffusionPrior, PotentialFlow, StaticPrior, log_det_identity_plus
from poflow_lite.objectives import diagonal_normal

K = torch.tensor([0, 1, 1, 0])


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def start_points(latent=3, batch=4, seed=0):
    return torch.randn(batch, latent, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- the logarithm of the determinant -----------------------------------------------------------------------------


def test_log_det_of_a_non_separable_quadratic_by_hand():
    """H = [[0, ½], [½, 0]] has det(I + H) = ¾, though its trace is 0 and the row sums of I + H are 3/2."""
    found = log_det_identity_plus(double([0, 0.5], [0.5, 0])).item()
    assert found == pytest.approx(math.log(0.75))
    assert abs(found - 0) > 0.2  # the trace
    assert abs(found - 2 * math.log(1.5)) > 0.2  # the row sums


@given(seed=st.integers(0, 999), latent=st.integers(2, 6))
def test_log_det_is_the_sum_of_log_eigenvalues_not_of_row_sums_nor_the_trace(seed, latent):
    h = np.random.default_rng(seed).normal(size=(latent, latent))
    h = 0.5 * (h + h.T)
    found = log_det_identity_plus(torch.tensor(h)).item()
    assert found == pytest.approx(np.log(np.abs(1 + np.linalg.eigvalsh(h))).sum(), abs=1e-9)
    assert found != pytest.approx(np.log(np.abs(1 + h.sum(1))).sum(), abs=1e-6)
    assert found != pytest.approx(np.trace(h), abs=1e-6)


def test_log_det_is_the_trace_to_first_order_and_minus_infinity_where_space_folds():
    h = double([0.3, -1.0], [-1.0, 2.0])
    assert (log_det_identity_plus(1e-5 * h) / 1e-5).item() == pytest.approx(2.3, abs=1e-4)
    assert log_det_identity_plus(double([-1.0, 0.0], [0.0, 0.0])).item() == -math.inf
    assert log_det_identity_plus(double([-3.0, 0.0], [0.0, 0.0])).item() == pytest.approx(math.log(2))


@given(seed=st.integers(0, 99), latent=st.integers(1, 4))
def test_log_det_of_a_step_is_that_of_its_jacobian(make_potential, seed, latent):
    flow, z = PotentialFlow(make_potential(latent, 2, seed)), start_points(latent, seed=seed)
    times, found = double(0.0, 1.0, 2.5, 4.0), []
    for i in range(4):
        jacobian = jacrev(lambda x, i=i: flow.step(x[None], times[i : i + 1], K[i : i + 1])[0])(z[i])
        found.append(torch.linalg.slogdet(jacobian).logabsdet)
    torch.testing.assert_close(flow.log_det(z, times, K), torch.stack(found))


# --- paths --------------------------------------------------------------------------------------------------------


def test_rollout_is_step_after_step(make_potential):
    flow, z = PotentialFlow(make_potential(3, 2)), start_points()
    path = flow.rollout(z, K, steps=3, start=1)
    assert path.z.shape == (4, 4, 3)
    assert torch.equal(path.z[:, 0], z)
    for t in range(3):
        torch.testing.assert_close(path.z[:, t + 1], flow.step(path.z[:, t], t + 1.0, K))
        torch.testing.assert_close(path.log_det[:, t], flow.log_det(path.z[:, t], t + 1.0, K))
    torch.testing.assert_close(path.velocity, path.z.diff(dim=1))
    later = flow.rollout(z, K, steps=3)
    assert not torch.allclose(later.z[:, 1], path.z[:, 1])  # the potential depends on time


def test_rollout_accepts_mixtures_and_keeps_samples_apart(make_potential):
    flow, z = PotentialFlow(make_potential(3, 2)), start_points()
    path, one_hot = flow.rollout(z, K, 3), flow.rollout(z, torch.eye(2, dtype=torch.float64)[K], 3)
    torch.testing.assert_close(path.z, one_hot.z)
    torch.testing.assert_close(path.log_det, one_hot.log_det)
    alone = torch.cat([flow.rollout(z[i : i + 1], K[i : i + 1], 3).z for i in range(4)])
    torch.testing.assert_close(path.z, alone)


def test_log_dets_of_a_path_add_up_to_that_of_the_whole_map(make_potential):
    flow, z = PotentialFlow(make_potential(3, 2)), start_points()
    for i in range(4):
        jacobian = jacrev(lambda x, i=i: flow.rollout(x[None], K[i : i + 1], 4).z[0, -1])(z[i])
        total = flow.rollout(z[i : i + 1], K[i : i + 1], 4).log_det.sum()
        torch.testing.assert_close(total, torch.linalg.slogdet(jacobian).logabsdet)


def test_departures_are_where_and_when_each_step_begins(make_potential):
    flow, z = PotentialFlow(make_potential(3, 2)), start_points()
    path = flow.rollout(z, K, 2, start=3)
    points, times, index = path.departures(K, start=3)
    assert times.tolist() == [3, 4] * 4
    assert index.tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    torch.testing.assert_close(points[2::2], path.z[1:, 0])
    torch.testing.assert_close(flow.potential.gradient(points, times, index), path.velocity.flatten(0, 1))


def test_bad_rollouts_are_refused(make_potential):
    flow = PotentialFlow(make_potential(3, 2))
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        flow.rollout(start_points(), K, 0)
    with pytest.raises(ValueError, match=r"k must lie in 0\.\.1 .* got values from 0 to 2"):
        flow.rollout(start_points(), torch.tensor([0, 1, 2, 0]), 2)
    with pytest.raises(ValueError, match=r"z must be \(B, 3\), got \(4, 5\)"):
        flow.rollout(start_points(5), K, 2)


def test_smallest_eigenvalue_is_that_of_the_step(make_quadratic):
    """I + Q has eigenvalues 1 ± 3 for the one transformation and 1.5 twice for the other."""
    flow = PotentialFlow(make_quadratic([[[0, 3], [3, 0]], [[0.5, 0], [0, 0.5]]]))
    path = flow.rollout(start_points(2), K, 2)
    torch.testing.assert_close(flow.smallest_eigenvalue(path, K), double(-2.0, 1.5)[K, None].expand(4, 2))


def test_smallest_eigenvalue_is_taken_where_and_when_the_step_starts(make_potential):
    flow, z = PotentialFlow(make_potential(3, 2)), start_points()
    path = flow.rollout(z, K, 2, start=1)
    for t in range(2):
        jacobian = torch.eye(3) + flow.potential.hessian(path.z[:, t], t + 1.0, K)
        expected = torch.linalg.eigvalsh(jacobian).amin(-1)
        torch.testing.assert_close(flow.smallest_eigenvalue(path, K, start=1)[:, t], expected)


# --- densities ----------------------------------------------------------------------------------------------------


@pytest.fixture
def affine(make_quadratic):
    """Two affine flows z ↦ A^k z + b^k, and the exact Gaussian that each makes of q_0 at every time."""
    q, b = double([[0.2, 0.4], [0.4, -0.3]], [[-0.5, 0.1], [0.1, 0.6]]), double([0.3, -0.2], [0.0, 1.0])
    mean, scale = double(0.5, -1.0), double(0.7, 1.3)

    def gaussians(k, steps):
        step, m, s = torch.eye(2) + q[k], mean, torch.diag(scale**2)
        result = [MultivariateNormal(m, s)]
        for _ in range(steps):
            m, s = step @ m + b[k], step @ s @ step.T
            result.append(MultivariateNormal(m, s))
        return result

    return PotentialFlow(make_quadratic(q, b)), diagonal_normal(mean, scale), gaussians


def test_density_under_an_affine_flow_is_the_push_forward_gaussian(affine):
    flow, q0, gaussians = affine
    z = q0.sample((4,))
    path = flow.rollout(z, K, 3)
    found = path.log_density(q0.log_prob(z))
    for i, k in enumerate(K):
        expected = [q.log_prob(path.z[i, t]) for t, q in enumerate(gaussians(k, 3))]
        torch.testing.assert_close(found[i], torch.stack(expected))


@pytest.mark.parametrize("k", [0, 1])
def test_monte_carlo_kl_to_the_prior_is_the_gaussian_closed_form(affine, k):
    flow, q0, gaussians = affine
    prior, index = DiffusionPrior(2, 0.3).double(), torch.full((20_000,), k)
    z = q0.sample((20_000,))
    path = flow.rollout(z, index, 3)
    log_q = path.log_density(q0.log_prob(z))
    for t, q in enumerate(gaussians(k, 3)):
        samples = (log_q[:, t] - prior.log_prob(path.z[:, t], t, index)).detach()
        exact = kl_divergence(q, MultivariateNormal(torch.zeros(2), (1 + 0.6 * t) * torch.eye(2))).item()
        error = samples.std().item() / len(samples) ** 0.5
        assert samples.mean().item() == pytest.approx(exact, abs=4 * error)
        assert error < 0.05 * exact


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_density_on_a_line_integrates_to_one_under_a_nonlinear_flow(make_potential, seed):
    flow = PotentialFlow(make_potential(1, 1, seed, strength=0.4))
    z = torch.linspace(-9, 9, 4001, dtype=torch.float64)[:, None]
    path = flow.rollout(z, torch.zeros(len(z), dtype=torch.long), 4)
    assert (path.z.diff(dim=0) > 0).all()  # invertible, so that the moved grid is still a grid
    density = path.log_density(diagonal_normal(torch.zeros_like(z), torch.ones_like(z)).log_prob(z)).exp().detach()
    for t in range(5):
        assert torch.trapezoid(density[:, t], path.z[:, t, 0].detach()).item() == pytest.approx(1, abs=1e-5)
    assert (density[:, 0] - density[:, 4]).abs().max() > 0.05


# --- the diffusing prior ------------------------------------------------------------------------------------------


@pytest.fixture
def prior():
    """D = (0.1, 0.7)."""
    prior = DiffusionPrior(2).double()
    with torch.no_grad():
        prior.raw.copy_(torch.expm1(double(0.1, 0.7)).log())
    torch.testing.assert_close(prior.diffusion, double(0.1, 0.7))
    return prior


def prior_at_one_point(prior, k):
    """log p(z, t) as a function of one point z (d,) and one time."""
    return lambda z, t: prior.log_prob(z[None], t[None], torch.tensor([k]))[0]


def test_prior_is_the_gaussian_of_variance_one_plus_two_d_t(prior):
    z, t = start_points(), double(0.0, 1.0, 2.0, 3.5)
    variances = 1 + 2 * np.array([0.1, 0.7, 0.7, 0.1]) * t.numpy()
    expected = [stats.multivariate_normal(cov=v * np.eye(3)).logpdf(x) for v, x in zip(variances, z, strict=True)]
    np.testing.assert_allclose(prior.log_prob(z, t, K).detach(), expected)
    torch.testing.assert_close(prior.variance(t, K), torch.tensor(variances))


def test_prior_takes_many_times_for_each_sample(prior):
    z, t = start_points(15).unflatten(1, (5, 3)), torch.arange(5).expand(4, -1)
    one_by_one = torch.stack([prior.log_prob(z[:, n], float(n), K) for n in range(5)], 1)
    torch.testing.assert_close(prior.log_prob(z, t, K), one_by_one)
    torch.testing.assert_close(prior.log_prob(z[:, 0], 2.0, torch.eye(2)[K]), prior.log_prob(z[:, 0], 2.0, K))


@pytest.mark.parametrize(("k", "diffusion"), [(0, 0.1), (1, 0.7)])
def test_prior_obeys_the_heat_equation(prior, k, diffusion):
    log_prob = prior_at_one_point(prior, k)

    def p(z, t):
        return log_prob(z, t).exp()

    for z in start_points():
        rate, laplacian = grad(p, 1)(z, double(1.5)[0]), torch.trace(hessian(p)(z, double(1.5)[0]))
        torch.testing.assert_close(rate, diffusion * laplacian)


@pytest.mark.parametrize(("k", "diffusion"), [(0, 0.1), (1, 0.7)])
def test_particles_move_along_the_gradient_of_the_potential_and_lose_density_by_its_laplacian(prior, k, diffusion):
    index, log_prob = torch.tensor([k]), prior_at_one_point(prior, k)

    def psi(z, t):
        return prior.potential(z[None], t[None], index)[0]

    def moved(z0, t):
        return prior.particles(z0[None], t[None], index)[0]

    for z0 in start_points():
        t, one = double(1.5)[0], double(1.0)[0]
        z, velocity = jvp(partial(moved, z0), (t,), (one,))
        torch.testing.assert_close(velocity, grad(psi)(z, t))
        torch.testing.assert_close(psi(z, t), -diffusion * log_prob(z, t))
        along = jvp(lambda s, z0=z0: log_prob(moved(z0, s), s), (t,), (one,))[1]
        torch.testing.assert_close(along, -torch.trace(hessian(psi)(z, t)))


def test_particles_reproduce_the_prior(prior):
    z0 = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    k = torch.arange(len(z0)) % 2
    z = prior.particles(z0, 4.0, k).detach().numpy()
    for j, variance in ((0, 1.8), (1, 6.6)):
        assert stats.kstest(z[k == j].ravel() / variance**0.5, "norm").pvalue > 0.01
    change = 1.5 * torch.log(1 + 8 * prior.diffusion[k])
    torch.testing.assert_close(prior.log_prob(z0, 0, k) - change, prior.log_prob(torch.tensor(z), 4.0, k))


def test_every_diffusion_coefficient_is_positive_and_trained():
    prior = DiffusionPrior(3, 0.05)
    torch.testing.assert_close(prior.diffusion, torch.full((3,), 0.05))
    prior.log_prob(torch.randn(3, 2), 2.0, torch.arange(3)).sum().backward()
    assert (prior.raw.grad.abs() > 0).all()
    with torch.no_grad():
        prior.raw.fill_(-20)
    assert (prior.diffusion > 0).all()


def test_a_static_prior_is_a_standard_normal_at_all_times_and_moves_nothing():
    prior, z = StaticPrior(2).double(), start_points()
    expected = torch.tensor(stats.multivariate_normal(cov=np.eye(3)).logpdf(z))
    for t in (0.0, 3.5, double(0.0, 1.0, 2.0, 9.0)):
        torch.testing.assert_close(prior.log_prob(z, t, K), expected)
        torch.testing.assert_close(prior.log_prob(z, t, torch.full((4, 2), 0.5, dtype=torch.float64)), expected)
        assert torch.equal(prior.variance(t, K), torch.ones(4, dtype=torch.float64))
        assert torch.equal(prior.particles(z, t, K), z)
        assert torch.equal(prior.potential(z, t, K), torch.zeros(4, dtype=torch.float64))
    many = prior.log_prob(z[:, None].expand(4, 5, 3), torch.arange(5).expand(4, -1), K)
    torch.testing.assert_close(many, expected[:, None].expand(4, 5))
    assert prior.diffusion.tolist() == [0.0, 0.0]
    assert not list(prior.parameters())
    assert not prior.state_dict()
    assert prior.diffusion.dtype == torch.float64, "it follows the model to another dtype or device"


@pytest.mark.parametrize("diffusion", [0.0, -0.1, math.nan, math.inf])
def test_a_diffusion_coefficient_that_is_not_positive_and_finite_is_refused(diffusion):
    with pytest.raises(ValueError, match=f"must be positive and finite, got {diffusion}"):
        DiffusionPrior(3, diffusion)


@pytest.mark.parametrize("diffusion", [1e-6, 0.05, 1.0, 1000.0])
def test_the_initial_diffusion_is_what_was_asked_for(diffusion):
    assert DiffusionPrior(2, diffusion).diffusion.tolist() == pytest.approx([diffusion] * 2, rel=1e-3)
