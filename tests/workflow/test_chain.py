"""The whole chain: same bytes anywhere, twenty kills, a setting changed and put back.

On a tiny matrix; with LESION_WHOLE=1 (`make test-whole`) on the whole smoke profile.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from chain import ROOT, command, kill_all, lesion, planned_jobs, products, run, snapshot_files
from conftest import checkout

from lesion_core.files import PARTIAL, read_json

pytestmark = [pytest.mark.smoke, pytest.mark.whole]
KILLS = 20


def test_one_core_in_another_folder_gives_the_same_bytes(undisturbed, tmp_path):
    other = checkout(tmp_path / "elsewhere" / "under another name")
    started = time.monotonic()
    run(other, 1)
    ours, theirs = products(undisturbed.folder), products(other)
    assert {name for name in ours | theirs if ours.get(name) != theirs.get(name)} == set()
    kinds = {name.split("/")[0] for name in ours}
    assert {"protocols", "runs", "scores", "tables", "statistics"} <= kinds
    print(f"{len(ours)} products: {undisturbed.seconds:.0f} s, on one core {time.monotonic() - started:.0f} s")


def test_twenty_kills_later_the_bytes_are_the_same(undisturbed, tmp_path):
    folder = checkout(tmp_path / "project")
    rng = np.random.default_rng(20)
    # long enough that a call gets past its own start-up, so that the kills move on through the run
    longest = 8.0 + undisturbed.seconds / 5
    struck: Counter[str] = Counter()
    killed = 0
    started = time.monotonic()
    while killed < KILLS:
        with subprocess.Popen(
            command(2), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as process:
            try:
                code = process.wait(timeout=rng.uniform(1.0, longest))
            except subprocess.TimeoutExpired:
                struck += kill_all(process.pid)
                killed += 1
                continue
        assert code == 0, f"call {killed + 1} failed by itself"
        shutil.rmtree(folder / "results")
    run(folder, 2)
    print(f"{KILLS} kills, {time.monotonic() - started:.0f} s; jobs that died: {dict(struck)}")
    assert products(folder) == products(undisturbed.folder)
    assert snapshot_files(folder) == snapshot_files(undisturbed.folder)
    left = [path for path in (folder / ROOT).rglob("*") if PARTIAL.fullmatch(path.name)]
    assert left == []


def test_runs_that_share_a_job_are_as_if_each_had_its_own(undisturbed, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(undisturbed.folder, folder, symlinks=True)
    folders = sorted((folder / ROOT / "runs").glob("[!d]*/*"))  # derived runs are not trained
    assert len({path.parent.name for path in folders}) > 1
    ids = [path.name for path in folders]
    for path in folders:
        shutil.rmtree(path)
    lesion(folder, "train", *ids, "--root", ROOT, "--log")
    lesion(folder, "score", *reversed(ids), "--root", ROOT)
    for path in folders:
        alone = undisturbed.folder / path.relative_to(folder)
        assert {file.name for file in path.iterdir()} == {file.name for file in alone.iterdir()}
        for name in ("weights.safetensors", "history.csv", "settings.yaml", "scores.parquet"):
            assert (path / name).read_bytes() == (alone / name).read_bytes(), f"{path.name}: {name}"
        assert (path / "log.txt").read_text().count(path.name) > 0
        ours, theirs = (read_json(made / "provenance.json") for made in (path, alone))
        assert ours["opened"] == theirs["opened"], "what one run opened is not told of the next"


def test_a_setting_changed_and_put_back_brings_the_earlier_result_back(undisturbed, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(undisturbed.folder, folder, symlinks=True)
    before = products(folder)
    changed = ("methods={sam_adapter: {model: {rank: 8}}}",)
    run(folder, 2, *changed)
    assert products(folder) != before
    planned = planned_jobs(run(folder, 2, "--dry-run"))
    computing = {rule for rule in planned if re.match("train|score|pseudo|explain|harmonize|catalog", rule)}
    assert computing == set()
    assert "tables" in planned
    started = time.monotonic()
    run(folder, 2)
    assert time.monotonic() - started < undisturbed.seconds
    assert products(folder) == before
    # what the changed setting left goes, what is current stays, and the changed setting is computed again
    current = {Path(name).parts[2] for name in before if name.startswith("runs/")}
    narrow = [path for path in (folder / ROOT / "runs").glob("*/*") if path.name not in current]
    assert {"sam_adapter", "vit_cross_attention"} <= {path.name.split("-")[0] for path in narrow}
    told = lesion(folder, "cache", "--root", ROOT, "--prune")
    assert all(path.name in told and not path.exists() for path in narrow)
    assert "Nothing to be done" in run(folder, 2, "--dry-run")
    assert products(folder) == before
    assert all((folder / ROOT / name).is_file() for name in before)
    lesion(folder, "audit", "--root", ROOT)
    assert {"train_segmenter", "train_classifier"} <= planned_jobs(run(folder, 2, *changed, "--dry-run")).keys()
