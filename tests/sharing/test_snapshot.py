"""Snapshots: content decides, nothing is restored that is not as recorded, and no other store is taken for ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from snakemake import persistence

from lesion_core.errors import RunError
from lesion_core.files import read_json, sha256_file, write_json
from lesion_core.sharing import snapshot
from lesion_core.sharing.lock import hold

PAST = 1_700_000_000
NAMES = ("a.csv", f"runs/{'x' * 120}/{'y' * 120}.csv")  # Snakemake folds the second name


def record(path: Path, **content: object) -> None:
    """A record as Snakemake writes it, by its own code."""
    content = {"rule": "r", "endtime": path.stat().st_mtime, "record_format_version": 6} | content
    snapshot.open_store()._write_record(path.as_posix(), persistence.MetadataRecord(**content))


def records() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(".snakemake/metadata").rglob("*") if path.is_file()}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two files that Snakemake knows, and a snapshot of them."""
    monkeypatch.chdir(tmp_path)
    root = Path("results/smoke")
    for number, name in enumerate(NAMES):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        os.utime(path, (PAST + number, PAST + number))
        record(path, params=[str(number)])
    products = {"a.csv": sha256_file(root / "a.csv")}
    write_json(root / "manifest.json", {"settings": {}, "jobs": [{"outputs": products}]})
    snapshot.save(root)
    return root


def pulled(root: Path) -> dict[Path, bytes]:
    """As a clone has it: new times, and no records; what the records were."""
    before = records()
    for path in before:
        path.unlink()
    for name in NAMES:
        os.utime(root / name)
    return before


def test_a_copy_gets_its_times_and_records_back(root):
    before = pulled(root)
    with pytest.raises(RunError, match="lesion restore --root results/smoke"):
        snapshot.check_store(root, "file")
    assert snapshot.restore(root.absolute()) == (2, [])
    assert [(root / name).stat().st_mtime for name in NAMES] == [PAST, PAST + 1]
    assert records() == before
    snapshot.check_store(root, "file")
    assert snapshot.restore(root) == (0, [])


def test_another_content_is_named_and_left_for_snakemake_to_see(root):
    pulled(root)
    (root / "a.csv").write_text("a.csw")
    assert snapshot.restore(root) == (1, ["a.csv"])
    assert (root / "a.csv").stat().st_mtime > PAST + 1
    snapshot.save(root)
    assert list(read_json(root / "snapshot.json")) == [NAMES[1]]  # the snapshot does not vouch for it either


def test_a_younger_record_is_not_rolled_back(root):
    """A job made the same bytes anew after the snapshot: its record stands, or a killed pipeline would never get on."""
    path = root / "a.csv"
    os.utime(path, (PAST + 10, PAST + 10))
    record(path, params=["new"])
    before = records()
    assert snapshot.restore(root) == (0, [])
    assert records() == before


def test_nothing_is_touched_while_a_pipeline_runs(root):
    pulled(root)
    with hold(root), pytest.raises(RunError, match="Another run works"):
        snapshot.restore(root)
    assert records() == {}


def test_a_store_that_is_not_known_is_refused_and_no_empty_snapshot_is_written(root, monkeypatch):
    before = (root / "snapshot.json").read_bytes()
    with pytest.raises(RunError, match="another store"):
        snapshot.check_store(root, "db")
    for path in records():
        path.unlink()
    with pytest.raises(RunError, match="no records of these results"):
        snapshot.save(root)
    monkeypatch.setattr(persistence, "RECORD_FORMAT_VERSION", 7)
    for step in (snapshot.save, snapshot.restore, lambda root: snapshot.check_store(root, "file")):
        with pytest.raises(RunError, match="format 7"):
            step(root)
    assert (root / "snapshot.json").read_bytes() == before


def test_a_killed_holder_leaves_nothing_to_clean(tmp_path):
    code = "import os, sys; from pathlib import Path; from lesion_core.sharing.lock import hold\n"
    code += "lock = hold(Path(sys.argv[1])); print('held', flush=True); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-9, "held\n")
    hold(tmp_path).release()
