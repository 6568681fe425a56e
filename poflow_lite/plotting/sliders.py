"""Figures with sliders: redrawn by a living kernel, and on a page from pictures that were drawn before."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure

from poflow_lite.plotting.figures import picture as picture_of
from poflow_lite.plotting.player import player

__all__ = ["explore"]

PLAYERS = "POFLOW_PLAYERS"
"""Set in the environment where lessons are executed for pages: then every figure with sliders brings its player."""


def explore(
    draw: Callable[..., Figure],
    alt: str,
    start: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    play: str | None = None,
    **choices: Sequence[Any] | Mapping[str, Any],
) -> None:
    """Show one slider for each argument of ``draw`` and redraw its figure as they move.

    Where no sliders are alive the figure at the start is shown, or, if the lesson was executed for pages, a player
    (:func:`player.player`). While a slider is dragged the figure follows, provided that drawing it took less than 0.2 s
    the first time.

    Args:
        draw: keyword arguments, one value of each of ``choices``, ↦ figure.
        alt: alternative text of the figure.
        start: argument name ↦ value to begin with; the first of its values where a name is absent.
        labels: argument name ↦ what people read beside its slider; the name itself where it is absent.
        play: name of the argument, such as the time, that gets a button that runs through its values.
        choices: argument name ↦ the values that its slider offers, in order, or what people read ↦ value.

    Raises:
        ValueError: for no values, a start that is not among them, or a name that is no argument.
    """
    import ipywidgets
    from IPython.display import display

    pairs = {name: _pairs(values) for name, values in choices.items()}
    if strange := [name for name in (*(start or {}), *(labels or {}), *filter(None, [play])) if name not in pairs]:
        raise ValueError(f"no slider is called {strange[0]!r}; there are: {', '.join(pairs) or 'none'}")
    labels = {name: name.replace("_", " ") for name in pairs} | dict(labels or {})
    index = {name: _index(name, pairs[name], start or {}) for name in pairs}
    began = time.perf_counter()
    first = picture_of(draw(**{name: pairs[name][i][1] for name, i in index.items()}), alt)
    seconds = time.perf_counter() - began
    picture, sliders, rows = ipywidgets.HTML(first), {}, []

    def redraw(_: Any) -> None:
        try:
            drawn = draw(**{name: slider.value for name, slider in sliders.items()})
            picture.value = picture_of(drawn, alt)
        except Exception as error:  # its traceback would go to a log that nobody reads
            picture.value = f"<pre>{escape(f'{type(error).__name__}: {error}')}</pre>"

    for name, i in index.items():
        label = labels[name]
        options = {"description": label, "tooltip": label, "style": {"description_width": "initial"}}
        slider = ipywidgets.SelectionSlider(options=pairs[name], index=i, continuous_update=seconds < 0.2, **options)
        slider.observe(redraw, "value")
        sliders[name] = slider
        rows.append(slider)
        if name == play:
            timing = {"max": len(pairs[name]) - 1, "interval": max(200, int(1500 * seconds))}
            button = ipywidgets.Play(value=i, tooltip=f"play {label}", **timing)
            ipywidgets.jslink((button, "value"), (slider, "index"))
            rows[-1] = ipywidgets.HBox([slider, button])
    # One output in two forms: a front end without widgets, or without this kernel, shows the figure.
    view = ipywidgets.VBox([*rows, picture])._repr_mimebundle_()
    page, told = first, {}
    if os.environ.get(PLAYERS):
        began = time.perf_counter()
        page = player(draw, pairs, index, labels, play, first)
        told = {"metadata": {PLAYERS: time.perf_counter() - began}}  # not spent by those who only run the lesson
    display({**view, "text/html": page, "text/plain": f"[figure] {alt}"}, raw=True, **told)


def _pairs(values: Sequence[Any] | Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What people read beside a slider, and the value."""
    if isinstance(values, Mapping):
        return list(values.items())
    return [(f"{value:g}" if isinstance(value, float) else str(value), value) for value in values]


def _index(name: str, pairs: list[tuple[str, Any]], start: Mapping[str, Any]) -> int:
    values = [value for _, value in pairs]
    if not values or start.get(name, values[0]) not in values:
        begins = f", not its start {start[name]!r}" if name in start else ""
        raise ValueError(f"the slider {name!r} offers {values}{begins}: give values, the start among them")
    return values.index(start.get(name, values[0]))
