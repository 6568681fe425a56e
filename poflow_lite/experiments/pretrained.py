"""Trained models that come with the course: small, hash-checked, each with the command that made it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from poflow_lite.datasets.places import folders
from poflow_lite.experiments.runs import Run, load_run
from poflow_lite.io import (
    held,
    load_checkpoint,
    prepare_folder,
    require_known,
    require_name,
    save_checkpoint,
    write_json,
)

FOLDER, INDEX = Path("data/checkpoints"), "index.json"


def export(run: str | Path, name: str, folder: str | Path = FOLDER) -> Path:
    """Copy a finished run's model, without the optimiser's state, to where the course keeps them.

    Weights are in half precision and rounded to 6 significant bits: errors change by thousandths, and a wheel packs
    them a quarter tighter. Its hash, command, versions, seed and settings go into ``index.json`` beside it.

    Args:
        run: folder of the run.
        name: of the copy.
        folder: where to.

    Returns:
        The path of the copy.

    Raises:
        FileNotFoundError, ValueError: if there is no finished run, or a file in place of its folder, its weights are
            too large for half precision, or the name cannot be that of a file.
    """
    require_name("the name of a pretrained model", name)
    if Path(run).is_file():
        raise ValueError(f"{run} is a file: export the folder of a run")
    loaded = load_run(run, "cpu")
    folder = prepare_folder(folder)
    path = folder / f"{name}.safetensors"
    source = load_checkpoint(Path(run) / "checkpoint.safetensors")
    with held(folder):
        index = _read_index(folder) if (folder / INDEX).exists() else {}
        save_checkpoint(
            path, _rounded(loaded.model.half()), {**source.metadata, "history": source.metadata["history"][-1:]}
        )
        index[name] = {"sha256": _sha256(path), "bytes": path.stat().st_size, **loaded.config}
        write_json(folder / INDEX, index)
    return path


def load_pretrained(name: str, device: str = "auto", folder: str | Path | None = None) -> Run:
    """One of the trained models that come with the course.

    They are looked for in the folders of ``datasets.places``; they travel in an installed package.

    Args:
        name: as listed in an ``index.json`` of these folders; the first that lists it counts.
        device: "auto", "cpu" or "cuda".
        folder: look here instead.

    Raises:
        ValueError: for an unknown name (the message lists the known ones), or a file with another hash than recorded.
        FileNotFoundError: if there are none.
    """
    places = folders(FOLDER.name) if folder is None else [Path(folder)]
    indexes = {place: _read_index(place) for place in places if (place / INDEX).exists()}
    if not indexes:
        where = folder or f"{FOLDER} of this folder or the package"
        raise FileNotFoundError(f"there is no {INDEX} in {where}: run this in the course's folder, or install it again")
    require_known("pretrained model", name, dict.fromkeys(known for index in indexes.values() for known in index))
    place, index = next((place, index) for place, index in indexes.items() if name in index)
    path = place / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: get the course's data/checkpoints again")
    if (found := _sha256(path)) != index[name]["sha256"]:
        raise ValueError(
            f"{path} is not the file that belongs here: its SHA-256 is {found[:12]}… and not "
            f"{index[name]['sha256'][:12]}…. Get the course's data/checkpoints again"
        )
    run = load_run(path, device)
    run.model.requires_grad_(False)
    return run


def _rounded(model: torch.nn.Module, dropped: int = 5) -> torch.nn.Module:
    """The model, each weight of half precision rounded to the nearest whose last bits are 0."""
    for values in model.state_dict().values():
        if values.dtype == torch.float16:
            bits = values.view(torch.int16)
            bits.copy_((bits + (1 << dropped - 1)) & -(1 << dropped))
    return model


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        for entry in index.values():
            entry["sha256"][:12], entry["bytes"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / INDEX} is damaged ({error!r}): get the folder again where it came from") from error
    return index


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
