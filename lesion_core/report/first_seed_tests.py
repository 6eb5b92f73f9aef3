"""Tests of two classifiers that need the images' own answers: the first seeds' runs are compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from lesion_core.report.values import truth_and_probabilities
from lesion_core.settings import CLASSES


def lesion_of(row: dict[str, Any]) -> str:
    """A score row's lesion; the image itself where none is known."""
    return row["lesion_id"] or row["image_id"]


def first_seed_tests(own: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, Any]:
    """McNemar's test, exact image by image and by lesion; DeLong's of melanoma's AUC by lesion."""
    from lesion_core.stats.classifiers import delong, mcnemar_clustered, mcnemar_exact

    truth, ours = truth_and_probabilities(own)
    _, other = truth_and_probabilities(theirs)
    correct = [np.array([row["label"] == row["predicted"] for row in rows]) for rows in (own, theirs)]
    lesions = np.array([lesion_of(row) for row in own])
    exact = mcnemar_exact(*correct)
    found: dict[str, Any] = {
        "p_mcnemar": exact.p,
        "p_mcnemar_smallest": exact.p_smallest,
        "p_mcnemar_by_lesion": mcnemar_clustered(*correct, lesions).p,
    }
    melanoma = CLASSES.index("mel")
    positive = truth == melanoma
    if len(set(lesions[positive])) > 1 and len(set(lesions[~positive])) > 1:
        result = delong(positive, ours[:, melanoma], other[:, melanoma], lesions)
        found |= {"delong_melanoma_difference": result.difference, "p_delong_melanoma": result.p}
    return found
