"""The catalog against the releases' own archives and tables, and split tables made anew, on a small release."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pyarrow
import pytest
import releases
from material import HOME, SHARES

from lesion_core.acquire.unpack import unpack_dataset
from lesion_core.audit.releases import catalog, split_tables
from lesion_core.catalog.splits import build_splits
from lesion_core.catalog.table import build_catalog
from lesion_core.files import read_parquet, sha256_file, write_json, write_parquet
from lesion_core.paths import Layout
from lesion_core.settings import Duplicates, Plan, Splits
from lesion_core.settings.data import Harmonization
from lesion_core.settings.protocols import Homes, Protocol

DUPLICATES = Duplicates(max_hamming=9, min_correlation=0.95)
ROWS = {f"ISIC_{number:07d}": (number, f"HAM_{number}", "mel" if number % 2 else "nv") for number in range(1, 25)}
MASK = "data/ham10000/HAM10000_segmentations_lesion_tschandl/ISIC_0000003_segmentation.png"


@pytest.fixture
def layout(tmp_path) -> Layout:
    """HAM10000 as it is downloaded, unpacked, in the catalog and split."""
    source, layout = releases.ham10000(tmp_path / "source" / "HAM10000_images_part_1", ROWS), Layout(tmp_path / "smoke")
    downloads = layout.downloads("ham10000")
    downloads.mkdir(parents=True)
    for name in ("HAM10000_metadata.csv", "HAM10000_segmentations_lesion_tschandl"):
        (source / name).rename(source.parent / name)
    for path in source.parent.iterdir():
        if path.is_dir():
            shutil.make_archive(str(downloads / path.name), "zip", source.parent, path.name)
        else:
            shutil.copy(path, downloads)
    listed = [
        {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in downloads.iterdir()
    ]
    write_json(downloads / "files.json", {"dataset": "ham10000", "files": listed})
    unpack_dataset("ham10000", downloads, layout.data("ham10000"))
    build(layout)
    build_splits(layout.catalog, layout.edges, homes().materials[HOME].splits, layout.certificate(HOME).parent)
    return layout


def build(layout: Layout) -> None:
    outs = {"out_images": layout.catalog, "out_edges": layout.edges, "out_report": layout.data_report}
    build_catalog({"ham10000": layout.data("ham10000")}, layout.root, DUPLICATES, **outs)


def homes() -> Homes:
    harmonization = Harmonization(
        histogram="none",
        colour="none",
        hair_removal=False,
        mask_closing=5,
        mask_min_component=0.001,
        mask_smoothing=3.0,
        soft_mask_sigma=2.0,
        reference_size=32,
        reference_from=[],
    )
    return Homes({"shared": Protocol(harmonization=harmonization)}, ["ham10000"], Splits(**SHARES))


def asked(layout: Layout, count: int = 1):
    return catalog(layout.root, ["ham10000"], DUPLICATES, count)


def relabel(path: Path) -> None:
    """The first label of the catalog is another."""
    table = read_parquet(path)
    labels = ["bcc", *table.column("label").to_pylist()[1:]]
    place = table.schema.get_field_index("label")
    path.unlink()
    write_parquet(path, table.set_column(place, table.schema.field(place), pyarrow.array(labels, pyarrow.string())))


def test_the_catalog_of_the_archives_passes_and_is_counted(layout):
    answer = asked(layout)
    assert answer.problems == []
    assert "24 images, 24 masks and 24 labels" in answer.evidence
    assert "ham10000 (0 of 3 files with the official SHA-256)" in answer.evidence
    assert asked(layout, count=0).verdict == "not checked"


def test_a_label_is_named_with_what_the_release_gives(layout):
    relabel(layout.catalog)
    assert (
        "catalog/images.parquet: ham10000/ISIC_0000001: label is 'bcc', the release gives 'mel'"
        in asked(layout).problems
    )


def test_a_mask_and_a_table_that_are_not_the_archives_are_named_where_the_catalog_was_built_of_them(layout):
    releases.save(layout.root / MASK, releases.synthetic_image(1)[:, :, 0] // 128 * 255)
    table = layout.data("ham10000") / "HAM10000_metadata.csv"
    rows = list(csv.reader(table.read_text().splitlines()))
    rows[1][2] = "bkl"
    table.write_text("\n".join(",".join(row) for row in rows) + "\n")
    build(layout)
    problems = asked(layout).problems
    assert f"{MASK}: not what the release's archive holds" in problems
    assert "data/ham10000/HAM10000_metadata.csv: not what the release's archive holds" in problems
    assert any("ISIC_0000001: label is 'bkl'" in line for line in problems)
    assert any("ISIC_0000003: mask_sha256 is" in line for line in problems)


def test_a_file_that_no_archive_holds_is_named(layout):
    releases.save(layout.data("ham10000") / "HAM10000_images_part_1" / "more.txt.png", releases.synthetic_image(99))
    assert (
        "data/ham10000/HAM10000_images_part_1/more.txt.png: in none of the release's archives" in asked(layout).problems
    )


def test_without_archives_the_unpacked_files_are_what_is_read_and_that_is_told(layout):
    shutil.rmtree(layout.downloads("ham10000"))
    answer = asked(layout)
    assert answer.problems == []
    assert "no archives are here of ham10000" in answer.evidence
    relabel(layout.catalog)
    assert any("label is 'bcc'" in line for line in asked(layout).problems)


def test_a_moved_image_is_told_by_splits_made_anew(layout):
    plan = cast("Plan", SimpleNamespace(protocols={HOME: HOME}))
    assert split_tables(layout.root, plan, homes(), 1).problems == []
    path = layout.split(HOME, "ham10000")
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace("train", "val") if "train" in lines[1] else lines[1].replace("test", "train")
    path.write_text("\n".join([*lines, ""]))
    [problem] = split_tables(layout.root, plan, homes(), 1).problems
    assert problem.startswith("protocols/shared/leak_free/splits/ham10000.csv: line 2 is ")
