"""The flow-factorized VAE (Song, Keller, Sebe & Welling 2023), supervised: k is given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poflow_lite.datasets import Batch
from poflow_lite.fields import Force, mixing_weights
from poflow_lite.flows import DiffusionPrior, Flow, Trajectory
from poflow_lite.io import require_weights
from poflow_lite.models.vae import VAE
from poflow_lite.objectives import Terms, gaussian_kl, reparameterize


class FlowFactorizedVAE(VAE):
    """A VAE whose latent flows: z_t = z_{t-1} + ∇u^k(z_{t-1}, t-1) from z_0 ~ q(z_0 | x_0).

    The objective is the per-frame bound

        Σ_t ( E_q[log p(x_t | z_t)] - β KL(q_t(· | x_0, k) ‖ p_t(· | k)) ) - λ_HJ Σ_t E[R²] - λ_0 ‖∇u^k(z_0, 0)‖²

    with q_t the density that the flow makes of q_0, p_t = N(0, (1 + 2 D_k t) I), and R the residual of the generalised
    Hamilton-Jacobi equation. Without the penalties, and with β = 1, each summand is an evidence lower bound on
    log p(x_t | k), because q_t is a proper density of z_t.

    Args:
        encoder, decoder, likelihood, beta: as for :class:`VAE`; β weighs the KL terms of all frames.
        flow: the posterior's flow, normally along potentials; any other has no Hamilton-Jacobi residual.
        prior: the diffusing prior, or one that stays.
        force: f ≤ 0 in the Hamilton-Jacobi equation; ``None`` for f = 0.
        hamilton_jacobi: λ_HJ.
        autoencoding: weight of a second bound on the same Σ_{t≥1} log p(x_t | k), whose posterior q(z | x_t) comes from
            frame t itself. It costs one image a sequence and teaches the encoder all poses, so that a flow may start
            at any frame and reconstruction can be measured; 0 leaves the paper's objective.
        consistency: weight of Σ_{t≥1} KL(q_t(· | x_0, k) ‖ q(· | x_t)): the flow should carry x_0 to where the encoder
            puts x_t, while the bound asks only that both decode to x_t.
        initial: λ_0, weight of the paper's initial condition ∇u^k(z_0, 0) = 0.
        path_kl: weight of the KL terms of q_t at t ≥ 1, within β; 0 leaves only the one at t = 0, which regularises the
            encoder alone. Other weights than 1 give up the bound.

    Raises:
        ValueError: for a weight that is negative or not finite, or a Hamilton-Jacobi penalty on a flow that does not
            follow a potential.
    """

    motion = "flow"

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        flow: Flow,
        prior: DiffusionPrior,
        force: Force | None = None,
        likelihood: str = "bernoulli",
        beta: float = 1.0,
        hamilton_jacobi: float = 10.0,
        autoencoding: float = 0.2,
        initial: float = 0.0,
        path_kl: float = 1.0,
        consistency: float = 0.0,
    ):
        super().__init__(encoder, decoder, likelihood, beta)
        require_weights(hamilton_jacobi=hamilton_jacobi, autoencoding=autoencoding, initial=initial, path_kl=path_kl)
        require_weights(consistency=consistency)
        if hamilton_jacobi and not hasattr(flow.field, "time_derivative"):
            raise ValueError(
                f"the Hamilton-Jacobi penalty needs a flow along a potential, got one along a "
                f"{type(flow.field).__name__}: set hamilton_jacobi to 0, or use a Potential"
            )
        self.flow, self.prior, self.force = flow, prior, force
        self.hamilton_jacobi, self.autoencoding, self.initial = hamilton_jacobi, autoencoding, initial
        self.path_kl, self.consistency = path_kl, consistency

    def rollout(self, z: Tensor, y: Tensor, times: Sequence[float]) -> Trajectory:
        """z (B, d) carried along a clock by the flow; see :meth:`flows.Flow.rollout`."""
        return self.flow.rollout(z, y, times)

    def log_prior(self, z: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.prior.log_prob(z, t, mixing_weights(y, self.prior.transformations))

    def terms(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """The terms of the objective, one value per sequence; frames not drawn are accounted for by weight."""
        posterior = self.encode(batch.frames[:, 0])
        z0 = reparameterize(posterior, generator)
        trajectory = self.flow.rollout(z0, batch.k, range(batch.horizon + 1))

        drawn = trajectory.z.take_along_dim(batch.times[..., None], 1)
        log_likelihood = self.decode(drawn).log_prob(batch.frames)  # (B, n)

        log_q = trajectory.log_density(posterior.log_prob(z0))  # (B, T+1)
        kl = gaussian_kl(posterior.mean, posterior.base_dist.scale)
        if self.path_kl:
            kl = kl + self.path_kl * self._path_kl(trajectory, log_q)

        penalties = {}
        if self.autoencoding or self.consistency:
            penalties = self._from_a_later_frame(batch, trajectory, log_q, generator)
        if self.hamilton_jacobi:
            residuals = self.flow.residuals(trajectory, self.force)
            penalties["hamilton_jacobi"] = self.hamilton_jacobi * residuals.square().sum(1)
        if self.initial:
            penalties["initial"] = self.initial * trajectory.velocity[:, 0].square().sum(1)
        return Terms(log_likelihood @ batch.frame_weights, kl, self.beta, penalties)

    def _path_kl(self, trajectory: Trajectory, log_q: Tensor) -> Tensor:
        """Σ_{t≥1} log q_t(z_t) - log p_t(z_t | k), the Monte-Carlo KL terms: (B,)."""
        times = trajectory.times[1:].to(log_q).expand(len(log_q), -1)
        log_p = self.prior.log_prob(trajectory.z[:, 1:], times, trajectory.weights)  # at the same z_t
        return (log_q[:, 1:] - log_p).sum(1)

    def _from_a_later_frame(
        self, batch: Batch, trajectory: Trajectory, log_q: Tensor, generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """What q(z | x_t), from one random frame t ≥ 1 of each sequence, adds to the loss: (B,) each, times T.

        "autoencoding" is minus a bound on log p(x_t | k), "consistency" a Monte-Carlo KL(q_t ‖ q(· | x_t)).
        """
        rows = torch.arange(len(batch), device=batch.frames.device)
        drawn = torch.randint(1, batch.times.shape[1], (len(batch),), generator=generator, device=rows.device)
        x, t = batch.frames[rows, drawn], batch.times[rows, drawn]
        posterior, penalties = self.encode(x), {}
        if self.autoencoding:
            log_likelihood = self.decode(reparameterize(posterior, generator)).log_prob(x)
            variance = self.prior.variance(t, trajectory.weights)[:, None]
            elbo = log_likelihood - self.beta * gaussian_kl(posterior.mean, posterior.base_dist.scale, variance)
            penalties["autoencoding"] = -self.autoencoding * batch.horizon * elbo
        if self.consistency:
            apart = log_q[rows, t] - posterior.log_prob(trajectory.z[rows, t])
            penalties["consistency"] = self.consistency * batch.horizon * apart
        return penalties
