"""The page's gallery: test images with the true outline, every method's outline or answer, and scores."""

from __future__ import annotations

import base64
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lesion_core.acquire.images import encode_image
from lesion_core.files import read_parquet
from lesion_core.paths import Layout
from lesion_core.report.formats import dataset_name
from lesion_core.report.images import MaskArchive, small_image
from lesion_core.report.score_store import Store
from lesion_core.settings import Plan

JPEG_QUALITY = 78
NO_REDISTRIBUTION = "no redistribution"
Case = dict[str, Any]


def gallery_of(root: Path, plan: Plan, store: Store) -> dict[str, Any]:
    """Cases and images for the page's script.

    Returns:
        {methods and datasets: name -> print name, left_out, images: SHA-256 -> base64 JPEG,
        cases: [{d: dataset, i: image id, s: SHA-256, r: may not be redistributed, c: true class or "",
        t: outline of the truth (SVG path), m: {method: {v: score 0..1, p: outline, a: answer}}}]}
        A case's score is Dice for segmenters, the true class's probability for classifiers; first seeds' runs.
    """
    columns = ["dataset", "image_id", "path", "sha256", "label", "licence"]
    rows = read_parquet(Layout(root).catalog, columns).to_pylist()
    catalog = {(row["dataset"], row["image_id"]): row for row in rows if (root / row["path"]).is_file()}
    cases = _cases(plan, store)
    side, budget = plan.report.gallery_side, plan.report.gallery_megabytes * 1_000_000
    images: dict[str, str] = {}
    shown: list[Case] = []
    spent = 0
    with ExitStack() as stack:
        segmenters = sorted({m["run"] for case in cases for m in case["m"].values() if "run" in m})
        archives = {run: stack.enter_context(MaskArchive(root, run)) for run in segmenters}
        for case in cases:
            row = catalog.get((case["d"], case["i"]))
            if row is None:
                continue
            if spent > budget:
                break
            if row["sha256"] not in images:
                pixels = small_image(root / row["path"], side)
                encoded = encode_image(pixels, ".jpg", cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
                images[row["sha256"]] = base64.b64encode(encoded).decode("ascii")
                spent += len(images[row["sha256"]])
            for answer in case["m"].values():
                if "run" in answer:
                    archive = archives[answer.pop("run")]
                    answer["p"] = outline(archive.scored(case["d"], case["i"]), side)
                    case.setdefault("t", outline(archive.true(case["d"], case["i"]), side))
            spent += 200 + sum(len(answer.get("p", "")) for answer in case["m"].values())
            licence = row["licence"] or ""
            shown.append(case | {"s": row["sha256"], "c": row["label"] or "", "r": NO_REDISTRIBUTION in licence})
    return {
        "methods": {method: plan.name_of(method) for case in shown for method in case["m"]},
        "datasets": {case["d"]: dataset_name(case["d"]) for case in shown},
        "left_out": len(cases) - len(shown),
        "images": images,
        "cases": shown,
    }


def _cases(plan: Plan, store: Store) -> list[Case]:
    """All test cases, dataset by dataset; within one, by turns from both ends and the middle of the mean score, so that
    a budget that cuts the list short leaves the worst, the best and the ordinary."""
    groups: dict[tuple[bool, str], dict[str, Case]] = defaultdict(dict)

    def add(kind: bool, dataset: str, image_id: str, method: str, answer: dict[str, Any]) -> None:
        case = groups[kind, dataset].setdefault(image_id, {"d": dataset, "i": image_id, "m": {}})
        case["m"][method] = answer

    for method, (first, *_) in plan.distinct_runs():
        for (run, dataset, prompt, resolution), rows in store.segmentation.items():
            if (run, prompt, resolution) == (first, plan.prompt_of(method), "native"):
                for image_id, dice in zip(rows["image_id"], rows["dice"], strict=True):
                    add(False, dataset, image_id, method, {"v": round(dice, 4), "run": run})
        for (run, dataset), rows in store.classification.items():
            if run == first:
                for answer in rows.to_dict("records"):
                    value = round(answer[f"p_{answer['label']}"], 4)
                    add(True, dataset, answer["image_id"], method, {"v": value, "a": answer["predicted"]})
    cases: list[Case] = []
    for _, group in sorted(groups.items()):
        ordered = sorted(group.values(), key=lambda case: (np.mean([m["v"] for m in case["m"].values()]), case["i"]))
        places = sorted(range(len(ordered)), key=lambda place: (_coarseness(place, len(ordered)), place))
        cases.extend(ordered[place] for place in places)
    return cases


def _coarseness(place: int, count: int) -> int:
    """0 for both ends, then the less the more twos divide the place: any prefix of that order covers it evenly."""
    return 0 if place in (0, count - 1) else 64 - (place & -place).bit_length()


def outline(mask: np.ndarray, side: int) -> str:
    """The contours of a bool mask (H, W) as an SVG path; coordinates as if its longer side were ``side``."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    scale = side / max(mask.shape)
    parts = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, 0.4 / scale, True)[:, 0]
        if len(points) >= 3:
            parts.append("M" + "L".join(f"{(x + 0.5) * scale:.0f} {(y + 0.5) * scale:.0f}" for x, y in points) + "Z")
    return "".join(parts)
