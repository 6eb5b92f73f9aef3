"""Commands that check numbers: a cell against its score rows, a published claim against arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lesion_core.cli.options import Root, sections

if TYPE_CHECKING:
    from lesion_core.metrics.printed import Unit

Fraction = Annotated[
    bool | None,
    typer.Option("--fraction/--percent", help="Unit of all; default: per cent where a % stands or it is above 1."),
]


def trace(
    table: Annotated[str, typer.Argument(help="As its file is called, e.g. sam_vit_table_05.")],
    row: Annotated[str, typer.Argument(help="The row's label; in tables 15 and 16: other method, dataset, level.")],
    column: Annotated[str, typer.Argument(help="The metric, e.g. dice: a column of the table's .csv.")],
    root: Root = Path("results/smoke"),
    images: Annotated[bool, typer.Option("--images", help="List every image with its hash.")] = False,
) -> None:
    """A cell back to its images, computed anew from the score rows. Exit status 1 if the chain does not hold."""
    from lesion_core.report.table_cells import read_cells
    from lesion_core.report.trace import trace_cell, trace_test, trace_text

    if any(cell["table"] == table for cell in read_cells(root)):
        found = trace_cell(root, table, row, column)
    else:
        found = trace_test(root, sections("statistics", root, None).plan, table, row, column)
    typer.echo(trace_text(found, images=images))
    if found.faults:
        raise typer.Exit(1)


def feasible(
    dice: Annotated[
        str | None, typer.Option("--dice", help="Mean Dice as printed: 94.27, 0.9427, '92,1 ± 0,3 %'.")
    ] = None,
    iou: Annotated[str | None, typer.Option("--iou", help="Mean IoU as printed.")] = None,
    n: Annotated[str | None, typer.Option("--n", help="Number of images.")] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Columns dice, iou; n, label, dice_sd, iou_sd, sd_over.")
    ] = None,
    confusion: Annotated[
        tuple[str, str, str, str] | None,
        typer.Option("--confusion", metavar="TN FP FN TP", help="What follows from these counts."),
    ] = None,
    f1: Annotated[str | None, typer.Option("--f1", help="With --confusion, as printed: another word for Dice.")] = None,
    accuracy: Annotated[str | None, typer.Option("--accuracy", help="With --confusion, as printed.")] = None,
    sensitivity: Annotated[str | None, typer.Option("--sensitivity", help="The same.")] = None,
    specificity: Annotated[str | None, typer.Option("--specificity", help="The same.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="The same.")] = None,
    auc: Annotated[str | None, typer.Option("--auc", help="The same; one operating point bounds it.")] = None,
    sd_over: Annotated[
        Literal["images", "runs"] | None, typer.Option("--sd-over", help="What an SD is over; default: not known.")
    ] = None,
    pooled: Annotated[bool, typer.Option("--pooled", help="Dice and IoU are of pooled pixels, not means.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write the verdicts as CSV.")] = None,
    fraction: Fraction = None,
) -> None:
    """Can published numbers be true together: Dice with IoU, a mean with its SD, metrics with a confusion matrix?

    Exit status 1 where something is impossible, 2 for input that cannot be read: all of it, or rows of a table in which
    nothing else is impossible.
    """
    from lesion_core.errors import SettingsError
    from lesion_core.files import write_csv
    from lesion_core.metrics.feasibility.confusion import check_confusion
    from lesion_core.metrics.feasibility.pairs import check_pair
    from lesion_core.metrics.printed import parse_count
    from lesion_core.report import feasible as report

    rates = {"f1": f1, "accuracy": accuracy, "sensitivity": sensitivity, "specificity": specificity}
    rates |= {"precision": precision, "auc": auc}
    printed = {name: text for name, text in {"dice": dice, "iou": iou, **rates}.items() if text is not None}
    given = {*printed, *(["n"] if n else []), *(["pooled"] if pooled else []), *(["sd-over"] if sd_over else [])}
    if csv is not None and confusion is None:
        form, allowed = "--csv (a table has columns)", {"pooled", "sd-over"}
    elif confusion is not None and csv is None:
        form, allowed = "--confusion", {"dice", "iou", *rates} - ({"dice"} if f1 else set())
    elif dice is not None and csv is None:
        form, allowed = "--dice without --confusion", {"dice", "iou", "n", "pooled", "sd-over"}
    else:
        raise SettingsError(
            "Give one of: --dice with --iou or an SD; --csv; --confusion with any metric",
            remedy="lesion feasible --dice 94.27 --iou 92.83 --n 519",
        )
    if extra := sorted(given - allowed):
        told = ", ".join(f"--{name}" for name in extra)
        remedy = f"with it go {', '.join(f'--{name}' for name in sorted(allowed))}, --out, --percent, --fraction"
        raise SettingsError(f"{told} does not go with {form}", remedy=remedy)
    unit: Unit | None = None if fraction is None else "fraction" if fraction else "percent"
    columns, unread = report.COLUMNS, False
    if confusion is not None:
        tn, fp, fn, tp = map(parse_count, confusion)
        if f1 is not None:
            printed["dice"] = printed.pop("f1")
        found = check_confusion(tn, fp, fn, tp, printed, unit=unit)
        text, columns, rows = report.confusion_text(found), report.CONFUSION_COLUMNS, report.confusion_rows(found)
        impossible = found.verdict == "impossible"
    else:
        if csv is not None:
            judged = report.judge_table(csv, unit=unit, pooled=pooled, sd_over=sd_over)
            text, unread = report.table_text(judged), bool(judged.unread)
        else:
            count = None if n is None else parse_count(n)
            pair = check_pair(str(dice), iou, count, unit=unit, pooled=pooled, sd_over=sd_over)
            judged, text = report.Judged([("", pair)]), report.pair_text(pair)
        rows, impossible = report.pair_rows(judged), judged.count("impossible") > 0
    typer.echo(text)
    if out is not None:
        write_csv(out, columns, rows)
    if impossible or unread:
        raise typer.Exit(1 if impossible else 2)


def feasible_effect(
    n: Annotated[int, typer.Option("--n", help="Pairs: seeds, or images.")],
    d: Annotated[str | None, typer.Option("--d", help="Cohen's d of the paired differences, as printed.")] = None,
    t: Annotated[str | None, typer.Option("--t", help="t of the paired test, as printed.")] = None,
    p: Annotated[str | None, typer.Option("--p", help="Two-sided p, as printed: 0.049 or '<0.001'.")] = None,
    p_below: Annotated[str | None, typer.Option("--p-below", help="The claim p < this.")] = None,
    wilcoxon: Annotated[bool, typer.Option("--wilcoxon", help="p is Wilcoxon's, not the t test's.")] = False,
    alpha: Annotated[float, typer.Option("--alpha", help="Level to explain where no p is claimed.")] = 0.05,
) -> None:
    """Can a published d, t and p of n pairs be true together? Exit status 1 where they cannot."""
    from lesion_core.metrics.feasibility.effects import check_effect

    test: Literal["t", "wilcoxon"] = "wilcoxon" if wilcoxon else "t"
    verdict = check_effect(n, d=d, t=t, p=p, p_below=p_below, test=test, alpha=alpha)
    typer.echo(verdict.explanation)
    if verdict.verdict == "impossible":
        raise typer.Exit(1)


def feasible_rates(
    accuracy: Annotated[str, typer.Option("--accuracy", help="As printed: 94.7 or 0.947.")],
    sensitivity: Annotated[str, typer.Option("--sensitivity", help="As printed.")],
    specificity: Annotated[str | None, typer.Option("--specificity", help="As printed, if it is.")] = None,
    prevalence: Annotated[
        str | None, typer.Option("--prevalence", help="Share of positives, exactly: 0.2, '20 %'.")
    ] = None,
    fraction: Fraction = None,
) -> None:
    """Can published accuracy, sensitivity and specificity be true together (pooled)? Exit status 1 where not."""
    from lesion_core.metrics.feasibility.rates import check_rates
    from lesion_core.metrics.printed import read_rates

    unit: Unit | None = None if fraction is None else "fraction" if fraction else "percent"
    share = None if prevalence is None else read_rates({"prevalence": prevalence})["prevalence"].value
    verdict = check_rates(accuracy, sensitivity, specificity, prevalence=share, unit=unit)
    typer.echo(verdict.explanation)
    if verdict.pooled_verdict == "impossible":
        raise typer.Exit(1)


FOR_PEOPLE = (trace, feasible, feasible_effect, feasible_rates)
FOR_RULES = ()
