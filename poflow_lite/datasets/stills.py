"""Still images with labels, and the selection of some classes: what sequences are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["SPLITS", "Stills", "in_red", "only", "without"]

SPLITS = ("train", "validation", "test")


@dataclass
class Stills:
    """Images of one split with their labels.

    Attributes:
        images: (N, 3, 28, 28) in [0, 1]; what they show is in the red channel, as in the paper.
        labels: (N,) integers, indices into ``classes``.
        data: which data set this is, as printed.
        split: "train", "validation" or "test".
        classes: what the labels stand for.
        selection: which images were chosen, as in " without 7, 8"; empty for all of the split.
    """

    images: Tensor
    labels: Tensor
    data: str
    split: str
    classes: tuple[str, ...] = tuple("0123456789")
    selection: str = ""

    @property
    def name(self) -> str:
        """Data set, split, size and selection, as printed and recorded: "digits (train, 880 images without 7, 8)"."""
        return f"{self.data} ({self.split}, {len(self.images):,} images{self.selection})"


def in_red(grey: Tensor) -> Tensor:
    """(N, H, W) intensities → (N, 3, H, W) with the picture in the red channel."""
    images = torch.zeros(len(grey), 3, *grey.shape[1:])
    images[:, 0] = grey
    return images


def only(stills: Stills, labels: Sequence[int]) -> Stills:
    """The images whose label is one of ``labels``, in their order; the name says which.

    Raises:
        ValueError: if a label does not occur, or none is given.
    """
    labels, chosen = _occurring(stills, labels)
    return _select(stills, chosen, "of only", labels)


def without(stills: Stills, labels: Sequence[int]) -> Stills:
    """The images whose label is none of ``labels``, in their order; the name says which are left out.

    Raises:
        ValueError: if a label does not occur, or no image is left.
    """
    labels, left_out = _occurring(stills, labels)
    return _select(stills, ~left_out, "without", labels) if labels else stills


def _occurring(stills: Stills, labels: Sequence[int]) -> tuple[list[int], Tensor]:
    """The labels in order, each once, and which images carry one of them."""
    labels, there = sorted(set(labels)), set(stills.labels.tolist())
    lacking = [label for label in labels if label not in there]
    if lacking:
        raise ValueError(
            f"no image of {stills.name} has the label {', '.join(map(str, lacking))}; "
            f"labels that occur: {', '.join(map(str, sorted(there)))}"
        )
    return labels, torch.isin(stills.labels, torch.tensor(labels, dtype=stills.labels.dtype))


def _select(stills: Stills, chosen: Tensor, how: str, labels: list[int]) -> Stills:
    if not chosen.any():
        raise ValueError(f"no image of {stills.name} is left: chosen were those {how} the labels {labels}")
    selection = f"{stills.selection} {how} {', '.join(stills.classes[label] for label in labels)}"
    return replace(stills, images=stills.images[chosen], labels=stills.labels[chosen], selection=selection)
