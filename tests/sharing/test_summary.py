"""The summary for `dvc metrics`: what stands in main tables, by method and dataset."""

from __future__ import annotations

from lesion_core.files import read_json
from lesion_core.paths import Layout
from lesion_core.report.table_cells import Cell, write_cells
from lesion_core.settings import load as config
from lesion_core.sharing.summary import write_summary


def test_main_tables_alone_are_summed_up(tmp_path):
    shared = {"table": "sam_vit_table_05", "method": "unet", "dataset": "isic2018_task1"}
    cells = [
        shared | {"column": "dice", "value": 90.25},
        shared | {"column": "iou", "value": 84.6},
        shared | {"column": "dice", "table": "sam_vit_table_09", "value": 1.0},
        shared | {"column": "dice", "method": "sam_adapter", "value": None},
    ]
    write_cells([dict.fromkeys(Cell.__annotations__) | cell for cell in cells], Layout(tmp_path).cells)
    write_summary(tmp_path, config.plan(config.load("smoke")))
    assert read_json(Layout(tmp_path).summary("unet")) == {"isic2018_task1": {"dice": 90.25}}
    assert read_json(Layout(tmp_path).summary("sam_adapter")) == {}
