"""Letters and sprites: distances and outlines against closed forms, layout, splits, and that each kind can be told."""

import math

import pytest
import torch
from matplotlib.path import Path
from sklearn.svm import SVC
from tiny import generator
from torch.nn import functional as F

from poflow_lite.datasets import LETTERS, SPRITES, load_letters, load_sprites, load_stills
from poflow_lite.datasets.glyphs import coverage, distance, inside, pieces
from poflow_lite.datasets.stills import SPLITS

SIZES = {"letters": (1248, 182, 364), "sprites": (1280, 184, 360)}
KINDS = {"letters": tuple(LETTERS), "sprites": tuple(SPRITES)}
SQUARE = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0))


@pytest.fixture(scope="module")
def loaded():
    return {data: {split: load_stills(data, split) for split in SPLITS} for data in SIZES}


def points(count=500, reach=2.0, seed=0):
    return reach * (2 * torch.rand(count, 2, generator=generator(seed)) - 1)


# --- geometry -----------------------------------------------------------------------------------------------------


def test_pieces_join_the_points_and_are_filled_up_with_nothing():
    found = pieces([(((0.0, 0.0), (3.0, 4.0)),), (((0.0, 0.0), (1.0, 0.0), (1.0, 2.0)), ((5.0, 5.0), (6.0, 5.0)))])
    assert found.shape == (2, 3, 2, 2)
    assert found[0].tolist() == [[[0, 0], [3, 4]], [[3, 4], [3, 4]], [[3, 4], [3, 4]]]
    assert found[1].tolist() == [[[0, 0], [1, 0]], [[1, 0], [1, 2]], [[5, 5], [6, 5]]]


def test_long_pieces_are_divided_into_equal_ones():
    found = pieces([(((0.0, 0.0), (3.0, 4.0)),)], longest=1.3)[0]
    assert len(found) == 4
    torch.testing.assert_close((found[:, 1] - found[:, 0]).norm(dim=-1), torch.full((4,), 1.25))
    torch.testing.assert_close(found[1:, 0], found[:-1, 1])


def test_distance_from_a_square_and_from_a_point_is_the_known_one():
    x, y = points().unbind(-1)
    ends = pieces([(SQUARE,), (((0.5, 0.2), (0.5, 0.2)),)])
    outside = torch.hypot((x.abs() - 1).clamp(min=0), (y.abs() - 1).clamp(min=0))
    expected = torch.where(outside > 0, outside, 1 - torch.maximum(x.abs(), y.abs()))
    found = distance(points(), ends)
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], torch.hypot(x - 0.5, y - 0.2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [name for name in SPRITES if name != "ring"])
def test_inside_agrees_with_matplotlib(kind):
    samples = 0.6 * points(2000) + 0.5
    expected = Path(SPRITES[kind][0]).contains_points(samples.numpy())
    found = inside(samples, pieces([SPRITES[kind]]))[0]
    assert torch.equal(found, torch.tensor(expected))
    assert 0.05 < found.double().mean() < 0.6


def test_a_ring_has_a_hole_and_a_star_has_points():
    ring, star = pieces([SPRITES["ring"]]), pieces([SPRITES["star"]])
    across = torch.tensor([[0.5, 0.5], [0.7, 0.5], [0.9, 0.5], [1.01, 0.5]])
    assert inside(across, ring).tolist() == [[False, False, True, False]]
    tip, notch = torch.tensor([[0.5, 0.05]]), torch.tensor([[0.5, 0.95]])  # y is down: one point is on top
    assert inside(torch.cat([tip, notch]), star).tolist() == [[True, False]]


def test_a_moon_is_a_disc_less_another_and_a_heart_stands_on_its_tip():
    samples = 0.6 * points(2000) + 0.5
    offset, tip = samples - 0.5, torch.tensor([math.cos(math.radians(48)), math.sin(math.radians(48))]) / 2
    other = torch.tensor([0.2, 0.0])  # from the middle of the first disc
    first, second = 0.5 - offset.norm(dim=-1), (tip - other).norm() - (offset - other).norm(dim=-1)
    clear = (first.abs() > 0.005) & (second.abs() > 0.005)  # arcs are made of straight pieces
    found = inside(samples, pieces([SPRITES["moon"]]))[0]
    assert torch.equal(found[clear], ((first > 0) & (second < 0))[clear])
    heart = inside(torch.tensor([[0.5, 0.05], [0.25, 0.08], [0.75, 0.08], [0.5, 0.85]]), pieces([SPRITES["heart"]]))
    assert heart.tolist() == [[False, True, True, True]]


def test_every_outline_is_closed():
    for name, lines in SPRITES.items():
        for line in lines:
            assert math.dist(line[0], line[-1]) < 1e-9, name


def test_coverage_is_the_part_of_a_pixel_within_a_straight_edge():
    signed = torch.tensor([-3.0, -0.5, -0.25, 0.0, 0.3, 0.5, 2.0])
    torch.testing.assert_close(coverage(signed), torch.tensor([1, 1, 0.75, 0.5, 0.2, 0, 0]))


# --- data sets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", SIZES)
def test_they_have_the_form_of_the_digits(loaded, data):
    for split, size in zip(SPLITS, SIZES[data], strict=True):
        stills = loaded[data][split]
        assert stills.name == f"{data} ({split}, {size:,} images)"
        assert stills.images.shape == (size, 3, 28, 28)
        assert stills.images.dtype == torch.float32
        assert (stills.images.min(), stills.images.max()) == (0, 1)
        assert stills.images[:, 1:].abs().max() == 0
        assert torch.equal(F.pad(stills.images[..., 4:-4, 4:-4], (4, 4, 4, 4)), stills.images)
        assert stills.classes == KINDS[data]
        assert stills.labels.bincount().tolist() == [size // len(KINDS[data])] * len(KINDS[data])
        assert stills.images[:, 0].amax((1, 2)).min() > 0.8


@pytest.mark.parametrize("data", SIZES)
def test_splits_share_no_image_and_never_change(loaded, data):
    pixels = torch.cat([loaded[data][split].images[:, 0].flatten(1).double() for split in SPLITS])
    apart = torch.pdist(pixels[:, ::3])
    assert apart.min() > 0.05
    first = {"letters": "S A R W W A", "sprites": "square triangle cross star ring ring"}[data]
    assert [loaded[data]["test"].classes[label] for label in loaded[data]["test"].labels[:6]] == first.split()
    again = {"letters": load_letters, "sprites": load_sprites}[data]("test")
    assert torch.equal(again.images, loaded[data]["test"].images)
    assert torch.equal(again.labels, loaded[data]["test"].labels)


def test_drawings_fill_their_frame_and_are_in_its_middle(loaded):
    for data, least in (("letters", 16), ("sprites", 13)):
        seen = loaded[data]["test"].images[:, 0] > 0.05
        extents, middles = [], []
        for axis in (1, 2):
            used = seen.any(axis)
            first, last = used.double().argmax(1), 27 - used.flip(1).double().argmax(1)
            extents.append(last - first + 1)
            middles.append((first + last) / 2 - 13.5)
        larger = torch.maximum(*extents)
        assert (larger.min() >= least, larger.max()) == (True, 20)
        assert torch.stack(middles).abs().max() <= 1


@pytest.mark.parametrize("data", SIZES)
def test_each_kind_can_be_told_from_pixels_alone(loaded, data):
    """As well as digits can (0.99): a support vector machine learns to name unseen drawings."""
    train, test = loaded[data]["train"], loaded[data]["test"]
    machine = SVC(C=10).fit(train.images[:, 0].flatten(1).numpy(), train.labels.numpy())
    assert machine.score(test.images[:, 0].flatten(1).numpy(), test.labels.numpy()) > 0.95


def test_an_upright_letter_looks_like_itself(loaded):
    """The mean L is dark at its upper right, the mean T in both lower corners; O and ring are empty in the middle."""

    def mean(data, kind):
        stills = loaded[data]["train"]
        return stills.images[stills.labels == stills.classes.index(kind), 0].mean(0)

    letter = mean("letters", "L")
    assert letter[6:16, 16:22].mean() < 0.05 < letter[21:24, 12:18].mean()
    letter = mean("letters", "T")
    assert max(letter[18:24, 18:22].mean(), letter[18:24, 6:9].mean()) < 0.05 < letter[4:7, 10:18].mean()
    for data, kind in (("letters", "O"), ("sprites", "ring")):
        assert mean(data, kind)[13:15, 13:15].max() < 0.02
