"""Tables: means and SDs by hand, published numbers beside ours, three formats that agree."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from report_store import classification_row, make_plan, make_store, segmentation_row, segmentation_rows

from lesion_core.errors import ScoreError
from lesion_core.files import read_csv, read_parquet
from lesion_core.report.score_store import Store
from lesion_core.report.statistics import write_statistics
from lesion_core.report.table_cells import measure_of
from lesion_core.report.tables import write_tables
from lesion_core.settings.paper import Table, TestTable


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = make_store(tmp_path_factory.mktemp("tables"))
    write_tables(root, make_plan())
    return root


def cells(root):
    return read_parquet(root / "tables" / "cells.parquet").to_pylist()


def cell(root, table, row, column):
    return next(c for c in cells(root) if (c["table"], c["row"], c["column"]) == (table, row, column))


def test_mean_and_sd_over_seeds_by_hand(written):
    # seed means: (0.7 + 0.8 + 0.9 + 0.8) / 4 = 0.8 and (0.9 + 0.8 + 0.9 + 1.0) / 4 = 0.9
    ours = cell(written, "sam_vit_table_05", "SAM-ViT (proposed)", "dice")
    assert ours["value"] == pytest.approx(85.0)
    assert ours["sd"] == pytest.approx(100 * 0.1 / 2**0.5)
    assert (ours["n_seeds"], ours["n_images"], ours["run_ids"]) == (2, 4, "sam_adapter-s0 sam_adapter-s1")


def test_one_run_has_no_sd(written):
    frozen = cell(written, "sam_vit_table_05", "SAM frozen", "dice")
    assert frozen["value"] == pytest.approx(65.0)
    assert frozen["sd"] is None


def test_missing_run_says_so(written):
    missing = cell(written, "sam_vit_table_05", "U-Net", "dice")
    assert (missing["value"], missing["status"], missing["n_seeds"]) == (None, "not run in this profile", 0)
    assert "not run in this profile" in (written / "tables" / "sam_vit_table_05.md").read_text()


def test_published_stands_beside_ours_as_printed(written):
    ours = cell(written, "sam_vit_table_05", "SAM-ViT (proposed)", "dice")
    assert (ours["published"], ours["published_text"], ours["unit"]) == (94.27, "94.27", "percent")
    assert (
        "| SAM-ViT (proposed) | **85.00 ± 7.07** | 94.27 |" in (written / "tables" / "sam_vit_table_05.md").read_text()
    )
    auc = cell(written, "sam_vit_table_08", "SAM-ViT (proposed)", "auc")
    assert (auc["published_text"], auc["unit"]) == ("0.979", "fraction")
    assert 0.0 <= auc["value"] <= 1.0
    other = cell(written, "sam_vit_table_08", "Skin-DeepNet", "accuracy")
    assert (other["published_text"], other["status"], other["method"]) == ("98.00", "published only", None)


def test_classification_accuracy_by_hand(written):
    assert cell(written, "sam_vit_table_08", "ViT without fusion", "accuracy")["value"] == pytest.approx(25.0)
    assert cell(written, "sam_vit_table_08", "SAM-ViT (proposed)", "accuracy")["value"] == pytest.approx(75.0)
    # recalls: nv 1, mel 1/2, bkl 1
    balanced = cell(written, "sam_vit_table_08", "SAM-ViT (proposed)", "balanced_accuracy")["value"]
    assert balanced == pytest.approx(100 * 2.5 / 3)


@pytest.fixture
def both_tasks():
    """A plan with one table of both tasks, of two classifiers on the masks of two segmenters."""
    rows = [
        {"label": "Frozen", "method": "vit_none", "segmenter": "sam_frozen"},
        {"label": "Adapted", "method": "vit_cross_attention", "segmenter": "sam_adapter", "proposed": True},
    ]
    table = {"task": "both", "dataset": "ham10000", "segmentation_dataset": "isic2018_task1", "rows": rows}
    own = Table.model_validate({"title": "Own", "metrics": ["dice", "accuracy"], **table})
    tests = {"own_tests": TestTable(title="Tests", of=["own"])}
    return make_plan().model_copy(update={"tables": {"own": own}, "tests": tests, "claims": {}})


def test_a_classifiers_row_has_the_dice_of_its_segmenter(tmp_path, both_tasks):
    write_tables(make_store(tmp_path), both_tasks)
    dice, accuracy = (cell(tmp_path, "own", "Adapted", metric) for metric in ("dice", "accuracy"))
    assert (dice["value"], dice["method"], dice["dataset"]) == (pytest.approx(85.0), "sam_adapter", "isic2018_task1")
    assert (accuracy["value"], accuracy["method"]) == (pytest.approx(75.0), "vit_cross_attention")
    assert read_csv(tmp_path / "tables" / "own.csv")[1]["method"] == "sam_adapter/vit_cross_attention"


def test_a_classifiers_row_is_tested_by_its_segmenters_dice(tmp_path, both_tasks):
    write_statistics(make_store(tmp_path), both_tasks)
    found = {(t["metric"], t["proposed"], t["other"]) for t in read_csv(tmp_path / "statistics" / "tests.csv")}
    assert found == {("dice", "sam_adapter", "sam_frozen"), ("accuracy", "vit_cross_attention", "vit_none")}


def test_a_table_that_the_plan_has_no_more_goes(tmp_path):
    plan = make_plan()
    root = make_store(tmp_path)
    write_tables(root, plan)
    for name in ("sam_vit_table_15.csv", "sam_vit_table_15.md", "sam_vit_table_15.tex", "notes.md"):
        (root / "tables" / name).write_text("another's")
    before = {path.name for path in (root / "tables").iterdir()}
    fewer = {name: table for name, table in plan.tables.items() if name != "sam_vit_table_05"}
    write_tables(root, plan.model_copy(update={"tables": fewer}))
    gone = before - {path.name for path in (root / "tables").iterdir()}
    assert gone == {"sam_vit_table_05.csv", "sam_vit_table_05.md", "sam_vit_table_05.tex"}


def test_best_is_marked_among_like_rows_only(written):
    assert cell(written, "sam_vit_table_05", "SAM-ViT (proposed)", "dice")["best"]
    assert not cell(written, "sam_vit_table_05", "SAM frozen", "dice")["best"]
    # 99 % with a box from the truth beats nobody
    assert cell(written, "sam_vit_table_05", "SAM, oracle box", "dice")["value"] == pytest.approx(99.0)
    assert not cell(written, "sam_vit_table_05", "SAM, oracle box", "dice")["best"]
    assert cell(written, "sam_vit_table_08", "Skin-DeepNet", "accuracy")["best_published"]
    assert "Oracle prompts are made from the true mask." in (written / "tables" / "sam_vit_table_05.md").read_text()


@pytest.mark.parametrize(("learnt", "best"), [(["isic2018_task1"], 1), ([], 1), (["isic2017"], 0)])
def test_best_is_marked_between_rows_of_one_training_set_alone(tmp_path, learnt, best):
    plan = make_plan(runs={"unet": ["unet-s0"]})
    rows = [segmentation_row("unet-s0", "a", 0.4), segmentation_row("sam_adapter-s0", "a", 0.8)]
    trained_on = {"unet": {"segmentation": learnt}, "sam_adapter": {"segmentation": ["isic2018_task1"]}}
    write_tables(make_store(tmp_path, segmentation=rows), plan.model_copy(update={"trained_on": trained_on}))
    own = [c for c in cells(tmp_path) if c["table"] == "sam_vit_table_05" and c["column"] == "dice"]
    assert sum(c["best"] for c in own) == best


def test_literature_table_is_published_only(written):
    text = (written / "tables" / "sam_vit_table_01.md").read_text()
    assert text.startswith("**Literature**")
    assert "ours" not in text.splitlines()[2]
    assert "no row of this table is run here" in text


def test_csv_markdown_and_tex_agree(written):
    rows = read_csv(written / "tables" / "sam_vit_table_05.csv")
    md = [
        [part.strip().strip("*") for part in line.strip("|").split("|")]
        for line in (written / "tables" / "sam_vit_table_05.md").read_text().splitlines()
        if line.startswith("| ")
    ][1:]
    body = (written / "tables" / "sam_vit_table_05.tex").read_text().split(r"\midrule")[1].split(r"\bottomrule")[0]
    assert [row["row"] for row in rows] == [row[0] for row in md]
    for row, line, latex in zip(rows, md, body.strip().splitlines(), strict=True):
        latex_cells = [
            part.strip().removeprefix(r"\textbf{").rstrip("}") for part in latex.removesuffix(r" \\").split("&")
        ]
        assert [part.replace(r"$\pm$", "±") for part in latex_cells] == line
        if row["dice"]:
            assert line[1].split(" ± ")[0] == f"{float(row['dice']):.2f}"
            assert row["status"] == "ours"
        else:
            assert line[1] == row["status"] == "not run in this profile"
        assert line[2] == row["dice_published"]


def test_same_scores_give_the_same_bytes(written, tmp_path):
    again = make_store(tmp_path)
    write_tables(again, make_plan())
    first = {path.name: path.read_bytes() for path in sorted((written / "tables").iterdir())}
    assert {path.name: path.read_bytes() for path in sorted((again / "tables").iterdir())} == first


def test_any_cell_can_be_computed_again_from_the_store(written):
    store = Store.read(written)
    for found in cells(written):
        if found["value"] is None:
            continue
        value = store.measure(found["run_ids"].split(), measure_of(found))
        assert found["value"] == (100 if found["unit"] == "percent" else 1) * value.mean


def test_seeds_on_different_images_are_refused(tmp_path):
    rows = [row for row in segmentation_rows() if not (row["run_id"] == "sam_adapter-s1" and row["image_id"] == "d")]
    make_store(tmp_path, segmentation=rows)
    with pytest.raises(ScoreError, match="other images") as error:
        write_tables(tmp_path, make_plan())
    assert error.value.ids == ("d",)


def test_an_undefined_auc_is_not_a_number_in_a_table(tmp_path):
    rows = [classification_row("vit_none-s0", image, "nv", "nv") for image in ("a", "b")]
    make_store(tmp_path, classification=rows)
    write_tables(tmp_path, make_plan())
    auc = cell(tmp_path, "sam_vit_table_08", "ViT without fusion", "auc")
    assert (auc["value"], auc["status"]) == (None, "not defined")


def test_only_the_asked_prompt_and_size_count(tmp_path):
    rows = segmentation_rows() + [
        segmentation_row("sam_adapter-s0", image, 0.0, prompt="automatic") for image in ("a", "b", "c", "d")
    ]
    make_store(tmp_path, segmentation=rows)
    write_tables(tmp_path, make_plan())
    assert cell(tmp_path, "sam_vit_table_05", "SAM-ViT (proposed)", "dice")["value"] == pytest.approx(85.0)


def test_missing_store_is_a_typed_error(tmp_path):
    with pytest.raises(ScoreError, match="cannot be read"):
        write_tables(tmp_path, make_plan())


def test_csv_is_readable_by_any_reader(written):
    with open(written / "tables" / "sam_vit_table_08.csv", encoding="utf-8", newline="") as handle:
        rows = list(csv.reader(handle))
    assert len({len(row) for row in rows}) == 1


def test_the_spread_of_dice_is_ours_where_a_paper_prints_it(tmp_path):
    plan = make_plan()
    table = plan.tables["sam_vit_table_05"]
    rows = [row.model_copy(update={"published": {"dice_sd": "3.1"}}) for row in table.rows]
    spread = table.model_copy(update={"rows": rows})
    write_tables(make_store(tmp_path), plan.model_copy(update={"tables": {"t": spread}}))
    found = cell(tmp_path, "t", "SAM frozen", "dice_sd")["value"]
    assert found == pytest.approx(100 * np.std([0.5, 0.6, 0.7, 0.8], ddof=1))
