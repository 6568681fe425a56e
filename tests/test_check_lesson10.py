"""The exercises of lesson 10: plausible wrong answers fail, each with its hint."""

import pytest
import torch
from torch.func import jvp, vjp

from poflow_lite.check import CheckFailed, lesson10

# --- exercise 1: the bracket --------------------------------------------------------------------------------------


def along(f, z, direction):
    return jvp(f, (z,), (direction,))[1]


def right_bracket(v, w, z):
    return along(w, z, v(z)) - along(v, z, w(z))


def transposed(v, w, z):
    return vjp(w, z)[1](v(z))[0] - vjp(v, z)[1](w(z))[0]


def unscaled(v, w, z, epsilon=1e-2):
    one, other = z + epsilon * v(z), z + epsilon * w(z)
    return one + epsilon * w(one) - other - epsilon * v(other)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(lambda v, w, z: -right_bracket(v, w, z), "mind the sign", id="sign"),
        pytest.param(lambda v, w, z: along(w, z, v(z)) + along(v, z, w(z)), "subtracted", id="sum"),
        pytest.param(lambda v, w, z: along(w, z, v(z)), "subtracted", id="one turn only"),
        pytest.param(lambda v, w, z: w(v(z)) - v(w(z)), "not w\\(v\\) - v\\(w\\)", id="composition"),
        pytest.param(transposed, "jvp, not vjp", id="Jacobian transposed"),
        pytest.param(unscaled, "how w changes", id="difference not divided by ε²"),
        pytest.param(lambda v, w, z: right_bracket(v, w, z).norm(dim=1), "a vector at each point", id="norm"),
        pytest.param(lambda v, w, z: right_bracket(v, w, z).mean(0), "a vector at each point", id="mean over points"),
        pytest.param(lambda v, w, z: v(z) - w(z), "how w changes", id="difference of velocities"),
        pytest.param(lambda v, w, z: 0.5 * right_bracket(v, w, z), "how w changes", id="a half, as in BCH"),
    ],
)
def test_wrong_bracket_fails(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson10.bracket(wrong)


def test_a_bracket_by_finite_differences_passes(capsys):
    def differences(v, w, z, epsilon=1e-5):
        def turn(f, direction):
            return (f(z + epsilon * direction) - f(z - epsilon * direction)) / (2 * epsilon)

        return turn(w, v(z)) - turn(v, w(z))

    lesson10.bracket(differences)
    assert "✓" in capsys.readouterr().out


# --- exercise 2: symmetric splitting ------------------------------------------------------------------------------


def split(parts, steps_of=lambda steps: steps):
    """A splitting that in each step runs (which flow, what share of the step)."""

    def method(first, second, z, time, steps):
        h = time / steps
        for _ in range(steps_of(steps)):
            for which, share in parts:
                z = (first, second)[which](z, share * h)
        return z

    return method


def forgets_to_divide(first, second, z, time, steps):
    for _ in range(steps):
        z = first(second(first(z, time / 2), time), time / 2)
    return z


def one_step(first, second, z, time, steps):
    return first(second(first(z, time / 2), time), time / 2)


def average(first, second, z, time, steps):
    """Mean of the two orders: of second order as well, but not symmetric in time."""
    h = time / steps
    for _ in range(steps):
        z = 0.5 * (first(second(z, h), h) + second(first(z, h), h))
    return z


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(split([(0, 1), (1, 1)]), "Lie-Trotter", id="Lie-Trotter"),
        pytest.param(split([(1, 1), (0, 1)]), "Lie-Trotter", id="Lie-Trotter, other order"),
        pytest.param(split([(0, 0.5), (1, 1)]), "halves of the first", id="second half forgotten"),
        pytest.param(split([(0, 1), (1, 1), (0, 1)]), "halves of the first", id="the first twice"),
        pytest.param(split([(0, 0.5), (1, 0.5), (0, 0.5)]), "halves of the first", id="half of the second"),
        pytest.param(split([(0, 0.5), (0, 0.5), (1, 1)]), "Lie-Trotter", id="halves on the same side"),
        pytest.param(split([(0, 0.5), (1, 1), (0, 0.5)], lambda n: n + 1), "time ÷ steps", id="a step too many"),
        pytest.param(forgets_to_divide, "time ÷ steps", id="every step takes all the time"),
        pytest.param(one_step, "does `steps` matter", id="steps ignored"),
        pytest.param(average, "retraces itself", id="average of both orders"),
    ],
)
def test_wrong_splitting_fails(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson10.strang(wrong)


def test_halves_of_the_second_flow_pass_as_well(capsys):
    lesson10.strang(split([(1, 0.5), (0, 1), (1, 0.5)]))
    assert "✓" in capsys.readouterr().out


# --- exercise 3: phases -------------------------------------------------------------------------------------------


def phases_by(clock=None, restart=False, repeat=False, order=1, drop=False):
    """Following phases with one thing wrong."""

    def method(step, z, phases):
        path, t = [z], 0
        for y, frames in phases[::order]:
            current = z if restart else path[-1]
            if repeat:
                path.append(current)
            for own in range(frames):
                current = step(current, {"running": t, "late": own + 1, None: own}[clock], y)
                path.append(current)
                t += 1
        return torch.stack(path[1:] if drop else path, 1)

    return method


def test_the_right_way_passes(capsys):
    lesson10.follow_phases(phases_by())
    assert "✓" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(phases_by(clock="running"), "clock of its own", id="one clock for all"),
        pytest.param(phases_by(clock="late"), "t = 0, 1, 2", id="clock begins at 1"),
        pytest.param(phases_by(restart=True), "where the first has ended", id="each phase from z"),
        pytest.param(phases_by(repeat=True), "3 steps and the start", id="junction repeated"),
        pytest.param(phases_by(drop=True), "3 steps and the start", id="start left out"),
        pytest.param(phases_by(order=-1), "clock of its own|order given", id="last phase first"),
        pytest.param(lambda f, z, p: phases_by()(f, z, p).transpose(0, 1), "B, 4, d", id="axes swapped"),
        pytest.param(
            lambda f, z, p: phases_by()(f, z, [(y / y.sum(), n) for y, n in p]), "as they are", id="weights normalised"
        ),
        pytest.param(
            lambda f, z, p: phases_by()(f, z, [(p[0][0], n) for _, n in p]), "where the first", id="first weights only"
        ),
    ],
)
def test_wrong_phases_fail(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson10.follow_phases(wrong)


# --- exercise 4: the score of a trial -----------------------------------------------------------------------------


def sums(predicted, true, dims=(1, 2, 3, 4, 5), power=1):
    later = slice(1, None)
    error = (predicted - true)[:, :, later].abs().pow(power).sum(dims)
    return error, (true[:, :, :1] - true)[:, :, later].abs().pow(power).sum(dims)


def quotient(predicted, true, **options):
    error, still = sums(predicted, true, **options)
    return error / still


def with_frame_0(predicted, true):
    error = (predicted - true).abs().flatten(1).sum(1)
    return (error / (true[:, :, :1] - true).abs().flatten(1).sum(1)).mean()


def own_first_frame(predicted, true):
    error, _ = sums(predicted, true)
    return (error / (predicted[:, :, :1] - true)[:, :, 1:].abs().flatten(1).sum(1)).mean()


def pooled(predicted, true):
    error, still = sums(predicted, true)
    return error.sum() / still.sum()


def signed(predicted, true):
    error = (predicted - true)[:, :, 1:].flatten(1).sum(1).abs()
    return (error / (true[:, :, :1] - true)[:, :, 1:].flatten(1).sum(1).abs()).mean()


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(own_first_frame, "true", id="standing still in the predicted frame 0"),
        pytest.param(pooled, "weighs alike", id="quotient of sums over motions"),
        pytest.param(
            lambda p, x: quotient(p, x, dims=(2, 3, 4, 5)).mean(),
            "image by image",
            id="image by image",
        ),
        pytest.param(lambda p, x: quotient(p, x, power=2).mean(), "not squared", id="squared"),
        pytest.param(lambda p, x: quotient(p, x, power=2).sqrt().mean(), "another norm", id="root of squares"),
        pytest.param(with_frame_0, "Frame 0", id="frame 0 counted"),
        pytest.param(signed, "Sum absolute", id="absolute value of the sum"),
        pytest.param(lambda p, x: quotient(p, x), "one number", id="not averaged"),
        pytest.param(lambda p, x: quotient(p, x).sum(), "score 1", id="sum over motions"),
        pytest.param(lambda p, x: sums(p, x)[0].mean(), "score 1", id="not divided"),
        pytest.param(lambda p, x: 1 - quotient(p, x).mean(), "score 1", id="share explained"),
    ],
)
def test_wrong_score_fails(wrong, hint):
    with pytest.raises(CheckFailed, match=hint):
        lesson10.trial_score(wrong)
