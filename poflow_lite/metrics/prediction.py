"""How well a model predicts frames: the equivariance error, beside its references."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from poflow_lite.datasets import Batch, Sequences

Predictor = Callable[[Batch], Tensor]
"""Batch of whole sequences ↦ predicted frames (B, T+1, C, H, W)."""


# --- predictors ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def predict(model: Any, batch: Batch) -> Tensor:
    """x̂_t = E[x | z_t] with z_t carried from the posterior mean of frame 0 by the model's own rollout.

    Only frame 0 and k are looked at. Returns (B, T+1, C, H, W).
    """
    device = next(model.parameters()).device
    start = model.encode(batch.frames[:, 0].to(device)).mean
    trajectory = model.rollout(start, batch.k.to(device), range(batch.horizon + 1))
    return model.decode(trajectory.z).mean.to(batch.frames.device)


def persistence(batch: Batch) -> Tensor:
    """x_0 for every t: what no motion scores."""
    return batch.frames[:, :1].expand_as(batch.frames)


class MedianFrame:
    """The pixel-wise median over training images of x_t for each (k, t): the best constant prediction under L1.

    It knows k and t but nothing of the image, and still beats :func:`persistence` on rotation; hence it is shown.

    Args:
        training: sequences of the training images; with a random start pose one pose is drawn for each image.
        images: at most so many images under each transformation are used, the first ones.
        generator: draws random start poses.
    """

    def __init__(self, training: Sequences, images: int = 2000, generator: torch.Generator | None = None):
        medians = [
            training.batch(training.of(k)[:images], k, generator=generator).frames.median(0).values
            for k in range(len(training.names))
        ]
        self.frames = torch.stack(medians)  # (K, T+1, C, H, W)

    def __call__(self, batch: Batch) -> Tensor:
        return self.frames.to(batch.frames.device)[batch.k]


@torch.no_grad()
def reconstruct(model: Any, frames: Tensor | Batch) -> Tensor:
    """x̂_t = E[x | μ(x_t)]: each frame (B, n, C, H, W), or each of a batch, encoded and decoded by itself.

    Its error is the floor of an operator that is fitted to codes of x_t. It is no floor for a flow, which decodes
    latents of its own, and says little of a model whose encoder was trained on x_0 alone.
    """
    frames = frames.frames if isinstance(frames, Batch) else frames
    shown = frames.to(next(model.parameters()).device)
    latents = model.encode(shown.flatten(0, 1)).mean
    return model.decode(latents.unflatten(0, frames.shape[:2])).mean.to(frames.device)


# --- equivariance error -------------------------------------------------------------------------------------------


def l1(predicted: Tensor, true: Tensor) -> Tensor:
    """‖x̂_t - x_t‖_1 of each frame, (B, n): summed over pixels and channels, in pixel intensities, float64."""
    return (predicted - true).abs().flatten(2).sum(-1, dtype=torch.float64)


def every_sequence(
    sequences: Sequences, batch_size: int = 256, seed: int = 0, progress: bool = False
) -> Iterator[tuple[int, Batch]]:
    """All sequences of every transformation, k by k, in batches: (k, batch) pairs.

    Args:
        sequences: every image under every transformation that it has.
        batch_size: images rendered at once.
        seed: of random start poses, which are drawn batch by batch, the same for each k.
        progress: show a bar.
    """
    from tqdm.auto import tqdm

    moved = [(k, indices) for k in range(len(sequences.names)) if len(indices := sequences.of(k))]
    chunks = [(k, part) for k, indices in moved for part in indices.split(batch_size)]
    generators = [torch.Generator().manual_seed(seed) for _ in sequences.names]
    for k, indices in tqdm(chunks, disable=not progress, desc="evaluating", leave=False):
        yield k, sequences.batch(indices, k, generator=generators[k])


def equivariance_errors(
    predictors: Mapping[str, Predictor],
    sequences: Sequences,
    *,
    distance: Callable[[Tensor, Tensor], Tensor] = l1,
    batch_size: int = 256,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> dict[str, dict[str, float]]:
    """E_k = mean over sequences of Σ_{t=1..T} ‖x_t - x̂_t‖_1, summed over pixels and channels, for each k.

    Args:
        predictors: name ↦ function from a batch of whole sequences to predicted frames; all see the same frames.
        sequences: test images; every image under every transformation.
        distance: predicted and true frames (B, n, C, H, W) ↦ (B, n).
        batch_size, seed, progress: as for :func:`every_sequence`.
        device: where batches are put before they are predicted; once for all predictors.

    Returns:
        Predictor name ↦ transformation name ↦ error summed over T frames, by default in pixel intensities; NaN for a
        transformation that moves none of these images.

    Raises:
        ValueError: if a predictor returns frames of another shape.
    """
    moved = {name for k, name in enumerate(sequences.names) if len(sequences.of(k))}
    totals = {who: {name: 0.0 if name in moved else math.nan for name in sequences.names} for who in predictors}
    for k, batch in every_sequence(sequences, batch_size, seed, progress):
        batch = batch.to(device)
        for name, predictor in predictors.items():
            frames = predictor(batch)
            if frames.shape != batch.frames.shape:
                raise ValueError(f"{name} must predict frames {tuple(batch.frames.shape)}, got {tuple(frames.shape)}")
            error = distance(frames[:, 1:], batch.frames[:, 1:]).sum().item()
            totals[name][sequences.names[k]] += error / len(sequences.of(k))
    return totals


def equivariance_error(model: Any, sequences: Sequences, **options: Any) -> dict[str, float]:
    """:func:`equivariance_errors` of one model's :func:`predict`: transformation name ↦ error."""
    return equivariance_errors({"model": partial(predict, model)}, sequences, **options)["model"]


@torch.no_grad()
def smallest_eigenvalue(model: Any, batch: Batch) -> float:
    """Smallest eigenvalue of the symmetric part of I + ∂v/∂z along the trajectories of a batch.

    For a gradient field, at or below 0 a step may fold space. For other fields it says nothing of folds: a quarter turn
    has 0 and is invertible.
    """
    device = next(model.parameters()).device
    start = model.encode(batch.frames[:, 0].to(device)).mean
    trajectory = model.flow.rollout(start, batch.k.to(device), range(batch.horizon + 1))
    return model.flow.smallest_eigenvalue(trajectory).min().item()
