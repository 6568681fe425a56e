"""Data: stills of handwritten digits, the sequences that transformations make of them, and clouds of points."""

from poflow_lite.datasets.clouds import PAIRS, Clouds, GaussianCloud, eight_gaussians, sample_pair, two_moons
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
    "PAIRS",
    "PAPER_TRANSFORMATIONS",
    "ROTATE",
    "SCALE",
    "Batch",
    "Clouds",
    "GaussianCloud",
    "Stills",
    "Transformation",
    "TransformationSequences",
    "apply_pose",
    "download_mnist",
    "eight_gaussians",
    "hue",
    "load_digits",
    "load_mnist",
    "load_stills",
    "rotate",
    "sample_pair",
    "scale",
    "two_moons",
]
