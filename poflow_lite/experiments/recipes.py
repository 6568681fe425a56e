"""Recipes: everything besides data, seed and device that determines a run, for every data set and budget."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from poflow_lite.datasets import AllAtOnce, Sequences, load_sequences
from poflow_lite.io import require_known
from poflow_lite.objectives import LIKELIHOODS
from poflow_lite.settings import Count, Natural, Positive, Share, Size, Weight, checked

BUDGETS = ("smoke", "lecture", "full")


@dataclass(frozen=True)
class Recipe:
    """Everything besides data, seed and device that determines a run. All models of one budget share its fields.

    Attributes:
        steps, batch_size, frames: optimiser steps; sequences a step; frames decoded of each, besides frame 0.
        learning_rate: Adam's, at its peak.
        network: one of :data:`NETWORKS`.
        latent, channels, hidden: of encoder and decoder.
        width, frequencies: of the velocity fields.
        precision: "float32", or "bfloat16" to run encoder and decoder under autocast.
        likelihood: p(x | z) in training.
        beta: weight of the KL terms. The plain VAE has 1, by definition.
        labelled: share of the training images whose k is told to a model that infers it.
        share: share of the training images that are used at all, the first ones.
        left_out: labels whose images are left out of training: classes that a model never sees.
        pixels: along each side of an image.
        horizon, start: T, and "fixed" or "random" start poses.
        moving: "one" transformation a training sequence, or "all" at once with random velocities, which take the place
            of k (:class:`datasets.AllAtOnce`).
        test_images: images on which the equivariance error is measured, at most.
        likelihood_images, samples: images and importance samples for the log-likelihood.
        options: those that only this model has, see :func:`options_of`.

    Raises:
        ValueError: for a value of another type or out of range.
    """

    steps: Count
    batch_size: Size = 32
    frames: Size = 2
    learning_rate: Positive = 6e-3
    network: Literal["strided", "patches"] = "strided"
    latent: Size = 32
    channels: tuple[Size, ...] = (32, 64)
    hidden: Size = 256
    width: Size = 64
    frequencies: Natural = 2
    precision: Literal["float32", "bfloat16"] = "float32"
    likelihood: str = "bernoulli"
    beta: Weight = 0.03
    labelled: Share = 0.0
    share: Annotated[Share, Field(gt=0)] = 1.0
    left_out: tuple[Natural, ...] = ()
    pixels: Size = 28
    horizon: Size = 8
    start: Literal["fixed", "random"] = "fixed"
    moving: Literal["one", "all"] = "one"
    test_images: Count = 10_000
    likelihood_images: Count = 16
    samples: Count = 100
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        for name, value in checked(type(self), vars(self)).items():
            object.__setattr__(self, name, value)
        require_known("likelihood", self.likelihood, LIKELIHOODS)

    @property
    def operator_images(self) -> int:
        """How many training images operators are fitted to, at most; few in the budget "smoke"."""
        return min(2000, 4 * self.test_images)


# --- recipes ------------------------------------------------------------------------------------------------------

_SMOKE = Recipe(steps=12, test_images=32, likelihood_images=2, samples=10)
STILLS = {
    "smoke": _SMOKE,
    "lecture": Recipe(steps=1000),
    "full": Recipe(steps=10_000, likelihood_images=200),
}
_PATCHES = {"network": "patches", "channels": (32,)}
_MNIST_10K = {  # networks and batches that learned most in a minute on two cores, of some dozen, on validation images
    "smoke": replace(_SMOKE, **_PATCHES),
    "lecture": Recipe(steps=3000, batch_size=64, **_PATCHES),
    "full": Recipe(steps=20_000, batch_size=64, **_PATCHES, likelihood_images=200),
}
_MNIST = _MNIST_10K | {
    "full": Recipe(  # ten minutes on a large GPU, at the speed of a step that was measured there before it was fused
        steps=12_000, batch_size=256, latent=48, channels=(48, 96), hidden=512, likelihood_images=200
    ),
}


def _scene(horizon: int) -> dict[str, Recipe]:
    size = {"pixels": 64, "learning_rate": 3e-3, "horizon": horizon}
    small, large = (16, 32, 64, 128), (32, 64, 128, 128)
    return {
        "smoke": replace(_SMOKE, **size, channels=small, test_images=8),
        "lecture": Recipe(steps=6000, likelihood_images=8, **size, channels=small, test_images=500),
        "full": Recipe(steps=12_000, batch_size=128, **size, channels=large, hidden=512, test_images=500),
    }


RECIPES: dict[str, dict[str, Recipe]] = {
    "mnist-10k": _MNIST_10K,
    **dict.fromkeys(("mnist", "mnist-five"), _MNIST),
    **dict.fromkeys(("shapes3d", "shapes3d-lite"), _scene(7)),
    **dict.fromkeys(("falcor3d", "falcor3d-lite"), _scene(4)),
    **dict.fromkeys(("isaac3d", "isaac3d-lite"), _scene(3)),
}
"""Data set ↦ budget ↦ recipe, where it is not that of digits, which also serves a user's own data."""


def sequences(data: str, split: str, settings: Recipe) -> Sequences:
    """Sequences of one split in the paper's protocol; only training leaves out images, as its recipe says."""
    form = {name: getattr(settings, name) for name in ("horizon", "pixels", "start", "labelled")}
    if split == "train":
        form |= {"share": settings.share, "left_out": settings.left_out}
    found = load_sequences(data, split, **form)
    return AllAtOnce(found) if split == "train" and settings.moving == "all" else found
