"""The Topographic VAE (Keller & Welling 2021): latents in capsules, in which a transformation is a roll."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from poflow_lite.datasets.sequences import Batch
from poflow_lite.flows import Path
from poflow_lite.models.vae import VAE
from poflow_lite.objectives import Terms, gaussian_kl, reparameterize

__all__ = ["TopographicVAE"]


class TopographicVAE(VAE):
    """A VAE whose code s is made of Student-t variables that share their variance with neighbours in space and time:

        s = (z + μ) / √(W ∗ u²),      z, u ~ N(0, I)

    W averages over neighbouring places of a capsule, which is a circle. In training, u² is also averaged over the
    frames of a short run, each rolled to the place where it would be now; frames that agree up to a roll are cheap, so
    the code learns to roll with time. The latent of the model is (z, u), of dimension 2d; :meth:`transport` rolls both
    by one place a frame, and with them rolls s, exactly. The same roll serves every k.

    Args:
        encoder: x ↦ (B, 4d), mean and log standard deviation of (z, u).
        decoder: s (B, d) ↦ logits (B, C, H, W).
        capsules: number of circles; each holds d / capsules places.
        latent: d.
        likelihood, beta: as for :class:`VAE`.
        neighbours: places over which W averages, odd.
        offset: μ at the start; trained.

    Raises:
        ValueError: if the capsules do not divide d, or ``neighbours`` is not an odd number that fits into a capsule.
    """

    consecutive = True
    """Asks for frames that follow one another: see :meth:`datasets.Sequences.sample`."""

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent: int,
        capsules: int = 2,
        likelihood: str = "bernoulli",
        beta: float = 1.0,
        neighbours: int = 3,
        offset: float = 1.0,
    ):
        super().__init__(encoder, decoder, likelihood, beta)
        if capsules < 1 or latent % capsules:
            raise ValueError(f"latent must be a multiple of capsules, got {latent} and {capsules}")
        if neighbours % 2 == 0 or not 1 <= neighbours <= latent // capsules:
            raise ValueError(
                f"neighbours must be an odd number from 1 to the {latent // capsules} places of a capsule, "
                f"got {neighbours}"
            )
        self.latent, self.capsules, self.neighbours = latent, capsules, neighbours
        self.offset = nn.Parameter(torch.tensor(float(offset)))

    def roll(self, values: Tensor, places: int) -> Tensor:
        """Every capsule of values (..., d) turned by ``places``: (..., d)."""
        return values.unflatten(-1, (self.capsules, -1)).roll(places, -1).flatten(-2)

    def code(self, z: Tensor, energy: Tensor) -> Tensor:
        """s = (z + μ) / √(W ∗ energy), for z and energy = u² of shape (..., d)."""
        reach = self.neighbours // 2
        shared = sum(self.roll(energy, places) for places in range(-reach, reach + 1)) / self.neighbours
        return (z + self.offset) / (shared + 1e-6).sqrt()

    def decode(self, z: Tensor) -> Independent:
        """p(x | s) of latents (z, u), (..., 2d): a distribution over (..., C, H, W)."""
        place, scale = z.chunk(2, -1)
        return super().decode(self.code(place, scale.square()))

    def transport(self, z: Tensor, k: Tensor, steps: int) -> Path:
        """z and u of each capsule rolled by one place a frame, whatever k; volumes stay as they are."""
        halves = [torch.cat([self.roll(half, t) for half in z.chunk(2, -1)], -1) for t in range(steps + 1)]
        path = torch.stack(halves, 1)
        return Path(path, z.new_zeros(len(z), steps), path.diff(dim=1))

    def terms(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """Those of the VAE for every frame, (B n,); u² of a frame after frame 0 is the mean over the run it is in.

        Raises:
            ValueError: if the frames after frame 0 do not follow one another.
        """
        batch.require_consecutive("TopographicVAE")
        posterior = self.encode(batch.frames.flatten(0, 1))
        z, u = reparameterize(posterior, generator).unflatten(0, batch.times.shape).chunk(2, -1)
        run = range(1, batch.times.shape[1])
        energy = u.square()
        shared = [sum(self.roll(energy[:, m], t - m) for m in run) / len(run) for t in run]
        s = self.code(z, torch.stack([energy[:, 0], *shared], 1))
        return Terms(
            reconstruction=super().decode(s).log_prob(batch.frames).flatten(),
            kl=gaussian_kl(posterior.mean, posterior.base_dist.scale),
            kl_weight=self.beta,
        )
