"""Was the experiment conducted as it must be: no leak across splits, selection on validation."""

from __future__ import annotations

import math
from pathlib import Path

from lesion_core.audit.answer import Answer
from lesion_core.audit.current import run_folders
from lesion_core.catalog.certificate import certify
from lesion_core.errors import LesionError
from lesion_core.files import read_csv, read_json
from lesion_core.paths import Layout
from lesion_core.record.rehearsed import signs_of_rehearsal
from lesion_core.settings import DerivedMethod, Plan
from lesion_core.settings.run import Run

SELECTED_BY = {"segmentation": "val_dice", "classification": "val_selection", "joint": "val_selection"}
HISTORY_COLUMNS = ("epoch", "step", "lr")  # and what starts with train_ or val_


def splits(root: Path, plan: Plan) -> Answer:
    """Every leakage certificate, computed anew from the catalog, its edges and the split tables."""
    answer = Answer("Do the splits hold?")
    layout, told = Layout(root), []
    for home in sorted(set(plan.protocols.values())):
        folder = layout.certificate(home).parent
        name = folder.relative_to(root).as_posix()
        recorded = read_json(layout.certificate(home))
        found = certify(layout.catalog, layout.edges, folder, recorded["rule"])
        for pair in found["crossing"] if recorded["rule"] == "leak_free" else ():
            sides = [f"{pair[side]['dataset']}/{pair[side]['image_id']} ({pair[side]['split']})" for side in "ab"]
            answer.problems.append(f"{name}: {' and '.join(sides)} share a {pair['reason']}")
        for dataset, part in found["splits"].items():
            if recorded["splits"].get(dataset) != part:
                answer.problems.append(f"{name}/{dataset}.csv: not the table that certificate.json speaks of")
        if found != recorded and not answer.problems:
            answer.problems.append(f"{name}/certificate.json: not what is computed from catalog and split tables")
        images = sum(sum(part["counts"].values()) for part in found["splits"].values())
        told.append(f"{home}: {found['verdict']}, {images} images, {sum(found['edges_checked'].values())} edges")
    answer.evidence = f"certificates recomputed: {'; '.join(told)}"
    return answer


def selection(root: Path, plan: Plan) -> Answer:
    """Each run's epoch is the one that its validation history selects."""
    answer = Answer("Was each checkpoint chosen on validation images?")
    trained = fixed = 0
    for folder in run_folders(root, plan):
        run, name = Run.load(folder), folder.relative_to(root).as_posix()
        if isinstance(run.spec, DerivedMethod):
            continue  # nothing was trained
        history = read_csv(folder / "history.csv")
        extra = read_json(folder / "provenance.json")["extra"]
        strangers = [key for key in (history[0] if history else {}) if not _of_training_or_validation(key)]
        if strangers:
            answer.problems.append(f"{name}/history.csv: columns of neither training nor validation: {strangers}")
        if run.spec.training.epochs == 0:
            fixed += 1
            continue
        trained += 1
        try:
            best = best_epoch([float(row[SELECTED_BY[run.task]]) for row in history])
        except (LesionError, KeyError, ValueError) as error:
            answer.problems.append(f"{name}/history.csv: selects no epoch: {error}")
            continue
        if best != extra.get("best_epoch"):
            answer.problems.append(
                f"{name}/history.csv: {SELECTED_BY[run.task]} selects epoch {best}, provenance.json has"
                f" {extra.get('best_epoch')}"
            )
    answer.evidence = (
        f"{trained} histories: the best epoch by validation recomputed; {fixed} runs have no epochs to choose from"
    )
    return answer


def best_epoch(values: list[float]) -> int:
    """1-based epoch with the greatest value, the first of equals: the engine's rule.

    Raises:
        LesionError: there is no value, or one is not finite.
    """
    if not values:
        raise LesionError("There is no epoch")
    if not all(math.isfinite(value) for value in values):
        raise LesionError("A validation value is not finite")
    return values.index(max(values)) + 1


def _of_training_or_validation(column: str) -> bool:
    return column in (*HISTORY_COLUMNS, "c") or column.startswith(("train_", "val_"))


def no_rehearsal(root: Path, plan: Plan) -> Answer:
    """Neither the plan nor any run nor any weights are a rehearsal's."""
    answer = Answer("Are these results, and no rehearsal?", problems=signs_of_rehearsal(root))
    if plan.rehearsed:
        answer.problems.append(f"manifest.json: its plan is that of a rehearsal (profile {plan.profile})")
    answer.evidence = "steps in each run's provenance, the source of each file of weights, the recorded plan"
    return answer
