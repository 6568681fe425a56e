"""Records of studies: their pages are made from them, and one call runs them anew."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from poflow_lite import studies
from poflow_lite.studies import records, settings_of
from poflow_lite.studies.study import page

ROOT = Path(__file__).parent.parent
RECORDS = records.load_records(ROOT / "data" / "results")


@pytest.mark.parametrize("name", RECORDS)
def test_every_page_is_made_from_its_record(name):
    """A figure, a table, a note or a command that somebody wrote in by hand would not be there."""
    shown = (ROOT / "docs" / "results" / f"{name}.md").read_text(encoding="utf-8")
    assert shown == records.described(name, RECORDS[name]), "write the pages anew: poflow-lite course results"
    assert (ROOT / "docs" / "results" / f"{name}.png").stat().st_size > 10_000


def test_all_pages_are_listed_and_there_are_no_others():
    folder = ROOT / "docs" / "results"
    assert (folder / "README.md").read_text(encoding="utf-8") == records.contents(RECORDS)
    assert {path.stem for path in folder.glob("*.md")} == {*RECORDS, "README"}
    assert {path.stem for path in folder.glob("*.png")} == {*RECORDS}


def test_the_list_tells_pages_of_one_study_apart():
    said = [line.partition(".md) |")[2] for line in records.contents(RECORDS).splitlines() if line.startswith("| [")]
    assert len({*said}) == len(RECORDS)
    assert any(
        line.endswith("| mnist-10k; weakly-supervised; balance 10, 100, 1000; seeds 0, 1, 2, 3, 4 |") for line in said
    )


def test_several_data_sets_of_one_record_are_all_named():
    assert records.told_apart({"data": ["mnist", "digits"], "seeds": [0]}) == "mnist, digits; seeds 0"


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_can_be_run_anew(name, monkeypatch, tmp_path):
    """With its own settings, and none that today's study does not have."""
    seen = {}

    def run(study, out, **settings):
        seen.update(study=study.name, out=out, settings=settings)
        return {"cells": []}

    monkeypatch.setattr(records, "run_study", run)
    assert list(records.run_again([name], tmp_path, jobs=2)) == [name]
    assert seen["study"] == RECORDS[name]["study"]
    assert seen["out"] == tmp_path / name
    assert seen["settings"].pop("jobs") == 2
    assert json.loads(json.dumps(seen["settings"])) == RECORDS[name]["settings"]
    assert seen["settings"].keys() == settings_of(studies.STUDIES[RECORDS[name]["study"]]).keys()


def test_all_are_run_where_none_is_named_and_an_unknown_one_before_any_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(records, "run_study", lambda study, out, **settings: {"cells": []})
    assert list(records.run_again([], tmp_path)) == list(RECORDS)
    monkeypatch.setattr(records, "run_study", lambda study, out, **settings: pytest.fail("one was run"))
    with pytest.raises(ValueError, match="unknown record 'digits-magic'; known: digits-ablations"):
        records.run_again([next(iter(RECORDS)), "digits-magic"], tmp_path)


def test_a_folder_without_records_is_named(tmp_path):
    (tmp_path / "run.json").write_text('{"model": "vae"}')
    with pytest.raises(FileNotFoundError, match=f"no record of a study in {tmp_path}"):
        records.load_records(tmp_path)


def test_pages_and_figures_are_written_and_say_when_and_how_long(tmp_path):
    (tmp_path / "in").mkdir()
    result = RECORDS["transport"] | {"date": "2026-01-02", "seconds": 600}
    (tmp_path / "in" / "mine.json").write_text(json.dumps(result))
    written = records.publish(tmp_path / "out", tmp_path / "in")
    assert [path.name for path in written] == ["mine.md", "README.md"]
    text = written[0].read_text(encoding="utf-8")
    assert "2026-01-02, 10 minutes of work, " in text
    assert text.startswith("# mine\n\nClouds carried with and without Hamilton-Jacobi")
    assert page(studies.STUDIES["transport"], result) in text
    assert (tmp_path / "out" / "mine.png").stat().st_size > 10_000


def test_the_question_of_a_study_is_the_first_line_of_its_module():
    study = SimpleNamespace(cells=SimpleNamespace(__module__=studies.STUDIES["cost"].cells.__module__))
    assert records.shown("a user's", study).startswith("Time and memory of a training step")
    assert all(records.shown("a user's", each).endswith(".") for each in studies.STUDIES.values())


def test_the_page_of_benchmarks_shows_their_medians():
    """Every cell of its tables, by the name of the test that was timed."""
    medians = {}
    for name in ("benchmarks", "scene-benchmarks"):
        for entry in json.loads((ROOT / "data/results" / f"{name}.json").read_text(encoding="utf-8"))["medians"]:
            medians[entry["test"]] = entry
    density, closed = "test_continuous_log_density[{0}-{1}-1e-05]", "test_log_det_and_trace[{1}-log-det-{0}]"
    of = {
        "`Flow(": (density, "flow", (2, 16, 64)),
        "torchdiffeq (": (density, "torchdiffeq", (2, 16, 64)),
        "zuko": (density, "zuko", (2, 16, 64)),
        "torchdiffeq, trace": (density, "torchdiffeq and autograd", (2, 16, 64)),
        "closed form": (closed, "closed form", (2, 16, 64, 256)),
        "autograd": (closed, "autograd loop", (2, 16, 64, 256)),
        **{f"{kind}3d-lite": ("test_rendering[{0}-{1}]", f"{kind}3d-lite", ("random", "in order"))
           for kind in ("shapes", "falcor", "isaac")},
    }  # fmt: skip
    text = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    for start, (form, name, columns) in of.items():
        printed = next(line for line in text.splitlines() if line.startswith(f"| {start}"))[2:-2].split(" | ")[1:]
        found = [medians[form.format(name, column)] for column in columns]
        errors = [f", {entry['largest_error_nats']:.0e}" if form is density else "" for entry in found]
        times = [f"{entry['median_milliseconds']:.1f} ms" for entry in found]
        assert printed == [time + error for time, error in zip(times, errors, strict=True)], start


def test_what_is_said_of_records_is_in_them():
    shares = [
        cell["clustering_accuracy"]
        for cell in RECORDS["mnist-10k-labels"]["cells"]
        if "operators" in cell and cell["settings"]["labelled"] == 0
    ]
    assert ([share < 0.9 for share in shares].count(True), len(shares)) == (4, 5)
    assert "four seeds of five merge two k" in records.ABOUT["mnist-10k-labels"]
    assert records.ABOUT.keys() <= RECORDS.keys()
    assert RECORDS["mnist-10k-tuning"]["settings"]["steps"] == 800
