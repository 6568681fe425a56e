"""The house rules that a machine can hold: imports run downwards, nothing grows long, what is public is explained."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import poflow_lite

HOUSE = Path(poflow_lite.__file__).parent
FLOORS = (
    {"objectives", "networks", "fields", "transport", "densities", "plotting", "io", "settings"},
    {"flows", "datasets", "training"},
    {"models", "operators", "metrics"},
    {"experiments"},
    {"studies", "course"},
    {"cli"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
PRINTS = ("cli", "course", "studies.cost_measures", "experiments.runs")  # what people read in a terminal


def name_of(path):
    """fields.autograd, or fields for its ``__init__``; "" for that of the package."""
    return ".".join(part for part in path.relative_to(HOUSE).with_suffix("").parts if part != "__init__")


FILES = {name_of(path): path.read_text(encoding="utf-8") for path in sorted(HOUSE.rglob("*.py"))}
TREES = {name: ast.parse(text) for name, text in FILES.items()}


def imported(tree):
    """Files of this package that a file imports, anywhere in it."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            names = [f"{node.module}.{name}" for name in names]
        for parts in (name.split(".")[1:] for name in names if name.split(".")[0] == "poflow_lite"):
            yield next(name for i in range(len(parts), -1, -1) if (name := ".".join(parts[:i])) in FILES)


def broken(rule, found):
    assert not list(found), f"{rule}:\n" + "\n".join(found)


def test_imports_run_strictly_downwards_between_few_rooms_and_in_no_circle_within_one():
    imports = {name: set(imported(tree)) for name, tree in TREES.items()}
    room = {name: name.split(".")[0] for name in FILES}
    assert len({*room.values(), ""} - {""}) <= 18
    broken("every room has a floor", {*room.values()} - {*FLOOR, ""})
    arrows = [(a, b) for a, below in imports.items() for b in below if a and room[a] != room[b]]
    upwards = [f"{a} imports {b}" for a, b in arrows if FLOOR.get(room[b], 9) >= FLOOR[room[a]]]
    broken("a room imports only rooms of lower floors", upwards)
    graphlib.TopologicalSorter(imports).prepare()  # raises a CycleError that shows the circle


def body_length(function):
    """Lines of a function without its docstring."""
    docstring = function.body[0] if ast.get_docstring(function) else None
    lines = docstring.end_lineno - docstring.lineno + 1 if docstring else 0
    return function.end_lineno - function.lineno + 1 - lines


def test_files_and_functions_are_short():
    broken("a file has 400 lines at most", [name for name, text in FILES.items() if text.count("\n") > 400])
    functions = [(n, node) for n, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    broken("a function has 50 lines at most", [f"{n}.{node.name}" for n, node in functions if body_length(node) > 50])


def public(body):
    return [n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]


def test_what_is_public_is_listed_and_explained():
    rooms = [name for name in FILES if name and "." not in name]
    broken("a room lists what it offers in __all__", [name for name in rooms if "__all__ = [" not in FILES[name]])
    found = {}
    for name, tree in TREES.items():
        for node in public(tree.body):
            members = public(node.body) if isinstance(node, ast.ClassDef) else []
            found |= {f"{name}.{node.name}": node} | {f"{name}.{node.name}.{member.name}": member for member in members}
    explained = {node.name for node in found.values() if ast.get_docstring(node)} | {"forward"}  # or it is an override
    broken("what is public has a docstring", [name for name, node in found.items() if node.name not in explained])


def test_nothing_is_left_to_do_or_printed_where_nobody_reads():
    for word in ("TODO", "FIXME", "XXX"):
        broken(f"no {word}", [name for name, text in FILES.items() if word in text])
    for name, tree in TREES.items():
        calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert "print" not in calls or f"{name}.".startswith(tuple(f"{room}." for room in PRINTS)), f"{name} prints"


def test_importing_the_package_loads_nothing_heavy_besides_torch():
    heavy = {"torchvision", "ot", "matplotlib", "sklearn", "seaborn", "ipywidgets", "typer", "PIL"}
    script = f"import sys, poflow_lite, poflow_lite.models, poflow_lite.training\nprint(*{heavy} & {{*sys.modules}})"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
