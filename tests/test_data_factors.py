"""Grids of factors: a bijection in row-major order; sequences in which exactly one factor moves, in splits apart."""

import numpy as np
import pytest
import torch

from poflow_lite.datasets import FALCOR3D, ISAAC3D, MOVED, SHAPES3D, FactorSequences, FactorSpace, starting_points
from poflow_lite.datasets.factors import SHARES

SMALL = FactorSpace(("a", "b", "c"), (5, 4, 6))
published = pytest.mark.parametrize("space", MOVED, ids=["shapes3d", "falcor3d", "isaac3d"])


# --- grids --------------------------------------------------------------------------------------------------------


@published
def test_index_and_factors_are_inverse_on_the_whole_grid_and_row_major(space):
    index = torch.arange(len(space))
    factors = space.factors(index)
    assert len(space) == {SHAPES3D: 480_000, FALCOR3D: 233_280, ISAAC3D: 737_280}[space]
    assert torch.equal(space.index(factors), index)
    assert (factors.numpy() == np.stack(np.unravel_index(np.arange(len(space)), space.sizes), -1)).all()
    for position, stride in enumerate(space.strides):
        step = torch.zeros(len(space.sizes), dtype=torch.long)
        step[position] = 1
        assert space.index(step) == stride


def test_indices_of_any_shape_and_grids_of_some_factors():
    index = torch.arange(24).view(2, 3, 4)
    assert torch.equal(SMALL.index(SMALL.factors(index)), index)
    assert SMALL.factors(torch.tensor(119)).tolist() == [4, 3, 5]
    assert SMALL.subspace(("c", "a")) == FactorSpace(("c", "a"), (6, 5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FactorSpace((), ()), "each factor needs a name"),
        (lambda: FactorSpace(("a",), (2, 3)), "each factor needs a name"),
        (lambda: FactorSpace(("a", "a"), (2, 3)), "each factor needs a name"),
        (lambda: FactorSpace(("a", "b"), (2, 0)), "at least one value"),
        (lambda: SMALL.index(torch.tensor([0, 4, 0])), r"factor b takes the values 0\.\.3"),
        (lambda: SMALL.index(torch.tensor([0, 0, -1])), r"factor c takes the values 0\.\.5"),
        (lambda: SMALL.index(torch.tensor([0, 0])), r"integer factors \(\.\.\., 3\) \(a, b, c\), got \(2,\)"),
        (lambda: SMALL.index(torch.zeros(3)), "expected integer factors"),
        (lambda: SMALL.factors(torch.tensor([120])), r"integers in 0\.\.119"),
        (lambda: SMALL.factors(torch.tensor([-1])), r"integers in 0\.\.119"),
        (lambda: SMALL.factors(torch.tensor([0.5])), "integers"),
        (lambda: SMALL.position("d"), "unknown factor 'd'; known: a, b, c"),
        (lambda: numbered(horizon=4), "b has 4 values, so that T can be 3 at most, got 4"),
        (lambda: numbered(horizon=0), "at least 1 step, got 0"),
        (lambda: numbered(start="middle"), "start must be 'fixed' or 'random', got 'middle'"),
        (lambda: numbered(moved=("b", "d")), "unknown factor 'd'"),
        (lambda: numbered(split="exam"), "unknown split 'exam'"),
        (lambda: FactorSequences(Numbered(), torch.zeros(3, 5).long(), ("b", "c"), 3), r"\(K, N\) with K = 2"),
        (lambda: FactorSequences(Numbered(), torch.zeros(2, 0).long(), ("b", "c"), 3), "N ≥ 1"),
        (
            lambda: FactorSequences(Numbered(), torch.tensor([[12], [0]]), ("b", "c"), 3),
            "factor k must be at 0 in row k",
        ),
        (lambda: FactorSequences(Numbered(), torch.tensor([[0], [120]]), ("b", "c"), 3), r"integers in 0\.\.119"),
    ],
)
def test_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- sequences ----------------------------------------------------------------------------------------------------


class Numbered:
    """Images whose pixels spell their grid index, so that a frame can be told by looking at it."""

    space, image_shape, name = SMALL, (3, 2, 2), "numbered"

    def frames(self, index):
        return index[..., None, None, None].expand(*index.shape, 3, 2, 2).to(torch.uint8)


def numbered(start="fixed", horizon=3, moved=("b", "c"), split="train", **options):
    return FactorSequences(Numbered(), starting_points(SMALL, moved, split), moved, horizon, start, **options)


@pytest.mark.parametrize("start", ["fixed", "random"])
def test_exactly_one_factor_moves_by_one_a_frame(start):
    batch = numbered(start).sample(200, generator=torch.Generator().manual_seed(0))
    factors, moving = SMALL.factors((batch.frames[:, :, 0, 0, 0] * 255).round().long()), torch.tensor([1, 2])[batch.k]
    steps = factors.diff(dim=1)
    assert torch.equal(steps, torch.nn.functional.one_hot(moving, 3)[:, None].expand_as(steps))
    starts = factors[:, 0].gather(1, moving[:, None])[:, 0]
    reached = {k: starts[batch.k == k].unique().tolist() for k in (0, 1)}
    assert reached == ({0: [0], 1: [0]} if start == "fixed" else {0: [0], 1: [0, 1, 2]})


def test_times_can_be_picked_and_random_starts_follow_the_generator():
    sequences, indices, k = numbered("random"), torch.arange(8), torch.ones(8, dtype=torch.long)
    times = torch.tensor([[0, 3]]).expand(8, -1)
    draws = [sequences.batch(indices, k, times, torch.Generator().manual_seed(seed)).frames for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    whole = sequences.batch(indices, k, generator=torch.Generator().manual_seed(0)).frames
    assert torch.equal(draws[0], whole[:, [0, 3]])


def test_single_images_come_with_the_factors_that_made_them_independent_and_uniform():
    """Sequences reach 0..3 of the six values of c at most from a fixed start; single images have them all."""
    sequences = numbered(split="test", moved=("c", "b"))
    scenes = torch.randint(len(sequences), (4000,), generator=torch.Generator().manual_seed(0))
    images, factors = sequences.stills(scenes, torch.Generator().manual_seed(1))
    shown = SMALL.factors((images[:, 0, 0, 0] * 255).round().long())
    assert images.shape == (4000, *Numbered.image_shape)
    assert torch.equal(shown[:, [2, 1]], factors)
    assert torch.equal(shown[:, 1], SMALL.factors(sequences.starts[0, scenes])[:, 1]), "of the scene that was asked for"
    shares = torch.zeros(6, 4).index_put((factors[:, 0], factors[:, 1]), torch.tensor(1 / 4000), accumulate=True)
    scene_shares = torch.bincount(SMALL.factors(sequences.starts[0])[:, 1], minlength=4) / len(sequences)
    torch.testing.assert_close(shares, (scene_shares / 6).expand(6, 4), atol=0.012, rtol=0)
    again, other = (sequences.stills(scenes, torch.Generator().manual_seed(seed))[1] for seed in (1, 2))
    assert torch.equal(again, factors)
    assert not torch.equal(other, factors)


@published
def test_no_sequence_of_the_published_grids_moves_two_factors(space):
    """Public loaders add steps of a fixed stride to a random index, so that most sequences carry into other factors."""
    moved = MOVED[space]
    starts = starting_points(space, moved, "test")
    horizon = min(space.subspace(moved).sizes) - 1
    for k, position in enumerate(map(space.position, moved)):
        factors = space.factors(starts[k, :2000, None] + space.strides[position] * torch.arange(horizon + 1))
        others = torch.arange(len(space.names)) != position
        assert (factors[..., others] == factors[:, :1, others]).all()
        assert torch.equal(factors[..., position], torch.arange(horizon + 1).expand(2000, -1))


def test_shapes3d_is_split_by_shape_and_orientation_so_that_no_test_frame_is_trained_on():
    seen = {}
    for split in SHARES:
        factors = SHAPES3D.factors(starting_points(SHAPES3D, MOVED[SHAPES3D], split))
        seen[split] = set((15 * factors[..., 4] + factors[..., 5]).flatten().tolist())
        for k in range(4):
            assert not factors[k, :, k].any()
            assert torch.equal(factors[k][:, 4:], factors[0][:, 4:])  # row i is one scene, whatever moves
    assert {split: len(members) for split, members in seen.items()} == {"train": 42, "validation": 6, "test": 12}
    assert set.union(*seen.values()) == set(range(60))


@pytest.mark.parametrize("space", [FALCOR3D, ISAAC3D], ids=["falcor3d", "isaac3d"])
def test_elsewhere_no_test_sequence_is_a_training_sequence(space):
    parts = {split: starting_points(space, MOVED[space], split) for split in SHARES}
    least = len(space) // max(space.subspace(MOVED[space]).sizes)
    for share, part in zip(SHARES.values(), parts.values(), strict=True):
        assert part.shape[1] == pytest.approx(share * least, rel=0.06)
    for k in range(len(MOVED[space])):
        members = [set(part[k].tolist()) for part in parts.values()]
        assert sum(map(len, members)) == len(set.union(*members))


def test_the_division_is_fixed_its_order_random_and_first_takes_the_first_scenes():
    one, again = (starting_points(SHAPES3D, MOVED[SHAPES3D], "train") for _ in range(2))
    assert torch.equal(one, again)
    assert (one[0].diff() < 0).float().mean() > 0.4
    sequences = numbered(labelled=3)
    fewer = sequences.first(4)
    assert (len(fewer), fewer.horizon, fewer.names, fewer.labelled) == (4, 3, ("b", "c"), 3)
    assert torch.equal(fewer.batch(torch.arange(4), 1).frames, sequences.batch(torch.arange(4), 1).frames)
    assert fewer.batch(torch.arange(4), 0).labelled.tolist() == [True, True, True, False]
    assert len(sequences.first(10**6)) == len(sequences)
