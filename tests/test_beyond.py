"""The study of what comes after supervision: the sparse model is built and trained, cells run, the table is right."""

import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from typer.testing import CliRunner

from poflow_lite import recipes
from poflow_lite.cli import app
from poflow_lite.datasets import TransformationSequences, load_stills
from poflow_lite.metrics import equivariance_errors, no_motion, predict
from poflow_lite.recipes import build_model, recipe, sequences
from poflow_lite.sparsity import Donors, field_use, infer_all
from poflow_lite.studies import beyond
from poflow_lite.studies.beyond import STUDIES, beyond_table, sparse_flow_model, study_beyond, train_sparse_flow

TINY = {"steps": 3, "batch_size": 8, "latent": 8, "channels": (4, 8), "hidden": 16, "width": 4}


@pytest.fixture
def small(monkeypatch):
    """Every recipe shrinks to seconds, in this process."""
    for name in [key for key in recipes._RECIPES if key[0] == "digits"]:
        monkeypatch.setitem(recipes._RECIPES, name, replace(recipes._RECIPES[name], **TINY))
    monkeypatch.setattr(beyond, "MATCHING", {"steps": 3, "batch_size": 16, "learning_rate": 1e-2})


def settings():
    return recipe("digits", "smoke", "beta-vae", **TINY)


def test_the_sparse_model_starts_from_the_networks_that_all_models_of_a_seed_start_from():
    before = torch.get_rng_state()
    model, again, other = (sparse_flow_model(settings(), seed=seed, curl_free=2) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    base = build_model("flow-factorized", recipe("digits", "smoke", **TINY), seed=3)
    for name, parameter in base.decoder.named_parameters():
        assert torch.equal(parameter, model.decoder.get_parameter(name))
    for (name, one), two in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two), name
    assert not torch.equal(model.flow.field.families[0].inner, other.flow.field.families[0].inner)
    assert model.flow.field.sizes == [2, 3]
    assert model.annealing == 1
    assert model.beta == 0.03


def test_fields_of_one_kind_alone_can_be_had_but_not_none():
    assert sparse_flow_model(settings(), curl_free=0, divergence_free=2).flow.field.sizes == [2]
    for numbers in ((0, 0), (-1, 3)):
        with pytest.raises(ValueError, match=f"got {numbers[0]} curl-free and {numbers[1]} divergence-free"):
            sparse_flow_model(settings(), curl_free=numbers[0], divergence_free=numbers[1])


def test_an_interrupted_training_goes_on_from_its_checkpoint(tmp_path):
    training = sequences("digits", "train", settings())
    options = {"progress": False, "curl_free": 1, "divergence_free": 1}
    whole, _ = train_sparse_flow(training, settings(), **options)
    first = tmp_path / "checkpoint.safetensors"
    train_sparse_flow(training, settings(), checkpoint=first, **options)
    resumed, seconds = train_sparse_flow(training, settings(), checkpoint=first, **options)
    assert seconds > 0
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(ValueError, match="belongs to another run"):
        train_sparse_flow(training, settings(), checkpoint=first, **(options | {"use": 1.0}))


def test_the_three_transformations_of_digits_get_fields_of_their_own_without_a_label():
    """In seconds, hence roughly: but no field serves two of them, and the motion transfers from other sequences."""
    training, held_out = (TransformationSequences(load_stills("digits", n).images) for n in ("train", "validation"))
    sizes = {"latent": 8, "channels": (8, 16), "hidden": 64, "width": 16, "beta": 0.1}
    quick = {"steps": 300, "batch_size": 32, "frames": 1, "learning_rate": 8e-3}
    options = beyond.SPARSE | {"curl_free": 2, "divergence_free": 2, "activity": 0.25}
    settings = recipe("digits", "smoke", "beta-vae", **sizes, **quick)
    model, _ = train_sparse_flow(training, settings, progress=False, **options)
    held_out = held_out.first(60)
    use, donors = field_use(infer_all(model, held_out)), Donors(model, training, images=60)
    assert use.purity >= 0.95
    assert use.active.mean() < 2
    errors = equivariance_errors({"flow": lambda b: predict(model, donors(b)), "still": no_motion}, held_out)
    assert all(errors["flow"][k] < 0.9 * errors["still"][k] for k in held_out.names)


def test_every_cell_is_trained_measured_and_recorded(small, tmp_path):
    result = study_beyond("digits", tmp_path, budget="smoke", seeds=[1], images=6, device="cpu", progress=False)
    assert result["failed"] == {}
    assert [(cell["study"], cell["seed"]) for cell in result["cells"]] == [(name, 1) for name in STUDIES]
    assert json.loads((tmp_path / "beyond.json").read_text()) == result
    assert (tmp_path / "beyond.md").read_text() == beyond_table(result)
    assert {"command", "versions", "device", "settings", "data_set", "split"} < result.keys()
    rows = {name: row for cell in result["cells"] for name, row in cell["rows"].items()}
    assert len(rows) == 8
    for name, row in rows.items():
        for k in ("scale", "rotate", "hue"):
            assert row["ratio_to_no_motion"][k] == pytest.approx(row["equivariance_error"][k] / row["no_motion"][k])
            assert row["ot_gap"][k] is None or row["ot_gap"][k] > 1 - 1e-6, name
            assert 0 <= row["straightness"][k] <= 1 + 1e-6
        assert row["seconds"] > 0
    sparse = rows["sparse flow, transferred"]
    assert sparse["active"] == pytest.approx(sum(sparse["active_per_k"].values()) / 3)
    assert len(sparse["usage"]) == 6


def test_cells_that_are_done_are_not_run_again(small, tmp_path, monkeypatch):
    run = partial(study_beyond, "digits", tmp_path, budget="smoke", studies=["sparse"], images=4, device="cpu")
    first = run(progress=False)
    monkeypatch.setattr(beyond, "train_sparse_flow", None)
    assert run(progress=False)["cells"] == first["cells"]


def test_unknown_names_are_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ValueError, match="unknown study 'dense'; known: supervised, sparse, matching"):
        study_beyond("digits", tmp_path / "x", studies=["dense"])
    with pytest.raises(ValueError, match="unknown data set 'cats'"):
        study_beyond("cats", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def row_of(ratio, **more):
    figures = {name: {"turn": value} for name, value in more.pop("per_k", {"ot_gap": 1.5, "straightness": 0.9}).items()}
    return {"ratio_to_no_motion": {"turn": ratio}, "seconds": 61.0, **figures, **more}


def test_the_table_holds_means_and_spreads_over_seeds_and_dashes_for_what_does_not_apply():
    cells = [
        {
            "rows": {
                "told": row_of(0.2, active=1.0),
                "not told": row_of(0.5, active=1.0, index_accuracy=0.9, purity=1.0),
            }
        },
        {"rows": {"told": row_of(0.4, active=1.0, per_k={"ot_gap": None, "straightness": 1.0})}},
    ]
    where = {"command": "poflow-lite beyond", "device": "CPU", "versions": {"torch": "2"}}
    text = beyond_table({"data_set": "toys, 5 measured", "budget": "smoke", "cells": cells, **where})
    heading, _, names, _, told, not_told, _, source = text.splitlines()
    assert source == "`poflow-lite beyond`; CPU; torch 2."
    assert heading == "toys, 5 measured, budget smoke: equivariance error ÷ no motion"
    assert names == "| model | turn | active fields | index accuracy | purity | OT gap | straightness | seconds |"
    spread = f"{math.sqrt(0.02):.2f}"
    assert told == f"| told | 0.30 ± {spread} | 1.00 ± 0.00 | – | – | – | 0.95 ± 0.07 | 61 ± 0 |"
    assert not_told == "| not told | 0.50 | 1.00 | 0.90 | 1.00 | 1.50 | 0.90 | 61 |"


def test_the_command_prints_the_table(small, tmp_path):
    options = ["--studies", "sparse", "--budget", "smoke", "--images", "4", "--device", "cpu", "--out", str(tmp_path)]
    found = CliRunner().invoke(app, ["beyond", *options])
    assert found.exit_code == 0, found.output
    assert (tmp_path / "beyond.md").read_text() in found.output
