"""Ablations: the flow-factorized VAE with one part taken out or changed at a time, measured alike, over seeds."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from poflow_lite.checkpoints import prepare_folder, write_json
from poflow_lite.datasets import Sequences
from poflow_lite.errors import require_known
from poflow_lite.experiments import Run, load_run, train
from poflow_lite.grid import run_grid
from poflow_lite.metrics import autoencode, equivariance_errors, log_likelihood, no_motion, predict
from poflow_lite.models import FlowFactorizedVAE
from poflow_lite.provenance import command, versions
from poflow_lite.recipes import Recipe, build_model, recipe, sequences
from poflow_lite.transport import ot_gap, straightness

__all__ = ["ABLATIONS", "REFERENCES", "STANDARD", "Variant", "ablate", "ablate_cell", "measure_flow", "variants"]

MODEL, STANDARD = "flow-factorized", "standard"

ABLATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "hamilton-jacobi": {f"λ_HJ = {weight:g}": {"hamilton_jacobi": weight} for weight in (0.0, 1.0, 100.0)},
    "force": {"no force": {"force": "none"}},
    "initial": {f"λ_0 = {weight:g}": {"initial": weight} for weight in (1.0, 10.0)},
    "prior": {"static N(0, I)": {"prior": "static"}, "no path KL": {"path_kl": 0.0}},
    "density": {"trace": {"density": "laplacian"}, "ignored": {"density": "ignored"}},
    "field": {
        "gradient": {"hamilton_jacobi": 0.0},
        "free": {"hamilton_jacobi": 0.0, "field": "free"},
        "divergence-free": {"hamilton_jacobi": 0.0, "field": "divergence-free"},
    },
    "agreement": {
        "gradient": {"agreement": 0.1},
        "free": {"agreement": 0.1, "hamilton_jacobi": 0.0, "field": "free"},
    },
    "width": {f"{width} units": {"width": width} for width in (8, 256)},
    "depth": {"2 layers": {"depth": 2}},
    "latent": {f"d = {latent}": {"latent": latent} for latent in (8, 16, 64)},
    "horizon": {f"T = {horizon}": {"horizon": horizon} for horizon in (4, 16)},
    "substeps": {
        "2 Euler steps": {"substeps": 2},
        "4 Euler steps": {"substeps": 4},
        "1 RK4 step": {"method": "rk4"},
    },
    "frames": {f"S = {frames}": {"frames": frames} for frames in (1, 4, 8)},
    "beta": {f"β = {beta:g}": {"beta": beta} for beta in (0.01, 0.1, 0.3, 1.0)},
    "autoencoding": {"no second bound": {"autoencoding": 0.0}},
}
"""Group ↦ variant ↦ what it changes in the recipe of the standard model."""

REFERENCES = {"field": "gradient"}
"""Group ↦ the variant that its others are held against, where that is not the standard model.

A penalty on the residual of a potential makes no sense without one, so the three fields are compared without it.
"""


@dataclass(frozen=True)
class Variant:
    """A model of the study.

    Attributes:
        group: of :data:`ABLATIONS`, or :data:`STANDARD` for the standard model.
        name: within the group.
        cell: what its runs are called, less the seed; two variants with the same recipe share their runs.
        settings: its recipe.
    """

    group: str
    name: str
    cell: str
    settings: Recipe


def variants(
    data: str, budget: str, groups: Sequence[str] | None = None, **changes: Any
) -> tuple[list[Variant], dict[str, str]]:
    """The standard model and all variants of some groups that the data have, and why the others were left out.

    Args:
        data, budget: as for :func:`experiments.train`.
        groups: of :data:`ABLATIONS`; all by default.
        changes: settings in which all of them depart from the budget's recipe, the standard model too.

    Returns:
        The variants, the standard model first, and "group: name" ↦ reason of those that this data set cannot have: more
        frames than a sequence holds, or a horizon beyond the last value of a factor.

    Raises:
        ValueError: for an unknown group, or settings that are unknown or do not go together.
    """
    chosen = list(ABLATIONS) if groups is None else list(groups)
    for group in chosen:
        require_known("group", group, ABLATIONS)
    standard = recipe(data, budget, MODEL, **changes)
    sequences(data, "test", standard)  # what is wrong with the standard model is no reason to leave variants out
    found, left_out = [Variant(STANDARD, STANDARD, STANDARD, standard)], {}
    for group in dict.fromkeys(chosen):
        for name, change in ABLATIONS[group].items():
            settings = recipe(data, budget, MODEL, **{**changes, **change})
            if reason := _misfit(data, settings, standard):
                left_out[f"{group}: {name}"] = reason
                continue
            own = "-".join(f"{key}-{value}" for key, value in change.items())
            cell = next((variant.cell for variant in found if variant.settings == settings), own)
            found.append(Variant(group, name, cell, settings))
    return found, left_out


def _misfit(data: str, settings: Recipe, standard: Recipe) -> str | None:
    """Why the sequences of a data set cannot be had in this form, or ``None``."""
    if settings.frames > settings.horizon:
        return f"{settings.frames} frames are more than the {settings.horizon} of a sequence"
    if settings.horizon != standard.horizon:
        try:
            sequences(data, "test", settings)
        except ValueError as error:
            return str(error)
    return None


def ablate(
    data: str,
    out: str | Path,
    *,
    budget: str = "lecture",
    groups: Sequence[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    split: str = "test",
    images: int = 2000,
    jobs: int = 1,
    backend: str = "loky",
    device: str = "auto",
    progress: bool = True,
    **changes: Any,
) -> dict[str, Any]:
    """Train and measure every variant with every seed, and write ``ablations.json`` into ``out``.

    Runs of one seed start from the same encoder and decoder and see the same data in the same order, so that variants
    are compared in pairs. A cell that is done is not run again, and one that fails does not stop the others: see
    :func:`grid.run_grid`.

    Args:
        data, budget: as for :func:`experiments.train`.
        out: folder of the grid, one folder inside for each cell.
        groups: of :data:`ABLATIONS`; all by default.
        seeds: of the runs; spreads need two, and mean little below three.
        split: "test" for figures that are reported, "validation" for choices.
        images: images that are measured, at most, the first ones.
        jobs, backend: as for :func:`grid.run_grid`.
        device: "auto", "cpu" or "cuda".
        changes: settings that differ from the recipe, in all variants.

    Returns:
        The content of ``ablations.json``: where it comes from, the standard settings, "rows" that say which cell is
        which variant of which group and what it changes, "cells" with what :func:`ablate_cell` measured, what was left
        out and what failed.

    Raises:
        ValueError, FileNotFoundError: for a mistake in the arguments, before anything is trained.
    """
    studied, left_out = variants(data, budget, groups, **changes)
    common = {"data": data, "budget": budget, "split": split, "images": images, "device": device}
    cells = {
        f"{variant.cell}-seed-{seed}": {"seed": seed, "settings": asdict(variant.settings), **common}
        for seed, variant in itertools.product(seeds, studied)
    }
    measured, _ = (sequences(data, name, studied[0].settings) for name in (split, "train"))
    done, failures = run_grid(ablate_cell, cells, out, jobs=jobs, backend=backend, progress=progress)
    named = {f"{variant.cell}-seed-{seed}": variant.cell for seed, variant in itertools.product(seeds, studied)}
    result = {
        "data_set": f"{measured.name}, {min(images, len(measured)):,} measured",
        "budget": budget,
        "command": command(),
        "versions": versions(),
        "settings": asdict(studied[0].settings),
        "rows": [
            {"group": row.group, "variant": row.name, "cell": row.cell, "changes": _changes(row)} for row in studied
        ],
        "references": _references(studied),
        "cells": [{"cell": named[name], **cell} for name, cell in done.items()],
        "left_out": left_out,
        "failed": failures,
    }
    write_json(prepare_folder(out) / "ablations.json", result)
    return json.loads(json.dumps(result))  # as in the file: tuples have become lists


def _changes(row: Variant) -> dict[str, Any]:
    return {} if row.group == STANDARD else ABLATIONS[row.group][row.name]


def _references(studied: Sequence[Variant]) -> dict[str, str]:
    """Group ↦ the cell that its variants are held against."""
    cells = {(variant.group, variant.name): variant.cell for variant in studied}
    return {variant.group: cells.get((variant.group, REFERENCES.get(variant.group)), STANDARD) for variant in studied}


def ablate_cell(
    folder: Path,
    data: str,
    budget: str,
    seed: int,
    split: str,
    images: int,
    device: str,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Train one variant with one seed in ``folder`` and measure it: what one cell of the grid does.

    Returns:
        What :func:`measure_flow` gives, with the seed, the device, the seconds of training and "milliseconds", the
        median over the entries of the training history of the time of one step. It holds the machine's other work,
        such as cells that run at the same time: compare it within one table only.
    """
    changes = {name: value for name, value in settings.items() if name != "own"} | settings["own"]
    train(MODEL, data, budget, folder, seed=seed, device=device, resume=True, progress=False, **changes)
    run = load_run(folder, device)
    held_out = sequences(data, split, run.settings).first(images)
    return {
        "seed": seed,
        "device": run.config["device"],
        "seconds": run.history[-1]["seconds"],
        "milliseconds": _step_time(run.history),
        **measure_flow(_with_exact_density(run, held_out), run.settings, held_out, seed),
    }


def _step_time(history: Sequence[dict[str, float]]) -> float:
    """Median over the entries of a history of milliseconds a step."""
    entries = itertools.pairwise([{"step": 0, "seconds": 0.0}, *history])
    return 1e3 * statistics.median((b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in entries)


def _with_exact_density(run: Run, held_out: Sequences) -> FlowFactorizedVAE:
    """The trained model with the true density of its flow, whichever it was trained with.

    Likelihoods belong to the decoder and the prior; the flow proposes where to look, and what it proposes with is known
    exactly. A wrong density here would make an estimate wrong, not the model.
    """
    settings = replace(run.settings, own=run.settings.own | {"density": "exact"})
    model = build_model(MODEL, settings, held_out.image_shape, len(held_out.names))
    model.load_state_dict(run.model.state_dict())
    return model.to(next(run.model.parameters()).device).eval()


@torch.no_grad()
def measure_flow(
    model: FlowFactorizedVAE, settings: Recipe, held_out: Sequences, seed: int = 0, particles: int = 1000
) -> dict[str, Any]:
    """Everything the ablations measure of one trained model.

    Args:
        model: trained, with the exact density.
        settings: say how many images and samples the log-likelihood takes.
        held_out: measured.
        seed: of random start poses.
        particles: at most so many images whose paths are held against optimal transport.

    Returns:
        By k: "equivariance_error", "no_motion", "reconstruction_floor", "ratio_to_no_motion", and of the paths of
        posterior means "ot_gap" (``None`` where nothing moves, or the cloud as a whole does not) and "straightness".
        For all k together: "prediction" and "reconstruction", nats a frame, ``None`` where an estimate exceeds what is
        possible, as those of a flow that folds space can; and "smallest_eigenvalue" of the symmetric part of
        I + ∂v/∂z along the paths.
    """
    predictors = {
        "equivariance_error": partial(predict, model),
        "no_motion": no_motion,
        "reconstruction_floor": partial(autoencode, model),
    }
    errors = equivariance_errors(predictors, held_out)
    found: dict[str, Any] = {
        **errors,
        "ratio_to_no_motion": {k: errors["equivariance_error"][k] / errors["no_motion"][k] for k in held_out.names},
        **{name: _likelihood(model, settings, held_out, name) for name in ("prediction", "reconstruction")},
    }
    found |= {"ot_gap": {}, "straightness": {}}
    smallest = []
    for k, name in enumerate(held_out.names):
        start = _means(model, held_out.first(particles), k, seed)
        index = torch.full((len(start),), k, device=start.device)
        path = model.transport(start, index, held_out.horizon)
        gap = ot_gap(path.z) if path.z.diff(dim=1).any() else math.inf
        found["ot_gap"][name] = gap if math.isfinite(gap) else None
        found["straightness"][name] = straightness(path.z)
        smallest.append(model.flow.smallest_eigenvalue(path, index).min().item())
    return found | {"smallest_eigenvalue": min(smallest)}


def _likelihood(model: FlowFactorizedVAE, settings: Recipe, held_out: Sequences, name: str) -> float | None:
    sizes = {"images": settings.likelihood_images, "samples": settings.samples}
    try:
        return getattr(log_likelihood(model, held_out, estimates=[name], **sizes), name)
    except RuntimeError as error:  # a fold has two pre-images, and the density counts one
        if "ceiling" not in str(error):
            raise
        return None


def _means(model: FlowFactorizedVAE, held_out: Sequences, k: int, seed: int, batch_size: int = 256) -> Tensor:
    """Posterior means μ(x_0) of all images: (N, d)."""
    device, generator = next(model.parameters()).device, torch.Generator().manual_seed(seed)
    means = []
    for indices in torch.arange(len(held_out)).split(batch_size):
        first = held_out.batch(indices, k, torch.zeros(len(indices), 1, dtype=torch.long), generator)
        means.append(model.encode(first.frames[:, 0].to(device)).mean)
    return torch.cat(means)
