"""Sequences on a grid: exactly one factor moves, splits do not overlap, and frames are those of the grid."""

import pytest
import torch

from poflow_lite.datasets import FALCOR3D, ISAAC3D, SHAPES3D, FactorSequences, FactorSpace, starting_points
from poflow_lite.datasets.factor_sequences import MOVED, SHARES

SMALL = FactorSpace(("a", "b", "c"), (5, 4, 6))


class Numbered:
    """Images whose pixels spell their grid index, so that a frame can be told by looking at it."""

    space, image_shape, name = SMALL, (3, 2, 2), "numbered"

    def frames(self, index):
        return (
            torch.stack([index % 256, index // 256, torch.zeros_like(index)], -1)[..., None, None]
            .expand(*index.shape, 3, 2, 2)
            .to(torch.uint8)
        )


def numbered(start="fixed", horizon=3, moved=("b", "c"), split="train", **options):
    return FactorSequences(Numbered(), starting_points(SMALL, moved, split), moved, horizon, start, **options)


def factors_of(batch):
    index = (batch.frames[:, :, 0, 0, 0] * 255).round() + 256 * (batch.frames[:, :, 1, 0, 0] * 255).round()
    return SMALL.factors(index.long())


@pytest.mark.parametrize("start", ["fixed", "random"])
def test_exactly_one_factor_moves_by_one_a_frame(start):
    sequences = numbered(start)
    batch = sequences.sample(200, generator=torch.Generator().manual_seed(0))
    factors, moving = factors_of(batch), torch.tensor([1, 2])[batch.k]
    steps = factors.diff(dim=1)
    expected = torch.nn.functional.one_hot(moving, 3)[:, None].expand_as(steps)
    assert torch.equal(steps, expected)
    starts = factors[:, 0].gather(1, moving[:, None])[:, 0]
    reached = {k: starts[batch.k == k].unique().tolist() for k in (0, 1)}
    assert reached == ({0: [0], 1: [0]} if start == "fixed" else {0: [0], 1: [0, 1, 2]})


@pytest.mark.parametrize("space", [SHAPES3D, FALCOR3D, ISAAC3D], ids=["shapes3d", "falcor3d", "isaac3d"])
def test_no_sequence_of_the_published_grids_moves_two_factors(space):
    """Public loaders add steps of a fixed stride to a random index, so that most sequences carry into other factors."""
    moved = MOVED[space]
    starts = starting_points(space, moved, "test")
    horizon = min(space.sizes[space.position(name)] for name in moved) - 1
    for k, name in enumerate(moved):
        stride = space.strides[space.position(name)]
        factors = space.factors(starts[k, :2000, None] + stride * torch.arange(horizon + 1))
        others = torch.arange(len(space.names)) != space.position(name)
        assert (factors[..., others] == factors[:, :1, others]).all()
        assert torch.equal(factors[..., space.position(name)], torch.arange(horizon + 1).expand(2000, -1))


def test_times_can_be_picked_and_random_starts_follow_the_generator():
    sequences = numbered("random")
    indices, k, times = torch.arange(8), torch.ones(8, dtype=torch.long), torch.tensor([[0, 3]]).expand(8, -1)
    one, same, other = (
        sequences.batch(indices, k, times, torch.Generator().manual_seed(seed)).frames for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    whole = sequences.batch(indices, k, generator=torch.Generator().manual_seed(0)).frames
    assert torch.equal(one, whole[:, [0, 3]])


def test_shapes3d_is_split_by_shape_and_orientation_so_that_no_test_frame_is_trained_on():
    moved, seen = MOVED[SHAPES3D], {}
    for split in SHARES:
        starts = starting_points(SHAPES3D, moved, split)
        factors = SHAPES3D.factors(starts)
        seen[split] = set((15 * factors[..., 4] + factors[..., 5]).flatten().tolist())
        for k, name in enumerate(moved):
            column = SHAPES3D.position(name)
            assert not factors[k, :, column].any()
            others = [i for i in range(6) if SHAPES3D.names[i] not in moved]
            assert torch.equal(factors[k][:, others], factors[0][:, others])  # row i is one scene, whatever moves
    assert {split: len(members) for split, members in seen.items()} == {"train": 42, "validation": 6, "test": 12}
    assert set.union(*seen.values()) == set(range(60))


@pytest.mark.parametrize("space", [FALCOR3D, ISAAC3D], ids=["falcor3d", "isaac3d"])
def test_elsewhere_no_test_sequence_is_a_training_sequence(space):
    parts = {split: starting_points(space, MOVED[space], split) for split in SHARES}
    for k, name in enumerate(MOVED[space]):
        members = [set(part[k].tolist()) for part in parts.values()]
        assert sum(map(len, members)) == len(set.union(*members))
        possible = len(space) // space.sizes[space.position(name)]
        for share, found in zip(SHARES.values(), members, strict=True):
            assert len(found) <= possible * share * 1.1
    least = min(len(space) // space.sizes[space.position(name)] for name in MOVED[space])
    for share, part in zip(SHARES.values(), parts.values(), strict=True):
        assert part.shape[1] == pytest.approx(share * least, rel=0.06)


def test_the_division_is_fixed_and_its_order_random():
    one, again = (starting_points(SHAPES3D, MOVED[SHAPES3D], "train") for _ in range(2))
    assert torch.equal(one, again)
    assert (one[0].diff() < 0).float().mean() > 0.4


def test_first_takes_the_first_scenes_and_keeps_the_rest():
    sequences = numbered(labelled=3)
    fewer = sequences.first(4)
    assert len(fewer) == 4
    assert (len(sequences), fewer.horizon, fewer.names, fewer.labelled) == (len(numbered()), 3, ("b", "c"), 3)
    assert torch.equal(fewer.batch(torch.arange(4), 1).frames, sequences.batch(torch.arange(4), 1).frames)
    assert fewer.batch(torch.arange(4), 0).labelled.tolist() == [True, True, True, False]
    assert len(sequences.first(10**6)) == len(sequences)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: numbered(horizon=4), "b has 4 values, so that T can be 3 at most, got 4"),
        (lambda: numbered(horizon=0), "at least 1 step, got 0"),
        (lambda: numbered(start="middle"), "start must be 'fixed' or 'random', got 'middle'"),
        (lambda: numbered(moved=("b", "d")), "unknown factor 'd'"),
        (lambda: numbered(split="exam"), "unknown split 'exam'"),
        (lambda: FactorSequences(Numbered(), torch.zeros(3, 5).long(), ("b", "c"), 3), r"\(K, N\) with K = 2"),
        (lambda: FactorSequences(Numbered(), torch.zeros(2, 0).long(), ("b", "c"), 3), "N ≥ 1"),
        (lambda: numbered().batch(torch.tensor([0]), 2), r"k must lie in 0\.\.1 \(b, c\)"),
        (lambda: numbered().batch(torch.tensor([10**6]), 0), "image indices must lie in"),
    ],
)
def test_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
