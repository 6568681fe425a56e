"""poflow_lite: flow-factorized representation learning, as a course and a package."""

from poflow_lite.datasets import Batch, TransformationSequences, load_stills
from poflow_lite.deep_potentials import DeepPotential
from poflow_lite.fields import DivergenceFreeField, FreeField, FunctionPotential
from poflow_lite.flows import DiffusionPrior, Flow, PotentialFlow, StaticPrior
from poflow_lite.mixtures import MixedFields
from poflow_lite.models import VAE, FlowFactorizedVAE
from poflow_lite.potentials import Force, Potential
from poflow_lite.training import Schedule, fit

__version__ = "0.1.0"

__all__ = [
    "VAE",
    "Batch",
    "DeepPotential",
    "DiffusionPrior",
    "DivergenceFreeField",
    "Flow",
    "FlowFactorizedVAE",
    "Force",
    "FreeField",
    "FunctionPotential",
    "MixedFields",
    "Potential",
    "PotentialFlow",
    "Schedule",
    "StaticPrior",
    "TransformationSequences",
    "fit",
    "load_stills",
]
