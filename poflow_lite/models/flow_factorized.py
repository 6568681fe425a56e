"""The flow-factorized VAE (Song, Keller, Sebe & Welling 2023), supervised: k is given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poflow_lite.datasets import Batch
from poflow_lite.fields import Force, mixing_weights
from poflow_lite.flows import DiffusionPrior, Flow, PushforwardPrior, Trajectory
from poflow_lite.io import require_weights
from poflow_lite.models.vae import VAE
from poflow_lite.objectives import Terms, diagonal_normal, gaussian_kl


class FlowFactorizedVAE(VAE):
    """A VAE whose latent flows: z_t = z_{t-1} + ∇u^k(z_{t-1}, t-1) from z_0 ~ q(z_0 | x_0).

    The objective is the per-frame bound

        Σ_t ( E_q[log p(x_t | z_t)] - β KL(q_t(· | x_0, k) ‖ p_t(· | k)) ) - λ_HJ Σ_t E[R²] - λ_0 ‖∇u^k(z_0, 0)‖²

    with q_t the density that the flow makes of q_0, p_t = N(0, (1 + 2 D_k t) I), and R the residual of the generalised
    Hamilton-Jacobi equation. Without the penalties, and with β = 1, each summand is an evidence lower bound on
    log p(x_t | k), because q_t is a proper density of z_t.

    Under a :class:`flows.PushforwardPrior` all frames share one z_0, and the bound is one on the whole sequence,
    log p(x_{0:T} | k) ≥ Σ_t E_q[log p(x_t | z_t)] - KL(q_0 ‖ p_0), without any determinant; β counts once, not T + 1
    times.

    Args:
        encoder, decoder, likelihood, beta: as for :class:`VAE`; β weighs the KL terms of all frames.
        flow: the posterior's flow, normally along potentials; any other has no Hamilton-Jacobi residual.
        prior: which diffuses, stays, or is carried by the flow.
        force: f ≤ 0 in the Hamilton-Jacobi equation; ``None`` for f = 0.
        hamilton_jacobi: λ_HJ.
        autoencoding: weight of a second bound on the same Σ_{t≥1} log p(x_t | k), whose posterior q(z | x_t) comes from
            frame t itself. It costs one image a sequence and teaches the encoder all poses, so that a flow may start
            at any frame and reconstruction can be measured; 0 leaves the paper's objective.
        consistency: weight of Σ_{t≥1} KL(q_t(· | x_0, k) ‖ q(· | x_t)): the flow should carry x_0 to where the encoder
            puts x_t, while the bound asks only that both decode to x_t.
        initial: λ_0, weight of the paper's initial condition ∇u^k(z_0, 0) = 0.

    Raises:
        ValueError: for a weight that is negative or not finite, a Hamilton-Jacobi penalty on a flow that does not
            follow a potential, or a prior of another number of transformations than the flow's field.
    """

    motion = "flow"

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        flow: Flow,
        prior: DiffusionPrior | PushforwardPrior,
        force: Force | None = None,
        likelihood: str = "bernoulli",
        beta: float = 1.0,
        hamilton_jacobi: float = 10.0,
        autoencoding: float = 0.2,
        initial: float = 0.0,
        consistency: float = 0.0,
    ):
        super().__init__(encoder, decoder, likelihood, beta)
        weights = {"hamilton_jacobi": hamilton_jacobi, "autoencoding": autoencoding}
        require_weights(**weights, initial=initial, consistency=consistency)
        if hamilton_jacobi and not hasattr(flow.field, "time_derivative"):
            raise ValueError(
                f"the Hamilton-Jacobi penalty needs a flow along a potential, got one along a "
                f"{type(flow.field).__name__}: set hamilton_jacobi to 0, or use a Potential"
            )
        fields, priors = flow.field.transformations, prior.transformations
        if fields != priors:
            raise ValueError(f"the prior needs as many transformations as the flow, got {priors} for {fields} fields")
        self.flow, self.prior, self.force = flow, prior, force
        self.hamilton_jacobi, self.autoencoding, self.initial = hamilton_jacobi, autoencoding, initial
        self.consistency = consistency

    def rollout(self, z: Tensor, y: Tensor, times: Sequence[float]) -> Trajectory:
        """z (B, d) carried along a clock by the flow; see :meth:`flows.Flow.rollout`."""
        return self.flow.rollout(z, y, times)

    def log_prior(self, z: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.prior.log_prob(z, t, mixing_weights(y, self.prior.transformations))

    def terms(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """The terms of the objective, one value per sequence; frames not drawn are accounted for by weight."""
        size, shown = len(batch), batch.frames
        coded, t = shown[:, 0], batch.times[:, 0]
        draws = {"generator": generator, "device": shown.device}
        noise = torch.randn(size, self.flow.field.latent, dtype=shown.dtype, **draws)
        if self.autoencoding or self.consistency:  # a later frame of each sequence is coded in the same pass
            rows, drawn = torch.arange(size, device=shown.device), torch.randint(1, shown.shape[1], (size,), **draws)
            coded, t = torch.cat([coded, shown[rows, drawn]]), torch.cat([t, batch.times[rows, drawn]])
            noise = torch.cat([noise, torch.randn(noise.shape, dtype=noise.dtype, **draws)])
        codes = self.encode(coded)
        z = codes.mean + codes.base_dist.scale * noise
        trajectory = self.flow.rollout(z[:size], batch.k, range(batch.horizon + 1), generator)
        variance = self.prior.variance(t, trajectory.weights.repeat(len(t) // size, 1))
        kl = gaussian_kl(codes.mean, codes.base_dist.scale, variance[:, None])

        path = trajectory.z.take_along_dim(batch.times[..., None], 1).flatten(0, 1)
        truth = torch.cat([shown.flatten(0, 1), coded[size:]])
        log_likelihood = self.decode(torch.cat([path, z[size:]])).log_prob(truth)
        reconstruction = log_likelihood[: len(path)].unflatten(0, shown.shape[:2]) @ batch.frame_weights

        penalties = {}
        if self.autoencoding:
            elbo = log_likelihood[len(path) :] - self.beta * kl[size:]
            penalties["autoencoding"] = -self.autoencoding * batch.horizon * elbo
        if self.consistency:
            log_q = trajectory.log_density(codes.log_prob(z)[:size])[rows, t[size:]]
            later = diagonal_normal(codes.mean[size:], codes.base_dist.scale[size:])
            apart = log_q - later.log_prob(trajectory.z[rows, t[size:]])
            penalties["consistency"] = self.consistency * batch.horizon * apart
        if self.hamilton_jacobi:
            residuals = self.flow.residuals(trajectory, self.force)
            penalties["hamilton_jacobi"] = self.hamilton_jacobi * residuals.square().sum(1)
        if self.initial:
            penalties["initial"] = self.initial * trajectory.velocity[:, 0].square().sum(1)
        path_kl = self.prior.path_kl(trajectory, lambda: codes.log_prob(z)[:size])
        return Terms(reconstruction, kl[:size] + path_kl, self.beta, penalties)
