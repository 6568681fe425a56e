import nbformat, sys
from nbformat.v4 import new_notebook, new_markdown_cell, new_code_cell
CELLS = []
def md(text, **meta):
    CELLS.append(new_markdown_cell(text.strip("\n"), metadata=meta))
def code(text, hide=False, check=False):
    meta = {}
    tags = (["hide-input"] if hide else []) + (["nbval-check-output"] if check else [])
    if hide: meta["jupyter"] = {"source_hidden": True}
    if tags: meta["tags"] = tags
    CELLS.append(new_code_cell(text.strip("\n"), metadata=meta))
def nbg(grade_id, grade, solution, points=None):
    d = {"grade": grade, "grade_id": grade_id, "locked": grade and not solution, "schema_version": 3, "solution": solution, "task": False}
    if points: d["points"] = points
    return d
def solution(grade_id, text):
    CELLS.append(new_code_cell(text.strip("\n"), metadata={"cellView": "form", "jupyter": {"source_hidden": True}, "nbgrader": nbg(grade_id, False, True)}))
def check(grade_id, points, text):
    CELLS.append(new_code_cell(text, metadata={"nbgrader": nbg(grade_id + "-check", True, False, points)}))
def written(grade_id, points, text):
    CELLS.append(new_markdown_cell(text.strip("\n"), metadata={"nbgrader": nbg(grade_id, True, True, points)}))
