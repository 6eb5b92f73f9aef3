"""What a profile costs before it is run: runs times steps times measured seconds, with the arithmetic shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from lesion_core.plan.rates import Rate
from lesion_core.plan.work import kind_of, learns, training_steps
from lesion_core.settings.classification import DerivedMethod
from lesion_core.settings.run import Run

HOUR = 3600.0
HEAD = ["| method | runs | steps a run | seconds a step | from | hours |", "|---|---:|---:|---:|---|---:|"]


def cost_table(images: Mapping[str, tuple[int, int]], runs: Mapping[str, Run], rates: Mapping[str, Rate]) -> str:
    """Markdown: for each method, runs x steps x seconds a step = hours; what has no rate is named.

    Args:
        images: dataset -> training and validation images, ``work.image_counts``.
        runs: the expanded matrix.
        rates: by kind; a step of another batch size is scaled by the number of images in it.
    """
    methods: dict[str, list[Run]] = defaultdict(list)
    for run in runs.values():
        if learns(run):
            methods[run.method].append(run)
    lines, known, total = list(HEAD), 0, 0.0
    unknown: dict[str, int] = {}
    for method, members in methods.items():
        run, count = members[0], len(members)
        kind, steps = kind_of(run, runs), training_steps(run, images)
        rate = rates.get(kind)
        if rate is None or isinstance(run.spec, DerivedMethod):
            unknown[kind] = unknown.get(kind, 0) + count
            lines.append(f"| {method} | {count} | {steps} | ? | no run of '{kind}' | ? |")
            continue
        seconds = rate.seconds * run.spec.training.batch_size * run.spec.training.accumulation / rate.batch_size
        hours = count * steps * seconds / HOUR
        known, total = known + count, total + hours
        lines.append(f"| {method} | {count} | {steps} | {seconds:.4f} | {rate.run_id} on {rate.device} | {hours:.2f} |")
    if known:
        lines.append(f"| all measured or stated | {known} | | | | {total:.2f} |")
    if unknown:
        number, kinds = sum(unknown.values()), "; ".join(sorted(unknown))
        lines += ["", f"{number} runs have no measured rate and are not in the sum: {kinds}."]
    return "\n".join(lines)
