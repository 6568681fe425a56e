"""What makes a learned flow optimal: the same transport with and without Hamilton-Jacobi, force, initial condition."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from poflow_lite import plotting
from poflow_lite.checkpoints import prepare_folder, write_atomically, write_json
from poflow_lite.datasets.clouds import PAIRS, Clouds, sample_pair
from poflow_lite.errors import require_known
from poflow_lite.learned_transport import measure_transport, train_transport
from poflow_lite.provenance import command, machine, versions

__all__ = ["SETTINGS", "VARIANTS", "study_transport", "transport_panels"]

VARIANTS: dict[str, dict[str, Any]] = {
    "Hamilton-Jacobi": {},
    "with force": {"force": True},
    "with initial condition": {"initial": 100.0},
    "with both": {"force": True, "initial": 100.0},
    "no Hamilton-Jacobi": {"hamilton_jacobi": 0.0},
}
"""Name ↦ what it changes in :func:`learned_transport.train_transport`."""

SETTINGS: dict[str, dict[str, Any]] = {"gaussians": {"steps": 400, "width": 64}, "moons": {"steps": 2000, "width": 128}}
"""Pair of clouds ↦ how long and how large it is trained: seconds, and half a minute, on two CPU cores."""


def study_transport(
    pairs: Sequence[str],
    out: str | Path,
    *,
    variants: Sequence[str] = tuple(VARIANTS),
    seeds: Sequence[int] = (0,),
    progress: bool = True,
) -> dict[str, Any]:
    """Train and measure every variant on every pair and seed; write ``transport.json`` and a figure for each pair.

    The figure shows the paths of the first seed. A cell that is done is not run again.

    Args:
        pairs: of :data:`datasets.PAIRS`.
        out: folder; each cell is a JSON file inside.
        variants: of :data:`VARIANTS`.
        seeds: of the runs.
        progress: show a bar for each training.

    Returns:
        ``{"command", "versions", "device", "cells": [...]}``; a cell has pair, variant, seed, seconds of training, and
        the figures of a :class:`learned_transport.TransportReport`.

    Raises:
        ValueError: for an unknown pair or variant.
    """
    for pair in pairs:
        require_known("pair", pair, PAIRS)
    for variant in variants:
        require_known("variant", variant, VARIANTS)
    folder, cells = prepare_folder(out), []
    for pair in pairs:
        drawn = {}
        for variant in variants:
            for seed in seeds:
                place = folder / f"{pair}-{variant.replace(' ', '-')}-seed-{seed}.json"
                if not place.exists():
                    write_json(place, _cell(pair, variant, seed, progress))
                cell = json.loads(place.read_text(encoding="utf-8"))
                paths = torch.tensor(cell.pop("paths"))
                if seed == seeds[0]:
                    drawn[f"{variant}\nOT gap {cell['ot_gap']:.2f}"] = paths
                cells.append(cell)
        figure = transport_panels(drawn, sample_pair(pair, 300, torch.Generator().manual_seed(0)))
        write_atomically(folder / f"{pair}.png", lambda path, f=figure: f.savefig(path, dpi=150, format="png"))
    facts = {"command": command(), "versions": versions(), "device": machine(torch.device("cpu"))}
    result = {**facts, "cells": cells}
    write_json(folder / "transport.json", result)
    return result


def _cell(pair: str, variant: str, seed: int, progress: bool) -> dict[str, Any]:
    """Train and measure one transport; 150 of its paths are kept for the figure."""
    began = time.perf_counter()
    transport, _ = train_transport(pair, seed=seed, progress=progress, **SETTINGS[pair], **VARIANTS[variant])
    seconds = time.perf_counter() - began
    report = measure_transport(transport, pair, count=1000, repeats=5)
    with torch.no_grad():
        start = sample_pair(pair, 150, torch.Generator().manual_seed(0)).source
        paths = transport.carry(start).z.tolist()
    facts = {"pair": pair, "variant": variant, "seed": seed, "seconds": seconds}
    return {**facts, **report.as_dict(), "paths": paths}


def transport_panels(paths: dict[str, Tensor], clouds: Clouds) -> Figure:
    """One panel for each set of paths, title ↦ (B, T+1, 2): where the particles start, go and end, over the target."""
    shared = {"squeeze": False, "sharex": True, "sharey": True}
    figure, axes = plotting.figure(2.6 * len(paths), 3.3, 1, len(paths), **shared)
    for axis, (title, z) in zip(axes.flat, paths.items(), strict=True):
        plotting.tracks(axis, z)
        plotting.cloud(axis, clouds.target, 7, "target")
        plotting.cloud(axis, z[:, 0], 0, "start")
        plotting.cloud(axis, z[:, -1], 1, "end")
        axis.set_title(title, fontsize=9)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, markerscale=2)
    return figure
