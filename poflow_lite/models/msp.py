"""Meta-sequential prediction: the motion of a sequence is solved for from two of its frames, without any label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from poflow_lite.datasets import Batch
from poflow_lite.flows import Trajectory, clock_of
from poflow_lite.io import require_weights
from poflow_lite.models.vae import VAE
from poflow_lite.objectives import Terms, gaussian_kl, reparameterize


class MSP(VAE):
    """A VAE whose latents, read as a matrix Z (a, m), move by one matrix from the left: Z_{t+1} = M Z_t.

    M is no parameter. It is solved for, inside the forward pass, from the codes of frames 0 and 1:

        M = argmin_M ‖M Z_0 - Z_1‖² + ε ‖M - I‖²

    and trained to carry the code of frame 0 to all others, Σ_t E_q[log p(x_t | M^t Z_0)] - β KL(q(Z_0) ‖ N(0, I)). So
    an encoder is learned under which transformations act linearly, and each sequence brings its own action. No k is
    looked at: what :meth:`rollout` takes for y is M itself, as :meth:`infer` gives it.

    A second bound codes later frames by themselves. Without it the encoder speaks of them in a language that nothing
    ties to that of the decoder: then M may pass a message from one to the other, and be no motion.

    Args:
        encoder, decoder, likelihood, beta: as for :class:`VAE`.
        rows: a, the size of M; a divisor of d. The other factor m of d should be at least a, or M is not determined.
        ridge: ε > 0, relative to the mean square of a row of Z.
        autoencoding: weight of that bound, T (E_q[log p(x_t | Z_t)] - β KL(q(Z_t) ‖ N(0, I))) at one frame t.

    Raises:
        ValueError: for a ridge that is not positive, or rows below 1.

    Source: Miyato, Koyama & Fukumizu 2022 (Unsupervised learning of equivariant structure from sequences), there with
    deterministic codes and predictions of the next frames only.
    """

    draws: ClassVar[dict[str, bool]] = {"first_two": True}
    names_k = False

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        rows: int,
        likelihood: str = "bernoulli",
        beta: float = 1.0,
        ridge: float = 1e-3,
        autoencoding: float = 0.5,
    ):
        super().__init__(encoder, decoder, likelihood, beta)
        require_weights(ridge=ridge, autoencoding=autoencoding)
        if rows < 1 or not ridge:
            raise ValueError(f"MSP needs at least 1 row and a positive ridge, got {rows} and {ridge}")
        self.rows, self.ridge, self.autoencoding = rows, ridge, autoencoding

    def infer(self, frames: Tensor) -> Tensor:
        """M of sequences (B, n ≥ 2, C, H, W), from frames 0 and 1 alone: (B, a²)."""
        before, after = (self.encode(frames[:, i]).mean for i in (0, 1))
        return self.solve(before, after)

    def solve(self, before: Tensor, after: Tensor) -> Tensor:
        """M from codes (B, d) of two frames that follow one another: (B, a²)."""
        first, second = (self._matrix(z) for z in (before, after))
        gram = first @ first.mT
        size = self.ridge * gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] + torch.finfo(gram.dtype).tiny
        eye = torch.eye(self.rows, dtype=gram.dtype, device=gram.device)
        # M (G + ε I) = Z' Zᵀ + ε I, with a symmetric matrix on its right
        return torch.linalg.solve(gram + size * eye, (second @ first.mT + size * eye).mT).mT.flatten(1)

    def rollout(self, z: Tensor, y: Tensor, times: Sequence[float]) -> Trajectory:
        """z (B, d) carried along a clock by M = y (B, a²); between two frames Z moves straight.

        Raises:
            ValueError: for y of another shape: this model is told no k, but takes what :meth:`infer` gives; or for a
                clock that stands, turns or has no step.
        """
        if y.shape != (len(z), self.rows**2) or not y.is_floating_point():
            raise ValueError(
                f"MSP is moved by matrices y ({len(z)}, {self.rows**2}), as infer(frames) gives, or the batch of "
                f"metrics.with_own_coefficients(model, batch); got {tuple(y.shape)} of {y.dtype}"
            )
        clock, matrix = clock_of(times), y.unflatten(1, (self.rows, self.rows))
        step, eye = matrix if clock[-1] > clock[0] else torch.linalg.inv(matrix), torch.eye(self.rows).to(matrix)
        place, frame, path, log_det = self._matrix(z), 0, [], []
        for elapsed in (abs(t - clock[0]) for t in clock):
            place = torch.linalg.matrix_power(step, int(elapsed) - frame) @ place
            frame, within = int(elapsed), elapsed % 1 * (step - eye)  # straight to where the next frame will be
            path.append(place + within @ place)
            log_det.append(frame * torch.linalg.slogdet(step).logabsdet + torch.linalg.slogdet(eye + within).logabsdet)
        moved, clock = torch.stack(path, 1).flatten(2), torch.tensor(clock, dtype=z.dtype)
        velocity = moved.diff(dim=1) / clock.diff().abs().to(moved)[:, None]
        return Trajectory(moved, place.shape[2] * torch.stack(log_det, 1).diff(dim=1), velocity, y, clock)

    def terms(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """The terms of the objective, from frames 0, 1 and drawn ones: (B,) each."""
        later = _require_first_two(batch)
        coded = torch.stack([batch.frames[:, 0], batch.frames[:, 1], batch.frames[:, -1]], 1).flatten(0, 1)
        codes = self.encode(coded)
        mean, scale = (x.unflatten(0, (len(batch), 3)) for x in (codes.mean, codes.base_dist.scale))
        z = reparameterize(codes, generator).unflatten(0, (len(batch), 3))
        path = self.rollout(z[:, 0], self.solve(mean[:, 0], mean[:, 1]), range(batch.horizon + 1)).z
        drawn = path.take_along_dim(batch.times[..., None], 1)
        truth = torch.cat([batch.frames, batch.frames[:, -1:]], 1)
        log_likelihood = self.decode(torch.cat([drawn, z[:, 2:]], 1)).log_prob(truth)
        weights = torch.tensor([1.0, 1.0] + [(batch.horizon - 1) / max(later, 1)] * later).to(truth)
        kl = gaussian_kl(mean, scale)
        elbo = log_likelihood[:, -1] - self.beta * kl[:, 2]
        penalties = {"autoencoding": -self.autoencoding * batch.horizon * elbo} if self.autoencoding else {}
        return Terms(log_likelihood[:, :-1] @ weights, kl[:, 0], self.beta, penalties)

    def _matrix(self, z: Tensor) -> Tensor:
        """Codes (B, d) as matrices (B, a, m)."""
        return z.unflatten(1, (self.rows, -1))


def _require_first_two(batch: Batch) -> int:
    """How many frames there are besides 0 and 1; a ValueError unless these are there, and one to be predicted."""
    later, times = batch.frames.shape[1] - 2, batch.times
    if later < min(1, batch.horizon - 1) or (times.device.type == "cpu" and (times[:, 1] != 1).any()):
        raise ValueError(
            f"MSP needs frames 0 and 1 and one to be predicted, as sample(..., frames=2, first_two=True) draws them, "
            f"got times {times[0].tolist()}"
        )
    return later
