"""Checks of the exercises, a module for each lesson: ``check.lesson01.gaussian_kl(your_function)``.

Each check tests properties (a divergence is never negative, mass is conserved), prints a line when they hold, and
raises :class:`CheckFailed` with a hint when they do not.
"""

from poflow_lite.check import (
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
from poflow_lite.check._common import CheckFailed

__all__ = [
    "CheckFailed",
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
