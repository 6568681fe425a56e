"""poflow_lite: flow-factorized representation learning, as a course and a package."""

from poflow_lite.datasets import Batch, ClipSequences, TransformationSequences, load_images
from poflow_lite.fields import AutogradPotential, DivergenceFreeField, Force, FreeField, MixedFields, Potential
from poflow_lite.flows import DiffusionPrior, Flow, StaticPrior, Trajectory
from poflow_lite.models import VAE, FlowFactorizedVAE, InferredFlowVAE
from poflow_lite.training import Schedule, fit

__version__ = "0.1.0"

__all__ = [
    "VAE",
    "AutogradPotential",
    "Batch",
    "ClipSequences",
    "DiffusionPrior",
    "DivergenceFreeField",
    "Flow",
    "FlowFactorizedVAE",
    "Force",
    "FreeField",
    "InferredFlowVAE",
    "MixedFields",
    "Potential",
    "Schedule",
    "StaticPrior",
    "Trajectory",
    "TransformationSequences",
    "fit",
    "load_images",
]
