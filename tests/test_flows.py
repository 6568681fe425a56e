"""Steps, clocks, densities, inverses and priors against SciPy, Jacobians, closed forms, quadrature and Monte Carlo."""

import copy
import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from draws import double, normal, rng
from random_fields import make, weights
from scipy import stats
from scipy.integrate import solve_ivp
from tiny import SHAPE, encoder_and_decoder
from torch.distributions import MultivariateNormal, kl_divergence
from torch.func import grad, hessian, jacrev, jvp
from torch.nn.utils.stateless import _reparametrize_module

from poflow_lite.datasets import TransformationSequences
from poflow_lite.fields import AutogradPotential, DivergenceFreeField, Force, Potential
from poflow_lite.flows import (
    LOG_DETS,
    METHODS,
    DiffusionPrior,
    Flow,
    NotInvertible,
    PushforwardPrior,
    StaticPrior,
    log_det_identity_plus,
)
from poflow_lite.models import FlowFactorizedVAE
from poflow_lite.objectives import diagonal_normal

K = torch.tensor([0, 1, 1, 0])
Y, ALONE = torch.eye(2, dtype=torch.float64)[K], torch.ones(4, 1, dtype=torch.float64)
CLOCK = (1.0, 2.0, 2.5, 4.5)
every_method = pytest.mark.parametrize("method", METHODS)


def test_log_det_is_neither_the_trace_nor_that_of_row_sums():
    """[[1, ½], [½, 1]] has the determinant ¾, though H has the trace 0 and the row sums of I + H are 3/2."""
    assert log_det_identity_plus(double([0, 0.5], [0.5, 0])).item() == pytest.approx(math.log(0.75))
    assert log_det_identity_plus(double([-1, 0], [0, 0])).item() == -math.inf
    assert log_det_identity_plus(double([-3, 0], [0, 0])).item() == pytest.approx(math.log(2))
    assert log_det_identity_plus(1e-5 * double([0.3, -1], [-1, 2])).item() == pytest.approx(2.3e-5, rel=1e-4)
    h = normal(50, 5, 5)
    h = h + h.mT
    found, eigenvalues = log_det_identity_plus(h), 1 + np.linalg.eigvalsh(h)
    assert found.numpy() == pytest.approx(np.log(np.abs(eigenvalues)).sum(1), abs=1e-9)
    for wrong in (h[0, 0], h[:, :1]):  # the identity would be added to them all the same
        with pytest.raises(ValueError, match=r"the Hessian must be \(..., d, d\), got"):
            log_det_identity_plus(wrong)
    with pytest.raises(ValueError, match=r"start must be \(4,\), a number for each path, got \(4, 1\)"):
        Flow(make("potential", 3, 2)).rollout(normal(4, 3), K, (0, 1)).log_density(normal(4, 1))


# --- clocks -------------------------------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("log_det", LOG_DETS)
def test_a_rollout_is_step_after_step_and_its_trajectory_says_so(method, log_det):
    flow, force, z = Flow(make("potential", 3, 2, horizon=9), method, 2, log_det), Force(3, 2).double(), normal(4, 3)
    found = flow.rollout(z, K, CLOCK, rng())
    assert found.times.tolist() == list(CLOCK)
    assert torch.equal(found.weights, Y)
    assert torch.equal(found.z[:, 0], z)
    log_density = [double(1, 2, 3, 4)]
    for i, (t, later) in enumerate(itertools.pairwise(CLOCK)):
        here = found.z[:, i], t, Y
        torch.testing.assert_close(found.z[:, i + 1], flow.step(*here, later - t))
        torch.testing.assert_close(found.velocity[:, i], flow.field.velocity(*here))
        alone = flow.rollout(here[0], Y, [t, later], rng())  # with the same random direction
        torch.testing.assert_close(found.log_det[:, i : i + 1], alone.log_det)
        log_density.append(log_density[-1] - alone.log_det[:, 0])
        residual = flow.field.time_derivative(*here) + 0.5 * found.velocity[:, i].square().sum(1) - force(*here)
        torch.testing.assert_close(flow.residuals(found, force)[:, i], residual)
    torch.testing.assert_close(found.log_density(log_density[0]), torch.stack(log_density, 1))
    points, times, y = found.step_starts()
    assert torch.equal(points, found.z[:, :-1].flatten(0, 1))
    assert times.tolist() == list(CLOCK[:-1]) * 4
    assert torch.equal(y, Y.repeat_interleave(3, 0))


@every_method
@pytest.mark.parametrize("clock", [(0, 1, 2, 3), (2, 2.5, 5.5), (3, 1, 0.5)])
def test_a_potential_is_read_at_the_time_of_each_stage(method, clock):
    """u = t z moves by ∫ t dt; Euler's steps h fall short of that by h²/2 each, there as well as back."""
    flow, z = Flow(AutogradPotential(lambda z, t: t * z[:, 0], 1), method, 4), normal(4, 1)
    moved = [0.0]
    for t, later in itertools.pairwise(clock):
        short = 4 * ((later - t) / 4) ** 2 / 2 if method == "euler" else 0.0
        moved.append(moved[-1] + (later**2 - t**2) / 2 - math.copysign(short, later - t))
    torch.testing.assert_close(flow.rollout(z, ALONE, clock).z[..., 0], z + double(*moved))


@pytest.mark.parametrize(("method", "substeps", "last"), [("euler", 1, 3.0), ("euler", 2, 3.25), ("rk4", 1, 3.5)])
def test_beyond_the_horizon_every_frame_is_the_last_one_that_was_trained(method, substeps, last):
    flow = Flow(AutogradPotential(lambda z, t: t * z[:, 0], 1, horizon=4), method, substeps)
    path = flow.rollout(normal(4, 1), ALONE, range(2, 8))
    torch.testing.assert_close(path.z.diff(dim=1)[0, :, 0], double(last - 1, *[last] * 4))
    assert path.velocity[0, :, 0].tolist() == [2, 3, 3, 3, 3]
    torch.testing.assert_close(flow.rollout(path.z[:, -1], ALONE, range(7, 1, -1)).z.flip(1), path.z)


def test_beyond_the_horizon_residuals_and_long_steps_hold_the_clock_too(monkeypatch):
    flow = Flow(make("potential", 3, 2, horizon=4), "rk4")
    held, path = (flow.rollout(normal(4, 3), K, clock) for clock in ((3, 4), (6, 7)))
    torch.testing.assert_close(flow.residuals(path), flow.residuals(held))
    assert path.step_starts()[1].tolist() == [3] * 4
    looked, velocity = [], flow.field.velocity
    monkeypatch.setattr(flow.field, "velocity", lambda z, t, y: looked.append(float(t)) or velocity(z, t, y))
    flow.rollout(normal(4, 3), K, (0, 4, 6, 12))
    assert max(looked) == 4


def test_half_frames_are_two_substeps_up_to_the_horizon_and_back():
    """Their last one was once taken at T - 1, as if the clock stood still for half a frame."""
    flow, half = (Flow(make("potential", 3, 2, horizon=4), substeps=n) for n in (2, 1))
    z, clock = normal(4, 3), [t / 2 for t in range(9)]
    path = flow.rollout(z, K, range(5))
    torch.testing.assert_close(half.rollout(z, K, clock).z[:, ::2], path.z)
    torch.testing.assert_close(half.rollout(path.z[:, -1], K, clock[::-1]).z.flip(1)[:, ::2], path.z)


@pytest.mark.parametrize("clock", [[0.0], [], [0, 1, 1], [0, 2, 1], [2, 1, 3], [0, math.nan], [0, math.inf]])
def test_a_clock_that_stands_turns_or_has_no_step_is_refused(clock):
    with pytest.raises(ValueError, match="times must rise or fall all along, with one step at least, got"):
        Flow(make("potential")).rollout(normal(4, 3), weights("soft", 3), clock)


@pytest.mark.parametrize(
    ("options", "z", "y", "message"),
    [
        ({}, normal(4, 3), torch.tensor([0, 1, 2, 0]), r"k must lie in 0\.\.1 .* got values from 0 to 2"),
        ({}, normal(4, 5), K, r"z must be \(B, 3\), got \(4, 5\)"),
        ({}, normal(3, 3), K, r"3 points need weights y \(3, 2\), got \(4, 2\)"),
        ({"method": "heun"}, normal(4, 3), K, "unknown method 'heun'; known: euler, midpoint, rk4"),
        ({"log_det": "path"}, normal(4, 3), K, "unknown log_det 'path'; known: exact, trace, hutchinson, none"),
        ({"substeps": 0}, normal(4, 3), K, "substeps must be at least 1, got 0"),
        ({"substeps": 1.5}, normal(4, 3), K, "substeps must be at least 1, got 1.5"),
        ({}, torch.ones(4, 3).long(), K, r"z must be floating-point, got \(4, 3\) of torch.int64"),
    ],
)
def test_what_does_not_fit_is_refused_there_and_back(options, z, y, message):
    for clock in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match=message):
            Flow(make("potential", 3, 2), **options).rollout(z, y, clock)


def reference(field, z, y, end):
    """Positions and ∫ ∇·v dt at the end, by SciPy's adaptive integrator at tolerance 1e-12."""

    def rate(t, state):
        x = torch.from_numpy(state).view(len(z), -1)[:, :-1]
        return torch.cat([field.velocity(x, t, y), field.divergence(x, t, y)[:, None]], 1).detach().flatten()

    start = torch.cat([z, 0 * z[:, :1]], 1).flatten()
    found = solve_ivp(rate, (0, end), start, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    return torch.from_numpy(found).view(len(z), -1).split([z.shape[1], 1], 1)


@every_method
def test_positions_and_densities_converge_at_the_order_of_the_method(make_potential, method):
    """By more substeps, and by a finer clock; the exact log-determinant of the numerical map converges as well."""
    field, z = make_potential(2, 2, strength=0.5, horizon=8), normal(4, 2)
    end, lost = reference(field, z, Y, 2)
    for log_det, finer in itertools.product(("exact", "trace"), ("substeps", "clock")):
        errors = []
        for n in (4, 8, 16):
            substeps, times = (n, range(3)) if finer == "substeps" else (1, np.linspace(0, 2, 2 * n + 1))
            path = Flow(field, method, substeps, log_det).rollout(z, K, times)
            errors.append([(path.z[:, -1] - end).norm().item(), (path.log_det.sum(1) - lost[:, 0]).norm().item()])
        gained = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
        assert gained == pytest.approx(np.full((2, 2), METHODS[method].order), abs=0.35), (log_det, finer)


def test_a_rotation_is_the_series_of_its_matrix_and_can_be_undone_beyond_a_right_angle():
    """One RK4 step of 2 rad, whose Jacobian has no positive symmetric part, though it folds nothing."""
    field, z, turn = DivergenceFreeField(2, 1, width=1).double(), normal(4, 2), 2 * double([0, -1], [1, 0])
    field.load_state_dict({n: turn[None] if n == "rotation" else 0 * v for n, v in field.state_dict().items()})
    there = Flow(field, "rk4").rollout(z, ALONE, [0, 1])
    series = sum(torch.linalg.matrix_power(turn, i) / math.factorial(i) for i in range(5))
    torch.testing.assert_close(there.z[:, 1], z @ series.T)
    torch.testing.assert_close(Flow(field, "rk4").rollout(there.z[:, 1].detach(), ALONE, [1, 0]).z[:, 1], z)


def end(flow, clock, y, z):
    return flow.rollout(z[None], y[None], clock).z[0, -1]


@every_method
@pytest.mark.parametrize("kind", ["potential", "free", "mixed", "function"])
def test_the_exact_log_det_is_that_of_the_numerical_map(kind, method):
    """By the Jacobian of the whole rollout: of one step, and of unequal ones that add up."""
    z, y = normal(4, 3), weights("soft", 3)
    for substeps, clock in ((1, (1, 2)), (2, CLOCK), (3, (0, 0.5))):
        flow, silent = (Flow(make(kind, horizon=9), method, substeps, log_det) for log_det in ("exact", "none"))
        found, without = flow.rollout(z, y, clock), silent.rollout(z, y, clock)
        jacobians = [jacrev(partial(end, flow, clock), 1)(y[i], z[i]) for i in range(4)]
        torch.testing.assert_close(found.log_det.sum(1), torch.linalg.slogdet(torch.stack(jacobians)).logabsdet)
        assert torch.equal(without.z, found.z)
        assert torch.equal(without.log_det, torch.zeros_like(found.log_det))


def test_hutchinson_is_unbiased_and_reproducible():
    field, z, y = make("free", 3, 1), normal(1, 3).expand(4000, 3), torch.ones(4000, 1, dtype=torch.float64)
    draw, again = (Flow(field, "rk4", 2, "hutchinson").rollout(z, y, range(3), rng()).log_det for _ in range(2))
    assert torch.equal(draw, again)
    truth, error = Flow(field, "rk4", 2, "trace").rollout(z[:1], y[:1], range(3)).log_det, draw.std(0) / 4000**0.5
    assert ((draw.mean(0) - truth[0]).abs() < 4 * error).all()
    assert (error > 0).all()


def test_the_random_directions_are_signs_which_miss_nothing_where_axes_keep_apart(make_quadratic):
    """eᵀAe is the trace of a diagonal A for every e of ±1, and for a Gaussian one only in the mean."""
    field = make_quadratic(torch.diag_embed(normal(2, 3)))
    flows = (Flow(field, "rk4", 2, log_det) for log_det in ("hutchinson", "trace"))
    torch.testing.assert_close(*(flow.rollout(normal(4, 3), K, range(3), rng()).log_det for flow in flows))


@pytest.mark.parametrize("kind", ["potential", "2 layers"])
@pytest.mark.parametrize("log_det", ["exact", "trace"])
def test_gradients_of_what_training_needs_are_right(kind, log_det):
    """log-determinant and residual of a path, differentiated by every parameter, against finite differences."""
    flow = Flow(make(kind, 2, 2), log_det=log_det)
    names, values = zip(*flow.named_parameters(), strict=True)

    def loss(*values):
        with _reparametrize_module(flow, dict(zip(names, values, strict=True))):
            path = flow.rollout(normal(4, 2), Y, range(3))
            return path.log_det.sum() + flow.residuals(path).square().sum()

    assert torch.autograd.gradcheck(loss, values, fast_mode=True)


@pytest.mark.parametrize("force", [0.0, -0.7])
def test_plane_waves_solve_hamilton_jacobi_in_any_batch_and_steps_of_any_size_are_exact(make_quadratic, force):
    """u = b·z - (½‖b‖² - f) t has ∂_t u + ½‖∇u‖² = f for every b; particles go straight."""
    b = normal(3, 4)
    potential = make_quadratic(torch.zeros(3, 4, 4), linear=b, horizon=5)
    with torch.no_grad():
        potential.gauge[:, 0] = -5 * (0.5 * b.square().sum(-1) - force)  # c·φ(t) with φ_1 = t / horizon
    for k in ([0], [1, 1], [2, 0, 1, 0, 2, 1, 1]):
        z, flow = normal(len(k), 4, seed=1), Flow(potential)
        path = flow.rollout(z, torch.tensor(k), CLOCK)
        torch.testing.assert_close(path.z[:, -1], z + 3.5 * b[k])
        residuals = flow.residuals(path, lambda z, t, y: torch.full_like(t, force))
        torch.testing.assert_close(residuals, torch.zeros(len(k), 3, dtype=torch.float64))


# --- the way back -------------------------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("kind", ["potential", "divergence-free", "mixed"])
def test_a_falling_clock_returns_and_gives_the_density_back(method, kind):
    double, single = (torch.float64, 1e-8), (torch.float32, 1e-3)
    for log_det, (dtype, close) in (("exact", double), ("trace", double), ("exact", single)):
        flow, z, y = (x.to(dtype) for x in (Flow(make(kind), method, 2, log_det), normal(4, 3), weights("soft", 3)))
        there = flow.rollout(z, y, CLOCK)
        back = flow.rollout(there.z[:, -1].detach(), y, CLOCK[::-1])
        assert (there.z[:, -1] - z).norm(dim=1).min() > 0.3
        assert back.times.tolist() == list(CLOCK[::-1])
        assert back.z.dtype == back.log_det.dtype == dtype
        torch.testing.assert_close(back.z, there.z.flip(1), rtol=0, atol=close)
        torch.testing.assert_close(back.log_det, -there.log_det.flip(1), rtol=0, atol=close)
        torch.testing.assert_close(back.velocity, -there.velocity.flip(1), rtol=0, atol=10 * close)
    for asked in (flow.residuals, flow.smallest_eigenvalue):
        with pytest.raises(ValueError, match="the clock of this trajectory falls"):
            asked(back)


@every_method
def test_gradients_of_the_way_back_are_right(method):
    """Where z_0 came to lie and the density there, by the end that is followed back and by every parameter."""
    flow, end = Flow(make("free", 2, 2), method, 2), normal(4, 2).requires_grad_()
    names, values = zip(*flow.named_parameters(), strict=True)

    def found(end, *values):
        with _reparametrize_module(flow, dict(zip(names, values, strict=True))):
            path = flow.rollout(end, Y, (2, 1, 0))
            return path.z, path.log_det

    assert torch.autograd.gradcheck(found, (end, *values), fast_mode=True)


def test_the_score_of_the_pushed_prior_is_that_of_the_gaussian_that_it_is(make_quadratic):
    """z' = (1 + q) z makes N(0, (1 + q)²) of N(0, 1), whose score is -z / (1 + q)²; it was once 0 everywhere."""
    prior, z = PushforwardPrior(Flow(make_quadratic(double([0.7]).view(1, 1, 1)))), normal(4, 1).requires_grad_()
    (score,) = torch.autograd.grad(prior.log_prob(z, 1.0, ALONE).sum(), z)
    torch.testing.assert_close(score, -z.detach() / 1.7**2)


def test_many_dimensions_may_shrink_without_counting_as_folded(make_quadratic):
    """0.1^48 is 0 in single precision."""
    flow = Flow(make_quadratic(-0.9 * torch.eye(48, dtype=torch.float64)[None])).float()
    z = normal(4, 48).float()
    torch.testing.assert_close(backwards(flow, flow.step(z, 0.0, ALONE.float()), y=ALONE.float()), z)


def test_a_copy_takes_the_same_short_way_and_a_velocity_of_its_own_is_followed(monkeypatch):
    """A copied method is equal to Euler's, not the same object."""
    flow, z, taken = Flow(make("potential", 3, 2)), normal(4, 3), []
    short = Potential.euler_path
    monkeypatch.setattr(Potential, "euler_path", lambda *args: taken.append(0) or short(*args))
    assert torch.equal(copy.deepcopy(flow).rollout(z, K, range(3)).z, flow.rollout(z, K, range(3)).z)
    assert len(taken) == 2

    class Damped(Potential):
        def velocity(self, z, t, y):
            return 0.5 * super().velocity(z, t, y)

    damped = Damped(3, 2, 5, horizon=4).double()
    damped.load_state_dict(flow.field.state_dict())
    torch.testing.assert_close(Flow(damped).rollout(z, K, (0, 1)).velocity, 0.5 * flow.rollout(z, K, (0, 1)).velocity)


def backwards(flow, z, frames=1, y=ALONE):
    return flow.rollout(z, y[: len(z)], range(frames, -1, -1)).z[:, -1]


def test_the_way_back_of_an_affine_flow_is_a_matrix_solve(make_quadratic):
    q, b, z = double([0.8, 0.3], [0.3, -0.5]), double(1.0, -2.0), normal(4, 2)
    expected = torch.linalg.solve(torch.eye(2).double() + q, (z - b).T).T
    torch.testing.assert_close(backwards(Flow(make_quadratic(q[None], b[None])), z), expected)
    steep = Flow(make_quadratic([[[3.0, 0.0], [0.0, 3.0]]]))  # z ↦ target - 3z is no contraction: it takes Newton
    torch.testing.assert_close(backwards(steep, z, 2), z / 16)


def test_the_way_back_backtracks_where_newtons_full_step_runs_away():
    """v = 5 arctan(3z): from afar Newton's own steps overshoot the bend at 0 and never come back."""
    flow = Flow(AutogradPotential(lambda z, t: 5 * (z * torch.atan(3 * z) - torch.log1p(9 * z**2) / 6).sum(1), 1))
    z, y = torch.linspace(-3, 3, 41, dtype=torch.float64)[:, None], torch.ones(41, 1, dtype=torch.float64)
    torch.testing.assert_close(backwards(flow, flow.step(z, 0.0, y).detach(), y=y), z, rtol=0, atol=1e-8)


def test_folds_and_points_that_no_particle_reaches_are_refused(make_quadratic):
    """-I mirrors an axis or turns the plane by 180° in one gradient step, which no gradient flow does; 0.1 tanh < 5."""
    mirror, reflection = (Flow(make_quadratic([[[a, 0.0], [0.0, b]]])) for a, b in ((-2.0, 0.5), (-1.5, -1.5)))
    to_tanh = AutogradPotential(lambda z, t: (-0.5 * z**2 + 0.1 * torch.log(torch.cosh(z))).sum(1), 1)
    for flow, z, message in (
        (mirror, normal(4, 2), r"step at t = 2 cannot be undone at 4 of 4 .*eigenvalue .*-1.*substeps"),
        (reflection, normal(4, 2), "cannot be undone at 4 of 4 points"),
        (Flow(to_tanh), double([0.05], [5.0]), "cannot be undone at 1 of 2 points"),
    ):
        with pytest.raises(NotInvertible, match=message):
            flow.rollout(z, ALONE[: len(z)], [3, 2])
    with pytest.raises(ValueError, match="z holds NaN or infinite coordinates"):
        backwards(Flow(to_tanh), double([0.05], [math.inf]))


@pytest.mark.parametrize(("kind", "method"), [("potential", "euler"), ("free", "rk4")])
def test_the_smallest_eigenvalue_is_the_worst_of_the_substeps_where_and_when_they_start(kind, method):
    field, z = make(kind, 3, 2, horizon=9), normal(4, 3)
    flow, substep = Flow(field, method, 2), Flow(field, method)
    path = flow.rollout(z, K, CLOCK)
    for i, (t, later) in enumerate(itertools.pairwise(CLOCK)):
        lowest, here = [], path.z[:, i]
        for clock in itertools.pairwise((t, 0.5 * (t + later), later)):
            jacobians = torch.stack(
                [jacrev(partial(end, substep, clock), 1)(*own) for own in zip(Y, here, strict=True)]
            )
            lowest.append(torch.linalg.eigvalsh(0.5 * (jacobians + jacobians.mT))[:, 0])
            here = substep.rollout(here, K, clock).z[:, 1]
        torch.testing.assert_close(flow.smallest_eigenvalue(path)[:, i], torch.minimum(*lowest))


def test_density_under_an_affine_flow_is_the_push_forward_gaussian_and_its_kl_the_closed_form(make_quadratic):
    q, b = double([[0.2, 0.4], [0.4, -0.3]], [[-0.5, 0.1], [0.1, 0.6]]), double([0.3, -0.2], [0.0, 1.0])
    flow, prior = Flow(make_quadratic(q, b)), DiffusionPrior(1, 0.3).double()
    q0 = diagonal_normal(double(0.5, -1.0), double(0.7, 1.3))
    z = q0.mean + normal(20_000, 2) * q0.stddev
    for k in (0, 1):
        path = flow.rollout(z, torch.full((20_000,), k), range(4))
        log_q, step = path.log_density(q0.log_prob(z)).detach(), torch.eye(2) + q[k]
        mean, covariance = q0.mean, torch.diag(q0.variance)
        for t in range(4):
            gaussian = MultivariateNormal(mean, covariance)
            torch.testing.assert_close(log_q[:, t], gaussian.log_prob(path.z[:, t]).detach())
            samples = (log_q[:, t] - prior.log_prob(path.z[:, t], t, torch.ones(20_000, 1).double())).detach()
            exact = kl_divergence(gaussian, MultivariateNormal(0 * mean, (1 + 0.6 * t) * torch.eye(2))).item()
            error = samples.std().item() / len(samples) ** 0.5
            assert samples.mean().item() == pytest.approx(exact, abs=4 * error)
            assert error < 0.05 * exact
            mean, covariance = step @ mean + b[k], step @ covariance @ step.T


def test_an_index_becomes_weights_once_in_all_terms_of_a_training_step(monkeypatch):
    """It was converted and checked 22 times a step."""
    weights = {"hamilton_jacobi": 1.0, "autoencoding": 0.2, "initial": 1.0, "consistency": 0.1}
    flow, prior = Flow(make("potential", 2, 3).float(), "midpoint", 2), DiffusionPrior(3)
    model = FlowFactorizedVAE(*encoder_and_decoder(), flow, prior, Force(2, 3, horizon=4), **weights)
    batch = TransformationSequences(torch.rand(6, *SHAPE), horizon=4).sample(6, 2, rng())
    calls, extremes = [], torch.Tensor.aminmax
    monkeypatch.setattr(torch.Tensor, "aminmax", lambda *a, **o: calls.append(a) or extremes(*a, **o))
    assert set(model.terms(batch, rng()).penalties) == set(weights)
    assert len(calls) == 1


# --- priors -------------------------------------------------------------------------------------------------------


@pytest.fixture
def prior():
    """D = (0.1, 0.7)."""
    prior = DiffusionPrior(2).double()
    prior.load_state_dict({"raw": torch.expm1(double(0.1, 0.7)).log()})
    return prior


@pytest.mark.parametrize("y", [Y, double([0.5, 0.5]).expand(4, 2), double([-1.0, 0.0], [0.0, -2.0], [1, -1], [3, 2])])
def test_the_prior_is_the_gaussian_that_all_weights_spread_whatever_their_sign(prior, y):
    z, t = normal(4, 3), double(0.0, 1.0, 2.0, 3.5)
    variances = 1 + 2 * (np.abs(y.numpy()) @ [0.1, 0.7]) * t.numpy()
    expected = [stats.multivariate_normal(cov=v * np.eye(3)).logpdf(x) for v, x in zip(variances, z, strict=True)]
    np.testing.assert_allclose(prior.log_prob(z, t, y).detach(), expected)
    torch.testing.assert_close(prior.variance(t, y), torch.tensor(variances))
    many = normal(4, 5, 3)
    one_by_one = torch.stack([prior.log_prob(many[:, n], float(n), y) for n in range(5)], 1)
    torch.testing.assert_close(prior.log_prob(many, torch.arange(5).expand(4, -1), y), one_by_one)


@pytest.mark.parametrize(("y", "diffusion"), [(double([1, 0]), 0.1), (double([0, -1]), 0.7)])
def test_the_prior_obeys_the_heat_equation_and_its_particles_follow_its_potential(prior, y, diffusion):
    """Particles move along ∇ψ, ψ = -D log p, and lose log-density by Δψ."""
    t, one = double(1.5)[0], double(1.0)[0]
    log_prob, psi = (lambda z, t, f=f: f(z[None], t[None], y)[0] for f in (prior.log_prob, prior.potential))
    for z0 in normal(4, 3):
        rate, laplacian = grad(lambda z, t: log_prob(z, t).exp(), 1), hessian(lambda z: log_prob(z, t).exp())
        torch.testing.assert_close(rate(z0, t), diffusion * torch.trace(laplacian(z0)))
        moved = lambda t, z0=z0: prior.particles(z0[None], t[None], y)[0]  # noqa: E731
        z, velocity = jvp(moved, (t,), (one,))
        torch.testing.assert_close(velocity, grad(psi)(z, t))
        torch.testing.assert_close(psi(z, t), -diffusion * log_prob(z, t))
        along = jvp(lambda s, at=moved: log_prob(at(s), s), (t,), (one,))[1]
        torch.testing.assert_close(along, -torch.trace(hessian(psi)(z, t)))


def test_particles_reproduce_the_prior(prior):
    for y, variance in zip(torch.eye(2, dtype=torch.float64), (1.8, 6.6), strict=True):
        z = prior.particles(normal(20_000, 3), 4.0, y.expand(20_000, 2)).detach()
        assert stats.kstest(z.ravel() / variance**0.5, "norm").pvalue > 0.01


def test_every_diffusion_coefficient_starts_where_asked_is_trained_and_stays_positive():
    for diffusion in (1e-6, 0.05, 1.0, 1000.0):
        assert DiffusionPrior(2, diffusion).diffusion.tolist() == pytest.approx([diffusion] * 2, rel=1e-3)
    prior = DiffusionPrior(3, 0.05)
    prior.log_prob(torch.randn(3, 2), 2.0, torch.eye(3)).sum().backward()
    assert (prior.raw.grad.abs() > 0).all()
    with torch.no_grad():
        prior.raw.fill_(-20)
    assert (prior.diffusion > 0).all()
    for diffusion in (0.0, -0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"must be positive and finite, got {diffusion}"):
            DiffusionPrior(3, diffusion)
    with pytest.raises(ValueError, match="weights"):
        prior.log_prob(normal(3, 2), 1.0, torch.arange(3))  # an index, which must not be taken for weights


def test_a_prior_keeps_the_digits_of_the_more_precise_of_its_coefficients_and_weights(prior):
    """A float64 model with float32 weights once spread in float32."""
    z, y = normal(4, 3), weights("soft", 2)
    assert torch.equal(prior.log_prob(z, 3.0, torch.eye(2)[K]), prior.log_prob(z, 3.0, Y))
    assert prior.float().variance(3.0, y).dtype == torch.float64


def test_a_static_prior_is_a_standard_normal_at_all_times_and_moves_nothing():
    prior, z = StaticPrior(2).double(), normal(4, 5, 3)
    expected = torch.tensor(stats.multivariate_normal(cov=np.eye(3)).logpdf(z))
    torch.testing.assert_close(prior.log_prob(z, torch.arange(5).expand(4, -1), -Y), expected)
    for t in (0.0, 3.5, double(0.0, 1.0, 2.0, 9.0)):
        torch.testing.assert_close(prior.log_prob(z[:, 0], t, Y), expected[:, 0])
        assert torch.equal(prior.particles(z[:, 0], t, Y), z[:, 0])
        assert not prior.potential(z[:, 0], t, Y).any()
    assert not [*prior.parameters(), *prior.state_dict()]


# --- the prior that the flow carries ------------------------------------------------------------------------------


@every_method
def test_the_pushed_prior_is_the_density_of_what_the_flow_makes_of_a_normal_start(method):
    flow = Flow(make("potential", 3, 2, horizon=9, width=4), method, 2)
    for parameter in flow.parameters():
        parameter.data.mul_(0.3)
    prior, z = PushforwardPrior(flow), normal(4, 3)
    path = flow.rollout(z, K, (0, 1, 2, 2.5))
    start = diagonal_normal(torch.zeros_like(z), torch.ones_like(z)).log_prob(z)
    times = path.times.expand(4, -1)
    torch.testing.assert_close(prior.log_prob(path.z, times, Y), path.log_density(start))
    torch.testing.assert_close(prior.log_prob(path.z[:, 2], 2, Y), path.log_density(start)[:, 2])
    torch.testing.assert_close(prior.log_prob(path.z[:, 3], times[:, 3], Y), path.log_density(start)[:, 3])
    torch.testing.assert_close(prior.log_prob(z, 0, Y), start)
    assert not list(prior.parameters()), "the flow's parameters are the model's"


def test_pushing_posterior_and_prior_by_one_map_keeps_their_divergence():
    """log q_t - log p_t is the same number all along a path, so KL(q_t ‖ p_t) = KL(q_0 ‖ p_0)."""
    flow, draws = Flow(make("free", 3, 2, horizon=9, width=4)), 4000
    posterior = diagonal_normal(0.5 * normal(1, 3).expand(draws, -1), double(0.3, 0.7, 1.2).expand(draws, -1))
    z = posterior.mean + posterior.base_dist.scale * normal(draws, 3, seed=1)
    path = flow.rollout(z, torch.zeros(draws, dtype=torch.long), range(5))
    prior = diagonal_normal(torch.zeros_like(z), torch.ones_like(z))
    ratio = path.log_density(posterior.log_prob(z)) - path.log_density(prior.log_prob(z))
    torch.testing.assert_close(ratio, ratio[:, :1].expand(-1, 5))
    divergence = kl_divergence(posterior.base_dist, prior.base_dist).sum(1)[0]
    assert ratio[:, -1].mean().item() == pytest.approx(
        divergence.item(), abs=4 * ratio[:, -1].std().item() / draws**0.5
    )
    assert torch.equal(
        PushforwardPrior(flow).path_kl(path, lambda: pytest.fail("a determinant was asked for")), 0 * z[:, 0]
    )


def test_a_determinant_is_worked_out_only_where_it_is_read():
    field, asked = make("free", 3, 2), []

    def count(field, stages, method, generator):
        asked.append(len(stages.z))
        return stages.z.new_zeros(stages.z.shape[:2])

    flow = Flow(field)
    flow._log_det = count
    path = flow.rollout(normal(4, 3), K, range(3))
    assert asked == []
    assert path.log_det is path.log_det
    assert asked == [4]
