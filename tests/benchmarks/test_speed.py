"""Measurements, not assertions: ``pytest tests/benchmarks``. Compare figures of one run only; machines are noisy.

Each group holds what is to be compared; ``--benchmark-json FILE`` keeps the figures.
"""

import multiprocessing
import re
from pathlib import Path

import pytest
import torch
from torch.func import grad, hessian, vmap

from poflow_lite.datasets import TransformationSequences, load_images
from poflow_lite.experiments import build_model, recipe
from poflow_lite.fields import Potential
from poflow_lite.flows import Flow, log_det_identity_plus

BATCH = 64


@pytest.fixture(scope="module")
def training():
    return TransformationSequences(load_images("digits", "train").images)


# --- one training step --------------------------------------------------------------------------------------------


def step_of(model, batch):
    """Forward, backward and update on a batch that is there already."""
    optimizer = torch.optim.Adam(model.parameters())

    def step():
        optimizer.zero_grad()
        model.terms(batch, torch.Generator().manual_seed(0)).loss.backward()
        optimizer.step()

    return step


@pytest.mark.benchmark(group="one training step, 4 images decoded per sequence", min_rounds=15, warmup=True)
@pytest.mark.parametrize("model", ["vae", "flow-factorized"])
def test_training_step(benchmark, training, model):
    """Both decode 4 B images: the VAE 4 frames of each sequence, the flow 3 of them and one autoencoded."""
    batch = training.sample(BATCH, 3 if model == "vae" else 2, torch.Generator().manual_seed(0))
    benchmark(step_of(build_model(model, recipe("digits", "lecture", model)), batch))


@pytest.mark.benchmark(group="one training step of the paper's objective, 3 images decoded per sequence", min_rounds=15)
@pytest.mark.parametrize("model", ["vae", "flow-factorized"])
def test_training_step_of_the_papers_objective(benchmark, training, model):
    """The same comparison without the autoencoding term."""
    changes = {} if model == "vae" else {"autoencoding": 0.0}
    batch = training.sample(BATCH, 2, torch.Generator().manual_seed(0))
    benchmark(step_of(build_model(model, recipe("digits", "lecture", model, **changes)), batch))


# --- gradient and exact log-determinant of the potential ----------------------------------------------------------


def closed_form(potential, z, t, y):
    return Flow(potential).step(z, t, y), log_det_identity_plus(potential.hessian(z, t, y))


def one_row_at_a_time(potential, z, t, y):
    """The usual autograd route: differentiate the value, then each component of the gradient, keeping the graph."""
    z = z.detach().requires_grad_(True)
    gradient = torch.autograd.grad(potential.value(z, t, y).sum(), z, create_graph=True)[0]
    rows = [torch.autograd.grad(column.sum(), z, create_graph=True)[0] for column in gradient.unbind(1)]
    return z + gradient, log_det_identity_plus(torch.stack(rows, 1))


def batched_autograd(potential, z, t, y):
    """torch.func's vectorised route."""

    def value(point, weights):
        return potential.value(point[None], t, weights[None])[0]

    return z + vmap(grad(value))(z, y), log_det_identity_plus(vmap(hessian(value))(z, y))


@pytest.mark.benchmark(group="gradient + log-det, forward and backward", min_rounds=5)
@pytest.mark.parametrize("route", [closed_form, batched_autograd, one_row_at_a_time])
@pytest.mark.parametrize("latent", [16, 32, 64, 128])
def test_gradient_and_log_det(benchmark, latent, route):
    torch.manual_seed(0)
    potential = Potential(latent, 3)
    z, y = torch.randn(BATCH, latent), torch.eye(3)[torch.arange(BATCH) % 3]
    benchmark.group += f", d = {latent}"

    def forward_and_backward():
        moved, log_det = route(potential, z, 1.0, y)
        (moved.square().sum() + log_det.sum()).backward()

    benchmark(forward_and_backward)


# --- data and memory ----------------------------------------------------------------------------------------------


@pytest.mark.benchmark(group="sequences", min_rounds=10)
def test_sequences_per_second(benchmark, training):
    """A batch of 64 whole sequences, 9 frames each: sequences per second = 64 / time."""
    benchmark(lambda: training.sample(BATCH, generator=torch.Generator().manual_seed(0)))


def peak_of_training(model: str) -> float:
    """Largest resident set, in MiB, of a process that does nothing but 20 training steps."""
    training = TransformationSequences(load_images("digits", "train").images)
    step = step_of(build_model(model, recipe("digits", "lecture", model)), training.sample(BATCH, 2))
    for _ in range(20):
        step()
    return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc, which Linux has")
@pytest.mark.benchmark(group="peak memory (the time is that of the whole process)")
@pytest.mark.parametrize("model", ["vae", "flow-factorized"])
def test_peak_memory(benchmark, model):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak = benchmark.pedantic(pool.apply, (peak_of_training, (model,)), rounds=1)
    benchmark.extra_info["peak_mebibytes"] = round(peak)
    print(f"\n{model}: peak resident memory {peak:.0f} MiB")
