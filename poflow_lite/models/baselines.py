"""The baselines, each a small difference from the VAE: FactorVAE, SlowVAE and the Topographic VAE."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Independent
from torch.func import functional_call
from torch.nn import functional as F

from poflow_lite.datasets import Batch
from poflow_lite.flows import Trajectory, clock_of
from poflow_lite.io import require_weights
from poflow_lite.models.vae import VAE
from poflow_lite.objectives import Terms, gaussian_kl, laplace_transition_kl, reparameterize, total_correlation


def permute_dimensions(z: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Shuffle each latent dimension over the batch by itself: samples of Π_i q(z_i) from samples z (B, d) of q(z)."""
    order = torch.rand(z.shape, generator=generator, device=z.device).argsort(0)
    return z.gather(0, order)


class FactorVAE(VAE):
    """A VAE with a penalty on the total correlation of its latents, γ KL(q(z) ‖ Π_i q(z_i)) (Kim & Mnih 2018).

    A critic learns to tell samples of q(z) (class 0) from samples with permuted dimensions (class 1); its log-odds
    estimate the total correlation. The penalty sees the critic as a constant, and the critic sees the latents as
    constants, so that with Adam, which scales each parameter by itself, one optimiser does what two would.

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
        layers = []
        for before, after in itertools.pairwise([latent, width, width, width]):
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


class SlowVAE(VAE):
    """A VAE whose prior for the next frame is Laplace(z_t, 1/λ), so that few latents change (Klindt et al. 2021).

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

    draws: ClassVar[dict[str, bool]] = {"consecutive": True}

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
        kl = gaussian_kl(mean[:, :2], scale[:, :2]).sum(1) / count
        moved = laplace_transition_kl(mean[:, 2:], scale[:, 2:], z[:, 1:-1], self.rate).sum(1) / count
        return Terms(reconstruction, kl, self.beta, {"transition": self.transition * moved})


class TopographicVAE(VAE):
    """A VAE whose code s is made of Student-t variables that share their variance with neighbours in space and time:

        s = (z + μ) / √(W ∗ u²),      z, u ~ N(0, I)                              (Keller & Welling 2021)

    W averages over neighbouring places of a capsule, which is a circle. In training, u² is also averaged over the
    frames of a short run, each rolled to the place where it would be now; frames that agree up to a roll are cheap, so
    the code learns to roll with time. The latent of the model is (z, u), of dimension 2d; :meth:`rollout` rolls both
    by one place a frame, and with them rolls s, exactly. The same roll serves every k.

    Args:
        encoder: x ↦ (B, 4d), mean and log standard deviation of (z, u).
        decoder: s (B, d) ↦ logits (B, C, H, W).
        latent: d.
        capsules: number of circles; each holds d / capsules places.
        likelihood, beta: as for :class:`VAE`.
        neighbours: places over which W averages, odd.
        offset: μ at the start; trained.

    Raises:
        ValueError: if the capsules do not divide d, or ``neighbours`` is not an odd number that fits into a capsule.
    """

    draws: ClassVar[dict[str, bool]] = {"consecutive": True}
    motion = "roll"

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

    def rollout(self, z: Tensor, y: Tensor, times: Sequence[float]) -> Trajectory:
        """z and u of each capsule rolled by one place a frame, whatever moves: a permutation, which keeps volumes.

        Between two frames the rolled latents are interpolated, and counted as volume-preserving there too.
        """
        clock, path = clock_of(times), []
        for turned in (t - clock[0] for t in clock):
            before = math.floor(turned)
            ends = [torch.cat([self.roll(half, n) for half in z.chunk(2, -1)], -1) for n in (before, before + 1)]
            path.append(torch.lerp(*ends, turned - before))
        path, times = torch.stack(path, 1), torch.tensor(clock, dtype=z.dtype)
        velocity = path.diff(dim=1) / times.diff().abs().to(z)[:, None]
        return Trajectory(path, z.new_zeros(len(z), len(times) - 1), velocity, y, times)

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
