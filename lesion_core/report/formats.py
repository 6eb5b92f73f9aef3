"""How things are called in print, and one grid of text cells as .csv, .md and .tex."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from lesion_core.files import write_csv, write_text
from lesion_core.settings import OFFICIAL, Plan

NAMES = {
    "dice": "Dice",
    "iou": "IoU",
    "f1": "F1",
    "thresholded_iou": "Thresholded IoU",
    "hd95": "HD95",
    "surface_distance": "Surface distance",
    "auc": "AUC",
    "ece": "ECE",
    "brier": "Brier score",
    "ece_calibrated": "ECE calibrated",
    "brier_calibrated": "Brier score calibrated",
    "melanoma_sensitivity_at_95_specificity": "Melanoma sensitivity at 95 % specificity",
    "dice_sd": "Dice SD",
    "cohens_d": "Cohen's d",
    "p_below": "p below",
    "frozen_parameters": "Frozen parameters (M)",
    "trainable_parameters": "Trainable parameters (M)",
}
DATASET_NAMES = {
    "isic2018_task1": "ISIC 2018 Task 1",
    "isic2018_task3": "ISIC 2018 Task 3",
    "ham10000": "HAM10000",
    "ph2": "PH2",
    "isic2016": "ISIC 2016",
    "isic2017": "ISIC 2017",
    "isic2019": "ISIC 2019",
}
PROMPT_NAMES = {
    "none": "no prompt",
    "automatic": "automatic box",
    "oracle_box": "oracle box",
    "automatic_masks": "automatic masks",
    "oracle_click_1": "oracle click",
    "oracle_click_3": "3 oracle clicks",
}
EXPLAINER_NAMES = {"grad_cam": "Grad-CAM", "rollout": "attention roll-out", "centre_prior": "centre prior"}
UNIT_MARK = {"percent": " (%)"}
TEX = str.maketrans(
    {character: f"\\{character}" for character in "&%_#${}"}
    | {character: f"$\\{name}$" for character, name in zip("±≥≤×", ("pm", "geq", "leq", "times"), strict=True)}
    | {character: f"${character}$" for character in "<>|"}
    | {"−": "$-$", "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\n": " "}
)
# what Markdown would read as a mark: HTML, an entity, emphasis, code, strikethrough, a link, the end of a cell
MARKDOWN = re.compile(r"[\\`*~|]|<(?=\S)|&(?=#?\w+;)|(?<!\w)_|_(?!\w)|\](?=[(\[:])")

UNDERLINE, BACKSLASH = re.compile(r"^(?=[-=:])"), r"\\"  # under another line it would make that a head


@dataclass(frozen=True)
class Grid:
    """A table as it is printed.

    Attributes:
        title, notes: above and below.
        columns: headings.
        rows: cells, as text.
        bold: (row, column) positions that are marked as best.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    bold: frozenset[tuple[int, int]] = frozenset()


def metric_name(metric: str, unit: str = "") -> str:
    """How a metric is called in print, with its unit where that is per cent."""
    return NAMES.get(metric, metric.replace("_", " ").capitalize()) + UNIT_MARK.get(unit, "")


def dataset_name(dataset: str) -> str:
    """A dataset as it is called in print."""
    release, part = OFFICIAL.get(dataset, (dataset, ""))
    return f"{DATASET_NAMES.get(release, release)} {part}".rstrip()


def prompt_name(prompt: str) -> str:
    """A prompt as it is called in print."""
    return PROMPT_NAMES.get(prompt, prompt.replace("_", " "))


def explainer_name(explainer: str) -> str:
    """An explanation's method as it is called in print."""
    return EXPLAINER_NAMES.get(explainer, explainer.replace("_", " "))


def markdown(grid: Grid) -> str:
    """The grid as a Markdown table with title and notes; every cell reads as its text, whatever marks it holds."""
    marks = ["---", *["---:"] * (len(grid.columns) - 1)]
    lines = [f"**{_plain(grid.title)}**", "", _line(map(_plain, grid.columns)), f"|{'|'.join(marks)}|"]
    for number, row in enumerate(grid.rows):
        cells = [_plain(cell) for cell in row]
        lines.append(_line(f"**{cell}**" if (number, at) in grid.bold else cell for at, cell in enumerate(cells)))
    lines.extend(["", *(f"{UNDERLINE.sub(BACKSLASH, _plain(note))}  " for note in grid.notes)])
    return "\n".join(lines).rstrip() + "\n"


def _plain(text: str) -> str:
    return MARKDOWN.sub(r"\\\g<0>", " ".join(text.split()))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def tex(grid: Grid, label: str) -> str:
    """The grid as a LaTeX table (booktabs, graphicx)."""
    cells = [
        [
            f"\\textbf{{{cell.translate(TEX)}}}" if (number, at) in grid.bold else cell.translate(TEX)
            for at, cell in enumerate(row)
        ]
        for number, row in enumerate(grid.rows)
    ]
    frame = pd.DataFrame(cells, columns=[name.translate(TEX) for name in grid.columns])
    form = "l" + "r" * (len(grid.columns) - 1)
    tabular = frame.style.hide(axis="index").to_latex(hrules=True, column_format=form).rstrip()
    notes = "".join(f"\\par\\footnotesize {note.translate(TEX)}\n" for note in grid.notes)
    caption = f"\\caption{{{grid.title.translate(TEX)}}}\\label{{tab:{label}}}"
    scaled = f"\\resizebox{{\\textwidth}}{{!}}{{%\n{tabular}}}"
    return f"\\begin{{table}}\n{caption}\n{scaled}\n{notes}\\end{{table}}\n"


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], plan: Plan) -> None:
    """Write a CSV; of a rehearsal each row says so in a column of that name."""
    if plan.rehearsed:
        columns, rows = [*columns, "rehearsed"], [{**row, "rehearsed": "yes"} for row in rows]
    write_csv(path, columns, rows)


def write_grid(
    grid: Grid, path: Path, csv_columns: Sequence[str], csv_rows: Sequence[Mapping[str, Any]], plan: Plan
) -> None:
    """Write ``path`` with .csv (machine-readable, from ``csv_rows``), .md and .tex."""
    grid = replace(grid, title=plan.titled(grid.title))
    write_rows(path.with_suffix(".csv"), csv_columns, csv_rows, plan)
    write_text(path.with_suffix(".md"), markdown(grid))
    write_text(path.with_suffix(".tex"), tex(grid, path.stem))
