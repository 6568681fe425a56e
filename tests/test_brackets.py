"""Commutators of flows against matrix commutators, finite differences and the groups of the plane."""

from functools import partial

import pytest
import torch
from tiny import generator
from torch.distributions import Independent, Normal

from poflow_lite.datasets import ROTATE, SCALE, TRANSLATE, Motion, Segment, TransformationSequences, render_motion
from poflow_lite.flows import Flow
from poflow_lite.metrics import bracket_shares, lie_bracket, order_gaps
from poflow_lite.objectives import diagonal_normal
from poflow_lite.operators import AffineSteps, follow

pytestmark = pytest.mark.usefixtures("double")


def points(count=20, latent=3):
    return torch.randn(count, latent, generator=generator())


def test_the_bracket_of_linear_fields_is_that_of_their_matrices(make_quadratic):
    a, b = (m + m.T for m in torch.randn(2, 3, 3, generator=generator(1)))
    expected = points() @ (b @ a - a @ b).T
    torch.testing.assert_close(lie_bracket(make_quadratic(torch.stack([a, b])), points(), 0.0, 0, 1), expected)


def test_the_bracket_is_what_two_orders_of_small_steps_differ_by(make_potential):
    potential, z, epsilon = make_potential(3), points(), 1e-3
    first, second = torch.eye(2)[:, None].expand(2, 20, 2)
    step = partial(Flow(potential).step, t=0.0, size=epsilon)
    difference = (step(step(z, y=first), y=second) - step(step(z, y=second), y=first)) / epsilon**2
    torch.testing.assert_close(lie_bracket(potential, z, 0.0, 0, 1), difference, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(lie_bracket(potential, z, 0.0, 1, 0), -lie_bracket(potential, z, 0.0, 0, 1))


def test_brackets_and_their_shares_are_those_of_the_fields_at_their_time(make_potential):
    potential, z, t = make_potential(3), points(), 1.5
    y = torch.eye(2)[:, None].expand(2, 20, 2)
    velocities, jacobians = ([of(z, t, own) for own in y] for of in (potential.velocity, potential.jacobian))
    along, across = (torch.einsum("bij,bj->bi", jacobians[j], velocities[1 - j]) for j in (1, 0))
    torch.testing.assert_close(lie_bracket(potential, z, t, 0, 1), along - across)
    apart, first, second = (turns.norm(dim=1).mean() for turns in (along - across, along, across))
    torch.testing.assert_close(bracket_shares(potential, z, t)[0, 1], (apart / (first + second)).detach())


def test_the_share_is_zero_for_fields_that_commute_and_one_where_nothing_cancels(make_quadratic):
    diagonal = torch.diag_embed(torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, 2.0]]))
    assert bracket_shares(make_quadratic(diagonal), points()).abs().max() < 1e-12
    z, x = torch.diag(torch.tensor([1.0, -1.0])), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    shares = bracket_shares(make_quadratic(torch.stack([z, x])), points(latent=2))  # they anticommute
    torch.testing.assert_close(shares, 1.0 - torch.eye(2))
    for unit in (1e-160, 1e-12, 1e150):  # the share has none
        torch.testing.assert_close(bracket_shares(make_quadratic(torch.stack([z, x])), unit * points(latent=2)), shares)
    assert not bracket_shares(make_quadratic(0 * torch.stack([z, x])), points(latent=2)).any()
    with pytest.raises(ValueError, match="at least 1 point is needed"):
        bracket_shares(make_quadratic(torch.stack([z, x])), points(0, 2))


class Pixels(torch.nn.Linear):
    """A model whose latents are the pixels."""

    def encode(self, x):
        return diagonal_normal(x.flatten(1), torch.ones_like(x.flatten(1)))

    def decode(self, z):
        return Independent(Normal(z.unflatten(-1, (3, 6, 6)), 1.0), 3)


def gaps_of(steps, transformations, frames, **options):
    sequences = TransformationSequences(torch.rand(4, 3, 6, 6, generator=generator()), transformations, **options)
    operator = AffineSteps(steps, torch.zeros(len(steps), 1, 108))
    carry = partial(follow, operator, names=sequences.names)
    return sequences, order_gaps(Pixels(1, 1), carry, sequences, frames=frames)


def test_the_gap_of_two_orders_is_true_where_groups_do_not_commute_and_zero_for_what_stands_still():
    _, gaps = gaps_of(torch.zeros(3, 1, 108, 108), (SCALE, ROTATE, TRANSLATE), 3)
    assert gaps.names == ("scale", "rotate", "translate")
    assert gaps.learned.abs().max() == 0
    torch.testing.assert_close(gaps.true, gaps.true.T)
    assert gaps.true[0, 1] < 1e-9 < 0.1 < min(gaps.true[0, 2], gaps.true[1, 2])
    _, turned = gaps_of(torch.zeros(2, 1, 108, 108), (SCALE, ROTATE), 3, start="random")
    assert turned.true[0, 1] < 1e-9, "both orders start from one pose"


def test_the_gap_and_the_error_of_latent_steps_are_those_of_their_matrices():
    matrices = 0.05 * torch.randn(2, 1, 108, 108, generator=generator(1))
    sequences, gaps = gaps_of(matrices, (ROTATE, TRANSLATE), 2)
    a, b = (torch.linalg.matrix_power(torch.eye(108) + m[0], 2) for m in matrices)
    there, back = (sequences.images.flatten(1) @ m.T for m in (b @ a, a @ b))
    motion = Motion((Segment(("rotate",), 2), Segment(("translate",), 2)))
    true = render_motion(sequences, torch.arange(4), motion)[:, -1].flatten(1)
    for found, apart in ((gaps.learned, there - back), (gaps.error, there - true)):
        torch.testing.assert_close(found[0, 1].double(), apart.abs().sum(1).mean(), atol=1e-4, rtol=1e-4)
