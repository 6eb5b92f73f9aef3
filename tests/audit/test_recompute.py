"""Which scores `lesion audit --recompute N` draws: every run, those that average others too, before a second image."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from material import HOME
from segmentation_runs import SETTINGS
from test_harmonize import SIZE, Root, settings_with

from lesion_core.audit import recompute
from lesion_core.audit.recompute import _draw
from lesion_core.files import write_parquet
from lesion_core.paths import Layout
from lesion_core.settings import Plan
from lesion_core.settings import load as config
from lesion_core.settings.run import Run

MATRIX = {
    "seeds": [0, 1],
    "seeds_for": {"vit_cross_attention_tta": [0], "dual_network": [0]},
    "methods": ["sam_adapter", "vit_cross_attention_tta", "vit_cross_attention_ensemble", "joint_proposed"],
    "ablations": ["vit_concat"],
}
IMAGES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return config.plan(config.load("smoke", {"matrix": MATRIX}))


@pytest.fixture
def root(tmp_path) -> Path:
    """Score files of every run of the matrix, of three images each."""
    for run in config.expand(config.load("smoke", {"matrix": MATRIX})).values():
        folder = Layout(tmp_path).run(run.place, run.run_id)
        run.save(folder)
        names = ["scores_segmentation", "scores_classification"] if run.task == "joint" else ["scores"]
        for name in names:
            rows = [{"dataset": "ph2", "image_id": image} for image in IMAGES]
            write_parquet(folder / f"{name}.parquet", pyarrow.Table.from_pylist(rows))
    return tmp_path


def places(drawn) -> Counter[str]:
    return Counter(path.parent.parent.name for path, _ in drawn)


def test_each_run_is_drawn_once_before_any_is_drawn_twice(root, plan):
    files = len(list(root.glob("runs/*/*/*.parquet")))
    assert files == 2 + 2 + 1 + 1 + 2 * 2 + 2  # sam_adapter, its classifiers, averages, joint runs' two, the ablation
    once = _draw(root, plan, files, seed=0)
    assert [len(images) for images in once.values()] == [1] * files
    assert places(once) == {"segmentation": 2, "classification": 2, "derived": 2, "joint": 4, "ablations": 2}
    twice = _draw(root, plan, files + 3, seed=0)
    assert sorted(len(images) for images in twice.values()) == [1] * (files - 3) + [2] * 3


def test_the_draw_is_of_what_is_asked_and_follows_its_seed(root, plan):
    everything = len(list(root.glob("runs/*/*/*.parquet"))) * len(IMAGES)
    for count in (0, 1, 5, everything, everything + 9):
        drawn = _draw(root, plan, count, seed=3)
        assert sum(map(len, drawn.values())) == min(count, everything)
        assert drawn == _draw(root, plan, count, seed=3)
    assert _draw(root, plan, 5, seed=3) != _draw(root, plan, 5, seed=4)


def test_pixels_recompute_where_a_dataset_has_a_colour_correction_of_its_own(tmp_path, plan, monkeypatch):
    changes = {"colour_for": {"ham10000": "grey_world"}}
    made = Root(tmp_path)
    made.make_reference(**changes)
    made.make("ham10000", **changes)
    made.make("ph2", **changes)
    run = Run.model_validate(SETTINGS | {"harmonization": settings_with(**changes)}, strict=False)
    run.save(tmp_path / "run")
    monkeypatch.setattr(recompute, "run_folders", lambda root, plan: [tmp_path / "run"])
    current = recompute.Current({}, frozenset([(HOME, SIZE)]))
    monkeypatch.setattr(recompute.Current, "of_results", lambda root, plan: current)
    answer = recompute.pixels(tmp_path, plan, 16, seed=0)
    assert not answer.problems
    images = np.load(Layout(tmp_path).pixels(HOME, "ham10000", SIZE) / "images.npy", mmap_mode="r+")
    images[3, 0, 0, 0] ^= 1
    images.flush()
    assert len(recompute.pixels(tmp_path, plan, 16, seed=0).problems) == 1
