"""What a profile costs before it is run: steps times seconds, measured or estimated, with the arithmetic shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lesion_core.errors import SettingsError
from lesion_core.plan.rates import Rate
from lesion_core.plan.work import Work, kind_of, learns, training_work
from lesion_core.settings.run import Run

HOUR = 3600.0
TERA = 1e12
GIGA = 1e9


@dataclass(frozen=True)
class Card:
    """An accelerator as it is assumed to be, for runs that nobody has measured.

    Attributes:
        tflops: dense matrix rate in the precision of the training, 1e12 operations a second, from its data sheet.
        share: of that rate that a training reaches, 0..1; an assumption.
        least_step: seconds that a step takes however little it computes (loading, launches, optimizer); an assumption.
    """

    tflops: float
    share: float
    least_step: float = 0.0

    def __post_init__(self) -> None:
        if not self.tflops > 0 or not 0 < self.share <= 1 or not self.least_step >= 0:
            raise SettingsError(
                f"A card of {self.tflops} TFLOP/s of which {self.share} are reached, with steps of at least "
                f"{self.least_step} s, cannot be",
                remedy="give --tflops above 0, --share above 0 and at most 1, and --least-step of 0 or more",
            )

    def seconds(self, operations: float) -> float:
        """Of a step of so many floating-point operations."""
        return max(self.least_step, operations / (self.tflops * TERA * self.share))


@dataclass(frozen=True)
class _Line:
    """Equal runs of one method: they differ in their seeds."""

    method: str
    kind: str
    runs: int
    work: Work
    operations: float | None
    seconds: float | None
    source: str
    estimated: bool


def cost_table(
    images: Mapping[str, tuple[int, int]],
    runs: Mapping[str, Run],
    rates: Mapping[str, Rate],
    card: Card | None = None,
    count: Callable[[Run, Mapping[str, Run]], Mapping[str, int]] | None = None,
) -> str:
    """Markdown: for each method, runs x steps x seconds a step = hours; what has no rate is estimated or named.

    Args:
        images: dataset -> training and validation images, ``work.image_counts``.
        runs: the expanded matrix.
        rates: by kind; a step of another batch size is scaled by the number of images in it.
        card: for kinds without a rate; None: these are named and left out of the sum.
        count: (run, runs) -> operations per image of each pass, ``flops.flops_per_image``; needed with ``card``.
    """
    lines = _lines(images, runs, rates, card, count)
    table = [
        "| method | runs | steps a run | TFLOP a step | seconds a step | from | hours |",
        "|---|---:|---:|---:|---:|---|---:|",
    ]
    for line in lines:
        hours = "?" if line.seconds is None else f"{line.runs * line.work.steps * line.seconds / HOUR:.2f}"
        seconds = "?" if line.seconds is None else f"{line.seconds:.4f}"
        counted = "" if line.operations is None else f"{line.operations / line.work.steps / TERA:.3f}"
        table.append(
            f"| {line.method} | {line.runs} | {line.work.steps} | {counted} | {seconds} | {line.source} | {hours} |"
        )
    for name, estimated in (("measured or stated", False), ("estimated", True)):
        chosen = [line for line in lines if line.seconds is not None and line.estimated == estimated]
        if chosen:
            hours = sum(line.runs * line.work.steps * (line.seconds or 0.0) for line in chosen) / HOUR
            number = sum(line.runs for line in chosen)
            table.append(f"| all {name} | {number} | | | | | {hours:.2f} |")
    return "\n".join([*table, *_remarks(lines, card)])


def _lines(
    images: Mapping[str, tuple[int, int]],
    runs: Mapping[str, Run],
    rates: Mapping[str, Rate],
    card: Card | None,
    count: Callable[[Run, Mapping[str, Run]], Mapping[str, int]] | None,
) -> list[_Line]:
    seeds: dict[str, list[Run]] = defaultdict(list)
    for run in runs.values():
        if learns(run):
            seeds[run.method].append(run)
    counted: dict[str, Mapping[str, int]] = {}
    lines = []
    for method, members in seeds.items():
        run = members[0]
        kind, work, operations = kind_of(run, runs), training_work(run, images), None
        rate = rates.get(kind)
        if count is not None:
            if kind not in counted:
                counted[kind] = count(run, runs)
            operations = sum(number * counted[kind][name] for name, number in work.passes.items())
        seconds, source, estimated = None, f"no run of '{kind}'", False
        if rate is not None:
            batch = run.spec.training.batch_size * run.spec.training.accumulation
            seconds = rate.seconds * batch / rate.batch_size
            source = f"{rate.run_id} on {rate.device}"
            if operations is not None:
                source += f", {operations / work.steps / seconds / GIGA:.0f} GFLOP/s"
        elif card is not None and operations is not None:
            seconds, source, estimated = card.seconds(operations / work.steps), "estimate", True
        lines.append(_Line(method, kind, len(members), work, operations, seconds, source, estimated))
    return lines


def _remarks(lines: list[_Line], card: Card | None) -> list[str]:
    said = []
    if any(line.estimated for line in lines) and card is not None:
        said.append(
            "Estimates, not measurements: operations of all passes (training, validation, stored embeddings), counted "
            f"on the models, / ({card.tflops:g} TFLOP/s x {card.share:g}), at least {card.least_step:g} s a step. "
            "Assumed are the card's rate, the share of it that is reached, what a step takes at least, and that no run "
            "stops early. Scoring, explanations and the stages before training are not in it."
        )
    if unknown := [line for line in lines if line.seconds is None]:
        number, kinds = sum(line.runs for line in unknown), sorted({line.kind for line in unknown})
        said.append(f"{number} runs have no measured rate and are not in the sum: {'; '.join(kinds)}.")
    return ["", *said] if said else []
