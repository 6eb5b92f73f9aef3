"""What calls of Snakemake leave behind: one line each, whatever becomes of the disk."""

from __future__ import annotations

import re

from lesion_core.record.calls import read_calls, record_call


def test_each_call_adds_its_line(tmp_path):
    record_call(tmp_path, 0.0, succeeded=False)
    record_call(tmp_path, 86400.0, succeeded=True)
    first, second = read_calls(tmp_path)
    assert (first["succeeded"], second["succeeded"]) == (False, True)
    assert (first["started"], second["started"]) == ("1970-01-01T00:00:00Z", "1970-01-02T00:00:00Z")
    assert second["ended"] > "2020"
    assert re.fullmatch("[0-9a-f]{40}", second["code"]["commit"])
    assert second["packages"]["snakemake"]
    assert second["hardware"]["cores"] > 0


def test_results_without_calls_have_none(tmp_path):
    assert read_calls(tmp_path) == []
