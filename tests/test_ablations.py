"""Ablations: what is changed, what is measured of it, and which differences are taken for more than chance."""

import csv
import json
import math
from dataclasses import asdict

import pytest
import torch
from PIL import Image
from tiny import SHAPE, encoder_and_decoder, generator

from poflow_lite import experiments, metrics
from poflow_lite.datasets import TransformationSequences
from poflow_lite.fields import DivergenceFreeField
from poflow_lite.flows import DiffusionPrior, Flow, PotentialFlow
from poflow_lite.models import FlowFactorizedVAE
from poflow_lite.recipes import recipe
from poflow_lite.studies import ablation_tables, ablations
from poflow_lite.studies.ablation_tables import paired_difference

TINY = {
    "steps": 3, "batch_size": 4, "latent": 16, "channels": (4, 8), "hidden": 16, "width": 4, "likelihood_images": 1,
    "samples": 5,
}  # fmt: skip


def tiny(out, groups=("field",), **options):
    options = {"budget": "smoke", "seeds": (0, 1), "images": 12, "device": "cpu", "progress": False, **TINY, **options}
    return ablations.ablate("digits", out, groups=groups, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablations")
    return folder, tiny(folder)


# --- what is changed ----------------------------------------------------------------------------------------------


def test_every_variant_departs_from_the_standard_model_in_what_its_group_says():
    standard = recipe("digits", "lecture")
    for group, members in ablations.ABLATIONS.items():
        for name, change in members.items():
            settings = recipe("digits", "lecture", **change)
            assert settings != standard, (group, name)
    found, left_out = ablations.variants("digits", "lecture")
    assert left_out == {}
    assert (found[0].group, found[0].settings) == (ablations.STANDARD, standard)
    assert len(found) == 1 + sum(map(len, ablations.ABLATIONS.values()))


def test_the_three_fields_are_compared_without_the_penalty_that_needs_a_potential():
    for change in ablations.ABLATIONS["field"].values():
        assert recipe("digits", "lecture", **change).own["hamilton_jacobi"] == 0


def test_variants_with_the_same_recipe_share_their_runs():
    found, _ = ablations.variants("digits", "smoke", ["field", "hamilton-jacobi", "width"], width=8)
    cells = {(variant.group, variant.name): variant.cell for variant in found}
    assert cells["field", "gradient"] == cells["hamilton-jacobi", "λ_HJ = 0"] == "hamilton_jacobi-0.0"
    assert cells["width", "8 units"] == ablations.STANDARD
    assert len(set(cells.values())) == len(cells) - 2


def test_what_the_data_cannot_have_is_left_out_with_a_reason():
    found, left_out = ablations.variants("falcor3d-lite", "smoke", ["horizon", "frames"])
    assert [variant.name for variant in found] == ["standard", "T = 4", "S = 1", "S = 4"]
    assert left_out["frames: S = 8"] == "8 frames are more than the 4 of a sequence"
    assert "16" in left_out["horizon: T = 16"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": ("colour",)}, "unknown group 'colour'; known: hamilton-jacobi, force, initial"),
        ({"groups": ("field", "depht")}, "unknown group 'depht'"),
        ({"budget": "huge"}, "unknown budget 'huge'"),
        ({"split": "exam"}, "unknown split 'exam'"),
        ({"seeds": ()}, "the grid is empty"),
        ({"gamma": 1.0}, "unknown setting of flow-factorized 'gamma'"),
        ({"groups": ("hamilton-jacobi",), "field": "free"}, "hamilton_jacobi = 10.0 needs a potential"),
    ],
)
def test_mistakes_are_refused_before_anything_is_trained(tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(ablations, "train", lambda *a, **o: pytest.fail("training began"))
    with pytest.raises(ValueError, match=message):
        tiny(tmp_path / "grid", **options)


# --- the study, end to end ----------------------------------------------------------------------------------------


def test_the_file_says_what_was_run_and_holds_every_cell(finished):
    folder, result = finished
    assert json.loads((folder / "ablations.json").read_text()) == result
    assert (result["failed"], result["left_out"]) == ({}, {})
    assert "digits (test, 360 images), fixed start, 12 measured" in result["data_set"]
    assert {"data_set", "budget", "command", "versions", "settings"} <= set(result)
    rows = {(row["group"], row["variant"]): row["cell"] for row in result["rows"]}
    assert list(rows) == [("standard", "standard"), *(("field", name) for name in ablations.ABLATIONS["field"])]
    assert result["references"] == {"standard": "standard", "field": "hamilton_jacobi-0.0"}
    assert [(cell["cell"], cell["seed"]) for cell in result["cells"]] == [
        (cell, seed) for seed in (0, 1) for cell in rows.values()
    ]
    for cell in result["cells"]:
        assert cell["device"].startswith("CPU")
        assert cell["milliseconds"] > 0
        for k in ("scale", "rotate", "hue"):
            assert cell["ratio_to_no_motion"][k] == cell["equivariance_error"][k] / cell["no_motion"][k]
            assert cell["ot_gap"][k] >= 1 - 1e-9
            assert 0 <= cell["straightness"][k] <= 1
    for one, other in zip(result["cells"][:4], result["cells"][4:], strict=True):
        assert one["equivariance_error"] != other["equivariance_error"]  # another seed
        assert one["no_motion"] == other["no_motion"]


def test_figures_are_those_of_the_evaluation_of_one_run(finished):
    folder, result = finished
    cell = next(cell for cell in result["cells"] if (cell["cell"], cell["seed"]) == ("standard", 1))
    run = experiments.load_run(folder / "standard-seed-1", "cpu")
    held_out = experiments.sequences("digits", "test", run.settings).first(12)
    assert metrics.equivariance_error(run.model, held_out) == pytest.approx(cell["equivariance_error"], rel=1e-6)
    for name in ("prediction", "reconstruction"):
        likelihood = metrics.log_likelihood(run.model, held_out, images=1, samples=5, estimates=[name])
        assert cell[name] == pytest.approx(getattr(likelihood, name), rel=1e-6)
    everything = held_out.batch(torch.arange(12).repeat(3), torch.arange(3).repeat_interleave(12))
    smallest = metrics.smallest_eigenvalue(run.model, everything)
    assert cell["smallest_eigenvalue"] == pytest.approx(smallest, rel=1e-5)


def test_finished_cells_are_not_run_again_and_another_recipe_is_not_taken_for_them(finished, monkeypatch):
    folder, result = finished
    monkeypatch.setattr(ablations, "train", lambda *a, **o: pytest.fail("a finished cell was trained again"))
    assert tiny(folder)["cells"] == result["cells"]
    with pytest.raises(ValueError, match=r"standard-seed-0 holds a cell of another grid \(different: settings\)"):
        tiny(folder, steps=2)


def test_a_cell_that_fails_leaves_the_others_in_the_table(tmp_path, monkeypatch):
    original = ablations.train

    def train(model, data, budget, folder, **options):
        if folder.name.startswith("density-ignored"):
            raise FloatingPointError("training stopped at step 2")
        return original(model, data, budget, folder, **options)

    monkeypatch.setattr(ablations, "train", train)
    result = tiny(tmp_path, ("density",), seeds=(0,))
    assert result["failed"] == {"density-ignored-seed-0": "FloatingPointError: training stopped at step 2"}
    text = ablation_tables.write_tables(result, tmp_path)
    assert "| density | trace |" in text
    assert "| density | ignored |" not in text
    assert "Failed: density-ignored-seed-0 (FloatingPointError: training stopped at step 2)." in text
    assert "With a single seed there is no spread" in text
    assert "**" not in text


def test_a_model_that_ignored_its_density_is_measured_with_the_true_one(tmp_path):
    settings = recipe("digits", "smoke", **TINY, density="ignored")
    cell = ablations.ablate_cell(tmp_path, "digits", "smoke", 0, "test", 4, "cpu", asdict(settings))
    run = experiments.load_run(tmp_path, "cpu")
    held_out = experiments.sequences("digits", "test", run.settings).first(4)
    sizes = {"images": 1, "samples": 5, "estimates": ["prediction"]}
    wrong = metrics.log_likelihood(run.model, held_out, **sizes).prediction
    flow = run.model.flow
    run.model.flow = PotentialFlow(flow.field)
    right = metrics.log_likelihood(run.model, held_out, **sizes).prediction
    assert cell["prediction"] == pytest.approx(right, rel=1e-7)
    assert cell["prediction"] != pytest.approx(wrong, rel=1e-7)


# --- what is measured, where the answer is known ------------------------------------------------------------------


def measured(flow):
    """Of a model that follows ``flow`` for 4 frames."""
    model = FlowFactorizedVAE(*encoder_and_decoder(), flow, DiffusionPrior(3), hamilton_jacobi=0.0).double()
    images = torch.rand(20, *SHAPE, generator=generator(), dtype=torch.float64)
    settings = recipe("digits", "smoke", likelihood_images=1, samples=3)
    return ablations.measure_flow(model, settings, TransformationSequences(images, horizon=4))


@pytest.mark.usefixtures("double")
def test_a_translation_is_optimal_transport_and_standing_still_has_no_gap(make_quadratic):
    push = make_quadratic(torch.zeros(3, 2, 2), linear=[[1.0, -2.0], [0.0, 0.0], [0.0, 3.0]])
    found = measured(PotentialFlow(push))
    assert found["ot_gap"] == {"scale": pytest.approx(1.0), "rotate": None, "hue": pytest.approx(1.0)}
    assert found["straightness"] == {"scale": pytest.approx(1.0), "rotate": 1.0, "hue": pytest.approx(1.0)}
    assert found["smallest_eigenvalue"] == pytest.approx(1.0)
    assert found["ratio_to_no_motion"]["hue"] == found["equivariance_error"]["hue"] / found["no_motion"]["hue"]


@pytest.mark.usefixtures("double")
def test_a_rotation_goes_round_and_a_reflection_folds(make_quadratic):
    """A quarter turn a frame ends where it began; I + Q with eigenvalues 0.5 and -1 is no flow."""
    field = DivergenceFreeField(2, 3, width=1)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.zero_()
        field.rotation[:, 0, 1], field.rotation[:, 1, 0] = -math.pi / 2, math.pi / 2
    found = measured(Flow(field, "rk4", 16))
    assert max(found["straightness"].values()) < 1e-4
    assert min(found["ot_gap"].values()) > 100
    folding = PotentialFlow(make_quadratic([[[-0.5, 0.0], [0.0, -2.0]]] * 3))
    assert measured(folding)["smallest_eigenvalue"] == pytest.approx(-1.0)


@pytest.mark.usefixtures("double")
def test_a_likelihood_above_its_ceiling_is_left_empty_and_other_errors_are_not_hidden(make_quadratic, monkeypatch):
    flow = PotentialFlow(make_quadratic(torch.zeros(3, 2, 2)))

    def fails(message):
        def log_likelihood(*arguments, **options):
            raise RuntimeError(message)

        monkeypatch.setattr(ablations, "log_likelihood", log_likelihood)

    fails("prediction log-likelihood -3.0 is not below its ceiling of -7.0 nats")
    found = measured(flow)
    assert found["prediction"] is found["reconstruction"] is None
    fails("out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        measured(flow)


def test_the_time_of_a_step_is_the_median_over_the_history():
    history = [{"step": 25, "seconds": 0.5}, {"step": 50, "seconds": 9.5}, {"step": 60, "seconds": 9.8}]
    assert ablations._step_time(history) == pytest.approx(30.0)  # of 20, 360 and 30 ms
    assert ablations._step_time(history[:1]) == pytest.approx(20.0)


# --- which differences count, by hand -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "references", "mean", "spread", "marked"),
    [
        ((1.0, 2.0, 3.0), (0.0, 0.0, 0.0), 2.0, 1.0, False),  # exactly twice the spread
        ((1.1, 2.0, 2.9), (0.0, 0.0, 0.0), 2.0, 0.9, True),
        ((-1.1, -2.0, -2.9), (0.0, 0.0, 0.0), -2.0, 0.9, True),
        ((101.0, 205.0, 309.0), (100.0, 204.0, 308.0), 1.0, 0.0, True),  # seeds differ by 100, pairs do not
        ((100.0, 205.0, 309.0), (308.0, 204.0, 100.0), 2.0 / 3, 208.5, False),
        ((3.0, 4.0), (3.0, 4.0), 0.0, 0.0, False),
        ((5.0,), (1.0,), 4.0, None, False),
    ],
)
def test_a_difference_is_marked_beyond_twice_its_spread_over_pairs(values, references, mean, spread, marked):
    found = paired_difference(values, references)
    assert found.mean == pytest.approx(mean)
    assert found.spread == (None if spread is None else pytest.approx(spread, abs=0.1))
    assert found.marked == marked


@pytest.mark.parametrize(("values", "references"), [((1.0, 2.0), (1.0,)), ((), ())])
def test_pairs_need_partners(values, references):
    with pytest.raises(ValueError, match="as many values as references"):
        paired_difference(values, references)


def test_how_often_chance_marks_is_students_t_in_closed_form():
    """P(|t_2| > x) = 1 - x/√(x² + 2) and P(|t_1| > x) = 1 - (2/π) arctan x at x = 2 √n; none with a single seed."""
    assert ablation_tables.chance(3) == pytest.approx(1 - math.sqrt(12) / math.sqrt(14))
    assert ablation_tables.chance(2) == pytest.approx(1 - 2 / math.pi * math.atan(math.sqrt(8)))
    assert ablation_tables.chance(1) == 0
    draws = torch.randn(100_000, 3, generator=generator(), dtype=torch.float64)
    marked = (draws.mean(1).abs() > 2 * draws.std(1)).double().mean().item()
    assert marked == pytest.approx(ablation_tables.chance(3), abs=0.004)


def made_up(name, seed, ratio, prediction=-2180.0, gap=1.5):
    return {
        "cell": name, "seed": seed, "device": "CPU", "seconds": 9.0, "milliseconds": 40.0, "prediction": prediction,
        "reconstruction": -2170.0, "smallest_eigenvalue": 0.25, "equivariance_error": {"turn": 10 * ratio, "grow": 2.0},
        "no_motion": {"turn": 10.0, "grow": 10.0}, "reconstruction_floor": {"turn": 1.0, "grow": 1.0},
        "ratio_to_no_motion": {"turn": ratio, "grow": 0.2}, "ot_gap": {"turn": gap, "grow": gap},
        "straightness": {"turn": 0.5, "grow": 0.75},
    }  # fmt: skip


@pytest.fixture
def by_hand():
    rows = [("standard", "standard", "a"), ("field", "gradient", "b"), ("field", "free", "c"), ("width", "8", "d")]
    cells = [made_up("a", 0, 0.4), made_up("a", 1, 0.5), made_up("b", 0, 0.2), made_up("b", 1, 0.4)]
    cells += [made_up("c", 0, 0.3), made_up("c", 1, 0.6), made_up("d", 0, 0.44, -2200.0), made_up("d", 2, 9.0)]
    cells[0] |= {"ot_gap": {"turn": 2.0, "grow": 1.5}, "straightness": {"turn": 0.4, "grow": 0.8}}
    return {
        "data_set": "made up (test)", "budget": "lecture", "command": "poflow-lite ablate", "versions": {"torch": "9"},
        "settings": {"steps": 7, "own": {"field": "gradient"}},
        "rows": [{"group": group, "variant": name, "cell": cell, "changes": {}} for group, name, cell in rows],
        "references": {"standard": "a", "field": "b", "width": "a"}, "cells": cells,
        "left_out": {"horizon: T = 16": "too long"}, "failed": {},
    }  # fmt: skip


def test_each_group_is_held_against_its_reference_seed_by_seed(by_hand):
    lines = {line.variant: line for line in ablation_tables.summarise(by_hand)}
    assert list(lines) == ["standard", "gradient", "free", "8"]
    assert lines["standard"].differences == lines["gradient"].differences == {}
    free = lines["free"].differences  # 0.3 ÷ 0.2 and 0.6 ÷ 0.4, not 0.45 ÷ 0.3 nor ÷ the standard model
    assert (free["turn"].mean, free["turn"].marked) == (pytest.approx(0.5), True)
    assert (free["grow"].mean, free["grow"].marked) == (0.0, False)
    assert free["error"].mean == pytest.approx(0.25)
    narrow = lines["8"].differences  # of seed 0 alone: the standard model has no seed 2
    assert (narrow["turn"].mean, narrow["turn"].spread) == (pytest.approx(0.1), None)
    assert narrow["prediction"].mean == pytest.approx(-20.0)
    assert narrow["pairing"].mean == pytest.approx(1.5 * (0.5 + 0.75) / 2 - 0.5 * (0.8 + 1.2))
    assert len(lines["8"].cells) == 2


def test_what_was_not_measured_is_not_compared(by_hand):
    by_hand["cells"][4]["prediction"] = by_hand["cells"][5]["ot_gap"]["turn"] = None
    free = {line.variant: line for line in ablation_tables.summarise(by_hand)}["free"].differences
    assert set(free) == {"turn", "grow", "error", "reconstruction", "straightness"}  # no gap, hence no pairing either
    text = ablation_tables._markdown(ablation_tables.summarise(by_hand), by_hand)
    assert "| field | free | 0.450 ± 0.212 | 0.200 ± 0.000 |  | -2170.0 ± 0.0 |  | 0.625 ± 0.000 |  |" in text
    assert "An empty likelihood exceeded its ceiling" in text


def test_markdown_marks_what_exceeds_the_spread_and_says_by_which_rule(by_hand, tmp_path):
    text = ablation_tables.write_tables(by_hand, tmp_path)
    assert (tmp_path / "table.md").read_text() == text
    assert "| standard | standard | 0.450 ± 0.071 | 0.200 ± 0.000 | -2180.0 ± 0.0 | -2170.0 ± 0.0 |" in text
    assert "| 1.62 ± 0.18 | 0.613 ± 0.018 | 0.969 ± 0.044 | 0.25 ± 0.00 | 40 ± 0 |" in text
    assert "| field | free | **+50.0 ± 0.0** | +0.0 ± 0.0 | **+25.0 ± 0.0** | +0.0 ± 0.0 |" in text
    assert "| width | 8 | +10.0 | +0.0 | +5.0 | -20.0 |" in text
    assert "| field | gradient |" not in text.split("Differences from")[1]
    assert "bold where it exceeds twice their standard deviation over the seeds" in text
    assert f"{ablation_tables.chance(3):.0%} of normal differences with 3 seeds, and this table has 16 of them" in text
    assert "Differences are from the standard model, in the group field from its gradient." in text
    assert "made up (test), budget lecture; mean ± standard deviation over seeds 0, 1, 2." in text
    assert "Left out: horizon: T = 16 (too long)." in text
    assert "`poflow-lite ablate`; CPU; torch 9." in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows[: rows.index(rows[-1]) - 3]} == {12}


def test_a_difference_that_is_printed_as_zero_is_not_bold():
    by_rounding, seen = paired_difference((1.001, 1.001), (1.0, 1.0)), paired_difference((1.1, 1.1), (1.0, 1.0))
    assert by_rounding.marked
    assert ablation_tables._changed(by_rounding, "ot_gap", []) == "+0.00 ± 0.00"
    assert ablation_tables._changed(seen, "ot_gap", []) == "**+0.10 ± 0.00**"
    assert ablation_tables._changed(by_rounding, "turn", ["turn"]) == "**+0.1 ± 0.0**"  # in percent


def test_csv_holds_every_cell_unrounded(by_hand, tmp_path):
    ablation_tables.write_tables(by_hand, tmp_path)
    lines = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [(line["variant"], line["seed"]) for line in lines[-2:]] == [("8", "0"), ("8", "2")]
    assert float(lines[-2]["ratio_to_no_motion_turn"]) == 0.44
    assert float(lines[-2]["prediction"]) == -2200.0
    assert None not in lines[0]
    assert len(lines) == 8


def test_without_a_finished_cell_there_is_no_table(by_hand, tmp_path):
    with pytest.raises(ValueError, match="no cell of the ablations is done"):
        ablation_tables.write_tables(by_hand | {"cells": []}, tmp_path)


def test_the_figure_shows_every_line_and_fills_what_is_marked(by_hand, finished):
    by_hand["cells"][-1]["ot_gap"]["grow"] = 40.0
    figure = ablation_tables.ablation_dots(ablation_tables.summarise(by_hand), "title", {"field": "gradient"})
    error, prediction, gap = figure.axes
    assert [axis.get_xscale() for axis in figure.axes] == ["linear", "symlog", "log"]  # to 1.5, to -20, to some 10
    labels = [label.get_text() for label in error.get_yticklabels()]
    assert labels == ["standard", "field (against gradient)", "gradient", "free", "width", "8"]
    turn = next(bar for bar in error.containers if bar.lines[0].get_xdata()[0] == pytest.approx(1.5))
    assert turn.lines[0].get_markerfacecolor() != "white"
    assert turn.lines[0].get_ydata()[0] == pytest.approx(3, abs=0.3)
    still = [bar for bar in error.containers if bar.lines[0].get_xdata()[0] == pytest.approx(1.0)]
    assert all(bar.lines[0].get_markerfacecolor() == "white" for bar in still)
    assert len(prediction.containers) == 2
    assert len(gap.containers) == 4
    folder, result = finished
    ablation_tables.write_tables(result, folder)
    assert Image.open(folder / "ablations.png").width > 1000
