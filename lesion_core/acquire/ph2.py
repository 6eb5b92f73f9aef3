"""PH2 as a user has it: the release's .rar, a .zip of it, or its unpacked folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lesion_core.acquire.unpacked import below, pack
from lesion_core.errors import DownloadError

TOP = "PH2Dataset"
LANDMARKS = ("PH2_dataset.txt", "PH2 Dataset images")


@contextmanager
def supplied_ph2(path: Path, out: Path) -> Iterator[tuple[Path, str]]:
    """Yield one file that holds the release, and the name it gets in ``out``: PH2Dataset.zip or PH2Dataset.rar.

    A folder is packed, uncompressed and with fixed dates, so that the same folder gives the same bytes.

    Raises:
        DownloadError: ``path`` is not there or is not the release.
    """
    path = path.expanduser()
    if path.is_dir():
        top = _top(path)
        out.mkdir(parents=True, exist_ok=True)
        packed = out / f".{TOP}.packing.zip"
        try:
            pack(below(top), TOP, packed)
            yield packed, f"{TOP}.zip"
        finally:
            packed.unlink(missing_ok=True)
        return
    if not path.is_file():
        raise DownloadError(
            "there is no such file or folder", file=path, remedy="set data.ph2 to where the PH2 release lies"
        )
    if path.suffix.lower() not in (".zip", ".rar"):
        raise DownloadError(
            "PH2 is read from a folder, a .zip or a .rar", file=path, remedy="unpack it and set data.ph2 to the folder"
        )
    yield path, f"{TOP}{path.suffix.lower()}"


def _top(folder: Path) -> Path:
    """The folder with the release's table and images: the one given, or one below it."""
    for candidate in (folder, folder / TOP):
        if any((candidate / name).exists() for name in LANDMARKS):
            return candidate
    raise DownloadError(
        f"this folder holds neither {LANDMARKS[0]} nor {LANDMARKS[1]!r}",
        file=folder,
        remedy="set data.ph2 to the folder that PH2Dataset.rar unpacks to",
    )
