"""Latent operators: each recovers the motion it can describe, and is no better than the next where it cannot."""

from functools import partial

import pytest
import torch
from tiny import SHAPE, encoder_and_decoder, generator

from poflow_lite.datasets import TransformationSequences
from poflow_lite.metrics import equivariance_errors
from poflow_lite.models import VAE
from poflow_lite.operators import (
    OPERATORS,
    Identity,
    Linear,
    Translation,
    Traversal,
    fit_operator,
    moved_by,
    operate,
    training_latents,
)

pytestmark = pytest.mark.usefixtures("double")
K, T, LATENT = 3, 4, 4


def start_points(count=50):
    return torch.randn(K, count, LATENT, generator=generator()) + 0.5


def paths(count, move):
    """Latents (K, N, T+1, d) with z_t = move(z_0, k, t)."""
    z = start_points(count)
    return torch.stack([torch.stack([move(z[k], k, t) for t in range(T + 1)], 1) for k in range(K)])


def shifted(z, k, t):
    return z + 0.3 * (k + 1) * t * torch.arange(LATENT)


def turned(z, k, t):
    antisymmetric = torch.randn(LATENT, LATENT, generator=generator(k))
    return z @ torch.linalg.matrix_exp(0.2 * t * (antisymmetric - antisymmetric.T)).T + 0.1 * k * t


def error(operator, latents):
    found = operator(latents[:, :, 0].flatten(0, 1), torch.arange(K).repeat_interleave(latents.shape[1]))
    return (found - latents.flatten(0, 1)).square().mean().item()


def test_translation_recovers_a_shift_for_each_transformation_and_time():
    latents = paths(50, shifted)
    operator = Translation.fit(latents)
    assert error(operator, paths(7, shifted)) < 1e-20
    torch.testing.assert_close(operator.shift[2, 3], 0.9 * 3 * torch.arange(LATENT).double())
    assert error(operator, paths(50, turned)) > 0.1


def test_translation_is_the_least_squares_shift():
    latents = paths(50, turned)
    best = error(Translation.fit(latents), latents)
    nudged = Translation(Translation.fit(latents).shift + 0.01 * torch.randn(K, T + 1, LATENT, generator=generator()))
    assert best < error(nudged, latents)


def test_linear_recovers_an_affine_map_for_each_transformation_and_time():
    latents = paths(200, turned)
    operator = Linear.fit(latents, ridges=(1e-9, 1.0))
    assert operator.ridge == 1e-9
    assert error(operator, paths(9, turned)) < 1e-12
    z = start_points(5)[1]
    torch.testing.assert_close(operator(z, torch.ones(5, dtype=torch.long))[:, 2], turned(z, 1, 2), rtol=0, atol=1e-6)


def test_linear_chooses_a_strong_ridge_where_motion_is_noise_and_then_is_the_translation():
    """Few images, and z_t that have nothing to do with z_0 but their mean: regression must not believe them."""
    noise = torch.randn(K, 15, T + 1, LATENT, generator=generator())
    latents = start_points(15)[:, :, None] + noise + 2.0 * torch.arange(T + 1)[:, None]
    latents[:, :, 0] = start_points(15)
    assert Linear.fit(latents, ridges=(1e-6, 100.0)).ridge == 100.0
    rigid, shift = Linear.fit(latents, ridges=(1e9,)), Translation.fit(latents)
    torch.testing.assert_close(error(rigid, latents), error(shift, latents), rtol=1e-4, atol=0)


def test_linear_is_the_ridge_regression_of_its_definition():
    """The gradient of mean ‖A z_0 + b - z_t‖² + λ‖A - I‖² vanishes at the solution."""
    latents, ridge = paths(30, turned) + 0.1 * torch.randn(K, 30, T + 1, LATENT, generator=generator(1)), 0.3
    operator = Linear.fit(latents, ridges=(ridge,))
    matrix, offset = operator.matrix.clone().requires_grad_(), operator.offset.clone().requires_grad_()
    found = torch.einsum("ktij,knj->knti", matrix, latents[:, :, 0]) + offset[:, None]
    loss = (found - latents).square().sum(-1).mean(1).sum()
    loss = loss + ridge * (matrix - torch.eye(LATENT)).square().sum()
    for gradient in torch.autograd.grad(loss, (matrix, offset)):
        assert gradient.abs().max() < 1e-10


@pytest.fixture
def model():
    torch.manual_seed(3)
    return VAE(*encoder_and_decoder(LATENT), likelihood="gaussian")


class Shown(TransformationSequences):
    """Sequences whose frames are decoded from latents that move along one dimension each: k=0,1,2 ↦ 2,0,3."""

    model, moves = None, ((2, 2.0), (0, -3.0), (3, 0.5))

    def batch(self, indices, k, times=None, generator=None):
        batch = super().batch(indices, k, times, generator)
        start = self.model.encode(self.images[indices]).mean
        path = start[:, None].repeat(1, self.horizon + 1, 1)
        dimension, reach = self.moves[int(batch.k[0])]
        path[..., dimension] += reach * torch.arange(self.horizon + 1) / self.horizon
        batch.frames = self.model.decode(path).mean.detach()
        batch.frames[:, 0] = self.images[indices]
        return batch


def test_traversal_finds_the_dimension_and_reach_that_move(model):
    sequences = Shown(torch.rand(8, *SHAPE, generator=generator()), horizon=T)
    sequences.model = model
    operator = Traversal.fit(model, sequences)
    assert operator.dimension.tolist() == [2, 0, 3]
    assert operator.reach.tolist() == [2.0, -3.0, 0.5]
    z, k = torch.randn(2, LATENT), torch.tensor([1, 2])
    path = operator(z, k)
    torch.testing.assert_close(path[:, -1] - z, torch.tensor([[-3.0, 0, 0, 0], [0, 0, 0, 0.5]]))
    torch.testing.assert_close(path.diff(dim=1), (path[:, -1:] - path[:, :1]).expand(-1, T, -1) / T)


def test_latents_are_the_posterior_means_of_every_frame(model):
    sequences = TransformationSequences(torch.rand(5, *SHAPE, generator=generator()), horizon=T, start="random")
    latents = training_latents(model, sequences, images=4, batch_size=3)
    assert latents.shape == (3, 4, T + 1, LATENT)
    draws = torch.Generator().manual_seed(0)
    first = sequences.batch(torch.arange(3), 1, generator=draws).frames
    torch.testing.assert_close(latents[1, 2, 3], model.encode(first[2, 3][None]).mean[0])


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_predicts_whole_sequences_from_frame_zero_alone(model, name):
    sequences = TransformationSequences(torch.rand(6, *SHAPE, generator=generator()), horizon=T)
    operator = fit_operator(name, model, sequences, training_latents(model, sequences))
    predictor = partial(operate, model, operator)
    assert set(equivariance_errors({name: predictor}, sequences)[name]) == set(sequences.names)
    batch = sequences.batch(torch.arange(6), torch.arange(6) % 3)
    blind = sequences.batch(torch.arange(6), torch.arange(6) % 3)
    blind.frames[:, 1:] = 0
    assert torch.equal(predictor(batch), predictor(blind))
    torch.testing.assert_close(predictor(batch)[:, 0], model.decode(model.encode(batch.frames[:, 0]).mean).mean)


def test_identity_stays_and_an_unknown_operator_is_refused(model):
    z = torch.randn(2, LATENT)
    assert torch.equal(Identity(T)(z, torch.zeros(2)), z[:, None].expand(2, T + 1, LATENT))
    with pytest.raises(ValueError, match="unknown operator 'spline'; known: identity, traversal, translation, linear"):
        fit_operator("spline", model, None, None)


def test_log_det_of_the_linear_operator_sums_to_that_of_its_matrix():
    operator = Linear.fit(paths(200, turned), ridges=(1e-9,))
    k = torch.tensor([2, 0, 2, 1])
    found = operator.log_det(k).cumsum(1)
    expected = torch.stack([torch.linalg.slogdet(operator.matrix[i, 1:]).logabsdet for i in k])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", OPERATORS)
def test_a_model_moved_by_an_operator_carries_its_density(name):
    """log q_t against autograd: log q_0 less the log-determinant of the Jacobian of z_0 ↦ z_t."""
    model = VAE(*encoder_and_decoder(LATENT))
    training = TransformationSequences(torch.rand(20, *SHAPE, generator=generator()), horizon=T)
    moved = moved_by(model, fit_operator(name, model, training, paths(30, turned)))
    z, k = torch.randn(2, LATENT, generator=generator()), torch.tensor([2, 1])
    path = moved.transport(z, k, T)
    start = torch.tensor([0.3, -1.0])
    for b in range(2):
        for t in range(T + 1):
            jacobian = torch.autograd.functional.jacobian(
                lambda point, b=b, t=t: moved.transport(point[None], k[b : b + 1], T).z[0, t], z[b]
            )
            expected = start[b] - torch.linalg.slogdet(jacobian).logabsdet
            torch.testing.assert_close(path.log_density(start)[b, t], expected)


def test_moving_leaves_the_model_itself_alone():
    model = VAE(*encoder_and_decoder(LATENT))
    moved = moved_by(model, Translation(torch.ones(K, T + 1, LATENT)))
    z, k = torch.zeros(1, LATENT), torch.zeros(1, dtype=torch.long)
    assert moved.transport(z, k, T).z.eq(1).all()
    assert model.transport(z, k, T).z.eq(0).all()
    assert moved.decoder is model.decoder
