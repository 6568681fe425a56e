"""The README: short, its figures those of the record, its links and commands alive, its example runs."""

import json
import re
from pathlib import Path

import pytest

from poflow_lite import datasets
from poflow_lite.studies import STUDIES
from poflow_lite.studies.comparison_tables import best_operators, leads, rows

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = {  # row of the table ↦ model and operator of the record
    "free-flow, its flow": ("free-flow", "flow"),
    "flow-factorized, its flow": ("flow-factorized", "flow"),
    "PoFlow, its flow": ("poflow", "flow"),
    "MSP, ridge map": ("msp", "linear"),
    "β-VAE, ridge map": ("beta-vae", "linear"),
    "FactorVAE, ridge map": ("factor-vae", "linear"),
}
RESULT = json.loads((ROOT / "data/results/mnist-10k-comparison.json").read_text(encoding="utf-8"))


def test_it_is_short():
    assert len(TEXT.encode()) <= 8000


def test_every_figure_of_the_table_is_that_of_the_record():
    table = re.search(r"<!-- results -->\n(.*?)<!-- /results -->", TEXT, re.DOTALL)[1]
    printed = {
        cells[0].strip("* "): cells[1:] for cells in (re.split(r"\s*\|\s*", line[2:-2]) for line in table.splitlines())
    }
    still, chosen = RESULT["cells"][0]["references"]["no_motion"], best_operators(RESULT)
    found = rows(RESULT).groupby(["model", "operator"])[[*still, "sequence"]].mean()
    for name, place in SHOWN.items():
        assert chosen[place[0]] == place[1]
        errors = [f"{found.loc[place, k] / still[k]:.3f}" for k in still]
        assert printed[name] == [*errors, f"{found.loc[place, 'sequence']:.1f}".replace("-", "−")], name


def test_every_figure_of_the_findings_is_that_of_the_record():
    line, errors = (
        leads(RESULT).set_index("measure"),
        rows(RESULT).groupby(["model", "operator"]).mean(numeric_only=True),
    )
    still = RESULT["cells"][0]["references"]["no_motion"]
    names = {"msp": "MSP", "beta-vae": "the β-VAE"}
    text = " ".join(TEXT.split())
    for measure, words in {
        "scale": "closest on scale, {} below the best rival, {}",
        "rotate": "on rotation, {} below {}",
        "hue": "On hue it loses, {} above {}",
    }.items():
        row = line.loc[measure]
        assert (row.high < 0) == (measure != "hue")
        low, high = sorted((abs(row.low), abs(row.high)))
        said = f"{100 * abs(row.difference):.0f} % (95 %: {100 * low:.0f} to {100 * high:.0f})"
        assert words.format(said, names[row.rival]) in text
    row = line.loc["sequence"]
    assert f"Sequences are {-row.difference:.1f} nats a frame less likely than to {names[row.rival]}" in text
    moved = [f"{errors.loc[('beta-vae', by), 'scale'] / still['scale']:.2f}" for by in ("identity", "linear")]
    assert "has {} on scale, with its ridge map {}".format(*moved) in text
    behind = leads(RESULT, "flow-factorized").set_index("measure")
    assert behind.loc["scale", "low"] < 0 < behind.loc["scale", "high"]
    assert {f"{100 * behind.loc[k, 'difference']:.0f} %" for k in ("rotate", "hue")} == {"12 %"}


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
