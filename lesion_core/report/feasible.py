"""``lesion feasible``: tables of printed pairs, and verdicts in words and as CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lesion_core.errors import FormatError, ScoreError
from lesion_core.metrics.feasibility.confusion import ConfusionVerdict, MetricCheck
from lesion_core.metrics.feasibility.pairs import PairVerdict, check_pair
from lesion_core.metrics.printed import Unit, is_blank, parse_count, round_down, round_up

# Bounds in the CSV are fractions with six decimals, rounded so that they stay true.
ROUNDED = {
    "iou_low": round_down,
    "iou_high": round_up,
    "pooled_high": round_up,
    "least_sd": round_down,
    "greatest_sd": round_up,
    "greatest_sample_sd": round_up,
    "least_share_below": round_down,
}
COLUMNS = ("label", "dice", "iou", "n", "verdict", *ROUNDED, "least_images_below", "explanation")
CONFUSION_COLUMNS = ("metric", "follows", "printed", "verdict", "instead")
LABELS = ("label", "method", "model", "name")
EXAMPLE = "give columns dice and iou (as printed) and, if known, n, label, dice_sd, iou_sd"


@dataclass(frozen=True)
class Judged:
    """Labels with their verdicts, and how many rows lacked a value."""

    pairs: list[tuple[str, PairVerdict]]
    skipped: int

    @property
    def impossible(self) -> int:
        return sum(verdict.verdict == "impossible" for _, verdict in self.pairs)


def judge_table(path: Path, *, unit: Unit | None = None, pooled: bool = False) -> Judged:
    """Judge every row of a table with the columns dice and iou, and n, label, dice_sd and iou_sd where it has them.

    Commas, semicolons or tabs between cells; headers in any case, with "(%)" or without. Rows without Dice or IoU are
    counted and skipped.

    Raises:
        FormatError: the file is no such table. ScoreError: no row holds a pair, or a row is none; it is named.
    """
    pairs, skipped = [], 0
    for number, row in _read_table(path):
        label = next((row[name] for name in LABELS if row.get(name)), f"line {number}")
        if is_blank(row["dice"]) or is_blank(row["iou"]):
            skipped += 1
            continue
        dice, iou = (_with_sd(row[name], row.get(f"{name}_sd")) for name in ("dice", "iou"))
        try:
            n = None if is_blank(row.get("n")) else parse_count(row["n"])
            pairs.append((label, check_pair(dice, iou, n, unit=unit, pooled=pooled)))
        except ScoreError as error:
            raise ScoreError(f"Line {number}: {error.message}", file=path, ids=[label], remedy=error.remedy) from error
    if not pairs:
        raise ScoreError("No row holds both Dice and IoU", file=path, remedy=EXAMPLE)
    return Judged(pairs, skipped)


def pair_rows(judged: Judged) -> list[dict[str, object]]:
    """Rows of ``COLUMNS``; empty where nothing is needed or nothing can help."""

    def row(label: str, verdict: PairVerdict) -> dict[str, object]:
        bounds = {name: getattr(verdict, name) for name in ROUNDED}
        return {
            "label": label,
            "dice": verdict.dice.text,
            "iou": "" if verdict.iou is None else verdict.iou.text,
            "n": "" if verdict.n is None else verdict.n,
            "verdict": verdict.verdict,
            **{name: "" if math.isnan(value) else ROUNDED[name](value, 6) for name, value in bounds.items()},
            "least_images_below": "" if verdict.least_images_below is None else verdict.least_images_below,
            "explanation": verdict.explanation,
        }

    return [row(label, verdict) for label, verdict in judged.pairs]


def pair_text(verdict: PairVerdict) -> str:
    """One pair, line by line, in the paper's unit."""
    factor, unit, places = (100.0, " %", 2) if verdict.percent else (1.0, "", 4)

    def line(name: str, low: float, high: float) -> str:
        return f"{name:<26}{round_down(low * factor, places)} to {round_up(high * factor, places)}{unit}"

    lines = [verdict.explanation]
    if verdict.iou is not None:
        lines.append(line("mean IoU with this Dice", verdict.iou_low, verdict.iou_high))
        lines.append(line("IoU of pooled pixels", verdict.iou_low, verdict.pooled_high))
    if not math.isnan(verdict.least_sd):
        lines.append(line("SD of Dice (divisor n)", verdict.least_sd, verdict.greatest_sd))
        lines.append(line("SD (divisor n - 1)", verdict.least_sd, verdict.greatest_sample_sd))
    if verdict.least_share_below > 0:
        images = f" ({verdict.least_images_below} of {verdict.n} images)" if verdict.n else ""
        lines.append(
            f"{'images of IoU under 0.65':<26}at least {round_down(100 * verdict.least_share_below, 2)} %{images}"
        )
    return "\n".join(lines)


def table_text(judged: Judged) -> str:
    """One line per pair, and how many are impossible."""
    cells = [(row["label"], row["dice"], row["iou"]) for row in pair_rows(judged)]
    label, dice, iou = (max(len(str(row[column])) for row in cells) for column in range(3))
    lines = []
    for row, (_, verdict) in zip(cells, judged.pairs, strict=True):
        why = "; ".join(verdict.reasons) or verdict.needs
        text = f"{row[0]:<{label}}  {row[1]:>{dice}}  {row[2]:>{iou}}  {verdict.verdict}"
        lines.append(f"{text}: {why}" if why else text)
    lines.append(f"{judged.impossible} of {len(judged.pairs)} pairs are arithmetically impossible")
    if judged.skipped:
        lines.append(f"rows without Dice or IoU, skipped: {judged.skipped}")
    return "\n".join(lines)


def confusion_rows(found: ConfusionVerdict) -> list[dict[str, object]]:
    """Rows of ``CONFUSION_COLUMNS``, in the paper's unit with two decimals more than it prints."""
    factor, usual = (100.0, 2) if found.percent else (1.0, 4)

    def row(check: MetricCheck) -> dict[str, object]:
        places = check.printed.decimals + 2 if check.printed else usual
        return {
            "metric": check.name,
            "follows": "not defined" if math.isnan(check.value) else f"{check.value * factor:.{places}f}",
            "printed": check.printed.text if check.printed else "",
            "verdict": check.follows,
            "instead": " ".join(check.instead),
        }

    return [row(check) for check in found.checks]


def confusion_text(found: ConfusionVerdict) -> str:
    """What follows from a matrix, beside what is printed."""
    total, positive = found.tn + found.fp + found.fn + found.tp, found.tp + found.fn
    counts = f"TN {found.tn}, FP {found.fp}, FN {found.fn}, TP {found.tp}"
    lines = [
        f"{counts}: {100 * positive / total:.2f} % of {total} are positive",
        f"{'pooled, %' if found.percent else 'pooled':<20}{'follows':>12}{'printed':>12}",
    ]
    for row in confusion_rows(found):
        instead = f" (it would be {row['instead']})" if row["instead"] else ""
        lines.append(f"{row['metric']:<20}{row['follows']:>12}{row['printed']:>12}  {row['verdict']}{instead}".rstrip())
    given = [check.follows for check in found.checks if check.follows]
    if given:
        lines.append(f"{given.count('does not follow')} of {len(given)} printed metrics do not follow from the matrix")
    return "\n".join(lines)


def _with_sd(text: str, sd: str | None) -> str:
    return text if is_blank(sd) else f"{text} ± {sd}"


def _read_table(path: Path) -> list[tuple[int, Mapping[str, str]]]:
    """(line number, cells by lower-case header); a % of the header stands at each cell."""
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
    names = [re.sub(r"\s*[(\[]%[)\]]", "", name).strip().lower() for name in head]
    if odd := [name for name in ("dice", "iou") if names.count(name) != 1]:
        found = f"the columns are {', '.join(head)}" if head else "the table is empty"
        raise FormatError(f"It needs one column {' and one '.join(odd)}; {found}", file=path, remedy=EXAMPLE)
    reader = csv.reader(lines[start:], delimiter=delimiter)
    next(reader)
    rows: list[tuple[int, Mapping[str, str]]] = []
    for cells in reader:
        number = start + reader.line_num
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(head):
            remedy = "quote numbers with a decimal comma, or put semicolons between cells"
            raise FormatError(f"Line {number} has {len(cells)} cells, the header {len(head)}", file=path, remedy=remedy)
        row = {name: cell.strip() for name, cell in zip(names, cells, strict=True)}
        for name, title in zip(names, head, strict=True):
            if "%" in title and "%" not in row[name] and not is_blank(row[name]):
                row[name] += " %"
        rows.append((number, row))
    return rows
