"""What a model that infers k, or coefficients of its fields, makes of sequences that it is told nothing of.

Coefficients that were inferred from a whole sequence have seen its motion, so that predicting the same sequence with
them is no test of the flow alone. The fair test is transfer: coefficients of another sequence of the same k, applied
to this x_0.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from poflow_lite.datasets import Batch, Sequences
from poflow_lite.metrics.prediction import every_sequence


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
    if inferred.is_floating_point() or true.is_floating_point():
        raise ValueError(f"inferred and true must be integers, got {inferred.dtype} and {true.dtype}")
    both = torch.stack([inferred, true]).cpu().long()
    if both.min() < 0 or both.max() >= transformations:
        raise ValueError(f"indices must lie in 0..{transformations - 1}, got {int(both.min())} to {int(both.max())}")
    counts = torch.bincount(both[1] * transformations + both[0], minlength=transformations**2)
    counts = counts.view(transformations, transformations)
    rows, columns = linear_sum_assignment(counts.numpy(), maximize=True)
    return torch.from_numpy(columns), counts[rows, columns].sum().item() / len(true)


@torch.no_grad()
def infer_all(model: Any, sequences: Sequences, seed: int = 0, batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """What ``model.infer`` makes of whole sequences, every image under every transformation, from the frames alone.

    Args:
        model: infers an index or coefficients.
        sequences: N in all.
        seed, batch_size: as for :func:`metrics.every_sequence`.

    Returns:
        Inferred, (N,) or (N, M), and the true k, (N,).
    """
    device = next(model.parameters()).device
    inferred, true = [], []
    for _, batch in every_sequence(sequences, batch_size, seed):
        inferred.append(model.infer(batch.frames.to(device)).cpu())
        true.append(batch.k)
    return torch.cat(inferred), torch.cat(true)


def clustering_accuracy(model: Any, sequences: Sequences, **options: Any) -> tuple[float, Tensor]:
    """How often a model names the transformation of a whole sequence, under the best matching; and that matching.

    Args: as for :func:`infer_all`. Returns: as :func:`match_transformations`, the share first.
    """
    matching, share = match_transformations(*infer_all(model, sequences, **options), len(sequences.names))
    return share, matching


# --- coefficients -------------------------------------------------------------------------------------------------


@torch.no_grad()
def with_own_coefficients(model: Any, batch: Batch) -> Batch:
    """The batch with the coefficients that the model infers from it in place of k: it has seen the motion."""
    frames = batch.frames.to(next(model.parameters()).device)
    return batch.with_k(model.infer(frames).to(batch.k.device))


def with_coefficients(sequences: Sequences, change: Callable[[Batch], Batch]) -> Sequences:
    """The same sequences, whose batches have passed through ``change``: :func:`with_own_coefficients`, :class:`Donors`.

    So whatever measures a model that is told k measures one that reads its motion off frames.
    """
    asked, before = copy.copy(sequences), sequences.change
    asked.change = change if before is None else lambda batch: change(before(batch))
    return asked


def as_asked(model: Any, sequences: Sequences) -> Sequences:
    """Sequences as a model is to be asked about them: by k, or by what it reads off them where it knows no k."""
    if getattr(model, "names_k", None) is not False:
        return sequences
    return with_coefficients(sequences, partial(with_own_coefficients, model))


class Donors:
    """Sequences whose coefficients are lent to others that the same transformation moves.

    k is used for nothing but to find a donor; the model gets x_0 and the donor's coefficients.

    Args:
        model: infers the donors' coefficients, once.
        sequences: the donors, of the training split.
        images: at most so many under each transformation, the first ones.
        seed: of start poses, and of which donor each sequence gets: the same at every call.
    """

    def __init__(self, model: Any, sequences: Sequences, images: int = 500, seed: int = 0):
        self.coefficients, self.k = infer_all(model, sequences.first(images), seed)
        self.seed = seed

    def __call__(self, batch: Batch) -> Batch:
        """The batch with a donor's coefficients (B, M) in place of k."""
        draws = torch.rand(len(batch), generator=torch.Generator().manual_seed(self.seed))
        lent = torch.zeros(len(batch), self.coefficients.shape[1])
        for k in batch.k.unique():
            own, donors = (batch.k == k).cpu(), self.coefficients[self.k == int(k)]
            if not len(donors):
                raise ValueError(f"no donor of k = {int(k)}; there are donors of {self.k.unique().tolist()}")
            lent[own] = donors[(draws[own] * len(donors)).long()]
        return batch.with_k(lent.to(batch.frames.device))


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


def field_use(coefficients: Tensor, k: Tensor) -> FieldUse:
    """Measure coefficients (N, M) of sequences whose true transformations are k (N,), as :func:`infer_all` gives both.

    A sequence in which no field is on has no strongest field, and counts as wrong.

    Raises:
        ValueError: for other shapes, NaN, or k that are not integers from 0.
    """
    if coefficients.ndim != 2 or k.shape != coefficients.shape[:1] or not coefficients.numel():
        raise ValueError(
            f"coefficients (N, M) and k (N,) are needed, got {tuple(coefficients.shape)}, {tuple(k.shape)}"
        )
    if not coefficients.isfinite().all() or k.is_floating_point() or k.min() < 0:
        raise ValueError(f"coefficients must be finite and k integers from 0, got {coefficients.dtype} and {k.dtype}")
    transformations, fields = int(k.max()) + 1, coefficients.shape[1]
    strength = coefficients.abs()
    strongest, on = strength.argmax(1), strength.any(1)
    counts = torch.zeros(transformations, fields)
    counts.index_put_((k[on], strongest[on]), torch.ones(int(on.sum())), accumulate=True)
    matching, accuracy = torch.arange(transformations), 0.0
    if on.any():
        matching, share = match_transformations(strongest[on], k[on], max(transformations, fields))
        accuracy = share * on.float().mean().item()
    own = [k == i for i in range(transformations)]
    return FieldUse(
        usage=torch.stack([strength[rows].mean(0) for rows in own], 1),
        active=torch.stack([(coefficients[rows] != 0).sum(1).float().mean() for rows in own]),
        accuracy=accuracy,
        purity=counts.amax(0).sum().item() / len(k),
        matching=matching[:transformations],
    )
