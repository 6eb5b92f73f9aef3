"""Pseudo-masks: borders without stairs, and a job that goes on where it was killed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_inference import SIZE, root, segmenter  # noqa: F401
from test_older_code import changed, package, stop_at  # noqa: F401

from lesion_core.files import read_csv, read_json
from lesion_core.inference import pseudo_masks
from lesion_core.inference.pseudo_masks import write_pseudo_masks
from lesion_core.inference.refine import refine_mask, upsample
from lesion_core.inference.unfinished import ARRAYS, Unfinished
from lesion_core.metrics.border import border_turning
from lesion_core.settings import Extraction

PLAIN = Extraction(threshold=0.5, closing=0, smoothing=0.0, largest_component=True, crop_margin=0.0, blend=0.7)


def ellipse(size: int, a: float, b: float, angle: float = 0.3) -> np.ndarray:
    """Signed-distance-like map, positive inside, (size, size)."""
    y, x = np.mgrid[:size, :size] / (size - 1) - 0.5
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    return 1.0 - np.sqrt((u / a) ** 2 + (v / b) ** 2)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.12, 0.4), st.floats(0.12, 0.4), st.floats(0, 3.1), st.sampled_from([128, 256, 400]))
def test_a_convex_outline_turns_once(a, b, angle, size):
    # where its axes are the grid's, a flat ellipse leaves long stairs: 1.43 is the most that 6,000 drawn ones gave
    assert border_turning(ellipse(size, a, b, angle) > 0) == pytest.approx(1.0, abs=0.5)


def test_turning_of_a_notched_outline_counts_the_notch():
    square = np.zeros((256, 256), bool)
    square[48:208, 48:208] = True
    assert border_turning(square) == pytest.approx(1.0, abs=0.02)
    square[48:128, 108:148] = False
    # the notch turns by a quarter in, twice back out at its bottom, a quarter again: two turns more in all
    assert border_turning(square) == pytest.approx(2.0, abs=0.05)


def test_nothing_to_walk_is_not_a_number():
    assert math.isnan(border_turning(np.zeros((64, 64), bool)))
    dot = np.zeros((64, 64), bool)
    dot[3, 3] = True
    assert math.isnan(border_turning(dot))


@pytest.mark.parametrize("angle", [0.0, 0.3, 0.9, 1.4])
def test_thresholding_before_upsampling_leaves_stairs_that_the_measure_sees(angle: float):
    small = (1 / (1 + np.exp(-12 * ellipse(64, 0.33, 0.24, angle)))).astype(np.float32)
    after = refine_mask(upsample(small, 512, 512), PLAIN)
    before = np.kron(small >= 0.5, np.ones((8, 8), bool))
    assert border_turning(after) < 1.3
    assert border_turning(before) > 2.5
    # the extraction's smoothing mends stairs, but needs none of them to begin with
    smoothed = refine_mask(before.astype(np.float32), PLAIN.model_copy(update={"smoothing": 4.0}))
    assert border_turning(smoothed) < border_turning(before)


def test_lines_of_the_table(root, segmenter, tmp_path):  # noqa: F811
    write_pseudo_masks(segmenter, root / "harmonized" / "ph2" / str(SIZE), tmp_path / "out")
    rows, masks = read_csv(tmp_path / "out" / "masks.csv"), np.load(tmp_path / "out" / "masks.npy")
    for row, mask in zip(rows, masks, strict=True):
        turning = border_turning(mask > 0)
        assert row["border_turning"] == ("" if math.isnan(turning) else f"{turning:.4f}")
        assert int(row["components"]) >= 1
        assert 0.5 <= float(row["confidence"]) <= 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")) == [
        "masks.csv",
        "masks.npy",
        "probabilities.npy",
    ]


class Killed(BaseException):
    """No error that any handler catches: like a signal."""


@pytest.mark.parametrize("dies_after", [1, 3, 5])
def test_a_killed_job_goes_on_and_the_result_is_the_same(root, segmenter, tmp_path, monkeypatch, dies_after):  # noqa: F811
    folder = root / "harmonized" / "ph2" / str(SIZE)
    write_pseudo_masks(segmenter, folder, tmp_path / "whole", batch_size=2)
    monkeypatch.setattr(pseudo_masks, "BATCHES_PER_CHECKPOINT", 1)
    plain, seen = pseudo_masks._describe, []

    def dying(loaded, image_id, probability):
        if len(seen) == dies_after:
            raise Killed
        seen.append(image_id)
        return plain(loaded, image_id, probability)

    monkeypatch.setattr(pseudo_masks, "_describe", dying)
    out = tmp_path / "out"
    with pytest.raises(Killed):
        write_pseudo_masks(segmenter, folder, out, batch_size=2)
    assert not (out / "masks.csv").exists()
    assert not (out / "probabilities.npy").exists()
    done = dies_after // 2 * 2
    seen.clear()
    monkeypatch.setattr(pseudo_masks, "_describe", lambda *args: (seen.append(args[1]), plain(*args))[1])
    write_pseudo_masks(segmenter, folder, out, batch_size=2)
    assert len(seen) == 6 - done
    for name in ("masks.csv", *ARRAYS):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (out / "unfinished").exists()


def test_unfinished_work_of_another_job_is_not_continued(tmp_path):
    work = Unfinished.open(tmp_path / "w", 3, 4, "one")
    work.add(np.ones((4, 4), np.float32), (np.ones((4, 4), bool), {"image_id": "a"}))
    work.save()
    same = Unfinished.open(tmp_path / "w", 3, 4, "one")
    assert [row["image_id"] for row in same.rows] == ["a"]
    assert (same.probabilities[0] == 255).all()
    assert Unfinished.open(tmp_path / "w", 3, 4, "other").rows == []
    assert read_json(tmp_path / "w" / "identity.json", str) == "other"
    (tmp_path / "w" / "masks.npy").write_bytes(b"broken")
    assert Unfinished.open(tmp_path / "w", 3, 4, "other").rows == []


def test_masks_of_older_code_are_not_gone_on_with(root, segmenter, tmp_path, changed, monkeypatch, capsys):  # noqa: F811
    change, anew = changed
    described: list[str] = []
    plain = pseudo_masks._describe
    monkeypatch.setattr(pseudo_masks, "BATCHES_PER_CHECKPOINT", 1)
    monkeypatch.setattr(pseudo_masks, "_describe", stop_at(2, plain, described, 1))
    arguments = (segmenter, root / "harmonized" / "ph2" / str(SIZE), tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        write_pseudo_masks(*arguments, batch_size=2)
    change()
    write_pseudo_masks(*arguments, batch_size=2)
    assert described[3] == described[0 if anew else 2]
    assert ("starting anew" in capsys.readouterr().err) == anew
