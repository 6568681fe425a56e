"""Sequences in which one transformation moves, in the paper's protocol; labelled clips; motions; corruptions."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from poflow_lite.datasets import (
    FIVE_TRANSFORMATIONS,
    PAPER_TRANSFORMATIONS,
    ROTATE,
    SCALE,
    TRANSLATE,
    AllAtOnce,
    Batch,
    ClipSequences,
    Motion,
    Segment,
    TransformationSequences,
    apply_pose,
    hue,
    load_images,
    noisy,
    occluded,
    render_motion,
    rotate,
    scale,
)
from poflow_lite.metrics import every_sequence

IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SEQUENCES = TransformationSequences(IMAGES)
WANDERING = TransformationSequences(IMAGES, start="random")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def every_time(batch, horizon=8):
    return torch.arange(horizon + 1).expand(batch, -1)


# --- the protocol -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "transform", "parameters"),
    [
        (0, scale, [math.log(1 + 0.1 * t) for t in range(9)]),
        (1, rotate, [10.0 * t for t in range(9)]),
        (2, hue, [20.0 * t for t in range(9)]),
    ],
)
def test_frames_are_the_image_transformed_and_clamped(k, transform, parameters):
    batch = SEQUENCES.batch(torch.tensor([2, 0]), k)
    expected = transform(IMAGES[2:3].expand(9, -1, -1, -1), torch.tensor(parameters)).clamp(0, 1)
    torch.testing.assert_close(batch.frames[0], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(batch.frames[:, 0], IMAGES[[2, 0]], atol=1e-5, rtol=0)
    assert torch.equal(batch.times, every_time(2))
    assert (batch.k.tolist(), len(batch), batch.horizon) == ([k, k], 2, 8)
    assert (len(SEQUENCES), SEQUENCES.names, SEQUENCES.image_shape) == (5, ("scale", "rotate", "hue"), (3, 8, 8))


@pytest.mark.parametrize("sequences", [SEQUENCES, WANDERING], ids=["fixed", "random"])
def test_only_one_transformation_moves_and_every_sample_has_its_own(sequences):
    indices, k = torch.tensor([3, 3, 3, 1]), torch.tensor([2, 0, 1, 1])
    pose = sequences.progress(k, every_time(4)) + sequences.start_pose(len(k), generator())[:, None]
    moving = (pose - pose[:, :1]).abs().amax(1) > 0  # (B, K)
    assert torch.equal(moving, torch.eye(3, dtype=torch.bool)[k])
    torch.testing.assert_close(pose - pose[:, :1], SEQUENCES.progress(k, every_time(4)), atol=1e-4, rtol=0)
    together = sequences.batch(indices, k, generator=generator()).frames
    start = sequences.start_pose(4, generator())
    alone = [
        sequences.render(IMAGES[i : i + 1], pose[j : j + 1] - start[j], start[j : j + 1]) for j, i in enumerate(indices)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_random_starts_fill_the_interval_of_each_transformation_independently():
    start = WANDERING.start_pose(2000, generator())
    for column, transformation in enumerate(PAPER_TRANSFORMATIONS):
        low, high = transformation.start
        assert low <= start[:, column].min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < start[:, column].max() <= high
    assert torch.corrcoef(start.T).fill_diagonal_(0).abs().max() < 0.1
    assert not SEQUENCES.start_pose(3, generator()).any()


def test_draws_are_reproducible_and_leave_the_global_state_alone():
    before = torch.get_rng_state()
    first, second, other = (WANDERING.sample(6, 2, generator(seed)) for seed in (1, 1, 2))
    for name in ("frames", "times", "k"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert not torch.equal(first.frames, other.frames)
    assert torch.equal(torch.get_rng_state(), before)


# --- samples and subsets of frames --------------------------------------------------------------------------------


@pytest.mark.parametrize("drawn", [1, 3, 8])
@pytest.mark.parametrize("which", ["any", "consecutive", "first_two"])
def test_sampled_frames_are_distinct_and_later_than_frame_zero(drawn, which):
    batch = SEQUENCES.sample(400, drawn, generator(), **({} if which == "any" else {which: True}))
    assert batch.frames.shape == (400, drawn + 1, 3, 8, 8)
    assert not batch.times[:, 0].any()
    later = batch.times[:, 1:].sort(1).values
    assert (later.diff(dim=1) > 0).all()
    assert (later.min(), later.max()) == (1, 1 if which == "first_two" and drawn == 1 else 8)
    if which == "first_two":
        assert (batch.times[:, 1] == 1).all()
        assert (batch.times[:, 2:].flatten().bincount(minlength=9)[2:] > 0).all() or drawn == 1
    if which == "consecutive":
        assert (batch.times[:, 1:].diff(dim=1) == 1).all()
        assert sorted(set(batch.times[:, 1].tolist())) == list(range(1, 8 - drawn + 2))
    assert batch.frame_weights.tolist() == pytest.approx([1] + drawn * [8 / drawn])


def test_sampling_is_uniform_over_times_images_and_transformations():
    batch = SEQUENCES.sample(6000, 1, generator())
    shown = (batch.frames[:, None, 0] - IMAGES).abs().amax((2, 3, 4)).argmin(1)
    for counts, outcomes in ((batch.times[:, 1].bincount()[1:], 8), (batch.k.bincount(), 3), (shown.bincount(), 5)):
        expected = 6000 / outcomes
        assert len(counts) == outcomes
        assert (counts - expected).abs().max() < 5 * expected**0.5
    together = torch.stack([batch.k, shown, batch.times[:, 1]]).double()
    assert torch.corrcoef(together).fill_diagonal_(0).abs().max() < 0.06


def test_sampled_frames_are_those_of_the_whole_sequence_and_all_by_default():
    batch = SEQUENCES.sample(4, 2, generator(3))
    indices = torch.randint(len(SEQUENCES), (4,), generator=generator(3))
    whole = SEQUENCES.batch(indices, batch.k)
    torch.testing.assert_close(batch.frames, whole.frames[torch.arange(4)[:, None], batch.times])
    assert torch.equal(SEQUENCES.sample(4, generator=generator(3)).frames, whole.frames)


def test_a_batch_moves_with_all_its_parts():
    batch = replace(SEQUENCES.sample(2, 2, generator()), labelled=torch.tensor([True, False]))
    moved = batch.to("meta")
    parts = (moved.frames, moved.times, moved.k, moved.labelled, moved.frame_weights)
    assert {part.device.type for part in parts} == {"meta"}
    assert (moved.horizon, batch.frames.device.type) == (8, "cpu")


def test_frames_that_do_not_follow_one_another_are_named():
    batch = SEQUENCES.batch(torch.tensor([0, 1]), 0, torch.tensor([[0, 4, 5]] * 2))
    batch.require_consecutive("this model")
    with pytest.raises(ValueError, match=r"this model needs frames that follow one another.*got times \[0, 1, 3\]"):
        replace(batch, times=torch.tensor([[0, 1, 3]] * 2)).require_consecutive("this model")


def test_dealt_images_have_one_transformation_each_and_clips_keep_their_own():
    dealt = SEQUENCES.in_turns()
    assert [dealt.of(k).tolist() for k in range(3)] == [[0, 3], [1, 4], [2]]
    assert len(SEQUENCES.of(0)) == 5  # the original is as it was
    shown = {k: len(batch) for k, batch in every_sequence(SEQUENCES.first(2).in_turns())}
    assert shown == {0: 1, 1: 1}
    drawn, expected = dealt.sample(20, generator=generator()), SEQUENCES.sample(20, generator=generator())
    assert torch.equal(drawn.frames[:, 0], expected.frames[:, 0])
    images = (drawn.frames[:, 0, None] - IMAGES).abs().flatten(2).amax(2).argmin(1)
    assert torch.equal(drawn.k, images % 3)
    clips = ClipSequences(torch.rand(3, 4, 3, 6, 6), torch.tensor([0, 1, 0]), ("a", "b"))
    assert [clips.in_turns().of(k).tolist() for k in range(2)] == [[0, 2], [1]]


def test_the_first_images_keep_the_protocol_and_who_is_labelled():
    sequences = TransformationSequences(IMAGES, horizon=3, start="random", name="five", labelled=3)
    two = sequences.first(4)
    assert (len(two), two.horizon, two.start, two.name) == (4, 3, "random", "five")
    assert torch.equal(two.images, IMAGES[:4])
    assert len(sequences.first(9)) == len(sequences) == 5
    assert two.batch(torch.tensor([3, 2, 0]), 0).labelled.tolist() == [False, True, True]
    assert torch.equal(two.of(1), torch.arange(4))


# --- users' images ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        ((255 * IMAGES).byte(), (3, 8, 8)),
        (IMAGES.double().numpy(), (3, 8, 8)),
        (IMAGES[:, 0, :, :6], (1, 8, 6)),
        (IMAGES[:, :1, :5].half(), (1, 5, 8)),
    ],
)
def test_images_of_any_size_channels_and_type_move(images, shape):
    chosen = PAPER_TRANSFORMATIONS if shape[0] == 3 else (SCALE, ROTATE)
    batch = TransformationSequences(images, chosen, horizon=2, start="random").sample(4, 1, generator())
    assert (batch.frames.shape[2:], batch.frames.dtype) == (shape, torch.float32)


def test_double_precision_where_it_is_the_default(double):
    batch = TransformationSequences(IMAGES, start="random").sample(3, 1)
    assert batch.frames.dtype == batch.frame_weights.dtype == torch.float64


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (IMAGES[0], {}, "hue needs 3 channels .* have 1: put them in red by in_red.images., or leave HUE out"),
        (IMAGES[:, :2], {}, "hue needs 3 channels .* these images have 2"),
        (IMAGES[:, [0, 1, 2, 2]], {}, "these images have 4: keep three, images.:, :3., or leave HUE out"),
        (IMAGES[:, :1].expand(-1, 3, -1, -1), {}, "hue does nothing to grey images, and these have 3 equal channels"),
        (IMAGES + 1, {}, r"pixel values must lie in \[0, 1\]"),
        (IMAGES, {"horizon": 0}, "horizon T of at least 1 step, got 0"),
        (IMAGES, {"start": "anywhere"}, "must be 'fixed' or 'random', got 'anywhere'"),
        (
            IMAGES,
            {"transformations": (ROTATE, SCALE, ROTATE)},
            r"a name of its own, got \('rotate', 'scale', 'rotate'\)",
        ),
        (IMAGES, {"transformations": ()}, r"a name of its own, got \(\)"),
    ],
)
def test_images_and_options_that_make_no_sense_are_refused_in_one_line(images, options, message):
    with pytest.raises(ValueError, match=message) as error:
        TransformationSequences(images, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("indices", "k", "times", "message"),
    [
        ([0], 3, None, r"k must lie in 0\.\.2 \(scale, rotate, hue\), got values from 3 to 3"),
        ([0, 1], [0, -1], None, r"k must lie in 0\.\.2 .* got values from -1 to 0"),
        ([0, 5], 1, None, r"image indices must lie in 0\.\.4, got 0 to 5"),
        ([-1, 2], 1, None, r"image indices must lie in 0\.\.4, got -1 to 2"),
        ([0], 0.5, None, r"integer k \(B,\), got \(1,\) of torch.int64 and \(1,\) of torch.float32"),
        ([0, 1], [0, 1, 2], None, r"got \(2,\) of torch.int64 and \(3,\)"),
        ([], 0, None, r"at least one image index"),
        ([0], 0, [[5, 99]], r"times must lie in 0\.\.8 and start with 0, got \[\[5, 99\]\]"),
        ([0], 0, [[1, 2]], "start with 0"),
        ([0], 0, [[0]], "frame 0 and at least one later frame"),
    ],
)
def test_a_request_out_of_range_is_refused(indices, k, times, message):
    times = None if times is None else torch.tensor(times)
    with pytest.raises(ValueError, match=message):
        SEQUENCES.batch(torch.tensor(indices, dtype=torch.long), torch.as_tensor(k), times)


def test_lists_and_arrays_are_taken_as_tensors_are():
    found = SEQUENCES.batch([1, 0], np.array([2, 0]), [[0, 3], [0, 1]])
    expected = SEQUENCES.batch(torch.tensor([1, 0]), torch.tensor([2, 0]), torch.tensor([[0, 3], [0, 1]]))
    assert torch.equal(found.frames, expected.frames)


def test_other_k_are_checked_and_the_pixels_are_not_looked_through_again():
    batch = Batch(**GOOD)
    assert batch.with_k(torch.rand(2, 5)).k.shape == (2, 5)
    assert batch.with_k(torch.tensor([1, 1])).frames is batch.frames
    with pytest.raises(ValueError, match=r"2 sequences need integer k .*, got \(3,\) of torch.int64"):
        batch.with_k(torch.arange(3))


@pytest.mark.parametrize("call", [SEQUENCES.sample, SEQUENCES.first])
def test_fewer_than_one_is_refused(call):
    for count in (0, -2):
        with pytest.raises(ValueError, match=rf"at least .*1.*, got {count}"):
            call(count)


@pytest.mark.parametrize("drawn", [0, 9, -1])
def test_more_frames_than_there_are_cannot_be_drawn(drawn):
    with pytest.raises(ValueError, match=rf"frames to draw must lie in 1\.\.8, got {drawn}"):
        SEQUENCES.sample(2, drawn)


GOOD = {"frames": torch.zeros(2, 3, 1, 4, 4), "times": every_time(2, 2), "k": torch.tensor([0, 1]), "horizon": 2}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"horizon": 0}, "horizon T of at least 1 step, got 0"),
        ({"frames": torch.zeros(2, 3, 4, 4)}, r"frames must be \(B, n, C, H, W\) and not empty, got \(2, 3, 4, 4\)"),
        ({"frames": torch.zeros(0, 3, 1, 4, 4)}, "and not empty"),
        ({"times": every_time(2, 1)}, r"frames \(2, 3, 1, 4, 4\) need times \(2, 3\), got \(2, 2\)"),
        ({"k": torch.tensor([0])}, r"2 sequences need integer k .*, got \(1,\)"),
        ({"k": torch.tensor([0.0, 1.0])}, r"integer k \(B,\) or weights \(B, K\), got .* of torch.float32"),
        ({"times": every_time(2, 2) + 1}, r"times must lie in 0\.\.2 and start with 0, got \[\[1, 2, 3\]\]"),
        ({"times": 2 * every_time(2, 2)}, r"times must lie in 0\.\.2"),
        ({"times": every_time(2, 2).float()}, "times must be integers"),
        ({"frames": torch.zeros(2, 1, 1, 4, 4), "times": torch.zeros(2, 1).long()}, "at least one later frame"),
        ({"frames": torch.full((2, 3, 1, 4, 4), 255.0)}, r"pixel values must lie in \[0, 1\], got 255 to 255; rescale"),
        ({"frames": torch.full((2, 3, 1, 4, 4), math.nan)}, "2 of 2 images hold NaN"),
        ({"frames": torch.zeros(2, 3, 1, 4, 4, dtype=torch.uint8)}, "must be floating point .* divide by 255"),
    ],
)
def test_a_batch_that_makes_no_sense_is_refused(changed, message):
    assert len(Batch(**GOOD)) == len(Batch(**{**GOOD, "k": torch.rand(2, 5)})) == 2
    with pytest.raises(ValueError, match=message):
        Batch(**{**GOOD, **changed})


# --- labelled clips -----------------------------------------------------------------------------------------------

K = torch.tensor([1, 0, 1, 2, 1, 0])
CLIPS = torch.rand(6, 4, 1, 5, 6, generator=generator(1))
NAMES = ("wave", "jump", "sit")


def clips(labelled=0):
    return ClipSequences(CLIPS, K, NAMES, "people", labelled)


def test_clips_come_with_their_own_k():
    people = clips()
    assert (len(people), people.names, people.horizon, people.image_shape) == (6, NAMES, 3, (1, 5, 6))
    assert (people.start, people.name) == ("fixed", "people")
    assert [people.of(k).tolist() for k in range(3)] == [[1, 5], [0, 2, 4], [3]]
    batch = people.sample(4000, 2, generator(), consecutive=True)
    shown = (batch.frames[:, None, 0] - CLIPS[:, 0]).abs().flatten(2).sum(2).argmin(1)
    assert torch.equal(batch.k, K[shown])
    assert (shown.bincount() - 4000 / 6).abs().max() < 5 * (4000 / 6) ** 0.5
    assert torch.equal(batch.frames, CLIPS[shown[:, None], batch.times])
    assert torch.equal(people.batch(people.of(1), 1).frames, CLIPS[[0, 2, 4]])


def test_the_first_clips_of_each_class_and_who_is_labelled():
    people = clips(labelled=2)
    assert people.batch(torch.arange(6), K).labelled.tolist() == [True, True, True, True, False, True]
    few = people.first(1)
    assert (len(few), few.k.tolist(), len(people)) == (3, [1, 0, 2], 6)
    assert torch.equal(few.batch(torch.arange(3), few.k).frames, CLIPS[[0, 1, 3]])
    assert people.first(2).batch(torch.arange(5), people.first(2).k).labelled.all()


@pytest.mark.parametrize(
    "given",
    [CLIPS.numpy(), CLIPS.double(), (255 * CLIPS).byte().numpy(), (255 * CLIPS).byte()],
    ids=["numpy", "double", "numpy bytes", "bytes"],
)
def test_clips_of_every_type(given):
    found = ClipSequences(given, K.numpy(), NAMES).batch(torch.arange(6), K).frames
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, CLIPS, atol=1 / 255, rtol=0)


def test_clips_elsewhere_are_drawn_by_the_same_numbers():
    batches = [which.sample(4, 1, generator()) for which in (clips(), clips().to("cpu"))]
    assert torch.equal(*(batch.frames for batch in batches))
    assert clips().to("meta").sample(4, 1, generator()).frames.device.type == "meta"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: clips().batch(torch.tensor([3, 0]), torch.tensor([2, 0])),
            r"clip 0 shows jump, not wave: of\(k\) gives",
        ),
        (lambda: ClipSequences(CLIPS[:, 0], K, NAMES), r"clips must be \(N, T\+1, C, H, W\) .* got \(6, 1, 5, 6\)"),
        (lambda: ClipSequences(CLIPS[:, :1], K, NAMES), r"with N, T ≥ 1, got \(6, 1, 1, 5, 6\)"),
        (lambda: ClipSequences(CLIPS, K[:5], NAMES), r"6 clips need an integer k each, got k \(5,\)"),
        (lambda: ClipSequences(CLIPS, K.float(), NAMES), "of torch.float32"),
        (lambda: ClipSequences(CLIPS, K + 1, NAMES), r"k must lie in 0\.\.2 \(wave, jump, sit\), got \[3\]"),
        (
            lambda: ClipSequences(CLIPS, K, (*NAMES, "run")),
            "no clip shows run: give clips of it, or leave the name out",
        ),
        (lambda: ClipSequences(CLIPS, K, ("a", "a", "b")), "a name of its own"),
        (lambda: ClipSequences(2 * CLIPS, K, NAMES), r"must lie in \[0, 1\]"),
    ],
)
def test_clips_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- motions that were never trained --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def blobs():
    """Smooth coloured images of 20×20 pixels with an empty border, so that interpolation hardly matters."""
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    centres = 9.5 + 3 * torch.randn(5, 2, generator=generator())
    spots = torch.exp(-((x - centres[:, :1, None]) ** 2 + (y - centres[:, 1:, None]) ** 2) / 12)
    return torch.stack([spots, 0.3 * spots, 0.1 * spots], 1)


def render(images, *segments, backwards=False, transformations=PAPER_TRANSFORMATIONS, start="fixed", seed=0):
    sequences = TransformationSequences(images, transformations, start=start)
    motion = Motion(tuple(Segment(*segment) for segment in segments), backwards)
    return render_motion(sequences, torch.arange(len(images)), motion, generator(seed))


@pytest.mark.parametrize("start", ["fixed", "random"])
@pytest.mark.parametrize("k", range(5))
def test_a_single_transformation_is_the_sequence_that_models_are_trained_on(blobs, k, start):
    """From a random start what moves acts on the image in its start pose, also where transformations do not commute."""
    sequences = TransformationSequences(blobs, FIVE_TRANSFORMATIONS, start=start)
    trained = sequences.batch(torch.arange(5), k, generator=generator(3)).frames
    found = render(blobs, ((sequences.names[k],), 8), transformations=FIVE_TRANSFORMATIONS, start=start, seed=3)
    torch.testing.assert_close(found, trained, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("segments", "pose"),
    [
        (((("rotate",), 3), (("scale",), 2)), (math.log(1.2), 30.0, 0.0)),  # each segment has a clock of its own
        (((("scale", "rotate", "hue"), 4),), (math.log(1.4), 40.0, 80.0)),
    ],
)
def test_segments_reach_the_pose_of_all_that_moved(blobs, segments, pose):
    frames = render(blobs, *segments)
    assert frames.shape[1] == 1 + sum(segment[1] for segment in segments)
    expected = apply_pose(blobs, torch.tensor(pose).expand(5, 3), PAPER_TRANSFORMATIONS)
    torch.testing.assert_close(frames[:, -1], expected, atol=1e-4, rtol=0)


def test_speed_is_how_far_the_clock_runs_and_backwards_the_same_film_from_its_end(blobs):
    normal, slow, fast = (render(blobs, (("rotate",), n, speed)) for n, speed in ((8, 1.0), (8, 0.5), (4, 2.0)))
    torch.testing.assert_close(slow[:, ::2], normal[:, :5])
    torch.testing.assert_close(fast, normal[:, ::2], atol=1e-5, rtol=0)
    torch.testing.assert_close(render(blobs, (("rotate",), 8), backwards=True), normal.flip(1))
    assert Segment(("rotate",), 3, 0.5).clock.tolist() == [0, 0.5, 1, 1.5]


def test_the_order_matters_only_where_the_groups_do_not_commute(blobs):
    pairs = set(itertools.combinations([each.name for each in FIVE_TRANSFORMATIONS], 2))
    for i, j in pairs:
        order = ((i,), 6), ((j,), 6)
        one, other = (render(blobs, *o, transformations=FIVE_TRANSFORMATIONS)[:, -1] for o in (order, order[::-1]))
        commute = (i, j) not in {("scale", "translate"), ("rotate", "translate"), ("rotate", "shear")}
        assert ((one - other).abs().max() < 1e-4) == commute, (i, j)


def test_what_comes_later_acts_on_what_came_before(blobs):
    frames = render(blobs, (("translate",), 4), (("rotate",), 9), transformations=(ROTATE, TRANSLATE))
    moved = apply_pose(blobs, torch.tensor([[0.0, 2.0]]).expand(5, 2), (ROTATE, TRANSLATE))  # 2 pixels to the right
    turned = torch.rot90(moved, 1, (-2, -1))  # by 90 degrees, anticlockwise
    torch.testing.assert_close(frames[:, -1], turned, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Segment((), 3), "at least one transformation"),
        (lambda: Segment(("scale",), 0), "one frame"),
        (lambda: Segment(("scale",), 3, 0.0), "positive speed"),
        (lambda: render(IMAGES, (("fold",), 2)), "unknown transformation 'fold'"),
    ],
)
def test_motions_that_cannot_be_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_motions_have_readable_names():
    two = Motion((Segment(("scale",), 2), Segment(("rotate", "hue"), 3)), backwards=True)
    assert (two.name, two.frames) == ("scale, then rotate + hue, backwards", 5)


# --- noise and hidden parts -----------------------------------------------------------------------------------------


def test_noise_has_the_standard_deviation_it_is_given_and_is_clamped():
    grey = torch.full((20, 3, 28, 28), 0.5, dtype=torch.float64)
    difference = noisy(grey, 0.05, generator()) - grey
    assert difference.std().item() == pytest.approx(0.05, rel=0.02)
    assert difference.mean().item() == pytest.approx(0, abs=1e-3)
    found = noisy(torch.zeros(20, 3, 28, 28), 0.2, generator())  # half a Gaussian
    assert (found == 0).double().mean().item() == pytest.approx(0.5, abs=0.01)
    assert found.mean().item() == pytest.approx(0.2 * 0.39894, rel=0.02)  # sd / √(2π)
    assert noisy(torch.ones(2, 3, 28, 28), 5.0, generator()).max() == 1
    assert torch.equal(noisy(IMAGES, 0.0, generator()), IMAGES)


@pytest.mark.parametrize("corrupt", [lambda g: noisy(IMAGES, 0.1, g), lambda g: occluded(IMAGES, 3, g)])
def test_corruptions_are_drawn_from_the_generator(corrupt):
    assert torch.equal(corrupt(generator(2)), corrupt(generator(2)))
    assert not torch.equal(corrupt(generator(2)), corrupt(generator(3)))


@pytest.mark.parametrize("size", [1, 4, 7, 20])
def test_one_square_is_black_and_nothing_else_changes(size):
    images = 0.5 + 0.5 * torch.rand(50, 3, 20, 28, generator=generator(1))
    before = images.clone()
    found = occluded(images, size, generator())
    assert torch.equal(images, before)
    changed = found != images
    assert torch.equal(changed[:, 0], changed.all(1))  # in all channels
    assert (found[changed] == 0).all()
    for mask in changed[:, 0]:
        rows, columns = mask.nonzero().T
        assert (len(rows), rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (size**2, size, size)


def test_the_square_lies_on_the_content_in_proportion_to_its_brightness():
    digits = load_images("digits", "test").images
    hidden = 1 - occluded(digits, 8, generator()).sum((1, 2, 3)) / digits.sum((1, 2, 3))
    assert hidden.min() > 0  # something of every digit
    assert 0.15 < hidden.mean() < 0.6
    two = torch.zeros(4000, 3, 9, 9)
    two[:, 0, 1, 1], two[:, 1, 7, 7] = 0.9, 0.3
    assert (occluded(two, 1, generator())[:, 0, 1, 1] == 0).double().mean().item() == pytest.approx(0.75, abs=0.03)
    assert not occluded(torch.zeros(3, 3, 9, 9), 4, generator()).any()  # black images have any place


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noisy(IMAGES, -0.1, generator()), "a finite number of at least 0, got -0.1"),
        (lambda: noisy(IMAGES, math.nan, generator()), "a finite number of at least 0, got nan"),
        (lambda: noisy(IMAGES[None], 0.1, generator()), r"must be \(B, C, H, W\), got \(1, 5, 3, 8, 8\); flatten"),
        (lambda: occluded(2 * IMAGES, 3, generator()), r"pixel values must lie in \[0, 1\]"),
        (lambda: noisy(IMAGES * math.nan, 0.1, generator()), "5 of 5 images hold NaN"),
        (lambda: noisy(IMAGES.byte(), 0.1, generator()), r"in \[0, 1\], got torch.uint8"),
        (lambda: occluded(IMAGES, 0, generator()), "1 to 8 pixels wide, got 0"),
        (lambda: occluded(IMAGES, 9, generator()), "1 to 8 pixels wide, got 9"),
    ],
)
def test_corruptions_that_make_no_sense_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- all at once --------------------------------------------------------------------------------------------------


def test_all_at_once_each_transformation_moves_by_its_velocity():
    sequences = AllAtOnce(SEQUENCES)
    batch = sequences.sample(500, 2, generator())
    assert batch.k.shape == (500, len(SEQUENCES.names))
    assert (batch.k.abs() <= 1).all()
    assert batch.k.mean(0).abs().max() < 0.1 < batch.k.var(0).min()
    velocities, times = torch.tensor([[0.5, -1.0, 0.0]]), torch.arange(SEQUENCES.horizon + 1)[None]
    amounts = torch.stack([each.path(times[0].float()) for each in SEQUENCES.transformations], -1)
    torch.testing.assert_close(sequences.progress(velocities, times)[0], velocities * amounts)
    alone = F.one_hot(torch.tensor([1]), 3).float()
    for k in (torch.tensor([1]), alone):  # one velocity of 1 is the transformation alone, at its own speed
        assert torch.allclose(sequences.batch([0], k).frames, SEQUENCES.batch([0], 1).frames, atol=1e-6)
    still = sequences.batch([0], 0 * alone).frames
    assert torch.allclose(still, still[:, :1].expand_as(still))
    for wrong in (alone[:, :2], torch.tensor([[math.nan, 0, 0]]), torch.tensor([[1, 0, 0]])):
        with pytest.raises(ValueError, match=r"1 sequences need finite velocities \(1, 3\), got"):
            sequences.batch([0], wrong)
    with pytest.raises(ValueError, match="only still images can move in several ways at once, not clips"):
        AllAtOnce(ClipSequences(torch.rand(2, 3, 3, 4, 4), [0, 0], ["a"], "clips"))
