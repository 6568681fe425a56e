"""Commutators of flows against matrix commutators, finite differences and the groups of the plane."""

import pytest
import torch
from tiny import generator

from poflow_lite.commutators import bracket_shares, lie_bracket, order_gaps
from poflow_lite.datasets import ROTATE, SCALE, TransformationSequences
from poflow_lite.datasets.transformations import TRANSLATE
from poflow_lite.flows import PotentialFlow
from poflow_lite.models import VAE
from poflow_lite.movers import StepMover

pytestmark = pytest.mark.usefixtures("double")


def points(count=20, latent=3):
    return torch.randn(count, latent, generator=generator())


def test_the_bracket_of_linear_fields_is_that_of_their_matrices(make_quadratic):
    a, b = (m + m.T for m in torch.randn(2, 3, 3, generator=generator(1)))
    z = points()
    expected = z @ (b @ a - a @ b).T
    torch.testing.assert_close(lie_bracket(make_quadratic(torch.stack([a, b])), z, 0.0, 0, 1), expected)


def test_the_bracket_is_what_two_orders_of_small_steps_differ_by(make_potential):
    potential, z, epsilon = make_potential(3), points(), 1e-3
    flow = PotentialFlow(potential)

    def step(x, k):
        weights = torch.zeros(len(x), 2)
        weights[:, k] = epsilon
        return flow.step(x, 0.0, weights)

    difference = (step(step(z, 0), 1) - step(step(z, 1), 0)) / epsilon**2
    torch.testing.assert_close(lie_bracket(potential, z, 0.0, 0, 1), difference, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(lie_bracket(potential, z, 0.0, 1, 0), -lie_bracket(potential, z, 0.0, 0, 1))


def test_the_share_is_zero_for_fields_that_commute_and_one_where_nothing_cancels(make_quadratic):
    diagonal = torch.diag_embed(torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, 2.0]]))
    assert bracket_shares(make_quadratic(diagonal), points()).abs().max() < 1e-12
    z, x = torch.diag(torch.tensor([1.0, -1.0])), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    shares = bracket_shares(make_quadratic(torch.stack([z, x])), points(latent=2))  # they anticommute
    torch.testing.assert_close(shares, 1.0 - torch.eye(2))


class _Pixels(VAE):
    """An autoencoder whose latents are the pixels."""

    def __init__(self):
        super().__init__(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))

    def encode(self, x):
        from poflow_lite.objectives import diagonal_normal

        return diagonal_normal(x.flatten(1), torch.ones_like(x.flatten(1)))

    def decode(self, z):
        from torch.distributions import Independent, Normal

        return Independent(Normal(z.unflatten(-1, (3, 6, 6)), 1.0), 3)


def test_the_gap_between_two_orders_is_true_where_groups_do_not_commute_and_zero_for_a_mover_that_stands_still():
    images = torch.rand(4, 3, 6, 6, generator=generator())
    sequences = TransformationSequences(images, (SCALE, ROTATE, TRANSLATE))
    still = StepMover(torch.zeros(3, 1, 108, 108), torch.zeros(3, 1, 108))
    gaps = order_gaps(_Pixels(), (still, still), sequences, frames=3)
    assert gaps.names == ("scale", "rotate", "translate")
    assert gaps.learned.abs().max() == 0
    torch.testing.assert_close(gaps.true, gaps.true.T)
    assert gaps.true[0, 1] < 1e-9 < 0.1 < min(gaps.true[0, 2], gaps.true[1, 2])
    assert gaps.error[0, 1] > 0.1


def test_the_gap_of_latent_steps_is_that_of_their_matrices():
    images = torch.rand(4, 3, 6, 6, generator=generator())
    matrices = 0.05 * torch.randn(2, 1, 108, 108, generator=generator(1))
    mover = StepMover(matrices, torch.zeros(2, 1, 108))
    gaps = order_gaps(_Pixels(), (mover, mover), TransformationSequences(images, (ROTATE, TRANSLATE)), frames=1)
    a, b = (torch.eye(108) + m[0] for m in matrices)
    expected = (images.flatten(1) @ (b @ a - a @ b).T).abs().sum(1).mean()
    torch.testing.assert_close(gaps.learned[0, 1].double(), expected, atol=1e-4, rtol=1e-4)
