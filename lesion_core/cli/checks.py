"""Commands that check numbers: a cell against its score rows, a published claim against arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lesion_core.cli.options import Root, sections


def trace(
    table: Annotated[str, typer.Argument(help="As its file is called, e.g. table_05.")],
    row: Annotated[str, typer.Argument(help="The row's label; in tables 15 and 16: other method, dataset, level.")],
    column: Annotated[str, typer.Argument(help="The metric, e.g. dice: a column of the table's .csv.")],
    root: Root = Path("results/smoke"),
    images: Annotated[bool, typer.Option("--images", help="List every image with its hash.")] = False,
) -> None:
    """A cell back to its images, computed anew from the score rows. Exit status 1 if the chain does not hold."""
    from lesion_core.report.trace import TESTS, trace_cell, trace_test, trace_text

    if table in TESTS:
        found = trace_test(root, sections("statistics", root, None).plan, table, row, column)
    else:
        found = trace_cell(root, table, row, column)
    typer.echo(trace_text(found, images=images))
    if found.faults:
        raise typer.Exit(1)


def feasible(
    dice: Annotated[str | None, typer.Option("--dice", help="Mean Dice as printed: 94.27 or 0.9427.")] = None,
    iou: Annotated[str | None, typer.Option("--iou", help="Mean IoU as printed.")] = None,
    n: Annotated[int | None, typer.Option("--n", help="Number of images.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Pairs: columns dice, iou and, if known, n, label.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the verdicts as CSV.")] = None,
    fraction: Annotated[
        bool | None, typer.Option("--fraction/--percent", help="Unit; default: fractions if neither is above 1.")
    ] = None,
) -> None:
    """Can a published pair of mean Dice and mean IoU be true? Exit status 1 where one cannot."""
    from lesion_core.errors import SettingsError
    from lesion_core.metrics.feasibility import listed as pairs

    if csv is not None and dice is None and iou is None:
        judged = pairs.judge_csv(csv, fraction=fraction)
        typer.echo(pairs.summary(judged))
    elif csv is None and dice is not None and iou is not None:
        judged = [pairs.judge(dice, iou, n, fraction=fraction)]
        typer.echo(pairs.details(judged[0]))
    else:
        raise SettingsError(
            "Give --dice and --iou, or --csv", remedy="lesion feasible --dice 94.27 --iou 92.83 --n 519"
        )
    if out is not None:
        pairs.write_verdicts(judged, out)
    if any(map(pairs.is_impossible, judged)):
        raise typer.Exit(1)


def feasible_effect(
    n: Annotated[int, typer.Option("--n", help="Pairs: seeds, or images.")],
    d: Annotated[str | None, typer.Option("--d", help="Cohen's d of the paired differences, as printed.")] = None,
    t: Annotated[str | None, typer.Option("--t", help="t of the paired test, as printed.")] = None,
    p: Annotated[str | None, typer.Option("--p", help="Two-sided p of the t test, as printed.")] = None,
    p_below: Annotated[float | None, typer.Option("--p-below", help="The claim p < this.")] = None,
    wilcoxon: Annotated[bool, typer.Option("--wilcoxon", help="The claim --p-below is Wilcoxon's.")] = False,
    alpha: Annotated[float, typer.Option("--alpha")] = 0.05,
) -> None:
    """Can a published d, t and p of n pairs be true together? Exit status 1 where they cannot."""
    from lesion_core.metrics.feasibility.effects import check_effect
    from lesion_core.metrics.feasibility.printed import decimals_of

    printed = [decimals_of(text) for text in (d, t) if text is not None]
    verdict = check_effect(
        n,
        d=None if d is None else float(d),
        t=None if t is None else float(t),
        p=None if p is None else float(p),
        p_below=p_below,
        test="wilcoxon" if wilcoxon else "t",
        decimals=min(printed, default=2),
        p_decimals=3 if p is None else decimals_of(p),
        alpha=alpha,
    )
    typer.echo(verdict.explanation)
    if verdict.verdict == "impossible":
        raise typer.Exit(1)


def feasible_rates(
    accuracy: Annotated[str, typer.Option("--accuracy", help="As printed: 94.7 or 0.947.")],
    sensitivity: Annotated[str, typer.Option("--sensitivity", help="As printed.")],
    specificity: Annotated[str | None, typer.Option("--specificity", help="As printed, if it is.")] = None,
    prevalence: Annotated[float | None, typer.Option("--prevalence", help="Share of positives, 0..1.")] = None,
    fraction: Annotated[
        bool | None, typer.Option("--fraction/--percent", help="Unit; default: fractions if none is above 1.")
    ] = None,
) -> None:
    """Can published accuracy, sensitivity and specificity be true together (pooled)? Exit status 1 where not."""
    from lesion_core.metrics.feasibility.printed import decimals_of
    from lesion_core.metrics.feasibility.rates import check_rates

    printed = [text for text in (accuracy, sensitivity, specificity) if text is not None]
    decimals = min(map(decimals_of, printed))
    verdict = check_rates(
        float(accuracy),
        float(sensitivity),
        None if specificity is None else float(specificity),
        prevalence=prevalence,
        decimals=decimals,
        percent=not (max(map(float, printed)) <= 1.0 if fraction is None else fraction),
    )
    typer.echo(verdict.explanation)
    if verdict.pooled_verdict == "impossible":
        raise typer.Exit(1)


FOR_PEOPLE = (trace, feasible, feasible_effect, feasible_rates)
FOR_RULES = ()
