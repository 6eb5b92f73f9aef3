"""What the page says of the data: what the catalog found in each dataset."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lesion_core.files import read_json
from lesion_core.paths import Layout
from lesion_core.report.data_report import LARGE
from lesion_core.settings import CLASSES, Plan

FIELDS = {"age": "Age", "sex": "Sex", "site": "Site", "label": "Class", "lesion_id": "Lesion id", "mask_path": "Mask"}


def data_of(root: Path, plan: Plan) -> dict[str, Any]:
    """The catalog's report, colour distances, and the figures of both.

    Returns:
        {report: ``catalog/report.json``, classes: in the order of `CLASSES`, fields: name -> print name of what may be
        missing, colours: ``protocols/colours.json``, overview, histograms and large_groups: figures of `data_report`,
        groups: (images, groups of so many), sheets: "protocol/rule, dataset" -> its contact sheet of the largest size}
    """
    layout = Layout(root)
    report = read_json(layout.data_report)
    parts = report["datasets"].values()
    fields = _ordered((field for part in parts for field in part["missing"]), FIELDS)
    found = [path for home in plan.protocols for path in root.glob(f"protocols/{home}/pixels/*/*/contact_sheet.png")]
    sheets = sorted(found, key=lambda path: (*path.parts[-6:-4], int(path.parent.name)))
    return {
        "report": report,
        "classes": _ordered((label for part in parts for label in part["labels"]), CLASSES),
        "fields": {field: FIELDS.get(field, field) for field in fields},
        "colours": read_json(layout.colours),
        "overview": layout.overview("png"),
        "histograms": layout.colour_figure("png"),
        "large": LARGE,
        "large_groups": layout.large_groups("png"),
        "groups": sorted((int(size), count) for size, count in report["joins"]["groups_by_size"].items()),
        "sheets": {f"{'/'.join(path.parts[-6:-4])}, {path.parts[-3]}": path for path in sheets},
    }


def _ordered(found: Iterable[str], known: Iterable[str]) -> list[str]:
    """What was found: what is known in its own order, then the rest by name."""
    rest = set(found)
    first = [name for name in known if name in rest]
    return [*first, *sorted(rest.difference(first))]
