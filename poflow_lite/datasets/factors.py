"""Grids of factors, as Shapes3D, Falcor3D and Isaac3D have them, and sequences in which exactly one factor moves."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from poflow_lite.datasets.sequences import Sequences, require_count
from poflow_lite.io import require_known


@dataclass(frozen=True)
class FactorSpace:
    """All combinations of n factors, in row-major order: the last factor runs fastest.

    The index of factors (f_1, …, f_n) is their number in mixed radix, i = ((f_1 s_2 + f_2) s_3 + f_3) …, with s the
    sizes; it is a bijection between the grid and 0..N-1, N = s_1 s_2 … s_n.

    Attributes:
        names: of the factors.
        sizes: how many values each has; factors take the values 0..size-1.

    Raises:
        ValueError: for no factors, as many names as there are not sizes, names that come twice, or sizes below 1.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.names or len(self.names) != len(self.sizes) or len(set(self.names)) != len(self.names):
            raise ValueError(f"each factor needs a name of its own and a size, got {self.names} and {self.sizes}")
        if min(self.sizes) < 1:
            raise ValueError(f"every factor needs at least one value, got sizes {self.sizes}")

    def __len__(self) -> int:
        return math.prod(self.sizes)

    @property
    def strides(self) -> tuple[int, ...]:
        """By how much the index grows when each factor grows by one."""
        return tuple(math.prod(self.sizes[place + 1 :]) for place in range(len(self.sizes)))

    def position(self, name: str) -> int:
        """Which factor carries a name; a ValueError that lists the known ones for another name."""
        require_known("factor", name, self.names)
        return self.names.index(name)

    def subspace(self, names: tuple[str, ...]) -> FactorSpace:
        """The grid of some of the factors, in the order given."""
        return FactorSpace(names, tuple(self.sizes[self.position(name)] for name in names))

    def index(self, factors: Tensor) -> Tensor:
        """Factors (..., n) ↦ index (...); a ValueError for what are not n integers, or one out of range."""
        if factors.shape[-1:] != (len(self.sizes),) or factors.is_floating_point():
            raise ValueError(
                f"expected integer factors (..., {len(self.sizes)}) ({', '.join(self.names)}), "
                f"got {tuple(factors.shape)} of {factors.dtype}"
            )
        for name, size, values in zip(self.names, self.sizes, factors.unbind(-1), strict=True):
            if ((values < 0) | (values >= size)).any():
                raise ValueError(f"the factor {name} takes the values 0..{size - 1}, and some value lies outside")
        return (factors * torch.tensor(self.strides, device=factors.device)).sum(-1)

    def factors(self, index: Tensor) -> Tensor:
        """Index (...) ↦ factors (..., n), the inverse of :meth:`index`; a ValueError unless integers in 0..N-1."""
        self.require_indices(index)
        return torch.stack(torch.unravel_index(index, self.sizes), -1)

    def require_indices(self, index: Tensor) -> None:
        """Raise a ValueError unless all are integers in 0..N-1."""
        integers = not (index.is_floating_point() or index.is_complex() or index.dtype == torch.bool)
        if not integers or (index.numel() and (index.min() < 0 or index.max() >= len(self))):
            raise ValueError(f"indices must be integers in 0..{len(self) - 1}, got {index.dtype} {index.flatten()[:4]}")


class FactorImages(Protocol):
    """Images of a whole grid of factors ``space``, of shape ``image_shape`` (3, H, W): in a file, or rendered."""

    space: FactorSpace
    image_shape: tuple[int, int, int]
    name: str

    def frames(self, index: Tensor) -> Tensor:
        """Images of grid indices (...): (..., 3, H, W), uint8."""
        ...


SHAPES3D = FactorSpace(
    ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation"),
    (10, 10, 10, 8, 4, 15),
)
"""3dshapes.h5 (Burgess & Kim 2018): 480,000 images."""

FALCOR3D = FactorSpace(
    ("lighting_intensity", "lighting_x", "lighting_y", "lighting_z", "camera_x", "camera_y", "camera_z"),
    (5, 6, 6, 6, 6, 6, 6),
)
"""Falcor3D (Nie et al. 2020): 233,280 images of a living room."""

ISAAC3D = FactorSpace(
    (
        "object_shape", "robot_x", "robot_y", "camera_height", "object_scale",
        "lighting_intensity", "lighting_y", "object_colour", "wall_colour",
    ),
    (3, 8, 5, 4, 4, 4, 6, 4, 4),
)  # fmt: skip
"""Isaac3D (Nie et al. 2020): 737,280 images of a robot arm in a kitchen."""

MOVED = {SHAPES3D: SHAPES3D.names[:4], FALCOR3D: FALCOR3D.names, ISAAC3D: ISAAC3D.names[1:]}
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
        space, moved: the grid, and the factors that move, in the order of k.
        split: of :data:`SHARES`; a ValueError for another one, or for an unknown factor.
        seed: of the division, and of the order.
    """
    require_known("split", split, SHARES)
    positions = [space.position(name) for name in moved]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(space), generator=generator)
    factors = space.factors(order)
    standing = [place for place in range(len(space.names)) if place not in positions]
    combinations = math.prod(space.sizes[place] for place in standing)
    if combinations >= 20:
        members = space.subspace(tuple(space.names[place] for place in standing)).index(factors[:, standing])
        scenes = order[_belongs(members, combinations, split, generator)]
        return torch.stack([scenes - space.factors(scenes)[:, place] * space.strides[place] for place in positions])
    chosen = _belongs(order, len(space), split, generator)
    rows = [order[chosen & (factors[:, place] == 0)] for place in positions]
    return torch.stack([row[: min(map(len, rows))] for row in rows])


def _belongs(members: Tensor, count: int, split: str, generator: torch.Generator) -> Tensor:
    """Which members, each one of 0..count-1, fall into a split of these."""
    rank = torch.randperm(count, generator=generator)[members] / count
    before = math.fsum(list(SHARES.values())[: list(SHARES).index(split)])
    return (rank >= before) & (rank < before + SHARES[split])


class FactorSequences(Sequences):
    """Sequences of images of a grid in which factor k takes the values start, start + 1, …, start + T.

    Args:
        images: of the grid; frames are asked of them when they are needed.
        starts: (K, N) grid indices of frame 0 with factor k at 0, such as :func:`starting_points` gives.
        moved: names of the K factors.
        horizon: T, below the size of every factor that moves.
        start: "fixed" starts at the value 0; "random" at any from which T steps are left.
        name, labelled: as for :class:`Sequences`.

    Raises:
        ValueError: for starts or a horizon that do not fit the grid, or a start whose factor k is not at 0 in row k.
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
        space = images.space.subspace(moved)
        if starts.ndim != 2 or len(starts) != len(moved) or not starts.numel():
            raise ValueError(f"starts must be (K, N) with K = {len(moved)} and N ≥ 1, got {tuple(starts.shape)}")
        if horizon >= min(space.sizes):
            size, factor = min(zip(space.sizes, moved, strict=True))
            raise ValueError(f"{factor} has {size} values, so that T can be {size - 1} at most, got {horizon}")
        super().__init__(moved, images.image_shape, horizon, start, name, labelled)
        self.images, self.starts, self.sizes = images, starts, torch.tensor(space.sizes)
        self.strides = torch.tensor([images.space.strides[images.space.position(factor)] for factor in moved])
        images.space.require_indices(starts)
        if (starts // self.strides[:, None] % self.sizes[:, None]).any():
            raise ValueError("factor k must be at 0 in row k of the starts, as in starting_points: it would carry")

    def __len__(self) -> int:
        return self.starts.shape[1]

    def first(self, count: int) -> FactorSequences:
        require_count(count)
        fewer = copy.copy(self)
        fewer.starts = self.starts[:, :count]
        return fewer

    def to(self, device: torch.device | str) -> FactorSequences:
        """Rendered scenes are rendered there; images that are read stay where they are."""
        moved = copy.copy(self)
        moved.images = self.images.to(device) if hasattr(self.images, "to") else self.images
        return moved

    def grid_indices(
        self, indices: Tensor, k: Tensor, times: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Where on the grid each frame lies, (B, n): frame 0 plus whole steps of factor k, which cannot carry."""
        if self.start == "random":
            room = self.sizes[k] - self.horizon
            times = times + (torch.rand(len(k), generator=generator) * room).long()[:, None]
        return self.starts[k, indices][:, None] + times * self.strides[k][:, None]

    def stills(self, indices: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Single images of given scenes (B,) and the factors that move, (B, C, H, W) in [0, 1] and integers (B, K).

        Factor 0 takes any of its values, drawn; the others those of the scene. So all K are independent and uniform,
        over whole ranges and not only the T+1 values of a sequence, where starts are those of :func:`starting_points`.
        """
        value = (torch.rand(len(indices), generator=generator) * self.sizes[0]).long()
        index = self.starts[0, indices] + value * self.strides[0]
        factors = torch.stack([index // s % n for s, n in zip(self.strides, self.sizes, strict=True)], 1)
        return self._images(index), factors

    def frames(self, indices: Tensor, k: Tensor, times: Tensor, generator: torch.Generator | None) -> Tensor:
        return self._images(self.grid_indices(indices, k, times, generator))

    def _images(self, index: Tensor) -> Tensor:
        return self.images.frames(index).to(torch.get_default_dtype()) / 255
