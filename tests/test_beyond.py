"""What comes after supervision: the sparse model is built, cells run on the right splits, the table is right."""

import math
from functools import partial

import pytest
import torch

from poflow_lite.course import recorded
from poflow_lite.experiments import MODELS, build_model, load_run, recipe, register_model, sequences, train_recipe
from poflow_lite.metrics import equivariance_errors, predict, with_own_coefficients
from poflow_lite.operators import AffineMaps, training_latents, with_operator
from poflow_lite.studies.beyond import APPROACHES, STUDY, sparse_flow
from poflow_lite.studies.study import run_study
from poflow_lite.transport import efficiency, ot_gap

TINY = {"steps": 3, "batch_size": 8, "latent": 8, "channels": (4, 8), "hidden": 16, "width": 4}
SHAPE = (3, 28, 28)


def test_the_sparse_model_can_be_trained_by_name_and_starts_from_the_networks_of_all_models(tmp_path, monkeypatch):
    monkeypatch.setattr("poflow_lite.experiments.building.MODELS", MODELS | {})
    register_model("sparse-flow", sparse_flow)
    model = build_model("sparse-flow", recipe("digits", "smoke", "sparse-flow", curl_free=2, **TINY), seed=3)
    base = build_model("flow-factorized", recipe("digits", "smoke", **TINY), seed=3)
    for name, parameter in [*base.encoder.named_parameters("encoder"), *base.decoder.named_parameters("decoder")]:
        assert torch.equal(parameter, model.get_parameter(name)), name
    assert model.flow.field.sizes == [2, 3]
    assert (model.annealing, model.beta) == (1, 0.03)
    how = {"device": "cpu", "progress": False, "slab": (2.0, 0.5)}
    run = load_run(train_recipe("sparse-flow", "digits", "smoke", tmp_path, **TINY, **how), "cpu")
    assert run.model.posterior.slab == (2.0, 0.5)
    assert run.model.steps_taken == 3
    batch = sequences("digits", "test", run.settings).batch([0, 1], 2)
    with pytest.raises(ValueError, match=r"the 6 fields of this model have no k: pass coefficients \(B, M\)"):
        predict(run.model, batch)
    assert predict(run.model, with_own_coefficients(run.model, batch)).shape == batch.frames.shape


def test_fields_of_one_kind_alone_can_be_had_but_not_none():
    settings = recipe("digits", "smoke", "beta-vae", **TINY)
    assert sparse_flow(settings, SHAPE, 3, curl_free=0, divergence_free=2).flow.field.sizes == [2]
    for numbers in ((0, 0), (-1, 3)):
        with pytest.raises(ValueError, match=f"got {numbers[0]} curl-free and {numbers[1]} divergence-free"):
            sparse_flow(settings, SHAPE, 3, curl_free=numbers[0], divergence_free=numbers[1])


# --- the study ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beyond")
    options = {"budget": "smoke", "seeds": [1], "images": 6, "device": "cpu", "changes": TINY | {"share": 0.05}}
    return folder, run_study(STUDY, folder, progress=False, **options)


def test_every_cell_is_trained_measured_and_recorded(finished):
    folder, result = finished
    assert result["failed"] == {}
    assert [(cell["approach"], cell["seed"]) for cell in result["cells"]] == [(name, 1) for name in APPROACHES]
    rows = {name: row for cell in result["cells"] for name, row in cell["rows"].items()}
    assert len(rows) == 8
    for name, row in rows.items():
        for k in ("scale", "rotate", "hue"):
            assert row["ratio_to_no_motion"][k] == pytest.approx(row["equivariance_error"][k] / row["no_motion"][k])
            assert row["ot_gap"][k] is None or row["ot_gap"][k] > 1 - 1e-6, name
            assert 0 <= row["efficiency"][k] <= 1 + 1e-6
        assert row["seconds"] > 0
    sparse = rows["sparse flow, transferred"]
    assert sparse["active"] == pytest.approx(sum(sparse["active_per_k"].values()) / 3)
    assert len(sparse["usage"]) == 6
    assert f"| {'β-VAE, matched flow, unpaired'} |" in (folder / "table.md").read_text()
    assert (folder / "beyond.png").stat().st_size > 10_000


def test_what_is_measured_is_fitted_to_the_training_split_and_shown_the_other(finished):
    folder, result = finished
    rows = {cell["approach"]: cell["rows"] for cell in result["cells"]}["matching"]
    run = load_run(folder / "matching-seed-1", "cpu")
    training, shown = (sequences("digits", split, run.settings) for split in ("train", "test"))
    assert run.config["data_set"] == training.name
    moved = with_operator(run.model, AffineMaps.linear(training_latents(run.model, training, seed=1)))
    errors = equivariance_errors({"linear": partial(predict, moved)}, shown.first(6))["linear"]
    assert rows["β-VAE, linear operator"]["equivariance_error"] == pytest.approx(errors, rel=1e-5)
    z = moved.rollout(moved.encode(shown.images[:6]).mean, torch.full((6,), 1), range(9)).z.detach()
    found = rows["β-VAE, linear operator"]
    assert found["ot_gap"]["rotate"] == pytest.approx(ot_gap(z), rel=1e-4)
    assert found["efficiency"]["rotate"] == pytest.approx(efficiency(z), rel=1e-4)


def test_the_same_call_runs_nothing_again(finished, monkeypatch):
    folder, result = finished
    monkeypatch.setattr("poflow_lite.studies.study._run_cell", None)
    assert run_study(STUDY, folder, progress=False, **result["settings"])["cells"] == result["cells"]


def test_mistakes_are_refused_before_anything_is_trained(tmp_path):
    for options, message in (
        ({"approaches": ["dense"]}, "unknown approach 'dense'; known: supervised, sparse, matching"),
        ({"data": "cats"}, "unknown data set 'cats'"),
        ({"data": "falcor3d-lite", "changes": {"horizon": 16}}, "T can be 4 at most, got 16"),
    ):
        with pytest.raises(ValueError, match=message):
            run_study(STUDY, tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_the_notes_explain_the_columns_and_rows_that_are_there_and_say_how_many_images_were_measured(finished):
    folder, result = finished
    said = (folder / "table.md").read_text(encoding="utf-8")
    assert "digits (test, 360 images), fixed start, 6 measured, budget smoke, seed 1." in said
    for column in STUDY.table(result).columns[4:]:
        assert f"{column[0].upper()}{column[1:]}: " in said
    assert "± standard" not in said, "one seed has no spread"
    matching = result | {"cells": [cell for cell in result["cells"] if cell["approach"] == "matching"]}
    fewer = " ".join(STUDY.notes(matching))
    assert "OT gap: " in fewer
    assert "Unpaired: " in fewer
    assert "Options of matching: steps 20, batch_size 256, learning_rate 0.005." in fewer
    assert "Options of sparse: curl_free 3, divergence_free 3, activity 0.167, empty 100," in said
    assert not any(f"{name}: " in fewer for name in ("Active fields", "Purity", "Clustering accuracy", "Transferred"))


def test_the_notes_of_the_record_say_how_many_images_were_measured():
    first = STUDY.notes(recorded("digits-beyond.json"))[0]
    assert first.startswith(
        "digits (test, 360 images), fixed start, 360 measured, budget lecture, seeds 0, 1, 2: mean ±"
    )


def row_of(ratio, ot_gap=1.5, **more):
    return {"ratio_to_no_motion": {"turn": ratio}, "seconds": 61.0, "ot_gap": {"turn": ot_gap},
            "efficiency": {"turn": 0.9}, **more}  # fmt: skip


def test_the_table_holds_means_and_spreads_over_seeds_and_nothing_where_something_does_not_apply():
    told = [row_of(0.2, active=1.0), row_of(0.4, ot_gap=None, active=1.0)]
    free = row_of(0.5, active=1.0, clustering_accuracy=0.9, purity=1.0)
    cells = [{"seed": 0, "rows": {"told": told[0], "not told": free}}, {"seed": 1, "rows": {"told": told[1]}}]
    table = STUDY.table({"cells": cells}).set_index("model").T
    spread = f"{math.sqrt(0.02):.2f}"
    assert table["told"].to_dict() == {
        "turn": f"0.30 ± {spread}", "active fields": "1.00 ± 0.00", "clustering accuracy": "", "purity": "",
        "OT gap": "", "efficiency": "0.90 ± 0.00", "seconds": "61 ± 0",
    }  # fmt: skip
    assert list(table["not told"]) == ["0.50", "1.00", "0.90", "1.00", "1.50", "0.90", "61"]
