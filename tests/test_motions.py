"""Motions that were never trained: their rendered truth obeys the group laws that it is made from."""

import itertools

import pytest
import torch
from tiny import generator

from poflow_lite.datasets import HUE, ROTATE, SCALE, Motion, Phase, TransformationSequences, render_motion
from poflow_lite.datasets.transformations import FIVE_TRANSFORMATIONS, TRANSLATE, apply_pose

NAMES = ("scale", "rotate", "hue")


@pytest.fixture(scope="module")
def blobs():
    """Smooth coloured images of 20×20 pixels with an empty border, so that interpolation hardly matters."""
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    centres = 9.5 + 3 * torch.randn(5, 2, generator=generator())
    spots = torch.exp(-((x - centres[:, :1, None]) ** 2 + (y - centres[:, 1:, None]) ** 2) / 12)
    return torch.stack([spots, 0.3 * spots, 0.1 * spots], 1)


def render(images, *phases, backwards=False, transformations=(SCALE, ROTATE, HUE), start="fixed", seed=0):
    sequences = TransformationSequences(images, transformations, start=start)
    motion = Motion(tuple(Phase(*phase) for phase in phases), backwards)
    return render_motion(sequences, torch.arange(len(images)), motion, generator(seed))


@pytest.mark.parametrize("start", ["fixed", "random"])
@pytest.mark.parametrize("k", range(3))
def test_a_single_transformation_is_the_sequence_that_models_are_trained_on(blobs, k, start):
    sequences = TransformationSequences(blobs, (SCALE, ROTATE, HUE), start=start)
    trained = sequences.batch(torch.arange(5), k, generator=generator(3)).frames
    torch.testing.assert_close(render(blobs, ((NAMES[k],), 8), start=start, seed=3), trained, atol=1e-4, rtol=0)


def test_a_second_phase_goes_on_from_the_first_with_a_clock_of_its_own(blobs):
    frames = render(blobs, (("rotate",), 3), (("scale",), 2))
    assert frames.shape[1] == 6
    pose = torch.stack([torch.log1p(torch.tensor(0.2)), torch.tensor(30.0), torch.tensor(0.0)]).expand(5, 3)
    torch.testing.assert_close(frames[:, -1], apply_pose(blobs, pose, (SCALE, ROTATE, HUE)), atol=1e-4, rtol=0)


def test_transformations_at_once_reach_the_pose_of_both(blobs):
    frames = render(blobs, (("scale", "rotate", "hue"), 4))
    pose = torch.stack([torch.log1p(torch.tensor(0.4)), torch.tensor(40.0), torch.tensor(80.0)]).expand(5, 3)
    torch.testing.assert_close(frames[:, -1], apply_pose(blobs, pose, (SCALE, ROTATE, HUE)), atol=1e-4, rtol=0)


def test_speed_is_how_far_the_clock_runs(blobs):
    normal, slow, fast = (render(blobs, (("rotate",), n, speed)) for n, speed in ((8, 1.0), (8, 0.5), (4, 2.0)))
    torch.testing.assert_close(slow[:, ::2], normal[:, :5])
    torch.testing.assert_close(fast, normal[:, ::2], atol=1e-5, rtol=0)


def test_backwards_is_the_same_film_from_its_end(blobs):
    film = render(blobs, (("scale",), 3), (("hue",), 2))
    torch.testing.assert_close(render(blobs, (("scale",), 3), (("hue",), 2), backwards=True), film.flip(1))


def test_the_order_matters_only_where_the_groups_do_not_commute(blobs):
    def ends(i, j):
        pair = ((i,), 6), ((j,), 6)
        return [render(blobs, *order, transformations=FIVE_TRANSFORMATIONS)[:, -1] for order in (pair, pair[::-1])]

    commuting = {frozenset(pair) for pair in itertools.combinations(NAMES, 2)}
    others = ("hue", "translate"), ("hue", "shear"), ("scale", "shear"), ("translate", "shear")  # both along x
    commuting |= {frozenset(pair) for pair in others}
    for i, j in itertools.combinations([transformation.name for transformation in FIVE_TRANSFORMATIONS], 2):
        first, second = ends(i, j)
        gap = (first - second).abs().max().item()
        assert (gap < 1e-4) == (frozenset((i, j)) in commuting), (i, j, gap)


def test_what_comes_later_acts_on_what_came_before(blobs):
    frames = render(blobs, (("translate",), 4), (("rotate",), 9), transformations=(ROTATE, TRANSLATE))
    moved = apply_pose(blobs, torch.tensor([[0.0, 2.0]]).expand(5, 2), (ROTATE, TRANSLATE))  # 2 pixels to the right
    turned = torch.rot90(moved, 1, (-2, -1))  # by 90 degrees, anticlockwise
    torch.testing.assert_close(frames[:, -1], turned, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((), 3), "at least one transformation"),
        ((("scale",), 0), "one frame"),
        ((("scale",), 3, 0.0), "positive speed"),
    ],
)
def test_a_phase_in_which_nothing_can_happen_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Phase(*arguments)


def test_an_unknown_transformation_is_named(blobs):
    with pytest.raises(ValueError, match="unknown transformation 'fold'"):
        render(blobs, (("fold",), 2))


def test_motions_have_readable_names():
    assert Motion((Phase(("scale",), 2), Phase(("rotate", "hue"), 2))).name == "scale, then rotate + hue"
    assert Motion((Phase(("hue",), 2),), backwards=True).name == "hue, backwards"
