"""Optimal transport that is learned: a potential flow trained to carry one cloud of points onto another.

The flow is that of the flow-factorized VAE, in the plane and without images. What makes it optimal is the
Hamilton-Jacobi equation as a penalty on the residual at the points the particles pass (a physics-informed network).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from poflow_lite.datasets import Clouds, sample_pair
from poflow_lite.fields import Force, Potential
from poflow_lite.flows import Flow, Trajectory
from poflow_lite.io import require_weights
from poflow_lite.networks import seeded
from poflow_lite.training import Losses, Schedule, fit
from poflow_lite.transport import efficiency, kinetic_energy, optimal_plan, ot_gap, wasserstein


class LearnedTransport(nn.Module):
    """A potential flow that learns to carry q_0 onto a target p by minimising

        λ_end W₂²(q_T, p) + λ_HJ E Σ_t R(z_t, t)² + λ_0 E‖∇u(z_0, 0)‖²,      R = ∂_t u + ½‖∇u‖² - f.

    W₂² of two batches is exact (POT); its gradient in z_T is that of the squared distances under the optimal plan,
    which itself may be held fixed (Danskin's theorem). R = 0 with f = 0 makes particles run straight at constant speed;
    from a gradient field that is the optimal map.

    Args:
        flow: along a potential, K = 1.
        horizon: T, frames from source to target.
        force: f ≤ 0; ``None`` for f = 0.
        endpoint: λ_end.
        hamilton_jacobi: λ_HJ.
        initial: λ_0, weight of the paper's initial condition ∇u(z_0, 0) = 0.

    Raises:
        ValueError: for a weight that is negative or not finite, or a horizon below 1.
    """

    def __init__(
        self,
        flow: Flow,
        horizon: int = 8,
        force: Force | None = None,
        endpoint: float = 10.0,
        hamilton_jacobi: float = 30.0,
        initial: float = 0.0,
    ):
        super().__init__()
        require_weights(endpoint=endpoint, hamilton_jacobi=hamilton_jacobi, initial=initial)
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1, got {horizon}")
        self.flow, self.horizon, self.force = flow, horizon, force
        self.endpoint, self.hamilton_jacobi, self.initial = endpoint, hamilton_jacobi, initial

    def paths(self, z: Tensor) -> Trajectory:
        """The trajectory of particles that start at z (B, d)."""
        return self.flow.rollout(z, z.new_ones(len(z), 1), range(self.horizon + 1))

    def terms(self, batch: Clouds, generator: torch.Generator | None = None) -> Losses:
        """The terms of the loss for a pair of clouds, one value for each particle; nothing random is drawn."""
        trajectory = self.paths(batch.source)
        end = trajectory.z[:, -1]
        aim = optimal_plan(end.detach(), batch.target).barycentric_map()  # equal clouds: a permutation
        terms = {"endpoint": self.endpoint * (end - aim).square().sum(1)}
        if self.hamilton_jacobi:
            residuals = self.flow.residuals(trajectory, self.force)
            terms["hamilton_jacobi"] = self.hamilton_jacobi * residuals.square().sum(1)
        if self.initial:
            terms["initial"] = self.initial * trajectory.velocity[:, 0].square().sum(1)
        return Losses(terms)


@dataclass(frozen=True)
class TransportReport:
    """How good a learned transport is, on points it was not trained on. Squared lengths are latent².

    Attributes:
        energy: Benamou-Brenier energy of the paths, T Σ_t E‖z_{t+1} - z_t‖².
        optimal: exact W₂² between the source and the target points.
        energy_ratio: ``energy / optimal``; below 1 if the flow stops short of the target.
        ot_gap: energy ÷ exact W₂² between where the particles start and where they end, ≥ 1.
        efficiency: E‖z_T - z_0‖² ÷ energy, ≤ 1.
        endpoint_error: W₂ between where the particles end and fresh target points.
        sampling_error: W₂ between two sets of target points, which a perfect flow would score.
        smallest_eigenvalue: of I + ∇²u along the paths; the flow is invertible while it is positive.
    """

    energy: float
    optimal: float
    energy_ratio: float
    ot_gap: float
    efficiency: float
    endpoint_error: float
    sampling_error: float
    smallest_eigenvalue: float

    def as_dict(self) -> dict[str, float]:
        """All figures by name."""
        return asdict(self)


def train_transport(
    pair: str,
    *,
    steps: int = 2000,
    batch_size: int = 256,
    learning_rate: float = 5e-3,
    width: int = 128,
    horizon: int = 8,
    force: bool = False,
    seed: int = 0,
    progress: bool = True,
    **weights: float,
) -> tuple[LearnedTransport, list[dict[str, float]]]:
    """Train a flow from scratch to carry the first cloud of a pair onto the second.

    Args:
        pair: one of :data:`datasets.PAIRS`.
        steps, batch_size, learning_rate: optimiser steps, points of each cloud in a step, Adam's peak rate.
        width, horizon: hidden units of the potential; T frames.
        force: learn a force f ≤ 0 as well.
        seed: determines initial weights and all points drawn.
        progress: show a bar.
        weights: of the loss, for :class:`LearnedTransport`.

    Returns:
        The trained transport, and the history that :func:`training.fit` returns.

    Raises:
        ValueError: for an unknown pair or unusable weights.
    """
    sample_pair(pair, 1, torch.Generator())  # an unknown pair is refused before anything is built
    with seeded(seed):
        flow = Flow(Potential(2, 1, width, horizon=horizon, init_scale=1.5))
        pull = Force(2, 1, horizon=horizon) if force else None
    transport = LearnedTransport(flow, horizon, pull, **weights)
    schedule = Schedule(steps, learning_rate, warmup=50, clip=100.0)
    history = fit(transport, lambda g: sample_pair(pair, batch_size, g), schedule, seed=seed, progress=progress)
    return transport, history


def measure_transport(
    transport: LearnedTransport, pair: str, count: int = 2000, seed: int = 1, repeats: int = 1
) -> TransportReport:
    """Measure a transport on fresh points: ``count`` of each cloud, ``repeats`` times over.

    W₂ between samples is unsteady (how many points fall on which moon is chance); the report holds the means over the
    repeats, and the smallest of the smallest eigenvalues.
    """
    generator = torch.Generator().manual_seed(seed)
    reports = [_measure(transport, pair, count, generator).as_dict() for _ in range(repeats)]
    means = {name: sum(report[name] for report in reports) / repeats for name in reports[0]}
    means["smallest_eigenvalue"] = min(report["smallest_eigenvalue"] for report in reports)
    return TransportReport(**means)


@torch.no_grad()
def _measure(transport: LearnedTransport, pair: str, count: int, generator: torch.Generator) -> TransportReport:
    clouds, again = sample_pair(pair, count, generator), sample_pair(pair, count, generator)
    path = transport.paths(clouds.source)
    energy = kinetic_energy(path.z).mean().item()
    optimal = wasserstein(clouds.source, clouds.target) ** 2
    return TransportReport(
        energy=energy,
        optimal=optimal,
        energy_ratio=energy / optimal,
        ot_gap=ot_gap(path.z),
        efficiency=efficiency(path.z),
        endpoint_error=wasserstein(path.z[:, -1], again.target),
        sampling_error=wasserstein(clouds.target, again.target),
        smallest_eigenvalue=transport.flow.smallest_eigenvalue(path).min().item(),
    )
