"""Image transformations as differentiable one-parameter groups: T_a T_b = T_{a+b}, T_0 the identity.

A transformation of the plane is given by its matrix in homogeneous pixel coordinates about the image centre, so that
any pose is one matrix and one interpolation; a transformation of colour acts on each pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import mul

import torch
from torch import Tensor
from torch.nn import functional as F

# --- the plane ----------------------------------------------------------------------------------------------------


def scale_matrix(log_factor: Tensor) -> Tensor:
    """Enlargement by exp(a) about the centre, (..., 3, 3); a is the additive parameter of the group."""
    factor, zero, one = torch.exp(log_factor), torch.zeros_like(log_factor), torch.ones_like(log_factor)
    return _matrix([[factor, zero, zero], [zero, factor, zero], [zero, zero, one]])


def rotation_matrix(degrees: Tensor) -> Tensor:
    """Rotation about the centre, anticlockwise as seen on the screen, (..., 3, 3)."""
    angle = torch.deg2rad(degrees)
    cosine, sine, zero, one = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle), torch.ones_like(angle)
    return _matrix([[cosine, sine, zero], [-sine, cosine, zero], [zero, zero, one]])


def translation_matrix(pixels: Tensor) -> Tensor:
    """Shift to the right by so many pixels, (..., 3, 3)."""
    zero, one = torch.zeros_like(pixels), torch.ones_like(pixels)
    return _matrix([[one, zero, pixels], [zero, one, zero], [zero, zero, one]])


def shear_matrix(slope: Tensor) -> Tensor:
    """x' = x + a y with y down from the centre: the lower half to the right, the upper to the left; (..., 3, 3)."""
    zero, one = torch.zeros_like(slope), torch.ones_like(slope)
    return _matrix([[one, slope, zero], [zero, one, zero], [zero, zero, one]])


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def warp(images: Tensor, matrix: Tensor) -> Tensor:
    """Move the content of each image (B, C, H, W) by ``matrix``, bilinear, zeros outside; differentiable in both.

    The matrix (B, 3, 3) acts on pixel offsets (x to the right, y down, 1) from the centre, ((W-1)/2, (H-1)/2).
    """
    height, width = images.shape[-2:]
    half = torch.tensor([width / 2, height / 2, 1.0], dtype=matrix.dtype, device=matrix.device)
    inverse = torch.linalg.inv(matrix)  # affine_grid asks where each output pixel comes from
    normalised = (inverse * half / half[:, None])[:, :2]
    grid = F.affine_grid(normalised, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def scale(images: Tensor, log_factor: Tensor) -> Tensor:
    """Enlarge each image by exp(log_factor) about its centre; ``log_factor`` (B,)."""
    return warp(images, scale_matrix(log_factor))


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Rotate each image anticlockwise about its centre; ``degrees`` (B,)."""
    return warp(images, rotation_matrix(degrees))


# --- colour -------------------------------------------------------------------------------------------------------


def hue(images: Tensor, degrees: Tensor) -> Tensor:
    """Advance the hue of every pixel on the HSV colour circle; saturation and value stay; exact for every angle.

    Args:
        images: (B, 3, H, W) in [0, 1], red, green, blue.
        degrees: (B,); red becomes green at 120.
    """
    if images.shape[-3] != 3:
        raise ValueError(f"hue needs images with 3 channels (red, green, blue), got {images.shape[-3]}")
    value, index = images.max(-3)
    chroma = value - images.amin(-3)
    safe = torch.where(chroma > 0, chroma, 1.0)  # a grey pixel has no hue, and any will do
    red, green, blue = images.unbind(-3)
    sixth = torch.stack([(green - blue) / safe, 2 + (blue - red) / safe, 4 + (red - green) / safe], -3)
    sixth = sixth.gather(-3, index.unsqueeze(-3)).squeeze(-3) + degrees[:, None, None] / 60
    offsets = torch.tensor([0.0, 4.0, 2.0], dtype=images.dtype, device=images.device)[:, None, None]
    ramp = ((torch.remainder(sixth.unsqueeze(-3) + offsets, 6.0) - 3).abs() - 1).clamp(0, 1)
    return (value - chroma).unsqueeze(-3) + chroma.unsqueeze(-3) * ramp


# --- transformations of sequences -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Transformation:
    """A one-parameter group and the way a sequence moves along it.

    Attributes:
        name: as used in tables and ``metrics.json``.
        path: t (frames, any shape) ↦ the additive parameter of the group, with path(0) = 0.
        start: interval from which a random start pose is drawn, in the additive parameter.
        matrix: parameter (...) ↦ (..., 3, 3) by torch's functions, for a transformation of the plane.
        recolour: (images, parameter (B,)) ↦ images, for a transformation of colour. Exactly one of the two is given.
        unit: of one step, for captions.
    """

    name: str
    path: Callable[[Tensor], Tensor]
    start: tuple[float, float]
    matrix: Callable[[Tensor], Tensor] | None = None
    recolour: Callable[[Tensor, Tensor], Tensor] | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        if (self.matrix is None) == (self.recolour is None):
            raise ValueError(f"the transformation {self.name!r} needs either matrix=... or recolour=...")


def _grow(t: Tensor) -> Tensor:
    return torch.log1p(0.1 * t)


SCALE = Transformation("scale", _grow, (math.log(0.7), 0.0), scale_matrix, unit="0.1 × the first size")
ROTATE = Transformation("rotate", partial(mul, 10.0), (-40.0, 40.0), rotation_matrix, unit="10°")
HUE = Transformation("hue", partial(mul, 20.0), (0.0, 360.0), recolour=hue, unit="20°")
TRANSLATE = Transformation("translate", partial(mul, 0.5), (-4.0, 0.0), translation_matrix, unit="0.5 pixels")
SHEAR = Transformation("shear", partial(mul, 0.1), (-0.8, 0.0), shear_matrix, unit="0.1")

PAPER_TRANSFORMATIONS = (SCALE, ROTATE, HUE)
"""Scale 1.0 → 1.8 by 0.1, rotation 0 → 80° by 10°, hue 0 → 160° by 20°, for T = 8 (Song et al. 2023, experiments)."""

FIVE_TRANSFORMATIONS = (*PAPER_TRANSFORMATIONS, TRANSLATE, SHEAR)
"""With two more that do not commute with all others: 0 → 4 pixels to the right, sheared by 0 → 0.8, for T = 8."""


def pose_matrix(pose: Tensor, transformations: Sequence[Transformation]) -> Tensor | None:
    """The matrix (..., 3, 3) of a pose (..., K): those of the plane, first one first; ``None`` if only colours move."""
    matrix = None
    for transformation, parameter in zip(transformations, pose.unbind(-1), strict=True):
        if transformation.matrix is not None:
            step = transformation.matrix(parameter)
            matrix = step if matrix is None else step @ matrix
    return matrix


def apply_pose(images: Tensor, pose: Tensor, transformations: Sequence[Transformation]) -> Tensor:
    """Apply K transformations to images (B, C, H, W), by the parameters in ``pose`` (B, K), with one interpolation.

    Those of the plane act in their order, the first one first.
    """
    return place(images, pose_matrix(pose, transformations), pose, transformations)


def place(images: Tensor, matrix: Tensor | None, pose: Tensor, transformations: Sequence[Transformation]) -> Tensor:
    """Move the plane by ``matrix`` (B, 3, 3), or not at all, and recolour by the parameters in ``pose`` (B, K)."""
    if matrix is not None:
        images = warp(images, matrix)
    for transformation, parameter in zip(transformations, pose.unbind(-1), strict=True):
        if transformation.recolour is not None:
            images = transformation.recolour(images, parameter)
    return images


# --- which of them commute ----------------------------------------------------------------------------------------


def generator_matrix(transformation: Transformation) -> Tensor:
    """G = dM/da at a = 0, per unit of the additive parameter: (3, 3) float64, zero for a transformation of colour.

    M(a) = exp(a G), in the coordinates of :func:`warp`: pixels from the centre of the image, x to the right, y down.

    Raises:
        ValueError: if M(a) is not exp(a G), so that the matrices are no one-parameter group.
    """
    if transformation.matrix is None:
        return torch.zeros(3, 3, dtype=torch.float64)
    zero = torch.zeros((), dtype=torch.float64)
    generator = torch.func.jacrev(transformation.matrix)(zero)
    for a in (zero, zero + 1):
        if not torch.allclose(transformation.matrix(a), torch.matrix_exp(a * generator), atol=1e-6):
            raise ValueError(
                f"the matrices of {transformation.name!r} are no one-parameter group: M({a:g}) is not exp({a:g} G) "
                "with G = dM/da at 0; choose the parameter so that M(a) M(b) = M(a + b)"
            )
    return generator


def commutator_norms(transformations: Sequence[Transformation]) -> Tensor:
    """‖[G_i, G_j]‖ of the motion from frame 0 to frame 1, Frobenius norm: (K, K) float64, symmetric.

    G_i is the generator times path_i(1) - path_i(0), so that exp(G_i) is what moves frame 0 to frame 1. Two groups
    commute if and only if [G, H] = G H - H G = 0: scale and rotation, each with itself, and colour with everything,
    because a map of colours is the same wherever a pixel is (and the colours here have one group only). A commutator
    that is a shift has its norm in pixels, one that is linear has none: compare sizes within either kind.

    Raises:
        ValueError: for no transformation, or as :func:`generator_matrix`.
    """
    if not transformations:
        raise ValueError("commutators need at least one transformation, got none")
    frames = torch.tensor([0.0, 1.0], dtype=torch.float64)
    motions = torch.stack([generator_matrix(each) * each.path(frames).diff() for each in transformations])
    products = motions[:, None] @ motions[None]  # (K, K, 3, 3)
    return torch.linalg.matrix_norm(products - products.transpose(0, 1))
