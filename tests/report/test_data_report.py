"""The data report: its table counts what the catalog found, its figures are drawn alike twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lesion_core.acquire.images import write_image
from lesion_core.catalog.table import COLUMNS, write_table
from lesion_core.files import read_csv, write_json
from lesion_core.paths import Layout
from lesion_core.report.data_report import draw_colours, draw_large_groups, draw_overview, write_data_report

REPORT = {
    "datasets": {
        "ham10000": {
            "images": 10,
            "masks": 8,
            "lesions": 7,
            "labels": {"nv": 6, "mel": 4},
            "sizes": {"different": 2, "common": {"600 x 450": 9, "200 x 150": 1}},
            "missing": {"lesion_id": 0, "label": 0, "age": 3, "sex": 1, "site": 2, "mask_path": 2},
        },
        "isic2018_task1": {
            "images": 4,
            "masks": 4,
            "lesions": 0,
            "labels": {},
            "sizes": {"different": 1, "common": {"1024 x 768": 4}},
            "missing": {"lesion_id": 4, "label": 4, "age": 4, "sex": 4, "site": 4, "mask_path": 0},
        },
    },
    "problems": [
        {"dataset": "ham10000", "image_id": "a", "kind": "empty", "detail": "no lesion pixel"},
        {"dataset": "ham10000", "image_id": "b", "kind": "empty", "detail": "no lesion pixel"},
        {"dataset": "isic2018_task1", "image_id": "c", "kind": "resized", "detail": "100 x 80 to 50 x 40"},
    ],
}


def _colours() -> dict:
    flat = (np.ones((3, 256)) / 256).tolist()
    names = ("ham10000", "isic2018_task1")
    return {
        "pairs": [{"first": names[0], "second": names[1], "before": 12.34, "after": 0.68}],
        "mean": {"before": 12.345, "after": 0.678},
        "profiles": {name: {"before": flat, "after": flat} for name in names},
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_json(Layout(tmp_path).catalog.with_name("report.json"), REPORT)
    write_json(Layout(tmp_path).colours, _colours())
    write_image(tmp_path / "image.png", np.full((30, 40, 3), 200, np.uint8))
    write_table(Layout(tmp_path).catalog, COLUMNS, _images({"many": 11, "some": 10}))
    return tmp_path


def _images(sizes: dict[str, int]) -> list[dict]:
    empty = {name: None for name, _ in COLUMNS}
    named = {"dataset": "isic2018_task1", "path": "image.png", "width": 40, "height": 30}
    return [
        empty | named | {"image_id": f"{group}{number}", "group_id": group}
        for group, size in sizes.items()
        for number in range(size)
    ]


def test_the_table_counts_what_the_catalog_found_and_bytes_are_the_same_twice(root: Path) -> None:
    """Once in a process of its own, which must not load torch."""
    code = (
        "import sys; from pathlib import Path; from lesion_core.report.data_report import write_data_report;"
        f" write_data_report(Path({str(root)!r})); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    ham, task1 = read_csv(root / "protocols" / "overview.csv")
    assert (ham["dataset"], ham["images"], ham["lesions"], ham["masks"]) == ("ham10000", "10", "7", "8")
    assert (ham["class_nv"], ham["class_mel"], ham["class_df"]) == ("6", "4", "0")
    assert (ham["missing_age"], ham["missing_mask_path"], ham["commonest_size"]) == ("3", "2", "600 x 450")
    assert (ham["problem_empty"], ham["problem_resized"]) == ("2", "0")
    assert (task1["problem_empty"], task1["problem_resized"], task1["missing_label"]) == ("0", "1", "4")
    names = ("overview.csv", "overview.pdf", "overview.png", "colours.pdf", "colours.png", "large_groups.png")
    first = {name: (root / "protocols" / name).read_bytes() for name in names}
    write_data_report(root)
    assert first == {name: (root / "protocols" / name).read_bytes() for name in names}


def test_bars_have_the_height_of_the_counts() -> None:
    axis = draw_overview(REPORT).figure.axes[0]
    heights = sorted(patch.get_height() for patch in axis.patches if patch.get_height())
    assert heights == [4, 4, 6]  # mel and nv of HAM10000, and Task 1, which has no classes


def test_a_clean_release_says_so() -> None:
    drawn = draw_overview({**REPORT, "problems": []})
    assert "no problem was found" in {text.get_text() for axis in drawn.figure.axes for text in axis.texts}


def test_the_caption_tells_the_distances_and_one_dataset_has_none() -> None:
    assert "12.3 grey levels before, 0.7 after" in draw_colours(_colours()).caption
    alone = _colours() | {"pairs": [], "mean": {"before": None, "after": None}}
    assert "Distance" not in draw_colours(alone).caption


def test_groups_of_more_than_ten_images_are_shown(root: Path) -> None:
    drawn = draw_large_groups(_images({"some": 10, "many": 11, "most": 120}), root)
    shown = [axis.get_title() for axis in drawn.figure.axes if axis.images]
    assert len(shown) == 100
    assert all(name.startswith("most") for name in shown)
    assert "more than 10 images: 2; 100 of their 131 images" in drawn.caption
    alone = draw_large_groups(_images({"some": 10}), root)
    assert not any(axis.images for axis in alone.figure.axes)
    assert "more than 10 images: 0." in alone.caption
