"""Do flows commute as the true transformations do? Infinitesimally by the Lie bracket, and after whole frames."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from poflow_lite.datasets import Motion, Phase, TransformationSequences, render_motion
from poflow_lite.fields import Field
from poflow_lite.models import VAE
from poflow_lite.movers import Mover, follow

__all__ = ["OrderGaps", "bracket_shares", "lie_bracket", "order_gaps"]


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
    cancel does not.

    Args:
        field: K velocity fields.
        z: points (B, d) over which E averages.
        t: time, in frames.
    """
    shares = torch.zeros(field.transformations, field.transformations, dtype=z.dtype)
    for i, j in itertools.combinations(range(field.transformations), 2):
        first, second = _turns(field, z, t, i, j)
        whole = first.norm(dim=1).mean() + second.norm(dim=1).mean()
        shares[i, j] = shares[j, i] = (first - second).norm(dim=1).mean() / whole.clamp_min(1e-12)
    return shares


def _turns(field: Field, z: Tensor, t: float, i: int, j: int) -> tuple[Tensor, Tensor]:
    """How v^j changes along v^i, and v^i along v^j, (B, d) each."""
    k = [torch.full((len(z),), index, device=z.device) for index in (i, j)]
    speeds = [field.velocity(z, t, index) for index in k]
    return field.jacobian_vector(z, t, k[1], speeds[0]), field.jacobian_vector(z, t, k[0], speeds[1])


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
    model: VAE, pair: tuple[Mover, Mover], sequences: TransformationSequences, frames: int = 4, seed: int = 0
) -> OrderGaps:
    """Move by i for some frames and then by j, and the other way round; compare where the two orders end.

    Args:
        model: trained.
        pair: what moves its latents, see :func:`movers.fit_movers`.
        sequences: what is shown; every image under every pair.
        frames: of each of the two phases.
        seed: of random start poses, the same for both orders.
    """
    names, device = sequences.names, next(model.parameters()).device
    indices = torch.arange(len(sequences))
    true, learned = {}, {}
    for i, j in itertools.permutations(names, 2):
        motion = Motion((Phase((i,), frames), Phase((j,), frames)))
        rendered = render_motion(sequences, indices, motion, torch.Generator().manual_seed(seed))
        start = model.encode(rendered[:, 0].to(device)).mean
        end = follow(pair, start, motion, names)[:, -1]
        true[i, j], learned[i, j] = rendered[:, -1], model.decode(end).mean.cpu()

    def table(first: dict, second: dict, swapped: bool) -> Tensor:
        values = torch.zeros(len(names), len(names))
        for (i, j), frame in first.items():
            other = second[(j, i) if swapped else (i, j)]
            values[names.index(i), names.index(j)] = (frame - other).abs().flatten(1).sum(1).mean()
        return values

    return OrderGaps(names, table(true, true, True), table(learned, learned, True), table(true, learned, False))
