"""Official test sets beside the own split: hand-worked, under the challenge's goal metric."""

from __future__ import annotations

import pytest
from report_store import make_plan, segmentation_row

from lesion_core.report.official_test import NONE, official_test_cells
from lesion_core.report.score_store import Store
from lesion_core.report.table_cells import Cells


def test_the_same_runs_stand_on_both_sides():
    rows = [segmentation_row("sam_adapter-s0", name, dice) for name, dice in (("a", 0.9), ("b", 0.7))]
    rows += [segmentation_row("sam_adapter-s0", "c", 0.6, dataset="isic2018_task1_test")]
    cells = {
        (cell["row"], cell["column"]): cell["value"]
        for cell in official_test_cells(Cells("official_test", Store.of(rows, []), make_plan()))
    }
    row = "SAM-Adapter, ISIC 2018 Task 1 test, Dice (%)"
    assert cells[row, "own"] == pytest.approx(80)
    assert cells[row, "official"] == pytest.approx(60)
    assert len(cells) == 4
    [empty] = official_test_cells(Cells("official_test", Store.of(rows[:2], []), make_plan()))
    assert empty["row"] == NONE
