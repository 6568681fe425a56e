"""The flow-factorized VAE that is not told k: it infers which transformation moves a sequence from the frames."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poflow_lite.datasets.sequences import Batch
from poflow_lite.errors import require_weights
from poflow_lite.models.flow_factorized import FlowFactorizedVAE
from poflow_lite.objectives import Terms

__all__ = ["TransformationEncoder", "WeaklySupervisedVAE"]


class TransformationEncoder(nn.Module):
    """q(k | x_0:T): logits of the K transformations, the mean over frames of what each pair (x_0, x_t) suggests.

    Args:
        image_shape: (C, H, W).
        transformations: K.
        channels: feature maps after each halving of the resolution.
        hidden: width of the dense layer.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        transformations: int,
        channels: tuple[int, ...] = (16, 32),
        hidden: int = 64,
    ):
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((2 * image_shape[0], *channels), channels, strict=False):
            layers += [nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1), nn.SiLU()]
        self.network = nn.Sequential(
            *layers, nn.Flatten(), nn.LazyLinear(hidden), nn.SiLU(), nn.Linear(hidden, transformations)
        )
        self.network(torch.zeros(1, 2 * image_shape[0], *image_shape[1:]))  # settles the size of the lazy layer

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (B, n, C, H, W), frame 0 first and n ≥ 2, ↦ logits (B, K)."""
        pairs = torch.cat([frames[:, :1].expand_as(frames[:, 1:]), frames[:, 1:]], 2)
        return self.network(pairs.flatten(0, 1)).unflatten(0, pairs.shape[:2]).mean(1)


class WeaklySupervisedVAE(FlowFactorizedVAE):
    """A flow-factorized VAE whose k is a latent variable, with the posterior q(k | x_0:T) and a uniform prior.

    The potential is the mixture Σ_k y_k u^k with y a Gumbel-Softmax sample of q(k | x_0:T), one for each sequence; the
    objective is that of :class:`FlowFactorizedVAE` at k = y, less

        KL(q(k | x) ‖ uniform) + λ_use KL(uniform ‖ q̄),      q̄ = mean of q(k | x) over the batch.

    The first belongs to the bound; the second asks that all K be used. Without it, training on digits often ends with
    two transformations on one index and an idle index. It is KL(uniform ‖ q̄) = -log K - mean_k log q̄_k rather than
    KL(q̄ ‖ uniform), because the slope of the latter vanishes where an index is quite idle, and such an index never
    comes back. The label ``batch.k`` is not looked at. Which index stands for which transformation is up to
    the run: :func:`metrics.match_transformations` finds the best matching, and :meth:`reorder` puts the indices into
    that order.

    Semi-supervised, with λ_name > 0, it also pays λ_name CE(k, q(k | x)) for sequences that are ``batch.labelled``, and
    looks at the label of no other.

    Args:
        encoder, decoder, flow, prior, force, options: as for :class:`FlowFactorizedVAE`.
        inference: frames (B, n, C, H, W) ↦ logits (B, K).
        temperature: of Gumbel-Softmax at the first and the last step of the annealing.
        annealing: training steps over which the temperature falls geometrically; kept as a buffer, so that a run that
            is resumed goes on where it was.
        use: λ_use, nats per nat.
        naming: λ_name, nats per nat.

    Raises:
        ValueError: for temperatures that are not positive and finite, an annealing below 1 step, or a weight that is
            negative or not finite.
    """

    def __init__(
        self,
        *parts: Any,
        inference: nn.Module,
        temperature: tuple[float, float] = (1.0, 0.3),
        annealing: int = 500,
        use: float = 1000.0,
        naming: float = 0.0,
        **options: Any,
    ):
        super().__init__(*parts, **options)
        if not all(0 < value < math.inf for value in temperature):
            raise ValueError(f"temperatures must be positive and finite, got {temperature}")
        if annealing < 1:
            raise ValueError(f"annealing must last at least 1 step, got {annealing}")
        require_weights(use=use, naming=naming)
        self.inference, self.temperature, self.annealing = inference, temperature, annealing
        self.use, self.naming = use, naming
        self.register_buffer("steps_taken", torch.zeros((), dtype=torch.long))

    def infer(self, frames: Tensor) -> Tensor:
        """The most probable index of whole sequences (B, T+1, C, H, W): (B,), without any noise."""
        return self.inference(frames).argmax(1)

    @torch.no_grad()
    def reorder(self, indices: Tensor) -> None:
        """Renumber the transformations in place: what was index ``indices[k]`` becomes k.

        Args:
            indices: (K,), each of 0..K-1 once, such as the matching of :func:`metrics.match_transformations`.

        Raises:
            ValueError: if it is not a permutation.
        """
        count = self.flow.field.transformations
        if sorted(indices.tolist()) != list(range(count)):
            raise ValueError(f"indices must hold each of 0..{count - 1} once, got {indices.tolist()}")
        per_index = [*self.flow.parameters(), *self.prior.parameters(), *self.inference.network[-1].parameters()]
        per_index += [] if self.force is None else self.force.network[-1].parameters()
        for parameter in per_index:
            parameter.copy_(parameter[indices])

    def terms(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """The terms of the objective with k = y, and those of k as penalties "index", "use" and "naming"."""
        logits = self.inference(batch.frames)
        y = self._gumbel_softmax(logits, generator)
        terms = super().terms(Batch(batch.frames, batch.times, y, batch.horizon), generator)
        log_q = F.log_softmax(logits, 1)
        terms.penalties["index"] = math.log(logits.shape[1]) + (log_q.exp() * log_q).sum(1)
        if self.use:
            log_used = log_q.logsumexp(0) - math.log(len(log_q))  # log q̄, finite where q̄ itself underflows to 0
            terms.penalties["use"] = self.use * (-math.log(len(log_used)) - log_used.mean()).expand(len(y))
        if self.naming and batch.labelled is not None:
            wrong = F.nll_loss(log_q, torch.where(batch.labelled, batch.k, 0), reduction="none")
            terms.penalties["naming"] = self.naming * torch.where(batch.labelled, wrong, 0.0)
        if self.training:
            self.steps_taken += 1
        return terms

    def _gumbel_softmax(self, logits: Tensor, generator: torch.Generator | None) -> Tensor:
        """A relaxed sample of k, (B, K), by PyTorch's own function, whose noise comes from the global generator."""
        first, last = self.temperature
        done = min(1.0, self.steps_taken.item() / self.annealing)
        seed = torch.randint(2**62, (), generator=generator, device=logits.device).item()
        devices = [logits.device] if logits.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            return F.gumbel_softmax(logits, tau=first * (last / first) ** done)
