"""One grid of text cells as .csv, .md and .tex."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesion_core.files import write_csv, write_text

NAMES = {
    "dice": "Dice",
    "iou": "IoU",
    "f1": "F1",
    "auc": "AUC",
    "ece": "ECE",
    "brier": "Brier score",
    "ece_calibrated": "ECE calibrated",
    "brier_calibrated": "Brier score calibrated",
    "melanoma_sensitivity_at_95_specificity": "Melanoma sensitivity at 95 % specificity",
    "dice_sd": "Dice SD",
    "dice_ci_low": "Dice CI low",
    "dice_ci_high": "Dice CI high",
    "cohens_d": "Cohen's d",
    "p_below": "p below",
    "frozen_parameters": "Frozen parameters (M)",
    "trainable_parameters": "Trainable parameters (M)",
}
UNIT_MARK = {"percent": " (%)"}
TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "±": r"$\pm$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "×": r"$\times$",
    "−": "$-$",
}


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


def table_name(name: str) -> str:
    """``Table 5`` of ``table_05``; empty for tables whose title names the paper."""
    number = name.removeprefix("table_")
    return f"Table {int(number)}" if name.startswith("table_") and number.isdecimal() else ""


def full_title(name: str, title: str) -> str:
    """A table's number, where it has one, and its title."""
    return f"{table_name(name)}. {title}" if table_name(name) else title


def markdown(grid: Grid) -> str:
    """The grid as a Markdown table with title and notes."""
    lines = [f"**{grid.title}**", ""]
    lines.append("| " + " | ".join(_cell(column) for column in grid.columns) + " |")
    lines.append("|" + "|".join("---" if column == 0 else "---:" for column in range(len(grid.columns))) + "|")
    for number, row in enumerate(grid.rows):
        cells = [
            f"**{_cell(cell)}**" if (number, column) in grid.bold else _cell(cell) for column, cell in enumerate(row)
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines.extend(["", *[f"{note}  " for note in grid.notes]] if grid.notes else [])
    return "\n".join(lines).rstrip() + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def tex(grid: Grid, label: str) -> str:
    """The grid as a LaTeX table (booktabs, graphicx)."""
    body = [
        r"\begin{table}",
        rf"\caption{{{_escape(grid.title)}}}\label{{tab:{label}}}",
        r"\resizebox{\textwidth}{!}{%",
        rf"\begin{{tabular}}{{l{'r' * (len(grid.columns) - 1)}}}",
        r"\toprule",
        " & ".join(_escape(column) for column in grid.columns) + r" \\",
        r"\midrule",
    ]
    for number, row in enumerate(grid.rows):
        cells = [
            rf"\textbf{{{_escape(cell)}}}" if (number, column) in grid.bold else _escape(cell)
            for column, cell in enumerate(row)
        ]
        body.append(" & ".join(cells) + r" \\")
    body.extend([r"\bottomrule", r"\end{tabular}}"])
    body.extend(rf"\par\footnotesize {_escape(note)}" for note in grid.notes)
    body.append(r"\end{table}")
    return "\n".join(body) + "\n"


def _escape(text: str) -> str:
    return "".join(TEX.get(character, character) for character in text)


def write_grid(grid: Grid, path: Path, csv_columns: Sequence[str], csv_rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``path`` with .csv (machine-readable, from ``csv_rows``), .md and .tex."""
    write_csv(path.with_suffix(".csv"), csv_columns, csv_rows)
    write_text(path.with_suffix(".md"), markdown(grid))
    write_text(path.with_suffix(".tex"), tex(grid, path.stem))
