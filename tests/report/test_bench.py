"""The table of seconds and memory per rule."""

from __future__ import annotations

import pytest

from lesion_core.errors import RunError
from lesion_core.report.bench import bench_table

HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def benchmark(path, seconds, memory="100.0", cpu="1.0"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + f"{seconds}\t0:00:01\t{memory}\t-\t-\t-\t-\t-\t-\t{cpu}\n")


def test_jobs_are_summed_by_rule_slowest_first(tmp_path):
    folder = tmp_path / "benchmarks"
    benchmark(folder / "tables.tsv", 1.5)
    benchmark(folder / "train" / "a.tsv", 10, "200")
    benchmark(folder / "train" / "b.tsv", 20, "300", "5")
    lines = bench_table(tmp_path).splitlines()
    assert lines[2] == "| train | 2 | 30.0 | 20.0 | 6.0 | 300 |"
    assert lines[3] == "| tables | 1 | 1.5 | 1.5 | 1.0 | 100 |"
    assert lines[-1] == "| all | 3 | 31.5 | | | |"


def test_a_dash_counts_as_nothing(tmp_path):
    benchmark(tmp_path / "benchmarks" / "short.tsv", 0.1, "-", "-")
    assert "| short | 1 | 0.1 | 0.1 | 0.0 | 0 |" in bench_table(tmp_path)


def test_nothing_was_run(tmp_path):
    with pytest.raises(RunError, match="No benchmark files"):
        bench_table(tmp_path)
