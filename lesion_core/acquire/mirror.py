"""A mirror: a folder or an http(s) address with files under their official names, and maybe a SHA256SUMS."""

from __future__ import annotations

import re
import tempfile
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lesion_core.acquire.checksums import Checks
from lesion_core.acquire.http import Patience, SourceError, transfer
from lesion_core.errors import DownloadError

SUMS = "SHA256SUMS"
# What object stores and web servers answer where a file is not there.
ABSENT = (401, 403, 404, 410)


@dataclass(frozen=True)
class Mirror:
    """Where files are looked for first.

    Attributes:
        folder: the folder, or None if the mirror is an address.
        address: the address without a final slash, or None if the mirror is a folder.
        sums: SHA-256 by file name from the mirror's SHA256SUMS; empty if it has none.
    """

    folder: Path | None
    address: str | None
    sums: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, mirror: str | None, patience: Patience) -> Mirror | None:
        """Open a mirror and read its SHA256SUMS; None for None.

        Raises:
            DownloadError: no such folder, no answer from the address, or an unreadable SHA256SUMS.
        """
        if mirror is None:
            return None
        if mirror.startswith(("http://", "https://")):
            address = mirror.rstrip("/")
            return cls(None, address, _remote_sums(f"{address}/{SUMS}", patience))
        folder = Path(mirror).expanduser()
        if not folder.is_dir():
            raise DownloadError(
                "the mirror is no folder", file=folder, remedy="set mirror to a folder, an http(s) address or null"
            )
        listed = folder / SUMS
        return cls(folder, None, read_sums(listed) if listed.is_file() else {})

    def location(self, name: str) -> str:
        """Where ``name`` would lie."""
        if self.folder is not None:
            return str(self.folder / name)
        return f"{self.address}/{urllib.parse.quote(name)}"

    def holds(self, name: str, also: Iterable[str]) -> bool:
        """Whether a folder holds the file under one of these names."""
        return self.folder is not None and any((self.folder / one).is_file() for one in (name, *also))

    def held_as(self, name: str, also: Iterable[str]) -> str:
        """The first of ``name`` and ``also`` that the mirror is known to hold; ``name`` if none."""
        for candidate in (name, *also):
            if candidate in self.sums or (self.folder is not None and (self.folder / candidate).is_file()):
                return candidate
        return name


def _remote_sums(url: str, patience: Patience) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / SUMS
        try:
            transfer(url, path, Checks(), patience)
        except SourceError as error:
            if error.status in ABSENT:
                return {}
            # Without an answer it is not known which bytes are right, so nothing may be taken from elsewhere either.
            raise DownloadError(
                f"the mirror does not answer: {error.reason}", file=url, remedy="repair the mirror, or set it to null"
            ) from error
        return read_sums(path)


def read_sums(path: Path) -> dict[str, str]:
    """SHA-256 by name from lines of ``sha256sum``; DownloadError for a line that is none."""
    sums: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)", line.rstrip())
        if found is None:
            raise DownloadError(
                f"line {number} is not a SHA-256 and a name", file=path, remedy="make it with sha256sum"
            )
        sums[found[2]] = found[1].lower()
    return sums
