"""Cells of the lesson: md, code, hidden, exercise, check."""
import itertools, hashlib
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
CELLS = []
def _id(text):
    base = hashlib.sha1(text.encode()).hexdigest()[:8]
    taken = {c["id"] for c in CELLS}
    for n in itertools.count():
        name = f"l09-{base}" + (f"-{n}" if n else "")
        if name not in taken: return name
def md(text):
    text = text.strip("\n"); CELLS.append(new_markdown_cell(text, id=_id(text)))
def code(text, check=False):
    text = text.strip("\n"); c = new_code_cell(text, id=_id(text))
    if check: c.metadata["tags"] = ["nbval-check-output"]
    CELLS.append(c)
def hidden(text):
    text = text.strip("\n"); c = new_code_cell(text, id=_id(text))
    c.metadata["jupyter"] = {"source_hidden": True}; c.metadata["tags"] = ["hide-input"]; CELLS.append(c)
def _grader(name, **kw):
    return {"grade_id": name, "schema_version": 3, "task": False, **kw}
def solution(name, text):
    text = text.strip("\n"); c = new_code_cell(text, id=_id(text))
    c.metadata.update(cellView="form", jupyter={"source_hidden": True}, nbgrader=_grader(f"lesson09-{name}", grade=False, locked=False, solution=True))
    CELLS.append(c)
def check(name, points):
    text = f"checks.lesson09.{name}({name})"; c = new_code_cell(text, id=_id(text))
    c.metadata["nbgrader"] = _grader(f"lesson09-{name}-check", grade=True, locked=True, points=points, solution=False)
    CELLS.append(c)
def written(name, points, text):
    text = text.strip("\n"); c = new_markdown_cell(text, id=_id(text))
    c.metadata["nbgrader"] = _grader(f"lesson09-{name}", grade=True, locked=False, points=points, solution=True)
    CELLS.append(c)
