"""The command line, as a user meets it: the main job end to end, and one line for every mistake."""

import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from poflow_lite import cli, experiments, studies
from poflow_lite.experiments import runs
from poflow_lite.metrics import AboveCeiling
from poflow_lite.plotting import figure
from poflow_lite.settings import checked
from poflow_lite.studies.study import Study

TINY = {
    "steps": 4, "batch_size": 4, "latent": 4, "channels": (4, 8), "hidden": 16, "width": 4, "test_images": 4,
    "likelihood_images": 1, "samples": 5, "share": 0.05, "horizon": 2,
}  # fmt: skip


@pytest.fixture
def run(monkeypatch, capsys):
    """Run ``poflow-lite …`` in this process with tiny networks; return (exit code, standard output, standard error)."""
    full = runs.recipe

    def tiny(data, budget, model="flow-factorized", **changes):
        patches = {"channels": (4,)} if data == "mnist-10k" else {}
        return full(data, budget, model, **(TINY | patches | changes))

    monkeypatch.setattr(runs, "recipe", tiny)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["poflow-lite", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


# --- one run ------------------------------------------------------------------------------------------------------


def test_demo_trains_measures_and_draws_and_can_be_run_again_in_its_own_folder_only(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        code, out, _ = run("demo", "--budget", "smoke")
        assert code == 0
    for word in ("scale", "rotate", "hue", "no motion", "median frame", "reconstruction floor", "ceiling", "MNIST-10k"):
        assert word in out
    folder = tmp_path / "runs" / "demo"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert f"{metrics['equivariance_error']['hue']:.0f}" in out
    assert all((folder / name).exists() for name in ("filmstrip.png", "traversal.gif", "motion.gif"))
    folder.rename(tmp_path / "mine")
    code, _, err = run("demo", "--budget", "smoke", "--out", "mine")
    assert (code, "mine already holds a run" in err) == (1, True)


def test_train_then_resume_then_evaluate_then_export(run, tmp_path):
    settings = ("--set", "beta=0.5", "--set", "gamma=2", "--set", "hidden=12", "--set", "left-out=3")
    arguments = ("train", "--model", "factor-vae", "--budget", "smoke", "--seed", 1, *settings, "--out", tmp_path / "v")
    assert run(*arguments)[0] == 0
    assert run(*arguments, "--resume")[0] == 0
    assert run("evaluate", tmp_path / "v", "--split", "validation")[0] == 0
    metrics = json.loads((tmp_path / "v" / "metrics.json").read_text())
    found = metrics["settings"]
    assert (found["beta"], found["hidden"], found["left_out"], found["options"]) == (0.5, 12, [3], {"gamma": 2})
    assert metrics["data_set"].startswith("digits (validation, 180 images)")
    code, out, _ = run("export", tmp_path / "v", "mine", "--out", tmp_path / "models")
    assert (code, "mine.safetensors" in out) == (0, True)
    assert experiments.load_pretrained("mine", "cpu", tmp_path / "models").config["seed"] == 1


def test_a_gradient_flow_that_folds_is_warned_of(run, tmp_path, monkeypatch):
    assert run("train", "--budget", "smoke", "--set", "precision=bfloat16", "--out", tmp_path)[0] == 0
    assert "warning" not in run("evaluate", tmp_path)[1]
    monkeypatch.setattr(runs, "smallest_eigenvalue", lambda model, batch: -0.25)
    assert "warning: the flow is not invertible everywhere" in run("evaluate", tmp_path)[1]
    free = tmp_path / "free"
    assert run("train", "--set", "field=free", "--set", "hamilton_jacobi=0", "--budget", "smoke", "--out", free)[0] == 0
    assert "warning" not in run("evaluate", free)[1]

    def too_high(*arguments, **options):
        raise AboveCeiling("too high")

    monkeypatch.setattr(runs, "log_likelihood", too_high)
    code, out, _ = run("evaluate", tmp_path)
    assert (code, "Log-likelihood: none" in out, "Seconds: " in out) == (0, True, True)
    assert json.loads((tmp_path / "metrics.json").read_text())["log_likelihood"] is None


def test_another_models_checkpoint_and_a_damaged_one_are_one_line(run, tmp_path):
    assert run("train", "--model", "vae", "--budget", "smoke", "--out", tmp_path)[0] == 0
    code, _, err = run("train", "--budget", "smoke", "--out", tmp_path, "--resume")
    assert (code, "belongs to another run (different: beta, model, options)" in err) == (1, True)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"not much")
    code, _, err = run("evaluate", tmp_path)
    assert (code, "damaged or not a safetensors file" in err) == (1, True)


@pytest.mark.parametrize(("command", "place", "advice"), [
    (("train",), "experiments.train_recipe", "the same command with --resume goes on"),
    (("study", "ablations"), "studies.run_study", "the same command goes on with the cells that are left"),
])  # fmt: skip
def test_interrupting_says_how_to_go_on(run, tmp_path, monkeypatch, command, place, advice):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"poflow_lite.{place}", interrupted)
    code, _, err = run(*command, "--out", tmp_path)
    assert (code, advice in err) == (130, True)


# --- studies ------------------------------------------------------------------------------------------------------


def measure(folder, number, **others):
    if number == 13:
        raise RuntimeError("out of luck")
    return {"value": number, **others}


def cells(
    data="digits", seeds: Sequence[int] = (0, 1), numbers: Sequence[int] = (1, 2), vary=None, scores=True, changes=None
):
    return {f"cell-{n}": {"number": n, "given": [data, seeds, vary, scores, changes]} for n in numbers}


TOY = Study(
    name="toy",
    cells=cells,
    measure=measure,
    table=lambda result: pd.DataFrame([{"number": cell["value"]} for cell in result["cells"]]),
    figure=lambda result: figure()[0],
)


@pytest.fixture
def toy(run, tmp_path, monkeypatch):
    """Run the study "toy"; return exit code, output, errors and the settings that its cells saw."""
    monkeypatch.setitem(studies.STUDIES, "toy", TOY)

    def call(*arguments):
        code, out, err = run("study", "toy", "--out", tmp_path, *arguments)
        path = tmp_path / "toy.json"
        return code, out, err, json.loads(path.read_text())["settings"] if path.exists() else None

    return call


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ([], {}),
        (["--seeds", "3,4", "--data", "mnist"], {"seeds": [3, 4], "data": "mnist"}),
        (["--set", "seeds=3", "--set", "numbers=all"], {"seeds": [3]}),
        (["--set", "scores=false", "--set", "numbers=2,1"], {"scores": False, "numbers": [2, 1]}),
        (["--set", "steps=7", "--set", "channels=8", "--set", "field=free"],
         {"changes": {"steps": 7, "channels": 8, "field": "free"}}),
        (["--set", "moving=all"], {"changes": {"moving": "all"}}),
        (["--set", "vary=beta=0.1,1", "--set", "vary=hamilton-jacobi=0"],
         {"vary": {"beta": [0.1, 1], "hamilton_jacobi": [0]}}),
    ],
)  # fmt: skip
def test_settings_of_a_study_the_recipe_and_the_model_are_set_alike(toy, arguments, settings):
    code, _, _, found = toy(*arguments)
    defaults = {"data": "digits", "seeds": [0, 1], "numbers": [1, 2], "vary": None, "scores": True, "changes": None}
    assert (code, found) == (0, defaults | settings)


def test_a_study_prints_its_table_and_names_a_cell_that_failed(toy, tmp_path):
    code, out, err, _ = toy("--set", "numbers=13,5")
    assert code == 1
    assert "| 5 |" in out
    assert (tmp_path / "table.md").read_text() in out
    assert err.strip().splitlines()[-1].startswith("error: 1 cells failed (cell-13): their error.txt in")
    assert "out of luck" in (tmp_path / "cell-13" / "error.txt").read_text()


def test_running_all_records_anew_names_the_cells_that_failed(run, tmp_path, monkeypatch):
    results = {
        "mine": {"study": "toy", "cells": [1, 2], "failed": {"cell-13": "out of luck"}},
        "yours": {"study": "toy", "cells": [1], "failed": {}},
    }
    monkeypatch.setattr("poflow_lite.studies.records.run_again", lambda *asked, **how: results)
    code, out, err = run("study", "all", "--out", tmp_path)
    assert (code, f"{tmp_path / 'yours'}: toy, 1 cells" in out) == (1, True)
    assert err.startswith(f"error: 1 cells failed (mine/cell-13): their error.txt in {tmp_path} says why")


def test_all_are_those_of_the_study_and_not_the_few_of_smoke(run, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        studies, "run_study", lambda study, folder, **asked: seen.update(asked) or {"cells": [], "failed": {}}
    )
    assert run("study", "tuning", "--budget", "smoke", "--set", "models=all")[0] == 0
    assert seen["models"] == studies.settings_of(studies.STUDIES["tuning"])["models"]


@pytest.mark.parametrize("arguments", [(), ("--list",), ("cost", "--list")])
def test_studies_are_listed_with_their_settings(run, arguments):
    code, out, _ = run("study", *arguments)
    assert code == 0
    for text in ("comparison: ", "transport: ", "\n  seeds=0,1,2\n", "  groups=hamilton-jacobi,force", "scores=true"):
        assert text in out


RESULTS = Path(__file__).parent.parent / "data" / "results"
COMMANDS = re.findall(
    r"^\| (\S+) \|.*`(poflow-lite study [^`…]+)`", (RESULTS / "README.md").read_text("utf-8"), re.MULTILINE
)
RECORDS = {name: shlex.split(command)[2:] for name, command in COMMANDS if "NAME=" not in command}


@pytest.mark.parametrize("name", RECORDS)
def test_the_command_that_stands_beside_a_record_asks_for_its_settings(run, monkeypatch, name):
    seen = {}
    monkeypatch.setattr(
        studies, "run_study", lambda study, folder, **asked: seen.update(asked) or {"cells": [], "failed": {}}
    )
    assert run("study", *RECORDS[name])[0] == 0
    recorded = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    asked = {key: value for key, value in seen.items() if key not in ("jobs", "backend")}
    study = studies.STUDIES[recorded["study"]]
    settings = studies.settings_of(study) | checked(study.cells, asked)
    assert json.loads(json.dumps(settings)) == recorded["settings"]


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--model", "gan"], "unknown model 'gan'; known: vae, beta-vae, factor-vae"),
        (["train", "--data", "faces"], "unknown data set 'faces'; known: digits, mnist"),
        (["train", "--budget", "huge"], "unknown budget 'huge'; known: smoke, lecture, full"),
        (["train", "--device", "abacus"], "unknown device 'abacus'"),
        (["train", "--set", "start=upside-down"], "start must be 'fixed' or 'random', got 'upside-down'"),
        (["train", "--set", "likelihood=poisson"], "unknown likelihood 'poisson'; known: bernoulli"),
        (["train", "--set", "precision=int4"], "precision must be 'float32' or 'bfloat16', got 'int4'"),
        (["train", "--set", "beta=-1"], "beta must be greater than or equal to 0, got -1"),
        (["train", "--set", "gamma=1"], "unknown setting of flow-factorized 'gamma'; known: steps"),
        (["train", "--set", "gamma"], "--set takes NAME=VALUE, got 'gamma'"),
        (["train", "--set", "width=wide"], "width must be a valid integer, got 'wide'"),
        (["train", "--set", "beta=0.1,1"], "beta must be a valid number, got (0.1, 1)"),
        (["train", "--set", "seeds=3"], "unknown setting 'seeds'; known: steps"),
        (["train", "--set", "hamilton_jacobi=-1"], "hamilton_jacobi must be greater than or equal to 0, got -1"),
        (["train", "--set", "field=curly"], "field must be 'gradient', 'free' or 'divergence-free', got 'curly'"),
        (["study", "spelling"], "unknown study 'spelling'; known: tuning, comparison, ablations, generalisation, cost"),
        (["study", "comparison", "--set", "models=gan"], "unknown model 'gan'"),
        (
            ["study", "comparison", "--set", "colour=red"],
            "unknown setting of the study comparison 'colour'; known: data",
        ),
        (
            ["study", "comparison", "--set", "vary=beta"],
            "vary must be a valid mapping, such as beta=0.03,0.1, got 'beta'",
        ),
        (["study", "comparison", "--set", "scores=some"], "scores must be a valid boolean, got 'some'"),
        (
            ["study", "comparison", "--budget", "smoke", "--set", "models=vae", "--set", "vary=horizon=2,4"],
            "horizon cannot vary within a table: each value is another",
        ),
        (["study", "comparison", "--jobs", "0"], "jobs must be at least 1, got 0"),
        (["study", "comparison", "--backend", "slurm"], "unknown backend 'slurm'; known: loky, dask, ray"),
        (["study", "ablations", "--set", "groups=colour"], "unknown group 'colour'; known: hamilton-jacobi, force"),
        (["study", "all", "--data", "mnist", "--set", "steps=3"], "takes the settings of the records, got data, steps"),
        (
            ["study", "cost", "--only", "digits-cost"],
            "--only chooses among the records of study all, got --only digits",
        ),
        (["study", "ablations", "--seeds", "one"], "--seeds takes numbers separated by commas, got 'one'"),
        (["study", "generalisation", "--set", "tasks=sideways"], "unknown task 'sideways'"),
        (["study", "transport", "--data", "digits"], "unknown setting of the study transport 'data'; known: pairs"),
        (["download", "faces"], "unknown data set 'faces'; known: mnist"),
        (["evaluate", "nowhere"], "there is no checkpoint at nowhere"),
        (["export", "nowhere", "mine"], "there is no checkpoint at nowhere"),
        (["course", "build", "out", "--notebooks", "nowhere"], "no lessons (NN-*.ipynb) in nowhere"),
        (["course", "lint"], "no lessons (NN-*.ipynb) in notebooks"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert code == 1
    assert err.startswith("error: ")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in out + err
    assert list(tmp_path.iterdir()) == []


def test_missing_mnist_is_never_replaced(run, tmp_path, monkeypatch):
    monkeypatch.setenv("POFLOW_DATA", str(tmp_path))
    code, _, err = run("train", "--data", "mnist", "--out", tmp_path / "run")
    assert (code, "poflow-lite download mnist" in err) == (1, True)
    assert not (tmp_path / "run").exists()


def test_an_unwritable_folder_is_named_before_any_training(run, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run("train", "--out", tmp_path / "file" / "run")
    assert (code, "cannot write to the output folder" in err) == (1, True)


def test_lint_prints_every_problem_of_a_lesson(run, tmp_path, monkeypatch):
    from poflow_lite import course

    monkeypatch.setattr(course, "lint", lambda path: [f"{path.stem} is dull", "too long"])
    code, out, err = run("course", "lint", tmp_path / "00-a.ipynb")
    assert (code, out.splitlines()) == (1, ["00-a.ipynb: 00-a is dull", "00-a.ipynb: too long"])
    assert "2 problems in the lessons" in err
