"""The documented commands sign a manifest, and refuse one that was written anew."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "reproducing.md"


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_a_manifest_written_anew_is_told_by_its_signature(tmp_path):
    sign, verify = (line for line in DOCS.read_text().splitlines() if line.startswith("ssh-keygen -Y"))
    key, manifest = tmp_path / "key", tmp_path / "results" / "mini" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (tmp_path / "signers").write_text(f"ME {key.with_suffix('.pub').read_text()}")

    def status(command: str) -> int:
        line = command.replace("~/.ssh/id_ed25519", str(key))
        return subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, check=False).returncode

    assert status(sign) == status(verify) == 0
    manifest.write_text("{ }")
    assert status(verify) != 0
