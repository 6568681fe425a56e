"""Each script of ``examples/`` runs, ends in the comparison's table, and is as short as it promises."""

import ast
import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
USERS_LINES = 10  # from the definition to its row in the table, imports and docstrings not counted


def lines_of_code(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body = node.body[1:]
    tree.body = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]
    return len([line for line in ast.unparse(tree).splitlines() if line.strip()])


def test_there_are_six():
    assert len(EXAMPLES) == 6


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(path))
    printed = capsys.readouterr().out
    if "run" in names:
        assert names["run"].model.beta == names["run"].settings.beta, "a model of one's own has the recipe's weight"
    for name in (*names["training"].names, "no motion", "linear"):
        assert name in printed, f"{name} is not in the table"
    assert lines_of_code(path) <= USERS_LINES, f"{lines_of_code(path)} lines of a user's code"
