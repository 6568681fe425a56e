"""Flows on the latent space, the trajectories and densities that they make, and the priors that evolve beside them."""

from poflow_lite.flows.flow import (
    LOG_DETS,
    METHODS,
    Flow,
    LatentOperator,
    NotInvertible,
    RungeKutta,
    Trajectory,
    log_det_identity_plus,
)
from poflow_lite.flows.priors import DiffusionPrior, PushforwardPrior, StaticPrior, with_exact_density

__all__ = [
    "LOG_DETS",
    "METHODS",
    "DiffusionPrior",
    "Flow",
    "LatentOperator",
    "NotInvertible",
    "PushforwardPrior",
    "RungeKutta",
    "StaticPrior",
    "Trajectory",
    "log_det_identity_plus",
    "with_exact_density",
]
