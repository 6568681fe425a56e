"""Data: stills of handwritten digits and the sequences that transformations make of them."""

from poflow_lite.datasets.digits import DATASETS, Stills, download_mnist, load_digits, load_mnist, load_stills
from poflow_lite.datasets.sequences import Batch, TransformationSequences
from poflow_lite.datasets.transformations import (
    HUE,
    PAPER_TRANSFORMATIONS,
    ROTATE,
    SCALE,
    Transformation,
    apply_pose,
    hue,
    rotate,
    scale,
)

__all__ = [
    "DATASETS",
    "HUE",
    "PAPER_TRANSFORMATIONS",
    "ROTATE",
    "SCALE",
    "Batch",
    "Stills",
    "Transformation",
    "TransformationSequences",
    "apply_pose",
    "download_mnist",
    "hue",
    "load_digits",
    "load_mnist",
    "load_stills",
    "rotate",
    "scale",
]
