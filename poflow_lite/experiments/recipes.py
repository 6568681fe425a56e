"""Recipes: what determines a run of every model on every data set in every budget, and the model that it builds."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import nn

from poflow_lite.datasets import DATASETS, Sequences, load_sequences
from poflow_lite.fields import AutogradPotential, DeepUnits, DivergenceFreeField, Force, FreeField, Potential
from poflow_lite.flows import LOG_DETS, METHODS, DiffusionPrior, Flow, StaticPrior
from poflow_lite.io import require_known
from poflow_lite.models import (
    VAE,
    FactorVAE,
    FlowFactorizedVAE,
    GumbelSoftmax,
    InferredFlowVAE,
    PoFlow,
    SlowVAE,
    TopographicVAE,
)
from poflow_lite.networks import Autocast, ConvDecoder, ConvEncoder, TransformationEncoder

BUDGETS = ("smoke", "lecture", "full")


@dataclass(frozen=True)
class Recipe:
    """Everything besides data, seed and device that determines a run. All models of one budget share its fields.

    Attributes:
        steps, batch_size, frames: optimiser steps; sequences a step; frames decoded of each, besides frame 0.
        learning_rate: Adam's, at its peak.
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
        test_images: images on which the equivariance error is measured, at most.
        likelihood_images, samples: images and importance samples for the log-likelihood.
        options: those that only this model has, see :func:`options_of`.
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
    options: dict[str, Any] = field(default_factory=dict)


# --- models -------------------------------------------------------------------------------------------------------
# Each builder takes (recipe, image_shape, transformations) and, by keyword, the options that its model alone has; the
# defaults were chosen on the validation split of digits.


def _networks(r: Recipe, shape: tuple[int, int, int], coded: int | None = None) -> tuple[nn.Module, nn.Module]:
    """A fresh encoder and decoder; ``coded`` is the number of coded dimensions where it is not that of the latents."""
    encoder = ConvEncoder(shape, coded or r.latent, r.channels, r.hidden)
    decoder = ConvDecoder(shape, r.latent, r.channels, r.hidden)
    if shape[-1] >= 64:  # large images are convolved faster with their channels innermost
        encoder, decoder = (network.to(memory_format=torch.channels_last) for network in (encoder, decoder))
    if r.precision == "bfloat16":
        encoder, decoder = Autocast(encoder), Autocast(decoder)
    return encoder, decoder


def _shared(r: Recipe) -> dict[str, Any]:
    return {"likelihood": r.likelihood, "beta": r.beta}


def _vae(r: Recipe, shape: tuple[int, int, int], transformations: int) -> VAE:
    return VAE(*_networks(r, shape), **_shared(r))


def _factor_vae(r: Recipe, shape: tuple[int, int, int], transformations: int, *, gamma: float = 0.1) -> FactorVAE:
    return FactorVAE(*_networks(r, shape), r.latent, **_shared(r), gamma=gamma)


def _slow_vae(
    r: Recipe, shape: tuple[int, int, int], transformations: int, *, rate: float = 6.0, transition: float = 0.01
) -> SlowVAE:
    return SlowVAE(*_networks(r, shape), **_shared(r), rate=rate, transition=transition)


def _topographic_vae(
    r: Recipe, shape: tuple[int, int, int], transformations: int, *, capsules: int = 4, neighbours: int = 3
) -> TopographicVAE:
    networks = _networks(r, shape, 2 * r.latent)
    return TopographicVAE(*networks, r.latent, **_shared(r), capsules=capsules, neighbours=neighbours)


def _poflow(
    r: Recipe,
    shape: tuple[int, int, int],
    transformations: int,
    *,
    wave: float = 1.0,
    initial: float = 0.1,
    jacobian: float = 0.01,
    classification: float = 1.0,
) -> PoFlow:
    parts = *_networks(r, shape), Flow(FIELDS["gradient"](**_sizes(r, transformations)))
    weights = {"wave": wave, "initial": initial, "jacobian": jacobian, "classification": classification}
    return PoFlow(*parts, TransformationEncoder(shape, transformations), **_shared(r), **weights)


FIELDS: dict[str, Callable[..., nn.Module]] = {
    "gradient": Potential,
    "free": FreeField,
    "divergence-free": DivergenceFreeField,
}
PRIORS = {"diffusion": DiffusionPrior, "static": StaticPrior}


def _sizes(r: Recipe, transformations: int) -> dict[str, int]:
    names = ("latent", "width", "horizon", "frequencies")
    return {name: getattr(r, name) for name in names} | {"transformations": transformations}


def _flow_parts(
    r: Recipe,
    shape: tuple[int, int, int],
    transformations: int,
    *,
    hamilton_jacobi: float = 10.0,
    autoencoding: float = 0.05,
    consistency: float = 0.0,
    initial: float = 0.0,
    path_kl: float = 1.0,
    field: str = "gradient",
    depth: int = 1,
    force: str = "learned",
    prior: str = "diffusion",
    log_det: str = "exact",
    method: str = "euler",
    substeps: int = 1,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Networks, flow, prior and force of a flow-factorized model, and its weights."""
    _require_fitting(field, depth, force, prior, log_det, method, substeps, hamilton_jacobi)
    networks, sizes = _networks(r, shape), _sizes(r, transformations)
    if depth > 1:
        velocity = AutogradPotential(DeepUnits(**sizes, depth=depth), r.latent, transformations, r.horizon)
    else:
        velocity = FIELDS[field](**sizes)
    pushed = force == "learned" and hamilton_jacobi  # f stands in the penalty, and nowhere else
    pull = Force(r.latent, transformations, horizon=r.horizon) if pushed else None
    parts = *networks, Flow(velocity, method, substeps, log_det), PRIORS[prior](transformations), pull
    weights = {"hamilton_jacobi": hamilton_jacobi, "autoencoding": autoencoding, "consistency": consistency}
    return parts, weights | {"initial": initial, "path_kl": path_kl, **_shared(r)}


def _require_fitting(
    field: str, depth: int, force: str, prior: str, log_det: str, method: str, substeps: int, hamilton_jacobi: float
) -> None:
    """Raise a ValueError for options of a flow that are unknown, out of range, or do not go together."""
    require_known("field", field, FIELDS)
    require_known("force", force, ("learned", "none"))
    require_known("prior", prior, PRIORS)
    require_known("log_det", log_det, LOG_DETS)
    require_known("method", method, METHODS)
    for name, value in (("depth", depth), ("substeps", substeps)):
        if not (isinstance(value, int) and value >= 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value}")
    for name, value, neutral in (("hamilton_jacobi", hamilton_jacobi, 0), ("depth", depth, 1)):
        if field != "gradient" and value != neutral:
            raise ValueError(
                f"{name} = {value} needs a potential, which a {field} field does not have: "
                f"set {name} to {neutral}, or field to gradient"
            )


def _flow_factorized(r: Recipe, shape: tuple[int, int, int], transformations: int, **options: Any) -> FlowFactorizedVAE:
    parts, weights = _flow_parts(r, shape, transformations, **options)
    return FlowFactorizedVAE(*parts, **weights)


def _weakly_supervised(
    r: Recipe,
    shape: tuple[int, int, int],
    transformations: int,
    *,
    balance: float = 1000.0,
    classification: float = 0.0,
    **options: Any,
) -> InferredFlowVAE:
    parts, weights = _flow_parts(r, shape, transformations, **options)
    inferred = {"inference": TransformationEncoder(shape, transformations), "posterior": GumbelSoftmax()}
    weights |= {"balance": balance, "classification": classification, "annealing": max(1, r.steps // 2)}
    return InferredFlowVAE(*parts, **inferred, **weights)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "vae": _vae,
    "beta-vae": _vae,
    "factor-vae": _factor_vae,
    "slow-vae": _slow_vae,
    "topographic-vae": _topographic_vae,
    "poflow": _poflow,
    "flow-factorized": _flow_factorized,
    "weakly-supervised": _weakly_supervised,
}
"""Model ↦ builder from (recipe, image_shape, transformations, **options); see :func:`register_model`."""

_OWN_BETA = {"vae": 1.0}
_PASSED_ON = {_flow_factorized: _flow_parts, _weakly_supervised: _flow_parts}  # where ``**options`` go


def register_model(name: str, builder: Callable[..., nn.Module]) -> None:
    """Enter a model of your own, which can then be trained, compared and loaded by its name.

    Args:
        name: of the model.
        builder: (recipe, image_shape, transformations, *, options with defaults) ↦ module with the methods of
            :class:`models.VAE`.

    Raises:
        ValueError: for a name that is taken.
    """
    if name in MODELS:
        raise ValueError(f"there is a model {name!r} already: choose another name")
    MODELS[name] = builder


def options_of(model: str) -> dict[str, Any]:
    """The options that only this model has, with their defaults: the keywords of its builder."""
    builder = MODELS[model]
    functions = [_PASSED_ON[builder], builder] if builder in _PASSED_ON else [builder]
    parameters = [p for function in functions for p in inspect.signature(function).parameters.values()]
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def build_model(
    model: str,
    settings: Recipe,
    image_shape: tuple[int, int, int] = (3, 28, 28),
    transformations: int = 3,
    seed: int = 0,
) -> nn.Module:
    """A freshly initialised model; the seed decides its weights, and the global random state is left as it was.

    Models of one seed and recipe start with the same encoder and decoder, but for the Topographic VAE, whose encoder
    gives twice as many numbers.

    Raises:
        ValueError: for an unknown model or option; the message lists the known ones. For options that do not go
            together.
    """
    require_known("model", model, MODELS)
    known = options_of(model)
    for name in settings.options:
        if name not in known:
            raise ValueError(
                f"unknown option {name!r} of {model}; known: {', '.join(known) or 'none'}. Make its recipe by "
                f"recipe(data, budget, {model!r})"
            )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[model](settings, tuple(image_shape), transformations, **settings.options)


# --- recipes ------------------------------------------------------------------------------------------------------

_SMOKE = Recipe(steps=12, test_images=32, likelihood_images=2, samples=10)
_STILLS = {
    "smoke": _SMOKE,
    "lecture": Recipe(steps=1000, likelihood_images=16),
    "full": Recipe(steps=10_000),
}
_MNIST = {
    "smoke": _SMOKE,
    "lecture": Recipe(steps=4000, likelihood_images=16),
    "full": Recipe(steps=20_000, latent=48, channels=(48, 96), hidden=512),
}


def _scene(horizon: int) -> dict[str, Recipe]:
    size = {"pixels": 64, "learning_rate": 3e-3, "horizon": horizon}
    small, large = (16, 32, 64, 128), (32, 64, 128, 128)
    return {
        "smoke": replace(_SMOKE, **size, channels=small, test_images=8),
        "lecture": Recipe(steps=6000, likelihood_images=8, **size, channels=small, test_images=500),
        "full": Recipe(steps=20_000, **size, channels=large, hidden=512, test_images=500),
    }


RECIPES: dict[str, dict[str, Recipe]] = {
    **dict.fromkeys(("mnist", "mnist-10k", "mnist-five"), _MNIST),
    **dict.fromkeys(("shapes3d", "shapes3d-lite"), _scene(7)),
    **dict.fromkeys(("falcor3d", "falcor3d-lite"), _scene(4)),
    **dict.fromkeys(("isaac3d", "isaac3d-lite"), _scene(3)),
}
"""Data set ↦ budget ↦ recipe, where it is not that of digits, which also serves a user's own data."""


def recipe(data: str, budget: str, model: str = "flow-factorized", **changes: Any) -> Recipe:
    """The recipe of a budget on a data set for a model, with some fields, or options of the model, changed.

    Raises:
        ValueError: for an unknown data set, budget, model, precision or setting; the message lists the known ones. For
            options that do not go together, or numbers out of range.
    """
    require_known("data set", data, DATASETS)
    require_known("budget", budget, BUDGETS)
    require_known("model", model, MODELS)
    options = options_of(model)
    shared = [entry.name for entry in fields(Recipe) if entry.name != "options"]
    for name in changes:
        require_known(f"setting of {model}", name, [*shared, *options])
    options |= {name: changes.pop(name) for name in list(changes) if name in options}
    if model in _OWN_BETA:
        changes = {"beta": _OWN_BETA[model], **changes}
    settings = replace(RECIPES.get(data, _STILLS)[budget], **changes, options=options)
    require_known("precision", settings.precision, ("float32", "bfloat16"))
    if MODELS[model] in _PASSED_ON:
        _require_fitting(**{name: options[name] for name in inspect.signature(_require_fitting).parameters})
    if not 0 <= settings.labelled <= 1:
        raise ValueError(f"labelled is a share of the training images, from 0 to 1, got {settings.labelled}")
    if not 0 < settings.share <= 1:
        raise ValueError(f"share is a share of the training images, above 0 and up to 1, got {settings.share}")
    return settings


def sequences(data: str, split: str, settings: Recipe) -> Sequences:
    """Sequences of one split in the paper's protocol; only training leaves out images, as its recipe says."""
    form = {name: getattr(settings, name) for name in ("horizon", "pixels", "start", "labelled")}
    if split == "train":
        form |= {"share": settings.share, "left_out": settings.left_out}
    return load_sequences(data, split, **form)
