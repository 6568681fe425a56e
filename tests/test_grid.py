"""The grid: nothing runs twice, a cell fails alone, mistakes are refused before anything runs."""

import json
import os
import sys

import pytest
import torch

from poflow_lite.grid import run_grid

CELLS = {"one": {"number": 1}, "two": {"number": 2}, "three": {"number": 3}}


def square(folder, number):
    (folder / f"ran-{len(list(folder.glob('ran-*')))}").touch()
    return {"square": number**2, "threads": torch.get_num_threads(), "process": os.getpid()}


def moody(folder, number):
    if number == 2 and not (folder / "mended").exists():
        raise RuntimeError("no twos today")
    return {"square": number**2}


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_cell_runs_once_and_its_result_comes_back(tmp_path, jobs):
    done, failed = run_grid(square, CELLS, tmp_path, jobs=jobs, progress=False)
    assert {name: result["square"] for name, result in done.items()} == {"one": 1, "two": 4, "three": 9}
    assert failed == {}
    again, _ = run_grid(square, CELLS, tmp_path, jobs=jobs, progress=False)
    assert again == done
    assert all(len(list((tmp_path / name).glob("ran-*"))) == 1 for name in CELLS)


def test_two_jobs_share_the_cores_and_run_elsewhere(tmp_path):
    done, _ = run_grid(square, CELLS, tmp_path, jobs=2, progress=False)
    assert {result["threads"] for result in done.values()} == {max(1, os.cpu_count() // 2)}
    assert os.getpid() not in {result["process"] for result in done.values()}


def test_one_job_leaves_the_threads_as_they_are(tmp_path):
    before = torch.get_num_threads()
    done, _ = run_grid(square, CELLS, tmp_path, progress=False)
    assert {result["threads"] for result in done.values()} == {before}


def test_more_cells_can_be_added_later(tmp_path):
    run_grid(square, {"one": CELLS["one"]}, tmp_path, progress=False)
    done, _ = run_grid(square, CELLS, tmp_path, progress=False)
    assert list(done) == ["one", "two", "three"]
    assert len(list((tmp_path / "one").glob("ran-*"))) == 1


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_crashed_cell_is_reported_the_rest_goes_on_and_it_is_tried_again(tmp_path, jobs, capsys):
    done, failed = run_grid(moody, CELLS, tmp_path, jobs=jobs, progress=False)
    assert list(done) == ["one", "three"]
    assert failed == {"two": "RuntimeError: no twos today"}
    assert "in moody" in (tmp_path / "two" / "error.txt").read_text()
    (tmp_path / "two" / "mended").touch()
    done, failed = run_grid(moody, CELLS, tmp_path, jobs=jobs, progress=False)
    assert done["two"] == {"square": 4}
    assert failed == {}
    assert not (tmp_path / "two" / "error.txt").exists()


def test_a_result_that_is_not_json_is_a_failure_of_its_cell(tmp_path):
    done, failed = run_grid(lambda folder, number: {"value": float("nan")}, CELLS, tmp_path, progress=False)
    assert done == {}
    assert set(failed) == set(CELLS)
    assert not list(tmp_path.rglob("cell.json"))


def test_results_are_kept_with_their_arguments(tmp_path):
    run_grid(square, CELLS, tmp_path, progress=False)
    assert json.loads((tmp_path / "two" / "cell.json").read_text())["arguments"] == {"number": 2}
    with pytest.raises(ValueError, match=r"two holds a cell of another grid \(different: number\): choose another"):
        run_grid(square, {"two": {"number": 5}}, tmp_path, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 0}, "jobs must be at least 1, got 0"),
        ({"backend": "slurm"}, "unknown backend 'slurm'; known: loky, dask, ray"),
        ({"cells": {}}, "the grid is empty"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run_grid(square, **{"cells": CELLS, "out": tmp_path / "grid", "progress": False} | options)
    assert not (tmp_path / "grid").exists()


@pytest.mark.parametrize(
    ("backend", "module", "package"), [("dask", "distributed", "distributed"), ("ray", "ray", "ray")]
)
def test_a_cluster_that_is_not_installed_is_named(tmp_path, monkeypatch, backend, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "ray.util.joblib", None)
    with pytest.raises(ValueError, match=f"pip install {package}"):
        run_grid(square, CELLS, tmp_path, backend=backend, progress=False)


@pytest.mark.enable_socket  # to this machine alone
def test_cells_run_on_a_dask_cluster_of_the_caller(tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        done, failed = run_grid(square, CELLS, tmp_path, jobs=2, backend="dask", progress=False)
        assert client.status == "running"
    assert {name: result["square"] for name, result in done.items()} == {"one": 1, "two": 4, "three": 9}
    assert failed == {}


@pytest.mark.enable_socket  # to this machine alone
def test_a_dask_client_that_had_to_be_started_is_closed(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    started = []

    class Small(distributed.Client):
        def __init__(self):
            super().__init__(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None)
            started.append(self)

    monkeypatch.setattr(distributed, "Client", Small)
    done, _ = run_grid(square, CELLS, tmp_path, backend="dask", progress=False)
    assert len(done) == 3
    assert [client.status for client in started] == ["closed"]
