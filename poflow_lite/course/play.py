"""The page on which visitors play with a trained model in their browser, with all that it needs, in one folder.

The page is in ``docs/play``: plain HTML, CSS and JavaScript. Beside it come the model as three ONNX graphs, digits to
begin with, two planes to see codes in, and onnxruntime-web, which runs the graphs. Any server of files can show it.
"""

from __future__ import annotations

import gzip
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poflow_lite.datasets import AllAtOnce, load_images, load_sequences
from poflow_lite.datasets.places import PACKAGE
from poflow_lite.experiments import load_pretrained
from poflow_lite.io import prepare_folder, write_atomically

MODEL, DATA, PAGE = "mnist-10k-play", "mnist-10k", Path("docs/play")
TOLERANCE = 1e-4
"""By how much an exported graph may differ from PyTorch, in any number it returns."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_LOADER, _WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
_NOTICE = "{name} {version}: Copyright (c) Microsoft Corporation, and given on under the MIT License.\n\n{permission}"


def write(out: str | Path, runtime: str | Path | None = None, home: str | None = None) -> list[Path]:
    """Write the page and all that it needs into a folder; it then works without a network.

    Args:
        out: the folder, to be shown by any server of files (``python -m http.server``).
        runtime: the folder ``dist`` of the npm package onnxruntime-web; by default where ``npm ci`` puts it.
        home: address of a page to link back to, seen from the folder.

    Returns:
        The files.

    Raises:
        ValueError: without the packages that export, or for a graph that differs from PyTorch.
        FileNotFoundError: outside of the repository, or without onnxruntime-web.
        OSError: if the folder cannot be written to.
    """
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise ValueError(f'the page needs {", ".join(missing)}: pip install -e ".[site]" in the repository')
    page = next((root / PAGE for root in (Path(), PACKAGE.parent) if (root / PAGE / "index.html").is_file()), None)
    if page is None:
        raise FileNotFoundError(f"there is no {PAGE} in {Path.cwd()}: run this in the repository's root")
    runtime = Path(runtime or page / "node_modules/onnxruntime-web/dist")
    if lacking := [name for name in (_LOADER, _WASM) if not (runtime / name).is_file()]:
        raise FileNotFoundError(f"no {lacking[0]} in {runtime}: run `npm ci` in {page}, which needs a network once")
    out, model = prepare_folder(out), load_pretrained(MODEL, "cpu").model
    files = export_model(model, out / "model")
    files.append(out / "play.json")
    write_atomically(files[-1], lambda path: path.write_text(json.dumps(describe(model)), encoding="utf-8"))
    for source in sorted(file for file in page.iterdir() if file.suffix in (".css", ".js")):
        files.append(Path(shutil.copyfile(source, out / source.name)))
    files.append(out / "index.html")
    link = f'<p><a href="{home}">← The course</a></p>' if home else ""
    html = (page / "index.html").read_text(encoding="utf-8").replace("<!-- home -->", link)
    files[-1].write_text(html, encoding="utf-8")
    return files + _copy_runtime(runtime, page, out / "runtime")


def _copy_runtime(runtime: Path, page: Path, out: Path) -> list[Path]:
    """onnxruntime-web with its licence: one thread, no GPU; packed, which leaves a quarter of its size."""
    prepare_folder(out)
    loader, packed, notice = out / "ort.mjs", out / "ort.wasm.gz", out / "LICENCE.txt"
    shutil.copyfile(runtime / _LOADER, loader)
    packed.write_bytes(gzip.compress((runtime / _WASM).read_bytes(), mtime=0))
    package = json.loads((runtime.parent / "package.json").read_text(encoding="utf-8"))
    permission = (page.parents[1] / "LICENSE").read_text(encoding="utf-8")  # ours is the MIT License too
    permission = permission[permission.index("Permission is hereby granted") :]
    said = _NOTICE.format(name=package["name"], version=package["version"], permission=permission)
    notice.write_text(said, encoding="utf-8")
    return [loader, packed, notice]


# --- the model as three graphs ------------------------------------------------------------------------------------


class _Encoder(nn.Module):
    """x (n, C, H, W) ↦ the code z (n, d): the mean of q(z | x)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.encoder(x).chunk(2, -1)[0]


class _Step(_Encoder):
    """z_{t+1} = z_t + v(z_t, t, y): (n, d), for weights y (n, K) and times t (n,) from 0 to T - 1."""

    def forward(self, z: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return z + self.model.flow.field.velocity(z, t, y)


class _Decoder(_Encoder):
    """z (n, d) ↦ the picture (n, C, H, W), pixels in [0, 1]: the mean of p(x | z) under a Bernoulli likelihood."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.model.decoder(z))


def export_model(model: nn.Module, out: str | Path) -> list[Path]:
    """Write encoder, one step of the flow and decoder as ONNX graphs: a step for one code, the others for any number.

    Args:
        model: a flow-factorized VAE on binary images whose flow makes one Euler step a frame.
        out: folder of ``encoder.onnx``, ``step.onnx`` and ``decoder.onnx``.

    Raises:
        ValueError: if a graph returns anything else than PyTorch does, by more than :data:`TOLERANCE`.
    """
    out, generator, field = prepare_folder(out), torch.Generator().manual_seed(0), model.flow.field
    x = torch.rand(5, *model.encoder.image_shape, generator=generator)
    z = 2 * torch.randn(5, field.latent, generator=generator)
    y = 2 * torch.rand(5, field.transformations, generator=generator) - 1
    points = [{"z": z[[t]], "y": y[[t]], "t": torch.tensor([float(t)])} for t in range(5)]
    ends = [model.flow.step(point["z"], t, point["y"]) for t, point in enumerate(points)]
    tried: dict[str, tuple[type[_Encoder], list[dict[str, Tensor]], list[Tensor]]] = {
        "encoder": (_Encoder, [{"x": x}, {"x": x[:1]}], [model.encode(x).mean, model.encode(x[:1]).mean]),
        "step": (_Step, points, ends),
        "decoder": (_Decoder, [{"z": z}, {"z": z[:1]}], [model.decode(z).mean, model.decode(z[:1]).mean]),
    }
    files = []
    for name, (part, inputs, wanted) in tried.items():
        files.append(_export(part(model).eval(), inputs[0], out / f"{name}.onnx"))
        pairs = zip((run_graph(files[-1], given) for given in inputs), wanted, strict=True)
        apart = max((found - expected).abs().max().item() for found, expected in pairs)
        if not apart <= TOLERANCE:
            raise ValueError(
                f"{files[-1]} differs from PyTorch by {apart:.1e}, at most {TOLERANCE:.0e} is expected: "
                "try other versions of torch and onnx"
            )
    return files


def _export(part: nn.Module, inputs: dict[str, Tensor], path: Path) -> Path:
    """One graph in one file, without the paths of this machine that the exporter notes in it.

    Where the inputs hold several samples, the graph takes any number; where they hold one, just one.
    """
    import onnx

    free = {name: {0: torch.export.Dim("n")} if len(value) > 1 else None for name, value in inputs.items()}
    names = {"input_names": list(inputs), "output_names": ["found"]}
    program = torch.onnx.export(part, tuple(inputs.values()), dynamo=True, dynamic_shapes=free, verbose=False, **names)
    graph = program.model_proto
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (graph, graph.graph, *graph.graph.value_info, *graph.graph.initializer):
        del value.metadata_props[:]
    onnx.checker.check_model(graph)
    path.write_bytes(graph.SerializeToString(deterministic=True))
    return path


def run_graph(path: str | Path, inputs: dict[str, Tensor]) -> Tensor:
    """What onnxruntime finds for an exported graph, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {name: value.numpy() for name, value in inputs.items()})[0])


# --- what the page knows besides ----------------------------------------------------------------------------------


def describe(model: nn.Module, each: int = 4, dots: int = 900) -> dict[str, Any]:
    """Sizes, names, the truth's amounts for each frame, digits to begin with, and planes with training codes.

    Args:
        model: the one that is exported.
        each: how many test images of each class come along: the first ones.
        dots: how many training images are seen in the planes.
    """
    training = AllAtOnce(load_sequences(DATA, "train", start="random"))
    test = load_images(DATA, "test")
    clock = torch.arange(training.horizon + 1.0)
    amounts = torch.stack([each.path(clock) for each in training.transformations], 1)
    chosen = torch.stack([(test.labels == label).nonzero()[:each, 0] for label in range(10)], 1).flatten()
    planes, hues = _planes(model, training, dots)
    return {
        "latent": model.flow.field.latent,
        "horizon": training.horizon,
        "names": training.names,
        "amounts": amounts.tolist(),
        "source": test.source,
        "examples": [{"label": int(test.labels[i]), "pixels": _packed(test.images[i, 0])} for i in chosen],
        "hues": hues,
        "planes": planes,
    }


def _packed(image: Tensor) -> str:
    """A grey image (H, W) as bytes, row by row, in base 64."""
    from base64 import b64encode

    return b64encode((255 * image).round().byte().numpy().tobytes()).decode()


def _planes(model: nn.Module, training: AllAtOnce, dots: int) -> tuple[list[dict[str, Any]], list[int]]:
    """The plane in which codes of images at rest differ most, with their hues, and that of angle and size.

    The second is spanned by the directions in which least squares read angle and log of the size of codes on their way.
    A plane holds two directions (2, d) and offsets (2,), so that ``directions @ z + offset`` lies in [0, 1] for nearly
    all codes on their way, and the dots (n, 2) in the same measure. Hues (n,) are in degrees.
    """
    generator = torch.Generator().manual_seed(0)
    indices, speeds = training.draw(2000, generator)
    start = training.start_pose(len(indices), generator)
    still = torch.zeros(len(indices), 1, len(training.names))
    rest = model.encode(training.render(training.images[indices], still, start)[:, 0]).mean
    clock = torch.arange(training.horizon + 1)
    way = model.rollout(rest, speeds, clock.tolist()).z.flatten(0, 1)
    moved = training.progress(speeds, clock.expand(len(indices), -1)) + start[:, None]
    turned = moved.flatten(0, 1)[:, [1, 0]] * torch.tensor([-1.0, 1.0])  # a turn to the left goes to the left
    most = torch.linalg.svd(rest - rest.mean(0), full_matrices=False).Vh[:2]
    best = torch.linalg.lstsq(way - way.mean(0), turned - turned.mean(0)).solution.T
    some = torch.randperm(len(way), generator=generator)[:dots]
    planes = [_plane(most, rest[:dots], way, True), _plane(best, way[some], way, False)]
    return planes, start[:dots, 2].round().int().tolist()


def _plane(directions: Tensor, codes: Tensor, way: Tensor, coloured: bool) -> dict[str, Any]:
    """One plane, as :func:`_planes` says; the two directions of the one that is coloured have one measure."""
    low, high = (way @ directions.T).quantile(torch.tensor([0.002, 0.998]), 0)
    reach = (1.4 * (high - low).max()).expand(2) if coloured else 1.15 * (high - low)
    directions, offset = directions / reach[:, None], 0.5 - (low + high) / 2 / reach
    place = (codes @ directions.T + offset).tolist()
    plane = {"coloured": coloured, "directions": directions.tolist(), "offset": offset.tolist()}
    return {**plane, "dots": [[round(x, 3), round(y, 3)] for x, y in place]}
