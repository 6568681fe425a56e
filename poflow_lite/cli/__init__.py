"""The command ``poflow-lite``."""

from __future__ import annotations

import sys

import typer

from poflow_lite.cli import runs, studies, teaching
from poflow_lite.cli.options import app

__all__ = ["app", "main", "runs", "studies", "teaching"]


def main() -> None:
    """Run the command; a user's mistake is one line on standard error, never a traceback."""
    try:
        app()
    except (ValueError, OSError, FloatingPointError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
