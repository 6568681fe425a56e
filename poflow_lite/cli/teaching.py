"""Commands for those who write lessons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poflow_lite.cli.options import app

__all__ = ["execute", "student"]


@app.command()
def student(
    out: Annotated[Path, typer.Argument(help="Folder to write to.")],
    notebooks: Annotated[Path, typer.Option("--notebooks", help="Folder of the lessons.")] = Path("notebooks"),
) -> None:
    """Write the lessons without solutions and outputs, for students."""
    from poflow_lite import lessons

    for path in lessons.find_lessons(notebooks):
        typer.echo(lessons.student_version(path, out))


@app.command()
def execute(
    paths: Annotated[list[Path] | None, typer.Argument(help="Lessons; all of notebooks/ by default.")] = None,
) -> None:
    """Run lessons in a fresh kernel and save their outputs: this, and nothing else, makes what is committed."""
    from poflow_lite import lessons

    for path in paths or lessons.find_lessons():
        seconds = lessons.execute(path)
        problems = lessons.lint(path)
        typer.echo(f"{path.name}: {seconds:.0f} s, " + ("no problems" if not problems else f"{len(problems)} problems"))
        for problem in problems:
            typer.echo(f"  {problem}")
