"""Verified files of a dataset or of published weights, from a mirror or from the official addresses.

Order of sources for each file: what the user supplies (PH2), the mirror (a folder or an http(s) address), the official
addresses. A mirror with its own ``SHA256SUMS`` is verified against that, since a mirror of stand-ins has other bytes
than the release; every other source is verified against the official checksum. Where none is known, the first
download is pinned in ``<name>.sha256`` beside the file and a later mismatch is refused.

``files.json`` tells of each file of a dataset what it is, where it came from and by what it was verified.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lesion_core.acquire.checksums import Checks, Digests, digests
from lesion_core.acquire.http import Patience, SourceError, WrongContentError, transfer
from lesion_core.acquire.mirror import Mirror
from lesion_core.acquire.ph2 import TOP, supplied_ph2
from lesion_core.acquire.registry import REFERENCES, Part, RemoteFile, release, weights
from lesion_core.acquire.unpacked import Members, pack, unpacked_members
from lesion_core.errors import DownloadError
from lesion_core.files import atomic_path, read_json, write_json, write_text
from lesion_core.progress import say

FILES = "files.json"
SOURCES = "sources.json"  # outlives files.json, which Snakemake deletes before the job runs again


def fetch_dataset(
    dataset: str,
    out: Path,
    *,
    mirror: str | None,
    ph2: str | None,
    patience: Patience,
    parts: tuple[Part, ...] | None = None,
) -> Path:
    """Put a dataset's verified files into ``out`` and write ``out/files.json``; returns that path.

    Args:
        dataset: a name of ``settings.DATASETS``.
        out: folder of the files; complete ones of an earlier call are verified and kept.
        mirror: a folder or an http(s) address with files under their official names, or None; archives may lie in the
            folder unpacked (see ``unpacked_members``), and tables beside such are taken whatever their version.
        ph2: the PH2 release as the user has it: a folder, a .zip or a .rar; or None.
        patience: with each address.
        parts: parts of the release; None takes the registry's choice.

    ``files.json`` holds {"dataset", "files": [{name, bytes, sha256, source, verified_by, licence}]}, sorted by name.

    Raises:
        SettingsError: no such dataset.
        DownloadError: a file cannot be had, or is not the file it should be; the message lists every source.
    """
    known = release(dataset)
    if dataset == "custom":
        raise DownloadError(
            "a custom dataset is read where it lies; there is nothing to download",
            remedy="leave 'custom' out of the download and set data.custom.images and data.custom.csv",
        )
    fetcher = Fetcher.start(out, mirror, patience)
    place = fetcher.mirror
    if dataset == "ph2":
        return fetcher.finish(dataset, [fetcher.ph2(ph2)])
    files = []
    unpacked = {} if place is None or place.folder is None else unpacked_members(known, place.folder)
    for file in known.fetched(parts):
        if file.name not in unpacked:
            # beside unpacked archives people have tables of other versions
            supplied = unpacked and not file.name.endswith(".zip") and place and place.holds(file.name, file.also)
            files.append(fetcher.file(_as_supplied(file) if supplied else file))
        elif unpacked[file.name]:
            files.append(fetcher.packed(_as_supplied(file), unpacked[file.name]))
    return fetcher.finish(dataset, files)


def fetch_reference(name: str, out: Path, *, mirror: str | None, patience: Patience) -> Path:
    """Put the verified tables of one of ``registry.REFERENCES`` into ``out``, with ``files.json``; returns ``out``.

    Arguments and errors as in ``fetch_dataset``.
    """
    fetcher = Fetcher.start(out, mirror, patience)
    return fetcher.finish(name, map(fetcher.file, REFERENCES[name].fetched())).parent


def fetch_weights(name: str, out: Path, *, mirror: str | None, patience: Patience) -> Path:
    """Put published weights (sam_vit_b, sam_vit_l, sam_vit_h, medsam) into the folder ``out``; returns the file.

    Arguments and errors as in ``fetch_dataset``.
    """
    file = weights(name).file
    Fetcher.start(out, mirror, patience).file(file)
    return Path(out) / file.name


def _as_supplied(file: RemoteFile) -> RemoteFile:
    """The file with nothing known of its content: hashed and pinned as it comes."""
    return replace(file, bytes=None, md5=None, sha256=None)


@dataclass(frozen=True)
class Fetcher:
    """Puts files into the folder ``out``, from ``mirror`` first; each method returns a file's entry in files.json."""

    out: Path
    mirror: Mirror | None
    patience: Patience

    @classmethod
    def start(cls, out: Path, mirror: str | None, patience: Patience) -> Fetcher:
        """Open the mirror. A list of an earlier call goes: it would vouch for files that this one may replace."""
        (Path(out) / FILES).unlink(missing_ok=True)
        return cls(Path(out), Mirror.of(mirror, patience), patience)

    def finish(self, name: str, files: Iterable[dict[str, Any]]) -> Path:
        """Write files.json; returns it."""
        write_json(self.out / FILES, {"dataset": name, "files": list(files)})
        return self.out / FILES

    def file(self, file: RemoteFile) -> dict[str, Any]:
        """A file from the first source that has it."""
        tried: list[str] = []
        if self.mirror is not None:
            try:
                return self._from_mirror(file, self.mirror)
            except SourceError as error:
                say(f"{file.name}: not from the mirror ({error.reason})")
                tried.append(f"{self.mirror.location(file.name)}: {error.reason}")
        wanted = self._official(file)
        if (kept := self._kept(wanted)) is not None:
            return kept
        for address in file.addresses:
            say(f"{file.name}: from {address}")
            try:
                return self._transferred(wanted, address, address)
            except SourceError as error:
                say(f"{file.name}: {error.reason}")
                tried.append(f"{address}: {error.reason}")
        raise DownloadError(
            "no source gives this file:\n    " + "\n    ".join(tried),
            file=self.out / file.name,
            remedy=f"check the network, or put {file.name} into a folder and set mirror to that folder"
            + self._pin_remedy(file),
        )

    def packed(self, file: RemoteFile, members: Members) -> dict[str, Any]:
        """An archive that a mirror holds as files, packed."""
        self.out.mkdir(parents=True, exist_ok=True)
        packed = self.out / f".{file.name}.packing"
        source = f"mirror: {os.path.commonpath([path.parent for _, path in members])}"
        say(f"{file.name}: {len(members)} unpacked files, {source}")
        try:
            pack(members, Path(file.name).stem, packed)
            return self._copied(self._official(file), packed, source, self.mirror)
        finally:
            packed.unlink(missing_ok=True)

    def ph2(self, ph2: str | None) -> dict[str, Any]:
        """PH2 from the user's setting or from the mirror; it has no public address."""
        files = {file.name: file for file in release("ph2").files}

        def taken(
            found: AbstractContextManager[tuple[Path, str]], source: str, mirror: Mirror | None
        ) -> dict[str, Any]:
            with found as (path, name):
                return self._copied(self._official(files[name]), path, source, mirror)

        tried: list[str] = []
        if ph2 is not None:
            return taken(supplied_ph2(Path(ph2), self.out), f"data.ph2: {ph2}", None)
        if self.mirror is not None:
            for file in files.values():
                try:
                    return self._from_mirror(file, self.mirror)
                except SourceError as error:
                    tried.append(f"{self.mirror.location(file.name)}: {error.reason}")
            if self.mirror.folder is not None:
                folder = self.mirror.folder / TOP
                if folder.is_dir():
                    return taken(supplied_ph2(folder, self.out), f"mirror: {folder}", self.mirror)
                tried.append(f"{folder}: no such folder")
        raise DownloadError(
            "PH2 has no public address"
            + (", and the mirror does not hold it:\n    " + "\n    ".join(tried) if tried else ""),
            file=self.out,
            remedy="ask for it with the form on the PH2 database's page (ADDI project, University of Porto) and set "
            "data.ph2 to PH2Dataset.rar, to a .zip of it or to its unpacked folder; or take ph2 out of data.datasets",
        )

    def _from_mirror(self, file: RemoteFile, mirror: Mirror) -> dict[str, Any]:
        """A file from the mirror; SourceError if it has none, DownloadError if it has another one."""
        name = mirror.held_as(file.name, file.also)
        wanted = self._official(file)
        if name in mirror.sums:
            wanted = Wanted(file, Checks(sha256=mirror.sums[name]), "mirror SHA256SUMS")
        location = mirror.location(name)
        if mirror.folder is not None:
            if not (mirror.folder / name).is_file():
                raise SourceError("no such file")
            return self._copied(wanted, mirror.folder / name, f"mirror: {location}", mirror)
        if (kept := self._kept(wanted)) is not None:
            return kept
        say(f"{file.name}: from {location}")
        try:
            return self._transferred(wanted, location, f"mirror: {location}")
        except WrongContentError as error:
            raise self._wrong(file, mirror, error.reason) from error

    def _transferred(self, wanted: Wanted, address: str, source: str) -> dict[str, Any]:
        target = self.out / wanted.file.name
        return self._record(wanted, transfer(address, target, wanted.checks, self.patience), source)

    def _copied(self, wanted: Wanted, path: Path, source: str, mirror: Mirror | None) -> dict[str, Any]:
        """Hard-link or copy a local file into ``out``; verified before it gets its name."""
        file, path = wanted.file, path.resolve()
        say(f"{file.name}: from {path}")
        with atomic_path(self.out / file.name) as partial:
            try:
                os.link(path, partial)
            except OSError:
                # Another disk, or a file system without hard links.
                shutil.copyfile(path, partial)
            found = digests(partial)
            if (problem := wanted.checks.problem(found)) is not None:
                raise self._wrong(file, mirror, problem)
        return self._record(wanted, found, source)

    def _wrong(self, file: RemoteFile, mirror: Mirror | None, reason: str) -> DownloadError:
        """A file that the user supplied is refused at once: official bytes must not be mixed with doubtful ones."""
        if mirror is None:
            remedy = "supply the release you used before"
        elif file.name in mirror.sums:
            remedy = f"copy {file.name} into the mirror again, or correct the mirror's SHA256SUMS"
        else:
            remedy = "copy the official file into the mirror; a mirror of other bytes needs a SHA256SUMS that says so"
        location = file.name if mirror is None else mirror.location(file.name)
        remedy += self._pin_remedy(file)
        return DownloadError(f"not the file it should be: {reason}", file=location, remedy=remedy)

    def _official(self, file: RemoteFile) -> Wanted:
        """What the file must be without a mirror's word for it."""
        if file.sha256 is not None:
            return Wanted(file, Checks(file.bytes, file.md5, file.sha256), "official sha256")
        if file.md5 is not None:
            return Wanted(file, Checks(file.bytes, file.md5), "official md5")
        pin = self._pin(file)
        pinned = None
        if pin.exists():
            pinned = next(iter(pin.read_text(encoding="utf-8").split()), "")
            if len(pinned) != 64:
                raise DownloadError("this pin holds no SHA-256", file=pin, remedy="delete it to pin the file anew")
        by = "pinned at first download"
        return Wanted(file, Checks(file.bytes, sha256=pinned), by if file.bytes is None else f"official size, {by}")

    def _kept(self, wanted: Wanted) -> dict[str, Any] | None:
        """A file that is there already and right; None if it has to be fetched."""
        name = wanted.file.name
        if not (self.out / name).is_file() or not wanted.checks.has_digest:
            return None
        say(f"{name}: is there, verifying")
        found = digests(self.out / name)
        if (problem := wanted.checks.problem(found)) is not None:
            say(f"{name}: {problem}; fetching it again")
            return None
        return self._record(wanted, found, self._sources().get(found.sha256, "present before the first fetch"))

    def _record(self, wanted: Wanted, found: Digests, source: str) -> dict[str, Any]:
        """Pin the file if nothing vouched for its content, and note its source."""
        file = wanted.file
        if not wanted.checks.has_digest:
            write_text(self._pin(file), f"{found.sha256}  {file.name}\n")
        write_json(self.out / SOURCES, self._sources() | {found.sha256: source})
        return {
            "name": file.name,
            "bytes": found.bytes,
            "sha256": found.sha256,
            "source": source,
            "verified_by": wanted.verified_by,
            "licence": file.licence,
        }

    def _sources(self) -> dict[str, str]:
        """SHA-256 of a fetched file -> where it came from."""
        try:
            return read_json(self.out / SOURCES)
        except (OSError, ValueError):
            return {}

    def _pin(self, file: RemoteFile) -> Path:
        return self.out / f"{file.name}.sha256"

    def _pin_remedy(self, file: RemoteFile) -> str:
        pin = self._pin(file)
        return f"; if the file was changed on purpose, delete {pin}" if pin.exists() else ""


@dataclass(frozen=True)
class Wanted:
    """A file, what its bytes must be, and how that is called in files.json."""

    file: RemoteFile
    checks: Checks
    verified_by: str


def pinned(root: Path) -> list[str]:
    """Files that were pinned at their first download, ``<SHA-256>  <path under the results>``, sorted by path."""
    found = sorted(Path(root).glob("downloads/*/*.sha256")) + sorted(Path(root).glob("weights/official/*.sha256"))
    return [
        f"{pin.read_text(encoding='utf-8').split()[0]}  {pin.relative_to(root).with_suffix('').as_posix()}"
        for pin in found
    ]
