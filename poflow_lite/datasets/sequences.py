"""Sequences of frames in which one transformation moves, and those that are rendered on the fly from still images."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from poflow_lite.datasets.transformations import PAPER_TRANSFORMATIONS, Transformation, place, pose_matrix

__all__ = ["Batch", "Sequences", "TransformationSequences"]


@dataclass
class Batch:
    """A batch of sequences, or of some frames of each.

    Attributes:
        frames: (B, n, C, H, W), values in [0, 1]; ``frames[:, 0]`` is always frame 0.
        times: (B, n) integers, which frames they are; 0..T in order unless a subset was drawn.
        k: (B,) integers, which transformation moves each sequence; or (B, K) weights of a mixture.
        horizon: T, the last time of the whole sequence.
        labelled: (B,), for which sequences a model may look at k where k is only partly known; ``None`` for no one's.
    """

    frames: Tensor
    times: Tensor
    k: Tensor
    horizon: int
    labelled: Tensor | None = None

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ValueError(f"a sequence needs a horizon T of at least 1 step, got {self.horizon}")
        if self.frames.ndim != 5:
            raise ValueError(f"frames must be (B, n, C, H, W), got {tuple(self.frames.shape)}")
        if self.times.shape != self.frames.shape[:2] or self.k.shape[:1] != self.frames.shape[:1] or self.k.ndim > 2:
            raise ValueError(
                f"frames {tuple(self.frames.shape)} need times (B, n) and k (B,) or (B, K), "
                f"got {tuple(self.times.shape)} and {tuple(self.k.shape)}"
            )

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def frame_weights(self) -> Tensor:
        """(n,): 1 for frame 0 and T / (n - 1) for the others, so that a sum over drawn frames is unbiased for all."""
        drawn = self.frames.shape[1] - 1
        weights = torch.full((drawn + 1,), self.horizon / max(drawn, 1)).to(self.frames)
        weights[0] = 1.0
        return weights

    def require_consecutive(self, model: str) -> None:
        """Raise a ValueError, on behalf of ``model``, unless the frames after frame 0 follow one another."""
        if (self.times[:, 1:].diff(dim=1) != 1).any():
            raise ValueError(
                f"{model} needs frames that follow one another, as sample(..., consecutive=True) draws them, "
                f"got times {self.times[0].tolist()}"
            )

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        labelled = None if self.labelled is None else self.labelled.to(device)
        return Batch(self.frames.to(device), self.times.to(device), self.k.to(device), self.horizon, labelled)


class Sequences:
    """Sequences x_0, …, x_T of N images or scenes, in each of which one of K transformations moves.

    What the subclasses add is where frames come from. Nothing is kept but what they are made of.

    Args:
        names: of the K transformations, in the order of k.
        image_shape: (C, H, W).
        horizon: T ≥ 1.
        start: "fixed" starts each sequence where the paper does, "random" elsewhere too.
        name: which data these are; goes into every title and record.
        labelled: how many images, the first ones, have sequences whose k a weakly supervised model may look at.

    Raises:
        ValueError: for T < 1 or an unknown start.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        image_shape: tuple[int, int, int],
        horizon: int,
        start: str = "fixed",
        name: str = "unnamed",
        labelled: int = 0,
    ):
        if horizon < 1:
            raise ValueError(f"a sequence needs a horizon T of at least 1 step, got {horizon}")
        if start not in ("fixed", "random"):
            raise ValueError(f"start must be 'fixed' or 'random', got {start!r}")
        self.names, self.image_shape, self.horizon = tuple(names), tuple(image_shape), horizon
        self.start, self.name, self.labelled = start, name, labelled

    def __len__(self) -> int:
        raise NotImplementedError

    def first(self, count: int) -> Sequences:
        """The same protocol on the first ``count`` images, or on all where there are fewer."""
        raise NotImplementedError

    def frames(self, indices: Tensor, k: Tensor, times: Tensor, generator: torch.Generator | None) -> Tensor:
        """Frames (B, n, C, H, W) in [0, 1] of given images (B,), transformations (B,) and times (B, n), all checked."""
        raise NotImplementedError

    def batch(
        self, indices: Tensor, k: Tensor | int, times: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Batch:
        """The sequences of given images under given transformations.

        Args:
            indices: (B,), which images.
            k: (B,), or one transformation for all.
            times: (B, n), with 0 first; all frames 0..T by default.
            generator: draws random start poses.

        Raises:
            ValueError: for k that are not integers in 0..K-1, an image index or time out of range, or shapes that do
                not fit.
        """
        k = torch.as_tensor(k)
        k = k.expand(len(indices)) if k.ndim == 0 else k
        if k.shape != indices.shape or k.is_floating_point() or len(indices) == 0:
            raise ValueError(
                f"expected at least one image index (B,) and integer k (B,), got {tuple(indices.shape)} and "
                f"{tuple(k.shape)} of {k.dtype}"
            )
        transformations = len(self.names)
        if k.min() < 0 or k.max() >= transformations:
            raise ValueError(
                f"k must lie in 0..{transformations - 1} ({', '.join(self.names)}), "
                f"got values from {int(k.min())} to {int(k.max())}"
            )
        if indices.min() < 0 or indices.max() >= len(self):
            raise ValueError(
                f"image indices must lie in 0..{len(self) - 1}, got {int(indices.min())} to {int(indices.max())}"
            )
        if times is None:
            times = torch.arange(self.horizon + 1).expand(len(indices), -1)
        if times.min() < 0 or times.max() > self.horizon or times[:, 0].any():
            raise ValueError(f"times must lie in 0..{self.horizon} and start with 0, got {times[:1].tolist()}, …")
        frames = self.frames(indices, k, times, generator)
        return Batch(frames, times, k, self.horizon, indices < self.labelled)

    def sample(
        self,
        size: int,
        frames: int | None = None,
        generator: torch.Generator | None = None,
        consecutive: bool = False,
    ) -> Batch:
        """A random batch: images and transformations drawn independently, each sequence with its own k.

        Args:
            size: B.
            frames: how many frames to draw without replacement from 1..T, besides frame 0; all of them by default.
            generator: of every draw.
            consecutive: draw frames that follow one another, t, t+1, ..., from a random t in 1..T - frames + 1.

        Raises:
            ValueError: if ``frames`` is not in 1..T.
        """
        indices = torch.randint(len(self), (size,), generator=generator)
        k = torch.randint(len(self.names), (size,), generator=generator)
        times = None
        if frames is not None:
            if not 1 <= frames <= self.horizon:
                raise ValueError(f"frames to draw must lie in 1..{self.horizon}, got {frames}")
            if consecutive:
                first = torch.randint(self.horizon - frames + 1, (size, 1), generator=generator)
                drawn = 1 + first + torch.arange(frames)
            else:
                drawn = torch.rand(size, self.horizon, generator=generator).argsort(1)[:, :frames] + 1
            times = torch.cat([torch.zeros(size, 1, dtype=torch.long), drawn], 1)
        return self.batch(indices, k, times, generator)


class TransformationSequences(Sequences):
    """Still images turned into sequences x_0, …, x_T, x_t = T^k_{a(t)} x, where one transformation k moves.

    Frames are rendered when asked for, only those asked for, in one vectorised pass: nothing is stored but the stills.

    Args:
        images: (N, C, H, W) floating point in [0, 1], finite.
        transformations: K of them; by default the paper's scale, rotate, hue.
        horizon: T ≥ 1.
        start: "fixed" starts each sequence at the image itself (the paper's protocol); "random" first brings the
            image to a pose drawn from each transformation's ``start`` interval.
        name: which data these are; goes into every title and record.
        labelled: how many images, the first ones, have sequences whose k a weakly supervised model may look at.

    Raises:
        ValueError: for an empty set, wrong shapes, values that are not finite or outside [0, 1], T < 1, unknown start.
    """

    def __init__(
        self,
        images: Tensor,
        transformations: tuple[Transformation, ...] = PAPER_TRANSFORMATIONS,
        horizon: int = 8,
        start: str = "fixed",
        name: str = "unnamed",
        labelled: int = 0,
    ):
        if images.ndim != 4:
            raise ValueError(f"images must be (N, C, H, W), got {tuple(images.shape)}")
        if len(images) == 0:
            raise ValueError(f"the data set {name!r} is empty: it needs at least one image")
        if not images.is_floating_point():
            raise ValueError(f"images must be floating point in [0, 1], got {images.dtype}; divide by 255 first")
        if not torch.isfinite(images).all():
            bad = int((~torch.isfinite(images)).flatten(1).any(1).sum())
            raise ValueError(f"{bad} of {len(images)} images hold NaN or infinite pixels; clean them first")
        if images.min() < 0 or images.max() > 1:
            raise ValueError(
                f"pixel values must lie in [0, 1], got {images.min():.3g} to {images.max():.3g}; rescale them first"
            )
        self.images, self.transformations = images, tuple(transformations)
        names = tuple(transformation.name for transformation in transformations)
        super().__init__(names, images.shape[1:], horizon, start, name, labelled)

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> TransformationSequences:
        fewer = copy.copy(self)
        fewer.images = self.images[:count]
        return fewer

    def frames(self, indices: Tensor, k: Tensor, times: Tensor, generator: torch.Generator | None) -> Tensor:
        start = self.start_pose(len(k), generator) if self.start == "random" else None
        return self.render(self.images[indices], self.progress(k, times), start)

    def poses(self, k: Tensor, times: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Parameters of all transformations at each frame, those of the start included: (B, n, K).

        Args:
            k: (B,).
            times: (B, n), in frames.
            generator: draws the start pose where ``start`` is "random".
        """
        return self.progress(k, times) + self.start_pose(len(k), generator)[:, None]

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
        matrix = pose_matrix(pose, self.transformations)
        if start is not None:
            first = pose_matrix(start[:, None], self.transformations)
            matrix = None if matrix is None else matrix @ first
            pose = pose + start[:, None]
        flat = None if matrix is None else matrix.flatten(0, 1)
        rendered = place(images.repeat_interleave(frames, 0), flat, pose.flatten(0, 1), self.transformations)
        return rendered.unflatten(0, (batch, frames)).clamp(0, 1)
