"""Tasks: what a model is tried on that it was not trained on: motions, poses, classes, data sets, corrupted images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from poflow_lite.datasets import Motion, Segment, Sequences, TransformationSequences, load_sequences, render_motion
from poflow_lite.datasets.motions import noisy, occluded
from poflow_lite.flows import LatentOperator, NotInvertible
from poflow_lite.metrics import infer_all, l1, reconstruct
from poflow_lite.models import MSP
from poflow_lite.operators import AffineSteps, Sequential, follow

Motions = Callable[[TransformationSequences], tuple[Motion, ...]]
Corruption = Callable[[Tensor, torch.Generator], Tensor] | None
Operators = Mapping[str, LatentOperator]

TRAININGS: dict[str, dict[str, Any]] = {
    "as in the paper": {},
    "random starts": {"start": "random"},
    "without 7, 8, 9": {"left_out": (7, 8, 9)},
    "10 % of the images": {"share": 0.1},
    "1 % of the images": {"share": 0.01},
    "on MNIST": {"data": "mnist"},
}
"""How a model is trained ↦ what differs from the data and the recipe of the study; its networks and steps stay."""


def each_alone(
    sequences: TransformationSequences, length: float = 1.0, speed: float = 1.0, backwards: bool = False
) -> tuple[Motion, ...]:
    """Every transformation of the sequences by itself, for ``length`` · T frames."""
    frames = max(1, int(length * sequences.horizon))
    return tuple(Motion((Segment((name,), frames, speed),), backwards) for name in sequences.names)


def switching(sequences: TransformationSequences) -> tuple[Motion, ...]:
    """T / 2 frames of one transformation, then T / 2 of another: every pair, in both orders."""
    halves = [Segment((name,), max(1, sequences.horizon // 2)) for name in sequences.names]
    return tuple(map(Motion, itertools.permutations(halves, 2)))


def several_at_once(sequences: TransformationSequences, count: int) -> tuple[Motion, ...]:
    """Every choice of ``count`` transformations, which move at once for T frames."""
    chosen = itertools.combinations(sequences.names, count)
    return tuple(Motion((Segment(moving, sequences.horizon),)) for moving in chosen)


@dataclass(frozen=True)
class Task:
    """One row of the table of generalisation.

    Attributes:
        training: key of :data:`TRAININGS`.
        motions: of the sequences that are shown; all are measured, and weigh alike.
        data: whose images are shown; by default the data set of the study.
        start: "fixed" or "random".
        starts: name of a transformation ↦ interval of random starts, where it is not that of training.
        left_out: labels whose images are not shown.
        corrupt: (frames, generator) ↦ what the model is given in place of frame 0; the truth stays clean.
    """

    training: str = "as in the paper"
    motions: Motions = each_alone
    data: str | None = None
    start: str = "fixed"
    starts: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    left_out: tuple[int, ...] = ()
    corrupt: Corruption = None


MOTIONS: dict[str, Motions] = {
    "twice as long": partial(each_alone, length=2),
    "half speed": partial(each_alone, speed=0.5),
    "double speed": partial(each_alone, length=0.5, speed=2.0),
    "backwards": partial(each_alone, backwards=True),
    "switching": switching,
    "two at once": partial(several_at_once, count=2),
    "three at once": partial(several_at_once, count=3),
}
_random = partial(Task, training="random starts", start="random")
TASKS: dict[str, Task] = {
    "as trained": Task(),
    **{name: Task(motions=motions) for name, motions in MOTIONS.items()},
    "noise": Task(corrupt=lambda frames, generator: noisy(frames, 0.2, generator)),
    "a hidden part": Task(corrupt=lambda frames, generator: occluded(frames, 7, generator)),
    "classes never seen": Task(training="without 7, 8, 9", left_out=(0, 1, 2, 3, 4, 5, 6)),
    "10 % of the images": Task(training="10 % of the images"),
    "1 % of the images": Task(training="1 % of the images"),
    "from digits to MNIST": Task(data="mnist"),
    "from MNIST to digits": Task(training="on MNIST", data="digits"),
    "from digits to letters": Task(data="letters"),
    "from digits to sprites": Task(data="sprites"),
    "starts never trained": Task(start="random"),
    "random starts": _random(),
    "random starts out of range": _random(starts={"scale": (math.log(0.5), math.log(0.7)), "rotate": (40.0, 80.0)}),
    **{f"random starts {name}": _random(motions=motions) for name, motions in MOTIONS.items() if "speed" not in name},
}
"""Row of the table ↦ what is tried."""


def task_sequences(task: Task, data: str, split: str, images: int, horizon: int = 8) -> TransformationSequences:
    """What a task shows: the first ``images`` images of a split, moved as those of the study's own data set.

    Raises:
        ValueError, FileNotFoundError: as :func:`datasets.load_sequences`, and for data that are not still images.
    """
    shown = load_sequences(task.data or data, split, horizon, start=task.start, left_out=task.left_out)
    home = shown if task.data is None else load_sequences(data, split, horizon)
    if not (isinstance(shown, TransformationSequences) and isinstance(home, TransformationSequences)):
        raise ValueError(f"tasks move still images by transformations, which {data} does not hold: choose other data")
    moved = [replace(each, start=task.starts.get(each.name, each.start)) for each in home.transformations]
    return TransformationSequences(shown.images[:images], moved, horizon, task.start, shown.name)


@torch.no_grad()
def measure_task(
    model: Any, operators: Operators, task: Task, sequences: TransformationSequences, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Equivariance errors of a model under every operator, motion by motion.

    The model is given the first frame, corrupted where the task says so, and the motion. References are "no motion",
    the clean first frame for every t, and "floor", each true frame encoded and decoded by itself.

    Args:
        model, operators: trained; as :func:`operators.fit_operators` fits them to training sequences.
        task, sequences: what is tried; as :func:`task_sequences` shows it. A ValueError for too few transformations.
        seed: of start poses and of what corrupts the frames; the same for all models.

    Returns:
        Reference or operator ↦ motion ↦ L1 error summed over pixels, channels and frames, mean over images. Where
        several transformations move at once, operators are tried "in turn" as well (:class:`operators.Sequential`). A
        flow that folds space and cannot be run backwards has no entry for such a motion.
    """
    motions = task.motions(sequences)
    if not motions:
        raise ValueError(f"this task needs more transformations than {', '.join(sequences.names)}: leave it out")
    errors: dict[str, dict[str, float]] = {name: {} for name in ("no motion", "floor", *operators)}
    for motion, truth, start in _encoded(model, sequences, motions, seed, task.corrupt):
        errors["no motion"][motion.name] = _error(truth[:, :1], truth)
        errors["floor"][motion.name] = _error(reconstruct(model, truth), truth)
        for name, operator in {**operators, **_in_turn(operators, motion)}.items():
            with suppress(NotInvertible):
                path = follow(operator, start, motion, sequences.names)
                errors.setdefault(name, {})[motion.name] = _error(model.decode(path).mean, truth)
    return errors


def _encoded(
    model: Any, sequences: TransformationSequences, motions: tuple[Motion, ...], seed: int, corrupt: Corruption = None
) -> Iterator[tuple[Motion, Tensor, Tensor]]:
    """Every motion, its true frames, and the latents of the first one as the model is shown it; where the model is."""
    device = next(model.parameters()).device
    for motion in motions:
        generator = torch.Generator().manual_seed(seed)
        truth = render_motion(sequences, torch.arange(len(sequences)), motion, generator)
        shown = truth[:, 0] if corrupt is None else corrupt(truth[:, 0], generator)
        yield motion, truth.to(device), model.encode(shown.to(device)).mean


def _in_turn(operators: Operators, motion: Motion) -> dict[str, LatentOperator]:
    """Where several transformations move at once: one after the other, by each operator that does more than shift."""
    if all(len(segment.moving) == 1 for segment in motion.segments):
        return {}
    tried = ("linear", "linear steps", "linear step", "lent", "flow")
    return {f"{name} in turn": Sequential(operators[name]) for name in tried if name in operators}


@torch.no_grad()
def lent_steps(model: MSP, training: Sequences, images: int = 500) -> AffineSteps:
    """z_{t+1} = M̄_k z_t, where M̄_k is the mean of the matrices that MSP reads off training sequences of k.

    So a model that is told no k is moved by others' motions, alone, at other speeds and several at once.
    """
    matrices, k = infer_all(model, training.first(images))
    matrices = matrices.unflatten(1, (model.rows, -1))
    means = torch.stack([matrices[k == j].mean(0) for j in range(len(training.names))])
    encoded = model.encode(training.batch(torch.tensor([0]), 0).frames[:, 0].to(next(model.parameters()).device)).mean
    columns = torch.eye(encoded.shape[1] // model.rows)  # z is Z (a, m), row by row

    def steps(moving: Tensor) -> AffineSteps:
        matrix = torch.stack([torch.kron(each - torch.eye(model.rows), columns) for each in moving]).to(encoded)
        return AffineSteps(matrix[:, None], encoded.new_zeros(len(moving), 1, encoded.shape[1]))

    return replace(steps(means), back=steps(torch.linalg.inv(means).contiguous()))


@torch.no_grad()
def measure_round_trip(
    model: Any, operators: Operators, sequences: TransformationSequences, seed: int = 0
) -> dict[str, dict[str, float]]:
    """There and back: the distance of x_0 from what an operator makes of it that goes T frames on and T frames back.

    Arguments are those of :func:`measure_task`. Returns operator ↦ transformation ↦ error ÷ that of x_0 merely encoded
    and decoded; nothing for what cannot go back.
    """
    ratios: dict[str, dict[str, float]] = {name: {} for name in operators}
    for motion, truth, start in _encoded(model, sequences, each_alone(sequences), seed):
        first = truth[:, :1]
        floor = _error(model.decode(start[:, None]).mean, first)
        for name, operator in operators.items():
            end = follow(operator, start, motion, sequences.names)[:, -1]
            with suppress(NotInvertible):
                returned = follow(operator, end, replace(motion, backwards=True), sequences.names)[:, -1:]
                ratios[name][motion.name] = _error(model.decode(returned).mean, first) / floor
    return ratios


def _error(predicted: Tensor, true: Tensor) -> float:
    """Σ_t ‖x_t - x̂_t‖_1 over all frames but the first (or over the only one), mean over images."""
    later = slice(1, None) if true.shape[1] > 1 else slice(None)
    return l1(predicted.expand_as(true)[:, later], true[:, later]).sum().item() / len(true)
