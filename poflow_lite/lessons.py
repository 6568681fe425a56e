"""Tools behind the notebooks: execute and save them, make the student version, and lint what is committed."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from statistics import median
from typing import Any

from poflow_lite.checkpoints import prepare_folder, write_atomically

__all__ = ["execute", "find_lessons", "lint", "setup_cell", "student_version"]

# The one place for the address; a test holds pyproject.toml and every lesson to it.
REPOSITORY = "https://github.com/poflow-lite/poflow_lite"

SETUP_TEMPLATE = """\
import importlib.util as find
import subprocess
import sys
from importlib.metadata import version

if find.find_spec("poflow_lite") is None:  # on Colab: install, keeping the torch and NumPy that are there
    keep = [f"{{name}}=={{version(name)}}" for name in ("torch", "torchvision", "numpy") if find.find_spec(name)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "git+{repository}", *keep], check=True)
assert find.find_spec("poflow_lite"), "poflow_lite did not install: see the messages above"
"""

_HEADER_FIELDS = ("**You will**", "**Before this**", "**Notation**", "**Run time**", "**Needs**")
_WIDGET = "application/vnd.jupyter.widget-view+json"


def setup_cell() -> str:
    """Source of the first code cell of every lesson: does nothing where the package imports, installs it elsewhere."""
    return SETUP_TEMPLATE.format(repository=REPOSITORY).strip()


def find_lessons(folder: str | Path = "notebooks") -> list[Path]:
    """The lessons of a folder, in order.

    Raises:
        FileNotFoundError: if there are none.
    """
    found = sorted(Path(folder).glob("[0-9][0-9]-*.ipynb"))
    if not found:
        raise FileNotFoundError(f"no lessons (NN-*.ipynb) in {folder}: run this in the repository's root")
    return found


def execute(path: Path, timeout: int = 600) -> float:
    """Run a lesson top to bottom in a fresh kernel and save its outputs in place; return the seconds it took.

    Widget views are dropped, since without a live kernel they are broken links, and the time is kept in the notebook's
    metadata so that :func:`lint` can hold the header to it.

    Raises:
        ValueError: if a cell fails; the message shows the cell's number and its error. The file is left as it was.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(path, as_version=4)
    began = time.perf_counter()
    client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": "."}})
    try:
        client.execute()
    except CellExecutionError as error:
        raise ValueError(f"{path.name} stopped: {error.ename}: {error.evalue}") from error
    seconds = time.perf_counter() - began
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _WIDGET not in output.get("data", {})]
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "poflow": {"seconds": round(seconds, 1)},
    }
    write_atomically(path, lambda temporary: nbformat.write(notebook, temporary))
    return seconds


def student_version(path: Path, out: str | Path) -> Path:
    """Write a lesson without solutions and without any output into ``out``, by nbgrader's own preprocessors."""
    import nbformat
    from nbgrader.preprocessors import ClearOutput, ClearSolutions

    notebook, resources = nbformat.read(path, as_version=4), {}
    for preprocessor in (ClearSolutions(), ClearOutput()):
        notebook, resources = preprocessor.preprocess(notebook, resources)
    for cell in notebook.cells:  # solutions are folded away in the lesson; the student's stub is open
        cell.metadata.pop("cellView", None)
        cell.metadata.get("jupyter", {}).pop("source_hidden", None)
    notebook.metadata.pop("poflow", None)
    target = prepare_folder(out) / path.name
    write_atomically(target, lambda temporary: nbformat.write(notebook, temporary))
    return target


# --- lint ---------------------------------------------------------------------------------------------------------


def lint(path: Path) -> list[str]:
    """What is wrong with a committed lesson, a line each; empty for a sound one."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = notebook["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    problems = [*_lint_structure(cells, code), *_lint_header(cells, notebook["metadata"])]
    for number, cell in enumerate(code, start=1):
        problems += [f"code cell {number}: {problem}" for problem in _lint_cell(cell, number)]
    if "widgets" in notebook["metadata"]:
        problems.append("metadata.widgets is saved: execute with `poflow-lite execute`")
    if path.stat().st_size > 3_000_000:
        problems.append(f"{path.stat().st_size / 1e6:.1f} MB, over the limit of 3 MB")
    return problems


def _source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def _lines(cell: dict[str, Any]) -> int:
    return sum(1 for line in _source(cell).splitlines() if line.strip())


def _lint_structure(cells: list[dict[str, Any]], code: list[dict[str, Any]]) -> list[str]:
    problems = []
    prose = " ".join(_source(cell) for cell in cells if cell["cell_type"] == "markdown")
    if not 40 <= len(cells) <= 66:
        problems.append(f"{len(cells)} cells, a lesson has 40 to 66")
    if median(_lines(cell) for cell in code) > 8:
        problems.append("the median code cell is longer than 8 lines")
    if _source(code[0]).strip() != setup_cell():
        problems.append("the first code cell is not lessons.setup_cell()")
    for wanted in ("## Break it", "## Exercises", "## Quiz", "## References"):
        if wanted not in prose:
            problems.append(f"no section {wanted!r}")
    if prose.count("<details>") < 5:
        problems.append("fewer than five quiz answers in <details>")
    if "**Next" not in _source(cells[-1]):
        problems.append("the last cell does not lead to the next lesson (**Next …**)")
    for alt in re.findall(r"!\[(.*?)\]\(", prose):
        if not alt.strip():
            problems.append("a Markdown image has no alternative text")
    return problems


def _lint_header(cells: list[dict[str, Any]], metadata: dict[str, Any]) -> list[str]:
    header = _source(cells[0])
    problems = [f"the header lacks {name}" for name in _HEADER_FIELDS if name not in header]
    claim = re.search(r"\*\*Run time\*\*[^\n]*?(\d+) s\b", header)
    measured = metadata.get("poflow", {}).get("seconds")
    if measured is None:
        problems.append("never executed with `poflow-lite execute`")
    elif claim is None:
        problems.append("the header's run time is not of the form '**Run time** … NN s'")
    elif measured > int(claim[1]):
        problems.append(f"took {measured} s, the header claims {claim[1]} s")
    return problems


def _lint_cell(cell: dict[str, Any], number: int) -> list[str]:
    problems = []
    source, outputs = _source(cell), cell["outputs"]
    if cell["execution_count"] != number:
        problems.append(f"execution count {cell['execution_count']}: execute top to bottom")
    if _lines(cell) > 25:
        problems.append(f"{_lines(cell)} lines, over the limit of 25")
    if re.search(r"^\s*[%!]", source, re.MULTILINE):
        problems.append("a magic or shell command, which tests cannot see fail")
    if "NBVAL_CHECK_OUTPUT" in source and not outputs:
        problems.append("its output is checked but it has none")
    if "raises-exception" in cell["metadata"].get("tags", []):
        problems.append("the tag raises-exception passes when nothing raises: use check.raises")
    for output in outputs:
        if output["output_type"] == "error":
            problems.append("an error among the outputs")
        if output.get("name") == "stderr":
            problems.append("text on standard error")
        for kind in output.get("data", {}):
            if kind.startswith("image/") and not output["metadata"].get(kind, {}).get("alt"):
                problems.append("a figure without alternative text: use plotting.show or show_gif")
    if re.search(r"[\"' (](/(home|root|work|tmp|Users|opt)/|[A-Z]:\\\\)", json.dumps(outputs)):
        problems.append("an absolute path of some machine in the outputs")
    return problems
