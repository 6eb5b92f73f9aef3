"""`lesion audit`: all questions, each with its evidence; what cannot be looked at counts as failed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from lesion_core.audit import anew, integrity, opened, protocol, recompute, releases
from lesion_core.audit.answer import Answer
from lesion_core.audit.manifest import read_manifest, recorded_settings
from lesion_core.errors import SettingsError
from lesion_core.settings import Data, Duplicates, Plan, Robustness, Scoring, Splits, Subgroups
from lesion_core.settings.protocols import Homes, Protocol


def audit(
    root: Path,
    lock: Path,
    *,
    count: int = 0,
    seed: int = 0,
    tolerance: float = 0.0,
    device: str = "cpu",
    only: Collection[str] | None = None,
) -> list[Answer]:
    """Answer every question about a finished results folder; nothing in it is written.

    Args:
        lock: requirements.lock.
        count: scores, stored images and embeddings to compute anew; 0 also leaves out what takes as long as making it:
            catalog, splits, figures and page.
        seed: of their draw.
        tolerance: largest difference of a recomputed score.
        device: ``cpu`` or ``cuda``, for recomputed scores.
        only: names of the questions to ask (``files``, ``masks``, ...); None asks all.

    Raises:
        RunError: there is no manifest, so nothing vouches for the folder.
        SettingsError: there is no such question.
    """
    root = Path(root)
    manifest = read_manifest(root)
    plan, scoring, subgroups, robustness, protocols, data, splits, duplicates = recorded_settings(
        root,
        manifest,
        plan=Plan,
        scoring=Scoring,
        subgroups=Subgroups,
        robustness=Robustness,
        protocols=dict[str, Protocol],
        data=Data,
        splits=Splits,
        duplicates=Duplicates,
    )
    homes = Homes(protocols, data.datasets, splits)
    questions: dict[str, Callable[[], Answer]] = {
        "rehearsal": lambda: protocol.no_rehearsal(root, plan),
        "files": lambda: integrity.files(root, plan, manifest),
        "settings": lambda: integrity.settings(root, plan),
        "inputs": lambda: integrity.inputs(root, plan, manifest),
        "catalog": lambda: releases.catalog(root, data.datasets, duplicates, count),
        "split_tables": lambda: releases.split_tables(root, plan, homes, count),
        "splits": lambda: protocol.splits(root, plan),
        "masks": lambda: opened.masks_closed(root, plan),
        "selection": lambda: protocol.selection(root, plan),
        "score_store": lambda: recompute.score_store(root, plan),
        "tables": lambda: anew.tables(root, plan, subgroups, robustness),
        "page": lambda: anew.page(root, plan, homes, count),
        "pixels": lambda: recompute.pixels(root, plan, count, seed=seed),
        "embeddings": lambda: recompute.embeddings(root, plan, count, seed=seed, device=device),
        "scores": lambda: recompute.scores(root, plan, scoring, count, seed=seed, tolerance=tolerance, device=device),
        "versions": lambda: integrity.versions(root, plan, lock),
        "code": lambda: integrity.code(root, plan),
    }
    if unknown := sorted({*(only or ())} - {*questions}):
        raise SettingsError(f"No such question: {', '.join(unknown)}", remedy=f"use: {', '.join(questions)}")
    return [_asked(name, question) for name, question in questions.items() if only is None or name in only]


def _asked(name: str, question: Callable[[], Answer]) -> Answer:
    try:
        return question()
    except Exception as error:
        # A file that was tampered with may break any reader; that is a finding, and the other questions go on.
        return Answer(
            f"Can '{name}' be answered?", problems=[f"{type(error).__name__}: {' '.join(str(error).split())}"]
        )
