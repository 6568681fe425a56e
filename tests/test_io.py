"""Files are whole or absent, damaged and foreign checkpoints told apart from good ones, and mistakes named."""

import json
import math
import pickle
import sys
from importlib.metadata import PackageNotFoundError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from poflow_lite import io


def test_a_checkpoint_comes_back_with_weights_optimiser_and_record(tmp_path):
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    io.save_checkpoint(tmp_path / "x.safetensors", model, {"step": 4, "note": "é"}, optimizer)
    back = io.load_checkpoint(tmp_path / "x.safetensors")
    assert back.metadata == {"step": 4, "note": "é"}
    assert all(torch.equal(back.model[name], value) for name, value in model.state_dict().items())
    for number, state in optimizer.state_dict()["state"].items():
        assert all(torch.equal(back.optimizer[number][name], value) for name, value in state.items())


def test_damaged_foreign_and_missing_checkpoints_are_told_apart_and_no_pickle_is_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was executed",))

    path = tmp_path / "run.safetensors"
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*poflow-lite train --out"):
        io.load_checkpoint(path)
    io.save_checkpoint(path, nn.Linear(3, 2), {"step": 4})
    whole = path.read_bytes()
    for content in (b"", whole[:4], whole[:100], whole[:-1], pickle.dumps(Trap())):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged or not a safetensors file"):
            io.load_checkpoint(path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="not a poflow_lite checkpoint"):
        io.load_checkpoint(path)


def test_a_file_is_whole_or_as_it_was_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "value.json"
    (tmp_path / ".partial-value.json").write_text("half, by a writer that was killed")
    io.write_json(path, {"a": 1})

    def half(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        io.write_atomically(path, half)
    with pytest.raises(ValueError, match="not JSON compliant"):
        io.write_json(path, {"a": math.nan})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_mistakes_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write to the output folder .*file/run .*choose another with --out"):
        io.prepare_folder(tmp_path / "file" / "run")
    assert io.prepare_folder(str(tmp_path / "new" / "run")).is_dir()
    io.require_known("model", "vae", ["vae"])
    with pytest.raises(ValueError, match="unknown model 'vea'; known: vae, poflow"):
        io.require_known("model", "vea", iter(["vae", "poflow"]))
    io.require_weights(beta=0, gamma=2.5)
    for wrong in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"gamma must be a finite number of at least 0, got {wrong}"):
            io.require_weights(beta=1.0, gamma=wrong)


def test_what_made_a_figure_is_recorded(monkeypatch):
    def version(name):
        if name == "POT":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(io, "version", version)
    assert io.versions().items() >= {"POT": "not installed", "torch": "1.0"}.items()
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/poflow-lite", "generalise", "--trials", "two at once,noise"])
    assert io.command() == "poflow-lite generalise --trials 'two at once,noise'"
    assert io.machine(torch.device("cpu")) in {"CPU, 1 thread", f"CPU, {torch.get_num_threads()} threads"}
