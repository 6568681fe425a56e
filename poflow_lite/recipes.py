"""Recipes: what determines a run of every model on every data set in every budget, and the model that it builds."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch

from poflow_lite.datasets import Sequences, load_sequences
from poflow_lite.deep_potentials import DeepPotential
from poflow_lite.errors import require_known
from poflow_lite.fields import DivergenceFreeField, FreeField
from poflow_lite.flows import METHODS, DiffusionPrior, Flow, PotentialFlow, StaticPrior
from poflow_lite.models import (
    VAE,
    FactorVAE,
    FlowFactorizedVAE,
    PoFlow,
    SlowVAE,
    TopographicVAE,
    TransformationEncoder,
    WeaklySupervisedVAE,
)
from poflow_lite.networks import Autocast, ConvDecoder, ConvEncoder
from poflow_lite.potentials import Force, Potential

__all__ = ["BUDGETS", "MODELS", "Recipe", "build_model", "recipe", "sequences"]

BUDGETS = ("smoke", "lecture", "full")

_FLOW = {
    "hamilton_jacobi": 10.0,
    "autoencoding": 0.05,
    "agreement": 0.0,
    "initial": 0.0,
    "path_kl": 1.0,
    "field": "gradient",
    "depth": 1,
    "force": "learned",
    "prior": "diffusion",
    "density": "exact",
    "method": "euler",
    "substeps": 1,
}
MODELS: dict[str, dict[str, Any]] = {
    "vae": {},
    "beta-vae": {},
    "factor-vae": {"gamma": 0.1},
    "slow-vae": {"rate": 6.0, "transition": 0.01},
    "topographic-vae": {"capsules": 4, "neighbours": 3},
    "poflow": {"wave": 1.0, "initial": 0.1, "jacobian": 0.01, "naming": 1.0},
    "flow-factorized": _FLOW,
    "weakly-supervised": {**_FLOW, "use": 1000.0, "naming": 0.0},
}
"""Model ↦ its own options, as chosen on the validation split of digits: arguments of its class, or of its flow."""

_WORDS = {
    "field": ("gradient", "free", "divergence-free"),
    "force": ("learned", "none"),
    "prior": ("diffusion", "static"),
    "density": ("exact", "laplacian", "ignored"),
    "method": tuple(METHODS),
}
"""Options that are words ↦ the words that they may be."""

_SHARED = {"vae": {"beta": 1.0}}
"""Model ↦ fields of the recipe in which it departs from all others."""


@dataclass(frozen=True)
class Recipe:
    """Everything besides data, seed and device that determines a run. All models of one budget share its fields.

    Attributes:
        steps, batch_size, frames: optimiser steps; sequences a step; frames decoded of each, besides frame 0.
        learning_rate: Adam's, at its peak.
        latent, channels, hidden: of encoder and decoder.
        width, frequencies: of the potentials.
        precision: "float32", or "bfloat16" to run encoder and decoder under autocast.
        likelihood: p(x | z) in training.
        beta: weight of the KL terms. The plain VAE has 1, by definition.
        labelled: share of the training images whose k is told to the weakly supervised model.
        share: share of the training images that are used at all, the first ones.
        left_out: labels whose images are left out of training: classes that a model never sees.
        pixels: along each side of an image.
        horizon, start: T, and "fixed" or "random" start poses.
        test_images: images on which the equivariance error is measured, at most.
        likelihood_images, samples: images and importance samples for the log-likelihood.
        own: the options that only this model has, see :data:`MODELS`.
    """

    steps: int
    batch_size: int = 32
    frames: int = 2
    learning_rate: float = 6e-3
    latent: int = 32
    channels: tuple[int, ...] = (32, 64)
    hidden: int = 256
    width: int = 64
    frequencies: int = 2
    precision: str = "float32"
    likelihood: str = "bernoulli"
    beta: float = 0.03
    labelled: float = 0.0
    share: float = 1.0
    left_out: tuple[int, ...] = ()
    pixels: int = 28
    horizon: int = 8
    start: str = "fixed"
    test_images: int = 10_000
    likelihood_images: int = 64
    samples: int = 100
    own: dict[str, Any] = field(default_factory=dict)


_SMOKE = Recipe(steps=12, test_images=32, likelihood_images=2, samples=10)
_RECIPES = {
    ("digits", "smoke"): _SMOKE,
    ("digits", "lecture"): Recipe(steps=1000, likelihood_images=16),
    ("digits", "full"): Recipe(steps=10_000),
    ("mnist", "smoke"): _SMOKE,
    ("mnist", "lecture"): Recipe(steps=4000, likelihood_images=16),
    ("mnist", "full"): Recipe(steps=20_000, latent=48, channels=(48, 96), hidden=512),
}
for _like, _others in (("digits", ("digits-five", "letters", "sprites")), ("mnist", ("mnist-five",))):
    for _data in _others:
        _RECIPES |= {(_data, budget): _RECIPES[_like, budget] for budget in BUDGETS}
_SCENE = {"pixels": 64, "channels": (16, 32, 64, 128), "learning_rate": 3e-3, "test_images": 500}
for _name, _horizon in (("shapes3d", 7), ("falcor3d", 4), ("isaac3d", 3)):
    for _data in (_name, f"{_name}-lite"):
        _own = {**_SCENE, "horizon": _horizon}
        _RECIPES[_data, "smoke"] = replace(_SMOKE, **{**_own, "test_images": 8})
        _RECIPES[_data, "lecture"] = Recipe(steps=6000, likelihood_images=8, **_own)
        _RECIPES[_data, "full"] = Recipe(steps=20_000, **{**_own, "channels": (32, 64, 128, 128), "hidden": 512})


def recipe(data: str, budget: str, model: str = "flow-factorized", **changes: Any) -> Recipe:
    """The recipe of a budget on a data set for a model, with some fields, or options of the model, changed.

    Raises:
        ValueError: for an unknown data set, budget, model, precision or setting; the message lists the known ones. For
            options that do not go together, or numbers out of range.
    """
    require_known("data set", data, dict.fromkeys(name for name, _ in _RECIPES))
    require_known("budget", budget, BUDGETS)
    require_known("model", model, MODELS)
    own = dict(MODELS[model])
    shared = [entry.name for entry in fields(Recipe) if entry.name != "own"]
    for name in changes:
        require_known(f"setting of {model}", name, [*shared, *own])
    own |= {name: changes.pop(name) for name in list(changes) if name in own}
    settings = replace(_RECIPES[data, budget], **{**_SHARED.get(model, {}), **changes}, own=own)
    require_known("precision", settings.precision, ("float32", "bfloat16"))
    if not 0 <= settings.labelled <= 1:
        raise ValueError(f"labelled is a share of the training images, from 0 to 1, got {settings.labelled}")
    if not 0 < settings.share <= 1:
        raise ValueError(f"share is a share of the training images, above 0 and up to 1, got {settings.share}")
    _require_options(own)
    return settings


def _require_options(own: dict[str, Any]) -> None:
    """Raise a ValueError for options of a flow that are unknown, out of range, or do not go together."""
    for name, words in _WORDS.items():
        if name in own:
            require_known(name, own[name], words)
    for name in ("depth", "substeps"):
        if name in own and not (isinstance(own[name], int) and own[name] >= 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {own[name]}")
    if own.get("field", "gradient") != "gradient":
        for name, neutral in (("hamilton_jacobi", 0), ("depth", 1)):
            if own[name] != neutral:
                raise ValueError(
                    f"{name} = {own[name]} needs a potential, which a {own['field']} field does not have: "
                    f"set {name} to {neutral}, or field to gradient"
                )


def sequences(data: str, split: str, settings: Recipe) -> Sequences:
    """Sequences of one split in the paper's protocol; see :func:`datasets.load_sequences`."""
    form = settings.horizon, settings.pixels, settings.start, settings.labelled
    if split != "train":
        return load_sequences(data, split, *form)
    return load_sequences(data, split, *form, settings.share, settings.left_out)


def build_model(
    model: str,
    settings: Recipe,
    image_shape: tuple[int, int, int] = (3, 28, 28),
    transformations: int = 3,
    seed: int = 0,
) -> VAE:
    """A freshly initialised model; the seed decides its weights, and the global random state is left as it was.

    Models of one seed and recipe start with the same encoder and decoder, but for the Topographic VAE, whose encoder
    gives twice as many numbers.

    Raises:
        ValueError: for an unknown model; the message lists the known ones.
    """
    require_known("model", model, MODELS)
    own = MODELS[model] | settings.own
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        coded = 2 * settings.latent if model == "topographic-vae" else settings.latent
        encoder = ConvEncoder(image_shape, coded, settings.channels, settings.hidden)
        decoder = ConvDecoder(image_shape, settings.latent, settings.channels, settings.hidden)
        if settings.pixels >= 64:  # large images are convolved faster with their channels innermost
            encoder, decoder = (network.to(memory_format=torch.channels_last) for network in (encoder, decoder))
        if settings.precision == "bfloat16":
            encoder, decoder = Autocast(encoder), Autocast(decoder)
        shared = {"likelihood": settings.likelihood, "beta": settings.beta}
        if model in ("vae", "beta-vae"):
            return VAE(encoder, decoder, **shared)
        if model == "factor-vae":
            return FactorVAE(encoder, decoder, settings.latent, **shared, **own)
        if model == "slow-vae":
            return SlowVAE(encoder, decoder, **shared, **own)
        if model == "topographic-vae":
            return TopographicVAE(encoder, decoder, settings.latent, **shared, **own)

        namer = image_shape, transformations
        if model == "poflow":
            flow = _flow(settings, transformations)
            return PoFlow(encoder, decoder, flow, TransformationEncoder(*namer), **shared, **own)
        parts, own = _motion(settings, own, transformations)
        if model == "flow-factorized":
            return FlowFactorizedVAE(encoder, decoder, *parts, **shared, **own)
        annealing = max(1, settings.steps // 2)
        return WeaklySupervisedVAE(
            encoder, decoder, *parts, inference=TransformationEncoder(*namer), annealing=annealing, **shared, **own
        )


def _flow(
    settings: Recipe,
    transformations: int,
    field: str = "gradient",
    depth: int = 1,
    method: str = "euler",
    substeps: int = 1,
    density: str = "exact",
) -> Flow:
    """A flow along one of the fields of :data:`_WORDS`, freshly initialised."""
    sizes = {
        "latent": settings.latent,
        "transformations": transformations,
        "width": settings.width,
        "horizon": settings.horizon,
        "frequencies": settings.frequencies,
    }
    if field != "gradient":
        kind = {"free": FreeField, "divergence-free": DivergenceFreeField}[field]
        return Flow(kind(**sizes), method, substeps, density)
    potential = Potential(**sizes) if depth == 1 else DeepPotential(depth=depth, **sizes)
    return PotentialFlow(potential, method, substeps, density)


def _motion(
    settings: Recipe, own: dict[str, Any], transformations: int
) -> tuple[tuple[Flow, DiffusionPrior, Force | None], dict[str, Any]]:
    """Flow, prior and force of a flow-factorized model, and those of its own options that are left for its class."""
    left, chosen = dict(own), {}
    for name in ("field", "depth", "method", "substeps", "density"):
        chosen[name] = left.pop(name)
    flow = _flow(settings, transformations, **chosen)
    forced = left.pop("force") == "learned" and left["hamilton_jacobi"]  # f stands in the penalty, and nowhere else
    force = Force(settings.latent, transformations, horizon=settings.horizon) if forced else None
    prior = {"diffusion": DiffusionPrior, "static": StaticPrior}[left.pop("prior")](transformations)
    return (flow, prior, force), left
