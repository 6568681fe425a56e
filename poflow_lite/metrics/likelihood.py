"""Importance-weighted log-likelihoods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from poflow_lite.datasets import Batch, Sequences
from poflow_lite.io import require_known
from poflow_lite.objectives import (
    diagonal_normal,
    gaussian_ceiling,
    importance_weighted_log_likelihood,
    reparameterize,
)


class AboveCeiling(RuntimeError):
    """A log-likelihood exceeds what any density under its decoder can have."""


@dataclass
class LogLikelihood:
    """Importance-weighted estimates of log p(x_t | k) under N(x̂, I), averages in nats per frame.

    Attributes:
        prediction: with proposals that come from x_0 alone, carried to t by the model; ``None`` if not asked for.
        reconstruction: with proposals from x_t itself; ``None`` if not asked for.
        standard_error: of the two means, over sequences.
        ceiling: -(CHW/2) log 2π, which neither can exceed.
        sequences, samples: how many sequences were measured, each at all T+1 frames, with S samples a frame.
    """

    prediction: float | None
    reconstruction: float | None
    standard_error: dict[str, float]
    ceiling: float
    sequences: int
    samples: int


@torch.no_grad()
def log_likelihood(
    model: Any,
    sequences: Sequences,
    *,
    images: int = 64,
    samples: int = 100,
    seed: int = 0,
    estimates: Sequence[str] = ("prediction", "reconstruction"),
    progress: bool = False,
) -> LogLikelihood:
    """log (1/S) Σ_s p(x_t | z_s) p_t(z_s | k) / q(z_s), with p(x | z) = N(x̂(z), I), averaged over frames 0..T.

    Args:
        model: its decoder mean is x̂, its rollout makes the proposals for prediction.
        sequences: test images; the first ``images`` of them under every transformation.
        images: how many.
        samples: S; 100 or more for figures that are reported.
        seed: of start poses and proposals.
        estimates: which of the two, or both.
        progress: show a bar.

    Raises:
        ValueError: for an unknown estimate, or none; for fewer than one image or sample.
        AboveCeiling: if a mean exceeds the ceiling or is NaN: the density of a flow that folds space, a wrong model.
    """
    from tqdm.auto import tqdm

    estimators = {"prediction": _prediction, "reconstruction": _reconstruction}
    for name in estimates:
        require_known("estimate", name, estimators)
    if min(images, samples, len(estimates)) < 1:
        raise ValueError(
            f"at least 1 image, sample and estimate are needed, got {images}, {samples} and {len(estimates)}"
        )
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    proposals = torch.Generator(device).manual_seed(seed)
    found: dict[str, list[Tensor]] = {name: [] for name in estimates}
    work = [(i, k) for k in range(len(sequences.names)) for i in sequences.of(k)[:images].tolist()]
    for i, k in tqdm(work, disable=not progress, desc="log-likelihood", leave=False):
        batch = sequences.batch(torch.tensor([i]), k, generator=generator).to(device)
        for name in estimates:
            found[name].append(estimators[name](model, batch, samples, proposals))
    per_sequence = {name: torch.stack(values).double() for name, values in found.items()}
    ceiling = gaussian_ceiling(math.prod(sequences.image_shape))
    means = {name: values.mean().item() for name, values in per_sequence.items()}
    errors = {
        name: values.std(correction=0).item() / max(len(work) - 1, 1) ** 0.5 for name, values in per_sequence.items()
    }
    for name, mean in means.items():  # one importance-weighted estimate may exceed the ceiling by chance, the mean not
        if not mean <= ceiling + 3 * errors[name] + 1e-6 * abs(ceiling):
            raise AboveCeiling(f"{name} log-likelihood {mean:.1f} is not below its ceiling of {ceiling:.1f} nats")
    both = dict.fromkeys(estimators) | means
    return LogLikelihood(**both, standard_error=errors, ceiling=ceiling, sequences=len(work), samples=samples)


def _prediction(model: Any, batch: Batch, samples: int, generator: torch.Generator) -> Tensor:
    """Proposals z_t = flow of z_0 ~ q(z_0 | x_0), with their exact density; the mean estimate over t, a scalar."""
    posterior = model.encode(batch.frames[:, 0])
    posterior = diagonal_normal(*(p.expand(samples, -1) for p in (posterior.mean, posterior.base_dist.scale)))
    start = reparameterize(posterior, generator)
    k = batch.k.expand(samples, *batch.k.shape[1:])
    trajectory = model.rollout(start, k, range(batch.horizon + 1))
    return _estimate(model, batch, trajectory.z, trajectory.log_density(posterior.log_prob(start)))


def _reconstruction(model: Any, batch: Batch, samples: int, generator: torch.Generator) -> Tensor:
    """Proposals z_t ~ q(z | x_t), each frame by itself; the mean estimate over t, a scalar."""
    posterior = model.encode(batch.frames[0])
    posterior = diagonal_normal(*(p.expand(samples, -1, -1) for p in (posterior.mean, posterior.base_dist.scale)))
    z = reparameterize(posterior, generator)
    return _estimate(model, batch, z, posterior.log_prob(z))


def _estimate(model: Any, batch: Batch, z: Tensor, log_q: Tensor) -> Tensor:
    """Mean over t of log (1/S) Σ_s p(x_t | z) p_t(z | k) / q(z) for one sequence and S proposals z (S, T+1, d)."""
    squares = (batch.frames - model.decode(z).mean).square().flatten(2).sum(-1)
    log_p = gaussian_ceiling(batch.frames[0, 0].numel()) - 0.5 * squares
    k = batch.k.expand(len(z), *batch.k.shape[1:])
    log_prior = model.log_prior(z, batch.times.expand(len(z), -1), k)
    return importance_weighted_log_likelihood(log_p + log_prior - log_q).mean()
