"""Shipped models: the same predictions as the run they come from, and no file that is not the recorded one."""

import json

import pytest
import torch
from typer.testing import CliRunner

from poflow_lite import cli, shipped
from poflow_lite.checkpoints import load_checkpoint, save_checkpoint
from poflow_lite.experiments import load_run, train
from poflow_lite.metrics import predict
from poflow_lite.recipes import sequences


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train("flow-factorized", "digits", "smoke", tmp_path_factory.mktemp("run"), progress=False)


@pytest.fixture
def folder(run, tmp_path):
    shipped.ship(run, "tiny", tmp_path)
    return tmp_path


def test_it_predicts_what_the_run_predicts_up_to_half_precision(run, folder):
    original, copy = load_run(run, "cpu"), shipped.load_shipped("tiny", "cpu", folder)
    batch = sequences("digits", "test", original.settings).batch(torch.arange(4), torch.tensor([0, 1, 2, 0]))
    torch.testing.assert_close(predict(copy.model, batch), predict(original.model, batch), rtol=0, atol=5e-3)
    assert copy.settings == original.settings
    assert not any(parameter.requires_grad for parameter in copy.model.parameters())
    assert not copy.model.training


def test_it_is_small_and_says_where_it_comes_from(run, folder):
    path = folder / "tiny.safetensors"
    assert path.stat().st_size < 0.25 * (run / "checkpoint.safetensors").stat().st_size
    entry = json.loads((folder / "index.json").read_text())["tiny"]
    assert entry["bytes"] == path.stat().st_size
    for key in ("model", "data", "budget", "seed", "command", "versions", "device", "steps"):
        assert key in entry
    shipped.ship(run, "second", folder)
    assert set(json.loads((folder / "index.json").read_text())) == {"tiny", "second"}


def test_notebooks_find_it_one_folder_up(folder, tmp_path, monkeypatch):
    (tmp_path / "course" / "data").mkdir(parents=True)
    (tmp_path / "course" / "notebooks").mkdir()
    (tmp_path / "course" / "data" / "checkpoints").symlink_to(folder)
    for place in ("course", "course/notebooks"):
        monkeypatch.chdir(tmp_path / place)
        assert shipped.load_shipped("tiny", "cpu").config["data"] == "digits"


def test_alone_it_is_fetched_from_the_repository(folder, tmp_path, monkeypatch):
    asked = []

    def urlopen(address):
        asked.append(address)
        return (folder / address.rsplit("/", 1)[1]).open("rb")

    monkeypatch.setattr(shipped, "urlopen", urlopen)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert shipped.load_shipped("tiny", "cpu").config["seed"] == 0
    assert [address.rsplit("/", 1)[1] for address in asked] == ["index.json", "tiny.safetensors"]
    assert all(address.startswith(f"{shipped.REPOSITORY}/raw/main/data/checkpoints/") for address in asked)


def test_mistakes_are_refused(folder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="unknown shipped model 'large'; known: tiny"):
        shipped.load_shipped("large", "cpu", folder)
    path = folder / "tiny.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not the file that belongs here: its SHA-256 is"):
        shipped.load_shipped("tiny", "cpu", folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"tiny\.safetensors is missing"):
        shipped.load_shipped("tiny", "cpu", folder)
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        shipped.ship(tmp_path / "nothing", "x", folder)

    def unreachable(address):
        raise shipped.URLError("no network")

    monkeypatch.setattr(shipped, "urlopen", unreachable)
    (tmp_path / "far").mkdir()
    monkeypatch.chdir(tmp_path / "far")
    with pytest.raises(FileNotFoundError, match="run this from the folder of the course"):
        shipped.load_shipped("tiny", "cpu")


def test_on_the_command_line(run, tmp_path):
    result = CliRunner().invoke(cli.app, ["ship", str(run), "tiny", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "tiny.safetensors" in result.output
    assert (tmp_path / "index.json").exists()


def test_a_run_of_an_older_version_is_refused_in_one_line(run, tmp_path):
    saved = load_checkpoint(run / "checkpoint.safetensors")
    del saved.metadata["run"]["pixels"]
    save_checkpoint(tmp_path / "checkpoint.safetensors", load_run(run, "cpu").model, saved.metadata)
    with pytest.raises(ValueError, match=r"made by another version of this package \(pixels missing\): train again"):
        load_run(tmp_path)
