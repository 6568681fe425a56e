"""Time-evolving densities: grids, the continuity and Fokker-Planck equations, Langevin sampling, how fast a KL changes.

Two descriptions of the same motion: a density p(z, t) held by the cells of a :class:`Grid`, and particles z_t that are
its samples. Densities are per unit of volume, time is in frames, D in latent² per frame, divergences in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

__all__ = [
    "FokkerPlanck",
    "Grid",
    "continuity_residual",
    "euler_maruyama",
    "gaussian_mixture",
    "grid_kl",
    "kl_rate",
    "langevin",
    "sample",
    "score",
]

_LogDensity = Callable[[Tensor], Tensor]
_Velocity = Callable[[Tensor, float], Tensor]


# --- what may come in ---------------------------------------------------------------------------------------------


def _require_number(what: str, value: float, zero: bool = False) -> None:
    """Refuse what is not finite and positive, or zero where that is allowed."""
    if not (0 < value < math.inf or (zero and value == 0)):
        raise ValueError(f"{what} must be {'non-negative' if zero else 'positive'} and finite, got {value}")


def _require_points(z: Tensor) -> None:
    if z.ndim != 2:
        raise ValueError(f"z must be (B, d), got {tuple(z.shape)}; points on a line are z[:, None]")


def _require_like(what: str, value: Tensor, shape: Sequence[int], whose: str) -> None:
    """Refuse a field that was computed at some points but is not finite, or not of their shape."""
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{what} must be {tuple(shape)}, as {whose}, got {tuple(value.shape)}")
    if not value.isfinite().all():
        raise ValueError(f"{what} has NaN or infinite entries; look at where it is evaluated")


# --- grids --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """The box [low, high] cut into equal cells. A function on it is one number per cell, flat: (N,), N = Π cells.

    Attributes:
        low, high: corners of the box, one number per dimension, latent units.
        cells: number of cells along each dimension.

    Raises:
        ValueError: if the three differ in length, a side is not positive, or a number of cells is below 1.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    cells: tuple[int, ...]

    def __post_init__(self):
        if not 0 < len(self.low) == len(self.high) == len(self.cells):
            raise ValueError(
                "low, high and cells need one entry for each dimension, at least 1, "
                f"got {len(self.low)}, {len(self.high)} and {len(self.cells)}"
            )
        if not all(-math.inf < low < high < math.inf for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low must be below high, both finite, got low={self.low} and high={self.high}")
        if not all(isinstance(n, int) and n >= 1 for n in self.cells):
            raise ValueError(f"cells must be integers of at least 1, got {self.cells}")

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

    def _require_values(self, what: str, values: Tensor) -> None:
        count = math.prod(self.cells)
        if values.ndim == 0 or values.shape[-1] != count:
            raise ValueError(
                f"{what} must be (..., {count}), one number for each cell of the {self.cells} grid, "
                f"got {tuple(values.shape)}; grid-shaped values are values.flatten()"
            )

    def _require_density(self, what: str, density: Tensor) -> None:
        self._require_values(what, density)
        if not ((density >= 0) & density.isfinite()).all():
            raise ValueError(f"{what} must be non-negative and finite; give densities, not their logarithms")


# --- densities with a formula -------------------------------------------------------------------------------------


def gaussian_mixture(means: Tensor, scales: Tensor, weights: Tensor | None = None) -> MixtureSameFamily:
    """p(z) = Σ_m w_m N(z; μ_m, diag s_m²); its ``log_prob`` takes (..., d) to (...), nats.

    Args:
        means: (M, d).
        scales: (M,) for isotropic components, or (M, d); positive, latent units.
        weights: (M,), non-negative, brought to the sum 1; equal for None.

    Raises:
        ValueError: for other shapes, scales that are not positive, or weights that are negative or all 0.
    """
    if means.ndim != 2 or not means.numel():
        raise ValueError(f"means must be (M, d), at least one of each, got {tuple(means.shape)}")
    if scales.shape not in (means.shape[:1], means.shape):
        count, d = means.shape
        raise ValueError(f"scales must be ({count},) or ({count}, {d}) as the means are, got {tuple(scales.shape)}")
    if not ((scales > 0) & scales.isfinite()).all():
        raise ValueError(f"scales must be positive and finite, got values from {scales.min()} to {scales.max()}")
    weights = means.new_ones(len(means)) if weights is None else weights.to(means)
    if weights.shape != means.shape[:1]:
        raise ValueError(f"weights must be ({len(means)},), one for each component, got {tuple(weights.shape)}")
    if not ((weights >= 0) & weights.isfinite()).all() or weights.sum() == 0:
        raise ValueError(f"weights must be non-negative, finite and not all 0, got {weights.tolist()}")
    spread = scales.to(means).reshape(len(means), -1).expand_as(means)
    components = Independent(Normal(means, spread, validate_args=False), 1, validate_args=False)
    return MixtureSameFamily(Categorical(weights), components, validate_args=False)


def sample(mixture: MixtureSameFamily, count: int, generator: torch.Generator) -> Tensor:
    """``count`` samples (count, d) of a :func:`gaussian_mixture`: a component each, then Gaussian noise, both drawn
    from ``generator`` (PyTorch's own ``mixture.sample`` knows only the global one)."""
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    chosen = torch.multinomial(mixture.mixture_distribution.probs, count, replacement=True, generator=generator)
    gaussians = mixture.component_distribution.base_dist
    mean, scale = gaussians.loc[chosen], gaussians.scale[chosen]
    noise = torch.randn(mean.shape, dtype=mean.dtype, device=mean.device, generator=generator)
    return mean + scale * noise


def score(log_density: _LogDensity, z: Tensor) -> Tensor:
    """∇_z log p(z) by automatic differentiation: (B, d), nats per latent unit, detached.

    Args:
        log_density: takes z (B, d) to log p (B,), up to a constant; each entry from its own row only.
        z: (B, d).

    Raises:
        ValueError: if z or log p has another shape, or log p was not computed from z by PyTorch.
    """
    _require_points(z)
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = log_density(z)
        if value.shape != z.shape[:1]:
            raise ValueError(f"log_density must return ({len(z)},), one number per point, got {tuple(value.shape)}")
        if not value.requires_grad:
            raise ValueError("log_density must be computed from z by PyTorch, without .detach() or no_grad")
        return torch.autograd.grad(value.sum(), z)[0]


# --- densities on a grid ------------------------------------------------------------------------------------------


def continuity_residual(grid: Grid, before: Tensor, now: Tensor, after: Tensor, velocity: Tensor, dt: float) -> Tensor:
    """R = ∂_t p + ∇·(p v), which is 0 where the velocity v carries the density p along.

    Central differences in time and space, in the outermost cells one-sided ones of the same order: for smooth p and v
    the error is O(dt² + h²).

    Args:
        before, now, after: p at t - dt, t and t + dt, each (N,).
        velocity: v at the grid points at time t, (N, d), latent units per frame.
        dt: frames, positive.

    Returns:
        (N,), density per frame.

    Raises:
        ValueError: for shapes that do not fit the grid, fewer than 3 cells along a dimension, or dt ≤ 0.
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
    flux that is exact where v and F are constant between the two centres. A cell changes by what flows in less what
    flows out, so mass is conserved; all rates are ≥ 0, so densities stay so. The error is O(h²), though it looks like
    O(h) as long as |v| h is larger than D. D = 0 is the limit, the upwind scheme of the continuity equation, O(h).

    Args:
        grid: where p lives.
        velocity: v, constant in time: takes points (M, d), float64, to (M, d), latent units per frame. It is called
            with the centres of the faces between the cells.
        diffusion: D ≥ 0, latent² per frame.

    Attributes:
        matrix: A of ∂_t p = A p, a SciPy sparse array (N, N); its columns sum to 0, entries off the diagonal are ≥ 0.

    Raises:
        ValueError: for D negative or not finite, or a velocity of the wrong shape or not finite.

    Source: Risken 1989, chapters 4 to 6; Scharfetter & Gummel 1969 for the flux.
    """

    def __init__(self, grid: Grid, velocity: Callable[[Tensor], Tensor], diffusion: float):
        _require_number("diffusion", diffusion, zero=True)
        self.grid, self.diffusion = grid, float(diffusion)
        self.matrix = self._generator(velocity)

    def _generator(self, velocity: Callable[[Tensor], Tensor]):
        from scipy.sparse import csr_array

        points, count = self.grid.points, math.prod(self.grid.cells)
        index = torch.arange(count).reshape(self.grid.cells)
        to, source, rate = [], [], []
        for i, (h, n) in enumerate(zip(self.grid.spacing, self.grid.cells, strict=True)):
            if n == 1:
                continue  # no face between cells in this direction
            left, right = index.narrow(i, 0, n - 1).flatten(), index.narrow(i, 1, n - 1).flatten()
            faces = 0.5 * (points[left] + points[right])
            v = velocity(faces).detach().to(points)
            _require_like("velocity", v, faces.shape, "the points it is given")
            forth, back = self._exchange(v[:, i], h)
            to += [right, left, left, right]
            source += [left, left, right, right]
            rate += [forth, -forth, back, -back]
        if not rate:
            return csr_array((count, count))
        entries = torch.cat(rate).numpy(), (torch.cat(to).numpy(), torch.cat(source).numpy())
        return csr_array(entries, shape=(count, count))  # entries of the same place are added

    def _exchange(self, v: Tensor, h: float) -> tuple[Tensor, Tensor]:
        """Rates of crossing a face with and against its normal, for the velocity v along it.

        As B(-x) = B(x) + x, each is the diffusive rate (D/h²) B(|v|h/D) plus what the drift adds on its way: no
        exponential of a positive number, and no division by D = 0.
        """
        from scipy.special import exprel  # (e^x - 1) / x, exact at 0

        spread = torch.zeros_like(v)
        if self.diffusion > 0:
            spread = self.diffusion / h / torch.from_numpy(exprel((v.abs() * h / self.diffusion).numpy()))
        return (spread + v.clamp(min=0)) / h, (spread + (-v).clamp(min=0)) / h

    def evolve(self, density: Tensor, times: Sequence[float] | Tensor) -> Tensor:
        """p(t) = exp(tA) p(0), without an error from steps in time.

        exp(tA) = Σ_n Poisson(n; ct) (I + A/c)^n, where c is the largest rate at which a cell is left: a particle jumps
        at the ticks of a Poisson clock (uniformization, Jensen 1953). Every term is ≥ 0, so that no rounding makes a
        density negative, and unlike scipy.sparse.linalg.expm_multiply it draws nothing from the global generator. The
        work grows with c t, that is with t D / h².

        Args:
            density: p(0), (N,), non-negative.
            times: T times in frames, ascending from 0 or later.

        Returns:
            (T, N), float64.

        Raises:
            ValueError: for a density of another shape or with negative entries, or times that do not ascend.
        """
        if density.ndim != 1:
            raise ValueError(f"density must be one density (N,), got {tuple(density.shape)}")
        self.grid._require_density("density", density)
        times = [float(t) for t in times]
        steps = [after - before for before, after in zip([0.0, *times], times, strict=False)]
        if not steps or not all(0 <= step < math.inf for step in steps):
            raise ValueError(f"times must be at least one, ascending from 0 or later, and finite, got {times}")
        p, result = density.detach().cpu().double().numpy(), []
        for step in steps:
            p = self._advance(p, step)
            result.append(torch.from_numpy(p))
        return torch.stack(result)

    def _advance(self, p, time: float):
        """exp(time A) p, for NumPy's p (N,)."""
        from scipy.sparse import eye_array

        rate = -self.matrix.diagonal().min()
        if rate * time == 0:
            return p
        jump = (self.matrix / rate + eye_array(len(p))).tocsr()
        pieces = math.ceil(rate * time / 400)  # e^-400 is still a number, e^-800 is not
        ticks = rate * time / pieces
        for _ in range(pieces):
            term = p * math.exp(-ticks)
            p = term.copy()
            for n in range(1, math.ceil(ticks + 10 * math.sqrt(ticks) + 20)):  # the Poisson tail beyond is < 1e-16
                term = jump @ term * (ticks / n)
                p += term
        return p

    def stationary(self) -> Tensor:
        """The density (N,) with A p = 0 and ∫ p = 1, to which every other converges; exp(-V/D) / Z if v = -∇V.

        By inverse iteration with ε (ε - A)^-1, which takes p to its average over an exponential waiting time of mean
        1/ε: a density again. Factorising ε - A without exchanging rows subtracts nothing but on the diagonal, so small
        densities keep their relative accuracy. Two starts must come to agree, or there is more than one answer.

        Raises:
            ValueError: if D = 0 (then it is not unique), or the barriers are so high that it is not found.
        """
        if self.diffusion == 0:
            raise ValueError("without diffusion there are many stationary densities; give diffusion > 0")
        import numpy as np
        from scipy.sparse import eye_array
        from scipy.sparse.linalg import splu

        count = self.matrix.shape[0]
        epsilon = 1e-10 * (-self.matrix.diagonal().min() or 1.0)
        system = (epsilon * eye_array(count) - self.matrix).tocsc()
        factors = splu(system, "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        mass = np.full((count, 2), 1 / count)  # everywhere, and
        mass[:, 1] = np.arange(count) == 0  # all in one corner
        for _ in range(200):
            mass = factors.solve(mass)
            mass /= mass.sum(0)
            if (abs(mass[:, 0] - mass[:, 1]) <= 1e-10 * mass[:, 0]).all():
                return torch.from_numpy(mass[:, 0] / self.grid.volume)
        raise ValueError(
            f"no stationary density was found: with diffusion {self.diffusion} particles hardly ever cross the "
            "barriers of the velocity field; give more diffusion, or start evolve() in the well you mean"
        )


# --- particles ----------------------------------------------------------------------------------------------------


def euler_maruyama(
    velocity: _Velocity, z: Tensor, diffusion: float, dt: float, steps: int, generator: torch.Generator
) -> Tensor:
    """Samples of the Fokker-Planck equation: dz = v(z, t) dt + √(2D) dW in steps z + v dt + √(2 D dt) ε, ε ~ N(0, I).

    Args:
        velocity: v, takes z (B, d) and t, in frames from 0, to (B, d), latent units per frame.
        z: (B, d), where the particles start.
        diffusion: D ≥ 0, latent² per frame; 0 gives Euler's method.
        dt: frames in a step, positive. Expectations are wrong by O(dt), and particles may diverge where dt |∂v/∂z| > 2.
        steps: at least 1.
        generator: draws ε.

    Returns:
        (B, steps + 1, d), with the start.

    Raises:
        ValueError: for a D, dt, number of steps or shape other than these.

    Source: Kloeden & Platen 1992, chapter 14.
    """
    _require_points(z)
    _require_number("diffusion", diffusion, zero=True)
    _require_number("dt", dt)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    path = [z]
    for n in range(steps):
        v = velocity(z, n * dt)
        _require_like("velocity", v, z.shape, "the points z")
        noise = torch.randn(z.shape, dtype=z.dtype, device=z.device, generator=generator)
        z = z + v * dt + math.sqrt(2 * diffusion * dt) * noise
        path.append(z)
    return torch.stack(path, 1)


def langevin(
    log_density: _LogDensity, z: Tensor, diffusion: float, dt: float, steps: int, generator: torch.Generator
) -> Tensor:
    """Unadjusted Langevin sampling of p: :func:`euler_maruyama` with v = D ∇ log p, whose stationary density is p.

    Only the gradient of log p enters, so p need not be normalised. As no step is ever rejected, what the particles
    reach differs from p by O(dt): for p = N(0, 1) their variance becomes 1 / (1 - D dt / 2).

    Args:
        log_density: log p up to a constant, as for :func:`score`.
        z, diffusion, dt, steps, generator: as for :func:`euler_maruyama`; D only sets the speed.

    Returns:
        (B, steps + 1, d), with the start.

    Source: Roberts & Tweedie 1996.
    """
    return euler_maruyama(lambda z, t: diffusion * score(log_density, z), z, diffusion, dt, steps, generator)


# --- the distance of two densities --------------------------------------------------------------------------------


def grid_kl(grid: Grid, q: Tensor, p: Tensor) -> Tensor:
    """KL(q ‖ p) = ∫ q log(q/p) dz, by the midpoint rule, 0 log 0 = 0 and infinite where p = 0 < q.

    Args:
        q, p: densities (..., N), both of integral 1 on the grid.

    Returns:
        (...), nats.

    Raises:
        ValueError: for shapes that do not fit the grid, or entries that are negative or not finite.
    """
    grid._require_density("q", q)
    grid._require_density("p", p)
    return grid.integrate(torch.xlogy(q, q) - torch.xlogy(q, p))


def kl_rate(posterior_velocity: Tensor, prior_velocity: Tensor, posterior_score: Tensor, prior_score: Tensor) -> Tensor:
    """d/dt KL(q_t ‖ p_t) = E_q[(∇u - ∇ψ)·(∇log q - ∇log p)], when ∇u moves q and ∇ψ moves p.

    It follows from the two continuity equations by parts. With one and the same velocity the divergence stays.

    Args:
        posterior_velocity, prior_velocity: ∇u and ∇ψ, latent units per frame.
        posterior_score, prior_score: ∇log q and ∇log p. All (B, d), at the same B samples of q.

    Returns:
        A number, nats per frame: the average over the samples.

    Raises:
        ValueError: if the shapes differ or are not (B, d).
    """
    others = (("prior_velocity", prior_velocity), ("posterior_score", posterior_score), ("prior_score", prior_score))
    if posterior_velocity.ndim != 2:
        raise ValueError(f"posterior_velocity must be (B, d), got {tuple(posterior_velocity.shape)}")
    for what, value in others:
        _require_like(what, value, posterior_velocity.shape, "posterior_velocity")
    return ((posterior_velocity - prior_velocity) * (posterior_score - prior_score)).sum(-1).mean()
