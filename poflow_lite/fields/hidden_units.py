"""Fields with one hidden layer, whose derivatives are written down.

With σ(h) = log 2cosh h, σ' = tanh and σ'' = 1 - tanh² (OT-Flow, Onken et al. 2021), velocity, divergence and Jacobian
cost one pass each: no automatic differentiation inside the forward pass, hence no double backward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poflow_lite.fields.protocol import time_features, times_of


def log_2cosh(h: Tensor) -> Tensor:
    """log(2 cosh h) of each entry."""
    return h + F.softplus(-2 * h, threshold=40)  # without overflow, and smooth at 0, unlike |h|


def _mixed(y: Tensor, x: Tensor, matrices: Tensor) -> Tensor:
    """Σ_k y_k x_k M_k for y (B, K), x (B, K or 1, n), M (K, n, p), as one matrix product: (B, p)."""
    return (y[..., None] * x).flatten(1) @ matrices.flatten(0, 1)


class _EulerPath(torch.autograd.Function):
    """z_{i+1} = z_i + h_i (g ⊙ [tanh(W z_i + b_i), z_i, …, z_i] O + c_i) with its adjoint written down.

    Going back, λ_i = λ_{i+1} + ∂L/∂z_i + (∂v/∂z)ᵀ h_i λ_{i+1}. What belongs to the weights is added up over all steps
    by one matrix product each, at the end, where automatic differentiation makes one a step.

    Shapes: z (B, d), W (Km, d), O (Km+Kd, d), g (B, Km+Kd), b (n, Km), c (n, B, d), n numbers h; the path (B, n+1, d).
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        z: Tensor, inner: Tensor, outer: Tensor, gate: Tensor, hidden: Tensor, drift: Tensor, h: Sequence[float]
    ) -> Tensor:
        path, copies, weight = [z], (len(outer) - len(inner)) // z.shape[1], inner.T
        for b, c, size in zip(hidden.unbind(), drift.unbind(), h, strict=True):
            units = torch.cat([torch.tanh(torch.addmm(b, z, weight))] + [z] * copies, 1)
            z = torch.add(z, torch.addmm(c, gate * units, outer), alpha=size)
            path.append(z)
        return torch.stack(path, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        *tensors, _, ctx.h = inputs[1:]
        ctx.save_for_backward(output, *tensors)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        path, inner, outer, gate, hidden = ctx.saved_tensors
        points, sizes = path[:, :-1].transpose(0, 1), (len(inner), len(outer) - len(inner))  # (n, B, d)
        copies = sizes[1] // path.shape[2]
        turned = torch.tanh(points @ inner.T + hidden[:, None])
        eye = torch.eye(path.shape[2], dtype=inner.dtype, device=inner.device)
        bend, back = 1 - turned.square(), torch.cat([inner] + [eye] * copies)
        bend = gate * torch.cat([bend, torch.ones_like(gate[:, sizes[0] :]).expand(len(bend), -1, -1)], 2)
        costate, pushes, bends, onto = slope[:, -1], [], [], outer.T
        for own, further, h in zip(bend.unbind()[::-1], slope.unbind(1)[-2::-1], ctx.h[::-1], strict=True):
            pushes.append(h * costate)
            bends.append(own * (pushes[-1] @ onto))
            costate = torch.addmm(costate + further, bends[-1], back)
        push, bent = torch.stack(pushes[::-1]), torch.stack(bends[::-1]).split(sizes, 2)[0]  # ∂L/∂v, ∂L/∂h of each step
        units = torch.cat([turned] + [points] * copies, 2)
        to_gate = (units * (push @ onto)).sum(0) if ctx.needs_input_grad[3] else None
        to_outer = (gate * units).flatten(0, 1).T @ push.flatten(0, 1)
        return costate, bent.flatten(0, 1).T @ points.flatten(0, 1), to_outer, to_gate, bent.sum(1), push, None


class HiddenUnits(nn.Module):
    """K fields with one hidden layer:

        v^k(z, t) = Σ_j tanh(h^k_j) r^k_j + M^k z + C^k φ̂(t),      h^k_j = w^k_j·z + v^k_j·φ̂(t)

    Each unit j varies along w_j and pushes along r_j. The three subclasses differ only in what ties the two together:
    r_j = a_j w_j and M symmetric make a gradient, r_j ⟂ w_j and M antisymmetric a field without sources, nothing a
    free field.

    Args:
        latent: d.
        transformations: K.
        width: m, hidden units of each field.
        horizon: T, the unit of time inside φ.
        frequencies: F, number of sine and cosine pairs in φ; 0 leaves time itself.
        init_scale: of the initial w ~ ``init_scale`` N(0, 1/d): how quickly the field can vary in space.

    Raises:
        ValueError: for sizes below 1 or frequencies below 0; in the methods for shapes that do not fit.
    """

    def __init__(
        self,
        latent: int,
        transformations: int,
        width: int = 64,
        horizon: int = 8,
        frequencies: int = 2,
        init_scale: float = 1.0,
    ):
        super().__init__()
        sizes = {"latent": latent, "transformations": transformations, "width": width, "horizon": horizon}
        for name, size in sizes.items():
            if not 1 <= size < math.inf:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if frequencies < 0:
            raise ValueError(f"frequencies must be at least 0, got {frequencies}")
        self.latent, self.transformations = latent, transformations
        self.horizon, self.frequencies = horizon, frequencies
        features = 2 + 2 * frequencies
        self.inner = nn.Parameter(init_scale * torch.randn(transformations, width, latent) / math.sqrt(latent))  # w
        self.inner_time = nn.Parameter(0.5 * torch.randn(transformations, width, features))  # v
        self.linear = nn.Parameter(torch.zeros(transformations, latent, features))  # C

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "velocity" in vars(cls) and "euler_path" not in vars(cls):
            cls.euler_path = None  # of another velocity

    def velocity(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """v = Σ_j tanh(h_j) r_j + M z + C φ̂(t): (B, d), latent units per frame."""
        phi = self._phi(times_of(self, z, t, y))
        affine = torch.cat([self._matrix(), self.linear], -1).mT  # (K, d+f, d)
        pushed = _mixed(y, torch.tanh(self._hidden(z, phi)), self._directions())
        return pushed + _mixed(y, torch.cat([z, phi], -1)[:, None], affine)

    def euler_path(self, z: Tensor, t: Tensor, y: Tensor, h: Sequence[float]) -> Tensor:
        """The points (B, n+1, d) of n Euler steps z_{i+1} = z_i + h_i v(z_i, t_i) from z, for t (n,) and n numbers h.

        The same as adding up :meth:`velocity`, and several times cheaper: see :class:`_EulerPath`.
        """
        phi, sizes = self._phi(t), self.inner.shape[1:]
        gate = torch.cat([y[..., None].expand(-1, -1, size).flatten(1) for size in sizes], 1)
        outer = torch.cat([self._directions().flatten(0, 1), self._matrix().mT.flatten(0, 1)])
        hidden = phi @ self.inner_time.flatten(0, 1).T
        drift = phi @ (y @ self.linear.mT.flatten(1)).unflatten(1, (phi.shape[1], -1))
        return _EulerPath.apply(z, self.inner.flatten(0, 1), outer, gate, hidden, drift.transpose(0, 1), h)

    def jacobian(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """∂v/∂z = Σ_j (1 - tanh² h_j) r_j w_jᵀ + M: (B, d, d)."""
        products = self._directions()[..., :, None] * self.inner[..., None, :]  # r wᵀ: one product serves all samples
        found = _mixed(y, self._bend(z, t, y), products.flatten(2)) + y @ self._matrix().flatten(1)
        return found.unflatten(-1, (self.latent, self.latent))

    def jvp(self, z: Tensor, t: Tensor | float, y: Tensor, vector: Tensor) -> Tensor:
        """(∂v/∂z) e for vectors e (B, d): (B, d), in O(m d) without building the Jacobian."""
        bend = self._bend(z, t, y)
        along = (vector @ self.inner.flatten(0, 1).T).unflatten(-1, self.inner.shape[:2])  # w·e
        pushed = _mixed(y, bend * along, self._directions())
        return pushed + _mixed(y, vector[:, None], self._matrix().mT)

    def divergence(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """∇·v = Σ_j (1 - tanh² h_j) r_j·w_j + tr M: (B,), per frame, in O(m d)."""
        along = (self._directions() * self.inner).sum(-1, keepdim=True)  # r·w
        trace = torch.diagonal(self._matrix(), dim1=1, dim2=2).sum(-1)
        return _mixed(y, self._bend(z, t, y), along)[:, 0] + y @ trace

    def _directions(self) -> Tensor:
        """r: (K, m, d)."""
        raise NotImplementedError

    def _matrix(self) -> Tensor:
        """M: (K, d, d)."""
        raise NotImplementedError

    def _phi(self, t: Tensor, order: int = 0) -> Tensor:
        return time_features(t, self.horizon, self.frequencies, order)

    def _hidden(self, z: Tensor, phi: Tensor) -> Tensor:
        """h = W z + V φ̂: (B, K, m)."""
        weight = torch.cat([self.inner, self.inner_time], -1).flatten(0, 1)
        return (torch.cat([z, phi], -1) @ weight.T).unflatten(-1, self.inner.shape[:2])

    def _bend(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """1 - tanh² h: (B, K, m)."""
        return 1 - torch.tanh(self._hidden(z, self._phi(times_of(self, z, t, y)))).square()


class Potential(HiddenUnits):
    """K scalar potentials u^k(z, t), whose gradients are the velocities:

        u^k(z, t) = Σ_j a^k_j log 2cosh(h^k_j) + ½ zᵀ Q^k z + z·C^k φ̂(t) + c^k·φ(t)
        h^k_j     = w^k_j·z + v^k_j·φ̂(t),        φ̂ = (1, φ),        Q^k symmetric

    Hence r_j = a_j w_j and M = Q. The last term moves no particle; it fixes the gauge in which the Hamilton-Jacobi
    residual ∂_t u + ½‖∇u‖² - f can vanish.

    Args: as for :class:`HiddenUnits`: latent d, transformations K, width m, horizon T, frequencies F, init_scale.
    """

    def __init__(self, latent: int, transformations: int, width: int = 64, **options: float):
        super().__init__(latent, transformations, width, **options)
        self.outer = nn.Parameter(0.1 / math.sqrt(width) * torch.randn(transformations, width))  # a
        self.quadratic = nn.Parameter(torch.zeros(transformations, latent, latent))  # Q = (M + Mᵀ)/2
        self.gauge = nn.Parameter(torch.zeros(transformations, self.linear.shape[-1] - 1))  # c

    def values(self, z: Tensor, t: Tensor) -> Tensor:
        """u^k(z, t) of every k, for t (B,): (B, K)."""
        phi = self._phi(t)
        h = self._hidden(z, phi)
        hidden = (self.outer * log_2cosh(h)).sum(-1)
        quadratic = 0.5 * torch.einsum("bi,kij,bj->bk", z, self._matrix(), z)
        linear = torch.einsum("bi,kif,bf->bk", z, self.linear, phi)
        return hidden + quadratic + linear + phi[:, 1:] @ self.gauge.T

    def value(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """u = Σ_k y_k u^k(z, t): (B,)."""
        return (y * self.values(z, times_of(self, z, t, y))).sum(-1)

    def time_derivative(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """∂_t u = Σ_j a_j tanh(h_j) v_j·φ̂' + z·C φ̂' + c·φ': (B,)."""
        t = times_of(self, z, t, y)
        phi, rate = self._phi(t), self._phi(t, 1)
        hidden = (self.outer * torch.tanh(self._hidden(z, phi)) * self._drift(rate)).sum(-1)
        return (y * (hidden + self._untouched(z, rate))).sum(-1)

    def second_time_derivative(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """∂_tt u = Σ_j a_j [(1 - tanh² h_j)(v_j·φ̂')² + tanh(h_j) v_j·φ̂''] + z·C φ̂'' + c·φ'': (B,)."""
        t = times_of(self, z, t, y)
        phi, rate, bend = (self._phi(t, order) for order in range(3))
        slope = torch.tanh(self._hidden(z, phi))
        hidden = (1 - slope.square()) * self._drift(rate).square() + slope * self._drift(bend)
        return (y * ((self.outer * hidden).sum(-1) + self._untouched(z, bend))).sum(-1)

    # The same in a potential's own words, v = ∇u.
    gradient, hessian = HiddenUnits.velocity, HiddenUnits.jacobian
    hvp, laplacian = HiddenUnits.jvp, HiddenUnits.divergence

    def _directions(self) -> Tensor:
        return self.outer[..., None] * self.inner

    def _matrix(self) -> Tensor:
        return 0.5 * (self.quadratic + self.quadratic.mT)

    def _drift(self, rate: Tensor) -> Tensor:
        """v·φ̂' of each unit: (B, K, m)."""
        return (rate @ self.inner_time.flatten(0, 1).T).unflatten(-1, self.outer.shape)

    def _untouched(self, z: Tensor, rate: Tensor) -> Tensor:
        """z·C φ̂' + c·φ' of every k, what no hidden unit touches: (B, K)."""
        return torch.einsum("bi,kif,bf->bk", z, self.linear, rate) + rate[:, 1:] @ self.gauge.T


class FreeField(HiddenUnits):
    """K fields of which nothing is asked: r and M are free. It contains the other two, and starts as small as they do.

    Args: as for :class:`HiddenUnits`.
    """

    def __init__(self, latent: int, transformations: int, width: int = 64, **options: float):
        super().__init__(latent, transformations, width, **options)
        self.outer = nn.Parameter(0.1 / math.sqrt(width * latent) * torch.randn(transformations, width, latent))  # r
        self.matrix = nn.Parameter(torch.zeros(transformations, latent, latent))  # M

    def _directions(self) -> Tensor:
        return self.outer

    def _matrix(self) -> Tensor:
        return self.matrix


class DivergenceFreeField(HiddenUnits):
    """K fields without sources, by construction: r_j = p_j (q_j·w_j) - q_j (p_j·w_j) ⟂ w_j, and M antisymmetric.

    v is the row-wise divergence ∂_j A_ij of the antisymmetric A = Σ_j log 2cosh(h_j) (p_j q_jᵀ - q_j p_jᵀ), hence
    ∇·v = ∂_i ∂_j A_ij = 0. It turns, and changes no density; in one dimension only C remains.

    Args: as for :class:`HiddenUnits`. Source: classical; Richter-Powell, Lipman & Chen 2022 with deep networks.
    """

    def __init__(self, latent: int, transformations: int, width: int = 64, **options: float):
        super().__init__(latent, transformations, width, **options)
        shape = transformations, width, latent
        self.left = nn.Parameter(torch.randn(shape) / math.sqrt(latent))  # p
        self.right = nn.Parameter(0.1 / math.sqrt(width) * torch.randn(shape))  # q
        self.rotation = nn.Parameter(torch.zeros(transformations, latent, latent))  # M = (Ω - Ωᵀ)/2

    def divergence(self, z: Tensor, t: Tensor | float, y: Tensor) -> Tensor:
        """∇·v = 0 everywhere, whatever the parameters: (B,)."""
        times_of(self, z, t, y)
        return z.new_zeros(len(z))

    def _directions(self) -> Tensor:
        q_w = (self.right * self.inner).sum(-1, keepdim=True)
        p_w = (self.left * self.inner).sum(-1, keepdim=True)
        return self.left * q_w - self.right * p_w

    def _matrix(self) -> Tensor:
        return 0.5 * (self.rotation - self.rotation.mT)
