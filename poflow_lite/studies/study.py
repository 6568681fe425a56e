"""Studies: grids of cells that are measured alike and end in a table and a figure.

A cell runs through joblib on this machine or a cluster, is never run twice, and fails alone.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import joblib
import torch

from poflow_lite.io import (
    command,
    held,
    machine,
    prepare_folder,
    require_known,
    require_name,
    versions,
    write_atomically,
    write_json,
)
from poflow_lite.settings import checked
from poflow_lite.training import resolve_device

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


BACKENDS = ("loky", "dask", "ray")
RESULT, ERROR = "cell.json", "error.txt"
ATTEMPTS = 4
"""How often the cells that are left are handed out, should processes be killed."""

Cells = Mapping[str, Mapping[str, Any]]
"""Name, which becomes a folder ↦ arguments of :attr:`Study.measure`, as JSON."""


@dataclass(frozen=True)
class Study:
    """A question, as a grid of cells.

    Attributes:
        name: of its files and of the command ``poflow-lite study NAME``.
        cells: settings ↦ the cells of the grid; its keyword parameters are the settings of the study. It checks them,
            and all that can be checked before anything is trained.
        measure: (folder, **arguments of a cell) ↦ what was measured, as JSON; importable, so that another process can
            call it.
        table: result ↦ the table that people read, with its spreads; a row a model or variant.
        figure: result ↦ the figure.
        notes: result ↦ sentences below the table: what its columns are, by which rule figures are marked.
        alone: settings ↦ cells that measure times, run one after the other when all others are done.
        smoke: settings that the budget "smoke" takes where they are not given, so that all is seen in a minute.
    """

    name: str
    cells: Callable[..., Cells]
    measure: Callable[..., dict[str, Any]]
    table: Callable[[Mapping[str, Any]], pd.DataFrame]
    figure: Callable[[Mapping[str, Any]], Figure]
    notes: Callable[[Mapping[str, Any]], list[str]] = lambda result: []
    alone: Callable[..., Cells] = lambda **settings: {}
    smoke: Mapping[str, Any] = field(default_factory=dict)


def settings_of(study: Study) -> dict[str, Any]:
    """The settings of a study with their defaults."""
    return {name: entry.default for name, entry in inspect.signature(study.cells).parameters.items()}


def run_study(
    study: Study,
    out: str | Path,
    *,
    jobs: int = 1,
    backend: str = "loky",
    progress: bool = True,
    **settings: Any,
) -> dict[str, Any]:
    """Run all cells of a study that are not done yet; write ``NAME.json``, ``NAME.png``, ``table.csv``, ``table.md``.

    Args:
        study: which.
        out: folder of the study, with one folder inside for each cell.
        jobs, backend, progress: as for :func:`run_cells`.
        settings: those that differ from :func:`settings_of`.

    Returns:
        The content of ``NAME.json``: "study", "command", "date", "seconds" of all cells together, "versions",
        "machine", "settings", "cells", each with its name, its arguments and what was measured, and "failed", name ↦
        error.

    Raises:
        ValueError, FileNotFoundError: for a mistake in the settings, before anything is trained.
    """
    known = settings_of(study)
    for name in settings:
        require_known(f"setting of the study {study.name}", name, known)
    settings = known | (study.smoke if settings.get("budget") == "smoke" else {}) | checked(study.cells, settings)
    grid, alone = study.cells(**settings), study.alone(**settings)
    done, failed = run_cells(study.measure, grid, out, jobs=jobs, backend=backend, progress=progress)
    if alone:
        further = run_cells(study.measure, alone, out, progress=progress)
        done, failed = done | further[0], failed | further[1]
    arguments = {**grid, **alone}
    result = {
        "study": study.name,
        "command": command(),
        "date": date.today().isoformat(),
        "seconds": round(sum(_read(Path(out) / name)["seconds"] for name in done)),
        "versions": versions(),
        "machine": machine(resolve_device(settings.get("device", "cpu"))),
        "settings": settings,
        "cells": [{"cell": name, **arguments[name], **measured} for name, measured in done.items()],
        "failed": failed,
    }
    result = json.loads(json.dumps(result))  # as in the file: tuples have become lists
    write_json(prepare_folder(out) / f"{study.name}.json", result)
    if grid.keys() & done.keys():  # times alone make no table
        report(study, result, out)
    else:
        for old in ("table.md", "table.csv", f"{study.name}.png"):  # of other cells
            (Path(out) / old).unlink(missing_ok=True)
    return result


def report(study: Study, result: Mapping[str, Any], out: str | Path) -> str:
    """Write the table and the figure of a result, as run or as recorded, into ``out``; give the table as Markdown."""
    folder, table, text = prepare_folder(out), study.table(result), page(study, result)
    csv = table.to_csv(index=False, lineterminator="\n")
    for name, content in (("table.md", text), ("table.csv", csv)):
        write_atomically(folder / name, lambda path, content=content: path.write_text(content, encoding="utf-8"))
    figure = study.figure(result)
    write_atomically(folder / f"{study.name}.png", lambda path: figure.savefig(path, dpi=150, format="png"))
    return text


def page(study: Study, result: Mapping[str, Any]) -> str:
    """The table of a result as Markdown, with the notes below it, what failed, and where it comes from."""
    table = study.table(result)
    lines = [list(map(str, table.columns)), ["---"] * table.shape[1], *table.astype(str).values.tolist()]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    markdown = "\n".join(f"| {' | '.join(line)} |" for line in cells)
    used = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    times = f", {result['date']}, {result['seconds'] / 60:.0f} minutes of work" if "date" in result else ""
    origin = f"As typed: `{result['command']}`, {result['machine']}{times}, {used}"
    failed = [f"Missing: {name} ({reason})." for name, reason in result["failed"].items()]
    return "\n\n".join([markdown, *study.notes(result), *failed, origin]) + "\n"


def as_measured(result: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A run's recipe as it was trained and measured: the study's sizes in the place of the recipe's, no unused one."""
    known, sizes = result["settings"], ("likelihood_images", "samples")
    own = {name: known[name] for name in sizes if name in known}
    unused = {"test_images", *(() if known.get("scores", True) else sizes)}
    return {name: value for name, value in {**recipe, **own}.items() if name not in unused}


def mean_and_spread(values: Sequence[float | None], form: str) -> str:
    """ "mean ± standard deviation" of what seeds gave, each in this format; no spread for one, "" where one is missing.

    >>> mean_and_spread([1.0, 2.0], ".1f")
    '1.5 ± 0.7'
    """
    if not len(values) or None in values:
        return ""
    spread = f" ± {stdev(values):{form}}" if len(values) > 1 else ""
    return f"{mean(values):{form}}{spread}"


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean by Student's t, low and high; NaN for a single value.

    >>> t_interval([1.0])
    (nan, nan)
    """
    from scipy.stats import t

    if len(values) < 2:
        return math.nan, math.nan
    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


def t_test(values: Sequence[float]) -> float:
    """P(|t_{n-1}| > |mean| √n / spread), for a mean of 0; without spread 0, or 1 where all are 0; NaN for one value."""
    from scipy.stats import ttest_1samp

    if len(values) < 2:
        return math.nan
    return float(ttest_1samp(values, 0.0).pvalue if stdev(values) else mean(values) == 0)


def holm(p_values: Sequence[float], level: float = 0.05) -> list[bool]:
    """Which of several tests are significant together, so that one false one has at most this probability (Holm).

    The smallest of m p-values must be at most level ÷ m, the next one level ÷ (m - 1), and so on until one is not.

    >>> holm([0.01, 0.04, 0.03])
    [True, False, False]
    """
    kept, left = [False] * len(p_values), len(p_values)
    for i in sorted(range(left), key=p_values.__getitem__):
        if not p_values[i] <= level / left:
            break
        kept[i], left = True, left - 1
    return kept


# --- the grid -----------------------------------------------------------------------------------------------------


def run_cells(
    work: Callable[..., dict[str, Any]],
    cells: Cells,
    out: str | Path,
    *,
    jobs: int = 1,
    backend: str = "loky",
    progress: bool = True,
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Run ``work(folder=out/name, **arguments)`` for every cell; keep each result in ``out/name/cell.json``.

    A cell whose result is there is not run again, so the same call goes on where an interrupted one stopped; one whose
    result is damaged is named by a warning and run again. A cell that raises leaves its traceback in
    ``out/name/error.txt``; the others go on, and the next call tries it again. Cells of a process that was killed are
    run again.

    Args:
        work: what a cell does.
        cells: name ↦ arguments, as JSON; the name becomes a folder.
        out: folder of the grid.
        jobs: cells that run at once. With several, each gets an equal share of the processor cores.
        backend: one of :data:`BACKENDS`, joblib's: processes on this machine, or a Dask or Ray cluster that shares
            this file system. Without a Dask client in this process, one is started: of the scheduler at
            DASK_SCHEDULER_ADDRESS, or of a cluster of ``jobs`` processes on this machine.
        progress: show a bar over the cells.

    Returns:
        Name ↦ result of the cells that are done, and name ↦ one line for those that failed.

    Raises:
        ValueError: for an unknown backend or one that is not installed, no cells, ``jobs`` below 1, a name that cannot
            be a folder's, or a folder that holds a cell of this name with other arguments, or is in use.
        RuntimeError: if processes die again and again.
    """
    require_known("backend", backend, BACKENDS)
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    if not cells:
        raise ValueError("the grid is empty: name at least one model and one seed")
    for name in cells:
        require_name("the cell", name)
    if len({name.casefold() for name in cells}) < len(cells):  # where case does not tell folders apart
        raise ValueError(f"two cells would share a folder, of {', '.join(sorted(cells))}: name them apart")
    with held(prepare_folder(out)):
        return _run_left(work, cells, Path(out), jobs, backend, progress)


def _run_left(
    work: Callable[..., dict[str, Any]], cells: Cells, out: Path, jobs: int, backend: str, progress: bool
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Run the cells without a result, in a folder that is ours."""
    from tqdm.auto import tqdm

    folders = {name: out / name for name in cells}
    failures: dict[str, str] = {}
    threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None
    run_cell = joblib.delayed(_run_cell)
    bar = tqdm(total=len(cells), disable=not progress, desc="cells", unit="cell")
    with bar, _parallel(backend, jobs) as parallel:
        for _ in range(ATTEMPTS):
            left = [name for name in cells if name not in failures and not _is_done(folders[name], cells[name])]
            bar.update(len(cells) - len(left) - bar.n)
            if not left:
                break
            calls = [run_cell(work, prepare_folder(folders[name]), dict(cells[name]), threads) for name in left]
            try:
                for name, error in parallel(calls):
                    bar.update()
                    if error:
                        failures[name] = error
                        bar.write(f"{name} failed: {error} (see {folders[name] / ERROR})")
            except Exception as error:  # no cell's, which keeps its own: a process died, or the cluster
                lost = type(error).__name__
                warnings.warn(f"{backend} lost a process ({lost}): its cells are run again", stacklevel=3)
        else:
            if any(name not in failures and _read(folders[name]) is None for name in cells):
                raise RuntimeError(
                    f"{backend} lost processes {ATTEMPTS} times: what is finished is kept in {out}, and the same call "
                    "goes on with the rest; if memory was short, give fewer jobs"
                )
    found = {name: _read(folder) for name, folder in folders.items()}
    return {name: cell["result"] for name, cell in found.items() if cell is not None}, failures


def _read(folder: Path) -> dict[str, Any] | None:
    """What a cell left; ``None`` if it is not there or, with a warning, damaged."""
    path = folder / RESULT
    if not path.exists():
        return None
    try:
        cell = json.loads(path.read_bytes())
        if cell.pop("sha256", None) in (None, _digest(cell)):  # older ones have none
            return {"seconds": cell.get("seconds", 0.0)} | {key: dict(cell[key]) for key in ("arguments", "result")}
    except (AttributeError, KeyError, TypeError, ValueError):  # no JSON, or not what a cell writes
        pass
    warnings.warn(f"{path} is damaged: its cell is run again", stacklevel=2)
    return None


def _digest(cell: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(cell).encode()).hexdigest()


def _is_done(folder: Path, arguments: Mapping[str, Any]) -> bool:
    cell = _read(folder)
    if cell is None:
        (folder / RESULT).unlink(missing_ok=True)
        return False
    before, now = cell["arguments"], json.loads(json.dumps(dict(arguments)))
    if before != now:
        different = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        raise ValueError(
            f"{folder} holds a cell of another grid (different: {', '.join(different)}): "
            "choose another folder with --out"
        )
    return True


def _run_cell(
    work: Callable[..., dict[str, Any]], folder: Path, arguments: dict[str, Any], threads: int | None
) -> tuple[str, str | None]:
    """Run one cell where joblib put it; give its name and, if it failed, the last line of the traceback."""
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        began = time.perf_counter()
        result = work(folder=folder, **arguments)
        cell = {"arguments": arguments, "result": result, "seconds": round(time.perf_counter() - began, 1)}
        write_json(folder / RESULT, {**cell, "sha256": _digest(cell)})
        (folder / ERROR).unlink(missing_ok=True)
    except Exception as error:  # whatever it is, it is this cell's alone: the others go on
        report = traceback.format_exc()
        write_atomically(folder / ERROR, lambda path: path.write_text(report, encoding="utf-8"))
        return folder.name, f"{type(error).__name__}: {error}"
    return folder.name, None


@contextmanager
def _parallel(backend: str, jobs: int) -> Iterator[joblib.Parallel]:
    """joblib's Parallel on a backend; what had to be started is closed."""
    client = None
    if backend == "dask":
        try:
            from distributed import Client, default_client
        except ImportError:
            raise ValueError("the backend dask needs a package that is missing: pip install distributed") from None
        try:
            default_client()  # the caller's own cluster
        except ValueError:
            from dask import config

            own = {} if config.get("scheduler-address", None) else {"n_workers": jobs, "threads_per_worker": 1}
            client = Client(**own)
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
