"""What all commands say alike."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def interruptible(advice: str) -> Iterator[None]:
    """Answer an interruption with one line and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {advice}", err=True)
        raise typer.Exit(130) from None
