"""The checks of the exercises: the lesson's solution passes, and what is no answer fails with a hint.

A wrong answer is the solution with a slip: a row (hint, old, new, …) replaces text in the lesson's solution, and a row
(hint, body) the whole solution. RIGHT holds other solutions in the same form.
"""

import functools
import importlib
import math
import re
import textwrap
from pathlib import Path

import nbformat
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from poflow_lite.course import checks

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("[0-9][0-9]-*.ipynb"))
LESSONS = [lesson for lesson in checks.__all__ if lesson.startswith("lesson")]
TABLES = {lesson: importlib.import_module(f"wrong_answers.{lesson}") for lesson in LESSONS}
EXERCISES = [
    (lesson, name)
    for lesson in LESSONS
    for name, entry in vars(getattr(checks, lesson)).items()
    if isinstance(entry, checks.Exercise)
]
WRONG = [(lesson, name, hint, edits) for lesson, name in EXERCISES for hint, *edits in TABLES[lesson].WRONG[name]]
RIGHT = [(lesson, name, edits) for lesson in LESSONS for name, edits in getattr(TABLES[lesson], "RIGHT", {}).items()]
SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n(.*?)^ *### END SOLUTION$", re.DOTALL | re.MULTILINE)


@functools.cache
def cells(lesson):
    return [cell.source for cell in nbformat.read(NOTEBOOKS[int(lesson[6:])], as_version=4).cells]


def answer(lesson, name, edits=()):
    """The function of an exercise with its solution, edited: (old, new, old, new, …), or (body,)."""
    (source,) = [cell for cell in cells(lesson) if f"def {name}(" in cell and "### BEGIN SOLUTION" in cell]
    _, solution = SOLUTION.search(source).groups()
    if len(edits) == 1:
        edits = (solution, textwrap.indent(edits[0], "    ") + "\n")
    for old, new in zip(edits[::2], edits[1::2], strict=True):
        assert old in solution, f"{old!r} is not in the solution of {name}"
        solution = solution.replace(old, new)
    names = {"torch": torch, "math": math}
    exec(SOLUTION.sub(lambda match: solution, source), names)
    return names[name]


def check(lesson, name, function):
    getattr(getattr(checks, lesson), name)(function)


@pytest.mark.parametrize(("lesson", "name"), EXERCISES)
def test_the_solution_passes_and_the_stub_fails(lesson, name, capsys):
    check(lesson, name, answer(lesson, name))
    assert capsys.readouterr().out.startswith(f"✓ {name} ")
    with pytest.raises(checks.CheckFailed, match=f"{name} is not written yet"):
        check(lesson, name, answer(lesson, name, ["raise NotImplementedError()"]))


@pytest.mark.parametrize(("lesson", "name", "hint", "edits"), WRONG)
def test_a_wrong_answer_fails_with_its_hint(lesson, name, hint, edits):
    with pytest.raises(checks.CheckFailed, match=re.escape(hint)):
        check(lesson, name, answer(lesson, name, edits))


@pytest.mark.parametrize(("lesson", "name", "edits"), RIGHT)
def test_another_solution_passes(lesson, name, edits, capsys):
    check(lesson, name, answer(lesson, name, edits))
    assert "✓" in capsys.readouterr().out


def broken(a, b):
    raise IndexError("no such axis")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda a, b: None, "hue_distance returned nothing"),
        (lambda a, b: 1.0, "hue_distance must return a tensor, not float"),
        (broken, 'IndexError: no such axis at `raise IndexError("no such axis")`'),
        (len, "hue_distance stopped with TypeError"),
    ],
)
def test_what_is_no_answer_fails(function, message):
    with pytest.raises(checks.CheckFailed, match=re.escape(message)):
        checks.lesson00.hue_distance(function)


def test_a_claim_that_a_wrong_shape_breaks_is_a_failed_check():
    with pytest.raises(checks.CheckFailed, match="heat_particles gave what cannot be checked"):
        checks.lesson04.heat_particles(lambda z, s, D, t: z if D == 0 or t == 0 else z[:7])


def test_a_function_that_changes_its_argument_passes():
    checks.lesson00.hue_distance(lambda a, b: torch.minimum(a.sub_(b).remainder_(360), 360 - a))


def test_a_notebook_shows_a_failed_check_as_one_line(capsys):
    source = "from poflow_lite.course import checks\nchecks.lesson00.hue_distance(lambda a, b: a - b)"
    result = InteractiveShell.instance().run_cell(source)
    assert isinstance(result.error_in_exec, checks.CheckFailed)
    assert capsys.readouterr().out.strip() == "✗ A distance is never negative, whichever hue comes first"


def test_a_check_says_how_the_function_is_called():
    assert "f(a, b) -> same shape" in checks.lesson00.hue_distance.__doc__
