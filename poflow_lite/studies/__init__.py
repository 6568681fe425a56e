"""Studies: grids of trainings that answer a question with a table and a figure.

``STUDIES["comparison"]`` is one, :func:`run_study` runs it, :func:`report` makes table and figure of a recorded result.
All are loaded when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["STUDIES", "Study", "mean_and_spread", "report", "run_cells", "run_study", "settings_of"]

_NAMES = ("tuning", "comparison", "ablations", "generalisation", "cost", "beyond", "transport", "full")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "STUDIES":
        found: Any = {study: import_module(f"{__name__}.{study}").STUDY for study in _NAMES}
    else:
        found = getattr(import_module(f"{__name__}.study"), name)
    globals()[name] = found
    return found
