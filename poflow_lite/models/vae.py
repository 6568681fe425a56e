"""The variational autoencoder (Kingma & Welling 2014) and β-VAE (Higgins et al. 2017), which is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from poflow_lite.datasets import Batch
from poflow_lite.flows import Trajectory
from poflow_lite.io import require_known, require_weights
from poflow_lite.objectives import LIKELIHOODS, Terms, diagonal_normal, gaussian_kl, likelihood, reparameterize


class VAE(nn.Module):
    """p(x, z) = N(z; 0, I) p(x | z) with the posterior q(z | x) = N(μ(x), diag σ(x)²).

    As a model of sequences it has one image per latent and no motion: :meth:`rollout` stands still. Whatever has these
    five methods is a model everywhere in the package; the models here override those in which they differ.

    Args:
        encoder: x (B, C, H, W) ↦ (B, 2d), mean and log standard deviation.
        decoder: z (B, d) ↦ logits (B, C, H, W).
        likelihood: p(x | z), one of :data:`poflow_lite.objectives.LIKELIHOODS`.
        beta: weight of the KL term in the loss; 1 is the VAE, larger is β-VAE.

    Raises:
        ValueError: for an unknown likelihood, or a β that is negative or not finite.
    """

    draws: ClassVar[dict[str, bool]] = {}
    """Which frames training draws: keywords of :meth:`datasets.Sequences.sample`."""

    motion: str | None = None
    """What :meth:`rollout` is called in tables; ``None`` for a model that stands still."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, likelihood: str = "bernoulli", beta: float = 1.0):
        super().__init__()
        require_known("likelihood", likelihood, LIKELIHOODS)
        require_weights(beta=beta)
        self.encoder, self.decoder = encoder, decoder
        self.likelihood, self.beta = likelihood, beta

    def encode(self, x: Tensor) -> Independent:
        """q(z | x) of images (B, C, H, W): a distribution over (B, d)."""
        mean, log_scale = self.encoder(x).chunk(2, -1)
        return diagonal_normal(mean, log_scale.clamp(-8, 4).exp())

    def decode(self, z: Tensor) -> Independent:
        """p(x | z) of latents (..., d): a distribution over (..., C, H, W), with ``.mean`` and ``.log_prob``."""
        logits = self.decoder(z.flatten(0, -2))
        return likelihood(self.likelihood, logits.unflatten(0, z.shape[:-1]))

    def rollout(self, z: Tensor, y: Tensor, times: Sequence[float]) -> Trajectory:
        """Carry z (B, d) along a clock, moved by k (B,) or weights (B, K): here it stays, z_t = z_0."""
        times = torch.as_tensor(times, dtype=z.dtype, device="cpu")
        path = z[:, None].expand(-1, len(times), -1)
        return Trajectory(path, z.new_zeros(len(z), len(times) - 1), torch.zeros_like(path[:, 1:]), y, times)

    def log_prior(self, z: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """log p_t(z | k) for z (B, n, d), t (B, n), k (B,) or weights: here log N(z; 0, I) for all t, (B, n), nats."""
        return diagonal_normal(torch.zeros_like(z), torch.ones_like(z)).log_prob(z)

    def terms(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """E_q[log p(x | z)] and KL(q(z | x) ‖ N(0, I)), every frame an image of its own: terms of shape (B n,)."""
        x = batch.frames.flatten(0, 1)
        posterior = self.encode(x)
        z = reparameterize(posterior, generator)
        return Terms(
            reconstruction=self.decode(z).log_prob(x),
            kl=gaussian_kl(posterior.mean, posterior.base_dist.scale),
            kl_weight=self.beta,
        )
