"""Which images one release's test part shares with another release's training part: told from lists of ids alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from lesion_core.acquire.readers.ham10000 import COLUMNS, METADATA, SOURCE
from lesion_core.acquire.readers.isic2019 import COLUMNS as CLASSES_2019
from lesion_core.acquire.readers.isic2019 import LABELS
from lesion_core.acquire.readers.rows import REMEDY, joining_id, read_table
from lesion_core.errors import CatalogError
from lesion_core.files import read_text

ID_LIST = re.compile(r"ISIC(\d{4})_(train|val|test)\.txt")
PARTS = ("train", "val", "test")
DERMAMNIST = "dermamnist_split_info.csv"
WANTED = f"put ISIC2018_test.txt and the like there, {LABELS}, or {DERMAMNIST} with {METADATA}"


@dataclass(frozen=True)
class Known:
    """A count that others have told: ``shared`` of the ``of`` members of ``first`` stand in one of ``second`` too."""

    first: str
    second: tuple[str, ...]
    shared: int
    of: int | None = None


SOURCES = (
    "images: counted from ISIC 2019's labels and the id lists in IMA++'s repository (github.com/sfu-mial/IMAplusplus)",
    "lesions: Abhishek, Jain, Hamarneh, Investigating the quality of DermaMNIST and Fitzpatrick17k, Sci Data 2025",
)
KNOWN_IMAGES = (
    Known("2016 test", ("2018 train",), 339, 379),
    Known("2017 test", ("2018 train",), 529, 600),
    Known("2017 val", ("2018 train",), 121, 150),
    Known("2016 test", ("2017 train",), 305, 379),
    Known("2018 test", ("2016 train", "2016 test", "2017 train", "2017 val", "2017 test"), 0, 1000),
    Known("2018 train", ("2019 train",), 2593, 2594),
)
KNOWN_LESIONS = (
    Known("DermaMNIST train", ("DermaMNIST test",), 641),
    Known("DermaMNIST train", ("DermaMNIST val",), 332),
    Known("DermaMNIST val", ("DermaMNIST test",), 113),
)


def read_id_list(path: Path) -> frozenset[str]:
    """Image ids of a text file, one a line, with ``.jpg`` or without.

    Raises:
        CatalogError: a line is no id, an id stands twice, or there is none.
    """
    lines = [re.sub(r"\.(jpe?g|png)$", "", line.strip(), flags=re.IGNORECASE) for line in read_text(path).splitlines()]
    lines = list(filter(None, lines))
    if strange := [line for line in lines if not re.fullmatch(r"\w+", line)]:
        raise CatalogError("lines that are no image id", file=path, ids=strange, remedy="write one id a line")
    if len(set(lines)) < max(len(lines), 1):
        twice = sorted({line for line in lines if lines.count(line) > 1})
        raise CatalogError(
            "ids that stand twice" if twice else "a list without ids", file=path, ids=twice, remedy=REMEDY
        )
    return frozenset(map(joining_id, lines))


def read_isic2019_ids(path: Path) -> frozenset[str]:
    """Image ids of ISIC 2019's training labels, as other releases call the images (without ``_downsampled``)."""
    return frozenset(map(joining_id, read_table(path, ["image", *CLASSES_2019], key="image")))


def read_dermamnist(path: Path) -> dict[str, frozenset[str]]:
    """HAM10000 ids of DermaMNIST's parts: ``train``, ``val``, ``test``.

    Args:
        path: ``dermamnist_split_info.csv`` of Abhishek, Jain and Hamarneh (columns split, index, image_id).

    Raises:
        CatalogError: another column or part, or an id that stands twice.
    """
    rows = read_table(path, ["split", "index", "image_id"], key="image_id")
    if strange := sorted(image_id for image_id, row in rows.items() if row["split"] not in PARTS):
        raise CatalogError("parts that are not train, val or test", file=path, ids=strange, remedy=REMEDY)
    return {part: frozenset(key for key, row in rows.items() if row["split"] == part) for part in PARTS}


def read_releases(folder: Path) -> tuple[dict[str, frozenset[str]], dict[str, frozenset[str]]]:
    """What a folder holds of id lists: image ids by part ("2018 test"), and lesion ids by part of DermaMNIST.

    Read are ``ISIC<year>_<train|val|test>.txt``, ISIC 2019's training labels, and DermaMNIST's split with HAM10000's
    metadata; what is not there is left out.

    Raises:
        CatalogError: there is no folder, or a list cannot be read.
    """
    if not folder.is_dir():
        raise CatalogError("no folder of id lists", file=folder, remedy="leave it out to see what is known")
    matches = [(ID_LIST.fullmatch(path.name), path) for path in sorted(folder.glob("*.txt"))]
    images = {f"{match[1]} {match[2]}": read_id_list(path) for match, path in matches if match}
    if (folder / LABELS).is_file():
        images["2019 train"] = read_isic2019_ids(folder / LABELS)
    lesions: dict[str, frozenset[str]] = {}
    if (folder / DERMAMNIST).is_file() and (folder / METADATA).is_file():
        parts = read_dermamnist(folder / DERMAMNIST)
        metadata = read_table(folder / METADATA, COLUMNS, [SOURCE], key="image_id")
        if unknown := sorted(frozenset().union(*parts.values()) - metadata.keys()):
            raise CatalogError(
                "DermaMNIST's images without metadata", file=folder / METADATA, ids=unknown, remedy=REMEDY
            )
        for part, ids in parts.items():
            lesions[f"DermaMNIST {part}"] = frozenset(metadata[image_id]["lesion_id"] for image_id in ids)
    return images, lesions


def _ignored(folder: Path, has_lesions: bool) -> list[str]:
    """Names of the files that were not read, ten at most, and how many more."""
    used = {LABELS, *((DERMAMNIST, METADATA) if has_lesions else ())}
    left = (path.name for path in sorted(folder.iterdir()) if path.name not in used)
    names = [name for name in left if not ID_LIST.fullmatch(name)]
    return names[:10] + ([f"and {len(names) - 10} more"] if names[10:] else [])


def tell_releases(folder: Path | None = None) -> tuple[str, bool]:
    """Lines for a person: what is known, and what a folder's lists give beside it; and whether that is as known.

    A folder without lists is not as known: nothing was counted.
    """
    images, lesions = read_releases(folder) if folder else ({}, {})
    lines = [f"{'part':<18}{'shares with':<28}{'known':>12}" + (f"{'found':>12}" if folder else "")]
    as_known = folder is None or bool(images or lesions)
    for ids, known, what in ((images, KNOWN_IMAGES, "images"), (lesions, KNOWN_LESIONS, "lesions")):
        told: set[frozenset[str]] = set()
        for item in known:
            others = item.second[0] if len(item.second) == 1 else "any part of 2016 or 2017"
            count = str(item.shared) if item.of is None else f"{item.shared} of {item.of}"
            found, verdict = "no list" if folder else "", ""
            if all(name in ids for name in (item.first, *item.second)):
                common = ids[item.first] & frozenset().union(*(ids[name] for name in item.second))
                size = len(ids[item.first])
                found = str(len(common)) if item.of is None else f"{len(common)} of {size}"
                told.update(frozenset((item.first, name)) for name in item.second)
                if found != count:
                    verdict, as_known = "  differs", False
            lines.append(f"{item.first:<18}{others:<28}{count:>12}{found:>{12 if folder else 0}} {what}{verdict}")
        for first, second in combinations(sorted(ids), 2):
            if frozenset((first, second)) not in told and (common := ids[first] & ids[second]):
                found = f"{len(common)} of {len(ids[first])}"
                lines.append(f"{first:<18}{second:<28}{'':>12}{found:>12} {what}")
    lines += ["known:", *(f"  {source}" for source in SOURCES)]
    if folder and not (images or lesions):
        lines.append(f"no list of ids in {folder}: {WANTED}")
    elif folder is None:
        lines.append(f"to count: lesion leakage --releases DIR; {WANTED}")
    if folder and (ignored := _ignored(folder, bool(lesions))):
        lines.append(f"not read: {', '.join(ignored)}")
    return "\n".join(lines), as_known
