"""Measurements of rendering and reading, images in one round over its time: ``pytest tests/benchmarks/test_scenes.py``.

One thread, unless a name says otherwise. ``POFLOW_BENCHMARK_FILE=FILE.h5`` reads a whole Shapes3D file, or one that
``poflow-lite render shapes3d-lite`` wrote, instead of a small one.
"""

import os

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from poflow_lite.datasets import SCENES, SHAPES3D, FactorSpace, Shapes3DFile, load_scene, render_file
from poflow_lite.datasets.scenes import Shapes3DLite

IMAGES = 2048


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.benchmark(group=f"rendering {IMAGES:,} images of 64 px")
@pytest.mark.parametrize("order", ["random", "in order"])
@pytest.mark.parametrize("name", SCENES)
def test_rendering(benchmark, name, order):
    """Once the scene is warm: geometry that was traced is kept, as far as it fits (see ``raycast.Cache``)."""
    scene, generator = load_scene(name), torch.Generator().manual_seed(0)

    def index():
        first = torch.randint(len(scene.space) - IMAGES, (), generator=generator)
        everywhere = torch.randint(len(scene.space), (IMAGES,), generator=generator)
        return (everywhere if order == "random" else first + torch.arange(IMAGES),), {}

    for _ in range(4):
        scene.frames(*index()[0])
    benchmark.pedantic(scene.frames, setup=index, rounds=5)


@pytest.mark.benchmark(group="tracing a geometry that is not kept")
@pytest.mark.parametrize("name", SCENES)
def test_tracing(benchmark, name):
    scene, generator = load_scene(name), torch.Generator().manual_seed(0)
    benchmark(lambda: scene._trace(torch.randint(len(scene._traced), (4,), generator=generator)))


class Small(Shapes3DLite):
    title, space = "small", FactorSpace(SHAPES3D.names, (10, 4, 1, 8, 4, 15))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    given = os.environ.get("POFLOW_BENCHMARK_FILE")
    if given:
        return Shapes3DFile(given)
    return Shapes3DFile(render_file(Small(), tmp_path_factory.mktemp("file") / "small.h5", False), space=Small.space)


class RandomSequences(Dataset):
    """Whole batches of sequences of one random factor, drawn by index, so that workers draw different ones."""

    def __init__(self, images, batches=24, size=16, frames=8):
        self.images, self.batches, self.size, self.frames = images, batches, size, frames

    def __len__(self):
        return self.batches

    def __getitem__(self, number):
        generator, space = torch.Generator().manual_seed(number), self.images.space
        position = torch.tensor([0, 3])[torch.randint(2, (self.size,), generator=generator)]
        factors = space.factors(torch.randint(len(space), (self.size,), generator=generator))
        start = space.index(factors.scatter(1, position[:, None], 0))
        steps = torch.tensor(space.strides)[position][:, None] * torch.arange(self.frames)
        return self.images.frames(start[:, None] + steps)


@pytest.mark.benchmark(group=f"reading {24 * 16 * 8:,} frames of random sequences from a file")
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_reading_sequences(benchmark, file, workers):
    def read():
        return sum(len(batch[0]) for batch in DataLoader(RandomSequences(file), batch_size=1, num_workers=workers))

    read()
    benchmark.pedantic(read, rounds=5)
