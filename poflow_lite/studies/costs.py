"""What a training step costs: its time and memory against one size at a time, and the exponents with which they grow.

Neither depends on what the images show, so all is measured on noise: that leaves the number of transformations, the
horizon and the resolution free. Drawing and rendering a batch is not part of the step that is timed here.

The formula for flow and networks, in multiplications of a forward pass, is :func:`transport_operations` and
:func:`network_operations`: the first grows with d, T, K and B and not with the images, the second with B and the images
and (but for two thin layers) not with d, T or K, since S frames of a sequence are decoded whatever its length.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from poflow_lite.datasets import Batch
from poflow_lite.errors import require_known
from poflow_lite.models import VAE
from poflow_lite.recipes import MODELS, Recipe, build_model, recipe
from poflow_lite.training import resolve_device

__all__ = [
    "AXES",
    "NETWORKS",
    "TRANSPORT",
    "Exponent",
    "StepTimes",
    "fit_exponent",
    "network_operations",
    "noise_batch",
    "peak_memory",
    "settings_at",
    "step_time",
    "transport_operations",
]

AXES: dict[str, tuple[int, ...]] = {
    "latent": (32, 64, 128, 256),
    "horizon": (4, 8, 16, 32),
    "transformations": (2, 4, 8, 16),
    "batch_size": (16, 32, 64, 128),
    "pixels": (16, 32, 48, 64),
}
"""Size ↦ the values at which it is measured: d, T, K, B, and pixels along each side of an image."""

TRANSPORT, NETWORKS = "flow-factorized: transport alone", "flow-factorized: encoder and decoder alone"
"""Names of the two parts of a step of the flow-factorized VAE that are timed by themselves."""

COLOURS = 3


# --- one place among the sizes ------------------------------------------------------------------------------------


def settings_at(
    model: str, axis: str, value: int, data: str = "digits", budget: str = "lecture", **changes: Any
) -> tuple[Recipe, int]:
    """The recipe of a model with one size set, and K, which is no part of a recipe: 3 unless it is the axis.

    Raises:
        ValueError: for an unknown axis, model or setting, or a value that is not a whole number of at least 1.
    """
    require_known("axis", axis, AXES)
    if value != int(value) or value < 1:
        raise ValueError(f"{axis} must be a whole number of at least 1, got {value}")
    if axis == "transformations":
        return recipe(data, budget, model, **changes), int(value)
    settings = recipe(data, budget, model, **{**changes, axis: int(value)})
    if settings.horizon < settings.frames:
        raise ValueError(f"a horizon of {settings.horizon} has no {settings.frames} frames to draw: use larger values")
    return settings, 3


def noise_batch(settings: Recipe, transformations: int, generator: torch.Generator) -> Batch:
    """A batch of the size of a training batch whose pixels and k are drawn at random: frames 0, 1, ..., S.

    A model takes as long for it as for real images; frames that follow one another suit all models.
    """
    size, count = settings.batch_size, settings.frames + 1
    frames = torch.rand(size, count, COLOURS, settings.pixels, settings.pixels, generator=generator)
    k = torch.randint(transformations, (size,), generator=generator)
    return Batch(frames, torch.arange(count).expand(size, -1), k, settings.horizon)


def _build(model: str, settings: Recipe, transformations: int) -> VAE:
    return build_model(model, settings, (COLOURS, settings.pixels, settings.pixels), transformations).train()


def _step(model: VAE, batch: Batch) -> Callable[[], None]:
    """A function that takes one training step: loss, gradient, Adam."""
    device = batch.frames.device
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.99))
    generator = torch.Generator(device).manual_seed(0)

    def step() -> None:
        optimizer.zero_grad()
        model.terms(batch, generator).loss.backward()
        optimizer.step()

    return step


def _transport(model: VAE, batch: Batch) -> Callable[[], None]:
    """A function that follows a batch of latents through T frames with their densities, and differentiates both."""
    device = batch.frames.device
    z = torch.randn(len(batch), model.flow.potential.latent, generator=torch.Generator(device).manual_seed(0),
                    device=device, requires_grad=True)  # fmt: skip

    def carry() -> None:
        model.zero_grad()
        path = model.transport(z, batch.k, batch.horizon)
        (path.z.square().sum() + path.log_det.sum()).backward()

    return carry


def _networks(model: VAE, batch: Batch) -> Callable[[], None]:
    """A function that encodes and decodes as many images as a step does, and differentiates: 2 B and (S + 2) B."""
    extra = 1 if model.autoencoding else 0
    encoded = batch.frames[:, : 1 + extra].flatten(0, 1)
    decoded = torch.cat([batch.frames, batch.frames[:, :extra]], 1).flatten(0, 1)

    def code() -> None:
        model.zero_grad()
        means = model.encode(encoded).mean
        rows = torch.arange(len(decoded), device=means.device) % len(means)
        (-model.decode(means[rows]).log_prob(decoded)).mean().backward()

    return code


# --- time ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exponent:
    """How steeply something grows.

    Attributes:
        slope: p, of log time on log value.
        low, high: between which it lies, as far as the repetitions tell (95 %); both ``slope`` if there was only one.
    """

    slope: float
    low: float
    high: float


def fit_exponent(values: Sequence[float], times: Any, last: int = 3, resamples: int = 500, seed: int = 0) -> Exponent:
    """Least-squares slope of log time on log value at the large end: p where time ∝ value^p.

    Only the largest ``last`` values count, because small ones measure the overhead of a call. An overhead a in
    a + b v^p that still matters there pulls the slope below p, to p b v^p / (a + b v^p): compare it with the slope of a
    formula at the same values.

    Args:
        values: n ≥ 2 different positive sizes, in any order.
        times: (n,) for one measurement, or (R, n) for R repetitions, whose medians are fitted; positive.
        last: how many of the largest values.
        resamples: the interval is that of slopes from as many redraws of the R repetitions (bootstrap).
        seed: of the redraws.

    Raises:
        ValueError: for fewer than two different values, shapes that do not fit, or numbers that are not positive.
    """
    sizes, taken = np.asarray(values, float), np.atleast_2d(np.asarray(times, float))
    if len(np.unique(sizes)) < 2 or last < 2:
        raise ValueError(f"an exponent needs at least two different values, got {list(values)}, last {last}")
    if taken.ndim != 2 or taken.shape[1] != len(sizes) or len(sizes) != len(np.unique(sizes)):
        raise ValueError(f"times must be (n,) or (R, n) for n = {len(sizes)} different values, got {taken.shape}")
    if not (np.isfinite(taken).all() and (taken > 0).all() and (sizes > 0).all()):
        raise ValueError("values and times must be positive and finite")
    large = np.argsort(sizes)[-last:]
    x = np.log(sizes[large]) - np.log(sizes[large]).mean()

    def slope(repetitions: np.ndarray) -> np.ndarray:
        return np.log(np.median(repetitions, axis=-2)) @ x / (x @ x)

    drawn = np.random.default_rng(seed).integers(len(taken), size=(resamples, len(taken)))
    low, high = np.quantile(slope(taken[:, large][drawn]), [0.025, 0.975])
    return Exponent(float(slope(taken[:, large])), float(low), float(high))


@dataclass(frozen=True)
class StepTimes:
    """Times of steps against one size.

    Attributes:
        axis, values: the size that is varied, and its n values.
        milliseconds: name of a model or part ↦ (R, n), each repetition.
        formula: name of a part ↦ n numbers of multiplications in its forward pass.
        threads: of PyTorch, on a CPU.
        device: where.
    """

    axis: str
    values: tuple[int, ...]
    milliseconds: dict[str, np.ndarray]
    formula: dict[str, list[float]]
    threads: int
    device: str

    def median(self, name: str) -> list[float]:
        """Over the repetitions, milliseconds at each value."""
        return np.median(self.milliseconds[name], 0).tolist()

    def spread(self, name: str) -> list[tuple[float, float]]:
        """Lower and upper quartile over the repetitions, milliseconds at each value."""
        return [tuple(pair) for pair in np.quantile(self.milliseconds[name], [0.25, 0.75], axis=0).T.tolist()]

    def as_dict(self) -> dict[str, Any]:
        """As JSON: medians, quartiles and exponents of each curve, and of the formula."""
        curves = {
            name: {
                "milliseconds": self.median(name),
                "quartiles": self.spread(name),
                "exponent": asdict(fit_exponent(self.values, taken)),
            }
            for name, taken in self.milliseconds.items()
        }
        formula = {
            name: {"operations": counts, "exponent": fit_exponent(self.values, counts).slope}
            for name, counts in self.formula.items()
        }
        facts = {"axis": self.axis, "values": list(self.values), "threads": self.threads, "device": self.device}
        return {**facts, "curves": curves, "formula": formula}


def step_time(
    models: Iterable[str],
    axis: str,
    values: Sequence[int] | None = None,
    *,
    data: str = "digits",
    budget: str = "lecture",
    rounds: int = 7,
    parts: bool = True,
    device: str = "cpu",
    progress: bool = False,
    **changes: Any,
) -> StepTimes:
    """Milliseconds of a training step on noise against one size, the others as in a recipe (K = 3).

    All models at all values take their steps in turns, so that a busy machine slows all alike; they are all in memory
    at once. One step of each is not counted.

    Args:
        models: of :data:`recipes.MODELS`.
        axis: of :data:`AXES`.
        values: at least two of them; those of :data:`AXES` by default.
        data, budget: name the recipe.
        rounds: R, repetitions.
        parts: time transport (rollout with densities, forward and backward) and encoder with decoder of the
            flow-factorized VAE by themselves too.
        device: "auto", "cpu" or "cuda".
        progress: show a bar.
        changes: settings that differ from the recipe.

    Raises:
        ValueError: for an unknown name, or values that do not fit a model; the message says which.
    """
    from tqdm.auto import tqdm

    require_known("axis", axis, AXES)
    values = AXES[axis] if values is None else tuple(values)
    if len(set(values)) != len(values) or len(values) < 2 or rounds < 1:
        raise ValueError(f"steps are timed at two or more different values, in one round or more, got {list(values)}")
    chosen, work, formula = resolve_device(device), {}, {}
    for name in models:
        require_known("model", name, MODELS)
        work[name] = [_work(name, _step, axis, value, data, budget, chosen, changes) for value in values]
    if parts:
        for name, part in ((TRANSPORT, _transport), (NETWORKS, _networks)):
            work[name] = [
                _work("flow-factorized", part, axis, value, data, budget, chosen, changes) for value in values
            ]
        places = [settings_at("flow-factorized", axis, value, data, budget, **changes) for value in values]
        formula[TRANSPORT] = [transport_operations(settings, k) for settings, k in places]
        formula[NETWORKS] = [network_operations(settings) for settings, _ in places]
    taken = {name: np.zeros((rounds + 1, len(values))) for name in work}
    for turn in tqdm(range(rounds + 1), disable=not progress, desc=f"steps against {axis}", leave=False):
        for name, steps in work.items():
            for column, step in enumerate(steps):
                taken[name][turn, column] = _timed(step, chosen)
    taken = {name: times[1:] for name, times in taken.items()}
    return StepTimes(axis, values, taken, formula, torch.get_num_threads(), str(chosen))


def _work(
    model: str,
    make: Callable[[VAE, Batch], Callable[[], None]],
    axis: str,
    value: int,
    data: str,
    budget: str,
    device: torch.device,
    changes: dict[str, Any],
) -> Callable[[], None]:
    """What is timed of one model at one value."""
    settings, transformations = settings_at(model, axis, value, data, budget, **changes)
    batch = noise_batch(settings, transformations, torch.Generator().manual_seed(0)).to(device)
    return make(_build(model, settings, transformations).to(device), batch)


def _timed(step: Callable[[], None], device: torch.device) -> float:
    """Milliseconds, by the clock on the wall."""
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1e3 * (time.perf_counter() - began)


# --- the formula --------------------------------------------------------------------------------------------------


def transport_operations(settings: Recipe, transformations: int) -> float:
    """Multiplications of a rollout with exact densities, O(T B (K m d + K m d² + d³)), forward.

    For each of T B points: h = W z + V φ̂ twice, K m (d + f) each; ∇u from it, K m d and K d (d + f); its Hessian, one
    matrix product of K m d² + K d²; and log |det(I + H)| by an LU factorisation, d³/3. Here f = 2 + 2 F features of t.
    All K potentials are evaluated for every sample, hence the K. Below d = 3 K m building the Hessian costs more than
    factorising it.
    """
    d, m, k, f = settings.latent, settings.width, transformations, 2 + 2 * settings.frequencies
    gradient = k * m * (d + f) + k * m * d + k * d * (d + f)
    hessian = k * m * (d + f) + k * m * d**2 + k * d**2
    return settings.horizon * settings.batch_size * (gradient + hessian + d**3 / 3)


def network_operations(settings: Recipe) -> float:
    """Multiplications with which a step of the flow-factorized VAE encodes 2 B and decodes (S + 2) B images, forward.

    A convolution that halves the resolution takes 4² c c' products for each of its coarse pixels, and the transposed
    one as many; dense layers take the product of their sizes. Without the autoencoding term it is one image less, both
    times.
    """
    channels, extra = (COLOURS, *settings.channels), 1 if settings.own.get("autoencoding") else 0
    sides = [settings.pixels // 2 ** (i + 1) for i in range(len(settings.channels))]
    convolutions = sum(16 * a * b * side**2 for a, b, side in zip(channels, channels[1:], sides, strict=False))
    dense = settings.channels[-1] * sides[-1] ** 2 * settings.hidden
    encode = convolutions + dense + settings.hidden * 2 * settings.latent
    decode = convolutions + dense + settings.hidden * settings.latent
    return settings.batch_size * ((1 + extra) * encode + (settings.frames + 1 + extra) * decode)


# --- memory -------------------------------------------------------------------------------------------------------


def peak_memory(model: str, settings: Recipe, transformations: int = 3, steps: int = 3) -> float:
    """MiB that a few training steps on the CPU need on top of a process that has imported and built.

    Measured in a fresh process, with as many threads as this one: the largest resident set while it takes the steps,
    less the resident set just before. It holds gradients, the state of Adam and activations, not the weights. On Linux
    the largest set is read from /proc, where it can be reset, since getrusage there never falls below what the parent
    process had; elsewhere it is the growth of getrusage's ``ru_maxrss``.

    Args:
        model: of :data:`recipes.MODELS`.
        settings: its recipe.
        transformations: K.
        steps: how many; the state of Adam comes with the first.

    Raises:
        ValueError: for an unknown model, or settings that do not fit it.
        RuntimeError: if the process fails; the message is its last line.
    """
    require_known("model", model, MODELS)
    _build(model, settings, transformations)  # a mistake in the settings is reported from here, in words
    request = json.dumps({"model": model, "settings": asdict(settings), "transformations": transformations,
                          "steps": steps, "threads": torch.get_num_threads()})  # fmt: skip
    script = "import sys; from poflow_lite.studies.costs import _measure_memory; _measure_memory(sys.stdin.read())"
    done = subprocess.run([sys.executable, "-c", script], input=request, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"the process that measures the memory of {model} failed: {reason}")
    return float(done.stdout)


def _measure_memory(request: str) -> None:
    """In the fresh process: build, take the steps, print how many MiB they needed."""
    asked = json.loads(request)
    torch.set_num_threads(asked["threads"])
    settings = Recipe(**asked["settings"] | {"channels": tuple(asked["settings"]["channels"])})
    batch = noise_batch(settings, asked["transformations"], torch.Generator().manual_seed(0))
    step = _step(_build(asked["model"], settings, asked["transformations"]), batch)
    before = _resident_before()
    for _ in range(asked["steps"]):
        step()
    print(max(0.0, _largest_resident() - before))


_STATUS = Path("/proc/self/status")


def _resident_before() -> float:
    """Resident set now, MiB, and the record of its largest value set back to that; elsewhere the largest so far."""
    if not _STATUS.exists():
        return _largest_resident()
    with contextlib.suppress(OSError):  # a kernel may forbid it: then the record of the imports is a lower bound
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _largest_resident() -> float:
    """Largest resident set since the record began, MiB."""
    if _STATUS.exists():
        return _status("VmHWM")
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _status(name: str) -> float:
    line = next(line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024
