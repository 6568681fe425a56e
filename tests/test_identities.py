"""The identities of lessons 04 and 05 where modules meet, each against an oracle that shares no code with it."""

import math

import numpy as np
import pytest
import torch
from draws import normal, rng
from scipy.stats import gaussian_kde
from torch.distributions import MultivariateNormal, kl_divergence

from poflow_lite.densities import Grid, continuity_residual, gaussian_mixture, kl_rate, sample, score
from poflow_lite.fields import AutogradPotential
from poflow_lite.flows import DiffusionPrior, Flow
from poflow_lite.transport import efficiency, gaussian_map, hopf_lax, map_1d, ot_gap

pytestmark = pytest.mark.usefixtures("double")


def alone(z):
    return torch.ones(len(z), 1, dtype=z.dtype)


@pytest.fixture
def mixture():
    return gaussian_mixture(torch.tensor([[0.8, 0.2], [-0.9, -0.4]]), torch.tensor([0.5, 0.7]))


@pytest.fixture
def swell():
    """A known potential, neither quadratic nor constant in time."""
    return AutogradPotential(lambda z, t: 0.4 * torch.sin(z[:, 0] + 0.5 * t) * torch.cos(z[:, 1]) + 0.1 * z[:, 0], 2)


def pulled_back(flow, mixture, points, time):
    """p_t at fixed points, by the way back from there: log p_0 where it ends, plus what was gained on it."""
    path = flow.rollout(points, alone(points), [time, 0.0])
    return (mixture.log_prob(path.z[:, -1]) + path.log_det.sum(1)).exp().detach()


def continuity_error(field, mixture, cells, dt, sign=1.0):
    """Root mean square residual of the continuity equation at time 0.8, from densities carried by RK4 particles."""
    grid, flow = Grid.cube(3.0, cells), Flow(field, "rk4", 2)
    before, now, after = (pulled_back(flow, mixture, grid.points, 0.8 + shift) for shift in (-dt, 0.0, dt))
    velocity = sign * field.velocity(grid.points, 0.8, alone(grid.points))
    return continuity_residual(grid, before, now, after, velocity, dt).square().mean().sqrt().item()


def test_a_mixture_moved_by_a_potential_obeys_the_continuity_equation_to_second_order(swell, mixture):
    coarse, fine = continuity_error(swell, mixture, 30, 0.2), continuity_error(swell, mixture, 60, 0.1)
    assert math.log2(coarse / fine) == pytest.approx(2, abs=0.2)
    assert continuity_error(swell, mixture, 30, 0.2, sign=-1.0) > 10 * coarse


def test_the_pulled_back_density_holds_all_mass_and_agrees_with_a_kernel_estimate(swell, mixture):
    """50,000 particles and SciPy's kernel density estimate, whose smoothing bias is a few per cent here."""
    grid, flow = Grid.cube(4.5, 60), Flow(swell, "rk4", 4)
    density = pulled_back(flow, mixture, grid.points, 2.0)
    assert grid.integrate(density).item() == pytest.approx(1.0, abs=1e-4)
    z = sample(mixture, 50_000, rng())
    path = flow.rollout(z, alone(z), range(3))
    found = path.log_density(mixture.log_prob(z))[:500, -1].detach()
    end, dense = path.z[:, -1].detach(), found.exp() > 0.05
    kernel = gaussian_kde(end.T.numpy(), bw_method=0.09)
    apart = [torch.from_numpy(kernel(at.T.numpy()))[dense].log() - found[dense] for at in (end[:500], z[:500])]
    assert apart[0].abs().median() < 0.07
    assert apart[1].abs().median() > 0.14


def test_kl_rate_of_a_flow_and_a_diffusing_prior():
    """d/dt KL(q_t ‖ p_t) by finite differences of the Gaussian closed form, E_q by 200,000 exact samples."""
    q, diffusion, t = torch.tensor([[0.3, 0.2], [0.2, -0.4]]), 0.25, 1.5

    def posterior(s):
        matrix = torch.linalg.matrix_exp(s * q)
        return MultivariateNormal(matrix @ torch.tensor([0.5, -1.0]), matrix @ (0.6 * torch.eye(2)) @ matrix.T)

    def divergence(s):
        return kl_divergence(posterior(s), MultivariateNormal(torch.zeros(2), (1 + 2 * diffusion * s) * torch.eye(2)))

    exact = (divergence(t + 1e-4) - divergence(t - 1e-4)).item() / 2e-4
    z = posterior(t).mean + normal(200_000, 2) @ torch.linalg.cholesky(posterior(t).covariance_matrix).T
    z = torch.cat([z, 2 * posterior(t).mean - z])  # antithetic pairs
    prior = DiffusionPrior(1, diffusion).double()
    prior_score = score(lambda x: prior.log_prob(x, t, alone(x)), z)
    found = kl_rate(z @ q, -diffusion * prior_score, score(posterior(t).log_prob, z), prior_score)
    assert found.item() == pytest.approx(exact, abs=0.01)
    assert abs(exact) > 0.2


def test_hopf_lax_moves_a_gaussian_onto_another_along_straight_lines_at_least_energy():
    """u_0 = ½ yᵀ(A - I)y + b·y: Euler steps along its Hopf-Lax solution are the McCann path, whose gap is 1.

    ∇u(z_t, t) is the velocity of whoever is there: u(z, t) = u_0(y) + ‖z - y‖²/2t with y = (I + t (A - I))⁻¹(z - b t).
    """
    covariance = torch.tensor([[2.0, 1.6], [1.6, 1.5]])
    matrix, offset = gaussian_map(torch.zeros(2), torch.eye(2), torch.tensor([2.0, -1.0]), covariance)
    slope = matrix - torch.eye(2)

    def u0(y):
        return 0.5 * torch.einsum("bi,ij,bj->b", y, slope, y) + y @ offset

    def u(z, t):  # one frame is an eighth of the unit of time, hence the factor
        s = t[:, None, None] / 8
        y = torch.linalg.solve(torch.eye(2) + s * slope, (z - t[:, None] / 8 * offset)[..., None])[..., 0]
        return (u0(y) + 0.5 * t / 8 * (y @ slope.T + offset).square().sum(1)) / 8

    flow, z = Flow(AutogradPotential(u, 2)), normal(400, 2)
    path = flow.rollout(z, alone(z), range(9))
    torch.testing.assert_close(path.z[:, -1], z @ matrix.T + offset)
    assert flow.residuals(path).abs().max() < 1e-12
    assert [efficiency(path.z), ot_gap(path.z)] == pytest.approx([1.0, 1.0])

    axis = torch.linspace(-6, 6, 241)
    support = torch.cartesian_prod(axis, axis)
    half = 8 * u(path.z[:20, 4], torch.full((20,), 4.0))
    by_search = hopf_lax(u0(support), support, path.z[:20, 4], 0.5)
    torch.testing.assert_close(by_search, half, rtol=0, atol=0.01)
    assert (by_search >= half - 1e-9).all()  # a minimum over fewer points


def test_on_a_line_the_end_of_a_monotone_flow_is_the_monotone_rearrangement():
    flow = Flow(AutogradPotential(lambda z, t: 0.3 * torch.log(torch.cosh(2 * z)).sum(1) - z.sum(1), 1))
    z = normal(200, 1)
    end = flow.rollout(z, alone(z), range(4)).z[:, -1]
    torch.testing.assert_close(map_1d(z[:, 0], end[torch.randperm(200), 0]), end[:, 0])
    assert np.all(np.diff(end[z[:, 0].argsort(), 0].numpy()) > 0)
