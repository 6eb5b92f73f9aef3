"""What datasets share is counted, a leak planted in any identity is found; and on real results, where they are."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lesion_core.catalog.leakage import shared_between, tell_leakage, trained_and_tested
from lesion_core.catalog.table import COLUMNS, write_table
from lesion_core.cli import app
from lesion_core.errors import SplitError
from lesion_core.files import write_csv
from lesion_core.paths import Layout

RESULTS = os.environ.get("LESION_MINI_RESULTS") or None


def row(dataset: str, image_id: str, split: str, **known: str) -> dict:
    empty = dict.fromkeys(name for name, _ in COLUMNS)
    own = {"dataset": dataset, "image_id": image_id, "split": split}
    return empty | own | {"sha256": f"{dataset}{image_id}", "group_id": f"{dataset}:{image_id}"} | known


def clean_rows() -> list[dict]:
    return [
        row("ham10000", "ISIC_1", "train", label="nv", lesion_id="L1", group_id="g1"),
        row("ham10000", "ISIC_2", "test", label="mel", lesion_id="L2", group_id="g2"),
        row("ham10000", "ISIC_3", "test", label="mel", lesion_id="L3"),
        row("isic2018_task1", "ISIC_1_downsampled", "train", mask_path="m1", group_id="g1"),
        row("isic2018_task1", "ISIC_9", "test", mask_path="m9", group_id="g2"),
        row("isic2018_task1", "ISIC_8", "train", mask_path="m8"),
    ]


def test_what_two_datasets_share_by_hand() -> None:
    assert shared_between(clean_rows()) == [
        {"first": "ham10000", "second": "isic2018_task1", "images": 1, "lesions": 0, "groups": 2, "parted": 0}
    ]
    assert trained_and_tested(clean_rows()) == (2, 2, [])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image_id": "ISIC_3"}, "id"),
        ({"sha256": "ham10000ISIC_3"}, "bytes"),
        ({"lesion_id": "L3"}, "lesion"),
        ({"group_id": "ham10000:ISIC_3"}, "group"),
    ],
)
def test_a_leak_in_any_identity_is_found(changes: dict, reason: str) -> None:
    rows = clean_rows()
    rows[5] |= changes
    assert trained_and_tested(rows)[2] == [f"ham10000/ISIC_3 ({reason})"]
    assert shared_between(rows)[0]["parted"] == 1


def write(root: Path, rows: list[dict]) -> None:
    layout = Layout(root)
    kept = [{key: value for key, value in one.items() if key != "split"} for one in rows]
    write_table(layout.catalog, COLUMNS, kept)
    for dataset in {one["dataset"] for one in rows}:
        lines = [
            {key: one[key] for key in ("image_id", "group_id", "split")} for one in rows if one["dataset"] == dataset
        ]
        write_csv(layout.split("shared/leak_free", dataset), list(lines[0]), lines)


def test_the_command_says_it_and_its_exit_status_too(tmp_path: Path) -> None:
    write(tmp_path, clean_rows())
    done = CliRunner().invoke(app, ["leakage", "--root", str(tmp_path)])
    assert done.exit_code == 0
    assert "ham10000 - isic2018_task1: 1 images with one id" in done.output
    rows = clean_rows()
    rows[5]["lesion_id"] = "L3"
    write(tmp_path, rows)
    done = CliRunner().invoke(app, ["leakage", "--root", str(tmp_path)])
    assert done.exit_code == 1
    assert "ham10000/ISIC_3 (lesion)" in done.output
    Layout(tmp_path).split("shared/leak_free", "ham10000").unlink()
    with pytest.raises(SplitError, match="no split table"):
        tell_leakage(tmp_path, "shared/leak_free")


@pytest.mark.skipif(RESULTS is None, reason="set LESION_MINI_RESULTS to a results/mini made from the mirror folder")
def test_the_mirrors_sixty_images_are_joined_and_no_training_image_tests_a_classifier() -> None:
    text, clean = tell_leakage(Path(RESULTS))
    assert clean, text
    line = next(line for line in text.splitlines() if line.startswith("ham10000 - isic2018_task1"))
    images, groups = (int(re.search(rf"(\d+) {what}", line).group(1)) for what in ("images", "groups"))
    assert images == 60
    assert groups >= 60 + 40  # and most of the 53 lesions that stand in both under different ids
