"""Scale, rotation and hue as one-parameter groups: exact on matrices and colours, to interpolation error on images."""

import colorsys
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poflow_lite.datasets import (
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
from poflow_lite.datasets.transformations import (
    rotation_matrix,
    scale_matrix,
    shear_matrix,
    translation_matrix,
    warp,
)


def translate(images, pixels):
    return warp(images, translation_matrix(pixels))


def shear(images, slope):
    return warp(images, shear_matrix(slope))


CENTRED = [pytest.param(scale, 0.4, id="scale"), pytest.param(rotate, 35.0, id="rotate")]
CENTRED.append(pytest.param(shear, 0.5, id="shear"))
PLANE = [*CENTRED, pytest.param(translate, 3.3, id="translate")]
GROUPS = [pytest.param(scale_matrix, 1.5, id="scale"), pytest.param(rotation_matrix, 400.0, id="rotate")]
GROUPS += [pytest.param(translation_matrix, 30.0, id="translate"), pytest.param(shear_matrix, 3.0, id="shear")]


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def offsets(size=28):
    """Pixel offsets from (13.5, 13.5): x to the right and y down, each (size, size)."""
    line = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    return torch.meshgrid(line, line, indexing="xy")


def blob(x0=0.0, y0=0.0, width=4.0):
    """A smooth spot (1, 3, 28, 28), centred at an offset from the middle of the image."""
    x, y = offsets()
    grey = torch.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * width**2))
    return torch.stack([grey, 0.5 * grey, 0.2 * grey])[None]


def centroid(images):
    """Offset (x, y) of the centre of mass from the middle of the image."""
    x, y = offsets()
    weight = images.sum((0, 1))
    return [(weight * axis).sum().item() / weight.sum().item() for axis in (x, y)]


# --- groups -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("matrix", "reach"), GROUPS)
@given(data=st.data())
def test_matrices_form_a_group_with_additive_parameter(matrix, reach, data):
    a, b = (double(data.draw(st.floats(-reach, reach)))[0] for _ in range(2))
    torch.testing.assert_close(matrix(a) @ matrix(b), matrix(a + b))
    torch.testing.assert_close(matrix(-a) @ matrix(a), torch.eye(3, dtype=torch.float64))
    assert torch.equal(matrix(0 * a), torch.eye(3, dtype=torch.float64))
    centre = double(a if matrix is translation_matrix else 0.0, 0.0, 1.0)  # the others leave it where it is
    assert torch.equal(matrix(a)[:, 2], centre)


@given(a=st.floats(-400, 400), b=st.floats(-400, 400), seed=st.integers(0, 99))
def test_hue_is_a_group_exactly(a, b, seed):
    images = torch.rand(1, 3, 2, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(hue(hue(images, double(a)), double(b)), hue(images, double(a + b)))
    torch.testing.assert_close(hue(hue(images, double(a)), double(-a)), images)
    torch.testing.assert_close(hue(images, double(360.0)), images)
    torch.testing.assert_close(hue(images, double(0.0)), images, atol=1e-15, rtol=0)


@pytest.mark.parametrize(("transform", "a"), PLANE)
def test_plane_transformations_compose_up_to_interpolation(transform, a):
    image, whole = blob(2, -1), slice(6, 22)  # away from the border, over which content is lost
    once = transform(image, double(0.6 * a))
    twice, back = (transform(transform(image, double(a)), double(b)) for b in (-0.4 * a, -a))
    assert (twice - once)[..., whole, whole].abs().max() < 0.03
    assert (back - image)[..., whole, whole].abs().max() < 0.03
    assert (once - image)[..., whole, whole].abs().max() > 0.1  # it does something
    torch.testing.assert_close(transform(image, double(0.0)), image, atol=1e-12, rtol=0)


# --- what they do to an image -------------------------------------------------------------------------------------


@pytest.mark.parametrize("quarter_turns", [1, 2, 3, -1])
def test_quarter_turns_go_anticlockwise_as_seen_on_the_screen(quarter_turns):
    images = torch.rand(2, 3, 28, 28, dtype=torch.float64)
    found = rotate(images, double(90.0, 90.0) * quarter_turns)
    torch.testing.assert_close(found, torch.rot90(images, quarter_turns, dims=(-2, -1)), atol=1e-10, rtol=0)


def test_a_spot_on_the_right_rises_when_the_image_turns_and_moves_outwards_when_it_grows():
    right = blob(5, 0, width=1.5)
    assert centroid(rotate(right, double(30.0))) == pytest.approx([5 * math.cos(math.pi / 6), -2.5], abs=0.02)
    assert centroid(scale(right, double(math.log(1.5)))) == pytest.approx([7.5, 0], abs=0.02)
    grown = scale(blob(width=2), double(math.log(1.5))).sum() / blob(width=2).sum()
    assert grown.item() == pytest.approx(1.5**2, rel=0.01)


@pytest.mark.parametrize(("transform", "a"), CENTRED)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_fixed_point_is_the_true_centre(transform, a, sign):
    found = transform(blob(), double(sign * a))
    torch.testing.assert_close(found, found.flip(-1).flip(-2), atol=1e-12, rtol=0)
    assert centroid(found) == pytest.approx([0, 0], abs=1e-9)


def test_translation_goes_to_the_right_and_shear_moves_the_lower_half_there():
    assert centroid(translate(blob(-1, 2, width=2), double(3.5))) == pytest.approx([2.5, 2], abs=1e-3)
    assert centroid(shear(blob(0, 5, width=1.5), double(0.6))) == pytest.approx([3, 5], abs=0.02)
    assert centroid(shear(blob(0, -5, width=1.5), double(0.6))) == pytest.approx([-3, -5], abs=0.02)
    image = torch.rand(1, 1, 6, 8, dtype=torch.float64)
    torch.testing.assert_close(translate(image, double(2.0))[..., 2:], image[..., :-2])
    assert translate(image, double(2.0))[..., :2].abs().max() == 0


@pytest.mark.parametrize("size", [(6, 10), (7, 5)])
def test_scaling_by_two_reads_bilinearly_at_half_the_offset_in_oblong_images(size):
    image = torch.rand(1, 1, *size, dtype=torch.float64)
    found, (height, width) = scale(image, double(math.log(2)))[0, 0], size
    y, x = 0.5 * 1 + (height - 1) / 4, 0.5 * 2 + (width - 1) / 4  # output pixel (1, 2) comes from here
    i, j = math.floor(y), math.floor(x)
    (a, b), (c, d) = image[0, 0, i : i + 2, j : j + 2].tolist()
    v, u = y - i, x - j
    expected = (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * c + u * d)
    assert found[1, 2].item() == pytest.approx(expected)


def test_outside_the_image_there_is_nothing():
    shrunk = scale(torch.ones(1, 1, 28, 28, dtype=torch.float64), double(math.log(0.5)))
    assert shrunk[..., :6, :].max() == 0
    assert shrunk[..., 8:20, 8:20].min() == pytest.approx(1)


# --- colour -------------------------------------------------------------------------------------------------------


@given(colour=st.tuples(*[st.floats(0, 1)] * 3), degrees=st.one_of(st.floats(-720, 720), st.sampled_from([0, 60, 120])))
def test_hue_agrees_with_the_standard_library(colour, degrees):
    h, s, v = colorsys.rgb_to_hsv(*colour)
    expected = colorsys.hsv_to_rgb((h + degrees / 360) % 1, s, v)
    found = hue(double(*colour).view(1, 3, 1, 1), double(degrees)).flatten()
    torch.testing.assert_close(found, double(*expected), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("degrees", "expected"), [(60, (0.8, 0.8, 0)), (120, (0, 0.8, 0)), (240, (0, 0, 0.8)), (-120, (0, 0, 0.8))]
)
def test_red_goes_round_the_circle(degrees, expected):
    found = hue(double(0.8, 0.0, 0.0).view(1, 3, 1, 1), double(degrees)).flatten()
    torch.testing.assert_close(found, double(*expected))


@given(grey=st.floats(0, 1), degrees=st.floats(-400, 400))
def test_greys_have_no_hue_to_change(grey, degrees):
    images = torch.full((1, 3, 1, 1), grey, dtype=torch.float64)
    assert torch.equal(hue(images, double(degrees)), images)


def test_hue_refuses_images_without_three_channels():
    with pytest.raises(ValueError, match=r"3 channels \(red, green, blue\), got 1"):
        hue(torch.rand(1, 1, 4, 4), torch.zeros(1))


# --- gradients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transform", "a"), [(scale, 0.2), (rotate, 20.0), (hue, 50.0), (translate, 2.3), (shear, 0.3)]
)
def test_parameters_can_be_learned_by_gradient(transform, a):
    image = blob(3, 1)
    image[..., :10] = 0  # black pixels too
    parameter, step = double(a).requires_grad_(), 1e-5 * a

    def energy(p):
        return (transform(image, p) ** 2 * torch.arange(28)).sum()

    (found,) = torch.autograd.grad(energy(parameter), parameter)
    numeric = (energy(double(a + step)) - energy(double(a - step))) / (2 * step)
    assert found.item() == pytest.approx(numeric.item(), rel=1e-4)
    assert abs(found.item()) > 1e-3


@pytest.mark.parametrize("degrees", [0.0, 20.0, 60.0])
@pytest.mark.parametrize("colour", [(0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5), (1, 0, 0), (1, 1, 0)])
def test_hue_has_finite_gradients_everywhere(colour, degrees):
    image, parameter = double(*colour).view(1, 3, 1, 1).requires_grad_(), double(degrees).requires_grad_()
    gradients = torch.autograd.grad(hue(image, parameter).square().sum(), (image, parameter))
    assert all(torch.isfinite(g).all() for g in gradients)


# --- poses --------------------------------------------------------------------------------------------------------


def test_one_pass_with_a_parameter_for_each_sample_equals_a_loop():
    images = torch.rand(5, 3, 28, 28, dtype=torch.float64)
    pose = torch.stack([double(-0.3, 0, 0.2, 0.5, 0), double(0, 10, -80, 30, 0), double(0, 90, 200, -20, 0)], -1)
    found = apply_pose(images, pose, PAPER_TRANSFORMATIONS)
    alone = torch.cat([apply_pose(images[i : i + 1], pose[i : i + 1], PAPER_TRANSFORMATIONS) for i in range(5)])
    torch.testing.assert_close(found, alone)
    torch.testing.assert_close(found[4], images[4], atol=1e-12, rtol=0)
    for column, transform in enumerate((scale, rotate, hue)):
        only = torch.where(torch.arange(3) == column, pose, 0.0)
        torch.testing.assert_close(apply_pose(images, only, PAPER_TRANSFORMATIONS), transform(images, pose[:, column]))


def test_transformations_of_the_plane_act_in_their_order_with_one_interpolation():
    shift = Transformation("shift", "pixel", lambda t: t, (0, 0), matrix=translation_matrix)
    pose = double([5.0, 90.0])
    first_shifted = apply_pose(blob(width=1.5), pose, (shift, ROTATE))
    first_rotated = apply_pose(blob(width=1.5), pose.flip(-1), (ROTATE, shift))
    assert centroid(first_shifted) == pytest.approx([0, -5], abs=1e-6)
    assert centroid(first_rotated) == pytest.approx([5, 0], abs=1e-6)
    image = torch.rand(1, 3, 28, 28, dtype=torch.float64)
    there_and_back = apply_pose(image, double([37.0, -37.0]), (ROTATE, ROTATE))
    torch.testing.assert_close(there_and_back, image, atol=1e-10, rtol=0)


def test_the_protocol_of_the_paper():
    t = torch.arange(9, dtype=torch.float64)
    torch.testing.assert_close(SCALE.path(t).exp(), 1 + 0.1 * t)
    torch.testing.assert_close(ROTATE.path(t), 10 * t)
    torch.testing.assert_close(HUE.path(t), 20 * t)
    assert [transformation.name for transformation in PAPER_TRANSFORMATIONS] == ["scale", "rotate", "hue"]


def test_five_transformations_stay_within_the_frame_of_four_empty_pixels():
    t = torch.arange(9, dtype=torch.float64)
    torch.testing.assert_close(TRANSLATE.path(t), 0.5 * t)
    torch.testing.assert_close(SHEAR.path(t), 0.1 * t)
    assert (*PAPER_TRANSFORMATIONS, TRANSLATE, SHEAR) == FIVE_TRANSFORMATIONS
    for start in (0.0, *TRANSLATE.start):
        assert -4 <= start + TRANSLATE.path(t).min() <= start + TRANSLATE.path(t).max() <= 4
    for start in SHEAR.start:
        assert abs(start + SHEAR.path(t)).max() <= 0.8 + 1e-12


# --- which of them commute ----------------------------------------------------------------------------------------

IN_PLANE = [each for each in FIVE_TRANSFORMATIONS if each.matrix is not None]


@pytest.mark.parametrize("transformation", IN_PLANE, ids=lambda each: each.name)
def test_generators_are_derivatives_and_their_exponentials_the_matrices(transformation):
    generator = generator_matrix(transformation)
    derivative = torch.autograd.functional.jacobian(transformation.matrix, torch.tensor(0.0, dtype=torch.float64))
    torch.testing.assert_close(generator, derivative)
    for a in double(-0.7, 0.4, 3.0):
        torch.testing.assert_close(torch.matrix_exp(a * generator), transformation.matrix(a))


def test_colours_move_nothing_and_an_unnamed_generator_is_asked_for():
    assert torch.equal(generator_matrix(HUE), torch.zeros(3, 3, dtype=torch.float64))
    unnamed = Transformation("shift", "pixel", lambda t: t, (0, 0), matrix=translation_matrix)
    with pytest.raises(ValueError, match=r"'shift' moves the plane but has no generator; give the rows of dM/da"):
        generator_matrix(unnamed)
    with pytest.raises(ValueError, match="'shift' moves the plane"):
        commutator_norms([SCALE, unnamed])
    with pytest.raises(ValueError, match="at least one transformation, got none"):
        commutator_norms([])


def test_who_commutes_with_whom():
    norms = commutator_norms(FIVE_TRANSFORMATIONS)
    torch.testing.assert_close(norms, norms.T)
    grown, turned, slid, leant = math.log(1.1), math.radians(10), 0.5, 0.1
    expected = {  # by hand: [1, J] = 0, [1, e_x] = e_x, [J, e_x] = -e_y, [J, N] = diag(1, -1), [N, e_x] = 0
        ("scale", "translate"): grown * slid,
        ("rotate", "translate"): turned * slid,
        ("rotate", "shear"): turned * leant * math.sqrt(2),
    }
    names = [each.name for each in FIVE_TRANSFORMATIONS]
    for i, one in enumerate(names):
        for j, other in enumerate(names[i:], i):
            assert norms[i, j].item() == pytest.approx(expected.get((one, other), 0.0), abs=1e-15), (one, other)


def test_commutators_are_what_is_left_of_going_round_a_small_square():
    """M N M⁻¹ N⁻¹ = I + [G, H] + third order: a hundredth of the motion leaves a 10,000th of the commutator."""
    norms, small = commutator_norms(IN_PLANE), 0.01
    for i, one in enumerate(IN_PLANE):
        for j, other in enumerate(IN_PLANE):
            a, b = (small * each.path(double(1.0))[0] for each in (one, other))
            round_trip = one.matrix(a) @ other.matrix(b) @ one.matrix(-a) @ other.matrix(-b)
            left = torch.linalg.matrix_norm(round_trip - torch.eye(3, dtype=torch.float64)) / small**2
            assert left.item() == pytest.approx(norms[i, j].item(), rel=0.01, abs=1e-9)


def test_the_commutator_is_seen_in_pixels():
    """Rotation before or after a shift gives two images, scale before or after rotation one."""
    image, parameters = blob(2, -1, width=2), {SCALE: 0.2, ROTATE: 40.0, TRANSLATE: 3.0}
    for pair, same in (((SCALE, ROTATE), True), ((ROTATE, TRANSLATE), False), ((SCALE, TRANSLATE), False)):
        pose = double([parameters[each] for each in pair])
        difference = (apply_pose(image, pose, pair) - apply_pose(image, pose.flip(-1), pair[::-1])).abs().max()
        assert (difference < 1e-12) == same
        assert same or difference > 0.1
