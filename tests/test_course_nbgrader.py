"""The nbgrader course: every lesson's sheet is generated, answered by students of several kinds, and graded."""

import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest

from poflow_lite import course

LESSONS = course.find_lessons(Path(__file__).parent.parent / "notebooks")
NAMES = [path.stem for path in LESSONS]


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """An nbgrader course of all lessons, as `course build --kind nbgrader` writes it."""
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    folder, path = tmp_path_factory.mktemp("course"), f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    course.build(LESSONS, folder, "nbgrader")
    config = Config()
    config.CourseDirectory.root = str(folder)
    exec((folder / "nbgrader_config.py").read_text(), {"get_config": lambda: config})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", path)  # nbgrader starts alembic, which lies beside Python
        yield NbGraderAPI(config=config)


def marked(name, kind):
    """grade_id ↦ source of a sheet's cells that are, for nbgrader, a "solution" or a "grade"."""
    path = next(path for path in LESSONS if path.stem == name)
    cells = nbformat.read(path, as_version=4).cells
    return {c.metadata.nbgrader.grade_id: c.source for c in cells if c.metadata.get("nbgrader", {}).get(kind)}


def graded(api, name, student, change):
    """Hand in a sheet that ``change`` has answered; check ↦ points and maximum, of code alone."""
    root = Path(api.coursedir.root)
    sheet = root / "submitted" / student / name / f"{name}.ipynb"
    sheet.parent.mkdir(parents=True)
    shutil.copy(root / "release" / name / sheet.name, sheet)
    notebook = nbformat.read(sheet, as_version=4)
    change(notebook.cells)
    nbformat.write(notebook, sheet)
    told = api.autograde(name, student)
    assert told["success"], told.get("log")
    with api.gradebook as gradebook:
        submission = gradebook.find_submission_notebook(name, name, student)
        code = [grade for grade in submission.grades if grade.cell.cell_type == "code"]
        return {grade.name: (grade.auto_score, grade.max_score) for grade in code}


def answer(cells, chosen):
    """Write what ``chosen`` has for a cell, by its grade_id, into the cells of the answers."""
    for cell in cells:
        if cell.cell_type == "code" and (own := cell.metadata.get("nbgrader", {}).get("grade_id")) in chosen:
            cell.source = chosen[own]


def released(api, name):
    """The sheet that students get, generated once."""
    sheet = Path(api.coursedir.root) / "release" / name / f"{name}.ipynb"
    if not sheet.exists():
        told = api.generate_assignment(name)
        assert told["success"], told.get("log")
    return sheet.read_text()


@pytest.mark.enable_socket  # a kernel, on this machine
@pytest.mark.parametrize("name", NAMES)
def test_a_sheet_is_generated_and_right_answers_have_all_points(api, name):
    assert not re.search("SOLUTION|<summary>Answer|Misconceptions|Marking|cellView|source_hidden", released(api, name))
    right = marked(name, "solution")
    points = graded(api, name, "right", lambda cells: answer(cells, right))
    assert len(points) >= 3
    assert all(score == best for score, best in points.values()), points


@pytest.mark.enable_socket
@pytest.mark.parametrize("name", NAMES[::4])  # that each check fails what is wrong, test_course_checks.py shows
def test_wrong_and_empty_answers_have_no_points(api, name):
    released(api, name)
    right = marked(name, "solution")
    first, second, *_ = (grade_id for grade_id in right if f"{grade_id}-check" in marked(name, "grade"))
    some = {first: right[first], second: re.sub(r"\n.*", "\n    return None", right[second], count=1, flags=re.DOTALL)}
    mixed = graded(api, name, "mixed", lambda cells: answer(cells, some))  # one right, one wrong, the others empty
    assert [check for check, (score, _) in mixed.items() if score] == [f"{first}-check"]


@pytest.mark.enable_socket
def test_copied_and_retyped_cells_do_not_spoil_the_grades(api):
    name = NAMES[1]
    released(api, name)
    right = marked(name, "solution")

    def copied(cells):
        answer(cells, right)
        cells.append(nbformat.from_dict(next(cell for cell in cells if cell.metadata.get("nbgrader"))))

    def retyped(cells):  # answers in new cells, and with the checks overwritten
        answer(cells, right)
        for cell in (cell for cell in cells if cell.cell_type == "code" and "nbgrader" in cell.metadata):
            if cell.metadata.nbgrader.locked:
                cell.source = "pass"
            else:
                del cell.metadata["nbgrader"]

    for student, change in (("copied", copied), ("retyped", retyped)):
        points = graded(api, name, student, change)
        assert all(score == best for score, best in points.values()), student
