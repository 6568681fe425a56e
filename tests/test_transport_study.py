"""The study of learned transport: what its cells, its table and its figures hold, as run and as recorded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from poflow_lite.models import measure_transport
from poflow_lite.studies import report, run_study
from poflow_lite.studies import transport as study

RECORD = Path(__file__).parents[1] / "data/results/transport.json"


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """A few steps of small networks, measured on few points."""
    monkeypatch.setattr(study, "SIZES", {pair: {"steps": 2, "width": 4} for pair in ("gaussians", "moons")})
    monkeypatch.setattr(study, "measure_transport", lambda *names, **_: measure_transport(*names, count=50))


def test_every_cell_is_trained_measured_and_kept(tmp_path, monkeypatch):
    asked = {"pairs": ["gaussians"], "seeds": [0, 1], "progress": False}
    result = run_study(study.STUDY, tmp_path, **asked)
    cells = result["cells"]
    assert {(cell["variant"], cell["seed"]) for cell in cells} == {(v, seed) for v in study.VARIANTS for seed in (0, 1)}
    assert len({cell["energy"] for cell in cells}) > 5  # variants and seeds differ
    assert all(cell["energy_ratio"] == pytest.approx(cell["energy"] / cell["optimal"]) for cell in cells)

    monkeypatch.setattr(study, "train_transport", lambda *a, **o: pytest.fail("trained again"))
    assert run_study(study.STUDY, tmp_path, **asked)["cells"] == cells


def test_table_and_figure_of_the_record(tmp_path):
    """OT gaps 1.01, 1.01, 1.02 and 1.80, 1.66, 1.46 of three seeds."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    text = report(study.STUDY, record, tmp_path)
    assert "| gaussians | Hamilton-Jacobi | 1.01 ± 0.01 |" in text
    assert "| gaussians | no Hamilton-Jacobi | 1.61 ± 0.14 |" in text
    assert record["command"] in text
    assert len(study.table(record)) == 10
    figure = study.figure(record)
    assert [axis.get_xlabel() for axis in figure.axes] == ["OT gap", "efficiency", "end error"]
    dots = torch.cat([torch.tensor(np.asarray(d.get_offsets())) for d in figure.axes[0].collections])
    assert sorted(dots[:, 0].tolist()) == sorted(cell["ot_gap"] for cell in record["cells"])


def test_the_notes_explain_every_column_and_say_what_was_measured_with_which_seeds():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    said = " ".join(study.notes(record))
    for column in study.table(record).columns.drop(["pair", "variant"]):
        assert f"{column[0].upper()}{column[1:]}: " in said
    first = "gaussians 400 steps, width 64; moons 2,000 steps, width 128. Seeds 0, 1, 2: mean ± standard deviation"
    assert first in said
    assert "1,000 fresh points of each cloud, drawn 5 times" in said
    single = record | {"settings": {"seeds": [4]}}
    assert "Seed 4. " in " ".join(study.notes(single)), "one seed has no spread"


def test_unknown_names_are_refused_before_anything_is_trained(tmp_path):
    for options, message in (
        ({"pairs": ["gaussians", "rings"]}, "unknown pair 'rings'; known: gaussians, moons"),
        ({"variants": ["fast"]}, "unknown variant 'fast'; known: Hamilton-Jacobi, with force"),
    ):
        with pytest.raises(ValueError, match=message):
            run_study(study.STUDY, tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()
