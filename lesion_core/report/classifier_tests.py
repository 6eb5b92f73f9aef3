"""Tests of two classifiers that need the images' own answers, made for every pair of seeds and told as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from lesion_core.report.measures import MELANOMA, lesions_of, truth_and_probabilities
from lesion_core.stats.classifiers import delong, mcnemar_clustered, mcnemar_exact
from lesion_core.stats.multiple import combine_dependent

RANGED = ("p_mcnemar", "p_mcnemar_by_lesion", "p_delong_melanoma")


def classifier_tests(pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame]]) -> dict[str, Any]:
    """McNemar's test, exact image by image and by lesion, and DeLong's of melanoma's AUC by lesion, over all seeds.

    Each pair of runs is tested by itself. The pairs share their images, so their p values depend on each other: they
    are combined by `stats.multiple.combine_dependent`, which needs no independence, and ``<p>_range`` tells the
    smallest and the greatest. ``delong_melanoma_difference`` is the mean over pairs.

    Args:
        pairs: score rows of both runs, one pair per seed, sorted by image; at least one pair.
    """
    single = pd.DataFrame([_one_pair(own, theirs) for own, theirs in pairs])
    found: dict[str, Any] = {"seed_pairs": len(single)}
    for name, values in single.items():
        values = values.to_numpy()
        found[name] = float(values.mean()) if name == "delong_melanoma_difference" else combine_dependent(values)
        if name in RANGED:
            found[f"{name}_range"] = f"{values.min():.6g} to {values.max():.6g}"
    return found


def _one_pair(own: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, float]:
    truth, ours = truth_and_probabilities(own)
    _, other = truth_and_probabilities(theirs)
    hits, other_hits = ((rows["label"] == rows["predicted"]).to_numpy() for rows in (own, theirs))
    lesions = lesions_of(own)
    exact = mcnemar_exact(hits, other_hits)
    found = {
        "p_mcnemar": exact.p,
        "p_mcnemar_smallest": exact.p_smallest,
        "p_mcnemar_by_lesion": mcnemar_clustered(hits, other_hits, lesions).p,
    }
    positive = truth == MELANOMA
    if len(set(lesions[positive])) > 1 and len(set(lesions[~positive])) > 1:
        result = delong(positive, ours[:, MELANOMA], other[:, MELANOMA], lesions)
        found |= {"delong_melanoma_difference": result.difference, "p_delong_melanoma": result.p}
    return found
