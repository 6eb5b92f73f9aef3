"""The audit of pseudo-masks: Dice and IoU by hand, groups, intervals over lesions, refusals; no torch."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pyarrow
import pytest
from material import HOME

from lesion_core.errors import MaskError
from lesion_core.files import read_csv, write_csv, write_parquet
from lesion_core.inference.pseudo_mask_audit import audit_pseudo_masks, summarise
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import INDEX_COLUMNS
from lesion_core.settings import load as config

RUN, SIZE = "sam_adapter-s0-00000000", 16
OF = SimpleNamespace(run_id=RUN, pixels=HOME, segmentation=SimpleNamespace(model=SimpleNamespace(image_size=SIZE)))
STATISTICS = config.load("smoke").statistics.model_copy(update={"resamples": 200})
# (label, site, split, columns of the pseudo-mask that are lesion; the truth is columns 0..7)
IMAGES = (("mel", "back", "test", 8), ("nv", "back", "train", 4), ("nv", "", "val", 16), ("nv", "face", "test", 0))


@pytest.fixture
def layout(tmp_path):
    layout = Layout(tmp_path)
    index, lines, catalog, masks = [], [], [], []
    for number, (label, site, split, width) in enumerate(IMAGES):
        name = f"im{number}"
        index.append(
            dict.fromkeys(INDEX_COLUMNS, "")
            | {"row": number, "image_id": name, "lesion_id": f"le{number // 2}", "split": split, "label": label}
            | {"site": site, "width": 32, "height": 32, "mask_row": -1}
        )
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[:, :width] = 255
        masks.append(mask)
        lines.append({"image_id": name, "components": 1, "confidence": 0.9, "flags": "full" if width == 16 else ""})
        truth = np.zeros((32, 32), np.uint8)
        truth[:, :16] = 255
        cv2.imwrite(str(tmp_path / f"{name}.png"), truth)
        catalog.append({"dataset": "ham10000", "image_id": name, "mask_path": f"{name}.png"})
    write_csv(layout.pixels(HOME, "ham10000", SIZE) / "index.csv", INDEX_COLUMNS, index)
    home = layout.pseudo_masks(RUN, "ham10000")
    write_csv(home / "masks.csv", list(lines[0]), lines)
    np.save(home / "masks.npy", np.stack(masks))
    write_parquet(layout.catalog, pyarrow.Table.from_pylist(catalog))
    return layout


def test_by_hand(layout):
    audit_pseudo_masks(OF, "ham10000", layout.root, STATISTICS)
    home = layout.pseudo_masks(RUN, "ham10000")
    rows = read_csv(home / "audit.csv")
    assert [float(row["dice"]) for row in rows] == pytest.approx([1, 2 / 3, 2 / 3, 0], abs=1e-6)
    assert [float(row["iou"]) for row in rows] == pytest.approx([1, 1 / 2, 1 / 2, 0], abs=1e-6)
    summary = {(row["split"], row["attribute"], row["group"]): row for row in read_csv(home / "audit_summary.csv")}
    nevi = summary["all", "label", "nv"]
    assert (nevi["n"], nevi["lesions"], nevi["flagged"]) == ("3", "2", "1")
    assert float(nevi["dice"]) == pytest.approx(4 / 9, abs=1e-6)
    assert float(nevi["dice_low"]) <= float(nevi["dice"]) <= float(nevi["dice_high"])
    assert "few" in nevi["notes"]
    assert summary["all", "site", "unknown"]["n"] == "1"
    assert summary["test", "all", "all"]["n"] == "2"
    melanoma = summary["all", "label", "mel"]
    assert melanoma["dice_low"] == ""
    assert "cannot be resampled" in melanoma["notes"]


def test_lesions_and_not_images_are_resampled():
    rng = np.random.default_rng(3)
    rows = []
    for lesion in range(30):
        level = rng.uniform(0.3, 1.0)
        for image in range(4):
            value = {"dice": level, "iou": level / 2, "flags": "", "label": "nv", "site": ""}
            rows.append({**value, "image_id": f"{lesion}-{image}", "lesion_id": str(lesion)})
    clustered = summarise(rows, "all", STATISTICS)[0]
    alone = summarise([{**row, "lesion_id": ""} for row in rows], "all", STATISTICS)[0]
    widths = [float(line["dice_high"]) - float(line["dice_low"]) for line in (clustered, alone)]
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.25)


def test_what_cannot_be_audited_is_refused(layout):
    home = layout.pseudo_masks(RUN, "ham10000")
    lines = read_csv(home / "masks.csv")
    write_csv(home / "masks.csv", list(lines[0]), lines[:-1])
    with pytest.raises(MaskError, match="im3"):
        audit_pseudo_masks(OF, "ham10000", layout.root, STATISTICS)
    (home / "masks.csv").unlink()
    with pytest.raises(MaskError, match="no pseudo-masks of ham10000"):
        audit_pseudo_masks(OF, "ham10000", layout.root, STATISTICS)
