"""One search for data, pretrained models and results: from the root, from notebooks/, elsewhere, and from a wheel."""

import json
import re
import zipfile
from pathlib import Path

import pytest

from poflow_lite import course, experiments
from poflow_lite.datasets import data_directory, places

ROOT = Path(__file__).parent.parent


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A student's folder, away from any course, with the package of ``installed``."""
    (tmp_path / "home/mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home/mine")
    monkeypatch.delenv("POFLOW_DATA", raising=False)
    return tmp_path


def fill(folder, value):
    for kind in ("results", "checkpoints"):
        (folder / "data" / kind).mkdir(parents=True)
        (folder / "data" / kind / "x.json").write_text(json.dumps(value))


def test_a_checkout_is_searched_from_wherever_a_lesson_runs(elsewhere, monkeypatch):
    for place in (ROOT, ROOT / "notebooks", elsewhere):
        monkeypatch.chdir(place)
        assert data_directory().resolve() == ROOT / "data"
        assert course.recorded("transport.json")["study"] == "transport"
        assert experiments.load_pretrained("digits-flow", "cpu").config["data"] == "digits"


def test_an_installed_package_has_its_own_copy_which_nearer_files_precede(elsewhere, monkeypatch):
    monkeypatch.setattr(places, "PACKAGE", elsewhere / "site/poflow_lite")
    fill(elsewhere / "site", "of another package")  # beside ours, as any package could leave one
    fill(places.PACKAGE, "packed")
    assert course.recorded("x.json") == "packed"
    assert data_directory() == Path("data")  # nothing is downloaded into a package
    fill(elsewhere / "home", "above")
    assert course.recorded("x.json") == "above"
    fill(Path(), "here")
    assert (course.recorded("x.json"), data_directory()) == ("here", Path("data"))
    monkeypatch.setenv("POFLOW_DATA", "/somewhere")
    assert data_directory() == Path("/somewhere")


def test_models_of_ones_own_do_not_hide_those_of_the_course(elsewhere):
    Path("data/checkpoints").mkdir(parents=True)
    Path("data/checkpoints/index.json").write_text('{"mine": {"sha256": "", "bytes": 0}}')
    assert experiments.load_pretrained("digits-flow", "cpu").config["data"] == "digits"
    with pytest.raises(ValueError, match=r"unknown pretrained model 'x'; known: mine, .*digits-flow"):
        experiments.load_pretrained("x", "cpu")


def test_what_is_nowhere_is_said_in_one_line(elsewhere, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"^there is no y\.json \(.*results\): run this in the course's folder"):
        course.recorded("y.json")
    monkeypatch.setattr(places, "PACKAGE", elsewhere)
    with pytest.raises(
        FileNotFoundError, match=r"^there is no y\.json \(no folder data/results in .* or the package\)"
    ):
        course.recorded("y.json")
    with pytest.raises(FileNotFoundError, match=r"no index\.json in data/checkpoints of this folder or the package"):
        experiments.load_pretrained("digits-flow", "cpu")


def test_only_what_a_person_asks_for_is_fetched():
    """Nothing in the package opens an address but torchvision's MNIST, behind `poflow-lite download`."""
    for path in (ROOT / "poflow_lite").rglob("*.py"):
        assert not re.search(r"urlopen|urlretrieve|requests\.|httpx|load_state_dict_from_url", path.read_text()), path


def test_the_wheel_holds_models_results_and_the_package_and_stays_small(tmp_path):
    hatchling = pytest.importorskip("hatchling.builders.wheel")
    wheel = next(hatchling.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    kept = [path for kind in ("checkpoints", "results") for path in (ROOT / "data" / kind).iterdir()]
    assert {f"poflow_lite/{path.relative_to(ROOT)}" for path in kept} <= packed
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "poflow_lite").rglob("*.py")} <= packed
    assert {name.split("/")[0] for name in packed} == {"poflow_lite"}
    assert Path(wheel).stat().st_size <= 25e6
