"""What the tables of all studies share."""

import pytest

from poflow_lite.studies.markdown import markdown_table, mean_and_spread, origin


def test_words_are_aligned_at_the_left_and_figures_at_the_right():
    text = markdown_table(["model", "moved by", "error"], [["vae", "linear", "0.3"]], words=2)
    assert text == "| model | moved by | error |\n|---|---|---:|\n| vae | linear | 0.3 |"


@pytest.mark.parametrize(
    ("values", "text"), [([0.5], "0.50"), ([1.0, 3.0], "2.00 ± 1.41"), ([2.0, 2.0], "2.00 ± 0.00")]
)
def test_the_spread_is_the_sample_standard_deviation_and_a_single_seed_has_none(values, text):
    assert mean_and_spread(values, ".2f") == text


def test_the_origin_names_command_device_and_versions():
    result = {"command": "poflow-lite cost", "versions": {"torch": "2.2", "numpy": "1.26"}}
    assert origin(result, "CPU, 2 threads") == "`poflow-lite cost`; CPU, 2 threads; torch 2.2, numpy 1.26."
