"""Jobs out of Snakemake's records: times, files, order and use."""

from __future__ import annotations

import pytest

from lesion_core.errors import RunError
from lesion_core.sharing.jobs import jobs_of, positions, read_snapshot


def entry(command, started, ended, inputs=(), log=None):
    rule = command.split()[1]
    record = {
        "rule": rule,
        "shellcmd": command,
        "starttime": started,
        "endtime": ended,
        "input": [f"results/smoke/{name}" for name in inputs],
        "log": [f"results/smoke/{log or f'logs/{rule}'}.txt"],
    }
    return {"sha256": "0" * 64, "record": record}


SNAPSHOT = {
    "a.csv": entry("lesion download ph2", 10.2, 12.0),
    "runs/t/r1/weights": entry("lesion train r1", 20.0, 30.0, ["a.csv"], "runs/t/r1/log"),
    "runs/t/r1/history": entry("lesion train r1", 20.0, 31.5, ["a.csv"], "runs/t/r1/log"),
    "tables/t.csv": entry("lesion tables", 40.0, 41.0, ["runs/t/r1/weights", "a.csv"]),
    "runs/t/r0/weights": entry("lesion train r0", 1.0, 2.0),
}
WANTED = {"a.csv", "runs/t/r1/weights", "tables/t.csv"}


def test_outputs_of_one_command_are_one_job(tmp_path):
    root = tmp_path / "copied_elsewhere"
    clock = root / "benchmarks" / "train" / "t" / "r1.tsv"
    clock.parent.mkdir(parents=True)
    clock.write_text("s\th:m:s\tmax_rss\tcpu_time\n11.5\t0:00:11\t512.0\tNA\n")
    jobs = jobs_of(root, SNAPSHOT, WANTED)
    assert [job.rule for job in jobs] == ["download", "train", "tables"]
    train = jobs[1]
    assert train.outputs == ("runs/t/r1/history", "runs/t/r1/weights")
    assert train.inputs == ("a.csv",)
    assert (train.started, train.ended) == ("1970-01-01T00:00:20+00:00", "1970-01-01T00:00:31+00:00")
    assert train.usage == {"s": 11.5, "max_rss": 512.0}  # cpu_time was not to be had
    assert train.tool == "lesion train"


def test_a_rule_comes_after_those_that_it_reads_from(tmp_path):
    assert positions(jobs_of(tmp_path, SNAPSHOT, WANTED)) == {"download": 1, "train": 2, "tables": 3}


def test_results_without_records_are_refused(tmp_path):
    with pytest.raises(RunError, match="records of these results are missing"):
        read_snapshot(tmp_path)
