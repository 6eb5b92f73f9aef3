"""People's agreement on each image that several annotated: one table for the report, from IMA++."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lesion_core.acquire.readers.imaplusplus import (
    FOLDER,
    IMAGES,
    MASKS,
    PAIRS,
    Agreement,
    read_agreements,
    score_masks,
)
from lesion_core.catalog.releases import ID_LIST, read_releases
from lesion_core.files import read_csv, write_csv

RELEASES = "releases"  # a folder of id lists beside the tables, or the tables' own folder
COLUMNS = ("image_id", "pairs", "dice", "iou", "pair_dice", "releases")


@dataclass(frozen=True)
class Reference:
    """Agreement on one image, and the release parts that it stands in ("2018 test")."""

    agreement: Agreement
    releases: tuple[str, ...] = ()


def tables_folder(place: Path) -> Path | None:
    """Where IMA++'s tables lie: in the folder ``imaplusplus`` of a mirror, or in ``place`` itself; None: nowhere."""
    for folder in (place / FOLDER, place):
        if any((folder / name).is_file() for name in (IMAGES, PAIRS)):
            return folder
    return None


def files_of(folder: Path | None) -> list[Path]:
    """The files of a tables folder that are read."""
    if folder is None:
        return []
    lists = [path for path in (folder / RELEASES, folder) for path in sorted(path.glob("*.txt"))]
    tables = [folder / name for name in (IMAGES, PAIRS, MASKS) if (folder / name).is_file()]
    return [*tables, *(path for path in lists if ID_LIST.fullmatch(path.name))]


def reference_of(folder: Path, masks: Path | None = None) -> list[Reference]:
    """Agreement and releases of every image, sorted by id; from the masks where ``masks`` is their folder.

    Raises:
        CatalogError, MaskError: a table, an id list or a mask cannot be read.
    """
    found = read_agreements(folder) if masks is None else score_masks(folder / MASKS, masks)
    lists = next((own for own in (folder / RELEASES, folder) if any(own.glob("ISIC*.txt"))), None)
    releases = {} if lists is None else read_releases(lists)[0]
    return with_releases(found, releases)


def with_releases(found: Iterable[Agreement], releases: Mapping[str, frozenset[str]]) -> list[Reference]:
    """Which parts each image stands in."""
    return [
        Reference(item, tuple(part for part in sorted(releases) if item.image_id in releases[part])) for item in found
    ]


def write_reference(references: Iterable[Reference], path: Path) -> None:
    """Write one row per image, numbers in full; no rows where there is nothing to tell."""
    rows = [
        {
            "image_id": item.agreement.image_id,
            "pairs": "" if item.agreement.pairs is None else item.agreement.pairs,
            "dice": repr(item.agreement.dice),
            "iou": repr(item.agreement.iou),
            "pair_dice": " ".join(map(repr, item.agreement.pair_dice)),
            "releases": "; ".join(item.releases),
        }
        for item in references
    ]
    write_csv(path, COLUMNS, rows)


def read_reference(path: Path) -> list[Reference]:
    """What `write_reference` wrote."""
    return [
        Reference(
            Agreement(
                row["image_id"],
                int(row["pairs"]) if row["pairs"] else None,
                float(row["dice"]),
                float(row["iou"]),
                tuple(map(float, row["pair_dice"].split())),
            ),
            tuple(row["releases"].split("; ")) if row["releases"] else (),
        )
        for row in read_csv(path)
    ]
