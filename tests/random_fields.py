"""Velocity fields of every kind in double precision, and weights that mix them."""

import torch
from draws import normal, rng
from torch import nn

from poflow_lite.fields import AutogradPotential, DeepUnits, DivergenceFreeField, FreeField, MixedFields, Potential

HIDDEN = {"potential": Potential, "free": FreeField, "divergence-free": DivergenceFreeField}
FIELDS = (*HIDDEN, "mixed", "function", "1 layers", "2 layers", "3 layers")


def make(kind, latent=3, transformations=3, seed=0, initial=False, **sizes):
    """A float64 field in which every parameter is random, unless it is to keep its initial one."""
    sizes = {"width": 5, "horizon": 4, **sizes}
    if kind in HIDDEN:
        field = HIDDEN[kind](latent, transformations, **sizes)
    elif kind == "mixed":
        turning = [DivergenceFreeField(latent, transformations - 1, **sizes)] if transformations > 1 else []
        field = MixedFields([Potential(latent, 1, **sizes), *turning])
    elif kind == "function":  # values (B, K), or (B,) of a single one
        waves = [lambda z, t, k=k: torch.sin(z.sum(1) + k * t) * z[:, 0].sin() for k in range(1, transformations + 1)]
        function = waves[0] if transformations == 1 else lambda z, t: torch.stack([u(z, t) for u in waves], 1)
        field = AutogradPotential(function, latent, transformations)
    else:
        units = DeepUnits(latent, transformations, depth=int(kind[0]), **sizes)
        field = AutogradPotential(units, latent, transformations, sizes["horizon"])
    draw = rng(seed)
    for parameter in [] if initial else field.parameters():
        nn.init.normal_(parameter, std=0.5, generator=draw)
    return field.double()


def weights(kind, transformations, batch=4):
    if kind == "one-hot":
        return torch.eye(transformations, dtype=torch.float64)[torch.arange(batch) % transformations]
    drawn = normal(batch, transformations, seed=2)
    return drawn.softmax(1) if kind == "soft" else drawn
