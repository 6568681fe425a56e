"""Figures: the right pixels in the right places, readable labels, alternative text."""

import io

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from poflow_lite import plotting, widgets
from poflow_lite.densities import Grid

RED, BLUE = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0])


def solid(color, *shape):
    return color[:, None, None].expand(*shape, 3, 4, 4)


def shown_images(figure):
    """The (H, W, 3) arrays of a figure's axes, in order."""
    return [axis.get_images()[0].get_array() for axis in figure.axes]


def test_filmstrip_puts_truth_over_prediction_with_labels():
    strip = plotting.filmstrip(solid(RED, 2, 3), solid(BLUE, 2, 3), ["scale", "hue"], "a title")
    colors = np.array([image[0, 0] for image in shown_images(strip)]).reshape(4, 3, 3)
    assert (colors[[0, 2]] == [255, 0, 0]).all()
    assert (colors[[1, 3]] == [0, 0, 255]).all()
    assert [axis.get_ylabel() for axis in strip.axes[::3]] == ["scale: true", "predicted", "hue: true", "predicted"]
    assert [axis.get_title() for axis in strip.axes[:3]] == ["t = 0", "t = 1", "t = 2"]
    assert strip.get_suptitle() == "a title"


def test_labels_of_a_filmstrip_do_not_touch_the_images():
    strip = plotting.filmstrip(solid(RED, 1, 9), solid(BLUE, 1, 9), ["a long transformation name"], "title")
    canvas = FigureCanvasAgg(strip)
    canvas.draw()
    renderer = canvas.get_renderer()
    label = strip.axes[0].yaxis.label.get_window_extent(renderer)
    assert label.x0 >= 0
    assert label.x1 <= strip.axes[0].get_window_extent(renderer).x0 + 1


def test_gif_plays_forth_and_back(tmp_path):
    frames = torch.stack([solid(RED, 2, 1)[:, 0], solid(BLUE, 2, 1)[:, 0], solid(RED, 2, 1)[:, 0]], 1)[None]
    data = plotting.gif(frames, tmp_path / "x.gif", scale=2)
    assert (tmp_path / "x.gif").read_bytes() == data
    picture = Image.open(io.BytesIO(data))
    assert picture.n_frames == 4  # t = 0, 1, 2, 1
    assert picture.size == (2 * 4 * 2, 4 * 2)
    picture.seek(1)
    assert picture.convert("RGB").getpixel((0, 0)) == (0, 0, 255)


def test_bars_show_the_figures_they_are_given():
    kinds = ["no_motion", "median_frame", "equivariance_error", "reconstruction_floor"]
    metrics = {kind: {"scale": 10.0 * i, "hue": 10.0 * i + 1} for i, kind in enumerate(kinds, start=1)}
    axis = plotting.equivariance_bars(metrics, "t").axes[0]
    assert [bar.get_height() for bar in axis.patches] == [10, 11, 20, 21, 30, 31, 40, 41]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [
        "no motion", "median frame", "model", "reconstruction floor",
    ]  # fmt: skip


def test_curves_have_a_panel_for_each_term():
    history = [{"step": s, "seconds": s, "learning_rate": 1, "loss": 0, "kl": s, "reconstruction": -s} for s in (1, 2)]
    figure = plotting.training_curves(history)
    assert [axis.get_title() for axis in figure.axes] == ["kl", "reconstruction"]
    assert list(figure.axes[0].lines[0].get_ydata()) == [1, 2]
    assert figure.axes[0].get_ylabel() == "nats per sequence"
    assert plotting.training_curves(history, per="frame").axes[0].get_ylabel() == "nats per frame"


def test_show_carries_the_alternative_text(monkeypatch):
    seen = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw, metadata: seen.append((data, metadata)))
    figure, _ = plotting.figure()
    plotting.show(figure, "a line that rises")
    data, metadata = seen[0]
    assert metadata["image/png"]["alt"] == "a line that rises"
    assert Image.open(io.BytesIO(data["image/png"])).width == 700


def test_an_animation_carries_the_alternative_text(monkeypatch):
    seen = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw, metadata: seen.append((data, metadata)))
    data = plotting.gif(solid(RED, 1, 1, 3))
    plotting.show_gif(data, "nothing moves")
    assert seen[0][0]["image/gif"] == data
    assert seen[0][1]["image/gif"]["alt"] == "nothing moves"


def test_plotting_leaves_pyplot_alone():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    plotting.figure()
    assert plt.get_fignums() == before


def test_sliders_redraw_with_the_chosen_values(monkeypatch):
    drawn, displayed = [], []
    monkeypatch.setattr(widgets, "show", lambda figure, alt: drawn.append((figure, alt)))
    monkeypatch.setattr("IPython.display.display", displayed.append)
    widgets.explore(lambda k, t: (k, t), "alt", k=["scale", "hue"], t=range(3))
    sliders = displayed[0].children[:2]
    sliders[0].value = "hue"
    sliders[1].value = 2
    assert drawn[0] == (("scale", 0), "alt")
    assert drawn[-1] == (("hue", 2), "alt")
    assert [slider.description for slider in sliders] == ["k", "t"]


@pytest.mark.parametrize("value", [-0.5, 1.5])
def test_pixels_outside_the_range_are_clipped(value):
    figure = plotting.image_grid(torch.full((1, 1, 3, 2, 2), value))
    assert shown_images(figure)[0].max() == (255 if value > 1 else 0)


# --- points and densities in the plane ----------------------------------------------------------------------------


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
    values = torch.zeros(8, dtype=torch.float64)
    values[(grid.points - torch.tensor([1.5, -0.5])).norm(dim=1).argmin()] = 1.0
    _fig, axis = plotting.figure()
    plotting.density(axis, grid, values, contours=2, top=1.0)
    mesh = axis.collections[0]
    row, column = np.unravel_index(mesh.get_array().argmax(), (2, 4))
    assert (row, column) == (0, 3)  # rows are y, columns x
    assert mesh.get_clim() == (0, 1.0)


def test_figure_gif_plays_every_frame():
    def draw(i):
        fig, axis = plotting.figure(2, 2)
        axis.plot([0, i], [0, 1])
        return fig

    for bounce, frames in ((False, 4), (True, 6)):
        picture = Image.open(io.BytesIO(plotting.figure_gif(draw, 4, 50, bounce)))
        assert picture.n_frames == frames
        assert picture.info["duration"] == 50
        assert picture.size == (200, 200)
