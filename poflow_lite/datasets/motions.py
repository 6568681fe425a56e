"""Motions beyond one at a time: all at once, in other orders, slower, faster, longer, backwards; noise, hidden parts.

The ground truth of a motion is rendered, so that whatever a model makes of it can be measured in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from poflow_lite.datasets.images import require_unit_range
from poflow_lite.datasets.sequences import TransformationSequences
from poflow_lite.datasets.transformations import generator_matrix, place, pose_matrix
from poflow_lite.io import require_known

# --- all at once --------------------------------------------------------------------------------------------------


class AllAtOnce(TransformationSequences):
    """Sequences in which every transformation moves, each with a velocity of its own: x_t has the amounts v_k a_k(t).

    A random batch draws v_k uniformly from -1 to 1, where 1 is the speed of the paper's protocol, and -1 the same
    amounts with the other sign. They take the place of k: the batch's k is v, (B, K). An integer k is still one
    transformation alone, at its own speed.

    Args:
        sequences: still images and their transformations.

    Raises:
        ValueError: for other sequences: scenes and clips move as they were made.
    """

    def __init__(self, sequences: TransformationSequences):
        if not isinstance(sequences, TransformationSequences):
            raise ValueError(f"only still images can move in several ways at once, not {sequences.name}")
        self.__dict__.update(sequences.__dict__)
        self.name = f"{sequences.name}, all at once"

    def draw(self, size: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Random images (B,), and random velocities (B, K)."""
        indices = torch.randint(len(self), (size,), generator=generator)
        return indices, 2 * torch.rand(size, len(self.names), generator=generator) - 1

    def progress(self, k: Tensor, times: Tensor) -> Tensor:
        """By how much all transformations have moved at the given times (B, n): (B, n, K)."""
        if k.ndim == 1:
            return super().progress(k, times)
        amounts = torch.stack([each.path(times.to(k)) for each in self.transformations], -1)
        return (k[:, None] * amounts).to(self.images.dtype)

    def _require_motion(self, indices: Tensor, k: Tensor) -> None:
        if k.ndim < 2:
            super()._require_motion(indices, k)
        elif k.shape != (len(indices), len(self.names)) or not k.is_floating_point() or not k.isfinite().all():
            raise ValueError(
                f"{len(indices)} sequences need finite velocities ({len(indices)}, {len(self.names)}), "
                f"got {tuple(k.shape)} of {k.dtype}"
            )


# --- motions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Segment:
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
                "a segment needs at least one transformation, one frame and a positive speed, "
                f"got {self.moving}, {self.frames} and {self.speed}"
            )

    @property
    def clock(self) -> Tensor:
        """(frames + 1,): 0, speed, 2 speed, …"""
        return self.speed * torch.arange(self.frames + 1)


@dataclass(frozen=True)
class Motion:
    """Segments, one after the other; or all of it played backwards, from the last frame to the first.

    Attributes:
        segments: in the order of time.
        backwards: start in the last frame.
    """

    segments: tuple[Segment, ...]
    backwards: bool = False

    @property
    def frames(self) -> int:
        """Of all segments together; frame 0 comes on top."""
        return sum(segment.frames for segment in self.segments)

    @property
    def name(self) -> str:
        """For tables: "scale, then rotate", "scale + hue", "rotate, backwards"."""
        return ", then ".join(" + ".join(segment.moving) for segment in self.segments) + ", backwards" * self.backwards

    def weights(self, names: tuple[str, ...]) -> list[Tensor]:
        """For each segment the mixing weights (K,): 1 for what moves; a ValueError for what is not among ``names``."""
        for segment in self.segments:
            for name in segment.moving:
                require_known("transformation", name, names)
        return [torch.tensor([float(name in segment.moving) for name in names]) for segment in self.segments]


def render_motion(
    sequences: TransformationSequences, indices: Tensor, motion: Motion, generator: torch.Generator | None = None
) -> Tensor:
    """The true frames of a motion: (B, frames + 1, C, H, W) in [0, 1].

    In one frame the transformations that move, each by Δa along its path, act together as exp(Σ_k Δa_k G_k), with G_k
    the generator of the group; for transformations that commute that is one after the other, in any order. What moves
    later acts on what has moved before. One interpolation renders each frame, whatever the number of segments.

    Args:
        sequences, indices: the images, which of them (B,), their transformations, and whether start poses are random.
        motion: what moves, and when; a ValueError for a transformation that the sequences do not have.
        generator: draws the start poses.
    """
    transformations = sequences.transformations
    start = sequences.start_pose(len(indices), generator)  # (B, K)
    changes = _changes(motion, sequences)  # (frames, K)
    generators = torch.stack([generator_matrix(transformation) for transformation in transformations])
    steps = torch.matrix_exp(torch.einsum("nk,kij->nij", changes, generators))
    first = pose_matrix(start, transformations)
    matrices = [torch.eye(3).expand(len(start), 3, 3) if first is None else first]  # each (B, 3, 3)
    for step in steps.to(start):
        matrices.append(step @ matrices[-1])
    count = len(matrices)
    images = sequences.images[indices.to(sequences.images.device)].repeat_interleave(count, 0)
    progress = torch.cat([torch.zeros(1, len(transformations)), changes.cumsum(0)]).to(start)
    pose = (start[:, None] + progress).flatten(0, 1)  # for the colours, which all commute
    matrices = torch.stack(matrices, 1).flatten(0, 1).to(images.device)
    placed = place(images, matrices, pose.to(images.device), transformations)
    frames = placed.unflatten(0, (len(indices), count)).clamp(0, 1)
    return frames.flip(1) if motion.backwards else frames


def _changes(motion: Motion, sequences: TransformationSequences) -> Tensor:
    """By how much each parameter changes from frame to frame: (frames, K), float64."""
    changes = []
    for segment, weights in zip(motion.segments, motion.weights(sequences.names), strict=True):
        paths = [transformation.path(segment.clock.double()) for transformation in sequences.transformations]
        changes.append(weights.double() * torch.stack(paths, -1).diff(dim=0))
    return torch.cat(changes)


# --- corruptions --------------------------------------------------------------------------------------------------


def noisy(images: Tensor, sd: float, generator: torch.Generator) -> Tensor:
    """x + sd · N(0, I), clamped to [0, 1], for images (B, C, H, W) in [0, 1]; a ValueError for others, or an sd < 0."""
    _require_images(images)
    if not (math.isfinite(sd) and sd >= 0):
        raise ValueError(f"the standard deviation of the noise must be a finite number of at least 0, got {sd}")
    noise = torch.randn(images.shape, generator=generator, dtype=images.dtype, device=generator.device)
    return (images + sd * noise.to(images.device)).clamp(0, 1)


def occluded(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Hide a square of each image in black, at a random place over what the image shows.

    The middle of the square is a pixel drawn in proportion to its brightness (summed over channels; from all pixels if
    the image is black); near the border the square is moved inwards, so that size² pixels are black in every image.

    Args:
        images: (B, C, H, W) in [0, 1]; a ValueError for others.
        size: side of the square, from 1 to the shorter side of the image, pixels.
        generator: of the places.
    """
    _require_images(images)
    height, width = images.shape[-2:]
    if not 1 <= size <= min(height, width):
        raise ValueError(f"the hidden square must be 1 to {min(height, width)} pixels wide, got {size}")
    brightness = images.sum(1).flatten(1)
    brightness = torch.where(brightness.sum(1, keepdim=True) > 0, brightness, 1.0).to(generator.device)
    spot = torch.multinomial(brightness, 1, generator=generator).to(images.device)  # (B, 1)
    top = (spot // width - size // 2).clamp(0, height - size)
    left = (spot % width - size // 2).clamp(0, width - size)
    row, column = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    rows, columns = (row >= top) & (row < top + size), (column >= left) & (column < left + size)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


def _require_images(images: Tensor) -> None:
    if images.ndim != 4:
        raise ValueError(
            f"images must be (B, C, H, W), got {tuple(images.shape)}; flatten(0, 1) makes images of sequences"
        )
    require_unit_range(images)
