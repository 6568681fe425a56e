"""Tools behind the notebooks: execute and save them, build what students and teachers get, lint what is committed."""

import itertools
import json
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from poflow_lite.datasets.places import find
from poflow_lite.io import prepare_folder, require_known, write_atomically
from poflow_lite.plotting.sliders import PLAYERS

# What pip installs where the package is missing, such as "git+https://…": an address of yours; `build` writes it into
# the lessons. None is invented here, since whoever registers it would run code on the machines of all who take part.
SOURCE: str | None = None
BUILDS = ("student", "solutions", "teacher", "pages", "nbgrader")

_SETUP = """\
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

SOURCE = {source!r}  # what pip installs where poflow_lite is missing; None: poflow_lite-*.whl beside this notebook
what = SOURCE or max(map(str, Path().glob("poflow_lite-*.whl")), default=None)
if find_spec("poflow_lite") is None and what:  # keep the torch and NumPy that are there
    keep = [f"{{name}}=={{version(name)}}" for name in ("torch", "torchvision", "numpy") if find_spec(name)]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", what, *keep])
assert find_spec("poflow_lite"), f"no poflow_lite (tried {{what}}): lay its wheel beside this notebook, or set SOURCE"
"""
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
    },
}
_CONFIG = """\
from nbgrader.converters import Autograde
from nbgrader.preprocessors import DeduplicateIds


class CountOneCopy(DeduplicateIds):
    # nbgrader leaves empty metadata on a cell that a student copied, and then stops at them as too old.
    def preprocess_cell(self, cell, resources, index):
        cell, resources = super().preprocess_cell(cell, resources, index)
        if not cell.metadata.get("nbgrader", True):
            del cell.metadata["nbgrader"]
        return cell, resources


steps = Autograde.sanitize_preprocessors.default()
c = get_config()
c.CourseDirectory.course_id = "poflow_lite"
c.ExecutePreprocessor.timeout = 600
c.Autograde.sanitize_preprocessors = [CountOneCopy if step is DeduplicateIds else step for step in steps]
"""
_HEADER_FIELDS = ("**You will**", "**Before this**", "**Notation**", "**Run time**", "**Needs**")
_WIDGET = "application/vnd.jupyter.widget-view+json"


def setup_cell() -> str:
    """Source of the first code cell of every lesson: does nothing where the package imports, installs it elsewhere."""
    return _SETUP.format(source=SOURCE).strip()


def find_lessons(folder: str | Path = "notebooks") -> list[Path]:
    """The lessons of a folder, in order.

    Raises:
        FileNotFoundError: if there are none.
    """
    found = sorted(Path(folder).glob("[0-9][0-9]-*.ipynb"))
    if not found:
        raise FileNotFoundError(f"no lessons (NN-*.ipynb) in {folder}: run this in the repository's root")
    return found


def recorded(name: str) -> dict[str, Any]:
    """A recorded result: ``data/results/NAME`` where the lesson runs, or the copy that came with the package.

    Raises:
        FileNotFoundError: if there is none of this name.
    """
    return json.loads(find("results", name).read_text(encoding="utf-8"))


def write_texts(lessons: Iterable[Path], out: str | Path) -> list[Path]:
    """Write the text of lessons as Markdown, in which a reviewer sees what changed; nothing reads it back."""
    import jupytext

    written = []
    for path in lessons:
        notebook = jupytext.read(path)
        notebook.metadata = {"jupytext": {"cell_metadata_filter": "tags,-all", "notebook_metadata_filter": "-all"}}
        written.append(prepare_folder(out) / f"{path.stem}.md")
        text = re.sub(r"\]\((?=\d\d-[\w-]+\.ipynb)", "](../", jupytext.writes(notebook, "md"))  # from its own folder
        written[-1].write_text(text, encoding="utf-8")
    return written


def execute(path: str | Path, timeout: int = 600) -> float:
    """Run a lesson top to bottom in a fresh kernel and save its outputs in place; return the seconds that it took.

    Sliders are kept as players (:func:`plotting.player.player`): without a live kernel their views are broken links.
    The time, but for that of drawing players, which no reader does, is kept in the notebook's metadata so that
    :func:`lint` can hold the header to it.

    Raises:
        ValueError: if a cell fails; the message shows its error. The file is left as it was.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    path = Path(path)
    notebook = nbformat.read(path, as_version=4)
    began = time.perf_counter()
    client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": "."}})
    try:
        client.execute(env={**os.environ, PLAYERS: "1"})
    except CellExecutionError as error:
        raise ValueError(f"{path.name} stopped: {error.ename}: {error.evalue}") from error
    seconds = time.perf_counter() - began
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            seconds -= sum(output.get("metadata", {}).pop(PLAYERS, 0.0) for output in cell.outputs)
            data = [(output, output.get("data", {})) for output in cell.outputs]
            cell.outputs = [output for output, kinds in data if not kinds.pop(_WIDGET, None) or "text/html" in kinds]
    notebook.metadata = {**_METADATA, "poflow": {"seconds": round(seconds, 1)}}
    write_atomically(path, lambda temporary: nbformat.write(notebook, temporary))
    return seconds


# --- build --------------------------------------------------------------------------------------------------------


def build(paths: Iterable[str | Path], out: str | Path, kind: str = "student") -> list[Path]:
    """Write lessons into another folder, for one of :data:`BUILDS`; return the files written.

    Students get no solutions (nbgrader's stubs, unfolded), no outputs, no answers of the quiz, no notes for teachers;
    "solutions" is the lesson without its outputs, "teacher" the lesson as it is, "pages" what students get with the
    outputs of all cells but the exercises. "nbgrader" is a course of sheets with the exercises alone, so that grading
    need not train what a lesson trains: run `nbgrader generate_assignment NAME` in the folder. All get the set-up cell
    of today.

    Raises:
        ValueError: for another kind, or a folder that holds one of the lessons.
        OSError: if the folder cannot be written to.
    """
    import nbformat

    require_known("build", kind, BUILDS)
    paths = [Path(path) for path in paths]
    if Path(out).resolve() in {path.resolve().parent for path in paths}:
        raise ValueError(f"{out} is where the lessons are: build into another folder, or they would be overwritten")
    out, written = prepare_folder(out), []
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if 'find_spec("poflow_lite")' in cell.source:
                cell.source = setup_cell()
        if kind == "nbgrader":
            notebook.cells = _sheet(notebook.cells)
        elif kind != "teacher":
            _strip(notebook, kind)
        target = prepare_folder(out / "source" / path.stem) / path.name if kind == "nbgrader" else out / path.name
        write_atomically(target, lambda temporary, notebook=notebook: nbformat.write(notebook, temporary))
        written.append(target)
    if kind == "nbgrader":
        write_atomically(out / "nbgrader_config.py", lambda temporary: temporary.write_text(_CONFIG, encoding="utf-8"))
    return written


def _sheet(cells: list[Any]) -> list[Any]:
    """Set-up, imports and the exercises of a lesson; cells in which experiments are made belong to the lesson."""
    from nbformat.v4 import new_markdown_cell

    setup, imports = [cell for cell in cells if cell.cell_type == "code"][:2]
    title, inside = re.search(r"^# (.+)$", cells[0].source, re.MULTILINE)[1], False
    told = f"# {title}: exercises\n\nExperiments are made in the lesson; this sheet is handed in."
    kept = [new_markdown_cell(told, id="sheet"), setup, imports]
    for cell, after in itertools.pairwise(cells):
        if cell.cell_type == "code":
            graded = after.metadata.get("nbgrader", {}).get("grade") and after.cell_type == "code"
            kept += [cell] if inside and (graded or cell.metadata.get("nbgrader", {}).get("grade")) else []
            continue
        text = ""
        for part in re.split(r"^(?=##? )", cell.source, flags=re.MULTILINE):
            if heading := re.match(r"##? (?:\d+ · )?(.*)", part):
                inside = heading[1].startswith("Exercises")
            text += part if inside else ""
        if text.strip():
            cell.source = text.strip()
            kept.append(cell)
    for cell in (cell for cell in kept if cell.cell_type == "code"):
        cell.update(outputs=[], execution_count=None)
        _unfold(cell)
    return kept


def _unfold(cell: Any) -> None:
    """Open a solution, which is folded in the lesson, for the student who is to write it."""
    if cell.metadata.get("nbgrader", {}).get("solution"):
        cell.metadata.pop("cellView", None)
        cell.metadata.get("jupyter", {}).pop("source_hidden", None)


def _strip(notebook: Any, kind: str) -> None:
    """Take out of a notebook, in place, outputs and what only teachers see, as far as the build wants it."""
    from nbgrader.preprocessors import ClearOutput, ClearSolutions

    if kind == "pages":
        for cell in notebook.cells:  # a check that passed above a stub that is empty would puzzle
            if cell.cell_type == "code" and "nbgrader" in cell.metadata:
                cell.update(outputs=[], execution_count=None)
    else:
        ClearOutput().preprocess(notebook, {})
    notebook.metadata.pop("poflow", None)
    if kind == "solutions":
        return
    ClearSolutions().preprocess(notebook, {})
    kept, section = [], ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source, section = _without_answers(cell.source, section)
            kept += [cell] if cell.source else []
        elif not section.startswith("notes for teachers"):
            _unfold(cell)
            kept.append(cell)
    notebook.cells = kept


def _without_answers(text: str, section: str) -> tuple[str, str]:
    """Markdown without notes for teachers and without folded answers of the quiz, and the section in which it ends."""
    kept = ""
    for part in re.split(r"^(?=##? )", text, flags=re.MULTILINE):
        if heading := re.match(r"##? (.*)", part):
            section = heading[1].lower()
        quiz = section.startswith("quiz")
        part = re.sub(
            r"<details>.*?</details>\n*",
            lambda fold, quiz=quiz: "" if quiz or "Notes for teachers" in fold[0] else fold[0],
            part,
            flags=re.DOTALL,
        )
        kept += "" if section.startswith("notes for teachers") else part
    return kept.strip(), section


# --- lint ---------------------------------------------------------------------------------------------------------


def lint(path: str | Path) -> list[str]:
    """What is wrong with a committed lesson, a line each; empty for a sound one."""
    path = Path(path)
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = notebook["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    problems = [*_lint_structure(cells, code), *_lint_header(cells, notebook["metadata"])]
    for number, cell in enumerate(code, start=1):
        problems += [f"code cell {number}: {problem}" for problem in _lint_cell(cell, number)]
    if "widgets" in notebook["metadata"]:
        problems.append("metadata.widgets is saved: execute with `poflow-lite course execute`")
    if path.stat().st_size > 3_000_000:
        problems.append(f"{path.stat().st_size / 1e6:.1f} MB, over the limit of 3 MB")
    return problems


def _source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def _lines(cell: dict[str, Any]) -> int:
    return sum(1 for line in _source(cell).splitlines() if line.strip())


def _is_hidden(cell: dict[str, Any]) -> bool:
    """Whether a cell only draws, and is folded for readers."""
    return "hide-input" in cell["metadata"].get("tags", [])


def prose_words(text: str) -> int:
    """Words of Markdown that are read: without formulas, tags and the targets of links."""
    without = re.sub(r"\$\$.*?\$\$|\$[^$]*\$|<[^>]*>|\]\([^)]*\)", " ", text, flags=re.DOTALL)
    return len(re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", without))


def _prose(cells: list[dict[str, Any]]) -> str:
    return " ".join(_source(cell) for cell in cells if cell["cell_type"] == "markdown")


def _sessions(cells: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The cells of each session of 90 minutes: a lesson of two has the headings "# Session 1 …" and "# Session 2 …"."""
    starts = [i for i, cell in enumerate(cells) if _source(cell).startswith("# Session ")]
    return [cells[start:end] for start, end in itertools.pairwise([0, *starts[1:], len(cells)])]


def _lint_structure(cells: list[dict[str, Any]], code: list[dict[str, Any]]) -> list[str]:
    problems = []
    prose = _prose(cells)
    if median(_lines(cell) for cell in code if not _is_hidden(cell)) > 8:
        problems.append("the median code cell is longer than 8 lines")
    if _source(code[0]).strip() != setup_cell():
        problems.append("the first code cell is not course.setup_cell()")
    for wanted in ("Break it", "Exercises", "Quiz", "References|Further reading"):
        if not re.search(rf"## (\d+ · )?({wanted})", prose):
            problems.append(f"no section {wanted!r}")
    sessions = _sessions(cells)
    if len(cells) > 70 * len(sessions) or len(cells) < 40:
        problems.append(f"{len(cells)} cells, a lesson has 40 to 70")
    for part in sessions if "## In one minute" in prose else ():
        if (words := prose_words(_prose(part))) > 2800:
            problems.append(f"{words:,} words, a session has 2,800 at most")
        if (count := sum(cell["cell_type"] == "code" for cell in part)) > 32:
            problems.append(f"{count} code cells, a session has 32 at most")
    if prose.count("<summary>Answer</summary>") < 5:
        problems.append("fewer than five quiz answers in <details>")
    if "**Next" not in _source(cells[-1]):
        problems.append("the last cell does not lead to the next lesson (**Next …**)")
    if not all(alt.strip() for alt in re.findall(r"!\[(.*?)\]\(", prose)):
        problems.append("a Markdown image has no alternative text")
    return problems


def _lint_header(cells: list[dict[str, Any]], metadata: dict[str, Any]) -> list[str]:
    header = _source(cells[0])
    problems = [f"the header lacks {name}" for name in _HEADER_FIELDS if name not in header]
    claim = re.search(r"\*\*Run time\*\*[^\n]*?(\d+) s\b", header)
    measured = metadata.get("poflow", {}).get("seconds")
    if measured is None:
        problems.append("never executed with `poflow-lite course execute`")
    elif claim is None:
        problems.append("the header's run time is not of the form '**Run time** … NN s'")
    elif measured > int(claim[1]):
        problems.append(f"took {measured} s, the header claims {claim[1]} s")
    return problems


def _lint_cell(cell: dict[str, Any], number: int) -> list[str]:
    source, outputs, tags = _source(cell), cell["outputs"], cell["metadata"].get("tags", [])
    found = {
        f"execution count {cell['execution_count']}: execute top to bottom": cell["execution_count"] != number,
        f"{_lines(cell)} lines, over the limit of 25": _lines(cell) > (60 if _is_hidden(cell) else 25),
        "a magic or shell command, which tests cannot see fail": re.search(r"^\s*[%!]", source, re.MULTILINE),
        "its output is checked but it has none": "nbval-check-output" in tags and not outputs,
        "the tag raises-exception passes when nothing raises: use try, except and else": "raises-exception" in tags,
        "an error among the outputs": any(output["output_type"] == "error" for output in outputs),
        "text on standard error": any(output.get("name") == "stderr" for output in outputs),
        "a figure without alternative text: use plotting.show or show_gif": any(map(_lacks_alt, outputs)),
        "an absolute path of some machine in the outputs": re.search(
            r"[\"' (](/(home|root|work|tmp|Users|opt)/|[A-Z]:\\\\)", json.dumps(outputs)
        ),
    }
    return [problem for problem, is_so in found.items() if is_so]


def _lacks_alt(output: dict[str, Any]) -> bool:
    """Whether an output has an image that a reader who does not see it knows nothing about: any that is not in HTML."""
    data = output.get("data", {})
    in_html = re.findall(r"<img\b[^>]*>", "".join(data.get("text/html", "")))
    return any(kind.startswith("image/") for kind in data) or not all(re.search(r'\balt="[^"]', i) for i in in_html)
