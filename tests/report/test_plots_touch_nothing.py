"""Figures, gallery and page only read: every file that was there keeps its bytes, every array its values."""

from __future__ import annotations

import copy
from contextlib import contextmanager

import numpy as np
import pyarrow
import pytest
from report_store import (
    DICE,
    IMAGES,
    disc,
    make_images,
    make_plan,
    make_results,
    make_store,
    segmentation_row,
    segmentation_rows,
)
from test_report_figures import subgroup_rows

from lesion_core.files import read_parquet, sha256_file, write_csv, write_parquet
from lesion_core.paths import Layout
from lesion_core.report.checklists import write_checklists
from lesion_core.report.figures import contours, explanations, figures_of, write_figures
from lesion_core.report.figures.style import Drawn, Source, new_figure
from lesion_core.report.gallery import gallery_of
from lesion_core.report.images import MaskArchive
from lesion_core.report.ledger import write_ledger
from lesion_core.report.page import write_page
from lesion_core.report.statistics import write_statistics
from lesion_core.report.tables import write_tables

DATASETS = ("isic2018_task1", "ph2")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A results folder that every figure finds something to draw in."""
    root, plan = tmp_path_factory.mktemp("results"), make_plan()
    layout = Layout(make_results(root, plan))
    rows = segmentation_rows()
    also_ph2 = [
        segmentation_row(run, image, dice, dataset="ph2")
        for run, values in DICE.items()
        for image, dice in zip(IMAGES, values, strict=True)
    ]
    make_store(root, segmentation=rows + also_ph2)
    records = [row for row in read_parquet(layout.catalog).to_pylist() if row["dataset"] != "ph2"]
    records += [
        {**row, "dataset": "ph2", "path": row["path"].replace("isic2018_task1", "ph2")}
        for row in records
        if row["dataset"] == "isic2018_task1"
    ]
    write_parquet(layout.catalog, pyarrow.Table.from_pylist(records))
    make_images(root, DATASETS)
    (root / "explain").mkdir()
    kept = {"image": np.full((8, 8, 3), 200, np.uint8), "mask": disc(20)[20:28, 5:30] // 255}
    maps = {name: np.arange(64, dtype=np.uint8).reshape(8, 8) for name in ("grad_cam", "rollout")}
    parts = {f"ph2/x/{name}": part for name, part in (kept | maps).items()}
    np.savez(root / "explain" / "sam_adapter-s0.npz", **parts)
    pseudo = layout.pseudo_masks("sam_adapter-s0", "ham10000")
    pseudo.mkdir(parents=True)
    np.save(pseudo / "masks.npy", np.stack([disc(20)] * 4))
    write_tables(root, plan)
    write_statistics(root, plan)
    write_ledger(root, plan)
    write_csv(root / "statistics" / "subgroups.csv", list(subgroup_rows()[0]), subgroup_rows())
    return root


def snapshot(root) -> dict[str, tuple[str, int]]:
    """Every file's content and time of change."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): (sha256_file(path), path.stat().st_mtime_ns) for path in files}


def test_building_figures_gallery_and_page_leaves_every_file_as_it_was(root):
    before = snapshot(root)
    kinds = ("scores/", "runs/", "tables/", "statistics/", "ledger/", "pseudo_masks/", "data/", "catalog/", "explain/")
    assert all(any(name.startswith(kind) for name in before) for kind in kinds), "something of each kind is there"
    plan = make_plan()
    write_figures(root, plan)
    write_checklists(root, plan)
    write_page(root, plan)
    after = snapshot(root)
    assert {name: after.get(name) for name in before} == before
    new = set(after) - set(before)
    assert {name for name in new if not name.startswith(("figures/", "checklists/", "cards/"))} == {"report.html"}
    assert {f"figures/{name}.png" for name in figures_of(plan)} < new, "every figure was drawn"


@contextmanager
def guarded(source: Source):
    """All that is handed to figures is read-only, and must come out as it went in."""
    handed: list[tuple[np.ndarray, bytes]] = []
    store = copy.deepcopy(vars(source.store))

    def guard(found):
        if isinstance(found, dict):
            return {name: guard(part) for name, part in found.items()}
        if isinstance(found, list | tuple):
            return type(found)(guard(part) for part in found)
        if isinstance(found, np.ndarray):
            found.flags.writeable = False
            handed.append((found, found.tobytes()))
        return found

    def reading(function):
        return lambda *arguments: guard(function(*arguments))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskArchive, "_mask", reading(MaskArchive._mask))
        patch.setattr(contours, "small_image", reading(contours.small_image))
        patch.setattr(explanations, "_kept", reading(explanations._kept))
        yield handed
    for array, content in handed:
        assert array.tobytes() == content
    assert vars(source.store) == store, "scores were changed"


@pytest.mark.parametrize("name", figures_of(make_plan()))
def test_no_figure_writes_to_what_it_is_given(root, name):
    source = Source.read(root, make_plan())
    with guarded(source) as handed:
        figures_of(source.plan)[name](source).figure.draw_without_rendering()
    assert bool(handed) == ("_figure_" in name or name == "explanations")


def test_the_gallery_writes_to_no_mask(root):
    source = Source.read(root, make_plan())
    with guarded(source) as handed:
        gallery_of(root, source.plan, source.store)
    assert handed


def paints_the_mask(source: Source) -> Drawn:
    with MaskArchive(source.root, "sam_adapter-s0") as masks:
        masks.scored("ph2", "a")[0, 0] = True
    return Drawn(new_figure(1, 1)[0], "", "")


def rounds_the_scores(source: Source) -> Drawn:
    for rows in source.store.segmentation.values():
        rows[0]["dice"] = round(rows[0]["dice"], 0)
    return Drawn(new_figure(1, 1)[0], "", "")


@pytest.mark.parametrize(("fault", "error"), [(paints_the_mask, ValueError), (rounds_the_scores, AssertionError)])
def test_a_figure_that_writes_is_caught(root, fault, error):
    source = Source.read(root, make_plan())
    with pytest.raises(error), guarded(source):
        fault(source)
