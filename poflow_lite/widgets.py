"""Sliders for notebooks: they redraw a figure where a kernel is live, and leave nothing behind where none is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure

from poflow_lite.plotting import show

__all__ = ["explore"]


def explore(draw: Callable[..., Figure], alt: str, **choices: Sequence[Any]) -> None:
    """Show one slider for each argument of ``draw`` and redraw its figure as they move.

    The saved notebook drops the sliders: put a static figure of several settings before them, so that the printed page
    and the live one tell the same story.

    Args:
        draw: keyword arguments, one value of each of ``choices``, ↦ figure.
        alt: alternative text of the figure.
        choices: argument name ↦ the values that its slider offers, in order.
    """
    import ipywidgets
    from IPython.display import display

    sliders = {
        name: ipywidgets.SelectionSlider(options=list(values), description=name, continuous_update=False)
        for name, values in choices.items()
    }
    output = ipywidgets.interactive_output(lambda **values: show(draw(**values), alt), sliders)
    display(ipywidgets.VBox([*sliders.values(), output]))
