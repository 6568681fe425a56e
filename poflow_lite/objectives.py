"""Per-sample objectives in nats: likelihoods, Kullback-Leibler divergences, the Hamilton-Jacobi residual.

Everything here is a pure function of tensors. Sums run over pixels or latent dimensions, never means; the average
over the batch is taken once, at the very end, by :attr:`Terms.loss`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, Normal, constraints

__all__ = [
    "LIKELIHOODS",
    "ContinuousBernoulli",
    "Terms",
    "diagonal_normal",
    "gaussian_ceiling",
    "gaussian_kl",
    "hamilton_jacobi_residual",
    "importance_weighted_log_likelihood",
    "laplace_transition_kl",
    "likelihood",
    "reparameterize",
    "total_correlation",
    "wave_residual",
]


@dataclass
class Terms:
    """What one batch says about a model: named per-sample terms in nats, each of shape (B,).

    Attributes:
        reconstruction: log p(x | z), summed over pixels (and over frames for a sequence model).
        kl: Kullback-Leibler divergence of the posterior from the prior, or its Monte-Carlo estimate.
        kl_weight: β, the weight of ``kl`` in the loss; 1 makes ``-loss`` a lower bound on log p(x).
        penalties: further terms to be minimised, already weighted.
    """

    reconstruction: Tensor
    kl: Tensor
    kl_weight: float = 1.0
    penalties: dict[str, Tensor] = field(default_factory=dict)

    @property
    def elbo(self) -> Tensor:
        """Evidence lower bound log p(x | z) - KL of each sample, whatever the weights used for training: (B,)."""
        return self.reconstruction - self.kl

    @property
    def loss(self) -> Tensor:
        """Batch mean of -log p(x | z) + β KL + Σ penalties: a scalar."""
        per_sample = self.kl_weight * self.kl - self.reconstruction
        return (per_sample + sum(self.penalties.values())).mean()

    def summary(self) -> dict[str, float]:
        """Batch means of every term, by name, for progress bars and records."""
        named = {"reconstruction": self.reconstruction, "kl": self.kl, **self.penalties}
        return {name: term.mean().item() for name, term in named.items()}


# --- likelihoods p(x | z), each from the decoder's logits (B, C, H, W) --------------------------------------------


class ContinuousBernoulli(Distribution):
    """p(x) = ℓ e^{ℓx} / (e^ℓ - 1) on [0, 1] for every finite logit ℓ (Loaiza-Ganem & Cunningham 2019).

    With a = |ℓ| and d the distance of x from the end where the density is highest it is a e^{-ad} / (1 - e^{-a}), in
    which nothing overflows or cancels; near ℓ = 0 the logarithms are series. PyTorch's own class keeps sigmoid(ℓ), and
    stops at ℓ = 16, where that rounds to 1. Only ``log_prob`` and ``mean`` are there, (...) each, like the logits.
    """

    arg_constraints: ClassVar = {"logits": constraints.real}
    support = constraints.unit_interval
    # B_2n / (2n (2n)!), B the Bernoulli numbers: log(sinh(ℓ/2) / (ℓ/2)) = Σ_n c_n ℓ^2n, to 1e-13 where |ℓ| < 1
    _SERIES = (1 / 24, -1 / 2880, 1 / 181440, -1 / 9676800, 1 / 479001600, -691 / 15692092416000, 1 / 1046139494400)

    def __init__(self, logits: Tensor):
        self.logits = logits
        super().__init__(logits.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x), nats; x is not checked to lie in [0, 1]."""
        near, small, large = self._branches()
        squared, log_normaliser = small.square(), 0.0
        for coefficient in reversed(self._SERIES):
            log_normaliser = (log_normaliser + coefficient) * squared
        distance = torch.where(self.logits > 0, 1 - value, value)
        far = large.log() - torch.log1p(-torch.exp(-large)) - large * distance
        return torch.where(near, small * (value - 0.5) - log_normaliser, far)

    @property
    def mean(self) -> Tensor:
        """E x = 1 / (1 - e^{-ℓ}) - 1 / ℓ, with the digits of 1 / |ℓ| for ℓ → -∞."""
        near, small, large = self._branches()
        squared, slope = small.square(), 0.0
        for n, coefficient in reversed(list(enumerate(self._SERIES, 1))):
            slope = slope * squared + 2 * n * coefficient
        falling = 1 / large - torch.exp(-large) / -torch.expm1(-large)
        return torch.where(near, 0.5 + slope * small, torch.where(self.logits > 0, 1 - falling, falling))

    def _branches(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where |ℓ| < 1; ℓ there, and |ℓ| elsewhere, each harmless where it is not used: its gradient counts too."""
        near = self.logits.abs() < 1
        return near, torch.where(near, self.logits, 0.0), torch.where(near, 1.0, self.logits.abs())


def _bernoulli(logits: Tensor) -> Distribution:
    """Bernoulli(sigmoid(logits)); intensities in [0, 1] are read as probabilities (cross-entropy), as in the paper."""
    return Bernoulli(logits=logits, validate_args=False)


def _gaussian(logits: Tensor) -> Distribution:
    """N(sigmoid(logits), 1): unit variance, the likelihood in which the paper reports its figures."""
    return Normal(torch.sigmoid(logits), 1.0, validate_args=False)


LIKELIHOODS: dict[str, Callable[[Tensor], Distribution]] = {
    "bernoulli": _bernoulli,
    "continuous-bernoulli": ContinuousBernoulli,
    "gaussian": _gaussian,
}


def likelihood(name: str, logits: Tensor) -> Independent:
    """p(x | z) as a distribution over whole images, so that ``log_prob`` sums over channels and pixels.

    Args:
        name: one of :data:`LIKELIHOODS`.
        logits: (..., C, H, W).

    Raises:
        ValueError: for an unknown name; the message lists the known ones. For logits of another shape.
    """
    if logits.ndim < 3:
        raise ValueError(f"logits must be (..., C, H, W), got {tuple(logits.shape)}")
    if name not in LIKELIHOODS:
        raise ValueError(f"unknown likelihood {name!r}; known: {', '.join(LIKELIHOODS)}")
    return Independent(LIKELIHOODS[name](logits), 3, validate_args=False)


def gaussian_ceiling(dimensions: int) -> float:
    """-(D/2) log 2π nats: no density N(x̂, I) of D ≥ 1 pixels can exceed it, nor can an average of such."""
    if dimensions < 1:
        raise ValueError(f"a density needs at least 1 dimension, got {dimensions}")
    return -0.5 * dimensions * math.log(2 * math.pi)


# --- posteriors ---------------------------------------------------------------------------------------------------


def diagonal_normal(mean: Tensor, scale: Tensor) -> Independent:
    """N(mean, diag scale²) over the last axis; ``log_prob`` sums over latent dimensions."""
    return Independent(Normal(mean, scale, validate_args=False), 1, validate_args=False)


def reparameterize(posterior: Independent, generator: torch.Generator | None = None) -> Tensor:
    """One differentiable sample μ + σ ε, ε ~ N(0, I) drawn from ``generator`` (Kingma & Welling 2014, section 2.4)."""
    mean, scale = posterior.base_dist.loc, posterior.base_dist.scale
    noise = torch.randn(mean.shape, dtype=mean.dtype, device=mean.device, generator=generator)
    return mean + scale * noise


def gaussian_kl(mean: Tensor, scale: Tensor, variance: Tensor | float = 1.0) -> Tensor:
    """KL( N(μ, diag σ²) ‖ N(0, v I) ) = ½ Σ_i [ (μ_i² + σ_i²) / v - 1 - log(σ_i² / v) ].

    Args:
        mean, scale: (B, d), ``scale`` positive, and so is its square: above 1e-19 in single precision.
        variance: v > 0, a number or (B, 1).

    Returns:
        (B,), nats. Source: Kingma & Welling 2014, appendix B, for v = 1.
    """
    ratio = scale.square() / variance
    return 0.5 * (mean.square() / variance + ratio - 1 - ratio.log()).sum(-1)


def laplace_transition_kl(mean: Tensor, scale: Tensor, centre: Tensor, rate: float) -> Tensor:
    """KL( N(μ, diag σ²) ‖ Π_i Laplace(m_i, 1/λ) ), with δ = μ - m:

        Σ_i [ λ ( δ_i erf(δ_i / (σ_i √2)) + σ_i √(2/π) exp(-δ_i² / 2σ_i²) ) - log(λ/2) - ½ log(2πe σ_i²) ]

    The bracket after λ is E|z_i - m_i|, the mean of a folded normal.

    Args:
        mean, scale: (B, d), ``scale`` positive.
        centre: m, (B, d), where the Laplace density has its peak.
        rate: λ > 0, per latent unit; the larger, the less the latents may move.

    Returns:
        (B,), nats.

    Raises:
        ValueError: for a rate that is not positive and finite. Source: Klindt et al. 2021, appendix on the objective.
    """
    if not 0 < rate < math.inf:
        raise ValueError(f"the rate of the Laplace transition must be positive and finite, got {rate}")
    standard = (mean - centre) / (math.sqrt(2) * scale)
    distance = (mean - centre) * torch.erf(standard) + scale * math.sqrt(2 / math.pi) * torch.exp(-standard.square())
    entropy = 0.5 * math.log(2 * math.pi * math.e) + scale.log()
    return (rate * distance - math.log(rate / 2) - entropy).sum(-1)


def total_correlation(logits: Tensor) -> Tensor:
    """log q(z) - log Π_i q(z_i), from a critic that tells samples of q(z) (class 0) from permuted ones (class 1).

    The best critic's log-odds are that logarithm (density-ratio trick); its mean over q(z) is the total correlation.

    Args:
        logits: (B, 2), of the critic at samples of q(z).

    Returns:
        (B,), nats. Source: Kim & Mnih 2018, section 3.
    """
    if logits.ndim != 2 or logits.shape[1] != 2:
        raise ValueError(f"a critic's logits must be (B, 2), got {tuple(logits.shape)}")
    return logits[:, 0] - logits[:, 1]


def importance_weighted_log_likelihood(log_weights: Tensor, dim: int = 0) -> Tensor:
    """log (1/S) Σ_s w_s from log w_s = log p(x | z_s) + log p(z_s) - log q(z_s), averaged along ``dim``.

    A lower bound on log p(x) in expectation that rises to it with S (Burda, Grosse & Salakhutdinov 2016).
    """
    if not log_weights.numel():
        raise ValueError(f"at least 1 sample is needed, got log-weights of shape {tuple(log_weights.shape)}")
    return torch.logsumexp(log_weights, dim) - math.log(log_weights.shape[dim])


# --- optimal transport --------------------------------------------------------------------------------------------


def hamilton_jacobi_residual(time_derivative: Tensor, gradient: Tensor, force: Tensor | float = 0.0) -> Tensor:
    """R = ∂_t u + ½ ‖∇u‖² - f, the defect of the generalised Hamilton-Jacobi equation, per sample.

    Args:
        time_derivative: ∂_t u, (B,).
        gradient: ∇u, (B, d); ‖·‖² is a sum over the d latent dimensions.
        force: f(z, t) ≤ 0, (B,) or 0.

    Returns:
        (B,), latent² per frame². Source: Song et al. 2023, section 3; Benamou & Brenier 2000.
    """
    shapes = tuple(time_derivative.shape), tuple(gradient.shape)
    if gradient.ndim != 2 or shapes[0] != shapes[1][:1]:  # or it would broadcast to (B, B)
        raise ValueError(f"∂_t u must be (B,) and ∇u (B, d), got {shapes[0]} and {shapes[1]}")
    if isinstance(force, Tensor) and force.ndim and force.shape != time_derivative.shape:
        raise ValueError(f"the force must be a number or (B,), as ∂_t u is, got {tuple(force.shape)}")
    return time_derivative + 0.5 * gradient.square().sum(-1) - force


def wave_residual(second_time_derivative: Tensor, laplacian: Tensor, speed: Tensor | float) -> Tensor:
    """∂_tt u - c² Δu, the defect of the wave equation, per sample.

    Args:
        second_time_derivative: ∂_tt u, (B,).
        laplacian: Δu, (B,).
        speed: c, latent units per frame, (B,) or a number.

    Returns:
        (B,). Source: Song, Keller, Sebe & Welling 2023 (Latent Traversals in Generative Models as Potential Flows).
    """
    shapes = [tuple(x.shape) for x in (second_time_derivative, laplacian, speed) if isinstance(x, Tensor) and x.ndim]
    if len(set(shapes)) > 1:  # or they would broadcast to (B, B)
        raise ValueError(f"∂_tt u, Δu and the speed must be of one shape (B,), got {shapes}")
    return second_time_derivative - speed**2 * laplacian
