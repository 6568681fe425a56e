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
    assert records.question(study).startswith("Time and memory of a training step")
    assert all(records.question(each).endswith(".") for each in studies.STUDIES.values())
