"""What a forger does to a finished result: change a file, and make the manifest fit."""

from __future__ import annotations

import json
from collections.abc import Callable
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
