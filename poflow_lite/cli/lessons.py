"""``poflow-lite course``: for those who write or teach the lessons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poflow_lite.cli.terminal import interruptible

lessons = typer.Typer(help="For those who write or teach the lessons.", no_args_is_help=True)

Lessons = Annotated[list[Path] | None, typer.Argument(help="Lessons; all of notebooks/ by default.")]


@lessons.command()
def execute(paths: Lessons = None) -> None:
    """Run lessons in a fresh kernel and save their outputs: this, and nothing else, makes what is committed."""
    from poflow_lite import course

    with interruptible("the lessons that were named are saved, the others as they were"):
        for path in paths or course.find_lessons():
            typer.echo(f"{path.name}: {course.execute(path):.0f} s")
    _lint(paths)


@lessons.command()
def lint(paths: Lessons = None) -> None:
    """Say what is wrong with lessons as they are committed, a line each."""
    _lint(paths)


def _lint(paths: list[Path] | None) -> None:
    from poflow_lite import course

    problems = [f"{path.name}: {problem}" for path in paths or course.find_lessons() for problem in course.lint(path)]
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise ValueError(f"{len(problems)} problems in the lessons: the lines above say which")


@lessons.command()
def text(out: Annotated[Path, typer.Argument(help="Folder to write to.")] = Path("notebooks/text")) -> None:
    """Write the text of all lessons as Markdown, in which a reviewer sees what changed (needs Jupytext)."""
    from poflow_lite import course

    for path in course.write_texts(course.find_lessons(), out):
        typer.echo(path)


@lessons.command()
def results(out: Annotated[Path, typer.Argument(help="Folder to write to.")] = Path("docs/results")) -> None:
    """Write a page with table and figure for every record of data/results."""
    from poflow_lite.studies.records import publish

    for path in publish(out):
        typer.echo(path)


@lessons.command()
def build(
    out: Annotated[Path, typer.Argument(help="Folder to write to.")],
    kind: Annotated[str, typer.Option("--kind", help="student, solutions, teacher, pages or nbgrader.")] = "student",
    notebooks: Annotated[Path, typer.Option("--notebooks", help="Folder of the lessons.")] = Path("notebooks"),
) -> None:
    """Write the lessons for students (no solutions, no outputs), with solutions, for teachers, or as graded sheets."""
    from poflow_lite import course

    for path in course.build(course.find_lessons(notebooks), out, kind):
        typer.echo(path)


@lessons.command()
def slides(
    out: Annotated[Path, typer.Argument(help="Folder to write to.")],
    notebooks: Annotated[Path, typer.Option("--notebooks", help="Folder of the lessons.")] = Path("notebooks"),
) -> None:
    """Write a deck of slides for each lesson, to open in a browser: questions, formulas, figures, findings."""
    from poflow_lite import course

    for path in course.write_slides(course.find_lessons(notebooks), out):
        typer.echo(path)


@lessons.command()
def play(out: Annotated[Path, typer.Argument(help="Folder to write to.")]) -> None:
    """Write the page that runs a trained model in the browser; ``python -m http.server`` in OUT shows it."""
    from poflow_lite.course.play import write

    for path in write(out):
        typer.echo(path)


@lessons.command()
def site(
    out: Annotated[Path, typer.Argument(help="Folder to write to.")],
    notebooks: Annotated[Path, typer.Option("--notebooks", help="Folder of the lessons.")] = Path("notebooks"),
) -> None:
    """Write the course as a web site: lessons with their outputs, results, the package; nothing is executed."""
    from poflow_lite import course

    with interruptible("the same command starts anew"):
        for line in course.build_site(out, notebooks=notebooks):
            typer.echo(line)
