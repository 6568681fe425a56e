"""Building models: each by its name from a recipe, with the options that it alone has."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from poflow_lite import networks
from poflow_lite.datasets import DATASETS
from poflow_lite.experiments.recipes import BUDGETS, RECIPES, STILLS, Recipe
from poflow_lite.fields import AutogradPotential, DeepUnits, DivergenceFreeField, Force, FreeField, Potential
from poflow_lite.flows import DiffusionPrior, Flow, PushforwardPrior, StaticPrior
from poflow_lite.io import require_known
from poflow_lite.models import (
    MSP,
    VAE,
    FactorVAE,
    FlowFactorizedVAE,
    GumbelSoftmax,
    InferredFlowVAE,
    PoFlow,
    SlowVAE,
    TopographicVAE,
)
from poflow_lite.networks import seeded
from poflow_lite.settings import Positive, Size, Weight, checked

# Each builder takes (recipe, image_shape, transformations) and, by keyword, the options that its model alone has; the
# defaults were chosen on validation images; the record mnist-10k-tuning holds β and one weight of each model.


NETWORKS: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {
    "strided": (networks.ConvEncoder, networks.ConvDecoder),
    "patches": (networks.PatchEncoder, networks.PatchDecoder),
}
"""Name ↦ encoder and decoder."""


def build_networks(r: Recipe, shape: tuple[int, int, int], coded: int | None = None) -> tuple[nn.Module, nn.Module]:
    """A fresh encoder and decoder as a recipe asks for them.

    Args:
        r: recipe; its network, latent, channels, hidden and precision count.
        shape: of an image, (C, H, W).
        coded: coded dimensions, where they are not those of the latents.
    """
    encode, decode = NETWORKS[r.network]
    encoder = encode(shape, coded or r.latent, r.channels, r.hidden)
    decoder = decode(shape, r.latent, r.channels, r.hidden)
    if shape[-1] >= 64:  # large images are convolved faster with their channels innermost
        encoder, decoder = (network.to(memory_format=torch.channels_last) for network in (encoder, decoder))
    if r.precision == "bfloat16":
        encoder, decoder = networks.Autocast(encoder), networks.Autocast(decoder)
    return encoder, decoder


def _shared(r: Recipe) -> dict[str, Any]:
    return {"likelihood": r.likelihood, "beta": r.beta}


def _vae(r: Recipe, shape: tuple[int, int, int], transformations: int) -> VAE:
    return VAE(*build_networks(r, shape), **_shared(r))


def _factor_vae(r: Recipe, shape: tuple[int, int, int], transformations: int, *, gamma: Weight = 0.1) -> FactorVAE:
    return FactorVAE(*build_networks(r, shape), r.latent, **_shared(r), gamma=gamma)


def _slow_vae(
    r: Recipe, shape: tuple[int, int, int], transformations: int, *, rate: Positive = 6.0, transition: Weight = 0.01
) -> SlowVAE:
    return SlowVAE(*build_networks(r, shape), **_shared(r), rate=rate, transition=transition)


def _topographic_vae(
    r: Recipe, shape: tuple[int, int, int], transformations: int, *, capsules: Size = 2, neighbours: Size = 3
) -> TopographicVAE:
    parts = build_networks(r, shape, 2 * r.latent)
    return TopographicVAE(*parts, r.latent, **_shared(r), capsules=capsules, neighbours=neighbours)


def _msp(
    r: Recipe,
    shape: tuple[int, int, int],
    transformations: int,
    *,
    rows: Size = 8,
    columns: Size = 16,
    autoencoding: Weight = 0.5,
) -> MSP:
    wider = replace(r, latent=rows * columns)
    return MSP(*build_networks(wider, shape), rows, **_shared(r), autoencoding=autoencoding)


def _poflow(
    r: Recipe,
    shape: tuple[int, int, int],
    transformations: int,
    *,
    wave: Weight = 1.0,
    initial: Weight = 0.1,
    jacobian: Weight = 0.01,
    classification: Weight = 1.0,
) -> PoFlow:
    parts = *build_networks(r, shape), Flow(FIELDS["gradient"](**_sizes(r, transformations)))
    weights = {"wave": wave, "initial": initial, "jacobian": jacobian, "classification": classification}
    return PoFlow(*parts, networks.TransformationEncoder(shape, transformations), **_shared(r), **weights)


FIELDS: dict[str, Callable[..., nn.Module]] = {
    "gradient": Potential,
    "free": FreeField,
    "divergence-free": DivergenceFreeField,
}
PRIORS: dict[str, Callable[[Flow], nn.Module]] = {
    "diffusion": lambda flow: DiffusionPrior(flow.field.transformations),
    "static": lambda flow: StaticPrior(flow.field.transformations),
    "pushforward": PushforwardPrior,
}


def _sizes(r: Recipe, transformations: int) -> dict[str, int]:
    names = ("latent", "width", "horizon", "frequencies")
    return {name: getattr(r, name) for name in names} | {"transformations": transformations}


def _flow_parts(
    r: Recipe,
    shape: tuple[int, int, int],
    transformations: int,
    *,
    hamilton_jacobi: Weight = 10.0,
    autoencoding: Weight = 0.05,
    consistency: Weight = 0.0,
    initial: Weight = 0.0,
    field: Literal["gradient", "free", "divergence-free"] = "gradient",
    depth: Annotated[int, Field(strict=True, ge=1, le=16)] = 1,
    force: Literal["learned", "none"] = "learned",
    prior: Literal["diffusion", "static", "pushforward"] = "diffusion",
    log_det: Literal["exact", "trace", "hutchinson", "none"] = "exact",
    method: Literal["euler", "midpoint", "rk4"] = "euler",
    substeps: Annotated[int, Field(strict=True, ge=1, le=1024)] = 1,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Networks, flow, prior and force of a flow-factorized model, and its weights."""
    _require_fitting(field, depth, hamilton_jacobi)
    coder, sizes = build_networks(r, shape), _sizes(r, transformations)
    if depth > 1:
        velocity = AutogradPotential(DeepUnits(**sizes, depth=depth), r.latent, transformations, r.horizon)
    else:
        velocity = FIELDS[field](**sizes)
    pushed = force == "learned" and hamilton_jacobi  # f stands in the penalty, and nowhere else
    pull = Force(r.latent, transformations, horizon=r.horizon) if pushed else None
    flow = Flow(velocity, method, substeps, log_det)
    parts = *coder, flow, PRIORS[prior](flow), pull
    weights = {"hamilton_jacobi": hamilton_jacobi, "autoencoding": autoencoding, "consistency": consistency}
    return parts, weights | {"initial": initial, **_shared(r)}


def _require_fitting(field: str, depth: int, hamilton_jacobi: float) -> None:
    """Raise a ValueError for options of a flow that do not go together."""
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
    balance: Weight = 1000.0,
    classification: Weight = 0.0,
    **options: Any,
) -> InferredFlowVAE:
    if r.labelled and not classification:
        raise ValueError(
            f"labelled = {r.labelled:g} tells labels that nothing uses: set classification above 0, or labelled to 0"
        )
    parts, weights = _flow_parts(r, shape, transformations, **options)
    inferred = {"inference": networks.TransformationEncoder(shape, transformations), "posterior": GumbelSoftmax()}
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
    "free-flow": _flow_factorized,
    "weakly-supervised": _weakly_supervised,
    "msp": _msp,
}
"""Model ↦ builder from (recipe, image_shape, transformations, **options); see :func:`register_model`."""

_OWN_DEFAULTS: dict[str, dict[str, Any]] = {
    "vae": {"beta": 1.0},
    "free-flow": {
        "field": "free",
        "hamilton_jacobi": 0.0,
        "autoencoding": 0.5,
        "prior": "pushforward",
        "beta": 0.1,
    },
    "weakly-supervised": {"autoencoding": 3.2},
    "msp": {"beta": 0.01},
}
"""Where a model's settings or options differ from the shared ones, or from those of its builder."""

_PASSED_ON = {
    _flow_factorized: _flow_parts,
    _weakly_supervised: _flow_parts,
}  # where ``**options`` go


def register_model(name: str, builder: Callable[..., nn.Module]) -> None:
    """Enter a model of your own, which can then be trained, compared and loaded by its name in this process.

    Another process has to register it too before it loads a run of it. :func:`build_networks` gives it the encoder and
    decoder that the recipe asks for.

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
    parameters = [p for function in _builders(model) for p in inspect.signature(function).parameters.values()]
    defaults = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    return {name: _OWN_DEFAULTS.get(model, {}).get(name, default) for name, default in defaults.items()}


def _builders(model: str) -> list[Callable[..., Any]]:
    """The functions whose keywords are the options of a model."""
    builder = MODELS[model]
    return [_PASSED_ON[builder], builder] if builder in _PASSED_ON else [builder]


def _checked_options(model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a model, each as its builder has it; a ValueError for one that is unknown, out of range or unfit."""
    known = options_of(model)
    for name in options:
        require_known(f"option of {model}", name, known)
    for function in _builders(model):
        options = checked(function, options)
    if _flow_parts in _builders(model):
        chosen = known | options
        _require_fitting(*(chosen[name] for name in inspect.signature(_require_fitting).parameters))
    return options


def build_model(
    model: str,
    settings: Recipe,
    image_shape: tuple[int, int, int] = (3, 28, 28),
    transformations: int = 3,
    seed: int = 0,
) -> nn.Module:
    """A freshly initialised model; the seed decides its weights, and the global random state is left as it was.

    Models of one seed and recipe start with the same encoder and decoder, but for MSP, whose codes have another size,
    and the Topographic VAE, whose encoder gives twice as many numbers.

    Raises:
        ValueError: for an unknown model or option; the message lists the known ones. For options that do not go
            together.
    """
    require_known("model", model, MODELS)
    options = _checked_options(model, options_of(model) | settings.options)
    with seeded(seed):
        return MODELS[model](settings, tuple(image_shape), transformations, **options)


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
    own = {name: value for name, value in _OWN_DEFAULTS.get(model, {}).items() if name in shared}
    return replace(RECIPES.get(data, STILLS)[budget], **own | changes, options=_checked_options(model, options))
