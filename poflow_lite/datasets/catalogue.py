"""Every data set by its name: what moves in it, and its sequences."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from poflow_lite.datasets.digits import data_directory, load_digits, load_mnist
from poflow_lite.datasets.factor_sequences import MOVED, FactorSequences, starting_points
from poflow_lite.datasets.factors import FALCOR3D, ISAAC3D, SHAPES3D, FactorImages
from poflow_lite.datasets.files import LARGE_CHUNK, Shapes3DFile, falcor3d, isaac3d
from poflow_lite.datasets.glyphs import load_letters, load_sprites
from poflow_lite.datasets.scenes import SCENES, load_scene
from poflow_lite.datasets.sequences import Sequences, TransformationSequences
from poflow_lite.datasets.stills import SPLITS, Stills, without
from poflow_lite.datasets.transformations import FIVE_TRANSFORMATIONS, PAPER_TRANSFORMATIONS, Transformation
from poflow_lite.errors import require_known

__all__ = [
    "DATASETS",
    "STILLS",
    "load_images",
    "load_sequences",
    "load_stills",
    "plane_and_colour",
    "transformation_names",
]

STILLS = {"digits": load_digits, "mnist": load_mnist, "letters": load_letters, "sprites": load_sprites}
"""Data sets of still images ↦ what loads a split of them."""

_GRIDS = {
    name + ending: space
    for name, space in (("shapes3d", SHAPES3D), ("falcor3d", FALCOR3D), ("isaac3d", ISAAC3D))
    for ending in ("", "-lite")
}
_FIVE = {"digits-five": "digits", "mnist-five": "mnist"}
DATASETS = (*STILLS, *_FIVE, *_GRIDS)
"""All names: those in "-lite", letters and sprites are rendered, digits are bundled, the others are files that one has
to get. In those that end in "-five" the same images move in five ways instead of three."""


def load_stills(data: str, split: str) -> Stills:
    """The named data set, and never another one in its place.

    Args:
        data: one of :data:`STILLS`.
        split: "train", "validation" or "test".

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
        FileNotFoundError: if the data set is not there; the message says how to get it.
    """
    require_known("data set", data, STILLS)
    require_known("split", split, SPLITS)
    return STILLS[data](split)


def plane_and_colour(data: str) -> tuple[Transformation, ...]:
    """The transformations that move the still images of a data set, in the order of k.

    Raises:
        ValueError: for an unknown name, or a grid of factors, whose scenes are rendered anew; the message lists names.
    """
    require_known("data set of still images", data, (*STILLS, *_FIVE))
    return FIVE_TRANSFORMATIONS if data in _FIVE else PAPER_TRANSFORMATIONS


def transformation_names(data: str) -> tuple[str, ...]:
    """What moves in the sequences of a data set, in the order of k.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    require_known("data set", data, dict.fromkeys(DATASETS))
    if data in _GRIDS:
        return MOVED[_GRIDS[data]]
    return tuple(transformation.name for transformation in plane_and_colour(data))


@lru_cache(maxsize=1)
def _shapes3d(path: Path, changed: float) -> Shapes3DFile:
    """3dshapes.h5, once for all splits; read into memory if its chunks are large, as the published file's are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it advises what is done next
        file = Shapes3DFile(path)
    return Shapes3DFile(path, in_memory=True) if file.packed > LARGE_CHUNK else file


_remembered_scene = lru_cache(maxsize=2)(load_scene)  # it remembers geometry it has traced, and all splits share it


def load_images(data: str, pixels: int = 64) -> FactorImages:
    """The images of a grid of factors.

    Args:
        data: one of :data:`DATASETS`, besides the digits.
        pixels: along each side; Shapes3D comes with 64 only.

    Raises:
        ValueError: for a data set that is no grid, damaged files, or Shapes3D in another size.
        FileNotFoundError: if the files are not in :func:`data_directory`; the message says how to get them.
    """
    require_known("grid of factors", data, _GRIDS)
    if data in SCENES:
        return _remembered_scene(data, pixels)
    if data == "shapes3d":
        if pixels != 64:
            raise ValueError(f"Shapes3D has images of 64×64 pixels, got pixels = {pixels}")
        path = data_directory() / "3dshapes.h5"
        return _shapes3d(path, path.stat().st_mtime if path.exists() else 0.0)
    folder = {"falcor3d": "Falcor3D_down128", "isaac3d": "Isaac3D_down128"}[data]
    return {"falcor3d": falcor3d, "isaac3d": isaac3d}[data](data_directory() / folder, pixels)


def load_sequences(
    data: str,
    split: str,
    horizon: int,
    pixels: int,
    start: str = "fixed",
    labelled: float = 0.0,
    share: float = 1.0,
    left_out: tuple[int, ...] = (),
) -> Sequences:
    """Sequences of one split of a data set in the paper's protocol.

    Args:
        data: one of :data:`DATASETS`.
        split: "train", "validation" or "test".
        horizon: T.
        pixels: along each side of an image; digits have 28.
        start: "fixed" or "random" start poses, or start values.
        labelled: share of the images whose k a weakly supervised model may look at.
        share: share of the images that are used, the first ones; at least one.
        left_out: labels whose images are left out; for still images only.

    Raises:
        ValueError: for an unknown data set or split, or settings that the data do not have.
        FileNotFoundError: if the data set is not there; the message says how to get it.
    """
    require_known("data set", data, dict.fromkeys(DATASETS))
    if data in _GRIDS:
        if left_out:
            raise ValueError(f"{data} has no classes to leave out; its test scenes are unseen combinations of factors")
        images, moved = load_images(data, pixels), transformation_names(data)
        starts = starting_points(images.space, moved, split)
        starts = starts[:, : max(1, round(share * starts.shape[1]))]
        title = f"{images.name} ({split}, {starts.shape[1]:,} sequences a factor), {start} start"
        return FactorSequences(images, starts, moved, horizon, start, title, round(labelled * starts.shape[1]))
    if pixels != 28:
        raise ValueError(f"{data} has images of 28×28 pixels, got pixels = {pixels}")
    stills = without(load_stills(_FIVE.get(data, data), split), left_out)
    count = max(1, round(share * len(stills.images)))
    shown = f"{stills.data}, five transformations" if data in _FIVE else stills.data
    stills = replace(stills, images=stills.images[:count], labels=stills.labels[:count], data=shown)
    title, told = f"{stills.name}, {start} start", round(labelled * count)
    return TransformationSequences(stills.images, plane_and_colour(data), horizon, start, title, told)
