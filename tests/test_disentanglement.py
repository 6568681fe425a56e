"""MIG, DCI and unit alignment on codes whose scores are known: perfect, noise, duplicated, rotated."""

import math

import pytest
import torch
from draws import rng

from poflow_lite.datasets import FactorSequences, FactorSpace, starting_points
from poflow_lite.metrics.disentanglement import (
    dci,
    factor_scores,
    mutual_information,
    mutual_information_gap,
    unit_alignment,
)
from poflow_lite.objectives import diagonal_normal

N, nan = 3000, math.nan


FACTORS = torch.stack([torch.randint(size, (N,), generator=rng(size)) for size in (5, 4, 3)], 1)
TRUTH = (FACTORS.float() - FACTORS.float().mean(0)) / FACTORS.float().std(0)
NOISE = torch.randn(N, 5, generator=rng(7))
CODES = {
    "perfect": torch.cat([TRUTH, NOISE[:, :2]], 1),
    "noise": NOISE,
    "duplicated": torch.cat([TRUTH, TRUTH], 1),
    "rotated": torch.cat([TRUTH @ torch.linalg.qr(torch.randn(3, 3, generator=rng(1))).Q, NOISE[:, :2]], 1),
}


def test_mutual_information_of_a_factor_with_itself_is_its_entropy():
    found = mutual_information(CODES["perfect"], FACTORS)
    assert found.diagonal().tolist() == pytest.approx([math.log(size) for size in (5, 4, 3)], abs=0.01)
    found.diagonal().zero_()
    assert found.max() < 0.05


# least and greatest score: MIG, disentanglement, completeness, informativeness
@pytest.mark.parametrize(
    ("name", "gap", "disentanglement", "completeness", "informativeness"),
    [
        ("perfect", (0.95, 1), (0.95, 1), (0.95, 1), (0.99, 1)),
        ("noise", (0, 0.02), (0, 0.1), (0, 1), (0, 0.4)),  # chance is 0.26 on average
        ("duplicated", (0, 1e-9), (0.95, 1), (0, 0.75), (0, 1)),  # each latent tells one factor, each factor by two
        ("rotated", (0, 0.5), (0, 0.5), (0, 1), (0.9, 1)),  # nothing is lost, only mixed
    ],
)
def test_scores_of_known_codes(name, gap, disentanglement, completeness, informativeness):
    found = dci(CODES[name], FACTORS, trees=10)
    torch.testing.assert_close(found.importance.sum(0), torch.ones(3).double())
    for score, (least, greatest) in (
        (mutual_information_gap(CODES[name], FACTORS), gap),
        (found.disentanglement, disentanglement),
        (found.completeness, completeness),
        (found.informativeness, informativeness),
    ):
        assert least <= score <= greatest + 1e-9
    assert dci(CODES[name], FACTORS, trees=10).informativeness == found.informativeness


def test_gap_by_hand():
    """v in {0, 1}: z_1 = v tells log 2, z_2 tells v half of the time: I = ½ log 2 (a coin says when it may)."""
    v, coin = torch.arange(8000) % 2, torch.arange(8000) // 2 % 2
    half = torch.where(coin == 1, 1.0 + v, 0.0)
    assert mutual_information_gap(torch.stack([v.float(), half], 1), v[:, None]) == pytest.approx(0.5, abs=1e-3)


def test_a_latent_is_cut_into_as_many_bins_as_asked_for():
    v = torch.arange(8)[:, None] % 4
    codes = torch.cat([v, 0 * v], 1).float()
    assert [mutual_information_gap(codes, v, bins) for bins in (2, 4)] == pytest.approx([0.5, 1])


def test_one_tree_relies_on_either_copy_of_a_latent_and_a_forest_on_both():
    """A factor of two values takes one split: a tree finds it told by one of 4 latents, many trees by 2."""
    factors = torch.cartesian_prod(torch.arange(2), torch.arange(2)).repeat(50, 1)
    found = [dci(factors.float().repeat(1, 2), factors, trees).completeness for trees in (1, 50)]
    assert found == pytest.approx([1, 1 - math.log(2) / math.log(4)], abs=0.05)


# --- of a model ---------------------------------------------------------------------------------------------------


class Painted:
    """Images whose three channels are the three factors, in steps of 20 grey values."""

    space, image_shape, name = FactorSpace(("standing", "five", "three"), (20, 5, 3)), (3, 1, 1), "painted"

    def frames(self, index):
        return (20 * self.space.factors(index)).clamp(max=255).to(torch.uint8)[..., None, None]


class Reading(torch.nn.Module):
    """Reads codes off an image by a matrix."""

    def __init__(self, *rows):
        super().__init__()
        self.rows, self.seen = torch.nn.Parameter(torch.tensor(rows)), 0

    def encode(self, x):
        self.seen += len(x)
        mean = x.flatten(1) @ self.rows.T
        return diagonal_normal(mean, torch.ones_like(mean))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)], [1, 1, 1, 1]),  # the factors, and one that stands
        ([(0.0, 1.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)], [0.5, 1, (1 - math.log(2, 3) + 1) / 2, 1]),
        ([(1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)], [0, 0, 0, (1 / 5 + 1 / 3) / 2]),  # nothing of what moves
    ],
    ids=["factors", "one of them twice", "what stands"],
)
def test_scores_of_a_model_are_those_of_its_codes_of_single_images(rows, expected):
    moved = ("three", "five")
    sequences = FactorSequences(Painted(), starting_points(Painted.space, moved, "train"), moved, horizon=1)
    model = Reading(*rows)
    found = factor_scores(model, sequences, images=2000)
    assert model.seen == 2000
    assert list(found) == ["mig", "disentanglement", "completeness", "informativeness"]
    assert list(found.values()) == pytest.approx(expected, abs=0.06)
    assert found == factor_scores(model, sequences, images=2000)


def test_alignment_is_one_for_neurons_that_copy_a_latent_and_low_for_mixtures():
    z, noise = CODES["perfect"], torch.randn(N, 1, generator=rng(9))
    neurons = [z[:, 1:2] * -3 + 5, z[:, :2].sum(1, keepdim=True), z.sum(1, keepdim=True), noise]
    expected = [1, 1 - math.log(2) / math.log(5), 0, 0]
    assert unit_alignment(torch.cat(neurons, 1), z).tolist() == pytest.approx(expected, abs=0.05)
    assert not unit_alignment(torch.cat(neurons, 1), z, penalty=1e6).any(), "so heavy a lasso leaves no weight"


def test_a_code_that_never_varies_scores_nothing_rather_than_nan():
    """Its forests have no importances: 0/0 was NaN in D, and an empty column counted as complete."""
    factors = torch.cartesian_prod(torch.arange(4), torch.arange(4)).repeat(20, 1)
    found = dci(torch.zeros(len(factors), 3), factors)
    assert found.disentanglement == found.completeness == 0.0
    assert found.informativeness < 0.5
    for constant in (1e30, -1e6, 1e-30):  # a histogram of 1e30 alone has no bins
        assert mutual_information_gap(torch.full((320, 2), constant), factors) == 0.0


def test_a_rounding_error_is_no_code_and_a_factor_may_be_of_any_integers():
    jitter = 1e6 + 1e-10 * FACTORS.double()
    assert mutual_information(jitter, FACTORS).max() == 0.0
    for other in (FACTORS.to(torch.int8) * 50 - 100, FACTORS * 10**9):
        assert mutual_information_gap(CODES["perfect"], other) == mutual_information_gap(CODES["perfect"], FACTORS)
    assert dci(CODES["perfect"], FACTORS > 1, 2).informativeness > 0.99


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (mutual_information, (NOISE, FACTORS[:10]), r"factors \(N, F\) with the same N, got \(3000, 5\) and \(10, 3\)"),
        (dci, (NOISE * nan, FACTORS), "hold NaN, infinite or huge entries: look at the encoder"),
        (mutual_information_gap, (NOISE, FACTORS.float()), "factors must be integers, got torch.float32"),
        (dci, (NOISE, FACTORS * torch.tensor([1, 0, 1])), "factor 1 has one value in all samples"),
        (dci, (TRUTH[:3], FACTORS[:3]), r"factor 0 has the value \d in \d of the 3 samples that are fitted"),
        (dci, (TRUTH[:8], FACTORS[:8]), r"at least 3 are needed: give more samples, or leave this value out"),
        (
            dci,
            (NOISE, torch.where(torch.arange(N)[:, None] == 7, 9, FACTORS)),
            "the value 9 in [01] of the 2250 samples",
        ),
        (dci, (NOISE, FACTORS, 0), "at least 1 tree is needed, got 0"),
        *((unit_alignment, (NOISE, NOISE, p), f"penalty must be positive and finite, got {p}") for p in (0, -1, nan)),
        (unit_alignment, (NOISE[:5], NOISE[:5]), "5 latents need more than 5 samples"),
        *((f, (NOISE.double() * 1e38, FACTORS), "huge entries") for f in (dci, mutual_information_gap)),
        (mutual_information, (NOISE, FACTORS, 1), "at least 2 bins are needed, got 1"),
        (mutual_information_gap, (NOISE[:, :1], FACTORS), r"codes must be \(N, d\), d ≥ 2, .* got \(3000, 1\)"),
        (dci, (NOISE, FACTORS[:, :1]), "at least 2 factors, got 1"),
        (unit_alignment, (NOISE[:, 0], NOISE), r"neurons \(N, M\) with the same N, got \(3000, 5\) and \(3000,\)"),
        (unit_alignment, (NOISE / 0, NOISE), "codes or neurons hold NaN"),
    ],
)
def test_bad_input_is_refused_with_what_came(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
