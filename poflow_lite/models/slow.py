"""The SlowVAE (Klindt et al. 2021): factors change sparsely, so most latents stay put from frame to frame."""

from __future__ import annotations

import math

import torch
from torch import nn

from poflow_lite.datasets.sequences import Batch
from poflow_lite.errors import require_weights
from poflow_lite.models.vae import VAE
from poflow_lite.objectives import Terms, gaussian_kl, laplace_transition_kl, reparameterize

__all__ = ["SlowVAE"]


class SlowVAE(VAE):
    """A VAE whose prior for the next frame is a Laplace density about the latents of this one, Laplace(z_t, 1/λ).

    A pair of neighbouring frames, each encoded by itself, has the objective

        E[log p(x_t | z_t) + log p(x_{t+1} | z_{t+1})] - β KL(q(z_t) ‖ N(0, I)) - γ E KL(q(z_{t+1}) ‖ Laplace(z_t, 1/λ))

    and a longer run of frames one such transition for each further frame. Frame 0 of a batch is an image of its own.

    Args:
        encoder, decoder, likelihood, beta: as for :class:`VAE`.
        rate: λ > 0, per latent unit.
        transition: γ ≥ 0, weight of the transitions.

    Raises:
        ValueError: for a λ that is not positive and finite, or a γ that is negative or not finite.
    """

    consecutive = True
    """Asks for frames that follow one another: see :meth:`datasets.Sequences.sample`."""

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: str = "bernoulli",
        beta: float = 1.0,
        rate: float = 6.0,
        transition: float = 10.0,
    ):
        super().__init__(encoder, decoder, likelihood, beta)
        if not 0 < rate < math.inf:
            raise ValueError(f"rate must be positive and finite, got {rate}")
        require_weights(transition=transition)
        self.rate, self.transition = rate, transition

    def terms(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """The terms of the objective per frame, one value for each sequence: (B,).

        Raises:
            ValueError: if the frames after frame 0 do not follow one another.
        """
        batch.require_consecutive("SlowVAE")
        count = batch.frames.shape[1]
        posterior = self.encode(batch.frames.flatten(0, 1))
        mean, scale = (p.unflatten(0, batch.times.shape) for p in (posterior.mean, posterior.base_dist.scale))
        z = reparameterize(posterior, generator).unflatten(0, batch.times.shape)

        reconstruction = self.decode(z).log_prob(batch.frames).mean(1)
        kl = gaussian_kl(mean[:, :2].flatten(0, 1), scale[:, :2].flatten(0, 1)).unflatten(0, (-1, 2)).sum(1) / count
        later = (mean[:, 2:].flatten(0, 1), scale[:, 2:].flatten(0, 1), z[:, 1:-1].flatten(0, 1))
        moved = laplace_transition_kl(*later, self.rate).unflatten(0, (len(batch), count - 2)).sum(1) / count
        return Terms(reconstruction, kl, self.beta, {"transition": self.transition * moved})
