"""The figures of the studies say what the numbers say."""

import numpy as np
import pytest
import torch

from poflow_lite.commutators import OrderGaps
from poflow_lite.studies import figures
from poflow_lite.studies.generalisation import Entry


@pytest.fixture
def table():
    """Two trials; the second one was not made with the last model."""
    entries = {"vae": Entry("linear", 0.25, None, 0.2, 1), "ours": Entry("flow", 0.5, None, 0.4, 1)}
    return {"alone": entries, "together": {"vae": Entry("linear", 0.75, None, 0.3, 1)}}


def test_the_map_holds_every_error_and_the_floor_and_marks_the_least_of_each_row(table):
    axis, _ = figures.standings_map(table, "ours").axes
    (image,) = axis.images
    expected = np.array([[0.25, 0.5, 0.4], [0.75, np.nan, np.nan]])
    np.testing.assert_array_equal(image.get_array().filled(np.nan), expected)
    assert [text.get_text() for text in axis.texts] == ["0.25 ◂", "0.50", "0.40", "0.75 ◂"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["vae", "ours", "floor of ours"]


def test_markers_of_ours_have_a_black_edge(table):
    (axis,) = figures.standings_dots(table, ours=("ours",)).axes
    edges = {bar.get_label(): bar.lines[0].get_markeredgecolor() for bar in axis.containers}
    assert edges["ours"] == "black"
    assert edges["vae"] != "black"


def test_pairs_that_commute_stand_above_the_line_with_the_mean_gap_of_both_orders():
    true, learned = torch.zeros(3, 3), torch.tensor([[0.0, 1.0, 5.0], [3.0, 0.0, 7.0], [5.0, 7.0, 0.0]])
    gaps = OrderGaps(("a", "b", "c"), true, learned, true)
    commuting = [[True, False, True], [False, True, True], [True, True, True]]
    (axis,) = figures.order_gap_bars(gaps, commuting).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a, c", "b, c", "a, b"]
    assert [bar.get_width() for bar in axis.containers[1]] == [5.0, 7.0, 2.0]
    assert axis.lines[0].get_ydata()[0] == pytest.approx(1.7)
