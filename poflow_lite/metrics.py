"""What the course measures: equivariance error beside its references, and importance-weighted log-likelihood.

All functions are deterministic given their generator, and report each transformation on its own, so that no figure
depends on the order in which they are computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from poflow_lite.datasets.sequences import Batch, Sequences
from poflow_lite.errors import require_known
from poflow_lite.models import VAE, WeaklySupervisedVAE
from poflow_lite.objectives import (
    diagonal_normal,
    gaussian_ceiling,
    importance_weighted_log_likelihood,
    reparameterize,
)

__all__ = [
    "LogLikelihood",
    "MedianFrame",
    "autoencode",
    "autoencode_frames",
    "equivariance_error",
    "equivariance_errors",
    "index_accuracy",
    "log_likelihood",
    "match_transformations",
    "no_motion",
    "predict",
    "smallest_eigenvalue",
]

Predictor = Callable[[Batch], Tensor]
"""Batch of whole sequences ↦ predicted frames (B, T+1, C, H, W)."""


# --- predictors ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def predict(model: VAE, batch: Batch) -> Tensor:
    """x̂_t = E[x | z_t] with z_t carried from the posterior mean of frame 0 by the model's own transport.

    Only frame 0 and k are looked at. Returns (B, T+1, C, H, W).
    """
    device = next(model.parameters()).device
    start = model.encode(batch.frames[:, 0].to(device)).mean
    path = model.transport(start, batch.k.to(device), batch.horizon)
    return model.decode(path.z).mean.to(batch.frames.device)


def no_motion(batch: Batch) -> Tensor:
    """x_0 for every t: what standing still scores."""
    return batch.frames[:, :1].expand_as(batch.frames)


class MedianFrame:
    """The pixel-wise median over training images of x_t for each (k, t): the best constant prediction under L1.

    It knows k and t but nothing of the image, and still beats :func:`no_motion` on rotation; hence it is shown.

    Args:
        training: sequences of the training images; with a random start pose one pose is drawn for each image.
        images: at most so many images are used, the first ones.
        generator: draws random start poses.
    """

    def __init__(self, training: Sequences, images: int = 2000, generator: torch.Generator | None = None):
        indices = torch.arange(min(images, len(training)))
        medians = [
            training.batch(indices, k, generator=generator).frames.median(0).values for k in range(len(training.names))
        ]
        self.frames = torch.stack(medians)  # (K, T+1, C, H, W)

    def __call__(self, batch: Batch) -> Tensor:
        return self.frames[batch.k]


@torch.no_grad()
def autoencode(model: VAE, batch: Batch) -> Tensor:
    """x̂_t = E[x | μ(x_t)]: each frame encoded and decoded by itself, (B, T+1, C, H, W).

    Its error is the reconstruction floor: what remains when the motion is known and only coding errs. It means
    something for a model whose encoder was trained on frames x_t of all t, not on x_0 alone.
    """
    frames = batch.frames.to(next(model.parameters()).device)
    return autoencode_frames(model, frames).to(batch.frames.device)


@torch.no_grad()
def autoencode_frames(model: VAE, frames: Tensor) -> Tensor:
    """E[x | μ(x_t)] of frames (B, n, C, H, W) on the model's device, each by itself."""
    latents = model.encode(frames.flatten(0, 1)).mean
    return model.decode(latents.unflatten(0, frames.shape[:2])).mean


# --- equivariance error -------------------------------------------------------------------------------------------


def equivariance_errors(
    predictors: dict[str, Predictor],
    sequences: Sequences,
    *,
    batch_size: int = 256,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, dict[str, float]]:
    """E_k = mean over sequences of Σ_{t=1..T} ‖x_t - x̂_t‖_1, summed over pixels and channels, for each k.

    Args:
        predictors: name ↦ function from a batch of whole sequences to predicted frames; all see the same frames.
        sequences: test images; every image under every transformation.
        batch_size: images rendered at once.
        seed: of random start poses, which are drawn batch by batch.
        progress: show a bar.

    Returns:
        Predictor name ↦ transformation name ↦ L1 error summed over T frames, in pixel intensities.

    Raises:
        ValueError: if a predictor returns frames of another shape.
    """
    totals = {predictor: dict.fromkeys(sequences.names, 0.0) for predictor in predictors}
    for transformation, batch in _every_sequence(sequences, batch_size, seed, progress):
        for name, predictor in predictors.items():
            frames = predictor(batch)
            if frames.shape != batch.frames.shape:
                raise ValueError(f"{name} must predict frames {tuple(batch.frames.shape)}, got {tuple(frames.shape)}")
            error = (frames - batch.frames)[:, 1:].abs().sum(dtype=torch.float64).item()
            totals[name][transformation] += error / len(sequences)
    return totals


def equivariance_error(model: VAE, sequences: Sequences, **options: Any) -> dict[str, float]:
    """:func:`equivariance_errors` of one model's :func:`predict`: transformation name ↦ error."""
    return equivariance_errors({"model": partial(predict, model)}, sequences, **options)["model"]


def _every_sequence(sequences: Sequences, batch_size: int, seed: int, progress: bool) -> Iterator[tuple[str, Batch]]:
    from tqdm.auto import tqdm

    chunks = torch.arange(len(sequences)).split(batch_size)
    with tqdm(total=len(chunks) * len(sequences.names), disable=not progress, desc="evaluating", leave=False) as bar:
        for k, name in enumerate(sequences.names):
            generator = torch.Generator().manual_seed(seed)
            for indices in chunks:
                yield name, sequences.batch(indices, k, generator=generator)
                bar.update()


@torch.no_grad()
def smallest_eigenvalue(model: VAE, batch: Batch) -> float:
    """Smallest eigenvalue of I + ∇²u along the paths of a batch: at or below 0 the flow is not invertible."""
    device = next(model.parameters()).device
    k = batch.k.to(device)
    path = model.transport(model.encode(batch.frames[:, 0].to(device)).mean, k, batch.horizon)
    return model.flow.smallest_eigenvalue(path, k).min().item()


def match_transformations(inferred: Tensor, true: Tensor, transformations: int) -> tuple[Tensor, float]:
    """The one-to-one matching of true to inferred indices that agrees most often (Hungarian algorithm), and how often.

    Args:
        inferred: (N,) integers in 0..K-1, what a model calls each sequence.
        true: (N,) integers in 0..K-1.
        transformations: K.

    Returns:
        (K,), the inferred index that stands for each true one, and the share of sequences that agree with it.

    Raises:
        ValueError: for shapes that differ, no sequences, or an index out of range.
    """
    from scipy.optimize import linear_sum_assignment

    if inferred.shape != true.shape or inferred.ndim != 1 or not len(true):
        raise ValueError(f"inferred and true must both be (N,), got {tuple(inferred.shape)} and {tuple(true.shape)}")
    both = torch.stack([inferred, true]).cpu()
    if both.min() < 0 or both.max() >= transformations:
        raise ValueError(f"indices must lie in 0..{transformations - 1}, got {int(both.min())} to {int(both.max())}")
    counts = torch.bincount(both[1] * transformations + both[0], minlength=transformations**2)
    counts = counts.view(transformations, transformations)
    rows, columns = linear_sum_assignment(counts.numpy(), maximize=True)
    return torch.from_numpy(columns), counts[rows, columns].sum().item() / len(true)


@torch.no_grad()
def index_accuracy(
    model: WeaklySupervisedVAE, sequences: Sequences, *, batch_size: int = 256, seed: int = 0
) -> tuple[float, Tensor]:
    """How often a model names the transformation of a whole sequence, under the best matching; and that matching.

    Args:
        model: its :meth:`infer` sees the frames alone.
        sequences: every image under every transformation.
        batch_size: images rendered at once.
        seed: of random start poses.

    Returns:
        As :func:`match_transformations`, the share first.
    """
    device = next(model.parameters()).device
    inferred, true = [], []
    for _, batch in _every_sequence(sequences, batch_size, seed, progress=False):
        inferred.append(model.infer(batch.frames.to(device)).cpu())
        true.append(batch.k)
    matching, share = match_transformations(torch.cat(inferred), torch.cat(true), len(sequences.names))
    return share, matching


# --- log-likelihood -----------------------------------------------------------------------------------------------


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
    model: VAE,
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
        model: its decoder mean is x̂, its transport makes the proposals for prediction.
        sequences: test images; the first ``images`` of them under every transformation.
        images: how many.
        samples: S; 100 or more for figures that are reported.
        seed: of start poses and proposals.
        estimates: which of the two, or both.
        progress: show a bar.

    Raises:
        ValueError: for an unknown estimate.
        RuntimeError: if a mean exceeds the ceiling or is NaN, which would mean that an estimator or the model is wrong.
    """
    from tqdm.auto import tqdm

    estimators = {"prediction": _prediction, "reconstruction": _reconstruction}
    for name in estimates:
        require_known("estimate", name, estimators)
    device = next(model.parameters()).device
    images = min(images, len(sequences))
    generator = torch.Generator().manual_seed(seed)
    proposals = torch.Generator(device).manual_seed(seed)
    found: dict[str, list[Tensor]] = {name: [] for name in estimates}
    work = [(i, k) for k in range(len(sequences.names)) for i in range(images)]
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
            raise RuntimeError(f"{name} log-likelihood {mean:.1f} is not below its ceiling of {ceiling:.1f} nats")
    both = dict.fromkeys(estimators) | means
    return LogLikelihood(**both, standard_error=errors, ceiling=ceiling, sequences=len(work), samples=samples)


def _prediction(model: VAE, batch: Batch, samples: int, generator: torch.Generator) -> Tensor:
    """Proposals z_t = flow of z_0 ~ q(z_0 | x_0), with their exact density; the mean estimate over t, a scalar."""
    posterior = model.encode(batch.frames[:, 0])
    posterior = diagonal_normal(*(p.expand(samples, -1) for p in (posterior.mean, posterior.base_dist.scale)))
    start = reparameterize(posterior, generator)
    path = model.transport(start, batch.k.expand(samples), batch.horizon)
    return _estimate(model, batch, path.z, path.log_density(posterior.log_prob(start)))


def _reconstruction(model: VAE, batch: Batch, samples: int, generator: torch.Generator) -> Tensor:
    """Proposals z_t ~ q(z | x_t), each frame by itself; the mean estimate over t, a scalar."""
    posterior = model.encode(batch.frames[0])
    posterior = diagonal_normal(*(p.expand(samples, -1, -1) for p in (posterior.mean, posterior.base_dist.scale)))
    z = reparameterize(posterior, generator)
    return _estimate(model, batch, z, posterior.log_prob(z))


def _estimate(model: VAE, batch: Batch, z: Tensor, log_q: Tensor) -> Tensor:
    """Mean over t of log (1/S) Σ_s p(x_t | z) p_t(z | k) / q(z) for one sequence and S proposals z (S, T+1, d)."""
    squares = (batch.frames - model.decode(z).mean).square().flatten(2).sum(-1)
    log_p = gaussian_ceiling(batch.frames[0, 0].numel()) - 0.5 * squares
    log_prior = model.log_prior(z, batch.times.expand(len(z), -1), batch.k.expand(len(z)))
    return importance_weighted_log_likelihood(log_p + log_prior - log_q).mean()
