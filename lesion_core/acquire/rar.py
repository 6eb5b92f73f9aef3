"""RAR archives, by whichever unpacker is installed (PH2 is released as one)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from lesion_core.acquire.byte_progress import size_text
from lesion_core.errors import ArchiveError
from lesion_core.progress import say

POLL_SECONDS = 0.5
# All refuse paths that lead out of the folder unless told otherwise; none asks questions.
COMMANDS = {
    "unar": ("unar", "-quiet", "-force-skip", "-no-directory", "-output-directory", "{out}", "{archive}"),
    "unrar": ("unrar", "x", "-idq", "-o-", "-p-", "{archive}", "{out}/"),
    "7zz": ("7zz", "x", "-y", "-bd", "-o{out}", "{archive}"),
    "7z": ("7z", "x", "-y", "-bd", "-o{out}", "{archive}"),
    "bsdtar": ("bsdtar", "-x", "-f", "{archive}", "-C", "{out}"),
}


def unpack_rar(archive: Path, out: Path, limit: int) -> None:
    """Unpack ``archive`` into the existing folder ``out``; stopped as soon as it holds over ``limit`` bytes.

    The caller checks what kinds of files were written.

    Raises:
        ArchiveError: no unpacker is installed, it fails, or the limit is passed.
    """
    tool = next((name for name in COMMANDS if shutil.which(name)), None)
    if tool is None:
        raise ArchiveError(
            "no unpacker for .rar is installed",
            file=archive,
            remedy=f"install one of {', '.join(COMMANDS)}; or unpack it yourself and set data.ph2 to the folder",
        )
    say(f"{archive.name}: unpacking with {tool}")
    command = [word.format(archive=archive.resolve(), out=out.resolve()) for word in COMMANDS[tool]]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        text = ""
        while True:
            try:
                text, _ = process.communicate(timeout=POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if _held(out) > limit:
                    process.kill()
                    process.communicate()
                    break
    if _held(out) > limit:
        raise ArchiveError(
            f"unpacks to more than the {size_text(limit)} allowed for this release",
            file=archive,
            remedy="use the official archive",
        )
    if process.returncode != 0:
        last = " ".join(text.split()[-30:])
        raise ArchiveError(
            f"{tool} ended with status {process.returncode}: {last}",
            file=archive,
            remedy="supply the archive again, or unpack it yourself and set data.ph2 to the folder",
        )


def _held(folder: Path) -> int:
    """Bytes of the regular files below ``folder``; files that vanish meanwhile do not count."""
    total = 0
    for entry in folder.rglob("*"):
        try:
            total += entry.lstat().st_size
        except FileNotFoundError:
            continue
    return total
