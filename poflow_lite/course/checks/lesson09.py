"""Checks of lesson 09, the experiments: the share of the way, the sign-flip test, a model of one's own in a table."""

import itertools

import torch

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal


@Exercise
def share_of_way(f: Function) -> Claims:
    """f(error (K,), still (K,), floor (K,)) -> (K,): share of the way from no motion to the floor, or NaN."""
    still, floor = doubles(1000.0, 500.0, 800.0), doubles(200.0, 100.0, 300.0)
    yield f(still, still, floor), (3,), "One share for each k, (K,): no mean over k"
    yield f(still, still, floor), [0.0] * 3, "As bad as no motion is no way at all: 0 for each k"
    yield f(floor, still, floor), [1.0] * 3, "At the floor the whole way is done: 1. The whole way is still - floor"
    hint = "An error half-way between no motion and floor has gone half of the way; each k has a way of its own"
    yield f((still + floor) / 2, still, floor), [0.5] * 3, hint
    hint = "Worse than no motion is below 0, better than the floor above 1: neither clamp nor take absolute values"
    yield (f(still + 80, still, floor) < 0).all() and (f(floor - 20, still, floor) > 1).all(), hint
    found = f(doubles(3, 3, 3), doubles(0, 2, 4), doubles(2, 2, 2))
    hint = "Where no motion is not above the floor there is no way to go: NaN there, and nowhere else"
    yield found.isnan().tolist() == [True, True, False], hint
    return "says how much of what is possible was reached"


@Exercise
def sign_flip(f: Function) -> Claims:
    """f(differences (n,)) -> (): exact two-sided p-value of the sign-flip test, over all 2^n patterns of signs."""
    found = f(doubles(1, 2, 3))
    yield found, (), "One number, a p-value: a tensor without axes"
    yield 0 < found <= 1, "A p-value lies in (0, 1]: the observed pattern is one of the 2^n, so it is never 0"
    hint = "For 1, 2, 3 only (+++) and (---) are as far from 0: 2 of 8. Count each pattern once, both sides, and ties"
    yield found, 0.25, hint
    yield f(doubles(2, -2)), 1.0, "For 2 and -2 the mean is 0, and every pattern is at least as far from it: p = 1"
    values = doubles(0.5, -0.2, 0.9, 0.4, -0.1, 0.3)
    patterns = torch.tensor([*itertools.product((-1.0, 1.0), repeat=6)]).double()
    exact = ((patterns * values).mean(1).abs() >= values.mean().abs() - 1e-12).double().mean()
    yield f(values), exact, "Go through all 2^n patterns, each once: no random ones, and no normal or t distribution"
    yield f(-values), f(values), "Two-sided: other signs for all differences give the same p"
    yield f(1e-12 * values), f(values), "Only signs count: seconds or years, the unit must not matter. Mind rounding"
    yield f(values.flip(0)), f(values), "The order of the seeds must not matter"
    yield f(1 + normal(10).square()), 2 / 1024, "Ten differences of one sign: the least p there is, 2 in 1,024"
    return "gives 3 seeds a p-value of 0.25 at least, and 5 seeds one of 0.0625"


@Exercise
def own_model(f: Function) -> Claims:
    """f() -> (2, 3): weight 0 and 1; errors ÷ no motion, mean over k: floor, ridge map, identity."""
    found = f().double()
    yield found, (2, 3), "A row for each weight, 0 and 1; columns: floor, ridge map, identity"
    yield ((found > 0.05) & (found < 2)).all(), "All are errors ÷ no motion, between 0.05 and 2"
    hint = "A model moved by the identity stands still: about 1, or more for a poor code. Is it the last column?"
    yield (found[:, 2] > 0.85).all(), hint
    hint = "A ridge map can hardly beat its model's own autoencoding, so the floor comes first, as the lower one"
    yield (found[:, 1] > found[:, 0] - 0.03).all(), hint
    (floor, linear, _), (sparse_floor, sparse_linear, _) = found
    hint = "At weight 0 it is a β-VAE, which its ridge map moves well below no motion: 300 steps of 32 films?"
    yield linear < 0.8, hint
    hint = "At weight 1 codes are smaller and pictures coarser: its floor should be higher. Was the weight passed?"
    yield sparse_floor > floor + 0.01, hint
    yield sparse_linear > linear + 0.01, "The small codes have the larger error: is the second row that of weight 1?"
    hint = "A ridge map adds little to the floor at either weight: are both of the same images and the same model?"
    yield max(linear - floor, sparse_linear - sparse_floor) < 0.15, hint
    return "finds coarser pictures; whether moving is cheaper, linear - floor says, for one seed"
