"""Likelihoods, divergences, the importance-weighted estimator and residuals against independent oracles."""

import math

import mpmath
import numpy as np
import pytest
import torch
from draws import double, normal, rng
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from poflow_lite.objectives import (
    ContinuousBernoulli,
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

approx, close = pytest.approx, torch.testing.assert_close


def normal_parameters(batch=4, latent=3, seed=0):
    return normal(batch, latent, seed=seed), normal(batch, latent, seed=seed + 1).exp()


def test_loss_is_the_batch_mean_of_weighted_terms_and_the_elbo_ignores_the_weights():
    penalties = {"force": torch.tensor([4.0, 8.0]), "other": torch.tensor([1.0, 3.0])}
    terms = Terms(torch.tensor([-10.0, -20.0]), torch.tensor([2.0, 6.0]), kl_weight=0.5, penalties=penalties)
    assert terms.loss.item() == ((10 + 1 + 5) + (20 + 3 + 11)) / 2
    assert terms.elbo.tolist() == [-12.0, -26.0]
    assert terms.summary() == {"reconstruction": -15.0, "kl": 4.0, "force": 6.0, "other": 2.0}
    assert Terms(terms.reconstruction, terms.kl).loss == -terms.elbo.mean()


@pytest.mark.parametrize("name", ["bernoulli", "continuous-bernoulli", "gaussian"])
def test_log_probability_of_an_image_is_the_sum_over_its_pixels(name):
    """Written down a second time with NumPy."""
    x, logits = normal(2, 5, 3, 4, 6).sigmoid(), normal(2, 5, 3, 4, 6, seed=1)
    p, pixels = 1 / (1 + np.exp(-logits.numpy())), x.numpy()
    expected = pixels * np.log(p) + (1 - pixels) * np.log1p(-p)
    if name == "continuous-bernoulli":
        expected += np.log(2 * np.arctanh(1 - 2 * p) / (1 - 2 * p))
    if name == "gaussian":
        expected = stats.norm(p, 1).logpdf(pixels)
    np.testing.assert_allclose(likelihood(name, logits).log_prob(x), expected.sum((-3, -2, -1)), rtol=1e-6)


@pytest.mark.parametrize(("name", "support"), [("continuous-bernoulli", (0, 1)), ("gaussian", (-9, 9))])
@pytest.mark.parametrize("logit", [-3.0, 0.4, 2.0])
def test_densities_integrate_to_one_and_have_the_mean_they_claim(name, support, logit):
    p = likelihood(name, double(logit)[:, None, None])

    def density(x):
        return p.log_prob(double(x)[:, None, None]).exp().item()

    assert integrate.quad(density, *support)[0] == approx(1, abs=1e-6)
    assert integrate.quad(lambda x: x * density(x), *support)[0] == approx(p.mean.item(), abs=1e-6)


EDGES = [1e-38, 1e-8, 1e-3, 0.9, 0.999999, 1.0, 1.5, 6.0, 16.0, 17.0, 89.0, 128.0, 720.0, 1e4, 1e30]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logit", [0.0, *EDGES, *(-edge for edge in EDGES)])
def test_continuous_bernoulli_is_right_for_every_logit_with_its_slope_and_curvature(logit, dtype):
    """Against 150 digits: log p = ℓx - A(ℓ), E x = A', d log p / dℓ = x - A' and d² log p / dℓ² = -A''."""
    logits = torch.full((4,), logit, dtype=dtype).requires_grad_()
    x = torch.tensor([0.0, 1e-6, 0.25, 1.0], dtype=dtype)
    p = ContinuousBernoulli(logits)
    found = p.log_prob(x)
    slope = torch.autograd.grad(found.sum(), logits, create_graph=True)[0]
    curvature = torch.autograd.grad(slope.sum(), logits)[0]
    with mpmath.workdps(150):
        ell = mpmath.mpf(logits[0].item())
        mean, variance, log_normaliser = mpmath.mpf("0.5"), mpmath.mpf(1) / 12, mpmath.mpf(0)
        if ell:
            log_normaliser = mpmath.log(mpmath.expm1(ell) / ell)
            mean = 1 / (1 - mpmath.exp(-ell)) - 1 / ell
            variance = 1 / ell**2 - mpmath.exp(-abs(ell)) / mpmath.expm1(-abs(ell)) ** 2
        log_p = [float(ell * mpmath.mpf(at) - log_normaliser) for at in x.tolist()]
        slopes = [float(mpmath.mpf(at) - mean) for at in x.tolist()]
    digits = 2e-6 if dtype == torch.float32 else 1e-10
    assert found.tolist() == approx(log_p, rel=digits, abs=digits)
    assert p.mean.tolist() == approx([float(mean)] * 4, rel=digits)
    assert slope.tolist() == approx(slopes, rel=digits, abs=digits)
    assert curvature.tolist() == approx([-float(variance)] * 4, rel=digits, abs=digits)


def test_an_empty_pixel_is_denser_the_surer_the_decoder():
    """p(0) = 128 / (1 - e^-128): it was 16 however large the logit, and had no slope beyond."""
    p = likelihood("continuous-bernoulli", torch.full((1, 1, 1), -128.0))
    assert p.log_prob(torch.zeros(1, 1, 1)).item() == approx(math.log(128), rel=1e-6)
    assert p.mean.item() == approx(1 / 128, rel=1e-6)
    assert "ContinuousBernoulli" in repr(p)


@pytest.mark.parametrize(("dimensions", "nats"), [(3 * 28 * 28, -2161.3), (3 * 64 * 64, -11291.9), (1, -0.9)])
def test_ceiling_is_the_log_density_at_a_perfect_prediction(dimensions, nats):
    assert gaussian_ceiling(dimensions) == approx(nats, abs=0.1)
    logits = normal(dimensions, 1, 1)
    p = likelihood("gaussian", logits)
    assert p.log_prob(logits.sigmoid()).item() == approx(gaussian_ceiling(dimensions), rel=1e-12)
    assert p.log_prob(logits.sigmoid() + 0.1).item() < gaussian_ceiling(dimensions)


def test_what_is_unknown_or_unsound_is_refused():
    with pytest.raises(ValueError, match=r"unknown likelihood 'poisson'; known: bernoulli, continuous-bernoulli, g"):
        likelihood("poisson", torch.zeros(1, 1, 1))
    with pytest.raises(ValueError, match="rate of the Laplace transition must be positive and finite, got 0"):
        laplace_transition_kl(*[torch.ones(1, 1)] * 3, 0)
    b, bd = torch.ones(3), torch.ones(3, 2)
    for function, arguments, message in (
        (likelihood, ("gaussian", bd), r"logits must be \(..., C, H, W\), got \(3, 2\)"),
        (gaussian_ceiling, (0,), "at least 1 dimension, got 0"),
        (total_correlation, (b,), r"logits must be \(B, 2\), got \(3,\)"),
        (importance_weighted_log_likelihood, (bd[:0],), r"at least 1 sample is needed, got .* \(0, 2\)"),
        (hamilton_jacobi_residual, (b[:, None], bd), r"∂_t u must be \(B,\) and ∇u \(B, d\), got \(3, 1\) and"),
        (hamilton_jacobi_residual, (b, bd, b[:, None]), r"force must be a number or \(B,\), .* got \(3, 1\)"),
        (wave_residual, (b, b[:, None], 1.0), r"one shape \(B,\), got \[\(3,\), \(3, 1\)\]"),
        (wave_residual, (b, b, b[:2]), r"one shape \(B,\), got \[\(3,\), \(3,\), \(2,\)\]"),
    ):
        with pytest.raises(ValueError, match=message):
            function(*arguments)


def test_reparameterized_samples_are_those_of_the_multivariate_normal_and_differentiable():
    mean, scale = (p.requires_grad_() for p in normal_parameters())
    posterior = diagonal_normal(mean, scale)
    z, same, other = (reparameterize(posterior, rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(z, same)
    assert not torch.equal(z, other)
    close(posterior.log_prob(z), MultivariateNormal(mean, torch.diag_embed(scale**2)).log_prob(z))
    by_mean, by_scale = torch.autograd.grad(z.sum(), (mean, scale))
    close(by_mean, torch.ones_like(mean))
    close(by_scale, (z - mean) / scale)
    noise = reparameterize(diagonal_normal(torch.full((40_000,), 2.0), torch.full((40_000,), 3.0)), rng())
    assert stats.kstest(noise, stats.norm(2, 3).cdf).pvalue > 0.01


@given(seed=st.integers(0, 1000), variance=st.floats(0.1, 10), latent=st.integers(1, 6))
def test_gaussian_kl_equals_the_library_closed_form(seed, variance, latent):
    mean, scale = normal_parameters(latent=latent, seed=seed)
    prior = Independent(Normal(torch.zeros_like(mean), math.sqrt(variance)), 1)
    expected = kl_divergence(Independent(Normal(mean, scale), 1), prior)
    close(gaussian_kl(mean, scale, variance), expected)
    own = torch.linspace(0.5, variance, len(mean)).double()[:, None]  # one variance for each sample
    close(gaussian_kl(mean, scale, own)[-1], expected[-1])


@pytest.mark.parametrize("rate", [0.5, 6.0])
def test_kl_to_a_laplace_transition_is_the_integral(rate):
    """By adaptive quadrature of q log(q/p), one dimension after the other; they add up."""
    mean, scale, centre = double([0.3, -2.0, 0.0]), double([0.7, 0.05, 2.0]), double([0.1, 1.0, 0.0])
    expected = 0.0
    for m, s, c in zip(mean[0].tolist(), scale[0].tolist(), centre[0].tolist(), strict=True):
        q, p = stats.norm(m, s), stats.laplace(c, 1 / rate)
        inside = [x for x in sorted({m, c}) if m - 12 * s < x < m + 12 * s]

        def integrand(x, q=q, p=p):
            return q.pdf(x) * (q.logpdf(x) - p.logpdf(x))

        expected += integrate.quad(integrand, m - 12 * s, m + 12 * s, points=inside, limit=200)[0]
    assert laplace_transition_kl(mean, scale, centre, rate).item() == approx(expected, rel=1e-7)


def test_total_correlation_of_the_best_critic_is_that_of_a_gaussian():
    """For correlation ρ the total correlation is -½ log(1 - ρ²); the best critic knows both densities."""
    joint, apart = (MultivariateNormal(torch.zeros(2).double(), double([1, r], [r, 1])) for r in (0.8, 0.0))
    z = normal(100_000, 2) @ joint.scale_tril.T
    logits = torch.stack([joint.log_prob(z), apart.log_prob(z)], 1) + 3.0  # a common shift changes nothing
    assert total_correlation(logits).mean().item() == approx(-0.5 * math.log(1 - 0.64), abs=0.01)


def test_importance_weighting_meets_the_exact_evidence_of_a_linear_gaussian_model():
    """x = A z + ε: at once with the exact posterior as proposal, from below with another one."""
    matrix, x, eye = double([1.0, 0.5], [-0.3, 0.8], [0.7, 0.1]), double(0.4, -1.0, 0.9), torch.eye(2).double()
    evidence = MultivariateNormal(torch.zeros_like(x), matrix @ matrix.T + torch.eye(3)).log_prob(x)
    covariance = torch.linalg.inv(eye + matrix.T @ matrix)
    prior, posterior = MultivariateNormal(0 * eye[0], eye), MultivariateNormal(covariance @ matrix.T @ x, covariance)

    def estimate(z, proposal):
        joint = Independent(Normal(z @ matrix.T, 1.0), 1).log_prob(x) + prior.log_prob(z)
        return importance_weighted_log_likelihood(joint - proposal.log_prob(z))

    z = normal(4096, 100, 2)
    close(estimate(posterior.loc + z[:1] @ posterior.scale_tril.T, posterior), evidence.expand(100))
    means = [estimate(z[:samples], prior).mean().item() for samples in (1, 8, 64, 4096)]
    assert means == sorted(means)
    assert means[0] < evidence.item() - 0.3
    assert means[-1] == approx(evidence.item(), abs=0.01)


@pytest.mark.parametrize("dim", [0, 1])
def test_importance_weighting_is_the_log_of_the_mean_weight_along_an_axis_without_overflow(dim):
    log_weights = normal(6, 7)
    expected = log_weights.exp().mean(dim).log()
    close(importance_weighted_log_likelihood(log_weights - 5000, dim), expected - 5000)


def test_hamilton_jacobi_residual_sums_squares_over_dimensions_and_keeps_samples_apart():
    rate, gradient = torch.tensor([1.0, -12.5]), torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    assert hamilton_jacobi_residual(rate, gradient).tolist() == [13.5, 0.0]
    assert hamilton_jacobi_residual(rate, gradient, torch.tensor([-2.0, -1.0])).tolist() == [15.5, 1.0]


def test_a_plane_wave_solves_the_wave_equation_at_its_own_speed_only():
    """u = sin(w·z - c‖w‖t): ∂_tt u and Δu by automatic differentiation."""
    w, c = double(0.6, -1.1), 0.7

    def u(z, t):
        return torch.sin(z @ w - c * w.norm() * t)

    z, t = normal(2), torch.tensor(0.4).double()
    second = torch.func.grad(torch.func.grad(u, 1), 1)(z, t)[None]
    laplacian = torch.trace(torch.func.hessian(u)(z, t))[None]
    assert wave_residual(second, laplacian, c).abs().item() < 1e-12
    assert wave_residual(second, laplacian, 2 * c).abs().item() > 0.05
