"""Velocity fields v^k(z, t) that a flow can follow: what they must offer, and those that are not learned potentials.

A gradient field v = ∇u is curl-free: its Jacobian is symmetric, and it carries densities along paths of optimal
transport but cannot turn in circles. A divergence-free field is the opposite: it turns, and changes no density at all.
(Helmholtz: in the plane or in space, a field that decays is the sum of one of each.) A free field is neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import grad, jacrev, vjp, vmap

from poflow_lite.potentials import checked_arguments, time_features

__all__ = ["DivergenceFreeField", "Field", "FreeField", "FunctionPotential"]


class Field(Protocol):
    """What :class:`flows.Flow` asks of a velocity field: z is (B, d), t a number or (B,), k (B,) or (B, K)."""

    transformations: int

    def velocity(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """v: (B, d), latent units per frame."""
        ...

    def jacobian(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """∂v_i/∂z_j: (B, d, d)."""
        ...

    def jacobian_vector(self, z: Tensor, t: Tensor | float, k: Tensor, vector: Tensor) -> Tensor:
        """Σ_j ∂v_i/∂z_j e_j for vectors e (B, d): (B, d)."""
        ...

    def divergence(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """∇·v = tr ∂v/∂z: (B,), per frame."""
        ...


class FunctionPotential(nn.Module):
    """A potential written down as a function u(z, t), its derivatives by automatic differentiation.

    For experiments with known potentials (K = 1) and as an oracle: everything that :class:`potentials.Potential` has in
    closed form, at d times the cost.

    Args:
        function: u, from points (B, d) and times (B,) to values (B,); each value may depend on its own point only.
        latent: d.
    """

    transformations = 1

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], latent: int):
        super().__init__()
        self.function, self.latent = function, latent

    def value(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """u(z, t): (B,); a mixing weight k multiplies it."""
        y, t = checked_arguments(z, t, k, self.latent, 1)
        return y[:, 0] * self.function(z, t)

    def gradient(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """∇u: (B, d)."""
        return vmap(grad(self._at_one_point))(z, *self._one_by_one(z, t, k))

    def hessian(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """∇²u: (B, d, d)."""
        return vmap(jacrev(grad(self._at_one_point)))(z, *self._one_by_one(z, t, k))

    def hessian_vector(self, z: Tensor, t: Tensor | float, k: Tensor, vector: Tensor) -> Tensor:
        """∇²u e: (B, d), by one backward pass of the gradient, as ∇²u is symmetric."""
        return vjp(lambda points: self.gradient(points, t, k), z)[1](vector)[0]

    def laplacian(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """Δu: (B,)."""
        return torch.diagonal(self.hessian(z, t, k), dim1=1, dim2=2).sum(-1)

    def time_derivative(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """∂_t u: (B,)."""
        return vmap(grad(self._at_one_point, 2))(z, *self._one_by_one(z, t, k))

    velocity, jacobian, jacobian_vector, divergence = gradient, hessian, hessian_vector, laplacian

    def _one_by_one(self, z: Tensor, t: Tensor | float, k: Tensor) -> tuple[Tensor, Tensor]:
        return checked_arguments(z, t, k, self.latent, 1)

    def _at_one_point(self, z: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """y u(z, t) at one point z (d,)."""
        return y[0] * self.function(z[None], t[None])[0]


class _HiddenUnits(nn.Module):
    """What :class:`FreeField` and :class:`DivergenceFreeField` share, and :class:`potentials.Potential` has as well:

        v^k(z, t) = Σ_j tanh(h^k_j) r^k_j + M^k z + C^k φ̂(t),      h^k_j = w^k_j·z + v^k_j·φ̂(t)

    all K at once in plain matrix products. A subclass declares C ("linear"), and says how the directions r and the
    matrix M come about.
    """

    def __init__(self, latent: int, transformations: int, width: int, horizon: int, frequencies: int):
        super().__init__()
        sizes = {"latent": latent, "transformations": transformations, "width": width, "horizon": horizon}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        self.latent, self.transformations = latent, transformations
        self.horizon, self.frequencies = horizon, frequencies
        features = 2 + 2 * frequencies
        self.inner = nn.Parameter(torch.randn(transformations, width, latent) / math.sqrt(latent))  # w
        self.inner_time = nn.Parameter(0.5 * torch.randn(transformations, width, features))  # v

    def velocity(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """v^k(z, t): (B, d), latent units per frame."""
        y, phi = self._arguments(z, t, k)
        slope = y[..., None] * torch.tanh(self._hidden(z, phi))  # (B, K, m)
        affine = y[..., None] * torch.cat([z, phi], -1)[:, None]  # (B, K, d+f)
        matrix = torch.cat([self._matrix(), self.linear], -1)  # (K, d, d+f)
        return slope.flatten(1) @ self._directions().flatten(0, 1) + affine.flatten(1) @ matrix.mT.flatten(0, 1)

    def jacobian(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """∂v/∂z = Σ_j (1 - tanh² h_j) r_j w_jᵀ + M: (B, d, d)."""
        y, phi = self._arguments(z, t, k)
        products = (self._directions()[..., :, None] * self.inner[..., None, :]).flatten(0, 1).flatten(1)  # r wᵀ
        found = self._bend(z, phi, y).flatten(1) @ products + y @ self._matrix().flatten(1)
        return found.unflatten(-1, (self.latent, self.latent))

    def jacobian_vector(self, z: Tensor, t: Tensor | float, k: Tensor, vector: Tensor) -> Tensor:
        """(∂v/∂z) e for vectors e (B, d): (B, d), in O(m d) without building the Jacobian."""
        y, phi = self._arguments(z, t, k)
        turned = self._bend(z, phi, y).flatten(1) * (vector @ self.inner.flatten(0, 1).T)
        affine = y[..., None] * vector[:, None]  # (B, K, d)
        return turned @ self._directions().flatten(0, 1) + affine.flatten(1) @ self._matrix().mT.flatten(0, 1)

    def divergence(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """∇·v = Σ_j (1 - tanh² h_j) r_j·w_j + tr M: (B,), per frame."""
        y, phi = self._arguments(z, t, k)
        along = (self._directions() * self.inner).sum(-1).flatten()  # r·w
        return self._bend(z, phi, y).flatten(1) @ along + y @ torch.diagonal(self._matrix(), dim1=1, dim2=2).sum(-1)

    def _directions(self) -> Tensor:
        """r: (K, m, d)."""
        raise NotImplementedError

    def _matrix(self) -> Tensor:
        """M: (K, d, d)."""
        raise NotImplementedError

    def _arguments(self, z: Tensor, t: Tensor | float, k: Tensor) -> tuple[Tensor, Tensor]:
        """Checked mixing weights y (B, K) and φ̂(t) (B, f)."""
        y, t = checked_arguments(z, t, k, self.latent, self.transformations)
        return y, time_features(t, self.horizon, self.frequencies)[0]

    def _hidden(self, z: Tensor, phi: Tensor) -> Tensor:
        """h: (B, K, m)."""
        weight = torch.cat([self.inner, self.inner_time], -1).flatten(0, 1)
        return (torch.cat([z, phi], -1) @ weight.T).unflatten(-1, self.inner.shape[:2])

    def _bend(self, z: Tensor, phi: Tensor, y: Tensor) -> Tensor:
        """y_k (1 - tanh² h): (B, K, m)."""
        return y[..., None] * (1 - torch.tanh(self._hidden(z, phi)).square())


class FreeField(_HiddenUnits):
    """K fields of which nothing is asked: each hidden unit pushes along a direction r_j of its own.

        v^k(z, t) = Σ_j tanh(h^k_j) r^k_j + M^k z + C^k φ̂(t),      h^k_j = w^k_j·z + v^k_j·φ̂(t)

    The three fields differ only in what ties the direction r_j of the push to the direction w_j in which it varies:
    in a gradient field (:class:`potentials.Potential`) r_j = a_j w_j and M is symmetric, in a
    :class:`DivergenceFreeField` r_j ⟂ w_j and M is antisymmetric, here nothing. It contains the other two, and
    begins, as they do, with pushes of about 0.1/√m.

    Args:
        latent: d.
        transformations: K.
        width: m, hidden units of each field.
        horizon: T, the unit of time inside φ.
        frequencies: number of sine and cosine pairs in φ.

    Raises:
        ValueError: for sizes below 1; in the methods for shapes that do not fit or an index out of range.
    """

    def __init__(self, latent: int, transformations: int, width: int = 64, horizon: int = 8, frequencies: int = 2):
        super().__init__(latent, transformations, width, horizon, frequencies)
        scale = 0.1 / math.sqrt(width * latent)
        self.outer = nn.Parameter(scale * torch.randn(transformations, width, latent))  # r
        self.matrix = nn.Parameter(torch.zeros(transformations, latent, latent))  # M
        self.linear = nn.Parameter(torch.zeros(transformations, latent, self.inner_time.shape[-1]))  # C

    def _directions(self) -> Tensor:
        return self.outer

    def _matrix(self) -> Tensor:
        return self.matrix


class DivergenceFreeField(_HiddenUnits):
    """K fields without sources, by construction and not by a penalty:

        v^k(z, t) = Σ_j tanh(h^k_j) r^k_j + Ω^k z + C^k φ̂(t),      h^k_j = w^k_j·z + v^k_j·φ̂(t)
        r_j       = p_j (q_j·w_j) - q_j (p_j·w_j)

    v is the row-wise divergence ∂_j A_ij of the antisymmetric matrix A = Σ_j log 2cosh(h_j) (p_j q_jᵀ - q_j p_jᵀ),
    hence ∇·v = ∂_i ∂_j A_ij = 0: each hidden unit pushes along r_j, at a right angle to the direction w_j in which it
    varies. (A gradient field pushes along w_j itself.) Ω is antisymmetric: rotations. In one dimension only C remains.

    Args:
        latent: d.
        transformations: K.
        width: hidden units of each field.
        horizon: T, the unit of time inside φ.
        frequencies: number of sine and cosine pairs in φ.

    Raises:
        ValueError: for sizes below 1; in the methods for shapes that do not fit or an index out of range.

    Source: the construction is classical; Richter-Powell, Lipman & Chen 2022 use it with deep networks.
    """

    def __init__(self, latent: int, transformations: int, width: int = 64, horizon: int = 8, frequencies: int = 2):
        super().__init__(latent, transformations, width, horizon, frequencies)
        shape = transformations, width, latent
        self.left = nn.Parameter(torch.randn(shape) / math.sqrt(latent))  # p
        self.right = nn.Parameter(0.1 / math.sqrt(width) * torch.randn(shape))  # q
        self.rotation = nn.Parameter(torch.zeros(transformations, latent, latent))  # Ω = (M - Mᵀ)/2
        self.linear = nn.Parameter(torch.zeros(transformations, latent, self.inner_time.shape[-1]))  # C

    def divergence(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """∇·v = 0 everywhere, whatever the parameters: (B,)."""
        self._arguments(z, t, k)
        return z.new_zeros(len(z))

    def _directions(self) -> Tensor:
        """r = p (q·w) - q (p·w): (K, m, d)."""
        q_w = (self.right * self.inner).sum(-1, keepdim=True)
        p_w = (self.left * self.inner).sum(-1, keepdim=True)
        return self.left * q_w - self.right * p_w

    def _matrix(self) -> Tensor:
        return 0.5 * (self.rotation - self.rotation.mT)
