"""How well single latents stand for single factors: MIG, DCI, and the alignment of simulated neurons with latents.

All take codes (N, d), one row of latents for each image, and factors (N, F), the integers that made the image.
Estimators are scikit-learn's. Each score is 1 for a perfect code and near 0 for one that knows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["DCI", "dci", "mutual_information", "mutual_information_gap", "unit_alignment"]


def _checked(codes: Tensor, factors: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, once shapes agree, codes are finite, and every factor varies."""
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or not codes.numel() or not factors.numel():
        raise ValueError(
            f"codes must be (N, d) and factors (N, F) with the same N, got {tuple(codes.shape)}, {tuple(factors.shape)}"
        )
    if not codes.isfinite().all():
        raise ValueError("codes hold NaN or infinite entries: look at the encoder that made them")
    if factors.is_floating_point():
        raise ValueError(f"factors must be integers, got {factors.dtype}: number their values 0, 1, ...")
    still = [column for column in range(factors.shape[1]) if len(factors[:, column].unique()) < 2]
    if still:
        raise ValueError(f"factor {still[0]} has one value in all samples: leave it out, or draw samples that vary it")
    return codes.detach().cpu().double().numpy(), factors.cpu().numpy()


def mutual_information(codes: Tensor, factors: Tensor, bins: int = 20) -> Tensor:
    """I(z_i; v_j) of every latent with every factor, in nats: (d, F), each latent cut into equally wide ``bins``.

    Raises:
        ValueError: for shapes that do not fit, NaN, factors that are not integers or do not vary, fewer than 2 bins.
    """
    from sklearn.metrics import mutual_info_score

    if bins < 2:
        raise ValueError(f"at least 2 bins are needed, got {bins}")
    z, v = _checked(codes, factors)
    edges = [np.histogram_bin_edges(column, bins)[1:-1] for column in z.T]
    discrete = [np.digitize(column, edge) for column, edge in zip(z.T, edges, strict=True)]
    return torch.tensor([[mutual_info_score(factor, column) for factor in v.T] for column in discrete])


def mutual_information_gap(codes: Tensor, factors: Tensor, bins: int = 20) -> float:
    """MIG = (1/F) Σ_j ( I(z_first; v_j) - I(z_second; v_j) ) / H(v_j), of the two latents that know most of v_j.

    0 for a factor that two latents know equally well, as in a duplicated or evenly rotated code.

    Args:
        codes: (N, d), d ≥ 2.
        factors: (N, F) integers.
        bins: as for :func:`mutual_information`.

    Raises:
        ValueError: as there, and for fewer than two latents. Source: Chen et al. 2018, section 4.1.
    """
    from sklearn.metrics import mutual_info_score

    if codes.ndim == 2 and codes.shape[1] < 2:
        raise ValueError(f"a gap needs at least 2 latents, got {codes.shape[1]}")
    information = mutual_information(codes, factors, bins)
    first, second = information.topk(2, 0).values
    entropy = torch.tensor([mutual_info_score(v, v) for v in factors.cpu().numpy().T])
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

    For each factor a forest predicts its value from the code. P_ij are its importances, normalised over factors for
    disentanglement and over latents for completeness; H is the entropy to the base of the number of entries.

    Args:
        codes: (N, d), d ≥ 2.
        factors: (N, F) integers, F ≥ 2.
        trees: in each forest.
        seed: of the forests.

    Raises:
        ValueError: for shapes that do not fit, NaN, factors that are not integers or do not vary, d or F below 2.
            Source: Eastwood & Williams 2018, section 3.
    """
    from sklearn.ensemble import RandomForestClassifier

    z, v = _checked(codes, factors)
    if z.shape[1] < 2 or v.shape[1] < 2:
        raise ValueError(f"DCI needs at least 2 latents and 2 factors, got {z.shape[1]} and {v.shape[1]}")
    order = np.random.default_rng(seed).permutation(len(z))
    held_out, fitted = order[: len(z) // 4], order[len(z) // 4 :]
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


def _entropy(rows: np.ndarray) -> np.ndarray:
    """Entropy of each row, normalised to sum 1, to base its length: from 0 (one entry) to 1 (all equal or all 0)."""
    total = rows.sum(1)
    p = rows / np.maximum(total, 1e-300)[:, None]
    entropy = -(p * np.log(np.where(p > 0, p, 1.0))).sum(1) / np.log(rows.shape[1])
    return np.where(total > 0, entropy, 1.0)


def unit_alignment(neurons: Tensor, codes: Tensor, penalty: float = 0.05) -> Tensor:
    """How well each neuron is told by a single latent: 1 - H_d(|w_n|), w_n its lasso regression on the latents.

    The face-patch study in small: firing rates of single neurons are regressed on single latents of a model that has
    seen the same faces. Rates and latents are standardised first. A neuron that no latent tells scores 0.

    Args:
        neurons: (N, M), a firing rate of each neuron for each image.
        codes: (N, d), d ≥ 2.
        penalty: of the lasso.

    Returns:
        (M,), from 0 to 1.

    Raises:
        ValueError: for shapes that do not fit, NaN, or fewer than 2 latents. Source: Higgins et al. 2021.
    """
    from sklearn.linear_model import Lasso

    if neurons.ndim != 2 or codes.ndim != 2 or len(neurons) != len(codes) or codes.shape[1] < 2:
        raise ValueError(
            f"neurons must be (N, M) and codes (N, d), d ≥ 2, with the same N, got {tuple(neurons.shape)}, "
            f"{tuple(codes.shape)}"
        )
    if not (neurons.isfinite().all() and codes.isfinite().all()):
        raise ValueError("neurons or codes hold NaN or infinite entries")
    y, z = (_standardised(values) for values in (neurons, codes))
    weights = np.abs(Lasso(penalty, fit_intercept=False).fit(z, y).coef_).reshape(y.shape[1], -1)
    return torch.from_numpy(1 - _entropy(weights))


def _standardised(values: Tensor) -> np.ndarray:
    array = values.detach().cpu().double().numpy()
    return (array - array.mean(0)) / np.maximum(array.std(0), 1e-12)
