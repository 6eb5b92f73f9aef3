"""What a forger does to a finished result: change a file, and make the manifest fit."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from lesion_core.files import read_json, sha256_file


def flipped(path: Path, position: float = 0.5) -> bytes:
    """A file's bytes with one changed, in the middle by default."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * position)] ^= 1
    return bytes(content)


def fit_manifest(root: Path, replace: Callable[..., Path], name: str, *kinds: str) -> None:
    """Make the manifest say of a file what it is now, as output and as input (or as ``kinds``)."""
    path, digest = root / "manifest.json", sha256_file(root / name)
    manifest = read_json(path)
    for job in manifest["jobs"]:
        for kind in kinds or ("outputs", "inputs"):
            job[kind] |= {name: digest} if name in job[kind] else {}
    if not any(name in job["outputs"] for job in manifest["jobs"]):
        manifest["jobs"][-1]["outputs"][name] = digest
    replace(path, json.dumps(manifest).encode())


def linked(project: Path, folder: Path) -> Path:
    """Hard links to a project's smoke results: what changes a file must replace it."""
    shutil.copytree(project / "results" / "smoke", folder / "smoke", copy_function=os.link)
    return folder / "smoke"


def replacing(root: Path) -> Iterator[Callable[..., Path]]:
    """Of a fixture: a function that gives a file other bytes, its own by default, till the test ends."""
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
