"""Trials and their table: what is shown, what is measured, and who is called first."""

import json
import math
from functools import partial

import pytest
import torch
from tiny import generator

from poflow_lite.datasets import PAPER_TRANSFORMATIONS, Motion, Phase, TransformationSequences, load_stills
from poflow_lite.metrics import autoencode, equivariance_errors, no_motion, predict
from poflow_lite.movers import fit_movers
from poflow_lite.recipes import build_model, recipe
from poflow_lite.studies import generalisation, trials
from poflow_lite.studies.generalisation import Entry, generalise, standings, write_generalisation
from poflow_lite.studies.trials import TRAININGS, TRIALS, Trial, measure_round_trip, measure_trial, trial_sequences

TINY = {
    "steps": 3, "batch_size": 4, "latent": 8, "channels": (4, 8), "hidden": 16, "width": 4, "likelihood_images": 1,
    "samples": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return build_model("flow-factorized", recipe("digits", "smoke", **TINY)).eval()


@pytest.fixture(scope="module")
def training():
    return TransformationSequences(load_stills("digits", "train").images[:30])


# --- what is shown ------------------------------------------------------------------------------------------------


def test_every_trial_names_a_way_of_training_and_shows_images_of_the_right_kind():
    for name, trial in TRIALS.items():
        assert trial.training in TRAININGS
        if "mnist" in (trial.data, TRAININGS[trial.training].get("data")):
            continue
        shown = trial_sequences(trial, "digits", "test", 3)
        assert (len(shown), shown.image_shape) == (3, (3, 28, 28)), name
        assert trial.start in shown.name


def test_classes_never_seen_are_those_that_training_leaves_out():
    trial = TRIALS["classes never seen"]
    assert TRAININGS[trial.training]["left_out"] == trial.only
    stills = load_stills("digits", "test")
    shown = trial_sequences(trial, "digits", "test", 1000)
    assert len(shown) == sum((stills.labels == label).sum() for label in trial.only)


def test_starts_out_of_range_do_not_overlap_with_those_of_training():
    drawn = trial_sequences(TRIALS["random starts out of range"], "digits", "test", 100).start_pose(500, generator())
    for column, transformation in enumerate(PAPER_TRANSFORMATIONS[:2]):
        low, high = transformation.start
        assert not ((drawn[:, column] > low) & (drawn[:, column] < high)).any()


# --- what is measured ---------------------------------------------------------------------------------------------


def test_a_trial_of_single_motions_is_the_equivariance_error(model, training):
    shown = trial_sequences(TRIALS["as trained"], "digits", "test", 9)
    measured = measure_trial(model, fit_movers(model, training), TRIALS["as trained"], shown)
    expected = equivariance_errors(
        {"flow": lambda b: predict(model, b), "floor": lambda b: autoencode(model, b), "no motion": no_motion}, shown
    )
    for name, errors in expected.items():
        for k, error in errors.items():
            assert measured[name][k] == pytest.approx(error, rel=1e-3), (name, k)


def test_a_spoiled_frame_is_what_the_model_sees_and_not_the_truth(model, training):
    movers, shown = fit_movers(model, training), trial_sequences(Trial(), "digits", "test", 9)
    clean = measure_trial(model, movers, Trial(), shown)
    blind = measure_trial(model, movers, Trial(spoil=lambda frames, _: torch.zeros_like(frames)), shown)
    assert [blind[name] for name in ("no motion", "floor")] == [clean[name] for name in ("no motion", "floor")]
    assert blind["identity"]["scale"] != clean["identity"]["scale"]


def test_a_flow_that_folds_space_has_no_entry_for_motions_backwards(training):
    folding = build_model("flow-factorized", recipe("digits", "smoke", **TINY)).eval()
    with torch.no_grad():
        folding.flow.potential.quadratic.copy_(-2.0 * torch.eye(8).expand(3, 8, 8))
    shown = trial_sequences(TRIALS["backwards"], "digits", "test", 4)
    measured = measure_trial(folding, fit_movers(folding, training), TRIALS["backwards"], shown)
    assert measured["flow"] == {}
    assert len(measured["linear"]) == 3


def test_several_at_once_are_tried_in_turn_as_well(model, training):
    shown = trial_sequences(TRIALS["two at once"], "digits", "test", 4)
    measured = measure_trial(model, fit_movers(model, training), TRIALS["two at once"], shown)
    assert {name for name in measured if name.endswith("in turn")} == {
        f"{name} in turn" for name in ("linear", "linear steps", "linear step", "flow")
    }
    assert all(errors.keys() == measured["no motion"].keys() for errors in measured.values())
    assert measured["linear in turn"] != measured["linear"]


def test_there_and_back_by_an_invertible_flow_is_where_it_began(model, training):
    movers = fit_movers(model, training)
    ratios = measure_round_trip(model, movers, trial_sequences(Trial(), "digits", "test", 6))
    assert all(
        ratio == pytest.approx(1, abs=1e-3) for ratio in [*ratios["flow"].values(), *ratios["identity"].values()]
    )


# --- the study ----------------------------------------------------------------------------------------------------


def tiny(out, **options):
    options = {"models": ("vae", "flow-factorized"), "trials": ("as trained", "half speed", "1 % of the images"),
               "budget": "smoke", "images": 4, "device": "cpu", "progress": False, **TINY, **options}  # fmt: skip
    return generalise("digits", out, **options)


@pytest.fixture(scope="module", autouse=True)
def few_latents():
    """Fewer training latents than the study takes: nothing here depends on how many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generalisation, "fit_movers", partial(fit_movers, images=20))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generalisation")
    return folder, tiny(folder, seeds=(0, 1))


def test_every_model_is_trained_in_every_way_that_is_needed(finished):
    folder, result = finished
    assert result["failed"] == {}
    assert json.loads((folder / "generalisation.json").read_text()) == result
    found = {(cell["model"], cell["training"], cell["seed"]) for cell in result["cells"]}
    ways = ("as in the paper", "1 % of the images")
    assert found == {(m, way, s) for m in ("vae", "flow-factorized") for way in ways for s in (0, 1)}
    config = json.loads((folder / "vae-1-percent-of-the-images-seed-0" / "config.json").read_text())
    assert (config["share"], config["data_set"]) == (0.01, "digits (train, 13 images), fixed start")


def test_the_same_call_runs_nothing_again(finished, monkeypatch):
    folder, result = finished
    monkeypatch.setattr(generalisation, "train", None)
    assert tiny(folder, seeds=(0, 1))["cells"] == result["cells"]


def test_the_table_and_the_figure_are_written(finished):
    folder, result = finished
    text = write_generalisation(result, folder)
    assert (folder / "generalisation.md").read_text() == text
    assert (folder / "generalisation.png").stat().st_size > 10_000
    for part in ("| half speed |", "of 3 trials", "There and back by the flow of flow-factorized"):
        assert part in text


def test_both_of_ours_are_counted_against_the_others_alone():
    cells = [
        made_up("vae", 0, linear={"a": 3.0, "b": 30.0}),
        made_up("flow-factorized", 0, flow={"a": 2.0, "b": 20.0}),
        made_up("free flow", 0, flow={"a": 1.0, "b": 10.0}),
    ]
    result = {"cells": [cell | {"device": "CPU"} for cell in cells], "data_set": "made up", "budget": "smoke",
              "command": "-", "versions": {}}  # fmt: skip
    text = generalisation._markdown(standings(result), result)
    assert "flow-factorized has less error than all but ours in 1 of 1 trials." in text
    assert "| as trained | 0.30 (linear) | 0.20 | **0.10** | 0.10 |" in text


def made_up(model, seed, **errors):
    still = {"a": 10.0, "b": 100.0}
    return {
        "model": model, "seed": seed, "training": "as in the paper", "round_trip": {},
        "trials": {"as trained": {"no motion": still, "floor": {"a": 1.0, "b": 10.0}, **errors}},
    }  # fmt: skip


def test_a_model_is_moved_by_what_serves_it_best_but_ours_by_its_flow():
    result = {
        "cells": [
            made_up("vae", 0, identity={"a": 10.0, "b": 100.0}, linear={"a": 2.0, "b": 40.0}),
            made_up("vae", 1, identity={"a": 10.0, "b": 100.0}, linear={"a": 4.0, "b": 40.0}),
            made_up("flow-factorized", 0, linear={"a": 1.0, "b": 10.0}, flow={"a": 2.0, "b": 20.0}),
        ]
    }
    table = standings(result)["as trained"]
    assert table["vae"] == Entry("linear", pytest.approx(0.35), pytest.approx(0.1 / math.sqrt(2) / 1), 0.1, 2)
    assert table["flow-factorized"] == Entry("flow", pytest.approx(0.2), None, pytest.approx(0.1), 1)


def test_two_at_once_are_held_against_the_larger_error_of_the_two_alone():
    cells = [made_up("free flow", seed, flow={"a": 2.0, "b": 20.0}) for seed in (0, 1)]
    for cell, error in zip(cells, (30.0, 50.0), strict=True):
        cell["trials"]["two at once"] = {"no motion": {"a + b": 110.0}, "flow": {"a + b": error}}
    (line,) = generalisation._superposed({"cells": cells})
    assert line.startswith("Two at once by the flow of free flow: 1.50 to 2.50 times the larger error")


def test_there_and_back_says_in_how_many_cases_a_step_folds_space():
    def line(**flow):
        cell = {"model": "free flow", "round_trip": {"identity": {"a": 1.0, "b": 1.0}, "flow": flow}}
        return generalisation._round_trips({"cells": [cell]})[0]

    assert "1.250 times the error" in line(a=1.0, b=1.25)
    assert line(a=1.0, b=1.25).endswith("at worst, in all 2 cases.")
    assert line(a=1.0).endswith("in 1 of 2 cases; in the others some step folds space.")


def test_a_mover_that_cannot_make_all_motions_is_not_taken():
    cell = made_up("poflow", 0, flow={"a": 0.1}, linear={"a": 5.0, "b": 50.0})
    assert standings({"cells": [cell]})["as trained"]["poflow"].mover == "linear"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"trials": ("upside down",)}, "unknown trial 'upside down'"), ({"models": ("gan",)}, "unknown model 'gan'")],
)
def test_a_mistake_is_named_before_anything_is_trained(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        tiny(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_mnist_that_is_not_there_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setenv("POFLOW_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="poflow-lite download mnist"):
        tiny(tmp_path / "out", trials=("from digits to MNIST",))


def test_slugs_of_trainings_are_folders_of_their_own():
    assert len({generalisation._slug(training) for training in TRAININGS}) == len(TRAININGS)
    assert trials.SWITCHED[0] == Motion((Phase(("scale",), 4), Phase(("rotate",), 4)))
