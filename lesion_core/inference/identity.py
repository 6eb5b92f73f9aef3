"""What all score rows say of their run and image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lesion_core.scores import Score
from lesion_core.settings.run import Run


def identity(run: Run, dataset: str, record: Mapping[str, Any]) -> Score:
    """The columns of `scores.Score`.

    Args:
        run: the run that is scored.
        dataset: whose image it is.
        record: the image's row in the pixels' index: ``split``, ``image_id``, ``lesion_id`` ("" where not told).
    """
    return {
        "run_id": run.run_id,
        "method": run.method,
        "protocol": run.protocol,
        "rule": run.rule,
        "dataset": dataset,
        "split": record["split"],
        "seed": run.seed,
        "image_id": record["image_id"],
        "lesion_id": record["lesion_id"] or None,
    }
