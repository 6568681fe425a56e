"""Every data set by its name: what moves in it, and its sequences."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path

from poflow_lite.datasets.digits import data_directory, load_stills
from poflow_lite.datasets.factor_sequences import MOVED, FactorSequences, starting_points
from poflow_lite.datasets.factors import FALCOR3D, ISAAC3D, SHAPES3D, FactorImages
from poflow_lite.datasets.files import LARGE_CHUNK, Shapes3DFile, falcor3d, isaac3d
from poflow_lite.datasets.scenes import SCENES, load_scene
from poflow_lite.datasets.sequences import Sequences, TransformationSequences
from poflow_lite.datasets.transformations import PAPER_TRANSFORMATIONS
from poflow_lite.errors import require_known

__all__ = ["DATASETS", "load_images", "load_sequences", "transformation_names"]

_GRIDS = {
    name + ending: space
    for name, space in (("shapes3d", SHAPES3D), ("falcor3d", FALCOR3D), ("isaac3d", ISAAC3D))
    for ending in ("", "-lite")
}
DATASETS = ("digits", "mnist", *_GRIDS)
"""All names: those in "-lite" are rendered, digits are bundled, and the others are files that one has to get."""


def transformation_names(data: str) -> tuple[str, ...]:
    """What moves in the sequences of a data set, in the order of k.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    require_known("data set", data, dict.fromkeys(DATASETS))
    if data in _GRIDS:
        return MOVED[_GRIDS[data]]
    return tuple(transformation.name for transformation in PAPER_TRANSFORMATIONS)


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
    data: str, split: str, horizon: int, pixels: int, start: str = "fixed", labelled: float = 0.0
) -> Sequences:
    """Sequences of one split of a data set in the paper's protocol.

    Args:
        data: one of :data:`DATASETS`.
        split: "train", "validation" or "test".
        horizon: T.
        pixels: along each side of an image; digits have 28.
        start: "fixed" or "random" start poses, or start values.
        labelled: share of the images whose k a weakly supervised model may look at.

    Raises:
        ValueError: for an unknown data set or split, or settings that the data do not have.
        FileNotFoundError: if the data set is not there; the message says how to get it.
    """
    require_known("data set", data, dict.fromkeys(DATASETS))
    if data in _GRIDS:
        images, moved = load_images(data, pixels), transformation_names(data)
        starts = starting_points(images.space, moved, split)
        title = f"{images.name} ({split}, {starts.shape[1]:,} sequences a factor), {start} start"
        return FactorSequences(images, starts, moved, horizon, start, title, round(labelled * starts.shape[1]))
    if pixels != 28:
        raise ValueError(f"{data} has images of 28×28 pixels, got pixels = {pixels}")
    stills = load_stills(data, split)
    title, count = f"{stills.name}, {start} start", round(labelled * len(stills.images))
    return TransformationSequences(stills.images, horizon=horizon, start=start, name=title, labelled=count)
