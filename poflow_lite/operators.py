"""Latent operators: ways to move the latents of any model, fitted on training images so that each gets its best.

A model that was not trained to move still has latents of the frames of training sequences, z_t = μ(x_t). An operator is
fitted to those and carries latents along a clock, forwards or back, by one transformation or several at once; decoded,
it competes with a learned flow under the same metrics. Its protocol is :class:`flows.LatentOperator`, which every model
and every :class:`flows.Flow` has as well.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from poflow_lite.datasets import Motion, Sequences
from poflow_lite.fields import mixing_weights
from poflow_lite.flows import LatentOperator, Trajectory, clock_of, with_exact_density

__all__ = [
    "OPERATORS",
    "AffineMaps",
    "AffineSteps",
    "Sequential",
    "fit_operators",
    "follow",
    "training_latents",
    "with_operator",
]

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@torch.no_grad()
def training_latents(
    model: Any, sequences: Sequences, images: int = 2000, seed: int = 0, batch_size: int = 256
) -> Tensor:
    """Posterior means of all frames of training sequences: (K, N, T+1, d).

    Args:
        model: its encoder is used, frame by frame.
        sequences: of the training split.
        images: at most so many under each transformation, the first ones; the same number for all.
        seed: of random start poses, the same for each transformation.
        batch_size: images rendered at once.
    """
    device = next(model.parameters()).device
    indices = [sequences.of(k) for k in range(len(sequences.names))]
    count = min(images, *map(len, indices))
    whole = []
    for k, own in enumerate(indices):
        generator = torch.Generator().manual_seed(seed)
        frames = [sequences.batch(chunk, k, generator=generator).frames for chunk in own[:count].split(batch_size)]
        latents = [model.encode(f.flatten(0, 1).to(device)).mean.unflatten(0, f.shape[:2]) for f in frames]
        whole.append(torch.cat(latents))
    return torch.stack(whole)


@dataclass(frozen=True)
class AffineMaps:
    """z_t = z_0 + Σ_k y_k ((A^k_t - I) z_0 + b^k_t), the maps of each k from the start to every frame t.

    Between two frames A and b are interpolated; beyond T the motion starts anew from z_T. The clock counts from where
    it starts. log |det| is that of the mixed matrix.

    Attributes:
        matrix: A, (K, T+1, d, d), with A_0 = I.
        offset: b, (K, T+1, d).
        back: the maps from frame T to frame T - t, for a clock that falls; ``None`` where there are none.
    """

    matrix: Tensor
    offset: Tensor
    back: AffineMaps | None = None

    @classmethod
    def identity(cls, latents: Tensor) -> AffineMaps:
        """z_t = z_0, for latents (K, N, T+1, d) whose size alone matters."""
        eye = torch.eye(latents.shape[-1], dtype=latents.dtype, device=latents.device)
        still = cls(eye.expand(len(latents), latents.shape[2], -1, -1), torch.zeros_like(latents[:, 0]))
        return replace(still, back=still)

    @classmethod
    def translation(cls, latents: Tensor) -> AffineMaps:
        """z_t = z_0 + δ^k_t, the least-squares shift: the mean of z_t - z_0 over latents (K, N, T+1, d)."""
        forwards, back = (
            replace(cls.identity(latents), offset=(z - z[:, :, :1]).mean(1)) for z in (latents, latents.flip(2))
        )
        return replace(forwards, back=back)

    @classmethod
    def linear(cls, latents: Tensor, ridges: Sequence[float] = RIDGES) -> AffineMaps:
        """z_t = A^k_t z_0 + b^k_t, a ridge regression for every k and t: the strongest of the operators.

        Args:
            latents: (K, N, T+1, d) of training images; four fifths fit each candidate, one fifth chooses, then all fit
                the best.
            ridges: penalties λ of mean ‖A z_0 + b - z_t‖² + λ ‖A - I‖², so that a large λ falls back on a translation.
        """

        def fit(z: Tensor) -> AffineMaps:
            return _best(z, ridges, lambda part, ridge: cls(*_ridge_maps(part, ridge)))

        return replace(fit(latents), back=fit(latents.flip(2)))

    @classmethod
    @torch.no_grad()
    def traversal(
        cls,
        model: Any,
        sequences: Sequences,
        latents: Tensor,
        images: int = 16,
        reaches: Sequence[float] = (-4.0, -3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0, 4.0),
        seed: int = 0,
    ) -> AffineMaps:
        """z_t = z_0 + r^k (t/T) e_{i(k)}: one latent dimension moves at constant speed, as latent traversals do.

        Dimension i and reach r have the least decoded L1 error on training sequences, each k by itself. There are
        hundreds of candidates: the last frame of four images chooses a tenth of them, every second frame of all images
        the best of these.

        Args:
            model: decodes every candidate.
            sequences: of the training split; the first ``images`` of each transformation.
            latents: of the training split; their size alone matters.
            images: how many.
            reaches: candidates for r, in units of the prior's standard deviation.
            seed: of random start poses.
        """
        still, shift = cls.identity(latents), torch.zeros_like(latents[:, 0])
        progress = torch.arange(sequences.horizon + 1).to(latents) / sequences.horizon
        for k in range(len(latents)):
            chosen = sequences.of(k)[:images]
            batch = sequences.batch(chosen, k, generator=torch.Generator().manual_seed(seed)).to(latents.device)
            start = model.encode(batch.frames[:, 0]).mean

            def error(candidate: tuple[int, float], shown: int, times: Tensor, start=start, frames=batch.frames):
                dimension, reach = candidate
                path = start[:shown, None].repeat(1, len(times), 1)
                path[..., dimension] += reach * times.to(path) / sequences.horizon
                return (model.decode(path).mean - frames[:shown, times]).abs().sum().item()

            candidates = [*itertools.product(range(start.shape[1]), reaches)]
            every_second = torch.arange(sequences.horizon, 0, -2, device=latents.device)
            candidates.sort(key=partial(error, shown=4, times=every_second[:1]))
            best = candidates[: max(16, len(candidates) // 10)]
            dimension, reach = min(best, key=partial(error, shown=images, times=every_second))
            shift[k, :, dimension] = reach * progress
        return replace(still, offset=shift, back=replace(still, offset=-shift))

    def rollout(self, z: Tensor, y: Tensor, times: Sequence[float]) -> Trajectory:
        """Carry z (B, d) along a clock; see :class:`flows.LatentOperator`."""
        y, clock, table = mixing_weights(y, len(self.matrix)).to(z), clock_of(times), self
        if clock[-1] < clock[0]:
            if self.back is None:
                raise ValueError("these maps have no way back: fit AffineMaps(..., back=...) to reversed sequences")
            table = self.back
        rows, own = torch.unique(y, dim=0, return_inverse=True)
        maps = [table._map(rows, elapsed) for elapsed in _elapsed(clock)]
        path = torch.stack([torch.einsum("bij,bj->bi", a[own], z) + b[own] for a, b in maps], 1)
        log_det = torch.linalg.slogdet(torch.stack([a for a, _ in maps], 1)).logabsdet.diff(dim=1)[own]
        times = torch.tensor(clock, dtype=z.dtype)
        return Trajectory(path, log_det, _velocity(path, times), y, times)

    def _map(self, y: Tensor, elapsed: float) -> tuple[Tensor, Tensor]:
        """The mixed map from the start to ``elapsed`` frames later, for rows of weights (U, K): (U, d, d), (U, d)."""
        last = self.offset.shape[1] - 1
        if elapsed > last:
            (first, shift), (then, further) = self._map(y, last), self._map(y, elapsed - last)
            return then @ first, torch.einsum("uij,uj->ui", then, shift) + further
        before, after = int(elapsed), min(int(elapsed) + 1, last)
        matrix, offset = (torch.lerp(x[:, before], x[:, after], elapsed - before) for x in (self.matrix, self.offset))
        eye = torch.eye(matrix.shape[-1], dtype=y.dtype, device=y.device)
        return eye + torch.einsum("uk,kij->uij", y, matrix - eye), y @ offset


@dataclass(frozen=True)
class AffineSteps:
    """z_{t+1} = z_t + Δ Σ_k y_k (S^k_t z_t + c^k_t), a ridge regression of one step for every k, iterated.

    With one step for each t it has the freedom of :meth:`AffineMaps.linear`; with a single one for all t it is the
    linear flow of a group, which knows no clock. Beyond the last step that one goes on.

    Attributes:
        matrix: S, (K, T or 1, d, d), zero where nothing moves.
        offset: c, (K, T or 1, d).
        back: the steps of reversed sequences, for a clock that falls.
    """

    matrix: Tensor
    offset: Tensor
    back: AffineSteps | None = None

    @classmethod
    def fit(cls, latents: Tensor, timed: bool, ridges: Sequence[float] = RIDGES) -> AffineSteps:
        """From training latents (K, N, T+1, d), by min mean ‖S z + c - Δz‖² + λ ‖S‖².

        Args:
            latents: four fifths of the images fit each λ; the one whose iterated steps come closest to the latents
                of the last fifth, over all T frames, is fitted to all.
            timed: one step for each t, or the same for all.
            ridges: candidates for λ.
        """

        def fit(z: Tensor) -> AffineSteps:
            return _best(z, ridges, lambda part, ridge: cls(*_ridge_steps(part, ridge, timed)))

        return replace(fit(latents), back=fit(latents.flip(2)))

    def rollout(self, z: Tensor, y: Tensor, times: Sequence[float]) -> Trajectory:
        """Carry z (B, d) along a clock; see :class:`flows.LatentOperator`."""
        y, clock, table = mixing_weights(y, len(self.matrix)).to(z), clock_of(times), self
        if clock[-1] < clock[0]:
            if self.back is None:
                raise ValueError("these steps have no way back: fit AffineSteps(..., back=...) to reversed sequences")
            table = self.back
        rows, own = torch.unique(y, dim=0, return_inverse=True)
        eye, path, log_det = torch.eye(z.shape[1], dtype=z.dtype, device=z.device), [z], []
        for t, later in itertools.pairwise(_elapsed(clock)):
            frame = min(int(t), table.offset.shape[1] - 1)
            matrix = (later - t) * torch.einsum("uk,kij->uij", rows, table.matrix[:, frame])
            shift = (later - t) * (rows @ table.offset[:, frame])
            path.append(path[-1] + torch.einsum("bij,bj->bi", matrix[own], path[-1]) + shift[own])
            log_det.append(torch.linalg.slogdet(eye + matrix).logabsdet[own])
        path, times = torch.stack(path, 1), torch.tensor(clock, dtype=z.dtype)
        return Trajectory(path, torch.stack(log_det, 1), _velocity(path, times), y, times)


@dataclass(frozen=True)
class Sequential:
    """Several transformations at once as one after the other: all of the first up to t, then all of the second, …

    For transformations that commute that is the same thing as moving at once, for an operator perhaps not.

    Attributes:
        operator: what moves each of them.
    """

    operator: LatentOperator

    def rollout(self, z: Tensor, y: Tensor, times: Sequence[float]) -> Trajectory:
        """Carry z (B, d) along a clock, the last of them first where it falls; see :class:`flows.LatentOperator`."""
        if y.ndim == 1:  # one transformation for each sample: nothing to put in a row
            return self.operator.rollout(z, y, times)
        clock = clock_of(times)
        path, total = [z] * len(clock), z.new_zeros(len(z), len(clock))
        moving = [k for k in range(y.shape[1]) if y[:, k].any()]
        for k in moving[::-1] if clock[-1] < clock[0] else moving:
            alone = y * F.one_hot(torch.tensor(k, device=y.device), y.shape[1])
            for i in range(1, len(clock)):
                found = self.operator.rollout(path[i], alone, clock[: i + 1])
                path[i], total[:, i] = found.z[:, -1], total[:, i] + found.log_det.sum(1)
        path, times = torch.stack(path, 1), torch.tensor(clock, dtype=z.dtype)
        return Trajectory(path, total.diff(dim=1), _velocity(path, times), y, times)


def _elapsed(clock: Sequence[float]) -> list[float]:
    return [abs(t - clock[0]) for t in clock]


def _velocity(path: Tensor, times: Tensor) -> Tensor:
    """Displacements of a path (B, n+1, d) per frame: (B, n, d)."""
    return path.diff(dim=1) / times.diff().abs().to(path)[:, None]


def _best(latents: Tensor, ridges: Sequence[float], fit: Callable[[Tensor, float], Any]) -> Any:
    """``fit(latents, λ)`` with the λ whose fit to four fifths of the images is best on the last fifth, over all t."""
    split = max(1, latents.shape[1] // 5)
    held_out, rest = latents[:, :split], latents[:, split:] if latents.shape[1] > split else latents
    k = torch.arange(len(latents), device=latents.device).repeat_interleave(split)

    def error(ridge: float) -> float:
        path = fit(rest, ridge).rollout(held_out[:, :, 0].flatten(0, 1), k, range(latents.shape[2])).z
        return (path - held_out.flatten(0, 1)).square().mean().item()

    return fit(latents, min(ridges, key=error))


def _ridge_maps(latents: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """A (K, T+1, d, d) and b (K, T+1, d) of least mean ‖A z_0 + b - z_t‖² + λ ‖A - I‖²."""
    start = latents[:, :, :1]
    centre, goal = start.mean(1, keepdim=True), (latents - start).mean(1, keepdim=True)
    x = (start - centre)[:, :, 0]  # (K, N, d)
    y = latents - start - goal  # (K, N, T+1, d): what the translation leaves
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    gram = x.mT @ x / x.shape[1] + ridge * eye  # (K, d, d)
    cross = torch.einsum("kni,kntj->ktij", x, y) / x.shape[1]
    matrix = eye + torch.linalg.solve(gram[:, None], cross).mT
    return matrix, goal[:, 0] + centre[:, 0] - torch.einsum("ktij,kj->kti", matrix, centre[:, 0, 0])


def _ridge_steps(latents: Tensor, ridge: float, timed: bool) -> tuple[Tensor, Tensor]:
    """S (K, T or 1, d, d) and c (K, T or 1, d) of least mean ‖S z_t + c - (z_{t+1} - z_t)‖² + λ ‖S‖²."""
    before, change = latents[:, :, :-1].transpose(1, 2), latents.diff(dim=2).transpose(1, 2)  # (K, T, N, d)
    if not timed:
        before, change = (values.flatten(1, 2)[:, None] for values in (before, change))  # (K, 1, T N, d)
    centre, mean = before.mean(2, keepdim=True), change.mean(2, keepdim=True)
    x, y = before - centre, change - mean
    gram = x.mT @ x / x.shape[2] + ridge * torch.eye(x.shape[3]).to(x)
    matrix = torch.linalg.solve(gram, x.mT @ y / x.shape[2]).mT
    return matrix, (mean - centre @ matrix.mT)[:, :, 0]


OPERATORS: dict[str, Callable[[Any, Sequences, Tensor], LatentOperator]] = {
    "identity": lambda model, training, latents: AffineMaps.identity(latents),
    "traversal": AffineMaps.traversal,
    "translation": lambda model, training, latents: AffineMaps.translation(latents),
    "linear": lambda model, training, latents: AffineMaps.linear(latents),
    "linear steps": lambda model, training, latents: AffineSteps.fit(latents, timed=True),
    "linear step": lambda model, training, latents: AffineSteps.fit(latents, timed=False),
}
"""Name ↦ function of a trained model, its training sequences and their latents (K, N, T+1, d) that fits an operator."""


def fit_operators(
    model: Any,
    training: Sequences,
    operators: dict[str, Callable[..., LatentOperator]] | None = None,
    images: int = 2000,
    seed: int = 0,
) -> dict[str, LatentOperator]:
    """All operators of a trained model by name, fitted on training sequences only, and its own motion if k drives one.

    Args:
        model: trained; its own rollout joins by the name in ``model.motion``, such as "flow" or "roll", with the exact
            log-determinant of a flow.
        training: sequences of the training split.
        operators: entries like those of :data:`OPERATORS`, which are the default.
        images: at most so many training images.
        seed: of random start poses.
    """
    latents = training_latents(model, training, images, seed)
    chosen = OPERATORS if operators is None else operators
    found = {name: fit(model, training, latents) for name, fit in chosen.items()}
    motion = getattr(model, "motion", None)
    told = getattr(model, "names_k", None) is not False  # what moves by coefficients is not told k
    return found | ({motion: with_exact_density(model)} if motion and told else {})


def with_operator(model: Any, operator: LatentOperator) -> Any:
    """The same model, weights shared, that moves by an operator; whatever measures a model measures it."""
    moved = copy.copy(model)
    moved.rollout = operator.rollout
    return moved


@torch.no_grad()
def follow(operator: LatentOperator, z: Tensor, motion: Motion, names: Sequence[str]) -> Tensor:
    """Latents along a motion, segment by segment, from those of its first frame: (B, frames + 1, d).

    Args:
        operator: carries them.
        z: (B, d), of frame 0 of the motion as it is shown.
        motion: what moves, and when.
        names: of the transformations, in the order of k.

    Raises:
        ValueError: for a transformation that is not among ``names``.
        NotInvertible: for a motion that runs backwards, and a flow that cannot.
    """
    segments = list(zip(motion.segments, motion.weights(tuple(names)), strict=True))
    path = [z[:, None]]
    for segment, weights in segments[::-1] if motion.backwards else segments:
        clock = segment.clock.flip(0) if motion.backwards else segment.clock
        path.append(operator.rollout(path[-1][:, -1], weights.to(z).expand(len(z), -1), clock).z[:, 1:])
    return torch.cat(path, 1)
