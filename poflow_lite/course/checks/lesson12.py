"""Checks of lesson 12, beyond: when a field pays, motions as isometries, a claim that one success refutes."""

import math

import torch

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal


@Exercise
def best_spike(f: Function) -> Claims:
    """f(saving, weight, activity) -> same shape: the q that minimises weight · KL(q ‖ activity) - saving · q."""
    saving = torch.linspace(-10, 20, 13).double()
    found = f(saving, 10.0, 0.2)
    yield found, (13,), "One q for each saving, of the same shape"
    yield (found >= 0).all() and (found <= 1).all(), "It is a probability, between 0 and 1"
    yield f(doubles(0.0), 10.0, 0.2), doubles(0.2), "A field that saves nothing keeps the prior share"
    yield (found.diff() > 0).all(), "The more a field saves, the likelier it is on: mind the sign of the saving"
    hint = "At a saving of weight · log((1 - π)/π) a field is on in half of the films: is the KL weighted?"
    yield f(doubles(10 * math.log(4)), 10.0, 0.2), doubles(0.5), hint
    yield f(doubles(30 * math.log(4)), 30.0, 0.2), doubles(0.5), hint
    yield f(doubles(10 * math.log(9)), 10.0, 0.1), doubles(0.5), "activity is an argument: do not fix it"
    q = torch.linspace(0.001, 0.999, 999).double()[:, None]
    price = 10 * (q * (q / 0.2).log() + (1 - q) * ((1 - q) / 0.8).log()) - saving * q
    hint = "No other q may be cheaper: weight · (logit q - logit π) - saving must vanish, natural logarithms"
    yield found, q[price.argmin(0), 0], hint, 2e-3
    return "weighs what a field saves against what its spike costs"


@Exercise
def isometry(f: Function) -> Claims:
    """f(start (N, d), end (N, d)) -> (d, d): the orthogonal Q with the least Σ ‖Q start_i - end_i‖²."""
    start, eye = normal(40, 4), torch.eye(4).double()
    turn = normal(4, 4, seed=1)
    Q = torch.matrix_exp(turn - turn.T)  # a rotation
    found = f(start, start @ Q.T + 0.5 * normal(40, 4, seed=2))
    yield found, (4, 4), "It is a matrix, (d, d)"
    yield found @ found.T, eye, "Q must be orthogonal, Q Qᵀ = I, even where the ends are noisy: no least squares alone"
    yield f(start, start), eye, "Where nothing moves it is the identity"
    yield f(start, start @ Q.T), Q, "It must carry start to end. Is it transposed, or from end to start?"
    mirror = torch.diag(doubles(-1, 1, 1, 1))
    yield f(start, start @ mirror), mirror, "Reflections are allowed: no sign may be forced"
    yield f(start, 3 * start @ Q.T), Q, "Ends three times as far change no orthogonal Q: drop the singular values"
    end = normal(40, 4, seed=3)
    best = f(start, end)
    errors = [(start @ best.T - end).square().sum()]
    for seed in range(20):
        turn = normal(4, 4, seed=seed + 10)
        errors.append((start @ (best @ torch.matrix_exp(0.1 * (turn - turn.T))).T - end).square().sum())
    yield min(errors) == errors[0], "No orthogonal matrix near it may have a smaller error"
    return "finds the rigid motion between two clouds of pairs"


@Exercise
def gradients_alone(f: Function) -> Claims:
    """f() -> (2, 2): three and three, six gradients; purity, mean error ÷ no motion with a stranger's g."""
    found = f().double()
    yield found, (2, 2), "A row for each model, three and three, then six gradients; columns: purity, error"
    (purity, error), (own, own_error) = found
    yield (found[:, 0] >= 0.3).all() and (found[:, 0] <= 1).all(), "Purity is a share, between 1/3 and 1"
    yield ((found[:, 1] > 0.1) & (found[:, 1] < 3)).all(), "The error is divided by that of no motion: 0.1 to 3"
    yield purity > 0.6 and error < 0.9, "The live model of section 2 sorts and predicts: is it the first row?"
    hint = "These gradients did not sort. One failure proves no 'cannot': try another seed, three in all"
    yield own > 0.8, hint
    yield own_error < 0.9, "They sort but do not predict, so the claim stands: is the error that with a stranger's g?"
    return "refutes a 'cannot' with one success"
