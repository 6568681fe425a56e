"""The study of learned transports: cells that are done stay, tables and figures hold what was measured."""

import json

import pytest
import torch
from typer.testing import CliRunner

from poflow_lite.cli import app
from poflow_lite.datasets import sample_pair
from poflow_lite.learned_transport import measure_transport
from poflow_lite.studies import transport_study
from poflow_lite.studies.transport_study import VARIANTS, study_transport, transport_panels


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """A few steps of small networks, measured on few points."""
    small = {"steps": 2, "batch_size": 16, "width": 4}
    monkeypatch.setattr(transport_study, "SETTINGS", {"gaussians": small, "moons": small})
    monkeypatch.setattr(transport_study, "measure_transport", lambda *names, **_: measure_transport(*names, count=100))


def test_every_cell_is_trained_measured_and_recorded(tmp_path):
    result = study_transport(["gaussians"], tmp_path, seeds=(0, 1), progress=False)
    named = [(cell["variant"], cell["seed"]) for cell in result["cells"]]
    assert named == [(variant, seed) for variant in VARIANTS for seed in (0, 1)]
    assert json.loads((tmp_path / "transport.json").read_text()) == result
    assert (tmp_path / "gaussians.png").stat().st_size > 10_000
    assert {"command", "versions", "device"} < result.keys()
    cell = result["cells"][0]
    assert cell["energy_ratio"] == pytest.approx(cell["energy"] / cell["optimal"])
    assert "paths" not in cell
    assert len({cell["energy"] for cell in result["cells"]}) > 5  # variants and seeds differ


def test_the_figure_has_one_panel_for_each_variant_whatever_the_seeds(tmp_path, monkeypatch):
    drawn = []

    def keep(paths, clouds):
        drawn.append(paths)
        return transport_panels(paths, clouds)

    monkeypatch.setattr(transport_study, "transport_panels", keep)
    study_transport(["gaussians"], tmp_path, seeds=(0, 1), progress=False)
    assert [title.split("\n")[0] for title in drawn[0]] == list(VARIANTS)


def test_cells_that_are_done_are_not_run_again(tmp_path, monkeypatch):
    first = study_transport(["moons"], tmp_path, variants=["with force"], progress=False)

    def refuse(*arguments, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr(transport_study, "train_transport", refuse)
    again = study_transport(["moons"], tmp_path, variants=["with force"], progress=False)
    assert again["cells"] == first["cells"]


def test_unknown_names_are_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ValueError, match="unknown pair 'rings'; known: gaussians, moons"):
        study_transport(["gaussians", "rings"], tmp_path / "x")
    with pytest.raises(ValueError, match="unknown variant 'fast'; known: Hamilton-Jacobi, with force"):
        study_transport(["gaussians"], tmp_path / "x", variants=["fast"])
    assert not (tmp_path / "x").exists()


def test_panels_show_each_path_over_the_target():
    clouds = sample_pair("moons", 20, torch.Generator().manual_seed(0))
    paths = {f"variant {i}": torch.randn(5, 4, 2) for i in range(4)}
    figure = transport_panels(paths, clouds)
    assert [axis.get_title() for axis in figure.axes] == list(paths)
    assert len(figure.axes[0].lines) == 5
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["target", "start", "end"]


def test_command_prints_the_table(tmp_path):
    options = ["--pairs", "gaussians", "--variants", "Hamilton-Jacobi,no Hamilton-Jacobi", "--out", str(tmp_path)]
    found = CliRunner().invoke(app, ["transport", *options])
    assert found.exit_code == 0, found.output
    rows = [line.split() for line in found.output.splitlines() if line.startswith("gaussians")]
    cells = json.loads((tmp_path / "transport.json").read_text())["cells"]
    assert [float(row[-6]) for row in rows] == pytest.approx([cell["ot_gap"] for cell in cells], abs=5e-4)
