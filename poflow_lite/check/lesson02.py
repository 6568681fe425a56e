"""Checks of lesson 02, disentanglement: MIG, total correlation, the SlowVAE's transition, the rotated posterior."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Laplace, MultivariateNormal, Normal, kl_divergence

from poflow_lite.check._common import attempt, close, passed, require

__all__ = ["gaussian_total_correlation", "mig", "rotated_log_density", "slow_transition_kl"]


def mig(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``function(information (d, F), entropies (F,)) -> scalar``, the mutual information gap.

    Properties: 1 for a perfect code, whatever the entropies; 0 for a duplicated one; the two latents that know most
    of each factor count, each factor by its own entropy, on average; latents may be reordered.
    """
    entropies = torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)
    perfect = torch.cat([torch.diag(entropies), torch.zeros(2, 3, dtype=torch.float64)])
    one = torch.tensor(1.0, dtype=torch.float64)
    close(
        attempt(function, perfect, entropies),
        one,
        "A perfect code, I = H for one latent of each factor, must score 1: divide each factor's gap by its own "
        "entropy and take the mean, not the sum, over factors; return a scalar",
    )
    close(
        attempt(function, torch.cat([perfect[:3], perfect[:3]]), entropies),
        0 * one,
        "A duplicated code must score 0: subtract what the second best latent knows of the same factor. "
        "The latents are the rows",
    )
    information = torch.tensor([[1.0, 0.1, 0.1], [0.4, 0.6, 0.2], [0.3, 0.5, 0.4], [0.2, 0.0, 0.0]]).double()
    expected = torch.tensor((0.6 / 2 + 0.1 / 1 + 0.2 / 0.5) / 3, dtype=torch.float64)
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        close(
            attempt(function, information[order], entropies),
            expected,
            "The gap of a factor is between the largest and the second largest entry of its column, wherever they "
            "stand, neither the smallest nor the mean of the others",
        )
    passed("mig is 1 for a perfect code, 0 for a duplicated one, and the mean normalised gap between them")


def gaussian_total_correlation(function: Callable[[Tensor], Tensor]) -> None:
    """Check ``function(covariance (..., d, d)) -> (...)``, KL(N(0, Σ) ‖ Π_i N(0, Σ_ii)).

    Properties: 0 for independent latents of any variance; -½ log(1 - ρ²) for two; no effect of units; the KL
    divergence as PyTorch computes it.
    """
    variances = torch.tensor([0.2, 1.0, 8.0], dtype=torch.float64)
    close(
        attempt(function, torch.diag(variances)),
        torch.zeros((), dtype=torch.float64),
        "Independent latents have no total correlation, whatever their variances: "
        "divide the variances out, det Σ alone is not enough",
    )
    pair = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    found = attempt(function, pair)
    require((found >= 0).all(), "A total correlation is a KL divergence and never negative: look at the sign")
    close(
        found,
        torch.tensor(-0.5 * math.log(1 - 0.64), dtype=torch.float64),
        "For two latents with correlation 0.8 it must be -½ log(1 - 0.8²): mind the factor ½ and the square",
    )
    factor = torch.randn(4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    covariance = factor @ factor.mT + 0.3 * torch.eye(3, dtype=torch.float64)
    diagonal = torch.diag_embed(torch.diagonal(covariance, dim1=-2, dim2=-1))
    zero = torch.zeros(4, 3, dtype=torch.float64)
    close(
        attempt(function, covariance),
        kl_divergence(MultivariateNormal(zero, covariance), MultivariateNormal(zero, diagonal)),
        "For a batch (..., d, d) it must be the KL divergence from the Gaussian to the product of its marginals, one "
        "number for each matrix, with all correlations at once, not pair by pair",
    )
    passed("gaussian_total_correlation is the KL divergence to the product of the marginals, whatever the units")


def slow_transition_kl(function: Callable[[Tensor, Tensor, Tensor, float], Tensor]) -> None:
    """Check ``function(mean, scale, centre, rate) -> (B,)``, KL of a diagonal Gaussian to a product of Laplaces.

    Properties: even in the step, never negative, adds over latents, nothing averaged over the batch, and quadrature.
    """
    generator = torch.Generator().manual_seed(0)
    mean, centre = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    scale = 0.2 + torch.rand(5, 3, dtype=torch.float64, generator=generator)
    found = attempt(function, mean, scale, centre, 3.0)
    require(found.shape == (5,), f"one value for each sample, (B,), summed over latents; got {tuple(found.shape)}")
    close(
        attempt(function, 2 * centre - mean, scale, centre, 3.0),
        found,
        "A step up and the same step down must cost the same: δ erf(δ/…) is even, and so is the exponential",
    )
    twice = attempt(function, *(torch.cat([part, part], 1) for part in (mean, scale, centre)), 3.0)
    close(twice, 2 * found, "Latents are independent: the same latents twice must cost twice as much, so sum over them")
    for rate, hint in (
        (1.0, "is the entropy ½ log(2πe σ²) taken off, is E|z - m| that of a folded normal?"),
        (6.0, "is λ in front of E|z - m|, and is log(λ/2) taken off?"),
    ):
        close(
            attempt(function, mean, scale, centre, rate),
            _quadrature(mean, scale, centre, rate),
            f"At λ = {rate:g} the value must agree with numerical integration of log q - log p under q: {hint}",
        )
    passed("slow_transition_kl agrees with numerical integration, latent by latent")


def _quadrature(mean: Tensor, scale: Tensor, centre: Tensor, rate: float) -> Tensor:
    """∫ q (log q - log p) by the trapezoid rule over twelve standard deviations, summed over latents: (B,)."""
    z = mean + scale * torch.linspace(-12, 12, 24_001, dtype=mean.dtype)[:, None, None]
    log_q, log_p = Normal(mean, scale).log_prob(z), Laplace(centre, torch.full_like(centre, 1 / rate)).log_prob(z)
    return (log_q.exp() * (log_q - log_p)).sum(0).mul(scale * 24 / 24_000).sum(-1)


def rotated_log_density(function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
    """Check ``function(z_rotated, mean, scale, rotation) -> (B,)``, log density of R z for z ~ N(mean, diag scale²).

    Properties: R = I changes nothing, each rotated sample keeps its density, and a full-covariance Gaussian agrees.
    """
    generator = torch.Generator().manual_seed(0)
    mean, z = torch.randn(2, 6, 3, dtype=torch.float64, generator=generator)
    scale = 0.3 + torch.rand(6, 3, dtype=torch.float64, generator=generator)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator)).Q
    unmoved = Normal(mean, scale).log_prob(z).sum(-1)
    close(
        attempt(function, z, mean, scale, torch.eye(3, dtype=torch.float64)),
        unmoved,
        "With R = I it must be log N(z; μ, diag σ²), summed over latents, one value for each sample: "
        "σ is a standard deviation, and mind -log σ and ½ log 2π for each latent",
    )
    close(
        attempt(function, z @ rotation.T, mean, scale, rotation),
        unmoved,
        "q'(Rz) must equal q(z): turn z' back with Rᵀ, which for rows is z_rotated @ rotation, before it meets "
        "the mean and the scales of the unrotated posterior",
    )
    covariance = rotation @ torch.diag_embed(scale.square()) @ rotation.T
    close(
        attempt(function, z, mean, scale, rotation),
        MultivariateNormal(mean @ rotation.T, covariance).log_prob(z),
        "It must agree with the Gaussian of mean Rμ and covariance R diag(σ²) Rᵀ, which is not diagonal",
    )
    passed("rotated_log_density gives each rotated sample the density that it had before")
