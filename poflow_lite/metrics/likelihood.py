"""Importance-weighted log-likelihoods of sequences and frames, and the posterior of k that they make.

All are under p(x | z) = N(x̂(z), I), in nats a frame. Two readings of a model are told apart. Under the *joint* one all
frames share one z_0 ~ N(0, I), which the model's motion pushes forward: every model has it. Under the *frame-wise* one
frame t has a latent z_t ~ p_t(z | k) of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from poflow_lite.datasets import Batch, Sequences
from poflow_lite.flows import PushforwardPrior, with_exact_density
from poflow_lite.metrics.prediction import predict
from poflow_lite.objectives import (
    diagonal_normal,
    gaussian_ceiling,
    importance_weighted_log_likelihood,
    reparameterize,
)

DECODED = 2048
"""Images decoded at once: few enough for the caches of a processor, where 8,192 take half as long again."""


class AboveCeiling(ValueError):
    """A log-likelihood exceeds what any density under its decoder can have."""


@dataclass
class LogLikelihood:
    """Estimates in nats a frame, means over sequences; each rises to the truth with S.

    Attributes:
        sequence: log p(x_{0:T} | k) / (T + 1) under the joint reading. The headline.
        predictive: log p(x_t | x_0, k) = log E_{q(z_0 | x_0)} p(x_t | φ_t(z_0)), mean over t ≥ 1.
        pushed_frame: log p(x_t | k) under the joint reading, mean over t.
        frame: two estimates of log p(x_t | k) under the frame-wise reading, mean over t, by where their proposals come
            from: "x_0", carried to t, or "x_t" itself. Both are bounds, so that the larger one is to be reported; none
            for a model whose prior is pushed forward, which has no such reading.
        squared_error: ‖x_t - x̂_t‖² of the prediction from the mean code of x_0, mean over t ≥ 1. It stands beside
            ``predictive``, which comes near its ceiling however the model errs.
        standard_error: of each, over sequences, as if these were independent, which those of one image are not: see
            :meth:`datasets.Sequences.in_turns`.
        ceiling: -(CHW/2) log 2π, which none can exceed.
        sequences, samples: how many sequences were measured; S.
    """

    sequence: float
    predictive: float
    pushed_frame: float
    frame: dict[str, float]
    squared_error: float
    standard_error: dict[str, float]
    ceiling: float
    sequences: int
    samples: int


@torch.no_grad()
def log_likelihood(
    model: Any,
    sequences: Sequences,
    *,
    images: int = 200,
    samples: int = 100,
    seed: int = 0,
    own_codes: bool = True,
    progress: bool = False,
) -> LogLikelihood:
    """Estimate all likelihoods of a model on test sequences.

    Args:
        model: its decoder mean is x̂; its rollout moves the latents, whatever operator that is. What a flow of its own
            makes of q_0 is counted exactly, whichever log-determinant it was trained with.
        sequences: the first ``images`` images under every transformation.
        images: how many; 200 or more for figures that are reported.
        samples: S; 100 or more for figures that are reported.
        seed: of start poses and proposals.
        own_codes: try proposals from x_t itself for ``frame``, too; they cost as much as all the rest.
        progress: show a bar.

    Raises:
        ValueError: for fewer than one image or sample.
        AboveCeiling: if a mean exceeds the ceiling or is NaN: the density of a flow that folds space, a wrong model.
    """
    from tqdm.auto import tqdm

    if min(images, samples) < 1:
        raise ValueError(f"at least 1 image and sample are needed, got {images} and {samples}")
    device, model = next(model.parameters()).device, with_exact_density(model)
    proposals = torch.Generator(device).manual_seed(seed)
    size = max(1, DECODED // (samples * (sequences.horizon + 1)))
    shown = [(k, sequences.of(k)[:images]) for k in range(len(sequences.names))]
    chunks = [(k, part) for k, indices in shown if len(indices) for part in indices.split(size)]
    poses, found = torch.Generator().manual_seed(seed), {}
    for k, part in tqdm(chunks, disable=not progress, desc="log-likelihood", leave=False):
        batch = sequences.batch(part, k, generator=poses).to(device)
        estimates = _by_first_frame(model, batch, samples, proposals)
        if own_codes and "x_0" in estimates:
            estimates["x_t"] = _by_own_frames(model, batch, samples, proposals)
        for name, values in estimates.items():
            found.setdefault(name, []).append(values.double())
    per_sequence = {name: torch.cat(values) for name, values in found.items()}
    count = len(per_sequence["sequence"])
    means = {name: values.mean().item() for name, values in per_sequence.items()}
    errors = {name: v.std(correction=0).item() / max(count - 1, 1) ** 0.5 for name, v in per_sequence.items()}
    ceiling = gaussian_ceiling(math.prod(sequences.image_shape))
    _require_possible(means, errors, ceiling)
    frame = {name: means.pop(name) for name in ("x_0", "x_t") if name in means}
    sizes = {"ceiling": ceiling, "sequences": count, "samples": samples}
    return LogLikelihood(**means, frame=frame, standard_error=errors, **sizes)


def _require_possible(means: dict[str, float], errors: dict[str, float], ceiling: float) -> None:
    for name, mean in means.items():  # one importance-weighted estimate may exceed the ceiling by chance, the mean not
        above = name != "squared_error" and mean > ceiling + 3 * errors[name] + 1e-6 * abs(ceiling)
        if above or not math.isfinite(mean):
            said = f"frame ({name})" if name in ("x_0", "x_t") else name
            raise AboveCeiling(f"{said} log-likelihood {mean:.1f} is not below its ceiling of {ceiling:.1f} nats")


def _by_first_frame(model: Any, batch: Batch, samples: int, generator: torch.Generator) -> dict[str, Tensor]:
    """What z_t = φ_t(z_0) with z_0 ~ q(z_0 | x_0) say, as proposals: name ↦ (B,), nats a frame."""
    start, log_q0, k = _proposals(model, batch, samples, generator)
    trajectory = model.rollout(start, k, range(batch.horizon + 1))
    log_x = _log_pixels(model, trajectory.z, batch)  # (S, B, T+1)
    times = batch.times.repeat(samples, 1)
    log_w0 = (model.log_prior(start[:, None], times[:, :1], k)[:, 0] - log_q0).unflatten(0, (samples, -1))
    error = (predict(model, batch) - batch.frames)[:, 1:].square().flatten(2).sum(2).mean(1)
    found = {
        "sequence": importance_weighted_log_likelihood(log_x.sum(2) + log_w0) / (batch.horizon + 1),
        "predictive": importance_weighted_log_likelihood(log_x[..., 1:]).mean(1),
        "pushed_frame": importance_weighted_log_likelihood(log_x + log_w0[..., None]).mean(1),
        "squared_error": error,
    }
    if not isinstance(getattr(model, "prior", None), PushforwardPrior):
        log_w = model.log_prior(trajectory.z, times, k) - trajectory.log_density(log_q0)
        found["x_0"] = importance_weighted_log_likelihood(log_x + log_w.unflatten(0, (samples, -1))).mean(1)
    return found


def _by_own_frames(model: Any, batch: Batch, samples: int, generator: torch.Generator) -> Tensor:
    """log p(x_t | k) of the frame-wise reading with proposals z_t ~ q(z | x_t), mean over t: (B,)."""
    codes = model.encode(batch.frames.flatten(0, 1))
    form = (samples * len(batch), batch.horizon + 1, -1)
    codes = diagonal_normal(*(x.repeat(samples, 1).view(form) for x in (codes.mean, codes.base_dist.scale)))
    z, k = reparameterize(codes, generator), batch.k.repeat(samples, *[1] * (batch.k.ndim - 1))
    log_w = model.log_prior(z, batch.times.repeat(samples, 1), k) - codes.log_prob(z)
    log_x = _log_pixels(model, z, batch)
    return importance_weighted_log_likelihood(log_x + log_w.unflatten(0, (samples, -1))).mean(1)


def _proposals(model: Any, batch: Batch, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """S draws of z_0 ~ q(z_0 | x_0) for every sequence, (S B, d), their log q_0, (S B,), and k for each."""
    codes = model.encode(batch.frames[:, 0])
    codes = diagonal_normal(*(x.repeat(samples, 1) for x in (codes.mean, codes.base_dist.scale)))
    start = reparameterize(codes, generator)
    return start, codes.log_prob(start), batch.k.repeat(samples, *[1] * (batch.k.ndim - 1))


def _log_pixels(model: Any, z: Tensor, batch: Batch) -> Tensor:
    """log N(x_t; x̂(z_t), I) for z (S B, T+1, d): (S, B, T+1)."""
    means = model.decode(z).mean.unflatten(0, (-1, len(batch)))
    return gaussian_ceiling(batch.frames[0, 0].numel()) - 0.5 * (means - batch.frames).square().flatten(3).sum(3)


# --- the posterior of k -------------------------------------------------------------------------------------------


@torch.no_grad()
def log_evidence(model: Any, batch: Batch, transformations: int, *, samples: int = 30, seed: int = 0) -> Tensor:
    """log p(x_{0:T} | k) of whole sequences for every k, under the joint reading: (B, K), nats.

    With a uniform p(k) its softmax over k is the posterior p(k | x_{0:T}). All k share their draws of z_0. The batch's
    own k is not looked at. Each estimate is below the truth in the mean, and most for a wrong k, whose draws explain
    the frames worst: the lead of the right k is overestimated, the more so the fewer the draws.

    Args:
        model: moved by k.
        batch: whole sequences.
        transformations: K.
        samples: S draws of z_0 ~ q(z_0 | x_0).
        seed: of the draws.
    """
    device = next(model.parameters()).device
    batch, found = batch.to(device), []
    for k in range(transformations):
        asked = batch.with_k(torch.full((len(batch),), k, device=device))
        start, log_q0, y = _proposals(model, asked, samples, torch.Generator(device).manual_seed(seed))
        path = model.rollout(start, y, range(batch.horizon + 1)).z
        log_x = _log_pixels(model, path, asked).sum(2)
        log_p0 = model.log_prior(start[:, None], torch.zeros_like(start[:, :1]), y)[:, 0]
        found.append(importance_weighted_log_likelihood(log_x + (log_p0 - log_q0).unflatten(0, (samples, -1))))
    return torch.stack(found, 1)
