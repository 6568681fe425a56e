"""Figures: the right pixels in the right places, readable labels, alternative text that reaches readers."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from poflow_lite import plotting
from poflow_lite.densities import Grid

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


@pytest.mark.parametrize(("bounce", "frames"), [(False, 4), (True, 6)])
def test_figure_gif_plays_every_frame(bounce, frames):
    def draw(i):
        fig, axis = plotting.figure(2, 2)
        axis.plot([0, i], [0, 1])
        return fig

    picture = Image.open(io.BytesIO(plotting.figure_gif(draw, 4, 50, bounce)))
    assert (picture.n_frames, picture.info["duration"], picture.size) == (frames, 50, (200, 200))


def test_bars_and_curves_show_the_figures_they_are_given():
    errors = {"no_motion": {"scale": 10.0, "hue": 11.0}, "equivariance_error": {"scale": 20.0, "hue": 21.0}}
    axis = plotting.equivariance_bars(errors, "t").axes[0]
    assert [bar.get_height() for bar in axis.patches] == [10, 11, 20, 21]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["no motion", "model"]
    history = [{"step": s, "seconds": s, "learning_rate": 1, "loss": 0, "kl": s, "reconstruction": -s} for s in (1, 2)]
    figure = plotting.training_curves(history, per="frame")
    assert [axis.get_title() for axis in figure.axes] == ["kl", "reconstruction"]
    assert list(figure.axes[0].lines[0].get_ydata()) == [1, 2]
    assert figure.axes[0].get_ylabel() == "nats per frame"


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
    assert Image.open(io.BytesIO(base64.b64decode(images[0][2]))).width == 700
    assert base64.b64decode(images[1][2]) == data


def test_sliders_redraw_with_the_chosen_values(monkeypatch):
    drawn, displayed = [], []
    monkeypatch.setattr(plotting, "show", lambda figure, alt: drawn.append((figure, alt)))
    monkeypatch.setattr("IPython.display.display", displayed.append)
    plotting.explore(lambda left_well, t: (left_well, t), "alt", left_well=["scale", "hue"], t=range(3))
    sliders = displayed[0].children[:2]
    sliders[0].value, sliders[1].value = "hue", 2
    assert drawn[0] == (("scale", 0), "alt")
    assert drawn[-1] == (("hue", 2), "alt")
    assert [slider.description for slider in sliders] == ["left well", "t"]


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
