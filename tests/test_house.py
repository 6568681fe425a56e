"""The house rules that a machine can hold: imports run downwards, files stay short, the package imports lightly."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import poflow_lite

PACKAGE = Path(poflow_lite.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
FLOORS = [
    {"errors", "objectives", "networks", "potentials", "fields", "transport", "densities", "datasets", "checkpoints"}
    | {"plotting", "widgets", "provenance", "disentanglement", "deep_potentials", "mixtures"},
    {"flows", "training"},
    {"models", "learned_transport", "check"},
    {"metrics", "operators", "predictability", "lessons", "recipes", "flow_matching", "sparsity"}
    | {"movers", "commutators"},
    {"experiments", "grid", "shipped", "studies"},
    {"cli"},
]


def floor(name: str) -> int:
    return next(i for i, names in enumerate(FLOORS) if name in names)


def room(path: Path) -> str:
    """The top-level module or package that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("poflow_lite"):
            parts = node.module.split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return names - {room(path)}


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent != PACKAGE or p.stem != "__init__"], ids=str)
def test_imports_run_downwards(path):
    for name in imported_rooms(path):
        assert floor(name) <= floor(room(path)), f"{path.name} imports {name}, which lies above it"


def test_there_is_no_circle_between_rooms():
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        if room(path) != "__init__":
            graph.setdefault(room(path), set()).update(imported_rooms(path))

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"circle: {' → '.join((*above, name))}"
        for below in graph.get(name, ()):
            visit(below, (*above, name))

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_file_is_longer_than_500_lines_and_no_function_needs_scrolling(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 500
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            docstring = (ast.get_docstring(node, clean=False) or "").count("\n") + 1
            assert node.end_lineno - node.lineno - docstring < 55, f"{node.name} needs scrolling"


def test_importing_the_package_loads_nothing_heavy_besides_torch():
    heavy = ["torchvision", "ot", "matplotlib", "sklearn", "seaborn", "ipywidgets", "typer", "PIL"]
    script = f"import sys, poflow_lite; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
