"""Who opened what: every job that must not see a test mask is looked at, and a job that says nothing is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pytest

from lesion_core.audit.opened import masks_closed
from lesion_core.files import read_json, write_bytes, write_csv, write_json, write_parquet
from lesion_core.paths import Layout
from lesion_core.settings import Plan
from lesion_core.settings import load as config

SPLIT = {"tr": "train", "te": "test"}
HOME, PIXELS = "shared/leak_free", "sam_vit_protocol/leak_free"
TEST_MASK, TRAIN_MASK = "data/ph2/te_mask.png", "data/ph2/tr_mask.png"


def told(path: Path, opened: list[str] | None) -> None:
    write_json(path, {"opened": opened})


@pytest.fixture(scope="module")
def plan() -> Plan:
    return config.plan(config.load("smoke", {"matrix": {"seeds": [0], "methods": ["unet"], "ablations": ["otsu"]}}))


@pytest.fixture
def root(tmp_path, plan) -> Path:
    """Two runs, one array, one dataset of pseudo-masks and one robustness table, each with its record."""
    root = tmp_path / "results"
    layout = Layout(root)
    rows = [{"dataset": "ph2", "image_id": name, "mask_path": f"data/ph2/{name}_mask.png"} for name in ("tr", "te")]
    write_parquet(layout.catalog, pyarrow.Table.from_pylist(rows))
    write_csv(layout.split(HOME, "ph2"), ["image_id", "split"], [{"image_id": n, "split": s} for n, s in SPLIT.items()])
    runs = config.expand(config.load("smoke", {"matrix": {"seeds": [0], "methods": ["unet"], "ablations": ["otsu"]}}))
    for run in runs.values():
        folder = layout.run(run.place, run.run_id)
        run.save(folder)
        told(folder / "provenance.json", ["protocols/x/leak_free/pixels/ph2/128/images.npy"])
    size = next(run.spec.model.image_size for run in runs.values() if run.method == "unet")
    array = layout.pixels(PIXELS, "ph2", size)
    entries = [
        {"image_id": name, "split": split, "mask_row": row}
        for (name, split), row in zip(SPLIT.items(), (0, -1), strict=True)
    ]
    write_csv(array / "index.csv", ["image_id", "split", "mask_row"], entries)
    np.save(array / "masks.npy", np.zeros((1, 2, 2), np.uint8))
    told(array / "provenance.json", ["data/ph2/te.jpg", "data/ph2/tr.jpg", TRAIN_MASK])
    np.save(layout.reference(PIXELS), np.zeros(1))
    told(layout.reference(PIXELS).with_name("provenance.json"), ["data/ph2/tr.jpg"])
    run_id = plan.runs["unet"][0]
    write_bytes(layout.pseudo_masks(run_id, "ph2") / "masks.csv", b"image_id\n")
    told(layout.pseudo_masks(run_id, "ph2") / "provenance.json", [])
    write_bytes(root / "robustness" / f"{run_id}.csv", b"run_id\n")
    told(root / "robustness" / f"{run_id}.provenance.json", ["data/ph2/te.jpg"])
    told(root / "figures" / "provenance.json", ["data/ph2/te.jpg", f"runs/segmentation/{run_id}/test_masks.zip"])
    told(root / "figures" / "page.provenance.json", [])
    return root


RECORDS = (
    "runs/segmentation/*/provenance.json",
    "runs/ablations/*/provenance.json",
    f"protocols/{PIXELS}/provenance.json",
    f"protocols/{PIXELS}/pixels/ph2/*/provenance.json",
    "pseudo_masks/*/ph2/provenance.json",
    "robustness/*.provenance.json",
)


def test_jobs_that_left_test_masks_alone_are_counted_and_what_is_shown_is_told(root, plan):
    answer = masks_closed(root, plan)
    assert answer.problems == []
    for kind in ("2 of training", "1 of the reference", "1 of harmonization", "1 of pseudo-masks", "1 of robustness"):
        assert kind in answer.evidence
    assert "figures and page opened 1 archives of true outlines" in answer.evidence


@pytest.mark.parametrize("pattern", [*RECORDS, "figures/provenance.json", "figures/page.provenance.json"])
def test_a_test_mask_in_any_record_is_named_with_its_job(root, plan, pattern):
    [path] = root.glob(pattern)
    told(path, [*read_json(path)["opened"], TEST_MASK])
    [problem] = masks_closed(root, plan).problems
    assert problem.startswith(f"{TEST_MASK}: a test mask, opened by ")


@pytest.mark.parametrize("pattern", RECORDS)
def test_what_scoring_stored_is_sealed_too(root, plan, pattern):
    [path] = root.glob(pattern)
    stored = "runs/segmentation/unet-s0/test_masks.zip"
    told(path, [stored])
    assert [line.split(":")[0] for line in masks_closed(root, plan).problems] == [stored]


@pytest.mark.parametrize("pattern", [*RECORDS, "figures/provenance.json", "figures/page.provenance.json"])
def test_a_job_without_a_record_is_named(root, plan, pattern):
    [path] = root.glob(pattern)
    if path.name == "provenance.json":
        told(path, None)
    else:
        path.unlink()
    [problem] = masks_closed(root, plan).problems
    assert problem.startswith(f"{path.relative_to(root).as_posix()}: does not tell")


def test_arrays_at_sizes_of_earlier_settings_are_not_asked(root, plan):
    """They may be of other splits: no run of the matrix reads them."""
    write_csv(Layout(root).pixels(PIXELS, "ph2", 999) / "index.csv", ["image_id", "split", "mask_row"], [])
    assert masks_closed(root, plan).problems == []
