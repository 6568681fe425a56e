"""Motions that were never trained: transformations one after the other, several at once, slower, faster, longer.

Their ground truth is rendered, so that whatever a model makes of them can be measured in pixels.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from poflow_lite.datasets.sequences import TransformationSequences
from poflow_lite.datasets.transformations import generator_matrix, place, pose_matrix
from poflow_lite.errors import require_known

__all__ = ["Motion", "Phase", "render_motion"]


@dataclass(frozen=True)
class Phase:
    """A stretch of a motion, with a clock of its own that starts at 0.

    Attributes:
        moving: names of the transformations that move, at once.
        frames: how many frames it takes.
        speed: how far the clock runs in one frame; 1 as in training, ½ in slow motion.
    """

    moving: tuple[str, ...]
    frames: int
    speed: float = 1.0

    def __post_init__(self) -> None:
        if not self.moving or self.frames < 1 or not self.speed > 0:
            raise ValueError(
                "a phase needs at least one transformation, one frame and a positive speed, "
                f"got {self.moving}, {self.frames} and {self.speed}"
            )

    @property
    def clock(self) -> Tensor:
        """(frames + 1,): 0, speed, 2 speed, …"""
        return self.speed * torch.arange(self.frames + 1)


@dataclass(frozen=True)
class Motion:
    """Phases, one after the other; or all of it played backwards, from the last frame to the first.

    Attributes:
        phases: in the order of time.
        backwards: start in the last frame.
    """

    phases: tuple[Phase, ...]
    backwards: bool = False

    @property
    def frames(self) -> int:
        """Of all phases together; frame 0 comes on top."""
        return sum(phase.frames for phase in self.phases)

    @property
    def name(self) -> str:
        """For tables: "scale, then rotate", "scale + hue", "rotate, backwards"."""
        return ", then ".join(" + ".join(phase.moving) for phase in self.phases) + ", backwards" * self.backwards

    def weights(self, names: tuple[str, ...]) -> list[Tensor]:
        """For each phase the mixing weights (K,): 1 for what moves.

        Raises:
            ValueError: for a transformation that is not among ``names``.
        """
        for name in itertools.chain.from_iterable(phase.moving for phase in self.phases):
            require_known("transformation", name, names)
        return [torch.tensor([float(name in phase.moving) for name in names]) for phase in self.phases]


def render_motion(
    sequences: TransformationSequences, indices: Tensor, motion: Motion, generator: torch.Generator | None = None
) -> Tensor:
    """The true frames of a motion: (B, frames + 1, C, H, W) in [0, 1].

    In one frame the transformations that move, each by Δa along its path, act together as exp(Σ_k Δa_k G_k), with G_k
    the generator of the group; for transformations that commute that is one after the other, in any order. What moves
    later acts on what has moved before. One interpolation renders each frame, whatever the number of phases.

    Args:
        sequences: the stills, their transformations, and whether start poses are random.
        indices: (B,), which stills.
        motion: what moves, and when.
        generator: draws the start poses.

    Raises:
        ValueError: for a transformation that the sequences do not have.
    """
    transformations = sequences.transformations
    start = sequences.start_pose(len(indices), generator)  # (B, K)
    changes = _changes(motion, sequences)  # (frames, K)
    steps = torch.matrix_exp(torch.einsum("nk,kij->nij", changes, _generators(transformations)))
    first = pose_matrix(start, transformations)
    matrices = [torch.eye(3).expand(len(start), 3, 3) if first is None else first]  # each (B, 3, 3)
    for step in steps.to(start):
        matrices.append(step @ matrices[-1])
    count = len(matrices)
    images = sequences.images[indices].repeat_interleave(count, 0)
    progress = torch.cat([torch.zeros(1, len(transformations)), changes.cumsum(0)]).to(start)
    pose = (start[:, None] + progress).flatten(0, 1)  # for the colours, which all commute
    placed = place(images, torch.stack(matrices, 1).flatten(0, 1), pose, transformations)
    frames = placed.unflatten(0, (len(indices), count)).clamp(0, 1)
    return frames.flip(1) if motion.backwards else frames


def _changes(motion: Motion, sequences: TransformationSequences) -> Tensor:
    """By how much each parameter changes from frame to frame: (frames, K), float64."""
    changes = []
    for phase, weights in zip(motion.phases, motion.weights(sequences.names), strict=True):
        clock = phase.clock.double()
        paths = torch.stack([transformation.path(clock) for transformation in sequences.transformations], -1)
        changes.append(weights.double() * paths.diff(dim=0))
    return torch.cat(changes)


def _generators(transformations: tuple) -> Tensor:
    return torch.stack([generator_matrix(transformation) for transformation in transformations]).double()
