"""The two data sets: sizes, splits by image, layout, and errors that say what to do."""

import pytest
import torch
import torchvision
from sklearn.datasets import load_digits as bundled_digits
from torch.nn import functional as F

from poflow_lite.datasets import STILLS, download_mnist, load_stills
from poflow_lite.datasets.digits import data_directory
from poflow_lite.datasets.stills import SPLITS

SIZES = {"train": 1257, "validation": 180, "test": 360}


@pytest.fixture(scope="module")
def digits():
    return {split: load_stills("digits", split) for split in SPLITS}


def fingerprints(images):
    """One number for each image; equal images have equal ones, others (almost surely) do not."""
    pixels = images[:, 0].flatten(1).double()
    return pixels @ torch.rand(pixels.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# --- scikit-learn's digits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_digits_are_red_framed_and_in_range(digits, split):
    stills = digits[split]
    assert stills.images.shape == (SIZES[split], 3, 28, 28)
    assert stills.labels.shape == (SIZES[split],)
    assert stills.name == f"digits ({split}, {SIZES[split]:,} images)"
    assert (stills.images.min(), stills.images.max()) == (0, 1)
    assert stills.images[:, 1:].abs().max() == 0
    assert stills.images[:, 0].amax((1, 2)).min() > 0.5
    inside = F.pad(stills.images[..., 4:-4, 4:-4], (4, 4, 4, 4))
    assert torch.equal(inside, stills.images)
    assert set(stills.labels.tolist()) == set(range(10))


def test_digit_splits_share_no_image_and_leave_none_out(digits):
    together = torch.cat([fingerprints(digits[split].images) for split in SPLITS])
    assert len(together) == len(bundled_digits().target)
    assert len(together.unique()) == len(together)


def test_digit_splits_never_change(digits):
    first = {split: digits[split].labels[:12].tolist() for split in SPLITS}
    assert first == {
        "train": [6, 5, 5, 7, 9, 9, 8, 4, 6, 8, 6, 0],
        "validation": [8, 2, 1, 8, 7, 3, 9, 1, 1, 7, 7, 0],
        "test": [2, 4, 8, 4, 9, 6, 8, 7, 7, 2, 1, 4],
    }
    assert torch.equal(load_stills("digits", "test").images, digits["test"].images)


def test_every_digit_image_shows_the_bundled_one_of_its_label(digits):
    """Reduced to 8×8 again, each image correlates most with an image that carries the same label."""
    source, stills = bundled_digits(), digits["test"]
    small = F.interpolate(stills.images[:, :1, 4:-4, 4:-4], size=(8, 8), mode="area").flatten(1).double()
    raw = torch.tensor(source.images).flatten(1)
    correlation = torch.corrcoef(torch.cat([small, raw]))[: len(small), len(small) :]
    best, nearest = correlation.max(1)
    assert best.min() > 0.95
    assert torch.equal(torch.tensor(source.target)[nearest], stills.labels)


# --- MNIST --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnist(mnist_folder):
    """Fingerprints and labels of each split; the images themselves are let go."""
    found = {}
    for split, size in (("train", 48_000), ("validation", 12_000), ("test", 10_000)):
        stills = load_stills("mnist", split)
        assert stills.images.shape == (size, 3, 28, 28)
        assert stills.name == f"MNIST ({split}, {size:,} images)"
        assert (stills.images[:, 0].min(), stills.images[:, 0].max()) == (0, 1)
        assert stills.images[:, 1:].abs().max() == 0
        found[split] = fingerprints(stills.images), stills.labels
    return found


def test_mnist_splits_share_no_image_and_leave_none_out(mnist, mnist_folder):
    training = torchvision.datasets.MNIST(mnist_folder, train=True).data[:, None] / 255
    together = torch.cat([mnist["train"][0], mnist["validation"][0]])
    torch.testing.assert_close(together.sort().values, fingerprints(training).sort().values)
    everything = torch.cat([together, mnist["test"][0]])
    assert len(everything.unique()) == 70_000


def test_mnist_splits_never_change(mnist):
    assert {split: labels[:6].tolist() for split, (_, labels) in mnist.items()} == {
        "train": [9, 3, 5, 4, 7, 4],
        "validation": [4, 7, 9, 5, 3, 6],
        "test": [7, 2, 1, 0, 4, 1],  # the published order
    }


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """An empty MNIST/raw in a data folder of its own."""
    monkeypatch.setenv("POFLOW_DATA", str(tmp_path))
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("split", SPLITS)
def test_missing_mnist_is_an_error_that_names_the_command(raw, split):
    with pytest.raises(
        FileNotFoundError, match="Get it with `poflow-lite download mnist`, or set POFLOW_DATA"
    ) as error:
        load_stills("mnist", split)
    assert str(raw) in str(error.value)
    assert "train-images-idx3-ubyte is missing" in str(error.value)


def test_a_truncated_file_is_an_error_that_names_the_checksum(raw):
    for name in ("train-images", "t10k-images", "train-labels", "t10k-labels"):
        (raw / f"{name}-idx{3 if 'images' in name else 1}-ubyte").write_bytes(b"\x00\x00\x08\x03 and no more")
    with pytest.raises(
        ValueError, match=r"train-images-idx3-ubyte is damaged: its SHA-256 is .* where MNIST's is ba89"
    ):
        load_stills("mnist", "train")


def test_one_damaged_file_among_good_ones_is_found(raw, mnist_folder):
    for source in (mnist_folder / "MNIST" / "raw").glob("*-ubyte"):
        (raw / source.name).symlink_to(source.resolve())
    damaged, good = raw / "t10k-labels-idx1-ubyte", (raw / "t10k-labels-idx1-ubyte").read_bytes()
    damaged.unlink()
    damaged.write_bytes(good[:-1])
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte is damaged.*run `poflow-lite download mnist`"):
        load_stills("mnist", "test")


@pytest.mark.parametrize(("value", "expected"), [(None, "data"), ("", "data"), ("/somewhere", "/somewhere")])
def test_the_data_folder_is_named_by_the_environment(monkeypatch, value, expected):
    if value is None:
        monkeypatch.delenv("POFLOW_DATA", raising=False)
    else:
        monkeypatch.setenv("POFLOW_DATA", value)
    assert str(data_directory()) == expected


def test_download_asks_torchvision_for_both_parts(raw, monkeypatch):
    calls = []
    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda root, **options: calls.append((root, options)))
    assert download_mnist() == data_directory()
    assert calls == [(data_directory(), {"train": train, "download": True}) for train in (True, False)]


@pytest.mark.parametrize("failure", [RuntimeError("no mirror answered"), PermissionError("read-only folder")])
def test_a_failed_download_says_why_and_what_to_do(raw, monkeypatch, failure):
    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(torchvision.datasets, "MNIST", fail)
    with pytest.raises(
        FileNotFoundError, match=rf"{failure}\. Check the connection and the folder, or set POFLOW_DATA"
    ):
        download_mnist()


# --- names --------------------------------------------------------------------------------------------------------


def test_unknown_names_list_the_known_ones():
    assert tuple(STILLS) == ("digits", "mnist", "letters", "sprites")
    with pytest.raises(ValueError, match="unknown data set 'cifar'; known: digits, mnist, letters, sprites"):
        load_stills("cifar", "train")
    with pytest.raises(ValueError, match="unknown split 'dev'; known: train, validation, test"):
        load_stills("digits", "dev")
