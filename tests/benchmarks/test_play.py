"""How long the page that moves a digit takes to draw it: ``pytest tests/benchmarks/test_play.py``. It aims at 50 ms."""

import itertools

import pytest
import torch
from test_course_play import address, page, written  # noqa: F401, fixtures

SLIDE = """([id, value]) => new Promise(done => {
  const input = document.getElementById(id), began = performance.now();
  document.addEventListener("drawn", () => done(performance.now() - began), { once: true });
  input.value = value;
  input.dispatchEvent(new Event("input"));
})"""


@pytest.mark.enable_socket  # to a server on this machine
@pytest.mark.benchmark(group="from a slider that is moved to its picture", min_rounds=35, warmup=True)
@pytest.mark.parametrize("slider", ["time", "speed-hue"])
def test_picture(benchmark, page, slider):  # noqa: F811
    """A frame, and a path of frames. Rounds include the way to the browser; ``milliseconds`` are the page's own."""
    places, taken = itertools.cycle(range(20)), []
    benchmark(lambda: taken.append(page.evaluate(SLIDE, [slider, str(0.05 * next(places))])))
    half, most = torch.tensor(taken).quantile(torch.tensor([0.5, 0.9])).tolist()
    benchmark.extra_info["milliseconds"] = half
    print(f"\n{slider}: median {half:.1f} ms, 9 of 10 under {most:.1f} ms")
