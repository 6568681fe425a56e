"""Where a figure comes from: what is recorded beside every result."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version
from pathlib import Path

import torch

__all__ = ["command", "machine", "versions"]


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    packages = ("poflow-lite", "torch", "torchvision", "numpy", "scikit-learn", "POT")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def machine(device: torch.device) -> str:
    """The device in words, with its number of threads or its name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def command() -> str:
    """The command line of this process, without the folder the program lies in."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
