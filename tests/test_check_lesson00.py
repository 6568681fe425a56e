"""The exercises of lesson 00: plausible wrong answers fail, each with its hint."""

import pytest
import torch

from poflow_lite.check import CheckFailed, lesson00

# --- exercise 1: what standing still costs ------------------------------------------------------------------------


def moved(frames):
    return (frames[:, 1:] - frames[:, :1]).abs()


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda x: moved(x).mean(), "24", id="mean over pixels"),
        pytest.param(lambda x: moved(x).sum(), "average over the sequences", id="sum over sequences"),
        pytest.param(lambda x: moved(x).flatten(1).sum(1), "one number", id="not averaged"),
        pytest.param(lambda x: x.diff(dim=1).abs().flatten(1).sum(1).mean(), "frame before", id="frame to frame"),
        pytest.param(lambda x: moved(x)[:, -1].flatten(1).sum(1).mean(), "24", id="last frame only"),
        pytest.param(
            lambda x: (x[:, 1:] - x[:, :1]).flatten(1).sum(1).mean(), "absolute values before", id="no absolute"
        ),
        pytest.param(lambda x: moved(x).square().flatten(1).sum(1).mean(), "no squares", id="L2"),
        pytest.param(
            lambda x: x[:, 1:].flatten(1).sum(1).mean(), "compare the frames with frame 0", id="frame 0 forgotten"
        ),
        pytest.param(
            lambda x: (x - x[:1]).abs().flatten(1).sum(1).mean(), "compared with frame 0", id="first sequence's frame"
        ),
    ],
)
def test_wrong_yardsticks_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson00.no_motion_error(wrong)


# --- exercise 2: distance on a circle -----------------------------------------------------------------------------


def arc(a, b):
    d = (a - b) % 360
    return torch.minimum(d, 360 - d)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda a, b: a - b, "never negative", id="sign"),
        pytest.param(lambda a, b: (a - b).abs(), "no seam", id="a line instead of a circle"),
        pytest.param(lambda a, b: (a - b) % 360, "40", id="one way round"),
        pytest.param(
            lambda a, b: torch.minimum((a - b).abs(), 360 - (a - b).abs()), "never negative|modulo", id="no modulo"
        ),
        pytest.param(lambda a, b: torch.minimum((a - b).abs(), (360 - (a - b).abs()).abs()), "modulo", id="one turn"),
        pytest.param(lambda a, b: torch.deg2rad(arc(a, b)), "degrees", id="radians"),
        pytest.param(lambda a, b: arc(a, b).mean(), "expected shape", id="mean over pairs"),
        pytest.param(lambda a, b: (a % 180 - b % 180).abs(), "40|180", id="half circle"),
    ],
)
def test_wrong_distances_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson00.hue_distance(wrong)


# --- exercise 3: mixed velocities ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda y, v: torch.einsum("bk,bdk->bd", y, v), "sum over k", id="swapped axes"),
        pytest.param(lambda y, v: (y[..., None] * v).mean(1), "sum over k", id="mean over k"),
        pytest.param(lambda y, v: (y[..., None] * v).sum(-1), "sum over k", id="sum over latent dimensions"),
        pytest.param(lambda y, v: torch.einsum("bk,bkd->bd", y.softmax(1), v), "sum over k", id="softmax"),
        pytest.param(
            lambda y, v: torch.einsum("bk,bkd->bd", torch.nn.functional.normalize(y, p=1, dim=1), v),
            "not normalised",
            id="normalised",
        ),
        pytest.param(lambda y, v: v[torch.arange(len(v)), y.argmax(1)], "nothing moves", id="largest weight only"),
        pytest.param(lambda y, v: torch.einsum("k,bkd->bd", y[0], v), "each sample", id="one weight for all"),
        pytest.param(lambda y, v: torch.einsum("bk,bkd->bd", y.abs(), v), "a sum", id="absolute weights"),
        pytest.param(lambda y, v: torch.einsum("bk,bkd->d", y, v), "expected shape", id="sum over samples"),
    ],
)
def test_wrong_mixtures_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson00.mixed_velocity(wrong)
