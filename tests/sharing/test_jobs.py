"""Jobs out of Snakemake's notes: times, files and order; no place on somebody's disk."""

from __future__ import annotations

import json
import shlex

import pytest

from lesion_core.errors import RunError
from lesion_core.files import write_json
from lesion_core.sharing.jobs import jobs_of, positions


def note(rule, command, started, ended, inputs=(), log=None):
    return {
        "rule": rule,
        "shellcmd": command,
        "starttime": started,
        "endtime": ended,
        "input": [f"results/smoke/{name}" for name in inputs],
        "log": [f"results/smoke/{log or f'logs/{rule}.txt'}"],
    }


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "smoke"
    settings = {"mirror": "/home/me/photographs", "data": {"ph2": "/home/me/PH2.rar", "custom": None, "retries": 5}}
    notes = [
        note("download", f"lesion download ph2 --settings {shlex.quote(json.dumps(settings))} > log", 10.2, 12.0),
        note("train", "lesion train --root x", 20.0, 30.0, ["a.csv"], "runs/t/r1/log.txt"),
        note("train", "lesion train --root x", 20.0, 31.5, ["a.csv"], "runs/t/r1/log.txt"),
        note("tables", "lesion tables", 40.0, 41.0, ["runs/t/r1/weights", "a.csv"]),
        note("old", "lesion train --root old", 1.0, 2.0),
    ]
    files = {"a.csv": 0, "runs/t/r1/weights": 1, "runs/t/r1/history": 2, "tables/t.csv": 3, "runs/t/r0/weights": 4}
    write_json(
        root / "snapshot.json",
        {"notes": notes, "files": {name: {"sha256": "0" * 64, "note": place} for name, place in files.items()}},
    )
    clock = root / "benchmarks" / "train" / "t" / "r1.tsv"
    clock.parent.mkdir(parents=True)
    clock.write_text("s\th:m:s\tmax_rss\tcpu_time\n11.5\t0:00:11\t512.0\tNA\n")
    return root


def test_outputs_of_one_command_are_one_job(root):
    jobs = jobs_of(root, {"a.csv", "runs/t/r1/weights", "tables/t.csv"})
    assert [job.rule for job in jobs] == ["download", "train", "tables"]
    train = jobs[1]
    assert train.outputs == ("runs/t/r1/history", "runs/t/r1/weights")
    assert train.inputs == ("a.csv",)
    assert (train.started, train.ended) == ("1970-01-01T00:00:20+00:00", "1970-01-01T00:00:31+00:00")
    assert train.usage == {"s": 11.5, "max_rss": 512.0}  # cpu_time was not to be had
    assert train.tool == "lesion train"


def test_a_rule_comes_after_those_that_it_reads_from(root):
    jobs = jobs_of(root, {"a.csv", "runs/t/r1/weights", "tables/t.csv"})
    assert positions(jobs) == {"download": 1, "train": 2, "tables": 3}


def test_no_place_of_this_machine_is_handed_on(root):
    (job,) = jobs_of(root, {"a.csv"})
    assert "/home/me" not in job.command
    assert '"retries":5' in job.command
    assert job.command.startswith("lesion download ph2 --settings '{")
    assert job.command.endswith("}' > log")


def test_results_without_notes_are_refused(tmp_path):
    with pytest.raises(RunError, match="notes"):
        jobs_of(tmp_path, {"a"})
