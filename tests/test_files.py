"""Readers of published files: the right pixels from every layout and process, and errors that say what to do."""

import gc
import hashlib
import importlib.util
import multiprocessing
import os
import pickle
import sys
import warnings

import h5py
import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from poflow_lite.datasets import files
from poflow_lite.datasets.factors import FALCOR3D, ISAAC3D, SHAPES3D, FactorSpace
from poflow_lite.datasets.files import ImageFolder, Shapes3DFile, falcor3d, isaac3d, verify_shapes3d

SPACE = FactorSpace(("hue", "size", "turn"), (2, 3, 2))
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
INDEX = torch.tensor([[[11, 0], [7, 7]], [[3, 11], [4, 6]], [[5, 0], [10, 3]]])
LAYOUTS = {
    "one image to a chunk, gzip": {"chunks": (1, 64, 64, 3), "compression": "gzip", "compression_opts": 1},
    "one image to a chunk": {"chunks": (1, 64, 64, 3)},
    "five images to a chunk, gzip": {"chunks": (5, 64, 64, 3), "compression": "gzip"},
    "parts of all images to a chunk, gzip": {"chunks": (12, 16, 16, 1), "compression": "gzip"},
    "contiguous": {},
}
needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted in /proc")
needs_fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here")


def grid_labels(space=SPACE):
    """Labels that rise with their own factor and depend on nothing else."""
    return 0.5 + 0.25 * space.factors(torch.arange(len(space))).double().numpy()


def write_file(path, images=IMAGES, labels=None, **layout):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, **(layout or {"chunks": (1, 64, 64, 3), "compression": "gzip"}))
        file["labels"] = grid_labels() if labels is None else labels
    return path


def write_folder(folder, images=IMAGES, labels=None, name="labels.npy"):
    (folder / "images").mkdir(parents=True)
    for row, image in enumerate(images):
        PIL.Image.fromarray(image).save(folder / "images" / f"{row:06d}.png")
    with open(folder / name, "wb") as file:
        np.save(file, grid_labels() if labels is None else labels)
    return folder


def expected(index=INDEX, images=IMAGES):
    """Frames (..., 3, H, W), one by one."""
    chosen = [torch.tensor(images[i]).permute(2, 0, 1) for i in index.flatten().tolist()]
    return torch.stack(chosen).reshape(*index.shape, *chosen[0].shape)


def descriptors(path):
    """Numbers of this process's descriptors of a file."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.path.samestat(os.stat(f"/proc/self/fd/{name}"), os.stat(path)):
                found.append(int(name))
        except FileNotFoundError:  # the listing's own descriptor
            continue
    return found


class Frames(Dataset):
    """What a DataLoader draws from: the reader's frames, one index at a time."""

    def __init__(self, reader):
        self.reader = reader

    def __len__(self):
        return len(self.reader.space)

    def __getitem__(self, row):
        return self.reader.frames(torch.tensor(row))


@pytest.fixture
def path(tmp_path):
    return write_file(tmp_path / "small.h5")


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "small")


# --- pixels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_shuffled_repeated_and_nested_indices_bring_their_own_pixels(tmp_path, layout, in_memory):
    reader = Shapes3DFile(write_file(tmp_path / "small.h5", **layout), in_memory, SPACE)
    frames = reader.frames(INDEX)
    assert frames.dtype == torch.uint8
    assert frames.is_contiguous()
    assert torch.equal(frames, expected())
    assert torch.equal(reader.frames(torch.tensor(9)), expected(torch.tensor([9]))[0])
    assert torch.equal(reader.frames(torch.arange(12).flip(0)), expected(torch.arange(12).flip(0)))


def test_a_folder_brings_the_same_pixels(folder):
    reader = ImageFolder(folder, SPACE, "small")
    assert torch.equal(reader.frames(INDEX), expected())
    assert torch.equal(reader.frames(torch.tensor(9)), expected(torch.tensor([9]))[0])


@pytest.fixture(params=["file", "folder"])
def reader(request, path, folder):
    return Shapes3DFile(path, space=SPACE) if request.param == "file" else ImageFolder(folder, SPACE, "small")


def test_no_index_brings_no_frame(reader):
    assert reader.frames(torch.empty(4, 0, dtype=torch.int64)).shape == (4, 0, 3, 64, 64)


def test_frames_are_the_callers_own(reader):
    reader.frames(INDEX).zero_()
    assert torch.equal(reader.frames(INDEX), expected())


def test_frames_of_the_memory_are_the_callers_own(path):
    reader = Shapes3DFile(path, in_memory=True, space=SPACE)
    reader.frames(torch.arange(12)).zero_()
    assert torch.equal(reader.frames(INDEX), expected())


@pytest.mark.parametrize("index", [[12], [3, -1], [1.0], [True]])
def test_indices_outside_the_grid_are_refused(reader, index):
    with pytest.raises(ValueError, match=r"indices must be integers in 0\.\.11, got torch"):
        reader.frames(torch.tensor(index))


def test_what_the_data_are_is_said_by_name_shape_and_grid(reader):
    assert reader.space == SPACE
    assert reader.image_shape == (3, 64, 64)
    assert reader.name == {"Shapes3DFile": "small.h5", "ImageFolder": "small"}[type(reader).__name__]


# --- chunks, memory -----------------------------------------------------------------------------------------------


@pytest.fixture
def rows_read(monkeypatch):
    """The first and last row of everything that is read from a dataset."""
    found, item, direct = [], h5py.Dataset.__getitem__, h5py.Dataset.read_direct

    def counted(dataset, key, *rest):
        found.append((key.start, key.stop - 1))
        return item(dataset, key, *rest)

    def counted_direct(dataset, target, source, *rest):
        found.append((source.start, source.stop - 1))
        return direct(dataset, target, source, *rest)

    monkeypatch.setattr(h5py.Dataset, "read_direct", counted_direct)
    return found, lambda: monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)


@pytest.mark.parametrize(("height", "chunks"), [(1, [0, 3, 4, 5, 6, 7, 10, 11]), (5, [0, 1, 2]), (12, [0])])
def test_every_chunk_that_is_wanted_is_read_once_and_no_other(tmp_path, rows_read, height, chunks):
    found, count = rows_read
    reader = Shapes3DFile(write_file(tmp_path / "small.h5", chunks=(height, 32, 64, 3)), space=SPACE)
    count()
    reader.frames(INDEX)
    assert [i for low, high in found for i in range(low // height, high // height + 1)] == chunks


@pytest.mark.parametrize("height", [1, 5, 12])
def test_memory_is_filled_once_chunk_by_chunk_behind_a_progress_bar(tmp_path, rows_read, capsys, height):
    found, count = rows_read
    path = write_file(tmp_path / "small.h5", chunks=(height, 32, 64, 3))
    Shapes3DFile(path, space=SPACE)
    assert "/12" not in capsys.readouterr().err
    reader = Shapes3DFile(path, in_memory=True, space=SPACE)
    assert "/12" in capsys.readouterr().err
    assert found == [(0, 11)]
    count()
    path.unlink()
    assert torch.equal(reader.frames(INDEX), expected())
    assert found == [(0, 11)]


def test_memory_is_filled_in_whole_chunks(tmp_path, rows_read):
    space = FactorSpace(("one", "other"), (50, 50))
    images = np.arange(2500, dtype=np.uint16).view(np.uint8).reshape(2500, 1, 1, 2)
    images = np.broadcast_to(images[..., [0, 1, 0]], (2500, 64, 64, 3))
    layout = {"chunks": (300, 64, 64, 3), "compression": "gzip", "compression_opts": 1}
    path = write_file(tmp_path / "large.h5", images, grid_labels(space), **layout)
    reader = Shapes3DFile(path, in_memory=True, space=space)
    found, _ = rows_read
    assert found == [(0, 1199), (1200, 2399), (2400, 2499)]
    index = torch.tensor([0, 255, 1199, 1200, 2400, 2499])
    assert torch.equal(reader.frames(index), expected(index, images))


def test_a_file_that_is_slow_to_read_is_pointed_out(tmp_path):
    space = FactorSpace(("one", "other"), (11, 10))
    images = np.zeros((110, 64, 64, 3), np.uint8)
    few = write_file(tmp_path / "few.h5", images, grid_labels(space), chunks=(100, 16, 16, 1))
    many = write_file(tmp_path / "many.h5", images, grid_labels(space), chunks=(101, 16, 16, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Shapes3DFile(few, space=space)
        Shapes3DFile(many, in_memory=True, space=space)
    with pytest.warns(UserWarning, match=r"many\.h5 unpacks 101 images to read one: in_memory=True is faster") as found:
        Shapes3DFile(many, space=space)
    assert found[0].filename == __file__


# --- processes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_pickle_holds_neither_handle_nor_images(path, in_memory):
    reader = Shapes3DFile(path, in_memory, SPACE)
    reader.frames(INDEX)
    stored = pickle.dumps(reader)
    assert len(stored) < 2000
    again = pickle.loads(stored)
    assert torch.equal(again.frames(INDEX), expected())
    assert torch.equal(reader.frames(INDEX), expected())


def test_a_pickled_folder_reads_on(folder):
    stored = pickle.dumps(ImageFolder(folder, SPACE, "small"))
    assert len(stored) < 2000
    assert torch.equal(pickle.loads(stored).frames(INDEX), expected())


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=needs_fork), pytest.param(2, marks=needs_fork)])
def test_workers_bring_the_same_frames(reader, workers):
    reader.frames(torch.tensor(0))  # a handle is open when the workers start
    method = "fork" if workers else None
    loader = DataLoader(Frames(reader), batch_size=5, num_workers=workers, multiprocessing_context=method)
    assert torch.equal(torch.cat(list(loader)), expected(torch.arange(12)))
    assert torch.equal(reader.frames(INDEX), expected())


def test_a_spawned_worker_brings_the_same_frames(path):
    reader = Shapes3DFile(path, space=SPACE)
    reader.frames(torch.tensor(0))
    loader = DataLoader(Frames(reader), batch_size=5, num_workers=1, multiprocessing_context="spawn")
    assert torch.equal(torch.cat(list(loader)), expected(torch.arange(12)))


@needs_fork
@needs_proc
def test_a_forked_process_opens_a_handle_of_its_own(path):
    """Processes that share a descriptor share its position; the parent's is moved to tell it from a new one."""
    reader = Shapes3DFile(path, space=SPACE)
    reader.frames(INDEX)
    [descriptor] = descriptors(path)
    os.lseek(descriptor, 7, os.SEEK_SET)
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def child():
        torch.set_num_threads(1)  # as workers of a DataLoader do: threads that ran before the fork are gone in here
        frames = reader.frames(INDEX)
        send.send((torch.equal(frames, expected()), [os.lseek(d, 0, os.SEEK_CUR) for d in descriptors(path)]))

    process = context.Process(target=child)
    process.start()
    assert receive.poll(60)
    assert receive.recv() == (True, [0])
    process.join()
    assert descriptors(path) == [descriptor]
    assert torch.equal(reader.frames(INDEX), expected())


@needs_proc
def test_no_file_stays_open_that_is_not_needed(path):
    reader = Shapes3DFile(path, space=SPACE)
    assert descriptors(path) == []
    for _ in range(3):
        reader.frames(INDEX)
    assert len(descriptors(path)) == 1
    reader.close()
    reader.close()
    assert descriptors(path) == []
    assert torch.equal(reader.frames(INDEX), expected())
    del reader
    gc.collect()
    assert descriptors(path) == []
    full = Shapes3DFile(path, in_memory=True, space=SPACE)
    full.frames(INDEX)
    assert descriptors(path) == []
    with pytest.raises(ValueError, match="expected"):
        Shapes3DFile(path)
    assert descriptors(path) == []


def test_the_module_is_loaded_without_h5py_and_pillow(monkeypatch):
    for name in ("h5py", "PIL"):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it would fail
    specification = importlib.util.spec_from_file_location("files_again", files.__file__)
    again = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(again)
    assert again.__all__ == files.__all__


# --- files that are wrong -----------------------------------------------------------------------------------------


def test_a_missing_file_is_an_error_that_says_where_to_get_it(tmp_path):
    for call in (Shapes3DFile, verify_shapes3d):
        for absent in (tmp_path / "absent.h5", tmp_path):
            with pytest.raises(FileNotFoundError, match=r"there is no file .*: get 3dshapes\.h5 from https://storage"):
                call(absent)


def test_a_file_that_goes_away_is_missing_not_damaged(path):
    reader = Shapes3DFile(path, space=SPACE)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="there is no file"):
        reader.frames(INDEX)


@pytest.mark.parametrize("content", [b"", b"images, labels\n", b"\x89PNG\r\n\x1a\n" + bytes(5000)])
def test_what_is_not_hdf5_is_told_so(tmp_path, content):
    (tmp_path / "other.h5").write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.h5 is not an HDF5 file: name another, or download it from https"):
        Shapes3DFile(tmp_path / "other.h5", space=SPACE)


@pytest.mark.parametrize("keep", [100, 5000, -1])
def test_a_truncated_file_is_told_so(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"small\.h5 is damaged or incomplete .*truncated file.*download or write it"):
        Shapes3DFile(path, space=SPACE)


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), BlockingIOError(11, "unable to lock file")]
)
def test_a_file_that_may_not_be_opened_is_not_called_damaged(path, monkeypatch, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(h5py, "File", refuse)
    with pytest.raises(type(error), match=error.strerror):
        Shapes3DFile(path, space=SPACE)


def test_a_damaged_chunk_is_an_error_where_it_is_read(path):
    with h5py.File(path) as file:
        place = next(c for c in map(file["images"].id.get_chunk_info, range(12)) if c.chunk_offset[0] == 7)
    content = bytearray(path.read_bytes())
    content[place.byte_offset + 50 : place.byte_offset + 250] = bytes(200)
    path.write_bytes(content)
    reader = Shapes3DFile(path, space=SPACE)
    others = torch.tensor([6, 8])
    assert torch.equal(reader.frames(others), expected(others))
    with pytest.raises(ValueError, match=r"small\.h5 is damaged or incomplete"):
        reader.frames(torch.tensor([6, 7]))
    with pytest.raises(ValueError, match=r"small\.h5 is damaged or incomplete"):
        Shapes3DFile(path, in_memory=True, space=SPACE)


@pytest.mark.parametrize("name", ["images", "labels"])
@pytest.mark.parametrize("instead", ["nothing", "group"])
def test_a_missing_dataset_is_named(path, name, instead):
    with h5py.File(path, "r+") as file:
        del file[name]
        if instead == "group":
            file.create_group(name)
    with pytest.raises(
        ValueError, match=rf"small\.h5 holds no array as '{name}', expected \(12, .* as in 3dshapes\.h5"
    ):
        Shapes3DFile(path, space=SPACE)


@pytest.mark.parametrize(
    ("images", "labels", "found"),
    [
        (IMAGES[:11], None, r"\(11, 64, 64, 3\) of uint8 as 'images', expected \(12, 64, 64, 3\) of uint8"),
        (IMAGES.transpose(0, 3, 1, 2), None, r"\(12, 3, 64, 64\) of uint8 as 'images'"),
        (IMAGES[:, :32, :32], None, r"\(12, 32, 32, 3\) of uint8 as 'images'"),
        (IMAGES / np.float32(255), None, r"\(12, 64, 64, 3\) of float32 as 'images'"),
        (IMAGES, grid_labels()[:, :2], r"\(12, 2\) of float64 as 'labels', expected \(12, 3\) of float64"),
        (IMAGES, grid_labels()[:11], r"\(11, 3\) of float64 as 'labels'"),
        (IMAGES, grid_labels().astype(int), r"\(12, 3\) of int64 as 'labels'"),
    ],
)
def test_another_shape_or_type_is_an_error_that_shows_both(tmp_path, images, labels, found):
    path = write_file(tmp_path / "small.h5", images, labels, compression="gzip")
    with pytest.raises(ValueError, match=rf"small\.h5 holds {found}.*for the grid \(2, 3, 2\): name another file"):
        Shapes3DFile(path, space=SPACE)


def test_the_grid_is_that_of_the_published_file_unless_another_is_named(path):
    assert len(SHAPES3D) == 480_000
    with pytest.raises(ValueError, match=r"expected \(480000, 64, 64, 3\) of uint8"):
        Shapes3DFile(path)


# --- labels -------------------------------------------------------------------------------------------------------


def changed(row, column, value):
    labels = grid_labels()
    labels[row, column] = value
    return labels


def mapped(column, values):
    """Labels of one factor replaced by one value for each grid value."""
    labels = grid_labels()
    labels[:, column] = np.array(values)[SPACE.factors(torch.arange(12))[:, column].numpy()]
    return labels


REVERSED = FactorSpace(SPACE.names[::-1], SPACE.sizes[::-1])
WRONG_LABELS = [
    (changed(5, 2, 0.5), 5, "turn is 0.5, that of row 1 is 0.75"),
    (changed(0, 1, 3.0), 1, "size is 0.5, that of row 0 is 3"),
    (changed(8, 0, 0.5), 8, "hue is 0.5, that of row 6 is 0.75"),
    (changed(3, 1, np.nan), 3, "size is nan, that of row 2 is 0.75"),
    (changed(2, 1, np.nan), 2, "size is nan, that of row 0 is 0.5"),
    (changed(0, 1, np.nan), 0, "size is nan, that of row 0 is nan"),
    (changed(3, 1, np.inf), 3, "size is inf, that of row 2 is 0.75"),
    (changed(2, 1, -np.inf), 2, "size is -inf, that of row 0 is 0.5"),
    (mapped(1, [0, 2, 1]), 4, "size is 1, that of row 2 is 2"),
    (mapped(1, [2, 0, 1]), 4, "size is 1, that of row 2 is 0"),
    (mapped(1, [0, 1, 1]), 4, "size is 1, that of row 2 is 1"),
    (mapped(2, [1, 1]), 1, "turn is 1, that of row 0 is 1"),
    (np.where(np.arange(12)[:, None] == [9, 4, 7], 9.0, grid_labels()), 5, "size is 1, that of row 4 is 9"),
    (REVERSED.factors(torch.arange(12)).double().numpy()[:, ::-1], 1, "hue is 1, that of row 0 is 0"),
    (grid_labels()[::2].repeat(2, 0), 1, "turn is 0.5, that of row 0 is 0.5"),
]


@pytest.mark.parametrize(("labels", "row", "reason"), WRONG_LABELS)
def test_the_first_label_that_disagrees_with_the_grid_is_named(tmp_path, labels, row, reason):
    message = rf"row {row} of the labels disagrees with the grid \(2, 3, 2\).*its {reason}\. Get the file of this data"
    path = write_file(tmp_path / "small.h5", labels=labels)
    with pytest.raises(ValueError, match=r"small\.h5: " + message):
        Shapes3DFile(path, space=SPACE)
    folder = write_folder(tmp_path / "small", labels=labels)
    with pytest.raises(ValueError, match=r"labels\.npy: " + message):
        ImageFolder(folder, SPACE, "small")


@pytest.mark.parametrize(
    "labels",
    [mapped(1, [-30.0, 0.0, 7.5]), mapped(1, [1.0, 0.0, -5.0]), grid_labels() + np.linspace(0, 0.002, 12)[:, None]],
    ids=["uneven", "falling", "rounded"],
)
def test_labels_may_be_uneven_falling_or_rounded(tmp_path, labels):
    reader = Shapes3DFile(write_file(tmp_path / "small.h5", labels=labels), space=SPACE)
    assert torch.equal(reader.frames(INDEX), expected())


def test_a_factor_of_a_single_value_has_a_constant_label(tmp_path):
    space = FactorSpace(("hue", "shape", "turn"), (6, 1, 2))
    labels = grid_labels(space)
    Shapes3DFile(write_file(tmp_path / "good.h5", labels=labels), space=space)
    labels[7, 1] = 0.6
    with pytest.raises(ValueError, match=r"row 7 of the labels disagrees .*its shape is 0\.6, that of row 0 is 0\.5"):
        Shapes3DFile(write_file(tmp_path / "bad.h5", labels=labels), space=space)


# --- the published file -------------------------------------------------------------------------------------------


@pytest.fixture
def published(path, monkeypatch):
    """The small file as if it were the published one."""
    monkeypatch.setattr(files, "_SHAPES3D_BYTES", path.stat().st_size)
    monkeypatch.setattr(files, "_SHAPES3D_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_the_published_file_is_known_by_size_and_hash(published, capsys):
    assert verify_shapes3d(published) is None
    assert "SHA-256" in capsys.readouterr().err
    assert Shapes3DFile(published, space=SPACE).name == "Shapes3D"


def test_one_changed_byte_is_told_by_the_hash(published):
    content = bytearray(published.read_bytes())
    content[-1] ^= 1
    published.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"the size is right, but the SHA-256 is \w{12}… instead of \w{12}….* Download"
    ):
        verify_shapes3d(published)


def test_one_missing_byte_is_told_by_the_size(published):
    size = published.stat().st_size
    published.write_bytes(published.read_bytes()[:-1])
    with pytest.raises(
        ValueError, match=rf"its size is {size - 1:,} bytes instead of {size:,}\. Download it again from"
    ):
        verify_shapes3d(published)


# --- folders ------------------------------------------------------------------------------------------------------


def test_larger_images_are_averaged(tmp_path):
    large = np.random.default_rng(1).integers(0, 256, (12, 128, 128, 3), dtype=np.uint8)
    reader = ImageFolder(write_folder(tmp_path / "large", large), SPACE, "large")
    mean = expected(images=large.reshape(12, 64, 2, 64, 2, 3).mean((2, 4)))
    assert (reader.frames(INDEX) - mean).abs().max() <= 0.5  # one rounding
    assert ImageFolder(tmp_path / "large", SPACE, "large", size=32).frames(INDEX).shape == (3, 2, 2, 3, 32, 32)


def test_sizes_that_do_not_divide_are_resampled_without_aliasing(tmp_path):
    """Stripes finer than the smaller image can show become grey; picking pixels would keep black and white."""
    stripes = np.zeros((12, 96, 96, 3), np.uint8)
    stripes[:, :, ::2] = 255
    reader = ImageFolder(write_folder(tmp_path / "striped", stripes), SPACE, "striped")
    inside = reader.frames(torch.tensor(0))[..., 4:-4].float()
    assert (inside - 127.5).abs().max() < 40


def test_smaller_images_are_enlarged_smoothly(tmp_path):
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None] * 8, (12, 32, 32, 3))
    frames = ImageFolder(write_folder(tmp_path / "ramp", ramp), SPACE, "ramp").frames(torch.tensor(0)).int()
    assert frames.shape == (3, 64, 64)
    assert frames[..., 4:-4].diff(dim=-1).max() <= 6


@pytest.mark.parametrize("mode", ["RGBA", "P", "L"])
def test_every_kind_of_png_becomes_rgb(folder, mode):
    path = folder / "images" / "000003.png"
    stored = PIL.Image.open(path).convert(mode)
    stored.save(path)
    frame = ImageFolder(folder, SPACE, "small").frames(torch.tensor(3))
    assert torch.equal(frame, torch.tensor(np.array(stored.convert("RGB"))).permute(2, 0, 1))


def test_every_image_is_decoded_once_whatever_the_repetitions(folder, monkeypatch):
    reader = ImageFolder(folder, SPACE, "small")
    opened, open_image = [], PIL.Image.open
    monkeypatch.setattr(PIL.Image, "open", lambda path: opened.append(path.name) or open_image(path))
    reader.frames(INDEX)
    assert opened == [f"{i:06d}.png" for i in INDEX.unique().tolist()]


@pytest.mark.parametrize(
    ("make", "labels", "space", "name"),
    [(falcor3d, "train-rec.labels", FALCOR3D, "Falcor3D"), (isaac3d, "labels.npy", ISAAC3D, "Isaac3D")],
)
def test_the_published_folders_have_labels_of_their_own_names(tmp_path, make, labels, space, name):
    folder = write_folder(tmp_path / "good", name=labels)
    reader = make(folder, space=SPACE)
    assert torch.equal(reader.frames(INDEX), expected())
    assert (reader.name, reader.space, reader.image_shape) == (name, SPACE, (3, 64, 64))
    assert make(folder, 32, SPACE, "mine").name == "mine"
    (folder / labels).write_bytes((folder / labels).read_bytes()[:-8])
    with pytest.raises(ValueError, match=rf"{labels} is no array in npy format .*: unpack the archive again"):
        make(folder, space=SPACE)
    with pytest.raises(
        FileNotFoundError, match=rf"images lacks {len(space) - 12:,} of {len(space):,} images of {name}, .* 000012\.png"
    ):
        make(folder)


def test_labels_may_be_absent_with_one_warning(folder):
    (folder / "train-rec.labels").write_bytes((folder / "labels.npy").read_bytes())
    (folder / "labels.npy").unlink()
    with pytest.warns(UserWarning, match=r"there is no .*labels\.npy: the order of the images") as found:
        reader = isaac3d(folder, space=SPACE)
    assert [warning.filename for warning in found] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(reader.frames(INDEX), expected())
        falcor3d(folder, space=SPACE)


@pytest.mark.parametrize("content", [b"", b"0.5 0.5 0.5\n", pickle.dumps([0.5]), b"PK\x03\x04" + bytes(100)])
def test_labels_that_are_no_array_are_told_so(folder, content):
    (folder / "labels.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"labels\.npy is no array in npy format .*: unpack the archive again"):
        ImageFolder(folder, SPACE, "small")


@pytest.mark.parametrize(
    ("labels", "found"),
    [(grid_labels()[:, :2], r"\(12, 2\) of float64"), (grid_labels().astype(int), r"\(12, 3\) of int64")],
)
def test_labels_of_another_shape_or_type_are_told_so(folder, labels, found):
    np.save(folder / "labels.npy", labels)
    with pytest.raises(
        ValueError,
        match=rf"holds labels {found}, expected floating-point \(12, 3\) of the factors hue, size, turn: get",
    ):
        ImageFolder(folder, SPACE, "small")


def test_a_missing_folder_is_named(tmp_path):
    (tmp_path / "outer").mkdir()
    for absent in (tmp_path / "absent", tmp_path / "outer"):
        with pytest.raises(
            FileNotFoundError, match=r"there is no folder .*images: name the unpacked archive of Falcor3D"
        ):
            falcor3d(absent, space=SPACE)


@pytest.mark.parametrize(("absent", "count"), [([0], 1), ([7, 5], 2), ([11], 1), (range(12), 12)])
def test_missing_images_are_counted_and_the_first_is_named(folder, absent, count):
    for row in absent:
        (folder / "images" / f"{row:06d}.png").unlink()
    (folder / "images" / "notes.txt").write_text("")
    (folder / "images" / "0000005.png").write_text("")
    with pytest.raises(
        FileNotFoundError, match=rf"lacks {count} of 12 images of small, the first is {min(absent):06d}\.png: unpack"
    ):
        ImageFolder(folder, SPACE, "small")


def test_other_files_beside_the_images_are_no_harm(folder):
    for name in ("notes.txt", "0000005.png", "._000003.png", "000003.jpg"):
        (folder / "images" / name).write_text("")
    assert torch.equal(ImageFolder(folder, SPACE, "small").frames(INDEX), expected())


def test_images_beyond_the_grid_are_an_error(folder):
    (folder / "images" / "000012.png").write_bytes((folder / "images" / "000000.png").read_bytes())
    with pytest.raises(ValueError, match=r"images holds 000012\.png, small only 12 images: name its folder"):
        ImageFolder(folder, SPACE, "small")


@pytest.mark.parametrize("damage", ["cut", "byte", "text", "empty"])
def test_a_damaged_image_is_named(folder, damage):
    path = folder / "images" / "000007.png"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    changed = {"cut": content[: len(content) // 2], "byte": content, "text": b"no image", "empty": b""}
    path.write_bytes(changed[damage])
    reader = ImageFolder(folder, SPACE, "small")
    with pytest.raises(ValueError, match=r"000007\.png is not a whole image .*: unpack the archive again"):
        reader.frames(INDEX)
    others = torch.tensor([6, 8])
    assert torch.equal(reader.frames(others), expected(others))


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (128, 128)])
def test_an_image_of_another_size_is_named(folder, size):
    PIL.Image.new("RGB", size).save(folder / "images" / "000007.png")
    with pytest.raises(ValueError, match=rf"000007\.png has \({size[0]}, {size[1]}\) pixels, expected \(64, 64\)"):
        ImageFolder(folder, SPACE, "small").frames(INDEX)


def test_a_first_image_that_is_not_square_is_named_at_once(folder):
    PIL.Image.new("RGB", (64, 32)).save(folder / "images" / "000000.png")
    with pytest.raises(ValueError, match=r"000000\.png has \(64, 32\) pixels, expected \(64, 64\)"):
        ImageFolder(folder, SPACE, "small")


def test_an_image_that_goes_away_is_missing_not_damaged(folder):
    reader = ImageFolder(folder, SPACE, "small")
    (folder / "images" / "000007.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"000007\.png is not a whole image"):
        reader.frames(INDEX)


def test_images_have_at_least_one_pixel(folder):
    with pytest.raises(ValueError, match="at least 1 pixel along each side, got 0"):
        ImageFolder(folder, SPACE, "small", size=0)
