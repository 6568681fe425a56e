"""Log-densities side by side with public alternatives: ``pytest tests/benchmarks/test_density.py``.

Two questions: what do the exact log-determinant and trace cost against automatic differentiation as d grows, and what
does the log-density of a continuous flow cost against torchdiffeq and zuko when all are equally accurate? Errors are
against torchdiffeq at tolerance 1e-12 in double precision, and are printed and kept in ``extra_info``.
"""

import pytest
import torch
from torchdiffeq import odeint
from zuko.transforms import FreeFormJacobianTransform

from poflow_lite.flows import Flow, log_det_identity_plus
from poflow_lite.potentials import Potential

BATCH = 64


# --- one evaluation: log-determinant and trace --------------------------------------------------------------------


def rows_by_autograd(potential, z, k):
    """∇²u, one backward pass of ∇u for each of its d rows."""
    z = z.detach().requires_grad_(True)
    gradient = potential.gradient(z, 1.0, k)
    return torch.stack([torch.autograd.grad(column.sum(), z, retain_graph=True)[0] for column in gradient.unbind(1)], 1)


def trace_by_autograd(potential, z, k):
    """Δu, as most continuous flows compute it: d backward passes, one diagonal entry kept of each."""
    return torch.diagonal(rows_by_autograd(potential, z, k), dim1=1, dim2=2).sum(1)


ROUTES = {
    "log-det": {
        "closed form": lambda u, z, k: log_det_identity_plus(u.hessian(z, 1.0, k)),
        "autograd loop": lambda u, z, k: log_det_identity_plus(rows_by_autograd(u, z, k)),
    },
    "trace": {
        "closed form": lambda u, z, k: u.laplacian(z, 1.0, k),
        "autograd loop": trace_by_autograd,
    },
}


@pytest.mark.benchmark(min_rounds=5, warmup=True)
@pytest.mark.parametrize("route", ["closed form", "autograd loop"])
@pytest.mark.parametrize("quantity", ["log-det", "trace"])
@pytest.mark.parametrize("latent", [2, 4, 8, 16, 32, 64, 128, 256])
def test_log_det_and_trace(benchmark, latent, quantity, route):
    torch.manual_seed(0)
    potential = Potential(latent, 1)
    z, k = torch.randn(BATCH, latent), torch.zeros(BATCH, dtype=torch.long)
    benchmark.group = f"{quantity}, d = {latent:3}"
    found = benchmark(ROUTES[quantity][route], potential, z, k)
    torch.testing.assert_close(found, ROUTES[quantity]["autograd loop"](potential, z, k), rtol=1e-3, atol=1e-3)


# --- a continuous flow at equal accuracy --------------------------------------------------------------------------


def problem(latent):
    """A potential of some strength, points, and the end and log-density change of T = 8 frames to twelve digits."""
    torch.manual_seed(0)
    potential = Potential(latent, 1, frequencies=1).double()
    with torch.no_grad():
        potential.outer.mul_(2)
    potential.requires_grad_(False)
    z = torch.randn(BATCH, latent, dtype=torch.float64)
    return potential, z, torch.zeros(BATCH, dtype=torch.long)


def by_torchdiffeq(potential, z, k, tolerance):
    """Adaptive Dormand-Prince of positions and divergence together, with our closed-form divergence."""

    def rate(t, state):
        return potential.gradient(state[0], t, k), potential.laplacian(state[0], t, k)

    times = torch.tensor([0.0, 8.0], dtype=z.dtype)
    path, lost = odeint(rate, (z, z.new_zeros(len(z))), times, rtol=tolerance, atol=tolerance)
    return path[-1], lost[-1]


def by_torchdiffeq_and_autograd(potential, z, k, tolerance):
    """The same as users of torchdiffeq write it: the divergence by d backward passes."""

    def rate(t, state):
        with torch.enable_grad():
            points = state[0].detach().requires_grad_(True)
            velocity = potential.gradient(points, t, k)
            columns = enumerate(velocity.unbind(1))
            trace = sum(torch.autograd.grad(c.sum(), points, retain_graph=True)[0][:, i] for i, c in columns)
        return velocity.detach(), trace

    times = torch.tensor([0.0, 8.0], dtype=z.dtype)
    path, lost = odeint(rate, (z, z.new_zeros(len(z))), times, rtol=tolerance, atol=tolerance)
    return path[-1], lost[-1]


def by_zuko(potential, z, k, tolerance):
    """zuko's continuous normalizing flow of the same field, exact trace."""
    transform = FreeFormJacobianTransform(
        lambda t, x: potential.gradient(x, t, k), 0.0, 8.0, atol=tolerance, rtol=tolerance
    )
    return transform.call_and_ladj(z)


def by_flow(potential, z, k, tolerance, reference):
    """RK4 with the fewest substeps (1, 2, 4, …) whose largest error is within the tolerance."""
    for substeps in (1, 2, 4, 8, 16, 32):
        flow = Flow(potential, "rk4", substeps, "laplacian")
        path = flow.rollout(z, k, 8)
        if worst((path.z[:, -1], path.log_det.sum(1)), reference) <= tolerance:
            break
    return flow, substeps


def worst(found, reference):
    """Largest error of the log-density, nats."""
    return (found[1] - reference[1]).abs().max().item()


@pytest.mark.benchmark(min_rounds=5, warmup=True)
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
@pytest.mark.parametrize("latent", [2, 16, 64])
@pytest.mark.parametrize("route", ["flow", "torchdiffeq", "torchdiffeq and autograd", "zuko"])
def test_continuous_log_density(benchmark, route, latent, tolerance):
    """Every solver gets this tolerance; ours the substeps that reach it. The error each ends with is reported."""
    potential, z, k = problem(latent)
    reference = by_torchdiffeq(potential, z, k, 1e-12)
    benchmark.group = f"log-density over 8 frames, d = {latent:2}, tolerance {tolerance:g}"
    if route == "flow":
        flow, substeps = by_flow(potential, z, k, tolerance, reference)
        benchmark.extra_info["substeps"] = substeps

        def solve():
            path = flow.rollout(z, k, 8)
            return path.z[:, -1], path.log_det.sum(1)

    else:
        solvers = {
            "torchdiffeq": by_torchdiffeq,
            "torchdiffeq and autograd": by_torchdiffeq_and_autograd,
            "zuko": by_zuko,
        }

        def solve():
            return solvers[route](potential, z, k, tolerance)

    error = worst(benchmark(solve), reference)
    benchmark.extra_info["largest_error_nats"] = error
    print(f"\n{route}, d = {latent}, tolerance {tolerance:g}: largest error {error:.1e} nats {benchmark.extra_info}")
