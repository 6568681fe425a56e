"""Runs: training a model into a folder, loading and measuring it; on objects, or by the names of a recipe."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poflow_lite import plotting
from poflow_lite.datasets import Sequences
from poflow_lite.experiments import building
from poflow_lite.experiments.building import build_model, recipe
from poflow_lite.experiments.recipes import Recipe, sequences
from poflow_lite.io import (
    command,
    held,
    load_checkpoint,
    machine,
    prepare_folder,
    versions,
    write_atomically,
    write_json,
)
from poflow_lite.metrics import (
    AboveCeiling,
    MedianFrame,
    as_asked,
    clustering_accuracy,
    equivariance_errors,
    log_likelihood,
    persistence,
    predict,
    reconstruct,
    smallest_eigenvalue,
)
from poflow_lite.settings import Count, Flag, Seed, Size, Weight, checks_arguments
from poflow_lite.training import Schedule, fit, load_weights, require_fitting, resolve_device

CHECKPOINT, CONFIG, METRICS = "checkpoint.safetensors", "config.json", "metrics.json"


# --- training -----------------------------------------------------------------------------------------------------


@checks_arguments
def train(
    model: nn.Module,
    training: Sequences,
    schedule: Schedule,
    out: str | Path,
    *,
    batch_size: Size = 32,
    frames: Size = 2,
    seed: Seed = 0,
    device: str = "auto",
    resume: Flag = False,
    overwrite: Flag = False,
    record: Mapping[str, Any] | None = None,
    save_every_seconds: Weight = 30.0,
    progress: Flag = True,
) -> Path:
    """Train a model on sequences and leave ``config.json`` and ``checkpoint.safetensors`` in ``out``.

    Args:
        model: with the methods of :class:`models.VAE`; trained in place.
        training: any sequences.
        schedule: steps and learning rate.
        out: folder of the run.
        batch_size: sequences a step.
        frames: frames decoded of each, besides frame 0.
        seed: of every draw; the model's weights are the caller's.
        device: "auto", "cpu" or "cuda".
        resume: continue an interrupted run with the same settings.
        overwrite: replace a run that is there.
        record: what else determines the run, as JSON; a run is resumed only with the same. By default the name of the
            model's class, and name, horizon and start poses of the data: options of the model belong in here.
        save_every_seconds: how much work a power failure can cost.
        progress: show a bar.

    Returns:
        The folder.

    Raises:
        ValueError, FileNotFoundError, OSError: each says what came, what was expected and what to do.
    """
    _require_clock(model, training)
    chosen, folder = resolve_device(device), prepare_folder(out)
    shape = {"image_shape": training.image_shape, "names": training.names}
    settings = {"batch_size": batch_size, "frames": frames, "seed": seed, **asdict(schedule)}
    run = {**settings, **shape, **(record or _objects(model, training))}
    run = json.loads(json.dumps(run))  # as in the file: tuples have become lists
    notes = {"data_set": training.name, "device": machine(chosen), "versions": versions(), "command": command()}

    def name_k() -> None:
        """Which index stands for which transformation was up to the run: give each its own."""
        _, matching = clustering_accuracy(model.eval(), training.first(500), seed=seed)
        model.reorder(matching)

    with held(folder):
        _make_room(folder, resume, overwrite)
        if not (folder / CHECKPOINT).exists():
            write_json(folder / CONFIG, {**run, **notes})
        if progress:
            print(f"{run.get('model', type(model).__name__)}, seed {seed}, on {training.name}, {notes['device']}")
        fit(
            model,
            partial(training.to(chosen).sample, batch_size, frames, **getattr(model, "draws", {})),
            schedule,
            seed=seed,
            device=chosen,
            checkpoint=folder / CHECKPOINT,
            run=run,
            notes=notes,
            resume=resume,
            save_every_seconds=save_every_seconds,
            progress=progress,
            finish=name_k if getattr(model, "names_k", False) else None,
        )
    return folder


def _objects(model: nn.Module, training: Sequences) -> dict[str, Any]:
    """What a run's record says of a model and data that have no recipe."""
    names = {"model": type(model).__name__, "data_set": training.name}
    return {**names, "horizon": int(training.horizon), "start": getattr(training, "start", None)}


def _require_clock(model: nn.Module, training: Sequences) -> None:
    """Refuse sequences that go on where the clock of a model's flow stands: it could learn but one velocity there."""
    field = getattr(getattr(model, "flow", None), "field", None)
    if (horizon := getattr(field, "horizon", training.horizon)) < training.horizon:
        raise ValueError(
            f"{training.name} has sequences of {training.horizon} steps, but the clock of this {type(model).__name__} "
            f"stops after {horizon}: build it with recipe(..., horizon={training.horizon})"
        )


def _make_room(folder: Path, resume: bool, overwrite: bool) -> None:
    """Refuse a folder with a run that is neither continued nor replaced; remove one that is replaced."""
    if resume and overwrite:
        raise ValueError("resume goes on with a run, overwrite replaces it: choose one of them")
    if (folder / CHECKPOINT).exists() and not (resume or overwrite):
        raise ValueError(
            f"{folder} already holds a run: continue it (--resume, resume=True), replace it (overwrite=True), or "
            "choose another folder"
        )
    if overwrite:
        for name in (CHECKPOINT, METRICS):
            (folder / name).unlink(missing_ok=True)


@checks_arguments
def train_recipe(model: str, data: str, budget: str, out: str | Path, *, seed: Seed = 0, **options: Any) -> Path:
    """:func:`train` by names: a fresh model of a recipe on a data set.

    Args:
        model, data, budget: see :data:`MODELS`, :data:`poflow_lite.datasets.DATASETS`, :data:`BUDGETS`.
        out: folder of the run.
        seed: of weights and every draw.
        options: "device", "resume", "overwrite", "save_every_seconds" and "progress" of :func:`train`; all others are
            fields of :class:`Recipe` or options of the model that differ from the budget's.
    """
    known = ("device", "resume", "overwrite", "save_every_seconds", "progress")
    how = {name: options.pop(name) for name in known if name in options}
    settings = recipe(data, budget, model, **options)
    training = sequences(data, "train", settings)
    built = build_model(model, settings, training.image_shape, len(training.names), seed)
    record = {"model": model, "data": data, "budget": budget, **asdict(settings)}
    schedule = Schedule(settings.steps, settings.learning_rate)
    drawn = {"batch_size": settings.batch_size, "frames": settings.frames}
    return train(built, training, schedule, out, seed=seed, record=record, **drawn, **how)


# --- loading ------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """A trained model with its configuration and training history; ``settings`` is ``None`` without a recipe."""

    model: nn.Module
    settings: Recipe | None
    config: dict[str, Any]
    history: list[dict[str, float]]


def load_run(place: str | Path, device: str = "auto", model: nn.Module | None = None) -> Run:
    """Load what :func:`train` left in a folder, or a checkpoint by the path of its file.

    Args:
        place: folder or file.
        device: "auto", "cpu" or "cuda".
        model: of the class that was trained, for a run without a recipe; its weights are replaced.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if its checkpoint is damaged, foreign, unfinished or does not fit the configuration.
    """
    path = Path(place) if Path(place).is_file() else Path(place) / CHECKPOINT
    saved = load_checkpoint(path)
    run, settings = saved.metadata["run"] or {}, None
    step, steps = saved.metadata["step"], run.get("steps")
    if isinstance(steps, int) and step < steps:
        raise ValueError(f"{path} stopped at step {step} of {steps}: finish it with `poflow-lite train --resume`")
    if model is None:
        lacking = [name for name in (*Recipe.__dataclass_fields__, "image_shape", "names") if name not in run]
        if lacking:
            raise ValueError(
                f"{path} was made by another version of this package, or by objects of your own "
                f"({', '.join(lacking)} missing): train again, or pass model="
            )
        model, settings = _rebuilt(path, run, saved.model)
    load_weights(model, saved.model, path)
    config = {**run, **(saved.metadata["notes"] or {})}
    return Run(model.to(resolve_device(device)).eval(), settings, config, saved.metadata["history"])


def _rebuilt(path: Path, run: dict[str, Any], weights: dict[str, Tensor]) -> tuple[nn.Module, Recipe]:
    """The model of a record and its recipe, with fresh weights.

    It is built on PyTorch's meta device first, where numbers take no memory: a record that asks for a network of
    another size than that of the file would be refused too late, when its memory is claimed.
    """
    if (name := run.get("model")) not in list(building.MODELS):
        raise ValueError(
            f"{path} holds a {name!r}, which is not registered here: call register_model first, or pass model="
        )
    try:
        fields = {name: run[name] for name in Recipe.__dataclass_fields__}
        settings = Recipe(**fields | {name: tuple(fields[name]) for name in ("channels", "left_out")})
        if settings.options.get("depth", 1) > len(weights):  # each layer has a tensor, and makes work even there
            raise ValueError("more layers than tensors")
        build = partial(build_model, run["model"], settings, tuple(run["image_shape"]), len(run["names"]), run["seed"])
        try:
            with torch.device("meta"):
                sketch = build()
        except RuntimeError:  # a model of the user's own that looks at its numbers
            return build(), settings
    except (ArithmeticError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} holds settings that make no model ({reason}): train again") from error
    require_fitting(sketch, weights, path)
    return build(), settings


# --- evaluation ---------------------------------------------------------------------------------------------------


def require_trained(model: nn.Module) -> None:
    """Raise a ValueError for a model that nobody has trained, or taken out of training mode."""
    if getattr(model, "training", False):
        raise ValueError(
            f"this {type(model).__name__} is in training mode: train it first, or call its eval() if it is trained"
        )


def possible_likelihood(model: nn.Module, sequences: Sequences, **options: Any) -> dict[str, Any] | None:
    """:func:`metrics.log_likelihood` by name; ``None`` above its ceiling, where the flow folds, or for NaN.

    A fold has two pre-images, of which the density counts one.
    """
    try:
        return asdict(log_likelihood(model, sequences, **options))
    except AboveCeiling:
        return None


@checks_arguments
def evaluate(
    model: nn.Module,
    held_out: Sequences,
    training: Sequences,
    *,
    likelihood_images: Count = 64,
    samples: Count = 100,
    median_images: Count = 2000,
    metrics: Mapping[str, Callable[[nn.Module, Sequences], Any]] | None = None,
    seed: Seed = 0,
    progress: Flag = True,
) -> dict[str, Any]:
    """Measure a trained model on sequences that it was not trained on.

    Args:
        model: with the methods of :class:`models.VAE`.
        held_out: measured.
        training: of the training split, for the median frame.
        likelihood_images, samples: for :func:`metrics.log_likelihood`, each image under one transformation, in turn, so
            that its standard error counts no image more than once.
        median_images: for :class:`metrics.MedianFrame`.
        metrics: further ones by name, functions of the model and the held-out sequences that give JSON.
        seed: of the median frame's start poses.
        progress: show bars.

    Returns:
        By name: "equivariance_error", "no_motion", "median_frame", "reconstruction_floor" and "ratio_to_no_motion", for
        each transformation, errors in L1 pixel intensities summed over frames; "log_likelihood", nats a frame, or
        ``None``, see :func:`possible_likelihood`; what else the model has, and ``metrics``.
    """
    require_trained(model)
    poses, device = torch.Generator().manual_seed(seed), next(model.parameters()).device
    references = {
        "no_motion": persistence,
        "median_frame": MedianFrame(training, median_images, poses),
        "reconstruction_floor": partial(reconstruct, model),
    }
    asked, how = as_asked(model, held_out), {"device": device, "progress": progress}
    if asked is held_out:
        errors = equivariance_errors({"equivariance_error": partial(predict, model), **references}, held_out, **how)
    else:  # a batch with the model's own coefficients has no k to look up a reference by
        errors = equivariance_errors({"equivariance_error": partial(predict, model)}, asked, **how)
        errors |= equivariance_errors(references, held_out, **how)
    for name, still in errors["no_motion"].items():
        if not still:
            raise ValueError(
                f"nothing moves under {name!r}: each frame is frame 0, and no error can be held against that"
            )
    dealt = as_asked(model, held_out.first(likelihood_images).in_turns())
    sizes = {"images": likelihood_images, "samples": samples, "progress": progress}
    found = {
        **errors,
        "ratio_to_no_motion": {k: errors["equivariance_error"][k] / errors["no_motion"][k] for k in held_out.names},
        "log_likelihood": possible_likelihood(model, dealt, **sizes),
    }
    if getattr(getattr(model, "prior", None), "transformations", None) == len(held_out.names):
        batch = held_out.sample(min(64, len(held_out)), generator=torch.Generator().manual_seed(0))
        found["smallest_eigenvalue"] = smallest_eigenvalue(model, batch)
        if hasattr(model.prior, "diffusion"):
            found["diffusion"] = dict(zip(held_out.names, model.prior.diffusion.tolist(), strict=True))
    if getattr(model, "names_k", False):
        found["clustering_accuracy"], _ = clustering_accuracy(model, held_out)
    return found | {name: metric(model, asked) for name, metric in (metrics or {}).items()}


def evaluate_run(
    folder: str | Path, *, device: str = "auto", split: str = "test", progress: bool = True, pictures: bool = True
) -> dict[str, Any]:
    """:func:`evaluate` the run of a recipe; write ``metrics.json`` and :func:`save_pictures` into its folder.

    Args:
        folder: of a finished run.
        split: "test" for figures that are reported, "validation" for choices.
        pictures: write the pictures too.

    Returns:
        The content of ``metrics.json``.

    Raises:
        ValueError: for a file, in which there is no room for figures.
    """
    if Path(folder).is_file():
        raise ValueError(f"{folder} is a file: evaluate the folder of a run, or load_pretrained(NAME) and evaluate()")
    run = load_run(folder, device)
    folder, settings, began = prepare_folder(folder), run.settings, time.perf_counter()
    training, held_out = (sequences(run.config["data"], name, settings) for name in ("train", split))
    measured = held_out.first(settings.test_images)
    sizes = {"likelihood_images": settings.likelihood_images, "samples": settings.samples}
    sizes["median_images"] = min(2000, settings.test_images)
    found = evaluate(run.model, measured, training, **sizes, seed=run.config["seed"], progress=progress)
    result = {
        **{name: run.config[name] for name in ("model", "data", "budget", "seed", "device", "versions")},
        "data_set": f"{held_out.name}, {len(measured):,} measured",
        "command": run.config["command"],
        "seconds": {"train": run.history[-1]["seconds"], "evaluate": time.perf_counter() - began},
        **found,
        "settings": {name: run.config[name] for name in Recipe.__dataclass_fields__},
    }
    write_json(folder / METRICS, result)
    if pictures:
        save_pictures(run.model, as_asked(run.model, measured), folder, f"{run.config['model']} on {held_out.name}")
    return result


def save_pictures(model: nn.Module, held_out: Sequences, folder: Path, title: str) -> None:
    """Write three pictures of a model into a folder.

    ``filmstrip.png`` has true over predicted frames of one image under each k, ``motion.gif`` the same moving, a column
    for each k, and ``traversal.gif`` predictions for several images, a row for each k.
    """
    transformations, generator = torch.arange(len(held_out.names)), torch.Generator().manual_seed(0)
    shown = [held_out.of(k)[:6] for k in range(len(held_out.names))]
    images = torch.stack([own[: min(map(len, shown))] for own in shown], 1)  # (up to 6, K)
    batch = held_out.batch(images[0], transformations, generator=generator)
    predicted, scale = predict(model, batch), max(1, 128 // held_out.image_shape[-1])
    strip = plotting.filmstrip(batch.frames, predicted, held_out.names, title)
    write_atomically(folder / "filmstrip.png", lambda path: strip.savefig(path, dpi=150, format="png"))
    moving = plotting.gif(torch.stack([batch.frames, predicted]), scale=scale)
    write_atomically(folder / "motion.gif", lambda path: path.write_bytes(moving))

    batch = held_out.batch(images.flatten(), transformations.repeat(len(images)), generator=generator)
    grid = plotting.gif(predict(model, batch).unflatten(0, (-1, len(transformations))).transpose(0, 1), scale=scale)
    write_atomically(folder / "traversal.gif", lambda path: path.write_bytes(grid))
