"""Potentials with several hidden layers, their derivatives still in closed form.

What one hidden layer buys in :mod:`poflow_lite.potentials` is not lost with more of them: the derivatives of a network
are the chain rule, which goes forward for rates and backward for slopes. Nothing is differentiated automatically
inside the forward pass, so training costs one backward pass, as it does there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poflow_lite.potentials import Potential

__all__ = ["DeepPotential"]


@dataclass
class _Layers:
    """What one pass through the layers leaves behind, each entry a list over l = 1..L of (B, K, m).

    Attributes:
        hidden: h_l.
        sine: tanh h_l.
        bend: 1 - tanh² h_l, the derivative of tanh.
        adjoint: ∂D/∂(tanh h_l) = W_{l+1}ᵀ ∂D/∂h_{l+1}, with D the mixture of what layers 2..L add; 0 for l = L.
    """

    hidden: list[Tensor]
    sine: list[Tensor]
    bend: list[Tensor]
    adjoint: list[Tensor]


class DeepPotential(Potential):
    """K potentials with L hidden layers, each of which feeds the next and the value:

        u^k(z, t) = Σ_l Σ_j a^k_lj log 2cosh(h^k_lj) + ½ zᵀ Q^k z + z·C^k φ̂(t) + c^k·φ(t)
        h_1       = W_1 z + V_1 φ̂(t),        h_{l+1} = W_{l+1} tanh(h_l) + V_{l+1} φ̂(t)

    With L = 1 it is :class:`potentials.Potential`; every further layer adds units whose directions of variation depend
    on z. Write D for what layers 2..L add to u, δ_l = ∂D/∂h_l for its slopes (backward, from the last layer), and
    J_l = ∂h_l/∂z (forward: J_1 = W_1, J_{l+1} = W_{l+1} diag(1 - tanh² h_l) J_l). Then

        ∇D = W_1ᵀ δ_1        ∇²D = Σ_l J_lᵀ diag(κ_l) J_l
        κ_l = a_l (1 - tanh² h_l) [l ≥ 2] - 2 tanh(h_l) (1 - tanh² h_l) W_{l+1}ᵀ δ_{l+1}

    Arguments, shapes and units of all methods are those of :class:`potentials.Potential`.

    Args:
        latent, transformations, width, horizon, frequencies, sharpness: as there; each layer has ``width`` units.
        depth: L ≥ 1.

    Raises:
        ValueError: for a depth below 1, and as there.
    """

    def __init__(
        self,
        latent: int,
        transformations: int,
        width: int = 64,
        depth: int = 2,
        horizon: int = 8,
        frequencies: int = 2,
        sharpness: float = 1.0,
    ):
        super().__init__(latent, transformations, width, horizon, frequencies, sharpness)
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")

        def parameters(scale: float, *shape: int) -> nn.ParameterList:
            return nn.ParameterList(scale * torch.randn(transformations, width, *shape) for _ in range(depth - 1))

        self.depth = depth
        self.deeper = parameters(width**-0.5, width)  # W_2, …, W_L
        self.deeper_time = parameters(0.5, 2 + 2 * frequencies)  # V_2, …, V_L
        self.deeper_outer = parameters(0.1 * width**-0.5)  # a_2, …, a_L

    def value(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """u^k(z, t): (B,)."""
        _, y, phi, _ = self._arguments(z, t, k)
        added = 0.0
        for outer, h in zip(self.deeper_outer, self._layers(z, y, phi).hidden[1:], strict=True):
            log_2cosh = h.abs() + F.softplus(-2 * h.abs())  # without overflow
            added = added + (y * (outer * log_2cosh).sum(-1)).sum(-1)
        return super().value(z, t, k) + added

    def gradient(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """∇u^k: (B, d), the velocity in latent units per frame."""
        _, y, phi, _ = self._arguments(z, t, k)
        layers = self._layers(z, y, phi)
        slope = layers.bend[0] * layers.adjoint[0]  # δ_1
        return super().gradient(z, t, k) + slope.flatten(1) @ self.inner.flatten(0, 1)

    def hessian(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """∇²u^k: (B, d, d), symmetric."""
        _, y, phi, _ = self._arguments(z, t, k)
        layers = self._layers(z, y, phi)
        curvature = self._curvature(layers, y)
        inner = self.inner.flatten(0, 1)
        squares = (inner[:, :, None] * inner[:, None, :]).flatten(1)  # of J_1, the same for all samples
        added = (curvature[0].flatten(1) @ squares).unflatten(-1, (self.latent, self.latent))
        for kappa, jacobian in zip(curvature[1:], self._jacobians(layers), strict=True):
            rows = jacobian.flatten(1, 2)  # (B, Km, d)
            added = added + (kappa.flatten(1)[..., None] * rows).mT @ rows
        return super().hessian(z, t, k) + added

    def hessian_vector(self, z: Tensor, t: Tensor | float, k: Tensor, vector: Tensor) -> Tensor:
        """∇²u^k v for vectors v (B, d): (B, d), by one pass forward and one backward, without the Hessian."""
        _, y, phi, _ = self._arguments(z, t, k)
        layers = self._layers(z, y, phi)
        pushed = [torch.einsum("bi,kmi->bkm", vector, self.inner)]  # J_l v
        for weight, bend in zip(self.deeper, layers.bend[:-1], strict=True):
            pushed.append(_through(weight, bend * pushed[-1]))
        turned = [kappa * push for kappa, push in zip(self._curvature(layers, y), pushed, strict=True)]
        pulled = turned[-1]
        for weight, bend, own in zip(reversed(self.deeper), layers.bend[-2::-1], turned[-2::-1], strict=True):
            pulled = own + bend * _through(weight.mT, pulled)
        return super().hessian_vector(z, t, k, vector) + pulled.flatten(1) @ self.inner.flatten(0, 1)

    def laplacian(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """Δu^k: (B,), with Σ_l Σ_j κ_lj ‖row j of J_l‖² from the layers: no Hessian is built."""
        _, y, phi, _ = self._arguments(z, t, k)
        layers = self._layers(z, y, phi)
        lengths = [self.inner.square().sum(-1), *(jacobian.square().sum(-1) for jacobian in self._jacobians(layers))]
        curvature = self._curvature(layers, y)
        added = sum((kappa * length).sum((1, 2)) for kappa, length in zip(curvature, lengths, strict=True))
        return super().laplacian(z, t, k) + added

    def time_derivative(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """∂_t u^k: (B,)."""
        return super().time_derivative(z, t, k) + self._rates(z, t, k)[0]

    def second_time_derivative(self, z: Tensor, t: Tensor | float, k: Tensor) -> Tensor:
        """∂_tt u^k: (B,)."""
        return super().second_time_derivative(z, t, k) + self._rates(z, t, k)[1]

    velocity, jacobian, jacobian_vector, divergence = gradient, hessian, hessian_vector, laplacian

    def _layers(self, z: Tensor, y: Tensor, phi: Tensor) -> _Layers:
        """All layers forward, then the slopes of D backward; y (B, K) is mixed in from the last layer on."""
        hidden = [self._hidden(z, phi)]
        for weight, time in zip(self.deeper, self.deeper_time, strict=True):
            hidden.append(_through(weight, torch.tanh(hidden[-1])) + torch.einsum("bf,kmf->bkm", phi, time))
        sine = [torch.tanh(h) for h in hidden]
        bend = [1 - s.square() for s in sine]
        adjoint = [torch.zeros_like(sine[-1])]
        for i in reversed(range(1, self.depth)):
            slope = y[..., None] * self.deeper_outer[i - 1] * sine[i] + bend[i] * adjoint[0]  # δ of layer i + 1
            adjoint.insert(0, _through(self.deeper[i - 1].mT, slope))
        return _Layers(hidden, sine, bend, adjoint)

    def _curvature(self, layers: _Layers, y: Tensor) -> list[Tensor]:
        """κ_l, l = 1..L: (B, K, m) each."""
        found = [-2 * s * b * a for s, b, a in zip(layers.sine, layers.bend, layers.adjoint, strict=True)]
        for i, outer in enumerate(self.deeper_outer, 1):
            found[i] = found[i] + y[..., None] * outer * layers.bend[i]
        return found

    def _jacobians(self, layers: _Layers) -> list[Tensor]:
        """J_l, l = 2..L: (B, K, m, d) each."""
        found, last = [], self.inner
        for weight, bend in zip(self.deeper, layers.bend[:-1], strict=True):
            last = weight @ (bend[..., None] * last)
            found.append(last)
        return found

    def _rates(self, z: Tensor, t: Tensor | float, k: Tensor) -> tuple[Tensor, Tensor]:
        """∂_t D and ∂_tt D: (B,) each, the rates of all layers carried forward."""
        _, y, phi, rate = self._arguments(z, t, k)
        layers, twice = self._layers(z, y, phi), self._bend(phi)
        speed, pull = (torch.einsum("bf,kmf->bkm", f, self.inner_time) for f in (rate, twice))
        first = second = z.new_zeros(len(z))
        for i, (weight, time, outer) in enumerate(zip(self.deeper, self.deeper_time, self.deeper_outer, strict=True)):
            sine, bend = layers.sine[i], layers.bend[i]
            pull = _through(weight, bend * pull - 2 * sine * bend * speed.square())
            pull = pull + torch.einsum("bf,kmf->bkm", twice, time)
            speed = _through(weight, bend * speed) + torch.einsum("bf,kmf->bkm", rate, time)
            sine, bend = layers.sine[i + 1], layers.bend[i + 1]
            first = first + (y * (outer * sine * speed).sum(-1)).sum(-1)
            second = second + (y * (outer * (bend * speed.square() + sine * pull)).sum(-1)).sum(-1)
        return first, second


def _through(weight: Tensor, x: Tensor) -> Tensor:
    """W x for each k: weight (K, m, n), x (B, K, n) ↦ (B, K, m)."""
    return torch.einsum("kmn,bkn->bkm", weight, x)
