"""A user's own dataset is known by its content: what Snakemake is told to make the catalog anew by."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lesion_core.acquire import own_content as module
from lesion_core.acquire.own_content import own_content
from lesion_core.files import read_json, write_text
from lesion_core.settings import Custom

LONG_AGO = 1_500_000_000


@pytest.fixture
def custom(tmp_path: Path) -> Custom:
    for name in ("images/a.jpg", "images/b.PNG", "masks/a_mask.png", "table.csv"):
        write_text(tmp_path / name, f"bytes of {name}")
    return Custom(images=str(tmp_path / "images"), masks=str(tmp_path / "masks"), csv=str(tmp_path / "table.csv"))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of this test count as old enough to be remembered."""
    monkeypatch.setattr(module, "SETTLED_NS", -10_000_000_000)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were hashed."""
    names: list[str] = []
    real = module.sha256_file

    def counted(path: Path) -> str:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(module, "sha256_file", counted)
    return names


@pytest.mark.parametrize("name", ["images/a.jpg", "masks/a_mask.png", "table.csv"])
def test_an_edit_in_place_that_leaves_size_and_time_as_they_were_is_seen(custom, tmp_path, settled, name):
    """As an editor does that writes into the file, and a program that puts the old time back."""
    memory, path = tmp_path / "memory.json", tmp_path / name
    before = own_content(custom, memory)
    times, folder = path.stat(), path.parent.stat().st_mtime_ns
    with open(path, "r+b") as handle:
        handle.write(b"B")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    if path.parent != tmp_path:
        assert path.parent.stat().st_mtime_ns == folder
    assert own_content(custom, memory) != before


def test_other_times_of_equal_bytes_are_no_change(custom, tmp_path, settled):
    memory = tmp_path / "memory.json"
    before = own_content(custom, memory)
    for path in sorted(tmp_path.glob("*/*.*")):
        os.utime(path, (LONG_AGO, LONG_AGO))
        os.utime(path.parent, (LONG_AGO, LONG_AGO))
    assert own_content(custom, memory) == before


def test_a_file_added_renamed_or_removed_is_a_change_and_what_the_reader_skips_is_none(custom, tmp_path):
    memory, images = tmp_path / "memory.json", tmp_path / "images"
    seen = [own_content(custom, memory)]
    for name in ("notes.txt", "._a.jpg"):
        write_text(images / name, "not read")
    assert own_content(custom, memory) == seen[0]
    write_text(images / "c.jpg", "more")
    seen.append(own_content(custom, memory))
    (images / "c.jpg").rename(images / "d.jpg")
    seen.append(own_content(custom, memory))
    (images / "d.jpg").unlink()
    (images / "a.jpg").unlink()
    seen.append(own_content(custom, memory))
    seen.append(own_content(custom.model_copy(update={"masks": None}), memory))
    assert len(set(seen)) == len(seen)


def test_a_second_look_hashes_nothing_and_the_third_what_changed(custom, tmp_path, settled, hashed):
    memory = tmp_path / "memory.json"
    before = own_content(custom, memory)
    assert sorted(hashed) == ["a.jpg", "a_mask.png", "b.PNG", "table.csv"]
    hashed.clear()
    assert own_content(custom, memory) == before
    assert hashed == []
    write_text(tmp_path / "images" / "a.jpg", "other bytes")
    own_content(custom, memory)
    assert hashed == ["a.jpg"]


def test_a_file_younger_than_the_clocks_grain_is_hashed_again(custom, tmp_path, hashed):
    memory = tmp_path / "memory.json"
    for _ in range(2):
        own_content(custom, memory)
    assert len(hashed) == 8


def test_a_lost_broken_or_unwritable_memory_costs_time_alone(custom, tmp_path, settled):
    memory = tmp_path / "memory.json"
    before = own_content(custom, memory)
    assert len(read_json(memory)) == 4
    write_text(memory, "{half")
    assert own_content(custom, memory) == before
    memory.unlink()
    write_text(tmp_path / "file", "")
    assert own_content(custom, tmp_path / "file" / "memory.json") == before  # no folder can be made there


def test_what_is_absent_or_unreadable_is_left_for_the_catalog_to_tell(custom, tmp_path, monkeypatch):
    memory = tmp_path / "memory.json"
    before = own_content(custom, memory)

    def refused(path):
        raise PermissionError(path)

    with monkeypatch.context() as patched:
        patched.setattr(module, "sha256_file", refused)
        unreadable = own_content(custom, memory)
    absent = Custom(images=str(tmp_path / "nowhere"), csv=str(tmp_path / "none.csv"))
    assert len({before, unreadable, own_content(absent, memory)}) == 3
