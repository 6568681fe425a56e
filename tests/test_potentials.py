"""Values and closed-form derivatives of the potentials against a written-out sum and automatic differentiation."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad, hessian, vmap

from poflow_lite.objectives import hamilton_jacobi_residual
from poflow_lite.potentials import Force, Potential, mixing_weights, time_features

METHODS = ("value", "gradient", "hessian", "laplacian", "time_derivative")


def arguments(latent, transformations, batch=6, seed=0, horizon=4):
    """Random z (B, d), one time for each sample, and an index that runs through all transformations."""
    generator = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(batch, latent, generator=generator, dtype=torch.float64)
    t = horizon * torch.rand(batch, generator=generator, dtype=torch.float64)
    return z, t, torch.arange(batch) % transformations


def written_out_value(potential, z, t, k):
    """u^k(z, t) of one sample, term by term as the class states it."""
    tau, total = t / potential.horizon, 0.0
    waves = [wave(f * math.pi * tau) for wave in (math.sin, math.cos) for f in range(1, potential.frequencies + 1)]
    phi = torch.tensor([tau, *waves], dtype=torch.float64)
    phi_hat = torch.cat([torch.ones(1, dtype=torch.float64), phi])
    for a, w, v in zip(potential.outer[k], potential.inner[k], potential.inner_time[k], strict=True):
        total = total + a * torch.log(2 * torch.cosh(w @ z + v @ phi_hat))
    total = total + 0.5 * z @ potential.quadratic[k] @ z
    return total + z @ (potential.linear[k] @ phi_hat) + potential.gauge[k] @ phi


def derivative_by_autograd(potential, name, z, t, k):
    """The derivative of ``value`` that the method ``name`` claims to be, for each sample by itself."""

    def value(z, t, y):
        return potential.value(z[None], t[None], y[None])[0]

    derivative = {
        "gradient": grad(value),
        "hessian": hessian(value),
        "laplacian": lambda z, t, y: torch.trace(hessian(value)(z, t, y)),
        "time_derivative": grad(value, 1),
    }[name]
    return vmap(derivative)(z, t, mixing_weights(k, potential.transformations).double())


# --- values and derivatives ---------------------------------------------------------------------------------------


def test_value_is_the_sum_in_the_docstring(make_potential):
    potential, (z, t, k) = make_potential(3, 2), arguments(3, 2)
    expected = [written_out_value(potential, *(a.item() if a.ndim == 0 else a for a in x)) for x in zip(z, t, k)]  # noqa: B905
    torch.testing.assert_close(potential.value(z, t, k), torch.stack(expected))


@pytest.mark.parametrize("name", METHODS[1:])
@given(
    latent=st.integers(1, 4), transformations=st.integers(1, 3), frequencies=st.integers(0, 2), seed=st.integers(0, 99)
)
def test_closed_forms_are_the_derivatives_of_the_value(
    make_potential, name, latent, transformations, frequencies, seed
):
    potential = make_potential(latent, transformations, seed, frequencies=frequencies)
    z, t, k = arguments(latent, transformations, seed=seed)
    expected = derivative_by_autograd(potential, name, z, t, k)
    torch.testing.assert_close(getattr(potential, name)(z, t, k), expected)


@pytest.mark.parametrize("name", METHODS[1:])
def test_closed_forms_hold_for_mixtures(make_potential, name):
    potential, (z, t, _) = make_potential(3, 3), arguments(3, 3)
    weights = torch.rand(len(z), 3, dtype=torch.float64).softmax(-1)
    torch.testing.assert_close(
        getattr(potential, name)(z, t, weights), derivative_by_autograd(potential, name, z, t, weights)
    )


def test_hessian_is_symmetric_though_its_parameter_is_not(make_potential):
    potential, (z, t, k) = make_potential(4, 2), arguments(4, 2)
    found = potential.hessian(z, t, k)
    assert not torch.allclose(potential.quadratic, potential.quadratic.mT)
    torch.testing.assert_close(found, found.mT)
    torch.testing.assert_close(potential.laplacian(z, t, k), found.diagonal(dim1=1, dim2=2).sum(-1))


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_2cosh_does_not_overflow_where_h_is_a_thousand(sign, dtype):
    potential = Potential(1, 1, width=1).to(dtype)
    with torch.no_grad():
        potential.inner.fill_(1)
        potential.outer.fill_(1)
        potential.inner_time.zero_()
    z, k = torch.tensor([[1000.0 * sign]], dtype=dtype), torch.tensor([0])
    assert potential.value(z, 0.0, k).item() == 1000
    assert potential.gradient(z, 0.0, k).item() == sign
    assert potential.hessian(z, 0.0, k).item() == 0


# --- which transformation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_mixing_is_linear_and_an_index_is_a_one_hot_mixture(make_potential, name):
    potential, (z, t, k) = make_potential(3, 3), arguments(3, 3)
    method, eye = getattr(potential, name), torch.eye(3, dtype=torch.float64)
    weights = torch.randn(len(z), 3, dtype=torch.float64)
    alone = torch.stack([method(z, t, torch.full((len(z),), j)) for j in range(3)], -1)
    torch.testing.assert_close(method(z, t, weights), torch.einsum("b...k,bk->b...", alone, weights))
    torch.testing.assert_close(method(z, t, k), method(z, t, eye[k]))
    assert (alone[..., 0] - alone[..., 1]).abs().max() > 0.01  # the potentials do differ


@pytest.mark.parametrize("name", METHODS)
@given(seed=st.integers(0, 99), batch=st.integers(1, 8))
def test_each_sample_has_its_own_index_and_time(make_potential, name, seed, batch):
    potential, (z, t, k) = make_potential(2, 3), arguments(2, 3, batch, seed)
    method, order = getattr(potential, name), torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    found = method(z, t, k)
    torch.testing.assert_close(method(z[order], t[order], k[order]), found[order])
    torch.testing.assert_close(
        torch.cat([method(z[i : i + 1], t[i].item(), k[i : i + 1]) for i in range(batch)]), found
    )


# --- Hamilton-Jacobi ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [0.0, -0.7])
@pytest.mark.parametrize("k", [[0], [1, 1], [2, 0, 1, 0, 2, 1, 1]])
def test_plane_waves_solve_the_equation_in_any_batch(make_quadratic, k, force):
    """u = b·z - (½‖b‖² - f) t has ∂_t u + ½‖∇u‖² = f for every b."""
    k, b = torch.tensor(k), torch.randn(3, 4, dtype=torch.float64)
    potential = make_quadratic(torch.zeros(3, 4, 4), linear=b, horizon=5)
    with torch.no_grad():
        potential.gauge[:, 0] = -5 * (0.5 * b.square().sum(-1) - force)  # c·φ(t) with φ_1 = t / horizon
    z, t = torch.randn(len(k), 4, dtype=torch.float64), torch.rand(len(k), dtype=torch.float64)
    torch.testing.assert_close(potential.gradient(z, t, k), b[k])
    residual = hamilton_jacobi_residual(potential.time_derivative(z, t, k), potential.gradient(z, t, k), force)
    torch.testing.assert_close(residual, torch.zeros(len(k), dtype=torch.float64), atol=1e-12, rtol=0)


def test_the_gauge_moves_no_particle(make_potential):
    potential, (z, t, k) = make_potential(3, 2), arguments(3, 2)
    before, rate = potential.gradient(z, t, k), potential.time_derivative(z, t, k)
    with torch.no_grad():
        potential.gauge += 1
    assert torch.equal(potential.gradient(z, t, k), before)
    assert (potential.time_derivative(z, t, k) - rate).abs().min() > 0.01


@given(seed=st.integers(0, 99))
def test_force_is_never_positive_and_belongs_to_its_sample(seed):
    torch.manual_seed(seed)
    force, (z, t, k) = Force(3, 2, width=8, horizon=4).double(), arguments(3, 2, seed=seed)
    found = force(z, t, k)
    assert (found <= 0).all()
    root = force.network(torch.cat([z, t[:, None] / 4], -1))
    torch.testing.assert_close(found, -(root[torch.arange(len(z)), k] ** 2))
    weights = torch.randn(len(z), 2, dtype=torch.float64)
    torch.testing.assert_close(force(z, t, weights), -((weights * root).sum(-1) ** 2))


# --- time features ------------------------------------------------------------------------------------------------


def test_time_features_and_their_rate():
    t = torch.tensor([0.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    features, rate = time_features(t, horizon=4, frequencies=2)
    half = math.sqrt(0.5)
    expected = [[1, 0, 0, 0, 1, 1], [1, 0.5, 1, 0, 0, -1], [1, 0.75, half, -1, -half, 0]]
    torch.testing.assert_close(features, torch.tensor(expected, dtype=torch.float64))
    by_autograd = [torch.autograd.grad(f.sum(), t, retain_graph=True, materialize_grads=True)[0] for f in features.T]
    torch.testing.assert_close(rate, torch.stack(by_autograd, -1))


def test_without_frequencies_time_itself_is_left():
    features, rate = time_features(torch.tensor([6.0]), horizon=8, frequencies=0)
    assert features.tolist() == [[1, 0.75]]
    assert rate.tolist() == [[0, 0.125]]


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "message"),
    [
        (torch.tensor([0, 3]), r"k must lie in 0\.\.2 for 3 transformations, got values from 0 to 3"),
        (torch.tensor([-1, 2]), r"k must lie in 0\.\.2 .* got values from -1 to 2"),
        (torch.tensor([0.0, 1.0]), r"\(B,\) integers or \(B, 3\) floating-point weights, got \(2,\) of torch.float32"),
        (torch.eye(2), r"got \(2, 2\) of torch.float32"),
        (torch.eye(3).long(), r"got \(3, 3\) of torch.int64"),
    ],
)
def test_a_wrong_index_is_refused_with_what_came(k, message):
    with pytest.raises(ValueError, match=message):
        mixing_weights(k, 3)


@pytest.mark.parametrize("name", METHODS)
def test_wrong_latents_are_refused_with_both_shapes(make_potential, name):
    method = getattr(make_potential(3, 2), name)
    with pytest.raises(ValueError, match=r"z must be \(B, 3\), got \(2, 4\)"):
        method(torch.zeros(2, 4), 0.0, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="z has 3 samples but k has 2"):
        method(torch.zeros(3, 3), 0.0, torch.tensor([0, 1]))


@pytest.mark.parametrize("name", ["latent", "transformations", "width", "horizon"])
def test_sizes_below_one_are_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        Potential(**{"latent": 2, "transformations": 2, name: 0})


@pytest.mark.parametrize("field", [Force(2, 2), Potential(2, 2).gradient])
@pytest.mark.parametrize(
    ("z", "t", "k", "message"),
    [
        (torch.zeros(2, 3), 0.0, [0, 1], r"z must be \(B, 2\), got \(2, 3\)"),
        (torch.zeros(3, 2), 0.0, [0, 1], "z has 3 samples but k has 2"),
        (torch.zeros(3, 2), torch.zeros(2), [0, 1, 1], r"z has 3 samples but k has 3 and t has shape \(2,\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_potential_and_force(field, z, t, k, message):
    with pytest.raises(ValueError, match=message):
        field(z, t, torch.tensor(k))


# --- as a velocity field ------------------------------------------------------------------------------------------


def test_hessian_vector_is_the_hessian_times_the_vector(make_potential):
    potential = make_potential(4, 3)
    z, vector = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    t, k = torch.linspace(0, 3, 6, dtype=torch.float64), torch.arange(6) % 3
    for index in (k, torch.rand(6, 3, dtype=torch.float64)):
        expected = torch.einsum("bij,bj->bi", potential.hessian(z, t, index), vector)
        torch.testing.assert_close(potential.hessian_vector(z, t, index, vector), expected)


def test_a_potential_is_a_velocity_field(make_potential):
    potential, z, k = make_potential(3, 2), torch.randn(4, 3, dtype=torch.float64), torch.arange(4) % 2
    torch.testing.assert_close(potential.velocity(z, 1.0, k), potential.gradient(z, 1.0, k))
    torch.testing.assert_close(potential.jacobian(z, 1.0, k), potential.hessian(z, 1.0, k))
    torch.testing.assert_close(potential.divergence(z, 1.0, k), potential.laplacian(z, 1.0, k))


def test_sharpness_scales_the_initial_inner_weights_alone():
    torch.manual_seed(0)
    plain = Potential(3, 2)
    torch.manual_seed(0)
    sharp = Potential(3, 2, sharpness=2.5)
    torch.testing.assert_close(sharp.inner, 2.5 * plain.inner)
    torch.testing.assert_close(sharp.outer, plain.outer)


@pytest.mark.parametrize("frequencies", [0, 2])
def test_second_time_derivative_is_that_of_autograd(make_potential, frequencies):
    potential, z = make_potential(3, 2, frequencies=frequencies), torch.randn(4, 3, dtype=torch.float64)
    times, k = torch.tensor([0.0, 1.0, 2.5, 4.0], dtype=torch.float64), torch.tensor([0, 1, 1, 0])
    for index in (k, torch.rand(4, 2, dtype=torch.float64)):
        found = potential.second_time_derivative(z, times, index)
        for i in range(4):

            def value(t, i=i, index=index):
                return potential.value(z[i : i + 1], t[None], index[i : i + 1])[0]

            torch.testing.assert_close(found[i], torch.func.grad(torch.func.grad(value))(times[i]))
