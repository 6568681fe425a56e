"""Still images: the doors for users' images, the digits, MNIST and the tenth of it in the package, drawn glyphs."""

import shutil

import numpy as np
import PIL.Image
import pytest
import torch
import torchvision
from matplotlib.path import Path
from sklearn.datasets import load_digits as bundled_digits
from sklearn.svm import SVC
from torch.nn import functional as F

from poflow_lite.datasets import (
    IMAGES,
    LETTERS,
    SPLITS,
    SPRITES,
    LabelledImages,
    as_images,
    data_directory,
    download_mnist,
    image_folder,
    images,
    in_red,
    load_images,
    only,
    without,
)
from poflow_lite.datasets.glyphs import fill, outlines

BYTES = torch.randint(256, (3, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
FLOATS = BYTES.float() / 255


# --- images from elsewhere ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (BYTES, FLOATS),
        (BYTES.numpy(), FLOATS),
        (FLOATS, FLOATS),
        (FLOATS.numpy(), FLOATS),
        (FLOATS.numpy()[..., ::-1], FLOATS.flip(-1)),
        (list(BYTES.numpy()), FLOATS),
        (FLOATS.double(), FLOATS),
        (FLOATS.half(), FLOATS.half().float()),
        (FLOATS.clone().requires_grad_(), FLOATS),
        (BYTES[:, 0], FLOATS[:, :1]),
        (BYTES[:, 0].numpy(), FLOATS[:, :1]),
        (FLOATS[:, :1], FLOATS[:, :1]),
    ],
)
def test_images_of_every_kind_become_floats_of_four_axes(given, expected):
    found = as_images(given)
    assert torch.equal(found, expected)
    assert (found.dtype, found.requires_grad) == (torch.float32, False)


def test_images_follow_the_default_dtype(double):
    assert as_images(FLOATS).dtype == as_images(BYTES).dtype == torch.float64


def spoiled(value):
    spoilt = FLOATS.clone()
    spoilt[1, 0, 2, 3] = value
    return spoilt


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (FLOATS[0, 0], r"must be \(N, C, H, W\), or \(N, H, W\) if grey, got \(5, 7\)"),
        (FLOATS[None], r"got \(1, 3, 3, 5, 7\)"),
        (FLOATS[:0], r"images \(0, 3, 5, 7\) hold no pixel: a data set needs at least one"),
        (FLOATS.movedim(1, 3), r"channels come second, \(N, C, H, W\), got \(3, 5, 7, 3\)"),
        (torch.rand(48, 64, 3), r"one image \(48, 64, 3\)\? images are \(N, C, H, W\): move its last axis"),
        (BYTES.long(), r"must be uint8 or floating point in \[0, 1\], got torch.int64; convert"),
        (BYTES.numpy().astype(int), "got torch.int64"),
        ([[1.0], [1.0, 2.0]], "must be an array of numbers"),
        (["a.png"], "must be an array of numbers"),
        (255 * FLOATS, r"pixel values must lie in \[0, 1\], got 0 to 254; rescale"),
        (spoiled(-0.5), r"must lie in \[0, 1\], got -0.5 to"),
        (spoiled(float("nan")), "1 of 3 images hold NaN or infinite pixels; clean"),
        (spoiled(float("inf")).numpy(), "1 of 3 images hold NaN or infinite pixels"),
        (spoiled(float("-inf")), "1 of 3 images hold NaN or infinite pixels"),
    ],
)
def test_other_images_are_refused_in_one_line(given, message):
    with pytest.raises(ValueError, match=message) as error:
        as_images(given)
    assert "\n" not in str(error.value)


def test_grey_pictures_are_put_into_the_red_channel():
    for grey in (BYTES[:, 0], BYTES[:, :1], FLOATS[:, 0].numpy()):
        found = in_red(grey)
        assert torch.equal(found[:, 0], FLOATS[:, 0])
        assert found[:, 1:].abs().max() == 0
    with pytest.raises(ValueError, match="only grey images can be put in red, got 3 channels"):
        in_red(BYTES)


@pytest.fixture
def folder(tmp_path):
    """b.png is grey, a.JPG and c.png are not; a text file and a folder lie about."""
    for name, size, mode in (("b.png", (6, 4), "L"), ("c.png", (6, 4), "RGBA"), ("a.JPG", (6, 4), "RGB")):
        PIL.Image.new(mode, size, 128).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "more.png.d").mkdir()
    return tmp_path


def test_a_folder_of_images_in_the_order_of_names(folder):
    found = image_folder(folder)
    assert found.shape == (3, 3, 4, 6)
    assert torch.equal(found[1], torch.full((3, 4, 6), 128 / 255))
    (folder / "a.JPG").unlink()
    (folder / "c.png").unlink()
    assert image_folder(str(folder)).shape == (1, 1, 4, 6)


def half_clear(mode):
    image = PIL.Image.new(mode, (6, 4), 200 if mode == "LA" else (200, 100, 0))
    image.putalpha(51)  # a fifth
    return image


def in_palette(**options):
    image = PIL.Image.new("P", (6, 4), 1)
    image.putpalette([9, 9, 9, 200, 100, 0])
    image.info |= options
    return image


@pytest.mark.parametrize(
    ("image", "seen"),
    [
        (PIL.Image.fromarray(np.full((4, 6), 30_000, np.uint16)), [117]),  # 30,000 / 65,535 of 255
        (PIL.Image.new("1", (6, 4), 1), [255]),
        (in_palette(), [200, 100, 0]),
        (in_palette(transparency=1), [0, 0, 0]),
        (half_clear("RGB"), [40, 20, 0]),
        (half_clear("LA"), [40]),
    ],
    ids=["16 bits", "1 bit", "palette", "clear palette", "alpha", "grey alpha"],
)
def test_an_image_is_read_as_it_is_seen_on_black(tmp_path, image, seen):
    image.save(tmp_path / "a.png")
    found = image_folder(tmp_path)
    assert found.shape == (1, len(seen), 4, 6)
    assert (255 * found[0, :, 1, 1]).round().tolist() == seen


def test_a_photograph_that_lies_on_its_side_is_turned_upright(tmp_path):
    pixels = np.zeros((4, 6), np.uint8)
    pixels[0] = 255
    turned = PIL.Image.Exif()
    turned[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png", exif=turned)
    found = image_folder(tmp_path)[0, 0]
    assert found.shape == (6, 4)
    assert found[:, -1].tolist() == [1.0] * 6


@pytest.mark.parametrize("dtype", [np.uint8, bool])
def test_masks_of_zeros_and_ones_stay_what_they_are(dtype):
    mask = np.eye(4, dtype=dtype)[None]
    assert torch.equal(as_images(mask)[0, 0], torch.eye(4))
    assert as_images(2 * np.eye(4, dtype=np.uint8)[None]).max() == 2 / 255


def test_size_cuts_about_the_middle_and_resamples(folder):
    wide = np.zeros((40, 60), np.uint8)
    wide[:, 10:50], wide[:, :10], wide[:, 50:] = 200, 255, 255  # the middle square is of one grey
    PIL.Image.fromarray(wide).save(folder / "d.png")
    with pytest.raises(ValueError, match=r"d\.png has \(60, 40\) pixels, a\.JPG has \(6, 4\): give size="):
        image_folder(folder)
    assert image_folder(folder, size=(4, 6)).shape == (4, 3, 4, 6)  # height and width, as everywhere
    found = image_folder(folder, size=8)
    assert found.shape == (4, 3, 8, 8)
    torch.testing.assert_close(found[3], torch.full((3, 8, 8), 200 / 255), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda at: (at / "b.png").write_bytes(b"no image"), ValueError, r"b\.png is not a whole image"),
        (lambda at: [file.unlink() for file in at.glob("*.[pJ]*[gG]")], ValueError, "holds no PNG or JPEG file"),
        (shutil.rmtree, FileNotFoundError, "there is no folder .*: name one that holds PNG or JPEG"),
    ],
)
def test_a_folder_that_cannot_be_read_is_named(folder, spoil, error, message):
    spoil(folder)
    with pytest.raises(error, match=message):
        image_folder(folder)


# --- labels -------------------------------------------------------------------------------------------------------


@pytest.fixture
def blots():
    """Seven images, each of one brightness, of classes a, b, c."""
    brightness = torch.linspace(0, 1, 7)[:, None, None, None].expand(-1, 3, 28, 28)
    return LabelledImages(brightness, torch.tensor([0, 1, 2, 1, 0, 2, 2]), "blots", "train", ("a", "b", "c"))


def test_only_and_without_divide_the_images_keep_their_order_and_say_so(blots):
    chosen, rest = only(blots, (2, 0)), without(blots, [0, 2, 2])
    assert (chosen.labels.tolist(), rest.labels.tolist()) == ([0, 2, 0, 2, 2], [1, 1])
    assert torch.equal(chosen.images, blots.images[[0, 2, 4, 5, 6]])
    assert torch.equal(rest.images, blots.images[[1, 3]])
    assert blots.name == "blots (train, 7 images)"
    assert chosen.name == "blots (train, 5 images of only a, c)"
    assert without(without(blots, (1,)), (0,)).name == "blots (train, 3 images without b without a)"
    assert without(blots, ()) is blots


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda blots: only(blots, (3, 1, 5)), r"no image of blots .* has the label 3, 5; labels that occur: 0, 1, 2"),
        (lambda blots: without(only(blots, (1,)), (0,)), "has the label 0; labels that occur: 1"),
        (lambda blots: without(blots, (0, 1, 2)), r"no image .* is left: .* without the labels \[0, 1, 2\]"),
        (lambda blots: only(blots, ()), r"no image of blots .* is left: .* of only the labels \[\]"),
    ],
)
def test_labels_that_do_not_occur_and_empty_rests_are_refused(blots, call, message):
    with pytest.raises(ValueError, match=message):
        call(blots)


# --- data sets that need no download --------------------------------------------------------------------------------

SIZES = {
    "digits": (1257, 180, 360),
    "mnist-10k": (8000, 1000, 1000),
    "letters": (1248, 182, 364),
    "sprites": (1280, 184, 360),
}


@pytest.fixture(scope="module")
def loaded():
    return {data: {split: load_images(data, split) for split in SPLITS} for data in SIZES}


@pytest.mark.parametrize("data", SIZES)
def test_red_framed_in_range_with_every_class_in_every_split(loaded, data):
    kinds = {"letters": tuple(LETTERS), "sprites": tuple(SPRITES)}.get(data, tuple("0123456789"))
    for split, size in zip(SPLITS, SIZES[data], strict=True):
        found = loaded[data][split]
        assert found.name == f"{data.replace('mnist', 'MNIST')} ({split}, {size:,} images)"
        assert (found.images.shape, found.images.dtype) == ((size, 3, 28, 28), torch.float32)
        assert (found.images.min(), found.images.max()) == (0, 1)
        assert found.images[:, 1:].abs().max() == 0
        assert found.images[:, 0].amax((1, 2)).min() > 0.6
        assert (found.classes, found.labels.unique().tolist()) == (kinds, list(range(len(kinds))))
        assert found.source
        if data != "mnist-10k":  # MNIST centres by mass
            assert torch.equal(F.pad(found.images[..., 4:-4, 4:-4], (4, 4, 4, 4)), found.images)


@pytest.mark.parametrize("data", SIZES)
def test_splits_share_no_image_and_never_change(loaded, data):
    pixels = torch.cat([loaded[data][split].images[:, 0].flatten(1).double() for split in SPLITS])
    prints = pixels @ torch.rand(784, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert len(prints.unique()) == len(prints)
    first = {split: loaded[data][split].labels[:4].tolist() for split in SPLITS}
    assert (
        first
        == {
            "digits": {"train": [6, 5, 5, 7], "validation": [8, 2, 1, 8], "test": [2, 4, 8, 4]},
            "mnist-10k": {"train": [9, 3, 5, 4], "validation": [4, 7, 9, 5], "test": [7, 2, 1, 0]},
            "letters": {"train": [16, 5, 13, 8], "validation": [19, 21, 16, 9], "test": [18, 0, 17, 22]},
            "sprites": {"train": [4, 3, 7, 7], "validation": [5, 2, 6, 4], "test": [0, 1, 5, 4]},
        }[data]
    )
    again = load_images(data, "test")
    assert torch.equal(again.images, loaded[data]["test"].images)


def test_every_digit_image_shows_the_bundled_one_of_its_label(loaded):
    """Reduced to 8×8 again, each image correlates most with an image that carries the same label."""
    source, digits = bundled_digits(), loaded["digits"]["test"]
    assert sum(SIZES["digits"]) == len(source.target)
    small = F.interpolate(digits.images[:, :1, 4:-4, 4:-4], size=(8, 8), mode="area").flatten(1).double()
    raw = torch.tensor(source.images).flatten(1)
    best, nearest = torch.corrcoef(torch.cat([small, raw]))[: len(small), len(small) :].max(1)
    assert best.min() > 0.95
    assert torch.equal(torch.tensor(source.target)[nearest], digits.labels)


@pytest.mark.parametrize("data", ["letters", "sprites"])
def test_each_drawn_kind_can_be_told_from_pixels_and_fills_the_middle_of_its_frame(loaded, data):
    """Told as well as digits are (0.99): a support vector machine learns to name unseen drawings."""
    train, test = (loaded[data][split] for split in ("train", "test"))
    machine = SVC(C=10).fit(train.images[:, 0].flatten(1).numpy(), train.labels.numpy())
    assert machine.score(test.images[:, 0].flatten(1).numpy(), test.labels.numpy()) > 0.95
    assert (test.labels.bincount() == len(test.labels) // len(test.classes)).all()
    seen = test.images[:, 0] > 0.1
    ends = [(seen.any(axis).int().argmax(1), 27 - seen.any(axis).flip(1).int().argmax(1)) for axis in (1, 2)]
    larger = torch.maximum(*(last - first + 1 for first, last in ends))
    assert (larger.min() >= (15 if data == "letters" else 12), larger.max()) == (True, 20)
    assert max((first + last - 27).abs().max() for first, last in ends) <= 2


@pytest.mark.parametrize("character", ["A", "B", "O", "★", "♥", "◗"])
def test_filled_outlines_agree_with_matplotlib_and_a_pen_widens_or_thins_them(character):
    shape = outlines(character, bold=True)
    corners = torch.cat(shape)
    torch.testing.assert_close(corners.amax(0), -corners.amin(0))
    assert (corners.amax(0) - corners.amin(0)).max().item() == pytest.approx(1)
    placed = [20 * one for one in shape]
    line = (torch.arange(280) + 0.5) / 10 - 14
    points = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).flatten(0, 1)
    inside = sum(torch.tensor(Path(one).contains_points(points)).int() for one in placed) % 2
    expected = F.avg_pool2d(inside.float().view(1, 280, 280), 10)[0]
    found = fill(placed).float() / 255
    assert (found - expected).abs().max() < 0.3  # Pillow fills the pixels that a border crosses
    assert (found - expected).abs().mean() < 0.02
    assert fill(placed, -0.4).sum() < fill(placed).sum() < fill(placed, 0.4).sum()


# --- MNIST --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnist(mnist_folder):
    return {split: load_images("mnist", split) for split in SPLITS}


def test_mnist_is_split_without_overlap_or_remainder(mnist, mnist_folder):
    weights = torch.rand(784, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prints = {split: found.images[:, 0].flatten(1).double() @ weights for split, found in mnist.items()}
    assert [len(found) for found in prints.values()] == [48_000, 12_000, 10_000]
    training = torchvision.datasets.MNIST(mnist_folder, train=True).data.flatten(1).double() / 255 @ weights
    torch.testing.assert_close(torch.cat([prints["train"], prints["validation"]]).sort()[0], training.sort()[0])
    assert len(torch.cat([*prints.values()]).unique()) == 70_000
    assert mnist["train"].name == "MNIST (train, 48,000 images)"
    assert [found.labels[:4].tolist() for found in mnist.values()] == [[9, 3, 5, 4], [4, 7, 9, 5], [7, 2, 1, 0]]


def test_the_tenth_is_the_beginning_of_each_split_and_can_be_made_anew(mnist, loaded, tmp_path, monkeypatch):
    for split, found in loaded["mnist-10k"].items():
        assert torch.equal(found.images, mnist[split].images[: len(found.images)])
        assert torch.equal(found.labels, mnist[split].labels[: len(found.images)])
    monkeypatch.setattr(images, "load_mnist", mnist.get)
    again = images.write_mnist_10k(tmp_path / "again.npz")
    assert again.read_bytes() == images._10K.read_bytes()


def test_the_tenth_says_where_it_comes_from_and_under_which_licence(loaded):
    licence = images._10K.with_name("mnist-10k.LICENCE.txt").read_text()
    for text in (licence, loaded["mnist-10k"]["test"].source):
        assert "LeCun" in text
        assert "CC BY-SA 3.0" in text
    assert images._10K.stat().st_size < 1.7e6


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """An empty MNIST/raw in a data folder of its own."""
    monkeypatch.setenv("POFLOW_DATA", str(tmp_path))
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    return folder


def test_missing_mnist_is_an_error_that_names_the_command(raw):
    message = "train-images-idx3-ubyte is missing.*Get it with `poflow-lite download mnist`, or set POFLOW_DATA"
    with pytest.raises(FileNotFoundError, match=message) as error:
        load_images("mnist", "test")
    assert str(raw) in str(error.value)


def test_a_truncated_file_is_an_error_that_names_the_checksum(raw):
    for name in images._MNIST_SHA256:
        (raw / name).write_bytes(b"\x00\x00\x08\x03 and no more")
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte is damaged: its SHA-256 .* where MNIST's is ba89"):
        load_images("mnist", "train")


def test_one_damaged_file_among_good_ones_is_found(raw, mnist_folder):
    for name in images._MNIST_SHA256:
        (raw / name).symlink_to((mnist_folder / "MNIST" / "raw" / name).resolve())
    damaged, good = raw / "t10k-labels-idx1-ubyte", (raw / "t10k-labels-idx1-ubyte").read_bytes()
    damaged.unlink()
    damaged.write_bytes(good[:-1])
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte is damaged.*run `poflow-lite download mnist`"):
        load_images("mnist", "test")


@pytest.mark.parametrize(("value", "expected"), [("", "data"), ("/somewhere", "/somewhere")])
def test_the_data_folder_is_named_by_the_environment(monkeypatch, value, expected):
    monkeypatch.setenv("POFLOW_DATA", value)
    assert str(data_directory()) == expected


def test_download_asks_torchvision_for_both_parts_and_says_why_it_failed(raw, monkeypatch):
    calls = []
    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda root, **options: calls.append((root, options)))
    assert download_mnist() == data_directory()
    assert calls == [(data_directory(), {"train": train, "download": True}) for train in (True, False)]

    def fail(*_, **__):
        raise RuntimeError("no mirror answered")

    monkeypatch.setattr(torchvision.datasets, "MNIST", fail)
    with pytest.raises(FileNotFoundError, match=r"no mirror answered\. Check the connection and the folder, or set"):
        download_mnist()


def test_unknown_names_list_the_known_ones():
    assert tuple(IMAGES) == ("digits", "mnist", "mnist-10k", "letters", "sprites")
    with pytest.raises(ValueError, match="unknown data set of still images 'cifar'; known: digits, mnist, mnist-10k"):
        load_images("cifar", "train")
    with pytest.raises(ValueError, match="unknown split 'dev'; known: train, validation, test"):
        load_images("digits", "dev")
