"""What the page says of licences, and of what each checkpoint has seen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from lesion_core.acquire.registry import RELEASES, WEIGHTS
from lesion_core.files import read_parquet
from lesion_core.paths import Layout

PACKAGED = {"licence": "this repository's, Apache-2.0", "saw": "synthetic images only", "test_images": "none"}


def licences_of(root: Path, runs: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Licences of images and weights, and per run: foundation, training data, hash of its weights.

    Returns:
        {images: [{dataset, count, licence, cite}], weights: [{name, licence, saw, test_images}],
        checkpoints: [{run, start, saw, sha256}]}
    """
    counts = Counter(
        (row["dataset"], row["licence"])
        for row in read_parquet(Layout(root).catalog, ["dataset", "licence"]).to_pylist()
    )
    images = []
    for (dataset, licence), count in sorted(counts.items(), key=str):
        cited = dict.fromkeys(file.citation for file in RELEASES[dataset].files) if dataset in RELEASES else {}
        images.append(
            {"dataset": dataset, "count": count, "licence": licence or "not stated", "cite": "; ".join(cited)}
        )
    return {
        "images": images,
        "weights": [_weights(name) for name in sorted({name for run in runs.values() for name in _foundations(run)})],
        "checkpoints": [{"run": name, **_checkpoint(run)} for name, run in runs.items()],
    }


def _weights(name: str) -> dict[str, str]:
    if name not in WEIGHTS:
        return {"name": name, **PACKAGED}
    known = WEIGHTS[name]
    return {"name": name, "licence": known.file.licence, "saw": known.trained_on, "test_images": known.test_images}


def _foundations(run: dict[str, Any]) -> list[str]:
    """Names of the published weights that a run started from."""
    return [Path(name).stem for name in run["inputs"] if name.startswith("weights/")]


def _checkpoint(run: dict[str, Any]) -> dict[str, str]:
    settings = run["settings"]
    spec = settings.get("spec", {})
    epochs = spec.get("training", {}).get("epochs", 0)
    fitted = epochs or spec.get("model", {}).get("kind") in ("majority", "color_histogram")
    further = [settings[key] for key in ("segmenter_run", "classifier_run") if settings.get(key)]
    further += settings.get("source_runs") or []
    start = [*_foundations(run), *further] or ["a random start" if epochs else "nothing"]
    return {
        "start": ", ".join(start),
        "saw": f"training images of {', '.join(spec.get('train_on', []))}" if fitted else "no training image",
        "digest": (run["weights_sha256"] or "")[:16],
    }
