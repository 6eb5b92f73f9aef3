"""The helpers of the timings; the timings themselves are for `make bench-data`, on a quiet machine."""

from __future__ import annotations

import subprocess
import sys
import time
import zipfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from benchmarks import models_gpu, scale, stopwatch  # noqa: E402
from benchmarks.copies import HEAVIER, copy_of  # noqa: E402
from benchmarks.duplicates import exponent  # noqa: E402
from benchmarks.made import drawn  # noqa: E402
from benchmarks.memory import extra_peak  # noqa: E402
from benchmarks.models_end_to_end import EPOCHS, dataset, end_to_end  # noqa: E402
from benchmarks.turns import Seconds, both, faster, goal, in_turns  # noqa: E402
from lesion_core.acquire.readers import ham10000, isic2019  # noqa: E402
from lesion_core.catalog.duplicates import near_duplicates  # noqa: E402
from lesion_core.catalog.hashing import fingerprint  # noqa: E402
from lesion_core.settings import Duplicates  # noqa: E402


def test_candidates_take_turns_and_the_first_lap_does_not_count() -> None:
    calls: list[str] = []
    taken = in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert set(taken) == {"a", "b"}
    assert all(0 <= seconds.fastest <= seconds.median for seconds in taken.values())


def test_a_clock_of_the_wall_sees_what_the_processor_does_not() -> None:
    taken = in_turns({"asleep": lambda: time.sleep(0.02)}, 3, time.perf_counter)
    assert 0.02 <= taken["asleep"].fastest < 1.0
    assert in_turns({"asleep": lambda: time.sleep(0.02)}, 1)["asleep"].median < 0.02


def test_a_ratio_is_told_by_the_median_and_by_the_fastest_round() -> None:
    assert faster(Seconds(8.0, 6.0), Seconds(2.0, 1.0), 4) == "4.00 (goal 4: reached); 6.00"
    assert both(Seconds(0.008, 0.006), 2) == "4.00 (3.00)"


def test_a_goal_is_told_as_reached_or_not() -> None:
    assert goal(4.0, 4) == "4.00 (goal 4: reached)"
    assert goal(3.99, 4) == "3.99 (goal 4: not reached)"


def test_growth_exponent_by_hand() -> None:
    assert round(exponent({1000: 2.0, 2000: 8.0, 4000: 32.0}), 9) == 2.0
    assert round(exponent({10: 1.0, 100: 10.0}), 9) == 1.0


def test_a_planted_copy_is_another_file_of_the_same_picture() -> None:
    image, _ = drawn(3, 150, 200)
    assert (drawn(3, 150, 200)[0] == image).all()
    copies = [copy_of(image, number) for number in range(6)]
    assert len({copy.shape for copy in copies}) > 3
    prints = [fingerprint(picture) for picture in (image, *copies)]
    own = Duplicates(max_hamming=9, min_correlation=0.95)
    hashes = np.stack([one.phash for one in prints])
    pairs, _ = near_duplicates(hashes, np.stack([one.thumbnail for one in prints]), own)
    assert {(0, number) for number in range(1, 7)} <= {tuple(pair) for pair in pairs.tolist()}


def test_every_heavier_change_changes_the_picture_and_compression_alone_is_still_found() -> None:
    image, _ = drawn(4, 150, 200)
    prints = {"": fingerprint(image)}
    for name, change in HEAVIER.items():
        changed = change(image)
        assert changed.dtype == np.uint8
        assert changed.ndim == 3
        assert changed.shape != image.shape or (changed != image).any()
        prints[name] = fingerprint(changed)
    own = Duplicates(max_hamming=9, min_correlation=0.95)
    hashes = np.stack([one.phash for one in prints.values()])
    pairs, _ = near_duplicates(hashes, np.stack([one.thumbnail for one in prints.values()]), own)
    found = {list(prints)[second] for first, second in pairs.tolist() if first == 0}
    assert {"JPEG quality 30", "scale 0.3", "gamma 1.3"} <= found


def test_the_commands_explain_themselves() -> None:
    for name in ("data", "duplicates", "models"):
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", "--help"], cwd=REPOSITORY, capture_output=True, check=False
        )
        assert done.returncode == 0
        assert b"usage" in done.stdout


def test_a_watched_call_is_not_a_timed_one_and_a_short_one_is_repeated(monkeypatch) -> None:
    """What looking costs stays out of the seconds; the clock is the test's own."""
    clock = SimpleNamespace(now=0.0)
    for name in ("perf_counter", "process_time"):
        monkeypatch.setattr(stopwatch.time, name, lambda: clock.now)
    calls: list[str] = []

    def call(name: str, seconds: float) -> torch.Tensor:
        calls.append(name)
        clock.now += seconds
        return torch.tensor(seconds)

    def watch(call):
        clock.now += 100.0
        return call(), 7.0

    sides = {"quick": partial(call, "quick", 0.25), "slow": partial(call, "slow", 3.0)}
    results, taken = stopwatch.take_turns(sides, 2, watch)
    assert calls == ["quick", "slow", *["quick"] * 4, "slow", *["quick"] * 4, "slow"]
    assert {name: value.item() for name, value in results.items()} == {"quick": 0.25, "slow": 3.0}
    assert taken["quick"] == stopwatch.Taken(0.25, 0.25, 7.0)
    assert taken["slow"] == stopwatch.Taken(3.0, 3.0, 7.0)
    assert stopwatch.once(sides["slow"], watch)[1] == stopwatch.Taken(3.0, 3.0, 7.0)


def test_peak_memory_is_that_of_the_call() -> None:
    """40 MB that are there only for a moment are seen, and those of an earlier call are not."""

    def call() -> int:
        return int(np.ones(40 << 20, np.uint8)[-1])

    result, megabytes = extra_peak(call)
    assert result == 1
    assert 38 < megabytes < 50
    assert extra_peak(lambda: 1)[1] < 8


def test_training_on_stored_embeddings_is_timed_as_the_engine_does_it(tmp_path, capfd) -> None:
    data = dataset(tmp_path / "made", 64)
    assert [len(data.rows(split, with_mask=True)) for split in ("train", "val", "test")] == [1, 1, 0]
    (row,) = end_to_end(128, "sam_vit_t")
    told = capfd.readouterr().err
    assert told.count(f"of {EPOCHS}: train_loss") == 2 * EPOCHS, "both sides train all epochs"
    assert "embeddings: 2 of 2 are missing" in told, "computing them is part of the time"
    assert 0 < row.error < 1e-4, "fp16 rounds, and no more"


def test_the_gpus_section_runs_on_a_cpu_in_small(monkeypatch) -> None:
    """Its numbers mean nothing there; that each side computes what the published one does is seen."""
    monkeypatch.setattr(models_gpu.torch, "compile", lambda call: call)
    bench = models_gpu.Bench("cpu", "sam_vit_t", 80, batches=(1, 2), matrix=64, rounds=1)
    rate = bench.matrix_rate()
    assert rate > 0
    rows = models_gpu.encoder_rows(bench, rate) + models_gpu.step_rows(bench, rate)
    assert [row[1] for row in rows] == ["1"] * 5 + ["2"] * 5 + ["1"] * 4 + ["2"] * 4
    assert all(len(row) == 1 + len(models_gpu.HEADINGS) for row in rows)
    for name, *_, error in rows:
        assert float(error) < (0.2 if "bf16" in name else 1e-4), name

    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    row, expected = models_gpu._row(bench, "x", 8, full, None, 1.0, rate)
    assert row[2] == "out of memory"
    assert expected is None, "the next one that fits is what the others are compared with"


def test_made_releases_have_official_counts_names_and_frames(tmp_path: Path) -> None:
    assert scale.counts_of(scale.SIZES[-1]) == scale.OFFICIAL
    frames = [scale.frame("isic2018_task1", number) for number in range(1000)]
    assert (frames.count((4499, 6748)), frames.count((2848, 4288))) == (2, 48)
    image, mask = scale.picture(("ham10000", 3))
    assert cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR).shape == (450, 600, 3)
    assert set(np.unique(cv2.imdecode(np.frombuffer(mask, np.uint8), cv2.IMREAD_GRAYSCALE))) == {0, 255}
    for name, write in scale.WRITERS.items():
        write(tmp_path, [f"ISIC_{scale.FIRST[name] + number:07d}" for number in range(14)], [(image, mask)] * 14)
    for name in ("HAM10000_images_part_1", "HAM10000_segmentations_lesion_tschandl", "ISIC_2019_Training_Input"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip") as archive:
            archive.extractall(tmp_path / "data")
    with zipfile.ZipFile(tmp_path / "HAM10000_images_part_2.zip") as archive:
        archive.extractall(tmp_path / "data")
    (tmp_path / "2019").mkdir()
    for name in (isic2019.IMAGES, isic2019.LABELS, isic2019.METADATA):
        (tmp_path / ("data" if name == isic2019.IMAGES else "") / name).rename(tmp_path / "2019" / name)
    (tmp_path / ham10000.METADATA).rename(tmp_path / "data" / ham10000.METADATA)
    rows = ham10000.read("ham10000", tmp_path / "data")
    assert (len(rows), len({row.lesion_id for row in rows})) == (14, len({round(n * scale.LESIONS) for n in range(14)}))
    assert len(isic2019.read("isic2019", tmp_path / "2019")) == 14


def test_a_stage_is_measured_and_a_broken_one_shows_its_log(tmp_path: Path) -> None:
    cost = scale.Cost()
    with pytest.raises(SystemExit, match=r"settings\.json"):
        scale.measure(cost, tmp_path, ["splits", scale.SPLITS])
    assert cost == scale.Cost()
