"""The README: short, its figures those of the record, its links and commands alive, its example runs."""

import json
import re
from pathlib import Path

import pytest

from poflow_lite import datasets
from poflow_lite.studies import STUDIES
from poflow_lite.studies.comparison_tables import rows

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = {  # row of the table ↦ model and operator of the record
    "flow-factorized, its flow": ("flow-factorized", "flow"),
    "β-VAE, ridge map": ("beta-vae", "linear"),
    "FactorVAE, ridge map": ("factor-vae", "linear"),
    "PoFlow, its flow": ("poflow", "flow"),
}


def test_it_is_short():
    assert len(TEXT.encode()) <= 8000


def test_every_figure_of_the_table_is_that_of_the_record():
    table = re.search(r"<!-- results -->\n(.*?)<!-- /results -->", TEXT, re.DOTALL)[1]
    printed = {
        cells[0].strip("* "): cells[1:] for cells in (re.split(r"\s*\|\s*", line[2:-2]) for line in table.splitlines())
    }
    result = json.loads((ROOT / "data/results/digits-comparison.json").read_text(encoding="utf-8"))
    still = result["cells"][0]["references"]["no_motion"]
    found = rows(result).groupby(["model", "operator"])[list(still)].mean()
    assert printed["no motion (x<sub>0</sub> for every t)"] == [f"{value:.0f}" for value in still.values()]
    for name, place in SHOWN.items():
        assert printed[name] == [f"{value:.0f}" for value in found.loc[place]], name


def test_links_and_commands_are_alive():
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / link).exists(), link
    for study in re.findall(r"poflow-lite study ([a-z]+)", TEXT):
        assert study in STUDIES
    assert set(re.search(r"study --list +# ([a-z, ]+)", TEXT)[1].split(", ")) == set(STUDIES)


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    example = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1]
    whole = datasets.load_sequences
    monkeypatch.setattr(datasets, "load_sequences", lambda data, split: whole(data, split).first(20))
    monkeypatch.chdir(tmp_path)
    exec(example.replace("steps=1000", "steps=2"), {})
    assert "linear" in capsys.readouterr().out


@pytest.mark.parametrize("data", re.findall(r"`([a-z0-9-]+)`", re.search(r"Data: (.*?)Budgets", TEXT, re.DOTALL)[1]))
def test_data_that_are_named_exist(data):
    assert data in datasets.DATASETS
