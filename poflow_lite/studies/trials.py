"""What a model is tried on that it was not trained on: motions, poses, classes, data sets, and images hard to read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from poflow_lite.datasets import (
    PAPER_TRANSFORMATIONS,
    Motion,
    Phase,
    Transformation,
    TransformationSequences,
    load_stills,
    noisy,
    occluded,
    only,
    render_motion,
)
from poflow_lite.metrics import autoencode_frames
from poflow_lite.models import VAE
from poflow_lite.movers import Mover, Successive, follow

__all__ = ["TRAININGS", "TRIALS", "Trial", "measure_round_trip", "measure_trial", "trial_sequences"]

NAMES = tuple(transformation.name for transformation in PAPER_TRANSFORMATIONS)
LEFT_OUT = (7, 8, 9)

TRAININGS: dict[str, dict[str, Any]] = {
    "as in the paper": {},
    "random starts": {"start": "random"},
    "without 7, 8, 9": {"left_out": LEFT_OUT},
    "10 % of the images": {"share": 0.1},
    "1 % of the images": {"share": 0.01},
    "on MNIST": {"data": "mnist"},
}
"""How a model is trained ↦ what differs from the study's data set and recipe. All take the same number of steps."""


def _each(**options: Any) -> tuple[Motion, ...]:
    """Every transformation by itself."""
    return tuple(Motion((Phase((name,), **options),)) for name in NAMES)


SINGLE = _each(frames=8)
SWITCHED = tuple(Motion((Phase((i,), 4), Phase((j,), 4))) for i, j in itertools.permutations(NAMES, 2))
PAIRS = tuple(Motion((Phase(pair, 8),)) for pair in itertools.combinations(NAMES, 2))
BACKWARDS = tuple(replace(motion, backwards=True) for motion in SINGLE)


@dataclass(frozen=True)
class Trial:
    """One row of the table of generalisation.

    Attributes:
        training: key of :data:`TRAININGS`.
        motions: all of them are measured, and weigh alike.
        data: still images that are shown; by default those that the model was trained on.
        start: "fixed" or "random".
        starts: name of a transformation ↦ interval of random starts, where it is not that of training.
        only: labels of the images that are shown; all by default.
        spoil: what is done to the frame that the model is given, from (frames, generator); the truth stays clean.
    """

    training: str = "as in the paper"
    motions: tuple[Motion, ...] = SINGLE
    data: str | None = None
    start: str = "fixed"
    starts: dict[str, tuple[float, float]] = field(default_factory=dict)
    only: tuple[int, ...] = ()
    spoil: Callable[[Tensor, torch.Generator], Tensor] | None = None


ALL = (Motion((Phase(NAMES, 8),)),)

_random = partial(Trial, training="random starts", start="random")
TRIALS: dict[str, Trial] = {
    "as trained": Trial(),
    "twice as long": Trial(motions=_each(frames=16)),
    "half speed": Trial(motions=_each(frames=8, speed=0.5)),
    "double speed": Trial(motions=_each(frames=4, speed=2.0)),
    "backwards": Trial(motions=BACKWARDS),
    "switching": Trial(motions=SWITCHED),
    "two at once": Trial(motions=PAIRS),
    "three at once": Trial(motions=ALL),
    "noise": Trial(spoil=lambda frames, generator: noisy(frames, 0.2, generator)),
    "a hidden part": Trial(spoil=lambda frames, generator: occluded(frames, 7, generator)),
    "classes never seen": Trial(training="without 7, 8, 9", only=LEFT_OUT),
    "10 % of the images": Trial(training="10 % of the images"),
    "1 % of the images": Trial(training="1 % of the images"),
    "from digits to MNIST": Trial(data="mnist"),
    "from MNIST to digits": Trial(training="on MNIST", data="digits"),
    "from digits to letters": Trial(data="letters"),
    "from digits to sprites": Trial(data="sprites"),
    "starts never trained": Trial(start="random"),
    "random starts": _random(),
    "random starts out of range": _random(
        starts={"scale": (math.log(0.5), math.log(0.7)), "rotate": (40.0, 80.0)},
    ),
    "random starts twice as long": _random(motions=_each(frames=16)),
    "random starts switching": _random(motions=SWITCHED),
    "random starts two at once": _random(motions=PAIRS),
    "random starts three at once": _random(motions=ALL),
    "random starts backwards": _random(motions=BACKWARDS),
}
"""Row of the table ↦ what is tried."""


def trial_sequences(trial: Trial, data: str, split: str, images: int) -> TransformationSequences:
    """What a trial shows, from a split that was not trained on.

    Args:
        trial: says which data, classes and start poses.
        data: what the model was trained on.
        split: "test", or "validation".
        images: at most so many images, the first ones.

    Raises:
        FileNotFoundError: if the data set is not there; the message says how to get it.
    """
    stills = load_stills(trial.data or data, split)
    stills = only(stills, trial.only) if trial.only else stills
    moved = tuple(_from(transformation, trial.starts) for transformation in PAPER_TRANSFORMATIONS)
    title = f"{stills.name}, {trial.start} start"
    return TransformationSequences(stills.images[:images], moved, start=trial.start, name=title)


def _from(transformation: Transformation, starts: dict[str, tuple[float, float]]) -> Transformation:
    return replace(transformation, start=starts.get(transformation.name, transformation.start))


@torch.no_grad()
def measure_trial(
    model: VAE,
    movers: dict[str, tuple[Mover, Mover]],
    trial: Trial,
    sequences: TransformationSequences,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Equivariance errors of a model under every mover, motion by motion.

    The model is given the first frame, spoiled where the trial says so, and the motion. References are "no motion",
    the clean first frame for every t, and "floor", each true frame encoded and decoded by itself.

    Args:
        model: trained.
        movers: name ↦ (forwards, backwards), see :func:`movers.fit_movers`.
        trial: what is tried.
        sequences: of :func:`trial_sequences`.
        seed: of start poses and of what spoils the frames; the same for all models.

    Returns:
        Reference or mover ↦ motion ↦ L1 error summed over pixels, channels and frames, mean over images. Where several
        transformations move at once, movers are tried "in turn" as well (:class:`movers.Successive`). A mover that
        cannot make a motion (a flow that folds space and cannot be run backwards) has no entry for it.
    """
    device = next(model.parameters()).device
    errors: dict[str, dict[str, float]] = {name: {} for name in ("no motion", "floor", *movers)}
    for motion in trial.motions:
        generator = torch.Generator().manual_seed(seed)
        truth = render_motion(sequences, torch.arange(len(sequences)), motion, generator).to(device)
        shown = truth[:, 0] if trial.spoil is None else trial.spoil(truth[:, 0].cpu(), generator).to(device)
        start = model.encode(shown).mean
        predictions = {"no motion": truth[:, :1], "floor": autoencode_frames(model, truth)}
        for name, prediction in predictions.items():
            errors[name][motion.name] = _distance(prediction, truth)
        for name, pair in (movers | _in_turn(movers, motion)).items():
            try:
                path = follow(pair, start, motion, sequences.names)
            except ValueError:  # a step that folds space
                continue
            errors.setdefault(name, {})[motion.name] = _distance(model.decode(path).mean, truth)
    return errors


def _in_turn(movers: dict[str, tuple[Mover, Mover]], motion: Motion) -> dict[str, tuple[Mover, Mover]]:
    """Where several transformations move at once: each mover again, with one of them after the other."""
    if all(len(phase.moving) == 1 for phase in motion.phases):
        return {}
    tried = ("linear", "linear steps", "linear step", "flow")
    return {f"{name} in turn": tuple(Successive(mover) for mover in movers[name]) for name in tried if name in movers}


@torch.no_grad()
def measure_round_trip(
    model: VAE, movers: dict[str, tuple[Mover, Mover]], sequences: TransformationSequences, seed: int = 0
) -> dict[str, dict[str, float]]:
    """There and back: the distance of x_0 from what a mover makes of it that goes T frames forwards and T backwards.

    Args:
        model, movers, sequences, seed: as for :func:`measure_trial`.

    Returns:
        Mover ↦ transformation ↦ error ÷ that of x_0 merely encoded and decoded; nothing for what cannot go back.
    """
    device = next(model.parameters()).device
    ratios: dict[str, dict[str, float]] = {name: {} for name in movers}
    for there, back in zip(SINGLE, BACKWARDS, strict=True):
        generator = torch.Generator().manual_seed(seed)
        first = render_motion(sequences, torch.arange(len(sequences)), there, generator)[:, :1].to(device)
        start = model.encode(first[:, 0]).mean
        floor = _distance(model.decode(start[:, None]).mean, first)
        for name, pair in movers.items():
            end = follow(pair, start, there, sequences.names)[:, -1]
            try:
                returned = follow(pair, end, back, sequences.names)[:, -1:]
            except ValueError:
                continue
            ratios[name][there.name] = _distance(model.decode(returned).mean, first) / floor
    return ratios


def _distance(prediction: Tensor, truth: Tensor) -> float:
    """Σ_t ‖x_t - x̂_t‖_1 over all frames but the first (or over the only one), mean over images."""
    later = slice(1, None) if truth.shape[1] > 1 else slice(None)
    return (prediction.expand_as(truth) - truth)[:, later].abs().sum(dtype=torch.float64).item() / len(truth)
