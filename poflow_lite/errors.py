"""The wording of mistakes that can be made in many places."""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["require_known", "require_weights"]


def require_known(what: str, name: str, known: Iterable[str]) -> None:
    """Raise a ValueError that lists the known names unless ``name`` is one of them; ``what`` says what it names."""
    known = list(known)
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}; known: {', '.join(known)}")


def require_weights(**weights: float) -> None:
    """Raise a ValueError that names the first weight of a loss that is negative or not finite."""
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"{name} must be a finite number of at least 0, got {weight}")
