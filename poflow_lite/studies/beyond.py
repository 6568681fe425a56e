"""Beyond supervision: flows that are learned without labels, or without simulation, beside the supervised one.

"supervised" is the flow-factorized VAE, which is told k. "sparse" is told nothing. "matching" moves the latents of a
β-VAE, which was trained on images alone, by a flow that is regressed on displacements with k known.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from poflow_lite.checkpoints import prepare_folder, write_atomically, write_json
from poflow_lite.datasets import Batch, Sequences
from poflow_lite.errors import require_known
from poflow_lite.experiments import load_run, train
from poflow_lite.fields import DivergenceFreeField, FreeField
from poflow_lite.flow_matching import COUPLINGS, FlowOperator, match_flow
from poflow_lite.flows import Flow
from poflow_lite.grid import run_grid
from poflow_lite.metrics import equivariance_errors, no_motion, predict
from poflow_lite.mixtures import MixedFields
from poflow_lite.models import VAE, SparseFlowVAE, TransformationEncoder, UnsignedDiffusionPrior
from poflow_lite.operators import Linear, moved_by, training_latents
from poflow_lite.potentials import Potential
from poflow_lite.provenance import command, machine, versions
from poflow_lite.recipes import Recipe, build_model, recipe, sequences
from poflow_lite.sparsity import Donors, field_use, infer_all, with_own_coefficients
from poflow_lite.studies.markdown import markdown_table, mean_and_spread, origin
from poflow_lite.training import Schedule, fit, resolve_device
from poflow_lite.transport import ot_gap, straightness

__all__ = ["SPARSE", "STUDIES", "beyond_cell", "beyond_table", "sparse_flow_model", "study_beyond", "train_sparse_flow"]

SPARSE: dict[str, Any] = {
    **{"curl_free": 3, "divergence_free": 3, "activity": 1 / 6, "slab": (1.0, 0.1)},
    **{"sparsity": 10.0, "use": 1000.0, "empty": 100.0},
}
"""Arguments of :func:`sparse_flow_model`, as chosen on the validation split of digits."""

MATCHING: dict[str, Any] = {"steps": 2000, "batch_size": 256, "learning_rate": 5e-3}
"""Arguments of :func:`flow_matching.match_flow`; the budget "smoke" takes fewer steps."""


# --- the sparse model ---------------------------------------------------------------------------------------------


def sparse_flow_model(
    settings: Recipe,
    image_shape: tuple[int, int, int] = (3, 28, 28),
    *,
    curl_free: int = 3,
    divergence_free: int = 3,
    seed: int = 0,
    **options: Any,
) -> SparseFlowVAE:
    """A freshly initialised sparse flow model, with the encoder and decoder that all models of this seed start from.

    Args:
        settings: a recipe of the model "beta-vae".
        image_shape: (C, H, W).
        curl_free, divergence_free: how many fields of each kind, M together; fields 0..curl_free-1 are the gradients.
        seed: of all weights; the global random state is left as it was.
        options: of :class:`models.SparseFlowVAE`.

    Raises:
        ValueError: for numbers of fields that are negative or both 0, or options out of range.
    """
    if min(curl_free, divergence_free) < 0 or curl_free + divergence_free < 1:
        raise ValueError(
            f"at least one field is needed, got {curl_free} curl-free and {divergence_free} divergence-free ones"
        )
    base, count = build_model("beta-vae", settings, image_shape, seed=seed), curl_free + divergence_free
    sizes = (settings.width, settings.horizon, settings.frequencies)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kinds = ((Potential, curl_free), (DivergenceFreeField, divergence_free))
        field = MixedFields([kind(settings.latent, number, *sizes) for kind, number in kinds if number])
        inference = TransformationEncoder(image_shape, 3 * count)
    return SparseFlowVAE(
        base.encoder,
        base.decoder,
        Flow(field),
        UnsignedDiffusionPrior(count),
        inference=inference,
        likelihood=settings.likelihood,
        beta=settings.beta,
        **{"autoencoding": 0.05, "annealing": max(1, settings.steps // 2), **options},
    )


def train_sparse_flow(
    training: Sequences,
    settings: Recipe,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
    **options: Any,
) -> tuple[SparseFlowVAE, float]:
    """Train a sparse flow model on sequences whose k it never sees; the model, and the seconds that it took.

    Args:
        training: what to train on.
        settings: steps, learning rate, sizes.
        seed: of weights and every draw.
        checkpoint: written and, where one is there, gone on with.
        device, progress: as for :func:`training.fit`.
        options: of :func:`sparse_flow_model`.
    """
    model = sparse_flow_model(settings, training.image_shape, seed=seed, **options)
    history = fit(
        model,
        partial(training.sample, settings.batch_size, settings.frames),
        Schedule(settings.steps, settings.learning_rate),
        seed=seed,
        device=device,
        checkpoint=checkpoint,
        run=json.loads(json.dumps({"model": "sparse-flow", "seed": seed, **asdict(settings), "options": options})),
        resume=checkpoint is not None,
        progress=progress,
    )
    return model, history[-1]["seconds"]


# --- what is measured ---------------------------------------------------------------------------------------------

Give = Callable[[Batch], Batch]
"""What a model may know of a batch: k itself, or coefficients in its place."""


@torch.no_grad()
def _measure(movers: dict[str, tuple[VAE, Give]], held_out: Sequences, seed: int) -> dict[str, dict[str, Any]]:
    """Errors and, for the latent paths of the first 500 images, OT gap and straightness: name ↦ figure ↦ k ↦ value."""

    def predictor(model: VAE, give: Give) -> Callable[[Batch], torch.Tensor]:
        return lambda batch: predict(model, give(batch))

    errors = equivariance_errors(
        {"no motion": no_motion, **{name: predictor(*mover) for name, mover in movers.items()}}, held_out, seed=seed
    )
    still, rows = errors.pop("no motion"), {}
    for name, (model, give) in movers.items():
        row: dict[str, Any] = {"equivariance_error": errors[name], "no_motion": still}
        row["ratio_to_no_motion"] = {k: errors[name][k] / still[k] for k in still}
        row["ot_gap"], row["straightness"] = {}, {}
        device = next(model.parameters()).device
        for k, transformation in enumerate(held_out.names):
            indices, generator = torch.arange(min(500, len(held_out))), torch.Generator().manual_seed(seed)
            batch = give(held_out.batch(indices, k, generator=generator)).to(device)
            z = model.transport(model.encode(batch.frames[:, 0]).mean, batch.k, batch.horizon).z
            moves = bool(z.diff(dim=1).any())  # the gap is 0/0 where all stands still
            row["ot_gap"][transformation] = ot_gap(z) if moves else None
            row["straightness"][transformation] = straightness(z)
        rows[name] = row
    return rows


def _supervised(folder: Path, data: str, budget: str, seed: int, device: str, held_out: Sequences, **_: Any) -> dict:
    train("flow-factorized", data, budget, folder, seed=seed, device=device, resume=True, progress=False)
    run = load_run(folder, device)
    rows = _measure({"supervised flow": (run.model, lambda batch: batch)}, held_out, seed)
    rows["supervised flow"] |= {"seconds": run.history[-1]["seconds"], "active": 1.0}
    return rows


def _sparse(
    folder: Path,
    settings: Recipe,
    own: dict[str, Any],
    seed: int,
    device: str,
    held_out: Sequences,
    training: Sequences,
    **_: Any,
) -> dict:
    model, seconds = train_sparse_flow(
        training,
        settings,
        seed=seed,
        checkpoint=prepare_folder(folder) / "checkpoint.safetensors",
        device=resolve_device(device),
        progress=False,
        **own,
    )
    give = {
        "sparse flow, transferred": Donors(model, training, seed=seed),
        "sparse flow, its own motion": partial(with_own_coefficients, model),
    }
    rows = _measure({name: (model, donors) for name, donors in give.items()}, held_out, seed)
    use = field_use(infer_all(model, held_out, seed))
    found = {
        "seconds": seconds,
        "active": use.active.mean().item(),
        "active_per_k": dict(zip(held_out.names, use.active.tolist(), strict=True)),
        "index_accuracy": use.accuracy,
        "purity": use.purity,
        "usage": use.usage.tolist(),
    }
    return {name: row | found for name, row in rows.items()}


def _matching(
    folder: Path,
    data: str,
    budget: str,
    settings: Recipe,
    own: dict[str, Any],
    seed: int,
    device: str,
    held_out: Sequences,
    training: Sequences,
) -> dict:
    train("beta-vae", data, budget, folder, seed=seed, device=device, resume=True, progress=False)
    run = load_run(folder, device)
    latents = training_latents(run.model, training, seed=seed)
    seconds = {"β-VAE, linear operator": 0.0}
    movers = {"β-VAE, linear operator": (moved_by(run.model, Linear.fit(latents)), lambda batch: batch)}
    for coupling in COUPLINGS:
        name, began = f"β-VAE, matched flow, {coupling}", time.perf_counter()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = (settings.width, settings.horizon, settings.frequencies)
            field = FreeField(settings.latent, len(training.names), *sizes)
        flow = match_flow(field, latents, coupling, seed=seed, progress=False, **own)
        seconds[name] = time.perf_counter() - began
        movers[name] = moved_by(run.model, FlowOperator(flow, settings.horizon)), lambda batch: batch
    rows = _measure(movers, held_out, seed)
    trained = run.history[-1]["seconds"]
    return {name: row | {"seconds": trained + seconds[name]} for name, row in rows.items()}


STUDIES: dict[str, Callable[..., dict[str, Any]]] = {
    "supervised": _supervised,
    "sparse": _sparse,
    "matching": _matching,
}


# --- the study ----------------------------------------------------------------------------------------------------


def study_beyond(
    data: str,
    out: str | Path,
    *,
    budget: str = "lecture",
    seeds: Sequence[int] = (0,),
    studies: Sequence[str] = tuple(STUDIES),
    split: str = "test",
    images: int = 2000,
    jobs: int = 1,
    backend: str = "loky",
    device: str = "auto",
    progress: bool = True,
) -> dict[str, Any]:
    """Train and measure every study with every seed; write ``beyond.json`` and ``beyond.md`` into ``out``.

    A cell that is done is not run again, and a cell that fails does not stop the others: see :func:`grid.run_grid`.

    Args:
        data, budget: as for :func:`experiments.train`.
        out: folder of the grid, one folder inside for each cell.
        seeds: of the runs.
        studies: of :data:`STUDIES`.
        split: "test" for figures that are reported, "validation" for choices.
        images: images that are measured, at most, the first ones.
        jobs, backend: as for :func:`grid.run_grid`.
        device: "auto", "cpu" or "cuda".

    Returns:
        The content of ``beyond.json``: where it comes from, settings, one cell for each study and seed with a row of
        figures for each way to move, and the cells that failed.

    Raises:
        ValueError, FileNotFoundError: for a mistake in the arguments, before anything is trained.
    """
    matching = MATCHING | ({"steps": 20} if budget == "smoke" else {})
    options, cells = {"supervised": {}, "sparse": SPARSE, "matching": matching}, {}
    for seed, study in itertools.product(seeds, studies):
        require_known("study", study, STUDIES)
        base = "flow-factorized" if study == "supervised" else "beta-vae"
        cells[f"{study}-seed-{seed}"] = {
            **{"study": study, "seed": seed, "data": data, "budget": budget, "split": split, "images": images},
            **{"device": device, "settings": asdict(recipe(data, budget, base)), "own": options[study]},
        }
    measured = sequences(data, split, recipe(data, budget))
    done, failures = run_grid(beyond_cell, cells, out, jobs=jobs, backend=backend, progress=progress)
    result = {
        "data_set": f"{measured.name}, {min(images, len(measured)):,} measured",
        "budget": budget,
        "split": split,
        "command": command(),
        "versions": versions(),
        "device": machine(resolve_device(device)),
        "settings": {cell["study"]: {**cell["settings"], "own": cell["own"]} for cell in cells.values()},
        "cells": list(done.values()),
        "failed": failures,
    }
    folder = prepare_folder(out)
    write_json(folder / "beyond.json", result)
    table = beyond_table(result)
    write_atomically(folder / "beyond.md", lambda path: path.write_text(table, encoding="utf-8"))
    return json.loads(json.dumps(result))


def beyond_cell(
    folder: Path,
    study: str,
    seed: int,
    data: str,
    budget: str,
    split: str,
    images: int,
    device: str,
    settings: dict[str, Any],
    own: dict[str, Any],
) -> dict[str, Any]:
    """Train and measure one study with one seed in ``folder``: what one cell of the grid does.

    The settings are those of the whole recipe, so that a cell made by another recipe is never taken for this one.
    """
    shared = recipe(data, budget, "beta-vae")
    training, held_out = (sequences(data, name, shared) for name in ("train", split))
    given = {"data": data, "budget": budget, "settings": shared, "own": own, "device": device, "training": training}
    rows = STUDIES[study](folder=folder, seed=seed, held_out=held_out.first(images), **given)
    return {"study": study, "seed": seed, "rows": rows}


def beyond_table(result: dict[str, Any]) -> str:
    """The Markdown table of a study: mean ± standard deviation over seeds, a row for each way to move.

    Errors are ratios to no motion; OT gap and straightness are means over k.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for cell in result["cells"]:
        for name, row in cell["rows"].items():
            rows.setdefault(name, []).append(row)
    transformations = list(next(iter(rows.values()))[0]["ratio_to_no_motion"]) if rows else []
    columns: dict[str, Callable[[dict[str, Any]], float | None]] = {
        **{k: lambda row, k=k: row["ratio_to_no_motion"][k] for k in transformations},
        "active fields": lambda row: row.get("active"),
        "index accuracy": lambda row: row.get("index_accuracy"),
        "purity": lambda row: row.get("purity"),
        "OT gap": lambda row: _mean(row["ot_gap"]),
        "straightness": lambda row: _mean(row["straightness"]),
        "seconds": lambda row: row["seconds"],
    }
    lines = [[name, *(_figure([of(row) for row in found]) for of in columns.values())] for name, found in rows.items()]
    title = f"{result['data_set']}, budget {result['budget']}: equivariance error ÷ no motion"
    return "\n\n".join([title, markdown_table(["model", *columns], lines), origin(result, result["device"])]) + "\n"


def _mean(per_k: dict[str, float | None]) -> float | None:
    values = [value for value in per_k.values() if value is not None]
    return mean(values) if values else None


def _figure(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "–"
    return mean_and_spread(known, ".0f" if mean(known) >= 20 else ".2f")
