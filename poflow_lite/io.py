"""What lies on disk and what is told: error wording, atomic files, checkpoints, and where a figure comes from."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "Checkpoint",
    "command",
    "load_checkpoint",
    "machine",
    "prepare_folder",
    "require_known",
    "require_weights",
    "save_checkpoint",
    "versions",
    "write_atomically",
    "write_json",
]

# --- mistakes -----------------------------------------------------------------------------------------------------


def require_known(what: str, name: str, known: Iterable[str]) -> None:
    """Raise a ValueError that lists the known names unless ``name`` is one of them; ``what`` says what it names."""
    known = list(known)
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}; known: {', '.join(known)}")


def require_weights(**weights: float) -> None:
    """Raise a ValueError that names the first weight of a loss that is negative or not finite."""
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"{name} must be a finite number of at least 0, got {weight}")


# --- files that are either whole or absent ------------------------------------------------------------------------

_FORMAT = "poflow_lite checkpoint 1"


def prepare_folder(folder: str | Path) -> Path:
    """Make ``folder`` and prove that it can be written to, before any work is done for it.

    Raises:
        OSError: if it cannot be made or written to; the message says which and what to do.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"cannot write to the output folder {folder} ({error.strerror}): choose another with --out"
        ) from error
    return folder


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it over; a crash leaves the old file.

    The temporary file has a fixed name, so that what a killed process leaves behind is overwritten by the next.
    """
    temporary = path.with_name(f".partial-{path.name}")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dictionary as indented JSON, atomically; NaN and infinity are refused rather than written."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@dataclass
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        model: state dictionary of the model.
        optimizer: state of Adam by parameter number, as in ``Optimizer.state_dict()["state"]``.
        metadata: configuration, step and history, as given to :func:`save_checkpoint`.
    """

    model: dict[str, Tensor]
    optimizer: dict[int, dict[str, Tensor]]
    metadata: dict[str, Any]


def save_checkpoint(
    path: Path, model: nn.Module, metadata: dict[str, Any], optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Write model, optimiser state and JSON metadata as one safetensors file (no pickle), atomically."""
    from safetensors.torch import save

    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if optimizer is not None:
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"format": _FORMAT, "metadata": json.dumps(metadata)}
    write_atomically(path, lambda temporary: temporary.write_bytes(save(tensors, header)))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint back.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file is damaged, or is not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(
            f"there is no checkpoint at {path}: make one with `poflow-lite train --out {path.parent}`"
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error}): train it again") from error
    if header.get("format") != _FORMAT:
        raise ValueError(f"{path} is a safetensors file but not a poflow_lite checkpoint: choose another file")
    model = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    optimizer: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, field = name.split(".")
            optimizer.setdefault(int(number), {})[field] = value
    return Checkpoint(model, optimizer, json.loads(header["metadata"]))


# --- where a figure comes from ------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Versions of what the figures depend on; "not installed" for a package that is run from its source or missing."""
    packages = ("poflow-lite", "torch", "torchvision", "numpy", "scikit-learn", "POT")
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def machine(device: torch.device) -> str:
    """The device in words, with its number of threads or its name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads != 1)}"


def command() -> str:
    """The command line of this process, as a shell would read it, without the folder the program lies in."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
