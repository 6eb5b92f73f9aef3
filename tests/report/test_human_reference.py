"""People against people, models against people: a table by hand, and the share beside each published Dice."""

from __future__ import annotations

import pytest
from report_store import make_plan, make_store, segmentation_row

from lesion_core.acquire.readers.imaplusplus import Agreement
from lesion_core.catalog.human_reference import Reference, write_reference
from lesion_core.files import read_csv, read_parquet
from lesion_core.paths import Layout
from lesion_core.report.ledger import write_ledger
from lesion_core.report.tables import write_tables

PEOPLE = [
    Reference(Agreement.of("a", [(0.8, 0.7)]), ("2018 train",)),
    Reference(Agreement.of("b", [(0.95, 0.9), (0.95, 0.9), (0.95, 0.9)]), ("2018 train",)),
    Reference(Agreement.of("z", [(0.5, 0.3)]), ("2018 test",)),
]
MODEL = {"sam_adapter-s0": (0.7, 0.9, 0.9, 0.7), "sam_adapter-s1": (0.9, 0.9, 0.7, 0.7)}  # of images a, b, c, d


def written(tmp_path, people):
    rows = [
        segmentation_row(run, image, dice)
        for run, own in MODEL.items()
        for image, dice in zip("abcd", own, strict=True)
    ]
    root = make_store(tmp_path, segmentation=rows)
    write_reference(people, Layout(root).human_reference)
    plan = make_plan()
    write_tables(root, plan)
    write_ledger(root, plan)
    cells = read_parquet(Layout(root).cells).to_pylist()
    texts = {
        (cell["row"], cell["column"]): cell["published_text"] for cell in cells if cell["table"] == "human_reference"
    }
    return root, cells, texts


def test_people_and_models_side_by_side(tmp_path):
    root, cells, texts = written(tmp_path, PEOPLE)
    every = "People, all of IMA++"
    assert [texts[every, name] for name in ("people_images", "people_pairs", "people_dice")] == ["3", "5", "75.0"]
    assert (texts[every, "people_median"], texts[every, "people_pair_dice"]) == ("80.0", "83.0")
    assert texts["People, ISIC 2018 test", "people_dice"] == "50.0"
    (ours,) = (
        cell
        for cell in cells
        if (cell["table"], cell["column"], cell["method"]) == ("human_reference", "dice", "sam_adapter")
    )
    # all four test images; two of them were drawn on by several people: (0.7 + 0.9) / 2 and (0.9 + 0.9) / 2
    assert (ours["value"], ours["n_images"], ours["n_seeds"]) == (pytest.approx(80.0), 4, 2)
    label = ours["row"]
    assert [texts[label, name] for name in ("people_images", "people_dice", "dice_there")] == ["2", "87.5", "85.0"]
    text = (root / "tables" / "human_reference.md").read_text()
    assert "not a ceiling" in text
    assert f"| {every} | 3 | 5 |" in text


def test_the_ledger_says_on_how_many_images_people_agree_so_well(tmp_path):
    root, *_ = written(tmp_path, PEOPLE)
    rows = {(row["table"], row["row"], row["metric"]): row for row in read_csv(Layout(root).ledger)}
    found = rows["sam_vit_table_05", "SAM-ViT (proposed)", "dice"]
    assert (found["published"], found["people_share"], found["people_n"]) == ("94.27", "33.3", "3")
    assert rows["sam_vit_table_05", "SAM-ViT (proposed)", "iou"]["people_share"] == ""
    assert rows["sam_vit_table_01", "EGAN", "dice"]["people_share"] == ""  # a bound is no number


def test_without_tables_it_says_so(tmp_path):
    root, _, texts = written(tmp_path, [])
    assert len(texts) == 1
    text = (root / "tables" / "human_reference.md").read_text()
    assert "IMA++'s tables are not here" in text
    assert {row["people_share"] for row in read_csv(Layout(root).ledger)} == {""}
