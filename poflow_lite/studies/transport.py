"""Transport: clouds carried with and without Hamilton-Jacobi, force and initial condition."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from poflow_lite import plotting
from poflow_lite.io import require_known
from poflow_lite.models import measure_transport, train_transport
from poflow_lite.settings import Seed
from poflow_lite.studies.study import Study, mean_and_spread

VARIANTS: dict[str, dict[str, Any]] = {
    "Hamilton-Jacobi": {},
    "with force": {"force": True},
    "with initial condition": {"initial": 100.0},
    "with both": {"force": True, "initial": 100.0},
    "no Hamilton-Jacobi": {"hamilton_jacobi": 0.0},
}
"""Name ↦ what it changes in :func:`models.train_transport`."""

SIZES: dict[str, dict[str, int]] = {"gaussians": {"steps": 400, "width": 64}, "moons": {"steps": 2000, "width": 128}}
"""Pair of clouds ↦ how long and how large it is trained: seconds, and half a minute, on two CPU cores."""

POINTS, REPEATS = 1000, 5
"""Fresh points of each cloud on which a transport is measured, and how often they are drawn anew."""

_MEASURED = {
    "ot_gap": "OT gap", "energy_ratio": "energy ÷ W₂²", "efficiency": "efficiency", "endpoint_error": "end error",
    "sampling_error": "sampling error", "smallest_eigenvalue": "smallest eigenvalue", "seconds": "seconds",
}  # fmt: skip


def cells(
    pairs: Sequence[str] = tuple(SIZES), variants: Sequence[str] = tuple(VARIANTS), seeds: Sequence[Seed] = (0,)
) -> dict[str, dict[str, Any]]:
    """A cell for each pair of :data:`SIZES`, variant of :data:`VARIANTS` and seed."""
    for what, names, known in (("pair", pairs, SIZES), ("variant", variants, VARIANTS)):
        for name in names:
            require_known(what, name, known)
    places = [{"pair": p, "variant": v, "seed": s, **SIZES[p]} for p, v, s in product(pairs, variants, seeds)]
    return {"{pair}-{variant}-seed-{seed}".format(**place).replace(" ", "-"): place for place in places}


def measure(folder: Path, pair: str, variant: str, seed: int, **sizes: int) -> dict[str, Any]:
    """Seconds of training and the figures of a :class:`models.TransportReport`. Nothing is left in ``folder``."""
    began = time.perf_counter()
    transport, _ = train_transport(pair, seed=seed, progress=False, **sizes, **VARIANTS[variant])
    seconds = time.perf_counter() - began
    return {"seconds": seconds, **measure_transport(transport, pair, count=POINTS, repeats=REPEATS).as_dict()}


def table(result: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each pair and variant: means ± spreads over seeds."""
    groups = pd.DataFrame(result["cells"]).groupby(["pair", "variant"], sort=False)[list(_MEASURED)]
    return groups.agg(lambda values: mean_and_spread(list(values), ".2f")).rename(columns=_MEASURED).reset_index()


def notes(result: Mapping[str, Any]) -> list[str]:
    """How much was trained and measured, and what the columns are."""
    seeds = result["settings"]["seeds"]
    several = len(seeds) > 1
    sizes = {cell["pair"]: f"{cell['pair']} {cell['steps']:,} steps, width {cell['width']}" for cell in result["cells"]}
    return [
        f"Trainings: {'; '.join(sizes.values())}. Seed{'s' * several} {', '.join(map(str, seeds))}"
        f"{': mean ± standard deviation over seeds' * several}. Each is measured on {POINTS:,} fresh points of each "
        f"cloud, drawn {REPEATS} times: means, but for the eigenvalue.",
        "Energy: T Σ_t ‖z_t+1 - z_t‖², mean over paths. OT gap: it ÷ exact W₂² between the starts and the ends of the "
        "paths, at best 1. Energy ÷ W₂²: it ÷ exact W₂² between the starts and points of the target, which is below 1 "
        "where the flow stops short.",
        "Efficiency: mean squared distance from start to end ÷ energy; 1 where all go straight at constant speed.",
        "End error: W₂ between the ends and other target points. Sampling error: W₂ between two draws of target "
        "points, which a perfect flow would have for its end error.",
        "Smallest eigenvalue: of I + ∇²u, the least along all paths; the flow can be inverted while it is above 0. "
        "Seconds: of training, by the clock.",
    ]


def figure(result: Mapping[str, Any]) -> Figure:
    """A dot for each seed: OT gap, efficiency and end error of each variant on each pair of clouds."""
    found = pd.DataFrame(result["cells"])
    fig, axes = plotting.figure(9.5, 1.2 + 0.4 * found["variant"].nunique(), 1, 3, sharey=True)
    colors = plotting.COLORS[: found["pair"].nunique()]
    for axis, name in zip(axes, ("ot_gap", "efficiency", "endpoint_error"), strict=True):
        shown = {"x": name, "y": "variant", "hue": "pair", "legend": axis is axes[2]}
        sns.stripplot(found, **shown, palette=colors, dodge=True, jitter=False, alpha=0.7, ax=axis)
        axis.set(xlabel=_MEASURED[name], ylabel="")
        axis.grid(axis="y", linewidth=0.4)
    sns.move_legend(axes[2], "center left", bbox_to_anchor=(1.0, 0.5), frameon=False, title="")
    return fig


STUDY = Study("transport", cells, measure, table, figure, notes)
