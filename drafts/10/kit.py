"""Cells of lesson 10, in order; build.py writes them."""
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell

CELLS = []


def md(text, **meta):
    CELLS.append(new_markdown_cell(text.strip("\n"), metadata=meta))


def code(text, check=False, hide=False, **meta):
    tags = ["nbval-check-output"] * check + ["hide-input"] * hide
    if hide:
        meta["jupyter"] = {"source_hidden": True}
    if tags:
        meta["tags"] = tags
    CELLS.append(new_code_cell(text.strip("\n"), metadata=meta))


def solution(name, text, points=None, run=False):
    own = f"lesson10-{name}" + ("-run" if run else "")
    grade = {"grade": False, "grade_id": own, "locked": False, "schema_version": 3, "solution": True, "task": False}
    code(text, cellView="form", jupyter={"source_hidden": True}, nbgrader=grade)
    if not run:
        grade = {"grade": True, "grade_id": own + "-check", "locked": True, "points": points, "schema_version": 3,
                 "solution": False, "task": False}
        code(f"checks.lesson10.{name}({name})", nbgrader=grade)


def answer(name, text, points):
    grade = {"grade": True, "grade_id": f"lesson10-{name}", "locked": False, "points": points, "schema_version": 3,
             "solution": True, "task": False}
    md(text, nbgrader=grade)
