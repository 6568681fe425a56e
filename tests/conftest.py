"""Fixtures shared by the unit tests: no network, a fixed seed, double precision, small potentials and sequences."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # a process for each core: more threads, here or in a kernel, would only wait
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import pytest_socket
import torch
from hypothesis import settings

from poflow_lite.datasets import Transformation, TransformationSequences, data_directory
from poflow_lite.fields import Potential

settings.register_profile("poflow_lite", deadline=None, derandomize=True, database=None, max_examples=25)
settings.load_profile("poflow_lite")


@pytest.fixture(autouse=True)
def no_network(request):
    """No internet in a unit test; one that starts a notebook kernel asks for sockets by ``@mark.enable_socket``."""
    if request.node.get_closest_marker("enable_socket"):
        yield
        return
    pytest_socket.disable_socket(allow_unix_socket=True)
    yield
    pytest_socket.enable_socket()


@pytest.fixture(autouse=True)
def fixed_seed():
    """Initial weights and unnamed draws are the same in every order of the tests."""
    torch.manual_seed(0)


@pytest.fixture
def double():
    """Everything that is created without a dtype is float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def make_potential():
    """A float64 potential in which every parameter is random, none is left at its initial 0."""

    def make(latent=3, transformations=2, seed=0, strength=0.3, **sizes) -> Potential:
        sizes = {"width": 5, "horizon": 4, "frequencies": 2, **sizes}
        potential = Potential(latent, transformations, **sizes).double()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in potential.parameters():
                parameter.copy_(strength * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        return potential

    return make


@pytest.fixture(scope="session")
def make_quadratic():
    """u^k = ½ zᵀ Q^k z + z·b^k, whose step is the affine map z ↦ (I + Q^k) z + b^k."""

    def make(quadratic, linear=None, **sizes) -> Potential:
        quadratic = torch.as_tensor(quadratic, dtype=torch.float64)
        potential = Potential(quadratic.shape[1], len(quadratic), width=1, **sizes).double()
        with torch.no_grad():
            for parameter in potential.parameters():
                parameter.zero_()
            potential.quadratic.copy_(quadratic)
            if linear is not None:
                potential.linear[..., 0] = torch.as_tensor(linear, dtype=torch.float64)
        return potential

    return make


def _brightness(rate: float, name: str) -> Transformation:
    """x_t = x_0 exp(-rate t): a one-parameter group that works on images of any size."""
    return Transformation(
        name, lambda t: rate * t, (0.0, 0.5), recolour=lambda x, a: x * torch.exp(-a)[:, None, None, None]
    )


HALVE, STILL = _brightness(float(torch.log(torch.tensor(2.0, dtype=torch.float64))), "halve"), _brightness(0.0, "still")


@pytest.fixture(scope="session")
def make_fading():
    """Sequences whose images are halved at every frame ("halve"), or do not change ("still")."""

    def make(images, horizon=2, names=("halve", "still"), **options) -> TransformationSequences:
        chosen = tuple({"halve": HALVE, "still": STILL}[name] for name in names)
        return TransformationSequences(images, chosen, horizon=horizon, **options)

    return make


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The folder that holds MNIST/raw; where there is none, the test is skipped."""
    root = data_directory()
    if not (root / "MNIST" / "raw").is_dir():
        pytest.skip(f"MNIST is not in {root}: `poflow-lite download mnist` or POFLOW_DATA=DIR makes this test run")
    return root


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; where there is none, the tests are skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install '.[site]'")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as running:
        quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = running.chromium.launch(executable_path=chromium, args=quiet)
        yield browser
        browser.close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def serve():
    """Shows folders to a browser on this machine: folder ↦ address."""
    servers = []

    def start(folder):
        handler = functools.partial(_Quiet, directory=str(folder))
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
