"""The course as a web site: lessons as they were executed, results, and the package, built by Sphinx without a network.

Hand-written pages, their theme and their settings are in ``docs/site``. They, the lessons, the results and a page for
each room of the package are laid out in a temporary folder, where the paths between them are those of the repository.
"""

import ast
import importlib
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from poflow_lite.course.notebooks import build, find_lessons
from poflow_lite.course.slides import MATHJAX
from poflow_lite.datasets.places import PACKAGE
from poflow_lite.io import prepare_folder

_PACKAGES = ("sphinx", "myst_nb", "sphinx_book_theme", "nbgrader")
_ROOM = """\
# {room}

```{{eval-rst}}
.. automodule:: poflow_lite.{room}
   :members:
   :imported-members:
   :show-inheritance:
{excluded}{constants}
```
"""
_CONSTANT = """
.. py:data:: {name}
   :type: {type}

   {told}
"""


def build_site(out: str | Path, root: str | Path = ".", notebooks: str | Path = "notebooks") -> list[str]:
    """Write the site into a folder; nothing is executed and nothing is fetched. Return what is to be told, in lines.

    Args:
        out: folder that a browser or any server of files can show, beginning at its ``index.html``.
        root: the repository.
        notebooks: folder of the lessons; their pages show the outputs that they hold.

    Raises:
        ValueError: if a package is missing, or for a page that Sphinx warns of.
        FileNotFoundError: outside of the repository, or without MathJax.
        OSError: if the folder cannot be written to.
    """
    from poflow_lite.course.play import write

    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise ValueError(f'the site needs {", ".join(missing)}: pip install -e ".[site]"')
    root = Path(root)
    if not (root / "docs/site/conf.py").exists():
        raise FileNotFoundError(f"no docs/site in {root.resolve()}: run this in the repository's root")
    if not (root / MATHJAX).exists():
        raise FileNotFoundError("no MathJax: run `npm ci` in docs/site, the one step that needs a network")
    lessons, out = find_lessons(notebooks), prepare_folder(out)
    told = []
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "play"
        try:
            write(page, home="../index.html")
        except (ValueError, FileNotFoundError) as error:
            told = [f"without the page that runs a model in the browser: {error}"]
        tree = lay_out(root, lessons, Path(folder) / "pages")
        _run_sphinx(tree, out, [] if told else ["-t", "play"])
        if not told:
            shutil.copytree(page, out / "play", dirs_exist_ok=True)
    return [*told, f"{out / 'index.html'}: {len(list(out.rglob('*.html')))} pages"]


def _run_sphinx(tree: Path, out: Path, options: list[str]) -> None:
    """Make pages of a tree; what is being documented is the package that is running."""
    memory = tree.parent / "memory"  # outside of the site
    how = ["-b", "html", "-q", "-W", "--keep-going", "-d", memory]
    command = [sys.executable, "-m", "sphinx", *how, *options, tree, out]
    path = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path.strip(os.pathsep)},
    )
    if ended.returncode:
        lines = [line.replace(f"{tree}{os.sep}", "") for line in ended.stderr.splitlines() if line.strip()]
        raise ValueError(f"Sphinx warns of {len(lines)} lines, of which the first are: {' | '.join(lines[:5])}")


# --- the pages, before Sphinx reads them --------------------------------------------------------------------------


def lay_out(root: Path, lessons: list[Path], tree: Path) -> Path:
    """Bring everything that becomes a page, or is linked from one, into the folder ``tree``."""
    shutil.copytree(
        root / "docs/site", tree, ignore=shutil.ignore_patterns("node_modules", "package*.json", "_*cache*")
    )
    shutil.copy(root / MATHJAX, tree / "_static/mathjax.js")
    for folder in ("docs/results", "data/results", "examples"):
        shutil.copytree(root / folder, tree / folder)
    pictures = [path.relative_to(root) for path in (root / "docs").glob("*.*") if path.suffix in (".png", ".gif")]
    for name in (*pictures, "docs/benchmarks.md", "data/README.md", "CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(root / name, tree / name)
    build(lessons, tree / "downloads", "student")
    pages = build(lessons, tree / "notebooks", "pages")
    for path in pages:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        _page_of_lesson(notebook, path.name)
        path.write_text(json.dumps(notebook), encoding="utf-8")
    for room in rooms():
        (tree / "api" / f"{room}.md").write_text(page_of_room(room), encoding="utf-8")
    (tree / "teaching/lessons.md").write_text(lesson_notes(lessons), encoding="utf-8")
    with (tree / "docs/results/README.md").open("a", encoding="utf-8") as file:
        file.write("\n```{toctree}\n:hidden:\n:glob:\n\n*\n```\n")  # what its table links stands in the menu too
    _relink(tree, root)
    return tree


def rooms() -> list[str]:
    """Names of the rooms of the package, each of which has a page."""
    return [module.name for module in pkgutil.iter_modules([str(PACKAGE)]) if not module.name.startswith("_")]


def page_of_room(room: str) -> str:
    """Markdown of a room's page: all that it offers, from docstrings; of constants what stands below their value."""
    module = importlib.import_module(f"poflow_lite.{room}")
    below = [one.name for one in pkgutil.iter_modules(getattr(module, "__path__", []), f"{module.__name__}.")]
    texts = [Path(find_spec(name).origin).read_text(encoding="utf-8") for name in (module.__name__, *below)]
    told = {name: words for text in texts for name, words in constants_of(text)}
    late = module.__all__ if "__getattr__" in vars(module) else []  # loaded when asked for: Sphinx sees none
    offered = {name: getattr(module, name) for name in module.__all__}
    constants = {name: value for name, value in offered.items() if name.isupper() and not isinstance(value, type)}
    page = ""
    for name, value in constants.items():
        keys = [f"``{key}``" for key in value if isinstance(key, str)] if isinstance(value, dict | tuple) else []
        words = " ".join([told.get(name, ""), *(["It has", ", ".join(keys) + "."] if keys else [])])
        page += _CONSTANT.format(name=name, type=type(value).__name__, told=words.strip())
    for name in late:
        if name not in constants:
            kind = "autoclass" if isinstance(offered[name], type) else "autofunction"
            page += f"\n.. {kind}:: {offered[name].__module__}.{name}\n"
    excluded = f"   :exclude-members: {', '.join(constants)}\n" if constants else ""
    return _ROOM.format(room=room, excluded=excluded, constants=page)


def constants_of(text: str) -> list[tuple[str, str]]:
    """Names that a file gives a value, each with the text that stands below it."""
    found = []
    for one, after in pairwise(ast.parse(text).body):
        targets = one.targets if isinstance(one, ast.Assign) else [one.target] if isinstance(one, ast.AnnAssign) else []
        if isinstance(after, ast.Expr) and isinstance(words := getattr(after.value, "value", None), str):
            plain = re.sub(r"([*|])", r"\\\1", " ".join(words.split()))
            found += [(name.id, plain) for name in targets if isinstance(name, ast.Name)]
    return found


def _page_of_lesson(notebook: dict[str, Any], name: str) -> None:
    """Hide the set-up cell, which a page has no use for, and offer the students' notebook below the header.

    A page has one title: sessions are sections.
    """
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = re.sub(r"^# (?=Session )", "## ", "".join(cell["source"]), flags=re.MULTILINE)
        if "find_spec" in (source := "".join(cell["source"])) and "poflow_lite-*.whl" in source:
            cell["metadata"]["tags"] = [*cell["metadata"].get("tags", []), "remove-cell"]
    offer = f"{{download}}`The notebook for students <../downloads/{name}>`, without outputs, to work in."
    notebook["cells"].insert(1, {"cell_type": "markdown", "id": "download", "metadata": {}, "source": offer})


def lesson_notes(lessons: list[Path]) -> str:
    """Timings, misconceptions and variations from the lessons' notes for teachers; never what marks are given for."""
    page = ["# Lesson by lesson", "", "From the notes for teachers at the end of each lesson.", ""]
    for path in lessons:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        prose = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        title = re.search(r"^# (.+)$", prose, re.MULTILINE)
        notes = re.search(r"Notes for teachers(.*?)(</details>|\Z)", prose, re.DOTALL)
        found = re.findall(r"^\*+(?:Timing|Misconceptions|Variations)\b.*$", notes[1] if notes else "", re.MULTILINE)
        page += [f"## {title[1] if title else path.stem}", "", f"[The lesson](/notebooks/{path.name})", ""]
        page += ["\n\n".join(found) or "This lesson has no notes.", ""]
    return "\n".join(page)


def _relink(tree: Path, root: Path) -> None:
    """Let links lead to pages of the site: a folder to its README, what is no part of the site to its bare name."""
    for path in [*tree.glob("docs/**/*.md"), *tree.glob("data/**/*.md"), *tree.glob("notebooks/*.ipynb")]:
        folder = path.parent.relative_to(tree)

        def linked(match: re.Match[str], folder: Path = folder) -> str:
            text, target = match[1], match[2]
            name = os.path.normpath(folder / target)
            if name == "examples":
                return f"[{text}]({os.path.relpath('extend.md', folder)})"
            if (tree / name).is_dir() and (tree / name / "README.md").exists():
                return f"[{text}]({target.rstrip('/')}/README.md)"
            if (tree / name).exists() or not (root / name).exists():
                return match[0]
            return text

        whole = re.sub(r"(?<!!)\[([^\]\[]+)\]\(((?!\w+:|#|/)[^)\s#]+)\)", linked, path.read_text(encoding="utf-8"))
        path.write_text(whole, encoding="utf-8")
