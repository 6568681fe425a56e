"""Figures: the right pixels in the right places, readable labels, alternative text that reaches readers."""

import base64
import io
import json
import re

import ipywidgets
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from poflow_lite import plotting
from poflow_lite.densities import Grid
from poflow_lite.plotting import figures, player, sliders

RED, BLUE, GREY = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0]), torch.tensor([0.5])


def solid(color, *shape):
    return color[:, None, None].expand(*shape, len(color), 4, 4)


def colors(figure):
    """The colour in which the first pixel of each image of a figure is drawn, 0 to 255."""
    images = [axis.get_images()[0] for axis in figure.axes]
    return [(255 * image.to_rgba(image.get_array())[0, 0, :3]).round().tolist() for image in images]


def test_filmstrip_puts_truth_over_prediction_with_labels():
    strip = plotting.filmstrip(solid(RED, 2, 3), solid(BLUE, 2, 3), ["scale", "hue"], "a title")
    assert colors(strip) == [[255, 0, 0]] * 3 + [[0, 0, 255]] * 3 + [[255, 0, 0]] * 3 + [[0, 0, 255]] * 3
    assert [axis.get_ylabel() for axis in strip.axes[::3]] == ["scale: true", "predicted", "hue: true", "predicted"]
    assert [axis.get_title() for axis in strip.axes[:3]] == ["t = 0", "t = 1", "t = 2"]
    assert strip.get_suptitle() == "a title"


def test_labels_of_a_filmstrip_do_not_touch_the_images():
    strip = plotting.filmstrip(solid(RED, 1, 9), solid(BLUE, 1, 9), ["a long transformation name"], "title")
    canvas = FigureCanvasAgg(strip)
    canvas.draw()
    renderer = canvas.get_renderer()
    label = strip.axes[0].yaxis.label.get_window_extent(renderer)
    assert 0 <= label.x0 < label.x1 <= strip.axes[0].get_window_extent(renderer).x0 + 1


@pytest.mark.parametrize(
    ("color", "drawn"),
    [(GREY, [128] * 3), (0 * GREY + 0.2, [51] * 3), (0 * RED - 0.5, [0] * 3), (0 * RED + 1.5, [255] * 3)],
)
def test_grey_is_grey_on_the_whole_range_and_what_lies_outside_is_clipped(color, drawn):
    images = solid(color, 1, 1)
    assert colors(plotting.image_grid(images)) == [drawn]
    assert Image.open(io.BytesIO(plotting.gif(images[None]))).convert("RGB").getpixel((0, 0)) == tuple(drawn)


def test_gif_plays_forth_and_back(tmp_path):
    frames = torch.stack([solid(RED, 2, 1)[:, 0], solid(BLUE, 2, 1)[:, 0], solid(RED, 2, 1)[:, 0]], 1)[None]
    data = plotting.gif(frames, str(tmp_path / "x.gif"), scale=2)
    assert (tmp_path / "x.gif").read_bytes() == data
    picture = Image.open(io.BytesIO(data))
    assert picture.n_frames == 4  # t = 0, 1, 2, 1
    assert picture.size == (2 * 4 * 2, 4 * 2)
    picture.seek(1)
    assert picture.convert("RGB").getpixel((0, 0)) == (0, 0, 255)


def test_bars_show_the_figures_they_are_given():
    errors = {"no_motion": {"scale": 10.0, "hue": 11.0}, "equivariance_error": {"scale": 20.0, "hue": 21.0}}
    axis = plotting.equivariance_bars(errors, "t").axes[0]
    assert [bar.get_height() for bar in axis.patches] == [10, 11, 20, 21]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["no motion", "model"]


def test_what_is_shown_carries_its_alternative_text_in_html(monkeypatch):
    seen = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: seen.append(data))
    data = plotting.gif(solid(RED, 1, 1, 3))
    plotting.show(plotting.figure()[0], 'a "line" that rises')
    plotting.show_gif(data, "nothing moves")
    images = [re.search(r'src="data:image/(\w+);base64,(.*?)" alt="(.*?)"', shown["text/html"]) for shown in seen]
    assert [image[1] for image in images] == ["png", "gif"]
    assert [image[3] for image in images] == ["a &quot;line&quot; that rises", "nothing moves"]
    assert [shown["text/plain"] for shown in seen] == ['[figure] a "line" that rises', "[figure] nothing moves"]
    assert Image.open(io.BytesIO(base64.b64decode(images[0][2]))).width == 1120, "160 pixels an inch"
    assert 'width="700"' in seen[0]["text/html"], "which a screen shows in 100"
    assert base64.b64decode(images[1][2]) == data


def test_pictures_have_a_palette_and_keep_their_shades():
    fig, axis = plotting.figure()
    axis.plot([0, 1])
    hues = np.random.default_rng(0).random((200, 200, 3))  # no palette has so many
    for colors, mode in ((hues[:3, :3], "P"), (hues, "RGB")):
        axis.imshow(colors)
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=160)
        true, kept = Image.open(buffer).convert("RGB"), Image.open(io.BytesIO(figures.png(fig)))
        assert kept.mode == mode
        assert np.abs(np.asarray(true, int) - np.asarray(kept.convert("RGB"), int)).mean() < 1


@pytest.fixture
def shown(monkeypatch):
    """Sliders and what was displayed with them, for ``explore`` of a figure whose title is its arguments."""

    def explore(draw, seconds=0.0, **options):
        clock, seen = iter([0.0, seconds]), []
        monkeypatch.setattr(figures, "png", lambda title: title.encode())
        monkeypatch.setattr(figures, "screen_width", len)
        monkeypatch.setattr(sliders.time, "perf_counter", lambda: next(clock))
        monkeypatch.setattr(ipywidgets.VBox, "_repr_mimebundle_", lambda box: {"view": box}, raising=False)
        monkeypatch.setattr("IPython.display.display", lambda data, raw: seen.append(data))
        plotting.explore(draw, "alt", **options)
        *rows, picture = seen[0]["view"].children
        return rows, picture, seen[0]

    return explore


def pictured(html):
    return base64.b64decode(re.search('base64,(.*?)"', html)[1]).decode()


def test_sliders_start_where_they_should_and_redraw_with_the_chosen_values(shown):
    wells, start, labels = {"few": 1, "many": 5}, {"left_well": 5, "t": 1}, {"t": "time, frames"}
    options = {"left_well": wells, "t": range(3), "x": [0.1 + 0.2], "start": start, "labels": labels, "play": "t"}
    rows, picture, output = shown(lambda left_well, t, x: f"{left_well} {t}", **options)
    left, (time, button), x = rows[0], rows[1].children, rows[2]
    assert pictured(output["text/html"]) == pictured(picture.value) == "5 1"  # where no slider is alive, the start
    assert output["text/plain"] == "[figure] alt"
    assert [slider.description for slider in (left, time, x)] == ["left well", "time, frames", "x"]
    assert [slider.tooltip for slider in (left, time, button)] == ["left well", "time, frames", "play time, frames"]
    assert [slider.label for slider in (left, time, x)] == ["many", "1", "0.3"]
    assert (button.value, button.max) == (1, 2)
    left.value, time.index = 1, 2
    assert pictured(picture.value) == "1 2"
    assert 'alt="alt"' in picture.value


@pytest.mark.parametrize(("seconds", "follows"), [(0.19, True), (0.21, False)])
def test_a_figure_follows_a_dragged_slider_if_it_is_drawn_quickly(shown, seconds, follows):
    rows, _, _ = shown(lambda t: str(t), seconds, t=range(2))
    assert rows[0].continuous_update is follows


def test_an_error_while_a_slider_moves_takes_the_place_of_the_picture(shown):
    rows, picture, _ = shown(lambda t: f"{1 / (t - 1)}", t=range(3))
    rows[0].value = 1
    assert re.fullmatch("<pre>ZeroDivisionError: .*division by zero</pre>", picture.value)
    rows[0].value = 2
    assert pictured(picture.value) == "1.0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": {"t": 7}}, r"the slider 't' offers \[0, 1\], not its start 7: give values, the start among them"),
        ({"s": []}, r"the slider 's' offers \[\]: give values"),
        ({"start": {"x": 0}}, "no slider is called 'x'; there are: t"),
        ({"labels": {"y": "why"}}, "no slider is called 'y'"),
        ({"play": "z"}, "no slider is called 'z'"),
    ],
)
def test_sliders_that_cannot_be_are_refused(shown, options, message):
    with pytest.raises(ValueError, match=message):
        shown(lambda t, s=0: "", t=range(2), **options)


def test_on_a_page_a_figure_with_sliders_has_all_its_pictures_and_needs_no_kernel(monkeypatch):
    """A picture for each pair of stops, in the order in which the script counts them; one stop needs no slider."""
    seen = []

    def colored(left, t, fixed):
        fig, _ = plotting.figure(0.5, 0.5)
        fig.set_facecolor((left / 255, t / 255, fixed / 255))
        for axis in fig.axes:
            axis.remove()
        return fig

    monkeypatch.setenv(sliders.PLAYERS, "1")
    monkeypatch.setattr("IPython.display.display", lambda data, raw, metadata: seen.append(data["text/html"]))
    offered = {"left": {"few </b>": 10, "many": 200}, "t": range(3), "fixed": [77]}
    plotting.explore(colored, "a colour", {"t": 1}, {"t": "time"}, "t", **offered)
    data = json.loads(re.search('<script type="application/json">(.*?)</script>', seen[0])[1])
    assert data["stops"] == [["few </b>", "many"], ["0", "1", "2"]]
    images = [Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB") for picture in data["pictures"]]
    assert [image.getpixel((20, 20)) for image in images] == [(left, t, 77) for left in (10, 200) for t in range(3)]
    assert re.search(r'<label>time <input type="range" min="0" max="2" value="1"> <output>1</output>', seen[0])
    assert seen[0].count("<input") == 2
    assert seen[0].count("<button") == 1


@pytest.mark.parametrize(
    ("counts", "play", "kept"),
    [
        ({"t": 9, "a": 4, "b": 2}, "t", [9, 4, 2]),
        ({"t": 9, "a": 5, "b": 5, "c": 5, "d": 6}, "t", [9, 2, 2, 2, 1]),
        ({"t": 300, "a": 3}, "t", [72, 1]),
        ({"a": 6, "b": 7, "c": 8}, None, [4, 4, 4]),
    ],
)
def test_a_player_holds_at_most_72_pictures_and_the_start_is_one_of_them(counts, play, kept):
    for start in (0, 1):
        stops = player.thinned(counts, dict.fromkeys(counts, start), play)
        assert [len(own) for own in stops.values()] == kept
        assert all(start in own and own == sorted({*own}) for own in stops.values())


def test_a_player_of_large_pictures_holds_fewer(monkeypatch):
    noise = np.random.default_rng(0).random((300, 300))

    def noisy(t):
        fig, axis = plotting.figure(3, 3)
        axis.imshow(noise, cmap="gray")
        return fig

    held = player.player(noisy, {"t": [(str(t), t) for t in range(9)]}, {"t": 4}, {"t": "t"}, None, "")
    assert held.count("iVBOR") == 9
    monkeypatch.setattr(player, "BYTES", len(held) // 9 * 3)
    few = player.player(noisy, {"t": [(str(t), t) for t in range(9)]}, {"t": 4}, {"t": "t"}, None, "")
    assert 3 <= few.count("iVBOR") <= 4


def test_a_figure_needs_an_alternative_text():
    with pytest.raises(ValueError, match="alt is empty: say in a sentence"):
        plotting.show(plotting.figure()[0], " ")


def test_cloud_tracks_and_arrows_put_points_where_they_are():
    _fig, axis = plotting.figure()
    points, vectors = torch.tensor([[0.0, 1.0], [2.0, 3.0]]), torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    plotting.cloud(axis, points, 1, "here")
    plotting.arrows(axis, points, vectors)
    plotting.tracks(axis, torch.stack([points, points + vectors], 1))
    scatter, quiver = axis.collections
    np.testing.assert_allclose(scatter.get_offsets(), points)
    assert scatter.get_label() == "here"
    np.testing.assert_allclose(np.stack([quiver.U, quiver.V], 1), vectors)
    np.testing.assert_allclose(axis.lines[1].get_xydata(), [[2, 3], [2, 2]])
    assert axis.get_aspect() == 1


def test_density_is_drawn_the_right_way_round():
    """A peak at (x, y) = (1.5, -0.5) of a grid with fewer cells along y than along x."""
    grid = Grid((-2.0, -1.0), (2.0, 1.0), (4, 2))
    values = ((grid.points - torch.tensor([1.5, -0.5])).norm(dim=1) < 0.1).double()
    _fig, axis = plotting.figure()
    plotting.density(axis, grid, values, contours=2, top=1.0)
    mesh = axis.collections[0]
    assert np.unravel_index(mesh.get_array().argmax(), (2, 4)) == (0, 3)  # rows are y, columns x
    assert mesh.get_clim() == (0, 1.0)


def test_bad_images_are_refused_and_pyplot_is_left_alone():
    import matplotlib.pyplot as plt

    with pytest.raises(ValueError, match=r"must be \(3, H, W\) in colour or \(1, H, W\) in grey, got \(2, 4, 4\)"):
        plotting.image_grid(torch.zeros(1, 1, 2, 4, 4))
    assert not plt.get_fignums()
