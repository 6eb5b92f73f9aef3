"""Splits as published: a release's parts, a paper's counts, images at random; what they leak is named, not refused."""

from __future__ import annotations

from collections import Counter

import pytest

from lesion_core.catalog.certificate import certify
from lesion_core.catalog.published import published_splits
from lesion_core.catalog.splits import build_splits
from lesion_core.catalog.table import COLUMNS, EDGE_COLUMNS, write_table
from lesion_core.errors import SplitError
from lesion_core.files import read_csv, read_json
from lesion_core.settings import SplitRule

SEGMAE = {"isic2018_task1": [1815, 259, 520], "ph2": [140, 20, 40]}


def rule(parts: dict, seed: int = 1, *, scale: bool = False) -> SplitRule:
    shares = {"train": 0.7, "val": 0.1, "test": 0.2}
    return SplitRule(seed=seed, **shares, rule="as_published", parts=parts, scale_counts=scale)


def row(dataset: str, number: int, part: str | None = None, **known: str) -> dict:
    image_id = f"{dataset}_{number:05d}"
    empty = dict.fromkeys(name for name, _ in COLUMNS)
    own = {"dataset": dataset, "image_id": image_id, "group_id": image_id, "part": part, "sha256": image_id}
    return empty | own | known


def rows_of(dataset: str, count: int) -> list[dict]:
    return [row(dataset, number) for number in range(count)]


def counted(found: dict[tuple[str, str], str], dataset: str) -> list[int]:
    counts = Counter(split for (name, _), split in found.items() if name == dataset)
    return [counts[name] for name in ("train", "val", "test")]


def test_a_release_keeps_its_parts():
    parts = ["training"] * 20 + ["validation"] * 2 + ["test"] * 6
    rows = [row("isic2017", number, part) for number, part in enumerate(parts)]
    found = published_splits(rows, rule({"isic2017": "release"}))
    wanted = {"training": "train", "validation": "val", "test": "test"}
    assert found == {("isic2017", one["image_id"]): wanted[one["part"]] for one in rows}


def test_a_release_without_validation_gives_some_of_its_training_part():
    rows = [row("isic2016", number, "training" if number < 80 else "test") for number in range(100)]
    found = published_splits(rows, rule({"isic2016": "release"}))
    assert counted(found, "isic2016") == [70, 10, 20]
    assert all(found["isic2016", one["image_id"]] == "test" for one in rows if one["part"] == "test")


def test_counts_are_met_in_a_seeded_order_by_image():
    rows = rows_of("isic2018_task1", 2594) + rows_of("ph2", 200)
    found = published_splits(rows, rule(SEGMAE))
    assert {name: counted(found, name) for name in SEGMAE} == SEGMAE
    assert published_splits(rows[::-1], rule(SEGMAE)) == found
    assert published_splits(rows, rule(SEGMAE, seed=2)) != found
    # each dataset by itself: what else there is changes nothing
    assert published_splits(rows + rows_of("ham10000", 9), rule(SEGMAE)).items() >= found.items()


def test_what_is_not_named_is_drawn_by_the_shares_and_a_part_may_be_empty():
    found = published_splits(rows_of("ham10000", 99) + rows_of("ph2", 200), rule({"ph2": [0, 0, 200]}))
    assert counted(found, "ham10000") == [69, 10, 20]
    assert counted(found, "ph2") == [0, 0, 200]


def test_counts_that_do_not_fit_are_refused_or_scaled():
    rows = rows_of("isic2018_task1", 48)
    with pytest.raises(SplitError, match=r"add up to 2594; the catalog has 48"):
        published_splits(rows, rule(SEGMAE))
    # 48 * (1815, 259, 520) / 2594 = (33.59, 4.79, 9.62): the largest remainders are validation's and the test's
    assert counted(published_splits(rows, rule(SEGMAE, scale=True)), "isic2018_task1") == [33, 5, 10]


def test_a_release_without_parts_is_told():
    with pytest.raises(SplitError, match="its release does not split it"):
        published_splits(rows_of("ham10000", 4), rule({"ham10000": "release"}))


def test_planted_leaks_are_named_by_reason_and_datasets_and_not_refused(tmp_path):
    parts = ["training"] * 8 + ["validation"] * 2 + ["test"] * 4
    rows = [row("isic2017", number, part) for number, part in enumerate(parts)]
    for first, second in ((0, 10), (1, 11)):  # a lesion that trains and tests, twice
        for number in (first, second):
            rows[number]["lesion_id"] = f"lesion {first}"
    rows.append(row("ph2", 0, sha256=rows[12]["sha256"]))  # a test image, in another dataset's training part
    edge = {"dataset_a": "isic2017", "image_id_a": rows[2]["image_id"], "dataset_b": "isic2017"}
    edge |= {"image_id_b": rows[8]["image_id"], "reason": "view", "value": 7.5}
    write_table(tmp_path / "images.parquet", COLUMNS, rows)
    write_table(tmp_path / "edges.parquet", EDGE_COLUMNS, [edge])
    splits = tmp_path / "splits"
    asked = rule({"isic2017": "release", "ph2": [1, 0, 0]})
    build_splits(tmp_path / "images.parquet", tmp_path / "edges.parquet", asked, splits)
    certificate = read_json(splits / "certificate.json")
    assert certificate["verdict"] == "leaks, as published"
    assert certificate["leaks"] == {
        "lesion": {"isic2017": 2},
        "near_duplicate": {"isic2017 - ph2": 1},
        "view": {"isic2017": 1},
    }
    assert len(certificate["crossing"]) == 4
    assert certificate == certify(tmp_path / "images.parquet", tmp_path / "edges.parquet", splits, "as_published")
    assert {line["split"] for line in read_csv(splits / "ph2.csv")} == {"train"}


def test_official_parts_test_under_both_rules_and_take_their_groups_along(tmp_path):
    rows = rows_of("isic2018_task1", 40)
    rows += [row("isic2017_test", 0, image_id=rows[7]["image_id"], group_id=rows[7]["group_id"])]
    rows += [row("isic2017_test", number) for number in (1, 2)]
    assert counted(published_splits(rows, rule({})), "isic2017_test") == [0, 0, 3]
    write_table(tmp_path / "images.parquet", COLUMNS, rows)
    write_table(tmp_path / "edges.parquet", EDGE_COLUMNS, [])
    free = rule({}).model_copy(update={"rule": "leak_free"})
    build_splits(tmp_path / "images.parquet", tmp_path / "edges.parquet", free, tmp_path)
    own = {line["image_id"]: line["split"] for line in read_csv(tmp_path / "isic2018_task1.csv")}
    assert own[rows[7]["image_id"]] == "test"
    assert Counter(own.values()) == {"train": 27, "val": 4, "test": 9}
    assert read_json(tmp_path / "certificate.json")["splits"]["isic2017_test"]["counts"]["test"] == 3
