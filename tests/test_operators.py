"""Latent operators: the protocol that all of them keep, and each against closed forms and least squares."""

from dataclasses import replace

import pytest
import torch
from tiny import SHAPE, encoder_and_decoder, generator
from torch import nn
from torch.func import jacrev

from poflow_lite.datasets import ClipSequences, Motion, Segment, TransformationSequences
from poflow_lite.flows import Flow, NotInvertible, Trajectory
from poflow_lite.metrics import equivariance_errors, predict
from poflow_lite.models import VAE, TopographicVAE
from poflow_lite.operators import (
    OPERATORS,
    AffineMaps,
    AffineSteps,
    Sequential,
    fit_operators,
    follow,
    training_latents,
    with_operator,
)

pytestmark = pytest.mark.usefixtures("double")
K, T, LATENT = 2, 4, 4
ONE, BOTH, SOFT = (torch.tensor([y], dtype=torch.float64) for y in ([1, 0], [1, 1], [0.6, -0.3]))
EYE = torch.eye(LATENT, dtype=torch.float64)


def points(count=5, seed=0):
    return torch.randn(count, LATENT, generator=generator(seed))


def group():
    """A matrix for each of two transformations, which do not commute."""
    return 0.15 * torch.randn(K, LATENT, LATENT, generator=generator(1))


def latents_of(step, count=60):
    """(K, N, T+1, d) with z_{t+1} = step(z_t, k, t)."""
    whole = []
    for k in range(K):
        path = [points(count, seed=2)]
        for t in range(T):
            path.append(step(path[-1], k, t))
        whole.append(torch.stack(path, 1))
    return torch.stack(whole)


def group_latents():
    return latents_of(lambda z, k, t: z + z @ group()[k].T + 0.1 * (k + 1))


def accelerated():
    return latents_of(lambda z, k, t: z + 0.3 * t * (k + 1))


def noisy_latents():
    return group_latents() + 0.1 * torch.randn(K, 60, T + 1, LATENT, generator=generator(5))


@pytest.fixture
def model():
    return VAE(*encoder_and_decoder(LATENT), likelihood="gaussian")


EXACT = (1e-12,)
MAPS, STEPS = ("identity", "translation", "traversal", "linear"), ("linear steps", "linear step")
ALL = (*MAPS, *STEPS, "sequential", "flow", "roll")


@pytest.fixture
def carrier(make_potential, make_fading, model):
    """Every operator by name, fitted to latents that a group moves."""

    def make(name):
        training = make_fading(torch.rand(6, *SHAPE, generator=generator()), horizon=T)
        own = {
            "linear": lambda: AffineMaps.linear(group_latents(), EXACT),
            "linear steps": lambda: AffineSteps.fit(group_latents(), True, EXACT),
            "linear step": lambda: AffineSteps.fit(group_latents(), False, EXACT),
            "sequential": lambda: Sequential(AffineSteps.fit(group_latents(), False, EXACT)),
            "flow": lambda: Flow(make_potential(LATENT, K, strength=0.12, horizon=T)),
            "roll": lambda: TopographicVAE(nn.Identity(), nn.Identity(), latent=2, capsules=1, neighbours=1),
        }
        return own[name]() if name in own else OPERATORS[name](model, training, group_latents())

    return make


# --- the protocol -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_trajectory_starts_at_z_and_moves_at_its_velocity(carrier, name):
    z, clock = points(), [0.0, 0.5, 1.0, 3.0]
    path = carrier(name).rollout(z, BOTH.expand(5, K), clock)
    assert torch.equal(path.z[:, 0], z)
    assert path.log_det.shape == (5, 3)
    torch.testing.assert_close(path.velocity, path.z.diff(dim=1) / torch.tensor([0.5, 0.5, 2.0])[:, None])
    assert path.times.tolist() == clock


@pytest.mark.parametrize("name", ALL)
def test_an_index_is_the_one_hot_weight_and_each_sample_is_moved_by_its_own(carrier, name):
    operator, z = carrier(name), points()
    by_index = operator.rollout(z, torch.tensor([0, 1, 0, 1, 1]), range(T + 1))
    by_weight = operator.rollout(z, torch.eye(K)[[0, 1, 0, 1, 1]], range(T + 1))
    torch.testing.assert_close(by_index.z, by_weight.z)
    torch.testing.assert_close(by_index.log_det, by_weight.log_det)
    weights = torch.cat([ONE, BOTH, SOFT, ONE.flip(1), ONE])
    together = operator.rollout(z, weights, range(T + 1)).z
    for row in range(5):
        alone = operator.rollout(z[row : row + 1], weights[row : row + 1], range(T + 1)).z
        torch.testing.assert_close(together[row : row + 1], alone)


CLOCKS = {"whole": range(T + 3), "parts": (0.0, 0.5, 2.25), "falling": range(T, -1, -1)}
DIFFERENTIABLE = [  # interpolated rolls count as volume-preserving; Newton's method is not differentiated
    (name, clock) for name in ALL for clock in CLOCKS if (name, clock) not in (("roll", "parts"), ("flow", "falling"))
]


@pytest.mark.parametrize(("name", "clock"), DIFFERENTIABLE)
def test_the_log_determinant_is_that_of_the_jacobian_of_z_0_to_z_t(carrier, name, clock):
    """By autograd, at every time, for one transformation, for both, and for weights of either sign."""
    operator, z, times = carrier(name), points(1)[0], CLOCKS[clock]
    for y in (ONE, BOTH, SOFT):
        found = operator.rollout(z[None], y, times).log_det[0].cumsum(0)
        jacobians = jacrev(lambda point, y=y: operator.rollout(point[None], y, times).z[0])(z)
        torch.testing.assert_close(found, torch.linalg.slogdet(jacobians[1:]).logabsdet)


@pytest.mark.parametrize("name", ALL)
def test_a_falling_clock_goes_back_to_where_it_came_from(carrier, name):
    operator, z = carrier(name), points()
    there = operator.rollout(z, ONE.expand(5, K), range(T + 1))
    back = operator.rollout(there.z[:, -1], ONE.expand(5, K), range(T, -1, -1))
    torch.testing.assert_close(back.z, there.z.flip(1), atol=1e-7, rtol=0)
    torch.testing.assert_close(back.log_det, -there.log_det.flip(1), atol=1e-7, rtol=0)


@pytest.mark.parametrize("name", [*MAPS, *STEPS, "flow", "roll"])
def test_half_a_frame_is_half_way(carrier, name):
    """Between any two frames for what is interpolated; by half the velocity for what goes in steps."""
    operator, z, y = carrier(name), points(), BOTH.expand(5, K)
    before = 0 if name in (*STEPS, "flow") else 2
    whole, half = operator.rollout(z, y, range(T + 1)).z, operator.rollout(z, y, (0, before + 0.5)).z[:, 1]
    torch.testing.assert_close(half, (whole[:, before] + whole[:, before + 1]) / 2)


@pytest.mark.parametrize("name", [*MAPS, *STEPS, "flow"])
def test_displacements_of_maps_and_velocities_of_steps_add_up(carrier, name):
    operator, z, clock = carrier(name), points(), range(T) if name in MAPS else (0, 1)
    first, second, both = (operator.rollout(z, y.expand(5, K), clock).z[:, -1] for y in (ONE, ONE.flip(1), BOTH))
    torch.testing.assert_close(both - z, first + second - 2 * z)


def test_in_turn_is_all_of_the_first_and_then_all_of_the_second_and_back(carrier):
    alone, z, y = carrier("flow"), points(), BOTH.expand(5, K)
    path = Sequential(alone).rollout(z, y, range(T + 1))
    for t in range(1, T + 1):
        first = alone.rollout(z, ONE.expand(5, K), range(t + 1)).z[:, -1]
        expected = alone.rollout(first, ONE.flip(1).expand(5, K), range(t + 1)).z[:, -1]
        torch.testing.assert_close(path.z[:, t], expected)
    assert (path.z - alone.rollout(z, y, range(T + 1)).z).abs().max() > 1e-3
    back = Sequential(alone).rollout(path.z[:, -1], y, range(T, -1, -1)).z[:, -1]
    torch.testing.assert_close(back, z, atol=1e-7, rtol=0)


@pytest.mark.parametrize("name", MAPS)
def test_beyond_the_last_frame_maps_start_anew(carrier, name):
    operator, z, y = carrier(name), points(), BOTH.expand(5, K)
    path = operator.rollout(z, y, range(2 * T + 2)).z
    torch.testing.assert_close(path[:, T : 2 * T + 1], operator.rollout(path[:, T], y, range(T + 1)).z)
    torch.testing.assert_close(path[:, -1], operator.rollout(path[:, 2 * T], y, (0, 1)).z[:, 1])


def test_beyond_the_last_frame_the_last_step_goes_on(carrier):
    steps, z, y = AffineSteps(0.1 * torch.randn(K, T, LATENT, LATENT), torch.randn(K, T, LATENT)), points(), ONE
    flow = carrier("flow")
    last = {steps: lambda z: z @ steps.matrix[0, -1].T + steps.offset[0, -1],
            flow: lambda z: flow.field.velocity(z, T - 1, y.expand(5, K))}  # fmt: skip
    for operator, move in last.items():
        path = operator.rollout(z, y.expand(5, K), range(T + 3)).z
        for t in (T - 1, T, T + 1):
            torch.testing.assert_close(path[:, t + 1] - path[:, t], move(path[:, t]))


def test_what_cannot_be_carried_is_refused():
    maps, steps = AffineMaps.identity(group_latents()), AffineSteps(group()[:, None], torch.zeros(K, 1, LATENT))
    for operator, y, clock, message in [
        (replace(maps, back=None), ONE, (2, 1), "these maps have no way back"),
        (steps, ONE, (2, 1), "these steps have no way back"),
        (maps, torch.ones(1, 3), (0, 1), r"floating-point weights, got \(1, 3\)"),
        (steps, torch.tensor([2]), (0, 1), r"k must lie in 0\.\.1"),
    ]:
        with pytest.raises(ValueError, match=message):
            operator.rollout(points(1), y, clock)


# --- fits ---------------------------------------------------------------------------------------------------------


def least_squares(x, goal, ridge, towards):
    """A (d, d), b (d,) of least mean ‖A x + b - goal‖² + ridge ‖A - towards‖², by an augmented system."""
    scale, root = len(x) ** -0.5, ridge**0.5
    rows = torch.cat([scale * torch.cat([x, torch.ones(len(x), 1)], 1), root * torch.eye(LATENT, LATENT + 1)])
    found = torch.linalg.lstsq(rows, torch.cat([scale * goal, root * towards.T])).solution
    return found[:LATENT].T, found[LATENT]


@pytest.mark.parametrize("ridge", [1e-3, 0.3, 1e6])
def test_maps_and_steps_are_the_ridge_regressions_of_their_definitions(ridge):
    latents = noisy_latents()
    maps, zero = AffineMaps.linear(latents, (ridge,)), torch.zeros(LATENT, LATENT)
    timed, untimed = (AffineSteps.fit(latents, timed, (ridge,)) for timed in (True, False))
    for k, z in enumerate(latents):
        for t in range(T):
            later = least_squares(z[:, 0], z[:, t + 1], ridge, EYE)
            torch.testing.assert_close((maps.matrix[k, t + 1], maps.offset[k, t + 1]), later)
            back = least_squares(z[:, T], z[:, T - t - 1], ridge, EYE)
            torch.testing.assert_close((maps.back.matrix[k, t + 1], maps.back.offset[k, t + 1]), back)
            step = least_squares(z[:, t], z[:, t + 1] - z[:, t], ridge, zero)
            torch.testing.assert_close((timed.matrix[k, t], timed.offset[k, t]), step)
        same = least_squares(z[:, :-1].flatten(0, 1), z.diff(dim=1).flatten(0, 1), ridge, zero)
        torch.testing.assert_close((untimed.matrix[k, 0], untimed.offset[k, 0]), same)


def test_translation_is_the_mean_displacement_and_identity_is_none():
    latents = noisy_latents()
    found = AffineMaps.translation(latents)
    torch.testing.assert_close(found.offset[1, 3], (latents[1, :, 3] - latents[1, :, 0]).mean(0))
    torch.testing.assert_close(found.matrix, EYE.expand(K, T + 1, -1, -1))
    assert not AffineMaps.identity(latents).offset.any()


def test_the_ridge_is_the_one_that_is_best_on_images_that_were_not_fitted():
    """Few images whose z_t has nothing to do with z_0 but its mean: regression must not believe them."""
    noise = torch.randn(K, 10, T + 1, LATENT, generator=generator()) + 2.0 * torch.arange(T + 1)[:, None]
    candidates = (1e-6, 1e9)
    for fit in (lambda z, r: AffineMaps.linear(z, r), lambda z, r: AffineSteps.fit(z, True, r)):
        torch.testing.assert_close(fit(noise, candidates).matrix, fit(noise, candidates[1:]).matrix)
        torch.testing.assert_close(fit(group_latents(), candidates).matrix, fit(group_latents(), candidates[:1]).matrix)


def test_only_timed_steps_follow_a_motion_that_depends_on_the_clock():
    latents, errors = accelerated(), {}
    for timed in (True, False):
        path = AffineSteps.fit(latents, timed, (1e-9,)).rollout(latents[0, :, 0], ONE.expand(60, K), range(T + 1)).z
        errors[timed] = (path - latents[0]).abs().max().item()
    assert errors[True] < 1e-5 < 0.2 < errors[False]


class Shown(TransformationSequences):
    """Sequences whose frames are decoded from latents that move along one dimension each: k = 0, 1, 2 ↦ 2, 0, 3."""

    model, moves = None, ((2, 2.0), (0, -3.0), (3, 0.5))

    def frames(self, indices, k, times, generator):
        path = self.model.encode(self.images[indices]).mean[:, None].repeat(1, self.horizon + 1, 1)
        dimension, reach = self.moves[int(k[0])]
        path[..., dimension] += reach * torch.arange(self.horizon + 1) / self.horizon
        shown = self.model.decode(path).mean.detach()
        shown[:, 0] = self.images[indices]
        return shown


def test_traversal_finds_the_dimension_and_reach_that_move(model):
    sequences = Shown(torch.rand(8, *SHAPE, generator=generator()), horizon=T)
    sequences.model = model
    operator = AffineMaps.traversal(model, sequences, torch.zeros(3, 1, T + 1, LATENT))
    expected = torch.tensor([[0, 0, 2.0, 0], [-3.0, 0, 0, 0], [0, 0, 0, 0.5]])
    for t in range(T + 1):
        torch.testing.assert_close(operator.offset[:, t], expected * t / T)
    torch.testing.assert_close(operator.back.offset, -operator.offset)


def test_latents_are_the_posterior_means_of_every_frame(model):
    sequences = TransformationSequences(torch.rand(5, *SHAPE, generator=generator()), horizon=T, start="random")
    latents = training_latents(model, sequences, images=4, batch_size=3)
    assert latents.shape == (3, 4, T + 1, LATENT)
    first = sequences.batch(torch.arange(3), 1, generator=generator()).frames
    torch.testing.assert_close(latents[1, 2, 3], model.encode(first[2, 3][None]).mean[0])


def test_latents_of_clips_are_as_many_for_each_class_as_the_smallest_has(model):
    clips = torch.rand(6, T + 1, *SHAPE, generator=generator())
    latents = training_latents(model, ClipSequences(clips, [0, 1, 1, 0, 1, 1], ("a", "b")))
    assert latents.shape == (2, 2, T + 1, LATENT)
    torch.testing.assert_close(latents[1], model.encode(clips[[1, 2]].flatten(0, 1)).mean.unflatten(0, (2, T + 1)))


# --- operators of a model -----------------------------------------------------------------------------------------


class Ahead:
    """A user's own operator: one unit a frame along the first axis, in either direction of time."""

    def rollout(self, z, y, times):
        times = torch.as_tensor(times, dtype=z.dtype)
        path = z[:, None] + (times - times[0])[:, None] * EYE[0]
        return Trajectory(path, torch.zeros(len(z), len(times) - 1), path.diff(dim=1), y, times)


def test_a_model_gets_all_operators_its_own_motion_and_those_of_the_user(make_fading, model, make_potential):
    training = make_fading(torch.rand(12, *SHAPE, generator=generator()), horizon=2)
    found = fit_operators(model, training)
    assert list(found) == ["identity", "traversal", "translation", "linear", "linear steps", "linear step"]
    latents = training_latents(model, training)[0]  # "halve"
    for name in ("linear", "linear steps"):
        path = found[name].rollout(latents[:, 0], torch.zeros(12, dtype=torch.long), range(3)).z
        assert (path - latents).square().mean() < 0.2 * (latents[:, :1] - latents).square().mean(), name
    topographic = TopographicVAE(encoder_and_decoder(2 * LATENT)[0], encoder_and_decoder(LATENT)[1], LATENT, 1)
    own = fit_operators(topographic, training, {"ahead": lambda model, training, latents: Ahead()})
    assert list(own) == ["ahead", "roll"]
    assert own["roll"] is topographic


@pytest.mark.parametrize("name", [*OPERATORS, "ahead"])
def test_a_model_moved_by_an_operator_predicts_from_frame_zero_alone(make_fading, model, name):
    sequences = make_fading(torch.rand(6, *SHAPE, generator=generator()), horizon=T)
    entries = {**OPERATORS, "ahead": lambda model, training, latents: Ahead()}
    moved = with_operator(model, fit_operators(model, sequences, {name: entries[name]})[name])
    batch = sequences.batch(torch.arange(6), torch.arange(6) % K)
    blind = replace(batch, frames=torch.cat([batch.frames[:, :1], torch.zeros(6, T, *SHAPE)], 1))
    assert torch.equal(predict(moved, batch), predict(moved, blind))
    errors = equivariance_errors({name: lambda batch: predict(moved, batch)}, sequences)
    assert set(errors[name]) == set(sequences.names)


def test_moving_leaves_the_model_itself_alone(model):
    z, k = torch.zeros(1, LATENT), torch.zeros(1, dtype=torch.long)
    moved = with_operator(model, Ahead())
    assert moved.rollout(z, k, range(T + 1)).z[0, -1].tolist() == [T, 0, 0, 0]
    assert model.rollout(z, k, range(T + 1)).z.eq(0).all()
    assert all(a is b for a, b in zip(moved.parameters(), model.parameters(), strict=True))


# --- motions ------------------------------------------------------------------------------------------------------

MOTION = Motion((Segment(("a",), 2), Segment(("b",), 1), Segment(("a", "b"), 2, speed=0.5)))


def test_a_motion_is_followed_segment_by_segment_and_back():
    a, b = group()
    inverse = torch.linalg.inv(EYE + group()) - EYE
    back = AffineSteps(inverse[:, None], torch.zeros(K, 1, LATENT))
    operator, z = AffineSteps(group()[:, None], torch.zeros(K, 1, LATENT), back), points()
    expected = [z]
    for step in (a, a, b, 0.5 * (a + b), 0.5 * (a + b)):
        expected.append(expected[-1] + expected[-1] @ step.T)
    torch.testing.assert_close(follow(operator, z, MOTION, ("a", "b")), torch.stack(expected, 1))
    returned = [z]
    for step in (0.5 * inverse.sum(0), 0.5 * inverse.sum(0), inverse[1], inverse[0], inverse[0]):
        returned.append(returned[-1] + returned[-1] @ step.T)
    backwards = replace(MOTION, backwards=True)
    torch.testing.assert_close(follow(operator, z, backwards, ("a", "b")), torch.stack(returned, 1))


def test_a_flow_retraces_a_motion_of_several_segments(make_potential):
    flow, z = Flow(make_potential(LATENT, K, strength=0.12, horizon=T)), points()
    there = follow(flow, z, MOTION, ("a", "b"))
    assert there.shape == (5, 6, LATENT)
    back = follow(flow, there[:, -1], replace(MOTION, backwards=True), ("a", "b"))
    torch.testing.assert_close(back, there.flip(1), atol=1e-7, rtol=0)


def test_motions_that_cannot_be_followed_are_refused(make_quadratic):
    folds = Flow(make_quadratic(torch.diag(torch.tensor([-3.0, 0, 0, 0])).expand(K, -1, -1)))
    with pytest.raises(NotInvertible, match="cannot be undone at 5 of 5 points"):
        follow(folds, points(), replace(MOTION, backwards=True), ("a", "b"))
    with pytest.raises(ValueError, match="unknown transformation 'a'; known: b, c"):
        follow(folds, points(), MOTION, ("b", "c"))
