"""Trained models that come with the course: small, hash-checked, each with the command that made it."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import torch

from poflow_lite.checkpoints import load_checkpoint, prepare_folder, save_checkpoint, write_json
from poflow_lite.errors import require_known
from poflow_lite.experiments import Run, load_run
from poflow_lite.lessons import REPOSITORY

__all__ = ["load_shipped", "ship"]

FOLDER, INDEX = Path("data/checkpoints"), "index.json"


def ship(run: str | Path, name: str, folder: str | Path = FOLDER) -> Path:
    """Copy a finished run's model, in half precision and without the optimiser's state, to where the course keeps them.

    Its hash, command, versions, seed and settings go into ``index.json`` beside it.

    Args:
        run: folder of the run.
        name: of the copy.
        folder: where to.

    Returns:
        The path of the copy.

    Raises:
        FileNotFoundError, ValueError: if there is no finished run.
    """
    loaded = load_run(run, "cpu")
    folder = prepare_folder(folder)
    path = folder / f"{name}.safetensors"
    source = load_checkpoint(Path(run) / "checkpoint.safetensors")
    metadata = {**source.metadata, "history": source.metadata["history"][-1:]}
    save_checkpoint(path, loaded.model.half(), metadata)
    index = _read_index(folder)
    index[name] = {"sha256": _sha256(path), "bytes": path.stat().st_size, **loaded.config}
    write_json(folder / INDEX, index)
    return path


def load_shipped(name: str, device: str = "auto", folder: str | Path | None = None) -> Run:
    """One of the trained models that come with the course.

    They are looked for in ``data/checkpoints`` of the working directory and of the one above, where notebooks are run;
    a notebook that runs alone, as on Colab, fetches them from the course's repository.

    Args:
        name: as listed in ``data/checkpoints/index.json``.
        device: "auto", "cpu" or "cuda".
        folder: look here instead.

    Raises:
        ValueError: for an unknown name (the message lists the known ones), or a file with another hash than recorded.
        FileNotFoundError: if the repository cannot be reached either.
    """
    places = [FOLDER, Path("..") / FOLDER] if folder is None else [Path(folder)]
    place = next((place for place in places if (place / INDEX).exists()), None)
    if place is not None:
        return _load(place, name, device)
    with tempfile.TemporaryDirectory() as temporary:
        address = f"{REPOSITORY}/raw/main/{FOLDER}"
        try:
            for file in (INDEX, f"{name}.safetensors"):
                (Path(temporary) / file).write_bytes(urlopen(f"{address}/{file}").read())
        except (URLError, OSError) as error:
            raise FileNotFoundError(
                f"there is no {FOLDER / INDEX} here, and {address} cannot be read ({error}): run this from the folder "
                "of the course"
            ) from error
        return _load(Path(temporary), name, device)


def _load(place: Path, name: str, device: str) -> Run:
    index = _read_index(place)
    require_known("shipped model", name, index)
    path = place / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: get the course's data/checkpoints again")
    if (found := _sha256(path)) != index[name]["sha256"]:
        raise ValueError(
            f"{path} is not the file that belongs here: its SHA-256 is {found[:12]}… and not "
            f"{index[name]['sha256'][:12]}…. Get the course's data/checkpoints again"
        )
    run = load_run(path, device)
    run.model.to(torch.float32).requires_grad_(False)
    return run


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
