"""The tools behind the notebooks: every committed lesson is sound, and what is built of it holds what it should."""

import copy
import json
import re
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import nbconvert
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from poflow_lite import course
from poflow_lite.course.notebooks import prose_words

ROOT = Path(__file__).parent.parent
LESSONS = course.find_lessons(ROOT / "notebooks")
every_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def write(path, *cells):
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


@every_lesson
def test_a_lesson_has_its_text_beside_it_for_reviews(path, tmp_path):
    (written,) = course.write_texts([path], tmp_path)
    assert written.read_text() == (path.parent / "text" / written.name).read_text(), "poflow-lite course text"


def test_the_text_of_a_lesson_leads_to_the_other_lessons_from_its_own_folder(tmp_path):
    source = "See [02](02-disentanglement.ipynb) and [a page](https://example.org/02-disentanglement.ipynb)."
    (written,) = course.write_texts([write(tmp_path / "01-one.ipynb", new_markdown_cell(source))], tmp_path / "text")
    said = "See [02](../02-disentanglement.ipynb) and [a page](https://example.org/02-disentanglement.ipynb)."
    assert said in written.read_text()


@every_lesson
def test_a_committed_lesson_is_sound(path):
    assert course.lint(path) == []


# --- the findings -------------------------------------------------------------------------------------------------

NUMBER = r"(\d+(?:\.\d+)?)( ?%)?"
COMPUTED = {
    "01": {"1.95", "1.2"},  # differences of two that are printed
    "07": {"0.01"},  # a bound of three
    "08": {"455"},  # a difference
    "09": {"12.8"},  # a value of the grid of the tuning's record
    "10": {"1.18", "1.03"},  # in the figure of the whole table
    "11": {"19.1", "1.55"},  # a ratio, printed as 19; one of two quantiles, as drawn
}
"""Lesson ↦ numbers of its findings that no cell prints, and where they come from."""


def numbers_of(text):
    """Pairs of a number and its percent sign, if it has one."""
    return re.findall(NUMBER, text.replace(",", "").replace("\u2009", ""))


def shown_by(path):
    """Every number in a lesson's code and in the texts that it puts out, those of pictures among them."""
    found = set()
    for cell in cells_of(path, "code"):
        parts = [part for out in cell.outputs for part in (out.get("text", ""), *out.get("data", {}).values())]
        texts = [re.sub(r"base64,[\w+/=]+", "", part) for part in map(str, parts) if not part.startswith("iVBOR")]
        found |= {float(number) for text in (cell.source, *texts) for number, _ in numbers_of(text)}
    return found


def stale_numbers(path):
    """Numbers of a lesson's findings that its cells put out nowhere. Whole ones count from 100 on, if not round."""
    shown, stale = shown_by(path), []
    for text in (part for cell in cells_of(path, "markdown") for part in cell.source.split("\n\n")):
        if text.startswith("**Finding"):
            words = re.sub(r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|\[[^]]*\]\([^)]*\)", "", text, flags=re.DOTALL)
            for number, percent in numbers_of(words):
                near, value = 0.50001 * 10 ** -len(number.partition(".")[2]), float(number)
                exact = "." in number or (value >= 100 and value % 1000)
                scales = (1, 100) if percent else (1,)
                if exact and not any(abs(scale * each - value) <= near for each in shown for scale in scales):
                    stale.append(number)
    return stale


@every_lesson
def test_the_numbers_of_the_findings_are_those_that_the_cells_show(path):
    assert set(stale_numbers(path)) == COMPUTED.get(path.stem[:2], set())


def test_a_number_that_no_cell_shows_is_stale(tmp_path):
    code = new_code_cell("print(f(3))", outputs=[nbformat.v4.new_output("stream", text="error 0.2149 of 1,310\n")])
    finding = "**Finding.** The error is 0.21 of 1,310, not 0.22 of 1,311, for $d=512$.\n\nElsewhere 0.99 may stand."
    assert stale_numbers(write(tmp_path / "00-x.ipynb", code, new_markdown_cell(finding))) == ["0.22", "1311"]


# --- the set-up cell ----------------------------------------------------------------------------------------------


ADDRESS = r"(https?://|git\+|git@|ssh://)[^\s\"')]*poflow|pip3? install\s[^\n`]*\bpoflow[-_]lite(?![-*])"


def test_no_address_is_invented_from_which_anybody_could_run_code():
    """Nobody here owns an address or a name on an index: whoever registered one would be trusted by every lesson."""
    assert course.SOURCE is None
    written = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CITATION.cff", "pyproject.toml")]
    for folder in ("docs", "data", "examples", "notebooks", "poflow_lite"):
        written += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".md", ".py", ".ipynb")]
    for path in written:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":  # outputs are long, and hold what the sources print
            text = "\n".join(cell.source for cell in nbformat.reads(text, as_version=4).cells)
        assert not (found := re.search(ADDRESS, text, re.IGNORECASE)), f"{path}: {found and found[0]}"
    for bad in ("git+https://x.org/a/PoFlow_lite", "<https://pypi.org/project/poflow-lite>", "pip install poflow_lite"):
        assert re.search(ADDRESS, bad, re.IGNORECASE), bad
    assert not re.search(ADDRESS, "pip install poflow_lite-0.1.0-py3-none-any.whl; pip install poflow_lite-*.whl")


@pytest.fixture
def lacking(tmp_path, monkeypatch):
    """An empty folder on a machine without the package; pip is a list of what it was asked for."""
    import importlib.util

    real, asked = importlib.util.find_spec, []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "poflow_lite" else real(name))
    monkeypatch.setattr("subprocess.run", asked.append)  # an installation that fails raises nothing by itself
    monkeypatch.chdir(tmp_path)
    return asked


def test_the_setup_cell_is_short_and_does_nothing_where_the_package_imports(monkeypatch):
    monkeypatch.setattr("subprocess.run", lambda *a, **o: pytest.fail("it installed something"))
    assert course.setup_cell().count("\n") < 12
    exec(course.setup_cell(), {})


def test_the_setup_cell_says_what_to_do_where_there_is_nothing_to_install(lacking):
    with pytest.raises(AssertionError, match=r"^no poflow_lite \(tried None\): lay its wheel .*, or set SOURCE$"):
        exec(course.setup_cell(), {})
    assert lacking == []


def test_the_setup_cell_takes_the_wheel_beside_it_or_the_source_that_is_set_and_keeps_torch(lacking, monkeypatch):
    for release in ("0.1.0", "0.2.0"):
        Path(f"poflow_lite-{release}-py3-none-any.whl").touch()
    for source, wanted in ((None, "poflow_lite-0.2.0-py3-none-any.whl"), ("git+https://ours", "git+https://ours")):
        monkeypatch.setattr(course.notebooks, "SOURCE", source)
        with pytest.raises(
            AssertionError, match=rf"tried {re.escape(wanted)}\): lay"
        ):  # pip failed: no traceback of it
            exec(course.setup_cell(), {})
        pip = lacking.pop()
        assert pip[1:5] == ["-m", "pip", "install", "--quiet"]
        assert set(pip[5:]) == {wanted, *(f"{name}=={version(name)}" for name in ("torch", "torchvision", "numpy"))}


# --- execution ----------------------------------------------------------------------------------------------------


LIVE = """\
import torch
from poflow_lite import plotting
plotting.show(plotting.figure(2, 2)[0], "a rise & a fall")
plotting.show_gif(plotting.gif(torch.rand(1, 1, 2, 3, 4, 4)), "it moves")
plotting.explore(lambda t: plotting.figure(1 + t, 2)[0], "at a time", t=[1, 2])"""


def exported_alts(notebook):
    """Alternative texts of the images of a notebook's HTML export, None where one has none but nbconvert's excuse."""
    page, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    found = [re.search(r'\balt="(?!No description)(.+?)"', image) for image in re.findall(r"<img\b[^>]*>", page)]
    return [alt and alt[1] for alt in found]


@pytest.mark.enable_socket  # to the kernel, on this machine
def test_executing_saves_outputs_drops_widget_views_and_every_picture_reaches_readers(tmp_path):
    path = write(
        tmp_path / "00-x.ipynb",
        new_code_cell("import ipywidgets\nprint(6 * 7)\nipywidgets.IntSlider()"),
        new_code_cell(LIVE),
    )
    seconds = course.execute(path)
    saved = nbformat.read(path, as_version=4)
    assert [output.get("text") for output in saved.cells[0].outputs] == ["42\n"]
    assert saved.metadata["poflow"]["seconds"] == pytest.approx(seconds, abs=0.1)
    assert saved.metadata["language_info"]["file_extension"] == ".py"  # nbconvert writes a script, not a .txt
    assert "widgets" not in saved.metadata
    assert [sorted(output.data) for output in saved.cells[1].outputs] == [["text/html", "text/plain"]] * 3
    assert exported_alts(saved) == ["a rise &amp; a fall", "it moves", "at a time"]
    assert 'class="poflow-player"' in saved.cells[1].outputs[2].data["text/html"]  # sliders work without a kernel


@pytest.mark.enable_socket
def test_the_time_of_a_lesson_leaves_out_what_its_readers_do_not_wait_for(tmp_path):
    slow = "import time\nfrom poflow_lite import plotting as p\ndraw = lambda t: time.sleep(0.5) or p.figure(1, 1)[0]\n"
    path = write(tmp_path / "00-x.ipynb", new_code_cell(f'{slow}p.explore(draw, "x", t=[1, 2, 3, 4])'))
    began = time.perf_counter()
    seconds = course.execute(path)
    assert time.perf_counter() - began - seconds > 2.0  # four pictures of the player
    (output,) = nbformat.read(path, as_version=4).cells[0].outputs
    assert output.metadata == {}


@every_lesson
def test_every_picture_of_a_lesson_reaches_readers_of_its_export(path):
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    for output in outputs:
        for kind, value in output.get("data", {}).items():  # without megabytes of pixels
            output.data[kind] = re.sub("(;base64,|^)[A-Za-z0-9+/=\n]{99,}", r"\1aaaa", value)
    notebook.cells = [new_code_cell("", outputs=outputs)]
    made = sum("<img " in output.get("data", {}).get("text/html", "") for output in outputs)
    alts = exported_alts(notebook)
    assert len(alts) == made >= 5
    assert all(alts)


@pytest.mark.enable_socket
def test_a_failing_lesson_is_reported_and_left_as_it_was(tmp_path):
    path = write(tmp_path / "00-x.ipynb", new_code_cell("1 / 0"))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"00-x.ipynb stopped: ZeroDivisionError: division by zero"):
        course.execute(path)
    assert path.read_bytes() == before


# --- builds -------------------------------------------------------------------------------------------------------


def cells_of(path, kind):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


@pytest.mark.enable_socket  # nbgrader looks for a running server when it is imported
@every_lesson
def test_the_students_build_holds_no_solution_output_answer_or_note(path, tmp_path):
    (built,) = course.build([path], tmp_path)
    text, code = built.read_text(), cells_of(built, "code")
    assert "### BEGIN SOLUTION" in path.read_text()
    assert not re.search("SOLUTION|Notes for teachers|Marking|Misconceptions", text)
    hidden = [cell for cell in code if cell.metadata.get("jupyter", {}).get("source_hidden")]
    assert all("hide-input" in cell.metadata.tags and "raise NotImpl" not in cell.source for cell in hidden)
    assert not any(cell.outputs or cell.execution_count for cell in code)
    stubs = [cell for cell in code if "raise NotImplementedError" in cell.source]
    assert len(stubs) == len([cell for cell in cells_of(path, "code") if "BEGIN SOLUTION" in cell.source])
    whole = nbformat.read(built, as_version=4).cells
    assert all("**Exercise" in before.source for before, cell in pairwise(whole) if cell in stubs)
    prose = "\n\n".join(cell.source for cell in cells_of(built, "markdown"))
    assert not re.search("unfold|solutions are folded", prose, re.IGNORECASE)
    quiz = re.search(r"^## Quiz(.*?)^## ", prose, re.DOTALL | re.MULTILINE)[1]
    assert "?" in quiz
    assert "<details>" not in quiz
    assert re.search("^## (References|Further reading)", prose, re.MULTILINE)
    assert "**Next" in prose


@pytest.mark.enable_socket
def test_a_source_that_is_set_is_written_into_every_build(tmp_path, monkeypatch):
    before = course.setup_cell()
    cells = new_markdown_cell("# T"), new_code_cell(before), new_code_cell("x = 1")
    path = write(tmp_path / "00-x.ipynb", *cells)
    monkeypatch.setattr(course.notebooks, "SOURCE", "git+https://ours")
    for kind in course.BUILDS:
        (built,) = course.build([path], tmp_path / kind, kind)
        first, second = (cell.source for cell in cells_of(built, "code"))
        assert (first, second) == (before.replace("SOURCE = None", "SOURCE = 'git+https://ours'"), "x = 1")


@pytest.mark.enable_socket
def test_the_other_builds_hold_more(tmp_path):
    (solutions,), (teacher,) = (course.build(LESSONS[:1], tmp_path / kind, kind) for kind in ("solutions", "teacher"))
    assert teacher.read_text() == LESSONS[0].read_text()
    assert not any(cell.outputs for cell in cells_of(solutions, "code"))
    as_committed = [cell.source for cell in nbformat.read(LESSONS[0], as_version=4).cells]
    assert [cell.source for cell in nbformat.read(solutions, as_version=4).cells] == as_committed


@pytest.mark.enable_socket
def test_a_section_of_notes_for_teachers_is_left_out_whole(tmp_path):
    folded = "<details><summary>Answer</summary>\nyes\n</details>"
    prose = [
        f"## 1\n\n{folded}",
        f"## Quiz\n\n1. a?\n\n{folded}\n\n### b\n\n{folded}\n\n## Notes for teachers\n\nx",
        "y",
    ]
    path = write(
        tmp_path / "00-x.ipynb", *map(new_markdown_cell, prose), new_code_cell("z"), new_markdown_cell("# End")
    )
    (built,) = course.build([path], tmp_path / "out")
    assert [cell.source for cell in nbformat.read(built, as_version=4).cells] == [
        prose[0],
        "## Quiz\n\n1. a?\n\n### b",
        "# End",
    ]


def test_a_build_refuses_to_overwrite_the_lessons_and_an_unknown_kind(tmp_path):
    path = write(tmp_path / "00-x.ipynb", new_code_cell("1"))
    (tmp_path / "link").symlink_to(tmp_path)
    for out in (tmp_path, tmp_path / "link"):
        with pytest.raises(ValueError, match="is where the lessons are: build into another folder"):
            course.build([path], out)
    with pytest.raises(ValueError, match="unknown build 'slides'; known: student, solutions, teacher"):
        course.build([path], tmp_path / "out", "slides")


# --- lint: each rule is broken on purpose in an otherwise sound lesson ----------------------------------------------


def sound():
    """The smallest lesson without a problem, as a dictionary."""
    header = "# T\n**You will** a\n**Before this** b\n**Notation** c\n**Run time** under 9 s\n**Needs** d"
    filler = [new_markdown_cell(f"text {i}") for i in range(34)]
    quiz = new_markdown_cell("## Quiz\n" + "<details><summary>Answer</summary>x</details>\n" * 5)
    sections = [new_markdown_cell(f"## {name}") for name in ("Break it", "Exercises", "References")]
    code = [new_code_cell(course.setup_cell()), new_code_cell("x = 1"), new_code_cell("x")]
    for number, cell in enumerate(code, start=1):
        cell.execution_count = number
    cells = [new_markdown_cell(header), *code, *filler, quiz, *sections, new_markdown_cell("**Next:** more")]
    notebook = json.loads(json.dumps(new_notebook(cells=cells, metadata={"poflow": {"seconds": 3.0}})))
    add(notebook, "display_data", data={"text/html": '<img src="x" alt="a line">'}, metadata={})
    return notebook


def add(notebook, kind, **content):
    notebook["cells"][3]["outputs"].append({"output_type": kind, **content})


def words_of(notebook):
    return prose_words(" ".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown"))


def test_words_are_those_that_are_read():
    text = "A *second* [link](https://a.b/c-d) to $x^2$ and $$\\int y$$ <b>well-known</b> things, 3 of them"
    assert prose_words(text) == 9


BREAKS = {
    "execution count": lambda n: n["cells"][2].update(execution_count=7),
    "over the limit of 25": lambda n: n["cells"][2].update(source="x = 1\n" * 26),
    "a magic": lambda n: n["cells"][2].update(source="%matplotlib inline"),
    "its output is checked but it has none": lambda n: n["cells"][2]["metadata"].update(tags=["nbval-check-output"]),
    "raises-exception": lambda n: n["cells"][2]["metadata"].update(tags=["raises-exception"]),
    "an error among the outputs": lambda n: add(n, "error", ename="E", evalue="", traceback=[]),
    "text on standard error": lambda n: add(n, "stream", name="stderr", text="careful"),
    "absolute path": lambda n: add(n, "stream", name="stdout", text="saved in /home/ann/x.png"),
    "without alternative text": lambda n: add(n, "display_data", data={"image/png": ""}, metadata={}),
    "figure without alternative text": lambda n: add(n, "display_data", data={"text/html": "<img src='x'>"}),
    "a Markdown image has no alternative text": lambda n: n["cells"][5].update(source="![](x.png)"),
    "metadata.widgets": lambda n: n["metadata"].update(widgets={}),
    "the first code cell": lambda n: n["cells"][1].update(source="import torch"),
    "the header lacks **Needs**": lambda n: n["cells"][0].update(source="# T\n**You will** a"),
    "took 10.0 s, the header claims 9 s": lambda n: n["metadata"].update(poflow={"seconds": 10.0}),
    "never executed": lambda n: n["metadata"].pop("poflow"),
    "no section 'Break it'": lambda n: n["cells"][-4].update(source="broken"),
    "fewer than five quiz answers": lambda n: n["cells"][-5].update(
        source="## Quiz\n" + "<details><summary>Hint</summary>x</details>\n" * 9
    ),
    "does not lead to the next lesson": lambda n: n["cells"][-1].update(source="bye"),
    "a lesson has 40 to 70": lambda n: n["cells"].__delitem__(slice(10, 16)),
    "median code cell": lambda n: [cell.update(source="x = 1\n" * 9) for cell in n["cells"][2:4]],
    "3,001 words, a session has 2,800 at most": lambda n: n["cells"][0].update(
        source=n["cells"][0]["source"] + "\n## In one minute\n" + "word " * (3001 - words_of(n) - 3)
    ),
    "33 code cells, a session has 32 at most": lambda n: (
        n["cells"][0].update(source=n["cells"][0]["source"] + "\n## In one minute"),
        n["cells"].__setitem__(slice(4, 4), [copy.deepcopy(n["cells"][3]) for _ in range(30)]),
    ),
    "61 lines, over": lambda n: n["cells"][2].update(source="x = 1\n" * 61, metadata={"tags": ["hide-input"]}),
    "over the limit of 3 MB": lambda n: add(n, "stream", name="stdout", text="x" * 3_000_001),
}


def problems_of(notebook, tmp_path):
    path = tmp_path / "00-x.ipynb"
    path.write_text(json.dumps(notebook))
    return course.lint(path)


def test_a_sound_lesson_has_no_problem(tmp_path):
    assert problems_of(sound(), tmp_path) == []
    drawing = sound()
    drawing["cells"][2].update(source="x = 1\n" * 60, metadata={"tags": ["hide-input"]})
    assert problems_of(drawing, tmp_path) == [], "cells that only draw may be longer"


def test_a_lesson_of_two_sessions_is_measured_by_the_session(tmp_path):
    notebook = sound()
    BREAKS["33 code cells, a session has 32 at most"](notebook)
    assert len(problems_of(notebook, tmp_path)) > 1, "execution counts repeat, too"
    for number, place in ((1, 0), (2, 20)):
        notebook["cells"][place : place + 1] += [{**notebook["cells"][0], "source": f"# Session {number} · x"}]
    assert not any("session has" in problem for problem in problems_of(notebook, tmp_path))


@pytest.mark.parametrize("message", BREAKS)
def test_lint_sees(message, tmp_path):
    notebook = copy.deepcopy(sound())
    BREAKS[message](notebook)
    found = problems_of(notebook, tmp_path)
    assert any(message in problem for problem in found), found
