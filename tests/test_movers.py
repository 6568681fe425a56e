"""Movers: one step at a time, mixed, slowed down, beyond the horizon and back, against closed forms."""

import pytest
import torch
from tiny import encoder_and_decoder, generator

from poflow_lite.datasets import Motion, Phase
from poflow_lite.flows import PotentialFlow
from poflow_lite.models import VAE, TopographicVAE
from poflow_lite.movers import FlowMover, StepMover, Successive, TableMover, fit_movers, follow
from poflow_lite.operators import Linear, Translation, training_latents

pytestmark = pytest.mark.usefixtures("double")
T, LATENT = 4, 3
FRAMES = torch.arange(T + 1).double()
ONE, BOTH = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([1.0, 1.0], dtype=torch.float64)


def points(count=40, seed=0):
    return torch.randn(count, LATENT, generator=generator(seed))


def steps_of_a_group(strength=0.2):
    """A matrix for each of two transformations, which do not commute."""
    return strength * torch.randn(2, LATENT, LATENT, generator=generator(1))


def latents_of(step, count=60):
    """(K, N, T+1, d) with z_{t+1} = step(z_t, k, t)."""
    whole = []
    for k in range(2):
        path = [points(count, seed=2)]
        for t in range(T):
            path.append(step(path[-1], k, t))
        whole.append(torch.stack(path, 1))
    return torch.stack(whole)


def group_latents():
    matrices = steps_of_a_group()
    return latents_of(lambda z, k, t: z + z @ matrices[k].T + 0.1 * (k + 1))


# --- flows --------------------------------------------------------------------------------------------------------


def test_a_flow_is_traced_as_it_rolls_out(make_potential):
    flow = PotentialFlow(make_potential(LATENT))
    path = flow.rollout(points(), torch.zeros(40, dtype=torch.long), T).z
    torch.testing.assert_close(FlowMover(flow, T).trace(points(), ONE, FRAMES), path)


def test_half_a_tick_is_half_the_velocity_and_weights_add_velocities(make_potential):
    potential = make_potential(LATENT)
    z, mover = points(), FlowMover(PotentialFlow(potential), T)
    velocities = [potential.gradient(z, 0.0, torch.full((40,), k)) for k in range(2)]
    slow = mover.trace(z, BOTH, torch.tensor([0.0, 0.5]))[:, 1]
    torch.testing.assert_close(slow, z + 0.5 * (velocities[0] + velocities[1]))


def test_the_clock_of_a_flow_stops_at_its_last_step(make_potential):
    potential = make_potential(LATENT)
    mover = FlowMover(PotentialFlow(potential), T)
    path = mover.trace(points(), ONE, torch.arange(T + 3).double())
    last = potential.gradient(path[:, T + 1], float(T - 1), torch.zeros(40, dtype=torch.long))
    torch.testing.assert_close(path[:, T + 2] - path[:, T + 1], last)


def test_a_flow_retraces_its_steps(make_potential):
    mover = FlowMover(PotentialFlow(make_potential(LATENT, strength=0.15)), T)
    path = mover.trace(points(), BOTH, FRAMES)
    torch.testing.assert_close(mover.retrace(path[:, -1], BOTH, FRAMES), path, atol=1e-7, rtol=0)


# --- tables -------------------------------------------------------------------------------------------------------


def test_a_table_does_what_its_operator_does():
    operator = Linear.fit(group_latents())
    table = TableMover.of(operator, LATENT, 2)
    for k in range(2):
        weights = torch.eye(2, dtype=torch.float64)[k]
        expected = operator(points(), torch.full((40,), k))
        torch.testing.assert_close(table.trace(points(), weights, FRAMES), expected)


def test_a_table_interpolates_between_frames_and_starts_anew_beyond_the_last():
    table = TableMover.of(Linear.fit(group_latents()), LATENT, 2)
    z = points()
    whole = table.trace(z, ONE, FRAMES)
    half = table.trace(z, ONE, torch.tensor([0.0, 2.5]))[:, 1]
    torch.testing.assert_close(half, (whole[:, 2] + whole[:, 3]) / 2)
    beyond = table.trace(z, ONE, torch.tensor([0.0, T + 3.0]))[:, 1]
    torch.testing.assert_close(beyond, table.trace(whole[:, T], ONE, FRAMES)[:, 3])


def test_displacements_of_a_table_add_up():
    shift = torch.randn(2, T + 1, LATENT, generator=generator())
    shift[:, 0] = 0
    table = TableMover.of(Translation(shift), LATENT, 2)
    torch.testing.assert_close(table.trace(points(), BOTH, FRAMES), points()[:, None] + shift.sum(0))


# --- steps --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timed", [True, False])
def test_steps_recover_a_linear_group_and_go_on_with_it(timed):
    latents, matrices = group_latents(), steps_of_a_group()
    mover = StepMover.fit(latents, timed, ridges=(1e-12,))
    z = points(7, seed=9)
    path = mover.trace(z, ONE, torch.arange(T + 3).double())
    for t in range(T + 2):
        torch.testing.assert_close(path[:, t + 1], path[:, t] + path[:, t] @ matrices[0].T + 0.1, atol=1e-6, rtol=0)


def test_only_timed_steps_follow_a_motion_that_depends_on_the_clock():
    latents = latents_of(lambda z, k, t: z + 0.3 * t * (k + 1))
    errors = {}
    for timed in (True, False):
        trace = StepMover.fit(latents, timed, ridges=(1e-9,)).trace(latents[0, :, 0], ONE, FRAMES)
        errors[timed] = (trace - latents[0]).abs().max().item()
    assert errors[True] < 1e-5 < 0.2 < errors[False]


def test_a_heavy_ridge_leaves_the_mean_step():
    latents = group_latents()
    mover = StepMover.fit(latents, timed=False, ridges=(1e9,))
    assert mover.matrix.abs().max() < 1e-6
    torch.testing.assert_close(mover.offset[:, 0], latents.diff(dim=2).mean((1, 2)), atol=1e-5, rtol=0)


# --- in turn, and along motions -----------------------------------------------------------------------------------


def test_in_turn_is_all_of_the_first_and_then_all_of_the_second():
    matrices = steps_of_a_group()
    mover = StepMover(matrices[:, None], torch.zeros(2, 1, LATENT))
    z, powers = points(), [torch.matrix_power(torch.eye(LATENT) + m, 3) for m in matrices]
    end = Successive(mover).trace(z, BOTH, FRAMES)[:, 3]
    torch.testing.assert_close(end, z @ powers[0].T @ powers[1].T)
    assert (end - mover.trace(z, BOTH, FRAMES)[:, 3]).abs().max() > 1e-3
    torch.testing.assert_close(Successive(mover).trace(z, ONE, FRAMES), mover.trace(z, ONE, FRAMES))


def test_a_motion_is_followed_phase_by_phase_and_back():
    matrices = steps_of_a_group()
    there, back = (StepMover(m[:, None], torch.zeros(2, 1, LATENT)) for m in (matrices, -matrices))
    z, (a, b) = points(), (torch.eye(LATENT) + m for m in matrices)
    motion = Motion((Phase(("a",), 2), Phase(("b",), 1)))
    path = follow((there, back), z, motion, ("a", "b"))
    expected = torch.stack([z, z @ a.T, z @ a.T @ a.T, z @ a.T @ a.T @ b.T], 1)
    torch.testing.assert_close(path, expected)
    a, b = (torch.eye(LATENT) - m for m in matrices)
    returned = follow((there, back), z, Motion(motion.phases, backwards=True), ("a", "b"))
    torch.testing.assert_close(returned, torch.stack([z, z @ b.T, z @ b.T @ a.T, z @ b.T @ a.T @ a.T], 1))


def test_every_mover_of_a_model_is_fitted_in_both_directions(make_fading):
    sequences = make_fading(torch.rand(12, 3, 4, 4, generator=generator()), horizon=2)
    model = VAE(*encoder_and_decoder(2))
    movers = fit_movers(model, sequences)
    assert list(movers) == ["identity", "traversal", "translation", "linear", "linear steps", "linear step"]
    latents = training_latents(model, sequences)[0]  # "halve"
    for name in ("linear", "linear steps"):
        for mover, truth in zip(movers[name], (latents, latents.flip(1)), strict=True):
            trace = mover.trace(truth[:, 0], ONE, torch.arange(3.0))
            assert (trace - truth).square().mean() < 0.2 * (truth[:, :1] - truth).square().mean(), name


def test_a_roll_turns_by_a_place_a_frame_whatever_moves():
    torch.manual_seed(0)
    encoder, _ = encoder_and_decoder(8)
    _, decoder = encoder_and_decoder(4)
    model = TopographicVAE(encoder, decoder, latent=4, capsules=1)
    from poflow_lite.datasets import HUE, ROTATE, TransformationSequences

    sequences = TransformationSequences(torch.rand(6, 3, 4, 4, generator=generator()), (ROTATE, HUE), horizon=2)
    there, back = fit_movers(model, sequences)["roll"]
    z = torch.randn(5, 8, generator=generator())
    clock = torch.arange(3.0)
    expected = model.transport(z, torch.zeros(5, dtype=torch.long), 2).z
    for weights in (ONE, BOTH):
        torch.testing.assert_close(there.trace(z, weights, clock), expected)
    torch.testing.assert_close(back.trace(expected[:, -1], ONE, clock), expected.flip(1))
