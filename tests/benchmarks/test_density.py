"""Log-densities side by side with public alternatives: ``pytest tests/benchmarks/test_density.py``.

Two questions: what do the exact log-determinant and trace cost against automatic differentiation as d grows, and what
does the log-density of a continuous flow cost against torchdiffeq and zuko when all get the same tolerance?

It is not the same accuracy: adaptive solvers hold each step to it and end above it, ours holds the final error and ends
below. Nor is it the same effort: the search for our substeps is not timed, the others' control of their steps is.
Errors are against torchdiffeq at tolerance 1e-12 in double precision, and are printed and kept in ``extra_info``.
"""

import pytest
import torch
from torchdiffeq import odeint
from zuko.transforms import FreeFormJacobianTransform

from poflow_lite.fields import Potential
from poflow_lite.flows import Flow, log_det_identity_plus

BATCH = 64


# --- one evaluation: log-determinant and trace --------------------------------------------------------------------


def rows_by_autograd(potential, z, y):
    """∇²u, one backward pass of ∇u for each of its d rows."""
    z = z.detach().requires_grad_(True)
    gradient = potential.gradient(z, 1.0, y)
    return torch.stack([torch.autograd.grad(column.sum(), z, retain_graph=True)[0] for column in gradient.unbind(1)], 1)


ROUTES = {
    "log-det": {
        "closed form": lambda u, z, y: log_det_identity_plus(u.hessian(z, 1.0, y)),
        "autograd loop": lambda u, z, y: log_det_identity_plus(rows_by_autograd(u, z, y)),
    },
    "trace": {
        "closed form": lambda u, z, y: u.laplacian(z, 1.0, y),
        # as most continuous flows compute it: d backward passes, one diagonal entry kept of each
        "autograd loop": lambda u, z, y: torch.diagonal(rows_by_autograd(u, z, y), dim1=1, dim2=2).sum(1),
    },
}


@pytest.mark.benchmark(min_rounds=5, warmup=True)
@pytest.mark.parametrize("route", ["closed form", "autograd loop"])
@pytest.mark.parametrize("quantity", ["log-det", "trace"])
@pytest.mark.parametrize("latent", [2, 4, 8, 16, 32, 64, 128, 256])
def test_log_det_and_trace(benchmark, latent, quantity, route):
    torch.manual_seed(0)
    potential = Potential(latent, 1)
    z, y = torch.randn(BATCH, latent), torch.ones(BATCH, 1)
    benchmark.group = f"{quantity}, d = {latent:3}"
    found = benchmark(ROUTES[quantity][route], potential, z, y)
    torch.testing.assert_close(found, ROUTES[quantity]["autograd loop"](potential, z, y), rtol=1e-3, atol=1e-3)


# --- a continuous flow at one tolerance ---------------------------------------------------------------------------


def problem(latent):
    """A potential of some strength, points, and the end and log-density change of T = 8 frames to twelve digits."""
    torch.manual_seed(0)
    potential = Potential(latent, 1, frequencies=1).double()
    with torch.no_grad():
        potential.outer.mul_(2)
    potential.requires_grad_(False)
    z = torch.randn(BATCH, latent, dtype=torch.float64)
    return potential, z, torch.ones(BATCH, 1, dtype=torch.float64)


def by_torchdiffeq(potential, z, y, tolerance):
    """Adaptive Dormand-Prince of positions and divergence together, with our closed-form divergence."""
    return solved(
        lambda t, state: (potential.gradient(state[0], t, y), potential.laplacian(state[0], t, y)), z, tolerance
    )


def by_torchdiffeq_and_autograd(potential, z, y, tolerance):
    """The same as users of torchdiffeq write it: the divergence by d backward passes."""

    def rate(t, state):
        with torch.enable_grad():
            points = state[0].detach().requires_grad_(True)
            velocity = potential.gradient(points, t, y)
            columns = enumerate(velocity.unbind(1))
            trace = sum(torch.autograd.grad(c.sum(), points, retain_graph=True)[0][:, i] for i, c in columns)
        return velocity.detach(), trace

    return solved(rate, z, tolerance)


def solved(rate, z, tolerance):
    times = torch.tensor([0.0, 8.0], dtype=z.dtype)
    path, lost = odeint(rate, (z, z.new_zeros(len(z))), times, rtol=tolerance, atol=tolerance)
    return path[-1], lost[-1]


def by_zuko(potential, z, y, tolerance):
    """zuko's continuous normalizing flow of the same field, exact trace."""
    field = {"atol": tolerance, "rtol": tolerance}
    return FreeFormJacobianTransform(lambda t, x: potential.gradient(x, t, y), 0.0, 8.0, **field).call_and_ladj(z)


def by_flow(flow, z, y):
    """RK4 with as many substeps as the flow has."""
    path = flow.rollout(z, y, range(9))
    return path.z[:, -1], path.log_det.sum(1)


def worst(found, reference):
    """Largest error of the log-density, nats."""
    return (found[1] - reference[1]).abs().max().item()


SOLVERS = {
    "torchdiffeq": by_torchdiffeq,
    "torchdiffeq and autograd": by_torchdiffeq_and_autograd,
    "zuko": by_zuko,
}


@pytest.mark.benchmark(min_rounds=5, warmup=True)
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
@pytest.mark.parametrize("latent", [2, 16, 64])
@pytest.mark.parametrize("route", ["flow", *SOLVERS])
def test_continuous_log_density(benchmark, route, latent, tolerance):
    """Every solver gets this tolerance, ours the fewest substeps that end below it, found untimed; errors are kept."""
    potential, z, y = problem(latent)
    reference = by_torchdiffeq(potential, z, y, 1e-12)
    benchmark.group = f"log-density over 8 frames, d = {latent:2}, tolerance {tolerance:g}"
    if route == "flow":
        flows = [Flow(potential, "rk4", substeps, "trace") for substeps in (1, 2, 4, 8, 16, 32)]
        flow = next((f for f in flows if worst(by_flow(f, z, y), reference) <= tolerance), flows[-1])
        benchmark.extra_info["substeps"] = flow.substeps
        found = benchmark(by_flow, flow, z, y)
    else:
        found = benchmark(SOLVERS[route], potential, z, y, tolerance)
    benchmark.extra_info["largest_error_nats"] = error = worst(found, reference)
    print(f"\n{route}, d = {latent}, tolerance {tolerance:g}: largest error {error:.1e} nats {benchmark.extra_info}")
