"""Ablations: the flow-factorized VAE with one part taken out or changed at a time, measured alike, over seeds."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from poflow_lite.datasets import Sequences
from poflow_lite.experiments import Recipe, build_model, load_run, recipe, sequences, train_recipe
from poflow_lite.experiments.runs import possible_likelihood
from poflow_lite.io import require_known
from poflow_lite.metrics import (
    equivariance_errors,
    every_sequence,
    persistence,
    predict,
    reconstruct,
)
from poflow_lite.models import FlowFactorizedVAE
from poflow_lite.settings import Count, Seed, Split
from poflow_lite.studies import ablation_tables
from poflow_lite.studies.ablation_tables import STANDARD
from poflow_lite.studies.study import Study
from poflow_lite.training import resolve_device
from poflow_lite.transport import efficiency, ot_gap

MODEL = "flow-factorized"

ABLATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "hamilton-jacobi": {f"λ_HJ = {weight:g}": {"hamilton_jacobi": weight} for weight in (0.0, 1.0, 100.0)},
    "force": {"no force": {"force": "none"}},
    "initial": {f"λ_0 = {weight:g}": {"initial": weight} for weight in (1.0, 10.0)},
    "prior": {
        "static N(0, I)": {"prior": "static"},
        "pushforward": {"prior": "pushforward"},  # one KL a film, where the standard model pays T + 1
        "pushforward, β = 0.27": {"prior": "pushforward", "beta": 0.27},  # its KL as heavy as T + 1 at digits' β
    },
    "log_det": {"trace": {"log_det": "trace"}, "none": {"log_det": "none"}},
    "field": {
        "gradient": {"hamilton_jacobi": 0.0},
        "free": {"hamilton_jacobi": 0.0, "field": "free"},
        "divergence-free": {"hamilton_jacobi": 0.0, "field": "divergence-free"},
    },
    "consistency": {
        "gradient": {"consistency": 0.1},
        "free": {"consistency": 0.1, "hamilton_jacobi": 0.0, "field": "free"},
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


# --- the grid -----------------------------------------------------------------------------------------------------


def variants(
    data: str, budget: str, groups: Sequence[str] = tuple(ABLATIONS), changes: Mapping[str, Any] | None = None
) -> tuple[dict[tuple[str, str], Recipe], dict[str, str]]:
    """(group, variant) ↦ recipe, the standard model first, and "group: variant" ↦ why these data cannot have it.

    Args:
        data, budget: see :data:`datasets.DATASETS`, :data:`experiments.BUDGETS`.
        groups: of :data:`ABLATIONS`.
        changes: settings in which all of them differ from the budget's recipe, the standard model too.

    Raises:
        ValueError: for an unknown group or setting.
    """
    for group in groups:
        require_known("group", group, ABLATIONS)
    changes = changes or {}
    standard = recipe(data, budget, MODEL, **changes)
    sequences(data, "test", standard)  # what is wrong with the standard model is no reason to leave variants out
    found, left_out = {(STANDARD, STANDARD): standard}, {}
    for group, name in _places(groups):
        try:
            settings = recipe(data, budget, MODEL, **{**changes, **ABLATIONS[group][name]})
            if settings.frames > settings.horizon:
                raise ValueError(f"{settings.frames} frames are more than the {settings.horizon} of a sequence")
            if settings.horizon != standard.horizon:
                sequences(data, "test", settings)
            found[group, name] = settings
        except ValueError as error:
            left_out[f"{group}: {name}"] = str(error)
    return found, left_out


def _places(groups: Sequence[str]) -> list[tuple[str, str]]:
    return [(group, name) for group in groups for name in ABLATIONS[group]]


def cells(
    data: str = "digits",
    budget: str = "lecture",
    groups: Sequence[str] = tuple(ABLATIONS),
    seeds: Sequence[Seed] = (0, 1, 2),
    split: Split = "test",
    images: Count = 2000,
    likelihood_images: Count = 200,
    samples: Count = 100,
    device: str = "auto",
    changes: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """A cell for each recipe and seed; variants that have the same recipe share it.

    Runs of one seed start from the same encoder and decoder and see the same data in the same order, so that variants
    are compared in pairs.

    Args:
        data, budget, groups, changes: as for :func:`variants`.
        seeds: of the runs; spreads need two, and mean little below three.
        split, images, likelihood_images, samples, device: as for the comparison.
    """
    chosen, _ = variants(data, budget, groups, changes)
    every, _ = variants(data, budget, changes=changes)  # so that adding a group changes no cell that is done
    measured, training = (sequences(data, name, chosen[STANDARD, STANDARD]) for name in (split, "train"))
    resolve_device(device)
    shared: dict[str, dict[str, Any]] = {}
    for settings in chosen.values():
        build_model(MODEL, settings, measured.image_shape, len(training.names))  # options that do not fit fail now
        alike = [place for place, other in every.items() if other == settings]
        whole = {name: value for name, value in asdict(settings).items() if name != "options"} | settings.options
        shared.setdefault(_name(*alike[0]), {"variants": alike, "settings": whole})
    common = {"data": data, "budget": budget, "split": split, "images": images, "device": device}
    common |= {"likelihood_images": likelihood_images, "samples": samples}
    return {f"{name}-seed-{seed}": {"seed": seed, **cell, **common} for seed in seeds for name, cell in shared.items()}


def _name(group: str, variant: str) -> str:
    return STANDARD if group == STANDARD else "-".join(f"{k}-{v}" for k, v in ABLATIONS[group][variant].items())


# --- what is measured ---------------------------------------------------------------------------------------------


def measure(
    folder: Path,
    data: str,
    budget: str,
    seed: int,
    split: str,
    images: int,
    likelihood_images: int,
    samples: int,
    device: str,
    settings: Mapping[str, Any],
    variants: Sequence[Sequence[str]],
) -> dict[str, Any]:
    """Train one recipe with one seed in ``folder`` and measure it; ``variants`` says what the tables call it.

    Likelihoods belong to the decoder and the prior; what the flow proposes with is known exactly, whichever
    log-determinant it was trained with. A wrong one would make an estimate wrong, not the model.

    Returns:
        What :func:`measure_flow` gives, with "data_set", "device", "seconds" of training and "milliseconds" a step. The
        last holds the machine's other work: compare it within one table only.
    """
    how = {"seed": seed, "device": device, "resume": True, "progress": False}
    run = load_run(train_recipe(MODEL, data, budget, folder, **how, **settings), device)
    held_out = sequences(data, split, run.settings)
    shown, sizes = held_out.first(images), {"images": likelihood_images, "samples": samples}
    return {
        "data_set": f"{held_out.name}, {len(shown):,} measured",
        "device": run.config["device"],
        "seconds": run.history[-1]["seconds"],
        "milliseconds": _step_time(run.history),
        **measure_flow(run.model, shown, seed=seed, **sizes),
    }


def _step_time(history: Sequence[Mapping[str, float]]) -> float:
    """Median over the entries of a history of milliseconds a step."""
    entries = itertools.pairwise([{"step": 0, "seconds": 0.0}, *history])
    return 1e3 * statistics.median((b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in entries)


@torch.no_grad()
def measure_flow(
    model: FlowFactorizedVAE,
    held_out: Sequences,
    *,
    images: int = 64,
    samples: int = 100,
    particles: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything the ablations measure of one trained model.

    Args:
        model: trained.
        held_out: measured.
        images, samples: for :func:`metrics.log_likelihood`, each image under one transformation, in turn.
        particles: at most so many images whose paths are held against optimal transport.
        seed: of random start poses.

    Returns:
        By k: "equivariance_error", "no_motion", "reconstruction_floor", "ratio_to_no_motion", and of the paths of
        posterior means "ot_gap" (``None`` where no particle moves, or their cloud does not) and "efficiency". For all
        k: "log_likelihood" (:class:`metrics.LogLikelihood`), ``None`` above its ceiling, as that of a flow that folds
        can be; "smallest_eigenvalue" of the symmetric part of I + ∂v/∂z along the paths.
    """
    predictors = {"equivariance_error": partial(predict, model), "no_motion": persistence}
    predictors["reconstruction_floor"] = partial(reconstruct, model)
    device = next(model.parameters()).device
    found: dict[str, Any] = equivariance_errors(predictors, held_out, device=device)
    ratios = {k: error / found["no_motion"][k] for k, error in found["equivariance_error"].items()}
    found |= {"ratio_to_no_motion": ratios, "ot_gap": {}, "efficiency": {}}
    dealt = held_out.first(images).in_turns()
    found["log_likelihood"] = possible_likelihood(model, dealt, images=images, samples=samples)
    starts: dict[int, list[torch.Tensor]] = {}
    for k, batch in every_sequence(held_out.first(particles), seed=seed):
        starts.setdefault(k, []).append(model.encode(batch.frames[:, 0].to(device)).mean)
    smallest = []
    for k, parts in starts.items():
        start, name = torch.cat(parts), held_out.names[k]
        path = model.rollout(start, torch.full((len(start),), k, device=device), range(held_out.horizon + 1))
        gap = ot_gap(path.z) if path.z.diff(dim=1).any() else math.inf
        found["ot_gap"][name] = gap if math.isfinite(gap) else None
        found["efficiency"][name] = efficiency(path.z)
        smallest.append(model.flow.smallest_eigenvalue(path).min().item())
    return found | {"smallest_eigenvalue": min(smallest)}


def notes(result: Mapping[str, Any]) -> list[str]:
    """:func:`ablation_tables.notes`, and what was left out."""
    settings = {name: result["settings"][name] for name in ("data", "budget", "groups", "changes")}
    done = {tuple(place) for cell in result["cells"] for place in cell["variants"]}
    left_out = {} if done.issuperset(_places(settings["groups"])) else variants(**settings)[1]
    return [*ablation_tables.notes(result), *(f"Left out: {name} ({reason})." for name, reason in left_out.items())]


SMOKE = {"seeds": (0,), "images": 8, "likelihood_images": 2, "samples": 10}
STUDY = Study("ablations", cells, measure, ablation_tables.table, ablation_tables.figure, notes, smoke=SMOKE)
