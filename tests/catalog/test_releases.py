"""What releases share is told from id lists alone: by hand, from damaged lists, and from the published ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lesion_core.acquire.readers.ham10000 import COLUMNS
from lesion_core.acquire.readers.isic2019 import COLUMNS as CLASSES_2019
from lesion_core.acquire.readers.isic2019 import LABELS
from lesion_core.catalog.releases import read_dermamnist, read_id_list, read_isic2019_ids, tell_releases
from lesion_core.cli import app
from lesion_core.errors import CatalogError
from lesion_core.files import write_csv

SHARED = Path(os.environ.get("LESION_SHARED_DATA", "")) / "imaplusplus" / "releases"


def write_isic2019(folder: Path, *names: str) -> Path:
    rows = [{"image": name, **dict.fromkeys(CLASSES_2019, "0.0"), "NV": "1.0"} for name in names]
    write_csv(folder / LABELS, ["image", *CLASSES_2019], rows)
    return folder / LABELS


def write_dermamnist(folder: Path, lesions: dict[str, list[str]]) -> Path:
    """One image for each lesion named in a part."""
    images = [(part, lesion, f"ISIC_{part}{at}") for part, own in lesions.items() for at, lesion in enumerate(own)]
    splits = [{"split": part, "index": at, "image_id": image} for at, (part, _, image) in enumerate(images)]
    write_csv(folder / "dermamnist_split_info.csv", ["split", "index", "image_id"], splits)
    metadata = [dict.fromkeys(COLUMNS, "") | {"lesion_id": lesion, "image_id": image} for _, lesion, image in images]
    write_csv(folder / "HAM10000_metadata.csv", COLUMNS, metadata)
    return folder / "dermamnist_split_info.csv"


def test_counts_by_hand_stand_beside_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "ISIC2018_train.txt").write_text("ISIC_1\nISIC_2\nISIC_3")
    (tmp_path / "ISIC2017_test.txt").write_text("ISIC_2.jpg\nISIC_3.JPG\n\nISIC_9\n")
    (tmp_path / "ISIC2016-test.txt").write_text("ISIC_9\n")
    write_isic2019(tmp_path, "ISIC_1_downsampled", "ISIC_2", "ISIC_7")
    write_dermamnist(tmp_path, {"train": ["a", "b", "b", "c"], "val": ["c"], "test": ["a", "b", "d"]})
    text, as_known = tell_releases(tmp_path)
    lines = {" ".join(line.split()) for line in text.splitlines()}
    assert not as_known
    assert {
        "2017 test 2018 train 529 of 600 2 of 3 images differs",
        "2018 train 2019 train 2593 of 2594 2 of 3 images differs",
        "2016 test 2018 train 339 of 379 no list images",
        "2017 test 2019 train 1 of 3 images",
        "DermaMNIST train DermaMNIST test 641 2 lesions differs",
        "DermaMNIST val DermaMNIST test 113 0 lesions differs",
        "not read: ISIC2016-test.txt",
    } <= lines
    done = CliRunner().invoke(app, ["leakage", "--releases", str(tmp_path)])
    assert (done.exit_code, done.output.strip()) == (1, text)


def test_readers_of_synthetic_tables(tmp_path: Path) -> None:
    assert read_isic2019_ids(write_isic2019(tmp_path, "ISIC_1_downsampled", "ISIC_2")) == {"ISIC_1", "ISIC_2"}
    parts = read_dermamnist(write_dermamnist(tmp_path, {"train": ["a", "b"], "test": ["a"]}))
    assert parts == {"train": {"ISIC_train0", "ISIC_train1"}, "val": set(), "test": {"ISIC_test0"}}


def test_damaged_lists_are_refused_with_their_ids(tmp_path: Path) -> None:
    path = tmp_path / "ISIC2018_test.txt"
    for text, ids in (("ISIC_1\nISIC_2\nISIC_1", ("ISIC_1",)), ("ISIC_1\n<html>", ("<html>",)), ("", ())):
        path.write_text(text)
        with pytest.raises(CatalogError) as caught:
            read_id_list(path)
        assert caught.value.ids == ids
    split = write_dermamnist(tmp_path, {"train": ["a"], "exam": ["b"]})
    with pytest.raises(CatalogError, match="ISIC_exam0"):
        read_dermamnist(split)
    with pytest.raises(CatalogError, match="no folder of id lists"):
        tell_releases(tmp_path / "nowhere")


def test_what_is_known_is_told_without_lists(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["leakage"])
    known = " ".join(done.output.split())
    assert done.exit_code == 0
    assert "part shares with known 2016 test 2018 train 339 of 379 images 2017 test 2018 train 529 of 600" in known
    assert "counted from ISIC 2019's labels and the id lists in IMA++'s repository" in known
    write_dermamnist(tmp_path, {"train": ["a"]})
    (tmp_path / "HAM10000_metadata.csv").unlink()
    done = CliRunner().invoke(app, ["leakage", "--releases", str(tmp_path)])
    assert (done.exit_code, "339 of 379 no list images" in " ".join(done.output.split())) == (1, True)
    assert "no list of ids in" in done.output
    assert "not read: dermamnist_split_info.csv" in done.output
    both = CliRunner().invoke(app, ["leakage", "--releases", str(tmp_path), "--root", str(tmp_path)])
    assert "not both" in str(both.exception)


@pytest.mark.skipif(not SHARED.is_dir(), reason="LESION_SHARED_DATA names no folder with the releases' id lists")
def test_published_counts_of_the_releases_are_found() -> None:
    text, as_known = tell_releases(SHARED)
    assert as_known
    for line in (
        "2016 test 2018 train 339 of 379 339 of 379 images",
        "2017 test 2018 train 529 of 600 529 of 600 images",
        "2017 val 2018 train 121 of 150 121 of 150 images",
        "2016 test 2017 train 305 of 379 305 of 379 images",
        "2018 test any part of 2016 or 2017 0 of 1000 0 of 1000 images",
    ):
        assert line in " ".join(text.split())
