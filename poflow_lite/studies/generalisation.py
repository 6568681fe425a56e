"""Composition and generalisation with numbers: every model on every trial, over seeds, in one table."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from poflow_lite.checkpoints import prepare_folder, write_atomically, write_json
from poflow_lite.errors import require_known
from poflow_lite.experiments import load_run, train
from poflow_lite.grid import run_grid
from poflow_lite.movers import fit_movers
from poflow_lite.provenance import command, versions
from poflow_lite.recipes import MODELS, recipe, sequences
from poflow_lite.studies.markdown import markdown_table, origin
from poflow_lite.studies.trials import TRAININGS, TRIALS, measure_round_trip, measure_trial, trial_sequences

__all__ = ["CONTESTANTS", "Entry", "generalise", "generalise_cell", "standings", "write_generalisation"]

CONTESTANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{model: (model, {}) for model in MODELS if model != "weakly-supervised"},
    "free flow": ("flow-factorized", {"field": "free", "hamilton_jacobi": 0.0, "agreement": 0.1}),
}
"""Column of the table ↦ model and options: the seven, and ours with a field that need not be a gradient and a flow that
is asked to end where the encoder puts the last frame. (The weakly supervised model is the flow-factorized, told less.)
"""

OURS = ("flow-factorized", "free flow")
TOGETHER = {"as trained": "two at once", "random starts": "random starts two at once"}
"""Trial of each transformation alone ↦ trial of pairs that shows the same images from the same starts."""


def generalise(
    data: str,
    out: str | Path,
    *,
    models: Sequence[str] = tuple(CONTESTANTS),
    trials: Sequence[str] = tuple(TRIALS),
    seeds: Sequence[int] = (0,),
    budget: str = "lecture",
    split: str = "test",
    images: int = 120,
    jobs: int = 1,
    backend: str = "loky",
    device: str = "auto",
    progress: bool = True,
    **changes: Any,
) -> dict[str, Any]:
    """Train every model in every way that the trials need, try it, and write ``generalisation.json`` into ``out``.

    A cell is one model trained in one way with one seed; it is measured on all its trials and never run twice.

    Args:
        data: still images, the paper's three transformations.
        out: folder of the grid.
        models: of :data:`CONTESTANTS`.
        trials: of :data:`trials.TRIALS`.
        seeds: of the runs.
        budget, split, jobs, backend, device: as for :func:`comparison.compare`.
        images: images of the split that are shown in each trial, at most.
        changes: settings that differ from the recipe, in all models.

    Returns:
        The content of ``generalisation.json``: where it comes from, and one cell for each run, with what
        :func:`trials.measure_trial` found for each trial and the round trip.

    Raises:
        ValueError, FileNotFoundError: for a mistake in the arguments, before anything is trained.
    """
    for name in trials:
        require_known("trial", name, TRIALS)
        trial_sequences(TRIALS[name], data, split, 1)  # is the data set there?
    for model in models:
        require_known("model", model, CONTESTANTS)
    trainings = {TRIALS[name].training: [] for name in trials}
    for name in trials:
        trainings[TRIALS[name].training].append(name)
    cells = {}
    for seed, training, name in itertools.product(seeds, trainings, models):
        (model, options), differing = CONTESTANTS[name], dict(TRAININGS[training])
        source = differing.pop("data", data)
        settings = asdict(recipe(data, budget, model, **{**changes, **options, **differing}))
        cells[f"{_slug(name)}-{_slug(training)}-seed-{seed}"] = {
            "name": name, "model": model, "training": training, "seed": seed, "data": source, "budget": budget,
            "split": split, "images": images, "device": device, "trials": trainings[training], "settings": settings,
        }  # fmt: skip
    done, failures = run_grid(generalise_cell, cells, out, jobs=jobs, backend=backend, progress=progress)
    result = {
        "data_set": f"{data} ({split}, at most {images:,} images a trial)",
        "budget": budget,
        "command": command(),
        "versions": versions(),
        "cells": list(done.values()),
        "failed": failures,
    }
    write_json(prepare_folder(out) / "generalisation.json", result)
    return result


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.replace(" %", "-percent")).strip("-").lower()


def generalise_cell(
    folder: Path,
    name: str,
    model: str,
    training: str,
    seed: int,
    data: str,
    budget: str,
    split: str,
    images: int,
    device: str,
    trials: Sequence[str],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Train one model in one way with one seed in ``folder``, and try it: one cell of the grid."""
    changes = {name: value for name, value in settings.items() if name != "own"} | settings["own"]
    train(model, data, budget, folder, seed=seed, device=device, resume=True, progress=False, **changes)
    run = load_run(folder, device)
    movers = fit_movers(run.model, sequences(data, "train", run.settings), seed=seed)
    result: dict[str, Any] = {
        "model": name,
        "training": training,
        "seed": seed,
        "device": run.config["device"],
        "seconds": run.history[-1]["seconds"],
        "trials": {},
    }
    for trial in trials:
        shown = trial_sequences(TRIALS[trial], data, split, images)
        result["trials"][trial] = measure_trial(run.model, movers, TRIALS[trial], shown)
    home = trial_sequences(TRIALS[trials[0]], data, split, images)
    result["round_trip"] = measure_round_trip(run.model, movers, home)
    return result


# --- the table ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """What one model reaches in one trial.

    Attributes:
        mover: what moved it; for ours the flow, for all others whatever has the least error here.
        error: equivariance error ÷ no motion, mean over motions and seeds.
        spread: standard deviation over seeds; ``None`` for one seed.
        floor: of the same model, in the same unit.
        seeds: how many.
    """

    mover: str
    error: float
    spread: float | None
    floor: float
    seeds: int


def standings(result: Mapping[str, Any]) -> dict[str, dict[str, Entry]]:
    """Trial ↦ model ↦ :class:`Entry`.

    Baselines get the mover with the least mean error in that very trial, chosen afterwards and on the test images: an
    advantage that the flow does not have, which is always moved by itself.

    Args:
        result: of :func:`generalise`.
    """
    table: dict[str, dict[str, Entry]] = {}
    for trial in TRIALS:
        cells = [cell for cell in result["cells"] if trial in cell["trials"]]
        for model in dict.fromkeys(cell["model"] for cell in cells):
            runs = [cell["trials"][trial] for cell in cells if cell["model"] == model]
            ratios = {name: [_ratio(run, name) for run in runs] for name in runs[0] if name != "no motion"}
            floor = mean(ratios.pop("floor"))
            complete = {name: values for name, values in ratios.items() if None not in values}
            own = [name for name in complete if name == "flow" and model in OURS]
            best = own[0] if own else min(complete, key=lambda name: mean(complete[name]))
            values = complete[best]
            spread = stdev(values) if len(values) > 1 else None
            table.setdefault(trial, {})[model] = Entry(best, mean(values), spread, floor, len(values))
    return table


def _ratio(run: Mapping[str, Mapping[str, float]], mover: str) -> float | None:
    """Error ÷ no motion, mean over the motions; ``None`` where the mover could not make one of them."""
    errors, still = run[mover], run["no motion"]
    if errors.keys() != still.keys():
        return None
    return mean(errors[motion] / still[motion] for motion in still)


def write_generalisation(result: Mapping[str, Any], out: str | Path) -> str:
    """Write ``generalisation.md`` and ``generalisation.png`` into ``out``; give the Markdown.

    Raises:
        ValueError: if no cell is done.
    """
    if not result["cells"]:
        raise ValueError("no cell of the study is done: there is nothing to put into a table")
    from poflow_lite.studies import figures

    table, folder = standings(result), prepare_folder(out)
    text = _markdown(table, result)
    write_atomically(folder / "generalisation.md", lambda path: path.write_text(text, encoding="utf-8"))
    figure = figures.standings_dots(table, OURS, f"{result['data_set']}, budget {result['budget']}")
    write_atomically(folder / "generalisation.png", lambda path: figure.savefig(path, dpi=150, format="png"))
    return text


def _markdown(table: Mapping[str, Mapping[str, Entry]], result: Mapping[str, Any]) -> str:
    models = list(dict.fromkeys(model for row in table.values() for model in row))
    rows = []
    ours = OURS[0]
    first = dict.fromkeys((name for name in OURS if name in models), 0)
    for trial, row in table.items():
        best = min(row, key=lambda model: row[model].error)
        for name in first:
            rivals = [row[model].error for model in row if model not in OURS]
            first[name] += name in row and row[name].error <= min(rivals, default=float("inf"))
        texts = [_text(row[model], model == best) if model in row else "" for model in models]
        floor = f"{row[ours].floor:.2f}" if ours in row else ""
        rows.append([trial, *texts, floor])
    seeds = sorted({cell["seed"] for cell in result["cells"]})
    foot = [
        *(
            f"{name} has less error than all but ours in {count} of {len(table)} trials."
            for name, count in first.items()
        ),
        "Equivariance error ÷ no motion, mean over the motions of a trial"
        + (" ± standard deviation over seeds " if len(seeds) > 1 else "; seed ")
        + ", ".join(map(str, seeds))
        + f". {' and '.join(OURS)} are moved by their flows; every other model by whatever has the least error in that "
        f"very trial, named beside it. Floor: true frames encoded and decoded by {ours}. {result['data_set']}, "
        f"budget {result['budget']}.",
        *_superposed(result),
        *_round_trips(result),
        origin(result, result["cells"][0]["device"]),
    ]
    return "\n\n".join([markdown_table(["trial", *models, "floor"], rows), *foot]) + "\n"


def _text(entry: Entry, best: bool) -> str:
    figure = f"{entry.error:.2f}" + ("" if entry.spread is None else f" ± {entry.spread:.2f}")
    return (f"**{figure}**" if best else figure) + ("" if entry.mover == "flow" else f" ({entry.mover})")


def _superposed(result: Mapping[str, Any]) -> list[str]:
    """One line for each of ours and each kind of start: two at once against the larger error of the two alone."""
    lines = []
    for (alone, together), name in itertools.product(TOGETHER.items(), OURS):
        runs = [cell["trials"] for cell in result["cells"] if cell["model"] == name]
        ratios = [
            run[together]["flow"][pair] / max(run[alone]["flow"][moving] for moving in pair.split(" + "))
            for run in runs
            if {alone, together} <= run.keys()
            for pair in run[together].get("flow", {})
        ]
        if ratios:
            lines.append(
                f"{together.capitalize()} by the flow of {name}: {min(ratios):.2f} to {max(ratios):.2f} times the "
                f"larger error of the two alone ({alone}), in pixels."
            )
    return lines


def _round_trips(result: Mapping[str, Any]) -> list[str]:
    """One line for each of ours: how the flow returns to the first frame."""
    lines = []
    for name in OURS:
        own = [cell for cell in result["cells"] if cell["model"] == name]
        trips = [ratio for cell in own for ratio in cell["round_trip"].get("flow", {}).values()]
        possible = sum(len(cell["round_trip"].get("identity", {})) for cell in own)
        if trips:
            cases = f"all {possible} cases" if len(trips) == possible else f"{len(trips)} of {possible} cases"
            folds = "" if len(trips) == possible else "; in the others some step folds space"
            lines.append(
                f"There and back by the flow of {name}: {max(trips):.3f} times the error of the first frame merely "
                f"encoded and decoded, at worst, in {cases}{folds}."
            )
    return lines
