"""The models: each is the VAE and what it changes. Beside them, flows that are learned without images."""

from poflow_lite.models.baselines import FactorVAE, SlowVAE, TopographicVAE, permute_dimensions
from poflow_lite.models.flow_factorized import FlowFactorizedVAE
from poflow_lite.models.flow_matching import COUPLINGS, FlowMatching, match_flow, sample_displacements
from poflow_lite.models.inferred import GumbelSoftmax, InferredFlowVAE, SpikeAndSlab
from poflow_lite.models.learned_transport import LearnedTransport, TransportReport, measure_transport, train_transport
from poflow_lite.models.msp import MSP
from poflow_lite.models.poflow import PoFlow
from poflow_lite.models.vae import VAE

__all__ = [
    "COUPLINGS",
    "MSP",
    "VAE",
    "FactorVAE",
    "FlowFactorizedVAE",
    "FlowMatching",
    "GumbelSoftmax",
    "InferredFlowVAE",
    "LearnedTransport",
    "PoFlow",
    "SlowVAE",
    "SpikeAndSlab",
    "TopographicVAE",
    "TransportReport",
    "match_flow",
    "measure_transport",
    "permute_dimensions",
    "sample_displacements",
    "train_transport",
]
