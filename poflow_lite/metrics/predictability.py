"""Variation predictability (Zhu, Xu & Tao 2020): can a small network tell k from what a model generates?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poflow_lite.datasets import Sequences
from poflow_lite.metrics.prediction import Predictor, every_sequence
from poflow_lite.networks import seeded


@torch.no_grad()
def generated_pairs(
    predictor: Predictor, sequences: Sequences, images: int = 1000, seed: int = 0, batch_size: int = 256
) -> tuple[Tensor, Tensor]:
    """First and last frames of generated sequences, (N, 2, C, H, W), and the k that was asked for, (N,).

    Args:
        predictor: batch of whole sequences ↦ predicted frames; it sees frame 0 and k alone if it is honest.
        sequences: of test images; the first ``images`` of them, under every transformation.
        images, seed, batch_size: how many; of random start poses; images rendered at once.
    """
    pairs, labels = [], []
    for k, batch in every_sequence(sequences.first(images), batch_size, seed):
        pairs.append(predictor(batch)[:, [0, -1]])
        labels.append(torch.full((len(batch),), k, device=pairs[-1].device))  # batch.k may be coefficients
    return torch.cat(pairs), torch.cat(labels)


@dataclass(frozen=True)
class VPScore:
    """Accuracy of naming k on pairs that were not trained on: its mean over seeds, their standard deviation, each."""

    mean: float
    spread: float
    accuracies: tuple[float, ...]


def vp_score(
    pairs: Tensor,
    k: Tensor,
    *,
    share: float = 0.1,
    epochs: int = 60,
    seeds: Sequence[int] = (0, 1, 2),
    batch_size: int = 64,
) -> VPScore:
    """Train a small CNN on a ``share`` of generated pairs to name k, and test it on all others.

    The accuracy is that after the last epoch: choosing the best epoch on the test pairs would inflate it.

    Args:
        pairs, k: (N, 2, C, H, W) and (N,) integers, of :func:`generated_pairs`.
        share, epochs, batch_size: of the pairs that are trained on; passes through them; pairs in a step.
        seeds: one split and one network for each.

    Raises:
        ValueError: for shapes that do not fit, NaN, fewer than two k, a share outside (0, 1), no pair left on one side,
            or fewer than one epoch, seed or pair in a step.
    """
    if pairs.ndim != 5 or pairs.shape[1] != 2 or k.shape != pairs.shape[:1]:
        raise ValueError(f"pairs must be (N, 2, C, H, W) and k (N,), got {tuple(pairs.shape)} and {tuple(k.shape)}")
    if not pairs.isfinite().all():
        raise ValueError("pairs hold NaN or infinite pixels: look at the model that generated them")
    if k.is_floating_point() or k.unique().numel() < 2 or k.min() < 0:
        raise ValueError(f"k must be integers from 0 with two values at least, got {k.unique().tolist()} of {k.dtype}")
    if min(epochs, batch_size, len(seeds), *(side - 1 for side in pairs.shape[3:])) < 1:
        raise ValueError(
            f"at least 1 epoch, 1 pair in a step, 1 seed and images of 2 x 2 are needed, got {epochs}, {batch_size}, "
            f"{len(seeds)} and {tuple(pairs.shape[3:])}"
        )
    trained = round(share * len(pairs)) if 0 < share < 1 else 0
    if not 0 < trained < len(pairs):
        raise ValueError(f"a share of {share} of {len(pairs)} pairs leaves none to train on, or none to test on")
    inputs = torch.cat([pairs[:, 0], pairs[:, 1], pairs[:, 1] - pairs[:, 0]], 1)
    accuracies = tuple(_accuracy(inputs, k, trained, epochs, seed, batch_size) for seed in seeds)
    values = torch.tensor(accuracies, dtype=torch.float64)
    return VPScore(values.mean().item(), values.std(correction=0).item(), accuracies)


def _accuracy(inputs: Tensor, k: Tensor, trained: int, epochs: int, seed: int, batch_size: int) -> float:
    """One split, one network, trained to the last epoch."""
    generator = torch.Generator().manual_seed(seed)
    fitted, held_out = torch.randperm(len(inputs), generator=generator).split([trained, len(inputs) - trained])
    with seeded(seed):
        network = _network(inputs.shape[1], int(k.max()) + 1).to(inputs)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(epochs):
        for part in fitted[torch.randperm(trained, generator=generator)].split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(network(inputs[part]), k[part]).backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        named = torch.cat([network(inputs[part]).argmax(1) for part in held_out.split(1024)])
    return (named == k[held_out]).double().mean().item()


def _network(channels: int, classes: int) -> nn.Module:
    """Two strided convolutions, their average over a 4 × 4 grid, one layer: a few thousand weights."""
    convolutions = [nn.Conv2d(channels, 16, 4, 2, 1), nn.SiLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.SiLU()]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, classes))
