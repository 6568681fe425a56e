"""Exercises taken out of a lesson, so that the notebook and its checks cannot drift apart."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import torch

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
_REGION = re.compile(r"^( *)### BEGIN SOLUTION\n.*?^ *### END SOLUTION$", re.DOTALL | re.MULTILINE)


def solution(notebook: str, function: str) -> Callable[..., Any]:
    """The reference solution ``function`` of a lesson, such as ``"07-flow-factorized-vae"``."""
    return _run(_source(notebook, function), function)


def stub(notebook: str, function: str) -> Callable[..., Any]:
    """The same function as nbgrader's ClearSolutions leaves it to students."""
    empty = r"\1# YOUR CODE HERE\n\1raise NotImplementedError()"
    return _run(_REGION.sub(empty, _source(notebook, function)), function)


def _source(notebook: str, function: str) -> str:
    cells = nbformat.read(NOTEBOOKS / f"{notebook}.ipynb", as_version=4).cells
    found = [c.source for c in cells if f"def {function}(" in c.source and "### BEGIN SOLUTION" in c.source]
    assert len(found) == 1, f"{notebook} has {len(found)} solution cells of {function}"
    return found[0]


def _run(source: str, function: str) -> Callable[..., Any]:
    names: dict[str, Any] = {"torch": torch, "math": math}
    exec(source, names)
    return names[function]
