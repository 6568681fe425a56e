"""PoFlow: latent traversals as potential flows that obey a wave equation (Song, Keller, Sebe & Welling 2023, ICML)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import jvp
from torch.nn import functional as F

from poflow_lite.datasets import Batch
from poflow_lite.flows import Flow, Trajectory
from poflow_lite.io import require_weights
from poflow_lite.models.vae import VAE
from poflow_lite.objectives import Terms, gaussian_kl, reparameterize, wave_residual


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
        flow: along potentials.
        classifier: pairs (B, 2, C, H, W) ↦ logits (B, K), such as a :class:`networks.TransformationEncoder`.
        wave, initial, jacobian, classification: λ_wave, λ_0, λ_J, λ_k.

    Raises:
        ValueError: for a weight that is negative or not finite, or a flow that follows no potential.
    """

    motion = "flow"

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        flow: Flow,
        classifier: nn.Module,
        likelihood: str = "bernoulli",
        beta: float = 1.0,
        wave: float = 1.0,
        initial: float = 1.0,
        jacobian: float = 1.0,
        classification: float = 1.0,
    ):
        super().__init__(encoder, decoder, likelihood, beta)
        require_weights(wave=wave, initial=initial, jacobian=jacobian, classification=classification)
        if not hasattr(flow.field, "second_time_derivative"):
            raise ValueError(f"PoFlow needs a flow along a potential, got one along a {type(flow.field).__name__}")
        self.flow, self.classifier = flow, classifier
        self.wave, self.initial, self.jacobian, self.classification = wave, initial, jacobian, classification
        self.raw_speed = nn.Parameter(torch.zeros(flow.field.transformations))

    @property
    def speed(self) -> Tensor:
        """c_k > 0, (K,), latent units per frame; trained, through a softplus."""
        return F.softplus(self.raw_speed)

    def rollout(self, z: Tensor, y: Tensor, times: Sequence[float]) -> Trajectory:
        """z (B, d) carried along a clock by the flow; see :meth:`flows.Flow.rollout`."""
        return self.flow.rollout(z, y, times)

    def terms(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """The terms of the objective, one value per sequence; frames not drawn are accounted for by weight."""
        if batch.k.ndim != 1:
            raise ValueError(f"PoFlow names the one k of each sequence, got weights {tuple(batch.k.shape)}")
        posterior = self.encode(batch.frames[:, 0])
        z = reparameterize(posterior, generator)
        trajectory = self.flow.rollout(z, batch.k, range(batch.horizon + 1), generator)
        predicted = self.decode(trajectory.z.take_along_dim(batch.times[..., None], 1))

        rows = torch.arange(len(batch), device=batch.frames.device)
        t = torch.randint(batch.horizon, (len(batch),), generator=generator, device=rows.device)
        shown = torch.randint(1, batch.times.shape[1], (len(batch),), generator=generator, device=rows.device)
        moved = self._change_of_image(trajectory.z[rows, t], trajectory.velocity[rows, t])
        pairs = torch.stack([batch.frames[:, 0], predicted.mean[rows, shown]], 1)
        wrong = F.cross_entropy(self.classifier(pairs), batch.k, reduction="none")
        penalties = {
            "wave": self.wave * self.residuals(trajectory).square().sum(1),
            "initial": self.initial * trajectory.velocity[:, 0].square().sum(1),
            "jacobian": -self.jacobian * torch.log1p(moved.square().flatten(1).sum(1)),
            "classification": self.classification * wrong,
        }
        reconstruction = predicted.log_prob(batch.frames) @ batch.frame_weights
        return Terms(reconstruction, gaussian_kl(posterior.mean, posterior.base_dist.scale), self.beta, penalties)

    def residuals(self, trajectory: Trajectory) -> Tensor:
        """∂_tt u - c_k² Δu at the points (z_t, t), t = 0..T-1, of a trajectory: (B, T)."""
        points, potential = trajectory.step_starts(), self.flow.field
        bend, spread = potential.second_time_derivative(*points), potential.laplacian(*points)
        speed = points[2] @ self.speed.to(points[2])
        return wave_residual(bend, spread, speed).unflatten(0, trajectory.velocity.shape[:2])

    def _change_of_image(self, z: Tensor, velocity: Tensor) -> Tensor:
        """J ∇u: how fast the decoded image changes along the flow, (B, C, H, W), by one forward derivative."""
        with warnings.catch_warnings():  # PyTorch, at its first forward derivative, warns of its own use of torch.jit
            warnings.filterwarnings("ignore", ".*torch.jit.script", FutureWarning)
            return jvp(lambda points: self.decode(points).mean, (z,), (velocity,))[1]
