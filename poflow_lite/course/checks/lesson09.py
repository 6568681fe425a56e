"""Checks of lesson 09, the experiments: the error of each transformation, paired differences, margins, densities."""

import math

import torch

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal


@Exercise
def error_by_transformation(f: Function) -> Claims:
    """f(true, predicted (B, T+1, C, H, W), k (B,), transformations) -> (K,): L1 equivariance error for each k."""
    k, true = torch.tensor([0, 1, 1, 2, 2, 2]), torch.zeros(6, 3, 2, 2, 2).double()
    first, predicted, order = true.clone(), true.clone(), [5, 0, 3, 1, 4, 2]
    first[:, 0] = 1.0
    predicted[:, 1:] = -doubles(1, 2, 4, 3, 6, 9)[:, None, None, None, None]
    yield f(true, true, k, 3), [0.0] * 3, "A perfect prediction has error 0 for each k, (K,)"
    yield f(true, first, k, 3), [0.0] * 3, "Frame 0 was given: count the frames t = 1..T only"
    found = f(true, predicted, k, 3)
    yield (found >= 0).all(), "Too dark and too bright are both errors: take absolute values before you add"
    hint = """Numbers wrong by 1; by 2 or 4; by 3, 6 or 9 make errors of 16·1, 16·3, 16·6: sum over frames, channels and
        pixels, mean over the sequences of one k, no squares, no mean over or from other transformations"""
    yield found, [16.0, 48.0, 96.0], hint
    hint = "The order of the sequences must not matter: k says whose error it is, not the place in the batch"
    yield f(true[order], predicted[order], k[order], 3), found, hint
    return "keeps the transformations apart, whatever the order"


@Exercise
def paired_difference(f: Function) -> Claims:
    """f(ours (N,), theirs (N,)) -> (2,): mean of ours - theirs over the same images, and its standard error."""
    hard = 300 + 50 * normal(400)  # some images are hard for everyone
    found = f(hard, hard + 10)
    yield found, (2,), "Return the mean difference and its standard error, (2,)"
    yield found[0], -10.0, "Where theirs errs by 10 more on every image, ours - theirs is -10: ours comes first"
    hint = "Every image says the same, -10, so there is no uncertainty: take differences image by image first"
    yield found[1], 0.0, hint
    hint = "Differences 1, 3, 5, 7 have the variance 20/3 (divide by N - 1), their mean the error √(20/3) / √4: mind √N"
    yield f(doubles(1, 3, 5, 7), doubles(0, 0, 0, 0))[1], math.sqrt(20 / 3 / 4), hint
    noise = 8 * normal(2, 500, 400, seed=1)
    spread = (noise[0] - noise[1]).mean(1).std()
    errors = torch.stack([f(hard + a, hard + 10 + b)[1] for a, b in noise[:, :50].transpose(0, 1)])
    yield errors.mean(), spread, "The standard error must be what means scatter by over redrawn test sets", 0.1
    return f"foretells the scatter over redrawn test sets, {spread:.2f}"


@Exercise
def margin(f: Function) -> Claims:
    """f(ours (K,), baselines (M, K)) -> (K,): the share by which ours lies below the best baseline of each k."""
    ours = doubles(70, 90, 120)
    found = f(ours, doubles([100.0] * 3))
    yield found, (3,), "It is one share for each k, (K,)"
    yield found[0] > 0 > found[2], "70 lies below 100, so its margin is positive; 120 lies above, so it is negative"
    yield found, [0.3, 0.1, -0.2], "70, 90, 120 against 100 are 0.3, 0.1, -0.2: a share of the baseline, not of ours"
    two = doubles([100.0, 900.0, 480.0], [700.0, 90.0, 240.0])
    hint = "Each k has its own best, the lowest of its column: neither the mean nor the worst, nor one baseline for all"
    yield f(ours, two), [0.3, 0.0, 0.5], hint
    return "compares with the best baseline of each transformation"


@Exercise
def linear_log_density(f: Function) -> Claims:
    """f(log_q0 (B,), matrices (T, d, d)) -> (B, T): log q_t(A_t z_0 + b_t) for t = 1..T, nats."""
    log_q0, turn, half = doubles(0.5, -1), doubles([0.6, -0.8], [0.8, 0.6]), doubles([0.5, 0.0], [0.0, 0.5])
    hint = "Rotations keep volumes: log q_t = log q_0 for t = 1..T, shape (B, T)"
    yield f(log_q0, torch.stack([turn, turn @ turn, turn.T])), log_q0[:, None].expand(2, 3), hint
    shrunk = f(log_q0, half[None])[:, 0]
    yield (shrunk > log_q0).all(), "A contraction packs probability tighter: log q rises. Mind the sign"
    hint = "A = I/2 in two dimensions divides areas by 4, so log q rises by log 4: the determinant, not the trace"
    yield shrunk, log_q0 + math.log(4), hint
    hint = "diag(1, -2) doubles areas, log q falls by log 2: take the logarithm of the determinant's absolute value"
    yield f(log_q0, doubles([[1.0, 0.0], [0.0, -2.0]]))[:, 0], log_q0 - math.log(2), hint
    hint = "A_1 = A_2 = I/2, both maps from z_0: log q is the same at t = 1 and 2. Steps add up, maps from z_0 do not"
    yield f(log_q0, torch.stack([half, half])), shrunk[:, None].expand(2, 2), hint
    return "knows what a matrix does to volumes"
