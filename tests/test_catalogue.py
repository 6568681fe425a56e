"""Every data set by its name: what moves, what it needs, and what is refused."""

import warnings
from functools import partial

import h5py
import pytest
import torch

from poflow_lite.datasets import (
    DATASETS,
    FIVE_TRANSFORMATIONS,
    PAPER_TRANSFORMATIONS,
    SHAPES3D,
    STILLS,
    FactorSequences,
    FactorSpace,
    Shapes3DFile,
    TransformationSequences,
    catalogue,
    load_images,
    load_sequences,
    load_stills,
    plane_and_colour,
    transformation_names,
)
from poflow_lite.recipes import BUDGETS, MODELS, recipe, sequences


def test_what_moves():
    for data in STILLS:
        assert transformation_names(data) == ("scale", "rotate", "hue")
        assert plane_and_colour(data) == PAPER_TRANSFORMATIONS
    for data in ("digits-five", "mnist-five"):
        assert transformation_names(data) == ("scale", "rotate", "hue", "translate", "shear")
        assert plane_and_colour(data) == FIVE_TRANSFORMATIONS
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
                grids = {"shapes3d": 7, "falcor3d": 4, "isaac3d": 3}
                assert recipe(data, budget, model).horizon == grids.get(data.removesuffix("-lite"), 8)


# --- still images -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["letters", "sprites"])
def test_rendered_stills_are_loaded_like_digits(data):
    sequences, stills = load_sequences(data, "test", 8, 28), load_stills(data, "test")
    assert torch.equal(sequences.images, stills.images)
    assert sequences.name == f"{stills.name}, fixed start"
    assert sequences.batch(torch.arange(3), 1).frames.shape == (3, 9, 3, 28, 28)


def test_the_same_digits_under_five_transformations():
    three, five = (load_sequences(data, "test", 8, 28, "random") for data in ("digits", "digits-five"))
    assert torch.equal(five.images, three.images)
    assert three.name == "digits (test, 360 images), random start"
    assert five.name == "digits, five transformations (test, 360 images), random start"
    assert five.names == transformation_names("digits-five")
    fixed = load_sequences("digits-five", "test", 8, 28).batch(torch.arange(20), 3)
    shifted = three.images[:20].roll(4, -1)  # 8 frames of half a pixel
    torch.testing.assert_close(fixed.frames[:, 8], shifted, atol=1e-5, rtol=0)


def test_a_share_of_the_images_and_classes_that_are_left_out():
    whole = load_stills("digits", "train")
    part = load_sequences("digits", "train", 8, 28, labelled=0.5, share=0.1, left_out=(9, 7))
    there = (whole.labels != 7) & (whole.labels != 9)
    count = round(0.1 * int(there.sum()))
    assert torch.equal(part.images, whole.images[there][:count])
    assert part.labelled == round(0.5 * count)
    assert part.name == f"digits (train, {count} images without 7, 9), fixed start"
    assert len(load_sequences("digits-five", "train", 8, 28, share=1e-9)) == 1
    letters = load_sequences("letters", "validation", 8, 28, left_out=(0, 25))
    assert letters.name == "letters (validation, 168 images without A, Z), fixed start"


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
        (lambda: load_sequences("shapes", "train", 7, 64), "unknown data set 'shapes'; known: digits, mnist, letters"),
        (lambda: load_sequences("digits", "train", 8, 64), "digits has images of 28×28 pixels, got pixels = 64"),
        (lambda: load_sequences("shapes3d-lite", "exam", 7, 64), "unknown split 'exam'"),
        (lambda: load_sequences("isaac3d-lite", "train", 7, 64), "camera_height has 4 values, so that T can be 3"),
        (lambda: load_images("mnist"), "unknown grid of factors 'mnist'"),
        (lambda: load_sequences("letters", "test", 8, 32), "letters has images of 28×28 pixels, got pixels = 32"),
        (lambda: load_sequences("digits", "test", 8, 28, left_out=(10,)), "has the label 10; labels that occur: 0, 1"),
        (lambda: load_sequences("isaac3d-lite", "test", 3, 64, left_out=(1,)), "isaac3d-lite has no classes to leave"),
        (lambda: plane_and_colour("shapes3d"), "unknown data set of still images 'shapes3d'; known: digits"),
        (lambda: load_stills("digits-five", "test"), "unknown data set 'digits-five'; known: digits, mnist"),
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
