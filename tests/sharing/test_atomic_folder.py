"""A folder is there whole or not at all, whatever ends its writer."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time

import pytest

from lesion_core.errors import RunError, storage_error
from lesion_core.files import ABANDONED_SECONDS, HOST
from lesion_core.sharing.atomic_folder import atomic_folder, remove_halves

KILLED = """
import os, sys
from pathlib import Path
from lesion_core.sharing.atomic_folder import atomic_folder
with atomic_folder(Path(sys.argv[1])) as partial:
    (partial / "half").write_text("half")
    os.kill(os.getpid(), 9)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_it_is_there_when_it_is_whole(tmp_path):
    out = tmp_path / "new" / "crate-0.5"
    with atomic_folder(out) as partial:
        (partial / "tables").mkdir()
        (partial / "tables" / "table.csv").write_text("whole")
        assert partial.parent == out.parent
        assert not out.exists()
    assert names(out.parent) == ["crate-0.5"]
    assert (out / "tables" / "table.csv").read_text() == "whole"


@pytest.mark.parametrize("error", [RuntimeError("disk on fire"), KeyboardInterrupt()])
def test_an_error_leaves_nothing(tmp_path, error):
    def fail():
        with atomic_folder(tmp_path / "crate") as partial:
            (partial / "half").write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert names(tmp_path) == []


def test_a_full_disk_is_told_of_the_target_and_not_of_what_was_copied(tmp_path, monkeypatch):
    source = tmp_path / "table.csv"
    source.write_text("whole")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "sendfile", full)
    out = tmp_path / "out" / "crate"
    with pytest.raises(OSError, match="No space left") as told, atomic_folder(out) as partial:
        shutil.copy(source, partial / "table.csv")
    typed = storage_error(told.value)
    assert typed.file == str(out)
    assert "free space there" in typed.remedy
    assert names(out.parent) == []


def test_a_target_under_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises((FileExistsError, NotADirectoryError)) as told, atomic_folder(tmp_path / "file" / "crate"):
        raise AssertionError
    assert str(tmp_path / "file") in storage_error(told.value).file


def test_what_exists_is_left_alone(tmp_path):
    (tmp_path / "crate").mkdir()
    with pytest.raises(RunError, match="exists"), atomic_folder(tmp_path / "crate"):
        raise AssertionError
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError, match="exists"), atomic_folder(tmp_path / "link"):
        raise AssertionError
    assert names(tmp_path) == ["crate", "link"]


def test_of_two_writers_the_second_to_end_is_refused(tmp_path):
    out = tmp_path / "crate"

    def write_while_another_ends():
        with atomic_folder(out) as partial:
            (partial / "second").write_text("second")
            out.mkdir()
            (out / "first").write_text("first")

    with pytest.raises(RunError, match="exists"):
        write_while_another_ends()
    assert names(tmp_path) == ["crate"]
    assert names(out) == ["first"]


def test_the_next_call_removes_what_a_killed_one_left_and_nothing_of_others(tmp_path):
    out = tmp_path / "crate"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False)
    assert killed.returncode == -9
    [half] = tmp_path.iterdir()
    assert (half / "half").exists()
    dead = half.name.split(".")[-2]
    others = [
        f".crate.{HOST}.{os.getppid()}.part",  # its writer lives
        f".crate.node-a.{dead}.part",  # its writer may live, on another machine
        f".other.{HOST}.{dead}.part",  # another target's
        f".crate.{HOST}.{dead}.part.txt",
        "crate.part",
    ]
    for name in others:
        (tmp_path / name).mkdir()
    with atomic_folder(out) as partial:
        assert not half.exists()
        (partial / "whole").write_text("whole")
    assert names(tmp_path) == sorted([*others, "crate"])


def test_another_machine_s_half_goes_when_none_of_its_files_has_changed_for_an_hour(tmp_path):
    still, written = tmp_path / ".crate.node-a.17.part", tmp_path / ".crate.node-b.17.part"
    long_ago = time.time() - ABANDONED_SECONDS - 60
    for half in (still, written):
        (half / "results").mkdir(parents=True)
        (half / "results" / "scores.parquet").write_text("half")
        for path in (half / "results" / "scores.parquet", half / "results", half):
            os.utime(path, (long_ago, long_ago))
    (written / "results" / "scores.parquet").write_text("a large file")
    os.utime(written / "results", (long_ago, long_ago))
    assert remove_halves(tmp_path / "crate") == [still]
    assert names(tmp_path) == [written.name]
