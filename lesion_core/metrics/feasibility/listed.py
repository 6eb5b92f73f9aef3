"""``lesion feasible``: the arithmetic of any table of Dice and IoU, one verdict per pair."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from lesion_core.errors import ScoreError
from lesion_core.files import read_csv, write_csv
from lesion_core.metrics.feasibility.pairs import PairVerdict, check_pair
from lesion_core.metrics.feasibility.printed import decimals_of

COLUMNS = (
    "label",
    "dice",
    "iou",
    "n",
    "verdict",
    "iou_low",
    "iou_high",
    "pooled_iou",
    "least_sd",
    "least_share_below",
    "least_images_below",
    "explanation",
)


@dataclass(frozen=True)
class Judged:
    """A pair as it was printed, with its verdict."""

    label: str
    dice: str
    iou: str
    verdict: PairVerdict


def judge(dice: str, iou: str, n: int | None = None, *, label: str = "", fraction: bool | None = None) -> Judged:
    """Judge one printed pair; the printed decimals say how it was rounded.

    Args:
        dice, iou: as printed: "94.27" or "0.9427".
        n: images, if known.
        fraction: values are fractions; None: they are if neither is above 1.

    Raises:
        ScoreError: no number, or out of range.
    """
    decimals = decimals_of(dice), decimals_of(iou)
    percent = not (max(float(dice), float(iou)) <= 1.0 if fraction is None else fraction)
    verdict = check_pair(float(dice), float(iou), n, decimals[0], percent, decimals[1])
    return Judged(label, dice.strip(), iou.strip(), verdict)


def judge_csv(path: Path, *, fraction: bool | None = None) -> list[Judged]:
    """Judge every row of a CSV with the columns dice and iou, and label and n where it has them.

    Raises:
        ScoreError: the file has no such columns or no row, or a row is no pair; the row is named.
    """
    rows = read_csv(path)
    if not rows or not {"dice", "iou"} <= set(rows[0]):
        raise ScoreError("No pairs", file=path, remedy="give a CSV with the columns dice, iou and, if known, n, label")
    judged = []
    for number, row in enumerate(rows, 2):
        label = (row.get("label") or "").strip() or f"line {number}"
        count = (row.get("n") or "").strip()
        try:
            n = int(count) if count else None
            judged.append(judge(row["dice"] or "", row["iou"] or "", n, label=label, fraction=fraction))
        except (ScoreError, ValueError) as error:
            raise ScoreError(f"Line {number} is no pair: {error}", file=path, ids=[label]) from error
    return judged


def is_impossible(item: Judged) -> bool:
    """Whether no set of images can have this pair of means."""
    return item.verdict.verdict == "impossible"


def record(item: Judged) -> dict[str, object]:
    """One row of ``COLUMNS``, fractions with six decimals; empty where nothing is needed or nothing can help."""

    def text(value: object) -> object:
        if isinstance(value, float):
            return "" if math.isnan(value) else f"{value:.6f}"
        return "" if value is None else value

    printed = {"label": item.label, "dice": item.dice, "iou": item.iou}
    return {name: printed.get(name) or text(getattr(item.verdict, name, None)) for name in COLUMNS}


def write_verdicts(judged: list[Judged], path: Path) -> None:
    """Write the verdicts as CSV."""
    write_csv(path, COLUMNS, [record(item) for item in judged])


def details(item: Judged) -> str:
    """What a single pair needs, line by line."""
    verdict = item.verdict
    factor, unit = (100.0, " %") if float(item.dice) > 1.0 else (1.0, "")
    lines = [
        verdict.explanation,
        f"bounds of the mean IoU   {verdict.iou_low * factor:.4g} to {verdict.iou_high * factor:.4g}{unit}",
        f"pooled pixels would give {verdict.pooled_iou * factor:.4g}{unit}",
    ]
    if not is_impossible(item):
        images = "" if verdict.least_images_below is None else f" ({verdict.least_images_below} of {verdict.n} images)"
        lines.append(f"least SD of Dice         {verdict.least_sd:.4f}")
        lines.append(f"least share below 0.65   {verdict.least_share_below:.4f}{images}")
    return "\n".join(lines)


def summary(judged: list[Judged]) -> str:
    """One line per pair, and how many are impossible."""
    width = max(len(item.label) for item in judged)
    lines = []
    for item in judged:
        needs = ""
        if item.verdict.verdict == "possible only with spread":
            share = 100.0 * item.verdict.least_share_below
            needs = f", SD of Dice at least {item.verdict.least_sd:.3f}, {share:.3g} % of images below IoU 0.65"
        lines.append(f"{item.label:<{width}}  {item.dice:>7} {item.iou:>7}  {item.verdict.verdict}{needs}")
    count = sum(map(is_impossible, judged))
    return "\n".join([*lines, f"{count} of {len(judged)} pairs are arithmetically impossible"])
