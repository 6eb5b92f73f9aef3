"""IMA++: its tables and masks read by hand, and the published summary found again from the published tables."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from lesion_core.acquire import registry
from lesion_core.acquire.download import fetch_reference
from lesion_core.acquire.http import Patience
from lesion_core.acquire.readers import imaplusplus
from lesion_core.acquire.readers.imaplusplus import IMAGES, MASKS, PAIRS, Agreement, read_agreements, score_masks
from lesion_core.catalog.human_reference import (
    Reference,
    files_of,
    read_reference,
    reference_of,
    tables_folder,
    write_reference,
)
from lesion_core.cli import app
from lesion_core.errors import CatalogError, MaskError
from lesion_core.files import read_csv, read_json, sha256_file, write_csv
from lesion_core.paths import Layout
from lesion_core.report.human_reference import share_as_good, summarise
from lesion_core.settings import load as config
from lesion_core.settings.stored import store

SHARED = Path(os.environ.get("LESION_SHARED_DATA", ""))
# two images; three people drew on the first, two on the second: Dice of the first's pairs 0.9, 0.6, 0.6
SCORES = {"ISIC_1": ((0.9, 0.8), (0.6, 0.4), (0.6, 0.4)), "ISIC_2": ((0.5, 0.3),)}
MASK_ROWS = [
    {"ISIC_id": image, "seg_filename": f"{image}_{who}.png", "annotator": who}
    for image, people in (("ISIC_1", ("A00", "A01", "A02", "ST", "MV")), ("ISIC_2", ("A00", "A03", "ST", "MV")))
    for who in people
]


def write_images(folder: Path, **changes: str) -> None:
    rows = [
        {
            "img_id": f"{image}.JPG",
            "dice_score_mean": np.mean([pair[0] for pair in pairs]),
            "dice_score_std": np.std([pair[0] for pair in pairs], ddof=1) if len(pairs) > 1 else "",
            "jaccard_score_mean": np.mean([pair[1] for pair in pairs]),
        }
        for image, pairs in SCORES.items()
    ]
    write_csv(folder / IMAGES, list(rows[0]), [rows[0], rows[1] | changes])


def write_masks(folder: Path) -> None:
    write_csv(folder / MASKS, list(MASK_ROWS[0]), MASK_ROWS)


def test_the_three_tables_agree(tmp_path: Path) -> None:
    write_images(tmp_path)
    alone = read_agreements(tmp_path)
    assert [(item.image_id, item.pairs, item.pair_dice) for item in alone] == [
        ("ISIC_1", None, ()),
        ("ISIC_2", 1, (0.5,)),
    ]
    write_masks(tmp_path)
    counted = read_agreements(tmp_path)
    assert [item.pairs for item in counted] == [3, 1]
    assert counted[0].dice == pytest.approx(0.7)
    rows = [
        {"img_id": f"{image}.JPG", "annotator1": "A00", "annotator2": who, "dice_score": dice, "jaccard_score": iou}
        for image, pairs in SCORES.items()
        for who, dice, iou in [("ST", 1.0, 1.0), *(("A01", *pair) for pair in pairs)]
    ]
    write_csv(tmp_path / PAIRS, list(rows[0]), rows)
    found = read_agreements(tmp_path)
    assert found[0].pair_dice == (0.6, 0.6, 0.9)
    for one, other in zip(found, counted, strict=True):
        assert (one.image_id, one.pairs) == (other.image_id, other.pairs)
        assert (one.dice, one.iou) == pytest.approx((other.dice, other.iou))


def test_summary_by_hand(tmp_path: Path) -> None:
    people = [Reference(Agreement.of(image, pairs), ("2018 test",)) for image, pairs in SCORES.items()]
    summary = summarise(people)
    assert (summary["people_images"], summary["people_pairs"]) == (2, 4)
    assert (summary["people_dice"], summary["people_median"]) == pytest.approx((0.6, 0.6))
    over_pairs = [summary[f"people_pair_{name}"] for name in ("dice", "iou", "median")]
    assert over_pairs == pytest.approx([0.65, 0.475, 0.6])
    assert share_as_good(people, 0.5) == 1.0
    assert share_as_good(people, 0.51) == 0.5
    write_reference(people, tmp_path / "people.csv")
    assert read_reference(tmp_path / "people.csv") == people
    unknown = summarise([Reference(Agreement("ISIC_1", None, 0.7, 0.5)), *people])
    assert not any("pair" in name for name in unknown)


def test_masks_are_scored_in_pairs(tmp_path: Path) -> None:
    write_masks(tmp_path)
    masks = {name: np.zeros((4, 4), np.uint8) for name in (row["seg_filename"] for row in MASK_ROWS)}
    masks["ISIC_1_A00.png"][:2] = 255
    masks["ISIC_1_A01.png"][1:3] = 255
    for name, mask in masks.items():
        cv2.imwrite(str(tmp_path / name), mask)
    first, second = score_masks(tmp_path / MASKS, tmp_path)
    assert first == Agreement("ISIC_1", 3, pytest.approx(0.5 / 3), pytest.approx(1 / 9), (0.0, 0.0, 0.5))
    assert second == Agreement("ISIC_2", 1, 1.0, 1.0, (1.0,))  # both empty
    cv2.imwrite(str(tmp_path / "ISIC_2_A03.png"), np.zeros((4, 5), np.uint8))
    with pytest.raises(MaskError, match="different sizes"):
        score_masks(tmp_path / MASKS, tmp_path)
    (tmp_path / "ISIC_2_A03.png").unlink()
    with pytest.raises(MaskError, match=r"ISIC_2_A03\.png"):
        score_masks(tmp_path / MASKS, tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dice_score_mean": "nan"}, "no share"),
        ({"jaccard_score_mean": "71.2"}, "no share"),
        ({"img_id": "ISIC_1.JPG"}, "stands twice"),
        ({"img_id": "ISIC_7.JPG"}, "does not have"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    write_images(tmp_path, **changes)
    write_masks(tmp_path)
    with pytest.raises(CatalogError, match=said):
        read_agreements(tmp_path)


def test_tables_are_found_in_a_mirror(tmp_path: Path) -> None:
    assert tables_folder(tmp_path) is None
    assert files_of(None) == []
    folder = tmp_path / imaplusplus.FOLDER
    write_images(folder)
    (folder / "releases").mkdir()
    (folder / "releases" / "ISIC2018_test.txt").write_text("ISIC_2\nISIC_3\n")
    assert tables_folder(tmp_path) == tables_folder(folder) == folder
    assert [path.name for path in files_of(folder)] == [IMAGES, "ISIC2018_test.txt"]
    assert [item.releases for item in reference_of(folder)] == [(), ("2018 test",)]


def test_the_command_takes_tables_or_masks_of_a_mirror_and_says_that_there_are_none(tmp_path: Path) -> None:
    root, mirror = tmp_path / "mini", tmp_path / "mirror"
    mirror.mkdir()
    store(config.load("mini", {"mirror": str(mirror)}), root)

    def made(*options: str) -> list[Reference]:
        done = CliRunner().invoke(app, ["human-reference", "--root", str(root), *options])
        assert done.exit_code == 0, done.output
        return read_reference(Layout(root).human_reference)

    assert made() == []
    write_images(mirror / imaplusplus.FOLDER)
    write_masks(mirror / imaplusplus.FOLDER)
    assert [item.agreement.pairs for item in made()] == [3, 1]
    for row in MASK_ROWS:
        cv2.imwrite(str(tmp_path / row["seg_filename"]), np.full((4, 4), 255, np.uint8))
    assert [item.agreement.dice for item in made("--masks", str(tmp_path))] == [1.0, 1.0]


def test_tables_are_fetched_and_verified(tmp_path: Path) -> None:
    mirror, names = tmp_path / "mirror", [file.name for file in registry.REFERENCES["imaplusplus"].fetched()]
    mirror.mkdir()
    for name in names:
        (mirror / name).write_text(name)
    sums = [f"{sha256_file(mirror / name)}  {name}\n" for name in names]
    (mirror / "SHA256SUMS").write_text("".join(sums))
    folder = fetch_reference("imaplusplus", tmp_path / "out", mirror=str(mirror), patience=Patience(0, 1.0))
    assert [file["name"] for file in read_json(folder / "files.json")["files"]] == sorted(names)
    assert {file["verified_by"] for file in read_json(folder / "files.json")["files"]} == {"mirror SHA256SUMS"}


def test_the_registry_names_what_is_read() -> None:
    names = {file.name for file in registry.REFERENCES["imaplusplus"].fetched()}
    assert {IMAGES, MASKS, PAIRS, "ISIC2018_test.txt"} <= names
    assert [file.name for file in registry.REFERENCES["imaplusplus"].fetched(("masks",))] == ["segs.zip"]


@pytest.mark.skipif(
    not (SHARED / imaplusplus.FOLDER).is_dir(), reason="LESION_SHARED_DATA names no folder with IMA++'s tables"
)
def test_the_published_summary_is_found_again() -> None:
    folder = SHARED / imaplusplus.FOLDER
    people = reference_of(folder)
    every = summarise(people)
    told = {row[""]: row for row in read_csv(folder / "IMAplusplus_multiannotator_subset_IAA_metrics_summary.csv")}
    assert (every["people_images"], every["people_pairs"]) == (2394, 3103)
    assert every["people_pair_dice"] == pytest.approx(float(told["Mean"]["dice_score"]), rel=1e-12)
    assert every["people_pair_iou"] == pytest.approx(float(told["Mean"]["jaccard_score"]), rel=1e-12)
    assert (f"{every['people_pair_dice']:.3f}", f"{every['people_pair_iou']:.3f}") == ("0.781", "0.683")
    # the median of pairs needs the table of pairs: of images with three masks the mean alone is known here
    assert f"{float(told['Median']['dice_score']):.3f}" == "0.857"
    assert "people_pair_median" not in every
    by_part = {part: summarise([item for item in people if part in item.releases]) for part in parts_of(people)}
    assert {
        part: (own["people_images"], f"{own['people_dice']:.3f}", f"{own['people_median']:.3f}")
        for part, own in by_part.items()
    } == {
        "2016 test": (167, "0.868", "0.881"),
        "2016 train": (284, "0.881", "0.896"),
        "2017 test": (379, "0.810", "0.895"),
        "2017 train": (591, "0.778", "0.865"),
        "2017 val": (21, "0.490", "0.445"),
        "2018 test": (383, "0.772", "0.855"),
        "2018 train": (999, "0.791", "0.880"),
        "2018 val": (38, "0.777", "0.842"),
    }
    assert f"{100 * share_as_good(people, 0.9427):.1f}" == "16.7"


def parts_of(people: list[Reference]) -> list[str]:
    return sorted({part for item in people for part in item.releases})
