"""What the tables of all studies share: Markdown, figures with their spread, and where figures come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

__all__ = ["markdown_table", "mean_and_spread", "origin"]


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A Markdown table, its first ``words`` columns aligned at the left and the others, figures, at the right."""
    rule = "|" + "---|" * words + "---:|" * (len(headings) - words)
    return "\n".join([_line(headings), rule, *map(_line, rows)])


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def mean_and_spread(values: Sequence[float], form: str) -> str:
    """Mean ± standard deviation (with n - 1) of the values of several seeds, without the latter for a single one."""
    return f"{mean(values):{form}}" + (f" ± {stdev(values):{form}}" if len(values) > 1 else "")


def origin(result: Mapping[str, Any], device: str) -> str:
    """The last line of a table: the command, the device, and the versions of what the figures depend on."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return f"`{result['command']}`; {device}; {versions}."
