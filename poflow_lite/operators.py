"""Latent operators: ways to move the latents of any model, fitted on training images so that each gets its best.

A model that was not trained to move still has latents of the frames of training sequences, z_t = μ(x_t). An operator is
fitted to those and carries z_0 to all T frames; decoded, it competes with a learned flow under the same metrics.
:func:`moved_by` gives the model whose latents the operator moves.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from poflow_lite.datasets.sequences import Batch, Sequences
from poflow_lite.errors import require_known
from poflow_lite.flows import Path
from poflow_lite.metrics import predict
from poflow_lite.models.vae import VAE

__all__ = [
    "OPERATORS",
    "Identity",
    "Linear",
    "Translation",
    "Traversal",
    "fit_operator",
    "moved_by",
    "operate",
    "training_latents",
]

Operator = Callable[[Tensor, Tensor], Tensor]
"""z_0 (B, d), k (B,) ↦ z_0, …, z_T (B, T+1, d)."""


@torch.no_grad()
def training_latents(
    model: VAE, sequences: Sequences, images: int = 2000, seed: int = 0, batch_size: int = 256
) -> Tensor:
    """Posterior means of all frames of training sequences: (K, N, T+1, d), N = min(images, all).

    Args:
        model: its encoder is used, frame by frame.
        sequences: of the training split.
        images: at most so many images, the first ones, under every transformation.
        seed: of random start poses, the same for each transformation.
        batch_size: images rendered at once.
    """
    device = next(model.parameters()).device
    chunks = torch.arange(min(images, len(sequences))).split(batch_size)
    whole = []
    for k in range(len(sequences.names)):
        generator = torch.Generator().manual_seed(seed)
        frames = [sequences.batch(indices, k, generator=generator).frames for indices in chunks]
        latents = [model.encode(f.flatten(0, 1).to(device)).mean.unflatten(0, f.shape[:2]) for f in frames]
        whole.append(torch.cat(latents))
    return torch.stack(whole)


@dataclass(frozen=True)
class Identity:
    """z_t = z_0.

    Attributes:
        horizon: T.
    """

    horizon: int

    def __call__(self, z: Tensor, k: Tensor) -> Tensor:
        return z[:, None].expand(-1, self.horizon + 1, -1)


@dataclass(frozen=True)
class Translation:
    """z_t = z_0 + δ^k_t, the least-squares shift: the mean of z_t - z_0 over training sequences.

    Attributes:
        shift: δ, (K, T+1, d).
    """

    shift: Tensor

    @classmethod
    def fit(cls, latents: Tensor) -> Translation:
        """From training latents (K, N, T+1, d)."""
        return cls((latents - latents[:, :, :1]).mean(1))

    def __call__(self, z: Tensor, k: Tensor) -> Tensor:
        return z[:, None] + self.shift[k]


@dataclass(frozen=True)
class Linear:
    """z_t = A^k_t z_0 + b^k_t, a ridge regression for every k and t: the strongest of the operators.

    Attributes:
        matrix: A, (K, T+1, d, d).
        offset: b, (K, T+1, d).
        ridge: the penalty that was chosen.
    """

    matrix: Tensor
    offset: Tensor
    ridge: float

    @classmethod
    def fit(cls, latents: Tensor, ridges: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)) -> Linear:
        """From training latents (K, N, T+1, d).

        Args:
            latents: of training images; four fifths fit each candidate, one fifth chooses, then all fit the best.
            ridges: penalties λ of mean ‖A z_0 + b - z_t‖² + λ ‖A - I‖², so that a large λ falls back on a translation.
        """
        split = max(1, latents.shape[1] // 5)
        held_out, rest = latents[:, :split], latents[:, split:] if latents.shape[1] > split else latents

        def error(ridge: float) -> float:
            candidate = cls._solve(rest, ridge)
            start, index = held_out[:, :, 0].flatten(0, 1), torch.arange(len(latents)).repeat_interleave(split)
            return (candidate(start, index.to(start.device)) - held_out.flatten(0, 1)).square().mean().item()

        return cls._solve(latents, min(ridges, key=error))

    @classmethod
    def _solve(cls, latents: Tensor, ridge: float) -> Linear:
        start = latents[:, :, :1]
        centre, goal = start.mean(1, keepdim=True), (latents - start).mean(1, keepdim=True)
        x = (start - centre)[:, :, 0]  # (K, N, d)
        y = latents - start - goal  # (K, N, T+1, d): what the translation leaves
        identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        gram = x.mT @ x / x.shape[1] + ridge * identity  # (K, d, d)
        cross = torch.einsum("kni,kntj->ktij", x, y) / x.shape[1]
        change = torch.linalg.solve(gram[:, None], cross).mT  # A - I
        matrix = identity + change
        offset = goal[:, 0] + centre[:, 0] - torch.einsum("ktij,kj->kti", matrix, centre[:, 0, 0])
        return cls(matrix, offset, ridge)

    def __call__(self, z: Tensor, k: Tensor) -> Tensor:
        return torch.einsum("btij,bj->bti", self.matrix[k], z) + self.offset[k]

    def log_det(self, k: Tensor) -> Tensor:
        """log |det ∂z_{t+1}/∂z_t|, (B, T), which sum to log |det A^k_t|."""
        return torch.linalg.slogdet(self.matrix).logabsdet.diff(dim=1)[k]


@dataclass(frozen=True)
class Traversal:
    """z_t = z_0 + r^k (t/T) e_{i(k)}: one latent dimension is moved at constant speed, as latent traversals do.

    Attributes:
        dimension: i, (K,).
        reach: r, (K,), latent units.
        horizon: T.
    """

    dimension: Tensor
    reach: Tensor
    horizon: int

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        model: VAE,
        sequences: Sequences,
        images: int = 16,
        reaches: tuple[float, ...] = (-4.0, -3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0, 4.0),
        seed: int = 0,
    ) -> Traversal:
        """The dimension and reach with the least decoded L1 error on training sequences, each k by itself.

        Judged at every second frame: there are hundreds of candidates, and all frames say the same of them.

        Args:
            model: decodes every candidate.
            sequences: of the training split; the first ``images`` of them.
            images: how many.
            reaches: candidates for r, in units of the prior's standard deviation.
            seed: of random start poses.
        """
        horizon, dimensions, best_reaches = sequences.horizon, [], []
        device = next(model.parameters()).device
        for k in range(len(sequences.names)):
            indices = torch.arange(min(images, len(sequences)))
            batch = sequences.batch(indices, k, generator=torch.Generator().manual_seed(seed)).to(device)
            start = model.encode(batch.frames[:, 0]).mean
            times = torch.arange(horizon, 0, -2, device=device)
            errors = {}
            for dimension in range(start.shape[1]):
                for reach in reaches:
                    path = start[:, None].repeat(1, len(times), 1)
                    path[..., dimension] += reach * times / horizon
                    errors[dimension, reach] = (model.decode(path).mean - batch.frames[:, times]).abs().sum().item()
            dimension, reach = min(errors, key=errors.get)
            dimensions.append(dimension)
            best_reaches.append(reach)
        return cls(torch.tensor(dimensions, device=device), torch.tensor(best_reaches, device=device), horizon)

    def __call__(self, z: Tensor, k: Tensor) -> Tensor:
        times = torch.arange(self.horizon + 1, dtype=z.dtype, device=z.device) / self.horizon
        axis = torch.nn.functional.one_hot(self.dimension[k], z.shape[1]).to(z)
        return z[:, None] + self.reach[k].to(z)[:, None, None] * times[:, None] * axis[:, None]


OPERATORS = ("identity", "traversal", "translation", "linear")


def fit_operator(name: str, model: VAE, sequences: Sequences, latents: Tensor) -> Operator:
    """One of :data:`OPERATORS`, fitted on training data only.

    Args:
        name: which.
        model: whose latents are to be moved.
        sequences: of the training split.
        latents: what :func:`training_latents` found for them.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    require_known("operator", name, OPERATORS)
    if name == "identity":
        return Identity(sequences.horizon)
    if name == "traversal":
        return Traversal.fit(model, sequences)
    return Translation.fit(latents) if name == "translation" else Linear.fit(latents)


def moved_by(model: VAE, operator: Operator) -> VAE:
    """The same model, weights shared, with the operator for its transport; whatever measures a model measures it.

    Its density follows. An operator that knows the whole :class:`flows.Path` from z and k has a method ``path``, one
    whose change of log-density depends on k alone has ``log_det`` (an affine map changes log q by -log |det A|), and
    the others leave volumes as they are.
    """

    def transport(z: Tensor, k: Tensor, steps: int) -> Path:
        if hasattr(operator, "path"):
            return operator.path(z, k)
        path = operator(z, k)
        log_det = operator.log_det(k) if hasattr(operator, "log_det") else z.new_zeros(len(z), steps)
        return Path(path, log_det, path.diff(dim=1))

    moved = copy.copy(model)
    moved.transport = transport
    return moved


def operate(model: VAE, operator: Operator, batch: Batch) -> Tensor:
    """x̂_t = E[x | z_t] with z_t carried from μ(x_0) by an operator: (B, T+1, C, H, W).

    Only frame 0 and k are looked at. With ``functools.partial(operate, model, operator)`` it is a predictor for
    :func:`metrics.equivariance_errors`.
    """
    return predict(moved_by(model, operator), batch)
