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
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lesion_core.acquire.checksums import Checks, Digests, digests
from lesion_core.acquire.http import SourceError, WrongContentError, transfer
from lesion_core.acquire.mirror import Mirror
from lesion_core.acquire.ph2 import supplied_ph2
from lesion_core.acquire.registry import REFERENCES, Part, RemoteFile, release, weights
from lesion_core.acquire.unpacked import Members, pack, unpacked_members
from lesion_core.errors import DownloadError
from lesion_core.files import atomic_path, read_json, write_json, write_text
from lesion_core.progress import say

Sleep = Callable[[float], None]
FILES = "files.json"
SOURCES = "sources.json"  # outlives files.json, which Snakemake deletes before the job runs again


def fetch_dataset(
    dataset: str,
    out: Path,
    *,
    mirror: str | None,
    ph2: str | None,
    retries: int,
    timeout: float,
    parts: tuple[Part, ...] | None = None,
    sleep: Sleep = time.sleep,
) -> Path:
    """Put a dataset's verified files into ``out`` and write ``out/files.json``; returns that path.

    Args:
        dataset: a name of ``settings.DATASETS``.
        out: folder of the files; complete ones of an earlier call are verified and kept.
        mirror: a folder or an http(s) address with files under their official names, or None; archives may lie in the
            folder unpacked (see ``unpacked_members``), and tables beside such are taken whatever their version.
        ph2: the PH2 release as the user has it: a folder, a .zip or a .rar; or None.
        retries: attempts after the first that may bring nothing before an address is given up.
        timeout: seconds without a byte before an attempt counts as broken.
        parts: parts of the release; None takes the registry's choice.
        sleep: waits between attempts.

    ``files.json`` holds {"dataset", "files": [{name, bytes, sha256, source, verified_by, licence}]}, sorted by name.

    Raises:
        SettingsError: no such dataset.
        DownloadError: a file cannot be had, or is not the file it should be; the message lists every source.
    """
    out = Path(out)
    known = release(dataset)
    if dataset == "custom":
        raise DownloadError(
            "a custom dataset is read where it lies; there is nothing to download",
            remedy="leave 'custom' out of the download and set data.custom.images and data.custom.csv",
        )
    # A stale list would vouch for files that this call may replace.
    (out / FILES).unlink(missing_ok=True)
    place = Mirror.of(mirror, retries=retries, timeout=timeout, sleep=sleep)
    if dataset == "ph2":
        files = [_fetch_ph2(out, place, ph2, retries, timeout, sleep)]
    else:
        files = []
        unpacked = {} if place is None or place.folder is None else unpacked_members(known, place.folder)
        for file in known.fetched(parts):
            if file.name not in unpacked:
                # beside unpacked archives people have tables of other versions
                supplied = unpacked and not file.name.endswith(".zip") and place and place.holds(file.name, file.also)
                asked = _as_supplied(file) if supplied else file
                files.append(_fetch(asked, out, place, retries, timeout, sleep))
            elif unpacked[file.name]:
                files.append(_from_unpacked(_as_supplied(file), unpacked[file.name], out, place))
    write_json(out / FILES, {"dataset": dataset, "files": files})
    return out / FILES


def _as_supplied(file: RemoteFile) -> RemoteFile:
    """The file with nothing known of its content: hashed and pinned as it comes."""
    return replace(file, bytes=None, md5=None, sha256=None)


def _from_unpacked(file: RemoteFile, members: Members, out: Path, mirror: Mirror | None) -> dict[str, Any]:
    """An archive that a mirror holds as files, packed."""
    out.mkdir(parents=True, exist_ok=True)
    packed = out / f".{file.name}.packing"
    checks, verified_by = _official(file, out)
    source = f"mirror: {os.path.commonpath([path.parent for _, path in members])}"
    say(f"{file.name}: {len(members)} unpacked files, {source}")
    try:
        pack(members, Path(file.name).stem, packed)
        return _from_disk(file, packed, out, checks, verified_by, source, mirror)
    finally:
        packed.unlink(missing_ok=True)


def fetch_reference(
    name: str, out: Path, *, mirror: str | None, retries: int, timeout: float, sleep: Sleep = time.sleep
) -> Path:
    """Put the verified tables of one of ``registry.REFERENCES`` into ``out``, with ``files.json``; returns ``out``.

    Arguments and errors as in ``fetch_dataset``.
    """
    out = Path(out)
    (out / FILES).unlink(missing_ok=True)
    place = Mirror.of(mirror, retries=retries, timeout=timeout, sleep=sleep)
    files = [_fetch(file, out, place, retries, timeout, sleep) for file in REFERENCES[name].fetched()]
    write_json(out / FILES, {"dataset": name, "files": files})
    return out


def fetch_weights(
    name: str,
    out: Path,
    *,
    mirror: str | None,
    retries: int,
    timeout: float,
    sleep: Sleep = time.sleep,
) -> Path:
    """Put published weights (sam_vit_b, sam_vit_l, sam_vit_h, medsam) into the folder ``out``; returns the file.

    Arguments and errors as in ``fetch_dataset``.
    """
    known, out = weights(name), Path(out)
    place = Mirror.of(mirror, retries=retries, timeout=timeout, sleep=sleep)
    _fetch(known.file, out, place, retries, timeout, sleep)
    return out / known.file.name


def _fetch(
    file: RemoteFile, out: Path, mirror: Mirror | None, retries: int, timeout: float, sleep: Sleep
) -> dict[str, Any]:
    """One file from the first source that has it; its entry in ``files.json``."""
    tried: list[str] = []
    if mirror is not None:
        try:
            return _from_mirror(file, out, mirror, retries, timeout, sleep)
        except SourceError as error:
            say(f"{file.name}: not from the mirror ({error.reason})")
            tried.append(f"{mirror.location(file.name)}: {error.reason}")
    checks, verified_by = _official(file, out)
    kept = _kept(file, out, checks, verified_by)
    if kept is not None:
        return kept
    for address in file.addresses:
        say(f"{file.name}: from {address}")
        try:
            found = transfer(address, out / file.name, checks, retries=retries, timeout=timeout, sleep=sleep)
        except SourceError as error:
            say(f"{file.name}: {error.reason}")
            tried.append(f"{address}: {error.reason}")
            continue
        return _record(file, out, found, address, checks, verified_by)
    raise DownloadError(
        "no source gives this file:\n    " + "\n    ".join(tried),
        file=out / file.name,
        remedy=f"check the network, or put {file.name} into a folder and set mirror to that folder"
        + _pin_remedy(file, out),
    )


def _from_mirror(
    file: RemoteFile, out: Path, mirror: Mirror, retries: int, timeout: float, sleep: Sleep
) -> dict[str, Any]:
    """A file from the mirror; SourceError if it has none, DownloadError if it has another one."""
    official, official_by = _official(file, out)
    name = mirror.held_as(file.name, file.also)
    checks, verified_by = mirror.checks(name, official, official_by)
    source = f"mirror: {mirror.location(name)}"
    if mirror.folder is not None:
        path = mirror.folder / name
        if not path.is_file():
            raise SourceError("no such file")
        return _from_disk(file, path, out, checks, verified_by, source, mirror)
    kept = _kept(file, out, checks, verified_by)
    if kept is not None:
        return kept
    say(f"{file.name}: from {mirror.location(name)}")
    try:
        found = transfer(mirror.location(name), out / file.name, checks, retries=retries, timeout=timeout, sleep=sleep)
    except WrongContentError as error:
        raise _wrong_in_mirror(file, out, mirror, error.reason) from error
    return _record(file, out, found, source, checks, verified_by)


def _fetch_ph2(
    out: Path, mirror: Mirror | None, ph2: str | None, retries: int, timeout: float, sleep: Sleep
) -> dict[str, Any]:
    """PH2 from the user's setting or from the mirror; it has no public address."""
    files = {file.name: file for file in release("ph2").files}
    tried: list[str] = []
    if ph2 is not None:
        with supplied_ph2(Path(ph2), out) as (path, name):
            checks, verified_by = _official(files[name], out)
            return _from_disk(files[name], path, out, checks, verified_by, f"data.ph2: {ph2}", None)
    if mirror is not None:
        for file in files.values():
            try:
                return _from_mirror(file, out, mirror, retries, timeout, sleep)
            except SourceError as error:
                tried.append(f"{mirror.location(file.name)}: {error.reason}")
        if mirror.folder is not None:
            folder = mirror.folder / "PH2Dataset"
            if folder.is_dir():
                with supplied_ph2(folder, out) as (path, name):
                    checks, verified_by = _official(files[name], out)
                    return _from_disk(files[name], path, out, checks, verified_by, f"mirror: {folder}", mirror)
            tried.append(f"{folder}: no such folder")
    raise DownloadError(
        "PH2 has no public address"
        + (", and the mirror does not hold it:\n    " + "\n    ".join(tried) if tried else ""),
        file=out,
        remedy="ask for it with the form on the PH2 database's page (ADDI project, University of Porto) and set "
        "data.ph2 to PH2Dataset.rar, to a .zip of it or to its unpacked folder; or take ph2 out of data.datasets",
    )


def _from_disk(
    file: RemoteFile,
    path: Path,
    out: Path,
    checks: Checks,
    verified_by: str,
    source: str,
    mirror: Mirror | None,
) -> dict[str, Any]:
    """Hard-link or copy a local file into ``out``; verified before it gets its name."""
    path = path.resolve()
    say(f"{file.name}: from {path}")
    with atomic_path(out / file.name) as partial:
        try:
            os.link(path, partial)
        except OSError:
            # Another disk, or a file system without hard links.
            shutil.copyfile(path, partial)
        found = digests(partial)
        problem = checks.problem(found)
        if problem is not None:
            raise _wrong_in_mirror(file, out, mirror, problem)
    return _record(file, out, found, source, checks, verified_by)


def _wrong_in_mirror(file: RemoteFile, out: Path, mirror: Mirror | None, reason: str) -> DownloadError:
    """A file that the user supplied is refused at once: official bytes must not be mixed with doubtful ones."""
    if mirror is None:
        remedy = "supply the release you used before"
    elif file.name in mirror.sums:
        remedy = f"copy {file.name} into the mirror again, or correct the mirror's SHA256SUMS"
    else:
        remedy = "copy the official file into the mirror; a mirror of other bytes needs a SHA256SUMS that says so"
    location = file.name if mirror is None else mirror.location(file.name)
    return DownloadError(f"not the file it should be: {reason}", file=location, remedy=remedy + _pin_remedy(file, out))


def _official(file: RemoteFile, out: Path) -> tuple[Checks, str]:
    """What the file must be without a mirror's word for it, and how that is called in ``files.json``."""
    if file.sha256 is not None:
        return Checks(file.bytes, file.md5, file.sha256), "official sha256"
    if file.md5 is not None:
        return Checks(file.bytes, file.md5), "official md5"
    pin = _pin(file, out)
    pinned = None
    if pin.exists():
        pinned = next(iter(pin.read_text(encoding="utf-8").split()), "")
        if len(pinned) != 64:
            raise DownloadError("this pin holds no SHA-256", file=pin, remedy="delete it to pin the file anew")
    by = "pinned at first download"
    return Checks(file.bytes, sha256=pinned), by if file.bytes is None else f"official size, {by}"


def _kept(file: RemoteFile, out: Path, checks: Checks, verified_by: str) -> dict[str, Any] | None:
    """The entry of a file that is there already and right; None if it has to be fetched."""
    path = out / file.name
    if not path.is_file() or not checks.has_digest:
        return None
    say(f"{file.name}: is there, verifying")
    found = digests(path)
    problem = checks.problem(found)
    if problem is not None:
        say(f"{file.name}: {problem}; fetching it again")
        return None
    source = _sources(out).get(found.sha256, "present before the first fetch")
    return _record(file, out, found, source, checks, verified_by)


def _record(
    file: RemoteFile, out: Path, found: Digests, source: str, checks: Checks, verified_by: str
) -> dict[str, Any]:
    """Pin the file if nothing vouched for its content, and note its source; its entry in ``files.json``."""
    if not checks.has_digest:
        write_text(_pin(file, out), f"{found.sha256}  {file.name}\n")
    write_json(out / SOURCES, _sources(out) | {found.sha256: source})
    return {
        "name": file.name,
        "bytes": found.bytes,
        "sha256": found.sha256,
        "source": source,
        "verified_by": verified_by,
        "licence": file.licence,
    }


def _sources(out: Path) -> dict[str, str]:
    """SHA-256 of a fetched file -> where it came from."""
    try:
        return read_json(out / SOURCES)
    except (OSError, ValueError):
        return {}


def _pin(file: RemoteFile, out: Path) -> Path:
    return out / f"{file.name}.sha256"


def _pin_remedy(file: RemoteFile, out: Path) -> str:
    pin = _pin(file, out)
    return f"; if the file was changed on purpose, delete {pin}" if pin.exists() else ""


def pinned(root: Path) -> list[str]:
    """Files that were pinned at their first download, ``<SHA-256>  <path under the results>``, sorted by path."""
    found = sorted(Path(root).glob("downloads/*/*.sha256")) + sorted(Path(root).glob("weights/official/*.sha256"))
    return [
        f"{pin.read_text(encoding='utf-8').split()[0]}  {pin.relative_to(root).with_suffix('').as_posix()}"
        for pin in found
    ]
