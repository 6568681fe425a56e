"""The flow-factorized VAE (Song, Keller, Sebe & Welling 2023), supervised: k is given."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poflow_lite.datasets.sequences import Batch
from poflow_lite.errors import require_weights
from poflow_lite.flows import DiffusionPrior, Path, PotentialFlow
from poflow_lite.models.vae import VAE
from poflow_lite.objectives import Terms, gaussian_kl, reparameterize
from poflow_lite.potentials import Force

__all__ = ["FlowFactorizedVAE"]


class FlowFactorizedVAE(VAE):
    """A VAE whose latent flows: z_t = z_{t-1} + ∇u^k(z_{t-1}, t-1) from z_0 ~ q(z_0 | x_0).

    The objective is the per-frame bound

        Σ_t ( E_q[log p(x_t | z_t)] - β KL(q_t(· | x_0, k) ‖ p_t(· | k)) ) - λ_HJ Σ_t E[R²] - λ_0 ‖∇u^k(z_0, 0)‖²

    with q_t the density that the flow makes of q_0, p_t = N(0, (1 + 2 D_k t) I), and R the residual of the generalised
    Hamilton-Jacobi equation. Without the penalties, and with β = 1, each summand is an evidence lower bound on
    log p(x_t | k), because q_t is a proper density of z_t.

    Args:
        encoder, decoder, likelihood, beta: as for :class:`VAE`; β weighs the KL terms of all frames.
        flow: the posterior's potential flow.
        prior: the diffusing prior.
        force: f ≤ 0 in the Hamilton-Jacobi equation; ``None`` for f = 0.
        hamilton_jacobi: λ_HJ.
        autoencoding: weight of a second bound on the same Σ_{t≥1} log p(x_t | k), whose posterior q(z | x_t) comes from
            frame t itself. It costs one image a sequence and teaches the encoder all poses, so that a flow may start
            at any frame and reconstruction can be measured; 0 leaves the paper's objective.
        initial: λ_0, weight of the paper's initial condition ∇u^k(z_0, 0) = 0.

    Raises:
        ValueError: for a weight that is negative or not finite.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        flow: PotentialFlow,
        prior: DiffusionPrior,
        force: Force | None = None,
        likelihood: str = "bernoulli",
        beta: float = 1.0,
        hamilton_jacobi: float = 10.0,
        autoencoding: float = 0.2,
        initial: float = 0.0,
    ):
        super().__init__(encoder, decoder, likelihood, beta)
        require_weights(hamilton_jacobi=hamilton_jacobi, autoencoding=autoencoding, initial=initial)
        self.flow, self.prior, self.force = flow, prior, force
        self.hamilton_jacobi, self.autoencoding, self.initial = hamilton_jacobi, autoencoding, initial

    def transport(self, z: Tensor, k: Tensor, steps: int) -> Path:
        return self.flow.rollout(z, k, steps)

    def log_prior(self, z: Tensor, t: Tensor, k: Tensor) -> Tensor:
        return self.prior.log_prob(z, t, k)

    def terms(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """The terms of the objective, one value per sequence; frames not drawn are accounted for by weight."""
        posterior = self.encode(batch.frames[:, 0])
        z0 = reparameterize(posterior, generator)
        path = self.transport(z0, batch.k, batch.horizon)

        drawn = path.z.take_along_dim(batch.times[..., None], 1)
        log_likelihood = self.decode(drawn).log_prob(batch.frames)  # (B, n)

        times = torch.arange(1, batch.horizon + 1, device=z0.device).expand(len(z0), -1)
        log_q = path.log_density(posterior.log_prob(z0))[:, 1:]
        kl_later = (log_q - self.log_prior(path.z[:, 1:], times, batch.k)).sum(1)  # Monte Carlo, the same z_t in both
        kl_start = gaussian_kl(posterior.mean, posterior.base_dist.scale)

        penalties = {}
        if self.autoencoding:
            penalties["autoencoding"] = -self.autoencoding * self._autoencoding_bound(batch, generator)
        if self.hamilton_jacobi:
            residuals = self.flow.residuals(path, batch.k, self.force)
            penalties["hamilton_jacobi"] = self.hamilton_jacobi * residuals.square().sum(1)
        if self.initial:
            penalties["initial"] = self.initial * path.velocity[:, 0].square().sum(1)
        return Terms(log_likelihood @ batch.frame_weights, kl_start + kl_later, self.beta, penalties)

    def _autoencoding_bound(self, batch: Batch, generator: torch.Generator | None) -> Tensor:
        """T ( E_{q(z | x_t)}[log p(x_t | z)] - β KL(q(z | x_t) ‖ p_t(· | k)) ) of one random frame t ≥ 1 each: (B,)."""
        rows = torch.arange(len(batch), device=batch.frames.device)
        drawn = torch.randint(1, batch.times.shape[1], (len(batch),), generator=generator, device=rows.device)
        x, t = batch.frames[rows, drawn], batch.times[rows, drawn]
        posterior = self.encode(x)
        log_likelihood = self.decode(reparameterize(posterior, generator)).log_prob(x)
        variance = self.prior.variance(t, batch.k)[:, None]
        kl = gaussian_kl(posterior.mean, posterior.base_dist.scale, variance)
        return batch.horizon * (log_likelihood - self.beta * kl)
