"""Errors name the file, the ids and the remedy; the command line turns them into a message and status 2."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lesion_core import cli
from lesion_core.errors import MaskError


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
    assert "error: ImageError: No photographs in the folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
