"""Selecting classes of still images: which images are left, what the name says, what is refused."""

import pytest
import torch

from poflow_lite.datasets import Stills, load_stills, only, without
from poflow_lite.datasets.stills import in_red


@pytest.fixture
def stills():
    """Seven images, each of one brightness, of classes a, b, c."""
    images = torch.linspace(0, 1, 7)[:, None, None, None].expand(-1, 3, 28, 28)
    return Stills(images, torch.tensor([0, 1, 2, 1, 0, 2, 2]), "blots", "train", ("a", "b", "c"))


def test_only_and_without_divide_the_images_and_keep_their_order(stills):
    chosen, rest = only(stills, (2, 0)), without(stills, [0, 2, 2])
    assert chosen.labels.tolist() == [0, 2, 0, 2, 2]
    assert torch.equal(chosen.images, stills.images[[0, 2, 4, 5, 6]])
    assert rest.labels.tolist() == [1, 1]
    assert torch.equal(rest.images, stills.images[[1, 3]])
    assert len(stills.images) == 7  # as it was


def test_names_say_what_was_selected(stills):
    assert stills.name == "blots (train, 7 images)"
    assert only(stills, (2, 0)).name == "blots (train, 5 images of only a, c)"
    assert without(stills, (1,)).name == "blots (train, 5 images without b)"
    assert without(without(stills, (1,)), (0,)).name == "blots (train, 3 images without b without a)"
    digits = load_stills("digits", "train")
    kept = without(digits, (7, 8, 9))
    assert kept.name == f"digits (train, {int((digits.labels < 7).sum())} images without 7, 8, 9)"


def test_leaving_nothing_out_changes_nothing(stills):
    assert without(stills, ()) is stills


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda stills: only(stills, (3, 1, 5)),
            r"no image of blots .* has the label 3, 5; labels that occur: 0, 1, 2",
        ),
        (lambda stills: without(stills, (-1,)), "has the label -1"),
        (lambda stills: without(only(stills, (1,)), (0,)), "has the label 0; labels that occur: 1"),
        (lambda stills: without(stills, (0, 1, 2)), r"no image .* is left: .* without the labels \[0, 1, 2\]"),
        (lambda stills: only(stills, ()), r"no image of blots .* is left: .* of only the labels \[\]"),
    ],
)
def test_labels_that_do_not_occur_and_empty_rests_are_refused(stills, call, message):
    with pytest.raises(ValueError, match=message):
        call(stills)


def test_pictures_are_put_into_the_red_channel():
    grey = torch.rand(2, 5, 6)
    found = in_red(grey)
    assert torch.equal(found[:, 0], grey)
    assert found[:, 1:].abs().max() == 0
