"""CONTRIBUTING.md's examples are run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from report_store import make_plan, make_results

from lesion_core.acquire import readers
from lesion_core.acquire.registry import _release
from lesion_core.errors import CatalogError
from lesion_core.report import extra_tables
from lesion_core.report.score_store import Store
from lesion_core.report.table_cells import Cells

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(title: str, language: str = "python") -> str:
    section = TEXT.split(f"### {title}\n")[1].split("\n### ")[0]
    return re.search(rf"```{language}\n(.*?)```", section, re.DOTALL).group(1)


def test_the_dataset_is_read_and_a_broken_one_refused(tmp_path, monkeypatch):
    names: dict[str, Any] = {}
    exec(example("A dataset"), names)
    monkeypatch.setitem(readers.READERS, "derm2030", names["read"])
    for name, image in (("images/a.png", 90), ("images/b.png", 90), ("masks/a_mask.png", 255)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.full((8, 8, 3), image, np.uint8))
    (tmp_path / "labels.csv").write_text("image,lesion,dx\na,l1,nv\nb,l1,mel\n")
    rows = readers.read_dataset("derm2030", tmp_path)
    assert [(row.image_id, row.lesion_id, row.label, row.mask_path is None) for row in rows] == [
        ("a", "l1", "nv", False),
        ("b", "l1", "mel", True),
    ]
    (tmp_path / "images" / "b.png").unlink()
    with pytest.raises(CatalogError, match="rows without an image"):
        readers.read_dataset("derm2030", tmp_path)


def test_the_datasets_addresses_are_read():
    [(name, entry)] = yaml.safe_load(example("A dataset", "yaml")).items()
    [file] = _release(name, entry).files
    assert file.addresses == ("https://example.org/derm2030/derm2030.zip",)


def test_the_segmenter_learns_and_is_restored():
    names: dict[str, Any] = {}
    exec(example("A segmenter"), names)
    torch.manual_seed(0)
    segmenter, other = names["TinyNet"](4), names["TinyNet"](4)
    images = torch.rand(2, 3, 32, 32) * 255
    logits = segmenter(images)
    assert logits.shape == (2, 1, 32, 32)
    logits.mean().backward()
    assert all(parameter.grad is not None for _, parameter in segmenter.trainable_parameters())
    other.load_trainable_state(segmenter.trainable_state())
    assert torch.equal(other(images), logits)


def test_the_table_has_cells(tmp_path, monkeypatch):
    monkeypatch.setattr(extra_tables, "EXTRA_TABLES", dict(extra_tables.EXTRA_TABLES))
    names = dict(vars(extra_tables))
    exec(example("A table"), names)
    table = names["EXTRA_TABLES"]["sensitivity"]
    plan = make_plan()
    cells = table.cells(Cells("sensitivity", Store.read(make_results(tmp_path, plan)), plan))
    assert {cell["column"] for cell in cells} == {"sensitivity"}
    assert any(cell["value"] is not None for cell in cells)
