"""Writes are atomic; hashes are of content."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time

import pytest

from lesion_core.files import (
    ABANDONED_SECONDS,
    atomic_path,
    canonical_json,
    read_csv,
    remove_partials,
    sha256_file,
    write_csv,
    write_json,
    write_text,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "table.csv"
    write_text(target, "old")

    def fail():
        with atomic_path(target) as partial:
            partial.write_text("half")
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        fail()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_halves_of_dead_processes_are_removed_and_those_of_living_ones_stay(tmp_path):
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    script = (
        "import os, sys; from lesion_core.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as partial: partial.write_bytes(b'half'); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(folder / "scores.parquet")], check=False)
    assert killed.returncode == -9
    [half] = folder.iterdir()
    with atomic_path(folder / "mine.csv") as partial:
        partial.write_text("mine")
        (folder / "kept.part.csv").write_text("a name that only looks like one")
        assert remove_partials(tmp_path) == [half]
    assert sorted(path.name for path in folder.iterdir()) == ["kept.part.csv", "mine.csv"]


def test_halves_of_another_machine_stay_while_they_may_be_written(tmp_path):
    fresh, still = (tmp_path / f".scores.node-{name}.17.part.parquet" for name in ("a", "b"))
    for path in (fresh, still):
        path.write_bytes(b"half")
    os.utime(still, (time.time() - ABANDONED_SECONDS - 60,) * 2)
    assert remove_partials(tmp_path) == [still]
    assert fresh.exists()


def test_csv_round_trip_and_line_ends(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(path, ("a", "b"), [{"a": "1,2", "b": "x"}, {"a": "", "b": 'say "hi"'}])
    assert b"\r" not in path.read_bytes()
    assert read_csv(path) == [{"a": "1,2", "b": "x"}, {"a": "", "b": 'say "hi"'}]
    with pytest.raises(ValueError, match="not in fieldnames"):
        write_csv(path, ("a",), [{"a": 1, "c": 2}])


def test_sha256_and_canonical_json(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"x" * 3_000_000)
    assert sha256_file(path) == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert canonical_json({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_json_is_sorted(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": 2})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": 2,\n  "b": 1\n}\n'
