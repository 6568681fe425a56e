"""Models and metrics run unchanged on rendered scenes: other sizes, other numbers of transformations and frames."""

import json

import pytest
import torch
from typer.testing import CliRunner

from poflow_lite import cli, experiments
from poflow_lite.experiments import sample_batch
from poflow_lite.recipes import MODELS, build_model, recipe, sequences
from poflow_lite.studies import comparison
from poflow_lite.training import step_generator


@pytest.mark.parametrize("model", MODELS)
def test_every_model_takes_a_step_on_scenes(model):
    settings = recipe("shapes3d-lite", "smoke", model, batch_size=4)
    training = sequences("shapes3d-lite", "train", settings)
    built = build_model(model, settings, training.image_shape, len(training.names))
    batch = sample_batch(built, training, settings, step_generator(0, 0, "data"))
    loss = built.train().terms(batch, step_generator(0, 0, "noise")).loss
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in built.encoder.parameters())
    kernels = [p for p in built.decoder.parameters() if p.ndim == 4 and min(p.shape[:2]) > 1]
    assert kernels
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)


def test_scenes_of_128_pixels(tmp_path):
    settings = {"pixels": 128, "channels": (4, 4, 8, 8), "batch_size": 2, "steps": 2, "hidden": 8}
    folder = experiments.train("flow-factorized", "falcor3d-lite", "smoke", tmp_path, progress=False, **settings)
    run = experiments.load_run(folder, "cpu")
    assert run.settings.pixels == 128
    batch = sequences("falcor3d-lite", "test", run.settings).batch(torch.arange(2), 6)
    assert experiments.predict(run.model, batch).shape == (2, 5, 3, 128, 128)


def test_train_and_evaluate_on_the_command_line(tmp_path):
    def call(*arguments):
        result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    small = ("--set", "channels=4,4,8,8", "--set", "test_images=3", "--set", "hidden=8")
    call("train", "--data", "isaac3d-lite", "--budget", "smoke", "--out", tmp_path, *small)
    output = call("evaluate", tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics["equivariance_error"]) == list(metrics["no_motion"])
    assert len(metrics["no_motion"]) == 8
    for name, value in metrics["no_motion"].items():
        assert f"{name} " in output
        assert value > 0
    assert {entry.name for entry in tmp_path.iterdir()} >= {"filmstrip.png", "motion.gif", "traversal.gif"}


def test_operators_are_compared_on_scenes(tmp_path, monkeypatch):
    original = comparison.training_latents
    monkeypatch.setattr(comparison, "training_latents", lambda *a, **o: original(*a, **{**o, "images": 40}))
    result = comparison.compare(
        "shapes3d-lite", ["beta-vae", "flow-factorized"], tmp_path, budget="smoke", images=4, scores=False,
        progress=False, channels=(4, 4, 8, 8), hidden=8, test_images=30, latent=6,
    )  # fmt: skip
    assert result["failed"] == {}
    assert [cell["model"] for cell in result["cells"]] == ["beta-vae", "flow-factorized"]
    for cell in result["cells"]:
        for found in cell["operators"].values():
            assert list(found["equivariance_error"]) == ["floor_hue", "wall_hue", "object_hue", "scale"]
    assert set(result["costs"]) == {"beta-vae", "flow-factorized"}
