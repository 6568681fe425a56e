"""Do flows commute as the true transformations do? Infinitesimally by the Lie bracket, and after whole frames."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from poflow_lite.datasets import Motion, Segment, TransformationSequences, render_motion
from poflow_lite.fields import Field, mixing_weights


def lie_bracket(field: Field, z: Tensor, t: float, i: int, j: int) -> Tensor:
    """[v^i, v^j] = (∂v^j/∂z) v^i - (∂v^i/∂z) v^j at points z (B, d): (B, d), latent units per frame².

    Going ε along v^i and then ε along v^j ends ε² [v^i, v^j] away from where the other order ends, to leading order.
    For gradient fields it is ∇²u^j ∇u^i - ∇²u^i ∇u^j.
    """
    first, second = _turns(field, z, t, i, j)
    return first - second


@torch.no_grad()
def bracket_shares(field: Field, z: Tensor, t: float = 0.0) -> Tensor:
    """E‖[v^i, v^j]‖ ÷ E(‖(∂v^j/∂z) v^i‖ + ‖(∂v^i/∂z) v^j‖): (K, K), from 0, they commute, to 1, nothing cancels.

    A bracket by itself says little, as it grows with the speeds and with how much fields vary; its share of what could
    cancel does not. It is 0 where nothing could cancel.

    Args:
        field: K velocity fields.
        z: points (B, d) over which E averages.
        t: time, in frames.
    """
    if not len(z):
        raise ValueError(f"at least 1 point is needed, got z of shape {tuple(z.shape)}")
    shares = torch.zeros(field.transformations, field.transformations, dtype=z.dtype)
    for i, j in itertools.combinations(range(field.transformations), 2):
        first, second = _turns(field, z, t, i, j)
        unit = torch.maximum(first.abs().max(), second.abs().max())
        if unit > 0:  # in this unit no square under- or overflows
            first, second = first / unit, second / unit
            whole = first.norm(dim=1).mean() + second.norm(dim=1).mean()
            shares[i, j] = shares[j, i] = (first - second).norm(dim=1).mean() / whole
    return shares


def _turns(field: Field, z: Tensor, t: float, i: int, j: int) -> tuple[Tensor, Tensor]:
    """How v^j changes along v^i, and v^i along v^j, (B, d) each."""
    rows = mixing_weights(torch.tensor([i, j], device=z.device), field.transformations).to(z)
    y = [row.expand(len(z), -1) for row in rows]
    speeds = [field.velocity(z, t, own) for own in y]
    return field.jvp(z, t, y[1], speeds[0]), field.jvp(z, t, y[0], speeds[1])


@dataclass(frozen=True)
class OrderGaps:
    """How much it matters which of two transformations comes first, in L1 pixel intensities of the last frame.

    Attributes:
        names: of the K transformations.
        true: ‖x_ij - x_ji‖_1 between rendered frames, mean over images, (K, K).
        learned: the same between decoded ones, (K, K).
        error: ‖x_ij - x̂_ij‖_1, i first, mean over images, (K, K): what a gap has to be seen against.
    """

    names: tuple[str, ...]
    true: Tensor
    learned: Tensor
    error: Tensor


@torch.no_grad()
def order_gaps(
    model: Any,
    carry: Callable[[Tensor, Motion], Tensor],
    sequences: TransformationSequences,
    frames: int = 4,
    seed: int = 0,
) -> OrderGaps:
    """Move by i for some frames and then by j, and the other way round; compare where the two orders end.

    Args:
        model: trained.
        carry: latents (B, d) of frame 0 and a motion ↦ latents (B, n, d) along it, such as :func:`operators.follow`
            with an operator and the names.
        sequences: what is shown; every image under every pair.
        frames: of each of the two segments.
        seed: of random start poses, the same for both orders.
    """
    names, device = sequences.names, next(model.parameters()).device
    true, learned = {}, {}
    for i, j in itertools.permutations(range(len(names)), 2):
        motion = Motion((Segment((names[i],), frames), Segment((names[j],), frames)))
        generator = torch.Generator().manual_seed(seed)
        rendered = render_motion(sequences, torch.arange(len(sequences)), motion, generator)
        start = model.encode(rendered[:, 0].to(device)).mean
        true[i, j], learned[i, j] = rendered[:, -1].cpu(), model.decode(carry(start, motion)[:, -1]).mean.cpu()

    def table(first: dict, second: dict, swapped: bool) -> Tensor:
        values = torch.zeros(len(names), len(names))
        for i, j in first:
            values[i, j] = (first[i, j] - second[(j, i) if swapped else (i, j)]).abs().flatten(1).sum(1).mean()
        return values

    return OrderGaps(names, table(true, true, True), table(learned, learned, True), table(true, learned, False))
