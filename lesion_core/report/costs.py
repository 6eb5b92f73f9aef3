"""What a profile costs before it is run: each run's steps times measured seconds, with the arithmetic shown."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lesion_core.errors import RunError, SettingsError
from lesion_core.files import read_csv, read_json
from lesion_core.runs import Run
from lesion_core.settings import Settings

HOUR = 3600.0
# Photographs of each release that can train: ISIC 2018 Task 1 and Task 3 training sets, HAM10000 (Tschandl et al., Sci
# Data 5:180161, 2018), PH2 (Mendonca et al., EMBC 2013), ISIC 2016 and 2017 training sets, ISIC 2019 training set.
RELEASED = {
    "isic2018_task1": 2594,
    "isic2018_task3": 10015,
    "ham10000": 10015,
    "ph2": 200,
    "isic2016": 900,
    "isic2017": 2000,
    "isic2019": 25331,
}


@dataclass(frozen=True)
class Rate:
    """Seconds of one training step, start-up included, measured in a finished run of the same kind.

    Attributes:
        kind: task, model and backbone, e.g. ``segmentation sam sam_vit_b 512``.
        seconds: per optimisation step.
        batch_size: of those steps.
        device: where it was measured.
        run_id: in which run.
    """

    kind: str
    seconds: float
    batch_size: int
    device: str
    run_id: str


def kind_of(run: Run) -> str:
    """What decides a step's time: task, model, backbone and image size."""
    model = getattr(run.spec, "model", None)
    if model is None:
        return run.task
    named = (
        run.task,
        model.kind,
        getattr(model, "backbone", None) or getattr(model, "encoder", None),
        model.image_size,
    )
    return " ".join(str(part) for part in named if part)


def measured_rates(root: Path) -> dict[str, Rate]:
    """Seconds per step of each kind of run in a finished results folder, the slowest of its runs.

    Raises:
        RunError: no run was trained there.
    """
    rates: dict[str, Rate] = {}
    for path in sorted((root / "runs").glob("*/*/provenance.json")):
        record, history = read_json(path), path.with_name("history.csv")
        rows = read_csv(history) if history.is_file() else []
        if not rows or "step" not in rows[-1]:
            continue
        run = Run.model_validate(record["settings"])
        seconds = _job_seconds(root, run, record) / int(rows[-1]["step"])
        rate = Rate(kind_of(run), seconds, run.spec.training.batch_size, record["device"], run.run_id)
        if rate.kind not in rates or rates[rate.kind].seconds < seconds:
            rates[rate.kind] = rate
    if not rates:
        raise RunError("No run was trained here", file=root, remedy="give a finished results folder with --rates")
    return rates


def stated_rates(texts: Iterable[str], runs: Mapping[str, Run]) -> dict[str, Rate]:
    """Rates that a person knows, as ``KIND=SECONDS`` of one step at the batch size of the matrix.

    Raises:
        SettingsError: not of that form, or no run is of that kind.
    """
    kinds = {kind_of(run): run for run in runs.values()}
    rates = {}
    for text in texts:
        kind, _, number = text.rpartition("=")
        try:
            seconds = float(number)
        except ValueError:
            seconds = math.nan
        if kind not in kinds or not seconds > 0:
            raise SettingsError(
                f"'{text}' is no rate", ids=sorted(kinds), remedy="give KIND=SECONDS with a kind of the matrix"
            )
        rates[kind] = Rate(kind, seconds, kinds[kind].spec.training.batch_size, "your machine", "stated")
    return rates


def training_images(settings: Settings) -> dict[str, int]:
    """Training images of each dataset by its release and ``splits.train``; made images by their own number."""
    made = settings.synthetic
    counts = dict(RELEASED)
    if made is not None:
        lesions = round(made.ham10000_lesions * made.photographs_per_lesion)
        counts |= {"isic2018_task1": made.isic2018_task1, "ham10000": lesions, "isic2018_task3": made.isic2018_task3}
        counts["ph2"] = made.ph2
    return {name: round(count * settings.splits.train) for name, count in counts.items()}


def _job_seconds(root: Path, run: Run, record: dict) -> float:
    """Of the whole job by Snakemake's benchmark; by the job's own clock where there is none."""
    rule = {"segmentation": "train_segmenter", "classification": "train_classifier", "joint": "train_joint"}[run.task]
    path = root / "benchmarks" / rule / f"{run.run_id}.tsv"
    if not path.is_file():
        return record["seconds"]
    with open(path, encoding="utf-8", newline="") as handle:
        return float(next(csv.DictReader(handle, delimiter="\t"))["s"])


def cost_table(runs: Mapping[str, Run], images: Mapping[str, int], rates: Mapping[str, Rate]) -> str:
    """Markdown: for each kind of run, runs x steps x seconds a step = hours; what has no rate is named, not guessed.

    Args:
        runs: the expanded matrix.
        images: dataset -> training images.
        rates: by kind; a step of another batch size is scaled by the number of images in it.
    """
    lines = ["| run | steps | seconds a step | measured in | hours |", "|---|---:|---:|---|---:|"]
    total, unknown, kinds = 0.0, 0, set()
    for run_id, run in sorted(runs.items()):
        training = getattr(run.spec, "training", None)
        if training is None or not training.epochs:
            continue
        count = sum(images.get(dataset, 0) for dataset in run.spec.train_on)
        steps = training.epochs * max(1, count // training.batch_size)
        rate = rates.get(kind_of(run))
        if rate is None:
            unknown += 1
            kinds.add(kind_of(run))
            lines.append(f"| {run_id} | {steps} | ? | no run of '{kind_of(run)}' | ? |")
            continue
        seconds = rate.seconds * training.batch_size / rate.batch_size
        hours = steps * seconds / HOUR
        total += hours
        lines.append(f"| {run_id} | {steps} | {seconds:.3f} | {rate.run_id} on {rate.device} | {hours:.2f} |")
    lines.append(f"| all with a rate | | | | {total:.2f} |")
    if unknown:
        lines.append("")
        lines.append(f"{unknown} runs have no measured rate and are not in the sum: {'; '.join(sorted(kinds))}.")
    return "\n".join(lines)
