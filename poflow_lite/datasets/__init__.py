"""Data: handwritten digits and grids of rendered scenes, the sequences that are made of them, and clouds of points."""

from poflow_lite.datasets.catalogue import DATASETS, load_images, load_sequences, transformation_names
from poflow_lite.datasets.clouds import PAIRS, Clouds, GaussianCloud, eight_gaussians, sample_pair, two_moons
from poflow_lite.datasets.digits import Stills, download_mnist, load_digits, load_mnist, load_stills
from poflow_lite.datasets.factor_sequences import FactorSequences, starting_points
from poflow_lite.datasets.factors import FALCOR3D, ISAAC3D, SHAPES3D, FactorImages, FactorSpace
from poflow_lite.datasets.files import ImageFolder, Shapes3DFile, falcor3d, isaac3d, verify_shapes3d
from poflow_lite.datasets.rendering import render_file
from poflow_lite.datasets.scenes import SCENES, Scene, load_scene
from poflow_lite.datasets.sequences import Batch, Sequences, TransformationSequences
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
    "FALCOR3D",
    "HUE",
    "ISAAC3D",
    "PAIRS",
    "PAPER_TRANSFORMATIONS",
    "ROTATE",
    "SCALE",
    "SCENES",
    "SHAPES3D",
    "Batch",
    "Clouds",
    "FactorImages",
    "FactorSequences",
    "FactorSpace",
    "GaussianCloud",
    "ImageFolder",
    "Scene",
    "Sequences",
    "Shapes3DFile",
    "Stills",
    "Transformation",
    "TransformationSequences",
    "apply_pose",
    "download_mnist",
    "eight_gaussians",
    "falcor3d",
    "hue",
    "isaac3d",
    "load_digits",
    "load_images",
    "load_mnist",
    "load_scene",
    "load_sequences",
    "load_stills",
    "render_file",
    "rotate",
    "sample_pair",
    "scale",
    "starting_points",
    "transformation_names",
    "two_moons",
    "verify_shapes3d",
]
