"""The learned transport: its loss against hand-made cases, what it promises on Gaussians, and bad input."""

import math

import pytest
import torch
from tiny import generator

from poflow_lite.datasets import Clouds, sample_pair
from poflow_lite.fields import Force
from poflow_lite.flows import Flow
from poflow_lite.models import LearnedTransport, learned_transport, measure_transport, train_transport
from poflow_lite.transport import hopf_lax, wasserstein

QUICK = {"steps": 200, "batch_size": 128, "width": 32, "horizon": 4, "progress": False}


def clouds(count=6):
    draw = generator()
    return Clouds(*(torch.randn(count, 2, generator=draw, dtype=torch.float64) for _ in range(2)))


@pytest.fixture
def push(make_quadratic):
    """u = b·z: a push without the gauge that would pay for it."""
    return lambda *b: Flow(make_quadratic([[[0.0, 0.0], [0.0, 0.0]]], [list(b)]))


@pytest.fixture(scope="module")
def trained():
    return train_transport("gaussians", **QUICK)


def test_endpoint_term_is_the_exact_wasserstein_distance_of_the_batches(push):
    batch = clouds()
    found = LearnedTransport(push(0.0, 0.0), 3, endpoint=7.0).terms(batch).summary()
    assert found == pytest.approx({"endpoint": 7 * wasserstein(batch.source, batch.target) ** 2, "hamilton_jacobi": 0})


def test_endpoint_gradient_is_that_of_the_distance(push):
    """∂/∂b W₂²(q + T b, p) by finite differences through POT; the plan need not be differentiated."""
    batch, flow = clouds(), push(1.0, -2.0)
    LearnedTransport(flow, 2, endpoint=1.0, hamilton_jacobi=0.0).terms(batch).loss.backward()
    linear = flow.field.linear
    start = batch.source + 2 * linear.detach()[0, :, 0]
    for i in range(2):
        shift = 1e-5 * torch.eye(2, dtype=torch.float64)[i]
        up, down = (wasserstein(start + 2 * sign * shift, batch.target) ** 2 for sign in (1, -1))
        assert linear.grad[0, i, 0].item() == pytest.approx((up - down) / 2e-5, rel=1e-4)


def test_penalties_of_a_constant_push_by_hand(push):
    """R = ½‖b‖² = 2.5 at each of T = 4 frames, ‖∇u(z_0, 0)‖² = 5."""
    losses = LearnedTransport(push(1.0, -2.0), 4, hamilton_jacobi=3.0, initial=2.0).terms(clouds())
    torch.testing.assert_close(losses.terms["hamilton_jacobi"], torch.full((6,), 3 * 4 * 2.5**2).double())
    torch.testing.assert_close(losses.terms["initial"], torch.full((6,), 2 * 5.0).double())
    torch.testing.assert_close(losses.loss, sum(losses.terms.values()).mean())


def test_force_enters_the_residual_and_is_trained(push):
    torch.manual_seed(0)
    force, batch, y = Force(2, 1, horizon=4).double(), clouds(), torch.ones(6, 1, dtype=torch.float64)
    transport = LearnedTransport(push(1.0, -2.0), 4, force)
    losses, path = transport.terms(batch), transport.paths(batch.source).z
    by_hand = sum((2.5 - force(path[:, t], float(t), y)).square() for t in range(4))
    torch.testing.assert_close(losses.terms["hamilton_jacobi"], 30 * by_hand)
    losses.loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in force.parameters())


def test_gaussians_are_carried_at_nearly_the_least_energy(trained):
    transport, history = trained
    report = measure_transport(transport, "gaussians", 500)
    assert report.ot_gap <= 1.05
    assert report.energy_ratio == pytest.approx(1, abs=0.1)
    assert report.endpoint_error < 2 * report.sampling_error
    assert report.efficiency > 0.95
    assert report.smallest_eigenvalue > 0.3
    assert history[-1]["loss"] < history[0]["loss"] / 5


def test_the_learned_potential_is_the_hopf_lax_solution_from_its_own_start(trained):
    """min_y [u(y, 0) + ‖z - y‖²/(2t)] over a fine grid, where the particles are; up to a constant at each time."""
    transport, _ = trained
    axis = torch.linspace(-5, 5, 201)
    support = torch.cartesian_prod(axis, axis)

    def value(z, t):
        return transport.flow.field.value(z, t, torch.ones(len(z), 1)).detach()

    path = transport.paths(sample_pair("gaussians", 400, generator(3)).source).z.detach()
    for t in (2, 3):
        exact = hopf_lax(value(support, 0), support, path[:, t], t)
        error = (value(path[:, t], t) - exact).std()
        assert error < 0.2 * exact.std()
        assert (value(path[:, t], 0) - exact).std() > 3 * error  # u does change with time


def test_what_makes_it_optimal_can_be_left_out_at_a_price(trained):
    """Without Hamilton-Jacobi the end is reached all the same; a first frame at rest leaves T - 1 of T for the way."""
    changes = {"hamilton_jacobi": 0.0}, {"initial": 1000.0}
    models = trained[0], *(train_transport("gaussians", **QUICK, **change)[0] for change in changes)
    best, free, resting = (measure_transport(model, "gaussians", 500) for model in models)
    assert free.endpoint_error < 2 * free.sampling_error
    assert free.ot_gap > best.ot_gap + 0.15
    assert resting.ot_gap > 4 / 3 - 0.01


def test_training_is_reproducible_and_leaves_the_global_generator_alone():
    short, before = {"steps": 3, "batch_size": 16, "width": 8, "progress": False}, torch.get_rng_state()
    one, two, other = (train_transport("moons", seed=seed, **short)[0] for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b, c in zip(one.parameters(), two.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_report_of_a_known_motion(push):
    """A shift by (2, -1) in 8 frames: straight, at constant speed, of energy 5 whatever the cloud."""
    report = measure_transport(LearnedTransport(push(0.25, -0.125).float(), 8), "gaussians", 300)
    assert report.energy == pytest.approx(5.0)
    assert (report.ot_gap, report.efficiency, report.smallest_eigenvalue) == pytest.approx((1.0, 1.0, 1.0))
    drawn = sample_pair("gaussians", 300, generator(1))
    assert report.optimal == pytest.approx(wasserstein(drawn.source, drawn.target) ** 2)
    assert report.energy_ratio == pytest.approx(5 / report.optimal)
    assert report.endpoint_error > report.sampling_error
    assert report.as_dict()["energy"] == report.energy


def test_repeats_are_averaged_and_the_smallest_eigenvalue_is_the_smallest(push, monkeypatch):
    """Against the single measurements that the same generator gives, one after the other."""
    singles, whole = [], learned_transport._measure
    monkeypatch.setattr(learned_transport, "_measure", lambda *a: singles.append(whole(*a)) or singles[-1])
    transport = train_transport("gaussians", steps=2, width=4, progress=False)[0]
    report = measure_transport(transport, "gaussians", 50, repeats=3)
    assert len({single.energy for single in singles}) == 3
    for name in ("energy", "ot_gap", "endpoint_error", "sampling_error"):
        assert getattr(report, name) == pytest.approx(sum(getattr(single, name) for single in singles) / 3)
    assert report.smallest_eigenvalue == min(single.smallest_eigenvalue for single in singles)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpoint": -1.0}, "endpoint must be a finite number of at least 0, got -1.0"),
        ({"hamilton_jacobi": math.nan}, "hamilton_jacobi must be a finite number of at least 0, got nan"),
        ({"initial": math.inf}, "initial must be a finite number of at least 0, got inf"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_refused(push, options, message):
    with pytest.raises(ValueError, match=message):
        LearnedTransport(push(0.0, 0.0), **options)
    with pytest.raises(ValueError, match="unknown pair 'rings'; known: gaussians, moons"):
        train_transport("rings")
