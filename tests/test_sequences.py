"""Sequences: one transformation moves, in the protocol of the paper, drawn from a generator of their own."""

import math

import pytest
import torch

from poflow_lite.datasets import (
    PAPER_TRANSFORMATIONS,
    Batch,
    Motion,
    Phase,
    TransformationSequences,
    hue,
    render_motion,
    rotate,
    scale,
)
from poflow_lite.datasets.transformations import FIVE_TRANSFORMATIONS

IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def sequences():
    return TransformationSequences(IMAGES)


@pytest.fixture
def wandering():
    return TransformationSequences(IMAGES, start="random")


def every_time(batch, horizon=8):
    return torch.arange(horizon + 1).expand(batch, -1)


# --- the protocol -------------------------------------------------------------------------------------------------


def test_a_batch_holds_whole_sequences_with_their_index(sequences):
    batch = sequences.batch(torch.tensor([4, 0]), torch.tensor([2, 1]))
    assert batch.frames.shape == (2, 9, 3, 8, 8)
    assert torch.equal(batch.times, every_time(2))
    assert batch.k.tolist() == [2, 1]
    assert (len(batch), batch.horizon) == (2, 8)
    assert (len(sequences), sequences.names, sequences.image_shape) == (5, ("scale", "rotate", "hue"), (3, 8, 8))


@pytest.mark.parametrize("k", [0, 1, 2])
def test_frame_zero_of_a_fixed_start_is_the_image_itself(sequences, k):
    frames = sequences.batch(torch.tensor([1, 3]), k).frames
    torch.testing.assert_close(frames[:, 0], IMAGES[[1, 3]], atol=1e-5, rtol=0)
    assert (frames[:, 1:] - frames[:, :1]).abs().amax((1, 2, 3, 4)).min() > 0.1


def test_poses_of_the_paper(sequences):
    moved = sequences.poses(torch.arange(3), every_time(3)).double()
    t = torch.arange(9.0).double()
    for k, expected in enumerate([torch.log(1 + 0.1 * t), 10 * t, 20 * t]):
        torch.testing.assert_close(moved[k, :, k], expected, rtol=1e-6, atol=1e-6)
    assert moved[0, 8, 0].exp().item() == pytest.approx(1.8)
    assert moved[1, 8, 1].item() == 80
    assert moved[2, 8, 2].item() == 160


@pytest.mark.parametrize(
    ("k", "transform", "parameters"),
    [
        (0, scale, [math.log(1 + 0.1 * t) for t in range(9)]),
        (1, rotate, [10.0 * t for t in range(9)]),
        (2, hue, [20.0 * t for t in range(9)]),
    ],
)
def test_frames_are_the_image_transformed_and_clamped(sequences, k, transform, parameters):
    expected = transform(IMAGES[2:3].expand(9, -1, -1, -1), torch.tensor(parameters)).clamp(0, 1)
    torch.testing.assert_close(sequences.batch(torch.tensor([2]), k).frames[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("start", ["fixed", "random"])
def test_only_one_transformation_moves(start):
    sequences, k = TransformationSequences(IMAGES, start=start), torch.tensor([0, 1, 2, 1])
    pose = sequences.poses(k, every_time(4), generator())
    moving = (pose - pose[:, :1]).abs().amax(1) > 0  # (B, K)
    assert torch.equal(moving, torch.eye(3, dtype=torch.bool)[k])


def test_every_sample_has_its_own_k(sequences):
    indices, k = torch.tensor([3, 3, 3]), torch.tensor([2, 0, 1])
    together = sequences.batch(indices, k).frames
    alone = torch.cat([sequences.batch(indices[:1], int(j)).frames for j in k])
    torch.testing.assert_close(together, alone)


# --- random starts ------------------------------------------------------------------------------------------------


def test_random_starts_fill_the_interval_of_each_transformation(wandering):
    start = wandering.poses(torch.zeros(2000, dtype=torch.long), torch.zeros(2000, 1), generator())[:, 0]
    for column, transformation in enumerate(PAPER_TRANSFORMATIONS):
        low, high = transformation.start
        assert low <= start[:, column].min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < start[:, column].max() <= high
    assert torch.corrcoef(start.T).fill_diagonal_(0).abs().max() < 0.1  # drawn independently


def test_the_motion_from_a_random_start_is_that_from_a_fixed_one(wandering, sequences):
    k = torch.arange(3)
    pose, reference = wandering.poses(k, every_time(3), generator()), sequences.poses(k, every_time(3))
    torch.testing.assert_close(pose - pose[:, :1], reference, atol=1e-4, rtol=0)


def test_draws_are_reproducible_and_leave_the_global_state_alone(wandering):
    before = torch.get_rng_state()
    first, second, other = (wandering.sample(6, 2, generator(seed)) for seed in (1, 1, 2))
    for name in ("frames", "times", "k"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert not torch.equal(first.frames, other.frames)
    assert torch.equal(torch.get_rng_state(), before)


# --- samples and subsets of frames --------------------------------------------------------------------------------


@pytest.mark.parametrize("drawn", [1, 3, 8])
def test_sampled_frames_are_distinct_and_later_than_frame_zero(sequences, drawn):
    batch = sequences.sample(64, drawn, generator())
    assert batch.frames.shape == (64, drawn + 1, 3, 8, 8)
    assert (batch.times[:, 0] == 0).all()
    later = batch.times[:, 1:].sort(1).values
    assert (later.diff(dim=1) > 0).all()
    assert later.min() == 1
    assert later.max() == 8


@pytest.mark.parametrize("drawn", [1, 3, 8])
def test_consecutive_frames_follow_one_another_from_every_possible_start(sequences, drawn):
    times = sequences.sample(400, drawn, generator(), consecutive=True).times
    assert (times[:, 0] == 0).all()
    assert (times[:, 1:].diff(dim=1) == 1).all()
    assert sorted(set(times[:, 1].tolist())) == list(range(1, 8 - drawn + 2))


def test_sampling_is_uniform_over_times_images_and_transformations(sequences):
    batch = sequences.sample(6000, 1, generator())
    for counts, outcomes in ((batch.times[:, 1].bincount()[1:], 8), (batch.k.bincount(), 3)):
        expected = 6000 / outcomes
        assert len(counts) == outcomes
        assert (counts - expected).abs().max() < 5 * expected**0.5
    shown = (batch.frames[:, None, 0] - IMAGES).abs().amax((2, 3, 4)).argmin(1)
    assert (shown.bincount() - 1200).abs().max() < 5 * 1200**0.5
    together = torch.stack([batch.k, shown, batch.times[:, 1]]).double()
    assert torch.corrcoef(together).fill_diagonal_(0).abs().max() < 0.06


def test_sampled_frames_are_those_of_the_whole_sequence(sequences):
    batch = sequences.sample(4, 2, generator(3))
    indices = torch.randint(len(sequences), (4,), generator=generator(3))
    whole = sequences.batch(indices, batch.k).frames
    expected = whole[torch.arange(4)[:, None], batch.times]
    torch.testing.assert_close(batch.frames, expected)


def test_all_frames_are_sampled_by_default(sequences):
    batch = sequences.sample(3, generator=generator())
    assert torch.equal(batch.times, every_time(3))
    assert batch.frame_weights.tolist() == [1.0] * 9


def test_frame_weights_stand_for_the_frames_not_drawn(sequences):
    assert sequences.sample(2, 2, generator()).frame_weights.tolist() == [1, 4, 4]
    assert sequences.sample(2, 5, generator()).frame_weights.tolist() == pytest.approx([1] + 5 * [1.6])


def test_a_batch_moves_with_all_its_parts(sequences):
    moved = sequences.sample(2, 2, generator()).to("meta")
    assert {part.device.type for part in (moved.frames, moved.times, moved.k, moved.frame_weights)} == {"meta"}
    assert moved.horizon == 8


# --- bad input ----------------------------------------------------------------------------------------------------


def spoiled(value):
    images = IMAGES.clone()
    images[1, 0, 2, 3] = value
    return images


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (IMAGES[0], {}, r"must be \(N, C, H, W\), got \(3, 8, 8\)"),
        (IMAGES[:0], {"name": "mine"}, "data set 'mine' is empty: it needs at least one image"),
        ((255 * IMAGES).byte(), {}, r"floating point in \[0, 1\], got torch.uint8; divide by 255"),
        (spoiled(math.nan), {}, "1 of 5 images hold NaN or infinite pixels"),
        (spoiled(math.inf), {}, "1 of 5 images hold NaN or infinite pixels"),
        (spoiled(-0.5), {}, r"must lie in \[0, 1\], got -0.5 to"),
        (spoiled(255.0), {}, r"must lie in \[0, 1\], got .* to 255"),
        (IMAGES, {"horizon": 0}, "horizon T of at least 1 step, got 0"),
        (IMAGES, {"start": "anywhere"}, "must be 'fixed' or 'random', got 'anywhere'"),
    ],
)
def test_bad_images_and_options_are_refused_with_what_came(images, options, message):
    with pytest.raises(ValueError, match=message):
        TransformationSequences(images, **options)


@pytest.mark.parametrize(
    ("indices", "k", "message"),
    [
        ([0], 3, r"k must lie in 0\.\.2 \(scale, rotate, hue\), got values from 3 to 3"),
        ([0, 1], torch.tensor([0, -1]), r"k must lie in 0\.\.2 .* got values from -1 to 0"),
        ([0, 5], 1, r"image indices must lie in 0\.\.4, got 0 to 5"),
        ([-1, 2], 1, r"image indices must lie in 0\.\.4, got -1 to 2"),
    ],
)
def test_an_index_out_of_range_is_refused(sequences, indices, k, message):
    with pytest.raises(ValueError, match=message):
        sequences.batch(torch.tensor(indices), k)


@pytest.mark.parametrize("drawn", [0, 9, -1])
def test_more_frames_than_there_are_cannot_be_drawn(sequences, drawn):
    with pytest.raises(ValueError, match=rf"frames to draw must lie in 1\.\.8, got {drawn}"):
        sequences.sample(2, drawn)


@pytest.mark.parametrize(
    ("shapes", "horizon", "message"),
    [
        (((2, 3, 1, 4, 4), (2, 3), (2,)), 0, "horizon T of at least 1 step, got 0"),
        (((2, 1, 4, 4), (2, 3), (2,)), 2, r"frames must be \(B, n, C, H, W\), got \(2, 1, 4, 4\)"),
        (((2, 3, 1, 4, 4), (2, 2), (2,)), 2, r"need times \(B, n\) and k \(B,\) or \(B, K\), got \(2, 2\) and \(2,\)"),
        (((2, 3, 1, 4, 4), (2, 3), (1,)), 2, r"got \(2, 3\) and \(1,\)"),
    ],
)
def test_a_batch_of_inconsistent_shapes_is_refused(shapes, horizon, message):
    with pytest.raises(ValueError, match=message):
        Batch(*(torch.zeros(shape) for shape in shapes), horizon)


@pytest.mark.parametrize(
    ("indices", "k", "times", "message"),
    [
        ([0], 0.5, None, r"integer k \(B,\), got \(1,\) and \(1,\) of torch.float32"),
        ([0, 1], [0, 1, 2], None, r"got \(2,\) and \(3,\)"),
        ([], 0, None, r"at least one image index"),
        ([0], 0, [[5, 99]], r"times must lie in 0\.\.4 and start with 0, got \[\[5, 99\]\]"),
        ([0], 0, [[1, 2]], "start with 0"),
    ],
)
def test_a_batch_that_makes_no_sense_is_refused(indices, k, times, message):
    sequences = TransformationSequences(torch.rand(3, 3, 8, 8), horizon=4)
    times = None if times is None else torch.tensor(times)
    with pytest.raises(ValueError, match=message):
        sequences.batch(torch.tensor(indices, dtype=torch.long), torch.as_tensor(k), times)


def test_images_of_double_precision_stay_so():
    batch = TransformationSequences(torch.rand(3, 3, 8, 8, dtype=torch.float64), start="random").sample(2, 1)
    assert batch.frames.dtype == batch.frame_weights.dtype == torch.float64


def test_the_first_images_keep_the_protocol():
    sequences = TransformationSequences(torch.rand(5, 3, 8, 8), horizon=3, start="random", name="five")
    two = sequences.first(2)
    assert (len(two), two.horizon, two.start, two.name) == (2, 3, "random", "five")
    assert torch.equal(two.images, sequences.images[:2])
    assert len(sequences.first(9)) == 5


def test_what_moves_acts_on_the_image_in_its_start_pose_also_where_transformations_do_not_commute():
    images = torch.rand(6, 3, 12, 12, generator=generator())
    sequences = TransformationSequences(images, FIVE_TRANSFORMATIONS, horizon=4, start="random")
    for k, name in enumerate(sequences.names):
        frames = sequences.batch(torch.arange(6), k, generator=generator(5)).frames
        motion = Motion((Phase((name,), 4),))
        expected = render_motion(sequences, torch.arange(6), motion, generator(5))
        torch.testing.assert_close(frames, expected, atol=1e-4, rtol=0)
