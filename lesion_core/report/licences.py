"""The page's ledger of licences, and of what each checkpoint has seen."""

from __future__ import annotations

from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

from lesion_core.acquire.registry import RELEASES, WEIGHTS
from lesion_core.files import read_parquet
from lesion_core.paths import Layout
from lesion_core.report.html import table

EMBEDDED = {"sam_vit_t": ("this repository's, Apache-2.0", "made images only, no photograph")}
IMAGENET = "ImageNet-1k or ImageNet-21k photographs, as the weights' name says; their authors' licences"


def licences_section(root: Path, runs: dict[str, dict[str, Any]]) -> str:
    """Licences of photographs and weights, and per run: foundation, training data, seed of its start."""
    return _data(root) + _weights(runs) + _checkpoints(runs)


def _data(root: Path) -> str:
    counts = Counter(
        (row["dataset"], row["licence"])
        for row in read_parquet(Layout(root).catalog, ["dataset", "licence"]).to_pylist()
    )
    rows = []
    for (dataset, licence), count in sorted(counts.items(), key=str):
        cited = dict.fromkeys(file.citation for file in RELEASES[dataset].files) if dataset in RELEASES else {}
        cells = f"<td>{count}</td>" + _text(licence or "not stated") + _text("; ".join(cited), "prose")
        rows.append(f"<tr><td>{escape(dataset)}</td>{cells}</tr>")
    columns = ["Dataset", "Photographs", "Licence", "Cite"]
    return "<h3>Photographs</h3>" + table("Licences of photographs", columns, rows, text=columns[2:])


def _weights(runs: dict[str, dict[str, Any]]) -> str:
    used = sorted({name for run in runs.values() for name in _foundations(run)})
    rows = []
    for name in used:
        if name in WEIGHTS:
            licence, saw = WEIGHTS[name].file.licence, WEIGHTS[name].trained_on
        else:
            licence, saw = EMBEDDED.get(name, ("see the weights' own page", IMAGENET))
        rows.append(f"<tr><td>{escape(name)}</td>{_text(licence)}{_text(saw, 'prose')}</tr>")
    if not rows:
        return ""
    columns = ["Weights", "Licence", "Trained on"]
    return "<h3>Weights that runs start from</h3>" + table("Licences of weights", columns, rows, text=columns[1:])


def _foundations(run: dict[str, Any]) -> list[str]:
    """Names of the weights that a run started from: foundation models, and ImageNet's by the encoder's name."""
    model = run["settings"].get("spec", {}).get("model", {})
    found = [Path(name).stem for name in run["inputs"] if name.startswith("weights/")]
    if not found and model.get("kind") == "sam" and model.get("backbone"):
        found.append(model["backbone"])
    if model.get("encoder") and model.get("encoder_weights"):
        found.append(f"{model['encoder']} ({model['encoder_weights']})")
    if model.get("pretrained") and model.get("backbone"):
        found.append(f"{model['backbone']} (ImageNet)")
    return found


def _checkpoints(runs: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, run in runs.items():
        settings = run["settings"]
        spec = settings.get("spec", {})
        epochs = spec.get("training", {}).get("epochs", 0)
        saw = f"training images of {', '.join(spec.get('train_on', []))}" if epochs else "no training image"
        if spec.get("model", {}).get("kind") in ("majority", "color_histogram"):
            saw = f"training images of {', '.join(spec['train_on'])}"
        further = [settings[key] for key in ("segmenter_run", "classifier_run") if settings.get(key)]
        further += settings.get("source_runs") or []
        start = [*_foundations(run), *further] or ["a random start" if epochs else "nothing"]
        digest = run.get("weights_sha256") or ""
        rows.append(
            f"<tr><td><code>{escape(name)}</code></td>{_text(', '.join(start), 'prose')}{_text(saw, 'prose')}"
            f'<td class="text"><code>{digest[:16]}</code></td></tr>'
        )
    columns = ["Run", "Starts from", "Saw", "SHA-256 of its weights"]
    note = "<p class='note'>Validation images choose the epoch; test images are seen by no run.</p>"
    return "<h3>What each checkpoint saw</h3>" + table("Checkpoints", columns, rows, text=columns[1:]) + note


def _text(content: str, kind: str = "text") -> str:
    return f'<td class="{kind}">{escape(content)}</td>'
