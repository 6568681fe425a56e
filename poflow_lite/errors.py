"""The wording of mistakes that can be made in many places."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["require_known"]


def require_known(what: str, name: str, known: Iterable[str]) -> None:
    """Raise a ValueError that lists the known names unless ``name`` is one of them; ``what`` says what it names."""
    known = list(known)
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}; known: {', '.join(known)}")
