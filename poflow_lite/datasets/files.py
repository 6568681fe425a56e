"""Published images of whole factor grids: Shapes3D from its HDF5 file, Falcor3D and Isaac3D from folders of PNGs."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from poflow_lite.datasets.factors import FALCOR3D, ISAAC3D, SHAPES3D, FactorSpace

if TYPE_CHECKING:
    import h5py

__all__ = ["ImageFolder", "Shapes3DFile", "falcor3d", "isaac3d", "verify_shapes3d"]

_SHAPES3D_URL = "https://storage.googleapis.com/3d-shapes/3dshapes.h5"
_SHAPES3D_BYTES = 267_573_662
_SHAPES3D_SHA256 = "0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785"
_SHAPES3D_PIXELS = (64, 64, 3)
LARGE_CHUNK = 100
"""Images that are packed together, from which on reading single ones is slow: to unpack them takes milliseconds."""


def _gather(space: FactorSpace, size: int, index: Tensor, read: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """Images (..., 3, size, size) of indices (...), where ``read`` gives (U, size, size, 3) of distinct rising ones."""
    integers = not (index.is_floating_point() or index.is_complex() or index.dtype == torch.bool)
    if not integers or (index.numel() and (index.min() < 0 or index.max() >= len(space))):
        raise ValueError(f"indices must be integers in 0..{len(space) - 1}, got {index.dtype} {index.flatten()[:4]}")
    rows, place = np.unique(index.flatten().long().cpu().numpy(), return_inverse=True)
    pixels = read(rows)[place] if len(rows) else np.empty((0, size, size, 3), np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().view(*index.shape, 3, size, size)


def _check_labels(source: Path, labels: np.ndarray, space: FactorSpace) -> None:
    """Labels (N, n) must rise or fall with their own grid value alone, up to a hundredth of the smallest step."""
    shape = (len(space), len(space.names))
    if labels.shape != shape or labels.dtype.kind != "f":
        raise ValueError(
            f"{source} holds labels {labels.shape} of {labels.dtype}, expected floating-point {shape} of the factors "
            f"{', '.join(space.names)}: get the labels of these images"
        )
    first = (len(space), "")
    for name, size, stride, values in zip(space.names, space.sizes, space.strides, labels.T, strict=True):
        table = values.reshape(-1, size, stride)
        with np.errstate(invalid="ignore"):  # what is not finite compares as false, and is wrong
            steps = np.diff(table[0, :, 0])
            tolerance = 0.01 * np.fmin.reduce(np.abs(steps), initial=np.inf) if size > 1 else 0.0
            wrong = ~(np.abs(table - table[:1, :, :1]) <= tolerance)
            wrong[0, 1:, 0] |= ~(steps * steps[:1] > 0)
        if wrong.any():
            row = int(wrong.argmax())
            same = row // stride % size * stride  # the first row of this grid value
            other = same if same < row else max(row - stride, 0)
            first = min(first, (row, f"its {name} is {values[row]:g}, that of row {other} is {values[other]:g}"))
    if first[1]:
        raise ValueError(
            f"{source}: row {first[0]} of the labels disagrees with the grid {space.sizes} (last factor fastest, "
            f"labels rise or fall with it): {first[1]}. Get the file of this data set again"
        )


# --- Shapes3D -----------------------------------------------------------------------------------------------------


def verify_shapes3d(path: str | Path) -> None:
    """Check that a file is the published 3dshapes.h5, by its size and then, with a progress bar, by its SHA-256.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: saying whether size or hash differ.
    """
    from tqdm.auto import tqdm

    size, digest = _require_file(path).stat().st_size, hashlib.sha256()
    reason = f"its size is {size:,} bytes instead of {_SHAPES3D_BYTES:,}"
    if size == _SHAPES3D_BYTES:
        with open(path, "rb") as file, tqdm(total=size, unit="B", unit_scale=True, desc="SHA-256", leave=False) as bar:
            while block := file.read(2**20):
                digest.update(block)
                bar.update(len(block))
        if digest.hexdigest() == _SHAPES3D_SHA256:
            return
        reason = f"the size is right, but the SHA-256 is {digest.hexdigest()[:12]}… instead of {_SHAPES3D_SHA256[:12]}…"
    raise ValueError(f"{path} is not the published 3dshapes.h5: {reason}. Download it again from {_SHAPES3D_URL}")


def _require_file(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}: get 3dshapes.h5 from {_SHAPES3D_URL}, or name another file")
    return Path(path)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """What HDF5 says of contents that cannot be read becomes a ValueError that names the file."""
    try:
        yield
    except (FileNotFoundError, PermissionError, BlockingIOError):  # no damage, and the messages name the file
        raise
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged or incomplete ({error}): download or write it again") from error


class Shapes3DFile:
    """Images of Shapes3D (Burgess & Kim 2018) from 3dshapes.h5, or from another file of its layout.

    The layout: ``images`` (N, 64, 64, 3) uint8 and ``labels`` (N, n) float64, in the row-major order of the grid. The
    file is checked at once, and opened again at the first read of each process: workers of a DataLoader, forked or
    spawned, have their own handles. A pickle holds neither handle nor images.

    HDF5 packs images in chunks and unpacks a chunk as a whole; one call of :meth:`frames` unpacks each chunk once. This
    is fast where a chunk holds few images. h5py's own choice is thousands to a chunk; of such a file every call unpacks
    a large part, and only ``in_memory`` is fast.

    Attributes:
        space, image_shape: as :class:`poflow_lite.datasets.factors.FactorImages` asks.
        name: "Shapes3D" if the file has the published size, else the name of the file.
        packed: images to a chunk.

    Args:
        path, space: the file and its grid.
        in_memory: read all images now (5.9 GB for the full grid, with a progress bar) and answer from memory. Forked
            processes share it, spawned ones read the file again.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not HDF5, cut off or damaged, has another layout, or labels that disagree with the grid.
    """

    def __init__(self, path: str | Path, in_memory: bool = False, space: FactorSpace = SHAPES3D):
        self.path, self.in_memory, self.space = _require_file(path), in_memory, space
        self.image_shape = (_SHAPES3D_PIXELS[2], *_SHAPES3D_PIXELS[:2])
        self.name = "Shapes3D" if self.path.stat().st_size == _SHAPES3D_BYTES else self.path.name
        self._file = self._process = self._pixels = None
        with self._open() as file, _damage_named(self.path):
            self._check(file)
            self.packed = (file["images"].chunks or (1,))[0]
        if in_memory:
            self._load()
        elif self.packed > LARGE_CHUNK:
            advice = f"in_memory=True is faster, and needs {len(space) * np.prod(_SHAPES3D_PIXELS) / 1e9:.1f} GB"
            warnings.warn(f"{self.path} unpacks {self.packed:,} images to read one: {advice}", stacklevel=2)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_process": None, "_pixels": None}

    def frames(self, index: Tensor) -> Tensor:
        """Images of grid indices (...): (..., 3, 64, 64), uint8; ValueError for others or where the file is damaged."""
        return _gather(self.space, _SHAPES3D_PIXELS[0], index, self._read)

    def close(self) -> None:
        """Let go of the handle, if there is one; the next read opens the file again."""
        if self._file is not None:
            self._file.close()
        self._file = self._process = None

    def _open(self) -> h5py.File:
        import h5py

        with _damage_named(self.path):
            if os.access(_require_file(self.path), os.R_OK) and not h5py.is_hdf5(self.path):
                raise ValueError(f"{self.path} is not an HDF5 file: name another, or download it from {_SHAPES3D_URL}")
            return h5py.File(self.path, "r")

    def _check(self, file: h5py.File) -> None:
        layout = {"images": (_SHAPES3D_PIXELS, "uint8"), "labels": ((len(self.space.names),), "float64")}
        for name, (sizes, kind) in layout.items():
            array, expected = file.get(name), f"{(len(self.space), *sizes)} of {kind}"
            found = f"{array.shape} of {array.dtype}" if hasattr(array, "chunks") else "no array"
            if found != expected:
                raise ValueError(
                    f"{self.path} holds {found} as {name!r}, expected {expected}, as in 3dshapes.h5, for the grid "
                    f"{self.space.sizes}: name another file, or the grid of this one"
                )
        _check_labels(self.path, file["labels"][()], self.space)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """Pixels (U, 64, 64, 3) of distinct rising rows (U,)."""
        if self.in_memory:
            return self._load()[rows]
        found = np.empty((len(rows), *_SHAPES3D_PIXELS), np.uint8)
        with _damage_named(self.path):
            if self._process != os.getpid():
                self.close()  # what came through a fork belongs to the parent
                self._file, self._process = self._open(), os.getpid()
            images = self._file["images"]
            # Rows of one chunk are read at one go, or each of them would unpack it.
            starts = np.flatnonzero(np.diff(rows // self.packed)) + 1
            for start, end in itertools.pairwise([0, *starts.tolist(), len(rows)]):
                low, high = int(rows[start]), int(rows[end - 1]) + 1
                found[start:end] = images[low:high][rows[start:end] - low]
        return found

    def _load(self) -> np.ndarray:
        """All pixels (N, 64, 64, 3); read with a progress bar the first time."""
        from tqdm.auto import tqdm

        if self._pixels is not None:
            return self._pixels
        pixels = np.empty((len(self.space), *_SHAPES3D_PIXELS), np.uint8)
        with _damage_named(self.path), self._open() as file, tqdm(total=len(pixels), unit="image", leave=False) as bar:
            rows = self.packed * -(-1024 // self.packed)  # whole chunks, and enough of them for a call to be worth it
            for start in range(0, len(pixels), rows):
                part = slice(start, min(start + rows, len(pixels)))
                file["images"].read_direct(pixels, part, part)
                bar.update(part.stop - start)
        self._pixels = pixels
        return pixels


# --- Falcor3D and Isaac3D -----------------------------------------------------------------------------------------


class ImageFolder:
    """Images of a grid as ``images/000000.png`` … in row-major order, the layout of Falcor3D's and Isaac3D's archives.

    Attributes:
        space, image_shape, name: as :class:`poflow_lite.datasets.factors.FactorImages` asks.

    Args:
        folder: holds ``images/`` and the labels; checked at once.
        space, name: the grid, and which data these are.
        labels: name of a file with floating-point labels (N, n) in NumPy's npy format; only a warning if there is none.
        size: pixels along each side. Images are averaged over blocks of pixels if the sizes divide, and resampled by
            Lanczos' kernel if not.

    Raises:
        FileNotFoundError: if the folder or some image is missing.
        ValueError: for images beyond the grid, damaged or of different sizes, or labels that disagree with the grid.
    """

    def __init__(self, folder: str | Path, space: FactorSpace, name: str, labels: str = "labels.npy", size: int = 64):
        if size < 1:
            raise ValueError(f"images need at least 1 pixel along each side, got {size}")
        self.folder, self.space, self.name, self.image_shape = Path(folder), space, name, (3, size, size)
        self._check_images()
        self._side = None
        self._pixels(0)
        path = self.folder / labels
        try:
            values = np.lib.format.open_memmap(path, mode="r")
        except FileNotFoundError:
            warnings.warn(f"there is no {path}: the order of the images of {name} was not checked", stacklevel=3)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is no array in npy format ({error}): unpack the archive again") from error
        else:
            _check_labels(path, values, space)

    def frames(self, index: Tensor) -> Tensor:
        """Images of grid indices (...): (..., 3, size, size), uint8; errors as above for an index or image at fault."""
        return _gather(self.space, self.image_shape[1], index, lambda rows: np.stack([*map(self._pixels, rows)]))

    def _check_images(self) -> None:
        images, count = self.folder / "images", len(self.space)
        if not images.is_dir():
            raise FileNotFoundError(f"there is no folder {images}: name the unpacked archive of {self.name}")
        found = sorted(int(file[:6]) for file in os.listdir(images) if re.fullmatch(r"[0-9]{6}\.png", file))
        if found and found[-1] >= count:
            raise ValueError(f"{images} holds {found[-1]:06d}.png, {self.name} only {count:,} images: name its folder")
        if len(found) < count:
            missing = next(row for row, number in enumerate([*found, count]) if row != number)
            lacking = f"{count - len(found):,} of {count:,} images of {self.name}, the first is {missing:06d}.png"
            raise FileNotFoundError(f"{images} lacks {lacking}: unpack the archive again")

    def _pixels(self, row: int) -> np.ndarray:
        """(size, size, 3), uint8; the first image that is read decides the size of the others."""
        from PIL import Image

        path, size = self.folder / "images" / f"{row:06d}.png", self.image_shape[1]
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:  # all of which Pillow raises for damaged images
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            raise kind(f"{path} is not a whole image ({error}): unpack the archive again") from error
        side = self._side = self._side or image.width
        if image.size != (side, side):
            raise ValueError(f"{path} has {image.size} pixels, expected {(side, side)}, all alike: unpack it again")
        even = side % size == 0
        return np.asarray(image.reduce(side // size) if even else image.resize((size, size), Image.Resampling.LANCZOS))


def falcor3d(folder: str | Path, size: int = 64, space: FactorSpace = FALCOR3D, name: str = "Falcor3D") -> ImageFolder:
    """Falcor3D (Nie et al. 2020) from its unpacked archive; arguments and errors are those of :class:`ImageFolder`."""
    return ImageFolder(folder, space, name, "train-rec.labels", size)


def isaac3d(folder: str | Path, size: int = 64, space: FactorSpace = ISAAC3D, name: str = "Isaac3D") -> ImageFolder:
    """Isaac3D (Nie et al. 2020) from its unpacked archive; arguments and errors are those of :class:`ImageFolder`."""
    return ImageFolder(folder, space, name, "labels.npy", size)
