"""Safe unpacking of a dataset's verified files, all or nothing.

Every archive lands in a folder of its own name: one whose members all lie below such a folder already is taken as it
is, any other (HAM10000's images) gets it. So two archives cannot collide. Tables that were downloaded as they are lie
beside these folders.
"""

from __future__ import annotations

import hashlib
import lzma
import shutil
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import rarfile

from lesion_core.acquire.registry import Release, release
from lesion_core.errors import ArchiveError, storage_error
from lesion_core.files import CHUNK_BYTES, read_json, sha256_file
from lesion_core.progress import say, size_text, track
from lesion_core.record.outputs import NAME as RECORD
from lesion_core.record.outputs import write_record

# Says that a folder is ours: one without it is never replaced. A workflow deletes its declared output, the record.
MARKER = ".unpacked"
# Images hardly compress and masks do by some ten times; below the floor no ratio is suspicious.
MAX_RATIO = 200
RATIO_FLOOR_BYTES = 256 << 20
FETCH_AGAIN = "delete it and run the download again"
# What the readers of zip and rar raise for a damaged member; each is the archive's fault, not the disk's.
UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError),
    *(rarfile.BadRarFile, rarfile.RarExecError),
)
JUNK_NAMES = (".DS_Store", "Thumbs.db", "desktop.ini")


def unpack_dataset(dataset: str, downloads: Path, out: Path) -> Path:
    """Unpack the files that ``downloads/files.json`` names into ``out``; returns ``out/provenance.json``.

    Args:
        dataset: a name of ``settings.DATASETS``.
        downloads: folder made by ``fetch_dataset``; each file must still have the SHA-256 of its list.
        out: folder to make. It appears complete or not at all; one of an earlier call is replaced.

    ``provenance.json`` names each file (posix path, relative to ``out``) with the SHA-256 of what was written.

    Raises:
        ArchiveError: a file is missing, changed, corrupt or not safe to unpack, or the disk is full.
    """
    downloads, out = Path(downloads), Path(out)
    known = release(dataset)
    files = _listed(dataset, downloads)
    _require_ours(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.parent / f".{out.name}.unpacking"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        written: list[Written] = []
        for file in files:
            written += _unpack(downloads / file["name"], fresh, known, _Allowance(known, written))
        write_record(fresh / RECORD, {file.path: file.sha256 for file in written})
        (fresh / MARKER).touch()
        _replace(fresh, out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    say(f"{dataset}: {len(written)} files, {size_text(sum(file.bytes for file in written))} in {out}")
    return out / RECORD


class Written(NamedTuple):
    """An unpacked file: its posix path below the dataset's folder, its size and its SHA-256."""

    path: str
    bytes: int
    sha256: str


class _Allowance:
    """What the release may still unpack to, after what was ``written``."""

    def __init__(self, known: Release, written: list[Written]) -> None:
        self.bytes = known.unpacked_limit - sum(file.bytes for file in written)
        self.members = known.member_limit - len(written)

    def check(self, archive: Path, members: int, size: int, out: Path) -> None:
        """ArchiveError for more than the release can hold, for a bomb's ratio, or for a full disk below ``out``."""
        packed = archive.stat().st_size
        problem = ""
        if members > self.members:
            problem = f"holds {members} files, more than the {self.members} allowed for this release"
        elif size > self.bytes:
            problem = f"unpacks to {size_text(size)}, more than the {size_text(self.bytes)} allowed for this release"
        elif size > RATIO_FLOOR_BYTES and size > MAX_RATIO * packed:
            problem = f"unpacks {size_text(packed)} to {size_text(size)}, more than {MAX_RATIO} times as much"
        if problem:
            raise ArchiveError(f"the archive {problem}", file=archive, remedy="use the official archive")
        free = shutil.disk_usage(out).free
        if size > free:
            raise ArchiveError(
                f"unpacking needs {size_text(size)}, {size_text(free)} are free",
                file=archive,
                remedy="free some space or let the results lie on another disk",
            )


def _listed(dataset: str, downloads: Path) -> list[dict[str, Any]]:
    """The entries of files.json, each verified against the file."""
    listing = downloads / "files.json"
    if not listing.is_file():
        raise ArchiveError("the list of downloaded files is missing", file=listing, remedy="run the download first")
    content = read_json(listing)
    if content["dataset"] != dataset:
        raise ArchiveError(
            f"these are the files of {content['dataset']}, not of {dataset}",
            file=listing,
            remedy="give each dataset a download folder of its own",
        )
    for file in content["files"]:
        path = downloads / file["name"]
        if not path.is_file() or path.stat().st_size != file["bytes"] or sha256_file(path) != file["sha256"]:
            raise ArchiveError("the file is missing or has changed since its download", file=path, remedy=FETCH_AGAIN)
    return content["files"]


def _require_ours(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise ArchiveError(
            "this folder holds files that were not unpacked here", file=out, remedy="move them away and run again"
        )
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ArchiveError("there is something else under this name", file=out, remedy="move it away and run again")


def _replace(fresh: Path, out: Path) -> None:
    """Rename ``fresh`` to ``out``; what was there goes away only after it has made room."""
    old = out.parent / f".{out.name}.replaced"
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _unpack(path: Path, out: Path, known: Release, allowance: _Allowance) -> list[Written]:
    """One downloaded file into ``out``."""
    suffix = path.suffix.lower()
    if suffix in (".zip", ".rar"):
        return _unpack_archive(path, out, allowance)
    with open(path, "rb") as source:
        return [_write(_chunks(source), PurePosixPath(path.name), out)]


def _opened(path: Path) -> zipfile.ZipFile | rarfile.RarFile:
    """The archive, its table of contents read; PH2 is released as a .rar, which rarfile reads like a zip."""
    try:
        if path.suffix.lower() == ".zip":
            return zipfile.ZipFile(path)
        archive = rarfile.RarFile(path)
    except (*UNREADABLE, rarfile.Error, OSError) as error:
        raise ArchiveError(f"no readable {path.suffix[1:]}: {error}", file=path, remedy=FETCH_AGAIN) from error
    if archive.needs_password():
        raise ArchiveError("the archive is encrypted", file=path, remedy="use the official archive")
    return archive


def _unpack_archive(path: Path, out: Path, allowance: _Allowance) -> list[Written]:
    with _opened(path) as archive:
        members = [(_safe_path(path, info), info) for info in archive.infolist()]
        members = _without_junk(path, [pair for pair in members if not pair[1].is_dir()])
        allowance.check(path, len(members), sum(info.file_size for _, info in members), out)
        folder = _folder(path, [name for name, _ in members])
        _require_distinct(path, [name for name, _ in members])
        rows = []
        for name, info in track(members, f"unpacking {path.name}", len(members)):
            try:
                with archive.open(info) as source:
                    rows.append(_write(_chunks(source), folder / name, out))
            except rarfile.RarCannotExec as error:
                raise ArchiveError(
                    "no unpacker for .rar is installed",
                    file=path,
                    remedy="install unrar, unar, 7-Zip or bsdtar; or unpack it yourself and set data.ph2 to the folder",
                ) from error
            except UNREADABLE as error:
                raise _unreadable(path, info.filename, error) from error
            except OSError as error:
                if storage_error(error) is None:  # bz2's, and a seek to before the start
                    raise _unreadable(path, info.filename, error) from error
                raise ArchiveError(
                    f"a member cannot be written: {error}",
                    file=path,
                    ids=[info.filename],
                    remedy="free some space; if there is enough, use the official archive",
                ) from error
    return rows


def _safe_path(archive: Path, info: zipfile.ZipInfo | rarfile.RarInfo) -> PurePosixPath:
    """The member's relative path; ArchiveError for a link, a special file or a way out of the folder."""
    if isinstance(info, rarfile.RarInfo):
        regular, link, encrypted = info.is_file() or info.is_dir(), info.is_symlink(), info.needs_password()
    else:
        kind = stat.S_IFMT(info.external_attr >> 16)
        regular, link = kind in (0, stat.S_IFREG, stat.S_IFDIR), kind == stat.S_IFLNK
        encrypted = bool(info.flag_bits & 0x1)
    if not regular:
        raise _unsafe(archive, info.filename, f"is {'a symbolic link' if link else 'a special file'}")
    if encrypted:
        raise _unsafe(archive, info.filename, "is encrypted")
    # Some Windows packers separate by backslashes.
    text = info.filename.replace("\\", "/")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith("/") or (parts and parts[0].endswith(":")):
        raise _unsafe(archive, info.filename, "has an absolute path")
    if not parts or ".." in parts:
        raise _unsafe(archive, info.filename, "has a path that leads elsewhere")
    if any(ord(letter) < 32 for letter in text):
        raise _unsafe(archive, info.filename, "has control characters in its name")
    return PurePosixPath(*parts)


def _unreadable(archive: Path, member: str, error: Exception) -> ArchiveError:
    return ArchiveError(f"a member cannot be read: {error}", file=archive, ids=[member], remedy=FETCH_AGAIN)


def _unsafe(archive: Path, member: str, why: str) -> ArchiveError:
    return ArchiveError(
        f"a member {why}; nothing was unpacked", file=archive, ids=[member], remedy="use the official archive"
    )


def _without_junk(archive: Path, members: list[tuple[PurePosixPath, Any]]) -> list[tuple[PurePosixPath, Any]]:
    """Drop what macOS and Windows leave in archives, and say so."""
    kept = [pair for pair in members if not _is_junk(pair[0])]
    if len(kept) < len(members):
        say(f"{archive.name}: {len(members) - len(kept)} files of macOS or Windows (such as .DS_Store) left out")
    return kept


def _is_junk(path: PurePosixPath) -> bool:
    return "__MACOSX" in path.parts or path.name in JUNK_NAMES or path.name.startswith("._")


def _folder(archive: Path, names: list[PurePosixPath]) -> PurePosixPath:
    """The folder to put before the members: the archive's name, unless they all lie below it already."""
    if not names:
        raise ArchiveError("the archive is empty", file=archive, remedy=FETCH_AGAIN)
    if all(len(name.parts) > 1 and name.parts[0] == archive.stem for name in names):
        return PurePosixPath()
    return PurePosixPath(archive.stem)


def _require_distinct(archive: Path, names: list[PurePosixPath]) -> None:
    """Two members of one name, or a file that is also a folder, would overwrite each other."""
    counts = Counter(names)
    twice = sorted(str(name) for name, count in counts.items() if count > 1)
    twice += sorted({str(above) for name in counts for above in name.parents if above in counts})
    if twice:
        raise ArchiveError("members have the same name", file=archive, ids=twice, remedy="use the official archive")


def _chunks(source: Any) -> Iterator[bytes]:
    while chunk := source.read(CHUNK_BYTES):
        yield chunk


def _write(chunks: Iterator[bytes], name: PurePosixPath, out: Path) -> Written:
    """Write a new file below ``out``, hashing on the way."""
    target = out / name
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with open(target, "xb") as handle:
        for chunk in chunks:
            handle.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    return Written(name.as_posix(), size, digest.hexdigest())
