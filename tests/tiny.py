"""Images, networks and draws of a size at which a test can do everything again by hand."""

from __future__ import annotations

import math

import torch
from torch import nn

SHAPE = (3, 4, 4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def encoder_and_decoder(latent: int = 2) -> tuple[nn.Module, nn.Module]:
    """One affine layer each, between images of :data:`SHAPE` and ``latent`` dimensions."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), 2 * latent))
    return encoder, nn.Sequential(nn.Linear(latent, math.prod(SHAPE)), nn.Unflatten(1, SHAPE))
