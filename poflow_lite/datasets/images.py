"""Still images: the door for images of one's own, and handwritten digits, from scikit-learn and from MNIST."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from poflow_lite.datasets.places import folders
from poflow_lite.io import write_atomically

SPLITS = ("train", "validation", "test")

# --- images from elsewhere ----------------------------------------------------------------------------------------


def as_images(images: Any) -> Tensor:
    """Images from elsewhere in the form of this package: (N, C, H, W) in [0, 1], of the default dtype, on the CPU.

    Args:
        images: (N, C, H, W), or (N, H, W) if they are grey; a tensor, or what NumPy makes an array of. Truths, uint8 in
            0..255 (or nothing but 0 and 1, which stay as they are), or floating point in [0, 1].

    Raises:
        ValueError: for other shapes, types or ranges, NaN, or no image; in one line that says what to do.
    """
    if not isinstance(images, Tensor):
        try:
            images = torch.from_numpy(np.array(images))
        except (TypeError, ValueError) as error:
            raise ValueError(f"images must be an array of numbers, (N, C, H, W): {error}") from error
    if images.ndim == 3 and images.shape[2] in (3, 4) and min(images.shape[:2]) > 4:
        raise ValueError(f"one image {tuple(images.shape)}? images are (N, C, H, W): move its last axis and add one")
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4:
        raise ValueError(f"images must be (N, C, H, W), or (N, H, W) if grey, got {tuple(images.shape)}")
    if images.numel() == 0:
        raise ValueError(f"images {tuple(images.shape)} hold no pixel: a data set needs at least one image")
    if images.shape[1] > 4 >= images.shape[3]:
        raise ValueError(f"channels come second, (N, C, H, W), got {tuple(images.shape)}: move the last axis there")
    if images.dtype in (torch.uint8, torch.bool):
        whole = images.cpu().to(torch.get_default_dtype())
        return whole / 255 if whole.max() > 1 else whole
    if not images.is_floating_point():
        raise ValueError(f"images must be uint8 or floating point in [0, 1], got {images.dtype}; convert them first")
    images = images.detach().to("cpu", torch.get_default_dtype())
    require_unit_range(images)
    return images


def require_unit_range(images: Tensor) -> None:
    """Raise a one-line ValueError unless all pixels (N, ...) are floating point, finite and in [0, 1]."""
    if not images.is_floating_point():
        raise ValueError(f"pixels must be floating point in [0, 1], got {images.dtype}; divide by 255 first")
    low, high = (float(end) for end in images.aminmax())  # NaN comes through
    if low >= 0 and high <= 1:
        return
    if bad := int((~torch.isfinite(images)).flatten(1).any(1).sum()):
        raise ValueError(f"{bad} of {len(images)} images hold NaN or infinite pixels; clean them first")
    raise ValueError(f"pixel values must lie in [0, 1], got {low:.3g} to {high:.3g}; rescale them first")


def in_red(images: Any) -> Tensor:
    """Grey images, as :func:`as_images` takes them → (N, 3, H, W), the picture in the red channel as in the paper."""
    grey = as_images(images)
    if grey.shape[1] != 1:
        raise ValueError(f"only grey images can be put in red, got {grey.shape[1]} channels: average or choose one")
    return F.pad(grey, (0, 0, 0, 0, 0, 2))


def image_folder(path: str | Path, size: int | tuple[int, int] | None = None) -> Tensor:
    """The PNG and JPEG files of a folder, in the order of their names: (N, C, H, W) in [0, 1], C = 1 if all are grey.

    They are turned upright as their camera says, put on black where they are transparent, and read with 8 bits.

    Args:
        path: of the folder; other files and folders in it are left alone.
        size: height and width, or one number for both: each image is cut about its middle to this shape and resampled.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: for no image in it, one that cannot be read, or, without ``size``, images of different sizes.
    """
    from PIL import Image, ImageOps

    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}: name one that holds PNG or JPEG files")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not files:
        raise ValueError(f"{path} holds no PNG or JPEG file: name the folder that holds the images themselves")
    height, width = size if isinstance(size, Sequence) else (size, size)
    images = []
    for file in files:
        try:
            image = _upright(Image.open(file))
        except (OSError, SyntaxError, ValueError) as error:  # all of which Pillow raises for damaged images
            raise ValueError(f"{file} is not a whole image ({error}): remove or replace it") from error
        image = image if size is None else ImageOps.fit(image, (width, height))
        if images and image.size != images[0].size:
            raise ValueError(
                f"{file} has {image.size} pixels, {files[0].name} has {images[0].size}: give size=... to resample all"
            )
        images.append(image)
    mode = "L" if all(image.mode == "L" for image in images) else "RGB"
    pixels = torch.from_numpy(np.stack([np.asarray(image.convert(mode)) for image in images]))
    return as_images(pixels if mode == "L" else pixels.permute(0, 3, 1, 2))


def _upright(image: Any) -> Any:
    """A Pillow image as it is seen on black, in mode L or RGB."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode[0] == "I":  # grey with 16 bits
        return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    return image.convert("L" if grey else "RGB")


# --- images with labels -------------------------------------------------------------------------------------------


@dataclass
class LabelledImages:
    """Images of one split with their labels.

    Attributes:
        images: (N, C, H, W) in [0, 1].
        labels: (N,) integers, indices into ``classes``.
        data: which data set this is, as printed.
        split: "train", "validation" or "test".
        classes: what the labels stand for.
        selection: which images were chosen, as in " without 7, 8"; empty for all of the split.
        source: who made the images, and under which licence they are given on.
    """

    images: Tensor
    labels: Tensor
    data: str
    split: str
    classes: tuple[str, ...] = tuple("0123456789")
    selection: str = ""
    source: str = ""

    @property
    def name(self) -> str:
        """Data set, split, size and selection, as printed and recorded: "digits (train, 880 images without 7, 8)"."""
        return f"{self.data} ({self.split}, {len(self.images):,} images{self.selection})"


def only(images: LabelledImages, labels: Sequence[int]) -> LabelledImages:
    """The images whose label is one of ``labels``, as the name says; a ValueError for a label that does not occur."""
    return _select(images, labels, "of only")


def without(images: LabelledImages, labels: Sequence[int]) -> LabelledImages:
    """The images whose label is none of ``labels``; a ValueError for one that does not occur, or if none is left."""
    return _select(images, labels, "without") if len(labels) else images


def _select(images: LabelledImages, labels: Sequence[int], how: str) -> LabelledImages:
    labels, there = sorted(set(labels)), sorted(set(images.labels.tolist()))
    if lacking := [label for label in labels if label not in there]:
        raise ValueError(
            f"no image of {images.name} has the label {', '.join(map(str, lacking))}; "
            f"labels that occur: {', '.join(map(str, there))}"
        )
    carry = torch.isin(images.labels, torch.tensor(labels, dtype=images.labels.dtype))
    chosen = ~carry if how == "without" else carry
    if not chosen.any():
        raise ValueError(f"no image of {images.name} is left: chosen were those {how} the labels {labels}")
    selection = f"{images.selection} {how} {', '.join(images.classes[label] for label in labels)}"
    return replace(images, images=images.images[chosen], labels=images.labels[chosen], selection=selection)


# --- digits and MNIST ---------------------------------------------------------------------------------------------

_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_MNIST = 'Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits"; CC BY-SA 3.0'
_10K, _10K_SIZES = Path(__file__).with_name("mnist-10k.npz"), {"train": 8000, "validation": 1000, "test": 1000}


def load_digits(split: str) -> LabelledImages:
    """1,797 real handwritten digits bundled with scikit-learn (Alpaydin & Kaynak 1998), made to look like MNIST.

    The 8×8 images are resampled to 20×20 (bicubic) and framed by 4 empty pixels, MNIST's own layout. A fixed
    permutation splits them by image: 1,257 for training, 180 for validation, 360 for testing.
    """
    from sklearn.datasets import load_digits as bundled

    raw = bundled()
    small = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 16
    large = F.interpolate(small, size=(20, 20), mode="bicubic", align_corners=False).clamp(0, 1)
    order = torch.randperm(len(large), generator=torch.Generator().manual_seed(0))
    chosen = dict(zip(SPLITS, order.split([1257, 180, 360]), strict=True))[split]
    images = in_red(F.pad(large, (4, 4, 4, 4))[chosen])
    source = "E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits (UCI 1998), as scikit-learn bundles it"
    return LabelledImages(images, torch.tensor(raw.target)[chosen], "digits", split, source=source)


def data_directory() -> Path:
    """Where downloaded data sets live: $POFLOW_DATA if set, else the course's ``data/`` (``places.folders``).

    Where there is none yet, it is ``data/`` in the working directory.
    """
    return Path(os.environ.get("POFLOW_DATA") or next(iter(folders()), "data"))


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


def load_mnist(split: str) -> LabelledImages:
    """MNIST (LeCun, Cortes & Burges): 48,000 training and 12,000 validation images of its training set, 10,000 test.

    Raises:
        FileNotFoundError: if it is not in :func:`data_directory`.
        ValueError: if one of its files has the wrong checksum (truncated or foreign).
    """
    from torchvision.datasets import MNIST

    raw = data_directory() / "MNIST" / "raw"
    for file, expected in _MNIST_SHA256.items():
        path = raw / file
        if not path.is_file():
            raise FileNotFoundError(
                f"MNIST is not in {raw} ({file} is missing). Get it with `poflow-lite download mnist`, "
                "or set POFLOW_DATA to a folder that holds MNIST/raw; mnist-10k needs no download"
            )
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != expected:
            raise ValueError(
                f"{path} is damaged: its SHA-256 is {found[:12]}… where MNIST's is {expected[:12]}…. "
                f"Delete {raw} and run `poflow-lite download mnist`"
            )
    data = MNIST(data_directory(), train=split != "test")
    order = torch.arange(len(data.data))
    if split != "test":
        order = torch.randperm(60_000, generator=torch.Generator().manual_seed(0))
        order = order[:48_000] if split == "train" else order[48_000:]
    return LabelledImages(in_red(data.data[order]), data.targets[order], "MNIST", split, source=_MNIST)


def load_mnist_10k(split: str) -> LabelledImages:
    """10,000 images of MNIST inside the package: the first 8,000, 1,000 and 1,000 of the splits of :func:`load_mnist`.

    So no image of one split, here or there, is in another split of the other. Licence: CC BY-SA 3.0, see ``source`` and
    ``mnist-10k.LICENCE.txt``.
    """
    with np.load(_10K) as stored:
        images, labels = torch.from_numpy(stored[f"{split}_images"]), torch.from_numpy(stored[f"{split}_labels"])
    return LabelledImages(in_red(images), labels.long(), "MNIST-10k", split, source=_MNIST)


def write_mnist_10k(path: str | Path = _10K) -> Path:
    """Make the file of :func:`load_mnist_10k` anew from MNIST in :func:`data_directory`."""
    arrays, path = {}, Path(path)
    for split, count in _10K_SIZES.items():
        whole = load_mnist(split)
        arrays[f"{split}_images"] = (255 * whole.images[:count, 0]).round().byte().numpy()
        arrays[f"{split}_labels"] = whole.labels[:count].byte().numpy()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    write_atomically(path, write)
    return path
