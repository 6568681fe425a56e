"""Comparing models: every model moved by every latent operator, under the same metrics, on the same frames."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch

from poflow_lite.datasets import Sequences, TransformationSequences
from poflow_lite.experiments.runs import possible_likelihood, require_trained
from poflow_lite.flows import LatentOperator
from poflow_lite.io import require_known
from poflow_lite.metrics import (
    Donors,
    MedianFrame,
    clustering_accuracy,
    equivariance_errors,
    every_sequence,
    generated_pairs,
    log_evidence,
    persistence,
    predict,
    reconstruct,
    vp_score,
    with_coefficients,
    with_own_coefficients,
)
from poflow_lite.operators import OPERATORS, fit_operators, with_operator
from poflow_lite.settings import Count, Flag, Seed, checks_arguments

if TYPE_CHECKING:
    import pandas as pd


COMPARED = ("identity", "traversal", "translation", "linear")
"""The operators of :data:`operators.OPERATORS` that are compared where no others are named."""

Operators = Iterable[str] | Mapping[str, Callable[..., LatentOperator]]
Metrics = Mapping[str, Callable[[Any, Sequences], Any]]
Asking = tuple[Any, Callable[[Sequences], Sequences]]
"""A model as it moves, and how it is asked about sequences."""


@checks_arguments
def measure_operators(
    model: Any,
    training: Sequences,
    held_out: Sequences,
    *,
    validation: Sequences | None = None,
    operators: Operators | None = None,
    likelihood_images: Count = 64,
    samples: Count = 100,
    scores: Flag = True,
    metrics: Metrics | None = None,
    operator_images: Count = 2000,
    median_images: Count = 2000,
    seed: Seed = 0,
) -> dict[str, Any]:
    """Everything that is compared of one trained model.

    Args:
        model: with the methods of :class:`models.VAE`.
        training: operators and the median frame are fitted to these, and to nothing else.
        held_out: measured; every image under every transformation.
        validation: choose the operator, which alone is given ``scores``; without it, all are.
        operators: names of :data:`operators.OPERATORS`, or entries like its own, name ↦ fit; :data:`COMPARED` by
            default. The model's own motion always joins, by the name in ``model.motion``.
        likelihood_images, samples: for :func:`metrics.log_likelihood`, each image under one transformation, in turn.
        scores: measure likelihoods and VP scores too, not only equivariance errors.
        metrics: further ones by name, functions of the moved model and the held-out sequences that give JSON.
        operator_images, median_images: how many training images operators and median frame are fitted to, at most.
        seed: of the random start poses of training images, of the likelihood's draws and of the network behind the VP
            score. Errors are measured from the same start poses whatever it is.

    Returns:
        "references" ("no_motion", "median_frame", "reconstruction_floor"), each k ↦ error, and "operators", each with
        "equivariance_error", k ↦ error, and ``metrics``; errors in L1 pixel intensities summed over frames. With
        ``validation``, "validation_error" of each beside it, and "chosen", the operator with the least one. With
        ``scores``, those of :func:`_scores`. A model that reads its motion off a sequence is moved by what it reads
        there ("own", never chosen, as it sees a second frame) and off another sequence of the same k ("swapped"): if
        what it reads is the motion and not the image, the two agree. "clustering_accuracy" of a model that names k.

    Raises:
        ValueError: for an unknown operator; the message lists the known ones.
    """
    require_trained(model)
    fitted = fit_operators(model, training, _entries(operators), operator_images, seed)
    asking: dict[str, Asking] = {name: (with_operator(model, fit), _as_told) for name, fit in fitted.items()}
    asking |= {name: (model, ask) for name, ask in _by_example(model, training).items()}
    median = MedianFrame(training, median_images, torch.Generator().manual_seed(seed))
    references = {"no_motion": persistence, "median_frame": median, "reconstruction_floor": partial(reconstruct, model)}
    device = next(model.parameters()).device
    found: dict[str, Any] = {"references": equivariance_errors(references, held_out, device=device), "operators": {}}
    errors = _errors(asking, held_out)
    for name, (own, ask) in asking.items():
        entry = {metric: of(own, ask(held_out)) for metric, of in (metrics or {}).items()}
        found["operators"][name] = {"equivariance_error": errors[name], **entry}
    if validation is not None:
        for name, own in _errors(asking, validation).items():
            found["operators"][name]["validation_error"] = own
        found["chosen"] = least(found["operators"], found["references"]["no_motion"])
    if scores:
        sizes = {"images": likelihood_images, "samples": samples, "seed": seed}
        for name in [found["chosen"]] if validation is not None else asking:
            own, ask = asking[name]
            found["operators"][name] |= _scores(own, ask, held_out, errors[name], **sizes)
    if getattr(model, "names_k", False):
        found["clustering_accuracy"], _ = clustering_accuracy(model, held_out)
    return found


def least(operators: Mapping[str, Mapping[str, Any]], still: Mapping[str, float]) -> str:
    """The operator with the least error on validation images, ÷ those of no motion and mean over k; never "own".

    The unit is the same for all operators, so that no motion on the images that are measured serves as well.
    """
    errors = {
        name: relative_error(entry["validation_error"], still) for name, entry in operators.items() if name != "own"
    }
    return min(errors, key=errors.__getitem__)


def relative_error(errors: Mapping[str, float], still: Mapping[str, float]) -> float:
    """Mean over k of errors ÷ those of no motion; a k that moves nothing adds 0."""
    return mean(error / (still[k] or math.inf) for k, error in errors.items())


def validation_errors(model: Any, training: Sequences, validation: Sequences, operator_images: int = 1000) -> dict:
    """Operator ↦ error on validation images ÷ that of no motion, mean over k: of the ridge map and the model's motion.

    What costs and tunings are read from; "own" is left out, as it looks at a second frame.
    """
    sizes = {"operator_images": operator_images, "median_images": 1}
    found = measure_operators(model, training, validation, operators=["linear"], scores=False, **sizes)
    unit = found["references"]["no_motion"]
    operators = found["operators"].items()
    return {name: relative_error(entry["equivariance_error"], unit) for name, entry in operators if name != "own"}


def _errors(asking: Mapping[str, Asking], sequences: Sequences) -> dict[str, dict[str, float]]:
    """Equivariance errors of all ways to move a model; those that are told k see the same frames, rendered once."""
    told = {name: partial(predict, own) for name, (own, ask) in asking.items() if ask is _as_told}
    device = next(next(iter(asking.values()))[0].parameters()).device
    errors = equivariance_errors(told, sequences, device=device)
    for name, (own, ask) in asking.items():
        if ask is not _as_told:
            errors |= equivariance_errors({name: partial(predict, own)}, ask(sequences), device=device)
    return errors


def _scores(
    own: Any, ask: Callable[[Sequences], Sequences], held_out: Sequences, errors: Mapping[str, float], **sizes: int
) -> dict[str, Any]:
    """What else is measured of one way to move a model.

    "log_likelihood" (:func:`possible_likelihood`); where there are two transformations at least "vp_score", and of what
    is told k "naming", the share of sequences whose k has the largest joint posterior; and of still images
    "extrapolation", the error over frames T+1 to 2T.
    """
    asked, predictor, dealt = ask(held_out), partial(predict, own), held_out.first(sizes["images"]).in_turns()
    found: dict[str, Any] = {"log_likelihood": possible_likelihood(own, ask(dealt), **sizes)}
    if several := len(held_out.names) > 1:  # or there is no k to tell from others
        found["vp_score"] = vp_score(*generated_pairs(predictor, asked), seeds=[sizes["seed"]]).mean
    if isinstance(held_out, TransformationSequences):  # can be rendered beyond T
        longer = copy.copy(held_out)
        longer.horizon = 2 * held_out.horizon
        whole = _errors({"": (own, ask)}, longer)[""]
        found["extrapolation"] = {k: error - errors[k] for k, error in whole.items()}
    if several and ask is _as_told:
        found["naming"] = _naming(own, dealt, sizes["seed"])
    return found


def _naming(own: Any, held_out: Sequences, seed: int) -> float:
    """The share of sequences whose true k has the largest posterior under the joint reading, from 10 draws of z_0."""
    named = [
        (log_evidence(own, batch, len(held_out.names), samples=10, seed=seed).argmax(1).cpu() == k).float()
        for k, batch in every_sequence(held_out, batch_size=20, seed=seed)
    ]
    return torch.cat(named).mean().item()


def _as_told(sequences: Sequences) -> Sequences:
    return sequences


def _by_example(model: Any, training: Sequences) -> dict[str, Callable[[Sequences], Sequences]]:
    """How a model is asked whose motion is read off frames: by those of a sequence itself, and by others'."""
    if getattr(model, "names_k", None) is not False:
        return {}
    changes = {"own": partial(with_own_coefficients, model), "swapped": Donors(model, training)}
    return {name: partial(with_coefficients, change=change) for name, change in changes.items()}


def compare(
    models: Mapping[str, Any],
    training: Sequences,
    held_out: Sequences,
    *,
    operators: Operators | None = None,
    metrics: Metrics | None = None,
    scores: bool = False,
    seed: int = 0,
    **sizes: int,
) -> pd.DataFrame:
    """Measure trained models with every operator and put them into one table.

        compare({"mine": model}, training, held_out, operators={**OPERATORS, "shift": fit}, metrics={"speed": speed})

    Args:
        models: name ↦ trained model.
        training, held_out, operators, metrics, scores, seed: as for :func:`measure_operators`.
        sizes: its "likelihood_images", "samples", "operator_images" and "median_images".

    Returns:
        A row for each model and operator, with the columns "model", "operator", the error ÷ that of no motion for each
        transformation (NaN for one that moves nothing) and their "mean", and ``metrics``. With ``scores`` also the
        likelihoods "sequence", "predictive" and "frame", of two transformations or more "vp_score" and "naming", the
        share of sequences whose k the model finds most likely, and of still images "… beyond T", the error of each
        transformation over frames T+1 to 2T, in L1 pixel intensities. References come first, "no motion" and "median
        frame" as models, and each model's reconstruction as its operator "floor".

    Raises:
        ValueError: for no models, or an unknown operator.
    """
    import pandas as pd

    if not models:
        raise ValueError("there is nothing to compare: give at least one model, such as {'mine': model}")
    options = {"operators": operators, "metrics": metrics, "scores": scores, "seed": seed, **sizes}
    found = {name: measure_operators(model, training, held_out, **options) for name, model in models.items()}
    still = next(iter(found.values()))["references"]

    def row(name: str, operator: str, errors: Mapping[str, float], **more: Any) -> dict[str, Any]:
        ratios = {k: error / (still["no_motion"][k] or math.nan) for k, error in errors.items()}
        return {"model": name, "operator": operator, **ratios, "mean": mean(ratios.values()), **more}

    rows = [row(name.replace("_", " "), "", still[name]) for name in ("no_motion", "median_frame")]
    for name, measured in found.items():
        rows.append(row(name, "floor", measured["references"]["reconstruction_floor"]))
        for operator, entry in measured["operators"].items():
            more = {metric: value for metric, value in entry.items() if metric != "equivariance_error"}
            more |= {f"{k} beyond T": error for k, error in (more.pop("extrapolation", None) or {}).items()}
            if likelihoods := more.pop("log_likelihood", {}):
                more |= {name: likelihoods[name] for name in ("sequence", "predictive")}
                more["frame"] = max(likelihoods["frame"].values(), default=math.nan)
            rows.append(row(name, operator, entry["equivariance_error"], **more))
    return pd.DataFrame(rows)


def _entries(operators: Operators | None) -> dict[str, Callable[..., LatentOperator]]:
    """Entries of the operators that are meant, by name."""
    if isinstance(operators, Mapping):
        return dict(operators)
    names = COMPARED if operators is None else tuple(operators)
    for name in names:
        require_known("operator", name, OPERATORS)
    return {name: OPERATORS[name] for name in names}
