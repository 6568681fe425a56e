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
from poflow_lite.datasets.transformations import translation_matrix, warp

IN_PLANE = [each for each in FIVE_TRANSFORMATIONS if each.matrix is not None]
REACH = {"scale": 1.5, "rotate": 400.0, "translate": 30.0, "shear": 3.0}
AMOUNT = {"scale": 0.4, "rotate": 35.0, "translate": 3.3, "shear": 0.5}
in_plane = pytest.mark.parametrize("each", IN_PLANE, ids=lambda each: each.name)


def moved(each, images, a):
    return warp(images, each.matrix(a))


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
    weight = images.sum((0, 1))
    return [(weight * axis).sum().item() / weight.sum().item() for axis in offsets()]


# --- groups -------------------------------------------------------------------------------------------------------


@in_plane
@given(data=st.data())
def test_matrices_form_a_group_with_additive_parameter(each, data):
    reach = REACH[each.name]
    a, b = (double(data.draw(st.floats(-reach, reach)))[0] for _ in range(2))
    torch.testing.assert_close(each.matrix(a) @ each.matrix(b), each.matrix(a + b))
    assert torch.equal(each.matrix(0 * a), torch.eye(3, dtype=torch.float64))
    centre = double(a if each is TRANSLATE else 0.0, 0.0, 1.0)  # the others leave it where it is
    assert torch.equal(each.matrix(a)[:, 2], centre)


@given(a=st.floats(-400, 400), b=st.floats(-400, 400), seed=st.integers(0, 99))
def test_hue_is_a_group_exactly(a, b, seed):
    images = torch.rand(1, 3, 2, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(hue(hue(images, double(a)), double(b)), hue(images, double(a + b)))
    torch.testing.assert_close(hue(images, double(360.0)), images)
    torch.testing.assert_close(hue(images, double(0.0)), images, atol=1e-15, rtol=0)


@in_plane
def test_plane_transformations_compose_up_to_interpolation_and_move_something(each):
    image, a, whole = blob(2, -1), AMOUNT[each.name], slice(6, 22)  # away from the border, over which content is lost
    once = moved(each, image, double(0.6 * a))
    twice, back = (moved(each, moved(each, image, double(a)), double(b)) for b in (-0.4 * a, -a))
    assert (twice - once)[..., whole, whole].abs().max() < 0.03
    assert (back - image)[..., whole, whole].abs().max() < 0.03
    assert (once - image)[..., whole, whole].abs().max() > 0.1


# --- what they do to an image -------------------------------------------------------------------------------------


@pytest.mark.parametrize("quarter_turns", [1, 2, 3, -1])
def test_quarter_turns_go_anticlockwise_as_seen_on_the_screen(quarter_turns):
    images = torch.rand(2, 3, 28, 28, dtype=torch.float64)
    found = rotate(images, double(90.0, 90.0) * quarter_turns)
    torch.testing.assert_close(found, torch.rot90(images, quarter_turns, dims=(-2, -1)), atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("each", "a", "spot", "expected"),
    [
        (ROTATE, 30.0, (5, 0), (5 * math.cos(math.pi / 6), -2.5)),  # what lies on the right rises
        (SCALE, math.log(1.5), (5, 0), (7.5, 0)),
        (TRANSLATE, 3.5, (-1, 2), (2.5, 2)),
        (SHEAR, 0.6, (0, 5), (3, 5)),
        (SHEAR, 0.6, (0, -5), (-3, -5)),
    ],
)
def test_where_a_spot_goes(each, a, spot, expected):
    assert centroid(moved(each, blob(*spot, width=1.5), double(a))) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("each", [SCALE, ROTATE, SHEAR], ids=lambda each: each.name)
def test_the_fixed_point_is_the_true_centre(each):
    found = moved(each, blob(), double(-AMOUNT[each.name]))
    torch.testing.assert_close(found, found.flip(-1).flip(-2), atol=1e-12, rtol=0)
    assert centroid(found) == pytest.approx([0, 0], abs=1e-9)


@pytest.mark.parametrize("size", [(6, 10), (7, 5)])
def test_scaling_by_two_reads_bilinearly_at_half_the_offset_in_oblong_images(size):
    image = torch.rand(1, 1, *size, dtype=torch.float64)
    found, (height, width) = scale(image, double(math.log(2)))[0, 0], size
    y, x = 0.5 * 1 + (height - 1) / 4, 0.5 * 2 + (width - 1) / 4  # output pixel (1, 2) comes from here
    i, j = math.floor(y), math.floor(x)
    (a, b), (c, d) = image[0, 0, i : i + 2, j : j + 2].tolist()
    v, u = y - i, x - j
    assert found[1, 2].item() == pytest.approx((1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * c + u * d))


def test_outside_the_image_there_is_nothing():
    shrunk = scale(torch.ones(1, 1, 28, 28, dtype=torch.float64), double(math.log(0.5)))
    assert (shrunk[..., :6, :].max(), shrunk[..., 8:20, 8:20].min()) == (0, pytest.approx(1))


@given(colour=st.tuples(*[st.floats(0, 1)] * 3), degrees=st.one_of(st.floats(-720, 720), st.sampled_from([0, 60, 120])))
def test_hue_agrees_with_the_standard_library(colour, degrees):
    h, s, v = colorsys.rgb_to_hsv(*colour)
    expected = colorsys.hsv_to_rgb((h + degrees / 360) % 1, s, v)
    found = hue(double(*colour).view(1, 3, 1, 1), double(degrees)).flatten()
    torch.testing.assert_close(found, double(*expected), atol=1e-9, rtol=0)


def test_greys_have_no_hue_to_change_and_other_numbers_of_channels_are_refused():
    grey = torch.rand(2, 1, 3, 3).expand(-1, 3, -1, -1)
    assert torch.equal(hue(grey, torch.tensor([77.0, -300.0])), grey)
    with pytest.raises(ValueError, match=r"3 channels \(red, green, blue\), got 1"):
        hue(grey[:, :1], torch.zeros(2))


@pytest.mark.parametrize("each", FIVE_TRANSFORMATIONS, ids=lambda each: each.name)
def test_parameters_can_be_learned_by_gradient(each):
    image, a = blob(3, 1), {**AMOUNT, "hue": 50.0}[each.name]
    image[..., :10] = 0  # black pixels too
    parameter, step = double(a).requires_grad_(), 1e-5 * a

    def energy(p):
        return (apply_pose(image, p[None], (each,)) ** 2 * torch.arange(28)).sum()

    (found,) = torch.autograd.grad(energy(parameter), parameter)
    numeric = (energy(double(a + step)) - energy(double(a - step))) / (2 * step)
    assert found.item() == pytest.approx(numeric.item(), rel=1e-4)
    assert abs(found.item()) > 1e-3


@pytest.mark.parametrize("colour", [(0, 0, 0), (0.5, 0.5, 0.5), (1, 0, 0), (1, 1, 0)])
def test_hue_has_finite_gradients_everywhere(colour):
    image, parameter = double(*colour).view(1, 3, 1, 1).requires_grad_(), double(60.0).requires_grad_()
    gradients = torch.autograd.grad(hue(image, parameter).square().sum(), (image, parameter))
    assert all(torch.isfinite(g).all() for g in gradients)


# --- poses --------------------------------------------------------------------------------------------------------


def test_one_pass_with_a_parameter_for_each_sample_equals_a_loop_and_each_alone():
    images = torch.rand(5, 3, 28, 28, dtype=torch.float64)
    pose = torch.stack([double(-0.3, 0, 0.2, 0.5, 0), double(0, 10, -80, 30, 0), double(0, 90, 200, -20, 0)], -1)
    found = apply_pose(images, pose, PAPER_TRANSFORMATIONS)
    alone = torch.cat([apply_pose(images[i : i + 1], pose[i : i + 1], PAPER_TRANSFORMATIONS) for i in range(5)])
    torch.testing.assert_close(found, alone)
    for column, transform in enumerate((scale, rotate, hue)):
        only = torch.where(torch.arange(3) == column, pose, 0.0)
        torch.testing.assert_close(apply_pose(images, only, PAPER_TRANSFORMATIONS), transform(images, pose[:, column]))


def test_transformations_of_the_plane_act_in_their_order_with_one_interpolation():
    pose = double([5.0, 90.0])
    first_shifted = apply_pose(blob(width=1.5), pose, (TRANSLATE, ROTATE))
    first_rotated = apply_pose(blob(width=1.5), pose.flip(-1), (ROTATE, TRANSLATE))
    assert centroid(first_shifted) == pytest.approx([0, -5], abs=1e-6)
    assert centroid(first_rotated) == pytest.approx([5, 0], abs=1e-6)
    image = torch.rand(1, 3, 28, 28, dtype=torch.float64)
    there_and_back = apply_pose(image, double([37.0, -37.0]), (ROTATE, ROTATE))
    torch.testing.assert_close(there_and_back, image, atol=1e-10, rtol=0)


def test_the_protocol_of_the_paper_and_two_that_stay_within_four_empty_pixels():
    t = torch.arange(9, dtype=torch.float64)
    expected = {"scale": torch.log(1 + 0.1 * t), "rotate": 10 * t, "hue": 20 * t, "translate": t / 2, "shear": 0.1 * t}
    assert [each.name for each in FIVE_TRANSFORMATIONS] == list(expected)
    assert FIVE_TRANSFORMATIONS[:3] == PAPER_TRANSFORMATIONS
    for each in FIVE_TRANSFORMATIONS:
        torch.testing.assert_close(each.path(t), expected[each.name])
    for each, bound in ((TRANSLATE, 4), (SHEAR, 0.8)):
        for start in (0.0, *each.start):
            assert (start + each.path(t)).abs().max() <= bound + 1e-12


# --- generators: derived, never written down ------------------------------------------------------------------------

DEGREE = math.pi / 180
BY_HAND = {
    "scale": [[1, 0, 0], [0, 1, 0], [0, 0, 0]],
    "rotate": [[0, DEGREE, 0], [-DEGREE, 0, 0], [0, 0, 0]],
    "hue": [[0, 0, 0]] * 3,
    "translate": [[0, 0, 1], [0, 0, 0], [0, 0, 0]],
    "shear": [[0, 1, 0], [0, 0, 0], [0, 0, 0]],
}


@pytest.mark.parametrize("each", FIVE_TRANSFORMATIONS, ids=lambda each: each.name)
def test_generators_are_those_by_hand_and_their_exponentials_the_matrices(each):
    generator = generator_matrix(each)
    torch.testing.assert_close(generator, torch.tensor(BY_HAND[each.name], dtype=torch.float64), atol=0, rtol=1e-15)
    for a in double(-0.7, 0.4, 3.0) if each.matrix else ():
        torch.testing.assert_close(torch.matrix_exp(a * generator), each.matrix(a))


def squeeze_matrix(a):
    return torch.diag_embed(torch.stack([a.exp(), (-a).exp(), torch.ones_like(a)], -1))


def test_a_transformation_of_ones_own_needs_a_matrix_and_nothing_else():
    squeeze = Transformation("squeeze", lambda t: 0.1 * t, (-0.2, 0.2), matrix=squeeze_matrix)
    torch.testing.assert_close(generator_matrix(squeeze), torch.diag(double(1, -1, 0)))
    norms = commutator_norms([squeeze, SCALE, SHEAR])
    assert norms[0, 1] == 0
    assert norms[0, 2].item() == pytest.approx(2 * 0.1 * 0.1)  # [diag(1, -1), N] = 2 N


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Transformation("none", lambda t: t, (0, 0)), "'none' needs either matrix=... or recolour="),
        (lambda: Transformation("both", lambda t: t, (0, 0), translation_matrix, hue), "'both' needs either"),
        (
            lambda: generator_matrix(Transformation("x", abs, (0, 0), lambda a: translation_matrix(a**2))),
            "group",
        ),
        (lambda: generator_matrix(Transformation("x", abs, (0, 0), lambda a: 2 * SHEAR.matrix(a))), r"M\(0\)"),
        (lambda: commutator_norms([]), "at least one transformation, got none"),
    ],
)
def test_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_who_commutes_with_whom():
    norms = commutator_norms(FIVE_TRANSFORMATIONS)
    torch.testing.assert_close(norms, norms.T)
    grown, turned, slid, leant = math.log(1.1), math.radians(10), 0.5, 0.1
    expected = {  # by hand: [1, J] = 0, [1, e_x] = e_x, [J, e_x] = -e_y, [J, N] = diag(1, -1), [N, e_x] = 0
        ("scale", "translate"): grown * slid,
        ("rotate", "translate"): turned * slid,
        ("rotate", "shear"): turned * leant * math.sqrt(2),
    }
    for i, one in enumerate(FIVE_TRANSFORMATIONS):
        for j, other in enumerate(FIVE_TRANSFORMATIONS[i:], i):
            assert norms[i, j].item() == pytest.approx(expected.get((one.name, other.name), 0.0), abs=1e-15)


def test_a_map_of_colours_commutes_with_the_plane_in_pixels():
    pose, image = double([40.0, 70.0]), blob(2, -1)
    assert torch.equal(apply_pose(image, pose, (ROTATE, HUE)), apply_pose(image, pose.flip(-1), (HUE, ROTATE)))
