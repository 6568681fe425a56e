"""Clouds of points: their moments and shapes, and that every draw comes from the generator."""

import math

import pytest
import torch

from poflow_lite.datasets import PAIRS, Clouds, GaussianCloud, eight_gaussians, sample_pair, two_moons


def draw(sampler, count=20_000, seed=0):
    return sampler(count, torch.Generator().manual_seed(seed))


def test_gaussian_cloud_has_its_moments():
    z = draw(GaussianCloud((2.0, -1.0), ((2.0, 1.6), (1.6, 1.5))))
    torch.testing.assert_close(z.mean(0), torch.tensor([2.0, -1.0]), rtol=0, atol=0.05)
    torch.testing.assert_close(z.T.cov(), torch.tensor([[2.0, 1.6], [1.6, 1.5]]), rtol=0, atol=0.06)


def test_eight_gaussians_lie_evenly_on_a_circle():
    z = draw(eight_gaussians)
    nearest = (torch.atan2(z[:, 1], z[:, 0]) / (math.pi / 4)).round().long() % 8
    shares = torch.bincount(nearest, minlength=8) / len(z)
    torch.testing.assert_close(shares, torch.full((8,), 1 / 8), rtol=0, atol=0.01)
    for i in range(8):
        centre = torch.tensor([4 * math.cos(i * math.pi / 4), 4 * math.sin(i * math.pi / 4)])
        torch.testing.assert_close(z[nearest == i].mean(0), centre, rtol=0, atol=0.05)
        torch.testing.assert_close(z[nearest == i].std(0), torch.full((2,), 0.4), rtol=0, atol=0.03)


def test_two_moons_are_half_circles_of_radius_two_and_mirror_each_other():
    z = draw(two_moons)
    upper, lower = z - torch.tensor([-1.0, -0.5]), z - torch.tensor([1.0, 0.5])
    radius = torch.minimum((upper.norm(dim=1) - 2).abs(), (lower.norm(dim=1) - 2).abs())
    assert radius.median() < 0.12
    assert radius.max() < 0.8
    torch.testing.assert_close(z.mean(0), 2 * torch.tensor([0.0, 0.0]), rtol=0, atol=0.05)
    assert (z[:, 1] > 1.2).any()
    assert (z[:, 1] < -1.2).any()


@pytest.mark.parametrize("pair", PAIRS)
def test_pairs_come_from_the_generator_alone(pair):
    before = torch.get_rng_state()
    one, same, other = (sample_pair(pair, 5, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.source.shape == one.target.shape == (5, 2)
    assert torch.equal(one.source, same.source)
    assert torch.equal(one.target, same.target)
    assert not torch.equal(one.source, other.source)
    assert isinstance(one.to("cpu"), Clouds)


def test_unknown_pair_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown pair 'spirals'; known: gaussians, moons"):
        sample_pair("spirals", 5, torch.Generator())
