"""Latent operators: the protocol that all of them keep, and each against closed forms and least squares."""

from dataclasses import replace

import pytest
import torch
from tiny import SHAPE, encoder_and_decoder, generator
from torch import nn
from torch.func import jacrev

from poflow_lite import operators
from poflow_lite.datasets import ClipSequences, Motion, Segment, TransformationSequences
from poflow_lite.flows import Flow, NotInvertible, Trajectory
from poflow_lite.metrics import predict
from poflow_lite.models import VAE, TopographicVAE
from poflow_lite.operators import OPERATORS, AffineMaps, AffineSteps, Sequential, fit_operators, follow

pytestmark = pytest.mark.usefixtures("double")
K, T, LATENT = 2, 4, 4
EYE = torch.eye(LATENT, dtype=torch.float64)
GROUP = 0.15 * torch.randn(K, LATENT, LATENT, generator=generator(1), dtype=torch.float64)  # these do not commute
FIRST, SECOND, BOTH, SOFT = torch.tensor([[1, 0], [0, 1], [1, 1], [0.6, -0.3]], dtype=torch.float64)[:, None]


def points(count=5, seed=0):
    return torch.randn(count, LATENT, generator=generator(seed), dtype=torch.float64)


def latents_of(step, count=60):
    """(K, N, T+1, d) with z_{t+1} = step(z_t, k, t)."""
    whole = torch.stack([points(count, seed=2)] * K)[:, :, None]
    for t in range(T):
        later = torch.stack([step(whole[k, :, -1], k, t) for k in range(K)])
        whole = torch.cat([whole, later[:, :, None]], 2)
    return whole


MOVED = latents_of(lambda z, k, t: z + z @ GROUP[k].T + 0.1 * (k + 1))
NOISY = MOVED + 0.1 * torch.randn(MOVED.shape, generator=generator(5), dtype=torch.float64)


@pytest.fixture
def model():
    return VAE(*encoder_and_decoder(LATENT), likelihood="gaussian")


MAPS, STEPS = ("identity", "translation", "traversal", "linear"), ("linear steps", "linear step")
ALL = (*MAPS, *STEPS, "sequential", "flow", "roll")


@pytest.fixture
def carrier(make_potential, make_fading, model):
    """Every operator by name, fitted to latents that a group moves."""

    def make(name):
        own = {
            "linear": lambda: AffineMaps.linear(MOVED, (1e-12,)),
            "linear steps": lambda: AffineSteps.fit(MOVED, True, (1e-12,)),
            "linear step": lambda: AffineSteps.fit(MOVED, False, (1e-12,)),
            "sequential": lambda: Sequential(make("linear step")),
            "flow": lambda: Flow(make_potential(LATENT, K, strength=0.12, horizon=T)),
            "roll": lambda: TopographicVAE(nn.Identity(), nn.Identity(), latent=2, capsules=1, neighbours=1),
        }
        training = make_fading(torch.rand(6, *SHAPE, generator=generator()), horizon=T)
        return own[name]() if name in own else OPERATORS[name](model, training, MOVED)

    return make


@pytest.mark.parametrize("name", ALL)
def test_each_sample_starts_at_z_and_moves_at_its_velocity_by_its_own_index_or_weights(carrier, name):
    operator, z, clock = carrier(name), points(), [0.0, 0.5, 1.0, 3.0]
    path = operator.rollout(z, torch.cat([FIRST, BOTH, SOFT, SECOND, FIRST]), clock)
    assert torch.equal(path.z[:, 0], z)
    assert path.times.tolist() == clock
    torch.testing.assert_close(path.velocity, path.z.diff(dim=1) / torch.tensor([0.5, 0.5, 2.0])[:, None])
    for row, y in enumerate((FIRST, BOTH, SOFT, SECOND, FIRST)):
        alone = operator.rollout(z[row : row + 1], y, clock)
        torch.testing.assert_close((path.z[row], path.log_det[row]), (alone.z[0], alone.log_det[0]))
    k = torch.tensor([0, 1, 0, 1, 1])
    by_index, by_weight = operator.rollout(z, k, range(T)), operator.rollout(z, torch.eye(K)[k], range(T))
    torch.testing.assert_close((by_index.z, by_index.log_det), (by_weight.z, by_weight.log_det))


CLOCKS = {"whole": range(T + 3), "parts": (0.0, 0.5, 2.25), "falling": range(T, -1, -1)}
DIFFERENTIABLE = [  # interpolated rolls count as volume-preserving
    (name, clock) for name in ALL for clock in CLOCKS if (name, clock) != ("roll", "parts")
]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("clock", [[0.0], [0, 0], [0, 2, 1]])
def test_a_clock_that_stands_turns_or_has_no_step_is_refused(carrier, name, clock):
    with pytest.raises(ValueError, match="times must rise or fall all along, with one step at least, got"):
        carrier(name).rollout(points(), FIRST.expand(5, K), clock)


@pytest.mark.parametrize(("name", "clock"), DIFFERENTIABLE)
def test_the_log_determinant_is_that_of_the_jacobian_of_z_0_to_z_t(carrier, name, clock):
    """By autograd, at every time, for one transformation, for both, and for weights of either sign."""
    operator, z, times = carrier(name), points(1)[0], CLOCKS[clock]
    for y in (FIRST, BOTH, SOFT):
        found = operator.rollout(z[None], y, times).log_det[0].cumsum(0)
        jacobians = jacrev(lambda point, y=y: operator.rollout(point[None], y, times).z[0])(z)
        torch.testing.assert_close(found, torch.linalg.slogdet(jacobians[1:]).logabsdet)


@pytest.mark.parametrize("name", ALL)
def test_a_falling_clock_goes_back_to_where_it_came_from(carrier, name):
    operator, z = carrier(name), points()
    there = operator.rollout(z, FIRST.expand(5, K), range(T + 1))
    back = operator.rollout(there.z[:, -1], FIRST.expand(5, K), range(T, -1, -1))
    torch.testing.assert_close(back.z, there.z.flip(1), atol=1e-7, rtol=0)
    torch.testing.assert_close(back.log_det, -there.log_det.flip(1), atol=1e-7, rtol=0)
    if name in (*MAPS, *STEPS):
        with pytest.raises(ValueError, match=r"these (maps|steps) have no way back: fit Affine"):
            replace(operator, back=None).rollout(z, FIRST.expand(5, K), (2, 1))


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
    first, second, both = (operator.rollout(z, y.expand(5, K), clock).z[:, -1] for y in (FIRST, SECOND, BOTH))
    torch.testing.assert_close(both - z, first + second - 2 * z)


def test_in_turn_is_all_of_the_first_and_then_all_of_the_second_and_back(carrier):
    alone, z, y = carrier("flow"), points(), BOTH.expand(5, K)
    path = Sequential(alone).rollout(z, y, range(T + 1))
    for t in range(1, T + 1):
        first = alone.rollout(z, FIRST.expand(5, K), range(t + 1)).z[:, -1]
        expected = alone.rollout(first, SECOND.expand(5, K), range(t + 1)).z[:, -1]
        torch.testing.assert_close(path.z[:, t], expected)
    back = Sequential(alone).rollout(path.z[:, -1], y, range(T, -1, -1)).z[:, -1]
    torch.testing.assert_close(back, z, atol=1e-7, rtol=0)


@pytest.mark.parametrize("name", MAPS)
def test_beyond_the_last_frame_maps_start_anew(carrier, name):
    operator, z, y = carrier(name), points(), BOTH.expand(5, K)
    path = operator.rollout(z, y, range(2 * T + 2)).z
    torch.testing.assert_close(path[:, T : 2 * T + 1], operator.rollout(path[:, T], y, range(T + 1)).z)
    torch.testing.assert_close(path[:, -1], operator.rollout(path[:, 2 * T], y, (0, 1)).z[:, 1])


def test_beyond_the_last_frame_the_last_step_goes_on(carrier):
    steps, y = AffineSteps(0.1 * torch.randn(K, T, LATENT, LATENT), torch.randn(K, T, LATENT)), FIRST.expand(5, K)
    flow = carrier("flow")
    last = (lambda z: z @ steps.matrix[0, -1].T + steps.offset[0, -1]), (lambda z: flow.field.velocity(z, T - 1, y))
    for operator, move in zip((steps, flow), last, strict=True):
        path = operator.rollout(points(), y, range(T + 3)).z
        for t in (T - 1, T, T + 1):
            torch.testing.assert_close(path[:, t + 1] - path[:, t], move(path[:, t]))


def least_squares(x, goal, ridge, towards):
    """A (d, d), b (d,) of least mean ‖A x + b - goal‖² + ridge ‖A - towards‖², by an augmented system."""
    scale, root = len(x) ** -0.5, ridge**0.5
    rows = torch.cat([scale * torch.cat([x, torch.ones(len(x), 1)], 1), root * torch.eye(LATENT, LATENT + 1)])
    found = torch.linalg.lstsq(rows, torch.cat([scale * goal, root * towards.T])).solution
    return found[:LATENT].T, found[LATENT]


@pytest.mark.parametrize("ridge", [1e-3, 0.3, 1e6])
def test_maps_and_steps_are_the_ridge_regressions_of_their_definitions(ridge):
    maps, shifts, zero = AffineMaps.linear(NOISY, (ridge,)), AffineMaps.translation(NOISY), torch.zeros_like(EYE)
    timed, untimed = (AffineSteps.fit(NOISY, timed, (ridge,)) for timed in (True, False))
    for k, z in enumerate(NOISY):
        for t in range(T):
            later = least_squares(z[:, 0], z[:, t + 1], ridge, EYE)
            torch.testing.assert_close((maps.matrix[k, t + 1], maps.offset[k, t + 1]), later)
            back = least_squares(z[:, T], z[:, T - t - 1], ridge, EYE)
            torch.testing.assert_close((maps.back.matrix[k, t + 1], maps.back.offset[k, t + 1]), back)
            step = least_squares(z[:, t], z[:, t + 1] - z[:, t], ridge, zero)
            torch.testing.assert_close((timed.matrix[k, t], timed.offset[k, t]), step)
            torch.testing.assert_close(shifts.offset[k, t], (z[:, t] - z[:, 0]).mean(0))
        same = least_squares(z[:, :-1].flatten(0, 1), z.diff(dim=1).flatten(0, 1), ridge, zero)
        torch.testing.assert_close((untimed.matrix[k, 0], untimed.offset[k, 0]), same)


def test_the_ridge_is_the_one_that_is_best_on_images_that_were_not_fitted():
    """Few images whose z_t has nothing to do with z_0 but its mean: regression must not believe them."""
    noise = torch.randn(K, 10, T + 1, LATENT, generator=generator()) + 2.0 * torch.arange(T + 1)[:, None]
    for fit in (AffineMaps.linear, lambda z, ridges: AffineSteps.fit(z, True, ridges)):
        for latents, best in ((noise, 1e9), (MOVED, 1e-6)):
            torch.testing.assert_close(fit(latents, (1e-6, 1e9)).matrix, fit(latents, (best,)).matrix)


def test_traversal_finds_the_dimension_and_reach_that_move(model):
    images, k, ends = torch.rand(8, *SHAPE, generator=generator()), torch.arange(8) % K, torch.zeros(K, LATENT)
    ends[0, 2], ends[1, 0] = 2.0, -3.0
    progress = torch.arange(T + 1)[:, None] / T
    path = model.encode(images).mean[:, None] + ends[k][:, None] * progress
    clips = torch.cat([images[:, None], model.decode(path[:, 1:]).mean.detach()], 1)
    operator = AffineMaps.traversal(model, ClipSequences(clips, k, ("a", "b")), MOVED)
    torch.testing.assert_close(operator.offset, ends[:, None] * progress)
    torch.testing.assert_close(operator.back.offset, -operator.offset)


def test_latents_are_the_posterior_means_of_every_frame_as_many_for_each_class(model):
    sequences = TransformationSequences(torch.rand(5, *SHAPE, generator=generator()), horizon=T, start="random")
    latents = operators.training_latents(model, sequences, images=4, batch_size=3)
    assert latents.shape == (3, 4, T + 1, LATENT)
    first = sequences.batch(torch.arange(3), 1, generator=generator()).frames
    torch.testing.assert_close(latents[1, 2, 3], model.encode(first[2, 3][None]).mean[0])
    seen = fit_operators(model, sequences, {"z": lambda model, training, latents: latents}, images=4, seed=5)["z"]
    assert torch.equal(seen, operators.training_latents(model, sequences, images=4, seed=5))
    clips = torch.rand(6, T + 1, *SHAPE, generator=generator())
    latents = operators.training_latents(model, ClipSequences(clips, [0, 1, 1, 0, 1, 1], ("a", "b")))
    expected = model.encode(clips[[0, 3, 1, 2]].flatten(0, 1)).mean.view(2, 2, T + 1, LATENT)
    torch.testing.assert_close(latents, expected)


class Ahead:
    """A user's own operator: one unit a frame along the first axis, in either direction of time."""

    def rollout(self, z, y, times):
        times = torch.as_tensor(times, dtype=z.dtype)
        path = z[:, None] + (times - times[0])[:, None] * EYE[0]
        return Trajectory(path, torch.zeros(len(z), len(times) - 1), path.diff(dim=1), y, times)


ENTRIES = {**OPERATORS, "ahead": lambda model, training, latents: Ahead()}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_model_moved_by_an_operator_predicts_from_frame_zero_alone_and_is_left_alone(make_fading, model, name):
    sequences = make_fading(torch.rand(6, *SHAPE, generator=generator()), horizon=T)
    batch = sequences.batch(torch.arange(6), torch.arange(6) % K)
    before, fitted = predict(model, batch), fit_operators(model, sequences, {name: ENTRIES[name]})
    assert list(fitted) == [name]
    operator = fitted[name]
    moved, z = operators.with_operator(model, operator), model.encode(batch.frames[:, 0]).mean
    expected = model.decode(operator.rollout(z, batch.k, range(T + 1)).z).mean
    torch.testing.assert_close(predict(moved, batch), expected)
    blind = replace(batch, frames=torch.cat([batch.frames[:, :1], torch.zeros(6, T, *SHAPE)], 1))
    assert torch.equal(predict(moved, batch), predict(moved, blind))
    assert torch.equal(predict(model, batch), before)
    assert all(a is b for a, b in zip(moved.parameters(), model.parameters(), strict=True))


MOTION = Motion((Segment(("a",), 2), Segment(("b",), 1), Segment(("a", "b"), 2, speed=0.5)))


def test_a_motion_is_followed_segment_by_segment_and_back():
    inverse, zero = torch.linalg.inv(EYE + GROUP) - EYE, torch.zeros(K, 1, LATENT)
    operator = AffineSteps(GROUP[:, None], zero, AffineSteps(inverse[:, None], zero))
    (a, b), (back_a, back_b) = GROUP, inverse
    there = a, a, b, 0.5 * (a + b), 0.5 * (a + b)
    back = 0.5 * (back_a + back_b), 0.5 * (back_a + back_b), back_b, back_a, back_a
    for motion, steps in ((MOTION, there), (replace(MOTION, backwards=True), back)):
        expected = [points()]
        for step in steps:
            expected.append(expected[-1] + expected[-1] @ step.T)
        torch.testing.assert_close(follow(operator, points(), motion, ("a", "b")), torch.stack(expected, 1))


def test_a_flow_retraces_a_motion_unless_it_folds_space(carrier, make_quadratic):
    there = follow(carrier("flow"), points(), MOTION, ("a", "b"))
    back = follow(carrier("flow"), there[:, -1], replace(MOTION, backwards=True), ("a", "b"))
    torch.testing.assert_close(back, there.flip(1), atol=1e-7, rtol=0)
    folds = Flow(make_quadratic(torch.diag(torch.tensor([-3.0, 0, 0, 0])).expand(K, -1, -1)))
    with pytest.raises(NotInvertible, match="cannot be undone at 5 of 5 points"):
        follow(folds, points(), replace(MOTION, backwards=True), ("a", "b"))
    with pytest.raises(ValueError, match="unknown transformation 'a'; known: b, c"):
        follow(folds, points(), MOTION, ("b", "c"))
