"""A seeded, short run of ``make fuzz``: damaged images, tables, archives and settings are read or refused, typed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import fuzz

IGNORED = pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:PIL.Image.DecompressionBombWarning")


@IGNORED
def test_damaged_files_are_read_or_refused():
    counts, faults = fuzz.fuzz(2000, seed=1)
    assert not faults
    assert {name.split()[0] for name in counts} == {*fuzz.originals(), "settings"}


@IGNORED
def test_an_untyped_error_is_a_fault(monkeypatch):
    monkeypatch.setattr(fuzz, "read_table", lambda *given, **_: {}["nothing"])
    assert all("KeyError" in fault and "table" in fault for fault in fuzz.fuzz(200)[1])
    assert fuzz.fuzz(200)[1]
