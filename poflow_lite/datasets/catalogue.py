"""Every data set by its name, one's own among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from poflow_lite.datasets.factors import (
    FALCOR3D,
    ISAAC3D,
    MOVED,
    SHAPES3D,
    FactorImages,
    FactorSequences,
    FactorSpace,
    starting_points,
)
from poflow_lite.datasets.files import FactorFolder, Shapes3DFile
from poflow_lite.datasets.glyphs import load_letters, load_sprites
from poflow_lite.datasets.images import (
    SPLITS,
    LabelledImages,
    data_directory,
    load_digits,
    load_mnist,
    load_mnist_10k,
    without,
)
from poflow_lite.datasets.scenes import load_scene
from poflow_lite.datasets.sequences import Sequences, TransformationSequences
from poflow_lite.datasets.transformations import FIVE_TRANSFORMATIONS, PAPER_TRANSFORMATIONS, Transformation
from poflow_lite.io import require_known

IMAGES: dict[str, Callable[[str], LabelledImages]] = {
    "digits": load_digits,
    "mnist": load_mnist,
    "mnist-10k": load_mnist_10k,
    "letters": load_letters,
    "sprites": load_sprites,
}
"""Data sets of still images ↦ what loads a split of them."""


def load_images(data: str, split: str) -> LabelledImages:
    """The named still images, and never others in their place.

    Raises:
        ValueError: for a name that is not in :data:`IMAGES`, or an unknown split; the message lists the known ones.
        FileNotFoundError: if the data set is not there; the message says how to get it.
    """
    require_known("data set of still images", data, IMAGES)
    require_known("split", split, SPLITS)
    return IMAGES[data](split)


# --- grids of factors ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _read_shapes3d(path: Path, changed: float) -> Shapes3DFile:
    return Shapes3DFile(path)


def _shapes3d(pixels: int) -> Shapes3DFile:
    """3dshapes.h5, read once for all splits as long as the file does not change."""
    if pixels != 64:
        raise ValueError(f"Shapes3D has images of 64×64 pixels, got pixels = {pixels}")
    path = data_directory() / "3dshapes.h5"
    return _read_shapes3d(path, path.stat().st_mtime if path.exists() else 0.0)


def _folder(space: FactorSpace, name: str, labels: str, pixels: int) -> FactorFolder:
    return FactorFolder(data_directory() / f"{name}_down128", space, name, labels, pixels)


_scene = lru_cache(maxsize=2)(load_scene)  # it keeps geometry it has traced, and all splits share it

FACTOR_IMAGES: dict[str, Callable[[int], FactorImages]] = {
    "shapes3d": _shapes3d,
    "shapes3d-lite": partial(_scene, "shapes3d-lite"),
    "falcor3d": partial(_folder, FALCOR3D, "Falcor3D", "train-rec.labels"),
    "falcor3d-lite": partial(_scene, "falcor3d-lite"),
    "isaac3d": partial(_folder, ISAAC3D, "Isaac3D", "labels.npy"),
    "isaac3d-lite": partial(_scene, "isaac3d-lite"),
}
"""Grids of factors ↦ what loads their images of so many pixels."""


def load_factor_images(data: str, pixels: int = 64) -> FactorImages:
    """The images of one of :data:`FACTOR_IMAGES`, with so many pixels along each side; Shapes3D comes with 64 only.

    Raises:
        ValueError: for a data set that is no grid, damaged files, or Shapes3D in another size.
        FileNotFoundError: if the files are not in :func:`data_directory`; the message says how to get them.
    """
    require_known("grid of factors", data, FACTOR_IMAGES)
    return FACTOR_IMAGES[data](pixels)


# --- sequences ----------------------------------------------------------------------------------------------------


def image_sequences(
    images: LabelledImages,
    transformations: Sequence[Transformation] = PAPER_TRANSFORMATIONS,
    *,
    horizon: int = 8,
    pixels: int | None = None,
    start: str = "fixed",
    labelled: float = 0.0,
    share: float = 1.0,
    left_out: Sequence[int] = (),
) -> TransformationSequences:
    """Sequences of labelled images, with the settings and errors of :func:`load_sequences`."""
    height, width = images.images.shape[-2:]
    if pixels is not None and (height, width) != (pixels, pixels):
        raise ValueError(f"{images.data} has images of {height}×{width} pixels, got pixels = {pixels}")
    images = without(images, left_out)
    count = max(1, round(share * len(images.images)))
    images = replace(images, images=images.images[:count], labels=images.labels[:count])
    title, told = f"{images.name}, {start} start", _told(labelled, count)
    return TransformationSequences(images.images, transformations, horizon, start, title, told)


def _told(labelled: float, count: int) -> int:
    """How many of the images are labelled: one at least where labels are asked for."""
    return max(round(labelled * count), int(labelled > 0))


def _three(data: str, split: str, **settings: Any) -> Sequences:
    return image_sequences(load_images(data, split), **settings)


def _five(data: str, split: str, **settings: Any) -> Sequences:
    images = load_images(data, split)
    images = replace(images, data=f"{images.data}, five transformations")
    return image_sequences(images, FIVE_TRANSFORMATIONS, **settings)


def _grid(
    data: str,
    space: FactorSpace,
    split: str,
    *,
    horizon: int,
    pixels: int | None,
    start: str,
    labelled: float,
    share: float,
    left_out: Sequence[int],
) -> Sequences:
    if left_out:
        raise ValueError(f"{data} has no classes to leave out; its test scenes are unseen combinations of factors")
    images = load_factor_images(data, pixels or 64)
    starts = starting_points(images.space, MOVED[space], split)
    starts = starts[:, : max(1, round(share * starts.shape[1]))]
    title = f"{images.name} ({split}, {starts.shape[1]:,} sequences a factor), {start} start"
    return FactorSequences(images, starts, MOVED[space], horizon, start, title, _told(labelled, starts.shape[1]))


_SPACES = {"shapes3d": SHAPES3D, "falcor3d": FALCOR3D, "isaac3d": ISAAC3D}
DATASETS: dict[str, Callable[..., Sequences]] = {
    **{data: partial(_three, data) for data in IMAGES},
    "digits-five": partial(_five, "digits"),
    "mnist-five": partial(_five, "mnist"),
    **{data: partial(_grid, data, _SPACES[data.removesuffix("-lite")]) for data in FACTOR_IMAGES},
}
"""Every data set ↦ what makes its sequences: (split, *, horizon, pixels, start, labelled, share, left_out) ↦ Sequences.

Those in "-lite", letters and sprites are rendered, digits and mnist-10k come with packages, the others are files that
one has to get. In those that end in "-five" the same images move in five ways instead of three. See :func:`register`.
"""


def register(name: str, loader: Callable[..., Sequences]) -> None:
    """Add a data set of one's own to :data:`DATASETS`, under a name that is not taken, to be named wherever one is.

    For labelled images of any size, ``mine`` holding each split, without the number of pixels that recipes ask for:
    ``register("mine", lambda split, *, pixels, **settings: image_sequences(mine[split], **settings))``.
    """
    if name in DATASETS:
        raise ValueError(f"there is a data set {name!r} already: choose another name")
    DATASETS[name] = loader


def load_sequences(
    data: str,
    split: str,
    horizon: int = 8,
    pixels: int | None = None,
    start: str = "fixed",
    labelled: float = 0.0,
    share: float = 1.0,
    left_out: Sequence[int] = (),
) -> Sequences:
    """Sequences of one split of a data set in the paper's protocol.

    Args:
        data: one of :data:`DATASETS`.
        split: "train", "validation" or "test".
        horizon: T.
        pixels: along each side of an image; by default 64 for grids of factors, and what the others have.
        start: "fixed" or "random" start poses, or start values.
        labelled: share of the images whose k a weakly supervised model may look at.
        share: share of the images that are used, the first ones; at least one.
        left_out: labels whose images are left out; for still images only.

    Raises:
        ValueError: for an unknown data set or split, or settings that the data do not have.
        FileNotFoundError: if the data set is not there; the message says how to get it.
    """
    require_known("data set", data, DATASETS)
    require_known("split", split, SPLITS)
    settings = {"horizon": horizon, "pixels": pixels, "start": start}
    return DATASETS[data](split, **settings, labelled=labelled, share=share, left_out=left_out)
