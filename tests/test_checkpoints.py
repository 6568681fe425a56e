"""Files are whole or absent; damaged and foreign checkpoints are told apart from good ones."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from poflow_lite.checkpoints import load_checkpoint, prepare_folder, save_checkpoint, write_atomically, write_json


def saved(tmp_path):
    path = tmp_path / "run.safetensors"
    save_checkpoint(path, nn.Linear(3, 2), {"step": 4, "note": "é"})
    return path


def test_round_trip(tmp_path):
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "x.safetensors", model, {"step": 4}, optimizer)
    back = load_checkpoint(tmp_path / "x.safetensors")
    assert back.metadata == {"step": 4}
    assert all(torch.equal(back.model[name], value) for name, value in model.state_dict().items())
    for number, state in optimizer.state_dict()["state"].items():
        assert all(torch.equal(back.optimizer[number][name], value) for name, value in state.items())


def test_no_checkpoint_names_the_command_that_makes_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*poflow-lite train --out"):
        load_checkpoint(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_called_damaged(tmp_path, keep):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="damaged or not a safetensors file"):
        load_checkpoint(path)


def test_a_pickle_is_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was executed",))

    path = tmp_path / "run.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="damaged or not a safetensors file"):
        load_checkpoint(path)


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="not a poflow_lite checkpoint"):
        load_checkpoint(path)


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})

    def half(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, half)
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_swept_up_by_the_next(tmp_path):
    (tmp_path / ".partial-value.json").write_text("half")
    write_json(tmp_path / "value.json", {"a": 1})
    assert [file.name for file in tmp_path.iterdir()] == ["value.json"]


def test_json_refuses_nan_and_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "value.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write to the output folder .*file/run .*choose another with --out"):
        prepare_folder(tmp_path / "file" / "run")
