"""The study for a GPU, in small: checkpoint, pictures and figures of every cell, and what is read off them."""

import pytest

from poflow_lite.experiments import load_run
from poflow_lite.studies import full, run_study

CHANGES = {
    "steps": 2,
    "channels": (4, 4),
    "hidden": 8,
    "width": 4,
    "batch_size": 4,
    "likelihood_images": 1,
    "samples": 2,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    how = {"models": ("free-flow", "vae"), "device": "cpu", "budget": "smoke", "changes": CHANGES}
    return folder, run_study(full.STUDY, folder, progress=False, **how)


def test_each_folder_holds_checkpoint_pictures_and_figures(finished):
    folder, result = finished
    assert result["failed"] == {}
    assert [cell["cell"] for cell in result["cells"]] == ["digits-free-flow-seed-0", "digits-vae-seed-0"]
    for cell in result["cells"]:
        for name in ("checkpoint.safetensors", "filmstrip.png", "motion.gif", "traversal.gif", "metrics.json"):
            assert (folder / cell["cell"] / name).exists()
        run = load_run(folder / cell["cell"], "cpu")
        assert (run.settings.steps, run.settings.test_images) == (2, 8)
        assert cell["data_set"] == "digits (test, 360 images), fixed start, 8 measured"


def test_table_and_figure_have_every_data_set_and_model(finished):
    folder, result = finished
    table = full.table(result)
    assert list(table["model"]) == ["free-flow", "vae"]
    ratio = result["cells"][0]["ratio_to_no_motion"]
    assert f"scale {ratio['scale']:.3f}, rotate {ratio['rotate']:.3f}" in table["error ÷ no motion"][0]
    folding = [{**cell, "log_likelihood": None} for cell in result["cells"]]
    assert full.table({"cells": folding})["nats a frame"].tolist() == ["", ""]
    one_folds = [result["cells"][0], folding[0] | {"seed": 1}]
    assert full.table({"cells": one_folds})["nats a frame"].tolist() == [""], "no mean of the seeds that do not fold"
    first = full.figure(result).axes[0]
    assert list(first.lines[0].get_xdata()) == pytest.approx(list(ratio.values()))
    assert "digits (test, 360 images), fixed start, 8 measured, CPU" in (folder / "table.md").read_text()


def test_the_recipes_for_a_gpu_are_those_of_mnist_and_shapes(monkeypatch):
    monkeypatch.setattr(full, "sequences", lambda *a: type("", (), {"image_shape": (3, 64, 64), "names": "abcd"}))
    grid = full.cells(device="cpu")
    assert {name: (cell["settings"]["steps"], cell["settings"]["batch_size"]) for name, cell in grid.items()} == {
        "mnist-free-flow-seed-0": (12_000, 256),
        "shapes3d-lite-free-flow-seed-0": (12_000, 128),
    }


def test_what_does_not_fit_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(full, "train_recipe", lambda *a, **o: pytest.fail("training began"))
    with pytest.raises(ValueError, match="unknown setting of free-flow 'gamma'"):
        run_study(full.STUDY, tmp_path, progress=False, data=("digits",), changes={"gamma": 1.0})
