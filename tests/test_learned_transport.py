"""The learned transport: its loss against hand-made cases, what it promises on Gaussians, and bad input."""

import math

import pytest
import torch

from poflow_lite import learned_transport
from poflow_lite.datasets import Clouds, sample_pair
from poflow_lite.flows import PotentialFlow
from poflow_lite.learned_transport import LearnedTransport, TransportReport, measure_transport, train_transport
from poflow_lite.potentials import Force
from poflow_lite.transport import hopf_lax, wasserstein


def clouds(count=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Clouds(*(torch.randn(count, 2, generator=generator, dtype=torch.float64) for _ in range(2)))


@pytest.fixture
def still(make_quadratic):
    """u = 0."""
    return PotentialFlow(make_quadratic([[[0.0, 0.0], [0.0, 0.0]]]))


@pytest.fixture
def pushing(make_quadratic):
    """u = b·z, b = (1, -2): a push without the gauge that would pay for it."""
    return PotentialFlow(make_quadratic([[[0.0, 0.0], [0.0, 0.0]]], [[1.0, -2.0]]))


def test_endpoint_term_is_the_exact_wasserstein_distance_of_the_batches(still):
    batch = clouds()
    terms = LearnedTransport(still, 3, endpoint=7.0).terms(batch)
    assert terms.endpoint.mean().item() == pytest.approx(7 * wasserstein(batch.source, batch.target) ** 2)
    assert terms.summary() == {"endpoint": terms.endpoint.mean().item(), "hamilton_jacobi": 0.0}


def test_endpoint_gradient_is_that_of_the_distance(pushing):
    """∂/∂b W₂²(q + T b, p) by finite differences through POT; the plan need not be differentiated."""
    batch, linear = clouds(), pushing.potential.linear
    LearnedTransport(pushing, 2, endpoint=1.0, hamilton_jacobi=0.0).terms(batch).loss.backward()
    for i in range(2):
        shift = 1e-5 * torch.eye(2, dtype=torch.float64)[i]
        start = batch.source + 2 * linear.detach()[0, :, 0]
        up, down = (wasserstein(start + 2 * sign * shift, batch.target) ** 2 for sign in (1, -1))
        assert linear.grad[0, i, 0].item() == pytest.approx((up - down) / 2e-5, rel=1e-4)


def test_penalties_of_a_constant_push_by_hand(pushing):
    """R = ½‖b‖² = 2.5 at each of T = 4 frames, ‖∇u(z_0, 0)‖² = 5."""
    terms = LearnedTransport(pushing, 4, hamilton_jacobi=3.0, initial=2.0).terms(clouds())
    torch.testing.assert_close(terms.penalties["hamilton_jacobi"], torch.full((6,), 3 * 4 * 2.5**2).double())
    torch.testing.assert_close(terms.penalties["initial"], torch.full((6,), 2 * 5.0).double())
    total = terms.endpoint + terms.penalties["hamilton_jacobi"] + terms.penalties["initial"]
    torch.testing.assert_close(terms.loss, total.mean())


def test_force_enters_the_residual_and_is_trained(pushing):
    torch.manual_seed(0)
    force = Force(2, 1, horizon=4).double()
    transport = LearnedTransport(pushing, 4, force)
    terms, batch = transport.terms(clouds()), clouds()
    path = transport.carry(batch.source)
    k = torch.zeros(6, dtype=torch.long)
    by_hand = sum((2.5 - force(path.z[:, t], float(t), k)).square() for t in range(4))
    torch.testing.assert_close(terms.penalties["hamilton_jacobi"], 30 * by_hand)
    terms.loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in force.parameters())


@pytest.fixture(scope="module")
def trained():
    return train_transport("gaussians", steps=250, width=32, progress=False)


def test_gaussians_are_carried_at_nearly_the_least_energy(trained):
    transport, history = trained
    report = measure_transport(transport, "gaussians", 1000)
    assert report.ot_gap <= 1.05
    assert report.energy_ratio == pytest.approx(1, abs=0.1)
    assert report.endpoint_error < 2 * report.sampling_error
    assert report.straightness > 0.95
    assert report.smallest_eigenvalue > 0.3
    assert history[-1]["loss"] < history[0]["loss"] / 5


def test_the_learned_potential_is_the_hopf_lax_solution_from_its_own_start(trained):
    """min_y [u(y, 0) + ‖z - y‖²/(2t)] over a fine grid, where the particles are; up to a constant at each time."""
    transport, _ = trained
    potential, points = transport.flow.potential, sample_pair("gaussians", 400, torch.Generator().manual_seed(3)).source
    axis = torch.linspace(-5, 5, 201)
    support = torch.cartesian_prod(axis, axis)

    def value(z, t):
        return potential.value(z, t, torch.zeros(len(z), dtype=torch.long)).detach()

    path = transport.carry(points).z.detach()
    for t in (2, 5, 7):
        learned, exact = value(path[:, t], t), hopf_lax(value(support, 0), support, path[:, t], t)
        frozen = value(path[:, t], 0)
        error, size = (learned - exact).std(), exact.std()
        assert error < 0.2 * size
        assert (frozen - exact).std() > 3 * error  # u does change with time


def test_without_hamilton_jacobi_the_end_is_reached_at_needless_cost(trained):
    free, _ = train_transport("gaussians", steps=250, width=32, hamilton_jacobi=0.0, progress=False)
    report, best = (measure_transport(model, "gaussians", 1000) for model in (free, trained[0]))
    assert report.endpoint_error < 2 * report.sampling_error
    assert report.ot_gap > best.ot_gap + 0.2


def test_initial_condition_costs_at_least_one_frame(trained):
    """A first frame at rest leaves T - 1 for the way: the gap is at least T / (T - 1)."""
    resting, _ = train_transport("gaussians", steps=250, width=32, initial=1000.0, progress=False)
    assert measure_transport(resting, "gaussians", 1000).ot_gap > 8 / 7 - 0.01


def test_training_is_reproducible_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    one, two = (train_transport("moons", steps=3, batch_size=16, width=8, progress=False)[0] for _ in range(2))
    other, _ = train_transport("moons", steps=3, batch_size=16, width=8, seed=1, progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    for a, b, c in zip(one.parameters(), two.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.numel() == 0 or not torch.equal(a, c)


def test_report_of_a_known_motion(make_quadratic):
    """A shift by (2, -1) in 8 frames: straight, at constant speed, of energy 5 whatever the cloud."""
    flow = PotentialFlow(make_quadratic([[[0.0, 0.0], [0.0, 0.0]]], [[0.25, -0.125]]).float())
    report = measure_transport(LearnedTransport(flow, 8), "gaussians", 300)
    assert isinstance(report, TransportReport)
    assert report.energy == pytest.approx(5.0)
    assert report.ot_gap == pytest.approx(1.0)
    assert report.straightness == pytest.approx(1.0)
    assert report.smallest_eigenvalue == pytest.approx(1.0)
    assert report.energy_ratio == pytest.approx(5 / report.optimal)
    clouds = sample_pair("gaussians", 300, torch.Generator().manual_seed(1))
    assert report.optimal == pytest.approx(wasserstein(clouds.source, clouds.target) ** 2)
    assert report.endpoint_error > report.sampling_error
    assert report.as_dict()["energy"] == report.energy


def test_repeats_are_averaged_and_the_smallest_eigenvalue_is_the_smallest(trained, monkeypatch):
    """Against the single measurements that the same generator gives, one after the other."""
    singles, whole = [], learned_transport._measure

    def keep(*arguments):
        singles.append(whole(*arguments))
        return singles[-1]

    monkeypatch.setattr(learned_transport, "_measure", keep)
    report = measure_transport(trained[0], "gaussians", 50, repeats=3)
    assert len({single.energy for single in singles}) == 3
    for name in ("energy", "ot_gap", "endpoint_error", "sampling_error"):
        assert getattr(report, name) == pytest.approx(sum(getattr(single, name) for single in singles) / 3)
    assert report.smallest_eigenvalue == min(single.smallest_eigenvalue for single in singles)


@pytest.mark.parametrize("weight", ["endpoint", "hamilton_jacobi", "initial"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_weights_must_be_finite_and_not_negative(still, weight, value):
    with pytest.raises(ValueError, match=f"{weight} must be a finite number of at least 0, got {value}"):
        LearnedTransport(still, **{weight: value})


def test_bad_horizon_and_unknown_pair_are_refused(still):
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        LearnedTransport(still, 0)
    with pytest.raises(ValueError, match="unknown pair 'rings'; known: gaussians, moons"):
        train_transport("rings")
