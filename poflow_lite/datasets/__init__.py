"""Data: handwritten digits and grids of rendered scenes, the sequences that are made of them, and clouds of points."""

from poflow_lite.datasets.catalogue import (
    DATASETS,
    STILLS,
    load_images,
    load_sequences,
    load_stills,
    plane_and_colour,
    transformation_names,
)
from poflow_lite.datasets.clouds import PAIRS, Clouds, GaussianCloud, eight_gaussians, sample_pair, two_moons
from poflow_lite.datasets.corruptions import noisy, occluded
from poflow_lite.datasets.digits import download_mnist, load_digits, load_mnist
from poflow_lite.datasets.factor_sequences import FactorSequences, starting_points
from poflow_lite.datasets.factors import FALCOR3D, ISAAC3D, SHAPES3D, FactorImages, FactorSpace
from poflow_lite.datasets.files import ImageFolder, Shapes3DFile, falcor3d, isaac3d, verify_shapes3d
from poflow_lite.datasets.glyphs import LETTERS, SPRITES, load_letters, load_sprites
from poflow_lite.datasets.motions import Motion, Phase, render_motion
from poflow_lite.datasets.rendering import render_file
from poflow_lite.datasets.scenes import SCENES, Scene, load_scene
from poflow_lite.datasets.sequences import Batch, Sequences, TransformationSequences
from poflow_lite.datasets.stills import Stills, only, without
from poflow_lite.datasets.transformations import (
    FIVE_TRANSFORMATIONS,
    HUE,
    PAPER_TRANSFORMATIONS,
    ROTATE,
    SCALE,
    SHEAR,
    TRANSLATE,
    Transformation,
    apply_pose,
    commutator_norms,
    generator_matrix,
    hue,
    rotate,
    scale,
)

__all__ = [
    "DATASETS",
    "FALCOR3D",
    "FIVE_TRANSFORMATIONS",
    "HUE",
    "ISAAC3D",
    "LETTERS",
    "PAIRS",
    "PAPER_TRANSFORMATIONS",
    "ROTATE",
    "SCALE",
    "SCENES",
    "SHAPES3D",
    "SHEAR",
    "SPRITES",
    "STILLS",
    "TRANSLATE",
    "Batch",
    "Clouds",
    "FactorImages",
    "FactorSequences",
    "FactorSpace",
    "GaussianCloud",
    "ImageFolder",
    "Motion",
    "Phase",
    "Scene",
    "Sequences",
    "Shapes3DFile",
    "Stills",
    "Transformation",
    "TransformationSequences",
    "apply_pose",
    "commutator_norms",
    "download_mnist",
    "eight_gaussians",
    "falcor3d",
    "generator_matrix",
    "hue",
    "isaac3d",
    "load_digits",
    "load_images",
    "load_letters",
    "load_mnist",
    "load_scene",
    "load_sequences",
    "load_sprites",
    "load_stills",
    "noisy",
    "occluded",
    "only",
    "plane_and_colour",
    "render_file",
    "render_motion",
    "rotate",
    "sample_pair",
    "scale",
    "starting_points",
    "transformation_names",
    "two_moons",
    "verify_shapes3d",
    "without",
]
