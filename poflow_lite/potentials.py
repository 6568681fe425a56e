"""Learned potentials u^k(z, t) with closed-form derivatives, and the driving force of the Hamilton-Jacobi equation.

One hidden layer with σ(h) = log 2cosh h has derivatives that can be written down: σ' = tanh and σ'' = 1 - tanh²
(OT-Flow, Onken et al. 2021). Gradient and Laplacian then cost one pass each, whatever the latent dimension, and the
Hessian is one matrix product: no automatic differentiation inside the forward pass, hence no double backward.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Force", "Potential", "checked_arguments", "mixing_weights", "time_features"]


def mixing_weights(k: Tensor, transformations: int) -> Tensor:
    """Weights y of the mixture Σ_k y_k u^k: one-hot rows for an index, the weights themselves otherwise.

    Args:
        k: (B,) integers in 0..K-1, or (B, K) weights (soft assignments, or several ones to superpose flows).
        transformations: K.

    Returns:
        (B, K).

    Raises:
        ValueError: for an index out of range or a shape that is neither.
    """
    if k.ndim == 2 and k.shape[1] == transformations and k.is_floating_point():
        return k
    if k.ndim != 1 or k.is_floating_point():
        raise ValueError(
            f"k must be (B,) integers or (B, {transformations}) floating-point weights, "
            f"got {tuple(k.shape)} of {k.dtype}"
        )
    if k.numel() and (k.min() < 0 or k.max() >= transformations):
        raise ValueError(
            f"k must lie in 0..{transformations - 1} for {transformations} transformations, "
            f"got values from {int(k.min())} to {int(k.max())}"
        )
    return F.one_hot(k, transformations).to(torch.get_default_dtype())


def checked_arguments(
    z: Tensor, t: Tensor | float, k: Tensor, latent: int, transformations: int
) -> tuple[Tensor, Tensor]:
    """Mixing weights (B, K) and times (B,) that fit the points z (B, d).

    Raises:
        ValueError: if z is not (B, d), or k or t belong to another number of samples.
    """
    if z.ndim != 2 or z.shape[1] != latent:
        raise ValueError(f"z must be (B, {latent}), got {tuple(z.shape)}")
    y = mixing_weights(k, transformations).to(z)
    t = torch.as_tensor(t, dtype=z.dtype, device=z.device)
    if len(y) != len(z) or (t.ndim and t.shape != z.shape[:1]):
        raise ValueError(f"z has {len(z)} samples but k has {len(y)} and t has shape {tuple(t.shape)}")
    return y, t.expand(len(z))


def time_features(t: Tensor, horizon: float, frequencies: int) -> tuple[Tensor, Tensor]:
    """φ̂(t) = (1, τ, sin πτ, …, sin Fπτ, cos πτ, …, cos Fπτ) with τ = t / horizon, and its derivative dφ̂/dt.

    Args:
        t: (B,) in frames.
        horizon: T, frames in which τ runs from 0 to 1.
        frequencies: F ≥ 0.

    Returns:
        Two tensors of shape (B, 2 + 2F).
    """
    tau = t[:, None] / horizon
    omega = math.pi * torch.arange(1, frequencies + 1, dtype=t.dtype, device=t.device)
    one, sine, cosine = torch.ones_like(tau), torch.sin(omega * tau), torch.cos(omega * tau)
    features = torch.cat([one, tau, sine, cosine], -1)
    rate = torch.cat([torch.zeros_like(tau), one, omega * cosine, -omega * sine], -1) / horizon
    return features, rate


class Potential(nn.Module):
    """K scalar potentials u^k(z, t), evaluated for a whole batch at once, each sample with its own k or mixture.

        u^k(z, t) = Σ_j a^k_j log 2cosh(h^k_j) + ½ zᵀ Q^k z + z·C^k φ̂(t) + c^k·φ(t)
        h^k_j     = w^k_j·z + v^k_j·φ̂(t),        φ̂ = (1, φ)

    with Q^k symmetric. The last term does not move particles; it fixes the gauge in which the Hamilton-Jacobi
    residual ∂_t u + ½‖∇u‖² - f can vanish. An index k is the one-hot mixture y of Σ_k y_k u^k, so that one code path,
    made of plain matrix products, serves known, inferred and superposed transformations.

    In every method z is (B, d), t a number or (B,) in frames, and k either (B,) integers or (B, K) weights.

    Args:
        latent: d.
        transformations: K.
        width: m, hidden units of each potential.
        horizon: T, the unit of time inside φ.
        frequencies: F, number of sine and cosine pairs in φ; 0 leaves time itself.
        sharpness: scale of the initial w, which begin as ``sharpness`` N(0, 1/d): how quickly u can vary in space.

    Raises:
        ValueError: here for sizes below 1; in the methods for shapes that do not fit or an index out of range.
    """

    def __init__(
        self,
        latent: int,
        transformations: int,
        width: int = 64,
        horizon: int = 8,
        frequencies: int = 2,
        sharpness: float = 1.0,
    ):
        super().__init__()
        sizes = {"latent": latent, "transformations": transformations, "width": width, "horizon": horizon}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        self.latent, self.transformations = latent, transformations
        self.horizon, self.frequencies = horizon, frequencies
        phi = 1 + 2 * frequencies
        self.inner = nn.Parameter(sharpness * torch.randn(transformations, width, latent) / math.sqrt(latent))  # w
        self.inner_time = nn.Parameter(0.5 * torch.randn(transformations, width, 1 + phi))  # v
        self.outer = nn.Parameter(0.1 / math.sqrt(width) * torch.randn(transformations, width))  # a
        self.quadratic = nn.Parameter(torch.zeros(transformations, latent, latent))  # Q = (M + Mᵀ)/2
        self.linear = nn.Parameter(torch.zeros(transformations, latent, 1 + phi))  # C
        self.gauge = nn.Parameter(torch.zeros(transformations, phi))  # c

    def value(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """u^k(z, t): (B,)."""
        z, y, phi, _ = self._arguments(z, t, k)
        h = self._hidden(z, phi)
        log_2cosh = h.abs() + F.softplus(-2 * h.abs())  # without overflow
        hidden = (self.outer * log_2cosh).sum(-1)
        quadratic = 0.5 * torch.einsum("bi,kij,bj->bk", z, self._symmetric(), z)
        linear = torch.einsum("bi,kif,bf->bk", z, self.linear, phi)
        return (y * (hidden + quadratic + linear + phi[:, 1:] @ self.gauge.T)).sum(-1)

    def gradient(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """∇u^k = Wᵀ(a ⊙ tanh h) + Q z + C φ̂(t): (B, d), the velocity in latent units per frame."""
        z, y, phi, _ = self._arguments(z, t, k)
        slope = y[..., None] * self.outer * torch.tanh(self._hidden(z, phi))  # (B, K, m)
        affine = y[..., None] * torch.cat([z, phi], -1)[:, None]  # (B, K, d+f)
        matrix = torch.cat([self._symmetric(), self.linear], -1)  # (K, d, d+f)
        return slope.flatten(1) @ self.inner.flatten(0, 1) + affine.flatten(1) @ matrix.mT.flatten(0, 1)

    def hessian(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """∇²u^k = Wᵀ diag(a ⊙ (1 - tanh² h)) W + Q: (B, d, d), symmetric."""
        z, y, phi, _ = self._arguments(z, t, k)
        bend = y[..., None] * self.outer * (1 - torch.tanh(self._hidden(z, phi)).square())  # (B, K, m)
        inner = self.inner.flatten(0, 1)
        squares = (inner[:, :, None] * inner[:, None, :]).flatten(1)  # w wᵀ: one matrix product serves all B samples
        return (bend.flatten(1) @ squares + y @ self._symmetric().flatten(1)).unflatten(-1, (self.latent, self.latent))

    def hessian_vector(self, z: Tensor, t: Tensor | float, k: Tensor, vector: Tensor) -> Tensor:
        """∇²u^k v for vectors v (B, d): (B, d), in O(m d) without building the Hessian."""
        z, y, phi, _ = self._arguments(z, t, k)
        inner = self.inner.flatten(0, 1)
        bend = y[..., None] * self.outer * (1 - torch.tanh(self._hidden(z, phi)).square())
        affine = y[..., None] * vector[:, None]  # (B, K, d)
        return (bend.flatten(1) * (vector @ inner.T)) @ inner + affine.flatten(1) @ self._symmetric().flatten(0, 1)

    def laplacian(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """Δu^k = Σ_j a_j (1 - tanh² h_j) ‖w_j‖² + tr Q: (B,), in O(m d) without building the Hessian."""
        z, y, phi, _ = self._arguments(z, t, k)
        bend = self.outer * (1 - torch.tanh(self._hidden(z, phi)).square())
        trace = torch.diagonal(self.quadratic, dim1=1, dim2=2).sum(-1)
        return (y * ((bend * self.inner.square().sum(-1)).sum(-1) + trace)).sum(-1)

    def time_derivative(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """∂_t u^k = Σ_j a_j tanh(h_j) v_j·φ̂'(t) + z·C φ̂'(t) + c·φ'(t): (B,)."""
        z, y, phi, rate = self._arguments(z, t, k)
        drift = (rate @ self.inner_time.flatten(0, 1).T).unflatten(-1, self.outer.shape)  # (B, K, m)
        hidden = (self.outer * torch.tanh(self._hidden(z, phi)) * drift).sum(-1)
        linear = torch.einsum("bi,kif,bf->bk", z, self.linear, rate)
        return (y * (hidden + linear + rate[:, 1:] @ self.gauge.T)).sum(-1)

    # The same by the names of a velocity field, v = ∇u (fields.Field).
    velocity, jacobian, jacobian_vector, divergence = gradient, hessian, hessian_vector, laplacian

    def second_time_derivative(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """∂_tt u^k = Σ_j a_j [(1 - tanh² h_j)(v_j·φ̂')² + tanh(h_j) v_j·φ̂''] + z·C φ̂'' + c·φ'': (B,)."""
        z, y, phi, rate = self._arguments(z, t, k)
        bend = self._bend(phi)
        hidden = torch.tanh(self._hidden(z, phi))
        speed, pull = ((f @ self.inner_time.flatten(0, 1).T).unflatten(-1, self.outer.shape) for f in (rate, bend))
        hidden = (self.outer * ((1 - hidden.square()) * speed.square() + hidden * pull)).sum(-1)
        linear = torch.einsum("bi,kif,bf->bk", z, self.linear, bend)
        return (y * (hidden + linear + bend[:, 1:] @ self.gauge.T)).sum(-1)

    def _bend(self, phi: Tensor) -> Tensor:
        """φ̂''(t) from φ̂(t): the sines and cosines times -(nπ/T)², nothing for 1 and τ."""
        omega = math.pi / self.horizon * torch.arange(1, self.frequencies + 1, dtype=phi.dtype, device=phi.device)
        return -torch.cat([omega.new_zeros(2), omega.square(), omega.square()]) * phi

    def _arguments(self, z: Tensor, t: Tensor | float, k: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Checked z, mixing weights y (B, K), φ̂(t) and φ̂'(t) (B, 1+f)."""
        y, t = checked_arguments(z, t, k, self.latent, self.transformations)
        return z, y, *time_features(t, self.horizon, self.frequencies)

    def _hidden(self, z: Tensor, phi: Tensor) -> Tensor:
        """h = W z + V φ̂: (B, K, m)."""
        weight = torch.cat([self.inner, self.inner_time], -1).flatten(0, 1)
        return (torch.cat([z, phi], -1) @ weight.T).unflatten(-1, self.outer.shape)

    def _symmetric(self) -> Tensor:
        return 0.5 * (self.quadratic + self.quadratic.mT)


class Force(nn.Module):
    """Driving force f^k(z, t) = -s^k(z, t)² ≤ 0 of the generalised Hamilton-Jacobi equation, s a small network.

    Args:
        latent: d.
        transformations: K, one output for each.
        width: hidden units.
        horizon: T, the unit of time inside the network.
    """

    def __init__(self, latent: int, transformations: int, width: int = 32, horizon: int = 8):
        super().__init__()
        self.latent, self.transformations, self.horizon = latent, transformations, horizon
        self.network = nn.Sequential(nn.Linear(latent + 1, width), nn.Tanh(), nn.Linear(width, transformations))

    def forward(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """f^k(z, t) for z (B, d), t a number or (B,), k (B,) or (B, K): (B,), never positive."""
        y, t = checked_arguments(z, t, k, self.latent, self.transformations)
        root = self.network(torch.cat([z, t[:, None] / self.horizon], -1))
        return -(y * root).sum(-1).square()
