"""The README: short, its figures those of the record, its links and commands alive, its example runs."""

import json
import math
import re
from pathlib import Path

import pytest

from poflow_lite import datasets
from poflow_lite.experiments import recipe
from poflow_lite.studies import STUDIES
from poflow_lite.studies.comparison_tables import leads, rows, served
from poflow_lite.studies.generalisation import verdicts

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = {  # row of the table ↦ model and operator of the record
    "free-flow, its flow": ("free-flow", "flow"),
    "flow-factorized, its flow": ("flow-factorized", "flow"),
    "PoFlow, its flow": ("poflow", "flow"),
    "MSP, ridge map": ("msp", "linear"),
    "β-VAE, ridge map": ("beta-vae", "linear"),
}
RECORDS = ROOT / "data/results"
RESULT = json.loads((RECORDS / "mnist-10k-comparison.json").read_text(encoding="utf-8"))


def test_it_is_short():
    assert len(TEXT.encode()) <= 8000


def test_every_figure_of_the_table_is_that_of_the_record():
    table = re.search(r"<!-- results -->\n(.*?)<!-- /results -->", TEXT, re.DOTALL)[1]
    printed = {cells[0]: cells[1:] for cells in (re.split(r"\s*\|\s*", line[2:-2]) for line in table.splitlines())}
    still, runs, widest = RESULT["cells"][0]["references"]["no_motion"], served(RESULT), {"error": 0.0, "nats": 0.0}
    costs = rows(RESULT).groupby("model")["cost"].mean()
    for name, (model, operator) in SHOWN.items():
        own = runs[model].assign(**{k: runs[model][k] / still[k] for k in still})
        assert set(own["operator"]) == {operator}
        assert own["chose"].all()
        errors = [f"{own[k].mean():.3f}" for k in still]
        said = f"{own['sequence'].mean():.1f}".replace("-", "−")
        assert printed[name] == [*errors, said, f"{costs[model]:.2f}"], name
        widest["error"] = max(widest["error"], *own[list(still)].std())
        widest["nats"] = max(widest["nats"], own["sequence"].std())
    assert f"at most {math.ceil(1e4 * widest['error']) / 1e4}, and {widest['nats']:.1f} nats" in TEXT
    seeds = {3: "three", 5: "five"}[len({cell["seed"] for cell in RESULT["cells"] if "seed" in cell})]
    assert f"mean of {seeds} seeds" in table


def test_every_figure_of_the_findings_is_that_of_the_record():
    line = leads(RESULT).set_index("measure")
    names = {"msp": ", MSP", "beta-vae": " the β-VAE"}
    text = " ".join(TEXT.split())

    def percent(row):
        low, high = sorted((abs(row.low), abs(row.high)))
        return f"{100 * abs(row.difference):.0f} % ({100 * low:.0f} to {100 * high:.0f})"

    for measure, words in {
        "scale": "closest on scale, {} below the best rival{}",
        "rotate": "on rotation, {} below{}",
        "hue": "On hue it loses, {} above{}",
    }.items():
        row = line.loc[measure]
        assert (row.high < 0) == (measure != "hue")
        assert words.format(percent(row), names[row.rival]) in text
    row = line.loc["sequence"]
    assert row.rival == line.loc["hue", "rival"]
    assert f"Its sequences are {-row.difference:.1f} nats a frame ({-row.high:.1f} to {-row.low:.1f}) less" in text
    record = json.loads((RECORDS / "mnist-comparison.json").read_text(encoding="utf-8"))
    whole = leads(record).set_index("measure")
    both = [percent(whole.loc[k]) for k in ("scale", "rotate")]
    assert f"On the full MNIST the two leads are {both[0]} and {both[1]}; the rest is undecided" in text
    shown = {cell["images"] for cell in record["cells"] if "images" in cell}
    assert shown == {2000}, "of which the first 1,000 are those of mnist-10k"
    assert "Its test images are half new" in text
    decided = whole["low"] * whole["high"] > 0
    assert list(decided[decided].index) == ["scale", "rotate"]
    behind = leads(RESULT, "flow-factorized").set_index("measure")
    assert behind.loc["scale", "low"] < 0 < behind.loc["scale", "high"]
    both = [percent(behind.loc[k]) for k in ("rotate", "hue")]
    assert "12 % above the best rival on rotation (11 to 13) and hue (11 to 14)" in text
    assert both == ["12 % (11 to 13)", "12 % (11 to 14)"]
    record = json.loads((RECORDS / "digits-generalisation.json").read_text(encoding="utf-8"))
    counts = verdicts(record).verdict.value_counts()
    assert f"of {counts.sum()} [tasks](docs/results/digits-generalisation.md) on digits" in text
    assert f"ours is ahead in {counts['ours']}, a rival in {counts['rival']}." in text
    record = json.loads((RECORDS / "shapes3d-lite-comparison.json").read_text(encoding="utf-8"))
    for ours in ("free-flow", "flow-factorized"):
        undecided = leads(record, ours).query("measure != 'sequence'")
        assert (undecided["low"] * undecided["high"] < 0).all(), "On scenes no error is decided."


def test_what_is_said_of_the_movers_is_in_the_recipe():
    cells = [cell for cell in RESULT["cells"] if "operators" in cell]
    settings = {cell["model"]: cell["settings"] for cell in cells}
    (images,) = {recipe("mnist-10k", "lecture", model).operator_images for model in settings}
    assert f"fitted afterwards to {images:,} images" in " ".join(TEXT.split())
    differ = {key for key in settings["free-flow"] if settings["free-flow"][key] != settings["flow-factorized"][key]}
    assert differ == {"field", "prior", "hamilton_jacobi", "beta", "autoencoding"}, "what free-flow has of its own"


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
