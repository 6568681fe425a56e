"""Potentials given as a function, their derivatives by automatic differentiation; and deep ones among them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import grad, vjp, vmap

from poflow_lite.fields.hidden_units import Potential, log_2cosh
from poflow_lite.fields.protocol import times_of


class AutogradPotential(nn.Module):
    """K potentials written down as a function u(z, t), all derivatives by automatic differentiation.

    For known potentials, for deep networks (:class:`DeepUnits`), and as an oracle of :class:`Potential`.

    Args:
        function: points (B, d) and times (B,) ↦ values (B, K), or (B,) where K = 1; a module is trained along. Each
            value may depend on its own point only.
        latent: d.
        transformations: K.
        horizon: T, where the motion was trained; any time is as good as another by default.
    """

    def __init__(
        self, function: Callable[..., Tensor], latent: int, transformations: int = 1, horizon: float = math.inf
    ):
        super().__init__()
        self.function, self.latent, self.transformations = function, latent, transformations
        self.horizon = horizon

    def value(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """u = Σ_k y_k u^k(z, t): (B,)."""
        values = self.function(z, times_of(self, z, t, y)).reshape(len(z), -1)
        if values.shape != y.shape:
            raise ValueError(
                f"the function must give values {tuple(y.shape)}, one for each k, got {tuple(values.shape)}"
            )
        return (y * values).sum(-1)

    def velocity(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """v = ∇u: (B, d)."""
        return grad(lambda points: self.value(points, t, y).sum())(z)

    def jvp(self, z: Tensor, t: Tensor | float, y: Tensor, vector: Tensor) -> Tensor:
        """∇²u e: (B, d), by one backward pass of the gradient, as ∇²u is symmetric."""
        return vjp(lambda points: self.velocity(points, t, y), z)[1](vector)[0]

    def jacobian(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """∇²u: (B, d, d), by d backward passes of the gradient."""
        pull = vjp(lambda points: self.velocity(points, t, y), z)[1]
        axes = torch.eye(self.latent, dtype=z.dtype, device=z.device)
        return vmap(lambda axis: pull(axis.expand_as(z))[0])(axes).movedim(0, 1)

    def divergence(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """Δu: (B,)."""
        return torch.diagonal(self.jacobian(z, t, y), dim1=1, dim2=2).sum(-1)

    def time_derivative(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """∂_t u: (B,)."""
        return grad(lambda times: self.value(z, times, y).sum())(times_of(self, z, t, y))

    def second_time_derivative(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """∂_tt u: (B,)."""
        return grad(lambda times: self.time_derivative(z, times, y).sum())(times_of(self, z, t, y))

    gradient, hessian, hvp, laplacian = velocity, jacobian, jvp, divergence


class DeepUnits(nn.Module):
    """Values (B, K) of K potentials with L hidden layers, each of which feeds the next and the value:

        u^k(z, t) = Σ_l Σ_j a^k_lj log 2cosh(h^k_lj) + ½ zᵀ Q^k z + z·C^k φ̂(t) + c^k·φ(t)
        h_1       = W_1 z + V_1 φ̂(t),        h_{l+1} = W_{l+1} tanh(h_l) + V_{l+1} φ̂(t)

    With L = 1 it is :class:`Potential`. ``AutogradPotential(DeepUnits(d, K, depth=2), d, K, T)`` is a field.

    Args:
        latent, transformations, options: of the first layer, as for :class:`Potential`.
        width: m, units of each layer.
        depth: L ≥ 1.
    """

    def __init__(self, latent: int, transformations: int, width: int = 64, depth: int = 2, **options: float):
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self.first = Potential(latent, transformations, width, **options)

        def layers(scale: float, *shape: int) -> nn.ParameterList:
            return nn.ParameterList(scale * torch.randn(transformations, width, *shape) for _ in range(depth - 1))

        self.weight = layers(width**-0.5, width)  # W_2, …, W_L
        self.time = layers(0.5, self.first.linear.shape[-1])  # V_2, …, V_L
        self.outer = layers(0.1 * width**-0.5)  # a_2, …, a_L

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        phi = self.first._phi(t)
        h, u = self.first._hidden(z, phi), self.first.values(z, t)
        for weight, time, outer in zip(self.weight, self.time, self.outer, strict=True):
            h = torch.einsum("kmn,bkn->bkm", weight, torch.tanh(h)) + torch.einsum("bf,kmf->bkm", phi, time)
            u = u + (outer * log_2cosh(h)).sum(-1)
        return u
