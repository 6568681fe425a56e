"""Data: still images, grids of rendered scenes and clips, the sequences made of them, and clouds of points."""

# isort: off
# fmt: off
from poflow_lite.datasets.catalogue import (
    DATASETS, FACTOR_IMAGES, IMAGES, image_sequences, load_factor_images, load_images, load_sequences, register,
)
from poflow_lite.datasets.clouds import PAIRS, Clouds, GaussianCloud, eight_gaussians, sample_pair, two_moons
from poflow_lite.datasets.factors import (
    FALCOR3D, ISAAC3D, MOVED, SHAPES3D, FactorImages, FactorSequences, FactorSpace, starting_points,
)
from poflow_lite.datasets.files import FactorFolder, Shapes3DFile, render_file, verify_shapes3d
from poflow_lite.datasets.glyphs import LETTERS, SPRITES, load_letters, load_sprites
from poflow_lite.datasets.images import (
    SPLITS, LabelledImages, as_images, data_directory, download_mnist, image_folder, in_red, load_digits, load_mnist,
    load_mnist_10k, only, without,
)
from poflow_lite.datasets.motions import Motion, Segment, noisy, occluded, render_motion
from poflow_lite.datasets.scenes import SCENES, Scene, load_scene
from poflow_lite.datasets.sequences import Batch, ClipSequences, Sequences, TransformationSequences
from poflow_lite.datasets.transformations import (
    FIVE_TRANSFORMATIONS, HUE, PAPER_TRANSFORMATIONS, ROTATE, SCALE, SHEAR, TRANSLATE, Transformation, apply_pose,
    commutator_norms, generator_matrix, hue, rotate, scale,
)

__all__ = [
    "DATASETS", "FACTOR_IMAGES", "FALCOR3D", "FIVE_TRANSFORMATIONS", "HUE", "IMAGES", "ISAAC3D", "LETTERS", "MOVED",
    "PAIRS", "PAPER_TRANSFORMATIONS", "ROTATE", "SCALE", "SCENES", "SHAPES3D", "SHEAR", "SPLITS", "SPRITES",
    "TRANSLATE", "Batch", "ClipSequences", "Clouds", "FactorFolder", "FactorImages", "FactorSequences", "FactorSpace",
    "GaussianCloud", "LabelledImages", "Motion", "Scene", "Segment", "Sequences", "Shapes3DFile", "Transformation",
    "TransformationSequences", "apply_pose", "as_images", "commutator_norms", "data_directory", "download_mnist",
    "eight_gaussians", "generator_matrix", "hue", "image_folder", "image_sequences", "in_red", "load_digits",
    "load_factor_images", "load_images", "load_letters", "load_mnist", "load_mnist_10k", "load_scene",
    "load_sequences", "load_sprites", "noisy", "occluded", "only", "register", "render_file", "render_motion",
    "rotate", "sample_pair", "scale", "starting_points", "two_moons", "verify_shapes3d", "without",
]
