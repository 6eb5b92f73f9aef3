"""``lesion feasible``: tables of printed pairs, and verdicts in words and as CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass, field
from itertools import zip_longest
from operator import attrgetter
from pathlib import Path

from lesion_core.errors import FormatError, ScoreError
from lesion_core.metrics.feasibility.confusion import WRONG, ConfusionVerdict, MetricCheck
from lesion_core.metrics.feasibility.pairs import PairVerdict, SdOver, check_pair
from lesion_core.metrics.printed import Unit, between, is_blank, parse_count, round_down, round_up

# Bounds in the CSV are fractions with six decimals, rounded so that they stay true.
ROUNDED = {
    "iou_low": round_down,
    "iou_high": round_up,
    "pooled_high": round_up,
    "dice_sd.least": round_down,
    "dice_sd.greatest": round_up,
    "dice_sd.greatest_sample": round_up,
    "iou_sd.least": round_down,
    "iou_sd.greatest": round_up,
    "iou_sd.greatest_sample": round_up,
    "least_share_below": round_down,
}
COLUMNS = (
    *("label", "dice", "iou", "n", "verdict", *(name.replace(".", "_") for name in ROUNDED)),
    *("least_images_below", "explanation"),
)
CONFUSION_COLUMNS = ("metric", "follows", "printed", "verdict", "instead")
LABELS = ("label", "method", "model", "name")
EXAMPLE = "give columns dice and iou (as printed) and, if known, n, label, dice_sd, iou_sd, sd_over"
KNOWN = {*LABELS, "dice", "iou", "n", "dice_sd", "iou_sd", "sd_over"}


@dataclass
class Judged:
    """Labels with their verdicts, what is wrong in each row that cannot be read, and what else was passed over.

    Attributes:
        skipped: rows without Dice or IoU. unused: columns that nothing is known of.
    """

    pairs: list[tuple[str, PairVerdict]]
    unread: list[str] = field(default_factory=list)
    skipped: int = 0
    unused: list[str] = field(default_factory=list)

    def count(self, verdict: str) -> int:
        """How many pairs have a verdict."""
        return sum(own.verdict == verdict for _, own in self.pairs)


def judge_table(path: Path, *, unit: Unit | None = None, pooled: bool = False, sd_over: SdOver | None = None) -> Judged:
    """Judge every row of a table with the columns dice and iou; n, label, dice_sd, iou_sd, sd_over if known.

    Commas, semicolons or tabs between cells; headers in any case, with spaces or underscores, with "(%)" or without.
    Rows without Dice or IoU are counted and skipped, rows that cannot be read are named.

    Args:
        sd_over: of rows that do not say it themselves.

    Raises:
        FormatError: the file is no such table. ScoreError: no row holds a pair.
    """
    names, rows = _read_table(path)
    found = Judged([], unused=[title for name, title in names if name not in KNOWN])
    first: ScoreError | None = None
    for number, cells in rows:
        row = dict(zip((name for name, _ in names), cells, strict=False))
        label = next((row[name] for name in LABELS if row.get(name)), f"line {number}")
        try:
            if len(cells) != len(names):
                remedy = "quote numbers with a decimal comma, or put semicolons between cells"
                raise ScoreError(f"{len(cells)} cells, the header has {len(names)}", remedy=remedy)
            if is_blank(row["dice"]) or is_blank(row["iou"]):
                found.skipped += 1
                continue
            dice, iou = (_with_sd(row[name], row.get(f"{name}_sd")) for name in ("dice", "iou"))
            n = None if is_blank(row.get("n")) else parse_count(row["n"])
            over = _sd_over(row.get("sd_over"), sd_over)
            found.pairs.append((label, check_pair(dice, iou, n, unit=unit, pooled=pooled, sd_over=over)))
        except ScoreError as error:
            place = f"line {number}" if label == f"line {number}" else f"line {number}, {label}"
            found.unread.append(f"{place}: {error.message}")
            first = first or ScoreError(f"L{place[1:]}: {error.message}", file=path, remedy=error.remedy)
    if not found.pairs:
        raise first or ScoreError("No row holds both Dice and IoU", file=path, remedy=EXAMPLE)
    return found


def pair_rows(judged: Judged) -> list[dict[str, object]]:
    """Rows of ``COLUMNS``; empty where nothing is needed or nothing can help."""

    def row(label: str, verdict: PairVerdict) -> dict[str, object]:
        bounds = {name: attrgetter(name)(verdict) for name in ROUNDED}
        return {
            "label": label,
            "dice": verdict.dice.text,
            "iou": "" if verdict.iou is None else verdict.iou.text,
            "n": "" if verdict.n is None else verdict.n,
            "verdict": verdict.verdict,
            **{
                name.replace(".", "_"): "" if math.isnan(value) else ROUNDED[name](value, 6)
                for name, value in bounds.items()
            },
            "least_images_below": "" if verdict.least_images_below is None else verdict.least_images_below,
            "explanation": verdict.explanation,
        }

    return [row(label, verdict) for label, verdict in judged.pairs]


def pair_text(verdict: PairVerdict) -> str:
    """One pair, line by line, in the paper's unit."""
    bounds = [
        ("mean IoU with this Dice", verdict.iou_low, verdict.iou_high, verdict.iou),
        ("IoU of pooled pixels", verdict.iou_low, verdict.pooled_high, verdict.iou),
        ("SD of Dice (divisor n)", verdict.dice_sd.least, verdict.dice_sd.greatest, verdict.dice),
        ("SD (divisor n - 1)", verdict.dice_sd.least, verdict.dice_sd.greatest_sample, verdict.dice),
        ("SD of IoU (divisor n)", verdict.iou_sd.least, verdict.iou_sd.greatest, verdict.iou),
        ("SD (divisor n - 1)", verdict.iou_sd.least, verdict.iou_sd.greatest_sample, verdict.iou),
    ]
    places = 2 if verdict.percent else 4
    lines = [verdict.explanation]
    for name, low, high, number in bounds:
        if number is not None and not math.isnan(low):
            lines.append(f"{name:<26}{between(low, high, places, percent=verdict.percent)}")
    if verdict.least_share_below > 0:
        images = f" ({verdict.least_images_below} of {verdict.n} images)" if verdict.n else ""
        lines.append(
            f"{'images of IoU under 0.65':<26}at least {round_down(100 * verdict.least_share_below, 2)} %{images}"
        )
    return "\n".join(lines)


def table_text(judged: Judged) -> str:
    """One line per pair, how many are impossible, and what was passed over."""
    cells = [(row["label"], row["dice"], row["iou"]) for row in pair_rows(judged)]
    label, dice, iou = (max(len(str(row[column])) for row in cells) for column in range(3))
    lines = []
    for row, (_, verdict) in zip(cells, judged.pairs, strict=True):
        text = f"{row[0]:<{label}}  {row[1]:>{dice}}  {row[2]:>{iou}}  {verdict.verdict}"
        lines.append(f"{text}: {verdict.why}" if verdict.why else text)
    lines.append(f"{judged.count('impossible')} of {len(judged.pairs)} pairs are arithmetically impossible")
    if small := judged.count("SD not over images"):
        lines[-1] += f"; {small} more {'has' if small == 1 else 'have'} an SD that cannot be one over images"
    if judged.skipped:
        lines.append(f"rows without Dice or IoU, skipped: {judged.skipped}")
    if judged.unread:
        lines += [f"rows that cannot be read: {len(judged.unread)}", *(f"  {text}" for text in judged.unread)]
    if judged.unused:
        lines.append(f"columns that are not used: {', '.join(judged.unused)}")
    return "\n".join(lines)


def confusion_rows(found: ConfusionVerdict) -> list[dict[str, object]]:
    """Rows of ``CONFUSION_COLUMNS``, each in its printed unit with two decimals more than it prints."""
    usual = any(check.printed and check.printed.percent for check in found.checks)

    def row(check: MetricCheck) -> dict[str, object]:
        percent = check.printed.percent if check.printed else usual
        places = check.printed.decimals + 2 if check.printed else 2 if percent else 4
        follows = f"{check.low * (100 if percent else 1):.{places}f}{' %' if percent else ''}"
        if check.low < check.high:
            follows = between(check.low, check.high, places, percent=percent)
        return {
            "metric": check.name,
            "follows": "not defined" if math.isnan(check.low) else follows,
            "printed": check.printed.text if check.printed else "",
            "verdict": check.follows,
            "instead": ", ".join(check.instead),
        }

    return [row(check) for check in found.checks]


def confusion_text(found: ConfusionVerdict) -> str:
    """What follows from a matrix, beside what is printed."""
    total, positive = found.tn + found.fp + found.fn + found.tp, found.tp + found.fn
    counts = f"TN {found.tn}, FP {found.fp}, FN {found.fn}, TP {found.tp}"
    rows = confusion_rows(found)
    width = max(len(str(row["follows"])) for row in rows) + 2
    lines = [
        f"{counts}: {100 * positive / total:.2f} % of {total} are positive",
        f"{'pooled':<20}{'follows':>{width}}{'printed':>12}",
    ]
    for row in rows:
        name = "F1 (Dice)" if row["metric"] == "dice" else row["metric"]
        instead = f" (it would be {row['instead']})" if row["instead"] else ""
        lines.append(f"{name:<20}{row['follows']:>{width}}{row['printed']:>12}  {row['verdict']}{instead}".rstrip())
    given = [check.follows for check in found.checks if check.follows]
    if given:
        wrong = sum(follows in WRONG for follows in given)
        lines.append(f"{wrong} of {len(given)} printed metrics do not follow from the matrix")
    if found.orders:
        more = f" ({len(found.orders) - 3} more orders fit)" if found.orders[3:] else ""
        lines.append(f"they follow if the counts are, in this order, {' or '.join(found.orders[:3])}{more}")
    return "\n".join(lines)


def _with_sd(text: str, sd: str | None) -> str:
    """A mean with the SD of another column: 2.1, ± 2.1 or (2.1)."""
    return text if is_blank(sd) else f"{text} ± {(sd or '').strip(' ()±+/-')}"


def _sd_over(cell: str | None, otherwise: SdOver | None) -> SdOver | None:
    told = (cell or "").strip().lower()
    if is_blank(told):
        return otherwise
    if told not in ("images", "runs"):
        raise ScoreError(f"'{cell}' is not what an SD is over", remedy="write images or runs, or leave the cell empty")
    return "images" if told == "images" else "runs"


def _read_table(path: Path) -> tuple[list[tuple[str, str]], list[tuple[int, list[str]]]]:
    """Columns as (name, header), and (line number, cells) of each row; a % of the header stands at each cell.

    A name is the header in lower case, with underscores for spaces.
    """
    content = path.read_bytes()
    if content.startswith(b"PK"):
        raise FormatError("The table is a workbook, not text", file=path, remedy="save it as 'CSV UTF-8'")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:4]:
        raise FormatError("The table is UTF-16, not UTF-8", file=path, remedy="save it as 'CSV UTF-8'")
    try:
        lines = list(io.StringIO(content.decode("utf-8-sig"), newline=None))
    except UnicodeDecodeError as error:
        raise FormatError(f"The table is not UTF-8: {error}", file=path, remedy="save it as 'CSV UTF-8'") from error
    delimiters, start = "\t;,", 0
    # Excel writes and reads this line
    if lines and (told := re.fullmatch(r'"?sep=([\t;,|])"?\s*', lines[0], re.IGNORECASE)):
        delimiters, start = told[1], 1
    heads = {delimiter: next(csv.reader(lines[start:], delimiter=delimiter), []) for delimiter in delimiters}
    delimiter, head = max(heads.items(), key=lambda item: len(item[1]))
    names = [re.sub(r"[\s_]+", "_", re.sub(r"[(\[]%[)\]]", " ", title).strip().lower()) for title in head]
    if odd := [name for name in ("dice", "iou") if names.count(name) != 1]:
        found = f"the columns are {', '.join(head)}" if head else "the table is empty"
        raise FormatError(f"It needs one column {' and one '.join(odd)}; {found}", file=path, remedy=EXAMPLE)
    reader = csv.reader(lines[start:], delimiter=delimiter)
    next(reader)
    rows: list[tuple[int, list[str]]] = []
    for cells in reader:
        if any(cell.strip() for cell in cells):
            shown = [
                f"{cell.strip()} %" if "%" in title and "%" not in cell and not is_blank(cell) else cell.strip()
                for cell, title in zip_longest(cells, head[: len(cells)], fillvalue="")
            ]
            rows.append((start + reader.line_num, shown))
    return list(zip(names, head, strict=True)), rows
