"""What is measured of inferred coefficients: known answers, and that transfer looks at a donor and nothing else."""

import pytest
import torch
from tiny import SHAPE, generator

from poflow_lite.datasets import TransformationSequences
from poflow_lite.sparsity import Donors, field_use, infer_all, with_own_coefficients

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
    found = infer_all(Brightness(), sequences, seed=3, batch_size=7)
    assert found.shape == (K, 7, M)
    for k in range(K):
        frames = sequences.batch(torch.arange(7), k, generator=generator(3)).frames
        torch.testing.assert_close(found[k], Brightness().infer(frames))


def test_own_coefficients_take_the_place_of_k(sequences):
    batch = sequences.batch(torch.arange(7), 1, generator=generator())
    given = with_own_coefficients(Brightness(), batch)
    torch.testing.assert_close(given.k, Brightness().infer(batch.frames))
    assert given.frames is batch.frames
    assert given.horizon == 2


def test_a_donor_is_another_sequence_of_the_same_transformation(sequences):
    """The images that are measured are black, and no donor is: a coefficient of their own would be zero."""
    donors = Donors(Brightness(), sequences, images=5, seed=2)
    black = TransformationSequences(torch.zeros(40, *SHAPE), horizon=2)
    k = torch.arange(40) % K
    given = donors(black.batch(torch.arange(40), k))
    pool = infer_all(Brightness(), sequences.first(5), seed=2)
    for row, index in zip(given.k, k, strict=True):
        assert (row == pool[index]).all(1).any()
        assert not (row == pool[(index + 1) % K]).all(1).any()
    assert len(given.k.unique(dim=0)) > 10  # of 15 donors
    assert torch.equal(donors(black.batch(torch.arange(40), k)).k, given.k)  # whatever was asked before


def test_one_field_for_each_transformation_is_told_whatever_its_number():
    coefficients = torch.zeros(K, 10, M)
    for k, field in enumerate((3, 0, 2)):
        coefficients[k, :, field] = -2.0 if k == 1 else 1.0
    use = field_use(coefficients)
    assert (use.accuracy, use.purity) == (1.0, 1.0)
    assert use.matching.tolist() == [3, 0, 2]
    assert use.active.tolist() == [1.0, 1.0, 1.0]
    assert use.usage.T.tolist() == [[0, 0, 0, 1], [2, 0, 0, 0], [0, 0, 1, 0]]


def test_a_transformation_that_two_fields_share_is_pure_but_not_one_to_one():
    coefficients = torch.zeros(2, 10, 3)
    coefficients[0, :6, 0] = 1.0
    coefficients[0, 6:, 1] = 1.0
    coefficients[1, :, 2] = 1.0
    coefficients[1, :5, 0] = 0.5  # weaker: not the strongest
    use = field_use(coefficients)
    assert use.purity == 1.0
    assert use.accuracy == pytest.approx(16 / 20)
    assert use.active.tolist() == [1.0, 1.5]
    torch.testing.assert_close(use.usage[0], torch.tensor([0.6, 0.25]))


def test_one_field_for_everything_names_one_transformation_only():
    coefficients = torch.zeros(K, 10, M)
    coefficients[..., 2] = 1.0
    use = field_use(coefficients)
    assert use.accuracy == pytest.approx(1 / 3)
    assert use.purity == pytest.approx(1 / 3)


def test_sequences_in_which_no_field_is_on_count_as_wrong():
    coefficients = torch.zeros(K, 10, M)
    coefficients[0, :, 0] = 1.0  # the field that an argmax would give to the empty ones
    assert field_use(coefficients).accuracy == pytest.approx(1 / 3)
    nothing = field_use(torch.zeros(K, 10, M))
    assert (nothing.accuracy, nothing.purity) == (0.0, 0.0)
    assert nothing.active.tolist() == [0.0, 0.0, 0.0]


def test_fewer_fields_than_transformations_can_be_measured():
    coefficients = torch.ones(3, 5, 1)
    assert field_use(coefficients).accuracy == pytest.approx(1 / 3)


@pytest.mark.parametrize("shape", [(3, 4), (3, 0, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"coefficients must be \(K, N, M\), got"):
        field_use(torch.zeros(shape))
