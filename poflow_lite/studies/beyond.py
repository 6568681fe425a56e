"""Beyond: flows that are learned without labels, or without simulation, beside the supervised one.

"supervised" is the flow-factorized VAE, which is told k. "sparse" is told no k. "matching" moves the latents of a
β-VAE, which was trained on images alone, by a flow that is regressed on displacements with k known.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure

from poflow_lite import plotting
from poflow_lite.datasets import Batch, Sequences
from poflow_lite.experiments import MODELS, Recipe, Run, load_run, recipe, sequences, train, train_recipe
from poflow_lite.fields import DivergenceFreeField, FreeField, MixedFields, Potential
from poflow_lite.flows import DiffusionPrior, Flow
from poflow_lite.io import machine, require_known
from poflow_lite.metrics import equivariance_errors, persistence, predict
from poflow_lite.metrics.assignment import Donors, field_use, infer_all, with_own_coefficients
from poflow_lite.models import COUPLINGS, InferredFlowVAE, SpikeAndSlab, match_flow
from poflow_lite.networks import TransformationEncoder, seeded
from poflow_lite.operators import AffineMaps, training_latents, with_operator
from poflow_lite.settings import Count, Natural, Seed, Share, Split, Weight
from poflow_lite.studies.study import Study, mean_and_spread
from poflow_lite.training import Schedule, resolve_device
from poflow_lite.transport import efficiency, ot_gap

MATCHING: dict[str, Any] = {"steps": 2000, "batch_size": 256, "learning_rate": 5e-3}
"""Arguments of :func:`models.match_flow`; the budget "smoke" takes fewer steps."""


def sparse_flow(
    r: Recipe,
    image_shape: tuple[int, int, int],
    transformations: int,
    *,
    curl_free: Natural = 3,
    divergence_free: Natural = 3,
    activity: Share = 1 / 6,
    empty: Weight = 100.0,
    slab: tuple[float, float] = (1.0, 0.1),
    kl_weight: Weight = 10.0,
    balance: Weight = 1000.0,
    autoencoding: Weight = 0.05,
) -> InferredFlowVAE:
    """A model that is told neither k nor how many transformations there are; fields 0..curl_free-1 are gradients.

    It is a builder like those of :data:`experiments.MODELS`: ``register_model("sparse-flow", sparse_flow)`` makes it
    one that is trained by name. Its defaults were set by hand, with the validation split of digits in view.

    Raises:
        ValueError: for numbers of fields that are negative or both 0, or options out of range.
    """
    count = curl_free + divergence_free
    if min(curl_free, divergence_free) < 0 or count < 1:
        raise ValueError(
            f"at least one field is needed, got {curl_free} curl-free and {divergence_free} divergence-free ones"
        )
    base = MODELS["beta-vae"](r, image_shape, transformations)
    kinds = ((Potential, curl_free), (DivergenceFreeField, divergence_free))
    sizes = {"width": r.width, "horizon": r.horizon, "frequencies": r.frequencies}
    field = MixedFields([kind(r.latent, number, **sizes) for kind, number in kinds if number])
    inferred = {"inference": TransformationEncoder(image_shape, 3 * count)}
    inferred |= {"posterior": SpikeAndSlab(activity, empty, tuple(slab)), "annealing": max(1, r.steps // 2)}
    weights = {"beta": r.beta, "kl_weight": kl_weight, "balance": balance, "autoencoding": autoencoding}
    parts = base.encoder, base.decoder, Flow(field), DiffusionPrior(count)
    return InferredFlowVAE(*parts, **inferred, **weights, likelihood=r.likelihood, hamilton_jacobi=0.0)


# --- what is measured ---------------------------------------------------------------------------------------------

Rows = dict[str, dict[str, Any]]
"""Way to move ↦ figure ↦ value, of each transformation where there are several."""
PATHS = 500
"""Images whose latent paths are measured, at most."""


@torch.no_grad()
def _figures(
    models: Mapping[str, Any],
    held_out: Sequences,
    seed: int,
    given: Mapping[str, Callable[[Batch], Batch]] | None = None,
) -> Rows:
    """Errors and, for latent paths of the first :data:`PATHS` images, OT gap and efficiency, of each transformation.

    A model knows k of a batch, or what is ``given`` in its place.
    """
    given = dict.fromkeys(models, lambda batch: batch) | (given or {})
    device = next(next(iter(models.values())).parameters()).device
    predictors = {name: lambda batch, name=name: predict(models[name], given[name](batch)) for name in models}
    errors = equivariance_errors({"no motion": persistence, **predictors}, held_out, seed=seed, device=device)
    still, rows = errors.pop("no motion"), {}
    for name, model in models.items():
        ratios = {k: errors[name][k] / still[k] for k in still}
        rows[name] = {"equivariance_error": errors[name], "no_motion": still, "ratio_to_no_motion": ratios}
        rows[name] |= {"ot_gap": {}, "efficiency": {}}
        for k, transformation in enumerate(held_out.names):
            generator = torch.Generator().manual_seed(seed)
            batch = given[name](held_out.batch(held_out.of(k)[:PATHS], k, generator=generator).to(device))
            z = model.rollout(model.encode(batch.frames[:, 0]).mean, batch.k, range(batch.horizon + 1)).z
            moves = bool(z.diff(dim=1).any())  # the gap is 0/0 where all stands still
            rows[name]["ot_gap"][transformation] = ot_gap(z) if moves else None
            rows[name]["efficiency"][transformation] = efficiency(z)
    return rows


Cell = Mapping[str, Any]


def _trained(folder: Path, model: str, cell: Cell) -> Run:
    how = {"seed": cell["seed"], "device": cell["device"], "resume": True, "progress": False}
    train_recipe(model, cell["data"], cell["budget"], folder, **how, **cell["settings"])
    return load_run(folder, cell["device"])


def _supervised(folder: Path, training: Sequences, held_out: Sequences, cell: Cell) -> Rows:
    run = _trained(folder, "flow-factorized", cell)
    rows = _figures({"supervised flow": run.model}, held_out, cell["seed"])
    rows["supervised flow"] |= {"seconds": run.history[-1]["seconds"], "active": 1.0}
    return rows


def _sparse(folder: Path, training: Sequences, held_out: Sequences, cell: Cell) -> Rows:
    r = recipe(cell["data"], cell["budget"], "beta-vae", **cell["settings"])
    with seeded(cell["seed"]):
        model = sparse_flow(r, training.image_shape, len(training.names), **cell["options"])
    drawn = {"batch_size": r.batch_size, "frames": r.frames, "seed": cell["seed"], "device": cell["device"]}
    how = {"record": {"model": "sparse-flow", **cell}, "resume": True, "progress": False}
    train(model, training, Schedule(r.steps, r.learning_rate), folder, **drawn, **how)
    run = load_run(folder, cell["device"], model)
    given = {
        "sparse flow, transferred": Donors(run.model, training, seed=cell["seed"]),
        "sparse flow, its own motion": partial(with_own_coefficients, run.model),
    }
    rows = _figures(dict.fromkeys(given, run.model), held_out, cell["seed"], given)
    use = field_use(*infer_all(run.model, held_out, cell["seed"]))
    found = {
        "seconds": run.history[-1]["seconds"],
        "active": use.active.mean().item(),
        "active_per_k": dict(zip(held_out.names, use.active.tolist(), strict=True)),
        "clustering_accuracy": use.accuracy,
        "purity": use.purity,
        "usage": use.usage.tolist(),
    }
    return {name: row | found for name, row in rows.items()}


def _matching(folder: Path, training: Sequences, held_out: Sequences, cell: Cell) -> Rows:
    run, seed = _trained(folder, "beta-vae", cell), cell["seed"]
    r = run.settings
    latents = training_latents(run.model, training, r.operator_images, seed)
    seconds = {"β-VAE, linear operator": 0.0}
    moved = {"β-VAE, linear operator": with_operator(run.model, AffineMaps.linear(latents))}
    for coupling in COUPLINGS:
        name, began = f"β-VAE, matched flow, {coupling}", time.perf_counter()
        with seeded(seed):
            field = FreeField(r.latent, len(training.names), r.width, horizon=r.horizon, frequencies=r.frequencies)
        flow = match_flow(field, latents, coupling, seed=seed, progress=False, **cell["options"])
        seconds[name] = time.perf_counter() - began
        moved[name] = with_operator(run.model, flow)
    rows, trained = _figures(moved, held_out, seed), run.history[-1]["seconds"]
    return {name: row | {"seconds": trained + seconds[name]} for name, row in rows.items()}


APPROACHES: dict[str, Callable[..., Rows]] = {"supervised": _supervised, "sparse": _sparse, "matching": _matching}
"""Name ↦ function of (folder, training, held_out, cell) that trains in the folder and gives way to move ↦ figures."""

BASES = {"supervised": "flow-factorized", "sparse": "beta-vae", "matching": "beta-vae"}
"""Approach ↦ model whose recipe it takes."""


# --- the study ----------------------------------------------------------------------------------------------------


def cells(
    data: str = "digits",
    approaches: Sequence[str] = tuple(APPROACHES),
    seeds: Sequence[Seed] = (0,),
    budget: str = "lecture",
    split: Split = "test",
    images: Count = 2000,
    device: str = "auto",
    changes: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """One cell for each of the :data:`APPROACHES` and each seed; arguments and errors as for the comparison."""
    options = {"supervised": {}, "sparse": dict(sparse_flow.__kwdefaults__)}
    options["matching"] = MATCHING | ({"steps": 20} if budget == "smoke" else {})
    common, grid = {"data": data, "budget": budget, "split": split, "images": images, "device": device}, {}
    for seed, approach in itertools.product(seeds, approaches):
        require_known("approach", approach, APPROACHES)
        settings = asdict(recipe(data, budget, BASES[approach], **(changes or {})))
        settings |= settings.pop("options")
        cell = {"approach": approach, "seed": seed, **common, "settings": settings, "options": options[approach]}
        grid[f"{approach}-seed-{seed}"] = cell
    sequences(data, split, recipe(data, budget, **(changes or {})))  # are the data there, and do the changes fit?
    return grid


def measure(folder: Path, **cell: Any) -> dict[str, Any]:
    """Train and measure one approach with one seed in ``folder``.

    Returns:
        "rows", way to move ↦ its figures, "device", and "data_set", which says how many images were measured.
    """
    training, shown = _split(cell, "train"), _split(cell, cell["split"]).first(cell["images"])
    rows = APPROACHES[cell["approach"]](folder, training, shown, cell)
    return {"rows": rows, "device": machine(resolve_device(cell["device"])), "data_set": _name(shown)}


def _split(cell: Cell, split: str) -> Sequences:
    r = recipe(cell["data"], cell["budget"], BASES[cell["approach"]], **cell["settings"])
    return sequences(cell["data"], split, r)


def _name(shown: Sequences) -> str:
    return f"{shown.name}, {len(shown):,} measured"


def _rows(result: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Way to move ↦ its rows, one for each seed."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for cell in result["cells"]:
        for name, row in cell["rows"].items():
            rows.setdefault(name, []).append(row)
    return rows


def table(result: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each way to move: mean ± standard deviation over seeds, empty for what does not apply."""

    lines = []
    for name, rows in _rows(result).items():
        columns = {
            **{k: [row["ratio_to_no_motion"][k] for row in rows] for k in rows[0]["ratio_to_no_motion"]},
            "active fields": [row.get("active") for row in rows],
            "clustering accuracy": [row.get("clustering_accuracy") for row in rows],
            "purity": [row.get("purity") for row in rows],
            "OT gap": [_over_k(row["ot_gap"]) for row in rows],
            "efficiency": [_over_k(row["efficiency"]) for row in rows],
        }
        texts = {heading: mean_and_spread(values, ".2f") for heading, values in columns.items()}
        lines.append({"model": name, **texts, "seconds": mean_and_spread([row["seconds"] for row in rows], ".0f")})
    return pd.DataFrame(lines)


def _over_k(per_k: Mapping[str, float | None]) -> float | None:
    """Mean over the transformations that have a value."""
    values = [value for value in per_k.values() if value is not None]
    return mean(values) if values else None


_COLUMNS = {
    "active fields": "Active fields: how many are on in a sequence, mean; 1 by design where k is told. The prior of "
    "the sparse flow expects fields × activity.",
    "clustering accuracy": "Clustering accuracy: share of sequences whose strongest field stands for their k, by the "
    "best one-to-one matching.",
    "purity": "Purity: the same where each field stands for the k that uses it most.",
    "OT gap": "OT gap: energy of the latent paths ÷ exact W₂² between their starts and ends, at best 1.",
    "efficiency": "Efficiency: mean squared distance from start to end ÷ energy; 1 where all codes go straight at "
    "constant speed.",
    "seconds": "Seconds: of all training, by the clock; to fit the linear operator is not counted.",
}
"""Column of the table ↦ what it holds."""

_MOVED = {
    "transferred": "Transferred: x_0 moves by the coefficients of a training sequence of the same k.",
    "its own motion": "Its own motion: by coefficients read off the very frames that are predicted.",
    "linear operator": "Linear operator: the ridge map, one affine map for each transformation and frame.",
    "pairs": "Pairs: the flow learns from each code and its true successor.",
    "optimal": "Optimal: from both of the same sequences, whose order is lost and guessed by optimal transport.",
    "unpaired": "Unpaired: likewise, but successors are those of other sequences.",
    "independent": "Independent: successors come in random order.",
}
"""End of a row's name ↦ what moves the codes there."""


def notes(result: Mapping[str, Any]) -> list[str]:
    """What was measured on how many images and seeds, and what columns and rows of this table are."""
    cell, shown = result["cells"][0], table(result)
    seeds = sorted({each["seed"] for each in result["cells"]})
    several = len(seeds) > 1
    options = {each["approach"]: each["options"] for each in result["cells"] if each.get("options")}
    names = list(cell["rows"][shown["model"][0]]["ratio_to_no_motion"])
    said = [
        f"{cell['data_set']}, budget {cell['budget']}, seed{'s' * several} {', '.join(map(str, seeds))}"
        f"{': mean ± standard deviation over seeds' * several}.",
        f"{', '.join(names).capitalize()}: error of the frames that are predicted from x_0, summed over pixels and "
        "frames, ÷ that of no motion.",
        " ".join(text for name, text in _COLUMNS.items() if (shown[name] != "").any()),
        f"Energy: T Σ_t ‖z_t+1 - z_t‖², mean over the images measured, or the first {PATHS} where there are more. Gap "
        "and efficiency are means over the transformations that move codes.",
        " ".join(text for end, text in _MOVED.items() if shown["model"].str.endswith(f", {end}").any()),
        *(f"Options of {approach}: {_listed(own)}." for approach, own in options.items()),
    ]
    return [text for text in said if text]


def _listed(options: Mapping[str, Any]) -> str:
    rounded = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in options.items()}
    return ", ".join(f"{name} {value}" for name, value in rounded.items())


def dots(result: Mapping[str, Any]) -> Figure:
    """A line for each way to move, a marker for each transformation: error ÷ no motion, with its spread over seeds."""
    rows = _rows(result)
    fig, axis = plotting.figure(8.0, 1.4 + 0.34 * len(rows))
    for i, k in enumerate(next(iter(rows.values()))[0]["ratio_to_no_motion"]):
        found = [[row["ratio_to_no_motion"][k] for row in own] for own in rows.values()]
        spreads = [stdev(values) if len(values) > 1 else 0.0 for values in found]
        style = {"color": plotting.COLORS[i], "marker": plotting.MARKERS[i], "capsize": 2, "linestyle": "none"}
        axis.errorbar(list(map(mean, found)), range(len(found)), xerr=spreads, label=k, **style)
    axis.axvline(1.0, color="0.4", linewidth=0.8, linestyle="--")
    axis.set(xlabel="equivariance error ÷ no motion", yticks=range(len(rows)), yticklabels=list(rows), xlim=(0, None))
    axis.grid(axis="y", linewidth=0.4, alpha=0.6)
    axis.invert_yaxis()
    axis.legend(frameon=False, fontsize=9)
    return fig


STUDY = Study("beyond", cells, measure, table, dots, notes, smoke={"images": 8})
