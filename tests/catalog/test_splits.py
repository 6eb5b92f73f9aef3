"""Splits: no group is parted, classes are spread fairly, and the certificate finds what crosses."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_core.catalog.certificate import certify
from lesion_core.catalog.confirmation import confirmed_by
from lesion_core.catalog.splits import build_splits
from lesion_core.catalog.stratify import split_groups
from lesion_core.catalog.table import COLUMNS, EDGE_COLUMNS, write_table
from lesion_core.errors import LeakageError, SplitError
from lesion_core.files import read_csv, read_json, sha256_file, write_csv
from lesion_core.settings import SplitRule

FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}
CHOSEN = SplitRule(seed=1, train=0.7, val=0.1, test=0.2, rule="leak_free")


def made_images(seed, groups, labels=("nv", "mel", "df"), shares=(0.8, 0.15, 0.05)):
    """(group, dataset, class) of groups of one to four images, some of them in both datasets."""
    rng = np.random.default_rng(seed)
    images = []
    for group in range(groups):
        label = str(rng.choice(labels, p=shares))
        for _ in range(rng.integers(1, 4)):
            images.append((f"g{group:04d}", "ham10000", label))
        if rng.random() < 0.3:
            images.append((f"g{group:04d}", "isic2018_task3", label))
        if rng.random() < 0.2:
            images.append((f"g{group:04d}", "isic2018_task1", ""))
    return images


def counts_of(images, assigned):
    counts = defaultdict(Counter)
    for group, dataset, label in images:
        counts[dataset, label][assigned[group]] += 1
    return counts


def test_fractions_are_close_for_every_dataset_and_class():
    images = made_images(0, 1500)
    for cell, counts in counts_of(images, split_groups(images, FRACTIONS, seed=7)).items():
        total = sum(counts.values())
        for name, share in FRACTIONS.items():
            assert abs(counts[name] - share * total) <= max(3, 0.02 * total), (cell, counts)


def test_the_order_of_the_images_does_not_matter_but_the_seed_does():
    images = made_images(1, 200)
    shuffled = list(images)
    np.random.default_rng(0).shuffle(shuffled)
    first = split_groups(images, FRACTIONS, seed=7)
    assert split_groups([tuple(image) for image in shuffled], FRACTIONS, seed=7) == first
    assert split_groups(images, FRACTIONS, seed=8) != first


@given(st.integers(0, 10_000), st.integers(3, 60))
@settings(max_examples=30, deadline=None)
def test_every_class_with_three_groups_stands_in_every_split(seed, groups):
    rng = np.random.default_rng(seed)
    images = []
    for group in range(groups):
        dataset = ("ham10000", "ph2")[rng.integers(2)] if groups > 12 else "ham10000"
        images += [(f"g{group}", dataset, ("nv", "mel", "df", "bcc")[rng.integers(4)])] * int(rng.integers(1, 6))
    assigned = split_groups(images, FRACTIONS, seed)
    assert set(assigned) == {group for group, _, _ in images}
    groups_of = defaultdict(set)
    for group, dataset, label in images:
        groups_of[dataset, label].add(group)
    for cell, members in groups_of.items():
        found = Counter(assigned[group] for group in members)
        if len(members) >= 3:
            assert set(found) == set(FRACTIONS), (cell, found)
        elif len(members) == 2:
            assert found == {"train": 1, "test": 1}, (cell, found)
        else:
            assert found == {"train": 1}, (cell, found)


def test_an_empty_share_makes_an_empty_split():
    assigned = split_groups(made_images(2, 60), {"train": 0.8, "val": 0.0, "test": 0.2}, seed=1)
    assert set(assigned.values()) == {"train", "test"}


def test_too_few_groups_are_an_error():
    with pytest.raises(SplitError, match="2 groups") as caught:
        split_groups([("a", "ph2", "nv"), ("b", "ph2", "nv")] * 5, FRACTIONS, seed=1)
    assert caught.value.ids == ("ph2",)


def test_classes_that_cannot_be_covered_are_named():
    # The Fano plane, classes as lines and groups as points: no three colours have all of them on every line.
    images = []
    for label, groups in {"nv": "abc", "mel": "ade", "df": "bdf", "bcc": "cef", "akiec": "afg", "vasc": "beg"}.items():
        images += [(group, "ham10000", label) for group in groups]
    images += [(group, "ham10000", "bkl") for group in "cdg"]
    with pytest.raises(SplitError, match="cannot stand in every split") as caught:
        split_groups(images, FRACTIONS, seed=1)
    assert all("ham10000/" in name for name in caught.value.ids)


def catalog_row(dataset, image_id, group_id, label=None, lesion_id=None, sha256=None):
    row = dict.fromkeys(name for name, _ in COLUMNS)
    return row | {
        "dataset": dataset,
        "image_id": image_id,
        "group_id": group_id,
        "label": label,
        "lesion_id": lesion_id,
        "sha256": sha256 or f"{dataset}{image_id}",
    }


@pytest.fixture
def catalog(tmp_path):
    """Sixty lesions in HAM10000; twenty of the images stand in Task 1 too."""
    rows, edges = [], []
    for number in range(60):
        group = f"ham10000:ISIC_{number:07d}"
        label = ("nv", "mel", "df")[number % 3]
        rows.append(catalog_row("ham10000", f"ISIC_{number:07d}", group, label, f"HAM_{number}"))
        if number % 4 == 0:
            rows.append(catalog_row("ham10000", f"ISIC_{1000 + number:07d}", group, label, f"HAM_{number}"))
        if number % 3 == 0:
            rows.append(catalog_row("isic2018_task1", f"ISIC_{number:07d}_downsampled", group))
        if number % 5 == 0:
            rows.append(catalog_row("isic2018_task1", f"ISIC_{2000 + number:07d}", group))
            ends = ("ham10000", f"ISIC_{number:07d}", "isic2018_task1", f"ISIC_{2000 + number:07d}")
            edges.append(dict(zip([name for name, _ in EDGE_COLUMNS], (*ends, "view", 12.0), strict=True)))
    rows.sort(key=lambda row: (row["dataset"], row["image_id"]))
    write_table(tmp_path / "images.parquet", COLUMNS, rows)
    write_table(tmp_path / "edges.parquet", EDGE_COLUMNS, edges)
    return tmp_path


def split(folder):
    build_splits(folder / "images.parquet", folder / "edges.parquet", CHOSEN, folder / "splits")


def move(path, image_id):
    """Put one image into another split by hand."""
    rows = read_csv(path)
    for row in rows:
        if row["image_id"] == image_id:
            row["split"] = "test" if row["split"] != "test" else "train"
    write_csv(path, list(rows[0]), rows)


def test_files_and_certificate(catalog):
    split(catalog)
    certificate = read_json(catalog / "splits" / "certificate.json")
    assert certificate["verdict"] == "no leak"
    assert certificate["crossing"] == []
    assert certificate["edges_checked"] == {"lesion": 15, "image_id": 20, "near_duplicate": 0, "view": 12}
    for dataset in ("ham10000", "isic2018_task1"):
        path = catalog / "splits" / f"{dataset}.csv"
        rows = read_csv(path)
        assert list(rows[0]) == ["image_id", "group_id", "split"]
        assert [row["image_id"] for row in rows] == sorted(row["image_id"] for row in rows)
        assert certificate["splits"][dataset]["sha256"] == sha256_file(path)
        assert certificate["splits"][dataset]["counts"] == dict(Counter(row["split"] for row in rows))
    before = [sha256_file(path) for path in sorted((catalog / "splits").iterdir())]
    split(catalog)
    assert [sha256_file(path) for path in sorted((catalog / "splits").iterdir())] == before


@pytest.mark.parametrize(
    ("dataset", "image_id", "reason"),
    [
        ("ham10000", "ISIC_0001004", "lesion"),
        ("isic2018_task1", "ISIC_0000003_downsampled", "image_id"),
        ("isic2018_task1", "ISIC_0002005", "view"),
    ],
)
def test_a_image_moved_by_hand_is_found(catalog, dataset, image_id, reason):
    split(catalog)
    move(catalog / "splits" / f"{dataset}.csv", image_id)
    certificate = certify(catalog / "images.parquet", catalog / "edges.parquet", catalog / "splits", "leak_free")
    assert certificate["verdict"] == "leak"
    assert {pair["reason"] for pair in certificate["crossing"]} == {reason}
    assert image_id in {pair[side]["image_id"] for pair in certificate["crossing"] for side in "ab"}


def test_the_way_of_confirmation_tells_the_class_by_hand():
    def images(split, *counts):
        return [("ham10000", split, way, label) for way, label, count in counts for _ in range(count)]

    told = confirmed_by(
        [
            *images("train", ("histo", "mel", 4), ("histo", "nv", 2), ("follow_up", "nv", 6)),
            *images("test", ("histo", "mel", 3), ("follow_up", "nv", 5)),
            *images("val", ("histo", "mel", 2), ("histo", "nv", 1)),
            ("ham10000", "val", None, "nv"),
            ("ph2", "train", None, "nv"),
        ]
    )
    assert told.keys() == {"ham10000"}
    train, val, test = (told["ham10000"][name] for name in ("train", "val", "test"))
    assert train["classes"] == {"follow_up": {"nv": 6}, "histo": {"mel": 4, "nv": 2}}
    # phi of [[0, 6], [4, 2]]: (0 * 2 - 6 * 4) / sqrt(6 * 6 * 4 * 8)
    assert train["cramers_v"] == round(24 / (6 * 6 * 4 * 8) ** 0.5, 4)
    assert (test["images"], test["cramers_v"]) == (8, 1.0)
    assert (val["images"], val["cramers_v"]) == (3, None)


def test_wrong_groups_do_not_deceive_the_certificate(catalog, tmp_path):
    """Two images of equal bytes that the catalog put into different groups."""
    rows = [catalog_row("ph2", f"IMD{number:03d}", f"ph2:IMD{number:03d}", "nv", sha256="same") for number in range(9)]
    write_table(tmp_path / "bad.parquet", COLUMNS, rows)
    write_table(tmp_path / "none.parquet", EDGE_COLUMNS, [])
    with pytest.raises(LeakageError) as caught:
        build_splits(tmp_path / "bad.parquet", tmp_path / "none.parquet", CHOSEN, tmp_path / "splits")
    assert caught.value.ids
    assert not (tmp_path / "splits" / "certificate.json").exists()
    failed = read_json(tmp_path / "splits" / "certificate.failed.json")
    assert failed["verdict"] == "leak"
    assert {pair["reason"] for pair in failed["crossing"]} == {"near_duplicate"}


def test_split_files_must_hold_the_catalog(catalog):
    split(catalog)
    path = catalog / "splits" / "ham10000.csv"
    rows = read_csv(path)
    for bad in (rows[1:], [*rows, rows[0]], [*rows[1:], rows[0] | {"image_id": "ISIC_9999999"}]):
        write_csv(path, list(rows[0]), bad)
        with pytest.raises(SplitError, match="missing, unknown or doubled"):
            certify(catalog / "images.parquet", catalog / "edges.parquet", catalog / "splits", "leak_free")
    write_csv(path, list(rows[0]), [rows[0] | {"split": "dev"}, *rows[1:]])
    with pytest.raises(SplitError, match="other columns or splits"):
        certify(catalog / "images.parquet", catalog / "edges.parquet", catalog / "splits", "leak_free")
    path.unlink()
    with pytest.raises(SplitError, match="no split table"):
        certify(catalog / "images.parquet", catalog / "edges.parquet", catalog / "splits", "leak_free")
