"""Flow matching: the latent motion of a trained model by regression on displacements, without simulating a flow.

The latents z_t = μ(x_t) of training sequences stay as they are; only a velocity field is learned, by conditional flow
matching (Lipman et al. 2023; Liu, Gong & Liu 2023) from each frame to the next. What the field learns depends on how
points of frame t are coupled to points of frame t + 1: by their sequences, or, where these are unknown, by minibatch
optimal transport (Tong et al. 2024; Pooladian et al. 2023) or at random.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from poflow_lite.fields import Field, mixing_weights
from poflow_lite.flows import Flow
from poflow_lite.io import require_known
from poflow_lite.training import Losses, Schedule, fit
from poflow_lite.transport import optimal_plan

# --- couplings: which end point belongs to which start ------------------------------------------------------------


def _pairs(source: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
    """The end points of the same sequences: the true pairs."""
    return target


def _optimal(source: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
    """The end points that an optimal plan between the two batches assigns; of equal sizes, it is a permutation."""
    return target[optimal_plan(source, target).matrix.argmax(1)]


def _independent(source: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
    """The end points in a random order."""
    return target[torch.randperm(len(target), generator=generator).to(target.device)]


COUPLINGS: dict[str, Callable[[Tensor, Tensor, torch.Generator], Tensor]] = {
    "pairs": _pairs,
    "optimal": _optimal,
    "unpaired": _optimal,
    "independent": _independent,
}
"""Name ↦ function of starts (n, d), ends (n, d) and a generator that puts the ends into the order of their starts.

With "pairs", "optimal" and "independent" the ends come from the same sequences as the starts. "optimal" does not look
at their order, yet the true partner of each start is among the ends, and where frames are closer than sequences the
plan finds it. With "unpaired" the ends come from other sequences: no one knows what became of what.
"""


@dataclass
class Displacements:
    """Points on straight lines from frame to frame, and the velocity there.

    Attributes:
        z: (B, d), (1 - τ) z_t + τ z_{t+1}.
        velocity: (B, d), z_{t+1} - z_t, latent units per frame.
        t: (B,), t + τ, frames.
        y: (B, K), one-hot: which transformation.
    """

    z: Tensor
    velocity: Tensor
    t: Tensor
    y: Tensor

    def to(self, device: torch.device | str) -> Displacements:
        """The same on another device."""
        return Displacements(*(tensor.to(device) for tensor in (self.z, self.velocity, self.t, self.y)))


def sample_displacements(
    latents: Tensor, coupling: str, generator: torch.Generator, groups: int = 4, size: int = 64
) -> Displacements:
    """Draw ``groups`` transitions (k, t) → (k, t + 1), and ``size`` sequences for each, coupled within the group.

    Args:
        latents: (K, N, T+1, d).
        coupling: one of :data:`COUPLINGS`.
        generator: of every draw; τ ~ U(0, 1) for each point.
        groups, size: their product is the number of points B. A sequence is drawn at most once in a group; with
            "unpaired" its ends come from sequences that are not among its starts, where there are enough.

    Raises:
        ValueError: for an unknown coupling.
    """
    require_known("coupling", coupling, COUPLINGS)
    transformations, sequences, frames, _ = latents.shape
    size = min(size, sequences)
    starts, ends, times, indices = [], [], [], []
    for _ in range(groups):
        k, t = (int(torch.randint(high, (), generator=generator)) for high in (transformations, frames - 1))
        order = torch.randperm(sequences, generator=generator).to(latents.device)
        ending = order[-size:] if coupling == "unpaired" else order[:size]
        source, target = latents[k, order[:size], t], latents[k, ending, t + 1]
        starts.append(source)
        ends.append(COUPLINGS[coupling](source, target, generator))
        times.append(torch.full((size,), t))
        indices.append(torch.full((size,), k))
    source, target = torch.cat(starts), torch.cat(ends)
    tau = torch.rand(len(source), generator=generator).to(source)
    times, y = torch.cat(times).to(source), mixing_weights(torch.cat(indices), transformations).to(source)
    return Displacements(torch.lerp(source, target, tau[:, None]), target - source, times + tau, y)


# --- regression ---------------------------------------------------------------------------------------------------


class FlowMatching(nn.Module):
    """The regression E ‖v^k((1 - τ) z_t + τ z_{t+1}, t + τ) - (z_{t+1} - z_t)‖², whose minimiser carries the clouds.

    The best v is the mean velocity of all lines through a point, and has the continuity equation for free: it carries
    the density of frame t to that of frame t + 1 under every coupling (Lipman et al. 2023, theorems 1 and 2). Which
    particle goes where is the coupling's affair. A gradient field gives the best curl-free approximation: its
    potential is found by regression, with no Hamilton-Jacobi penalty.

    Args:
        field: a velocity field that is a module.
    """

    def __init__(self, field: Field):
        super().__init__()
        self.field = field

    def terms(self, batch: Displacements, generator: torch.Generator | None = None) -> Losses:
        """Squared distances "squared_error", (B,), latent² per frame²; nothing random is drawn."""
        apart = self.field.velocity(batch.z, batch.t, batch.y) - batch.velocity
        return Losses({"squared_error": apart.square().sum(1)})


def match_flow(
    field: Field,
    latents: Tensor,
    coupling: str = "pairs",
    *,
    steps: int = 2000,
    batch_size: int = 256,
    learning_rate: float = 5e-3,
    seed: int = 0,
    method: str = "rk4",
    substeps: int = 1,
    progress: bool = True,
) -> Flow:
    """Train a velocity field by flow matching, in place, and give the flow that follows it.

    Args:
        field: a velocity field that is a module, with one transformation for each of the latents'.
        latents: z_t of training sequences, (K, N, T+1, d), as :func:`operators.training_latents` finds them.
        coupling: one of :data:`COUPLINGS`.
        steps, batch_size, learning_rate: optimiser steps; points of a step, in equal groups of up to 64 that are
            coupled among themselves, so that a few may be left out; Adam's peak rate.
        seed: determines all draws; the field's initial weights are the caller's.
        method, substeps: of the flow. The field is a velocity at every time, not the displacement of a whole frame, so
            one Euler step a frame is not enough where paths bend.
        progress: show a bar.

    Returns:
        The flow.

    Raises:
        ValueError: for an unknown coupling, latents of another shape, with NaN, or of other transformations or
            dimension than the field's, or a batch size below 1.
    """
    require_known("coupling", coupling, COUPLINGS)
    if latents.ndim != 4 or latents.shape[1] < 1 or latents.shape[2] < 2:
        raise ValueError(f"latents must be (K, N, T+1, d) with N ≥ 1 and T ≥ 1, got {tuple(latents.shape)}")
    if not latents.isfinite().all():
        raise ValueError("latents hold NaN or infinite entries: look for what the encoder makes them of")
    if len(latents) != field.transformations or latents.shape[-1] != field.latent:
        raise ValueError(
            f"the field moves {field.latent} dimensions by {field.transformations} transformations, but the latents "
            f"(K, N, T+1, d) are {tuple(latents.shape)}"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    latents, groups = latents.detach(), math.ceil(batch_size / 64)
    fit(
        FlowMatching(field),
        lambda generator: sample_displacements(latents, coupling, generator, groups, batch_size // groups),
        Schedule(steps, learning_rate, warmup=min(100, steps), clip=100.0),
        seed=seed,
        device=latents.device,
        progress=progress,
    )
    return Flow(field, method, substeps)
