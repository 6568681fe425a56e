"""Studies: nothing runs twice, a cell fails alone, mistakes come before any work, tables say what the numbers say."""

import itertools
import json
import math
import os
import sys
import warnings
from contextlib import ExitStack

import pandas as pd
import pytest
import torch

from poflow_lite import studies
from poflow_lite.io import held
from poflow_lite.plotting import figure
from poflow_lite.studies.study import (
    Study,
    holm,
    mean_and_spread,
    report,
    run_cells,
    run_study,
    settings_of,
    t_interval,
    t_test,
)

CELLS = {"one": {"number": 1}, "two": {"number": 2}, "three": {"number": 3}}


def _square():
    """Nested: another process gets its code then, and need not import what this file does."""

    def square(folder, number):
        (folder / f"ran-{len(list(folder.glob('ran-*')))}").touch()
        return {"square": number**2, "threads": torch.get_num_threads(), "process": os.getpid()}

    return square


square = _square()


def moody(folder, number):
    if number == 2 and not (folder / "mended").exists():
        raise RuntimeError("no twos today")
    return {"square": number**2}


# --- the grid -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_cell_runs_once_on_its_share_of_the_cores(tmp_path, jobs):
    threads = torch.get_num_threads() if jobs == 1 else max(1, os.cpu_count() // 2)
    run_cells(square, {"one": CELLS["one"]}, tmp_path, jobs=jobs, progress=False)
    done, failed = run_cells(square, CELLS, tmp_path, jobs=jobs, progress=False)  # more cells can be added later
    assert {name: result["square"] for name, result in done.items()} == {"one": 1, "two": 4, "three": 9}
    assert failed == {}
    assert {result["threads"] for result in done.values()} == {threads}
    assert (os.getpid() in {result["process"] for result in done.values()}) == (jobs == 1)
    assert all(len(list((tmp_path / name).glob("ran-*"))) == 1 for name in CELLS)


def test_a_crashed_cell_is_reported_the_rest_goes_on_and_it_is_tried_again(tmp_path):
    done, failed = run_cells(moody, CELLS, tmp_path, progress=False)
    assert list(done) == ["one", "three"]
    assert failed == {"two": "RuntimeError: no twos today"}
    assert "in moody" in (tmp_path / "two" / "error.txt").read_text()
    (tmp_path / "two" / "mended").touch()
    done, failed = run_cells(moody, CELLS, tmp_path, progress=False)
    assert (done["two"], failed) == ({"square": 4}, {})
    assert not (tmp_path / "two" / "error.txt").exists()


def test_a_result_that_is_not_json_is_a_failure_of_its_cell(tmp_path):
    done, failed = run_cells(lambda folder, number: {"value": float("nan")}, CELLS, tmp_path, progress=False)
    assert (done, set(failed)) == ({}, set(CELLS))
    assert not list(tmp_path.rglob("cell.json"))


def test_a_cell_of_other_arguments_is_not_taken_for_this_one(tmp_path):
    run_cells(square, {"two": CELLS["two"]}, tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"two holds a cell of another grid \(different: number\): choose another"):
        run_cells(square, {"two": {"number": 5}}, tmp_path, progress=False)


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    "spoil",
    [
        cut,
        lambda path: path.write_text(path.read_text().replace('"square": 4', '"square": 5')),  # a flipped bit
        lambda path: path.write_text("[]"),
        lambda path: path.write_text("{}"),
        lambda path: path.write_bytes(b"\xff"),
        lambda path: path.write_bytes(b""),
    ],
)
def test_a_damaged_result_is_named_and_its_cell_alone_is_run_again(tmp_path, spoil):
    run_cells(square, CELLS, tmp_path, progress=False)
    spoil(tmp_path / "two" / "cell.json")
    with pytest.warns(UserWarning, match=r"two.cell\.json is damaged: its cell is run again"):
        done, failed = run_cells(square, CELLS, tmp_path, progress=False)
    assert ({name: result["square"] for name, result in done.items()}, failed) == ({"one": 1, "two": 4, "three": 9}, {})
    assert [len(list((tmp_path / name).glob("ran-*"))) for name in CELLS] == [1, 2, 1]
    cell = json.loads((tmp_path / "two" / "cell.json").read_text())
    del cell["sha256"]  # as older ones
    (tmp_path / "two" / "cell.json").write_text(json.dumps(cell))
    assert run_cells(square, CELLS, tmp_path, progress=False)[0] == done


def test_a_grid_runs_once_at_a_time(tmp_path):
    with held(tmp_path), pytest.raises(ValueError, match="is in use by process"):
        run_cells(square, CELLS, tmp_path, progress=False)
    run_cells(square, CELLS, tmp_path, progress=False)
    assert {entry.name for entry in tmp_path.iterdir()} == set(CELLS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": {"../x": {"number": 1}}}, r"the cell '\.\./x' cannot name a file"),
        ({"cells": {"vae-beta-a/b-seed-0": {"number": 1}}}, "the cell 'vae-beta-a/b-seed-0' cannot name a file"),
        ({"cells": {"a": {"number": 1}, "A": {"number": 2}}}, "two cells would share a folder, of A, a"),
        ({"jobs": 0}, "jobs must be at least 1, got 0"),
        ({"backend": "slurm"}, "unknown backend 'slurm'; known: loky, dask, ray"),
        ({"cells": {}}, "the grid is empty"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run_cells(square, **{"cells": CELLS, "out": tmp_path / "grid", "progress": False} | options)
    assert not (tmp_path / "grid").exists()


@pytest.mark.parametrize(
    ("backend", "modules", "package"), [("dask", ["distributed"], "distributed"), ("ray", ["ray.util.joblib"], "ray")]
)
def test_a_cluster_that_is_not_installed_is_named(tmp_path, monkeypatch, backend, modules, package):
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=f"pip install {package}"):
        run_cells(square, CELLS, tmp_path, backend=backend, progress=False)


def _deadly():
    def deadly(folder, number):
        if number == 2 and not (folder / "killed").exists():
            (folder / "killed").touch()
            os.kill(os.getpid(), 9)
        return {"square": number**2}

    return deadly


@pytest.mark.enable_socket  # to this machine alone
@pytest.mark.parametrize("backend", ["loky", "dask", "ray"])
def test_cells_of_a_killed_process_are_run_again(tmp_path, backend):
    with ExitStack() as stack:
        if backend == "dask":
            distributed = pytest.importorskip("distributed")
            cluster = stack.enter_context(
                distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
            )
            stack.enter_context(distributed.Client(cluster))
        elif backend == "ray":
            stack.enter_context(pytest.importorskip("ray").init(num_cpus=4, include_dashboard=False))
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "(loky|ray) lost a process")  # Dask runs it again by itself
        done, failed = run_cells(_deadly(), CELLS, tmp_path, jobs=2, backend=backend, progress=False)
    assert ({name: result["square"] for name, result in done.items()}, failed) == ({"one": 1, "two": 4, "three": 9}, {})
    assert (tmp_path / "two" / "killed").exists()


def test_processes_that_die_again_and_again_end_the_grid_and_keep_what_is_done(tmp_path):
    def deadly(folder, number):
        if number == 2:
            os.kill(os.getpid(), 9)
        return {"square": number**2}

    run_cells(deadly, {"one": CELLS["one"]}, tmp_path, jobs=2, progress=False)
    with (
        pytest.warns(UserWarning, match="loky lost a process .TerminatedWorkerError.: its cells are run again"),
        pytest.raises(RuntimeError, match=r"loky lost processes 4 times: what is finished is kept in .*fewer jobs"),
    ):
        run_cells(deadly, {name: CELLS[name] for name in ("one", "two")}, tmp_path, jobs=2, progress=False)
    assert (tmp_path / "one" / "cell.json").exists()


@pytest.mark.enable_socket  # to this machine alone
def test_cells_run_on_the_callers_dask_cluster_and_one_that_had_to_be_started_is_closed(tmp_path, monkeypatch):
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    size = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**size) as cluster, distributed.Client(cluster) as client:
        done, failed = run_cells(square, CELLS, tmp_path / "own", jobs=2, backend="dask", progress=False)
        assert client.status == "running"
    assert ({name: result["square"] for name, result in done.items()}, failed) == ({"one": 1, "two": 4, "three": 9}, {})
    started, asked = [], []

    class Small(distributed.Client):
        def __init__(self, **options):
            super().__init__(**(size if options else {}))
            started.append(self)
            asked.append(options)

    monkeypatch.setattr(distributed, "Client", Small)
    assert len(run_cells(square, CELLS, tmp_path / "started", jobs=2, backend="dask", progress=False)[0]) == 3
    with distributed.LocalCluster(**size) as cluster, dask.config.set({"scheduler-address": cluster.scheduler_address}):
        assert len(run_cells(square, CELLS, tmp_path / "named", jobs=2, backend="dask", progress=False)[0]) == 3
    assert [client.status for client in started] == ["closed", "closed"]
    assert asked == [{"n_workers": 2, "threads_per_worker": 1}, {}], "a cluster that is named has a size of its own"


# --- a study ------------------------------------------------------------------------------------------------------

ORDER = []


def measure(folder, number, scale):
    ORDER.append(folder.name)
    if number == 13:
        raise RuntimeError("unlucky")
    return {"value": scale * number}


TOY = Study(
    name="toy",
    cells=lambda numbers=(1, 2), scale=10: {f"cell-{n}": {"number": n, "scale": scale} for n in numbers},
    alone=lambda numbers, scale: {"last": {"number": 0, "scale": scale}},
    measure=measure,
    table=lambda result: pd.DataFrame([{"number": cell["number"], "a|b": cell["value"]} for cell in result["cells"]]),
    figure=lambda result: figure()[0],
    notes=lambda result: [f"scale {result['settings']['scale']}"],
)


@pytest.fixture
def toy(tmp_path):
    ORDER.clear()
    return run_study(TOY, tmp_path, progress=False, numbers=(2, 13))


def test_a_result_says_what_was_run_with_what_and_what_failed(toy, tmp_path):
    assert settings_of(TOY) == {"numbers": (1, 2), "scale": 10}
    assert json.loads((tmp_path / "toy.json").read_text()) == toy
    assert toy["settings"] == {"numbers": [2, 13], "scale": 10}
    assert toy["cells"] == [
        {"cell": "cell-2", "number": 2, "scale": 10, "value": 20},
        {"cell": "last", "number": 0, "scale": 10, "value": 0},
    ]
    assert toy["failed"] == {"cell-13": "RuntimeError: unlucky"}
    assert {"study", "command", "versions", "machine"} <= set(toy)
    assert ORDER == ["cell-2", "cell-13", "last"], "what measures times runs when nothing else does"


def test_table_and_figure_are_written_and_can_be_made_again_from_the_record(toy, tmp_path):
    text = (tmp_path / "table.md").read_text()
    assert "| number | a\\|b |\n" in text
    assert "| 2 | 20 |" in text
    assert toy["machine"] in text
    assert "\n\nscale 10\n\nMissing: cell-13 (RuntimeError: unlucky).\n\n" in text
    assert toy["versions"]["torch"] in text
    assert (tmp_path / "table.csv").read_text() == "number,a|b\n2,20\n0,0\n"
    assert (tmp_path / "toy.png").read_bytes().startswith(b"\x89PNG")
    assert report(TOY, toy, tmp_path / "again") == text


def test_no_table_of_other_cells_stays_where_no_cell_of_the_grid_is_done(tmp_path):
    written = [tmp_path / name for name in ("table.md", "table.csv", f"{TOY.name}.png")]
    for numbers in ((1,), (13,)):
        run_study(TOY, tmp_path, progress=False, numbers=numbers)
        assert [path.exists() for path in written] == [numbers == (1,)] * 3


def test_the_budget_smoke_takes_its_own_settings_where_none_are_given(tmp_path):
    def cells(budget="lecture", number=100):
        return {"cell": {"number": number, "scale": 1}}

    study = Study("small", cells, measure, TOY.table, TOY.figure, smoke={"number": 2})
    for given, number in (({}, 100), ({"budget": "smoke"}, 2), ({"budget": "smoke", "number": 5}, 5)):
        result = run_study(study, tmp_path / str(number), progress=False, **given)
        assert [cell["number"] for cell in result["cells"]] == [number]


def test_an_unknown_setting_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown setting of the study toy 'size'; known: numbers, scale"):
        run_study(TOY, tmp_path / "toy", size=3)


@pytest.mark.parametrize(
    ("values", "text"),
    [([0.5], "0.50"), ([1.0, 3.0], "2.00 ± 1.41"), ([2.0, 2.0], "2.00 ± 0.00"), ([1.0, None], ""), ([], "")],
)
def test_the_spread_is_the_sample_standard_deviation_and_a_single_seed_has_none(values, text):
    assert mean_and_spread(values, ".2f") == text


def test_all_studies_are_known_by_name():
    assert list(studies.STUDIES) == [
        *("tuning", "comparison", "ablations", "generalisation", "cost", "beyond", "transport", "full")
    ]
    assert all(study.name == name for name, study in studies.STUDIES.items())
    assert studies.STUDIES is studies.STUDIES
    assert studies.run_study is run_study
    with pytest.raises(AttributeError, match="has no attribute 'STUDY'"):
        _ = studies.STUDY


@pytest.mark.parametrize("seed", range(20))
def test_holm_is_the_closed_test_of_all_subsets(seed):
    """One is significant if every set of tests that holds it has a p-value of at most level ÷ its size."""
    p = torch.rand(5, generator=torch.Generator().manual_seed(seed)).pow(3).tolist()
    sets = [each for size in range(1, 6) for each in itertools.combinations(range(5), size)]
    closed = [all(min(p[j] for j in each) <= 0.05 / len(each) for each in sets if i in each) for i in range(5)]
    assert holm(p) == closed


def test_the_t_test_agrees_with_the_interval_and_knows_its_limits():
    for values in ([0.1, 0.2, 0.3], [1.0, 1.1, 1.2], [-0.5, 0.4]):
        low, high = t_interval(values)
        assert (t_test(values) < 0.05) == (low > 0 or high < 0)
    assert t_test([-1.0, 0.0, 1.0]) == 1
    assert (t_test([2.0, 2.0]), t_test([0.0, 0.0])) == (0, 1)
    assert math.isnan(t_test([1.0]))
