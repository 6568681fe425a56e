"""The lessons' tools, and that every committed lesson is sound."""

import copy
import json
import re
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from poflow_lite import lessons
from poflow_lite.cli import main

ROOT = Path(__file__).parent.parent
LESSONS = lessons.find_lessons(ROOT / "notebooks")


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_committed_lesson_is_sound(path):
    assert lessons.lint(path) == []


@pytest.mark.enable_socket  # nbgrader looks for a running server when it is imported
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_student_version_holds_no_solution_and_no_output(path, tmp_path):
    original, student = path.read_text(), lessons.student_version(path, tmp_path).read_text()
    assert "### BEGIN SOLUTION" in original
    assert "SOLUTION" not in student
    cells = [cell for cell in json.loads(student)["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    assert sum("raise NotImplementedError" in "".join(cell["source"]) for cell in cells) >= 3


def test_the_repository_address_is_kept_in_one_place():
    address = re.search(r'^Repository = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert address == lessons.REPOSITORY
    assert lessons.REPOSITORY in lessons.setup_cell()


def test_the_setup_cell_does_nothing_where_the_package_imports(monkeypatch):
    import subprocess

    monkeypatch.setattr(subprocess, "run", lambda *a, **o: pytest.fail("it installed something"))
    exec(lessons.setup_cell(), {})


def test_the_setup_cell_installs_elsewhere_and_keeps_torch_and_numpy(monkeypatch):
    import importlib.util
    import subprocess

    real, called = importlib.util.find_spec, []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "poflow_lite" else real(name))
    monkeypatch.setattr(subprocess, "run", lambda command, check: called.append(command))
    with pytest.raises(AssertionError, match="did not install"):
        exec(lessons.setup_cell(), {})
    for name in ("torch", "torchvision", "numpy"):
        assert f"{name}=={version(name)}" in called[0]
    assert f"git+{lessons.REPOSITORY}" in called[0]


# --- execution ----------------------------------------------------------------------------------------------------


def write(path, *cells):
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


@pytest.mark.enable_socket  # to the kernel, on this machine
def test_executing_saves_outputs_and_drops_widget_views(tmp_path):
    cell = new_code_cell("import ipywidgets\nprint(6 * 7)\nipywidgets.IntSlider()")
    path = write(tmp_path / "00-x.ipynb", cell)
    seconds = lessons.execute(path)
    saved = nbformat.read(path, as_version=4)
    assert [output.get("text") for output in saved.cells[0].outputs] == ["42\n"]
    assert saved.metadata["poflow"]["seconds"] == pytest.approx(seconds, abs=0.1)
    assert "widgets" not in saved.metadata


@pytest.mark.enable_socket  # to the kernel, on this machine
def test_a_failing_lesson_is_reported_and_left_as_it_was(tmp_path):
    path = write(tmp_path / "00-x.ipynb", new_code_cell("1 / 0"))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"00-x.ipynb stopped: ZeroDivisionError: division by zero"):
        lessons.execute(path)
    assert path.read_bytes() == before


@pytest.mark.enable_socket
def test_the_command_line_executes_a_lesson_and_lists_its_problems(tmp_path, monkeypatch, capsys):
    path = write(tmp_path / "00-x.ipynb", new_code_cell("print(6 * 7)"))
    monkeypatch.setattr("sys.argv", ["poflow-lite", "execute", str(path)])
    with pytest.raises(SystemExit, match="0"):
        main()
    out = capsys.readouterr().out
    assert re.match(r"00-x.ipynb: \d+ s, \d+ problems\n", out)
    assert "no section '## Quiz'" in out


def test_the_command_line_writes_every_student_version(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["poflow-lite", "student", str(tmp_path), "--notebooks", str(ROOT / "notebooks")])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert [path.name for path in sorted(tmp_path.iterdir())] == [path.name for path in LESSONS]


# --- lint: each rule is broken on purpose in an otherwise sound lesson ----------------------------------------------


def sound():
    """The smallest lesson without a problem, as a dictionary."""
    header = "# T\n**You will** a\n**Before this** b\n**Notation** c\n**Run time** under 9 s\n**Needs** d"
    filler = [new_markdown_cell(f"text {i}") for i in range(34)]
    quiz = new_markdown_cell("## Quiz\n" + "<details>x</details>\n" * 5)
    sections = [new_markdown_cell(f"## {name}") for name in ("Break it", "Exercises", "References")]
    picture = {"output_type": "display_data", "data": {"image/png": ""}, "metadata": {"image/png": {"alt": "a line"}}}
    code = [new_code_cell(lessons.setup_cell()), new_code_cell("x = 1"), new_code_cell("x")]
    for number, cell in enumerate(code, start=1):
        cell.execution_count = number
    code[2].outputs = [nbformat.from_dict(picture)]
    cells = [new_markdown_cell(header), *code, *filler, quiz, *sections, new_markdown_cell("**Next:** more")]
    notebook = new_notebook(cells=cells, metadata={"poflow": {"seconds": 3.0}})
    return json.loads(json.dumps(notebook))


def stream(name, text):
    return {"output_type": "stream", "name": name, "text": text}


def append_output(notebook, output):
    notebook["cells"][2]["outputs"].append(output)


BREAKS = {
    "execution count": lambda n: n["cells"][2].update(execution_count=7),
    "over the limit of 25": lambda n: n["cells"][2].update(source="x = 1\n" * 26),
    "a magic": lambda n: n["cells"][2].update(source="%matplotlib inline"),
    "its output is checked but it has none": lambda n: n["cells"][2].update(source="# NBVAL_CHECK_OUTPUT\nx"),
    "raises-exception": lambda n: n["cells"][2]["metadata"].update(tags=["raises-exception"]),
    "an error among the outputs": lambda n: append_output(
        n, {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}
    ),
    "text on standard error": lambda n: append_output(n, stream("stderr", "careful")),
    "absolute path": lambda n: append_output(n, stream("stdout", "saved in /home/ann/x.png")),
    "without alternative text": lambda n: n["cells"][3]["outputs"][0].update(metadata={}),
    "a Markdown image has no alternative text": lambda n: n["cells"][5].update(source="![](x.png)"),
    "metadata.widgets": lambda n: n["metadata"].update(widgets={}),
    "the first code cell": lambda n: n["cells"][1].update(source="import torch"),
    "the header lacks **Needs**": lambda n: n["cells"][0].update(source="# T\n**You will** a"),
    "took 10.0 s, the header claims 9 s": lambda n: n["metadata"].update(poflow={"seconds": 10.0}),
    "never executed": lambda n: n["metadata"].pop("poflow"),
    "no section '## Break it'": lambda n: n["cells"][-4].update(source="broken"),
    "fewer than five quiz answers": lambda n: n["cells"][-5].update(source="## Quiz"),
    "does not lead to the next lesson": lambda n: n["cells"][-1].update(source="bye"),
    "a lesson has 40 to 66": lambda n: n["cells"].__delitem__(slice(10, 16)),
    "median code cell": lambda n: [cell.update(source="x = 1\n" * 9) for cell in n["cells"][2:4]],
    "over the limit of 3 MB": lambda n: append_output(n, stream("stdout", "x" * 3_000_001)),
}


def problems_of(notebook, tmp_path):
    path = tmp_path / "00-x.ipynb"
    path.write_text(json.dumps(notebook))
    return lessons.lint(path)


def test_a_sound_lesson_has_no_problem(tmp_path):
    assert problems_of(sound(), tmp_path) == []


@pytest.mark.parametrize("message", BREAKS)
def test_lint_sees(message, tmp_path):
    notebook = copy.deepcopy(sound())
    BREAKS[message](notebook)
    found = problems_of(notebook, tmp_path)
    assert any(message in problem for problem in found), found
