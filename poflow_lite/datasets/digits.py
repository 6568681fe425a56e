"""Handwritten digits: scikit-learn's, which need no download, and MNIST through torchvision."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from torch.nn import functional as F

from poflow_lite.datasets.stills import SPLITS, Stills, in_red

__all__ = ["data_directory", "download_mnist", "load_digits", "load_mnist"]

# --- scikit-learn's digits ----------------------------------------------------------------------------------------


def load_digits(split: str) -> Stills:
    """1,797 real handwritten digits bundled with scikit-learn (Alpaydin & Kaynak 1998), made to look like MNIST.

    The 8×8 images are resampled to 20×20 (bicubic) and framed by 4 empty pixels, MNIST's own layout. A fixed
    permutation splits them by image: 1,257 for training, 180 for validation, 360 for testing.
    """
    from sklearn.datasets import load_digits as bundled

    raw = bundled()
    small = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 16
    large = F.interpolate(small, size=(20, 20), mode="bicubic", align_corners=False).clamp(0, 1)
    grey = F.pad(large, (4, 4, 4, 4))[:, 0]
    labels = torch.tensor(raw.target)
    order = torch.randperm(len(grey), generator=torch.Generator().manual_seed(0))
    chosen = dict(zip(SPLITS, order.split([1257, 180, 360]), strict=True))[split]
    return Stills(in_red(grey[chosen]), labels[chosen], "digits", split)


# --- MNIST --------------------------------------------------------------------------------------------------------

_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def data_directory() -> Path:
    """Where downloaded data sets live: $POFLOW_DATA if set, else ``data/`` in the working directory."""
    return Path(os.environ.get("POFLOW_DATA") or "data")


def download_mnist() -> Path:
    """Download MNIST into :func:`data_directory` with torchvision, which shows progress and checks MD5 sums."""
    from torchvision.datasets import MNIST

    root = data_directory()
    try:
        for train in (True, False):
            MNIST(root, train=train, download=True)
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"MNIST could not be downloaded into {root}: {error}. Check the connection and the folder, or set "
            "POFLOW_DATA to a folder that holds MNIST/raw"
        ) from error
    return root


def load_mnist(split: str) -> Stills:
    """MNIST (LeCun, Cortes & Burges): 48,000 training and 12,000 validation images of its training set, 10,000 test.

    Raises:
        FileNotFoundError: if it is not in :func:`data_directory`.
        ValueError: if one of its files has the wrong checksum (truncated or foreign).
    """
    root = data_directory()
    raw = root / "MNIST" / "raw"
    for file, expected in _MNIST_SHA256.items():
        path = raw / file
        if not path.is_file():
            raise FileNotFoundError(
                f"MNIST is not in {raw} ({file} is missing). Get it with `poflow-lite download mnist`, "
                "or set POFLOW_DATA to a folder that holds MNIST/raw"
            )
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != expected:
            raise ValueError(
                f"{path} is damaged: its SHA-256 is {found[:12]}… where MNIST's is {expected[:12]}…. "
                f"Delete {raw} and run `poflow-lite download mnist`"
            )
    from torchvision.datasets import MNIST

    source = MNIST(root, train=split != "test")
    order = torch.arange(len(source.data))
    if split != "test":
        order = torch.randperm(60_000, generator=torch.Generator().manual_seed(0))
        order = order[:48_000] if split == "train" else order[48_000:]
    grey = source.data[order].float() / 255
    return Stills(in_red(grey), source.targets[order], "MNIST", split)
