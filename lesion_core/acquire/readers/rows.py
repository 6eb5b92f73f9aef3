"""The typed row every reader yields, and what the readers share: listing files, strict tables, joining by id."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lesion_core.errors import CatalogError, ImageError, LesionError, MaskError
from lesion_core.files import read_csv
from lesion_core.paths import IMAGE_SUFFIXES

MISSING = {"", "unknown", "na", "n/a", "nan", "none", "null"}
SEXES = {"male": "male", "m": "male", "female": "female", "f": "female"}
MAX_AGE = 120.0
DOWNSAMPLED = "_downsampled"  # ISIC 2019 marks ids so whose images it scaled down
REMEDY = "download and unpack the release again, or correct the file"


@dataclass(frozen=True)
class Row:
    """One image as its release describes it.

    Attributes:
        dataset: name of the settings, e.g. ``ham10000``.
        image_id: unique within the dataset.
        path: the image's file.
        licence: its terms of use.
        lesion_id, label, age, sex, site, dx_type: None where the release does not say; label is one of the classes.
        mask_path: the lesion mask's file, None without one.
        part: ``training``, ``validation`` or ``test`` where the release divides its images.
        notes: (kind, detail) of what the release says but the catalog cannot hold, for the report.
    """

    dataset: str
    image_id: str
    path: Path
    licence: str
    lesion_id: str | None = None
    label: str | None = None
    age: float | None = None
    sex: str | None = None
    site: str | None = None
    dx_type: str | None = None
    mask_path: Path | None = None
    part: str | None = None
    notes: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """(dataset, image_id): unique in the catalog."""
        return self.dataset, self.image_id


def joining_id(image_id: str) -> str:
    """The id under which one image stands in several ISIC releases."""
    return image_id.removesuffix(DOWNSAMPLED)


def list_files(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Image files directly in ``folder``, sorted by name; hidden files (``._x.jpg`` of macOS) and folders are none.

    Raises:
        ImageError: a pipe or a device, a link to nothing, or a name that is no UTF-8: no table could hold it.
    """
    wanted = set(suffixes)
    found = (path for path in folder.iterdir() if path.suffix.lower() in wanted and not path.name.startswith("."))
    paths = sorted(path for path in found if not path.is_dir())
    for path in paths:
        if not path.is_file():
            raise ImageError("this is no regular file", file=path, remedy="copy the image itself there")
        if not path.name.isprintable():
            raise ImageError("the name holds characters that are no text", file=path, remedy="rename the file")
    return paths


def files_by_id(folder: Path, ending: str = "", error: type[LesionError] = CatalogError) -> dict[str, Path]:
    """Image files of ``folder`` by id: the stem without ``ending`` (any case); a stem without it, or twice, fails."""
    found: dict[str, Path] = {}
    strange, twice = [], []
    for path in list_files(folder):
        stem = path.stem
        if ending and not stem.lower().endswith(ending.lower()):
            strange.append(path.name)
            continue
        image_id = stem[: len(stem) - len(ending)]
        if image_id in found:
            twice.append(image_id)
        found[image_id] = path
    if strange:
        raise error(f"files whose name does not end in {ending}", file=folder, ids=strange, remedy=REMEDY)
    if twice:
        raise error("several files have the same id", file=folder, ids=twice, remedy="keep one of them")
    return found


def one_path(folder: Path, name: str) -> Path:
    """The only file or folder called ``name`` in ``folder`` or below; CatalogError if none or several."""
    found = sorted(path for path in folder.rglob(name) if "__MACOSX" not in path.parts)
    # An archive's own folder may bear the name of the file within.
    if len(found) != 1:
        raise CatalogError(
            f"{'no' if not found else 'more than one'} {name} in the dataset's folder",
            file=folder,
            ids=[path.relative_to(folder).as_posix() for path in found],
            remedy=REMEDY,
        )
    return found[0]


def read_table(
    path: Path, required: Sequence[str], optional: Sequence[str] = (), *, key: str
) -> dict[str, dict[str, str]]:
    """A CSV's rows by the column ``key``, cells stripped.

    Raises:
        CatalogError: missing, unknown or doubled columns, rows of another length, an empty or doubled key.
    """
    try:
        _require_plain(path)
        rows = read_csv(path, ragged=True)
        header = header_of(path)
    except (OSError, ValueError) as error:
        said = error.message if isinstance(error, LesionError) else error
        raise CatalogError(f"the table cannot be read ({said})", file=path, remedy=REMEDY) from error
    missing = [name for name in required if name not in header]
    unknown = [name for name in header if name not in (*required, *optional)]
    doubled = [name for name, count in Counter(header).items() if count > 1]
    for names, what in ((missing, "missing"), (unknown, "unknown"), (doubled, "doubled")):
        if names:
            expected = ", ".join(required) + (f" (optional: {', '.join(optional)})" if optional else "")
            raise CatalogError(f"{what} columns", file=path, ids=names, remedy=f"the columns must be {expected}")
    # csv puts surplus cells under None, and None in place of absent ones.
    ragged = [str(row[key]) for row in rows if None in row or None in row.values()]
    if ragged:
        raise CatalogError("rows with too few or too many cells", file=path, ids=ragged, remedy=REMEDY)
    clean = [{name: cell.strip() for name, cell in row.items()} for row in rows]
    counts = Counter(row[key] for row in clean)
    if "" in counts:
        raise CatalogError(f"a row has no {key}", file=path, remedy=REMEDY)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        raise CatalogError("ids that stand in several rows", file=path, ids=repeated, remedy="keep one row for each")
    return {row[key]: row for row in clean}


def one_hot_labels(table: Mapping[str, Mapping[str, str]], columns: Sequence[str], path: Path) -> dict[str, str]:
    """The column that is 1 in each row; CatalogError unless one cell is 1 and all others are 0."""
    labels, wrong = {}, []
    for image_id, row in table.items():
        try:
            values = [float(row[name]) for name in columns]
        except ValueError:
            values = []
        if sorted(values) == [0.0] * (len(columns) - 1) + [1.0]:
            labels[image_id] = columns[values.index(1.0)]
        else:
            wrong.append(image_id)
    if wrong:
        raise CatalogError("rows that do not name exactly one class", file=path, ids=wrong, remedy=REMEDY)
    return labels


def require_same_ids(images: Iterable[str], labels: Iterable[str], folder: Path, table: Path) -> None:
    """CatalogError unless every image has a row and every row an image."""
    images, labels = set(images), set(labels)
    if images - labels:
        raise CatalogError(
            f"images without a row in {table.name}",
            file=folder,
            ids=sorted(images - labels),
            remedy="add their rows or remove the images",
        )
    if labels - images:
        raise CatalogError(
            "rows without an image", file=table, ids=sorted(labels - images), remedy="add the images or remove the rows"
        )


def require_images_of_masks(masks: Iterable[str], images: Iterable[str], folder: Path) -> None:
    """MaskError unless every mask has an image."""
    alone = sorted(set(masks) - set(images))
    if alone:
        raise MaskError("masks without an image", file=folder, ids=alone, remedy="add the images or remove the masks")


def require_masks_of_images(images: Iterable[str], masks: Iterable[str], folder: Path) -> None:
    """MaskError unless every image has a mask."""
    alone = sorted(set(images) - set(masks))
    if alone:
        raise MaskError("images without a mask", file=folder, ids=alone, remedy="add the masks or remove the images")


def text_or_none(cell: str) -> str | None:
    """A cell's text; None where the release says nothing or "unknown"."""
    return None if cell.strip().lower() in MISSING else cell.strip()


def parse_age(cell: str, image_id: str, path: Path) -> float | None:
    """Years in [0, 120], None if missing; CatalogError otherwise."""
    if text_or_none(cell) is None:
        return None
    plain = re.fullmatch(r"\d+(\.\d+)?", cell.strip())
    if plain is None or float(cell) > MAX_AGE:
        raise CatalogError(f"{cell!r} is no age in years", file=path, ids=[image_id], remedy=REMEDY)
    return float(cell)


def parse_sex(cell: str, image_id: str, path: Path) -> str | None:
    """``male``, ``female`` or None if missing; CatalogError otherwise."""
    if text_or_none(cell) is None:
        return None
    if cell.strip().lower() not in SEXES:
        raise CatalogError(f"{cell!r} is neither male nor female", file=path, ids=[image_id], remedy=REMEDY)
    return SEXES[cell.strip().lower()]


def _require_plain(path: Path) -> None:
    """CatalogError for what spreadsheets save in place of UTF-8 with commas; nothing is guessed."""
    if path.exists() and not path.is_file():
        raise CatalogError("the table is no regular file", file=path, remedy="give the CSV itself")
    with open(path, "rb") as handle:
        first = handle.read(1 << 16).split(b"\n", 1)[0]
    if first.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in first:
        raise CatalogError("the table is UTF-16, not UTF-8", file=path, remedy="save it as CSV in UTF-8")
    found = {"semicolons": b";", "tabs": b"\t"}
    if first.lower().startswith(b"sep="):
        raise CatalogError(
            "the table begins with a line sep=", file=path, remedy="take that line out, and save it with commas"
        )
    if other := [name for name, sign in found.items() if sign in first and b"," not in first]:
        raise CatalogError(
            f"its cells are parted by {other[0]}, not commas", file=path, remedy="save it as CSV with commas, in UTF-8"
        )


def header_of(path: Path) -> list[str]:
    """A table's column names as they stand."""
    with open(path, encoding="utf-8-sig", newline="") as handle:
        return next(csv.reader(handle), [])
