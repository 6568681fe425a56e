"""Checks of the exercises, a module for each lesson: ``checks.lesson01.gaussian_kl(your_function)``.

Each prints a line when your function passes and raises :class:`CheckFailed` with a hint when it does not. It tests
rows of known answers and properties (a divergence is never negative, mass is conserved), so that any solution passes.
"""

from poflow_lite.course.checks import (
    lesson00,
    lesson01,
    lesson02,
    lesson03,
    lesson04,
    lesson05,
    lesson06,
    lesson07,
    lesson08,
    lesson09,
    lesson10,
    lesson11,
    lesson12,
)
from poflow_lite.course.checks.exercise import CheckFailed, Exercise

__all__ = [
    "CheckFailed",
    "Exercise",
    "lesson00",
    "lesson01",
    "lesson02",
    "lesson03",
    "lesson04",
    "lesson05",
    "lesson06",
    "lesson07",
    "lesson08",
    "lesson09",
    "lesson10",
    "lesson11",
    "lesson12",
]
