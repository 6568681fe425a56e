"""The command line, as a user meets it: the main job end to end, and one line for every mistake."""

import json
import sys

import pytest

from poflow_lite import experiments
from poflow_lite.cli import main

TINY = {"steps": 4, "batch_size": 8, "latent": 16, "channels": (4, 8), "hidden": 16, "width": 4, "test_images": 8}


@pytest.fixture
def run(monkeypatch, capsys):
    """Run ``poflow-lite …`` in this process with tiny networks; return (exit code, standard output, standard error)."""
    full = experiments.recipe
    monkeypatch.setattr(
        experiments,
        "recipe",
        lambda data, budget, model="flow-factorized", **changes: full(data, budget, model, **(TINY | changes)),
    )

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["poflow-lite", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_demo_trains_measures_and_draws(run, tmp_path):
    code, out, _ = run("demo", "--budget", "smoke", "--out", tmp_path / "demo")
    assert code == 0
    for word in ("scale", "rotate", "hue", "no motion", "median frame", "reconstruction floor", "ceiling", "digits"):
        assert word in out
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert f"{metrics['equivariance_error']['hue']:.0f}" in out
    assert (tmp_path / "demo" / "filmstrip.png").exists()
    assert (tmp_path / "demo" / "traversal.gif").exists()
    assert (tmp_path / "demo" / "motion.gif").exists()


def test_demo_can_be_run_again(run, tmp_path):
    for _ in range(2):
        assert run("demo", "--budget", "smoke", "--out", tmp_path)[0] == 0


def test_bfloat16_trains_and_evaluates(run, tmp_path):
    assert run("train", "--budget", "smoke", "--precision", "bfloat16", "--out", tmp_path)[0] == 0
    assert run("evaluate", tmp_path)[0] == 0


def test_a_flow_that_folds_is_warned_of(run, tmp_path, monkeypatch):
    assert run("train", "--budget", "smoke", "--out", tmp_path)[0] == 0
    assert "warning" not in run("evaluate", tmp_path)[1]
    monkeypatch.setattr(experiments, "smallest_eigenvalue", lambda model, batch: -0.25)
    assert "warning: the flow is not invertible everywhere" in run("evaluate", tmp_path)[1]


def test_train_then_resume_then_evaluate(run, tmp_path):
    arguments = (
        "train",
        "--model",
        "factor-vae",
        "--budget",
        "smoke",
        "--seed",
        1,
        "--kl-weight",
        0.5,
        "--set",
        "gamma=2",
        "--set",
        "hidden=12",
        "--out",
        tmp_path / "v",
    )
    code, out, _ = run(*arguments)
    assert code == 0
    assert "digits (train, 1,257 images)" in out
    assert run(*arguments, "--resume")[0] == 0
    code, out, _ = run("evaluate", tmp_path / "v", "--split", "validation")
    assert code == 0
    metrics = json.loads((tmp_path / "v" / "metrics.json").read_text())
    settings = metrics["settings"]
    assert (settings["beta"], settings["hidden"], settings["own"]) == (0.5, 12, {"gamma": 2})
    assert metrics["data_set"].startswith("digits (validation, 180 images)")


def test_tradeoff_measures_every_cell_once_on_the_validation_split(run, tmp_path, monkeypatch):
    arguments = ("tradeoff", "--budget", "smoke", "--kl-weights", "0.1,1", "--seeds", "0,1", "--out", tmp_path)
    code, out, _ = run(*arguments)
    assert code == 0
    result = json.loads((tmp_path / "tradeoff.json").read_text())
    assert [(cell["kl_weight"], cell["seed"]) for cell in result["cells"]] == [(0.1, 0), (0.1, 1), (1.0, 0), (1.0, 1)]
    assert "validation" in result["data_set"]
    assert (tmp_path / "tradeoff.png").exists()
    monkeypatch.setattr(experiments, "train", lambda *a, **o: pytest.fail("a finished cell was trained again"))
    assert run(*arguments)[1].splitlines()[-6:] == out.splitlines()[-6:]


def test_compare_prints_the_table_and_goes_on_where_it_stopped(run, tmp_path):
    sizes = [f"--set={name}={value}" for name, value in TINY.items() if name not in ("channels", "test_images")]
    arguments = (
        "compare", "--models", "vae,flow-factorized", "--budget", "smoke", "--images", 8, *sizes, "--set=channels=4,8",
        "--set=likelihood_images=1", "--out", tmp_path,
    )  # fmt: skip
    code, out, _ = run(*arguments)
    assert code == 0
    assert "| flow-factorized | flow |" in out
    assert (tmp_path / "table.md").read_text() in out
    for name in ("comparison.json", "table.csv", "table.tex", "comparison.png"):
        assert (tmp_path / name).exists()
    again = run(*arguments, "--seeds", "0,1")
    assert again[0] == 0
    assert {place.parent.name for place in tmp_path.glob("*/cell.json")} == {
        "vae-seed-0", "vae-seed-1", "flow-factorized-seed-0", "flow-factorized-seed-1",
    }  # fmt: skip


def test_compare_reports_a_crashed_cell_in_one_line_and_keeps_the_rest(run, tmp_path, monkeypatch):
    from poflow_lite.studies import comparison

    original = comparison.compare_cell

    def cell(folder, model, **arguments):
        if model == "vae":
            raise RuntimeError("out of luck")
        return original(folder, model, **arguments)

    monkeypatch.setattr(comparison, "compare_cell", cell)
    code, out, err = run("compare", "--models", "vae,slow-vae", "--budget", "smoke", "--images", 4, "--no-scores",
                         "--out", tmp_path)  # fmt: skip
    assert code == 1
    assert "| slow-vae | linear |" in out
    assert err.strip().splitlines()[-1].startswith("error: 1 cells failed (vae-seed-0): their error.txt in")
    assert "out of luck" in (tmp_path / "vae-seed-0" / "error.txt").read_text()


def test_ablate_prints_the_table_and_goes_on_where_it_stopped(run, tmp_path):
    sizes = [f"--set={name}={value}" for name, value in TINY.items() if name not in ("channels", "test_images")]
    arguments = (
        "ablate", "--groups", "prior, force", "--budget", "smoke", "--images", 8, *sizes, "--set=channels=4,8",
        "--set=likelihood_images=1", "--out", tmp_path,
    )  # fmt: skip
    code, out, _ = run(*arguments, "--seeds", "0")
    assert code == 0
    assert "| prior | static N(0, I) |" in out
    assert (tmp_path / "table.md").read_text() in out
    for name in ("ablations.json", "table.csv", "ablations.png"):
        assert (tmp_path / name).exists()
    assert run(*arguments, "--seeds", "0,1")[0] == 0
    assert {place.parent.name for place in tmp_path.glob("*/cell.json")} == {
        f"{cell}-seed-{seed}" for cell in ("standard", "prior-static", "path_kl-0.0", "force-none") for seed in (0, 1)
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--model", "gan"], "unknown model 'gan'; known: vae, beta-vae, factor-vae"),
        (["train", "--data", "faces"], "unknown data set 'faces'; known: digits, mnist"),
        (["train", "--budget", "huge"], "unknown budget 'huge'; known: smoke, lecture, full"),
        (["train", "--start", "upside-down"], "start must be 'fixed' or 'random', got 'upside-down'"),
        (["train", "--likelihood", "poisson"], "unknown likelihood 'poisson'; known: bernoulli"),
        (["train", "--kl-weight", "-1"], "beta must be a finite number of at least 0, got -1"),
        (["train", "--set", "gamma=1"], "unknown setting of flow-factorized 'gamma'; known: steps"),
        (["train", "--set", "gamma"], "--set takes NAME=VALUE, got 'gamma'"),
        (["compare", "--models", "gan"], "unknown model 'gan'"),
        (["compare", "--set", "seeds=3"], "unknown setting 'seeds'; known: agreement"),
        (["compare", "--vary", "beta"], "--vary takes NAME=VALUE, got 'beta'"),
        (["compare", "--jobs", "0"], "jobs must be at least 1, got 0"),
        (["compare", "--backend", "slurm"], "unknown backend 'slurm'; known: loky, dask, ray"),
        (["train", "--set", "hamilton_jacobi=-1"], "hamilton_jacobi must be a finite number of at least 0, got -1"),
        (["ablate", "--groups", "colour"], "unknown group 'colour'; known: hamilton-jacobi, force"),
        (["ablate", "--seeds", "one"], "--seeds takes numbers separated by commas, got 'one'"),
        (["train", "--set", "field=curly"], "unknown field 'curly'; known: gradient, free, divergence-free"),
        (["train", "--device", "abacus"], "unknown device 'abacus'"),
        (["train", "--precision", "int4"], "unknown precision 'int4'; known: float32, bfloat16"),
        (["tradeoff", "--kl-weights", "0.1;1"], "--kl-weights takes numbers separated by commas, got '0.1;1'"),
        (["download", "faces"], "unknown data set 'faces'; known: mnist"),
        (["evaluate", "nowhere"], "there is no checkpoint at nowhere"),
        (["student", "out", "--notebooks", "nowhere"], "no lessons (NN-*.ipynb) in nowhere"),
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
    assert code == 1
    assert "poflow-lite download mnist" in err
    assert not (tmp_path / "run").exists()


def test_an_unwritable_folder_is_named_before_any_training(run, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run("train", "--out", tmp_path / "file" / "run")
    assert code == 1
    assert "cannot write to the output folder" in err


def test_another_models_checkpoint_is_refused(run, tmp_path):
    assert run("train", "--model", "vae", "--budget", "smoke", "--out", tmp_path)[0] == 0
    code, _, err = run("train", "--model", "flow-factorized", "--budget", "smoke", "--out", tmp_path, "--resume")
    assert code == 1
    assert "belongs to another run (different: beta, model, own)" in err


def test_a_damaged_checkpoint_is_one_line(run, tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"not much")
    code, _, err = run("evaluate", tmp_path)
    assert code == 1
    assert "damaged or not a safetensors file" in err


def test_interrupting_says_how_to_go_on(run, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "train", interrupted)
    code, _, err = run("train", "--out", tmp_path)
    assert code == 130
    assert "--resume" in err


def test_generalise_prints_a_table_and_a_mistake_in_one_line(run, tmp_path):
    options = ["--budget", "smoke", "--models", "vae,flow-factorized", "--trials", "half speed", "--images", "3"]
    small = ["--set", "latent=4", "--set", "channels=4,8", "--set", "hidden=8", "--device", "cpu"]
    code, out, _ = run("generalise", *options, *small, "--out", str(tmp_path / "g"))
    assert code == 0
    assert "| half speed |" in out
    code, _, err = run("generalise", "--trials", "sideways", "--out", str(tmp_path / "h"))
    assert code == 1
    assert err.startswith("error: unknown trial 'sideways'")
