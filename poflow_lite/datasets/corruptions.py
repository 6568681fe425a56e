"""Images that are harder to read than those a model was trained on: noise, and a part that is hidden."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["noisy", "occluded"]


def noisy(frames: Tensor, sd: float, generator: torch.Generator) -> Tensor:
    """x + sd · N(0, I), clamped to [0, 1].

    Args:
        frames: (B, C, H, W) in [0, 1].
        sd: standard deviation of the noise of a pixel and channel, at least 0.
        generator: of the noise.

    Raises:
        ValueError: for other shapes or values, or a standard deviation that is negative or not finite.
    """
    _require_images(frames)
    if not (math.isfinite(sd) and sd >= 0):
        raise ValueError(f"the standard deviation of the noise must be a finite number of at least 0, got {sd}")
    noise = torch.randn(frames.shape, generator=generator, dtype=frames.dtype, device=generator.device)
    return (frames + sd * noise.to(frames.device)).clamp(0, 1)


def occluded(frames: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Hide a square of each image in black, at a random place over what the image shows.

    The middle of the square is a pixel drawn in proportion to its brightness (summed over channels; from all pixels if
    the image is black); near the border the square is moved inwards, so that size² pixels are black in every image.

    Args:
        frames: (B, C, H, W) in [0, 1].
        size: side of the square, from 1 to the shorter side of the image, pixels.
        generator: of the places.

    Raises:
        ValueError: for other shapes, values or sizes.
    """
    _require_images(frames)
    height, width = frames.shape[-2:]
    if not 1 <= size <= min(height, width):
        raise ValueError(f"the hidden square must be 1 to {min(height, width)} pixels wide, got {size}")
    brightness = frames.sum(1).flatten(1)
    brightness = torch.where(brightness.sum(1, keepdim=True) > 0, brightness, 1.0).to(generator.device)
    place = torch.multinomial(brightness, 1, generator=generator).to(frames.device)  # (B, 1)
    top = (place // width - size // 2).clamp(0, height - size)
    left = (place % width - size // 2).clamp(0, width - size)
    row, column = torch.arange(height, device=frames.device), torch.arange(width, device=frames.device)
    rows, columns = (row >= top) & (row < top + size), (column >= left) & (column < left + size)
    return frames.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


def _require_images(frames: Tensor) -> None:
    if frames.ndim != 4:
        raise ValueError(
            f"images must be (B, C, H, W), got {tuple(frames.shape)}; flatten(0, 1) makes images of sequences"
        )
    if not frames.is_floating_point() or not ((frames >= 0) & (frames <= 1)).all():
        low, high = float(frames.min()), float(frames.max())
        raise ValueError(
            f"pixels must be floating point in [0, 1], got {frames.dtype} from {low:.3g} to {high:.3g}; rescale them"
        )
