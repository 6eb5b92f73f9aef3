"""Errors name the file, the ids and the remedy; the command line turns them into a message and status 2."""

from __future__ import annotations

import subprocess
import sys

from lesion_core.errors import MaskError


def test_text_names_file_ids_and_remedy():
    error = MaskError("Masks are missing", file="a/b.csv", ids=[f"id{n}" for n in range(12)], remedy="add them")
    text = str(error)
    assert "file: a/b.csv" in text
    assert "id9 and 2 more" in text
    assert "id10" not in text
    assert "remedy: add them" in text
    assert len(error.ids) == 12


def test_command_line_exits_with_2_and_no_traceback(tmp_path):
    command = [sys.executable, "-m", "lesion_core.cli", "predict"]
    command += ["--segmenter", str(tmp_path), "--images", str(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: ImageError: No photographs in the folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
