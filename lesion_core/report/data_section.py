"""The page's section on data: what the catalog found in each dataset."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from lesion_core.files import read_json
from lesion_core.paths import Layout
from lesion_core.report.html import figure, table
from lesion_core.settings import CLASSES

FIELDS = {"age": "Age", "sex": "Sex", "site": "Site", "label": "Class", "lesion_id": "Lesion id", "mask_path": "Mask"}
SHOWN_SIZES = 3
SHOWN_PROBLEMS = 50


def data_section(root: Path) -> str:
    """Counts, classes, missing metadata, sizes, joins, problems, colours and contact sheets.

    From ``catalog/report.json``, the figures of ``data_report``, ``harmonized/colours.json`` and the contact sheets.
    """
    report = read_json(Layout(root).data_report)
    datasets: dict[str, dict[str, Any]] = dict(sorted(report["datasets"].items()))
    return "".join(
        (
            _overview(root, report),
            _counts(datasets),
            _classes(datasets),
            _missing(datasets),
            _joins(report.get("joins", {})),
            _problems(report["problems"]),
            _colours(root),
            "<details><summary>Photographs before and after harmonization</summary>",
            *_sheets(root),
            "</details>",
        )
    )


def _overview(root: Path, report: dict[str, Any]) -> str:
    path = Layout(root).colours.with_name("overview.png")
    if not path.is_file():
        return ""
    found = len(report["problems"])
    return figure(path, "The data", f"Classes, sizes, missing values, and files handled by a rule: {found}.")


def _colours(root: Path) -> str:
    layout = Layout(root)
    if not layout.colours.is_file():
        return ""
    colours = read_json(layout.colours)
    rows = [
        f"<tr><td>{escape(pair['first'])} - {escape(pair['second'])}</td>"
        f"<td>{pair['before']:.2f}</td><td>{pair['after']:.2f}</td></tr>"
        for pair in colours["pairs"]
    ]
    note = (
        "<p class='note'>In grey levels: how far the levels of one dataset must be moved on average to have the colour"
        " histograms of the other; training images alone.</p>"
    )
    body = table("Colour distance", ["Between", "As released", "Harmonized"], rows) + note if rows else ""
    path = layout.colours.with_name("colours.png")
    shown = figure(path, "Colours", "mean colour histograms before and after harmonization") if path.is_file() else ""
    return f"<h3>Colour distance between datasets</h3>{body}{shown}"


def _row(name: str, cells: list[Any]) -> str:
    return f"<tr><td>{escape(name)}</td>{''.join(f'<td>{escape(str(cell))}</td>' for cell in cells)}</tr>"


def _counts(datasets: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, part in datasets.items():
        sizes = part["sizes"]
        common = sorted(sizes["common"].items(), key=lambda item: (-item[1], item[0]))[:SHOWN_SIZES]
        text = ", ".join(f"{size} ({count})" for size, count in common)
        rows.append(
            _row(name, [part["images"], part["lesions"], part["masks"], sizes["different"]]).removesuffix("</tr>")
            + f'<td class="prose">{escape(text)}</td></tr>'
        )
    columns = ["Dataset", "Images", "Lesions", "Masks", "Sizes", "Most common sizes"]
    return "<h3>Images</h3>" + table("Images per dataset", columns, rows, text=columns[5:])


def _classes(datasets: dict[str, dict[str, Any]]) -> str:
    labelled = {name: part for name, part in datasets.items() if part["labels"]}
    if not labelled:
        return ""
    found = {label for part in labelled.values() for label in part["labels"]}
    classes = [label for label in CLASSES if label in found] + sorted(found - set(CLASSES))
    rows = [_row(name, [part["labels"].get(label, 0) for label in classes]) for name, part in labelled.items()]
    return "<h3>Images per class</h3>" + table("Images per class", ["Dataset", *classes], rows)


def _missing(datasets: dict[str, dict[str, Any]]) -> str:
    found = {field for part in datasets.values() for field in part["missing"]}
    fields = [field for field in FIELDS if field in found] + sorted(found - set(FIELDS))
    rows = []
    for name, part in datasets.items():
        cells = []
        for field in fields:
            count = part["missing"].get(field, 0)
            share = f" ({100 * count / part['images']:.0f} %)" if count and part["images"] else ""
            cells.append(f'<td data-value="{count}"{"" if count else " class=none"}>{count}{share}</td>')
        rows.append(f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>")
    note = "<p class='note'>A missing value is a value of its own; no image is dropped for it.</p>"
    headings = ["Dataset", *(FIELDS.get(field, field) for field in fields)]
    return "<h3>Missing metadata</h3>" + table("Images without a value", headings, rows) + note


def _joins(joins: dict[str, Any]) -> str:
    if not joins:
        return ""
    reasons = sorted(joins["edges"])
    rows = [
        _row(name, [counts.get(reason, 0) for reason in reasons])
        for name, counts in sorted(joins["edges_between"].items())
    ]
    headings = ["Between", *(f"same {reason.replace('_', ' ')}".replace("same near", "near") for reason in reasons)]
    sizes = ", ".join(f"{count} of {size}" for size, count in sorted(joins["groups_by_size"].items(), key=_by_size))
    text = f"Joined images form {joins['groups']} groups ({sizes} images); a group stays in one split."
    note = f"<p class='note'>{escape(text)}</p>"
    return "<h3>Images that belong together</h3>" + table("Joins between datasets", headings, rows) + note


def _by_size(item: tuple[str, int]) -> tuple[int, str]:
    return (int(item[0]) if item[0].isdecimal() else 1 << 30, item[0])


def _problems(problems: list[Any]) -> str:
    if not problems:
        return "<h3>Problems</h3><p>None were found.</p>"
    shown = "".join(f"<li>{escape(_problem(problem))}</li>" for problem in problems[:SHOWN_PROBLEMS])
    more = len(problems) - SHOWN_PROBLEMS
    rest = f"<p class='note'>{more} more stand in catalog/report.json.</p>" if more > 0 else ""
    return f"<h3>Problems</h3><p>Found and handled by rule: {len(problems)}.</p><ul>{shown}</ul>{rest}"


def _problem(problem: Any) -> str:
    if isinstance(problem, dict) and problem.keys() == {"dataset", "detail", "image_id", "kind"}:
        return f"{problem['dataset']}, {problem['image_id']}: {problem['detail']} ({problem['kind']})"
    if isinstance(problem, dict):
        return ", ".join(f"{key.replace('_', ' ')}: {_problem(value)}" for key, value in sorted(problem.items()))
    if isinstance(problem, list):
        return " ".join(map(_problem, problem))
    return str(problem)


def _sheets(root: Path) -> list[str]:
    """One contact sheet per dataset, at its largest size."""
    largest: dict[str, Path] = {}
    for path in sorted(Layout(root).harmonized_files("contact_sheet.png"), key=lambda path: int(path.parent.name)):
        largest[path.parents[1].name] = path
    return [
        figure(path, name, f"before and after harmonization at {path.parent.name} pixels")
        for name, path in sorted(largest.items())
    ]
