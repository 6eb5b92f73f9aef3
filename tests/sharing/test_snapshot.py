"""Snapshots: content decides, and nothing is restored that is not as recorded."""

from __future__ import annotations

import base64
import fcntl
import json
import os
from pathlib import Path

import pytest

from lesion_core.files import read_json
from lesion_core.sharing import snapshot

PAST = 1_700_000_000_000_000_000


def note(state: Path, file: str, **content) -> Path:
    """A note as Snakemake writes it, by its own code."""
    from snakemake.persistence.file import FilePersistence

    keeper = FilePersistence.__new__(FilePersistence)
    keeper._max_len = None
    state.mkdir(parents=True, exist_ok=True)
    keeper._io_write(str(state), content, file)
    return Path(keeper._record_path(str(state), file))


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Two files with notes in a project; the second name is long enough to be folded by Snakemake."""
    monkeypatch.chdir(tmp_path)
    root = Path("results/smoke")
    for number, name in enumerate(("a.csv", f"runs/{'x' * 120}/{'y' * 120}.csv")):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        os.utime(path, ns=(PAST + number, PAST + number))
        note(snapshot.STATE, path.as_posix(), rule="r", params=[str(number)], endtime=path.stat().st_mtime)
    return root


def test_a_copy_gets_its_times_and_notes_back(results, tmp_path):
    snapshot.save(results)
    before = {path: path.read_bytes() for path in snapshot.STATE.rglob("*") if path.is_file()}
    names = sorted(read_json(results / snapshot.NAME)["files"])
    assert len(names) == 2
    for path in before:
        path.unlink()
    for name in names:
        os.utime(results / name)
    assert snapshot.restore(results) == names
    for number, name in enumerate(names):
        assert (results / name).stat().st_mtime_ns == PAST + number
    after = {path: path.read_bytes() for path in snapshot.STATE.rglob("*") if path.is_file()}
    assert {path: json.loads(text) for path, text in after.items()} == {p: json.loads(t) for p, t in before.items()}
    assert snapshot.restore(results) == []


def test_another_content_is_left_for_snakemake_to_see(results):
    snapshot.save(results)
    (results / "a.csv").write_text("a.csw")
    assert snapshot.restore(results) == []
    assert (results / "a.csv").stat().st_mtime_ns > PAST


def test_a_younger_note_of_a_job_is_not_rolled_back(results):
    """A job made the same bytes anew after the snapshot: its note stands, or a killed pipeline would never get on."""
    snapshot.save(results)
    path = results / "a.csv"
    os.utime(path, ns=(PAST + 10**9, PAST + 10**9))
    kept = note(snapshot.STATE, path.as_posix(), rule="r", params=["new"], endtime=path.stat().st_mtime)
    assert snapshot.restore(results) == []
    assert json.loads(kept.read_text())["params"] == ["new"]


def test_nothing_is_touched_while_a_pipeline_runs(results):
    snapshot.save(results)
    os.utime(results / "a.csv")
    with open(results / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert snapshot.restore(results) == []
    assert snapshot.restore(results) == ["a.csv"]


def test_a_snapshot_that_a_killed_call_owes_is_made_up_for(results):
    finished = results / "manifest.json"
    assert not snapshot.catch_up(results, finished)  # not at its end yet: nothing is owed
    finished.write_text("{}")
    with open(results / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert not snapshot.catch_up(results, finished)
    assert snapshot.catch_up(results, finished)
    assert len(read_json(results / snapshot.NAME)["files"]) == 2
    assert not snapshot.catch_up(results, finished)
    os.utime(results / snapshot.NAME, ns=(PAST, PAST))  # an earlier end's: the last job ran once more
    assert snapshot.catch_up(results, finished)


def test_unchanged_files_are_not_hashed_again(results, monkeypatch):
    snapshot.save(results)
    monkeypatch.setattr(snapshot, "sha256_file", lambda path: pytest.fail(f"hashed {path}"))
    snapshot.save(results)


def test_half_notes_and_strangers_are_passed_over(results):
    (snapshot.STATE / base64.urlsafe_b64encode(b"results/smoke/b.csv").decode()).write_text('{"rule":')
    (snapshot.STATE / "README").write_text("{}")
    snapshot.save(results)
    assert len(read_json(results / snapshot.NAME)["files"]) == 2
