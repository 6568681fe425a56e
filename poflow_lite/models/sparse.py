"""Sparse flows without any label: each sequence moves along a few of M fields, and which ones is inferred.

After Song, Keller, Yue, Perona & Welling 2024 (Unsupervised Representation Learning from Sparse Transformation
Analysis), in the simplest form that keeps its three ideas: curl-free and divergence-free fields, coefficients that are
mostly zero, and no supervision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poflow_lite.datasets.sequences import Batch
from poflow_lite.errors import require_weights
from poflow_lite.flows import DiffusionPrior
from poflow_lite.models.flow_factorized import FlowFactorizedVAE
from poflow_lite.objectives import Terms

__all__ = ["SparseFlowVAE", "SpikeAndSlab", "UnsignedDiffusionPrior"]


@dataclass
class SpikeAndSlab:
    """q(s, w): independent coefficients g_m = s_m w_m, a spike s_m ~ Bernoulli(σ(l_m)) and a slab w_m ~ N(μ_m, σ_m²).

    Where a field is off (s_m = 0), its w_m moves nothing, and its posterior is the prior. Mitchell & Beauchamp 1988
    for the prior; Maddison, Mnih & Teh 2017 for the relaxation.

    Attributes:
        logits: l, (B, M).
        mean, scale: μ and σ > 0 of the slabs, (B, M).
    """

    logits: Tensor
    mean: Tensor
    scale: Tensor

    @property
    def coefficients(self) -> Tensor:
        """g_m = [l_m > 0] μ_m: (B, M), the most probable spike and the mean slab, without any noise."""
        return (self.logits > 0) * self.mean

    def sample(self, temperature: float, generator: torch.Generator | None = None) -> Tensor:
        """A relaxed, differentiable sample of g, (B, M), by the binary concrete distribution:

            s = σ((l + log u - log(1 - u)) / τ),  u ~ U(0, 1);      w = μ + σ ε,  ε ~ N(0, 1)

        The noise on l is logistic, the difference of two Gumbels, so that s > ½ with probability σ(l) at every τ.
        """
        options = {"generator": generator, "dtype": self.logits.dtype, "device": self.logits.device}
        u = torch.rand(self.logits.shape, **options)
        noise = torch.logit(u, eps=torch.finfo(u.dtype).eps)
        spike = torch.sigmoid((self.logits + noise) / temperature)
        return spike * (self.mean + self.scale * torch.randn(self.mean.shape, **options))

    def spike_kl(self, activity: float, empty: float = 0.0) -> Tensor:
        """KL(q(s) ‖ p(s)) with p(s) ∝ Π_m π^{s_m} (1 - π)^{1 - s_m} · e^{-c [s = 0]}, in which all off is unlikely:

            Σ_m KL( Bernoulli(q_m) ‖ Bernoulli(π) ) + c Π_m (1 - q_m) + log( 1 - (1 - π)^M (1 - e^{-c}) ),  q_m = σ(l_m)

        Args:
            activity: π.
            empty: c ≥ 0, nats; 0 for independent spikes.

        Returns:
            (B,), nats; finite for every finite l.
        """
        q = torch.sigmoid(self.logits)
        log_off = F.logsigmoid(-self.logits)
        on = F.logsigmoid(self.logits) - math.log(activity)
        off = log_off - math.log1p(-activity)
        kept = math.log1p((1 - activity) ** self.logits.shape[1] * math.expm1(-empty))
        return (q * on + (1 - q) * off).sum(1) + empty * log_off.sum(1).exp() + kept

    def slab_kl(self, centre: float, spread: float) -> Tensor:
        """Σ_m q_m KL( N(μ_m, σ_m²) ‖ N(μ_0, ρ²) ): (B,), nats, with μ_0 = ``centre`` and ρ = ``spread``.

        A field that is off has nothing to pay.
        """
        ratio = (self.scale / spread).square()
        kl = 0.5 * (((self.mean - centre) / spread).square() + ratio - 1 - ratio.log())
        return (torch.sigmoid(self.logits) * kl).sum(1)


class UnsignedDiffusionPrior(DiffusionPrior):
    """The diffusing prior p_t = N(0, (1 + 2 D t) I) of a mixture whose weights may be negative: D = Σ_m |g_m| D_m.

    A field that runs backwards spreads no less than one that runs forwards, and a variance must not turn negative.
    """

    def variance(self, t: Tensor | float, k: Tensor) -> Tensor:
        return super().variance(t, k.abs())

    def potential(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        return super().potential(z, t, k.abs())


class SparseFlowVAE(FlowFactorizedVAE):
    """A flow-factorized VAE that is told nothing of k: z moves by v(z, t) = Σ_m g_m v^m(z, t), with few g_m ≠ 0.

    The coefficients g = s ⊙ w of a sequence are latent, with the prior

        p(s) ∝ Π_m π^{s_m} (1 - π)^{1 - s_m} · e^{-c [s = 0]},      w_m ~ N(μ_0, ρ²),

    and a posterior that is inferred from the frames (:class:`SpikeAndSlab`). The objective is the per-frame bound of
    :class:`FlowFactorizedVAE` at k = g, with the density that the mixed flow makes, less

        λ KL(q(s, w | x) ‖ p(s, w)) + λ_use Σ_m KL(Bernoulli(π) ‖ Bernoulli(q̄_m)),      q̄ = batch mean of q(s | x).

    With β = λ = 1 and λ_use = 0 it is the bound on Σ_t log p(x_t) for discrete s; training replaces s by a relaxed
    sample, whose bias falls with the temperature. The first term, in closed form, makes g sparse, and its factor
    e^{-c [s = 0]} says that something moves in every sequence: without it, the transformation that is hardest to learn
    can be left with no field at all, since every field that it could turn on serves another one already. The second
    term asks that each field be on in a share π of the sequences, without which fields that lose the race at the start
    never come back; it fades out, as a field that nothing needs may idle in the end. Unlike the weakly supervised
    model, this one does not know how many transformations there are.

    Speed and coefficient are defined only up to a factor (2 g with v / 2 is the same motion); the slab's prior around
    μ_0 ≠ 0 settles it. ``batch.k`` is not looked at.

    Args:
        encoder, decoder, flow: as for :class:`FlowFactorizedVAE`; the flow's field has M transformations, such as
            :class:`mixtures.MixedFields`.
        prior: a diffusing prior of M transformations that allows negative weights (:class:`UnsignedDiffusionPrior`).
        inference: frames (B, n, C, H, W) ↦ (B, 3M): spike logits, slab means and log scales, the last two relative to
            the slab's prior.
        activity: π, the share of sequences in which a field is on, between 0 and 1.
        empty: c, nats by which it is less likely that no field is on.
        slab: μ_0 and ρ > 0, mean and standard deviation of the slab's prior.
        sparsity: λ, weight of the coefficients' KL terms.
        use: λ_use at the first step; it falls linearly to 0 over the annealing.
        temperature: of the relaxation at the first and the last step of the annealing.
        annealing: training steps over which the temperature falls geometrically; kept as a buffer, so that a run that
            is resumed goes on where it was.
        options: of :class:`FlowFactorizedVAE`: likelihood, beta, autoencoding, initial.

    Raises:
        ValueError: for an activity outside (0, 1), a spread, temperature or weight that is out of range, an annealing
            below 1 step, or a prior of another number of transformations than the flow's field.
    """

    def __init__(
        self,
        *parts: Any,
        inference: nn.Module,
        activity: float = 0.2,
        empty: float = 100.0,
        slab: tuple[float, float] = (1.0, 0.1),
        sparsity: float = 10.0,
        use: float = 1000.0,
        temperature: tuple[float, float] = (1.0, 0.3),
        annealing: int = 500,
        **options: Any,
    ):
        super().__init__(*parts, hamilton_jacobi=0.0, **options)
        if not 0 < activity < 1:
            raise ValueError(f"activity is a share of sequences, between 0 and 1, got {activity}")
        if not (math.isfinite(slab[0]) and 0 < slab[1] < math.inf):
            raise ValueError(f"slab needs a finite mean and a positive finite standard deviation, got {slab}")
        if not all(0 < value < math.inf for value in temperature):
            raise ValueError(f"temperatures must be positive and finite, got {temperature}")
        if annealing < 1:
            raise ValueError(f"annealing must last at least 1 step, got {annealing}")
        require_weights(empty=empty, sparsity=sparsity, use=use)
        fields, diffusions = self.flow.field.transformations, self.prior.transformations
        if fields != diffusions:
            raise ValueError(f"the prior needs one diffusion coefficient a field, got {diffusions} for {fields} fields")
        self.inference, self.activity, self.empty, self.slab = inference, activity, empty, slab
        self.sparsity, self.use = sparsity, use
        self.temperature, self.annealing = temperature, annealing
        self.register_buffer("steps_taken", torch.zeros((), dtype=torch.long))

    def posterior(self, frames: Tensor) -> SpikeAndSlab:
        """q(s, w | x) of sequences, or of some frames of each, (B, n, C, H, W) with frame 0 first."""
        logits, mean, log_scale = self.inference(frames).chunk(3, 1)
        centre, spread = self.slab
        return SpikeAndSlab(logits, centre + mean, spread * log_scale.clamp(-8, 4).exp())

    def infer(self, frames: Tensor) -> Tensor:
        """The coefficients g of sequences (B, n, C, H, W): (B, M), without any noise."""
        return self.posterior(frames).coefficients

    def terms(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """The terms of the objective with k = g, and those of g as penalties "spike", "slab" and "use"."""
        posterior = self.posterior(batch.frames)
        first, last = self.temperature
        done = min(1.0, self.steps_taken.item() / self.annealing)
        g = posterior.sample(first * (last / first) ** done, generator)
        terms = super().terms(Batch(batch.frames, batch.times, g, batch.horizon), generator)
        if self.sparsity:
            terms.penalties["spike"] = self.sparsity * posterior.spike_kl(self.activity, self.empty)
            terms.penalties["slab"] = self.sparsity * posterior.slab_kl(*self.slab)
        if self.use:
            terms.penalties["use"] = (1 - done) * self.use * self._idleness(posterior.logits).expand(len(g))
        if self.training:
            self.steps_taken += 1
        return terms

    def _idleness(self, logits: Tensor) -> Tensor:
        """Σ_m KL(Bernoulli(π) ‖ Bernoulli(q̄_m)): a scalar, its slope finite where q̄ itself underflows to 0 or 1."""
        on, off = (F.logsigmoid(sign * logits).logsumexp(0) - math.log(len(logits)) for sign in (1, -1))
        share = self.activity
        return (share * (math.log(share) - on) + (1 - share) * (math.log1p(-share) - off)).sum()
