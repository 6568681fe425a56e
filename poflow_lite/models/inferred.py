"""Flow-factorized VAEs that are not told k: what moves a sequence is inferred from its frames.

One model, two posteriors. :class:`GumbelSoftmax` infers one of K transformations. :class:`SpikeAndSlab` infers
coefficients of M fields, most of them zero, after Song, Keller, Yue, Perona & Welling 2024 (Unsupervised Representation
Learning from Sparse Transformation Analysis), in the simplest form that keeps its ideas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poflow_lite.datasets import Batch
from poflow_lite.flows import Trajectory
from poflow_lite.io import require_weights
from poflow_lite.models.flow_factorized import FlowFactorizedVAE
from poflow_lite.objectives import Terms, gaussian_kl


class TransformationPosterior(Protocol):
    """A family of posteriors of what moves; ``raw`` (B, n) are the outputs of an inference network."""

    names_k: bool
    """Whether it names one index k."""

    balance_fades: bool
    """Whether the balance is asked for in the beginning only."""

    def sample(self, raw: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
        """A relaxed, differentiable sample: (B, K)."""
        ...

    def mode(self, raw: Tensor) -> Tensor:
        """The most probable value, without any noise."""
        ...

    def kl(self, raw: Tensor) -> dict[str, Tensor]:
        """Divergences from the prior by name: (B,) each, nats."""
        ...

    def balance(self, raw: Tensor) -> Tensor:
        """How unevenly the batch as a whole uses the transformations: a scalar ≥ 0, nats."""
        ...


@dataclass(frozen=True)
class GumbelSoftmax:
    """q(k | x) = softmax(raw), raw (B, K), with a uniform prior; samples are relaxed (Jang 2017; Maddison 2017)."""

    names_k, balance_fades = True, False

    def sample(self, raw: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
        """y = softmax((log q + G) / τ) with Gumbel noise G: (B, K)."""
        draws = torch.empty_like(raw).exponential_(generator=generator)
        gumbel = -draws.clamp_min(torch.finfo(raw.dtype).tiny).log()
        return torch.softmax((raw + gumbel) / temperature, 1)

    def mode(self, raw: Tensor) -> Tensor:
        """The most probable index: (B,)."""
        return raw.argmax(1)

    def kl(self, raw: Tensor) -> dict[str, Tensor]:
        """KL(q(k | x) ‖ uniform) = log K + Σ_k q_k log q_k."""
        log_q = F.log_softmax(raw, 1)
        return {"kl_k": math.log(raw.shape[1]) + (log_q.exp() * log_q).sum(1)}

    def balance(self, raw: Tensor) -> Tensor:
        """KL(uniform ‖ q̄) = -log K - mean_k log q̄_k, q̄ the batch mean of q(k | x).

        Not KL(q̄ ‖ uniform), whose slope vanishes where an index is quite idle: such an index never comes back.
        """
        log_used = F.log_softmax(raw, 1).logsumexp(0) - math.log(len(raw))  # log q̄, finite where q̄ underflows to 0
        return -math.log(raw.shape[1]) - log_used.mean()


@dataclass(frozen=True)
class SpikeAndSlab:
    """q(s, w | x): independent coefficients g_m = s_m w_m, a spike s_m ~ Bernoulli(σ(l_m)), a slab w_m ~ N(μ_m, σ_m²).

    The prior is p(s) ∝ Π_m π^{s_m} (1 - π)^{1 - s_m} · e^{-c [s = 0]} and w_m ~ N(μ_0, ρ²): mostly zeros, but something
    moves in every sequence. Where a field is off (s_m = 0), its w_m moves nothing, and its posterior is the prior.
    Mitchell & Beauchamp 1988 for the prior; Maddison, Mnih & Teh 2017 for the relaxation. ``raw`` is (B, 3M): spike
    logits l, slab means less μ_0, and log σ less log ρ.

    Attributes:
        activity: π, the share of sequences in which a field is on, between 0 and 1.
        empty: c ≥ 0, nats by which it is less likely that no field is on.
        slab: μ_0 and ρ > 0.
    """

    activity: float = 0.2
    empty: float = 100.0
    slab: tuple[float, float] = (1.0, 0.1)
    names_k, balance_fades = False, True

    def __post_init__(self) -> None:
        if not 0 < self.activity < 1:
            raise ValueError(f"activity is a share of sequences, between 0 and 1, got {self.activity}")
        if not (math.isfinite(self.slab[0]) and 0 < self.slab[1] < math.inf):
            raise ValueError(f"slab needs a finite mean and a positive finite standard deviation, got {self.slab}")
        require_weights(empty=self.empty)

    def parts(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Spike logits l, slab means μ and slab scales σ, (B, M) each."""
        logits, mean, log_scale = raw.chunk(3, 1)
        return logits, self.slab[0] + mean, self.slab[1] * log_scale.clamp(-8, 4).exp()

    def sample(self, raw: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
        """A relaxed, differentiable sample of g, (B, M), by the binary concrete distribution:

            s = σ((l + log u - log(1 - u)) / τ),  u ~ U(0, 1);      w = μ + σ ε,  ε ~ N(0, 1)

        The noise on l is logistic, the difference of two Gumbels, so that s > ½ with probability σ(l) at every τ.
        """
        logits, mean, scale = self.parts(raw)
        u = torch.empty_like(logits).uniform_(generator=generator)
        noise = torch.logit(u, eps=torch.finfo(u.dtype).eps)
        spike = torch.sigmoid((logits + noise) / temperature)
        return spike * (mean + scale * torch.empty_like(mean).normal_(generator=generator))

    def mode(self, raw: Tensor) -> Tensor:
        """g_m = [l_m > 0] μ_m: (B, M), the most probable spike and the mean slab."""
        logits, mean, _ = self.parts(raw)
        return (logits > 0) * mean

    def kl(self, raw: Tensor) -> dict[str, Tensor]:
        """KL(q(s) ‖ p(s)) and Σ_m q_m KL(q(w_m) ‖ p(w_m)): a field that is off has nothing to pay for its slab."""
        logits, mean, scale = self.parts(raw)
        return {"spike": self.spike_kl(logits), "slab": self.slab_kl(logits, mean, scale)}

    def spike_kl(self, logits: Tensor) -> Tensor:
        """KL(q(s) ‖ p(s)), (B,), finite for all finite l: with q_m = σ(l_m) it is

        Σ_m KL( Bernoulli(q_m) ‖ Bernoulli(π) ) + c Π_m (1 - q_m) + log( 1 - (1 - π)^M (1 - e^{-c}) ).
        """
        q, log_off = torch.sigmoid(logits), F.logsigmoid(-logits)
        on = F.logsigmoid(logits) - math.log(self.activity)
        off = log_off - math.log1p(-self.activity)
        none = math.expm1(logits.shape[1] * math.log1p(-self.activity))  # (1 - π)^M - 1, exact for the smallest π
        kept = math.log(math.exp(-self.empty) + none * math.expm1(-self.empty))
        return (q * on + (1 - q) * off).sum(1) + self.empty * log_off.sum(1).exp() + kept

    def slab_kl(self, logits: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """Σ_m q_m KL( N(μ_m, σ_m²) ‖ N(μ_0, ρ²) ): (B,)."""
        centre, spread = self.slab
        kl = gaussian_kl(((mean - centre) / spread)[..., None], (scale / spread)[..., None])
        return (torch.sigmoid(logits) * kl).sum(1)

    def balance(self, raw: Tensor) -> Tensor:
        """Σ_m KL(Bernoulli(π) ‖ Bernoulli(q̄_m)), its slope finite where q̄ itself underflows to 0 or 1."""
        logits = self.parts(raw)[0]
        on, off = (F.logsigmoid(sign * logits).logsumexp(0) - math.log(len(logits)) for sign in (1, -1))
        share = self.activity
        return (share * (math.log(share) - on) + (1 - share) * (math.log1p(-share) - off)).sum()


class InferredFlowVAE(FlowFactorizedVAE):
    """A flow-factorized VAE in which what moves is latent: z follows Σ_k y_k v^k with y ~ q(y | x_0:T).

    The objective is that of :class:`FlowFactorizedVAE` at k = y, one sample for each sequence, less

        λ KL(q(y | x) ‖ p(y)) + λ_bal balance(q̄) + λ_class CE(k, q(k | x)),

    where λ = 1 belongs to the bound (for discrete y; the relaxation's bias falls with the temperature). The balance
    asks that all transformations be used: those that lose the race at the start never come back without it. The last
    term is paid only by sequences that are ``batch.labelled``; of no other is the label looked at.

    Which index stands for which transformation is up to the run: :func:`metrics.match_transformations` finds the best
    matching, and :meth:`reorder` puts the indices into that order. The speed of a field and its coefficient are defined
    only up to a factor; a slab's prior around μ_0 ≠ 0 settles it.

    Args:
        parts: encoder, decoder, flow, prior, force, as for :class:`FlowFactorizedVAE`.
        inference: frames (B, n, C, H, W), frame 0 first, ↦ raw outputs of the posterior. Where these name k, the last
            of its modules that has parameters makes them, a row for each k.
        posterior: :class:`GumbelSoftmax` or :class:`SpikeAndSlab`.
        kl_weight: λ.
        balance: λ_bal, nats per nat; where the posterior says so, it falls linearly to 0 over the annealing.
        classification: λ_class, nats per nat.
        temperature: of the relaxation at the first and the last step of the annealing.
        annealing: training steps over which the temperature falls geometrically; kept as a buffer, so that a run that
            is resumed goes on where it was.
        options: of :class:`FlowFactorizedVAE`.

    Raises:
        ValueError: for temperatures that are not positive and finite, an annealing below 1 step, a weight that is
            negative or not finite, a classification without names, or parts that :meth:`reorder` could not renumber.
    """

    def __init__(
        self,
        *parts: Any,
        inference: nn.Module,
        posterior: TransformationPosterior,
        kl_weight: float = 1.0,
        balance: float = 1000.0,
        classification: float = 0.0,
        temperature: tuple[float, float] = (1.0, 0.3),
        annealing: int = 500,
        **options: Any,
    ):
        super().__init__(*parts, **options)
        if not all(0 < value < math.inf for value in temperature):
            raise ValueError(f"temperatures must be positive and finite, got {temperature}")
        if annealing < 1:
            raise ValueError(f"annealing must last at least 1 step, got {annealing}")
        require_weights(kl_weight=kl_weight, balance=balance, classification=classification)
        if classification and not posterior.names_k:
            raise ValueError(
                f"{type(posterior).__name__} names no k that a label could be held to: classification is 0"
            )
        self.inference, self.posterior = inference, posterior
        self.kl_weight, self.balance, self.classification = kl_weight, balance, classification
        self.temperature, self.annealing = temperature, annealing
        self.register_buffer("steps_taken", torch.zeros((), dtype=torch.long))
        self._require_rows()

    @property
    def names_k(self) -> bool:
        """Whether :meth:`infer` names an index k, which training may then be asked to :meth:`reorder`."""
        return self.posterior.names_k

    def rollout(self, z: Tensor, y: Tensor, times: Sequence[float]) -> Trajectory:
        """z (B, d) carried along a clock by weights of the fields (B, M), or by an index where the model names k."""
        if y.ndim == 1 and not self.names_k:
            raise ValueError(
                f"the {self.flow.field.transformations} fields of this model have no k: pass coefficients (B, M), as "
                "infer(frames) gives, or the batch of metrics.with_own_coefficients(model, batch)"
            )
        return super().rollout(z, y, times)

    def infer(self, frames: Tensor) -> Tensor:
        """What moves sequences (B, T+1, C, H, W), without any noise: k (B,), or coefficients (B, M)."""
        return self.posterior.mode(self.inference(frames))

    def terms(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """The terms of the objective with k = y, and those of y as penalties."""
        raw = self.inference(batch.frames)
        first, last = self.temperature
        done = (self.steps_taken / self.annealing).clamp(max=1.0)  # a tensor: a GPU need not be waited for
        y = self.posterior.sample(raw, first * (last / first) ** done, generator)
        terms = super().terms(batch.with_k(y), generator)
        terms.penalties |= {name: self.kl_weight * kl for name, kl in self.posterior.kl(raw).items()}
        if self.balance:
            weight = self.balance * (1 - done if self.posterior.balance_fades else 1.0)
            terms.penalties["balance"] = weight * self.posterior.balance(raw).expand(len(y))
        if self.classification and batch.labelled is not None:
            if batch.k.ndim != 1:
                raise ValueError(f"a label is the one k of a sequence, got weights {tuple(batch.k.shape)}")
            wrong = F.cross_entropy(raw, torch.where(batch.labelled, batch.k, 0), reduction="none")
            terms.penalties["classification"] = self.classification * torch.where(batch.labelled, wrong, 0.0)
        if self.training:
            self.steps_taken += 1
        return terms

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
        for parameter in self._per_index():
            parameter.copy_(parameter[indices])

    def _per_index(self) -> list[nn.Parameter]:
        """The parameters that hold a row for each transformation, those of a network's last layer among them."""
        found = [*self.flow.parameters(), *self.prior.parameters()]
        for network in (self.inference, *([] if self.force is None else [self.force])):
            layers = [own for module in network.modules() if (own := [*module.parameters(recurse=False)])]
            if not layers:
                raise ValueError(f"{type(network).__name__} has no parameters, so that its outputs keep their order")
            found += layers[-1]
        return found

    def _require_rows(self) -> None:
        """Raise a ValueError if this model names k and :meth:`reorder`, after training, would fail or do harm."""
        count = self.flow.field.transformations
        if self.names_k and (other := [tuple(p.shape) for p in self._per_index() if p.shape[:1] != (count,)]):
            raise ValueError(
                f"a model that names {count} transformations needs {count} rows, one for each, in all parameters of "
                f"flow and prior and in the last layer of the networks, got {', '.join(map(str, other))}"
            )
