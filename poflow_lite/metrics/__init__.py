"""What the course measures: prediction, likelihood, disentanglement, assignment of k, and brackets of flows.

All functions are deterministic given their seed, and report each transformation on its own, so that no figure depends
on the order in which they are computed. A model is anything with the methods of :class:`models.VAE`.
"""

from poflow_lite.metrics.assignment import (
    Donors,
    FieldUse,
    as_asked,
    clustering_accuracy,
    field_use,
    infer_all,
    match_transformations,
    with_coefficients,
    with_own_coefficients,
)
from poflow_lite.metrics.brackets import OrderGaps, bracket_shares, lie_bracket, order_gaps
from poflow_lite.metrics.disentanglement import (
    DCI,
    dci,
    factor_scores,
    mutual_information,
    mutual_information_gap,
    unit_alignment,
)
from poflow_lite.metrics.likelihood import AboveCeiling, LogLikelihood, log_evidence, log_likelihood
from poflow_lite.metrics.predictability import VPScore, generated_pairs, vp_score
from poflow_lite.metrics.prediction import (
    MedianFrame,
    equivariance_error,
    equivariance_errors,
    every_sequence,
    l1,
    persistence,
    predict,
    reconstruct,
    smallest_eigenvalue,
)

__all__ = [
    "DCI",
    "AboveCeiling",
    "Donors",
    "FieldUse",
    "LogLikelihood",
    "MedianFrame",
    "OrderGaps",
    "VPScore",
    "as_asked",
    "bracket_shares",
    "clustering_accuracy",
    "dci",
    "equivariance_error",
    "equivariance_errors",
    "every_sequence",
    "factor_scores",
    "field_use",
    "generated_pairs",
    "infer_all",
    "l1",
    "lie_bracket",
    "log_evidence",
    "log_likelihood",
    "match_transformations",
    "mutual_information",
    "mutual_information_gap",
    "order_gaps",
    "persistence",
    "predict",
    "reconstruct",
    "smallest_eigenvalue",
    "unit_alignment",
    "vp_score",
    "with_coefficients",
    "with_own_coefficients",
]
