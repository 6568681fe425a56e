"""Checks of lesson 10, composing and generalising: four legs of parking, a motion read off two frames, agreement."""

import torch

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, normal, one_by_one


@Exercise
def parking(f: Function) -> Claims:
    """f(A, B, eps) -> same shape as A: along A, along B, back along A, back along B; later legs stand left."""
    a, b = 0.5 * normal(2, 3, 3)
    eye, exp = torch.eye(3).double(), torch.matrix_exp
    yield f(a, b, 0.3), (3, 3), "Four legs together are one matrix of the same size"
    yield f(a, b, 0.0), eye, "Legs of length 0 move nothing"
    hint = "Motions that commute undo each other: every leg goes back, with minus ε"
    yield f(a, 2 * a + eye, 0.7), eye, hint
    hint = """Small legs leave ε² (BA - AB). A comes first, so exp(εA) stands at the right end, and exp(-εB), the last
        leg, at the left end. The other sign means the other order"""
    eps = 1e-4
    yield (f(a, b, eps) - eye) / eps**2, b @ a - a @ b, hint, 1e-2
    hint = "Each leg is exact, exp(εA), and not I + εA: for large ε that is another motion"
    yield f(a, b, 2.0), exp(-2 * b) @ exp(-2 * a) @ exp(2 * b) @ exp(2 * a), hint
    return "moves sideways with roll and steer alone"


@Exercise
def read_motion(f: Function) -> Claims:
    """f(before (B, a, m), after (B, a, m), eps) -> (B, a, a): argmin ‖M before - after‖² + eps ‖M - I‖²."""
    z, motion = normal(4, 3, 5), normal(4, 3, 3, seed=1)
    eye = torch.eye(3).double().expand(4, 3, 3)
    yield f(z, z, 0.5), (4, 3, 3), "One matrix (a, a) for each pair of codes"
    hint = "Codes that do not move have M = I, whatever ε: the penalty pulls M to I, not to 0"
    yield f(z, z, 0.5), eye, hint
    yield f(0 * z, z, 0.5), eye, "Codes of 0 tell nothing about M: then it is I, by the penalty"
    hint = "With ε near 0 and m ≥ a columns M must be what moved the codes. It stands left of Z, and is not transposed"
    yield f(z, motion @ z, 1e-9), motion, hint
    eps, other = 0.7, normal(4, 3, 5, seed=2)
    found = f(z, other, eps)
    slope = (found @ z - other) @ z.mT + eps * (found - eye)
    hint = "At the minimum (M Z_0 - Z_1) Z_0ᵀ + ε (M - I) is 0: mind ε on both sides, as it is, once"
    yield slope, torch.zeros(4, 3, 3).double(), hint
    yield found, one_by_one(lambda x: f(x[..., :5], x[..., 5:], eps), torch.cat([z, other], -1)), "Films do not mix"
    return "reads off two frames how a film moves"


@Exercise
def how_much(f: Function) -> Claims:
    """f() -> (3, 3): agreement 0, 0.1, 1; away ÷ way, error ÷ no motion of backwards and of single motions."""
    found = f().double()
    yield found, (3, 3), "A row for each weight, 0, 0.1 and 1; columns: away, backwards, single"
    yield not found.isnan().any(), "NaN: a step of this flow folds, so it cannot go back; train it with another seed"
    yield ((found > 0.02) & (found < 4)).all(), "All numbers are ratios: distances ÷ way, errors ÷ no motion"
    away, back, single = found.T
    hint = "The distance from the codes must fall from row to row: that is what agreement asks for. Is λ = 0 first?"
    yield (away.diff() < 0).all(), hint
    hint = "Without agreement the way back fails, 1 or worse; with it the error falls clearly. Is it the second column?"
    yield back[0] > back[1:].max() + 0.1, hint
    hint = "Single motions are learned in all three: the third column lies below 0.9 in every row"
    yield (single < 0.9).all(), hint
    hint = "More agreement does not make single motions better: did `train` get consistency=1.0, and 300 steps?"
    yield single[2] > single[0] - 0.02, hint
    return "shows what agreement buys, and what it costs"
