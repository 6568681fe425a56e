"""The VP score: near 1 for what can be told apart, chance for what cannot, and no peeking at the test pairs."""

import pytest
import torch

from poflow_lite import predictability
from poflow_lite.datasets import TransformationSequences, load_stills
from poflow_lite.metrics import no_motion
from poflow_lite.predictability import generated_pairs, vp_score


@pytest.fixture(scope="module")
def digits():
    return TransformationSequences(load_stills("digits", "test").images[:150])


def test_true_sequences_are_named_and_motionless_ones_are_not(digits):
    pairs, k = generated_pairs(lambda batch: batch.frames, digits)
    true = vp_score(pairs, k, epochs=30, seeds=(0, 1))
    assert true.mean > 0.95
    assert len(true.accuracies) == 2
    still = vp_score(*generated_pairs(no_motion, digits), epochs=10, seeds=(0, 1))
    assert still.mean == pytest.approx(1 / 3, abs=0.07)


def test_random_labels_are_at_chance_on_the_other_pairs(digits):
    """Ten per cent can be learned by heart; that must not show in the score."""
    pairs, k = generated_pairs(lambda batch: batch.frames, digits)
    shuffled = k[torch.randperm(len(k), generator=torch.Generator().manual_seed(0))]
    assert vp_score(pairs, shuffled, epochs=30, seeds=(0,)).mean == pytest.approx(1 / 3, abs=0.07)


def test_pairs_are_the_first_and_the_last_frame(digits):
    pairs, k = generated_pairs(lambda batch: batch.frames, digits, images=5, batch_size=2)
    assert pairs.shape == (15, 2, 3, 28, 28)
    assert k.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    frames = digits.batch(torch.arange(5), 1).frames
    torch.testing.assert_close(pairs[5:10], frames[:, [0, 8]])


def test_training_pairs_are_not_tested(monkeypatch):
    """Every pair is used once: a tenth for training, the rest for the accuracy."""
    seen = {"train": set(), "test": set()}

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            seen["train" if self.training else "test"] |= {round(value) for value in x[:, 0, 0, 0].tolist()}
            return self.weight * torch.ones(len(x), 2)

    monkeypatch.setattr(predictability, "_network", lambda *sizes: Spy())
    pairs = torch.arange(50.0)[:, None, None, None, None].expand(50, 2, 1, 4, 4)
    score = vp_score(pairs, torch.arange(50) % 2, epochs=3, seeds=(0,))
    assert len(seen["train"]) == 5
    assert seen["train"] | seen["test"] == set(range(50))
    assert not seen["train"] & seen["test"]
    assert score.spread == 0


def test_scores_are_reproducible_and_leave_the_global_state_alone(digits):
    pairs, k = generated_pairs(lambda batch: batch.frames, digits, images=30)
    before = torch.get_rng_state()
    one, two = (vp_score(pairs, k, epochs=2, seeds=(3,)) for _ in range(2))
    assert one == two
    assert torch.equal(torch.get_rng_state(), before)


def test_bad_input_is_refused_with_what_came():
    pairs, k = torch.rand(20, 2, 1, 8, 8), torch.arange(20) % 2
    with pytest.raises(ValueError, match=r"pairs must be \(N, 2, C, H, W\).*got \(20, 1, 8, 8\)"):
        vp_score(pairs[:, 0], k)
    with pytest.raises(ValueError, match="pairs hold NaN"):
        vp_score(pairs / 0 - pairs / 0, k)
    for share in (0.0, 1.0, 0.01):
        with pytest.raises(ValueError, match=f"a share of {share} of 20 pairs"):
            vp_score(pairs, k, share=share)
