"""Flows on the latent space, the trajectories and densities that they make, and the priors that evolve beside them."""

from poflow_lite.flows.flow import Flow, LatentOperator, NotInvertible, Trajectory, clock_of
from poflow_lite.flows.priors import DiffusionPrior, PushforwardPrior, StaticPrior, with_exact_density
from poflow_lite.flows.runge_kutta import LOG_DETS, METHODS, RungeKutta, log_det_identity_plus

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
    "clock_of",
    "log_det_identity_plus",
    "with_exact_density",
]
