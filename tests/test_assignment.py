"""What is measured of inferred k and coefficients: known answers; transfer looks at a donor and at nothing else."""

from functools import partial

import pytest
import torch
from tiny import SHAPE, generator

from poflow_lite.datasets import ClipSequences, TransformationSequences
from poflow_lite.metrics import Donors, field_use, infer_all, match_transformations, with_own_coefficients
from poflow_lite.metrics.assignment import with_coefficients

K, M = 3, 4


class Brightness(torch.nn.Module):
    """Stands in for a sparse model: its coefficients are mean intensities of frame 0, of the last frame, and 0."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def infer(self, frames):
        light = frames[:, [0, -1]].flatten(2).mean(2)
        return torch.cat([light, torch.zeros_like(light)], 1)


@pytest.fixture
def sequences():
    return TransformationSequences(torch.rand(7, *SHAPE, generator=generator()), horizon=2, start="random")


def test_all_coefficients_are_inferred_sequence_by_sequence(sequences):
    found, true = infer_all(Brightness(), sequences, seed=3, batch_size=7)
    assert found.shape == (7 * K, M)
    assert true.tolist() == [0] * 7 + [1] * 7 + [2] * 7
    for k in range(K):
        frames = sequences.batch(torch.arange(7), k, generator=generator(3)).frames
        torch.testing.assert_close(found[true == k], Brightness().infer(frames))


def test_own_coefficients_take_the_place_of_k(sequences):
    batch = sequences.batch(torch.arange(7), 1, generator=generator())
    given = with_own_coefficients(Brightness(), batch)
    torch.testing.assert_close(given.k, Brightness().infer(batch.frames))
    assert given.frames is batch.frames
    assert given.horizon == 2


def test_what_stands_for_k_stays_with_fewer_clips_and_with_those_dealt_out():
    """The first clips of each class have other numbers than among all of them."""
    clips = ClipSequences(torch.rand(4, 3, *SHAPE, generator=generator()), [0, 0, 0, 1], ["a", "b"])
    read = partial(with_own_coefficients, Brightness())
    asked = with_coefficients(clips, read).first(2)
    batch = asked.batch(asked.of(1), 1)
    torch.testing.assert_close(batch.frames, clips.clips[3:])
    torch.testing.assert_close(batch.k, Brightness().infer(clips.clips[3:]))
    twice = with_coefficients(asked, lambda given: given.with_k(2 * given.k))
    torch.testing.assert_close(twice.batch(asked.of(1), 1).k, 2 * batch.k)


def test_a_donor_is_another_sequence_of_the_same_transformation(sequences):
    """The images that are measured are black, and no donor is: a coefficient of their own would be zero."""
    donors = Donors(Brightness(), sequences, images=5, seed=2)
    black = TransformationSequences(torch.zeros(40, *SHAPE), sequences.transformations[:2], horizon=2)
    k = torch.arange(40) % 2
    given = donors(black.batch(torch.arange(40), k))
    coefficients, true = infer_all(Brightness(), sequences.first(5), seed=2)
    for row, index in zip(given.k, k, strict=True):
        assert (row == coefficients[true == index]).all(1).any()
        assert not (row == coefficients[true != index]).all(1).any()
    assert len(given.k.unique(dim=0)) > 6  # of 10 donors
    assert torch.equal(donors(black.batch(torch.arange(40), k)).k, given.k)  # whatever was asked before


def use_of(*rows):
    """Of coefficients (K, N, M)."""
    coefficients = torch.tensor(rows, dtype=torch.float32)
    return field_use(coefficients.flatten(0, 1), torch.arange(len(rows)).repeat_interleave(coefficients.shape[1]))


@pytest.mark.parametrize(
    ("rows", "accuracy", "purity", "active"),
    [
        ([[[0, 0, 0, 1]], [[-2, 0, 0, 0]], [[0, 0, 1, 0]]], 1.0, 1.0, [1, 1, 1]),  # a field each, whatever its sign
        ([[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [0.5, 0, 1]]], 0.75, 1.0, [1, 1.5]),  # one k on two fields; 0.5 is weaker
        ([[[0, 0, 1, 0]]] * 3, 1 / 3, 1 / 3, [1, 1, 1]),  # one field for everything names one transformation only
        ([[[1, 0, 0, 0]], [[0] * 4], [[0] * 4]], 1 / 3, 1 / 3, [1, 0, 0]),  # nothing on: wrong, though argmax says 0
        ([[[0] * 4]] * 3, 0.0, 0.0, [0, 0, 0]),
        ([[[1]]] * 3, 1 / 3, 1 / 3, [1, 1, 1]),  # fewer fields than transformations
    ],
)
def test_the_use_of_fields_has_known_answers(rows, accuracy, purity, active):
    use = use_of(*rows)
    assert (use.accuracy, use.purity) == pytest.approx((accuracy, purity))
    assert use.active.tolist() == active


def test_matching_and_usage_say_which_field_moves_what():
    use = use_of([[0, 0, 0, 1]], [[-2, 0, 0, 0]], [[0, 0, 1, 0]])
    assert use.matching.tolist() == [3, 0, 2]
    assert use.usage.T.tolist() == [[0, 0, 0, 1], [2, 0, 0, 0], [0, 0, 1, 0]]


@pytest.mark.parametrize(("shape", "count"), [((4,), 4), ((0, 4), 0), ((6, 4), 5)])
def test_other_shapes_are_refused(shape, count):
    with pytest.raises(ValueError, match=r"coefficients \(N, M\) and k \(N,\) are needed, got"):
        field_use(torch.zeros(shape), torch.zeros(count, dtype=torch.long))


def test_a_coefficient_that_is_none_an_index_that_is_none_and_a_donor_that_is_none_are_refused(sequences):
    for coefficients, k in ((torch.tensor([[float("nan")]]), 0), (torch.ones(1, 1), -1), (torch.ones(1, 1), 0.5)):
        with pytest.raises(ValueError, match="coefficients must be finite and k integers from 0"):
            field_use(coefficients, torch.tensor([k]))
    with pytest.raises(ValueError, match=r"must be integers, got torch.float32"):
        match_transformations(torch.zeros(3), torch.zeros(3).long(), 2)
    donors = Donors(Brightness(), sequences)
    donors.coefficients, donors.k = donors.coefficients[donors.k > 0], donors.k[donors.k > 0]
    with pytest.raises(ValueError, match=r"no donor of k = 0; there are donors of \[1, 2\]"):
        donors(sequences.batch(torch.arange(2), 0))
