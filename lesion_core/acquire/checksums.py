"""What a file must be, and what it is: size, MD5, SHA-256."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from lesion_core.files import CHUNK_BYTES


@dataclass(frozen=True)
class Digests:
    """Size and hex digests of a file's bytes."""

    bytes: int
    md5: str
    sha256: str


@dataclass(frozen=True)
class Checks:
    """What a file must be; None where it is unknown."""

    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None

    @property
    def has_digest(self) -> bool:
        """Whether the content itself, not only its length, can be verified."""
        return self.md5 is not None or self.sha256 is not None

    def problem(self, found: Digests) -> str | None:
        """The first difference as a sentence; None if all that is known fits."""
        for name, unit in (("bytes", "size"), ("sha256", "SHA-256"), ("md5", "MD5")):
            wanted, got = getattr(self, name), getattr(found, name)
            if wanted is not None and wanted != got:
                return f"{unit} is {got}, must be {wanted}"
        return None


def digests(path: Path) -> Digests:
    """Size, MD5 and SHA-256 in one reading."""
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    with open(path, "rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            md5.update(chunk)
            sha256.update(chunk)
            size += len(chunk)
    return Digests(size, md5.hexdigest(), sha256.hexdigest())
