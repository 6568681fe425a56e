"""Rendering into a file: the layout of 3dshapes.h5, the same pixels, and nothing lost when it is interrupted."""

import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from poflow_lite import cli
from poflow_lite.datasets import SHAPES3D, FactorSpace, Shapes3DFile, render_file
from poflow_lite.datasets.rendering import label_values
from poflow_lite.datasets.scenes import SCENES, Shapes3DLite


class Tiny(Shapes3DLite):
    title, space = "tiny", FactorSpace(SHAPES3D.names, (2, 1, 2, 2, 3, 2))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("poflow_lite.datasets.rendering.PART", 10)


def test_the_file_has_the_layout_of_3dshapes_and_the_pixels_of_the_scene(tmp_path):
    scene = Tiny(8)
    path = render_file(scene, tmp_path / "new folder" / "tiny.h5", progress=False)
    with h5py.File(path) as file:
        assert set(file) == {"images", "labels"}
        assert (file["images"].dtype, file["images"].shape) == (np.uint8, (48, 8, 8, 3))
        assert (file["labels"].dtype, file["labels"].shape) == (np.float64, (48, 6))
        images, labels = file["images"][:], file["labels"][:]
    expected = scene.frames(torch.arange(48)).permute(0, 2, 3, 1).numpy()
    assert (images == expected).all()
    steps = np.array([0.0, 1.0])
    grid = np.meshgrid(steps, [0.0], steps, steps, [0.0, 0.5, 1.0], steps, indexing="ij")
    assert (labels == np.stack([axis.ravel() for axis in grid], -1)).all()
    assert [entry.name for entry in path.parent.iterdir()] == ["tiny.h5"]


def test_the_reader_of_the_real_file_reads_it(tmp_path):
    scene = Tiny(64)
    path = render_file(scene, tmp_path / "tiny.h5", progress=False)
    index = torch.randperm(48, generator=torch.Generator().manual_seed(0)).view(4, 12)
    assert torch.equal(Shapes3DFile(path, space=Tiny.space).frames(index), scene.frames(index))


def test_labels_of_the_whole_grid_are_those_of_the_published_file():
    floor, wall, hue, scale, shape, orientation = label_values(SHAPES3D)
    assert floor.tolist() == wall.tolist() == hue.tolist() == pytest.approx([i / 10 for i in range(10)])
    assert scale.tolist() == pytest.approx([0.75 + 0.5 * i / 7 for i in range(8)])
    assert shape.tolist() == [0, 1, 2, 3]
    assert orientation.tolist() == pytest.approx([-30 + 60 * i / 14 for i in range(15)])


def test_an_interrupted_rendering_goes_on_where_it_stopped_and_leaves_no_half_file(tmp_path, monkeypatch):
    path, rendered = tmp_path / "tiny.h5", []
    original = Tiny.frames

    def frames(self, index, chunk=32):
        if len(rendered) == 25:
            raise KeyboardInterrupt
        rendered.extend(index.tolist())
        return original(self, index, chunk)

    monkeypatch.setattr(Tiny, "frames", frames)
    rendered.extend([-1] * 5)
    with pytest.raises(KeyboardInterrupt):
        render_file(Tiny(8), path, progress=False)
    assert not path.exists()
    assert rendered[5:] == list(range(20))
    rendered.clear()
    render_file(Tiny(8), path, progress=False)
    assert rendered == list(range(20, 48))
    monkeypatch.undo()
    with h5py.File(path) as file:
        assert (file["images"][:] == Tiny(8).frames(torch.arange(48)).permute(0, 2, 3, 1).numpy()).all()


def test_a_file_that_is_there_and_parts_of_another_scene_are_left_alone(tmp_path, monkeypatch):
    path = tmp_path / "tiny.h5"
    path.write_text("precious")
    with pytest.raises(ValueError, match=r"tiny\.h5 exists: choose another file with --out"):
        render_file(Tiny(8), path, progress=False)
    assert path.read_text() == "precious"
    path.unlink()
    monkeypatch.setattr(Tiny, "frames", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        render_file(Tiny(8), path, progress=False)
    with pytest.raises(ValueError, match="holds parts of tiny, 8 px, not of tiny, 16 px"):
        render_file(Tiny(16), path, progress=False)


def test_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setitem(SCENES, "shapes3d-lite", Tiny)
    path = tmp_path / "out.h5"
    result = CliRunner().invoke(cli.app, ["render", "shapes3d-lite", "--out", str(path), "--size", "8"])
    assert result.exit_code == 0, result.output
    assert "48 images" in result.output
    assert h5py.is_hdf5(path)
