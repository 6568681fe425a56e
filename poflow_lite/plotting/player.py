"""Players: a figure with sliders that needs no kernel, because all its pictures are in the page."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import prod
from typing import Any

from matplotlib.figure import Figure

from poflow_lite.plotting.figures import few_colors

LIMIT, BYTES = 72, 600_000
"""Pictures of one player, and their bytes together, at most: a saved lesson has some megabytes for all its figures."""

_PAGE = """\
<div class="poflow-player" id="{id}">
{start}
<div class="controls" hidden>{controls}</div>
<script type="application/json">{data}</script>
<script>
(root => {{
  const data = JSON.parse(root.querySelector("script").textContent);
  const image = root.querySelector("img"), sliders = [...root.querySelectorAll("input")];
  const show = () => {{
    let picture = 0;
    sliders.forEach((slider, i) => {{
      const said = data.stops[i][slider.value];
      picture = picture * data.stops[i].length + Number(slider.value);
      slider.setAttribute("aria-valuetext", said);
      slider.nextElementSibling.textContent = said;
    }});
    image.src = "data:image/png;base64," + data.pictures[picture];
  }};
  sliders.forEach(slider => slider.addEventListener("input", show));
  const button = root.querySelector("button");
  let playing = null;
  if (button) button.addEventListener("click", () => {{
    const slider = button.parentElement.querySelector("input");
    clearInterval(playing);
    playing = playing ? null : setInterval(() => {{
      slider.value = (Number(slider.value) + 1) % (Number(slider.max) + 1);
      show();
    }}, 400);
    button.textContent = playing ? "stop" : "play";
  }});
  root.querySelector(".controls").hidden = false;
}})(document.getElementById("{id}"));
</script>
</div>"""


def player(
    draw: Callable[..., Figure],
    pairs: Mapping[str, Sequence[tuple[str, Any]]],
    index: Mapping[str, int],
    labels: Mapping[str, str],
    play: str | None,
    start: str,
) -> str:
    """HTML of a figure with sliders whose pictures are drawn now, for pages on which no kernel lives.

    Without JavaScript the picture at the start is seen. Of many combinations at most :data:`LIMIT` are drawn, or fewer
    where they are large: the sliders have fewer stops (:func:`thinned`), or stay where they start and are left out.

    Args:
        draw, labels, play: as for :func:`sliders.explore`; a label for every argument.
        pairs, index: argument ↦ what people read and the value, for each stop; and the stop at the start.
        start: the picture at the start, as HTML.
    """

    def drawn(chosen: Sequence[int]) -> bytes:
        buffer = io.BytesIO()
        values = {name: pairs[name][i][1] for name, i in zip(pairs, chosen, strict=True)}
        few_colors(draw(**values)).save(buffer, "PNG", optimize=True)
        return buffer.getvalue()

    most = max(2, min(LIMIT, BYTES // len(drawn([index[name] for name in pairs]))))
    stops = thinned({name: len(values) for name, values in pairs.items()}, index, play, most)
    pictures = [b64encode(drawn(chosen)).decode() for chosen in itertools.product(*stops.values())]
    moving = [name for name in stops if len(stops[name]) > 1]
    said = [[pairs[name][i][0] for i in stops[name]] for name in moving]
    controls = []
    for name, texts in zip(moving, said, strict=True):
        place = stops[name].index(index[name])
        slider = f'<input type="range" min="0" max="{len(texts) - 1}" value="{place}">'
        button = '<button type="button">play</button>' if name == play else ""
        text = f"<label>{escape(labels[name])} {slider} <output>{escape(texts[place])}</output></label>"
        controls.append(f"<div>{text} {button}</div>")
    data = json.dumps({"stops": said, "pictures": pictures}).replace("</", "<\\/")
    identity = f"player-{hashlib.sha256(data.encode()).hexdigest()[:12]}"
    return _PAGE.format(id=identity, start=start, controls="".join(controls), data=data)


def thinned(
    counts: Mapping[str, int], index: Mapping[str, int], play: str | None = None, most: int = LIMIT
) -> dict[str, list[int]]:
    """Stops of each slider, the start among them, so that there are at most ``most`` combinations of them.

    The longest slider gives up stops first, down to two each; then whole sliders from the last, and only then the one
    that plays.

    >>> thinned({"t": 9, "k": 3}, {"t": 6, "k": 0})
    {'t': [0, 1, 2, 3, 4, 5, 6, 7, 8], 'k': [0, 1, 2]}
    >>> thinned({"t": 288}, {"t": 5})["t"][:5]
    [0, 5, 8, 12, 16]
    """
    kept = dict(counts)
    while prod(kept.values()) > most:
        others = [name for name in kept if name != play and kept[name] > 1] or list(kept)
        longest = max(others, key=kept.__getitem__)
        if kept[longest] > 2 or longest == play:
            kept[longest] -= 1
        else:
            kept[others[-1]] = 1
    return {name: _stops(counts[name], kept[name], index[name]) for name in counts}


def _stops(count: int, kept: int, start: int) -> list[int]:
    """``kept`` of ``count`` stops at even distances; the one nearest to the start gives way to it."""
    if kept == 1:
        return [start]
    even = [round(i * (count - 1) / (kept - 1)) for i in range(kept)]
    nearest = min(range(kept), key=lambda i: abs(even[i] - start))
    return [start if i == nearest else stop for i, stop in enumerate(even)]
