"""The exercises of lesson 12: plausible wrong answers fail, each with its hint."""

import pytest
import torch

from poflow_lite.check import CheckFailed, lesson12

# --- exercise 1: logistic noise -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda u: (1 - u).log() - u.log(), "must rise", id="sign"),
        pytest.param(lambda u: -(-u.log()).log(), "one Gumbel", id="one Gumbel"),
        pytest.param(lambda u: u.log() + (1 - u).log(), "½", id="sum for difference"),
        pytest.param(lambda u: u.log(), "½", id="one logarithm"),
        pytest.param(lambda u: u - 0.5, "give u back", id="centred, no logarithm"),
        pytest.param(lambda u: 0.5 * torch.logit(u), "no factor", id="factor"),
        pytest.param(lambda u: (u / (1 - u)).log10(), "natural", id="wrong base"),
        pytest.param(lambda u: torch.logit(u).mean(), "for each u", id="mean"),
    ],
)
def test_wrong_noise_fails(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson12.logistic_noise(wrong)


# --- exercise 2: the price of spikes ------------------------------------------------------------------------------


def both(q, p):
    return q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda q, p: -both(q, p).sum(1), "positive", id="sign"),
        pytest.param(lambda q, p: (q * (q / p).log()).sum(1), "both states", id="only on"),
        pytest.param(
            lambda q, p: (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1), "another", id="swapped"
        ),
        pytest.param(lambda q, p: both(q, p).mean(1), "five times", id="mean over fields"),
        pytest.param(lambda q, p: both(q, p).sum(0), "expected shape", id="axes swapped"),
        pytest.param(lambda q, p: both(q, p), "expected shape", id="no sum"),
        pytest.param(lambda q, p: both(q, p).sum(1) / 0.6931471805599453, "natural", id="bits"),
        pytest.param(lambda q, p: both(q, 0.2).sum(1), "p is an argument", id="fixed p"),
    ],
)
def test_wrong_price_fails(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson12.spike_kl(wrong)


# --- exercise 3: targets of flow matching -------------------------------------------------------------------------


def target(point, velocity):
    return torch.stack([point, velocity])


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda a, b, s: target(torch.lerp(b, a, s[:, None]), b - a), "which end", id="ends swapped"),
        pytest.param(lambda a, b, s: target(torch.lerp(a, b, s[:, None]), a - b), "in this order", id="sign"),
        pytest.param(
            lambda a, b, s: target(torch.lerp(a, b, s[:, None]), (1 - s)[:, None] * (b - a)),
            "same at every τ",
            id="what is left",
        ),
        pytest.param(
            lambda a, b, s: target(torch.lerp(a, b, s[:, None]), s[:, None] * (b - a)), "no factor", id="times τ"
        ),
        pytest.param(
            lambda a, b, s: target(torch.lerp(a, b, s[:, None]), torch.nn.functional.normalize(b - a)),
            "unit length",
            id="unit speed",
        ),
        pytest.param(lambda a, b, s: target(torch.lerp(a, b, s.mean()), b - a), "its own τ", id="one τ for all"),
        pytest.param(lambda a, b, s: target(a, b - a), "At τ = 1", id="always at the start"),
        pytest.param(lambda a, b, s: torch.lerp(a, b, s[:, None]), "stack point", id="no velocity"),
    ],
)
def test_wrong_targets_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson12.matching_target(wrong)


# --- exercise 4: circulation --------------------------------------------------------------------------------------


def edges(corners):
    return corners.roll(-1, 0) - corners


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda v, c: -(v * edges(c)).sum(), "next corner minus", id="sign"),
        pytest.param(lambda v, c: (v[:-1] * c.diff(dim=0)).sum(), "goes back", id="open loop"),
        pytest.param(lambda v, c: (v * edges(c)).sum(1).abs().sum(), "sign of each edge", id="absolute values"),
        pytest.param(lambda v, c: (v * edges(c)).sum(1).mean(), "no mean", id="mean over edges"),
        pytest.param(lambda v, c: (v * edges(c)).sum(1), "one number", id="not added up"),
        pytest.param(
            lambda v, c: (torch.nn.functional.normalize(v) * edges(c)).sum(), "unit vectors", id="unit vectors"
        ),
        pytest.param(
            lambda v, c: (v[:, 0] * edges(c)[:, 1] - v[:, 1] * edges(c)[:, 0]).sum(),
            "twice the area|positive",
            id="flux",
        ),
        pytest.param(lambda v, c: (v[:, :2] * edges(c)[:, :2]).sum() * (2 / v.shape[1]), "any dimension", id="planar"),
    ],
)
def test_wrong_circulation_fails(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson12.circulation(wrong)
