"""Rendering a whole grid of factors into one HDF5 file with the layout of 3dshapes.h5."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path

import numpy as np
import torch

from poflow_lite.checkpoints import write_atomically
from poflow_lite.datasets.factors import SHAPES3D, FactorSpace
from poflow_lite.datasets.scenes import Scene

__all__ = ["label_values", "render_file"]

PART, LEVEL = 4800, 4
"""Images of one part, which is what an interruption can cost, and how hard they are squeezed."""


def label_values(space: FactorSpace) -> list[np.ndarray]:
    """What each factor's values are called in the label files: those of 3dshapes.h5, and 0 to 1 on all other grids."""
    if space == SHAPES3D:
        hues = np.arange(10) / 10
        return [hues, hues, hues, np.linspace(0.75, 1.25, 8), np.arange(4.0), np.linspace(-30.0, 30.0, 15)]
    return [np.linspace(0.0, 1.0, size) for size in space.sizes]


def render_file(scene: Scene, path: str | Path, progress: bool = True) -> Path:
    """Write ``images`` (N, H, W, 3), uint8, and ``labels`` (N, n), float64, of all factors into an HDF5 file.

    Images are stored as HDF5 chunks of their own, deflated. Parts of them are kept in a folder beside the file until it
    is complete, so that the same call goes on where an interrupted one stopped, and the file appears only when whole.

    Args:
        scene: what to render.
        path: of the file.
        progress: show a bar.

    Returns:
        The path.

    Raises:
        ValueError: if the file exists, or its folder of parts belongs to another scene.
        OSError: if it cannot be written.
    """
    from tqdm.auto import tqdm

    path = Path(path)
    if path.exists():
        raise ValueError(f"{path} exists: choose another file with --out, or delete it first")
    parts = path.with_name(path.name + ".parts")
    parts.mkdir(parents=True, exist_ok=True)
    _claim(parts / "scene.txt", scene.name)
    begins = range(0, len(scene.space), PART)
    done = [begin for begin in begins if _part(parts, begin).exists()]
    bar = tqdm(total=len(scene.space), desc=f"rendering {scene.name}", unit="image", disable=not progress)
    with bar:
        bar.update(min(PART * len(done), len(scene.space)))
        for begin in sorted(set(begins) - set(done)):
            index = torch.arange(begin, min(begin + PART, len(scene.space)))
            _write_part(_part(parts, begin), scene, index)
            bar.update(len(index))
    write_atomically(path, lambda temporary: _assemble(temporary, scene, [_part(parts, begin) for begin in begins]))
    shutil.rmtree(parts)
    return path


def _part(parts: Path, begin: int) -> Path:
    return parts / f"{begin:06d}.npz"


def _claim(path: Path, name: str) -> None:
    """Say for which scene a folder of parts is, or find that it is for another one."""
    if not path.exists():
        write_atomically(path, lambda temporary: temporary.write_text(name, encoding="utf-8"))
    found = path.read_text(encoding="utf-8")
    if found != name:
        raise ValueError(
            f"{path.parent} holds parts of {found}, not of {name}: choose another --out, or delete it first"
        )


def _write_part(path: Path, scene: Scene, index: torch.Tensor) -> None:
    """Deflate each image by itself, exactly as HDF5's gzip filter would."""
    chunks = []
    for some in index.split(256):
        images = scene.frames(some).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        chunks += [zlib.compress(image, LEVEL) for image in images]
    lengths, content = np.array([len(chunk) for chunk in chunks]), np.frombuffer(b"".join(chunks), np.uint8)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, lengths=lengths, content=content)

    write_atomically(path, write)


def _assemble(path: Path, scene: Scene, parts: list[Path]) -> None:
    import h5py

    _, height, width = scene.image_shape
    with h5py.File(path, "w") as file:
        shape = (len(scene.space), height, width, 3)
        options = {"chunks": (1, *shape[1:]), "compression": "gzip", "compression_opts": LEVEL}
        images = file.create_dataset("images", shape, np.uint8, **options)
        number = 0
        for part in parts:
            with np.load(part) as stored:
                ends, content = stored["lengths"].cumsum(), stored["content"].tobytes()
            for begin, end in zip([0, *ends], ends, strict=False):
                images.id.write_direct_chunk((number, 0, 0, 0), content[begin:end])
                number += 1
        factors = scene.space.factors(torch.arange(len(scene.space))).numpy()
        columns = [values[column] for values, column in zip(label_values(scene.space), factors.T, strict=True)]
        file.create_dataset("labels", data=np.stack(columns, -1))
        file.attrs["source"] = f"rendered by poflow_lite: {scene.name}"
