"""Images of whole factor grids on disk: the layout of Shapes3D's HDF5 file, and of Falcor3D's and Isaac3D's folders."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from poflow_lite.datasets.factors import SHAPES3D, FactorImages, FactorSpace
from poflow_lite.io import held, write_atomically

if TYPE_CHECKING:
    import h5py


_SHAPES3D_URL = "https://storage.googleapis.com/3d-shapes/3dshapes.h5"
_SHAPES3D_BYTES = 267_573_662
_SHAPES3D_SHA256 = "0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785"
_PIXELS = (64, 64, 3)
LARGE_CHUNK = 100
"""Images that are packed together, from which on reading single ones is slow: to unpack them takes milliseconds."""
PART, PART_SECONDS, STEP, LEVEL = 4800, 20.0, 64, 4
"""Images of one part of a rendering, seconds after which it ends before, which is what an interruption can cost;
images that are rendered at one go, and how hard they are squeezed."""


def _gather(space: FactorSpace, size: int, index: Tensor, read: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """Images (..., 3, size, size) of indices (...), where ``read`` gives (U, size, size, 3) of distinct rising ones."""
    space.require_indices(index)
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
    for name, size, stride, values in zip(space.names, space.sizes, space.strides, labels.T, strict=True):
        table = values.reshape(-1, size, stride)
        with np.errstate(invalid="ignore"):  # what is not finite compares as false, and is wrong
            steps = np.diff(table[0, :, 0])
            tolerance = 0.01 * np.fmin.reduce(np.abs(steps), initial=np.inf) if size > 1 else 0.0
            wrong = ~(np.abs(table - table[:1, :, :1]) <= tolerance)
            wrong[0, 1:, 0] |= ~(steps * steps[:1] > 0)
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"{source}: row {row} of the labels has {name} {values[row]:g}, which disagrees with the grid "
                f"{space.sizes} (last factor fastest, labels rise or fall with it). Get the file of this data set again"
            )


# --- Shapes3D and files of its layout -----------------------------------------------------------------------------


def verify_shapes3d(path: str | Path) -> None:
    """Raise a ValueError unless a file is the published 3dshapes.h5, by its size and then by its SHA-256."""
    size, digest = _require_file(path).stat().st_size, hashlib.sha256()
    reason = f"its size is {size:,} bytes instead of {_SHAPES3D_BYTES:,}"
    if size == _SHAPES3D_BYTES:
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
        if digest.hexdigest() == _SHAPES3D_SHA256:
            return
        reason = f"the size is right, but the SHA-256 is {digest.hexdigest()[:12]}… instead of {_SHAPES3D_SHA256[:12]}…"
    raise ValueError(f"{path} is not the published 3dshapes.h5: {reason}. Download it again from {_SHAPES3D_URL}")


def _require_file(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}: get 3dshapes.h5 from {_SHAPES3D_URL}, or name another file")
    return Path(path)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """The open file; what HDF5 says of contents that cannot be read becomes a ValueError that names the file."""
    import h5py

    if os.access(_require_file(path), os.R_OK) and not h5py.is_hdf5(path):
        raise ValueError(f"{path} is not an HDF5 file: name another, or download it from {_SHAPES3D_URL}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (FileNotFoundError, PermissionError, BlockingIOError):  # no damage, and the messages name the file
        raise
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged or incomplete ({error}): download or write it again") from error


class Shapes3DFile:
    """Images of Shapes3D (Burgess & Kim 2018) from 3dshapes.h5, or from another file of its layout.

    The layout: ``images`` (N, 64, 64, 3) uint8 and ``labels`` (N, n) float64, in the row-major order of the grid. The
    file is checked at once, and opened anew by every call of :meth:`frames`, in whatever process it is made.

    HDF5 packs images in chunks and unpacks a chunk as a whole; one call of :meth:`frames` unpacks each chunk once. Of
    a file with thousands of images to a chunk, as the published one is, every call would unpack a large part: such a
    file is read into memory, 5.9 GB for the full grid.

    Args:
        path, space: the file and its grid.
        in_memory: read all images now, behind a progress bar; by default if more than 100 images share a chunk.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not HDF5, cut off or damaged, has another layout, or labels that disagree with the grid.
    """

    def __init__(self, path: str | Path, in_memory: bool | None = None, space: FactorSpace = SHAPES3D):
        self.path, self.space, self.image_shape = _require_file(path), space, (3, 64, 64)
        self.name = "Shapes3D" if self.path.stat().st_size == _SHAPES3D_BYTES else self.path.name
        with _opened(self.path) as file:
            self._check(file)
            self.packed = (file["images"].chunks or (1,))[0]
        self.in_memory = self.packed > LARGE_CHUNK if in_memory is None else in_memory
        self._pixels = None
        if self.in_memory:
            self._load()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None}  # another process reads them itself

    def frames(self, index: Tensor) -> Tensor:
        """Images of grid indices (...): (..., 3, 64, 64), uint8; ValueError for others or where the file is damaged."""
        return _gather(self.space, _PIXELS[0], index, self._read)

    def _check(self, file: h5py.File) -> None:
        """Both arrays, in the file itself: a link could show what else lies on this machine."""
        import h5py

        layout = {"images": (_PIXELS, "uint8"), "labels": ((len(self.space.names),), "float64")}
        for name, (sizes, kind) in layout.items():
            if name in file and not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{self.path} holds only a link as {name!r}: name a file that holds the array itself")
            array, expected = file.get(name), f"{(len(self.space), *sizes)} of {kind}"
            if getattr(array, "is_virtual", False) or getattr(array, "external", None):
                raise ValueError(f"{self.path} has {name!r} in other files: name a file that holds the array itself")
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
        found = np.empty((len(rows), *_PIXELS), np.uint8)
        with _opened(self.path) as file:
            # Rows of one chunk are read at one go, or each of them would unpack it.
            starts = np.flatnonzero(np.diff(rows // self.packed)) + 1
            for start, end in itertools.pairwise([0, *starts.tolist(), len(rows)]):
                low, high = int(rows[start]), int(rows[end - 1]) + 1
                found[start:end] = file["images"][low:high][rows[start:end] - low]
        return found

    def _load(self) -> np.ndarray:
        """All pixels (N, 64, 64, 3); read with a progress bar the first time."""
        from tqdm.auto import tqdm

        if self._pixels is None:
            pixels = np.empty((len(self.space), *_PIXELS), np.uint8)
            rows = self.packed * -(-1024 // self.packed)  # whole chunks, and enough of them for a call to be worth it
            with _opened(self.path) as file, tqdm(total=len(pixels), unit="image", leave=False) as bar:
                for start in range(0, len(pixels), rows):
                    part = slice(start, min(start + rows, len(pixels)))
                    file["images"].read_direct(pixels, part, part)
                    bar.update(part.stop - start)
            self._pixels = pixels
        return self._pixels


# --- writing a file of this layout --------------------------------------------------------------------------------


def label_values(space: FactorSpace) -> list[np.ndarray]:
    """What each factor's values are called in the label files: those of 3dshapes.h5, and 0 to 1 on all other grids."""
    if space == SHAPES3D:
        hues = np.arange(10) / 10
        return [hues, hues, hues, np.linspace(0.75, 1.25, 8), np.arange(4.0), np.linspace(-30.0, 30.0, 15)]
    return [np.linspace(0.0, 1.0, size) for size in space.sizes]


def render_file(scene: FactorImages, path: str | Path, progress: bool = True) -> Path:
    """Write ``images`` (N, H, W, 3), uint8, and ``labels`` (N, n), float64, of all factors into an HDF5 file.

    Images are deflated as chunks of their own. Parts of them are kept in a folder beside the file until it is complete,
    so that the same call goes on where an interrupted one stopped, and the file appears only when whole. A part that
    was damaged meanwhile is named by a warning and rendered again.

    Raises:
        ValueError: if the file exists, or its folder of parts belongs to another scene or is in use.
        OSError: if it cannot be written.
    """
    path = Path(path)
    folder = path.with_name(path.name + ".parts")
    _refuse_existing(path)
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder):
        _refuse_existing(path)  # another process may have made it just now
        owner, whole = folder / "scene.txt", folder / "whole.h5"
        if not owner.exists():
            write_atomically(owner, lambda temporary: temporary.write_text(scene.name, encoding="utf-8"))
        if (found := owner.read_text(encoding="utf-8", errors="replace")) != scene.name:
            raise ValueError(
                f"{folder} holds parts of {found}, not of {scene.name}: choose another --out, or delete it"
            )
        parts = _render_parts(scene, folder, progress)
        write_atomically(whole, partial(_assemble, scene=scene, parts=parts, progress=progress))
        whole.replace(path)
    shutil.rmtree(folder)
    return path


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise ValueError(f"{path} exists: choose another file with --out, or delete it first")


def _render_parts(scene: FactorImages, folder: Path, progress: bool) -> list[Path]:
    """Files that hold all images, each named by its first one; those that are there already are only read."""
    import h5py
    from tqdm.auto import tqdm

    parts, begin, count = [], 0, len(scene.space)
    with tqdm(total=count, desc=f"rendering {scene.name}", unit="image", disable=not progress) as bar:
        while begin < count:
            parts.append(folder / f"{begin:06d}.h5")
            if not (more := _images_of(parts[-1], scene)):
                later = [int(other.stem) for other in folder.glob("[0-9]*.h5")]
                index = torch.arange(begin, min([n for n in later if n > begin] + [begin + PART, count]))
                write_atomically(parts[-1], partial(_write_part, scene=scene, index=index))
                with h5py.File(parts[-1]) as file:
                    more = len(file["images"])
            begin += more
            bar.update(more)
    return parts


def _images_of(part: Path, scene: FactorImages) -> int:
    """How many images a part holds: 0 if it is not there or, with a warning, damaged, as checksums tell in reading."""
    if not part.exists():
        return 0
    shape = (*scene.image_shape[1:], 3)
    with suppress(ValueError), _opened(part) as file:
        images = file["images"]
        if all(image.shape == shape for image in images):
            return len(images)
    warnings.warn(f"{part} is damaged: its images are rendered again", stacklevel=2)
    return 0


def _create(file: h5py.File, count: int, scene: FactorImages, most: int | None = None) -> h5py.Dataset:
    shape = (*scene.image_shape[1:], 3)
    packed = {"chunks": (1, *shape), "compression": "gzip", "compression_opts": LEVEL}
    return file.create_dataset("images", (count, *shape), np.uint8, maxshape=(most or count, *shape), **packed)


def _write_part(path: Path, scene: FactorImages, index: Tensor) -> None:
    """Render images of these indices until the time of a part is over."""
    import h5py

    end, content = time.monotonic() + PART_SECONDS, BytesIO()  # in memory: HDF5 crashes where a disk is full
    with h5py.File(content, "w", libver="latest") as file:  # whose structure has checksums, as deflated pixels have
        images = _create(file, 0, scene, len(index))
        for some in index.split(STEP):
            images.resize(len(images) + len(some), axis=0)
            images[-len(some) :] = scene.frames(some).permute(0, 2, 3, 1).cpu().numpy()
            if time.monotonic() > end:
                break
    path.write_bytes(content.getbuffer())


def _assemble(path: Path, scene: FactorImages, parts: Sequence[Path], progress: bool) -> None:
    import h5py
    from tqdm.auto import tqdm

    needed, free = 1.05 * sum(part.stat().st_size for part in parts), shutil.disk_usage(path.parent).free
    if free < needed:  # found out while writing, it would crash HDF5
        raise OSError(f"{needed / 1e9:.3f} GB are needed, {free / 1e9:.3f} GB are free")
    with h5py.File(path, "w") as file:
        images, number = _create(file, len(scene.space), scene), itertools.count()
        for part in tqdm(parts, desc="joining its parts", unit="part", disable=not progress):
            with h5py.File(part, "r") as stored:
                for row in range(len(stored["images"])):
                    _, chunk = stored["images"].id.read_direct_chunk((row, 0, 0, 0))
                    images.id.write_direct_chunk((next(number), 0, 0, 0), chunk)
        factors = scene.space.factors(torch.arange(len(scene.space))).numpy()
        columns = [values[column] for values, column in zip(label_values(scene.space), factors.T, strict=True)]
        file.create_dataset("labels", data=np.stack(columns, -1))
        file.attrs["source"] = f"rendered by poflow_lite: {scene.name}"


# --- Falcor3D and Isaac3D -----------------------------------------------------------------------------------------


class FactorFolder:
    """Images of a grid as ``images/000000.png`` … in row-major order, the layout of Falcor3D's and Isaac3D's archives.

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
            warnings.warn(f"there is no {path}: the order of the images of {name} was not checked", stacklevel=2)
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
