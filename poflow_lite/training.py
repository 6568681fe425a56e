"""One training loop for every model: Adam, warm-up and cosine decay, checkpoints that resume bit-exactly."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from poflow_lite.io import checkpoint_bytes, load_checkpoint, save_checkpoint
from poflow_lite.settings import Count, Natural, Positive, Seed, Weight, checked, checks_arguments

__all__ = ["Losses", "Schedule", "Terms", "fit", "load_weights", "require_fitting", "resolve_device", "step_generator"]


class Terms(Protocol):
    """What :func:`fit` asks of the terms of a batch, such as :class:`objectives.Terms` or :class:`Losses`."""

    loss: Tensor

    def summary(self) -> dict[str, float]:
        """Batch means by name."""
        ...


@dataclass
class Losses:
    """Named terms that are only to be minimised, already weighted.

    Attributes:
        terms: name ↦ value of each sample, (B,).
    """

    terms: dict[str, Tensor]

    @property
    def loss(self) -> Tensor:
        """Mean over the batch of the sum of all terms: a scalar."""
        return sum(self.terms.values()).mean()

    def summary(self) -> dict[str, float]:
        """Batch means of every term, by name."""
        return {name: term.mean().item() for name, term in self.terms.items()}


def resolve_device(device: str = "auto") -> torch.device:
    """The device of that name; "auto" is CUDA where there is one, else the CPU.

    Raises:
        ValueError: for another kind of device than these, or one that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    there = {"cpu": 1, "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0}
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in there:
        raise ValueError(f"unknown device {device!r}: use auto, cpu or cuda")
    if not there[chosen.type]:
        raise ValueError("this machine has no CUDA device that PyTorch can use: use --device auto or cpu")
    if (chosen.index or 0) >= there[chosen.type]:
        last = f"{chosen.type}:{there[chosen.type] - 1}"
        raise ValueError(f"this machine has no {device}, the last one is {last}: use auto, cpu or cuda")
    return chosen


STREAMS = {"data": 0, "noise": 1}


def step_generator(seed: int, step: int, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """The random generator of one training step, a function of (seed, step, stream): resuming needs no saved state.

    Args:
        seed: of the run.
        step: 0, 1, ...
        stream: "data" for what is drawn from the data set, "noise" for latents and all else that the model draws. Were
            they one stream, the noise of some sequences would be made of the numbers that chose their frames.
        device: where the numbers are drawn.

    Raises:
        KeyError: for another stream.
    """
    state = np.random.SeedSequence([seed, step, STREAMS[stream]]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state) >> 1)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: number of optimiser steps.
        learning_rate: Adam's, at its peak.
        warmup: steps over which it rises linearly from 0, before a cosine takes it back to 0.
        clip: largest norm of the gradient, all parameters together; a guard, seldom reached.

    Raises:
        ValueError: for fewer than one step, a negative warm-up, or a rate or norm that is not positive.
    """

    steps: Count
    learning_rate: Positive = 2e-3
    warmup: Natural = 100
    clip: Annotated[float, Field(gt=0)] = 1e4

    def __post_init__(self):
        for name, value in checked(type(self), vars(self)).items():
            object.__setattr__(self, name, value)

    def rate(self, step: int) -> float:
        """Learning rate of step 0, 1, ..., steps - 1."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup)) * cosine


@checks_arguments
def fit(
    model: nn.Module,
    sample: Callable[[torch.Generator], Any],
    schedule: Schedule,
    *,
    seed: Seed = 0,
    device: torch.device | str = "cpu",
    checkpoint: str | Path | None = None,
    run: dict[str, Any] | None = None,
    notes: dict[str, Any] | None = None,
    resume: bool = False,
    save_every_seconds: Weight = 30.0,
    log_every: Count = 25,
    progress: bool = True,
    finish: Callable[[], None] | None = None,
) -> list[dict[str, float]]:
    """Minimise ``model.terms(batch).loss`` and return the history of its terms.

    Args:
        model: anything whose ``terms(batch, generator)`` returns :class:`Terms`; trained in place, on ``device``.
        sample: draws a batch, which can move ``.to(device)``, from a CPU generator; called once a step.
        schedule: steps, learning rate, clipping.
        seed: with the step number it determines every draw of the run.
        checkpoint: safetensors file to write every ``save_every_seconds``, after the step that is under way, and at the
            end; none is written by default. What cannot be saved is refused before the first step.
        run: what determines the run, as JSON; recorded in the checkpoint, and ``resume`` requires the same.
        notes: what else to record there.
        resume: continue from ``checkpoint`` where it exists; on a CPU the result is bit for bit that of one run.
        log_every: steps between entries of the history.
        progress: show a bar with every term.
        finish: called after the last step and before the last checkpoint, which holds what it does to the model.

    Returns:
        One dictionary per entry: step, seconds since the start, learning rate, loss and the batch mean of each term,
        in its own units (nats per sequence for the models of images).

    Raises:
        FloatingPointError: if the loss stops being finite; the message names the term and the step. On a GPU, which is
            never waited for inside a step, that is found at the next entry of the history.
        ValueError: if ``checkpoint`` belongs to another run, or is damaged; for what cannot be saved.
    """
    from tqdm.auto import tqdm

    model.to(device).train()
    optimizer = _adam(model, schedule)
    first, history, saved = 0, [], time.perf_counter()
    record = {"run": run, "notes": notes}
    if checkpoint is not None:
        checkpoint = Path(checkpoint)
        checkpoint_bytes(model, record)
        if resume and checkpoint.is_file():
            first, history = _restore(checkpoint, model, optimizer, run, schedule.steps)
    began = saved - (history[-1]["seconds"] if history else 0.0)

    bar = tqdm(range(first, schedule.steps), initial=first, total=schedule.steps, disable=not progress,
               desc="training", unit="step", mininterval=0.5)  # fmt: skip
    for step in bar:
        batch = sample(step_generator(seed, step, "data")).to(device)
        terms = model.terms(batch, step_generator(seed, step, "noise", device))
        last = (done := step + 1) == schedule.steps
        logged = done % log_every == 0 or last
        look = logged or torch.device(device).type == "cpu"  # a GPU is not waited for
        loss = _descend(model, terms, optimizer, schedule, step, look)
        if logged:
            summary = terms.summary()
            entry = {"step": done, "seconds": time.perf_counter() - began, "learning_rate": schedule.rate(step)}
            history.append({**entry, "loss": loss.item(), **summary})
            bar.set_postfix({name: f"{value:.0f}" for name, value in summary.items()}, refresh=False)
        if last and finish is not None:
            finish()
        if checkpoint is not None and (last or time.perf_counter() - saved >= save_every_seconds):
            save_checkpoint(checkpoint, model, record | {"step": done, "history": history}, optimizer)
            saved = time.perf_counter()
    model.eval()
    return history


def _adam(model: nn.Module, schedule: Schedule) -> torch.optim.Adam:
    """Adam in one kernel for all parameters, where this PyTorch has it for their device."""
    options = {"lr": schedule.learning_rate, "betas": (0.9, 0.99)}
    try:
        return torch.optim.Adam(model.parameters(), fused=True, **options)
    except RuntimeError:  # on CPUs, from 2.4 on
        return torch.optim.Adam(model.parameters(), **options)


def _descend(
    model: nn.Module, terms: Terms, optimizer: torch.optim.Optimizer, schedule: Schedule, step: int, look: bool
) -> Tensor:
    """One step of the optimiser; gives the loss before it. Numbers are looked at only if ``look``."""
    loss = terms.loss
    if look:
        _require_finite(loss, terms, step)
    for group in optimizer.param_groups:
        group["lr"] = schedule.rate(step)
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
    if look:
        _require_finite_gradient(norm, model, step)
    optimizer.step()
    return loss


def _require_finite(loss: Tensor, terms: Terms, step: int) -> None:
    if torch.isfinite(loss):
        return
    bad = [name for name, value in terms.summary().items() if not math.isfinite(value)] or ["loss"]
    raise FloatingPointError(
        f"training stopped at step {step}: {', '.join(bad)} became NaN or infinite. "
        "Lower the learning rate, or look for bad pixels in the data"
    )


def _require_finite_gradient(norm: Tensor, model: nn.Module, step: int) -> None:
    if torch.isfinite(norm):
        return
    bad = [name for name, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    raise FloatingPointError(
        f"training stopped at step {step}: the loss is finite but its gradient is not, in {', '.join(bad[:3])}"
        f"{', …' * (len(bad) > 3)}. Lower the learning rate, or look for a term whose slope has no limit"
    )


def _restore(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, run: dict[str, Any] | None, steps: int
) -> tuple[int, list[dict[str, float]]]:
    """Load weights and optimiser state in place; return the step to go on with and the history so far."""
    saved = load_checkpoint(path)
    before, done = saved.metadata["run"] or {}, saved.metadata["step"]
    now = json.loads(json.dumps(run or {}))  # as in the file: tuples have become lists
    if before != now:
        different = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        raise ValueError(
            f"{path} belongs to another run (different: {', '.join(different)}): "
            "resume with the settings it was started with, or choose another folder"
        )
    if done > steps:
        raise ValueError(f"{path} has done {done} steps, more than the {steps} asked for: choose another folder")
    load_weights(model, saved.model, path)
    if done < steps:
        _require_moments(path, saved.optimizer, list(model.parameters()))
        optimizer.load_state_dict({"state": saved.optimizer, "param_groups": optimizer.state_dict()["param_groups"]})
    return done, saved.metadata["history"]


def _require_moments(path: Path, states: dict[int, dict[str, Tensor]], parameters: list[nn.Parameter]) -> None:
    """Raise a ValueError unless these are Adam's states of some of the parameters: it would take others unseen."""
    moments = ("exp_avg", "exp_avg_sq")
    for number, state in states.items():
        own = parameters[number] if 0 <= number < len(parameters) else None
        if own is None or state.keys() != {"step", *moments} or any(
            (state[name].shape, state[name].dtype) != (own.shape, own.dtype) or not state[name].isfinite().all()
            for name in moments
        ):  # fmt: skip
            raise ValueError(
                f"{path} holds a state of Adam that does not fit this model: train again in another folder"
            )
    if not states:
        raise ValueError(
            f"{path} holds no state of Adam, as exported copies do: it can be loaded and measured, but not trained on"
        )


def require_fitting(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Raise a ValueError unless names, shapes and dtypes of a file's weights are those of ``model``.

    Half precision may stand for a higher one, as in exported copies.
    """
    own = model.state_dict()
    fits = own.keys() == weights.keys() and all(
        weights[name].shape == value.shape
        and weights[name].dtype in ({value.dtype, torch.float16} if value.is_floating_point() else {value.dtype})
        for name, value in own.items()
    )
    if not fits:
        raise ValueError(
            f"{path} holds another model than {type(model).__name__} with these settings: load it with its own"
        )


def load_weights(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Load a state dictionary, all of it.

    Raises:
        ValueError: if names, shapes or dtypes are not those of ``model``, or a weight is NaN or infinite.
    """
    require_fitting(model, weights, path)
    bad = [name for name, _ in model.named_parameters() if not weights[name].isfinite().all()]
    if bad:
        raise ValueError(f"{path} holds weights that are NaN or infinite ({', '.join(bad[:3])}): train again")
    model.load_state_dict(weights)
