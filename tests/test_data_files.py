"""Files of factor grids: the right pixels from every layout and process, errors that say what to do, rendering."""

import hashlib
import multiprocessing
import pickle
import shutil
import warnings

import h5py
import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from poflow_lite.datasets import SHAPES3D, FactorFolder, FactorSpace, Shapes3DFile, files, render_file, verify_shapes3d
from poflow_lite.datasets.files import label_values
from poflow_lite.datasets.scenes import Shapes3DLite
from poflow_lite.io import held

SPACE = FactorSpace(("hue", "size", "turn"), (2, 3, 2))
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
INDEX = torch.tensor([[[11, 0], [7, 7]], [[3, 11], [4, 6]], [[5, 0], [10, 3]]])
LAYOUTS = {
    "one image to a chunk, gzip": {"chunks": (1, 64, 64, 3), "compression": "gzip", "compression_opts": 1},
    "five images to a chunk, gzip": {"chunks": (5, 64, 64, 3), "compression": "gzip"},
    "parts of all images to a chunk, gzip": {"chunks": (12, 16, 16, 1), "compression": "gzip"},
    "contiguous": {},
}


def grid_labels(space=SPACE):
    """Labels that rise with their own factor and depend on nothing else."""
    return 0.5 + 0.25 * space.factors(torch.arange(len(space))).double().numpy()


def write_file(path, images=IMAGES, labels=None, **layout):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, **(layout or LAYOUTS["one image to a chunk, gzip"]))
        file["labels"] = grid_labels() if labels is None else labels
    return path


def write_folder(folder, images=IMAGES, labels=None):
    (folder / "images").mkdir(parents=True)
    for row, image in enumerate(images):
        PIL.Image.fromarray(image).save(folder / "images" / f"{row:06d}.png")
    np.save(folder / "labels.npy", grid_labels() if labels is None else labels)
    return folder


def expected(index=INDEX, images=IMAGES):
    """Frames (..., 3, H, W), one by one."""
    chosen = [torch.tensor(images[i]).permute(2, 0, 1) for i in index.flatten().tolist()]
    return torch.stack(chosen).reshape(*index.shape, *chosen[0].shape)


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


@pytest.fixture(params=["file", "memory", "folder"])
def reader(request, path, folder):
    if request.param == "folder":
        return FactorFolder(folder, SPACE, "small")
    return Shapes3DFile(path, request.param == "memory", SPACE)


# --- pixels -------------------------------------------------------------------------------------------------------


def test_shuffled_repeated_and_nested_indices_bring_their_own_pixels(reader):
    frames = reader.frames(INDEX)
    assert (frames.dtype, frames.is_contiguous()) == (torch.uint8, True)
    assert torch.equal(frames, expected())
    assert torch.equal(reader.frames(torch.tensor(9)), expected(torch.tensor([9]))[0])
    frames.zero_()  # they are the caller's own
    assert torch.equal(reader.frames(torch.arange(12).flip(0)), expected(torch.arange(12).flip(0)))
    assert reader.frames(torch.empty(4, 0, dtype=torch.int64)).shape == (4, 0, 3, 64, 64)
    assert (reader.space, reader.image_shape, reader.name[:5]) == (SPACE, (3, 64, 64), "small")


@pytest.mark.parametrize("index", [[12], [3, -1], [1.0], [True]])
def test_indices_outside_the_grid_are_refused(reader, index):
    with pytest.raises(ValueError, match=r"indices must be integers in 0\.\.11, got torch"):
        reader.frames(torch.tensor(index))


@pytest.mark.parametrize("workers", [1, 2])
def test_pickles_are_small_and_workers_bring_the_same_frames(reader, workers):
    assert len(pickle.dumps(reader)) < 2000
    assert torch.equal(pickle.loads(pickle.dumps(reader)).frames(INDEX), expected())
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    loader = DataLoader(Frames(reader), batch_size=5, num_workers=workers, multiprocessing_context=method)
    assert torch.equal(torch.cat(list(loader)), expected(torch.arange(12)))


@pytest.mark.parametrize("in_memory", [False, True, None])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_brings_the_same_pixels(tmp_path, layout, in_memory):
    reader = Shapes3DFile(write_file(tmp_path / "small.h5", **layout), in_memory, SPACE)
    assert torch.equal(reader.frames(INDEX), expected())


@pytest.mark.parametrize(("height", "chunks"), [(1, [0, 3, 4, 5, 6, 7, 10, 11]), (5, [0, 1, 2]), (12, [0])])
def test_every_chunk_that_is_wanted_is_read_once_and_no_other(tmp_path, monkeypatch, height, chunks):
    reader, found, item = Shapes3DFile(write_file(tmp_path / "a.h5", chunks=(height, 32, 64, 3)), space=SPACE), [], None

    def counted(dataset, key, *rest):
        found.append((key.start, key.stop - 1))
        return item(dataset, key, *rest)

    item = h5py.Dataset.__getitem__
    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    reader.frames(INDEX)
    assert [i for low, high in found for i in range(low // height, high // height + 1)] == chunks


@pytest.mark.parametrize(("packed", "in_memory"), [(100, False), (101, True)])
def test_a_file_that_is_slow_to_read_is_read_whole_behind_a_progress_bar(tmp_path, capsys, packed, in_memory):
    space = FactorSpace(("one", "other"), (40, 30))
    images = np.broadcast_to((np.arange(1200) % 251).astype(np.uint8)[:, None, None, None], (1200, 64, 64, 3))
    layout = {"chunks": (packed, 64, 64, 3), "compression": "gzip", "compression_opts": 1}
    path = write_file(tmp_path / "large.h5", images, grid_labels(space), **layout)
    reader = Shapes3DFile(path, space=space)
    assert reader.in_memory == in_memory == ("/1200" in capsys.readouterr().err)
    if in_memory:
        path.unlink()
    index = torch.tensor([1199, 0, 255, 1110, 1111])  # in memory: whole chunks, 1111 images at one go
    assert torch.equal(reader.frames(index)[:, 0, 0, 0], (index % 251).to(torch.uint8))


# --- HDF5 files that are wrong ------------------------------------------------------------------------------------


def rewrite(path, content):
    path.write_bytes(content(path.read_bytes()))


def without(path, name, group):
    with h5py.File(path, "r+") as file:
        del file[name]
        if group:
            file.create_group(name)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda path: path.unlink(), FileNotFoundError, r"there is no file .*: get 3dshapes\.h5 from https://storage"),
        (lambda path: rewrite(path, lambda _: b""), ValueError, r"small\.h5 is not an HDF5 file: name another, or"),
        (lambda path: rewrite(path, lambda _: b"\x89PNG" + bytes(5000)), ValueError, r"small\.h5 is not an HDF5 file"),
        (lambda path: rewrite(path, lambda whole: whole[:100]), ValueError, "damaged or incomplete .*truncated file"),
        (lambda path: rewrite(path, lambda whole: whole[:-1]), ValueError, "truncated file.*download or write it"),
        (
            lambda path: without(path, "images", False),
            ValueError,
            r"holds no array as 'images', expected \(12, .* as in",
        ),
        (lambda path: without(path, "labels", True), ValueError, r"holds no array as 'labels', expected \(12, 3\)"),
    ],
)
def test_a_file_that_is_absent_foreign_or_cut_off_is_told_so(path, spoil, error, message):
    spoil(path)
    with pytest.raises(error, match=message):
        Shapes3DFile(path, space=SPACE)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), BlockingIOError(11, "unable to lock")])
def test_a_file_that_may_not_be_opened_is_not_called_damaged(path, monkeypatch, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(h5py, "File", refuse)
    with pytest.raises(type(error), match=error.strerror):
        Shapes3DFile(path, space=SPACE)


def linked(path, link):
    """The images of a file moved into another one, and a link left in their place."""
    with h5py.File(path, "r+") as file, h5py.File(path.with_name("other.h5"), "w") as other:
        file.copy("images", other)
        del file["images"]
        file["kept"] = IMAGES
        file["images"] = link


def virtual(path):
    layout = h5py.VirtualLayout(IMAGES.shape, np.uint8)
    layout[:] = h5py.VirtualSource(path, "kept", IMAGES.shape)
    with h5py.File(path, "r+") as file:
        file.move("images", "kept")
        file.create_virtual_dataset("images", layout)


def external(path):
    path.with_name("raw").write_bytes(IMAGES.tobytes())
    with h5py.File(path, "r+") as file:
        del file["images"]
        file.create_dataset("images", IMAGES.shape, np.uint8, external=[(str(path.with_name("raw")), 0, IMAGES.nbytes)])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: linked(path, h5py.ExternalLink("other.h5", "images")), "holds only a link as 'images'"),
        (lambda path: linked(path, h5py.ExternalLink("nowhere.h5", "x")), "holds only a link as 'images'"),
        (lambda path: linked(path, h5py.SoftLink("/kept")), "holds only a link as 'images'"),
        (virtual, "has 'images' in other files"),
        (external, "has 'images' in other files"),
    ],
)
def test_arrays_that_lie_in_other_files_are_refused(path, spoil, message):
    spoil(path)
    with pytest.raises(ValueError, match=rf"small\.h5 {message}: name a file that holds the array itself"):
        Shapes3DFile(path, space=SPACE)


def test_a_damaged_chunk_is_an_error_where_it_is_read_and_a_lost_file_is_missing(path):
    with h5py.File(path) as file:
        place = next(c for c in map(file["images"].id.get_chunk_info, range(12)) if c.chunk_offset[0] == 7)
    reader, content, others = Shapes3DFile(path, space=SPACE), bytearray(path.read_bytes()), torch.tensor([6, 8])
    content[place.byte_offset + 50 : place.byte_offset + 250] = bytes(200)
    path.write_bytes(content)
    assert torch.equal(reader.frames(others), expected(others))
    for read in (lambda: reader.frames(torch.tensor([6, 7])), lambda: Shapes3DFile(path, True, SPACE)):
        with pytest.raises(ValueError, match=r"small\.h5 is damaged or incomplete"):
            read()
    path.unlink()
    with pytest.raises(FileNotFoundError, match="there is no file"):
        reader.frames(INDEX)


@pytest.mark.parametrize(
    ("images", "labels", "found"),
    [
        (IMAGES[:11], None, r"\(11, 64, 64, 3\) of uint8 as 'images', expected \(12, 64, 64, 3\) of uint8"),
        (IMAGES.transpose(0, 3, 1, 2), None, r"\(12, 3, 64, 64\) of uint8 as 'images'"),
        (IMAGES[:, :32, :32], None, r"\(12, 32, 32, 3\) of uint8 as 'images'"),
        (IMAGES / np.float32(255), None, r"\(12, 64, 64, 3\) of float32 as 'images'"),
        (IMAGES, grid_labels()[:, :2], r"\(12, 2\) of float64 as 'labels', expected \(12, 3\) of float64"),
        (IMAGES, grid_labels().astype(int), r"\(12, 3\) of int64 as 'labels'"),
    ],
)
def test_another_shape_or_type_is_an_error_that_shows_both(tmp_path, images, labels, found):
    path = write_file(tmp_path / "small.h5", images, labels, compression="gzip")
    with pytest.raises(ValueError, match=rf"small\.h5 holds {found}.*for the grid \(2, 3, 2\): name another file"):
        Shapes3DFile(path, space=SPACE)


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


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (changed(5, 2, 0.5), "row 5 of the labels has turn 0.5"),
        (changed(0, 1, 3.0), "row 1 of the labels has size 0.5"),
        (changed(3, 1, np.nan), "row 3 of the labels has size nan"),
        (changed(2, 1, np.nan), "row 2 of the labels has size nan"),
        (changed(2, 1, -np.inf), "row 2 of the labels has size -inf"),
        (mapped(1, [0, 2, 1]), "row 4 of the labels has size 1"),
        (mapped(1, [0, 1, 1]), "row 4 of the labels has size 1"),
        (mapped(2, [1, 1]), "row 1 of the labels has turn 1"),
        (REVERSED.factors(torch.arange(12)).double().numpy()[:, ::-1], "row 1 of the labels has hue 1"),
        (grid_labels()[::2].repeat(2, 0), "disagrees with the grid"),
    ],
)
def test_a_label_that_disagrees_with_the_grid_is_named(tmp_path, labels, reason):
    with pytest.raises(ValueError, match=rf"small\.h5: .*{reason}.*\(2, 3, 2\).* Get the file of this data set again"):
        Shapes3DFile(write_file(tmp_path / "small.h5", labels=labels), space=SPACE)
    with pytest.raises(ValueError, match=rf"labels\.npy: .*{reason}"):
        FactorFolder(write_folder(tmp_path / "small", labels=labels), SPACE, "small")


@pytest.mark.parametrize(
    "labels",
    [mapped(1, [-30.0, 0.0, 7.5]), mapped(1, [1.0, 0.0, -5.0]), grid_labels() + np.linspace(0, 0.002, 12)[:, None]],
    ids=["uneven", "falling", "rounded"],
)
def test_labels_may_be_uneven_falling_or_rounded(tmp_path, labels):
    assert Shapes3DFile(write_file(tmp_path / "small.h5", labels=labels), space=SPACE).space == SPACE


def test_a_factor_of_a_single_value_has_a_constant_label(tmp_path):
    space = FactorSpace(("hue", "shape", "turn"), (6, 1, 2))
    labels = grid_labels(space)
    Shapes3DFile(write_file(tmp_path / "good.h5", labels=labels), space=space)
    labels[7, 1] = 0.6
    with pytest.raises(ValueError, match=r"row 7 of the labels has shape 0\.6"):
        Shapes3DFile(write_file(tmp_path / "bad.h5", labels=labels), space=space)


def test_the_published_file_is_known_by_size_and_hash(path, monkeypatch):
    content = path.read_bytes()
    monkeypatch.setattr(files, "_SHAPES3D_BYTES", len(content))
    monkeypatch.setattr(files, "_SHAPES3D_SHA256", hashlib.sha256(content).hexdigest())
    verify_shapes3d(path)
    assert Shapes3DFile(path, space=SPACE).name == "Shapes3D"
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(
        ValueError, match=r"the size is right, but the SHA-256 is \w{12}… instead of \w{12}….* Download"
    ):
        verify_shapes3d(path)
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=rf"its size is {len(content) - 1:,} bytes instead of {len(content):,}\. Down"):
        verify_shapes3d(path)


# --- folders ------------------------------------------------------------------------------------------------------


def test_images_are_averaged_resampled_without_aliasing_or_enlarged_smoothly(tmp_path):
    large = np.random.default_rng(1).integers(0, 256, (12, 128, 128, 3), dtype=np.uint8)
    frames = FactorFolder(write_folder(tmp_path / "large", large), SPACE, "large").frames(INDEX)
    assert (frames - expected(images=large.reshape(12, 64, 2, 64, 2, 3).mean((2, 4)))).abs().max() <= 0.5  # rounding
    stripes = np.zeros((12, 96, 96, 3), np.uint8)
    stripes[:, :, ::2] = 255  # finer than the smaller image can show: picking pixels would keep black and white
    frames = FactorFolder(write_folder(tmp_path / "striped", stripes), SPACE, "striped").frames(torch.tensor(0))
    assert (frames[..., 4:-4].float() - 127.5).abs().max() < 40
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None] * 8, (12, 32, 32, 3))
    frames = FactorFolder(write_folder(tmp_path / "ramp", ramp), SPACE, "ramp", size=48).frames(torch.tensor(0)).int()
    assert frames.shape == (3, 48, 48)
    assert frames[..., 4:-4].diff(dim=-1).max() <= 8


@pytest.mark.parametrize("mode", ["RGBA", "P", "L"])
def test_every_kind_of_png_becomes_rgb_and_is_decoded_once(folder, monkeypatch, mode):
    path, opened, open_image = folder / "images" / "000003.png", [], PIL.Image.open
    stored = PIL.Image.open(path).convert(mode)
    stored.save(path)
    reader = FactorFolder(folder, SPACE, "small")
    monkeypatch.setattr(PIL.Image, "open", lambda path: opened.append(path.name) or open_image(path))
    frames = reader.frames(torch.tensor([3, 5, 3]))
    assert torch.equal(frames[2], torch.tensor(np.array(stored.convert("RGB"))).permute(2, 0, 1))
    assert opened == ["000003.png", "000005.png"]


def test_labels_may_be_absent_with_one_warning_and_other_files_lie_about(folder):
    for name in ("notes.txt", "0000005.png", "._000003.png", "000003.jpg"):
        (folder / "images" / name).write_text("")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FactorFolder(folder, SPACE, "small")
    (folder / "labels.npy").unlink()
    with pytest.warns(UserWarning, match=r"there is no .*labels\.npy: the order of the images") as found:
        reader = FactorFolder(folder, SPACE, "small")
    assert [warning.filename for warning in found] == [__file__]
    assert torch.equal(reader.frames(INDEX), expected())


def remove(folder, *rows):
    for row in rows:
        (folder / "images" / f"{row:06d}.png").unlink()


def put(folder, name, content):
    (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            lambda f: remove(f, 7, 5),
            FileNotFoundError,
            r"lacks 2 of 12 images of small, the first is 000005\.png: unpack",
        ),
        (
            lambda f: remove(f, *range(12)),
            FileNotFoundError,
            r"lacks 12 of 12 images of small, the first is 000000\.png",
        ),
        (
            lambda f: (f / "images").rename(f / "other"),
            FileNotFoundError,
            r"there is no folder .*images: name the unpa",
        ),
        (lambda f: put(f, "images/000012.png", b""), ValueError, r"holds 000012\.png, small only 12 images: name its"),
        (lambda f: put(f, "images/000007.png", b"no"), ValueError, r"000007\.png is not a whole image .*: unpack the"),
        (
            lambda f: rewrite(f / "images/000007.png", lambda w: w[: len(w) // 2]),
            ValueError,
            r"000007\.png is not a wh",
        ),
        (
            lambda f: PIL.Image.new("RGB", (64, 32)).save(f / "images/000007.png"),
            ValueError,
            r"has \(64, 32\) pixels, ex",
        ),
        (
            lambda f: PIL.Image.new("RGB", (64, 32)).save(f / "images/000000.png"),
            ValueError,
            r"000000\.png has \(64, 32",
        ),
        (lambda f: put(f, "labels.npy", b"0.5 0.5\n"), ValueError, r"labels\.npy is no array in npy format .*: unpack"),
        (lambda f: put(f, "labels.npy", pickle.dumps([0.5])), ValueError, r"labels\.npy is no array in npy format"),
        (
            lambda f: np.save(f / "labels.npy", grid_labels()[:, :2]),
            ValueError,
            r"holds labels \(12, 2\) of float64, exp",
        ),
        (
            lambda f: np.save(f / "labels.npy", grid_labels().astype(int)),
            ValueError,
            r"holds labels \(12, 3\) of int64",
        ),
    ],
)
def test_a_folder_that_is_incomplete_or_damaged_is_told_so(folder, spoil, error, message):
    spoil(folder)
    with pytest.raises(error, match=message):
        FactorFolder(folder, SPACE, "small").frames(INDEX)


def test_an_image_that_goes_away_is_missing_not_damaged_and_size_is_positive(folder):
    reader = FactorFolder(folder, SPACE, "small")
    remove(folder, 7)
    with pytest.raises(FileNotFoundError, match=r"000007\.png is not a whole image"):
        reader.frames(INDEX)
    with pytest.raises(ValueError, match="at least 1 pixel along each side, got 0"):
        FactorFolder(folder, SPACE, "small", size=0)


# --- rendering into a file ----------------------------------------------------------------------------------------


class Tiny(Shapes3DLite):
    title, space = "tiny", FactorSpace(SHAPES3D.names, (2, 1, 2, 2, 3, 2))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(files, "PART", 10)


def test_the_file_has_the_layout_of_3dshapes_and_the_pixels_of_the_scene(tmp_path):
    scene = Tiny(64)
    path = render_file(scene, tmp_path / "new folder" / "tiny.h5", progress=False)
    index = torch.arange(48)
    with h5py.File(path) as file:
        assert {name: (array.dtype.name, array.shape) for name, array in file.items()} == {
            "images": ("uint8", (48, 64, 64, 3)), "labels": ("float64", (48, 6)),
        }  # fmt: skip
        assert (file["images"].chunks, file["images"].compression) == ((1, 64, 64, 3), "gzip")
        images, labels = file["images"][:], file["labels"][:]
    assert (images == scene.frames(index).permute(0, 2, 3, 1).numpy()).all()
    steps = np.array([0.0, 1.0])
    grid = np.meshgrid(steps, [0.0], steps, steps, [0.0, 0.5, 1.0], steps, indexing="ij")
    assert (labels == np.stack([axis.ravel() for axis in grid], -1)).all()
    assert [entry.name for entry in path.parent.iterdir()] == ["tiny.h5"]
    assert torch.equal(Shapes3DFile(path, space=Tiny.space).frames(index), scene.frames(index))


def test_labels_of_the_whole_grid_are_those_of_the_published_file():
    floor, wall, hue, scale, shape, orientation = label_values(SHAPES3D)
    assert floor.tolist() == wall.tolist() == hue.tolist() == pytest.approx([i / 10 for i in range(10)])
    assert scale.tolist() == pytest.approx([0.75 + 0.5 * i / 7 for i in range(8)])
    assert shape.tolist() == [0, 1, 2, 3]
    assert orientation.tolist() == pytest.approx([-30 + 60 * i / 14 for i in range(15)])


def test_an_interrupted_rendering_goes_on_where_it_stopped_and_leaves_no_half_file(tmp_path, monkeypatch):
    path, rendered, original = tmp_path / "tiny.h5", [], Tiny.frames

    def frames(self, index, chunk=32):
        if len(rendered) == 20:
            raise KeyboardInterrupt
        rendered.extend(index.tolist())
        return original(self, index, chunk)

    monkeypatch.setattr(Tiny, "frames", frames)
    with pytest.raises(KeyboardInterrupt):
        render_file(Tiny(8), path, progress=False)
    assert not path.exists()
    assert rendered == list(range(20))
    rendered.append(-1)
    render_file(Tiny(8), path, progress=False)
    assert rendered[21:] == list(range(20, 48))
    with h5py.File(path) as file:
        assert (file["images"][:] == original(Tiny(8), torch.arange(48)).permute(0, 2, 3, 1).numpy()).all()


def test_damaged_parts_are_named_and_only_they_are_rendered_again(tmp_path, monkeypatch):
    path, rendered, original, folder = tmp_path / "tiny.h5", [], Tiny.frames, tmp_path / "tiny.h5.parts"
    monkeypatch.setattr(files, "_assemble", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        render_file(Tiny(8), path, progress=False)
    whole, flips = (folder / "000010.h5").read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        n, bit = int(flips.integers(len(whole))), int(flips.integers(8))
        (folder / "000010.h5").write_bytes(whole[:n] + bytes([whole[n] ^ 1 << bit]) + whole[n + 1 :])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if files._images_of(folder / "000010.h5", Tiny(8)):
                with h5py.File(folder / "000010.h5") as file:
                    found = torch.from_numpy(file["images"][()]).permute(0, 3, 1, 2)
                assert torch.equal(found, original(Tiny(8), torch.arange(10, 20)))
    (folder / "000010.h5").write_bytes(whole[:-100])
    (folder / "000030.h5").write_bytes(b"")
    monkeypatch.undo()
    monkeypatch.setattr(files, "PART", 20)  # a part that is made again ends where the next begins
    monkeypatch.setattr(Tiny, "frames", lambda *a: rendered.extend(a[1].tolist()) or original(*a))
    with pytest.warns(UserWarning, match=r"0000[13]0\.h5 is damaged: its images are rendered again") as found:
        render_file(Tiny(8), path, progress=False)
    assert (len(found), rendered) == (2, [*range(10, 20), *range(30, 40)])
    with h5py.File(path) as file:
        assert (file["images"][:] == original(Tiny(8), torch.arange(48)).permute(0, 2, 3, 1).numpy()).all()


def test_a_full_disk_is_named_and_parts_are_kept(tmp_path, monkeypatch):
    path, usage = tmp_path / "tiny.h5", shutil.disk_usage
    monkeypatch.setattr(files.shutil, "disk_usage", lambda place: usage(place)._replace(free=1000))
    with pytest.raises(OSError, match=r"cannot write .* GB are needed, 0\.000 GB are free.*\. Free some space"):
        render_file(Tiny(8), path, progress=False)
    monkeypatch.undo()
    monkeypatch.setattr(files, "_write_part", lambda *_, **__: pytest.fail("a part rendered again"))
    render_file(Tiny(8), path, progress=False)
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_ends_when_its_time_is_over(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PART_SECONDS", -1.0)
    monkeypatch.setattr(files, "PART", 100)
    monkeypatch.setattr(files, "_assemble", lambda path, parts, **_: [1 / 0 for part in parts[1:]] or path.touch())
    monkeypatch.setattr(files, "STEP", 20)
    with pytest.raises(ZeroDivisionError):
        render_file(Tiny(8), tmp_path / "tiny.h5", progress=False)
    names = [file.name for file in sorted((tmp_path / "tiny.h5.parts").glob("*.h5"))]
    assert names == ["000000.h5", "000020.h5", "000040.h5"]


def test_a_file_that_is_there_and_parts_of_another_scene_are_left_alone(tmp_path, monkeypatch):
    path = tmp_path / "tiny.h5"
    path.write_text("precious")
    with pytest.raises(ValueError, match=r"tiny\.h5 exists: choose another file with --out"):
        render_file(Tiny(8), path, progress=False)
    assert path.read_text() == "precious"
    path.unlink()
    (tmp_path / "tiny.h5.parts").mkdir()
    with held(tmp_path / "tiny.h5.parts"), pytest.raises(ValueError, match=r"tiny\.h5\.parts is in use by process"):
        render_file(Tiny(8), path, progress=False)
    monkeypatch.setattr(Tiny, "frames", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        render_file(Tiny(8), path, progress=False)
    with pytest.raises(ValueError, match="holds parts of tiny, 8 px, not of tiny, 16 px"):
        render_file(Tiny(16), path, progress=False)
