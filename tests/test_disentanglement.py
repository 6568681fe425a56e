"""MIG, DCI and unit alignment on codes whose scores are known: perfect, noise, duplicated, rotated."""

import math

import pytest
import torch

from poflow_lite.disentanglement import dci, mutual_information, mutual_information_gap, unit_alignment

N = 3000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def factors():
    """Three independent factors of 5, 4 and 3 values."""
    return torch.stack([torch.randint(size, (N,), generator=generator(size)) for size in (5, 4, 3)], 1)


def standardised(values):
    return (values - values.mean(0)) / values.std(0)


@pytest.fixture(scope="module")
def codes(factors):
    """Codes of five latents by name: the three factors themselves and two of noise, and what can be done to them."""
    truth = standardised(factors.float())
    noise = torch.randn(N, 5, generator=generator(7))
    perfect = torch.cat([truth, noise[:, :2]], 1)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator(1))).Q
    return {
        "perfect": perfect,
        "noise": noise,
        "duplicated": torch.cat([truth, truth], 1),
        "rotated": torch.cat([truth @ rotation, noise[:, :2]], 1),
    }


def test_mutual_information_of_a_factor_with_itself_is_its_entropy(factors, codes):
    found = mutual_information(codes["perfect"], factors)
    for j, size in enumerate((5, 4, 3)):
        assert found[j, j].item() == pytest.approx(math.log(size), abs=0.01)
    found[range(3), range(3)] = 0
    assert found.max() < 0.05


def test_gap_of_known_codes(factors, codes):
    assert mutual_information_gap(codes["perfect"], factors) > 0.95
    assert mutual_information_gap(codes["noise"], factors) < 0.02
    assert mutual_information_gap(codes["duplicated"], factors) == pytest.approx(0, abs=1e-9)
    assert mutual_information_gap(codes["rotated"], factors) < 0.5


def test_gap_by_hand():
    """v in {0, 1}: z_1 = v tells log 2, z_2 tells v half of the time: I = ½ log 2 (a coin says when it may)."""
    v = torch.arange(8000) % 2
    coin = torch.arange(8000) // 2 % 2
    half = torch.where(coin == 1, 1.0 + v, torch.zeros(8000))
    found = mutual_information_gap(torch.stack([v.float(), half], 1), v[:, None])
    assert found == pytest.approx(1 - 0.5, abs=1e-3)


def test_dci_of_known_codes(factors, codes):
    scores = {name: dci(code, factors, trees=20) for name, code in codes.items()}
    perfect = scores["perfect"]
    assert perfect.disentanglement > 0.95
    assert perfect.completeness > 0.95
    assert perfect.informativeness > 0.99
    torch.testing.assert_close(perfect.importance.sum(0), torch.ones(3).double())
    assert scores["noise"].informativeness < 0.4  # chance is 0.26 on average
    assert scores["noise"].disentanglement < 0.1
    assert scores["duplicated"].disentanglement > 0.95  # each latent still tells one factor
    assert scores["duplicated"].completeness < 0.75  # but each factor is told by two
    assert scores["rotated"].disentanglement < 0.5
    assert scores["rotated"].informativeness > 0.9  # nothing is lost, only mixed


def test_alignment_is_one_for_neurons_that_copy_a_latent_and_low_for_mixtures(codes):
    latents = codes["perfect"]
    noise = torch.randn(N, 1, generator=generator(9))
    mixture = latents.sum(1, keepdim=True)
    pair = latents[:, :2].sum(1, keepdim=True)
    found = unit_alignment(torch.cat([latents[:, 1:2] * -3 + 5, pair, mixture, noise], 1), latents)
    assert found[0] == pytest.approx(1, abs=1e-6)
    assert found[1].item() == pytest.approx(1 - math.log(2) / math.log(5), abs=0.02)
    assert found[2] < 0.05
    assert found[3] == 0  # told by none


def test_scores_are_reproducible(factors, codes):
    first, second = (dci(codes["rotated"], factors, trees=5) for _ in range(2))
    assert first.disentanglement == second.disentanglement
    assert first.informativeness == second.informativeness


def test_bad_input_is_refused_with_what_came(factors, codes):
    good = codes["noise"]
    with pytest.raises(ValueError, match=r"the same N, got \(3000, 5\), \(10, 3\)"):
        mutual_information(good, factors[:10])
    with pytest.raises(ValueError, match="codes hold NaN"):
        dci(good * math.nan, factors)
    with pytest.raises(ValueError, match=r"factors must be integers, got torch.float32"):
        mutual_information_gap(good, factors.float())
    with pytest.raises(ValueError, match="factor 1 has one value in all samples"):
        dci(good, torch.stack([factors[:, 0], 0 * factors[:, 1]], 1))
    with pytest.raises(ValueError, match="at least 2 bins are needed, got 1"):
        mutual_information(good, factors, bins=1)
    with pytest.raises(ValueError, match="a gap needs at least 2 latents, got 1"):
        mutual_information_gap(good[:, :1], factors)
    with pytest.raises(ValueError, match="at least 2 latents and 2 factors, got 5 and 1"):
        dci(good, factors[:, :1])
    with pytest.raises(ValueError, match=r"neurons must be \(N, M\).*got \(3000,\)"):
        unit_alignment(good[:, 0], good)
    with pytest.raises(ValueError, match="neurons or codes hold NaN"):
        unit_alignment(good / 0, good)


def test_a_code_that_never_varies_scores_nothing_rather_than_nan():
    """Its forests have no importances: 0/0 was NaN in D, and an empty column counted as complete."""
    factors = torch.cartesian_prod(torch.arange(4), torch.arange(4)).repeat(20, 1)
    found = dci(torch.zeros(len(factors), 3), factors)
    assert found.disentanglement == found.completeness == 0.0
    assert found.informativeness < 0.5
