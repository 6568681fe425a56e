"""What lies on disk and what is told: error wording, whole files, locks, checkpoints, where a figure comes from."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import shlex
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "Checkpoint",
    "checkpoint_bytes",
    "command",
    "held",
    "load_checkpoint",
    "machine",
    "prepare_folder",
    "require_known",
    "require_name",
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


_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # by Windows, with any ending


def require_name(what: str, name: str) -> None:
    """Raise a ValueError unless ``name`` can be a file's or folder's, on every system, and stays where it is put."""
    if re.search(r'[<>:"/\\|?*\x00-\x1f]|^[. ]|[. ]$', name) or _RESERVED.fullmatch(name) or not 0 < len(name) <= 200:
        raise ValueError(
            f"{what} {name!r} cannot name a file: use letters, digits, '-', '_' and '.', and start and end with none "
            "of '.' and ' '"
        )


# --- files that are either whole or absent ------------------------------------------------------------------------

_PARTIAL = ".partial-"


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


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep a folder to this process: no other can hold it meanwhile, and the system lets go of it when this one dies.

    Files that killed processes left half-written in it are removed.

    Raises:
        ValueError: if it is held already; the message names the process.
    """
    from filelock import FileLock, Timeout

    lock, holder = FileLock(folder / ".lock", timeout=0), folder / ".holder"
    try:
        lock.acquire()
    except Timeout:
        who = "another process"
        with suppress(OSError):  # it has only begun, or has just ended
            who = holder.read_text(encoding="utf-8") or who
        raise ValueError(f"{folder} is in use by {who}: wait until it ends, or choose another folder") from None
    try:
        for left in folder.glob(f"{_PARTIAL}*"):
            left.unlink(missing_ok=True)
        holder.write_text(
            f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M')}", "utf-8"
        )
        yield
    finally:
        for path in (holder, folder / ".lock"):
            with suppress(OSError):  # the folder may be gone, and Windows removes an open file when it is let go
                path.unlink()
        lock.release()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it over; a crash leaves the old file.

    Several processes can write the same file: each has its own temporary one, and the last to end wins.

    Raises:
        OSError: if the disk is full or broken; the message names the file.
    """
    path = Path(path)
    temporary = path.with_name(f"{_PARTIAL}{uuid.uuid4().hex}{path.suffix}")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if type(error) is not OSError:  # permissions, connections: these say themselves what is wrong
            raise
        reason = error.strerror or str(error).partition("\n")[0]
        raise OSError(
            f"cannot write {path} ({reason}); what was there before is kept. Free some space on its disk, then go on"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dictionary as indented JSON, atomically; NaN and infinity are refused rather than written."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


# --- checkpoints --------------------------------------------------------------------------------------------------

_FORMAT = "poflow_lite checkpoint 2"
_RECORD = {"run": (dict, type(None)), "notes": (dict, type(None)), "step": (int,), "history": (list,)}
_AGAIN = "get the file again where it came from, or delete it and train again"


@dataclass
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        model: state dictionary of the model.
        optimizer: state of Adam by parameter number, as in ``Optimizer.state_dict()["state"]``.
        metadata: "run" and "notes", as given to :func:`training.fit`, "step" and "history".
    """

    model: dict[str, Tensor]
    optimizer: dict[int, dict[str, Tensor]]
    metadata: dict[str, Any]


def checkpoint_bytes(
    model: nn.Module, metadata: dict[str, Any], optimizer: torch.optim.Optimizer | None = None
) -> bytes:
    """Model, optimiser state and JSON metadata as the content of a safetensors file (no pickle).

    A checksum goes over the metadata and over name, dtype, shape and bytes of every tensor. A tensor with two names is
    stored twice.

    Raises:
        ValueError: for weights that are NaN or infinite, and for what such a file cannot hold.
    """
    from safetensors.torch import save

    bad = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if bad:
        raise ValueError(f"the weights {', '.join(bad[:3])} are NaN or infinite, so they were not saved: train anew")
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if optimizer is not None:
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    try:
        record = json.dumps(metadata)
        # Copies: names that share one tensor would be refused.
        tensors = {n: t.detach().cpu().clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}
        return save(tensors, {"format": _FORMAT, "metadata": record, "sha256": _digest(record, tensors)})
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{type(model).__name__} and its record cannot be saved ({error}): a checkpoint holds plain tensors, and "
            "settings that JSON can write"
        ) from error


def save_checkpoint(
    path: Path, model: nn.Module, metadata: dict[str, Any], optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Write :func:`checkpoint_bytes` into a file, atomically."""
    content = checkpoint_bytes(model, metadata, optimizer)
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def _digest(record: str, tensors: dict[str, Tensor]) -> str:
    found = hashlib.sha256(record.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint back.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file is damaged, or is not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no checkpoint at {path}: make one with `poflow-lite train --out {path.parent}`"
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            # Copies: the file must not stay mapped, or Windows could not replace it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no dictionary)
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error}): {_AGAIN}") from error
    found, record = header.get("format", ""), header.get("metadata", "")
    if found != _FORMAT:
        known = found.startswith(_FORMAT[:-1])
        reason = f"is a {found!r}, made by another version of this package" if known else "is no poflow_lite checkpoint"
        raise ValueError(f"{path} {reason}, expected a {_FORMAT!r}: choose another file, or train again")
    if header.get("sha256") != _digest(record, tensors):
        raise ValueError(f"{path} is damaged: its checksum is not that of its contents. So {_AGAIN}")
    return _unpacked(path, record, tensors)


def _unpacked(path: Path, record: str, tensors: dict[str, Tensor]) -> Checkpoint:
    """The parts of a file that is as it was written; by us, or else a ValueError."""
    try:
        saved = Checkpoint({}, {}, json.loads(record))
        wrong = [name for name, kinds in _RECORD.items() if not isinstance(saved.metadata[name], kinds)]
        if wrong or saved.metadata["step"] < 0:
            raise ValueError(f"wrong {', '.join(wrong) or 'step'}")
        for entry in saved.metadata["history"]:
            float(entry["seconds"])
        for name, tensor in tensors.items():
            part, _, name = name.partition(".")
            if part == "model":
                saved.model[name] = tensor
            else:
                number, field = name.split(".")
                {"optimizer": saved.optimizer}[part].setdefault(int(number), {})[field] = tensor
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} was not written by this package ({error!r}): {_AGAIN}") from error
    return saved


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
