"""Checks of lesson 03, equivariance: invariance by averaging, the nearest representation of a circle, runs of bars."""

import math

import torch

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal, uniform


@Exercise
def invariant(f: Function) -> Claims:
    """f(code, x (B, C, H, H)) -> what code(x) has: the mean of the code over the four quarter turns of the images."""
    x, weights = uniform(3, 2, 6, 6), normal(6, 6)

    def ink(images):
        return images.flatten(1).sum(1)

    def seen(images):
        return (images * weights).sum((2, 3)).square()

    hint = "A code that is invariant already must stay as it is: four equal values, divided by 4"
    yield f(ink, x), ink(x), hint
    hint = "It must not change when the images are turned: average over all four quarter turns, 0 among them"
    yield f(seen, torch.rot90(x, 1, (2, 3))), f(seen, x), hint
    expected = torch.stack([seen(torch.rot90(x, i, (2, 3))) for i in range(4)]).mean(0)
    yield f(seen, x), expected, "Average what the code returns, not the images: a code need not be linear"
    return "gives an invariant of any code, linear or not"


def _blocks(*turns: tuple[float, float]) -> torch.Tensor:
    """Rotations by angles in degrees, each times a size, and 0.8 for a last direction."""
    planes = []
    for size, degrees in turns:
        c, s = size * math.cos(math.radians(degrees)), size * math.sin(math.radians(degrees))
        planes.append(doubles([c, -s], [s, c]))
    return torch.block_diag(*planes)


@Exercise
def nearest_circle(f: Function) -> Claims:
    """f(A (d, d), degrees) -> (d, d), real: eigenvectors of A, eigenvalues e^{inω} of the nearest integers n."""
    basis = torch.eye(5).double() + 0.2 * normal(5, 5)
    inside, last = torch.linalg.inv(basis), doubles([1.0])
    circle = basis @ torch.block_diag(_blocks((1.0, 20.0), (1.0, 60.0)), last) @ inside
    fitted = basis @ torch.block_diag(_blocks((0.9, 24.0), (1.1, 54.0)), 0.8 * last) @ inside
    found = f(fitted, 20.0)
    yield not found.is_complex(), "The result must be real: conjugate pairs cancel, take the real part at the end"
    hint = "What is a representation already must stay as it is: V diag V⁻¹ with the inverse, angles in one unit"
    yield f(circle, 20.0), circle, hint
    hint = "After 18 steps of 20° it must be the identity: all sizes 1, all frequencies integers"
    yield torch.linalg.matrix_power(found, 18), torch.eye(5), hint
    yield found @ fitted, fitted @ found, "It must commute with A: keep the eigenvectors of A"
    hint = "Frequencies 1.2, 2.7 and 0 must become 1, 3 and 0: the nearest integers"
    yield found, circle, hint
    yield f(fitted, 10.0), basis @ torch.block_diag(_blocks((1.0, 20.0), (1.0, 50.0)), last) @ inside, hint
    return "comes back after 360°, keeps the eigenvectors, and leaves a representation as it is"


@Exercise
def runs_of_bars(f: Function) -> Claims:
    """f() -> (3, 2), measured: rows runs of 1, 3, 7 frames, columns roll and floor, both ÷ no motion."""
    found = f()
    yield found, (3, 2), "Rows: runs of 1, 3, 7. Columns: roll ÷ no motion, floor ÷ no motion"
    roll, floor = found.double().T
    yield ((found >= 0) & (found < 1.5)).all(), "Shares of the error of no motion lie between 0 and 1.5: divide by it"
    hint = "The roll cannot do better than coding the true frames: is the roll in column 0?"
    yield (roll >= floor - 0.02).all(), hint
    yield roll[2] < 0.2, "After runs of 7 the roll should leave less than a fifth of no motion: is that row the last?"
    yield roll[0] > 2 * roll[2], "Without a run nothing asks the code to roll: is the run of 1 the first row?"
    return "has the three trainings: the roll is learned from runs, not from single frames"
