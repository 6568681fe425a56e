"""Files are whole or absent, damaged and foreign checkpoints told apart from good ones, and mistakes named."""

import errno
import json
import math
import multiprocessing
import os
import pickle
import random
import re
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from poflow_lite import io

RECORD = {"run": {"steps": 9, "note": "é"}, "notes": None, "step": 4, "history": [{"seconds": 0.5}]}


def trained(model=None):
    """A model after one step of Adam, and the optimiser."""
    model = model or nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def same(one, other):
    """Nothing differs between two checkpoints."""
    alike = [one.metadata == other.metadata, one.model.keys() == other.model.keys()]
    alike += [value.dtype == other.model[name].dtype for name, value in one.model.items()]
    alike += [torch.equal(value, other.model[name]) for name, value in one.model.items()]
    for number, state in one.optimizer.items():
        alike += [torch.equal(value, other.optimizer[number][name]) for name, value in state.items()]
    return all(alike)


def test_a_checkpoint_comes_back_with_weights_optimiser_and_record(tmp_path):
    model, optimizer = trained()
    io.save_checkpoint(tmp_path / "x.safetensors", model, RECORD, optimizer)
    back = io.load_checkpoint(tmp_path / "x.safetensors")
    assert back.metadata == RECORD
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
    io.save_checkpoint(path, nn.Linear(3, 2), RECORD)
    whole = path.read_bytes()
    for content in (b"", whole[:4], whole[:100], whole[:-1], pickle.dumps(Trap())):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged or not a safetensors file"):
            io.load_checkpoint(path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="is no poflow_lite checkpoint"):
        io.load_checkpoint(path)
    save_file({"weight": torch.ones(2)}, path, {"format": "poflow_lite checkpoint 1"})
    with pytest.raises(ValueError, match="is a 'poflow_lite checkpoint 1', made by another version"):
        io.load_checkpoint(path)


def test_every_flipped_bit_and_every_truncation_is_one_line_or_harmless(tmp_path):
    path, draw = tmp_path / "run.safetensors", random.Random(0)
    model, optimizer = trained()
    io.save_checkpoint(path, model, RECORD, optimizer)
    whole, original, caught = path.read_bytes(), io.load_checkpoint(path), 0
    found = []
    header = 8 + int.from_bytes(whole[:8], "little")
    flips = [(n, draw.randrange(8)) for n in range(header)]  # each byte of the header
    flips += [(draw.randrange(header, len(whole)), draw.randrange(8)) for _ in range(200)]
    spoilt = [whole[:n] + bytes([whole[n] ^ 1 << bit]) + whole[n + 1 :] for n, bit in flips]
    spoilt += [whole[: draw.randrange(len(whole))] for _ in range(100)] + [whole + b"more"]
    for content in spoilt:
        path.write_bytes(content)
        try:
            found.append(same(original, io.load_checkpoint(path)))
        except ValueError as error:
            found.append(re.fullmatch(rf"{re.escape(str(path))} .*(again|another file).*", str(error)) is not None)
            caught += 1
    assert all(found)
    assert caught > 0.95 * len(spoilt)


def crafted(path, tensors=None, record=None):
    """A file with a right checksum that :func:`io.save_checkpoint` would not write."""
    record = record if isinstance(record, str) else json.dumps({**RECORD, **(record or {})})
    tensors = tensors or {"model.weight": torch.ones(2)}
    header = {"format": io._FORMAT, "metadata": record, "sha256": io._digest(record, tensors)}
    save_file(tensors, path, header)


@pytest.mark.parametrize(
    "content",
    [
        {"record": "[" * 100_000},
        {"record": "[]"},
        {"record": "{}"},
        *({"record": {name: "x"}} for name in RECORD),
        {"record": {"step": -1}},
        {"record": {"history": [{"step": 1}]}},
        *({"tensors": {name: torch.ones(2)}} for name in ("weight", "other.weight", "optimizer.0", "optimizer.x.step")),
    ],
)
def test_a_crafted_record_or_name_is_one_line(tmp_path, content):
    crafted(tmp_path / "x.safetensors", **content)
    with pytest.raises(ValueError, match=r"x\.safetensors was not written by this package .* train again$") as refusal:
        io.load_checkpoint(tmp_path / "x.safetensors")
    assert len(str(refusal.value)) < 500


def test_tied_and_overlapping_weights_are_saved_and_what_cannot_be_is_said(tmp_path):
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    tied.register_buffer("view", tied[0].bias.detach()[1:])
    model, optimizer = trained(tied)
    io.save_checkpoint(tmp_path / "x", model, RECORD, optimizer)
    back = io.load_checkpoint(tmp_path / "x")
    assert torch.equal(back.model["0.weight"], back.model["1.weight"])
    assert torch.equal(back.model["view"], model[0].bias[1:])
    assert len(back.optimizer) == 3
    sparse, stateful = nn.Linear(2, 2), type("Stateful", (nn.Linear,), {"get_extra_state": lambda self: {"calls": 3}})
    sparse.register_buffer("links", torch.eye(2).to_sparse())
    for wrong, record in ((sparse, RECORD), (stateful(2, 2), RECORD), (model, {"run": {"data": object()}})):
        with pytest.raises(
            ValueError, match=r"and its record cannot be saved .*: a checkpoint holds plain tensors, and"
        ):
            io.save_checkpoint(tmp_path / "y", wrong, record)
    model[1].bias.data[0] = math.nan
    with pytest.raises(ValueError, match=r"the weights 1\.bias are NaN or infinite, so they were not saved"):
        io.save_checkpoint(tmp_path / "x", model, RECORD)
    assert same(back, io.load_checkpoint(tmp_path / "x"))


def test_a_file_is_whole_or_as_it_was_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "value.json"
    io.write_json(path, {"a": 1})

    def half(error, temporary):
        temporary.write_text("half")
        raise error

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for error in (full, OSError("8 requested and 0 written")):
        with pytest.raises(
            OSError, match=r"cannot write .*value\.json \((No space|8 requ).*\).* Free some space on its"
        ):
            io.write_atomically(path, partial(half, error))
    for error in (PermissionError(errno.EACCES, "no"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            io.write_atomically(path, partial(half, error))
    with pytest.raises(ValueError, match="not JSON compliant"):
        io.write_json(path, {"a": math.nan})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path, meet = tmp_path / "value.txt", threading.Barrier(2)

    def write(text, temporary):
        meet.wait(10)
        temporary.write_text(text)
        meet.wait(10)

    writers = [threading.Thread(target=io.write_atomically, args=(path, partial(write, text))) for text in ("a", "b")]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert path.read_text() in ("a", "b")
    assert list(tmp_path.iterdir()) == [path]


def hold_for_long(folder, begun):
    with io.held(folder):
        begun.set()
        time.sleep(600)


def test_a_held_folder_names_its_process_and_is_free_when_that_is_done_or_dead(tmp_path):
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    begun = context.Event()
    process = context.Process(target=hold_for_long, args=(tmp_path, begun))
    process.start()
    assert begun.wait(60)
    refusal = rf"is in use by process {process.pid} on \S+ since \d{{4}}-.*: wait until it ends, or choose another"
    with pytest.raises(ValueError, match=refusal), io.held(tmp_path):
        pass
    process.kill()
    process.join()
    (tmp_path / ".partial-1234.json").write_text("half")  # by the process that was killed
    for error in (None, RuntimeError, KeyboardInterrupt):
        with suppress(RuntimeError, KeyboardInterrupt), io.held(tmp_path):
            with pytest.raises(ValueError, match=f"is in use by process {os.getpid()} on"), io.held(tmp_path):
                pass
            if error:
                raise error
        assert list(tmp_path.iterdir()) == []


def test_mistakes_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write to the output folder .*file/run .*choose another with --out"):
        io.prepare_folder(tmp_path / "file" / "run")
    assert io.prepare_folder(str(tmp_path / "new" / "run")).is_dir()
    io.require_known("model", "vae", ["vae"])
    with pytest.raises(ValueError, match="unknown model 'vea'; known: vae, poflow"):
        io.require_known("model", "vea", iter(["vae", "poflow"]))
    for name in ("a", "vae-seed-0", "beta-0.03", "free field", "ü"):
        io.require_name("the cell", name)
    for name in (
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "C:x",
        "a*",
        "a\n",
        " a",
        "a.",
        ".a",
        "con",
        "Lpt1.txt",
        "a" * 201,
    ):
        with pytest.raises(ValueError, match=r"the cell .* cannot name a file: use letters"):
            io.require_name("the cell", name)
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
