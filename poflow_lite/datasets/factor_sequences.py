"""Sequences on a grid of factors: exactly one factor runs through its values, and all others stay."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from poflow_lite.datasets.factors import FALCOR3D, ISAAC3D, SHAPES3D, FactorImages, FactorSpace
from poflow_lite.datasets.sequences import Sequences
from poflow_lite.errors import require_known

__all__ = ["MOVED", "SHARES", "FactorSequences", "starting_points"]

MOVED = {
    SHAPES3D: ("floor_hue", "wall_hue", "object_hue", "scale"),
    FALCOR3D: FALCOR3D.names,
    ISAAC3D: tuple(name for name in ISAAC3D.names if name != "object_shape"),
}
"""Grid ↦ factors that move in the paper's protocol, in the order of k."""

SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
"""Split ↦ its share of what is divided."""


def starting_points(space: FactorSpace, moved: tuple[str, ...], split: str, seed: int = 0) -> Tensor:
    """The first frames of all sequences of a split, as grid indices (K, N) with factor k at 0, in random order.

    Where the factors that never move have 20 combinations or more, those are divided: no frame of a test sequence
    occurs in any training sequence, and row i is the same scene for every k. (Shapes3D: 60 combinations of shape and
    orientation.) Otherwise sequences are divided: no test sequence is a training sequence, but single frames of it can
    occur in training sequences of another k. (Falcor3D and Isaac3D, where all, or all but one, of the factors move.)

    Args:
        space: the grid.
        moved: the factors that move, in the order of k.
        split: of :data:`SHARES`.
        seed: of the division, and of the order.

    Raises:
        ValueError: for an unknown split or factor.
    """
    require_known("split", split, SHARES)
    positions = [space.position(name) for name in moved]
    sizes, strides = (torch.tensor(values)[positions] for values in (space.sizes, space.strides))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(space), generator=generator)
    standing = tuple(name for name in space.names if name not in moved)
    combinations = math.prod(space.sizes[space.position(name)] for name in standing)
    if combinations >= 20:
        rest = space.subspace(standing)
        combination = rest.index(space.factors(order)[:, [space.position(name) for name in standing]])
        scenes = order[_belongs(combination, combinations, split, generator)]
        return scenes - scenes // strides[:, None] % sizes[:, None] * strides[:, None]
    chosen = order[_belongs(order, len(space), split, generator)]
    rows = [chosen[chosen // stride % size == 0] for size, stride in zip(sizes, strides, strict=True)]
    return torch.stack([row[: min(map(len, rows))] for row in rows])


def _belongs(members: Tensor, count: int, split: str, generator: torch.Generator) -> Tensor:
    """Which members, each one of 0..count-1, fall into a split of these."""
    rank = torch.randperm(count, generator=generator)[members] / count
    before = math.fsum(share for name, share in SHARES.items() if list(SHARES).index(name) < list(SHARES).index(split))
    return (rank >= before) & (rank < before + SHARES[split])


class FactorSequences(Sequences):
    """Sequences of images of a grid in which factor k takes the values start, start + 1, …, start + T.

    Args:
        images: of the grid; frames are asked of them when they are needed.
        starts: (K, N) grid indices of frame 0 with factor k at 0, such as :func:`starting_points` gives.
        moved: names of the K factors.
        horizon: T, below the size of every factor that moves.
        start: "fixed" starts at the value 0; "random" at any from which T steps are left.
        name: which data these are.
        labelled: as for :class:`Sequences`.

    Raises:
        ValueError: for starts or a horizon that do not fit the grid.
    """

    def __init__(
        self,
        images: FactorImages,
        starts: Tensor,
        moved: tuple[str, ...],
        horizon: int,
        start: str = "fixed",
        name: str = "unnamed",
        labelled: int = 0,
    ):
        positions = [images.space.position(factor) for factor in moved]
        sizes = torch.tensor(images.space.sizes)[positions]
        if starts.ndim != 2 or len(starts) != len(moved) or not starts.numel():
            raise ValueError(f"starts must be (K, N) with K = {len(moved)} and N ≥ 1, got {tuple(starts.shape)}")
        if horizon >= sizes.min():
            size, factor = min(zip(sizes.tolist(), moved, strict=True))
            raise ValueError(f"{factor} has {size} values, so that T can be {size - 1} at most, got {horizon}")
        super().__init__(moved, images.image_shape, horizon, start, name, labelled)
        self.images, self.starts = images, starts
        self.sizes, self.strides = sizes, torch.tensor(images.space.strides)[positions]

    def __len__(self) -> int:
        return self.starts.shape[1]

    def first(self, count: int) -> FactorSequences:
        fewer = copy.copy(self)
        fewer.starts = self.starts[:, :count]
        return fewer

    def grid_indices(
        self, indices: Tensor, k: Tensor, times: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Where on the grid each frame lies, (B, n): frame 0 plus whole steps of factor k, which cannot carry."""
        if self.start == "random":
            room = self.sizes[k] - self.horizon
            times = times + (torch.rand(len(k), generator=generator) * room).long()[:, None]
        return self.starts[k, indices][:, None] + times * self.strides[k][:, None]

    def frames(self, indices: Tensor, k: Tensor, times: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.images.frames(self.grid_indices(indices, k, times, generator)).float() / 255
