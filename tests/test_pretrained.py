"""Pretrained models: the same predictions as the run they come from, and no file that is not the recorded one."""

import json
from pathlib import Path

import pytest
import torch

from poflow_lite.experiments import export, load_pretrained, load_run, sequences, train_recipe
from poflow_lite.io import load_checkpoint, save_checkpoint
from poflow_lite.metrics import equivariance_errors, persistence, predict, reconstruct

COURSE = Path(__file__).parents[1] / "data" / "checkpoints"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    sizes = {"channels": (4, 8), "hidden": 16, "steps": 2}
    return train_recipe("flow-factorized", "digits", "smoke", tmp_path_factory.mktemp("run"), progress=False, **sizes)


@pytest.fixture
def folder(run, tmp_path):
    return export(run, "tiny", tmp_path / "data" / "checkpoints").parent


def test_it_predicts_what_the_run_predicts_and_says_where_it_comes_from(run, folder, monkeypatch):
    original, copy = load_run(run, "cpu"), load_pretrained("tiny", "cpu", folder)
    batch = sequences("digits", "test", original.settings).batch(torch.arange(4), torch.tensor([0, 1, 2, 0]))
    torch.testing.assert_close(predict(copy.model, batch), predict(original.model, batch), rtol=0, atol=5e-3)
    assert copy.settings == original.settings
    assert not any([copy.model.training, *(parameter.requires_grad for parameter in copy.model.parameters())])
    size = (folder / "tiny.safetensors").stat().st_size
    assert size < 0.25 * (run / "checkpoint.safetensors").stat().st_size
    export(run, "second", folder)
    index = json.loads((folder / "index.json").read_text())
    assert (list(index), index["tiny"]["bytes"]) == (["tiny", "second"], size)
    assert index["tiny"].keys() >= {"model", "data", "budget", "seed", "command", "versions", "device", "steps"}
    (folder.parents[1] / "notebooks").mkdir()
    for place in (".", "notebooks"):
        monkeypatch.chdir(folder.parents[1] / place)
        assert load_pretrained("tiny", "cpu").config["data"] == "digits"


def test_a_copy_has_the_precision_of_the_images_that_it_will_see(folder, double):
    copy = load_pretrained("tiny", "cpu", folder)
    batch = sequences("digits", "test", copy.settings).batch(torch.arange(2), torch.tensor([0, 1]))
    assert predict(copy.model, batch).dtype == batch.frames.dtype == torch.float64


def test_what_does_not_belong_there_is_refused_in_one_line(run, folder, tmp_path):
    path = folder / "tiny.safetensors"
    content = path.read_bytes()
    with pytest.raises(ValueError, match="unknown pretrained model 'large'; known: tiny"):
        load_pretrained("large", "cpu", folder)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="is not the file that belongs here: its SHA-256 is"):
        load_pretrained("tiny", "cpu", folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"tiny\.safetensors is missing"):
        load_pretrained("tiny", "cpu", folder)
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        export(tmp_path / "nothing", "x", folder)
    with pytest.raises(ValueError, match="is a file: export the folder of a run"):
        export(run / "checkpoint.safetensors", "x", folder)
    for name in ("../x", "/x", "a:b"):
        with pytest.raises(ValueError, match=r"the name of a pretrained model '.*' cannot name a file"):
            export(run, name, folder)
    for damaged in ("{", "[]", '{"tiny": {}}'):
        (folder / "index.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"index\.json is damaged .*: get the folder again"):
            load_pretrained("tiny", "cpu", folder)
    assert {file.name for file in folder.iterdir()} == {"index.json"}
    saved = load_checkpoint(run / "checkpoint.safetensors")
    del saved.metadata["run"]["pixels"]
    save_checkpoint(tmp_path / "checkpoint.safetensors", load_run(run, "cpu").model, saved.metadata)
    with pytest.raises(ValueError, match=r"made by another version of this package.* \(pixels missing\): train again"):
        load_run(tmp_path)


def test_weights_beyond_half_precision_are_not_exported(run, tmp_path):
    saved, model = load_checkpoint(run / "checkpoint.safetensors"), load_run(run, "cpu").model
    next(model.parameters()).data.flatten()[0] = 1e5
    save_checkpoint(tmp_path / "checkpoint.safetensors", model, saved.metadata)
    with pytest.raises(ValueError, match="are NaN or infinite, so they were not saved"):
        export(tmp_path, "large", tmp_path / "copies")


def test_exported_weights_are_the_nearest_of_six_significant_bits(run, tmp_path):
    """A number with six bits is an integer below 64 times a power of two; halves of the last bit are the bound."""
    export(run, "rounded", tmp_path / "copies")
    kept = load_pretrained("rounded", "cpu", tmp_path / "copies").model.state_dict()
    for name, before in load_run(run, "cpu").model.state_dict().items():
        if before.is_floating_point():
            before, after = before.half().double(), kept[name].double()
            normal = before.abs() > 2.0**-14  # smaller ones have fewer bits
            mantissa, exponent = torch.frexp(after[normal])
            assert torch.equal(64 * mantissa, (64 * mantissa).round())
            assert ((after - before)[normal].abs() <= 2.0 ** (exponent - 7)).all()
    assert any((after != 0).any() for after in kept.values())


@pytest.mark.parametrize("name", json.loads((COURSE / "index.json").read_text()))
def test_every_model_of_the_course_loads_and_draws_better_than_no_motion(name):
    """Its predictions where it moves by a flow, its autoencoding where it does not."""
    run = load_pretrained(name, "cpu", COURSE)
    held_out = sequences(run.config["data"], "test", run.settings).first(2)
    draw = predict if getattr(run.model, "motion", None) == "flow" else reconstruct
    found = equivariance_errors({"drawn": lambda batch: draw(run.model, batch), "still": persistence}, held_out)
    ratios = [found["drawn"][k] / found["still"][k] for k in held_out.names]
    assert sum(ratios) / len(ratios) < 0.6
