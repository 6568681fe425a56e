"""Movers: everything that carries latents, as something that can be stopped, mixed, slowed down and run on.

The operators of :mod:`operators` answer one question, where z_t is when transformation k has moved z_0 for t frames. A
composition asks more: several transformations at once, half a frame, a frame beyond the last one trained. A mover
answers with a trace along a clock; :func:`follow` strings the phases of a motion together.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from poflow_lite.datasets import Motion, Sequences
from poflow_lite.flows import Flow
from poflow_lite.models import VAE, TopographicVAE
from poflow_lite.operators import OPERATORS, Operator, fit_operator, training_latents

__all__ = ["FlowMover", "Mover", "StepMover", "Successive", "TableMover", "fit_movers", "follow"]


class Mover(Protocol):
    """What carries latents."""

    def trace(self, z: Tensor, weights: Tensor, clock: Tensor) -> Tensor:
        """Where z (B, d) is at each time of the clock (n,), which begins with 0: (B, n, d).

        ``weights`` (K,) says what moves: one 1 for a known transformation, several to superpose them.
        """
        ...


@dataclass(frozen=True)
class FlowMover:
    """z + Δ Σ_k y_k v^k(z, t), one step of the flow for each tick Δ of the clock.

    Beyond the last step that was trained the velocity is that of t = T - 1: the clock stops, the motion goes on.

    Attributes:
        flow: its field is mixed by the weights.
        horizon: T.
    """

    flow: Flow
    horizon: int

    def trace(self, z: Tensor, weights: Tensor, clock: Tensor) -> Tensor:
        path = [z]
        for t, later in itertools.pairwise(clock.tolist()):
            y = ((later - t) * weights.to(z)).expand(len(z), -1)
            path.append(self.flow.step(path[-1], min(t, self.horizon - 1.0), y))
        return torch.stack(path, 1)

    def retrace(self, z: Tensor, weights: Tensor, clock: Tensor) -> Tensor:
        """The trace that ends in z, (B, n, d), in the order of the clock: each step of the flow inverted.

        Raises:
            ValueError: where a step folds space and cannot be undone.
        """
        path = [z]
        for t, later in reversed(list(itertools.pairwise(clock.tolist()))):
            y = ((later - t) * weights.to(z)).expand(len(z), -1)
            start = min(t, self.horizon - 1.0)
            path.append(self.flow.inverse(path[-1], y, 1, start=start))
        return torch.stack(path[::-1], 1)


@dataclass(frozen=True)
class TableMover:
    """z_t = z_0 + Σ_k y_k ((A^k_t - I) z_0 + b^k_t), the maps of each k from the start to t.

    Between two frames A and b are interpolated; beyond T the motion starts anew from z_T.

    Attributes:
        matrix: A, (K, T+1, d, d).
        offset: b, (K, T+1, d).
    """

    matrix: Tensor
    offset: Tensor

    @classmethod
    def of(cls, operator: Operator, latent: int, transformations: int) -> TableMover:
        """The table of an operator that is affine in z_0, read off from what it does to 0 and to the unit vectors."""
        points = torch.cat([torch.zeros(1, latent), torch.eye(latent)])
        images = torch.stack([operator(points, torch.full((len(points),), k)) for k in range(transformations)])
        offset = images[:, 0]  # (K, T+1, d)
        return cls((images[:, 1:] - offset[:, None]).permute(0, 2, 3, 1), offset)

    def trace(self, z: Tensor, weights: Tensor, clock: Tensor) -> Tensor:
        return torch.stack([self._at(z, weights.to(z), time) for time in clock.tolist()], 1)

    def _at(self, z: Tensor, weights: Tensor, time: float) -> Tensor:
        last = self.offset.shape[1] - 1
        while time > last:
            z, time = self._at(z, weights, last), time - last
        before, after = int(time), min(int(time) + 1, last)
        moved = [self._displacement(z, weights, frame) for frame in (before, after)]
        return z + torch.lerp(*moved, time - before)

    def _displacement(self, z: Tensor, weights: Tensor, frame: int) -> Tensor:
        matrix = torch.einsum("k,kij->ij", weights, self.matrix[:, frame])
        offset = weights @ self.offset[:, frame]
        return z @ matrix.mT - weights.sum() * z + offset


@dataclass(frozen=True)
class StepMover:
    """z_{t+1} = z_t + Δ Σ_k y_k (S^k_t z_t + c^k_t), a ridge regression of one step for every k, iterated.

    With one step for each t it has the freedom of :class:`operators.Linear`; with a single one for all t it is the
    linear flow of a group, which knows no clock. Beyond the last step that one goes on.

    Attributes:
        matrix: S, (K, T or 1, d, d), zero where nothing moves.
        offset: c, (K, T or 1, d).
    """

    matrix: Tensor
    offset: Tensor

    @classmethod
    def fit(cls, latents: Tensor, timed: bool, ridges: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)) -> StepMover:
        """From training latents (K, N, T+1, d), by min mean ‖S z + c - Δz‖² + λ ‖S‖².

        Args:
            latents: four fifths of the images fit each λ; the one whose iterated steps come closest to the latents
                of the last fifth, over all T frames, is fitted to all.
            timed: one step for each t, or the same for all.
            ridges: candidates for λ.
        """
        split = max(1, latents.shape[1] // 5)
        held_out, rest = latents[:, :split], latents[:, split:] if latents.shape[1] > split else latents
        clock = torch.arange(latents.shape[2])

        def error(ridge: float) -> float:
            candidate = cls._solve(rest, timed, ridge)
            one_hot = torch.eye(len(latents))
            traces = [candidate.trace(own[:, 0], y, clock) for own, y in zip(held_out, one_hot, strict=True)]
            return torch.stack([(a - b).square().mean() for a, b in zip(traces, held_out, strict=True)]).mean().item()

        return cls._solve(latents, timed, min(ridges, key=error))

    @classmethod
    def _solve(cls, latents: Tensor, timed: bool, ridge: float) -> StepMover:
        before, change = latents[:, :, :-1].transpose(1, 2), latents.diff(dim=2).transpose(1, 2)  # (K, T, N, d)
        if not timed:
            before, change = (values.flatten(1, 2)[:, None] for values in (before, change))  # (K, 1, T N, d)
        centre, mean = before.mean(2, keepdim=True), change.mean(2, keepdim=True)
        x, y = before - centre, change - mean
        gram = x.mT @ x / x.shape[2] + ridge * torch.eye(x.shape[3]).to(x)
        matrix = torch.linalg.solve(gram, x.mT @ y / x.shape[2]).mT
        return cls(matrix, (mean - centre @ matrix.mT)[:, :, 0])

    def trace(self, z: Tensor, weights: Tensor, clock: Tensor) -> Tensor:
        path, weights = [z], weights.to(z)
        for t, later in itertools.pairwise(clock.tolist()):
            frame = min(int(t), self.offset.shape[1] - 1)
            matrix = torch.einsum("k,kij->ij", weights, self.matrix[:, frame])
            velocity = path[-1] @ matrix.mT + weights @ self.offset[:, frame]
            path.append(path[-1] + (later - t) * velocity)
        return torch.stack(path, 1)


@dataclass(frozen=True)
class Successive:
    """Several transformations at once as one after the other: all of the first up to t, then all of the second, …

    For transformations that commute that is the same thing as moving at once, for a mover perhaps not.

    Attributes:
        mover: what moves each of them.
    """

    mover: Mover

    def trace(self, z: Tensor, weights: Tensor, clock: Tensor) -> Tensor:
        path = z[:, None].expand(-1, len(clock), -1)
        for k in weights.nonzero().flatten().tolist():
            alone = torch.zeros_like(weights)
            alone[k] = weights[k]
            ends = [self.mover.trace(path[:, i], alone, clock[: i + 1])[:, -1] for i in range(len(clock))]
            path = torch.stack(ends, 1)
        return path


@dataclass(frozen=True)
class _Reversed:
    """A flow run backwards: its trace from z goes against the clock."""

    mover: FlowMover

    def trace(self, z: Tensor, weights: Tensor, clock: Tensor) -> Tensor:
        return self.mover.retrace(z, weights, clock).flip(1)


@dataclass(frozen=True)
class _Blind:
    """A mover that is told that one transformation moves, however many do: the Topographic VAE's roll knows no k."""

    mover: Mover

    def trace(self, z: Tensor, weights: Tensor, clock: Tensor) -> Tensor:
        return self.mover.trace(z, weights / weights.sum(), clock)


def fit_movers(model: VAE, training: Sequences, images: int = 2000, seed: int = 0) -> dict[str, tuple[Mover, Mover]]:
    """All movers of a trained model by name, each with the one that carries latents backwards from the last frame.

    The operators and the two kinds of steps are fitted to training latents; to run backwards each is fitted again, to
    the same latents in reverse. A flow needs nothing of that kind, it is inverted as it is.

    Args:
        model: trained; its own transport joins as "flow" or "roll" where it has one.
        training: sequences of the training split.
        images: at most so many of them.
        seed: of random start poses.

    Returns:
        "identity", "traversal", "translation", "linear", "linear steps" (one for every k and t), "linear step" (one for
        every k), and the model's own: name ↦ (forwards, backwards).
    """
    latents = training_latents(model, training, images, seed)
    transformations, _, frames, latent = latents.shape
    directions = (latents, latents.flip(2))
    pairs: dict[str, tuple[Mover, Mover]] = {}
    for name in OPERATORS:
        if name == "traversal":  # fitted by decoding, at some cost; it runs backwards at the opposite speed
            table = TableMover.of(fit_operator(name, model, training, latents), latent, transformations)
            pairs[name] = (table, replace(table, offset=-table.offset))
            continue
        operators = [fit_operator(name, model, training, values) for values in directions]
        pairs[name] = tuple(TableMover.of(operator, latent, transformations) for operator in operators)
    pairs["linear steps"] = tuple(StepMover.fit(values, timed=True) for values in directions)
    pairs["linear step"] = tuple(StepMover.fit(values, timed=False) for values in directions)
    if isinstance(model, TopographicVAE):
        rolls = [TableMover.of(partial(_roll, model, frames - 1, sign), latent, transformations) for sign in (1, -1)]
        pairs["roll"] = tuple(_Blind(table) for table in rolls)
    elif hasattr(model, "flow"):
        flow = FlowMover(model.flow, frames - 1)
        pairs["flow"] = (flow, _Reversed(flow))
    return pairs


def _roll(model: TopographicVAE, horizon: int, sign: int, z: Tensor, k: Tensor) -> Tensor:
    halves = [torch.cat([model.roll(half, sign * t) for half in z.chunk(2, -1)], -1) for t in range(horizon + 1)]
    return torch.stack(halves, 1)


@torch.no_grad()
def follow(pair: tuple[Mover, Mover], z: Tensor, motion: Motion, names: tuple[str, ...]) -> Tensor:
    """Latents along a motion, phase by phase, from those of its first frame: (B, frames + 1, d).

    Args:
        pair: the mover, and the one for motions that run backwards.
        z: (B, d), of frame 0 of the motion as it is shown.
        motion: what moves, and when.
        names: of the transformations, in the order of k.

    Raises:
        ValueError: for a transformation that is not among ``names``, or a flow that cannot be inverted.
    """
    phases = list(zip(motion.phases, motion.weights(names), strict=True))
    forwards, backwards = pair
    mover, ordered = (backwards, phases[::-1]) if motion.backwards else (forwards, phases)
    path = [z[:, None]]
    for phase, weights in ordered:
        path.append(mover.trace(path[-1][:, -1], weights, phase.clock)[:, 1:])
    return torch.cat(path, 1)
