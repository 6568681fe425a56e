"""Velocity fields: closed forms against automatic differentiation, and what each kind of field can never do."""

import pytest
import torch
from torch.func import grad, hessian, jacrev

from poflow_lite.fields import DivergenceFreeField, FreeField, FunctionPotential
from poflow_lite.flows import Flow
from poflow_lite.potentials import Potential, mixing_weights

K = torch.tensor([0, 1, 1, 0])
TIMES = torch.tensor([0.0, 1.0, 2.5, 4.0], dtype=torch.float64)


def points(latent=3, batch=4, seed=0):
    return torch.randn(batch, latent, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turning(latent=3, seed=0, transformations=2, kind=DivergenceFreeField):
    """A float64 field in which every parameter is random, none is left at its initial 0."""
    field = kind(latent, transformations, width=5, horizon=4).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return field


def autograd_jacobian(field, z, t, k):
    """∂v/∂z, one point at a time."""
    pieces = zip(z, t, mixing_weights(k, field.transformations).to(z), strict=True)
    return torch.stack([jacrev(lambda x, s=s, y=y: field.velocity(x[None], s, y[None])[0])(p) for p, s, y in pieces])


# --- divergence-free fields ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", [1, 2, 3, 6])
def test_jacobian_of_a_divergence_free_field_is_that_of_autograd_and_has_no_trace(latent):
    field, z = turning(latent), points(latent)
    found = field.jacobian(z, TIMES, K)
    torch.testing.assert_close(found, autograd_jacobian(field, z, TIMES, K))
    torch.testing.assert_close(torch.diagonal(found, dim1=1, dim2=2).sum(1), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(field.divergence(z, TIMES, K), torch.zeros(4, dtype=torch.float64))
    if latent > 1:
        assert (found - found.mT).abs().amax((1, 2)).min() > 0.1  # it is not a gradient field


def test_divergence_free_field_is_the_divergence_of_an_antisymmetric_matrix():
    """v_i = Σ_j ∂_j A_ij with A = Σ log 2cosh(h) (p qᵀ - q pᵀ), plus Ω z + C φ̂: by automatic differentiation of A."""
    field, z = turning(), points()
    with torch.no_grad():
        field.rotation.zero_()
        field.linear.zero_()
    wedge = field.left[..., :, None] * field.right[..., None, :]
    wedge = wedge - wedge.mT  # (K, m, d, d)

    def matrix(x, phi, k):
        h = field.inner[k] @ x + field.inner_time[k] @ phi
        return torch.einsum("m,mij->ij", torch.log(2 * torch.cosh(h)), wedge[k])

    for i in range(4):
        phi = field._arguments(z[i : i + 1], TIMES[i : i + 1], K[i : i + 1])[1][0]
        derivative = jacrev(matrix)(z[i], phi, K[i])  # ∂_l A_ij
        expected = torch.einsum("ijj->i", derivative)
        torch.testing.assert_close(field.velocity(z[i : i + 1], TIMES[i : i + 1], K[i : i + 1])[0], expected)


def test_divergence_free_field_mixes_by_weights_and_refuses_what_does_not_fit():
    field, z = turning(), points()
    weights = torch.tensor([[0.3, 0.7]], dtype=torch.float64).expand(4, 2)
    each = [field.velocity(z, 1.0, torch.full((4,), k)) for k in (0, 1)]
    torch.testing.assert_close(field.velocity(z, 1.0, weights), 0.3 * each[0] + 0.7 * each[1])
    vector = points(seed=1)
    product = torch.einsum("bij,bj->bi", field.jacobian(z, 1.0, K), vector)
    torch.testing.assert_close(field.jacobian_vector(z, 1.0, K, vector), product)
    with pytest.raises(ValueError, match=r"z must be \(B, 3\), got \(4, 5\)"):
        field.divergence(points(5), 1.0, K)


def test_every_parameter_of_a_divergence_free_field_is_trained():
    field = DivergenceFreeField(3, 2)
    field.velocity(torch.randn(6, 3), 1.0, torch.arange(6) % 2).square().sum().backward()
    for name, parameter in field.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_a_divergence_free_flow_keeps_densities_and_its_euler_map_does_not():
    """In continuous time volumes stay: RK4's exact log-determinant vanishes with the step, Euler's does so slowly."""
    field, z = turning(2, transformations=1), points(2)
    k = torch.zeros(4, dtype=torch.long)
    fine = Flow(field, "rk4", substeps=32).rollout(z, k, 2)
    assert (fine.z[:, -1] - z).norm(dim=1).min() > 0.1
    assert fine.log_det.abs().max() < 1e-6
    assert Flow(field, "euler").rollout(z, k, 2).log_det.abs().max() > 1e-2
    exact_zero = Flow(field, "euler", density="laplacian").rollout(z, k, 2).log_det
    assert torch.equal(exact_zero, torch.zeros_like(exact_zero))


def test_a_rotation_is_a_divergence_free_flow():
    field = DivergenceFreeField(2, 1, width=1).double()
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.zero_()
        field.rotation[0, 0, 1], field.rotation[0, 1, 0] = -torch.pi / 4, torch.pi / 4
    z, k = points(2), torch.zeros(4, dtype=torch.long)
    quarter = Flow(field, "rk4", substeps=20).rollout(z, k, 2).z[:, -1]  # π/4 a frame
    torch.testing.assert_close(quarter, torch.stack([-z[:, 1], z[:, 0]], 1), rtol=1e-6, atol=1e-6)


# --- free fields --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", [1, 2, 4])
def test_a_free_field_is_what_its_docstring_says(latent):
    field, z = turning(latent, kind=FreeField), points(latent)
    found = field.velocity(z, TIMES, K)
    for b in range(4):
        k, phi = K[b], field._arguments(z[b : b + 1], TIMES[b : b + 1], K[b : b + 1])[1][0]
        push = sum(
            torch.tanh(w @ z[b] + v @ phi) * r
            for w, v, r in zip(field.inner[k], field.inner_time[k], field.outer[k], strict=True)
        )
        torch.testing.assert_close(found[b], push + field.matrix[k] @ z[b] + field.linear[k] @ phi)


@pytest.mark.parametrize("latent", [1, 2, 4])
@pytest.mark.parametrize("mixed", [False, True])
def test_derivatives_of_a_free_field_are_those_of_autograd(latent, mixed):
    field, z, vector = turning(latent, kind=FreeField), points(latent), points(latent, seed=1)
    k = torch.tensor([[0.3, 0.7], [1.0, 0.0], [0.5, 0.5], [0.0, 2.0]], dtype=torch.float64) if mixed else K
    expected = autograd_jacobian(field, z, TIMES, k)
    torch.testing.assert_close(field.jacobian(z, TIMES, k), expected)
    torch.testing.assert_close(field.divergence(z, TIMES, k), torch.diagonal(expected, dim1=1, dim2=2).sum(1))
    product = torch.einsum("bij,bj->bi", expected, vector)
    torch.testing.assert_close(field.jacobian_vector(z, TIMES, k, vector), product)
    if latent > 1:
        assert (expected - expected.mT).abs().amax((1, 2)).min() > 0.1  # no gradient field
        assert field.divergence(z, TIMES, k).abs().min() > 1e-3  # and not without sources


def test_a_free_field_contains_gradient_fields_and_divergence_free_fields(make_potential):
    """The three differ in nothing but the tie between the directions in and out."""
    free, potential, stirring, z = turning(kind=FreeField), make_potential(3, 2), turning(seed=1), points()
    ties = [
        (potential, potential.outer[..., None] * potential.inner, potential._symmetric()),
        (stirring, stirring._directions(), stirring._matrix()),
    ]
    for field, directions, matrix in ties:
        with torch.no_grad():
            for name, value in (("outer", directions), ("matrix", matrix)):
                getattr(free, name).copy_(value)
            for name in ("inner", "inner_time", "linear"):
                getattr(free, name).copy_(getattr(field, name))
        torch.testing.assert_close(free.velocity(z, TIMES, K), field.velocity(z, TIMES, K))
        torch.testing.assert_close(free.jacobian(z, TIMES, K), field.jacobian(z, TIMES, K))
        torch.testing.assert_close(free.divergence(z, TIMES, K), field.divergence(z, TIMES, K), atol=1e-12, rtol=1e-7)


def test_the_three_fields_begin_with_pushes_of_the_same_size():
    """‖r‖ is 0.1/√m in the mean square; √2 of that where r is a difference of two such vectors."""
    potential, free, stirring = (kind(32, 9) for kind in (Potential, FreeField, DivergenceFreeField))
    lengths = [(potential.outer[..., None] * potential.inner), free.outer, stirring._directions()]
    sizes = [directions.norm(dim=-1).square().mean().sqrt().item() for directions in lengths]
    assert sizes == pytest.approx([0.1 / 8, 0.1 / 8, 0.1 / 8 * 2**0.5], rel=0.1)


def test_every_parameter_of_a_free_field_is_trained():
    flow = Flow(FreeField(3, 2))
    path = flow.rollout(torch.randn(6, 3), torch.arange(6) % 2, 2)
    (path.z.square().sum() + path.log_det.sum()).backward()
    for name, parameter in flow.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad.flatten(1).abs().sum(1) > 0).all(), name  # of either k


@pytest.mark.parametrize("kind", [FreeField, DivergenceFreeField])
def test_fields_refuse_sizes_below_one_and_points_of_another_dimension(kind):
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        kind(3, 2, width=0)
    with pytest.raises(ValueError, match=r"z must be \(B, 3\), got \(4, 5\)"):
        turning(kind=kind).jacobian_vector(points(5), 1.0, K, points(5))


# --- potentials given as functions --------------------------------------------------------------------------------


def wave(z, t):
    return torch.sin(z[:, 0] + t) * z[:, 1] ** 2 + 0.1 * t * (z**2).sum(1)


def test_function_potential_agrees_with_derivatives_by_hand():
    potential, z = FunctionPotential(wave, 2), points(2)
    k, (x, y), t = torch.zeros(4, dtype=torch.long), points(2).T, TIMES
    sine, cosine = torch.sin(x + t), torch.cos(x + t)
    torch.testing.assert_close(potential.value(z, t, k), sine * y**2 + 0.1 * t * (x**2 + y**2))
    gradient = torch.stack([cosine * y**2 + 0.2 * t * x, 2 * sine * y + 0.2 * t * y], 1)
    torch.testing.assert_close(potential.gradient(z, t, k), gradient)
    mixed = 2 * cosine * y
    rows = torch.stack([-sine * y**2 + 0.2 * t, mixed, mixed, 2 * sine + 0.2 * t], 1).unflatten(1, (2, 2))
    torch.testing.assert_close(potential.hessian(z, t, k), rows)
    torch.testing.assert_close(potential.laplacian(z, t, k), rows[:, 0, 0] + rows[:, 1, 1])
    torch.testing.assert_close(potential.time_derivative(z, t, k), cosine * y**2 + 0.1 * (x**2 + y**2))
    vector = points(2, seed=3)
    torch.testing.assert_close(potential.hessian_vector(z, t, k, vector), torch.einsum("bij,bj->bi", rows, vector))
    torch.testing.assert_close(potential.gradient(z, t, torch.full((4, 1), 0.5, dtype=torch.float64)), gradient / 2)


def test_function_potential_is_an_oracle_for_the_closed_forms(make_potential):
    closed = make_potential(3, 1)
    k = torch.zeros(4, dtype=torch.long)
    oracle = FunctionPotential(lambda z, t: closed.value(z, t, torch.zeros(len(z), dtype=torch.long)), 3)
    z, vector = points(), points(seed=2)
    for name in ("value", "gradient", "hessian", "laplacian", "time_derivative"):
        torch.testing.assert_close(getattr(oracle, name)(z, TIMES, k), getattr(closed, name)(z, TIMES, k))
    torch.testing.assert_close(oracle.hessian_vector(z, TIMES, k, vector), closed.hessian_vector(z, TIMES, k, vector))


def test_function_potential_refuses_another_transformation_and_another_dimension():
    potential = FunctionPotential(wave, 2)
    with pytest.raises(ValueError, match=r"k must lie in 0\.\.0"):
        potential.value(points(2), 0.0, K)
    with pytest.raises(ValueError, match=r"z must be \(B, 2\), got \(4, 3\)"):
        potential.gradient(points(3), 0.0, torch.zeros(4, dtype=torch.long))


# --- gradient fields do not compose -------------------------------------------------------------------------------


def test_composition_of_two_gradient_steps_is_not_a_gradient_step(make_quadratic):
    """(I + A)(I + B) is symmetric only if A and B commute: a stretch along x after one along the diagonal turns."""
    stretch, diagonal, along = [[0.5, 0.0], [0.0, -0.3]], [[0.0, 0.4], [0.4, 0.0]], [[0.2, 0.0], [0.0, 0.6]]

    def jacobian_of(first, second):
        flow = Flow(make_quadratic([first, second]))
        start = points(2)[:1]

        def both(x):
            return flow.step(flow.step(x[None], 0.0, K[:1]), 0.0, K[1:2])[0]

        return jacrev(both)(start[0])

    turned, straight = jacobian_of(stretch, diagonal), jacobian_of(stretch, along)
    commutator = torch.tensor(diagonal) @ torch.tensor(stretch) - torch.tensor(stretch) @ torch.tensor(diagonal)
    torch.testing.assert_close(turned - turned.T, commutator.double(), rtol=1e-6, atol=1e-7)
    assert commutator.abs().max() > 0.3
    torch.testing.assert_close(straight, straight.T)


def test_commutator_of_two_gradient_fields_is_not_a_gradient_field(make_potential):
    """[∇u, ∇w] = ∇²w ∇u - ∇²u ∇w: its Jacobian is not symmetric, though those of ∇u and ∇w are."""
    potential = make_potential(2, 2, strength=0.8)
    one, other = torch.tensor([0]), torch.tensor([1])

    def bracket(x):
        u, w = potential.gradient(x[None], 1.0, one), potential.gradient(x[None], 1.0, other)
        return (potential.hessian_vector(x[None], 1.0, other, u) - potential.hessian_vector(x[None], 1.0, one, w))[0]

    def value(x, k):
        return potential.value(x[None], 1.0, k)[0]

    z = points(2)[0]
    by_autograd = hessian(value)(z, other) @ grad(value)(z, one) - hessian(value)(z, one) @ grad(value)(z, other)
    torch.testing.assert_close(bracket(z), by_autograd)
    jacobian = jacrev(bracket)(z)
    assert (jacobian - jacobian.T).abs().max() > 1e-2
