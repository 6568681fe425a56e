"""Noise and occlusion: their size, their place, and images that are left as they were."""

import pytest
import torch
from tiny import generator

from poflow_lite.datasets import load_stills, noisy, occluded


def test_noise_has_the_standard_deviation_it_is_given():
    grey = torch.full((20, 3, 28, 28), 0.5, dtype=torch.float64)
    difference = noisy(grey, 0.05, generator()) - grey
    assert difference.std().item() == pytest.approx(0.05, rel=0.02)
    assert difference.mean().item() == pytest.approx(0, abs=1e-3)
    assert difference.dtype == torch.float64


def test_noise_is_clamped_and_on_black_is_half_a_gaussian():
    black = torch.zeros(20, 3, 28, 28)
    found = noisy(black, 0.2, generator())
    assert found.min() == 0
    assert (found == 0).double().mean().item() == pytest.approx(0.5, abs=0.01)
    assert found.mean().item() == pytest.approx(0.2 * 0.39894, rel=0.02)  # sd / √(2π)
    assert noisy(torch.ones(2, 3, 28, 28), 5.0, generator()).max() == 1


def test_draws_come_from_the_generator():
    images = torch.rand(4, 3, 28, 28, generator=generator(1))
    for corrupt in (lambda g: noisy(images, 0.1, g), lambda g: occluded(images, 7, g)):
        assert torch.equal(corrupt(generator(2)), corrupt(generator(2)))
        assert not torch.equal(corrupt(generator(2)), corrupt(generator(3)))
    assert torch.equal(noisy(images, 0.0, generator()), images)


@pytest.mark.parametrize("size", [1, 4, 7, 20])
def test_one_square_is_black_and_nothing_else_changes(size):
    images = 0.5 + 0.5 * torch.rand(50, 3, 20, 28, generator=generator(1))
    before = images.clone()
    found = occluded(images, size, generator())
    assert torch.equal(images, before)
    changed = found != images
    assert torch.equal(changed[:, 0], changed.all(1))  # in all channels
    assert (found[changed] == 0).all()
    assert (changed[:, 0].flatten(1).sum(1) == size**2).all()
    for mask in changed[:, 0]:
        rows, columns = mask.nonzero().T
        assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (size, size)


def test_the_square_lies_on_the_content():
    digits = load_stills("digits", "test").images
    hidden = 1 - occluded(digits, 8, generator()).sum((1, 2, 3)) / digits.sum((1, 2, 3))
    assert hidden.min() > 0  # something of every digit
    assert 0.15 < hidden.mean() < 0.6
    spot = torch.zeros(30, 3, 28, 28)
    spot[:, 1, 20, 3] = 0.5  # one pixel, not red
    assert occluded(spot, 5, generator()).max() == 0


def test_places_follow_the_brightness_and_black_images_have_any():
    two = torch.zeros(4000, 3, 9, 9)
    two[:, 0, 1, 1], two[:, 0, 7, 7] = 0.9, 0.3
    assert (occluded(two, 1, generator())[:, 0, 1, 1] == 0).double().mean().item() == pytest.approx(0.75, abs=0.03)
    assert torch.equal(occluded(torch.zeros(3, 3, 9, 9), 4, generator()), torch.zeros(3, 3, 9, 9))


IMAGES = torch.rand(2, 3, 12, 16, generator=generator())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noisy(IMAGES, -0.1, generator()), "a finite number of at least 0, got -0.1"),
        (lambda: noisy(IMAGES, float("nan"), generator()), "a finite number of at least 0, got nan"),
        (lambda: noisy(IMAGES[None], 0.1, generator()), r"must be \(B, C, H, W\), got \(1, 2, 3, 12, 16\); flatten"),
        (lambda: occluded(IMAGES[0], 3, generator()), r"must be \(B, C, H, W\), got \(3, 12, 16\)"),
        (lambda: occluded(2 * IMAGES, 3, generator()), r"floating point in \[0, 1\], got torch.float32 from 0"),
        (lambda: noisy(IMAGES * float("nan"), 0.1, generator()), r"in \[0, 1\], got torch.float32 from nan"),
        (lambda: noisy(IMAGES.byte(), 0.1, generator()), r"in \[0, 1\], got torch.uint8"),
        (lambda: occluded(IMAGES, 0, generator()), "1 to 12 pixels wide, got 0"),
        (lambda: occluded(IMAGES, 13, generator()), "1 to 12 pixels wide, got 13"),
    ],
)
def test_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
