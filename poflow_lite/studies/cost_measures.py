"""What a training step costs: its time and memory against one size, and the multiplications that a formula counts.

Neither depends on what the images show, so all is measured on noise, which leaves K, T and the resolution free.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from joblib.externals.loky import ProcessPoolExecutor  # its processes do not run the caller's script again
from torch import Tensor, nn

from poflow_lite.datasets import Batch
from poflow_lite.experiments import Recipe, build_model, recipe
from poflow_lite.networks import PATCH
from poflow_lite.training import resolve_device

AXES: dict[str, tuple[int, ...]] = {
    "latent": (32, 64, 128, 256),
    "horizon": (4, 8, 16, 32),
    "transformations": (2, 4, 8, 16),
    "batch_size": (16, 32, 64, 128),
    "pixels": (16, 32, 48, 64),
}
"""Size ↦ the values at which it is measured: d, T, K, B, and pixels along each side of an image."""

COLOURS, STANDARD_K = 3, 3

Work = Callable[[], None]


def settings_at(
    model: str, axis: str, value: int, data: str = "digits", budget: str = "lecture", **changes: Any
) -> tuple[Recipe, int]:
    """The recipe of a model with one size set, and K, which is no part of a recipe: 3 unless it is the axis.

    Any number of a recipe may be the axis; a ValueError for an unknown name or a value that is not 1, 2, ….
    """
    if value != int(value) or value < 1:
        raise ValueError(f"{axis} must be a whole number of at least 1, got {value}")
    if axis == "transformations":
        return recipe(data, budget, model, **changes), int(value)
    return recipe(data, budget, model, **{**changes, axis: int(value)}), STANDARD_K


def noise_batch(settings: Recipe, transformations: int, generator: torch.Generator) -> Batch:
    """A training batch whose pixels and k are drawn at random: frames 0, 1, ..., S, which suit all models."""
    size, count = settings.batch_size, settings.frames + 1
    frames = torch.rand(size, count, COLOURS, settings.pixels, settings.pixels, generator=generator)
    k = torch.randint(transformations, (size,), generator=generator)
    return Batch(frames, torch.arange(count).expand(size, -1), k, settings.horizon)


def _whole(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
    return model.terms(batch, generator).loss


def _transport(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
    """Latents carried through T frames with their densities."""
    size = len(batch), model.flow.field.latent
    z = torch.randn(size, generator=generator, device=batch.frames.device, requires_grad=True)
    trajectory = model.rollout(z, batch.k, range(batch.horizon + 1))
    return trajectory.z.square().sum() + trajectory.log_det.sum()


def _networks(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
    """As many images encoded and decoded as in a step, 2 B and (S + 2) B."""
    extra = 1 if model.autoencoding else 0
    means = model.encode(batch.frames[:, : 1 + extra].flatten(0, 1)).mean
    decoded = torch.cat([batch.frames, batch.frames[:, :extra]], 1).flatten(0, 1)
    rows = torch.arange(len(decoded), device=means.device) % len(means)
    return -model.decode(means[rows]).log_prob(decoded).mean()


def on_noise(
    model: str, settings: Recipe, transformations: int, device: torch.device, loss: Callable[..., Tensor] = _whole
) -> Work:
    """A function that takes a training step of a fresh model on one batch of noise, or differentiates a part of it."""
    batch = noise_batch(settings, transformations, torch.Generator().manual_seed(0)).to(device)
    built = build_model(model, settings, (COLOURS, settings.pixels, settings.pixels), transformations)
    optimizer = torch.optim.Adam(built.to(device).train().parameters(), betas=(0.9, 0.99))
    generator = torch.Generator(device).manual_seed(0)

    def step() -> None:
        optimizer.zero_grad()
        loss(built, batch, generator).backward()
        if loss is _whole:
            optimizer.step()

    return step


def in_turns(work: Mapping[Hashable, Work], rounds: int, device: torch.device) -> dict[Hashable, list[float]]:
    """Milliseconds of each piece of work, by the clock on the wall, ``rounds`` times.

    All take turns, so that a busy machine slows all alike. A first turn is not counted: it allocates and fills caches.
    """
    taken: dict[Hashable, list[float]] = {name: [] for name in work}
    for _ in range(rounds + 1):
        for name, step in work.items():
            began = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            taken[name].append(1e3 * (time.perf_counter() - began))
    return {name: times[1:] for name, times in taken.items()}


def step_times(
    models: Iterable[str],
    axis: str,
    values: Sequence[int],
    *,
    rounds: int = 7,
    parts: bool = True,
    device: str = "cpu",
    **recipe_of: Any,
) -> dict[str, Any]:
    """Milliseconds of a training step on noise, drawing and rendering left out, against one size.

    Args:
        models: of :data:`experiments.MODELS`; at all values they are in memory at once.
        axis, values: a size, and two values or more; the other sizes are those of the recipe, and K = 3.
        rounds: repetitions.
        parts: time :data:`PARTS` too.
        recipe_of: "data", "budget" and what differs from their recipe, for :func:`settings_at`.

    Returns:
        As JSON: "curves", model or part ↦ medians "measured", "quartiles" and fitted "exponent", and "formula", part ↦
        "operations" of its forward pass and their "exponent".
    """
    if len(set(values)) != len(values) or len(values) < 2 or rounds < 1:
        raise ValueError(f"steps are timed at two or more different values, in one round or more, got {list(values)}")
    chosen, formula, curves = resolve_device(device), {}, {}
    timed = {name: (name, _whole) for name in models}
    for name, (loss, count) in PARTS.items() if parts else ():
        timed[name] = ("flow-factorized", loss)
        operations = [count(*settings_at("flow-factorized", axis, value, **recipe_of)) for value in values]
        formula[name] = {"operations": operations, "exponent": fit_exponent(values, operations).slope}
    work = {
        (name, value): on_noise(model, *settings_at(model, axis, value, **recipe_of), chosen, loss)
        for name, (model, loss) in timed.items()
        for value in values
    }
    taken = in_turns(work, rounds, chosen)
    for name in timed:
        repeated = np.array([taken[name, value] for value in values]).T  # (R, n)
        curves[name] = _curve(values, repeated) | {"quartiles": np.quantile(repeated, [0.25, 0.75], 0).T.tolist()}
    return {"curves": curves, "formula": formula}


def _curve(values: Sequence[int], repeated: np.ndarray) -> dict[str, Any]:
    exponent = fit_exponent(values, repeated)._asdict() if repeated.min() > 0 else None
    return {"measured": np.median(repeated, 0).tolist(), "exponent": exponent}


class Exponent(NamedTuple):
    """How steeply something grows: p in value^p, and between which it lies, by the repetitions (95 %)."""

    slope: float
    low: float
    high: float


def fit_exponent(values: Sequence[float], times: Any, last: int = 3, resamples: int = 500, seed: int = 0) -> Exponent:
    """Least-squares slope of log time on log value at the large end: p where time ∝ value^p.

    Only the largest ``last`` of the n ``values`` count, because small ones measure the overhead of a call. An overhead
    a in a + b v^p that still matters there pulls the slope below p, to p b v^p / (a + b v^p). ``times`` are (n,), or
    (R, n) for R repetitions, whose medians are fitted; the interval is that of ``resamples`` redraws of them.
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


def transport_operations(settings: Recipe, transformations: int = STANDARD_K) -> float:
    """Multiplications of a rollout with exact densities, O(T B (K m d + K m d² + d³)), forward.

    For each of T B points: W z, K m d; ∇u from it, K (m + d) d, and C φ̂, d f; for the density h = W z + V φ̂ again,
    K m (d + f), the Hessian, one matrix product of K m d² + K d², and log |det(I + H)| by an LU factorisation, d³/3.
    Once a rollout, V φ̂ for T times and C for B samples. Here f = 2 + 2 F features of t. All K potentials are evaluated
    for every sample. Below d = 3 K m the Hessian costs more than its factorisation.
    """
    d, m, k, f = settings.latent, settings.width, transformations, 2 + 2 * settings.frequencies
    gradient = k * m * d + k * (m + d) * d + d * f
    hessian = k * m * (d + f) + k * m * d**2 + k * d**2
    once = settings.horizon * k * m * f + settings.batch_size * k * d * f
    return settings.horizon * settings.batch_size * (gradient + hessian + d**3 / 3) + once


def network_operations(settings: Recipe, transformations: int = STANDARD_K) -> float:
    """Multiplications with which a step of the flow-factorized VAE encodes 2 B and decodes (S + 2) B images, forward.

    K does not enter. A convolution that halves the resolution takes 4² c c' products for each of its coarse pixels, and
    the transposed one as many. With p² pixels a patch, an encoder of patches takes p² c c' products for each, and a
    decoder 3² as many. Without the autoencoding term it is one image less, both times.
    """
    channels, extra = (COLOURS, *settings.channels), 1 if settings.options.get("autoencoding") else 0
    if settings.network == "patches":
        coarse = (settings.pixels // PATCH) ** 2
        encode = PATCH**2 * COLOURS * settings.channels[0] * coarse
        decode = 3**2 * encode
    else:
        sides = [settings.pixels // 2 ** (i + 1) for i in range(len(settings.channels))]
        coarse = sides[-1] ** 2
        encode = decode = sum(16 * a * b * side**2 for a, b, side in zip(channels, channels[1:], sides, strict=False))
    dense = settings.channels[-1] * coarse * settings.hidden
    encode, decode = (
        convolved + dense + settings.hidden * numbers * settings.latent
        for convolved, numbers in ((encode, 2), (decode, 1))
    )
    return settings.batch_size * ((1 + extra) * encode + (settings.frames + 1 + extra) * decode)


TRANSPORT, NETWORKS = "flow-factorized: transport alone", "flow-factorized: encoder and decoder alone"
PARTS: dict[str, tuple[Callable[..., Tensor], Callable[..., float]]] = {
    TRANSPORT: (_transport, transport_operations),
    NETWORKS: (_networks, network_operations),
}
"""Part of a step of the flow-factorized VAE ↦ what is differentiated, and the multiplications of its forward pass."""


def step_memory(models: Iterable[str], axis: str, values: Sequence[int], **recipe_of: Any) -> dict[str, Any]:
    """:func:`peak_memory` of every model against one size, in the form of :func:`step_times`."""
    taken = {m: [peak_memory(m, *settings_at(m, axis, value, **recipe_of)) for value in values] for m in models}
    return {"curves": {name: _curve(values, np.array([needed])) for name, needed in taken.items()}, "formula": {}}


def peak_memory(model: str, settings: Recipe, transformations: int = STANDARD_K, steps: int = 3) -> float:
    """MiB that a few training steps on the CPU need on top of a process that has imported and built.

    Measured in a fresh process, with as many threads as this one: the largest resident set while it takes the steps,
    less the resident set just before. It holds gradients, the state of Adam and activations, not the weights. On Linux
    the largest set is read from /proc, where it can be reset, since getrusage there never falls below what the parent
    process had; elsewhere it is the growth of getrusage's ``ru_maxrss``. What goes wrong there is raised here.
    """
    with ProcessPoolExecutor(1) as fresh:
        return fresh.submit(_needed, model, settings, transformations, steps, torch.get_num_threads()).result()


def _needed(model: str, settings: Recipe, transformations: int, steps: int, threads: int) -> float:
    torch.set_num_threads(threads)
    step = on_noise(model, settings, transformations, torch.device("cpu"))
    with contextlib.suppress(OSError):  # a kernel may forbid it, or have none: then the imports' peak is a lower bound
        Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    for _ in range(steps):
        step()
    return max(0.0, _resident("VmHWM") - before)


def _resident(entry: str) -> float:
    """Resident set now (VmRSS) or the largest since the record began (VmHWM), MiB; without /proc always the largest."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{entry}:")) / 2**10
    import resource  # Windows has none

    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
