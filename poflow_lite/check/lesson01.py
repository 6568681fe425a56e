"""Checks of lesson 01, variational autoencoders."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Bernoulli, ContinuousBernoulli, MultivariateNormal, Normal, kl_divergence

from poflow_lite.check._common import CheckFailed, attempt, close, passed, require

__all__ = ["continuous_bernoulli", "gaussian_kl", "marginal_log_likelihood", "negative_elbo"]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def gaussian_kl(function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
    """Exercise 1: KL( N(μ_q, diag σ_q²) ‖ N(μ_p, diag σ_p²) ) from means and scales (B, d), one number per sample."""
    generator = _generator()
    mean_q, mean_p = torch.randn(2, 5, 3, generator=generator)
    scale_q, scale_p = 0.2 + 2 * torch.rand(2, 5, 3, generator=generator)
    found = attempt(function, mean_q, scale_q, mean_p, scale_p)
    require(
        found.shape == (5,),
        f"for tensors (5, 3) expected one number per sample, shape (5,), got {tuple(found.shape)}: "
        "sum over the last axis, latent dimensions, and leave the batch alone",
    )
    itself = attempt(function, mean_q, scale_q, mean_q, scale_q)
    close(itself, torch.zeros(5), "a distribution has no divergence from itself, so KL(q ‖ q) must be 0")
    require((found >= 0).all(), "a Kullback-Leibler divergence is never negative: look at the signs")

    zero, one = torch.zeros(1, 4), torch.ones(1, 4)
    shifted = attempt(function, zero + 2, one, zero, one)
    message = "with all scales 1, a shift by 2 in each of 4 dimensions costs ½ · 2² nats a dimension, summed: 8"
    close(shifted, torch.tensor([8.0]), message)
    close(
        attempt(function, zero + 2, 2 * one, zero, 2 * one),
        torch.tensor([2.0]),
        "with both scales 2, a shift by 2 is one standard deviation of the reference and costs ½ nat a dimension: 2. "
        "Is the shift divided by σ_p before it is squared?",
    )
    close(
        attempt(function, zero, 0.5 * one, zero, one),
        torch.full((1,), 4 * (math.log(2) - 0.375)),
        "from σ_q = ½ to σ_p = 1 it is log 2 - 3/8 nats a dimension. Scales are standard deviations, not variances",
    )
    expected = kl_divergence(Normal(mean_q, scale_q), Normal(mean_p, scale_p)).sum(-1)
    message = "differs from torch.distributions.kl_divergence. Which of the two distributions is the reference?"
    close(found, expected, message)
    passed("gaussian_kl: never negative, zero only for equal distributions, summed over latents, right way round")


def negative_elbo(function: Callable[..., Tensor]) -> None:
    """Exercise 2: -log p(x | z) + β KL for Bernoulli pixels and a posterior given by mean and log-variance."""
    generator = _generator()
    logits, x = torch.randn(4, 3, 6, 6, generator=generator), torch.rand(4, 3, 6, 6, generator=generator)
    mean, log_variance = torch.randn(2, 4, 5, generator=generator)
    nothing = torch.zeros(4, 5)
    found = attempt(function, logits, x, mean, log_variance)
    require(
        found.shape == (4,),
        f"for 4 images expected one loss per sample, shape (4,), got {tuple(found.shape)}: "
        "sum over channels, pixels and latents; the mean over the batch comes later, once",
    )
    free = attempt(function, logits, x, nothing, nothing)
    expected = -Bernoulli(logits=logits, validate_args=False).log_prob(x).sum((1, 2, 3))
    require(
        not torch.allclose(free, expected / x[0].numel(), rtol=1e-3),
        "the reconstruction term is a mean over pixels: the pixels are independent given z, so log-probabilities add",
    )
    require(
        not torch.allclose(free, -expected, rtol=1e-3), "the loss is minus the log-likelihood, yours has the other sign"
    )
    close(free, expected, "where q is the prior (mean 0, log-variance 0) the loss must be -log p(x | z) alone")

    kl = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(-1)
    price = found - free
    require((price > 0).all(), "the KL term must raise the loss: it is a divergence, never negative, and is added")
    wrong = kl_divergence(Normal(mean, log_variance.exp()), Normal(0.0, 1.0)).sum(-1)
    require(
        not torch.allclose(price, wrong, rtol=1e-3),
        "log_variance is taken for a log standard deviation: σ² = exp(log_variance), σ = exp(log_variance / 2)",
    )
    close(price, kl, "the KL term differs from KL(N(μ, σ²) ‖ N(0, 1)) summed over latents", tolerance=1e-3)
    weighted = attempt(function, logits, x, mean, log_variance, beta=4.0) - free
    close(weighted, 4 * kl, "beta must multiply the KL term, and only that", tolerance=1e-3)

    certain = torch.full((1, 3, 2, 2), 200.0)
    extreme = attempt(function, certain, torch.zeros(1, 3, 2, 2), torch.zeros(1, 2), torch.zeros(1, 2))
    message = "logits of 200 on empty pixels cost 200 nats each, not infinity: work with the logits, without a sigmoid"
    close(extreme, torch.tensor([2400.0]), message)
    passed("negative_elbo: sums over pixels and latents, log-variance read correctly, β on the KL alone, stable")


def continuous_bernoulli(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Exercise 3: the log density of the continuous Bernoulli, normalised on [0, 1] and smooth at λ = ½."""
    x = torch.linspace(0, 1, 2001, dtype=torch.float64)
    for logit in (-6.0, -1.0, 0.3, 4.0):
        logits = torch.full_like(x, logit)
        density = attempt(function, logits, x)
        shape = tuple(density.shape)
        require(
            shape == (2001,), f"the density is elementwise: logits and pixels (2001,) give shape (2001,), got {shape}"
        )
        area = torch.trapezoid(density.exp(), x).item()
        require(
            abs(area - 1) < 1e-3,
            f"at logit {logit} the exponential of your result integrates over [0, 1] to {area:.4f}, a density to 1. "
            "Is log C added, with C = ℓ / tanh(ℓ / 2)? Are x and 1 - x with the right factors?",
        )
        message = f"at logit {logit} it integrates to 1 but is not the continuous Bernoulli"
        close(density, ContinuousBernoulli(logits=logits).log_prob(x), message)

    near = torch.tensor([-0.02, -1e-3, -1e-6, 0.0, 1e-6, 1e-3, 0.02], dtype=torch.float64)
    values = attempt(function, near, torch.full_like(near, 0.25))
    require(
        torch.isfinite(values).all(),
        "not finite near ℓ = 0, where ℓ / tanh(ℓ / 2) is 0 / 0: use log C ≈ log 2 + ℓ² / 12 there",
    )
    log_c = math.log(2) + near.square() / 12
    expected = log_c + 0.25 * near - torch.nn.functional.softplus(near)
    close(values, expected, "inaccurate near ℓ = 0, where log C ≈ log 2 + ℓ² / 12", tolerance=1e-6)
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    try:
        function(logits, torch.full((3,), 0.25, dtype=torch.float64)).sum().backward()
    except Exception as error:
        raise CheckFailed(f"the result cannot be differentiated by the logits: {error}") from error
    require(
        logits.grad is not None and torch.isfinite(logits.grad).all(),
        "the gradient at ℓ = 0 is not finite: torch.where differentiates both branches, so replace ℓ by a harmless "
        "value inside the branch that is not taken",
    )
    close(logits.grad, torch.full((3,), -0.25), "the gradient at ℓ = 0 and x = ¼ is x - ½ = -¼")
    passed("continuous_bernoulli: integrates to one at every λ, finite value and gradient at λ = ½")


def marginal_log_likelihood(function: Callable[..., Tensor]) -> None:
    """Exercise 4: importance-weighted log p(x), against a linear-Gaussian model where it is known exactly."""
    generator = _generator()
    images, latents, pixels, samples = 3, 2, 5, 4000
    loadings = torch.randn(pixels, latents, generator=generator, dtype=torch.float64)
    x = 2 * torch.randn(images, pixels, generator=generator, dtype=torch.float64)
    identity = torch.eye(latents, dtype=torch.float64)
    exact = MultivariateNormal(torch.zeros(pixels).double(), loadings @ loadings.T + torch.eye(pixels)).log_prob(x)
    precision = identity + loadings.T @ loadings
    mean = torch.linalg.solve(precision, loadings.T @ x.T).T
    scale = (1.3 * precision.diag().rsqrt()).expand(images, -1)
    noise = torch.randn(samples, images, latents, generator=generator, dtype=torch.float64)

    def log_conditional(z: Tensor) -> Tensor:
        if z.ndim != 3 or z.shape[1:] != (images, latents):
            raise ValueError(
                f"log_conditional takes latents (S, B, d) = (S, {images}, {latents}), got {tuple(z.shape)}"
            )
        return Normal(z @ loadings.T, 1.0).log_prob(x).sum(-1)

    found = attempt(function, log_conditional, mean, scale, noise)
    require(
        found.shape == (images,),
        f"for {images} images and {samples} samples expected shape ({images},), got {tuple(found.shape)}: "
        "average over the samples, axis 0, and leave the images alone",
    )
    z = mean + scale * noise
    log_w = log_conditional(z) + Normal(0.0, 1.0).log_prob(z).sum(-1) - Normal(mean, scale).log_prob(z).sum(-1)
    require(
        not torch.allclose(found, log_w.mean(0), atol=1e-6),
        "this is the mean of the log-weights, the ELBO; average the weights first and take the logarithm afterwards",
    )
    require(
        not torch.allclose(found, log_w.logsumexp(0), atol=1e-6),
        "this is the logarithm of the sum of the weights: subtract log S to make it that of their mean",
    )
    message = (
        "the estimate is not the exact log p(x) of a linear-Gaussian model. Do the log-weights hold log p(x | z), "
        "plus log p(z), minus log q(z), each summed over its dimensions and with its normalising constant?"
    )
    close(found, exact, message, tolerance=0.02)
    single = attempt(function, log_conditional, mean, scale, noise[:1])
    close(single, log_w[0], "with one sample the estimate is that sample's log-weight")

    def distant(z: Tensor) -> Tensor:
        return log_conditional(z) - 5000.0

    shifted = attempt(function, distant, mean, scale, noise)
    message = (
        "with weights of e^-5000 the result must stay finite: use torch.logsumexp, do not exponentiate the weights"
    )
    require(torch.isfinite(shifted).all(), message)
    close(shifted, found - 5000.0, "log p(x | z) lowered by 5000 must lower the result by 5000", tolerance=1e-6)
    passed("marginal_log_likelihood: the exact log p(x) of a linear-Gaussian model, log w for one sample, stable")
