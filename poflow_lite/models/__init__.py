"""The models: each is the VAE and what it changes."""

from poflow_lite.models.factor import FactorVAE
from poflow_lite.models.flow_factorized import FlowFactorizedVAE
from poflow_lite.models.poflow import PoFlow
from poflow_lite.models.slow import SlowVAE
from poflow_lite.models.sparse import SparseFlowVAE, SpikeAndSlab, UnsignedDiffusionPrior
from poflow_lite.models.topographic import TopographicVAE
from poflow_lite.models.vae import VAE
from poflow_lite.models.weak import TransformationEncoder, WeaklySupervisedVAE

__all__ = [
    "VAE",
    "FactorVAE",
    "FlowFactorizedVAE",
    "PoFlow",
    "SlowVAE",
    "SparseFlowVAE",
    "SpikeAndSlab",
    "TopographicVAE",
    "TransformationEncoder",
    "UnsignedDiffusionPrior",
    "WeaklySupervisedVAE",
]
