"""The identities of lessons 04 and 05 where modules meet, each against an oracle that shares no code with it."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde
from torch.distributions import MultivariateNormal, kl_divergence

from poflow_lite.densities import Grid, continuity_residual, gaussian_mixture, kl_rate, sample, score
from poflow_lite.fields import FunctionPotential
from poflow_lite.flows import DiffusionPrior, Flow, PotentialFlow, log_det_identity_plus
from poflow_lite.transport import gaussian_map, hopf_lax, monotone_map, ot_gap, path_energy, straightness, wasserstein

pytestmark = pytest.mark.usefixtures("double")


def alone(z):
    return torch.zeros(len(z), dtype=torch.long)


def noise(count, latent=2, seed=0):
    return torch.randn(count, latent, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def mixture():
    means = torch.tensor([[0.8, 0.2], [-0.9, -0.4]], dtype=torch.float64)
    return gaussian_mixture(means, torch.tensor([0.5, 0.7], dtype=torch.float64))


@pytest.fixture
def swell():
    """A known potential, neither quadratic nor constant in time."""
    return FunctionPotential(lambda z, t: 0.4 * torch.sin(z[:, 0] + 0.5 * t) * torch.cos(z[:, 1]) + 0.1 * z[:, 0], 2)


def pulled_back(flow, mixture, points, frames):
    """p_t at fixed points: log p_0 where the particle came from, less what the flow took from it."""
    k = alone(points)
    start = flow.inverse(points, k, frames)
    return flow.rollout(start, k, frames).log_density(mixture.log_prob(start))[:, -1].exp().detach()


# --- the continuity equation --------------------------------------------------------------------------------------


class Slowed:
    """A field with time running at another pace, so that one frame of it covers ``pace`` frames."""

    transformations = 1

    def __init__(self, field, pace):
        self.field, self.pace = field, pace

    def velocity(self, z, t, k):
        return self.pace * self.field.velocity(z, t * self.pace, k)

    def jacobian(self, z, t, k):
        return self.pace * self.field.jacobian(z, t * self.pace, k)


def continuity_error(field, mixture, cells, dt, sign=1.0):
    """Root mean square residual of the continuity equation at time 0.8, from densities carried by RK4 particles."""
    grid, frames = Grid.cube(3.0, cells), round(0.8 / dt)
    flow = Flow(Slowed(field, dt), "rk4", 2)  # a frame of it is dt
    before, now, after = (pulled_back(flow, mixture, grid.points, n) for n in (frames - 1, frames, frames + 1))
    velocity = sign * field.velocity(grid.points, 0.8, alone(grid.points))
    return continuity_residual(grid, before, now, after, velocity, dt).square().mean().sqrt().item()


def test_a_mixture_moved_by_a_potential_obeys_the_continuity_equation_to_second_order(swell, mixture):
    coarse, fine = continuity_error(swell, mixture, 30, 0.2), continuity_error(swell, mixture, 60, 0.1)
    assert math.log2(coarse / fine) == pytest.approx(2, abs=0.2)
    assert continuity_error(swell, mixture, 30, 0.2, sign=-1.0) > 10 * coarse


def test_mass_is_conserved_by_the_pulled_back_density(swell, mixture):
    grid = Grid.cube(4.5, 60)
    density = pulled_back(Flow(swell, "rk4", 4), mixture, grid.points, 2)
    assert grid.integrate(density).item() == pytest.approx(1.0, abs=1e-4)
    assert (density - mixture.log_prob(grid.points).exp()).abs().max() > 0.05


def test_log_densities_of_particles_agree_with_a_kernel_estimate(swell, mixture):
    """50,000 particles and SciPy's kernel density estimate, whose smoothing bias is a few per cent here."""
    z = sample(mixture, 50_000, torch.Generator().manual_seed(0))
    path = Flow(swell, "rk4", 2).rollout(z, alone(z), 2)
    found = path.log_density(mixture.log_prob(z))[:500, -1].detach()
    kernel = gaussian_kde(path.z[:, -1].detach().T.numpy(), bw_method=0.09)
    at = path.z[:500, -1].detach()
    dense = found.exp() > 0.05
    ratio = torch.from_numpy(kernel(at.T.numpy()))[dense].log() - found[dense]
    assert ratio.abs().median() < 0.07
    unmoved = torch.from_numpy(kernel(z[:500].T.numpy()))[dense].log() - found[dense]
    assert unmoved.abs().median() > 0.14


# --- the prior ----------------------------------------------------------------------------------------------------


class Diffusing:
    """∇ψ = -D ∇log p_t = D z / (1 + 2 D t), written by hand."""

    transformations = 1

    def velocity(self, z, t, k):
        return 0.3 * z / (1 + 0.6 * t[:, None])


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_particles_that_follow_the_priors_potential_end_where_the_closed_form_says(method, order):
    prior, z = DiffusionPrior(1, 0.3).double(), noise(50)
    exact = prior.particles(z, 4.0, alone(z)).detach()

    def error(substeps):
        flow, end = Flow(Diffusing(), method, substeps), z
        for t in range(4):
            end = flow.step(end, float(t), alone(z))
        return (end - exact).norm().item()

    assert math.log2(error(2) / error(4)) > order - 0.3  # the midpoint rule is lucky with this field, it gains 3


def test_kl_rate_of_a_flow_and_a_diffusing_prior():
    """d/dt KL(q_t ‖ p_t) by finite differences of the Gaussian closed form, E_q by 200,000 exact samples."""
    q = torch.tensor([[0.3, 0.2], [0.2, -0.4]], dtype=torch.float64)
    diffusion, t, mean0 = 0.25, 1.5, torch.tensor([0.5, -1.0])

    def posterior(s):
        matrix = torch.linalg.matrix_exp(s * q)
        return MultivariateNormal(matrix @ mean0, matrix @ (0.6 * torch.eye(2)) @ matrix.T)

    def divergence(s):
        return kl_divergence(posterior(s), MultivariateNormal(torch.zeros(2), (1 + 2 * diffusion * s) * torch.eye(2)))

    exact = (divergence(t + 1e-4) - divergence(t - 1e-4)) / 2e-4
    z = posterior(t).mean + noise(200_000) @ torch.linalg.cholesky(posterior(t).covariance_matrix).T
    z = torch.cat([z, 2 * posterior(t).mean - z])  # antithetic pairs
    prior = DiffusionPrior(1, diffusion).double()
    prior_score = score(lambda x: prior.log_prob(x, t, alone(x)), z)
    found = kl_rate(z @ q, -diffusion * prior_score, score(posterior(t).log_prob, z), prior_score)
    assert found.item() == pytest.approx(exact.item(), abs=0.01)
    assert abs(exact.item()) > 0.2


# --- log-determinant, trace, row sums -----------------------------------------------------------------------------


def test_trace_and_row_sums_err_more_and_more_as_the_dimension_grows():
    """Random symmetric H of spectral size ½: the trace misses ½ tr H², which grows like d. Row sums hold all entries
    off the diagonal as well, whose sum has nothing to do with the determinant and wanders off like √d."""
    trace, row_sums = [], []
    for d in (4, 16, 64):
        h = torch.randn(400, d, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
        h = 0.25 * (h + h.mT) / (2 * d) ** 0.5
        exact = log_det_identity_plus(h)
        trace.append((torch.diagonal(h, dim1=1, dim2=2).sum(1) - exact).abs().mean().item())
        row_sums.append(((1 + h.sum(2)).abs().log().sum(1) - exact).abs().mean().item())
        assert trace[-1] == pytest.approx(0.5 * h.square().sum((1, 2)).mean().item(), rel=0.15)
    assert [trace[1] / trace[0], trace[2] / trace[1]] == pytest.approx([4, 4], rel=0.2)
    assert [row_sums[1] / row_sums[0], row_sums[2] / row_sums[1]] == pytest.approx([2, 2], rel=0.2)


# --- optimal transport --------------------------------------------------------------------------------------------


def gaussian_pair():
    mean, covariance = torch.tensor([2.0, -1.0]), torch.tensor([[2.0, 1.6], [1.6, 1.5]])
    return gaussian_map(torch.zeros(2), torch.eye(2), mean, covariance)


def test_hopf_lax_moves_a_gaussian_onto_another_along_straight_lines_at_least_energy():
    """u_0 = ½ yᵀ(A - I)y + b·y: Euler steps along its Hopf-Lax solution are the McCann path, whose gap is 1.

    The closed form u = ½ (z - b t)ᵀ (A_t⁻¹)ᵀ… is avoided: ∇u(z_t, t) is the velocity of whoever is there, so
    u(z, t) = u_0(y) + ‖z - y‖²/(2t) with y = A_t⁻¹(z - b t), A_t = I + t (A - I).
    """
    matrix, offset = gaussian_pair()
    slope = matrix - torch.eye(2)

    def u0(y):
        return 0.5 * torch.einsum("bi,ij,bj->b", y, slope, y) + y @ offset

    def u(z, t):  # one frame is an eighth of the unit of time, hence the factor
        s = t[:, None, None] / 8
        y = torch.linalg.solve(torch.eye(2) + s * slope, (z - t[:, None] / 8 * offset)[..., None])[..., 0]
        return (u0(y) + 0.5 * t / 8 * (y @ slope.T + offset).square().sum(1)) / 8

    flow, z = PotentialFlow(FunctionPotential(u, 2)), noise(400)
    path = flow.rollout(z, alone(z), 8)
    torch.testing.assert_close(path.z[:, -1], z @ matrix.T + offset)
    assert flow.residuals(path, alone(z)).abs().max() < 1e-12
    assert straightness(path.z) == pytest.approx(1.0)
    assert ot_gap(path.z) == pytest.approx(1.0)

    axis = torch.linspace(-6, 6, 241)
    support = torch.cartesian_prod(axis, axis)
    half = 8 * u(path.z[:20, 4], torch.full((20,), 4.0))
    by_search = hopf_lax(u0(support), support, path.z[:20, 4], 0.5)
    torch.testing.assert_close(by_search, half, rtol=0, atol=0.01)
    assert (by_search >= half - 1e-9).all()  # a minimum over fewer points


def test_curved_or_accelerated_particles_violate_hamilton_jacobi():
    """∂_t u + ½‖∇u‖² of u = t b·z (a constant acceleration) is not a function of time alone."""
    flow = PotentialFlow(FunctionPotential(lambda z, t: t * z.sum(1), 2))
    z = noise(50)
    path = flow.rollout(z, alone(z), 4)
    assert flow.residuals(path, alone(z)).std(0).min() > 0.5
    assert straightness(path.z) < 0.75


def test_any_feasible_path_costs_at_least_the_distance():
    """The rotation by 90° carries a tilted Gaussian onto another; its straight lines cost more than Brenier's map."""
    z = noise(500) @ torch.tensor([[1.5, 0.0], [0.0, 0.5]])
    turned = torch.stack([-z[:, 1], z[:, 0]], 1)
    straight = torch.stack([torch.lerp(z, turned, s / 8) for s in range(9)], 1)
    angles = torch.arange(9) / 8 * math.pi / 2
    rotation = torch.stack([torch.stack([a.cos(), -a.sin(), a.sin(), a.cos()]).reshape(2, 2) for a in angles])
    circular = torch.einsum("tij,bj->bti", rotation, z)
    distance = wasserstein(z, turned) ** 2
    energies = [path_energy(path).mean().item() for path in (straight, circular)]
    assert distance < energies[0] < energies[1]
    assert energies[1] == pytest.approx((math.pi / 2) ** 2 * z.square().sum(1).mean().item(), rel=0.01)


def test_on_a_line_the_end_of_a_monotone_flow_is_the_monotone_rearrangement():
    flow = PotentialFlow(FunctionPotential(lambda z, t: 0.3 * torch.log(torch.cosh(2 * z)).sum(1) - z.sum(1), 1))
    z = noise(200, 1)
    end = flow.rollout(z, alone(z), 3).z[:, -1]
    torch.testing.assert_close(monotone_map(z[:, 0], end[torch.randperm(200), 0]), end[:, 0])
    assert np.all(np.diff(end[z[:, 0].argsort(), 0].numpy()) > 0)
