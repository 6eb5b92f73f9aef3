"""The catalog: columns, joins across datasets, groups, the report, and bad files named all at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import releases
from PIL import Image

from lesion_core.acquire.readers import Row
from lesion_core.catalog.table import (
    COLUMNS,
    EDGE_COLUMNS,
    build_catalog,
    draw_few,
    read_edges,
    read_images,
    relative_path,
)
from lesion_core.errors import CatalogError, ImageError, MaskError
from lesion_core.files import read_json, sha256_file
from lesion_core.settings import Custom, Duplicates

CHOSEN = Duplicates(max_hamming=9, min_correlation=0.95)


@pytest.fixture
def data(tmp_path):
    """Task 1 shares an image with HAM10000 under its id, and one under another id, turned; Task 3 and ISIC 2019
    share a lesion with HAM10000 under other ids."""
    root = tmp_path / "root"
    datasets = {
        name: root / "data" / name for name in ("ham10000", "isic2018_task1", "isic2018_task3", "isic2019", "ph2")
    }
    releases.ham10000(
        datasets["ham10000"],
        {
            "ISIC_0000001": (1, "HAM_1", "nv"),
            "ISIC_0000002": (2, "HAM_1", "nv"),
            "ISIC_0000003": (3, "HAM_3", "mel"),
            "ISIC_0000008": (8, "HAM_8", "df"),
        },
    )
    releases.task1(datasets["isic2018_task1"], {"ISIC_0000003": 3, "ISIC_0000004": 4, "ISIC_0000010": 10})
    turned = np.rot90(releases.synthetic_image(8))[:, ::-1]
    releases.save(
        datasets["isic2018_task1"] / "ISIC2018_Task1-2_Training_Input" / "ISIC_0000010.png",
        np.asarray(Image.fromarray(turned).resize((36, 48), Image.Resampling.BICUBIC)),
    )
    mask = datasets["isic2018_task1"] / "ISIC2018_Task1_Training_GroundTruth" / "ISIC_0000010_segmentation.png"
    releases.write_mask(mask, 48, 36)
    releases.task3(datasets["isic2018_task3"], {"ISIC_0000011": (11, "HAM_1", "NV")})
    releases.isic2019(datasets["isic2019"], {"ISIC_0000004_downsampled": (12, "", "NV")})
    releases.ph2(datasets["ph2"], {"IMD002": (13, 0), "IMD003": (14, 2)})
    return root, datasets


def build(root, datasets, custom=None):
    folder = root / "catalog"
    build_catalog(
        datasets,
        root,
        CHOSEN,
        custom,
        out_images=folder / "images.parquet",
        out_edges=folder / "edges.parquet",
        out_report=folder / "report.json",
    )
    rows = {(row["dataset"], row["image_id"]): row for row in read_images(folder / "images.parquet")}
    return rows, read_edges(folder / "edges.parquet"), read_json(folder / "report.json")


def test_rows_groups_and_report(data):
    root, datasets = data
    rows, edges, report = build(root, datasets)
    assert list(rows) == sorted(rows)
    one = rows["ham10000", "ISIC_0000001"]
    assert list(one) == [name for name, _ in COLUMNS]
    assert one["path"] == "data/ham10000/ISIC_0000001.png"
    assert (root / one["mask_path"]).is_file()
    for row in rows.values():
        digest = None if row["mask_path"] is None else sha256_file(root / row["mask_path"])
        assert (row["sha256"], row["mask_sha256"]) == (sha256_file(root / row["path"]), digest)
    assert (one["width"], one["height"], one["age"], one["sex"], one["site"]) == (32, 24, 45.0, "male", "trunk")
    assert one["dx_type"] == "histo"
    assert rows["isic2018_task1", "ISIC_0000004"]["dx_type"] is None
    assert one["sha256"] == sha256_file(root / one["path"])
    assert len(one["phash"]) == 20
    assert rows["isic2018_task1", "ISIC_0000004"]["label"] is None
    groups = {key: row["group_id"] for key, row in rows.items()}
    # One lesion in two datasets; one id in two datasets; one image under two ids; an id with a suffix.
    assert groups["isic2018_task3", "ISIC_0000011"] == groups["ham10000", "ISIC_0000002"] == "ham10000:ISIC_0000001"
    assert groups["isic2018_task1", "ISIC_0000003"] == "ham10000:ISIC_0000003"
    assert groups["isic2018_task1", "ISIC_0000010"] == "ham10000:ISIC_0000008"
    assert groups["isic2019", "ISIC_0000004_downsampled"] == "isic2018_task1:ISIC_0000004"
    assert len(set(groups.values())) == 6
    assert [list(edge) for edge in edges[:1]] == [[name for name, _ in EDGE_COLUMNS]]
    reasons = {(edge["image_id_a"], edge["image_id_b"], edge["reason"]) for edge in edges}
    assert ("ISIC_0000008", "ISIC_0000010", "near_duplicate") in reasons
    assert ("ISIC_0000003", "ISIC_0000003", "image_id") in reasons
    assert ("ISIC_0000003", "ISIC_0000003", "near_duplicate") in reasons
    shared = report["joins"]["shared"]["ham10000 - isic2018_task1"]
    assert shared == {"image_ids": 1, "lesion_ids": 0, "groups": 2}
    assert report["datasets"]["ham10000"]["labels"] == {"nv": 2, "mel": 1, "df": 1}
    assert report["datasets"]["isic2018_task3"]["missing"]["mask_path"] == 1
    assert report["problems"] == []


def test_same_input_same_bytes(data):
    root, datasets = data
    build(root, datasets)
    names = ("images.parquet", "edges.parquet", "report.json")
    before = [sha256_file(root / "catalog" / name) for name in names]
    build(root, dict(reversed(datasets.items())))
    assert [sha256_file(root / "catalog" / name) for name in names] == before


def test_all_bad_images_are_named_and_nothing_is_written(data):
    root, datasets = data
    for image_id in ("ISIC_0000001", "ISIC_0000003"):
        path = datasets["ham10000"] / f"{image_id}.png"
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImageError) as caught:
        build(root, datasets)
    assert caught.value.ids == ("ham10000/ISIC_0000001", "ham10000/ISIC_0000003")
    assert not (root / "catalog").exists()


def test_mask_that_cannot_belong_is_refused(data):
    root, datasets = data
    masks = datasets["ham10000"] / "HAM10000_segmentations_lesion_tschandl"
    releases.write_mask(masks / "ISIC_0000002_segmentation.png", 32, 24)
    with pytest.raises(MaskError, match="aspect ratios differ") as caught:
        build(root, datasets)
    assert caught.value.ids == ("ham10000/ISIC_0000002",)


def test_repairs_are_told(data):
    root, datasets = data
    masks = datasets["ham10000"] / "HAM10000_segmentations_lesion_tschandl"
    releases.write_mask(masks / "ISIC_0000001_segmentation.png", 48, 64)
    releases.save(masks / "ISIC_0000002_segmentation.png", np.zeros((24, 32), np.uint8))
    releases.save(masks / "ISIC_0000003_segmentation.png", np.full((24, 32), 255, np.uint8))
    releases.isic2019(datasets["isic2019"], {"ISIC_0000004_downsampled": (12, "", "SCC")})
    rows, _, report = build(root, datasets)
    told = {(problem["image_id"], problem["kind"]) for problem in report["problems"]}
    assert told == {
        ("ISIC_0000001", "resized"),
        ("ISIC_0000002", "empty"),
        ("ISIC_0000003", "full"),
        ("ISIC_0000004_downsampled", "no_class"),
    }
    # An empty mask is set aside, a full one is a lesion larger than the field.
    assert rows["ham10000", "ISIC_0000002"]["mask_path"] is None
    assert rows["ham10000", "ISIC_0000003"]["mask_path"] is not None


def test_rotated_image_is_measured_upright(tmp_path):
    stored = Image.fromarray(releases.synthetic_image(1, 24, 32))
    exif = stored.getexif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    stored.save(tmp_path / "images" / "a.png", exif=exif)
    table = releases.write_text(tmp_path / "t.csv", "image_id", "a")
    custom = Custom(images=str(tmp_path / "images"), csv=str(table))
    rows, _, _ = build(tmp_path / "root", {"custom": tmp_path / "absent"}, custom)
    row = rows["custom", "a"]
    assert (row["width"], row["height"]) == (24, 32)
    assert row["path"] == "../images/a.png"


def test_no_datasets_and_foreign_tables(tmp_path):
    with pytest.raises(CatalogError, match="no dataset"):
        build(tmp_path, {})
    (tmp_path / "x.parquet").write_bytes(b"not parquet")
    with pytest.raises(CatalogError, match="cannot be read"):
        read_images(tmp_path / "x.parquet")


def test_names_lead_to_own_files_where_results_are_a_link(tmp_path):
    """The system leaves a linked folder for the one that holds what it links to."""
    disk = tmp_path / "disk" / "deep" / "results"
    project = tmp_path / "project"
    project.mkdir()
    disk.mkdir(parents=True)
    (project / "results").symlink_to(disk)
    root = project / "results" / "smoke"
    root.mkdir()
    for path in (tmp_path / "clinic" / "a.png", root / "data" / "ph2" / "b.png"):
        path.parent.mkdir(parents=True)
        path.write_text(path.name)
        assert (root / relative_path(path, root)).read_text() == path.name
    assert relative_path(path, root) == "data/ph2/b.png"


def test_few_images_are_drawn_in_turns_of_classes_and_by_id_alone():
    def row(dataset, number, label=None):
        return Row(dataset, f"ISIC_{number}", Path(f"{number}.jpg"), "CC0 1.0", label=label)

    ham = [row("ham10000", number, "nv") for number in range(20)] + [row("ham10000", 20, "mel")]
    drawn = draw_few(ham, 4)
    assert sorted(row.label for row in drawn) == ["mel", "nv", "nv", "nv"]
    one, two = ({row.image_id for row in draw_few([row(name, k) for k in range(20)], 5)} for name in ("isic2017", "x"))
    assert one == two
    assert draw_few(ham, None) == ham
