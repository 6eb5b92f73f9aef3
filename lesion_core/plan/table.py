"""What a profile costs before it is run: runs times steps times measured seconds, with the arithmetic shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from lesion_core.plan.rates import Rate
from lesion_core.plan.work import Counts, training_steps
from lesion_core.settings import Settings
from lesion_core.settings.as_published import SUFFIX
from lesion_core.settings.classification import DerivedMethod
from lesion_core.settings.kinds import kind_of, learns
from lesion_core.settings.run import Run

HOUR = 3600.0
HEAD = [
    "| paper | method | runs | steps a run | seconds a step | from | hours |",
    "|---|---|---:|---:|---:|---|---:|",
]


def owners(settings: Settings) -> dict[str, str]:
    """Method -> the papers whose tables have a row of it; what only serves others' rows is not there."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for name, paper in settings.papers.items():
        for row in (row for table in paper.tables.values() for row in table.rows):
            for method in filter(None, (row.method, row.segmenter)):
                found[method][name] = None
    return {method: " + ".join(names) for method, names in found.items()}


def cost_table(
    images: Mapping[str, Counts],
    runs: Mapping[str, Run],
    rates: Mapping[str, Rate],
    papers: Mapping[str, str],
    watts: float,
) -> str:
    """Markdown: for each method, runs x steps x seconds a step = hours; sums by paper; what has no rate is named.

    Args:
        images: of ``work.image_counts``.
        runs: the expanded matrix.
        rates: by kind; a step of another batch size is scaled by the number of images in it.
        papers: of `owners`.
        watts: what the card takes, for the energy.
    """
    methods: dict[str, list[Run]] = defaultdict(list)
    for run in runs.values():
        if learns(run):
            methods[run.method].append(run)
    lines, known, sums = list(HEAD), 0, defaultdict[str, float](float)
    unknown: dict[str, int] = {}
    order = sorted(methods.items(), key=lambda item: papers.get(item[0].removesuffix(SUFFIX), ""))
    for method, members in order:
        run, count = members[0], len(members)
        kind, steps = kind_of(run, runs), training_steps(run, images)
        paper, rate = papers.get(method.removesuffix(SUFFIX), "none by itself"), rates.get(kind)
        if rate is None or isinstance(run.spec, DerivedMethod):
            unknown[kind] = unknown.get(kind, 0) + count
            lines.append(f"| {paper} | {method} | {count} | {steps} | ? | no run of '{kind}' | ? |")
            continue
        seconds = rate.seconds * run.spec.training.batch_size * run.spec.training.accumulation / rate.batch_size
        hours = count * steps * seconds / HOUR
        known += count
        sums[paper] += hours
        source = f"{rate.run_id} on {rate.device}"
        lines.append(f"| {paper} | {method} | {count} | {steps} | {seconds:.4f} | {source} | {hours:.2f} |")
    if known:
        lines += [f"| {paper} | all known | | | | | {hours:.2f} |" for paper, hours in sorted(sums.items())]
        total = sum(sums.values())
        lines.append(f"| all | measured or stated | {known} | | | | {total:.2f} |")
        lines += [
            "",
            f"{total * watts / 1000:.1f} kWh at {watts:g} W. Training steps alone: validation and scoring add to it.",
        ]
    if unknown:
        number, kinds = sum(unknown.values()), "; ".join(sorted(unknown))
        lines += ["", f"{number} runs have no measured rate and are not in the sum: {kinds}."]
    return "\n".join(lines)
