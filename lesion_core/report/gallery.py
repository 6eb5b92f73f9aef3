"""The page's gallery: test photographs with the true outline, every method's outline or answer, and scores."""

from __future__ import annotations

import base64
from collections import defaultdict
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lesion_core.acquire.images import encode_image, read_image
from lesion_core.files import read_parquet
from lesion_core.paths import Layout
from lesion_core.report.names import dataset_name, method_name
from lesion_core.report.stored_masks import MaskArchive
from lesion_core.report.values import Store
from lesion_core.settings import Plan

JPEG_QUALITY = 78
NO_REDISTRIBUTION = "no redistribution"


def gallery_data(root: Path, plan: Plan, store: Store) -> dict[str, Any]:
    """Cases and photographs for the page's script.

    Returns:
        {methods: name -> print name, datasets, left_out,
        photographs: SHA-256 -> base64 JPEG, cases: [{d: dataset, i: image id, s: SHA-256, r: may not be redistributed,
        c: true class or "", t: outline of the truth (SVG path), m: {method: {v: score 0..1, p: path, a: answer}}}]}
        A case's score is Dice for segmenters, the true class's probability for classifiers; first seeds' runs.
    """
    catalog = {
        (row["dataset"], row["image_id"]): row
        for row in read_parquet(
            Layout(root).catalog, ["dataset", "image_id", "path", "sha256", "label", "licence"]
        ).to_pylist()
    }
    cases = _cases(plan, store)
    side, budget = plan.report.gallery_side, plan.report.gallery_megabytes * 1_000_000
    photographs: dict[str, str] = {}
    archives = {run: MaskArchive(root, run) for run in {c["runs"][m] for c in cases for m in c["runs"] if c["lesion"]}}
    shown: list[dict[str, Any]] = []
    spent = 0
    for case in cases:
        row = catalog.get((case["d"], case["i"]))
        if row is None or not (root / row["path"]).is_file():
            continue
        if spent > budget:
            break
        if row["sha256"] not in photographs:
            content = _photograph(root / row["path"], side)
            photographs[row["sha256"]] = content
            spent += len(content)
        record = _drawn(case, archives, side)
        record |= {"s": row["sha256"], "c": row["label"] or "", "r": NO_REDISTRIBUTION in (row["licence"] or "")}
        spent += 200 + sum(len(answer.get("p", "")) for answer in record["m"].values())
        shown.append(record)
    for archive in archives.values():
        archive.close()
    methods = dict.fromkeys(method for case in shown for method in case["m"])
    return {
        "methods": {method: method_name(method) for method in methods},
        "datasets": {name: dataset_name(name) for name in dict.fromkeys(case["d"] for case in shown)},
        "left_out": len(cases) - len(shown),
        "photographs": photographs,
        "cases": shown,
    }


def gallery_section(data: dict[str, Any]) -> str:
    """Filters and an empty grid, which the script fills page by page."""
    if not data["cases"]:
        return "<p>No photograph of this profile's results is at hand.</p>"

    def choice(name: str, title: str, options: dict[str, str], every: str = "all") -> str:
        first = f'<option value="">{every}</option>' if every else ""
        rest = "".join(f'<option value="{escape(key)}">{escape(text)}</option>' for key, text in options.items())
        return f'<label>{title} <select data-gallery="{name}">{first}{rest}</select></label>'

    classes = {name: name for name in sorted({case["c"] for case in data["cases"]} - {""})}
    order = {"worst": "worst first", "best": "best first", "id": "by image id"}
    left = f" {data['left_out']} more did not fit into the page's budget." if data["left_out"] else ""
    warning = ""
    if any(case["r"] for case in data["cases"]):
        warning = " <b>Some of these photographs may not be redistributed: neither may this page.</b>"
    return (
        "<p class='note'>Test photographs. White on black: the true outline; coloured: each method's, without a prompt,"
        f" first seed. Under a photograph: Dice, or the answer and the true class's probability.{left}{warning}</p>"
        f'<div class="filters">{choice("dataset", "Dataset", data["datasets"])}{choice("class", "Class", classes)}'
        f"{choice('method', 'Method', data['methods'])}{choice('order', 'Order', order, '')}"
        '<output id="gallery-shown" aria-live="polite"></output></div>'
        '<div id="gallery-grid" class="gallery"></div><button type="button" id="gallery-more">Show more</button>'
    )


def _cases(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """All test cases, dataset by dataset; within one, by turns from both ends and the middle of the mean score, so that
    a budget that cuts the list short leaves the worst, the best and the ordinary."""
    found: dict[tuple[bool, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    seen: set[str] = set()
    for method, runs in plan.runs.items():
        if seen & set(runs):
            continue
        seen.update(runs)
        for run in runs[:1]:
            for (scored, dataset, prompt, resolution), rows in sorted(store.segmentation.items()):
                if (scored, prompt, resolution) == (run, "none", "native"):
                    for row in rows:
                        _add(found[True, dataset], dataset, row, method, run, {"v": round(row["dice"], 4)})
            for (scored, dataset), rows in sorted(store.classification.items()):
                if scored == run:
                    for row in rows:
                        answer = {"v": round(row[f"p_{row['label']}"], 4), "a": row["predicted"]}
                        _add(found[False, dataset], dataset, row, method, run, answer)
    cases = []
    for (lesion, _), group in sorted(found.items(), key=lambda item: (not item[0][0], item[0][1])):
        ordered = sorted(group.values(), key=lambda case: (np.mean([m["v"] for m in case["m"].values()]), case["i"]))
        cases.extend(case | {"lesion": lesion} for case in _by_turns(ordered))
    return cases


def _add(
    group: dict[str, dict[str, Any]], dataset: str, row: dict[str, Any], method: str, run: str, answer: dict[str, Any]
) -> None:
    case = group.setdefault(row["image_id"], {"d": dataset, "i": row["image_id"], "m": {}, "runs": {}})
    case["m"][method] = answer
    case["runs"][method] = run


def _by_turns(ordered: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Worst, best, median, then the middles of what is left: any prefix covers the range evenly."""
    places = sorted(range(len(ordered)), key=lambda place: (_coarseness(place, len(ordered)), place))
    return [ordered[place] for place in places]


def _coarseness(place: int, count: int) -> int:
    if place in (0, count - 1):
        return 0
    return 64 - (place & -place).bit_length()


def _drawn(case: dict[str, Any], archives: dict[str, MaskArchive], side: int) -> dict[str, Any]:
    record: dict[str, Any] = {"d": case["d"], "i": case["i"], "m": {name: dict(m) for name, m in case["m"].items()}}
    if not case["lesion"]:
        return record
    for method, run in case["runs"].items():
        if archives[run].path is None:
            continue  # scored by an older version, which stored no masks
        mask = archives[run].scored(case["d"], case["i"])
        record["m"][method]["p"] = outline(mask, side)
        if "t" not in record:
            truth = archives[run].true(case["d"], case["i"])
            record["t"] = outline(truth, side)
    return record


def outline(mask: np.ndarray, side: int) -> str:
    """The contours of a bool mask (H, W) as an SVG path; coordinates as if its longer side were ``side``."""
    import cv2

    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    scale = side / max(mask.shape)
    parts = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, 0.4 / scale, True)[:, 0]
        if len(points) >= 3:
            parts.append("M" + "L".join(f"{(x + 0.5) * scale:.0f} {(y + 0.5) * scale:.0f}" for x, y in points) + "Z")
    return "".join(parts)


def _photograph(path: Path, side: int) -> str:
    """A JPEG with a longer side of ``side``, base64; large files are decoded at a fraction of their size."""
    pixels = read_image(path, at_least=side)
    scale = side / max(pixels.shape[:2])
    if scale < 1.0:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    encoded = encode_image(pixels, ".jpg", cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
    return base64.b64encode(encoded).decode("ascii")
