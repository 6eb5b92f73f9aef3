"""Harmonized datasets: typed index, closed masks, combination without copies, refusal of broken folders."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from lesion_core.errors import CatalogError, MaskError, RunError
from lesion_core.pixels.datasets import INDEX_COLUMNS, Harmonized, Stacked, combine
from lesion_core.settings import CLASSES

ROWS = (
    ("a", "train", "mel", 0, "55.0"),
    ("b", "val", "", 1, ""),
    ("c", "test", "nv", -1, "30"),
    ("d", "train", "akiec", -1, "0"),
    ("e", "train", "", 2, "80.5"),
)


def _write(folder: Path, size: int = 8, seed: int = 0, rows: tuple = ROWS) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    masks = sum(row[3] >= 0 for row in rows)
    np.save(folder / "images.npy", rng.integers(0, 256, (len(rows), size, size, 3), dtype=np.uint8))
    np.save(folder / "masks.npy", rng.integers(0, 256, (masks, size, size), dtype=np.uint8))
    with open(folder / "index.csv", "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(INDEX_COLUMNS)
        for number, (image, split, label, mask, age) in enumerate(rows):
            writer.writerow([number, image, "", f"g{image}", split, label, mask, 600, 450, age, "male", ""])
    return folder


def _edit(folder: Path, old: str, new: str) -> None:
    text = (folder / "index.csv").read_text(encoding="utf-8")
    assert old in text
    (folder / "index.csv").write_text(text.replace(old, new, 1), encoding="utf-8")


def test_open_types_and_rows(tmp_path: Path) -> None:
    data = Harmonized.open(_write(tmp_path / "ph2" / "8"))
    assert (data.name, data.size, len(data)) == ("ph2", 8, 5)
    assert isinstance(data.images, np.memmap)
    assert not data.images.flags.writeable
    assert data.index[0] == {
        "dataset": "ph2",
        "row": 0,
        "image_id": "a",
        "lesion_id": None,
        "group_id": "ga",
        "split": "train",
        "label": "mel",
        "mask_row": 0,
        "width": 600,
        "height": 450,
        "age": 55.0,
        "sex": "male",
        "site": None,
    }
    assert data.index[1]["age"] is None
    assert data.rows("train").tolist() == [0, 3, 4]
    assert data.rows("train").dtype == np.int64
    assert data.rows("train", with_mask=True).tolist() == [0, 4]
    assert data.rows("train", with_label=True).tolist() == [0, 3]
    assert data.rows("test", with_mask=True).tolist() == []
    assert data.rows().tolist() == [0, 1, 2, 3, 4]
    assert data.labels().tolist() == [CLASSES.index("mel"), -1, CLASSES.index("nv"), CLASSES.index("akiec"), -1]
    with pytest.raises(ValueError, match="unknown split"):
        data.rows("training")


def test_pixels_are_those_of_the_files_and_test_masks_are_sealed(tmp_path: Path) -> None:
    folder = _write(tmp_path / "ph2" / "8")
    data = Harmonized.open(folder)
    np.testing.assert_array_equal(data.image(3), np.load(folder / "images.npy")[3])
    np.testing.assert_array_equal(data.soft_mask(4), np.load(folder / "masks.npy")[2])
    with pytest.raises(MaskError, match="closed") as caught:
        data.soft_mask(2)
    assert caught.value.ids == ("ph2/c",)
    with pytest.raises(MaskError, match="no mask"):
        data.soft_mask(3)


def test_combine_numbers_rows_through_without_copying(tmp_path: Path) -> None:
    first = Harmonized.open(_write(tmp_path / "ph2" / "8"))
    second = Harmonized.open(_write(tmp_path / "ham10000" / "8", seed=1))
    both = combine([first, second])
    assert both.name == "ph2+ham10000"
    assert len(both) == 10
    assert both.images.shape == (10, 8, 8, 3)
    assert both.masks.shape == (6, 8, 8)
    assert both.rows("val").tolist() == [1, 6]
    for row in range(5):
        np.testing.assert_array_equal(both.image(row), first.image(row))
        np.testing.assert_array_equal(both.image(5 + row), second.image(row))
    for row in (0, 1, 4):
        np.testing.assert_array_equal(both.soft_mask(5 + row), second.soft_mask(row))
    assert np.shares_memory(both.image(7), second.images)
    assert [entry["dataset"] for entry in both.index] == ["ph2"] * 5 + ["ham10000"] * 5
    assert [entry["row"] for entry in both.index] == list(range(10))
    assert second.index[0]["row"] == 0
    with pytest.raises(MaskError) as caught:
        both.soft_mask(7)
    assert caught.value.ids == ("ham10000/c",)
    third = combine([both, Harmonized.open(_write(tmp_path / "custom" / "8", seed=2))])
    assert third.names == ("ph2", "ham10000", "custom")
    assert third.rows("test").tolist() == [2, 7, 12]
    assert combine([first]) is first


def test_combine_refuses_what_does_not_fit(tmp_path: Path) -> None:
    first = Harmonized.open(_write(tmp_path / "ph2" / "8"))
    other = Harmonized.open(_write(tmp_path / "ham10000" / "16", size=16))
    with pytest.raises(CatalogError, match="sizes differ: ph2 8, ham10000 16"):
        combine([first, other])
    with pytest.raises(CatalogError, match="twice"):
        combine([first, first])
    with pytest.raises(ValueError, match="nothing"):
        combine([])


def test_stacked_items_are_those_of_one_array() -> None:
    parts = [np.arange(6).reshape(3, 2), np.arange(0).reshape(0, 2), np.arange(6, 14).reshape(4, 2)]
    stacked = Stacked(parts)
    assert len(stacked) == 7
    np.testing.assert_array_equal(list(stacked), np.concatenate(parts))
    for row in (7, -1):
        with pytest.raises(IndexError):
            stacked[row]


def test_a_dataset_without_any_mask_opens(tmp_path: Path) -> None:
    rows = (("a", "train", "nv", -1, ""), ("b", "test", "mel", -1, ""))
    data = Harmonized.open(_write(tmp_path / "isic2018_task3" / "8", rows=rows))
    assert data.rows(with_mask=True).tolist() == []
    both = combine([data, Harmonized.open(_write(tmp_path / "ph2" / "8"))])
    np.testing.assert_array_equal(both.soft_mask(2), both.masks[0])


@pytest.mark.parametrize("name", ["index.csv", "images.npy", "masks.npy"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = _write(tmp_path / "ph2" / "8")
    (folder / name).unlink()
    with pytest.raises(RunError) as caught:
        Harmonized.open(folder)
    assert caught.value.file == str(folder / name)
    assert caught.value.remedy


def test_broken_arrays_are_refused(tmp_path: Path) -> None:
    folder = _write(tmp_path / "ph2" / "8")
    content = (folder / "images.npy").read_bytes()
    (folder / "images.npy").write_bytes(content[:300])
    with pytest.raises(RunError, match="cannot be read"):
        Harmonized.open(folder)
    np.save(folder / "images.npy", np.zeros((5, 8, 8, 3), np.float32))
    with pytest.raises(RunError, match="expected uint8"):
        Harmonized.open(folder)
    np.save(folder / "images.npy", np.zeros((5, 9, 9, 3), np.uint8))
    with pytest.raises(CatalogError, match="masks"):
        Harmonized.open(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0,a,", "9,a,", "row numbers"),
        (",val,", ",validation,", "none of train, val, test"),
        (",mel,", ",melanoma,", "a label is none of"),
        ("val,,1,", "val,,2,", "masks"),
        (",test,", ",train,", None),
        ("b,,gb,val", "b,,gb,test", "closed"),
        ("55.0", "old", "number is unreadable"),
        ("lesion_id", "lesion", "expected the columns"),
    ],
)
def test_an_inconsistent_index_is_refused(tmp_path: Path, old: str, new: str, message: str | None) -> None:
    folder = _write(tmp_path / "ph2" / "8")
    _edit(folder, old, new)
    if message is None:
        Harmonized.open(folder)
        return
    with pytest.raises(CatalogError, match=message):
        Harmonized.open(folder)
