"""Fields made of fields: every derivative against automatic differentiation, and what each part contributes."""

import pytest
import torch
from torch.func import jacrev

from poflow_lite.fields import DivergenceFreeField
from poflow_lite.flows import Flow
from poflow_lite.mixtures import MixedFields

LATENT = 3
pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture
def field(make_potential):
    """Two gradient fields (0, 1) and three divergence-free ones (2, 3, 4), all their parameters random."""
    turning = DivergenceFreeField(LATENT, 3, width=5, horizon=4)
    with torch.no_grad():
        for parameter in turning.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape))
    return MixedFields([make_potential(LATENT, 2), turning])


def drawn(batch=4, fields=5):
    generator = torch.Generator().manual_seed(1)
    z, e = torch.randn(2, batch, LATENT, generator=generator)
    return z, e, torch.randn(batch, fields, generator=generator), torch.tensor([0.0, 1.0, 2.5, 4.0])[:batch]


def test_velocity_is_the_weighted_sum_of_the_families_own(field):
    z, _, g, t = drawn()
    potential, turning = field.families
    assert field.transformations == 5
    expected = potential.gradient(z, t, g[:, :2]) + turning.velocity(z, t, g[:, 2:])
    torch.testing.assert_close(field.velocity(z, t, g), expected)
    torch.testing.assert_close(field.velocity(z, t, -2 * g), -2 * expected)


def test_an_index_is_one_field_alone_in_the_order_of_the_families(field):
    z, _, _, t = drawn()
    potential, turning = field.families
    each = [potential.gradient(z, t, torch.full((4,), k)) for k in range(2)]
    each += [turning.velocity(z, t, torch.full((4,), k)) for k in range(3)]
    for m, expected in enumerate(each):
        torch.testing.assert_close(field.velocity(z, t, torch.full((4,), m)), expected)
    assert (torch.stack(each).flatten(1).cov().diagonal() > 1e-4).all()  # five different fields


def test_derivatives_are_those_of_automatic_differentiation(field):
    z, e, g, t = drawn()
    points = zip(z, t, g, strict=True)
    jacobian = torch.stack(
        [jacrev(lambda x, s=s, y=y: field.velocity(x[None], s, y[None])[0])(p) for p, s, y in points]
    )
    torch.testing.assert_close(field.jacobian(z, t, g), jacobian)
    torch.testing.assert_close(field.jacobian_vector(z, t, g, e), torch.einsum("bij,bj->bi", jacobian, e))
    torch.testing.assert_close(field.divergence(z, t, g), torch.diagonal(jacobian, dim1=1, dim2=2).sum(1))


def test_each_family_keeps_what_it_is_by_construction(field):
    z, _, g, t = drawn()
    curl_free, turning = g.clone(), g.clone()
    curl_free[:, 2:], turning[:, :2] = 0, 0
    symmetric = field.jacobian(z, t, curl_free)
    torch.testing.assert_close(symmetric, symmetric.mT)
    torch.testing.assert_close(field.divergence(z, t, turning), torch.zeros(4))
    assert field.divergence(z, t, curl_free).abs().min() > 1e-3
    assert (field.jacobian(z, t, turning) - field.jacobian(z, t, turning).mT).abs().amax((1, 2)).min() > 1e-2


def test_a_flow_along_it_has_the_log_determinant_of_its_map(field):
    z, _, g, _ = drawn()
    path = Flow(field, "midpoint", substeps=2).rollout(z, 0.3 * g, 2)

    def end(x, y):
        return Flow(field, "midpoint", substeps=2).rollout(x[None], 0.3 * y[None], 2).z[0, -1]

    jacobian = torch.stack([jacrev(end)(x, y) for x, y in zip(z, g, strict=True)])
    torch.testing.assert_close(path.log_det.sum(1), torch.linalg.slogdet(jacobian).logabsdet)


def test_what_does_not_fit_is_refused(field, make_potential):
    z, _, g, t = drawn()
    with pytest.raises(ValueError, match="at least one family"):
        MixedFields([])
    with pytest.raises(ValueError, match=r"one latent space, got dimensions \[3, 4\]"):
        MixedFields([make_potential(3), make_potential(4)])
    with pytest.raises(ValueError, match=r"floating-point weights, got \(4, 4\)"):
        field.velocity(z, t, g[:, :4])
    with pytest.raises(ValueError, match=r"k must lie in 0..4 for 5 transformations, got values from 5 to 5"):
        field.velocity(z, t, torch.full((4,), 5))
