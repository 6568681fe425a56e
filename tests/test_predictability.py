"""The VP score: near 1 for what can be told apart, chance for what cannot, and no peeking at the test pairs."""

from statistics import pstdev

import pytest
import torch

from poflow_lite.datasets import TransformationSequences, load_images
from poflow_lite.metrics import predictability, with_coefficients
from poflow_lite.metrics.predictability import generated_pairs, vp_score
from poflow_lite.metrics.prediction import persistence


@pytest.fixture(scope="module")
def digits():
    return TransformationSequences(load_images("digits", "test").images[:150])


def test_true_sequences_are_named_and_chance_is_left_for_motionless_ones_and_random_labels(digits):
    """Ten per cent can be learned by heart; that must not show in the score."""
    pairs, k = generated_pairs(lambda batch: batch.frames, digits)
    assert vp_score(pairs, k, epochs=30, seeds=(0,)).mean > 0.95
    shuffled = k[torch.randperm(len(k), generator=torch.Generator().manual_seed(0))]
    chance = (
        vp_score(pairs, shuffled, epochs=30, seeds=(0,)),
        vp_score(*generated_pairs(persistence, digits), epochs=10),
    )
    assert [score.mean for score in chance] == pytest.approx([1 / 3, 1 / 3], abs=0.07)
    assert len(chance[1].accuracies) == 3
    assert 0 < chance[1].spread == pytest.approx(pstdev(chance[1].accuracies))


def test_pairs_are_the_first_and_the_last_frame(digits):
    pairs, k = generated_pairs(lambda batch: batch.frames, digits, images=5, batch_size=2)
    assert k.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    torch.testing.assert_close(pairs[5:10], digits.batch(torch.arange(5), 1).frames[:, [0, 8]])


def test_pairs_of_a_model_that_is_asked_by_coefficients_are_labelled_by_k(digits):
    asked = with_coefficients(digits, lambda batch: batch.with_k(torch.rand(len(batch), 4)))
    assert generated_pairs(persistence, asked, images=3)[1].tolist() == [0] * 3 + [1] * 3 + [2] * 3


def test_training_pairs_are_not_tested(monkeypatch):
    """Every pair is used once: a tenth for training, the rest for the accuracy."""
    seen = {"train": set(), "test": set()}

    class Spy(torch.nn.Linear):
        def forward(self, x):
            seen["train" if self.training else "test"] |= {round(value) for value in x[:, 0, 0, 0].tolist()}
            return self.weight[0] * torch.ones(len(x), 2)

    monkeypatch.setattr(predictability, "_network", lambda *sizes: Spy(1, 1))
    pairs = torch.arange(50.0)[:, None, None, None, None].expand(50, 2, 1, 4, 4)
    assert vp_score(pairs, torch.arange(50) % 2, epochs=3, seeds=(0,)).spread == 0
    assert len(seen["train"]) == 5
    assert seen["train"] ^ seen["test"] == set(range(50))


PAIRS, K = torch.rand(20, 2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2


def test_scores_are_reproducible_and_leave_the_global_state_alone():
    before = torch.get_rng_state()
    assert vp_score(PAIRS, K, epochs=2, seeds=(3,)) == vp_score(PAIRS, K, epochs=2, seeds=(3,))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("pairs", "share", "message"),
    [(PAIRS[:, 0], 0.1, r"pairs must be \(N, 2, C, H, W\).*got \(20, 1, 8, 8\)"), (PAIRS / 0, 0.1, "pairs hold NaN")]
    + [(PAIRS, share, f"a share of {share} of 20 pairs") for share in (0.0, 1.0, 0.01)],
)
def test_bad_input_is_refused_with_what_came(pairs, share, message):
    with pytest.raises(ValueError, match=message):
        vp_score(pairs, K, share=share)


@pytest.mark.parametrize(
    ("k", "options", "message"),
    [(k, {}, "k must be integers from 0 with two values at least") for k in (0 * K, K - 1, K / 2)]
    + [(K, {name: 0}, "at least 1 epoch, 1 pair in a step, 1 seed") for name in ("epochs", "batch_size")]
    + [(K, {"seeds": ()}, "1 seed and images of 2 x 2 are needed, got 60, 64, 0 and")],
)
def test_a_score_of_nothing_is_refused(k, options, message):
    """One class only would be named with certainty, and no seed has no mean."""
    with pytest.raises(ValueError, match=message):
        vp_score(PAIRS, k, share=0.5, **options)
