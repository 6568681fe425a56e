"""Ablations: what is changed, what is measured of it, and which differences are taken for more than chance."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from tiny import SHAPE, encoder_and_decoder

from poflow_lite import experiments, metrics
from poflow_lite.datasets import TransformationSequences
from poflow_lite.experiments import recipe
from poflow_lite.fields import DivergenceFreeField
from poflow_lite.flows import DiffusionPrior, Flow
from poflow_lite.models import FlowFactorizedVAE
from poflow_lite.studies import ablation_tables, ablations, run_study
from poflow_lite.studies.ablation_tables import paired_difference

CHANGES = {
    "steps": 3, "batch_size": 4, "latent": 4, "channels": (4, 8), "hidden": 16, "width": 4, "share": 0.05, "horizon": 2,
}  # fmt: skip
STANDARD = ("standard", "standard")


def tiny(out, groups=("field",), **options):
    sizes = {"images": 6, "likelihood_images": 1, "samples": 5}
    options = {"budget": "smoke", "seeds": (0, 1), "device": "cpu", "changes": CHANGES, **sizes, **options}
    return run_study(ablations.STUDY, out, groups=groups, progress=False, **options)


# --- what is changed ----------------------------------------------------------------------------------------------


def test_every_variant_differs_from_the_standard_model_in_what_its_group_says():
    found, left_out = ablations.variants("digits", "lecture")
    assert left_out == {}
    assert list(found) == [STANDARD, *((group, name) for group, own in ablations.ABLATIONS.items() for name in own)]
    standard = found.pop(STANDARD)
    assert standard == recipe("digits", "lecture")
    for (group, name), settings in found.items():
        assert settings != standard
        assert settings == recipe("digits", "lecture", **ablations.ABLATIONS[group][name])
    assert all(found["field", name].options["hamilton_jacobi"] == 0 for name in ablations.ABLATIONS["field"])


def test_every_variant_is_held_against_what_differs_in_one_setting_or_the_notes_say_so():
    changes = {(group, name): own for group, entries in ablations.ABLATIONS.items() for name, own in entries.items()}
    changes[STANDARD] = {}
    several = []
    for place, own in changes.items():
        reference = changes[ablation_tables.REFERENCES.get(place, STANDARD)]
        if sum(own.get(name) != reference.get(name) for name in {*own, *reference}) > 1:
            several.append(place)
    assert several == [("prior", "pushforward, β = 0.27")]  # on purpose: its KL is as heavy as that of T + 1 frames


def test_variants_with_the_same_recipe_share_their_cells_whichever_groups_are_chosen():
    options = {"budget": "smoke", "seeds": (0,), "changes": {"width": 8}}
    cells = ablations.cells(groups=["field", "hamilton-jacobi", "width"], **options)
    assert [list(cell["variants"]) for cell in cells.values()][:3] == [
        [STANDARD, ("width", "8 units")],
        [("hamilton-jacobi", "λ_HJ = 0"), ("field", "gradient")],
        [("field", "free")],
    ]
    assert len(cells) == 1 + 3 + 2 + 1
    assert ablations.cells(groups=["field"], **options).items() <= cells.items()


def test_what_the_data_cannot_have_is_left_out_with_a_reason():
    found, left_out = ablations.variants("falcor3d-lite", "smoke", ["horizon", "frames"])
    assert [name for _, name in found] == ["standard", "T = 4", "S = 1", "S = 4"]
    assert left_out["frames: S = 8"] == "8 frames are more than the 4 of a sequence"
    assert "16" in left_out["horizon: T = 16"]


def test_a_change_of_all_leaves_out_the_variants_that_it_does_not_fit_whichever_groups_are_chosen(by_hand):
    how = {"budget": "smoke", "changes": {"field": "free", "hamilton_jacobi": 0.0}}
    cells = ablations.cells(groups=["width"], seeds=(0,), **how)
    assert list(cells) == ["standard-seed-0", "width-8-seed-0", "width-256-seed-0"]
    by_hand["settings"] = {"data": "digits", "groups": ["hamilton-jacobi"], **how}
    text = "\n".join(ablations.notes(by_hand))
    assert "Left out: hamilton-jacobi: λ_HJ = 1 (hamilton_jacobi = 1.0 needs a potential" in text
    assert "λ_HJ = 0 (" not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": ("field", "depht")}, "unknown group 'depht'; known: hamilton-jacobi, force, initial"),
        ({"split": "exam"}, "split must be 'train', 'validation' or 'test', got 'exam'"),
        ({"changes": {"gamma": 1.0}}, "unknown setting of flow-factorized 'gamma'"),
        ({"groups": ("hamilton-jacobi",), "changes": {"field": "free"}}, "hamilton_jacobi = 10.0 needs a potential"),
    ],
)
def test_mistakes_are_refused_before_anything_is_trained(tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(ablations, "train_recipe", lambda *a, **o: pytest.fail("training began"))
    with pytest.raises(ValueError, match=message):
        tiny(tmp_path / "grid", **options)


# --- the study, end to end ----------------------------------------------------------------------------------------


def test_every_recipe_is_trained_with_every_seed_and_measured_as_one_run_is(tmp_path):
    result = tiny(tmp_path, ("force",))
    assert result["failed"] == {}
    names = ["standard-seed-0", "force-none-seed-0", "standard-seed-1", "force-none-seed-1"]
    assert [cell["cell"] for cell in result["cells"]] == names
    for one, other in zip(result["cells"][:2], result["cells"][2:], strict=True):
        assert one["equivariance_error"] != other["equivariance_error"]  # another seed
        assert one["no_motion"] == other["no_motion"]
    cell, run = result["cells"][2], experiments.load_run(tmp_path / "standard-seed-1", "cpu")
    held_out = experiments.sequences("digits", "test", run.settings).first(6)
    assert metrics.equivariance_error(run.model, held_out) == pytest.approx(cell["equivariance_error"], rel=1e-6)
    likelihood = metrics.log_likelihood(run.model, held_out.first(1).in_turns(), images=1, samples=5)
    assert cell["log_likelihood"]["frame"] == pytest.approx(likelihood.frame, rel=1e-6)
    assert cell["log_likelihood"]["sequence"] == pytest.approx(likelihood.sequence, rel=1e-6)
    everything = held_out.batch(torch.arange(6).repeat(3), torch.arange(3).repeat_interleave(6))
    assert cell["smallest_eigenvalue"] == pytest.approx(metrics.smallest_eigenvalue(run.model, everything), rel=1e-5)
    assert "digits (test, 360 images), fixed start, 6 measured, budget smoke" in (tmp_path / "table.md").read_text()


def test_a_model_that_ignored_its_log_determinant_is_measured_with_the_true_one_and_a_cell_that_fails_is_named(
    tmp_path, monkeypatch
):
    original = ablations.train_recipe

    def train(model, data, budget, folder, **options):
        if folder.name.startswith("log_det-trace"):
            raise FloatingPointError("training stopped at step 2")
        return original(model, data, budget, folder, **options)

    monkeypatch.setattr(ablations, "train_recipe", train)
    result = tiny(tmp_path, ("log_det",), seeds=(0,))
    cell = next(cell for cell in result["cells"] if cell["variants"] == [["log_det", "none"]])
    run = experiments.load_run(tmp_path / "log_det-none-seed-0", "cpu")
    held_out = experiments.sequences("digits", "test", run.settings).first(1).in_turns()
    monkeypatch.setattr(metrics.likelihood, "with_exact_density", lambda model: model)
    wrong = metrics.log_likelihood(run.model, held_out, images=1, samples=5).frame["x_0"]
    run.model.flow = Flow(run.model.flow.field)
    right = metrics.log_likelihood(run.model, held_out, images=1, samples=5).frame["x_0"]
    assert cell["log_likelihood"]["frame"]["x_0"] == pytest.approx(right, rel=1e-7)
    assert cell["log_likelihood"]["frame"]["x_0"] != pytest.approx(wrong, rel=1e-7)
    text = (tmp_path / "table.md").read_text()
    assert "| log_det | none |" in text
    assert "| log_det | trace |" not in text
    assert "Missing: log_det-trace-seed-0 (FloatingPointError: training stopped at step 2)." in text
    assert "With a single seed there is no interval" in text
    assert "**" not in text


# --- what is measured, where the answer is known ------------------------------------------------------------------


def measured(flow):
    """Of a model that follows ``flow`` for 4 frames."""
    model = FlowFactorizedVAE(*encoder_and_decoder(), flow, DiffusionPrior(3), hamilton_jacobi=0.0).double()
    images = torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return ablations.measure_flow(model, TransformationSequences(images, horizon=4), images=1, samples=3)


@pytest.mark.usefixtures("double")
def test_a_translation_is_optimal_transport_and_standing_still_has_no_gap(make_quadratic):
    found = measured(Flow(make_quadratic(torch.zeros(3, 2, 2), linear=[[1.0, -2.0], [0.0, 0.0], [0.0, 3.0]])))
    assert found["ot_gap"] == {"scale": pytest.approx(1.0), "rotate": None, "hue": pytest.approx(1.0)}
    assert found["efficiency"] == {"scale": pytest.approx(1.0), "rotate": 1.0, "hue": pytest.approx(1.0)}
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
    assert max(found["efficiency"].values()) < 1e-4
    assert min(found["ot_gap"].values()) > 100
    folding = Flow(make_quadratic([[[-0.5, 0.0], [0.0, -2.0]]] * 3))
    assert measured(folding)["smallest_eigenvalue"] == pytest.approx(-1.0)


@pytest.mark.usefixtures("double")
def test_a_likelihood_above_its_ceiling_is_left_empty_and_other_errors_are_not_hidden(make_quadratic, monkeypatch):
    flow = Flow(make_quadratic(torch.zeros(3, 2, 2)))

    def fails_with(error):
        def log_likelihood(*arguments, **options):
            raise error

        monkeypatch.setattr(experiments.runs, "log_likelihood", log_likelihood)

    fails_with(metrics.AboveCeiling("too high"))
    assert measured(flow)["log_likelihood"] is None
    fails_with(RuntimeError("out of memory below the ceiling"))
    with pytest.raises(RuntimeError, match="out of memory"):
        measured(flow)


def test_the_time_of_a_step_is_the_median_over_the_history():
    history = [{"step": 25, "seconds": 0.5}, {"step": 50, "seconds": 9.5}, {"step": 60, "seconds": 9.8}]
    assert ablations._step_time(history) == pytest.approx(30.0)  # of 20, 360 and 30 ms
    assert ablations._step_time(history[:1]) == pytest.approx(20.0)


# --- which differences count, by hand -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "references", "mean", "half", "marked"),
    [
        ((1.1, 2.0, 2.9), (0.0, 0.0, 0.0), 2.0, 4.303 * 0.9 / 3**0.5, False),  # beyond twice its spread of 0.9
        ((1.3, 2.0, 2.7), (0.0, 0.0, 0.0), 2.0, 4.303 * 0.7 / 3**0.5, True),
        ((-1.3, -2.0, -2.7), (0.0, 0.0, 0.0), -2.0, 4.303 * 0.7 / 3**0.5, True),
        ((0.0, 2.0) * 5, (0.0,) * 10, 1.0, 2.262 / 3, True),  # its spread is 1.05
        ((0.9, 1.1), (0.0, 0.0), 1.0, 12.71 * 0.1, False),
        ((101.0, 205.0, 309.0), (100.0, 204.0, 308.0), 1.0, 0.0, True),  # seeds differ by 100, pairs do not
        ((100.0, 205.0, 309.0), (308.0, 204.0, 100.0), 2.0 / 3, 518.0, False),
        ((3.0, 4.0), (3.0, 4.0), 0.0, 0.0, False),
        ((5.0,), (1.0,), 4.0, math.nan, False),
    ],
)
def test_a_difference_is_marked_where_its_interval_over_pairs_leaves_out_zero(values, references, mean, half, marked):
    found = paired_difference(values, references)
    assert found.mean == pytest.approx(mean)
    assert found.half == pytest.approx(half, rel=1e-3, abs=1e-9, nan_ok=True)
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half), rel=2e-3, abs=1e-9, nan_ok=True)
    assert found.marked == marked
    assert (found.p < 0.05) == marked


@pytest.mark.parametrize(("values", "references"), [((1.0, 2.0), (1.0,)), ((), ())])
def test_pairs_need_partners(values, references):
    with pytest.raises(ValueError, match="as many values as references"):
        paired_difference(values, references)


def test_the_p_value_of_a_difference_is_students_t_in_closed_form():
    """P(|t_2| > x) = 1 - x/√(x² + 2) and P(|t_1| > x) = 1 - (2/π) arctan x; none with a single seed."""
    assert paired_difference((1.0, 2.0, 3.0), (0.0,) * 3).p == pytest.approx(1 - math.sqrt(12) / math.sqrt(14))
    assert paired_difference((1.0, 2.0), (0.0, 0.0)).p == pytest.approx(1 - 2 / math.pi * math.atan(3))
    assert [paired_difference((x, x), (1.0, 1.0)).p for x in (1.0, 2.0)] == [1.0, 0.0]
    assert math.isnan(paired_difference((2.0,), (1.0,)).p)


def made_up(variants, seed, ratio, frame=-2180.0, gap=1.5):
    return {
        "variants": variants, "seed": seed, "device": "CPU", "budget": "lecture", "data_set": "made up (test)",
        "settings": {"steps": 7, "field": "gradient"}, "milliseconds": 40.0,
        "log_likelihood": {"frame": {"x_0": frame, "x_t": -2170.0}}, "smallest_eigenvalue": 0.25,
        "equivariance_error": {"turn": 10 * ratio, "grow": 2.0},
        "no_motion": {"turn": 10.0, "grow": 10.0}, "reconstruction_floor": {"turn": 1.0, "grow": 1.0},
        "ratio_to_no_motion": {"turn": ratio, "grow": 0.2}, "ot_gap": {"turn": gap, "grow": gap},
        "efficiency": {"turn": 0.5, "grow": 0.75},
    }  # fmt: skip


@pytest.fixture
def by_hand():
    a, b, c, d = [STANDARD], [("field", "gradient"), ("hamilton-jacobi", "λ")], [("field", "free")], [("width", "8")]
    cells = [made_up(a, 0, 0.4), made_up(a, 1, 0.5), made_up(b, 0, 0.2), made_up(b, 1, 0.4)]
    cells += [made_up(c, 0, 0.3), made_up(c, 1, 0.6), made_up(d, 0, 0.44, -2200.0), made_up(d, 2, 9.0)]
    cells[0] |= {"ot_gap": {"turn": 2.0, "grow": 1.5}, "efficiency": {"turn": 0.4, "grow": 0.8}}
    return {"settings": {"groups": ["field", "width"]}, "cells": cells}


def test_each_group_is_held_against_its_reference_seed_by_seed(by_hand):
    lines = {line.variant: line for line in ablation_tables.summarise(by_hand)}
    assert list(lines) == ["standard", "gradient", "free", "8"]
    assert lines["standard"].differences == lines["gradient"].differences == {}
    free = lines["free"].differences  # 0.3 ÷ 0.2 and 0.6 ÷ 0.4, not 0.45 ÷ 0.3 nor ÷ the standard model
    assert (free["turn"].mean, free["turn"].marked) == (pytest.approx(0.5), True)
    assert (free["grow"].mean, free["grow"].marked) == (0.0, False)
    assert free["error"].mean == pytest.approx(0.25)
    narrow = lines["8"].differences  # of seed 0 alone: the standard model has no seed 2
    assert narrow["turn"].mean == pytest.approx(0.1)
    assert math.isnan(narrow["turn"].half)
    assert narrow["frame by x_0"].mean == pytest.approx(-20.0)
    assert narrow["pairing"].mean == pytest.approx(1.5 * (0.5 + 0.75) / 2 - 0.5 * (0.8 + 1.2))
    assert len(lines["8"].cells) == 2


def test_agreement_on_a_free_field_is_held_against_the_free_field_whichever_groups_are_shown(by_hand):
    agreeing = [made_up([("consistency", "free")], 0, 0.33), made_up([("consistency", "free")], 1, 0.66)]
    agreeing[0]["settings"] = {"steps": 7, "field": "gradient", "consistency": 0.1}
    result = {"settings": {"groups": ["consistency"]}, "cells": [*by_hand["cells"], *agreeing]}
    line = {line.name: line for line in ablation_tables.summarise(result)}["consistency: free"]
    assert line.differences["turn"].mean == pytest.approx(0.1)  # 0.33 ÷ 0.3 and 0.66 ÷ 0.6
    assert line.changed == ["consistency"]
    text = "\n".join(ablation_tables.notes(result))
    assert "the difference from the standard model; of consistency: free from field: free." in text
    assert "More than one setting" not in text
    agreeing[0]["settings"] |= {"beta": 1.0}
    text = "\n".join(ablation_tables.notes(result))
    assert "More than one setting differs from the reference in consistency: free (consistency, beta)." in text
    result["cells"] = [*by_hand["cells"][:4], *agreeing]
    row = ablation_tables.table(result).set_index("variant").loc["free"]
    assert row["turn ÷ no motion"] == "0.495 ± 0.233"
    text = "\n".join(ablation_tables.notes(result))
    assert "Held against nothing, as no seed of their reference is done: consistency: free." in text


def test_another_task_is_held_against_nothing(by_hand):
    """Where standing still is wrong by another amount, other frames were to be predicted: by rounding it is not."""
    for cell in by_hand["cells"][4:6]:
        cell["no_motion"] = {"turn": 10.0, "grow": 5.0}
    for cell in by_hand["cells"][6:]:
        cell["no_motion"] = {"turn": 10.0 + 1e-6, "grow": 10.0}
    lines = {line.name: line for line in ablation_tables.summarise(by_hand)}
    assert lines["field: free"].differences == {}
    assert [name for name, line in lines.items() if line.another_task] == ["field: free"]
    assert "turn" in lines["width: 8"].differences
    row = ablation_tables.table(by_hand).set_index("variant").loc["free"]
    assert (row["turn ÷ no motion"], row["OT gap"]) == ("0.450 ± 0.212", "1.50 ± 0.00")
    text = "\n".join(ablation_tables.notes(by_hand))
    assert "Held against nothing, as another no motion means another task: field: free." in text
    assert "from field: gradient" not in text
    error, frame, gap = ablation_tables.figure(by_hand).axes
    assert [round(bar.lines[0].get_ydata()[0]) for bar in error.containers] == [3, 3]
    assert (len(frame.containers), len(gap.containers)) == (1, 4)


def test_what_was_not_measured_is_neither_compared_nor_shown(by_hand):
    by_hand["cells"][4]["log_likelihood"] = by_hand["cells"][5]["ot_gap"]["turn"] = None
    free = {line.variant: line for line in ablation_tables.summarise(by_hand)}["free"].differences
    assert set(free) == {"turn", "grow", "error", "efficiency"}  # no gap, hence no pairing either
    row = ablation_tables.table(by_hand).set_index("variant").loc["free"]
    assert row["frame by x_0"] == row["OT gap"] == row["pairing"] == row["sequence"] == ""
    assert "An empty likelihood exceeded its ceiling" in "\n".join(ablation_tables.notes(by_hand))


def test_the_table_shows_what_was_measured_with_its_difference_beside_it_bold_by_a_rule_that_is_told(by_hand):
    table = ablation_tables.table(by_hand).set_index("variant")
    assert table.loc["standard", "turn ÷ no motion"] == "0.450 ± 0.071"
    assert table.loc["standard", "OT gap":"ms a step"].tolist() == [
        "1.62 ± 0.18", "0.613 ± 0.018", "0.969 ± 0.044", "0.25 ± 0.00", "40 ± 0",
    ]  # fmt: skip
    assert table.loc["free", "turn ÷ no motion"] == "0.450 ± 0.212 (**+50.0 ± 0.0 %**)"
    assert table.loc["free", "grow ÷ no motion"] == "0.200 ± 0.000 (+0.0 ± 0.0 %)"
    assert table.loc["free", "mean error"] == "0.325 ± 0.106 (**+25.0 ± 0.0 %**)"
    assert table.loc["8", "frame by x_0"] == "-2190.0 ± 14.1 (-20.0)"
    text = "\n".join(ablation_tables.notes(by_hand))
    assert "In brackets ± is half the width of the 95 % t-interval of their mean" in text
    assert "Of the 8 intervals here 5 %, so 0.4, would leave out 0 by chance if nothing differed; 2 do." in text
    assert "After Holm's correction for as many comparisons 2 remain." in text
    assert "the difference from the standard model; of field: free from field: gradient." in text
    assert "made up (test), budget lecture, seeds 0, 1, 2, CPU; mean ± standard deviation." in text
    assert "Standard: steps 7, field gradient." in text
    assert "Frame is empty" not in text


def test_the_notes_tell_the_sizes_that_were_measured_and_which_likelihood_a_reading_lacks(by_hand):
    by_hand["settings"] |= {"likelihood_images": 200}
    by_hand["cells"][0]["settings"] |= {"likelihood_images": 16}  # the recipe's, which the study does not use
    by_hand["cells"][4] |= {"log_likelihood": {"sequence": -2170.0, "frame": {}}}
    by_hand["cells"][4]["settings"] |= {"field": "free", "steps": 8}
    text = "\n".join(ablation_tables.notes(by_hand))
    assert "\nStandard: steps 7, field gradient, likelihood_images 200.\n" in text
    assert text.endswith("\nWhat differs from it: field: free (steps 8, field free).")
    assert "Frame is empty where the prior is pushed forward" in text


def test_a_difference_that_is_printed_as_zero_is_not_bold():
    by_rounding, seen = paired_difference((1.001, 1.001), (1.0, 1.0)), paired_difference((1.1, 1.1), (1.0, 1.0))
    assert by_rounding.marked
    assert ablation_tables._changed(by_rounding, "ot_gap", False) == "+0.00 ± 0.00"
    assert ablation_tables._changed(seen, "ot_gap", False) == "**+0.10 ± 0.00**"
    assert ablation_tables._changed(by_rounding, "turn", True) == "**+0.1 ± 0.0 %**"


def test_brackets_hold_half_the_width_of_the_interval():
    difference = paired_difference((1.3, 2.0, 2.7), (0.0, 0.0, 0.0))
    assert ablation_tables._changed(difference, "ot_gap", False) == "**+2.00 ± 1.74**"
    assert ablation_tables._changed(difference, "turn", True) == "**+200.0 ± 173.9 %**"
    assert ablation_tables._changed(paired_difference((2.0,), (0.0,)), "ot_gap", False) == "+2.00"


def test_without_a_finished_cell_there_is_no_table(by_hand):
    with pytest.raises(ValueError, match="no cell of the ablations is done"):
        ablation_tables.table(by_hand | {"cells": []})


def test_the_figure_shows_every_line_and_fills_what_is_marked(by_hand):
    error, frame, gap = ablation_tables.figure(by_hand).axes
    labels = [label.get_text() for label in error.get_yticklabels()]
    assert labels == ["standard", "field: gradient", "field: free", "width: 8"]
    turn = next(bar for bar in error.containers if bar.lines[0].get_xdata()[0] == pytest.approx(1.5))
    assert turn.lines[0].get_markerfacecolor() != "white"
    assert turn.lines[0].get_ydata()[0] == pytest.approx(2, abs=0.3)
    still = [bar for bar in error.containers if bar.lines[0].get_xdata()[0] == pytest.approx(1.0)]
    assert all(bar.lines[0].get_markerfacecolor() == "white" for bar in still)
    assert (len(frame.containers), len(gap.containers)) == (2, 4)


def test_the_figure_says_what_its_bars_are_and_draws_them(by_hand):
    by_hand["cells"][5]["ratio_to_no_motion"] = {"turn": 0.61, "grow": 0.2}  # 0.3 ÷ 0.2 and 0.61 ÷ 0.4
    shown = ablation_tables.figure(by_hand)
    error, frame, gap = shown.axes
    ends = [segment[:, 0] for bar in error.containers for part in bar.lines[2] for segment in part.get_segments()]
    assert any(end == pytest.approx([1.5125 - 12.706 * 0.0125, 1.5125 + 12.706 * 0.0125], abs=1e-3) for end in ends)
    first = gap.containers[0].lines[2][0].get_segments()[0][:, 0]
    assert first == pytest.approx([1.625 - 0.177, 1.625 + 0.177], abs=1e-3)  # of 1.75 and 1.5
    assert "95 % interval" in error.get_xlabel()
    assert "95 % interval" in frame.get_xlabel()
    assert "standard\ndeviation" in gap.get_xlabel()
    legend = [text.get_text() for text in shown.legends[0].get_texts()]
    assert legend[-2:] == ["beyond its 95 % interval", "within, or a single seed"]


@pytest.mark.parametrize("name", ["digits-ablations", "digits-ablations-sizes"])
def test_recorded_results_give_their_table_and_notes_without_their_data(name, monkeypatch):
    monkeypatch.setattr(ablations, "sequences", lambda *a: pytest.fail("data were loaded"))
    path = Path(__file__).parent.parent / "data" / "results" / f"{name}.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    assert len(ablations.STUDY.table(result)) == 1 + sum(
        len(ablations.ABLATIONS[g]) for g in result["settings"]["groups"]
    )
    assert "Missing" not in "\n".join(ablations.STUDY.notes(result))


def test_in_the_records_what_is_bold_is_beyond_its_interval_and_brackets_speak_of_one_change():
    folder = Path(__file__).parent.parent / "data" / "results"
    names = ("digits-ablations", "digits-ablations-sizes")
    results = [json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names]
    bold = re.findall(r"\*\*([+-]\S+) ± ([\d.]+)", ablation_tables.table(results[0]).to_csv())
    assert len(bold) > 50
    assert all(abs(float(centre)) >= float(half) for centre, half in bold)
    parts, sizes = ({line.name: line for line in ablation_tables.summarise(result)} for result in results)
    free = parts["consistency: free"].differences
    changes = [100 * free[k].mean for k in ("scale", "rotate", "hue")]
    assert changes == pytest.approx([3.8, 5.9, 4.1], abs=0.05)
    assert free["ot_gap"].mean == pytest.approx(-0.86, abs=0.005)
    several = [line.name for line in (parts | sizes).values() if len(line.changed) > 1]
    assert several == ["prior: pushforward, β = 0.27"]
    assert [name for name, line in sizes.items() if not line.differences] == [
        "standard", "horizon: T = 4", "horizon: T = 16",
    ]  # fmt: skip
