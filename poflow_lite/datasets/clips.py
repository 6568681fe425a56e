"""Labelled videos as sequences: clips as they are, each under the k that it shows."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from poflow_lite.datasets.images import as_images
from poflow_lite.datasets.sequences import Sequences, require_count


class ClipSequences(Sequences):
    """Labelled videos: each clip exists under its own k only, and starts where it starts.

    A batch draws clips uniformly, so that a class with more clips comes more often.

    Args:
        clips: (N, T+1, C, H, W), tensor or NumPy array, uint8 or floating point in [0, 1].
        k: (N,) integers, which class each clip shows.
        names: of the K classes.
        name: which data these are.
        labelled: how many clips *of each class*, the first ones, a weakly supervised model may look at k of.

    Raises:
        ValueError: as :func:`as_images`, or for k that do not fit the clips or the names, a class without clips.
    """

    def __init__(self, clips: Any, k: Any, names: Sequence[str], name: str = "unnamed", labelled: int = 0):
        clips, k = clips if isinstance(clips, Tensor) else np.asarray(clips), torch.as_tensor(k).cpu()
        if clips.ndim != 5 or clips.shape[0] < 1 or clips.shape[1] < 2:
            raise ValueError(f"clips must be (N, T+1, C, H, W) with N, T ≥ 1, got {tuple(clips.shape)}")
        if k.shape != clips.shape[:1] or k.is_floating_point() or k.dtype == torch.bool:
            raise ValueError(f"{len(clips)} clips need an integer k each, got k {tuple(k.shape)} of {k.dtype}")
        super().__init__(names, clips.shape[2:], clips.shape[1] - 1, "fixed", name, labelled)
        if outside := sorted(set(k.tolist()) - set(range(len(names)))):
            raise ValueError(f"k must lie in 0..{len(names) - 1} ({', '.join(names)}), got {outside}")
        if empty := [shown for label, shown in enumerate(names) if not (k == label).any()]:
            raise ValueError(f"no clip shows {', '.join(empty)}: give clips of it, or leave the name out")
        frames = as_images(clips.reshape(clips.shape[0] * clips.shape[1], *clips.shape[2:]))
        self.clips, self.k = frames.unflatten(0, tuple(clips.shape[:2])), k.long()
        earlier = F.one_hot(self.k, len(names)).cumsum(0) - 1
        self.rank = earlier.gather(1, self.k[:, None])[:, 0]  # how many clips of its class come before each clip

    def __len__(self) -> int:
        return len(self.clips)

    def first(self, count: int) -> ClipSequences:
        """The first ``count`` clips of each class, or all where there are fewer."""
        require_count(count)
        fewer, kept = copy.copy(self), self.rank < count
        fewer.clips, fewer.k, fewer.rank = self.clips[kept], self.k[kept], self.rank[kept]
        return fewer

    def of(self, k: int) -> Tensor:
        return (self.k == k).nonzero()[:, 0]

    def draw(self, size: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Random clips, each with its own k."""
        indices = torch.randint(len(self), (size,), generator=generator)
        return indices, self.k[indices]

    def is_labelled(self, indices: Tensor) -> Tensor:
        return self.rank[indices] < self.labelled

    def to(self, device: torch.device | str) -> ClipSequences:
        moved = copy.copy(self)
        moved.clips = self.clips.to(device)
        return moved

    def frames(self, indices: Tensor, k: Tensor, times: Tensor, generator: torch.Generator | None) -> Tensor:
        if (wrong := (self.k[indices] != k).nonzero()).numel():
            row = int(wrong[0])
            raise ValueError(
                f"clip {int(indices[row])} shows {self.names[self.k[indices[row]]]}, not {self.names[k[row]]}: "
                "of(k) gives the clips of a class"
            )
        return self.clips[indices[:, None].to(self.clips.device), times.to(self.clips.device)]
