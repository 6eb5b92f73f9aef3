"""Official splits: a release's parts and a paper's counts, with groups kept whole and the certificate clean."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lesion_core.catalog.official import prescribe
from lesion_core.catalog.splits import build_splits
from lesion_core.catalog.stratify import Prescribed, split_groups
from lesion_core.catalog.table import COLUMNS, EDGE_COLUMNS, write_table
from lesion_core.errors import SettingsError, SplitError
from lesion_core.files import read_csv, read_json
from lesion_core.settings import Splits
from lesion_core.settings import load as config

FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}
SEGMAE = {"isic2018_task1": [1815, 259, 520], "ph2": [140, 20, 40]}


def chosen(official: dict, on_conflict: str = "error") -> Splits:
    return Splits(seed=1, **FRACTIONS, official=official, on_conflict=on_conflict)


def row(dataset: str, number: int, group: str | None = None, part: str | None = None, label: str | None = None) -> dict:
    image_id = f"{dataset}_{number:05d}"
    empty = dict.fromkeys(name for name, _ in COLUMNS)
    return empty | {
        "dataset": dataset,
        "image_id": image_id,
        "group_id": group or f"{dataset}:{image_id}",
        "part": part,
        "label": label,
        "sha256": image_id,
    }


def isic2017(counts: tuple[int, int, int]) -> list[dict]:
    parts = [part for part, count in zip(("training", "validation", "test"), counts, strict=True) for _ in range(count)]
    return [row("isic2017", number, part=part) for number, part in enumerate(parts)]


def build(folder, rows: list[dict], splits: Splits, edges: list[dict] | None = None) -> dict[str, dict[str, str]]:
    """dataset -> image id -> split, read from the files."""
    rows = sorted(rows, key=lambda one: (one["dataset"], one["image_id"]))
    write_table(folder / "images.parquet", COLUMNS, rows)
    write_table(folder / "edges.parquet", EDGE_COLUMNS, edges or [])
    build_splits(folder / "images.parquet", folder / "edges.parquet", splits, folder / "splits")
    return {
        dataset: {line["image_id"]: line["split"] for line in read_csv(folder / "splits" / f"{dataset}.csv")}
        for dataset in {one["dataset"] for one in rows}
    }


def test_a_release_keeps_its_parts_and_twins_elsewhere_follow(tmp_path) -> None:
    rows = isic2017((200, 15, 60))
    twins = [row("ham10000", k, rows[k * 5]["group_id"], label=("nv", "mel")[k % 2]) for k in range(40)]
    others = [row("ham10000", 1000 + k, label=("nv", "mel")[k % 2]) for k in range(60)]
    found = build(tmp_path, [*rows, *twins, *others], chosen({"isic2017": "release"}))
    expected = {"training": "train", "validation": "val", "test": "test"}
    assert all(found["isic2017"][one["image_id"]] == expected[one["part"]] for one in rows)
    assert all(found["ham10000"][twins[k]["image_id"]] == found["isic2017"][rows[k * 5]["image_id"]] for k in range(40))
    shares = Counter(found["ham10000"].values())
    assert all(abs(shares[name] / 100 - share) <= 0.05 for name, share in FRACTIONS.items())
    certificate = read_json(tmp_path / "splits" / "certificate.json")
    assert certificate["verdict"] == "no leak"
    assert certificate["official"] == {"asked": {"isic2017": "release"}, "moved": []}


def test_isic_2017s_official_counts(tmp_path) -> None:
    found = build(tmp_path, isic2017((2000, 150, 600)), chosen({"isic2017": "release"}))
    assert Counter(found["isic2017"].values()) == {"train": 2000, "val": 150, "test": 600}


def torn() -> tuple[list[dict], list[dict]]:
    """A training image (row 0) shows the lesion of a test image (31), another (1) that of a validation image (22)."""
    rows = isic2017((20, 5, 10))
    rows[0]["group_id"] = rows[31]["group_id"] = "isic2017:shared"
    rows[1]["group_id"] = rows[22]["group_id"] = "isic2017:seen"
    names = [name for name, _ in EDGE_COLUMNS]
    edges = [
        dict(zip(names, ("isic2017", rows[a]["image_id"], "isic2017", rows[b]["image_id"], "view", 9.0), strict=True))
        for a, b in ((0, 31), (1, 22))
    ]
    return rows, edges


def test_a_release_that_parts_a_group_is_refused_with_the_ids(tmp_path) -> None:
    rows, edges = torn()
    with pytest.raises(SplitError, match="part images of one group") as caught:
        build(tmp_path, rows, chosen({"isic2017": "release"}), edges)
    assert set(caught.value.ids) == {
        "isic2017/isic2017_00000 (training)",
        "isic2017/isic2017_00031 (test)",
        "isic2017/isic2017_00001 (training)",
        "isic2017/isic2017_00022 (validation)",
    }
    assert "on_conflict" in caught.value.remedy
    assert not (tmp_path / "splits").exists()


def test_move_takes_the_training_copy_to_its_twin_and_says_so(tmp_path) -> None:
    rows, edges = torn()
    found = build(tmp_path, rows, chosen({"isic2017": "release"}, "move"), edges)["isic2017"]
    assert found["isic2017_00000"] == "test"
    assert found["isic2017_00001"] == "val"
    assert Counter(found.values()) == {"train": 18, "val": 6, "test": 11}
    certificate = read_json(tmp_path / "splits" / "certificate.json")
    assert certificate["verdict"] == "no leak"
    assert certificate["edges_checked"]["view"] == 2
    assert certificate["official"]["moved"] == [
        "isic2017/isic2017_00000: training to test",
        "isic2017/isic2017_00001: training to val",
    ]


def test_two_releases_that_disagree_on_a_image_are_a_conflict() -> None:
    rows = isic2017((20, 5, 10)) + [
        row("isic2016", k, part="training" if k < 12 else "test", group="isic2017:isic2017_00030" if k == 3 else None)
        for k in range(20)
    ]
    rows[30]["group_id"] = "isic2017:isic2017_00030"
    with pytest.raises(SplitError) as caught:
        prescribe(rows, chosen({"isic2016": "release", "isic2017": "release"}))
    assert len(caught.value.ids) == 2
    prescribed, moved = prescribe(rows, chosen({"isic2016": "release", "isic2017": "release"}, "move"))
    assert prescribed.allowed["isic2017:isic2017_00030"] == ("test",)
    assert moved == ["isic2016/isic2016_00003: training to test"]


def test_a_release_without_validation_gives_some_of_its_training_part(tmp_path) -> None:
    rows = [row("isic2016", number, part="training" if number < 900 else "test") for number in range(1279)]
    found = build(tmp_path, rows, chosen({"isic2016": "release"}))["isic2016"]
    counts = Counter(found.values())
    assert counts["test"] == 379
    assert counts["val"] == pytest.approx(900 / 8, abs=3)  # val / (train + val) of the training part
    assert all(found[one["image_id"]] == "test" for one in rows if one["part"] == "test")


@pytest.mark.parametrize("part", [None, "training"])
def test_a_release_without_a_test_part_is_refused(part: str | None) -> None:
    rows = [row("isic2018_task1", number, part=part) for number in range(30)]
    with pytest.raises(SplitError, match="no test") as caught:
        prescribe(rows, chosen({"isic2018_task1": "release"}))
    assert caught.value.ids == ("isic2018_task1",)


def segmae_rows() -> list[dict]:
    """ISIC 2018 Task 1 and PH2 at their true sizes, HAM10000 small; groups of up to four, some across datasets."""
    rng = np.random.default_rng(5)
    rows, number = [], 0
    while number < 2594:
        size = min(int(rng.choice([1, 1, 1, 1, 2, 3, 4])), 2594 - number)
        group = f"isic2018_task1:{number}"
        rows += [row("isic2018_task1", number + k, group) for k in range(size)]
        if rng.random() < 0.1:
            rows.append(row("ham10000", number, group, label="nv"))
        number += size
    labels = ["nv"] * 80 + ["atypical"] * 80 + ["mel"] * 40
    rows += [row("ph2", k, label="mel" if labels[k] == "mel" else "nv") for k in range(200)]
    return rows + [row("ham10000", 5000 + k, label=("nv", "mel", "df")[k % 3]) for k in range(300)]


def test_segmaes_counts_are_met_exactly(tmp_path) -> None:
    rows = segmae_rows()
    found = build(tmp_path, rows, chosen(SEGMAE))
    for dataset, counts in SEGMAE.items():
        got = Counter(found[dataset].values())
        assert [got[name] for name in ("train", "val", "test")] == counts
    by_group: dict[str, set[str]] = {}
    for one in rows:
        by_group.setdefault(one["group_id"], set()).add(found[one["dataset"]][one["image_id"]])
    assert all(len(splits) == 1 for splits in by_group.values())
    melanomas = Counter(
        found["ph2"][one["image_id"]] for one in rows if (one["dataset"], one["label"]) == ("ph2", "mel")
    )
    assert abs(melanomas["test"] - 8) <= 1
    assert abs(melanomas["train"] - 28) <= 1
    for label in ("nv", "mel", "df"):
        own = Counter(
            found["ham10000"][o["image_id"]] for o in rows if (o["dataset"], o["label"]) == ("ham10000", label)
        )
        assert all(abs(own[name] / own.total() - share) < 0.04 for name, share in FRACTIONS.items()), (label, own)


@given(st.integers(0, 10_000), st.lists(st.sampled_from([1, 1, 1, 2, 3, 5]), min_size=30, max_size=80))
@hypothesis_settings(max_examples=25, deadline=None)
def test_counts_are_met_wherever_single_images_allow_it(seed: int, sizes: list[int]) -> None:
    sizes = [*sizes, *[1] * 15]
    images = [
        (f"g{number}", "ph2", ("nv", "mel")[number % 2]) for number, size in enumerate(sizes) for _ in range(size)
    ]
    total = len(images)
    counts = {"train": total - total // 4 - total // 6, "val": total // 6, "test": total // 4}
    shares = {name: count / total for name, count in counts.items()}
    assigned = split_groups(images, FRACTIONS, seed, Prescribed(shares={"ph2": shares}, counts={"ph2": counts}))
    assert Counter(assigned[group] for group, _, _ in images) == counts


def test_counts_that_cannot_be_had_are_told() -> None:
    with pytest.raises(SplitError, match=r"add up to 2594, the catalog has 882 images"):
        prescribe([row("isic2018_task1", k) for k in range(882)], chosen({"isic2018_task1": [1815, 259, 520]}))
    pairs = [row("ph2", k, f"ph2:{k // 2}") for k in range(40)]
    prescribed, _ = prescribe(pairs, chosen({"ph2": [27, 5, 8]}))
    images = [(one["group_id"], "ph2", "") for one in pairs]
    with pytest.raises(SplitError, match="cannot be split into train 27") as caught:
        split_groups(images, FRACTIONS, 1, prescribed)
    assert "edges.parquet" in caught.value.remedy


def test_settings_name_datasets_that_take_part_and_three_counts() -> None:
    with pytest.raises(SettingsError, match=r"splits.official: 'isic2016' is not in data.datasets"):
        config.load("paper", {"splits": {"official": {"isic2016": "release"}}})
    with pytest.raises(SettingsError, match=r"splits.official"):
        config.load("paper", {"splits": {"official": {"ph2": [160, 40]}}})
    assert config.load("paper", {"splits": {"official": {"ph2": [140, 20, 40]}}}).splits.official == {
        "ph2": [140, 20, 40]
    }
