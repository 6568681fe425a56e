"""The comparison: one protocol for all models, resumable, reproducible; its tables say what was measured."""

import csv
import json
import math
import time
from functools import partial

import pytest
import torch
from PIL import Image

from poflow_lite import experiments, recipes
from poflow_lite.metrics import equivariance_error
from poflow_lite.operators import OPERATORS
from poflow_lite.studies import comparison, tables

TINY = {
    "steps": 3, "batch_size": 4, "latent": 16, "channels": (4, 8), "hidden": 16, "width": 4, "likelihood_images": 1,
    "samples": 5,
}  # fmt: skip


def tiny(out, models=("vae", "weakly-supervised"), **options):
    options = {"budget": "smoke", "images": 12, "device": "cpu", "progress": False, **TINY, **options}
    return comparison.compare("digits", models, out, **options)


@pytest.fixture(scope="module", autouse=True)
def few_images_and_epochs():
    """Fewer training images and epochs than the comparison takes: nothing here depends on how many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "vp_score", partial(comparison.vp_score, epochs=2))
        patch.setattr(comparison, "training_latents", partial(comparison.training_latents, images=60))
        patch.setattr(comparison, "MedianFrame", partial(comparison.MedianFrame, images=60))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, few_images_and_epochs):
    folder = tmp_path_factory.mktemp("comparison")
    return folder, tiny(folder, tuple(recipes.MODELS))


def test_every_model_is_measured_with_every_operator_and_its_own_transport(finished):
    folder, result = finished
    assert json.loads((folder / "comparison.json").read_text()) == result
    assert result["failed"] == {}
    assert [cell["model"] for cell in result["cells"]] == list(recipes.MODELS)
    for cell in result["cells"]:
        own = comparison.TRANSPORTS.get(cell["model"])
        assert set(cell["operators"]) == {*OPERATORS, *([own] if own else [])}
        for measured in cell["operators"].values():
            assert set(measured["equivariance_error"]) == {"scale", "rotate", "hue"}
            assert all(math.isfinite(value) and value > 0 for value in measured["equivariance_error"].values())
            assert 0 <= measured["vp_score"] <= 1
            assert measured["prediction"] < -2161
        assert ("index_accuracy" in cell) == (cell["model"] == "weakly-supervised")


def test_all_models_see_the_same_test_frames(finished):
    _, result = finished
    for reference in ("no_motion", "median_frame"):
        values = [cell["references"][reference] for cell in result["cells"]]
        assert all(value == values[0] for value in values)


def test_figures_are_those_of_the_evaluation_of_one_run(finished):
    folder, result = finished
    cell = next(cell for cell in result["cells"] if cell["model"] == "flow-factorized")
    run = experiments.load_run(folder / "flow-factorized-seed-0", "cpu")
    held_out = experiments.sequences("digits", "test", run.settings).first(12)
    found = equivariance_error(run.model, held_out)
    assert found == pytest.approx(cell["operators"]["flow"]["equivariance_error"], rel=1e-6)


def test_the_same_seed_gives_the_same_table_twice(finished, tmp_path):
    folder, result = finished
    tables.write_tables(result, folder)
    models = ("vae", "factor-vae", "poflow", "weakly-supervised")
    tables.write_tables(tiny(tmp_path, models), tmp_path)
    first, second = (list(csv.reader((place / "table.csv").open())) for place in (folder, tmp_path))
    assert [line for line in first if line[0] in ("model", *models)] == second


def test_finished_cells_are_not_run_again(finished, monkeypatch):
    folder, result = finished
    monkeypatch.setattr(comparison, "train", lambda *a, **o: pytest.fail("a finished cell was trained again"))
    again = tiny(folder, tuple(recipes.MODELS))
    assert again["cells"] == result["cells"]


def test_a_cell_of_another_recipe_is_not_taken_for_this_one(finished):
    folder, _ = finished
    with pytest.raises(ValueError, match=r"vae-seed-0 holds a cell of another grid \(different: settings\)"):
        tiny(folder, ("vae",), steps=2)


def test_seeds_differ_and_are_told_apart(tmp_path):
    cells = tiny(tmp_path, ("vae",), seeds=(0, 1), scores=False)["cells"]
    assert [cell["seed"] for cell in cells] == [0, 1]
    errors = [cell["operators"]["identity"]["equivariance_error"]["hue"] for cell in cells]
    assert errors[0] != errors[1]


def test_a_crashed_cell_leaves_the_others_in_the_table(tmp_path, monkeypatch):
    original = comparison.train

    def train(model, *arguments, **options):
        if model == "weakly-supervised":
            raise FloatingPointError("training stopped at step 2")
        return original(model, *arguments, **options)

    monkeypatch.setattr(comparison, "train", train)
    result = tiny(tmp_path)
    assert result["failed"] == {"weakly-supervised-seed-0": "FloatingPointError: training stopped at step 2"}
    assert [cell["model"] for cell in result["cells"]] == ["vae"]
    assert "| vae | linear |" in tables.write_tables(result, tmp_path)


def test_a_setting_can_be_varied_on_the_validation_split(tmp_path):
    result = tiny(tmp_path, ("factor-vae",), vary=("gamma", [0.5, 3]), split="validation", scores=False)
    assert "validation" in result["data_set"]
    assert [cell["variant"] for cell in result["cells"]] == [{"gamma": 0.5}, {"gamma": 3}]
    assert result["settings"]["factor-vae"]["own"] == {}, "the last of the varied values stood there, for all cells"
    text = tables.write_tables(result, tmp_path)
    assert "| factor-vae, gamma = 0.5 | linear |" in text
    assert "gamma" not in text[text.index("The same for all") :].split("`")[0]
    assert {path.parent.name for path in tmp_path.glob("*/cell.json")} == {
        "factor-vae-gamma-0.5-seed-0", "factor-vae-gamma-3-seed-0",
    }  # fmt: skip
    errors = [cell["operators"]["linear"]["equivariance_error"] for cell in result["cells"]]
    assert errors[0] != errors[1]
    assert "prediction" not in result["cells"][0]["operators"]["linear"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ("vae", "gan")}, "unknown model 'gan'"),
        ({"budget": "huge"}, "unknown budget 'huge'"),
        ({"vary": ("gamma", [1])}, "unknown setting of vae 'gamma'"),
        ({"split": "exam"}, "unknown split 'exam'"),
        ({"seeds": ()}, "the grid is empty"),
        ({"jobs": 0}, "jobs must be at least 1, got 0"),
    ],
)
def test_mistakes_are_refused_before_anything_is_trained(tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(comparison, "train", lambda *a, **o: pytest.fail("training began"))
    with pytest.raises(ValueError, match=message):
        tiny(tmp_path / "grid", **options)


def test_the_cost_of_a_step_is_measured_in_turns():
    settings = {model: recipes.recipe("digits", "smoke", model, **TINY) for model in ("vae", "poflow")}
    training = recipes.sequences("digits", "train", settings["vae"])
    costs = comparison.step_costs(settings, training, torch.device("cpu"), rounds=3)
    assert set(costs) == {"vae", "poflow"}
    assert 0 < costs["vae"] < costs["poflow"]


# --- tables: figures put in by hand -------------------------------------------------------------------------------


def test_no_model_pays_for_what_the_others_find_remembered(monkeypatch):
    """Rendering is slow the first time a scene is seen: it once made the first model look dearer than its twin."""
    settings = {name: recipes.recipe("digits", "smoke", "beta-vae", **TINY) for name in ("vae", "beta-vae")}
    training, seen, original = recipes.sequences("digits", "train", settings["vae"]), set(), comparison.sample_batch

    def slow_at_first(model, training, chosen, generator):
        state = generator.initial_seed()
        if state not in seen:
            time.sleep(0.1)
            seen.add(state)
        return original(model, training, chosen, generator)

    monkeypatch.setattr(comparison, "sample_batch", slow_at_first)
    costs = comparison.step_costs(settings, training, torch.device("cpu"), rounds=3)
    assert max(costs.values()) < 90


def cell(model, seed, error, own=None, **more):
    operators = {"identity": 10 * error, "linear": error + 1.0} | ({own: error} if own else {})
    return {
        "model": model, "seed": seed, "variant": {}, "device": "CPU", "seconds": 1.0, "reconstruction": -2170.0,
        "references": {name: {"turn": value} for name, value in
                       (("no_motion", 100.0), ("median_frame", 80.0), ("reconstruction_floor", 5.0))},
        "operators": {name: {"equivariance_error": {"turn": value}, "prediction": -2200.0 - value, "vp_score": 0.5}
                      for name, value in operators.items()},
        **more,
    }  # fmt: skip


@pytest.fixture
def by_hand():
    settings = {"steps": 7, "beta": 0.1, "own": {}}
    cells = [
        cell("vae", 0, 29.0), cell("vae", 1, 31.0), cell("poflow", 0, 22.0, "flow"), cell("poflow", 1, 22.0, "flow"),
        cell("flow-factorized", 0, 19.0, "flow"), cell("flow-factorized", 1, 21.0, "flow"),
        cell("weakly-supervised", 0, 1.0, "flow", index_accuracy=0.975),
    ]  # fmt: skip
    return {
        "data_set": "made up (test)", "budget": "lecture", "command": "poflow-lite compare", "versions": {"torch": "9"},
        "settings": {"vae": settings | {"beta": 1.0}, "poflow": settings | {"own": {"wave": 2.0}}},
        "cells": cells, "failed": {},
        "costs": {"vae": 10.0, "poflow": 15.0, "flow-factorized": 12.0, "weakly-supervised": 20.0},
    }  # fmt: skip


def test_rows_are_means_and_standard_deviations_over_seeds(by_hand):
    rows = {(row.label, row.operator): row for row in tables.summarise(by_hand)}
    assert rows["vae", "linear"].errors["turn"] == (31.0, pytest.approx(2**0.5))
    assert rows["vae", "linear"].prediction == (-2231.0, pytest.approx(2**0.5))
    assert rows["vae", "floor"].errors["turn"] == (5.0, 0.0)
    assert rows["weakly-supervised", "flow"].errors["turn"] == (1.0, None)
    assert rows["poflow", "floor"].cost == (1.5, None)
    assert rows["poflow", "floor"].reconstruction == (-2170.0, 0.0)
    assert rows["poflow", "flow"].cost is rows["poflow", "flow"].reconstruction is None


def test_the_best_row_of_a_model_has_the_least_error_and_what_is_known_of_the_model(by_hand):
    by_hand["cells"] = [cell("slow-vae", 0, 10.0), cell("poflow", 0, 30.0, "flow")]
    by_hand["cells"][0]["operators"]["identity"]["equivariance_error"]["turn"] = 9.0
    best = tables.best_rows(tables.summarise(by_hand | {"costs": {"slow-vae": 2.0, "poflow": 3.0}}))
    assert [(row.label, row.operator, row.cost) for row in best] == [
        ("slow-vae", "identity", (1.0, None)), ("poflow", "flow", (1.5, None)),
    ]  # fmt: skip
    assert all(row.reconstruction == (-2170.0, None) for row in best)


def test_margins_are_taken_from_the_best_baseline_and_leave_out_our_own_models(by_hand):
    below = tables.margins(tables.summarise(by_hand))
    assert below["linear"]["turn"] == pytest.approx(1 - 20 / 23)
    assert below["flow"]["turn"] == pytest.approx(1 - 20 / 22)
    assert below["identity"]["turn"] == pytest.approx(1 - 20 / 220)


def test_margins_need_our_model(by_hand):
    by_hand["cells"] = by_hand["cells"][:4]
    assert tables.margins(tables.summarise(by_hand)) == {}


def test_markdown_holds_figures_margins_and_what_differs(by_hand, tmp_path):
    text = tables.write_tables(by_hand, tmp_path)
    assert (tmp_path / "table.md").read_text() == text
    assert "| vae | floor | 5 ± 0 |  |  | -2170.0 ± 0.0 | 1.00 |" in text
    assert "| vae | linear | 31 ± 1 | -2231.0 ± 1.4 | 0.50 ± 0.00 |  |  |" in text
    assert "| no motion |  | 100 |" in text
    assert "| linear | 13% |" in text
    assert "weakly-supervised names 97.5% of the sequences rightly" in text
    assert "The same for all: steps 7." in text
    assert "Different: vae (beta 1.0); poflow (beta 0.1, wave 2.0)." in text
    assert "made up (test), budget lecture; mean ± standard deviation over seeds 0, 1." in text
    assert "`poflow-lite compare`; CPU; torch 9." in text


def test_latex_has_as_many_columns_in_every_line(by_hand, tmp_path):
    tables.write_tables(by_hand, tmp_path)
    text = (tmp_path / "table.tex").read_text()
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") for line in lines} == {6}
    assert r"vae & linear & 31 $\pm$ 1 &" in text
    assert r"\begin{tabular}{llrrrrr}" in text


def test_the_figure_can_be_opened_and_holds_every_panel(finished):
    folder, result = finished
    tables.write_tables(result, folder)
    picture = Image.open(folder / "comparison.png")
    assert picture.width > 1000
    assert picture.height > 500


def test_without_a_finished_cell_there_is_no_table(by_hand, tmp_path):
    with pytest.raises(ValueError, match="no cell of the comparison is done"):
        tables.write_tables(by_hand | {"cells": []}, tmp_path)
