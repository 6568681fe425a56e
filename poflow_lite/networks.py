"""Networks for small images: encoders and decoders, what infers k, and a wrapper that runs one in bfloat16."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["Autocast", "ConvDecoder", "ConvEncoder", "PatchDecoder", "PatchEncoder", "TransformationEncoder"]

PATCH = 4
"""Pixels along the side of a patch."""
DARK = -2.5
"""Logit of the pixels that a :class:`PatchDecoder` starts with."""


def _coarse_shape(image_shape: tuple[int, int, int], channels: tuple[int, ...]) -> tuple[int, int, int]:
    """(C', H', W') after halving the resolution once per entry of ``channels``."""
    _, height, width = image_shape
    factor = 2 ** len(channels)
    if height % factor or width % factor:
        raise ValueError(
            f"{len(channels)} convolutions halve the resolution {len(channels)} times, so height and width must be "
            f"multiples of {factor}, got {height}×{width}; use fewer channels or resize the images"
        )
    return channels[-1], height // factor, width // factor


def _convolutions(channels: tuple[int, ...]) -> list[nn.Module]:
    """Strided convolutions from each number of feature maps to the next, each of which halves the resolution."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(channels):
        layers += [nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1), nn.SiLU()]
    return layers


class ConvEncoder(nn.Module):
    """x (B, C, H, W) ↦ mean and log standard deviation of q(z | x), (B, 2d): strided convolutions, then two layers.

    Args:
        image_shape: (C, H, W); H and W multiples of 2 ** len(channels).
        latent: d.
        channels: feature maps after each halving of the resolution.
        hidden: width of the dense layer.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], latent: int, channels: tuple[int, ...] = (32, 64), hidden: int = 256
    ):
        super().__init__()
        coarse = math.prod(_coarse_shape(image_shape, channels))
        self.image_shape, self.latent = tuple(image_shape), latent
        self.network = nn.Sequential(
            *_convolutions((image_shape[0], *channels)),
            *(nn.Flatten(), nn.Linear(coarse, hidden), nn.SiLU(), nn.Linear(hidden, 2 * latent)),
        )

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"this encoder takes images (B, {', '.join(map(str, self.image_shape))}), got {tuple(x.shape)}"
            )
        return self.network(x)


class ConvDecoder(nn.Module):
    """z (B, d) ↦ logits (B, C, H, W), the encoder's mirror image with transposed convolutions.

    Args: as for :class:`ConvEncoder`.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], latent: int, channels: tuple[int, ...] = (32, 64), hidden: int = 256
    ):
        super().__init__()
        coarse = _coarse_shape(image_shape, channels)
        self.latent = latent
        layers: list[nn.Module] = [
            nn.Linear(latent, hidden), nn.SiLU(),
            nn.Linear(hidden, math.prod(coarse)), nn.SiLU(),
            nn.Unflatten(1, coarse),
        ]  # fmt: skip
        upward = (*reversed(channels), image_shape[0])
        for before, after in itertools.pairwise(upward):
            layers += [nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1), nn.SiLU()]
        self.network = nn.Sequential(*layers[:-1])

    def forward(self, z: Tensor) -> Tensor:
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise ValueError(f"this decoder takes latents (B, {self.latent}), got {tuple(z.shape)}")
        return self.network(z)


def _patch_shape(image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """How many patches there are of each side."""
    _, height, width = image_shape
    if height % PATCH or width % PATCH:
        raise ValueError(
            f"images are cut into patches of {PATCH}×{PATCH}, so height and width must be multiples of {PATCH}, got "
            f"{height}×{width}: use strided convolutions (network=strided), or resize the images"
        )
    return height // PATCH, width // PATCH


def _features_of(channels: tuple[int, ...]) -> int:
    """The one number of features that patches take."""
    if len(channels) != 1:
        raise ValueError(
            f"patches take one number of features, such as channels=32, got channels={','.join(map(str, channels))}"
        )
    return channels[0]


class PatchEncoder(nn.Module):
    """x (B, C, H, W) ↦ mean and log standard deviation of q(z | x), (B, 2d): patches, each seen alike, then two layers.

    For small images, where a convolution at full resolution costs more than it teaches.

    Args:
        image_shape: (C, H, W); H and W multiples of :data:`PATCH`.
        latent: d.
        channels: one number: features of a patch.
        hidden: width of the dense layer.
    """

    def __init__(self, image_shape: tuple[int, int, int], latent: int, channels: tuple[int] = (32,), hidden: int = 256):
        super().__init__()
        features, count = _features_of(channels), math.prod(_patch_shape(image_shape))
        self.image_shape, self.latent = tuple(image_shape), latent
        self.network = nn.Sequential(
            *(nn.Conv2d(image_shape[0], features, PATCH, stride=PATCH), nn.SiLU(), nn.Flatten()),
            *(nn.Linear(features * count, hidden), nn.SiLU(), nn.Linear(hidden, 2 * latent)),
        )

    forward = ConvEncoder.forward


class PatchDecoder(nn.Module):
    """z (B, d) ↦ logits (B, C, H, W): two layers, and one convolution over patches that gives all pixels of each.

    Args: as for :class:`PatchEncoder`. Its images start dark, as those of handwritten characters are.
    """

    def __init__(self, image_shape: tuple[int, int, int], latent: int, channels: tuple[int] = (32,), hidden: int = 256):
        super().__init__()
        features, shape = _features_of(channels), _patch_shape(image_shape)
        self.latent = latent
        pixels = nn.Conv2d(features, image_shape[0] * PATCH**2, kernel_size=3, padding=1)
        nn.init.constant_(pixels.bias, DARK)
        self.network = nn.Sequential(
            *(nn.Linear(latent, hidden), nn.SiLU(), nn.Linear(hidden, features * math.prod(shape)), nn.SiLU()),
            *(nn.Unflatten(1, (features, *shape)), pixels, nn.PixelShuffle(PATCH)),
        )

    forward = ConvDecoder.forward


_DRAWING = threading.Lock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights from a seed, one thread at a time; global random states, GPUs' too, stay as they are."""
    with _DRAWING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class TransformationEncoder(nn.Module):
    """q(k | x_0:T): logits of the K transformations, the mean over frames of what each pair (x_0, x_t) suggests.

    Args:
        image_shape: (C, H, W).
        transformations: K.
        channels: feature maps after each halving of the resolution.
        hidden: width of the dense layer.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        transformations: int,
        channels: tuple[int, ...] = (16, 32),
        hidden: int = 64,
    ):
        super().__init__()
        self.network = nn.Sequential(
            *_convolutions((2 * image_shape[0], *channels)),
            *(nn.Flatten(), nn.LazyLinear(hidden), nn.SiLU(), nn.Linear(hidden, transformations)),
        )
        self.network(torch.zeros(1, 2 * image_shape[0], *image_shape[1:]))  # settles the size of the lazy layer

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (B, n, C, H, W), frame 0 first and n ≥ 2, ↦ logits (B, K)."""
        pairs = torch.cat([frames[:, :1].expand_as(frames[:, 1:]), frames[:, 1:]], 2)
        return self.network(pairs.flatten(0, 1)).unflatten(0, pairs.shape[:2]).mean(1)


class Autocast(nn.Module):
    """Run a network under bfloat16 autocast; its parameters and its output stay in float32.

    Only networks are wrapped: densities, determinants and losses need the precision of float32.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.network(x).float()
