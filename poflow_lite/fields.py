"""Velocity fields v^k(z, t) that a flow can follow: what they must offer, and two that are not learned potentials.

A gradient field v = ∇u is curl-free: its Jacobian is symmetric, and it carries densities along paths of optimal
transport but cannot turn in circles. A divergence-free field is the opposite: it turns, and changes no density at all.
(Helmholtz: in the plane or in space, a field that decays is the sum of one of each.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import grad, jacrev, vjp, vmap

from poflow_lite.potentials import checked_arguments, time_features

__all__ = ["DivergenceFreeField", "Field", "FunctionPotential"]


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


class DivergenceFreeField(nn.Module):
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

    Source: the construction is classical; Richter-Powell, Lipman & Chen 2022 use it with deep networks.
    """

    def __init__(self, latent: int, transformations: int, width: int = 64, horizon: int = 8, frequencies: int = 2):
        super().__init__()
        self.latent, self.transformations = latent, transformations
        self.horizon, self.frequencies = horizon, frequencies
        features = 2 + 2 * frequencies
        scale = 1 / math.sqrt(latent)
        self.inner = nn.Parameter(scale * torch.randn(transformations, width, latent))  # w
        self.inner_time = nn.Parameter(0.5 * torch.randn(transformations, width, features))  # v
        self.left = nn.Parameter(scale * torch.randn(transformations, width, latent))  # p
        self.right = nn.Parameter(0.1 / math.sqrt(width) * torch.randn(transformations, width, latent))  # q
        self.rotation = nn.Parameter(torch.zeros(transformations, latent, latent))  # Ω = (M - Mᵀ)/2
        self.linear = nn.Parameter(torch.zeros(transformations, latent, features))  # C

    def velocity(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """v^k(z, t): (B, d), latent units per frame."""
        y, phi = self._arguments(z, t, k)
        push = torch.einsum("bk,bkm,kmi->bi", y, torch.tanh(self._hidden(z, phi)), self._directions())
        return (
            push
            + torch.einsum("bk,kij,bj->bi", y, self._antisymmetric(), z)
            + torch.einsum("bk,kif,bf->bi", y, self.linear, phi)
        )

    def jacobian(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """∂v/∂z = Σ_j (1 - tanh² h_j) r_j w_jᵀ + Ω: (B, d, d), of trace zero."""
        y, phi = self._arguments(z, t, k)
        bend = y[..., None] * (1 - torch.tanh(self._hidden(z, phi)).square())
        turned = torch.einsum("bkm,kmi,kmj->bij", bend, self._directions(), self.inner)
        return turned + torch.einsum("bk,kij->bij", y, self._antisymmetric())

    def jacobian_vector(self, z: Tensor, t: Tensor | float, k: Tensor, vector: Tensor) -> Tensor:
        """(∂v/∂z) e for vectors e (B, d): (B, d)."""
        return torch.einsum("bij,bj->bi", self.jacobian(z, t, k), vector)

    def divergence(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """∇·v = 0 everywhere, whatever the parameters: (B,)."""
        self._arguments(z, t, k)
        return z.new_zeros(len(z))

    def _arguments(self, z: Tensor, t: Tensor | float, k: Tensor) -> tuple[Tensor, Tensor]:
        """Checked mixing weights y (B, K) and φ̂(t) (B, f)."""
        y, t = checked_arguments(z, t, k, self.latent, self.transformations)
        return y, time_features(t, self.horizon, self.frequencies)[0]

    def _hidden(self, z: Tensor, phi: Tensor) -> Tensor:
        """h: (B, K, m)."""
        return torch.einsum("bi,kmi->bkm", z, self.inner) + torch.einsum("bf,kmf->bkm", phi, self.inner_time)

    def _directions(self) -> Tensor:
        """r = p (q·w) - q (p·w): (K, m, d)."""
        q_w = (self.right * self.inner).sum(-1, keepdim=True)
        p_w = (self.left * self.inner).sum(-1, keepdim=True)
        return self.left * q_w - self.right * p_w

    def _antisymmetric(self) -> Tensor:
        return 0.5 * (self.rotation - self.rotation.mT)
