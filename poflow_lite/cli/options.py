"""What all commands share: the application, their common options, and how the texts of options are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from poflow_lite.errors import require_known

__all__ = [
    "Assign",
    "Budget",
    "Data",
    "Device",
    "Jobs",
    "Out",
    "Seed",
    "Seeds",
    "Split",
    "app",
    "assignments",
    "numbers",
    "require_all_done",
    "values_of",
]

app = typer.Typer(
    help="Flow-factorized representation learning: train, measure and look.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Out = Annotated[Path, typer.Option("--out", help="Folder of the run.")]
Seed = Annotated[int, typer.Option("--seed", help="Decides weights and every draw.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Budget = Annotated[str, typer.Option("--budget", help="smoke (seconds), lecture (minutes) or full (hours, or a GPU).")]
Data = Annotated[
    str,
    typer.Option(
        "--data", help="digits, mnist, letters, sprites; shapes3d, falcor3d, isaac3d, or rendered: shapes3d-lite, …"
    ),
]
Seeds = Annotated[str, typer.Option("--seeds", help="Separated by commas.")]
Jobs = Annotated[int, typer.Option("--jobs", help="Cells that run at once, each on its share of the cores.")]
Split = Annotated[str, typer.Option("--split", help="test, or validation when choosing settings.")]
Assign = Annotated[
    list[str] | None,
    typer.Option("--set", help="NAME=VALUE, a setting of the recipe or of the model; may be repeated."),
]


def values_of(text: str, option: str) -> tuple[str, list[Any]]:
    """NAME=V1,V2,… as the name and its values: numbers where they read as numbers, words otherwise."""
    name, equals, values = text.partition("=")
    if not (name and equals and values):
        raise ValueError(f"{option} takes NAME=VALUE, got {text!r}")

    def read(value: str) -> Any:
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
        return value

    return name.strip().replace("-", "_"), [read(value.strip()) for value in values.split(",")]


def assignments(texts: list[str] | None) -> dict[str, Any]:
    """Settings given by ``--set NAME=VALUE``; several values separated by commas are a tuple.

    Raises:
        ValueError: for what is no setting of any model, such as the name of another option.
    """
    from poflow_lite.recipes import MODELS, Recipe

    pairs = [values_of(text, "--set") for text in texts or []]
    known = {entry.name for entry in fields(Recipe)} - {"own"} | {name for own in MODELS.values() for name in own}
    for name, _ in pairs:
        require_known("setting", name, sorted(known))
    return {name: values[0] if len(values) == 1 else tuple(values) for name, values in pairs}


def numbers(text: str, option: str, kind: Callable[[str], float]) -> list:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} takes numbers separated by commas, got {text!r}") from None


def require_all_done(result: dict[str, Any], out: Path) -> None:
    """Raise a ValueError that names the cells of a grid that failed, once what is done has been shown."""
    if result["failed"]:
        raise ValueError(
            f"{len(result['failed'])} cells failed ({', '.join(result['failed'])}): their error.txt in {out} says why; "
            "the same command tries them again"
        )
