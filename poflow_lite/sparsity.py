"""What is measured of a model that infers which of its fields move a sequence: :class:`models.SparseFlowVAE`.

Coefficients that were inferred from a whole sequence have seen its motion, so that predicting the same sequence with
them is no test of the flow alone. The fair test is transfer: coefficients of another sequence of the same k, applied
to this x_0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poflow_lite.datasets.sequences import Batch, Sequences
from poflow_lite.metrics import match_transformations
from poflow_lite.models import SparseFlowVAE

__all__ = ["Donors", "FieldUse", "field_use", "infer_all", "with_own_coefficients"]


@torch.no_grad()
def infer_all(model: SparseFlowVAE, sequences: Sequences, seed: int = 0, batch_size: int = 256) -> Tensor:
    """The coefficients of whole sequences, every image under every transformation: (K, N, M).

    Args:
        model: its :meth:`infer` sees the frames alone.
        sequences: N images, K transformations.
        seed: of random start poses.
        batch_size: images rendered at once.
    """
    device = next(model.parameters()).device
    found = []
    for k in range(len(sequences.names)):
        generator = torch.Generator().manual_seed(seed)
        chunks = torch.arange(len(sequences)).split(batch_size)
        frames = (sequences.batch(indices, k, generator=generator).frames for indices in chunks)
        found.append(torch.cat([model.infer(part.to(device)).cpu() for part in frames]))
    return torch.stack(found)


@torch.no_grad()
def with_own_coefficients(model: SparseFlowVAE, batch: Batch) -> Batch:
    """The batch with the coefficients that the model infers from it in place of k: it has seen the motion."""
    device = next(model.parameters()).device
    return Batch(batch.frames, batch.times, model.infer(batch.frames.to(device)).cpu(), batch.horizon)


class Donors:
    """Sequences whose coefficients are lent to others that the same transformation moves.

    k is used for nothing but to find a donor; the model gets x_0 and the donor's coefficients.

    Args:
        model: infers the donors' coefficients, once.
        sequences: the donors, of the training split.
        images: at most so many, the first ones.
        seed: of start poses, and of which donor each sequence gets: the same at every call.
    """

    def __init__(self, model: SparseFlowVAE, sequences: Sequences, images: int = 500, seed: int = 0):
        self.coefficients, self.seed = infer_all(model, sequences.first(images), seed), seed

    def __call__(self, batch: Batch) -> Batch:
        """The batch with a donor's coefficients (B, M) in place of k."""
        generator = torch.Generator().manual_seed(self.seed)
        donor = torch.randint(self.coefficients.shape[1], (len(batch),), generator=generator)
        return Batch(batch.frames, batch.times, self.coefficients[batch.k, donor], batch.horizon)


@dataclass(frozen=True)
class FieldUse:
    """Which fields move which transformation.

    Attributes:
        usage: mean |g_m| over the sequences of each k, (M, K).
        active: mean number of fields that are on (g_m ≠ 0) in a sequence of each k, (K,).
        accuracy: share of sequences whose strongest field is the one that stands for their k, under the best
            one-to-one matching: a transformation that several fields share is found in the sequences of one of them.
        purity: the same where each field stands for the k that uses it most, so that several may stand for one k; at
            least ``accuracy``.
        matching: the field that stands for each k in ``accuracy``, (K,).
    """

    usage: Tensor
    active: Tensor
    accuracy: float
    purity: float
    matching: Tensor


def field_use(coefficients: Tensor) -> FieldUse:
    """Measure the coefficients (K, N, M) of :func:`infer_all`.

    A sequence in which no field is on has no strongest field, and counts as wrong.

    Raises:
        ValueError: for another shape.
    """
    if coefficients.ndim != 3 or not coefficients.numel():
        raise ValueError(f"coefficients must be (K, N, M), got {tuple(coefficients.shape)}")
    transformations, count, fields = coefficients.shape
    strength = coefficients.abs()
    strongest = torch.where(strength.any(-1), strength.argmax(-1), fields)  # M: "none"
    true = torch.arange(transformations).repeat_interleave(count)
    counts = torch.stack([torch.bincount(row, minlength=fields + 1)[:fields] for row in strongest])  # (K, M)
    size = max(transformations, fields) + 1
    moved = strongest.flatten() < fields
    matching, accuracy = torch.arange(transformations), 0.0
    if moved.any():
        matching, share = match_transformations(strongest.flatten()[moved], true[moved], size)
        accuracy = share * moved.float().mean().item()
    return FieldUse(
        usage=strength.mean(1).T,
        active=(coefficients != 0).sum(-1).float().mean(1),
        accuracy=accuracy,
        purity=counts.amax(0).sum().item() / (transformations * count),
        matching=matching[:transformations],
    )
