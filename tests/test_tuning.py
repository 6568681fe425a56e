"""The study of settings: which cells it has, and what is read off them."""

from statistics import mean

import pytest

from poflow_lite.course import recorded
from poflow_lite.experiments import load_run, recipe
from poflow_lite.studies import comparison_tables, report, run_study, tuning


def test_beta_is_varied_with_the_own_weight_as_it_is_and_the_own_weight_with_beta_as_it_is():
    grid = tuning.cells(models=("factor-vae", "beta-vae"), seeds=(0,), betas=(0.01, 0.03))
    own = recipe("mnist-10k", "lecture", "factor-vae")
    assert own.options == {"gamma": 0.1}
    assert [cell["weights"] for cell in grid.values()] == [
        {"beta": 0.01, "gamma": 0.1},
        {"beta": 0.03, "gamma": 0.1},
        {"beta": own.beta, "gamma": 0.03},
        {"beta": own.beta, "gamma": 0.3},
        {"beta": own.beta, "gamma": 1.0},
        {"beta": 0.01},
        {"beta": 0.03},
    ]


def test_all_models_have_the_same_values_of_beta_and_at_least_three_of_their_own_weight():
    assert all(len(own[1]) >= 3 for own in tuning.OWN.values() if own)
    grid = tuning.cells(seeds=(0,))
    assert {sum(c["model"] == model and c["varied"] == "beta" for c in grid.values()) for model in tuning.OWN} == {6}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ("vae",)}, "unknown model that is tuned 'vae'; known: beta-vae"),
        ({"data": "faces"}, "unknown data set 'faces'"),
        ({"betas": (-1.0,)}, "beta must be greater than or equal to 0, got -1"),
        ({"data": "mnist"}, "poflow-lite download mnist"),
    ],
)
def test_mistakes_are_refused_before_anything_is_trained(tmp_path, monkeypatch, options, message):
    monkeypatch.setenv("POFLOW_DATA", str(tmp_path))
    monkeypatch.setattr(tuning, "train_recipe", lambda *a, **o: pytest.fail("training began"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run_study(tuning.STUDY, tmp_path / "grid", progress=False, **options)


def test_a_cell_trains_with_its_weights_and_measures_validation_images(tmp_path):
    options = {"data": "digits", "budget": "smoke", "models": ("poflow",), "seeds": (0,), "betas": (0.5,), "steps": 2}
    result = run_study(tuning.STUDY, tmp_path, progress=False, images=5, device="cpu", **options)
    assert result["failed"] == {}
    first, *others = result["cells"]
    assert [cell["weights"] for cell in others] == [{"beta": 0.03, "wave": wave} for wave in (0.3, 1.0, 3.0)]
    assert list(first["errors"]) == ["linear", "flow"]
    assert first["data_set"] == "digits (validation, 180 images), fixed start, 5 measured"
    run = load_run(tmp_path / first["cell"], "cpu")
    assert (run.settings.beta, run.settings.steps, run.settings.options["wave"]) == (0.5, 2, 1.0)
    assert run.model.beta == 0.5


def cell(seed, beta, gamma, errors, varied="beta"):
    weights = {"beta": beta, "gamma": gamma}
    return {
        "model": "factor-vae", "seed": seed, "varied": varied, "weights": weights, "steps": 9, "errors": errors,
        "data_set": "made up", "data": "mnist-10k", "budget": "lecture",
    }  # fmt: skip


@pytest.fixture
def by_hand():
    cells = [
        cell(0, 0.01, 0.1, {"linear": 0.4}), cell(1, 0.01, 0.1, {"linear": 0.2}),
        cell(0, 0.03, 0.1, {"linear": 0.9, "flow": 0.25, "own": 0.01}), cell(1, 0.03, 0.1, {"linear": 0.25}),
        cell(0, 0.03, 0.3, {"linear": 0.1}, "gamma"), cell(1, 0.03, 0.3, {"linear": 0.2}, "gamma"),
    ]  # fmt: skip
    settings = {"seeds": [0, 1]}
    origin = {"study": "tuning", "command": "c", "versions": {}, "machine": "m"}
    return {**origin, "settings": settings, "cells": cells, "failed": {}}


def test_errors_are_those_of_the_better_operator_and_values_within_one_per_cent_are_level(by_hand):
    beta, gamma = tuning.errors(by_hand).to_dict("records")
    assert (beta["setting"], gamma["setting"]) == ("beta", "gamma")
    assert beta["errors"] == {0.01: [0.4, 0.2], 0.03: [0.25, 0.25]}, "own, which sees a second frame, is left out"
    assert gamma["errors"] == {0.1: [0.25, 0.25], 0.3: [0.1, 0.2]}, "the usual value is among those of beta"
    assert tuning.level(beta["errors"]) == [0.03]
    assert tuning.level({1.0: [0.2, 0.3], 2.0: [0.252, 0.252], 4.0: [0.253, 0.253]}) == [1.0, 2.0]


def test_a_value_of_which_a_seed_failed_is_left_out_and_does_not_win(by_hand):
    del by_hand["cells"][-1]  # of gamma 0.3, the other seed has 0.1
    _, gamma = tuning.errors(by_hand).to_dict("records")
    assert gamma["errors"] == {0.1: [0.25, 0.25]}


def test_the_table_says_what_is_level_and_the_figure_has_a_panel_for_each_model(by_hand, tmp_path):
    text = report(tuning.STUDY, by_hand, tmp_path)
    assert "| factor-vae | beta | 0.03 | 0.01: 0.300 ± 0.141, 0.03: 0.250 ± 0.000 |" in text
    assert "made up. Trainings of 9 steps, seeds 0, 1: mean ± standard deviation over seeds." in text
    assert "whichever has the least error on these same images" in text
    assert "chosen after 9 steps, while a recipe trains 3,000." in text
    shown = [axis for axis in tuning.figure(by_hand).axes if axis.get_visible()]
    assert [axis.get_title() for axis in shown] == ["factor-vae, least 0.150"], "of gamma, at 0.3"
    assert shown[0].get_ylabel() == "error ÷ the least"
    lines = [line for line in shown[0].lines if not line.get_label().startswith("_")]
    assert [line.get_label() for line in lines] == ["beta", "gamma"]
    assert list(lines[0].get_ydata()) == pytest.approx([0.3 / 0.15, 0.25 / 0.15])
    assert list(lines[1].get_ydata()) == pytest.approx([0.25 / 0.15, 1.0])


def test_nothing_lies_outside_a_panel_without_an_arrow_and_open_markers_are_not_level(by_hand):
    """Means 2.0, 1.67 and 1.67 have arrows; so would a seed whose mean is inside."""
    (axis,) = (axis for axis in tuning.figure(by_hand).axes if axis.get_visible())
    low, high = axis.get_ylim()
    arrows = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines if line.get_marker() == "^"]
    assert arrows == [(0.01, tuning.TOP), (0.03, tuning.TOP), (0.1, tuning.TOP)]
    assert [text.get_text() for text in axis.texts] == ["2.00", "1.67", "1.67"]
    assert low < 0.1 / 0.15 < high, "the lowest seed is in view"
    hollow = [list(line.get_xdata()) for line in axis.lines if line.get_markerfacecolor() == "white"]
    assert hollow == [[0.01], [0.1]]
    for cell in by_hand["cells"][-2:]:
        cell["errors"] = {"linear": 0.1 if cell["seed"] else 0.3}  # mean 0.2, one seed at 1.5
    (axis,) = (axis for axis in tuning.figure(by_hand).axes if axis.get_visible())
    assert "1.50" in [text.get_text() for text in axis.texts]


def test_every_panel_of_the_record_shows_all_its_points_or_an_arrow():
    result = recorded("mnist-10k-tuning.json")
    found, panels = tuning.errors(result), [axis for axis in tuning.figure(result).axes if axis.get_visible()]
    for axis, (model, own) in zip(panels, found.groupby("model", sort=False), strict=True):
        least = min(mean(seeds) for tried in own["errors"] for seeds in tried.values())
        assert axis.get_title() == f"{model}, least {least:.3f}"
        errors = [error for tried in own["errors"] for seeds in tried.values() for error in (*seeds, mean(seeds))]
        inside = [axis.get_ylim()[0] + 0.015 < error / least < 0.999 * tuning.TOP for error in errors]
        assert len(axis.texts) == (2 if model == "topographic-vae" else 0)
        assert all(inside) or axis.texts


def test_the_order_of_models_changes_with_the_steps_as_the_notes_say():
    """Best of the trainings of 800 steps, and of the comparison's, both on validation images."""
    short = tuning.errors(recorded("mnist-10k-tuning.json"))
    least = {model: min(mean(seeds) for tried in own["errors"] for seeds in tried.values())
             for model, own in short.groupby("model")}  # fmt: skip
    comparison = recorded("mnist-10k-comparison.json")
    rows, chosen = comparison_tables.rows(comparison), comparison_tables.best_operators(comparison)
    means = rows.groupby(["model", "operator"])["validation"].mean()
    later = {model: means[model, chosen[model]] for model in least}
    assert sorted(least, key=least.get) != sorted(later, key=later.get)
    assert "The order of models changes with the steps" in " ".join(tuning.notes(recorded("mnist-10k-tuning.json")))


def test_every_recipe_has_a_value_that_was_level_with_the_best_and_inside_its_grid():
    for _, line in tuning.errors(recorded("mnist-10k-tuning.json")).iterrows():
        usual = recipe("mnist-10k", "lecture", line["model"])
        value = usual.beta if line["setting"] == "beta" else usual.options[line["setting"]]
        assert value in tuning.level(line["errors"]), line
        assert min(line["errors"]) < value < max(line["errors"]), line
