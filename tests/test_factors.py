"""Grids of factors: a bijection in row-major order, and moves that touch one factor."""

import numpy as np
import pytest
import torch

from poflow_lite.datasets import FALCOR3D, ISAAC3D, SHAPES3D, FactorSpace

SMALL = FactorSpace(("a", "b", "c"), (2, 3, 4))


@pytest.mark.parametrize(("space", "count"), [(SHAPES3D, 480_000), (FALCOR3D, 233_280), (ISAAC3D, 737_280)])
def test_index_and_factors_are_inverse_on_the_whole_grid_and_row_major(space, count):
    index = torch.arange(count)
    factors = space.factors(index)
    assert len(space) == count
    assert factors.shape == (count, len(space.names))
    assert torch.equal(space.index(factors), index)
    expected = np.stack(np.unravel_index(np.arange(count), space.sizes), -1)
    assert (factors.numpy() == expected).all()


def test_strides_are_what_one_step_of_each_factor_adds():
    assert SMALL.strides == (12, 4, 1)
    assert SHAPES3D.strides == (48_000, 4_800, 480, 60, 15, 1)
    for position, stride in enumerate(SMALL.strides):
        step = torch.zeros(3, dtype=torch.long)
        step[position] = 1
        assert SMALL.index(step) == stride


def test_indices_of_any_shape():
    index = torch.arange(24).view(2, 3, 4)
    assert torch.equal(SMALL.index(SMALL.factors(index)), index)
    assert SMALL.factors(torch.tensor(23)).tolist() == [1, 2, 3]


def test_a_move_changes_one_factor_and_leaves_the_others():
    factors = torch.tensor([[1, 2, 3], [0, 0, 0], [1, 1, 1]])
    moved = SMALL.move(factors, torch.tensor([0, 1, 2]), torch.arange(2))
    assert moved.tolist() == [[[0, 2, 3], [1, 2, 3]], [[0, 0, 0], [0, 1, 0]], [[1, 1, 0], [1, 1, 1]]]
    per_row = SMALL.move(factors, 2, torch.tensor([[3], [2], [0]]))
    assert per_row[:, 0].tolist() == [[1, 2, 3], [0, 0, 2], [1, 1, 0]]


def test_sampling_follows_the_generator_and_reaches_every_value():
    draws = [SMALL.sample(500, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(SMALL.index(draws[0]).unique(), torch.arange(24))


def test_a_subspace_has_the_factors_in_the_order_asked_for():
    assert SMALL.subspace(("c", "a")) == FactorSpace(("c", "a"), (4, 2))


@pytest.mark.parametrize(
    ("names", "sizes", "message"),
    [
        ((), (), "each factor needs a name"),
        (("a",), (2, 3), "each factor needs a name"),
        (("a", "a"), (2, 3), "each factor needs a name"),
        (("a", "b"), (2, 0), "at least one value"),
    ],
)
def test_bad_grids_are_refused(names, sizes, message):
    with pytest.raises(ValueError, match=message):
        FactorSpace(names, sizes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SMALL.index(torch.tensor([0, 3, 0])), r"factor b takes the values 0\.\.2"),
        (lambda: SMALL.index(torch.tensor([0, 0, -1])), r"factor c takes the values 0\.\.3"),
        (lambda: SMALL.index(torch.tensor([0, 0])), r"expected integer factors \(\.\.\., 3\) \(a, b, c\), got \(2,\)"),
        (lambda: SMALL.index(torch.zeros(3)), "expected integer factors"),
        (lambda: SMALL.factors(torch.tensor([24])), r"integers in 0\.\.23"),
        (lambda: SMALL.factors(torch.tensor([-1])), r"integers in 0\.\.23"),
        (lambda: SMALL.factors(torch.tensor([0.5])), "integers"),
        (lambda: SMALL.position("d"), "unknown factor 'd'; known: a, b, c"),
    ],
)
def test_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
