"""PoFlow: latent traversals as potential flows that obey a wave equation (Song, Keller, Sebe & Welling 2023, ICML)."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.func import jvp
from torch.nn import functional as F

from poflow_lite.datasets.sequences import Batch
from poflow_lite.errors import require_weights
from poflow_lite.flows import Path, PotentialFlow
from poflow_lite.models.vae import VAE
from poflow_lite.objectives import Terms, gaussian_kl, reparameterize, wave_residual

__all__ = ["PoFlow"]


class PoFlow(VAE):
    """A VAE whose latents move by z_{t+1} = z_t + ∇u^k(z_t, t) with potentials that obey a wave equation.

    The objective is Σ_t E[log p(x_t | z_t)] - β KL(q(z_0) ‖ N(0, I)), less

        λ_wave E Σ_t (∂_tt u - c_k² Δu)² + λ_0 E‖∇u(z_0, 0)‖² - λ_J E log(1 + ‖J ∇u‖²) + λ_k CE(k | x_0, x̂_t)

    with J the Jacobian of the decoder at one random frame, so that motion is to be visible, and a classifier that
    names k from frame 0 and what was generated for a random later frame. Neither the moving latents nor their prior
    have a density: what the flow does to q is not counted. (The ICML paper maximises ‖J ∇u‖² itself for a generator
    that is given; here, where the decoder is trained too, that has no upper bound, hence the logarithm.)

    Args:
        encoder, decoder, likelihood, beta: as for :class:`VAE`.
        flow: the potential flow.
        classifier: pairs (B, 2, C, H, W) ↦ logits (B, K), such as a :class:`TransformationEncoder`.
        wave, initial, jacobian, naming: λ_wave, λ_0, λ_J, λ_k.

    Raises:
        ValueError: for a weight that is negative or not finite.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        flow: PotentialFlow,
        classifier: nn.Module,
        likelihood: str = "bernoulli",
        beta: float = 1.0,
        wave: float = 1.0,
        initial: float = 1.0,
        jacobian: float = 1.0,
        naming: float = 1.0,
    ):
        super().__init__(encoder, decoder, likelihood, beta)
        require_weights(wave=wave, initial=initial, jacobian=jacobian, naming=naming)
        self.flow, self.classifier = flow, classifier
        self.wave, self.initial, self.jacobian, self.naming = wave, initial, jacobian, naming
        self.raw_speed = nn.Parameter(torch.zeros(flow.potential.transformations))

    @property
    def speed(self) -> Tensor:
        """c_k > 0, (K,), latent units per frame; trained, through a softplus."""
        return F.softplus(self.raw_speed)

    def transport(self, z: Tensor, k: Tensor, steps: int) -> Path:
        return self.flow.rollout(z, k, steps)

    def terms(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """The terms of the objective, one value per sequence; frames not drawn are accounted for by weight."""
        posterior = self.encode(batch.frames[:, 0])
        path = self.transport(reparameterize(posterior, generator), batch.k, batch.horizon)
        predicted = self.decode(path.z.take_along_dim(batch.times[..., None], 1))

        rows = torch.arange(len(batch), device=batch.frames.device)
        t = torch.randint(batch.horizon, (len(batch),), generator=generator, device=rows.device)
        shown = torch.randint(1, batch.times.shape[1], (len(batch),), generator=generator, device=rows.device)
        moved = self._change_of_image(path.z[rows, t], path.velocity[rows, t])
        pairs = torch.stack([batch.frames[:, 0], predicted.mean[rows, shown]], 1)
        penalties = {
            "wave": self.wave * self.residuals(path, batch.k).square().sum(1),
            "initial": self.initial * path.velocity[:, 0].square().sum(1),
            "jacobian": -self.jacobian * torch.log1p(moved.square().flatten(1).sum(1)),
            "naming": self.naming * F.cross_entropy(self.classifier(pairs), batch.k, reduction="none"),
        }
        reconstruction = predicted.log_prob(batch.frames) @ batch.frame_weights
        return Terms(reconstruction, gaussian_kl(posterior.mean, posterior.base_dist.scale), self.beta, penalties)

    def residuals(self, path: Path, k: Tensor) -> Tensor:
        """∂_tt u - c_k² Δu at the points (z_t, t), t = 0..T-1, of a path: (B, T)."""
        points, potential = path.departures(k), self.flow.potential
        bend, spread = potential.second_time_derivative(*points), potential.laplacian(*points)
        return wave_residual(bend, spread, self.speed[points[2]]).unflatten(0, path.velocity.shape[:2])

    def _change_of_image(self, z: Tensor, velocity: Tensor) -> Tensor:
        """J ∇u: how fast the decoded image changes along the flow, (B, C, H, W), by one forward derivative."""
        with warnings.catch_warnings():  # PyTorch, at its first forward derivative, warns of its own use of torch.jit
            warnings.filterwarnings("ignore", ".*torch.jit.script", FutureWarning)
            return jvp(lambda points: self.decode(points).mean, (z,), (velocity,))[1]
