"""Potentials with several layers: closed forms against automatic differentiation, and one layer against Potential."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad, hessian, vmap

from poflow_lite.deep_potentials import DeepPotential
from poflow_lite.flows import PotentialFlow
from poflow_lite.potentials import mixing_weights

DERIVATIVES = ("gradient", "hessian", "laplacian", "time_derivative", "second_time_derivative")


def deep(latent=3, transformations=2, depth=2, seed=0, strength=0.5):
    """A float64 potential in which every parameter is random, none is left at its initial 0."""
    potential = DeepPotential(latent, transformations, width=4, depth=depth, horizon=4).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter.copy_(strength * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return potential


def arguments(latent=3, transformations=2, batch=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(batch, latent, generator=generator, dtype=torch.float64)
    return z, 4 * torch.rand(batch, generator=generator, dtype=torch.float64), torch.arange(batch) % transformations


def by_autograd(potential, name, z, t, k):
    """The derivative of ``value`` that the method ``name`` claims to be, for each sample by itself."""

    def value(z, t, y):
        return potential.value(z[None], t[None], y[None])[0]

    derivative = {
        "gradient": grad(value),
        "hessian": hessian(value),
        "laplacian": lambda z, t, y: torch.trace(hessian(value)(z, t, y)),
        "time_derivative": grad(value, 1),
        "second_time_derivative": grad(grad(value, 1), 1),
    }[name]
    return vmap(derivative)(z, t, mixing_weights(k, potential.transformations).double())


@pytest.mark.parametrize("depth", [2, 3])
def test_the_value_is_the_sum_in_the_docstring(depth):
    potential, (z, t, k) = deep(depth=depth), arguments()
    for b in range(len(z)):
        j, tau = k[b], t[b].item() / 4
        waves = [wave(f * math.pi * tau) for wave in (math.sin, math.cos) for f in (1, 2)]
        phi = torch.tensor([1.0, tau, *waves], dtype=torch.float64)
        h = potential.inner[j] @ z[b] + potential.inner_time[j] @ phi
        u = potential.outer[j] @ torch.log(2 * torch.cosh(h))
        for layer in range(depth - 1):
            h = potential.deeper[layer][j] @ torch.tanh(h) + potential.deeper_time[layer][j] @ phi
            u = u + potential.deeper_outer[layer][j] @ torch.log(2 * torch.cosh(h))
        u = u + 0.5 * z[b] @ potential.quadratic[j] @ z[b] + z[b] @ potential.linear[j] @ phi
        found = potential.value(z[b : b + 1], t[b : b + 1], k[b : b + 1])[0]
        torch.testing.assert_close(found, u + potential.gauge[j] @ phi[1:])


@pytest.mark.parametrize("name", DERIVATIVES)
@given(depth=st.integers(1, 4), latent=st.integers(1, 3), seed=st.integers(0, 99))
def test_closed_forms_are_the_derivatives_of_the_value(name, depth, latent, seed):
    potential, (z, t, k) = deep(latent, depth=depth, seed=seed), arguments(latent, seed=seed)
    torch.testing.assert_close(getattr(potential, name)(z, t, k), by_autograd(potential, name, z, t, k))


@pytest.mark.parametrize("name", DERIVATIVES)
def test_closed_forms_hold_for_mixtures(name):
    potential, (z, t, _) = deep(depth=3), arguments()
    weights = torch.rand(len(z), 2, dtype=torch.float64).softmax(-1)
    torch.testing.assert_close(getattr(potential, name)(z, t, weights), by_autograd(potential, name, z, t, weights))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_hessian_times_vector_is_that_product(depth):
    potential, (z, t, k) = deep(depth=depth), arguments()
    vector = torch.randn(5, 3, dtype=torch.float64)
    product = torch.einsum("bij,bj->bi", potential.hessian(z, t, k), vector)
    torch.testing.assert_close(potential.hessian_vector(z, t, k, vector), product)


def test_one_layer_is_the_potential_and_more_layers_are_not(make_potential):
    single, (z, t, k) = make_potential(3, 2, width=4), arguments()
    for depth in (1, 2):
        potential = deep(depth=depth)
        potential.load_state_dict(potential.state_dict() | single.state_dict())
        for name in ("value", *DERIVATIVES):
            found, expected = (getattr(one, name)(z, t, k) for one in (potential, single))
            assert torch.allclose(found, expected) == (depth == 1), name


def test_as_a_field_it_goes_by_its_own_derivatives():
    """The names of a field were bound in the class above, to the derivatives of one layer."""
    potential, (z, t, k) = deep(), arguments()
    vector = torch.randn(5, 3, dtype=torch.float64)
    assert torch.equal(potential.velocity(z, t, k), potential.gradient(z, t, k))
    assert torch.equal(potential.jacobian(z, t, k), potential.hessian(z, t, k))
    assert torch.equal(potential.divergence(z, t, k), potential.laplacian(z, t, k))
    assert torch.equal(potential.jacobian_vector(z, t, k, vector), potential.hessian_vector(z, t, k, vector))


def test_gradients_of_what_training_needs_are_right():
    """log-determinant and residual of a path, differentiated by every parameter, against finite differences."""
    potential, (z, _, k) = deep(2, strength=0.2), arguments(2)
    flow, names = PotentialFlow(potential), dict(potential.named_parameters())

    def loss(*values):
        with torch.nn.utils.stateless._reparametrize_module(potential, dict(zip(names, values, strict=True))):
            path = flow.rollout(z, k, 2)
            return path.log_det.sum() + flow.residuals(path, k).square().sum()

    assert torch.autograd.gradcheck(loss, tuple(names.values()), fast_mode=True)


def test_every_parameter_is_trained_from_its_initial_value():
    flow = PotentialFlow(DeepPotential(3, 2, width=5, depth=3))
    path = flow.rollout(torch.randn(6, 3), torch.arange(6) % 2, 2)
    (path.log_det.sum() + flow.residuals(path, torch.arange(6) % 2).square().sum()).backward()
    for name, parameter in flow.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad.flatten(1).abs().sum(1) > 0).all(), name  # of either k


@pytest.mark.parametrize(("sizes", "message"), [({"depth": 0}, "depth must be at least 1"), ({"width": 0}, "width")])
def test_sizes_below_one_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        DeepPotential(3, 2, **sizes)


def test_points_of_another_dimension_are_refused():
    with pytest.raises(ValueError, match=r"z must be \(B, 3\), got \(5, 2\)"):
        deep().laplacian(*arguments(2))
