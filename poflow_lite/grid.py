"""Grids of runs: cells that run side by side through joblib, are never run twice, and fail one at a time."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
import torch

from poflow_lite.checkpoints import prepare_folder, write_atomically, write_json
from poflow_lite.errors import require_known

__all__ = ["BACKENDS", "run_grid"]

BACKENDS = ("loky", "dask", "ray")
RESULT, ERROR = "cell.json", "error.txt"

Work = Callable[..., dict[str, Any]]
"""(folder, **arguments) ↦ what was measured, as JSON; importable, so that another process can call it."""


def run_grid(
    work: Work,
    cells: Mapping[str, Mapping[str, Any]],
    out: str | Path,
    *,
    jobs: int = 1,
    backend: str = "loky",
    progress: bool = True,
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Run ``work(folder=out/name, **arguments)`` for every cell; keep each result in ``out/name/cell.json``.

    A cell whose result is there is not run again, so the same call goes on where an interrupted one stopped. A cell
    that raises leaves its traceback in ``out/name/error.txt``; the others go on, and the next call tries it again.

    Args:
        work: what a cell does.
        cells: name ↦ arguments, as JSON; the name becomes a folder.
        out: folder of the grid.
        jobs: cells that run at once. With several, each gets an equal share of the processor cores.
        backend: one of :data:`BACKENDS`, joblib's: processes on this machine, or a Dask or Ray cluster that shares
            this file system. Without a Dask client in this process, one is started from Dask's own configuration: the
            scheduler at DASK_SCHEDULER_ADDRESS, or a cluster on this machine.
        progress: show a bar over the cells.

    Returns:
        Name ↦ result of the cells that are done, and name ↦ one line for those that failed.

    Raises:
        ValueError: for an unknown backend or one that is not installed, no cells, ``jobs`` below 1, or a folder that
            holds a cell of this name with other arguments.
    """
    from tqdm.auto import tqdm

    require_known("backend", backend, BACKENDS)
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    if not cells:
        raise ValueError("the grid is empty: name at least one model and one seed")
    folders = {name: Path(out) / name for name in cells}
    left = [name for name, folder in folders.items() if not _is_done(folder, cells[name])]
    for name in left:
        prepare_folder(folders[name])
    threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None
    calls = (joblib.delayed(_run_cell)(work, folders[name], dict(cells[name]), threads) for name in left)
    failures = {}
    bar = tqdm(total=len(cells), initial=len(cells) - len(left), disable=not progress, desc="cells", unit="cell")
    with bar, _parallel(backend, jobs) as parallel:
        for name, error in parallel(calls):
            bar.update()
            if error:
                failures[name] = error
                bar.write(f"{name} failed: {error} (see {folders[name] / ERROR})")
    done = {name: _read(folder)["result"] for name, folder in folders.items() if (folder / RESULT).exists()}
    return done, failures


def _read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / RESULT).read_text(encoding="utf-8"))


def _is_done(folder: Path, arguments: Mapping[str, Any]) -> bool:
    if not (folder / RESULT).exists():
        return False
    before, now = _read(folder)["arguments"], json.loads(json.dumps(dict(arguments)))
    if before != now:
        different = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        raise ValueError(
            f"{folder} holds a cell of another grid (different: {', '.join(different)}): "
            "choose another folder with --out"
        )
    return True


def _run_cell(work: Work, folder: Path, arguments: dict[str, Any], threads: int | None) -> tuple[str, str | None]:
    """Run one cell where joblib put it; give its name and, if it failed, the last line of the traceback."""
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        result = work(folder=folder, **arguments)
        write_json(folder / RESULT, {"arguments": arguments, "result": result})
        (folder / ERROR).unlink(missing_ok=True)
    except Exception as error:  # whatever it is, it is this cell's alone: the others go on
        report = traceback.format_exc()
        write_atomically(folder / ERROR, lambda path: path.write_text(report, encoding="utf-8"))
        return folder.name, f"{type(error).__name__}: {error}"
    return folder.name, None


@contextmanager
def _parallel(backend: str, jobs: int) -> Iterator[joblib.Parallel]:
    """joblib's Parallel on a backend, results in the order in which they come; what had to be started is closed."""
    client = None
    if backend == "dask":
        try:
            from distributed import Client, default_client
        except ImportError:
            raise ValueError("the backend dask needs a package that is missing: pip install distributed") from None
        try:
            default_client()  # the caller's own cluster
        except ValueError:
            client = Client()
    if backend == "ray":
        try:
            from ray.util.joblib import register_ray
        except ImportError:
            raise ValueError("the backend ray needs a package that is missing: pip install ray") from None
        register_ray()
    try:
        with joblib.parallel_config(backend=backend, n_jobs=jobs):
            yield joblib.Parallel(return_as="list" if backend == "ray" else "generator_unordered")
    finally:
        if client is not None:
            client.close()
