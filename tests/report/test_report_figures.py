"""Figures: drawn from the store, the same bytes twice, images chosen by rule, the truth unpainted, nothing touched."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow
import pytest
from report_store import (
    DICE,
    IMAGES,
    classification_row,
    disc,
    make_images,
    make_plan,
    make_results,
    make_store,
    make_surroundings,
    segmentation_row,
    segmentation_rows,
)

from lesion_core.errors import ScoreError
from lesion_core.files import read_parquet, sha256_file, write_csv, write_parquet
from lesion_core.paths import Layout
from lesion_core.report.figures import contours, explanations, figures_of, write_figures
from lesion_core.report.figures.agreement import areas
from lesion_core.report.figures.classification import reliability
from lesion_core.report.figures.contours import choose
from lesion_core.report.figures.style import Source
from lesion_core.report.figures.subgroups import subgroups
from lesion_core.report.gallery import gallery_of
from lesion_core.report.images import MaskArchive
from lesion_core.report.ledger import write_ledger
from lesion_core.report.score_store import Store
from lesion_core.report.statistics import write_statistics
from lesion_core.report.tables import write_tables


def subgroup_rows():
    names = (("sex", "female"), ("sex", "male"), ("sex", "unknown"), ("age", "under 50"))
    return [
        {
            "method": method, "dataset": "ham10000", "metric": "accuracy", "attribute": attribute, "group": group,
            "n": 10, "lesions": 9, "value": 0.5, "low": 0.4, "high": 0.6, "gap": "", "flagged": "", "note": "",
        }
        for method in ("vit_none", "vit_cross_attention")
        for attribute, group in names
    ]  # fmt: skip


DATASETS = ("isic2018_task1", "ph2")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A results folder that every figure finds something to draw in, drawn; its files and scores before."""
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
    before = snapshot(root)
    source = Source.read(root, plan)
    scores = scores_of(source.store)
    with read_only():
        write_figures(root, plan)
        gallery_of(root, plan, source.store)
    return root, before, source, scores


def snapshot(root) -> dict[str, tuple[str, int]]:
    """Every file's content and time of change."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): (sha256_file(path), path.stat().st_mtime_ns) for path in files}


def scores_of(store) -> dict[tuple, str]:
    return {key: rows.to_csv() for key, rows in (store.segmentation | store.classification).items()}


@contextmanager
def read_only():
    """Masks, images and maps that figures are handed refuse to be written to."""

    def guard(found):
        if isinstance(found, dict):
            return {name: guard(part) for name, part in found.items()}
        if isinstance(found, list | tuple):
            return type(found)(guard(part) for part in found)
        if isinstance(found, np.ndarray):
            found.flags.writeable = False
        return found

    def guarded(function):
        return lambda *given: guard(function(*given))

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((MaskArchive, "_mask"), (contours, "small_image"), (explanations, "_kept")):
            patch.setattr(owner, name, guarded(getattr(owner, name)))
        yield


@pytest.fixture(scope="module")
def root(drawn):
    return drawn[0]


def test_images_of_contours_are_drawn_at_their_native_size_up_to_a_bound(drawn, monkeypatch, tmp_path):
    _, _, source, _ = drawn
    monkeypatch.setattr(contours, "small_image", lambda path, side: np.zeros((side // 2, side, 3), np.uint8))
    figure = contours.contours(source, source.plan.figures["sam_vit_figure_08"])
    figure.save(tmp_path, "large")
    columns = len(figure.figure.axes) // len(contours.CHOSEN)
    assert cv2.imread(str(tmp_path / "large.png")).shape[1] >= columns * contours.MOST_PIXELS > 150 * contours.WIDTH
    assert f"up to {contours.MOST_PIXELS} pixels" in figure.caption


def test_figures_and_gallery_leave_files_and_scores_as_they_were(drawn):
    root, before, source, scores = drawn
    kinds = ("scores/", "runs/", "tables/", "statistics/", "ledger/", "pseudo_masks/", "data/", "catalog/", "explain/")
    assert all(any(name.startswith(kind) for name in before) for kind in kinds), "something of each kind is there"
    after = snapshot(root)
    assert {name: after.get(name) for name in before} == before
    assert all(name.startswith("figures/") for name in set(after) - set(before))
    assert scores_of(source.store) == scores
    with read_only(), MaskArchive(root, "sam_adapter-s0") as masks, pytest.raises(ValueError, match="read-only"):
        masks.scored("ph2", "a")[0, 0] = True


def listed(root):
    return json.loads((root / "figures" / "figures.json").read_text())


def test_every_figure_with_scores_is_drawn_as_pdf_and_png(root):
    names = [item["name"] for item in listed(root)]
    assert names == list(figures_of(make_plan()))
    for item in listed(root):
        assert item["title"]
        assert item["caption"]
        assert (root / "figures" / f"{item['name']}.pdf").read_bytes().startswith(b"%PDF")
        picture = cv2.imread(str(root / "figures" / f"{item['name']}.png"))
        assert min(picture.shape[:2]) > 200
        assert picture.std() > 5


def test_same_scores_give_the_same_bytes(drawn, tmp_path):
    root, _, source, _ = drawn
    for name in ("sam_vit_figure_08", "effects"):
        figures_of(source.plan)[name](source).save(tmp_path, name)
    made = list(tmp_path.iterdir())
    assert len(made) == 4
    assert all(path.read_bytes() == (root / "figures" / path.name).read_bytes() for path in made)


def test_the_truth_is_what_scoring_stored(root):
    with MaskArchive(root, "sam_adapter-s1") as masks:
        assert np.array_equal(masks.true("isic2018_task1", "a"), disc(20) > 0)
        assert np.array_equal(masks.scored("isic2018_task1", "b"), disc(16) > 0)
        with pytest.raises(ScoreError, match="score the run again"):
            masks.true("isic2018_task1", "zz")
    with pytest.raises(ScoreError, match="no stored masks"):
        MaskArchive(root, "unet-s0")


def test_images_are_chosen_by_rule():
    scores = {"e": 0.5, "d": 0.4, "c": 0.3, "b": 0.2, "a": 0.1}
    assert [image for _, image in choose(scores)] == ["e", "d", "c", "b", "a"]
    assert [image for _, image in choose({"b": 0.5, "a": 0.5})] == ["b", "b", "a", "a", "a"]


def test_only_methods_of_the_papers_comparison_are_drawn(root):
    plan = make_plan(runs={"ablation": ["sam_adapter-s1"]})
    assert set(Source.read(root, plan).segmenters("isic2018_task1")) == {"sam_frozen", "sam_adapter"}


def test_an_empty_store_draws_nothing(tmp_path):
    make_store(tmp_path, segmentation=[], classification=[])
    write_figures(tmp_path, make_plan())
    assert listed(tmp_path) == []


def test_histories_without_epochs_are_left_out(tmp_path):
    plan = make_plan()
    make_store(tmp_path, segmentation=[], classification=[])
    make_surroundings(tmp_path, plan)
    for path in tmp_path.glob("runs/*/*/history.csv"):
        path.write_text("c,val_balanced_accuracy\n0.1,0.5\n")
    write_figures(tmp_path, plan)
    assert listed(tmp_path) == []


def test_areas_come_from_pixel_counts():
    rows = [{"tp": 10, "fp": 5, "fn": 15, "tn": 70}, {"tp": 0, "fp": 0, "fn": 1, "tn": 3}]
    predicted, true = areas(pd.DataFrame(rows))
    assert predicted.tolist() == [15.0, 0.0]
    assert true.tolist() == [25.0, 25.0]


def test_subgroups_are_drawn_where_the_profile_has_them(tmp_path, capsys):
    moved = Source(tmp_path, make_plan(), Store())
    assert subgroups(moved) is None
    rows = subgroup_rows()
    write_csv(tmp_path / "statistics" / "subgroups.csv", list(rows[0]), rows)
    drawn = subgroups(moved)
    assert [axis.get_title(loc="left") for axis in drawn.figure.axes] == ["sex", "age"]
    labels = [label.get_text() for label in drawn.figure.axes[0].get_yticklabels()]
    assert labels == ["female (n = 10)", "male (n = 10)", "unknown (n = 10)"]
    legend = [text.get_text() for text in drawn.figure.legends[0].get_texts()]
    assert legend == ["ViT, no fusion", "ViT, cross-attention"]
    other = [{"group": row["group"], "value": row["value"]} for row in rows]
    write_csv(tmp_path / "statistics" / "subgroups.csv", ["group", "value"], other)
    assert subgroups(moved) is None
    assert "lacks attribute" in capsys.readouterr().err


def test_reliability_shows_both_sides_of_the_temperature():
    """Seven of ten answers are right, at a confidence of 0.7 as given, and of sqrt(0.7) over all roots at T = 2."""
    rows = [
        classification_row("vit_none-s0", f"{number}", "nv" if number < 7 else "mel", "nv", temperature=2.0)
        for number in range(10)
    ]
    store = Store.of([], rows)
    figure = reliability(Source(Path("nowhere"), make_plan(), store)).figure
    given, scaled = ([line.get_xydata() for line in axis.lines if len(line.get_xdata()) == 1] for axis in figure.axes)
    roots = 0.7**0.5 / (0.7**0.5 + 6 * 0.05**0.5)
    assert np.concatenate(given) == pytest.approx(np.array([[0.7, 0.7]]))
    assert np.concatenate(scaled) == pytest.approx(np.array([[roots, 0.7]]))
    [label] = [text.get_text() for text in figure.legends[0].get_texts()]
    assert label.endswith(f"(0.000, {0.7 - roots:.3f})")


def test_explanations_are_drawn_where_the_profile_has_them(tmp_path):
    source = Source(tmp_path, make_plan(), Store())
    assert explanations.explanations(source) is None
    (tmp_path / "explain").mkdir()
    flat = np.full((8, 8), 100, np.uint8)
    kept = {"image": np.full((8, 8, 3), 200, np.uint8), "mask": disc(20)[20:28, 20:28] // 255, "grad_cam": flat}
    np.savez(tmp_path / "explain" / "sam_adapter-s1.npz", **{f"ph2/x/{name}": part for name, part in kept.items()})
    drawn = explanations.explanations(source)
    texts = [text.get_text() for axis in drawn.figure.axes for text in axis.texts]
    assert "SAM-Adapter\nPH2\nx" in texts
    assert "a CNN has\nno attention" in texts
