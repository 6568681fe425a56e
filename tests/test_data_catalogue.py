"""Every data set by its name, one's own among them: what moves, what it needs, what is refused; clouds of points."""

import math
from functools import partial

import h5py
import numpy as np
import PIL.Image
import pytest
import torch

from poflow_lite.datasets import (
    DATASETS,
    FACTOR_IMAGES,
    IMAGES,
    PAIRS,
    ROTATE,
    SHAPES3D,
    ClipSequences,
    FactorSequences,
    FactorSpace,
    GaussianCloud,
    LabelledImages,
    Shapes3DFile,
    TransformationSequences,
    catalogue,
    eight_gaussians,
    image_sequences,
    load_factor_images,
    load_images,
    load_sequences,
    register,
    sample_pair,
    two_moons,
)

FIVE = ("scale", "rotate", "hue", "translate", "shear")
NEEDS_NO_FILES = {
    "digits": FIVE[:3],
    "mnist-10k": FIVE[:3],
    "letters": FIVE[:3],
    "sprites": FIVE[:3],
    "digits-five": FIVE,
    "shapes3d-lite": ("floor_hue", "wall_hue", "object_hue", "scale"),
    "falcor3d-lite": tuple(f"lighting_{a}" for a in ("intensity", *"xyz")) + tuple(f"camera_{a}" for a in "xyz"),
    "isaac3d-lite": (
        "robot_x", "robot_y", "camera_height", "object_scale",
        "lighting_intensity", "lighting_y", "object_colour", "wall_colour",
    ),
}  # fmt: skip


@pytest.mark.parametrize("data", NEEDS_NO_FILES)
def test_sequences_of_every_data_set_that_needs_no_files(data):
    train, test = (load_sequences(data, split, 3, start="random") for split in ("train", "test"))
    assert train.names == NEEDS_NO_FILES[data]
    pixels = 64 if data in FACTOR_IMAGES else 28
    batch = train.sample(3, 1, torch.Generator().manual_seed(0))
    assert batch.frames.shape == (3, 2, 3, pixels, pixels)
    assert 0 <= batch.frames.min() < batch.frames.max() <= 1
    assert "(train, " in train.name
    assert test.name.endswith(", random start")
    if data in FACTOR_IMAGES:
        assert isinstance(train, FactorSequences)
        assert train.images is test.images  # one cache of traced geometry
    else:
        assert torch.equal(test.images, load_images(data.removesuffix("-five"), "test").images)


def test_names_of_data_sets_and_the_same_digits_under_five_transformations():
    assert tuple(DATASETS) == (
        *IMAGES, "digits-five", "mnist-five",
        "shapes3d", "shapes3d-lite", "falcor3d", "falcor3d-lite", "isaac3d", "isaac3d-lite",
    )  # fmt: skip
    three, five = (load_sequences(data, "test", 8, 28) for data in ("digits", "digits-five"))
    assert torch.equal(five.images, three.images)
    assert three.name == "digits (test, 360 images), fixed start"
    assert five.name == "digits, five transformations (test, 360 images), fixed start"
    shifted = three.images[:20].roll(4, -1)  # 8 frames of half a pixel
    torch.testing.assert_close(five.batch(torch.arange(20), 3).frames[:, 8], shifted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("data", "options"), [("digits", {"start": "random"}), ("shapes3d-lite", {"pixels": 16})])
def test_sequences_made_elsewhere_are_the_same(data, options):
    """The frames are made there, by draws of this processor."""
    here = load_sequences(data, "test", 3, **options)
    batches = [which.sample(2, 2, torch.Generator().manual_seed(0)) for which in (here, here.to("cpu"))]
    assert torch.equal(*(batch.frames for batch in batches))
    there = here.to("meta").images
    assert (there if data == "digits" else there.vector(1.0)).device.type == "meta"
    assert (here.images if data == "digits" else here.images.vector(1.0)).device.type == "cpu", "a copy has moved"


def test_a_share_of_the_images_classes_that_are_left_out_and_labels_for_some():
    whole = load_images("digits", "train")
    part = load_sequences("digits", "train", labelled=0.5, share=0.1, left_out=(9, 7))
    there = (whole.labels != 7) & (whole.labels != 9)
    count = round(0.1 * int(there.sum()))
    assert torch.equal(part.images, whole.images[there][:count])
    assert part.labelled == round(0.5 * count)
    assert part.name == f"digits (train, {count} images without 7, 9), fixed start"
    assert len(load_sequences("digits-five", "train", share=1e-9)) == 1
    letters = load_sequences("letters", "validation", left_out=(0, 25))
    assert letters.name == "letters (validation, 168 images without A, Z), fixed start"
    assert [load_sequences("digits", "train", share=0.03, labelled=share).labelled for share in (0.0, 0.01)] == [0, 1]
    rendered = load_sequences("shapes3d-lite", "train", 7, 64, labelled=0.01, share=0.5)
    assert (len(rendered), rendered.labelled) == (168_000, 1680)
    assert rendered.name == "shapes3d-lite, 64 px (train, 168,000 sequences a factor), fixed start"


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
        (
            lambda: load_sequences("shapes", "train"),
            "unknown data set 'shapes'; known: digits, mnist, mnist-10k, letters",
        ),
        (lambda: load_sequences("digits", "train", 8, 64), "digits has images of 28×28 pixels, got pixels = 64"),
        (lambda: load_sequences("shapes3d-lite", "exam", 7, 64), "unknown split 'exam'"),
        (lambda: load_sequences("isaac3d-lite", "train", 7, 64), "camera_height has 4 values, so that T can be 3"),
        (lambda: load_sequences("digits", "test", left_out=(10,)), "has the label 10; labels that occur: 0, 1"),
        (lambda: load_sequences("isaac3d-lite", "test", 3, left_out=(1,)), "isaac3d-lite has no classes to leave"),
        (lambda: load_factor_images("mnist"), "unknown grid of factors 'mnist'; known: shapes3d, shapes3d-lite"),
        (lambda: load_factor_images("shapes3d", 128), "Shapes3D has images of 64×64 pixels, got pixels = 128"),
        (lambda: register("digits", None), "there is a data set 'digits' already: choose another name"),
    ],
)
def test_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_data_of_ones_own_are_loaded_like_any_other(monkeypatch):
    monkeypatch.setattr(catalogue, "DATASETS", dict(DATASETS))
    images = torch.rand(10, 1, 20, 24, generator=torch.Generator().manual_seed(0))
    mine = {s: LabelledImages(images, torch.arange(10) % 2, "mine", s, ("a", "b")) for s in ("train", "test")}
    register("mine", lambda split, **settings: image_sequences(mine[split], (ROTATE,), **settings))
    found = load_sequences("mine", "train", 4, start="random", labelled=0.5, share=0.8, left_out=(1,))
    assert isinstance(found, TransformationSequences)
    assert (found.name, found.labelled) == ("mine (train, 4 images without b), random start", 2)
    assert found.sample(2).frames.shape == (2, 5, 1, 20, 24)
    with pytest.raises(ValueError, match="mine has images of 20×24 pixels, got pixels = 28"):
        load_sequences("mine", "test", pixels=28)
    register("own", lambda split, *, pixels, **settings: image_sequences(mine[split], (ROTATE,), **settings))
    assert load_sequences("own", "test", pixels=28).image_shape == (1, 20, 24)
    register("films", lambda split, **_: ClipSequences(images[None].repeat(2, 1, 1, 1, 1), torch.arange(2), ("a", "b")))
    assert load_sequences("films", "test").horizon == 9


@pytest.mark.parametrize(("packed", "in_memory"), [(1, False), (150, True)])
def test_a_file_of_the_layout_of_3dshapes_is_trained_on(packed, in_memory, tmp_path, monkeypatch):
    """Images that are packed by the hundred are read once and kept, or each batch would unpack them all."""
    space = FactorSpace(SHAPES3D.names, (2, 2, 2, 2, 4, 15))
    monkeypatch.setattr(catalogue, "Shapes3DFile", partial(Shapes3DFile, space=space))
    monkeypatch.setenv("POFLOW_DATA", str(tmp_path))
    index = torch.arange(len(space))
    pixels = (index % 251).to(torch.uint8)[:, None, None, None].expand(-1, 64, 64, 3).numpy()
    with h5py.File(tmp_path / "3dshapes.h5", "w") as file:
        file.create_dataset("images", data=pixels, chunks=(packed, 64, 64, 3), compression="gzip")
        file["labels"] = space.factors(index).double().numpy()
    train, test = (load_sequences("shapes3d", split, 1) for split in ("train", "test"))
    assert train.images is test.images
    assert train.images.in_memory == in_memory
    place = train.grid_indices(torch.arange(4), torch.zeros(4).long(), torch.tensor([[0, 1]]).expand(4, -1))
    found = train.batch(torch.arange(4), 0).frames[..., 0, 0, 0]
    assert torch.equal((255 * found).round().long(), place % 251)


@pytest.mark.parametrize(("data", "labels"), [("Falcor3D", "train-rec.labels"), ("Isaac3D", "labels.npy")])
def test_the_published_folders_have_labels_of_their_own_names(data, labels, tmp_path, monkeypatch):
    monkeypatch.setenv("POFLOW_DATA", str(tmp_path))
    monkeypatch.setitem(FACTOR_IMAGES, "tiny", partial(catalogue._folder, FactorSpace(("a",), (3,)), data, labels))
    folder = tmp_path / f"{data}_down128"
    (folder / "images").mkdir(parents=True)
    for row in range(3):
        PIL.Image.new("RGB", (8, 8), (row, 0, 0)).save(folder / "images" / f"{row:06d}.png")
    with open(folder / labels, "wb") as file:
        np.save(file, np.arange(3.0)[:, None])
    assert load_factor_images("tiny", 4).frames(torch.arange(3))[:, 0, 0, 0].tolist() == [0, 1, 2]
    (folder / labels).write_bytes(b"")
    with pytest.raises(ValueError, match=f"{labels} is no array"):
        load_factor_images("tiny", 4)


# --- clouds of points -----------------------------------------------------------------------------------------------


def draw(sampler, count=20_000):
    return sampler(count, torch.Generator().manual_seed(0))


def test_gaussian_cloud_has_its_moments():
    z = draw(GaussianCloud((2.0, -1.0), ((2.0, 1.6), (1.6, 1.5))))
    torch.testing.assert_close(z.mean(0), torch.tensor([2.0, -1.0]), rtol=0, atol=0.05)
    torch.testing.assert_close(z.T.cov(), torch.tensor([[2.0, 1.6], [1.6, 1.5]]), rtol=0, atol=0.06)


def test_eight_gaussians_lie_evenly_on_a_circle():
    z = draw(eight_gaussians)
    nearest = (torch.atan2(z[:, 1], z[:, 0]) / (math.pi / 4)).round().long() % 8
    torch.testing.assert_close(nearest.bincount() / len(z), torch.full((8,), 1 / 8), rtol=0, atol=0.01)
    for i in range(8):
        centre = torch.tensor([4 * math.cos(i * math.pi / 4), 4 * math.sin(i * math.pi / 4)])
        torch.testing.assert_close(z[nearest == i].mean(0), centre, rtol=0, atol=0.05)
        torch.testing.assert_close(z[nearest == i].std(0), torch.full((2,), 0.4), rtol=0, atol=0.03)


def test_two_moons_are_half_circles_of_radius_two_and_mirror_each_other():
    z = draw(two_moons)
    upper, lower = z - torch.tensor([-1.0, -0.5]), z - torch.tensor([1.0, 0.5])
    radius = torch.minimum((upper.norm(dim=1) - 2).abs(), (lower.norm(dim=1) - 2).abs())
    assert (radius.median() < 0.12, radius.max() < 0.8) == (True, True)
    torch.testing.assert_close(z.mean(0), torch.zeros(2), rtol=0, atol=0.05)
    assert (z[:, 1].max() > 1.2, z[:, 1].min() < -1.2) == (True, True)


@pytest.mark.parametrize("pair", PAIRS)
def test_pairs_come_from_the_generator_alone(pair):
    before = torch.get_rng_state()
    one, same, other = (sample_pair(pair, 5, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.source.shape == one.target.shape == (5, 2)
    assert torch.equal(one.source, same.source)
    assert torch.equal(one.target, same.target)
    assert not torch.equal(one.source, other.source)
    assert one.to("meta").target.device.type == "meta"


def test_unknown_pair_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown pair 'rings'; known: gaussians, moons"):
        sample_pair("rings", 5, torch.Generator())
