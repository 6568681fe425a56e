"""Checks of lesson 08, knowing k less: the posterior of k, the leave-one-out gradient, a temperature too high."""

import itertools

import torch

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal, one_by_one


@Exercise
def posterior_of_k(f: Function) -> Claims:
    """f(log_p (B, K), prior (K,)) -> (B, K): p(k | x) from log p(x | k) and p(k)."""
    log_p, prior = normal(5, 3), doubles(0.6, 0.3, 0.1)
    found = f(log_p, prior)
    yield found, (5, 3), "One row of K probabilities for each film"
    yield found.sum(1), [1.0] * 5, "Each row must sum to 1: normalise over k, axis 1"
    hint = "Where all log p(x | k) are equal the frames say nothing: the posterior is the prior p(k)"
    yield f(0 * log_p, prior), prior.expand(5, 3), hint
    hint = "With equal p(k) it is proportional to p(x | k): odds are exp of differences of log p(x | k)"
    yield f(doubles([0.0, 1.0, 2.0]), torch.ones(3).double() / 3), doubles([0.0, 1.0, 2.0]).softmax(1), hint
    hint = "It must be p(x | k) p(k) divided by its sum over k (Bayes' rule)"
    joint = log_p.exp() * prior
    yield found, joint / joint.sum(1, keepdim=True), hint
    hint = "Values near -19,000 underflow in exp: add log p(k) and take a softmax"
    yield f(log_p - 19_000, prior), found, hint
    hint = "A k with p(k) = 0 must get exactly 0, and nothing may become NaN"
    without = f(log_p, doubles(0.5, 0.5, 0.0))
    yield without.isfinite().all() and (without[:, 2] == 0).all(), hint
    yield found, one_by_one(lambda rows: f(rows, prior), log_p), "Nothing may be mixed over the batch"
    return "weighs what the frames say by how frequent each k is"


@Exercise
def leave_one_out(f: Function) -> Claims:
    """f(logits (K,), indices (S,), losses (S,)) -> (K,): an unbiased estimate of the gradient of E loss."""
    logits, each = doubles(0.4, 0.0, -0.7), doubles(3.0, -1.0, 2.0)
    q = logits.softmax(0)
    k = torch.tensor([0, 2, 1, 0])
    yield f(logits, k, each[k]), (3,), "One number for each logit, (K,): the mean over the S samples"
    hint = "Each ∇ log q_k = e_k - q sums to 0 over the logits, and so must the estimate"
    yield f(logits, k, each[k]).sum(), 0.0, hint
    hint = "Where all losses are equal every sample minus the mean of the others is 0: so is the estimate, exactly"
    yield f(logits, k, 0 * each[k] + 7.0), doubles(0.0, 0.0, 0.0), hint
    for count in (2, 3):
        mean = torch.zeros(3).double()
        for drawn in itertools.product(range(3), repeat=count):
            i = torch.tensor(drawn)
            mean = mean + q[i].prod() * f(logits, i, each[i])
        hint = f"""Over all draws of S = {count} its mean must be the exact gradient q_j (loss_j - E loss): no bias.
            A sample's baseline is the mean of the S - 1 others, without itself; mind the signs and 1/S"""
        yield mean, q * (each - q @ each), hint
    hint = "Adding a constant to all losses must change nothing"
    yield f(logits, k, each[k] + 100), f(logits, k, each[k]), hint
    return "has no bias, and no variance where all choices are equally good"


@Exercise
def too_hot(f: Function) -> Claims:
    """f() -> (2, 3): annealed, hot; share named rightly, error ÷ no motion (mean over k), mean largest q."""
    found = f().double()
    yield found, (2, 3), "A row for each model, annealed and hot; columns: share named, error, mean largest q"
    shares = found[:, [0, 2]]
    yield (shares >= 0.3).all() and (shares <= 1).all(), "The first and last column are shares, between 1/3 and 1"
    yield ((found[:, 1] > 0.1) & (found[:, 1] < 3)).all(), "The error is divided by that of no motion: 0.1 to 3"
    (named, error, sure), (_, hot_error, hot_sure) = found
    hint = "The annealed model of section 8 names nearly all films and predicts: is it the first row?"
    yield named > 0.8 and error < 0.8, hint
    hint = "The hot flows serve all films alike, so their error is clearly larger. Was temperature=(20.0, 20.0) passed?"
    yield hot_error > error + 0.1, hint
    yield hot_sure < sure, "The hot q should be less sure: its choice hardly changes which flow acts"
    return "shows that films can be told apart although flows that always mix stay alike"
