"""The exercises of lesson 09: plausible wrong answers fail, each with its hint."""

import pytest
import torch

from poflow_lite.check import CheckFailed, lesson09

# --- exercise 1: errors, each transformation on its own -----------------------------------------------------------


def by_k(values, k, transformations):
    return torch.stack([values[k == i].mean() for i in range(transformations)])


def distance(true, predicted):
    return (predicted - true)[:, 1:].abs().flatten(1)


def running_mean(true, predicted, k, transformations):
    """As published: the error of each transformation is averaged with those before it."""
    alone = by_k(distance(true, predicted).sum(1), k, transformations)
    return alone.cumsum(0) / torch.arange(1, transformations + 1)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(
            lambda x, y, k, n: by_k((y - x).abs().flatten(1).sum(1), k, n), "Frame 0 was given", id="frame 0 counted"
        ),
        pytest.param(lambda x, y, k, n: by_k(distance(x, y).mean(1), k, n), "sum over frames", id="mean over pixels"),
        pytest.param(lambda x, y, k, n: by_k((y - x)[:, 1:].flatten(1).sum(1), k, n), "absolute", id="no absolute"),
        pytest.param(lambda x, y, k, n: by_k((y - x)[:, 1:].square().flatten(1).sum(1), k, n), "squares", id="L2"),
        pytest.param(running_mean, "other transformations", id="running mean"),
        pytest.param(
            lambda x, y, k, n: distance(x, y).sum(1).mean().expand(n), "other transformations", id="one mean for all"
        ),
        pytest.param(lambda x, y, k, n: n * by_k(distance(x, y).sum(1), k, n), "16·1", id="times K"),
        pytest.param(
            lambda x, y, k, n: torch.stack([distance(x, y).sum(1)[k == i].sum() for i in range(n)]),
            "mean over the sequences",
            id="sum over sequences",
        ),
        pytest.param(
            lambda x, y, k, n: by_k(distance(x, y).sum(1), k.sort().values, n), "order", id="place instead of k"
        ),
        pytest.param(lambda x, y, k, n: distance(x, y).sum(1), "expected shape", id="not by k"),
    ],
)
def test_wrong_errors_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson09.error_by_transformation(wrong)


# --- exercise 2: paired differences -------------------------------------------------------------------------------


def pair(mean, error):
    return torch.stack([mean, error])


def unpaired(ours, theirs):
    return pair(ours.mean() - theirs.mean(), ((ours.var() + theirs.var()) / len(ours)).sqrt())


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(unpaired, "image by image", id="unpaired"),
        pytest.param(lambda a, b: pair((b - a).mean(), (a - b).std() / len(a) ** 0.5), "ours comes first", id="sign"),
        pytest.param(lambda a, b: pair((a - b).mean(), (a - b).std()), "√N", id="root of N forgotten"),
        pytest.param(lambda a, b: pair((a - b).mean(), (a - b).std() / len(a)), "√N", id="N for its root"),
        pytest.param(lambda a, b: pair((a - b).mean(), (a - b).var() / len(a) ** 0.5), "√N", id="variance"),
        pytest.param(
            lambda a, b: pair((a - b).mean(), (a - b).std(correction=0) / len(a) ** 0.5), "N - 1", id="divided by N"
        ),
        pytest.param(lambda a, b: pair((a - b).sum(), (a - b).std() / len(a) ** 0.5), "is -10", id="sum for mean"),
        pytest.param(lambda a, b: (a - b).mean(), r"\(2,\)", id="no error"),
    ],
)
def test_wrong_differences_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson09.paired_difference(wrong)


# --- exercise 3: margins ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda ours, b: ours / b.min(0).values - 1, "positive", id="sign"),
        pytest.param(lambda ours, b: ours / b.min(0).values, "negative", id="ratio"),
        pytest.param(lambda ours, b: b.min(0).values / ours - 1, "not of ours", id="share of ours"),
        pytest.param(lambda ours, b: b.min(0).values - ours, "a share", id="difference"),
        pytest.param(lambda ours, b: 1 - ours / b.mean(0), "neither the mean", id="mean of baselines"),
        pytest.param(lambda ours, b: 1 - ours / b.max(0).values, "nor the worst", id="worst baseline"),
        pytest.param(lambda ours, b: 1 - ours / b[b.sum(1).argmin()], "one baseline for all", id="best on average"),
        pytest.param(lambda ours, b: 1 - ours / b.min(), "own best", id="one lowest for all k"),
        pytest.param(lambda ours, b: 1 - ours / b.min(1).values[0], "own best", id="swapped axes"),
        pytest.param(lambda ours, b: 100 * (1 - ours / b.min(0).values), "0.3", id="per cent"),
        pytest.param(lambda ours, b: (1 - ours / b.min(0).values).mean(), "for each k", id="mean over k"),
    ],
)
def test_wrong_margins_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson09.margin(wrong)


# --- exercise 4: the density of a linear operator -----------------------------------------------------------------


def log_det(matrices):
    return torch.linalg.slogdet(matrices).logabsdet


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda q, a: q[:, None] + log_det(a), "sign", id="sign"),
        pytest.param(lambda q, a: q[:, None] - log_det(a).cumsum(0), "do not", id="added up over t"),
        pytest.param(
            lambda q, a: q[:, None] - torch.linalg.det(a).log(), "absolute value", id="logarithm of a negative number"
        ),
        pytest.param(lambda q, a: q[:, None] - log_det(a) / a.shape[-1], "log 4", id="mean over dimensions"),
        pytest.param(
            lambda q, a: q[:, None] - torch.diagonal(a, dim1=1, dim2=2).abs().log().sum(1), "Rotations", id="diagonal"
        ),
        pytest.param(
            lambda q, a: q[:, None] - log_det(torch.eye(2, dtype=a.dtype) + a), "Rotations", id="I added to A"
        ),
        pytest.param(lambda q, a: q[:, None] - 2 * log_det(a), "log 4", id="volume squared"),
        pytest.param(lambda q, a: log_det(a)[:, None] - q, "expected shape", id="axes swapped"),
        pytest.param(lambda q, a: q[:, None] - torch.linalg.det(a).abs(), "Rotations", id="logarithm forgotten"),
    ],
)
def test_wrong_densities_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson09.linear_log_density(wrong)
