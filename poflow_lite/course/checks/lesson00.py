"""Checks of lesson 00, start here: distance on the colour circle, winding numbers, motions faster than trained."""

import torch

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, uniform


@Exercise
def hue_distance(f: Function) -> Claims:
    """f(a, b) -> same shape: the angle between two hues in degrees, the short way round the circle."""
    found = f(doubles(10, 0, 90, 20), doubles(50, 180, 60, 20))
    yield (found >= 0).all(), "A distance is never negative, whichever hue comes first"
    yield found, doubles(40, 180, 30, 0), "10° and 50° are 40° apart: degrees, one for each pair"
    hint = "350° and 10° are 20° apart, across red: a circle has no seam. Take the short way, min(d, 360 - d)"
    yield f(doubles(350, 10, 0), doubles(10, 350, 359)), doubles(20, 20, 1), hint
    hint = "Whole turns change no hue: take the difference modulo 360 first"
    yield f(doubles(0, 730, -30), doubles(720, 0, 1050)), doubles(0, 10, 0), hint
    a, b, turn = 1440 * uniform(3, 500) - 720
    yield f(a + turn, b + turn), f(b, a), "Turning both hues alike, or swapping them, must not change their distance"
    return "lives on the circle: 350° and 10° are 20° apart"


@Exercise
def winding_number(f: Function) -> Claims:
    """f(path (n, 2)) -> (): how often a closed polygon goes round the origin, anticlockwise positive."""
    angles = 2 * torch.pi * torch.arange(40).double() / 40
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    far = circle + doubles(3, 1)
    yield f(circle), (), "Return one number for the whole polygon"
    hint = "One turn is 1: angles under which the sides are seen, divided by 2π, each the short way (-180° to 180°)"
    yield f(circle).abs(), 1.0, hint
    yield f(circle), 1.0, "Anticlockwise is positive: the cross product is a_1 b_2 - a_2 b_1"
    yield f(circle.flip(0)), -1.0, "The same circle the other way round counts -1"
    yield f(far), 0.0, "A circle beside the origin does not go round it: measure angles from the origin, not its middle"
    yield f(torch.cat([circle, circle])), 2.0, "Round twice counts 2"
    eight = torch.cat([circle, circle.flip(0)])
    yield f(eight), 0.0, "Once there and once back counts 0: keep the signs of the angles"
    coarse = doubles((5, 0), (-1, 0.4), (-1, -0.4))
    yield f(coarse), 1.0, "A side may be seen under more than 90°: use atan2, which knows all four quadrants"
    star = circle * (0.2 + 3 * uniform(40, 1))
    yield f(star.roll(13, 0)), 1.0, "Distances from the origin, and where the polygon begins, do not count"
    return "tells a loop from an arc, which no single coordinate can"


@Exercise
def faster(f: Function) -> Claims:
    """f() -> (4,): error ÷ no motion of rotation at the speeds 0.5, 1, 1.5 and 2, measured on 100 test digits."""
    found = f()
    yield found, (4,), "Return four ratios, one for each speed"
    yield ((found > 0) & (found < 1.5)).all(), "Ratios lie between 0 and 1.5: divide by the error of no motion"
    half, trained, fast, double = found
    yield max(half, trained) < 0.45, "At trained speeds more than half of the error goes: is rotation the second speed?"
    yield trained < fast < double, "Beyond speed 1 the ratio rises with the speed: are they in the order of the speeds?"
    yield double > 0.55, "At speed 2 most of the error is back: is the truth rendered at the same speed?"
    return "shows where training ended: beyond speed 1 the error comes back, but not at once to that of no motion"
