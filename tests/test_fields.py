"""Velocity fields: closed forms against automatic differentiation and written-out sums, and what each kind can be."""

import itertools
import math

import pytest
import torch
from draws import double, normal
from random_fields import FIELDS, HIDDEN, make, weights
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.func import jacrev

from poflow_lite.fields import AutogradPotential, DeepUnits, Force, MixedFields, mixing_weights, time_features

Z, E, TIMES = normal(4, 3), normal(4, 3, seed=1), double(0.0, 1.0, 2.5, 4.0)
SIZES = ({}, {"latent": 1, "transformations": 1, "frequencies": 0}, {"latent": 4, "transformations": 2})
OF_FIELDS = ("velocity", "jacobian", "jvp", "divergence")
OF_POTENTIALS = ("value", *OF_FIELDS, "time_derivative", "second_time_derivative")
ALIASES = {"velocity": "gradient", "jacobian": "hessian", "jvp": "hvp", "divergence": "laplacian"}


def methods(field):
    return OF_POTENTIALS if hasattr(field, "value") else OF_FIELDS


def call(field, method, z, t, y, e):
    return getattr(field, method)(z, t, y, *([e] if method in {"jvp", "hvp"} else []))


def by_autograd(field, z, t, y, e):
    """Every derivative of the field's value, or of its velocity where it has no value, by torch.autograd."""
    z, t = z.clone().requires_grad_(), t.clone().requires_grad_()

    def slope(x, by):
        return torch.autograd.grad(x.sum(), by, create_graph=True, materialize_grads=True)[0]

    velocity = slope(field.value(z, t, y), z) if hasattr(field, "value") else field.velocity(z, t, y)
    matrix = torch.stack([slope(column, z) for column in velocity.unbind(1)], 1)
    trace = torch.diagonal(matrix, dim1=1, dim2=2).sum(1)
    found = {"velocity": velocity, "jacobian": matrix, "jvp": (matrix @ e[..., None])[..., 0], "divergence": trace}
    if hasattr(field, "value"):
        rate = slope(field.value(z, t, y), t)
        found |= {alias: found[name] for name, alias in ALIASES.items()}
        found |= {"time_derivative": rate, "second_time_derivative": slope(rate, t)}
    return found


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("mixture", ["one-hot", "soft", "signed"])
def test_every_derivative_is_that_of_automatic_differentiation(kind, mixture):
    for sizes in SIZES:
        field = make(kind, **sizes)
        z, e, y = normal(4, field.latent), normal(4, field.latent, seed=1), weights(mixture, field.transformations)
        for method, expected in by_autograd(field, z, TIMES, y, e).items():
            assert torch.allclose(call(field, method, z, TIMES, y, e), expected), (method, sizes)


@pytest.mark.parametrize("kind", FIELDS)
def test_mixing_is_linear_and_samples_are_kept_apart(kind):
    field, y = make(kind), weights("signed", 3)
    for method in methods(field):
        found = call(field, method, Z, TIMES, y, E)
        each = [call(field, method, Z, TIMES, row.expand(4, 3), E) for row in torch.eye(3, dtype=torch.float64)]
        torch.testing.assert_close(found, torch.einsum("kb...,bk->b...", torch.stack(each), y))
        one = [call(field, method, Z[i : i + 1], TIMES[i].item(), y[i : i + 1], E[i : i + 1]) for i in range(4)]
        torch.testing.assert_close(found, torch.cat(one))
        if not (kind == "divergence-free" and method == "divergence"):
            assert (each[0] - each[1]).abs().max() > 0.01, f"{method} is the same for different k"


def samples():
    """Each point alone with its k and φ̂ of its time, for T = 4 and two frequencies."""
    for b, t in enumerate(TIMES.tolist()):
        waves = [wave(f * math.pi * t / 4) for wave in (math.sin, math.cos) for f in (1, 2)]
        yield b, b % 3, Z[b], double(1.0, t / 4, *waves)


@pytest.mark.parametrize("kind", ["potential", "1 layers", "2 layers", "3 layers"])
def test_the_value_of_a_potential_is_the_sum_in_its_docstring(kind):
    field = make(kind)
    units = getattr(field, "function", None)
    first = units.first if units else field
    deeper = list(zip(units.weight, units.time, units.outer, strict=True)) if units else []
    assert len(deeper) == (int(kind[0]) - 1 if units else 0)
    for b, k, z, phi in samples():
        h = first.inner[k] @ z + first.inner_time[k] @ phi
        total = first.outer[k] @ torch.log(2 * torch.cosh(h))
        for weight, time, outer in deeper:
            h = weight[k] @ torch.tanh(h) + time[k] @ phi
            total = total + outer[k] @ torch.log(2 * torch.cosh(h))
        total = total + 0.5 * z @ first.quadratic[k] @ z + z @ first.linear[k] @ phi + first.gauge[k] @ phi[1:]
        torch.testing.assert_close(field.value(Z, TIMES, weights("one-hot", 3))[b], total)


def test_a_free_field_is_the_sum_in_its_docstring():
    field = make("free")
    for b, k, z, phi in samples():
        units = zip(field.inner[k], field.inner_time[k], field.outer[k], strict=True)
        expected = sum(torch.tanh(w @ z + v @ phi) * r for w, v, r in units) + field.matrix[k] @ z
        found = field.velocity(Z, TIMES, weights("one-hot", 3))[b]
        torch.testing.assert_close(found, expected + field.linear[k] @ phi)


def test_a_divergence_free_field_is_the_divergence_of_an_antisymmetric_matrix():
    """v_i = Σ_j ∂_j A_ij with A = Σ log 2cosh(h) (p qᵀ - q pᵀ), by automatic differentiation of A, plus M z + C φ̂."""
    field = make("divergence-free")
    for b, k, z, phi in samples():
        wedge = torch.einsum("mi,mj->mij", field.left[k], field.right[k])

        def matrix(z, k=k, phi=phi, wedge=wedge - wedge.mT):
            h = field.inner[k] @ z + field.inner_time[k] @ phi
            return torch.einsum("m,mij->ij", torch.log(2 * torch.cosh(h)), wedge)

        turn = 0.5 * (field.rotation[k] - field.rotation[k].T)
        expected = torch.einsum("ijj->i", jacrev(matrix)(z)) + turn @ z + field.linear[k] @ phi
        torch.testing.assert_close(field.velocity(Z, TIMES, weights("one-hot", 3))[b], expected)


def test_a_mixture_numbers_the_fields_of_its_families_one_after_another():
    families = [make("potential", transformations=2), make("divergence-free", horizon=3)]
    field, y = MixedFields(families), weights("signed", 5)
    assert (field.transformations, field.horizon) == (5, 3)
    apart = [family.velocity(Z, TIMES, part) for family, part in zip(families, y.split([2, 3], 1), strict=True)]
    torch.testing.assert_close(field.velocity(Z, TIMES, y), sum(apart))


def test_one_layer_is_the_potential_and_two_are_not():
    single, y = make("potential"), weights("signed", 3)
    for depth in (1, 2):
        field = make(f"{depth} layers", seed=5)
        field.function.first.load_state_dict(single.state_dict())
        for method in OF_POTENTIALS:
            found, expected = (call(one, method, Z, TIMES, y, E) for one in (field, single))
            assert torch.allclose(found, expected) == (depth == 1), method


@pytest.mark.parametrize("kind", FIELDS)
def test_gradients_do_not_turn_divergence_free_fields_have_no_sources_and_free_fields_do_both(kind):
    field, y = make(kind), weights("signed", 3)
    matrix = field.jacobian(Z, TIMES, y)
    assert ((matrix - matrix.mT).abs().max() > 1e-2) == (kind in {"free", "divergence-free", "mixed"})
    assert (torch.diagonal(matrix, dim1=1, dim2=2).sum(1).abs().max() > 1e-12) == (kind != "divergence-free")


def test_fields_begin_with_pushes_of_one_size_and_init_scale_scales_the_inner_weights_alone():
    """‖r‖ is 0.1/√m in the mean square; √2 of that where r is a difference of two such vectors."""
    sizes = [field(32, 9)._directions().norm(dim=-1).square().mean().sqrt().item() for field in HIDDEN.values()]
    assert sizes == pytest.approx([0.1 / 8, 0.1 / 8, 0.1 / 8 * 2**0.5], rel=0.1)
    fields = [(torch.manual_seed(0), HIDDEN["potential"](3, 2, init_scale=scale))[1] for scale in (1.0, 2.5)]
    torch.testing.assert_close(fields[1].inner, 2.5 * fields[0].inner)
    torch.testing.assert_close(fields[1].outer, fields[0].outer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_2cosh_does_not_overflow_where_h_is_a_thousand(dtype):
    potential = HIDDEN["potential"](1, 1, width=1).to(dtype)
    potential.load_state_dict(
        {k: torch.full_like(v, k in {"inner", "outer"}) for k, v in potential.state_dict().items()}
    )
    for sign in (-1, 1):
        arguments = torch.tensor([[1000.0 * sign]], dtype=dtype), 0.0, torch.ones(1, 1, dtype=dtype)
        found = [getattr(potential, name)(*arguments).item() for name in ("value", "gradient", "hessian")]
        assert found == [1000, sign, 0]


@pytest.mark.parametrize("kind", [kind for kind in FIELDS if kind != "function"])
def test_every_parameter_of_every_k_is_trained_from_its_initial_value(kind):
    field, z, y = make(kind, initial=True), normal(6, 3), weights("one-hot", 3, 6)
    sum(call(field, method, z, 1.0, y, z).square().sum() for method in methods(field)).backward()
    for name, parameter in field.named_parameters():
        if not ("gauge" in name and kind == "mixed"):  # a mixture has velocities, and no value
            assert parameter.grad.isfinite().all(), name
            assert (parameter.grad.flatten(1).abs().sum(1) > 0).all(), name


@pytest.mark.parametrize("mixture", ["one-hot", "soft", "signed"])
def test_force_is_minus_the_square_of_its_mixed_outputs(mixture):
    force, y = Force(3, 3, width=8, horizon=4).double(), weights(mixture, 3)
    s = force.network(torch.cat([Z, TIMES[:, None] / 4], -1))
    torch.testing.assert_close(force(Z, TIMES, y), -((y * s).sum(-1) ** 2))
    assert (force(Z, TIMES, y) < 0).all()


def test_time_features_and_their_rates():
    t, half = double(0.0, 2.0, 3.0), math.sqrt(0.5)
    expected = double([1, 0, 0, 0, 1, 1], [1, 0.5, 1, 0, 0, -1], [1, 0.75, half, -1, -half, 0])
    torch.testing.assert_close(time_features(t, 4, 2), expected)
    for order in (1, 2):
        rate = jacrev(lambda t, n=order - 1: time_features(t, 4, 2, n))(t).diagonal(dim1=0, dim2=2).mT
        torch.testing.assert_close(time_features(t, 4, 2, order), rate)
        assert time_features(t, 8, 0, order).tolist() == [[0, 0.125 * (order == 1)]] * 3  # time itself is left


@pytest.mark.parametrize(
    ("k", "message"),
    [
        (torch.tensor([0, 3]), r"k must lie in 0\.\.2 for 3 transformations, got values from 0 to 3"),
        (torch.tensor([-1, 2]), r"k must lie in 0\.\.2 .* got values from -1 to 2"),
        (torch.tensor([0.0, 1.0]), r"\(B,\) integers or \(B, 3\) floating-point weights, got \(2,\) of torch.float32"),
        (torch.tensor([True, False]), r"\(B,\) integers .*, got \(2,\) of torch.bool"),
        (torch.eye(2), r"got \(2, 2\) of torch.float32"),
        (torch.eye(3).long(), r"got \(3, 3\) of torch.int64"),
    ],
)
def test_a_wrong_index_is_refused_with_what_came(k, message):
    with pytest.raises(ValueError, match=message):
        mixing_weights(k, 3)


def test_an_index_may_be_of_any_integer_type():
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64):
        assert torch.equal(mixing_weights(torch.tensor([2, 0], dtype=dtype), 3), torch.eye(3)[[2, 0]])


@pytest.mark.parametrize("kind", [*FIELDS, "force"])
def test_arguments_that_do_not_fit_are_refused_by_every_method(kind):
    field, y = Force(3, 3).double() if kind == "force" else make(kind), weights("soft", 3)
    wrong = [
        (normal(4, 5), 0.0, y, r"z must be \(B, 3\), got \(4, 5\)"),
        (Z[:3], 0.0, y, r"3 points need weights y \(3, 3\), got \(4, 3\) of torch.float64"),
        (Z, 0.0, torch.arange(4), r"need weights y \(4, 3\), got \(4,\) of torch.int64; make them .*mixing_weights"),
        (Z, 0.0, y.long(), r"got \(4, 3\) of torch.int64"),
        (Z, TIMES[:2], y, r"t must be a number or \(4,\), got \(2,\)"),
    ]
    if kind in HIDDEN or kind == "force":
        wrong.append((Z.long(), 0.0, y, r"got \(4, 3\) of torch.int64; points are floating-point"))
    for method, (z, t, y, message) in itertools.product(["forward"] if kind == "force" else methods(field), wrong):
        with pytest.raises(ValueError, match=message):
            call(field, method, z, t, y, z)


def test_sizes_below_one_families_on_different_spaces_and_too_few_values_are_refused():
    for name in ("latent", "transformations", "width", "horizon", "depth"):
        for kind in [DeepUnits] if name == "depth" else [*HIDDEN.values(), DeepUnits]:
            with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
                kind(**{"latent": 2, "transformations": 2, name: 0})
    with pytest.raises(ValueError, match="frequencies must be at least 0, got -1"):
        HIDDEN["potential"](2, 2, frequencies=-1)
    with pytest.raises(ValueError, match="horizon must be positive, got 0"):
        Force(2, 2, horizon=0)
    for wrong in ((8, 2, 3), (0, 2, 0), (8, -1, 0)):
        with pytest.raises(
            ValueError, match=r"time features need order 0, 1 or 2, a positive horizon and freq.* got \d"
        ):
            time_features(TIMES, *wrong)
    for latents in ([], [3, 4]):
        with pytest.raises(ValueError, match=rf"one latent space, got dimensions \{latents}"):
            MixedFields([make("free", latent) for latent in latents])
    for function in (lambda z, t: z[:, 0], lambda z, t: z[:, :2]):  # one value and two, where K = 3
        with pytest.raises(ValueError, match=r"values.*\(4, 3\)"):
            AutogradPotential(function, 3, 3).value(Z, 0.0, weights("soft", 3))


# --- Euler paths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HIDDEN)
def test_the_path_and_its_adjoint_are_those_of_one_velocity_after_another(kind):
    field, y, z = make(kind, width=4), weights("soft", 3), normal(4, 3).requires_grad_()
    y.requires_grad_()
    t, h, seen = double(0.0, 1.0, 2.5), [1.0, 0.5, 2.0], normal(4, 4, 3, seed=5)
    path = [z]
    for time, size in zip(t, h, strict=True):
        path.append(path[-1] + size * field.velocity(path[-1], time, y))
    slow, fast = torch.stack(path, 1), field.euler_path(z, t, y, h)
    torch.testing.assert_close(fast, slow)
    leaves = [z, y, *field.parameters()]
    expected, found = (grad((path * seen).sin().sum(), leaves, allow_unused=True) for path in (slow, fast))
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


def test_the_adjoint_can_be_differentiated_and_mapped_over():
    field, t, y = make("free", width=4), double(0.0, 1.0), weights("soft", 3)

    def end(z):
        return field.euler_path(z, t, y[: len(z)], [1.0, 1.0])[:, -1]

    z = normal(2, 3).requires_grad_()
    assert gradcheck(end, z)
    assert gradgradcheck(end, z)
    jacobian = jacrev(lambda point: end(point[None])[0])(z[0].detach())
    eye = torch.eye(3, dtype=z.dtype)
    points = field.euler_path(z[:1], t, y[:1], [1.0, 1.0])[0, :2]
    step = [eye + field.jacobian(p[None], time, y[:1])[0] for p, time in zip(points, t, strict=True)]
    torch.testing.assert_close(jacobian, step[1] @ step[0])
