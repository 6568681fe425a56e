"""The FactorVAE (Kim & Mnih 2018): latents that are independent of one another, enforced by a critic."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from poflow_lite.datasets.sequences import Batch
from poflow_lite.errors import require_weights
from poflow_lite.models.vae import VAE
from poflow_lite.objectives import Terms, gaussian_kl, reparameterize, total_correlation

__all__ = ["FactorVAE", "permute_dimensions"]


def permute_dimensions(z: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Shuffle each latent dimension over the batch by itself: samples of Π_i q(z_i) from samples z (B, d) of q(z)."""
    order = torch.rand(z.shape, generator=generator, device=z.device).argsort(0)
    return z.gather(0, order)


class FactorVAE(VAE):
    """A VAE with a penalty on the total correlation of its latents, KL(q(z) ‖ Π_i q(z_i)).

    A critic learns to tell samples of q(z) (class 0) from samples with permuted dimensions (class 1); its log-odds
    estimate the total correlation, which is added to the loss with weight γ. The two are trained side by side and kept
    apart: the penalty sees the critic as a constant, and the critic sees the latents as constants, so that with Adam,
    which scales each parameter by itself, one optimiser does what two would.

    Args:
        encoder, decoder, likelihood, beta: as for :class:`VAE`.
        latent: d.
        gamma: γ ≥ 0.
        width: hidden units in each of the critic's three hidden layers.

    Raises:
        ValueError: for a γ that is negative or not finite.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent: int,
        likelihood: str = "bernoulli",
        beta: float = 1.0,
        gamma: float = 10.0,
        width: int = 256,
    ):
        super().__init__(encoder, decoder, likelihood, beta)
        require_weights(gamma=gamma)
        self.gamma = gamma
        sizes, layers = [latent, width, width, width], []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
        self.critic = nn.Sequential(*layers, nn.Linear(width, 2))

    def terms(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """Those of the VAE, every frame an image of its own, with "total_correlation" and "critic": (B n,)."""
        x = batch.frames.flatten(0, 1)
        posterior = self.encode(x)
        z = reparameterize(posterior, generator)

        constant = {name: parameter.detach() for name, parameter in self.critic.named_parameters()}
        correlation = total_correlation(functional_call(self.critic, constant, (z,)))

        drawn = z.detach()
        logits = self.critic(torch.cat([drawn, permute_dimensions(drawn, generator)]))
        classes = torch.arange(2, device=z.device).repeat_interleave(len(z))
        told_apart = F.cross_entropy(logits, classes, reduction="none").unflatten(0, (2, len(z))).mean(0)
        return Terms(
            reconstruction=self.decode(z).log_prob(x),
            kl=gaussian_kl(posterior.mean, posterior.base_dist.scale),
            kl_weight=self.beta,
            penalties={"total_correlation": self.gamma * correlation, "critic": told_apart},
        )
