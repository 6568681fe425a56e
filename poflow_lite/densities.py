"""Time-evolving densities: grids, the continuity and Fokker-Planck equations, Langevin sampling, how fast a KL changes.

Two descriptions of one motion: a density p(z, t) held by the cells of a :class:`Grid`, and particles z_t that are its
samples. Densities are per unit of volume, time is in frames, D in latent² per frame, divergences in nats. Other shapes
than those named, numbers outside their range, NaN and infinity are a ValueError everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from scipy.sparse import coo_array, diags_array, eye_array
from scipy.sparse.linalg import splu
from scipy.special import exprel  # (e^x - 1) / x, exact at 0
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

__all__ = [
    "FokkerPlanck", "Grid", "continuity_residual", "euler_maruyama", "gaussian_mixture", "grid_kl", "kl_rate",
    "langevin", "sample", "score",
]  # fmt: skip

MAX_JUMPS = 1e7
"""Up to so many jumps between cells :meth:`FokkerPlanck.evolve` follows a density, minutes on 10,000 cells."""

_LogDensity, _Velocity = Callable[[Tensor], Tensor], Callable[[Tensor, float], Tensor]


def _require_number(what: str, value: float, zero: bool = False) -> None:
    """Refuse what is not finite and positive, or zero where that is allowed."""
    if not (0 < value < math.inf or (zero and value == 0)):
        raise ValueError(f"{what} must be {'non-negative' if zero else 'positive'} and finite, got {value}")


def _require_points(z: Tensor) -> None:
    if z.ndim != 2 or not z.numel() or not z.is_floating_point():
        raise ValueError(
            f"z must be (B, d), got {tuple(z.shape)} of {z.dtype}; points on a line are z[:, None], and floating-point"
        )
    _require_like("z", z, z.shape, "points")


def _require_like(what: str, value: Tensor, shape: Sequence[int], whose: str) -> None:
    """Refuse a field that was computed at some points but is not finite, or not of their shape."""
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{what} must be {tuple(shape)}, as {whose}, got {tuple(value.shape)}")
    if not value.isfinite().all():
        raise ValueError(f"{what} has NaN or infinite entries; look at where it is evaluated")


@dataclass(frozen=True)
class Grid:
    """The box [low, high] cut into equal cells. A function on it is one number per cell, flat: (N,), N = Π cells.

    ``low`` and ``high``, in latent units, and ``cells`` have one entry for each of the d dimensions.

    >>> Grid((0.0, -1.0), (3.0, 1.0), (3, 4)).spacing
    (1.0, 0.5)
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    cells: tuple[int, ...]

    def __post_init__(self):
        lengths = [len(self.low), len(self.high), len(self.cells)]
        if len(set(lengths)) > 1 or not self.cells:
            raise ValueError(f"low, high and cells need one entry for each dimension, at least 1, got {lengths}")
        if not all(-math.inf < low < high < math.inf for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low must be below high, both finite, got low={self.low} and high={self.high}")
        if not all(isinstance(n, int) and n >= 1 for n in self.cells):
            raise ValueError(f"cells must be integers of at least 1, got {self.cells}")
        _require_number("the volume of a cell", self.volume)  # it may over- or underflow

    @classmethod
    def cube(cls, limit: float, cells: int, dimensions: int = 2) -> Grid:
        """[-limit, limit]^d with ``cells`` cells along each of the d = ``dimensions`` sides."""
        return cls((-limit,) * dimensions, (limit,) * dimensions, (cells,) * dimensions)

    @property
    def spacing(self) -> tuple[float, ...]:
        """h_i, the sides of a cell."""
        return tuple((high - low) / n for low, high, n in zip(self.low, self.high, self.cells, strict=True))

    @property
    def volume(self) -> float:
        """Π h_i, the volume of a cell."""
        return math.prod(self.spacing)

    @property
    def axes(self) -> list[Tensor]:
        """Coordinates of the cell centres along each dimension: d float64 tensors (n_i,)."""
        sides = zip(self.low, self.spacing, self.cells, strict=True)
        return [low + h * (torch.arange(n, dtype=torch.float64) + 0.5) for low, h, n in sides]

    @property
    def points(self) -> Tensor:
        """Cell centres (N, d), float64, row-major: the last coordinate runs fastest."""
        return torch.cartesian_prod(*self.axes).reshape(-1, len(self.cells))

    def integrate(self, values: Tensor) -> Tensor:
        """∫ f dz by the midpoint rule, Σ f × volume: (..., N) ↦ (...)."""
        self._require_values("values", values)
        return values.sum(-1) * self.volume

    def image(self, values: Tensor) -> Tensor:
        """(..., N) ↦ (..., n_1, ..., n_d), axis i of the result running along dimension i."""
        self._require_values("values", values)
        return values.unflatten(-1, self.cells)

    def _require_values(self, what: str, values: Tensor, density: bool = False) -> None:
        count = math.prod(self.cells)
        if values.ndim == 0 or values.shape[-1] != count:
            raise ValueError(
                f"{what} must be (..., {count}), one number for each cell of the {self.cells} grid, "
                f"got {tuple(values.shape)}; grid-shaped values are values.flatten()"
            )
        if density and not ((values >= 0) & values.isfinite()).all():
            raise ValueError(f"{what} must be non-negative and finite; give densities, not their logarithms")


def gaussian_mixture(means: Tensor, scales: Tensor, weights: Tensor | None = None) -> MixtureSameFamily:
    """p(z) = Σ_m w_m N(z; μ_m, diag s_m²); its ``log_prob`` takes (..., d) to (...), nats.

    Means (M, d); scales > 0, (M, d) or (M,) for isotropic components, latent units; weights (M,) ≥ 0, brought to the
    sum 1, equal for None. A component of weight 0 takes no part.

    >>> gaussian_mixture(torch.tensor([[0.0], [4.0]]), torch.ones(2), torch.tensor([1.0, 0.0])).mean
    tensor([0.])
    """
    if means.ndim != 2 or not means.numel() or not means.is_floating_point() or not means.isfinite().all():
        raise ValueError(
            f"means must be (M, d), at least one of each, floating-point and finite, got {tuple(means.shape)} "
            f"of {means.dtype}"
        )
    count, d = means.shape
    variance = scales.to(means).square()  # what a density divides by
    fits = scales.shape in (means.shape[:1], means.shape)
    if not fits or not ((scales > 0) & (variance > 0) & variance.isfinite()).all():
        raise ValueError(
            f"scales must be ({count},) or ({count}, {d}), positive and finite, and their squares in {means.dtype} "
            f"too, got {scales.tolist()}"
        )
    weights = means.new_ones(count) if weights is None else weights
    if weights.shape != (count,) or not ((weights >= 0) & weights.isfinite()).all() or not weights.any():
        raise ValueError(f"weights must be ({count},), non-negative, finite and not all 0, got {weights.tolist()}")
    # Weights keep their own precision up to the logarithm; they become logits, as probabilities are clamped away from
    # 0; and where the logarithm is infinite, with no gradient, there is no component.
    part = weights > 0
    means, logits = means[part], weights[part].log().to(means)
    spread = scales.to(means)[part].reshape(len(means), -1).expand_as(means)
    components = Independent(Normal(means, spread, validate_args=False), 1, validate_args=False)
    return MixtureSameFamily(Categorical(logits=logits, validate_args=False), components, validate_args=False)


def sample(mixture: MixtureSameFamily, count: int, generator: torch.Generator) -> Tensor:
    """(count, d) samples of a mixture from ``generator``; ``mixture.sample`` knows only the global one."""
    if not (isinstance(count, Integral) and count >= 1):
        raise ValueError(f"count must be at least 1, got {count}")
    chosen = torch.multinomial(mixture.mixture_distribution.probs, count, replacement=True, generator=generator)
    gaussians = mixture.component_distribution.base_dist
    mean, scale = gaussians.loc[chosen], gaussians.scale[chosen]
    return mean + scale * torch.randn(mean.shape, dtype=mean.dtype, device=mean.device, generator=generator)


def score(log_density: _LogDensity, z: Tensor) -> Tensor:
    """∇_z log p(z) by automatic differentiation: (B, d), nats per latent unit, detached.

    ``log_density`` takes z (B, d) to log p (B,), up to a constant, each entry from its own row only. Where log p is
    -∞, or overflows, there is no score, and it is a ValueError.
    """
    _require_points(z)
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = log_density(z)
        if value.shape != z.shape[:1]:
            raise ValueError(f"log_density must return ({len(z)},), one number per point, got {tuple(value.shape)}")
        if not value.requires_grad:
            raise ValueError("log_density must be computed from z by PyTorch, without .detach() or no_grad")
        found = torch.autograd.grad(value.sum(), z)[0]
    _require_like("the score", found, z.shape, "z")
    return found


def continuity_residual(grid: Grid, before: Tensor, now: Tensor, after: Tensor, velocity: Tensor, dt: float) -> Tensor:
    """R = ∂_t p + ∇·(p v), (N,), density per frame: 0 where the velocity v carries the density p along.

    ``before``, ``now`` and ``after`` are p (N,) at t - dt, t and t + dt; ``velocity`` is v (N, d) at the grid points at
    t, latent units per frame. Central differences in time and space, one-sided ones of the same order in the outermost
    cells: the error is O(dt² + h²) for smooth p and v.
    """
    _require_number("dt", dt)
    if min(grid.cells) < 3:
        raise ValueError(f"differences of second order need at least 3 cells along each dimension, got {grid.cells}")
    for what, density in (("before", before), ("now", now), ("after", after)):
        _require_like(what, density, (math.prod(grid.cells),), "the grid has cells")
    _require_like("velocity", velocity, (math.prod(grid.cells), len(grid.cells)), "the grid has points")
    residual = grid.image(after - before) / (2 * dt)
    for i, h in enumerate(grid.spacing):
        flux = grid.image(now * velocity[:, i])
        residual = residual + torch.gradient(flux, spacing=h, dim=i, edge_order=2)[0]
    return residual.flatten()


class FokkerPlanck:
    """∂_t p = -∇·(p v) + D Δp on a grid whose walls nothing passes: the density of dz = v(z) dt + √(2D) dW.

    Between neighbouring cells i and i + 1 flows F = (D/h) [B(-vh/D) p_i - B(vh/D) p_{i+1}], B(x) = x / (e^x - 1), the
    flux that is exact where v and F are constant between the two centres (Scharfetter & Gummel 1969). What leaves one
    cell enters another, so mass is conserved; all rates are ≥ 0, so densities stay so. The error is O(h²), though it
    looks like O(h) as long as |v| h > D. D = 0 is the limit, the upwind scheme of the continuity equation, O(h).

    ``velocity`` is v, constant in time: it takes the centres of the faces between cells (M, d), float64, one dimension
    after the other, to (M, d), latent units per frame. ``matrix`` is A of ∂_t p = A p, a SciPy sparse array (N, N):
    its columns sum to 0, its entries off the diagonal are ≥ 0. Source: Risken 1989, chapters 4 to 6.
    """

    def __init__(self, grid: Grid, velocity: Callable[[Tensor], Tensor], diffusion: float):
        _require_number("diffusion", diffusion, zero=True)
        self.grid, self.diffusion = grid, float(diffusion)
        points, count = grid.points, math.prod(grid.cells)
        index = torch.arange(count).reshape(grid.cells)
        source, to, rate = [], [], []
        for i, (h, n) in enumerate(zip(grid.spacing, grid.cells, strict=True)):
            left, right = index.narrow(i, 0, n - 1).flatten(), index.narrow(i, 1, n - 1).flatten()
            faces = 0.5 * (points[left] + points[right])
            field = velocity(faces).detach()
            _require_like("velocity", field, faces.shape, "the points it is given")
            v = field[:, i].cpu().double().numpy()
            # B(-x) = B(x) + x: a diffusive rate and what the drift adds on its way, without exp of a positive number
            spread = self.diffusion / h / exprel(abs(v) * h / self.diffusion) if self.diffusion else 0.0
            source, to = [*source, left, right], [*to, right, left]
            rate += [(spread + v.clip(0)) / h, (spread + (-v).clip(0)) / h]
        places = torch.cat(to).numpy(), torch.cat(source).numpy()
        crossings = coo_array((np.concatenate(rate), places), shape=(count, count)).tocsr()
        self.matrix = (crossings - diags_array(crossings.sum(0))).tocsr()

    def evolve(self, density: Tensor, times: Sequence[float] | Tensor) -> Tensor:
        """p(t) = exp(tA) p(0), (T, N), float64, for p(0) ≥ 0, (N,), and T times ascending from 0 or later, in frames.

        exp(tA) = Σ_n Poisson(n; ct) (I + A/c)^n, where c is the largest rate at which a cell is left (uniformization,
        Jensen 1953). Every term is ≥ 0, so no rounding makes a density negative. SciPy's ``expm_multiply`` gives the
        same to 1e-14, but takes up to ten times longer on these matrices and draws from NumPy's global generator.
        """
        if density.ndim > 1:
            raise ValueError(f"density must be one density (N,), got {tuple(density.shape)}")
        self.grid._require_values("density", density, density=True)
        times = [float(t) for t in times]
        steps = [after - before for before, after in zip([0.0, *times], times, strict=False)]
        if not steps or not all(0 <= step < math.inf for step in steps):
            raise ValueError(f"times must be at least one, ascending from 0 or later, and finite, got {times}")
        jumps = -self.matrix.diagonal().min() * times[-1]
        if jumps > MAX_JUMPS:
            raise ValueError(
                f"{jumps:.1e} jumps between cells up to t = {times[-1]:g}, at most {MAX_JUMPS:.0e} are followed: take "
                "a coarser grid, less drift or diffusion, or stationary() for the end of a long time"
            )
        p = density.detach().cpu().double().numpy()
        return torch.stack([torch.from_numpy(p := self._advance(p, step)) for step in steps])

    def _advance(self, p: np.ndarray, time: float) -> np.ndarray:
        rate = -self.matrix.diagonal().min()
        pieces = math.ceil(rate * time / 400)  # e^-400 is still a number, e^-800 is not
        for _ in range(pieces):
            jump, ticks = (self.matrix / rate + eye_array(len(p))).tocsr(), rate * time / pieces
            term = p * math.exp(-ticks)
            p = term.copy()
            for n in range(1, math.ceil(ticks + 10 * math.sqrt(ticks) + 20)):  # the Poisson tail beyond is < 1e-16
                term = jump @ term * (ticks / n)
                p += term
        return p

    def stationary(self) -> Tensor:
        """The density (N,) with A p = 0 and ∫ p = 1, to which every other converges; exp(-V/D) / Z if v = -∇V.

        By inverse iteration: ε (ε - A)^-1 takes p to its average over a waiting time of mean 1/ε. Factorising ε - A
        without exchanging rows subtracts nothing but on the diagonal, so small densities keep their relative accuracy.
        A ValueError if D = 0, when it is not unique, or if two starts do not come to agree.
        """
        if self.diffusion == 0:
            raise ValueError("without diffusion there are many stationary densities; give diffusion > 0")
        count = self.matrix.shape[0]
        epsilon = 1e-10 * (-self.matrix.diagonal().min() or 1.0)
        system = (epsilon * eye_array(count) - self.matrix).tocsc()
        factors = splu(system, "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        mass = np.stack([np.full(count, 1 / count), np.arange(count) == 0], 1)  # everywhere, and all in one corner
        for _ in range(200):
            mass = factors.solve(mass)
            mass /= mass.sum(0)
            if (abs(mass[:, 0] - mass[:, 1]) <= 1e-10 * mass[:, 0]).all():
                return torch.from_numpy(mass[:, 0] / self.grid.volume)
        raise ValueError(
            f"no stationary density was found: with diffusion {self.diffusion} particles hardly ever cross the "
            "barriers of the velocity field; give more diffusion, or start evolve() in the well you mean"
        )


def euler_maruyama(
    velocity: _Velocity, z: Tensor, diffusion: float, dt: float, steps: int, generator: torch.Generator
) -> Tensor:
    """Samples of the Fokker-Planck equation: dz = v(z, t) dt + √(2D) dW in steps z + v dt + √(2 D dt) ε, ε ~ N(0, I).

    ``velocity`` takes z (B, d) and t, in frames from 0, to v (B, d), latent units per frame. Returns (B, steps + 1, d),
    with the start z. D = 0 gives Euler's method. Expectations are wrong by O(dt), and particles may diverge where
    dt |∂v/∂z| > 2. Source: Kloeden & Platen 1992, chapter 14.
    """
    _require_points(z)
    _require_number("diffusion", diffusion, zero=True)
    _require_number("dt", dt)
    if not (isinstance(steps, Integral) and steps >= 1):
        raise ValueError(f"steps must be at least 1, got {steps}")
    path = [z]
    for n in range(steps):
        v = velocity(z, n * dt)
        _require_like("velocity", v, z.shape, "the points z")
        noise = torch.randn(z.shape, dtype=z.dtype, device=z.device, generator=generator)
        z = z + v * dt + math.sqrt(2 * diffusion * dt) * noise
        path.append(z)
    _require_like("the last position", z, z.shape, "z")  # any other that is infinite has an infinite velocity
    return torch.stack(path, 1)


def langevin(
    log_density: _LogDensity, z: Tensor, diffusion: float, dt: float, steps: int, generator: torch.Generator
) -> Tensor:
    """Unadjusted Langevin sampling of p: :func:`euler_maruyama` with v = D ∇ log p, whose stationary density is p.

    ``log_density`` is as for :func:`score`, so p need not be normalised; D only sets the speed. As no step is rejected,
    what the particles reach differs from p by O(dt): for p = N(0, 1) their variance becomes 1 / (1 - D dt / 2).
    Returns (B, steps + 1, d). Source: Roberts & Tweedie 1996.
    """
    return euler_maruyama(lambda z, t: diffusion * score(log_density, z), z, diffusion, dt, steps, generator)


def grid_kl(grid: Grid, q: Tensor, p: Tensor) -> Tensor:
    """KL(q ‖ p) = ∫ q log(q/p) dz in nats by the midpoint rule, of densities (..., N) of integral 1 ↦ (...).

    0 log 0 = 0, and infinite where p = 0 < q.
    """
    grid._require_values("q", q, density=True)
    grid._require_values("p", p, density=True)
    return grid.integrate(torch.xlogy(q, q) - torch.xlogy(q, p))


def kl_rate(posterior_velocity: Tensor, prior_velocity: Tensor, posterior_score: Tensor, prior_score: Tensor) -> Tensor:
    """d/dt KL(q_t ‖ p_t) = E_q[(∇u - ∇ψ)·(∇log q - ∇log p)], when ∇u moves q and ∇ψ moves p; nats per frame.

    It follows from the two continuity equations by parts. With one and the same velocity the divergence stays.
    All arguments (B, d), at the same B samples of q, over which the result is the average.
    """
    if posterior_velocity.ndim != 2 or not posterior_velocity.numel():
        raise ValueError(f"posterior_velocity must be (B, d), got {tuple(posterior_velocity.shape)}")
    velocities = {"posterior_velocity": posterior_velocity, "prior_velocity": prior_velocity}
    for what, value in {**velocities, "posterior_score": posterior_score, "prior_score": prior_score}.items():
        _require_like(what, value, posterior_velocity.shape, "posterior_velocity")
    return ((posterior_velocity - prior_velocity) * (posterior_score - prior_score)).sum(-1).mean()
