"""Sequences of frames in which one transformation moves, and their rendering from still images."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from poflow_lite.datasets.images import as_images, require_unit_range
from poflow_lite.datasets.transformations import PAPER_TRANSFORMATIONS, Transformation, hue, place, pose_matrix


def _require_times(times: Tensor, horizon: int) -> None:
    if times.ndim != 2 or times.is_floating_point() or times.shape[1] < 2:
        found = f"{tuple(times.shape)} of {times.dtype}"
        raise ValueError(f"times must be integers (B, n), frame 0 and at least one later frame, got {found}")
    if times.min() < 0 or times.max() > horizon or times[:, 0].any():
        raise ValueError(f"times must lie in 0..{horizon} and start with 0, got {times[:1].tolist()}, …")


def require_count(count: int) -> None:
    """Raise a ValueError for a number of images to be kept that is below 1."""
    if count < 1:
        raise ValueError(f"at least the first 1 must be kept, got {count}")


def _require_k(k: Tensor, frames: Tensor) -> None:
    fits = k.ndim == 2 or (k.ndim == 1 and not k.is_floating_point())
    if not fits or len(k) != len(frames):
        raise ValueError(
            f"{len(frames)} sequences need integer k (B,) or weights (B, K), got {tuple(k.shape)} of {k.dtype}"
        )


@dataclass
class Batch:
    """A batch of sequences, or of some frames of each.

    Attributes:
        frames: (B, n, C, H, W), values in [0, 1]; ``frames[:, 0]`` is always frame 0.
        times: (B, n) integers, which frames they are; 0..T in order unless a subset was drawn.
        k: (B,) integers, which transformation moves each sequence; or (B, K) weights of a mixture.
        horizon: T, the last time of the whole sequence.
        labelled: (B,), for which sequences a model may look at k where k is only partly known; ``None`` for no one's.

    Raises:
        ValueError: for shapes that do not fit; on the CPU also for times outside 0..T or without 0 in front, frame 0
            alone, or pixels outside [0, 1].
    """

    frames: Tensor
    times: Tensor
    k: Tensor
    horizon: int
    labelled: Tensor | None = None

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ValueError(f"a sequence needs a horizon T of at least 1 step, got {self.horizon}")
        if self.frames.ndim != 5 or self.frames.numel() == 0:
            raise ValueError(f"frames must be (B, n, C, H, W) and not empty, got {tuple(self.frames.shape)}")
        if self.times.shape != self.frames.shape[:2]:
            raise ValueError(
                f"frames {tuple(self.frames.shape)} need times {tuple(self.frames.shape[:2])}, "
                f"got {tuple(self.times.shape)}"
            )
        _require_k(self.k, self.frames)
        if self.frames.device.type == "cpu":  # where data are made; a GPU would have to wait until values are read back
            _require_times(self.times, self.horizon)
            require_unit_range(self.frames)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def frame_weights(self) -> Tensor:
        """(n,): 1 for frame 0 and T / (n - 1) for the others, so that a sum over drawn frames is unbiased for all."""
        drawn = self.frames.shape[1] - 1
        weights = torch.full((drawn + 1,), self.horizon / drawn).to(self.frames)
        weights[0] = 1.0
        return weights

    def require_consecutive(self, model: str) -> None:
        """Raise a ValueError, on behalf of ``model``, unless the frames after frame 0 follow one another."""
        if self.times.device.type == "cpu" and (self.times[:, 1:].diff(dim=1) != 1).any():
            raise ValueError(
                f"{model} needs frames that follow one another, as sample(..., consecutive=True) draws them, "
                f"got times {self.times[0].tolist()}"
            )

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        labelled = None if self.labelled is None else self.labelled.to(device)
        return self._with(
            frames=self.frames.to(device), times=self.times.to(device), k=self.k.to(device), labelled=labelled
        )

    def with_k(self, k: Tensor) -> Batch:
        """The same frames, with other indices (B,) or weights (B, K)."""
        _require_k(k, self.frames)
        return self._with(k=k)

    def _with(self, **values: Any) -> Batch:
        """A copy with other values, whose pixels are not looked through again."""
        other = copy.copy(self)
        other.__dict__.update(values)
        return other


class Sequences:
    """Sequences x_0, …, x_T of N images, scenes or clips, in each of which one of K transformations moves.

    What the subclasses add is where frames come from: ``__len__``, :meth:`first` and :meth:`frames`.

    Args:
        names: of the K transformations, in the order of k.
        image_shape: (C, H, W).
        horizon: T ≥ 1.
        start: "fixed" starts each sequence where the paper does, "random" elsewhere too.
        name: which data these are; goes into every title and record.
        labelled: how many images, the first ones, have sequences whose k a weakly supervised model may look at.

    Raises:
        ValueError: for T < 1, an unknown start, or names that are missing or come twice.
    """

    change: Callable[[Batch], Batch] | None = None
    """What every batch passes through, such as the coefficients that stand for its k; kept by all copies."""

    def __init__(
        self,
        names: Sequence[str],
        image_shape: Sequence[int],
        horizon: int,
        start: str = "fixed",
        name: str = "unnamed",
        labelled: int = 0,
    ):
        if horizon < 1:
            raise ValueError(f"a sequence needs a horizon T of at least 1 step, got {horizon}")
        if start not in ("fixed", "random"):
            raise ValueError(f"start must be 'fixed' or 'random', got {start!r}")
        if not names or len(set(names)) != len(names):
            raise ValueError(f"each transformation needs a name of its own, got {tuple(names)}: rename or drop some")
        self.names, self.image_shape, self.horizon = tuple(names), tuple(image_shape), horizon
        self.start, self.name, self.labelled, self.dealt = start, name, labelled, False

    def __len__(self) -> int:
        raise NotImplementedError

    def first(self, count: int) -> Sequences:
        """The same protocol on the first ``count`` images, or on all where there are fewer."""
        raise NotImplementedError

    def in_turns(self) -> Sequences:
        """The same protocol with image i under transformation i mod K alone: as many images in 1/K of the sequences."""
        dealt = copy.copy(self)
        dealt.dealt = True
        return dealt

    def to(self, device: torch.device | str) -> Sequences:
        """The same sequences, whose frames are made on ``device``; random draws stay on the CPU. Here: as they are."""
        return self

    def frames(self, indices: Tensor, k: Tensor, times: Tensor, generator: torch.Generator | None) -> Tensor:
        """Frames (B, n, C, H, W) in [0, 1] of given images (B,), transformations (B,) and times (B, n), all checked."""
        raise NotImplementedError

    def of(self, k: int) -> Tensor:
        """(N_k,): indices of the images that transformation k moves; all of them unless a subclass knows better."""
        return torch.arange(len(self))[slice(k, None, len(self.names)) if self.dealt else slice(None)]

    def draw(self, size: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Random images and transformations, (B,) each; here independent of each other and uniform."""
        indices = torch.randint(len(self), (size,), generator=generator)
        k = torch.randint(len(self.names), (size,), generator=generator)
        return indices, indices % len(self.names) if self.dealt else k

    def is_labelled(self, indices: Tensor) -> Tensor:
        """(B,): for which images a weakly supervised model may look at k."""
        return indices < self.labelled

    def batch(
        self, indices: Tensor, k: Tensor | int, times: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Batch:
        """The sequences of given images under given transformations; a ValueError for what is out of range.

        Args:
            indices: (B,), which images.
            k: (B,), or one transformation for all.
            times: (B, n), with 0 first; all frames 0..T by default.
            generator: draws random start poses.
        """
        indices, k = torch.as_tensor(indices), torch.as_tensor(k)
        k = k.expand(len(indices)) if k.ndim == 0 else k
        self._require_motion(indices, k)
        if indices.min() < 0 or indices.max() >= len(self):
            raise ValueError(
                f"image indices must lie in 0..{len(self) - 1}, got {int(indices.min())} to {int(indices.max())}"
            )
        if times is None:
            times = torch.arange(self.horizon + 1).expand(len(indices), -1)
        times = torch.as_tensor(times)
        _require_times(times, self.horizon)
        frames = self.frames(indices, k, times, generator)
        batch = Batch(frames, times, k, self.horizon, self.is_labelled(indices))
        return batch if self.change is None else self.change(batch)

    def _require_motion(self, indices: Tensor, k: Tensor) -> None:
        if k.shape != indices.shape or k.is_floating_point() or indices.is_floating_point() or not indices.numel():
            raise ValueError(
                f"expected at least one image index (B,) and integer k (B,), got {tuple(indices.shape)} of "
                f"{indices.dtype} and {tuple(k.shape)} of {k.dtype}"
            )
        last = len(self.names) - 1
        if k.min() < 0 or k.max() > last:
            raise ValueError(
                f"k must lie in 0..{last} ({', '.join(self.names)}), got values from {int(k.min())} to {int(k.max())}"
            )

    def sample(
        self,
        size: int,
        frames: int | None = None,
        generator: torch.Generator | None = None,
        *,
        consecutive: bool = False,
        first_two: bool = False,
    ) -> Batch:
        """A random batch: images and transformations as :meth:`draw` gives them, each sequence with its own k.

        Args:
            size: B.
            frames: how many frames to draw without replacement from 1..T, besides frame 0; all of them by default.
            generator: of every draw.
            consecutive: draw frames that follow one another, t, t+1, ..., from a random t in 1..T - frames + 1.
            first_two: draw frame 1, and the others from 2..T.
        """
        if size < 1:
            raise ValueError(f"a batch needs at least 1 sequence, got {size}")
        indices, k = self.draw(size, generator)
        times = None
        if frames is not None:
            if not 1 <= frames <= self.horizon:
                raise ValueError(f"frames to draw must lie in 1..{self.horizon}, got {frames}")
            if consecutive:
                first = torch.randint(self.horizon - frames + 1, (size, 1), generator=generator)
                drawn = 1 + first + torch.arange(frames)
            elif first_two:
                others = torch.rand(size, self.horizon - 1, generator=generator).argsort(1)[:, : frames - 1] + 2
                drawn = torch.cat([torch.ones(size, 1, dtype=torch.long), others], 1)
            else:
                drawn = torch.rand(size, self.horizon, generator=generator).argsort(1)[:, :frames] + 1
            times = torch.cat([torch.zeros(size, 1, dtype=torch.long), drawn], 1)
        return self.batch(indices, k, times, generator)


class TransformationSequences(Sequences):
    """Still images turned into sequences x_0, …, x_T, x_t = T^k_{a(t)} x, where one transformation k moves.

    Frames are rendered when asked for, only those asked for, in one vectorised pass: nothing is stored but the images.

    Args:
        images: N of them, in any form that :func:`as_images` takes.
        transformations: K of them; by default the paper's scale, rotate, hue.
        horizon: T ≥ 1.
        start: "fixed" starts each sequence at the image itself (the paper's protocol); "random" first brings the
            image to a pose drawn from each transformation's ``start`` interval.
        name, labelled: as for :class:`Sequences`.

    Raises:
        ValueError: as :func:`as_images` and :class:`Sequences`, or for hue on images without colour.
    """

    def __init__(
        self,
        images: Any,
        transformations: Sequence[Transformation] = PAPER_TRANSFORMATIONS,
        horizon: int = 8,
        start: str = "fixed",
        name: str = "unnamed",
        labelled: int = 0,
    ):
        self.images, self.transformations = as_images(images), tuple(transformations)
        names = [transformation.name for transformation in self.transformations]
        super().__init__(names, self.images.shape[1:], horizon, start, name, labelled)
        if any(transformation.recolour is hue for transformation in self.transformations):
            _require_colour(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> TransformationSequences:
        require_count(count)
        fewer = copy.copy(self)
        fewer.images = self.images[:count]
        return fewer

    def to(self, device: torch.device | str) -> TransformationSequences:
        moved = copy.copy(self)
        moved.images = self.images.to(device)
        return moved

    def frames(self, indices: Tensor, k: Tensor, times: Tensor, generator: torch.Generator | None) -> Tensor:
        start = self.start_pose(len(k), generator) if self.start == "random" else None
        return self.render(self.images[indices.to(self.images.device)], self.progress(k, times), start)

    def progress(self, k: Tensor, times: Tensor) -> Tensor:
        """By how much transformation k (B,) has moved at the given times (B, n): (B, n, K), zero for all others."""
        moved = torch.zeros(*times.shape, len(self.transformations), dtype=self.images.dtype)
        for column, transformation in enumerate(self.transformations):
            moved[..., column] = torch.where((k == column)[:, None], transformation.path(times.to(moved)), 0.0)
        return moved

    def start_pose(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Parameters of all transformations in frame 0 of ``count`` sequences: (count, K); 0 for a fixed start."""
        pose = torch.zeros(count, len(self.transformations), dtype=self.images.dtype)
        if self.start == "random":
            for column, transformation in enumerate(self.transformations):
                low, high = transformation.start
                pose[:, column] = low + (high - low) * torch.rand(count, 1, generator=generator).to(pose)[:, 0]
        return pose

    def render(self, images: Tensor, pose: Tensor, start: Tensor | None = None) -> Tensor:
        """Frames of given images in given poses: images (B, C, H, W), pose (B, n, K) → (B, n, C, H, W).

        A pose acts on the image in its start pose (B, K), if there is one: where transformations do not commute, what
        moves later acts on what is there.
        """
        batch, frames = pose.shape[:2]
        pose, start = pose.to(images.device), None if start is None else start.to(images.device)
        matrix = pose_matrix(pose, self.transformations)
        if start is not None:
            first = pose_matrix(start[:, None], self.transformations)
            matrix = None if matrix is None else matrix @ first
            pose = pose + start[:, None]
        flat = None if matrix is None else matrix.flatten(0, 1)
        rendered = place(images.repeat_interleave(frames, 0), flat, pose.flatten(0, 1), self.transformations)
        return rendered.unflatten(0, (batch, frames)).clamp(0, 1)


def _require_colour(images: Tensor) -> None:
    """Raise a ValueError for images whose hue cannot be moved."""
    channels = images.shape[1]
    red = "keep three, images[:, :3]" if channels > 3 else "put them in red by in_red(images)"
    advice = f"{red}, or leave HUE out of the transformations"
    if channels != 3:
        raise ValueError(f"hue needs 3 channels (red, green, blue), these images have {channels}: {advice}")
    if all(torch.equal(part, part[:, :1].expand_as(part)) for part in images.split(256)):
        raise ValueError(f"hue does nothing to grey images, and these have 3 equal channels: take one and {advice}")
