"""A finished smoke result of one's own to forge."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def root(smoke, tmp_path_factory):
    """Hard links to the smoke results: a test that changes a file must replace it."""
    folder = tmp_path_factory.mktemp("audit") / "smoke"
    shutil.copytree(smoke / "results" / "smoke", folder, copy_function=os.link)
    return folder


@pytest.fixture
def replace(root):
    """Replace a file's bytes for one test."""
    kept: list[tuple[Path, Path]] = []

    def swap(path: Path, content: bytes | None = None) -> Path:
        aside = root.parent / f"kept{len(kept)}"
        if path.exists():
            path.rename(aside)
        kept.append((path, aside))
        if content is None:
            shutil.copy(aside, path)
        else:
            path.write_bytes(content)
        return path

    yield swap
    for path, aside in reversed(kept):
        path.unlink(missing_ok=True)
        if aside.exists():
            aside.rename(path)
