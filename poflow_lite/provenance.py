"""Where a figure comes from: what is recorded beside every result."""

from __future__ import annotations

import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

__all__ = ["command", "machine", "versions"]


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
    return f"CPU, {torch.get_num_threads()} threads"


def command() -> str:
    """The command line of this process, as a shell would read it, without the folder the program lies in."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
