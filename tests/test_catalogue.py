"""Every data set by its name: what moves, what it needs, and what is refused."""

import warnings
from functools import partial

import h5py
import pytest
import torch

from poflow_lite.datasets import (
    DATASETS,
    SHAPES3D,
    FactorSequences,
    FactorSpace,
    Shapes3DFile,
    TransformationSequences,
    catalogue,
    load_images,
    load_sequences,
    transformation_names,
)
from poflow_lite.recipes import BUDGETS, MODELS, recipe, sequences


def test_what_moves():
    assert transformation_names("digits") == transformation_names("mnist") == ("scale", "rotate", "hue")
    assert transformation_names("shapes3d") == ("floor_hue", "wall_hue", "object_hue", "scale")
    assert len(transformation_names("falcor3d")) == 7
    assert len(transformation_names("isaac3d")) == 8
    assert "object_shape" not in transformation_names("isaac3d")
    for data in ("shapes3d", "falcor3d", "isaac3d"):
        assert transformation_names(data) == transformation_names(f"{data}-lite")


@pytest.mark.parametrize("data", [name for name in DATASETS if name.endswith("-lite")])
def test_rendered_sequences_in_the_form_of_the_recipe(data):
    settings = recipe(data, "smoke")
    train, test = (sequences(data, split, settings) for split in ("train", "test"))
    assert isinstance(train, FactorSequences)
    assert train.images is test.images  # one memory of traced geometry
    batch = train.sample(3, 1, torch.Generator().manual_seed(0))
    assert batch.frames.shape == (3, 2, 3, 64, 64)
    assert 0 <= batch.frames.min() < batch.frames.max() <= 1
    assert train.names == transformation_names(data)
    assert data in train.name
    assert "(train, " in train.name


def test_every_data_set_has_a_recipe_of_every_budget_for_every_model():
    for data in DATASETS:
        for budget in BUDGETS:
            for model in MODELS:
                assert recipe(data, budget, model).horizon == {"s": 7, "f": 4, "i": 3}.get(data[0], 8)


def test_labelled_is_a_share_of_the_images():
    assert load_sequences("digits", "train", 8, 28, labelled=0.1).labelled == 126
    rendered = load_sequences("shapes3d-lite", "train", 7, 64, labelled=0.01)
    assert rendered.labelled == 3360
    assert isinstance(load_sequences("digits", "test", 8, 28), TransformationSequences)


@pytest.mark.parametrize(
    ("data", "file"), [("shapes3d", "3dshapes.h5"), ("falcor3d", "Falcor3D_down128"), ("isaac3d", "Isaac3D_down128")]
)
def test_missing_files_are_named_and_never_replaced_by_rendered_ones(data, file, tmp_path, monkeypatch):
    monkeypatch.setenv("POFLOW_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=file):
        load_sequences(data, "train", 3, 64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_sequences("shapes", "train", 7, 64), "unknown data set 'shapes'; known: digits, mnist, shapes3d"),
        (lambda: load_sequences("digits", "train", 8, 64), "digits has images of 28×28 pixels, got pixels = 64"),
        (lambda: load_sequences("shapes3d-lite", "exam", 7, 64), "unknown split 'exam'"),
        (lambda: load_sequences("isaac3d-lite", "train", 7, 64), "camera_height has 4 values, so that T can be 3"),
        (lambda: load_images("mnist"), "unknown grid of factors 'mnist'"),
        (lambda: load_images("shapes3d", 128), "Shapes3D has images of 64×64 pixels, got pixels = 128"),
        (lambda: transformation_names("x"), "unknown data set 'x'"),
    ],
)
def test_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("packed", "in_memory"), [(1, False), (150, True)])
def test_a_file_of_the_layout_of_3dshapes_is_trained_on(packed, in_memory, tmp_path, monkeypatch):
    """Images that are packed by the hundred are read once and kept, or each batch would unpack them all."""
    space = FactorSpace(SHAPES3D.names, (2, 2, 2, 2, 4, 15))
    monkeypatch.setattr(catalogue, "Shapes3DFile", partial(Shapes3DFile, space=space))
    monkeypatch.setenv("POFLOW_DATA", str(tmp_path))
    count = len(space)
    pixels = (torch.arange(count) % 251).to(torch.uint8)[:, None, None, None].expand(-1, 64, 64, 3).numpy()
    with h5py.File(tmp_path / "3dshapes.h5", "w") as file:
        file.create_dataset("images", data=pixels, chunks=(packed, 64, 64, 3), compression="gzip")
        file["labels"] = space.factors(torch.arange(count)).double().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train, test = (load_sequences("shapes3d", split, 1, 64) for split in ("train", "test"))
    assert train.images is test.images
    assert train.images.in_memory == in_memory
    batch = train.sample(8, generator=torch.Generator().manual_seed(0))
    assert batch.frames.shape == (8, 2, 3, 64, 64)
    place = train.grid_indices(torch.arange(4), torch.zeros(4).long(), torch.tensor([[0, 1]]).expand(4, -1))
    found = train.batch(torch.arange(4), 0).frames[..., 0, 0, 0]
    assert torch.equal((255 * found).round().long(), place % 251)
