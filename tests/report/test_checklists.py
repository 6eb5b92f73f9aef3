"""Reviewers' sheets: flows and counts by hand, failures by rule, every link leads to a file."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest
from material import HOME
from report_store import classification_row, make_plan, make_results, segmentation_row

from lesion_core.files import read_csv, read_json, read_parquet, write_json, write_parquet
from lesion_core.paths import Layout
from lesion_core.report.checklists import write_checklists
from lesion_core.report.ledger import write_ledger
from lesion_core.report.score_store import Store
from lesion_core.report.statistics import write_statistics
from lesion_core.report.study import demographics_of, failures_of, flow_of
from lesion_core.report.tables import write_tables

FILLED = (7, 9, 10, 13, 19, 20, 21, 22, 28, 29, 30, 33, 34, 36, 37, 41)


@pytest.fixture
def layout(tmp_path):
    """Four HAM10000 images (a and b of one lesion, c and d alone), of which one of six was set aside."""
    make_results(tmp_path)
    layout = Layout(tmp_path)
    rows = read_parquet(layout.catalog).to_pylist()
    more = {"a": ("g", 40.0, "male"), "b": ("g", 50.0, "female"), "c": ("c", None, None), "d": ("d", 60.0, "male")}
    for row in rows:
        group, age, sex = more[row["image_id"]]
        own = group if row["dataset"] == "ham10000" else f"{row['dataset']}:{row['image_id']}"
        row |= {"group_id": own, "age": age, "sex": sex, "site": "back", "dx_type": "histo"}
    write_parquet(layout.catalog, pa.Table.from_pylist(rows))
    lines = ["image_id,group_id,split", "a,g,train", "b,g,train", "c,c,val", "d,d,test", ""]
    layout.split(HOME, "ham10000").write_text("\n".join(lines), encoding="utf-8")
    write_json(layout.figure_list, [])
    return layout


def test_flow_counts_what_was_found_set_aside_joined_split_and_scored(layout):
    flow = {row["dataset"]: row for row in flow_of(layout, Store.read(layout.root), HOME)}
    assert list(flow["ham10000"].values()) == ["ham10000", 5, 1, 4, 2, 2, 1, 1, 4]
    assert list(flow["isic2018_task1"].values()) == ["isic2018_task1", 4, 0, 4, 0, 0, 0, 4, 4]


def test_a_repaired_image_is_not_set_aside(layout):
    report = read_json(layout.data_report)
    problem = {"dataset": "ham10000", "image_id": "a", "kind": "mask", "detail": "resized"}
    write_json(layout.data_report, report | {"problems": [problem]})
    [row] = [row for row in flow_of(layout, Store.read(layout.root), HOME) if row["dataset"] == "ham10000"]
    assert (row["found"], row["set_aside"]) == (4, 0)


def test_age_sex_site_and_class_per_split(layout):
    told = [tuple(map(str, row.values())) for row in demographics_of(layout, HOME)]
    assert ("ham10000", "train", "2", "age", "45.0 (SD 5.0)", "2", "100.0") in told
    assert ("ham10000", "train", "2", "sex", "female", "1", "50.0") in told
    assert ("ham10000", "train", "2", "class", "mel", "1", "50.0") in told
    # the other release's image of that id has no age and sex either
    assert ("ham10000", "val", "1", "age", "unknown", "0", "0.0") in told
    assert ("ham10000", "val", "1", "sex", "unknown", "1", "100.0") in told


def test_failures_are_chosen_by_rule():
    dice = {"a": 0.9, "b": 0.2, "c": 0.5, "d": 0.2, "e": 0.6}
    run = "vit_none-s0"
    answers = [
        classification_row(run, "a", "mel", "nv", p_nv=0.6),
        classification_row(run, "b", "mel", "bkl", p_bkl=0.9),
        classification_row(run, "c", "mel", "mel"),
        classification_row(run, "d", "nv", "mel", p_mel=0.99),
    ]
    store = Store.of([segmentation_row("sam_frozen-s0", name, value) for name, value in dice.items()], answers)
    found = [(row["rule"], row["image_id"], row["answer"]) for row in failures_of(store, make_plan())]
    assert found == [
        *(("lowest Dice", name, "") for name in "bdc"),
        *(("melanoma missed", name, answer) for name, answer in (("b", "bkl"), ("a", "nv"))),
    ]


def test_sheets_are_filled_where_results_can_and_name_the_authors_elsewhere(layout):
    plan = make_plan()
    for write in (write_tables, write_statistics, write_ledger, write_checklists):
        write(layout.root, plan)
    lines = layout.checklist("claim", "md").read_text(encoding="utf-8").splitlines()
    items = {int(found[1]): line for line in lines if (found := re.match(r"\| (\d+) \|", line))}
    assert list(items) == list(range(1, 43))
    updated = [
        number
        for line in lines
        if (found := re.match(r"\| (?:\d+|new) \| ([\d, ]+) \|", line))
        for number in found[1].split(", ")
    ]
    assert sorted(map(int, updated)) == list(range(1, 45)), "each item of the update once"
    assert tuple(number for number, line in items.items() if "authors write" not in line) == FILLED
    assert all("](" in items[number] for number in FILLED if number != 21)
    assert {row["dataset"] for row in read_csv(layout.checklist("flow", "csv"))} == {"ham10000", "isic2018_task1"}
    for run_id in plan.run_ids:
        assert layout.run_card(run_id).read_text(encoding="utf-8").startswith(f"# Model card: {run_id}\n")
    card = layout.dataset_card("ham10000").read_text(encoding="utf-8")
    assert "| 5 | 1 | 4 | 2 | 2 | 1 | 1 | 4 |" in card
