"""Errors name the file, the ids and the remedy; the command line turns them into a message and status 2."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow
import pytest

from lesion_core import cli
from lesion_core.errors import FormatError, MaskError, RunError, about, storage_error
from lesion_core.files import read_array, read_csv, read_json, read_parquet, read_text, write_json, write_parquet
from lesion_core.settings.load import load
from lesion_core.settings.matrix import expand
from lesion_core.settings.run import Run

DERIVED = next(key for key, run in expand(load("smoke")).items() if run.task == "derived")


def test_text_names_file_ids_and_remedy():
    error = MaskError("Masks are missing", file="a/b.csv", ids=[f"id{n}" for n in range(12)], remedy="add them")
    text = str(error)
    assert "file: a/b.csv" in text
    assert "id9 and 2 more" in text
    assert "id10" not in text
    assert "remedy: add them" in text
    assert len(error.ids) == 12


@pytest.mark.parametrize("library", [True, False])
def test_full_memory_is_a_message_too(library, monkeypatch, capsys):
    """Scoring and prediction have no smaller batch to go on with."""
    error: Exception = MemoryError()
    if library:
        import torch

        error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore")

    def fails():
        raise error

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "Out of memory: " + ("CUDA out of memory. Tried to allocate 2.00 GiB" if library else "MemoryError") in told
    assert "remedy: lower scoring.batch_size" in told

    def other():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(cli, "app", other)
    with pytest.raises(RuntimeError, match="shapes"):
        cli.main()


def test_command_line_exits_with_2_and_no_traceback(tmp_path):
    command = [sys.executable, "-m", "lesion_core.cli", "predict"]
    command += ["--segmenter", str(tmp_path), "--images", str(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: ImageError: No images in the folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["tables", "--root", "nowhere"], "There is no results folder"),
        (["tables"], "The results folder has no settings"),
        (["tables", "--profile", "nosuch"], "'nosuch' does not exist"),
        (["summary", "--profile", "smoke"], "cells.parquet"),
        (["data-report"], "report.json"),
        (["manifest", "--profile", "smoke"], "settings.yaml"),
        (["readme", "--readme", "nowhere/README.md"], "nowhere/README.md"),
        (["gather-robustness", "--out", "out.csv", "table.csv"], "Not a robustness table"),
        (["score", "nosuch", "--profile", "smoke"], "There is no such run"),
        (["train", DERIVED, "--profile", "smoke"], "have nothing to train"),
        (["gather", "nosuch", "x", "--out", "x"], "'nosuch' is not one of"),
        (["harmonize", "shared/leak_free", "ph2", "0", "--profile", "smoke"], "greater than or equal to 1"),
        (["audit", "--device", "tpu"], "'tpu' is not one of"),
    ],
)
def test_commands_refuse_and_write_nothing(options, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "results").mkdir()
    rooted = [] if options[0] in ("gather-robustness", "gather") or "--root" in options else ["--root", "results"]
    monkeypatch.setattr(sys, "argv", ["lesion", *options, *rooted])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert stopped.value.code == 2
    assert told in said
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["results", "table.csv"]


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe not what it is", None], ids=["empty", "garbage", "cut"])
def test_broken_files_are_named(content, tmp_path):
    """Whatever a reader is given that is not what its ending says: a typed error that names the file."""
    np.save(tmp_path / "a.npy", np.arange(100))
    write_parquet(tmp_path / "a.parquet", pyarrow.Table.from_pylist([{"a": 1}]))
    write_json(tmp_path / "a.json", {"a": "b" * 100})
    readers = {"a.npy": read_array, "a.parquet": read_parquet, "a.json": read_json}
    for name, reader in readers.items():
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:40] if content is None else content)
        with pytest.raises(FormatError, match=name):
            reader(path)
    with pytest.raises(FormatError, match=r"a\.npy"):
        read_array(tmp_path / "a.npy", mapped=True)


def test_missing_keys_columns_and_cells_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(FormatError, match=r"(?s)a\.csv.*row 2"):
        read_csv(tmp_path / "a.csv")
    assert read_csv(tmp_path / "a.csv", ragged=True)[1]["b"] is None
    (tmp_path / "a.csv").write_bytes(b"a,b\n\xff,2\n")
    with pytest.raises(FormatError, match="no CSV"):
        read_csv(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    [row] = read_csv(tmp_path / "a.csv")
    with pytest.raises(FormatError, match=r"(?s)no 'c'.*a\.csv"):
        row["c"]
    assert row.get("c") is None
    write_json(tmp_path / "a.json", {"a": {"b": 1}})
    with pytest.raises(FormatError, match=r"(?s)no 'c'.*a\.json"):
        read_json(tmp_path / "a.json")["a"]["c"]
    with pytest.raises(FormatError, match="holds no list"):
        read_json(tmp_path / "a.json", list)
    write_parquet(tmp_path / "a.parquet", pyarrow.Table.from_pylist([{"a": 1}]))
    with pytest.raises(FormatError, match=r"(?s)lacks columns.*ids: b"):
        read_parquet(tmp_path / "a.parquet", ["a", "b"])
    with pytest.raises(FileNotFoundError) as missing:
        read_parquet(tmp_path / "b.parquet")
    assert storage_error(missing.value).file == str(tmp_path / "b.parquet")
    with pytest.raises(FormatError, match=r"(?s)lacks columns.*ids: b"):
        read_parquet(tmp_path / "a.parquet", needs=("a", "b"))
    (tmp_path / "settings.yaml").write_bytes(b"\xff")
    with pytest.raises(RunError, match=r"(?s)cannot be read.*settings\.yaml"):
        Run.load(tmp_path)
    (tmp_path / "a.md").write_bytes(b"\xff")
    with pytest.raises(FormatError, match=r"(?s)no text.*a\.md"):
        read_text(tmp_path / "a.md")


def test_an_error_without_a_file_gets_it_from_outside(tmp_path):
    with pytest.raises(MaskError, match=r"(?s)missing.*file: a\.csv.*ids: x.*remedy: y"), about("a.csv"):
        raise MaskError("missing", ids=["x"], remedy="y")
    with pytest.raises(MaskError, match="file: own"), about("a.csv"):
        raise MaskError("missing", file="own")
