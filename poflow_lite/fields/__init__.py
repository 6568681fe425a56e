"""Velocity fields v^k(z, t): gradients of potentials, divergence-free fields, free fields, and mixtures of them.

All K fields of a module are evaluated at once, each sample with its own weights y (B, K): one-hot for a known k, soft
for an inferred one, several ones to superpose transformations. :func:`mixing_weights` makes them of an index, once.
"""

from poflow_lite.fields.autograd import AutogradPotential, DeepUnits
from poflow_lite.fields.hidden_units import DivergenceFreeField, FreeField, Potential
from poflow_lite.fields.mixed import Force, MixedFields
from poflow_lite.fields.protocol import Field, mixing_weights, time_features

__all__ = [
    "AutogradPotential",
    "DeepUnits",
    "DivergenceFreeField",
    "Field",
    "Force",
    "FreeField",
    "MixedFields",
    "Potential",
    "mixing_weights",
    "time_features",
]
