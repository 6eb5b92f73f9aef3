"""Figures: drawn from the store, the same bytes twice, images chosen by rule, the truth unpainted."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from report_store import classification_row, disc, make_images, make_plan, make_results, make_store, make_surroundings

from lesion_core.errors import ScoreError
from lesion_core.files import write_csv
from lesion_core.report.figures import figures_of, write_figures
from lesion_core.report.figures.agreement import areas
from lesion_core.report.figures.classification import reliability
from lesion_core.report.figures.contours import choose
from lesion_core.report.figures.explanations import explanations
from lesion_core.report.figures.style import Source
from lesion_core.report.figures.subgroups import subgroups
from lesion_core.report.images import MaskArchive
from lesion_core.report.score_store import Store
from lesion_core.report.statistics import write_statistics


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder, plan = tmp_path_factory.mktemp("figures"), make_plan()
    make_results(folder, plan)
    make_images(folder)
    write_statistics(folder, plan)
    write_figures(folder, plan)
    return folder


def listed(root):
    return json.loads((root / "figures" / "figures.json").read_text())


def test_every_figure_with_scores_is_drawn_as_pdf_and_png(root):
    names = [item["name"] for item in listed(root)]
    assert names == [
        name for name in figures_of(make_plan()) if name not in ("sam_vit_figure_09", "subgroups", "explanations")
    ]
    for item in listed(root):
        assert item["title"]
        assert item["caption"]
        assert (root / "figures" / f"{item['name']}.pdf").read_bytes().startswith(b"%PDF")
        picture = cv2.imread(str(root / "figures" / f"{item['name']}.png"))
        assert min(picture.shape[:2]) > 200
        assert picture.std() > 5


def test_same_scores_give_the_same_bytes(root):
    stems = ("sam_vit_figure_08", "effects", "figures")
    paths = [path for path in sorted((root / "figures").iterdir()) if path.stem in stems]
    before = {path: path.read_bytes() for path in paths}
    write_figures(root, make_plan())
    assert {path: path.read_bytes() for path in paths} == before


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
    predicted, true = areas(rows)
    assert predicted.tolist() == [15.0, 0.0]
    assert true.tolist() == [25.0, 25.0]


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


def test_subgroups_are_drawn_where_the_profile_has_them(root, tmp_path, capsys):
    source = Source.read(root, make_plan())
    assert subgroups(source) is None
    moved = Source(tmp_path, source.plan, source.store)
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


def test_explanations_are_drawn_where_the_profile_has_them(root, tmp_path):
    source = Source.read(root, make_plan())
    assert explanations(source) is None
    (tmp_path / "explain").mkdir()
    flat = np.full((8, 8), 100, np.uint8)
    kept = {"image": np.full((8, 8, 3), 200, np.uint8), "mask": disc(20)[20:28, 20:28] // 255, "grad_cam": flat}
    np.savez(tmp_path / "explain" / "sam_adapter-s1.npz", **{f"ph2/x/{name}": part for name, part in kept.items()})
    drawn = explanations(Source(tmp_path, source.plan, source.store))
    texts = [text.get_text() for axis in drawn.figure.axes for text in axis.texts]
    assert "SAM-Adapter\nPH2\nx" in texts
    assert "a CNN has\nno attention" in texts
