"""Likelihoods, divergences, the importance-weighted estimator and the Hamilton-Jacobi residual against oracles."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from poflow_lite.objectives import (
    Terms,
    diagonal_normal,
    gaussian_ceiling,
    gaussian_kl,
    hamilton_jacobi_residual,
    importance_weighted_log_likelihood,
    laplace_transition_kl,
    likelihood,
    reparameterize,
    total_correlation,
    wave_residual,
)


def normal_parameters(batch=4, latent=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(batch, latent, generator=generator, dtype=torch.float64)
    scale = torch.rand(batch, latent, generator=generator, dtype=torch.float64) + 0.2
    return mean, scale


# --- terms --------------------------------------------------------------------------------------------------------


def test_loss_is_the_batch_mean_of_weighted_terms_and_the_bound_ignores_the_weights():
    penalties = {"force": torch.tensor([4.0, 8.0]), "other": torch.tensor([1.0, 3.0])}
    terms = Terms(torch.tensor([-10.0, -20.0]), torch.tensor([2.0, 6.0]), kl_weight=0.5, penalties=penalties)
    assert terms.loss.item() == ((10 + 1 + 5) + (20 + 3 + 11)) / 2
    assert terms.bound.tolist() == [-12.0, -26.0]
    assert terms.summary() == {"reconstruction": -15.0, "kl": 4.0, "force": 6.0, "other": 2.0}


def test_without_penalties_and_with_unit_weight_the_loss_is_minus_the_bound():
    terms = Terms(torch.randn(5), torch.rand(5))
    assert torch.isclose(terms.loss, -terms.bound.mean())


# --- likelihoods --------------------------------------------------------------------------------------------------


def log_densities_of_pixels(name: str, x: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """log p(x | logit) of single pixels, written down a second time with NumPy."""
    p = 1 / (1 + np.exp(-logits))
    if name == "gaussian":
        return stats.norm(p, 1).logpdf(x)
    cross_entropy = x * np.log(p) + (1 - x) * np.log1p(-p)
    return cross_entropy + (np.log(2 * np.arctanh(1 - 2 * p) / (1 - 2 * p)) if name != "bernoulli" else 0.0)


@pytest.mark.parametrize("name", ["bernoulli", "continuous-bernoulli", "gaussian"])
def test_log_probability_of_an_image_is_the_sum_over_its_pixels(name):
    x, logits = torch.rand(2, 5, 3, 4, 6, dtype=torch.float64), torch.randn(2, 5, 3, 4, 6, dtype=torch.float64)
    expected = log_densities_of_pixels(name, x.numpy(), logits.numpy()).sum((-3, -2, -1))
    found = likelihood(name, logits).log_prob(x)
    assert found.shape == (2, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(("name", "support"), [("continuous-bernoulli", (0, 1)), ("gaussian", (-9, 9))])
@pytest.mark.parametrize("logit", [-3.0, 0.4, 2.0])
def test_densities_integrate_to_one_and_have_the_mean_they_claim(name, support, logit):
    p = likelihood(name, torch.full((1, 1, 1), logit, dtype=torch.float64))

    def density(x):
        return p.log_prob(torch.full((1, 1, 1), x, dtype=torch.float64)).exp().item()

    assert integrate.quad(density, *support)[0] == pytest.approx(1, abs=1e-6)
    assert integrate.quad(lambda x: x * density(x), *support)[0] == pytest.approx(p.mean.item(), abs=1e-6)


def test_unknown_likelihood_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown likelihood 'poisson'; known: bernoulli, continuous-bernoulli, g"):
        likelihood("poisson", torch.zeros(1, 1, 1))


@pytest.mark.parametrize(("dimensions", "nats"), [(3 * 28 * 28, -2161.3), (3 * 64 * 64, -11291.9), (1, -0.918938533)])
def test_ceiling_is_the_log_density_at_a_perfect_prediction(dimensions, nats):
    assert gaussian_ceiling(dimensions) == pytest.approx(nats, abs=0.1 if dimensions > 1 else 1e-8)
    logits = torch.randn(dimensions, 1, 1, dtype=torch.float64)
    p = likelihood("gaussian", logits)
    assert p.log_prob(torch.sigmoid(logits)).item() == pytest.approx(gaussian_ceiling(dimensions), rel=1e-12)
    assert p.log_prob(torch.sigmoid(logits) + 0.1).item() < gaussian_ceiling(dimensions)


# --- posteriors ---------------------------------------------------------------------------------------------------


def test_diagonal_normal_is_the_multivariate_normal():
    mean, scale = normal_parameters()
    z = torch.randn_like(mean)
    expected = MultivariateNormal(mean, torch.diag_embed(scale**2)).log_prob(z)
    torch.testing.assert_close(diagonal_normal(mean, scale).log_prob(z), expected)


def test_reparameterized_samples_are_differentiable_in_mean_and_scale():
    mean, scale = (p.requires_grad_() for p in normal_parameters())
    z = reparameterize(diagonal_normal(mean, scale), torch.Generator().manual_seed(1))
    by_mean, by_scale = torch.autograd.grad(z.sum(), (mean, scale))
    torch.testing.assert_close(by_mean, torch.ones_like(mean))
    torch.testing.assert_close(by_scale, (z - mean) / scale)


def test_reparameterized_samples_have_the_moments_of_the_posterior():
    mean, scale = normal_parameters(batch=1)
    many = diagonal_normal(mean.expand(40_000, -1), scale.expand(40_000, -1))
    z = reparameterize(many, torch.Generator().manual_seed(1))
    error = scale[0] / math.sqrt(len(z))
    assert ((z.mean(0) - mean[0]).abs() < 4 * error).all()
    assert ((z.std(0) - scale[0]).abs() < 4 * error).all()


def test_noise_comes_from_the_generator_and_leaves_the_global_state_alone():
    posterior, before = diagonal_normal(*normal_parameters()), torch.get_rng_state()
    first, second, third = (reparameterize(posterior, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert torch.equal(torch.get_rng_state(), before)


# --- Kullback-Leibler ---------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 1000), variance=st.floats(0.1, 10), latent=st.integers(1, 6))
def test_gaussian_kl_equals_the_library_closed_form(seed, variance, latent):
    mean, scale = normal_parameters(latent=latent, seed=seed)
    prior = Independent(Normal(torch.zeros_like(mean), math.sqrt(variance)), 1)
    expected = kl_divergence(Independent(Normal(mean, scale), 1), prior)
    torch.testing.assert_close(gaussian_kl(mean, scale, variance), expected)
    assert (expected > 0).all()


def test_gaussian_kl_takes_one_variance_per_sample():
    mean, scale = normal_parameters(batch=3)
    variance = torch.tensor([[0.5], [1.0], [4.0]], dtype=torch.float64)
    alone = [gaussian_kl(mean[i : i + 1], scale[i : i + 1], v.item()) for i, v in enumerate(variance)]
    torch.testing.assert_close(gaussian_kl(mean, scale, variance), torch.cat(alone))


def test_gaussian_kl_vanishes_exactly_where_the_two_agree():
    zero, scale = torch.zeros(1, 4, dtype=torch.float64), torch.full((1, 4), 1.5, dtype=torch.float64)
    assert gaussian_kl(zero, scale, 2.25).item() == pytest.approx(0, abs=1e-14)
    assert gaussian_kl(zero, scale, 2.0).item() > 0.01


# --- importance-weighted likelihood -------------------------------------------------------------------------------


@pytest.fixture
def linear_gaussian():
    """x = A z + ε with z ~ N(0, I), ε ~ N(0, I): its exact log p(x), its posterior, and log p(x, z)."""
    matrix = torch.tensor([[1.0, 0.5], [-0.3, 0.8], [0.7, 0.1]], dtype=torch.float64)
    x, eye = torch.tensor([0.4, -1.0, 0.9], dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    evidence = MultivariateNormal(torch.zeros_like(x), matrix @ matrix.T + torch.eye(3)).log_prob(x)
    covariance = torch.linalg.inv(eye + matrix.T @ matrix)
    posterior = MultivariateNormal(covariance @ matrix.T @ x, covariance)

    def joint(z):
        likelihood = Independent(Normal(z @ matrix.T, 1.0), 1).log_prob(x)
        return likelihood + MultivariateNormal(torch.zeros_like(z), eye).log_prob(z)

    return evidence, posterior, joint


def test_with_the_exact_posterior_one_sample_gives_the_exact_evidence(linear_gaussian):
    evidence, posterior, joint = linear_gaussian
    z = posterior.sample((1, 50))
    estimates = importance_weighted_log_likelihood(joint(z) - posterior.log_prob(z))
    torch.testing.assert_close(estimates, evidence.expand(50))


def test_with_another_proposal_the_estimate_rises_to_the_exact_evidence(linear_gaussian):
    evidence, _, joint = linear_gaussian
    proposal = diagonal_normal(torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    z = proposal.sample((4096, 100))
    log_weights = joint(z) - proposal.log_prob(z)
    means = [importance_weighted_log_likelihood(log_weights[:s]).mean().item() for s in (1, 8, 64, 4096)]
    assert means == sorted(means)
    assert means[0] < evidence.item() - 0.3
    assert means[-1] == pytest.approx(evidence.item(), abs=0.01)


@pytest.mark.parametrize("dim", [0, 1])
def test_importance_weighting_is_the_log_of_the_mean_weight_along_an_axis_without_overflow(dim):
    log_weights = torch.randn(6, 7, dtype=torch.float64)
    expected = log_weights.exp().mean(dim).log()
    torch.testing.assert_close(importance_weighted_log_likelihood(log_weights, dim), expected)
    torch.testing.assert_close(importance_weighted_log_likelihood(log_weights - 5000, dim), expected - 5000)


# --- Hamilton-Jacobi ----------------------------------------------------------------------------------------------


def test_residual_sums_squares_over_dimensions_and_keeps_samples_apart():
    rate, gradient = torch.tensor([1.0, -12.5]), torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    assert hamilton_jacobi_residual(rate, gradient).tolist() == [13.5, 0.0]
    assert hamilton_jacobi_residual(rate, gradient, torch.tensor([-2.0, -1.0])).tolist() == [15.5, 1.0]


# --- what the other models add ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.5, 6.0])
def test_kl_to_a_laplace_transition_is_the_integral(rate):
    """By adaptive quadrature of q log(q/p), one dimension after the other; they add up."""
    mean, scale = torch.tensor([[0.3, -2.0, 0.0]]).double(), torch.tensor([[0.7, 0.05, 2.0]]).double()
    centre = torch.tensor([[0.1, 1.0, 0.0]]).double()
    expected = 0.0
    for m, s, c in zip(mean[0].tolist(), scale[0].tolist(), centre[0].tolist(), strict=True):
        q, p = stats.norm(m, s), stats.laplace(c, 1 / rate)
        inside = [x for x in sorted({m, c}) if m - 12 * s < x < m + 12 * s]

        def integrand(x, q=q, p=p):
            return q.pdf(x) * (q.logpdf(x) - p.logpdf(x))

        expected += integrate.quad(integrand, m - 12 * s, m + 12 * s, points=inside, limit=200)[0]
    assert laplace_transition_kl(mean, scale, centre, rate).item() == pytest.approx(expected, rel=1e-7)


def test_kl_to_a_laplace_transition_is_not_negative_and_grows_with_the_distance():
    zero, one = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
    values = [laplace_transition_kl(zero, one, distance * one, 1.2).item() for distance in (0, 1, 3)]
    assert 0 < values[0] < values[1] < values[2]
    assert values[2] - values[1] == pytest.approx(1.2 * 2, abs=0.3)  # far away the penalty is λ |δ|
    with pytest.raises(ValueError, match="rate of the Laplace transition must be positive and finite, got 0"):
        laplace_transition_kl(zero, one, zero, 0)


def test_total_correlation_of_the_best_critic_is_that_of_a_gaussian():
    """For correlation ρ the total correlation is -½ log(1 - ρ²); the best critic knows both densities."""
    joint = MultivariateNormal(torch.zeros(2).double(), torch.tensor([[1.0, 0.8], [0.8, 1.0]]).double())
    torch.manual_seed(0)
    z = joint.sample((100_000,))
    apart = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    logits = torch.stack([joint.log_prob(z), apart.log_prob(z)], 1) + 3.0  # a common shift changes nothing
    assert total_correlation(logits).mean().item() == pytest.approx(-0.5 * math.log(1 - 0.64), abs=0.01)


def test_a_plane_wave_solves_the_wave_equation_at_its_own_speed_only():
    """u = sin(w·z - c‖w‖t): ∂_tt u and Δu by automatic differentiation."""
    w, c = torch.tensor([0.6, -1.1]).double(), 0.7

    def u(z, t):
        return torch.sin(z @ w - c * w.norm() * t)

    z, t = torch.randn(2).double(), torch.tensor(0.4).double()
    second = torch.func.grad(torch.func.grad(u, 1), 1)(z, t)[None]
    laplacian = torch.trace(torch.func.hessian(u)(z, t))[None]
    assert wave_residual(second, laplacian, c).abs().item() < 1e-12
    assert wave_residual(second, laplacian, 2 * c).abs().item() > 0.05
