"""How well single latents stand for single factors: MIG, DCI, and the alignment of simulated neurons with latents.

Codes are (N, d), one row of latents for each image, and factors (N, F), the integers that made the image. Estimators
are scikit-learn's. Each score is 1 for a perfect code and near 0 for one that knows nothing. Shapes that do not fit,
NaN, factors that are not integers or do not vary, and too few samples are a ValueError.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poflow_lite.datasets import FactorSequences


def _codes(codes: Tensor, others: Tensor, what: str, latents: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, once their shapes agree and they are finite; ``what`` names the others and their width."""
    fits = codes.ndim == others.ndim == 2 and len(codes) == len(others) and codes.numel() and others.numel()
    if not fits or codes.shape[1] < latents:
        raise ValueError(
            f"codes must be (N, d), d ≥ {latents}, and {what} with the same N, got {tuple(codes.shape)} and "
            f"{tuple(others.shape)}"
        )
    if not all((x.abs() < 1e37).all() for x in (codes, others.double())):  # a forest works in single precision
        raise ValueError("codes or neurons hold NaN, infinite or huge entries: look at the encoder that made them")
    return codes.detach().cpu().double().numpy(), others.detach().cpu().double().numpy()


def _factors(codes: Tensor, factors: Tensor, latents: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Codes and factors as arrays, once every factor is an integer that varies."""
    z, v = _codes(codes, factors, "factors (N, F)", latents)
    if factors.is_floating_point():
        raise ValueError(f"factors must be integers, got {factors.dtype}: number their values 0, 1, ...")
    v = v.astype(np.int64)
    if (still := np.flatnonzero(np.ptp(v, 0) == 0)).size:
        raise ValueError(f"factor {still[0]} has one value in all samples: leave it out, or draw samples that vary it")
    return z, v


def mutual_information(codes: Tensor, factors: Tensor, bins: int = 20) -> Tensor:
    """I(z_i; v_j) of every latent with every factor, in nats: (d, F), each latent cut into equally wide ``bins`` ≥ 2.

    It is that of the N samples, and so too large by about (bins - 1)(values of v_j - 1) / 2N nats. A latent that varies
    by no more than rounding tells nothing.

    >>> v = torch.arange(8)[:, None] % 2
    >>> mutual_information(v.float(), v)  # log 2
    tensor([[0.6931]])
    """
    from sklearn.metrics import mutual_info_score

    if not (isinstance(bins, Integral) and bins >= 2):
        raise ValueError(f"at least 2 bins are needed, got {bins}")
    z, v = _factors(codes, factors)
    resolved = np.ptp(z, 0) > 4 * bins * np.finfo(np.float64).eps * abs(z).max(0)
    z = np.where(resolved, z, 0.0)
    cut = [np.digitize(column, np.histogram_bin_edges(column, bins)[1:-1]) for column in z.T]
    return torch.tensor([[float(mutual_info_score(factor, column)) for factor in v.T] for column in cut])


def mutual_information_gap(codes: Tensor, factors: Tensor, bins: int = 20) -> float:
    """MIG = (1/F) Σ_j ( I(z_first; v_j) - I(z_second; v_j) ) / H(v_j), of the two latents that know most of v_j.

    0 for a factor that two latents know equally well, as in a duplicated or evenly rotated code. It takes at least two
    latents. Source: Chen et al. 2018, section 4.1.
    """
    from sklearn.metrics import mutual_info_score

    _, v = _factors(codes, factors, latents=2)
    first, second = mutual_information(codes, factors, bins).topk(2, 0).values
    entropy = torch.tensor([float(mutual_info_score(factor, factor)) for factor in v.T])
    return ((first - second) / entropy).mean().item()


@dataclass(frozen=True)
class DCI:
    """Disentanglement, completeness and informativeness.

    Attributes:
        disentanglement: does each latent matter for one factor only? Weighted by how much it matters.
        completeness: is each factor told by one latent only?
        informativeness: accuracy with which factors are told from the code, on samples not fitted to.
        importance: (d, F), how much each latent matters for each factor; columns sum to 1.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    importance: Tensor


def dci(codes: Tensor, factors: Tensor, trees: int = 50, seed: int = 0) -> DCI:
    """Disentanglement 1 - H_F(P_i), completeness 1 - H_d(P_j) and accuracy, from the importances of random forests.

    For each of F ≥ 2 factors a forest of ``trees`` predicts its value from the d ≥ 2 latents, fitted to three quarters
    of the samples. P_ij are its importances, normalised over factors for disentanglement and over latents for
    completeness; H is the entropy to the base of the number of entries. A leaf holds 3 samples, so every value of a
    factor takes at least 3 that are fitted, or it is a ValueError. Source: Eastwood & Williams 2018, section 3.
    """
    from sklearn.ensemble import RandomForestClassifier

    z, v = _factors(codes, factors, latents=2)
    if v.shape[1] < 2:
        raise ValueError(f"DCI needs at least 2 factors, got {v.shape[1]}")
    if not (isinstance(trees, Integral) and trees >= 1):
        raise ValueError(f"at least 1 tree is needed, got {trees}")
    order = np.random.default_rng(seed).permutation(len(z))
    held_out, fitted = order[: len(z) // 4], order[len(z) // 4 :]
    _require_each_value(v, fitted)
    columns, accuracies = [], []
    for factor in v.T:
        forest = RandomForestClassifier(trees, min_samples_leaf=3, max_features=None, random_state=seed)
        forest.fit(z[fitted], factor[fitted])  # each split may use any latent, or useless ones would gain importance
        columns.append(forest.feature_importances_)
        accuracies.append(forest.score(z[held_out], factor[held_out]))
    importance = np.stack(columns, 1)  # (d, F)
    weight = importance.sum(1) / max(importance.sum(), 1e-300)  # a code that never varies has no importance at all
    return DCI(
        disentanglement=float(weight @ (1 - _entropy(importance))),
        completeness=float(np.mean(1 - _entropy(importance.T))),
        informativeness=float(np.mean(accuracies)),
        importance=torch.from_numpy(importance),
    )


def _require_each_value(factors: np.ndarray, fitted: np.ndarray) -> None:
    """Refuse a factor of which a forest sees a value too rarely for a leaf: it would score 0 in silence."""
    for j, factor in enumerate(factors.T):
        values, numbers = np.unique(factor, return_inverse=True)
        counts = np.bincount(numbers[fitted], minlength=len(values))
        if counts.min() < 3:
            raise ValueError(
                f"factor {j} has the value {values[counts.argmin()]} in {counts.min()} of the {len(fitted)} samples "
                "that are fitted, and at least 3 are needed: give more samples, or leave this value out"
            )


def _entropy(rows: np.ndarray) -> np.ndarray:
    """Entropy of each row, normalised to sum 1, to base its length: from 0 (one entry) to 1 (all equal or all 0)."""
    from scipy.stats import entropy

    some = rows.any(1)
    return np.where(some, entropy(np.where(some[:, None], rows, 1.0), base=rows.shape[1], axis=1), 1.0)


@torch.no_grad()
def factor_scores(
    model: Any, sequences: FactorSequences, images: int = 5000, seed: int = 0, batch_size: int = 256
) -> dict[str, float]:
    """MIG and DCI of a model's posterior means μ(x): "mig", "disentanglement", "completeness", "informativeness".

    The factors are those that move, at least 2; x are single ``images`` of random scenes, in which these are
    independent and uniform (:meth:`datasets.FactorSequences.stills`). ``seed`` draws them, and seeds the forests.
    """
    device, generator = next(model.parameters()).device, torch.Generator().manual_seed(seed)
    rendered, codes, factors = sequences.to(device), [], []
    for indices in torch.randint(len(sequences), (images,), generator=generator).split(batch_size):
        x, v = rendered.stills(indices, generator)
        codes.append(model.encode(x.to(device)).mean.cpu())
        factors.append(v)
    z, v = torch.cat(codes), torch.cat(factors)
    found = dci(z, v, seed=seed)
    return {
        "mig": mutual_information_gap(z, v),
        "disentanglement": found.disentanglement,
        "completeness": found.completeness,
        "informativeness": found.informativeness,
    }


def unit_alignment(neurons: Tensor, codes: Tensor, penalty: float = 0.05) -> Tensor:
    """How well each neuron is told by a single latent: 1 - H_d(|w_n|), (M,), w_n its lasso regression on the latents.

    The face-patch study in small: firing rates of M single neurons, (N, M), are regressed on the d ≥ 2 latents of a
    model that has seen the same faces, both standardised first, with ``penalty`` > 0 as the weight of the lasso. It
    takes more samples than latents. A neuron that no latent tells scores 0. Source: Higgins et al. 2021.
    """
    from sklearn.linear_model import Lasso
    from sklearn.preprocessing import scale

    z, y = _codes(codes, neurons, "neurons (N, M)")
    if not 0 < penalty < np.inf:
        raise ValueError(f"the penalty must be positive and finite, got {penalty}")
    if len(z) <= z.shape[1]:
        raise ValueError(f"{z.shape[1]} latents need more than {len(z)} samples: as few are told by any latents")
    weights = Lasso(penalty, fit_intercept=False).fit(scale(z), scale(y)).coef_
    return torch.from_numpy(1 - _entropy(np.abs(weights).reshape(y.shape[1], -1)))
