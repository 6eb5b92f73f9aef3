"""PH2: full-size images, masks, and a text table whose columns stand between double pipes."""

from __future__ import annotations

import re
from pathlib import Path

from lesion_core.acquire.readers.rows import (
    REMEDY,
    Row,
    one_path,
    require_images_of_masks,
    require_masks_of_images,
    require_same_ids,
)
from lesion_core.errors import CatalogError

TABLE = "PH2_dataset.txt"
IMAGES = "PH2 Dataset images"
HEADER = (
    "Name",
    "Histological Diagnosis",
    "Clinical Diagnosis",
    "Asymmetry",
    "Pigment Network",
    "Dots/Globules",
    "Streaks",
    "Regression Areas",
    "Blue-Whitish Veil",
    "Colors",
)
# Common and atypical nevi are both nevi among the seven classes.
LABELS = {"0": "nv", "1": "nv", "2": "mel"}
CASE = re.compile(r"IMD\d+")
LEGEND = re.compile(r"\s*(Legends for .*|\S+\s+-\s+.*)?")
LICENCE = "research and education only, no redistribution"


def read(dataset: str, folder: Path) -> list[Row]:
    """Rows of all cases.

    Raises:
        CatalogError: the table is not as released, or cases and rows do not match.
        MaskError: an image without its mask, or a mask without its image.
    """
    table_path = one_path(folder, TABLE)
    labels = read_labels(table_path)
    top = one_path(folder, IMAGES)
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for case in sorted(path for path in top.iterdir() if path.is_dir() and not path.name.startswith(".")):
        image = case / f"{case.name}_Dermoscopic_Image" / f"{case.name}.bmp"
        mask = case / f"{case.name}_lesion" / f"{case.name}_lesion.bmp"
        if image.is_file():
            images[case.name] = image
        if mask.is_file():
            masks[case.name] = mask
        if not image.is_file() and not mask.is_file():
            raise CatalogError("a case without image and mask", file=case, ids=[case.name], remedy=REMEDY)
    require_images_of_masks(masks, images, top)
    require_masks_of_images(images, masks, top)
    require_same_ids(images, labels, top, table_path)
    return [
        Row(
            dataset=dataset,
            image_id=image_id,
            path=path,
            licence=LICENCE,
            label=labels[image_id],
            mask_path=masks[image_id],
        )
        for image_id, path in sorted(images.items())
    ]


def read_labels(path: Path) -> dict[str, str]:
    """Labels by case from PH2_dataset.txt; CatalogError for any line that is neither header, case nor legend."""
    labels: dict[str, str] = {}
    header_seen = False
    try:
        lines = path.read_text(encoding="latin-1").splitlines()
    except OSError as error:
        raise CatalogError(f"the table cannot be read ({error})", file=path, remedy=REMEDY) from error
    for number, line in enumerate(lines, start=1):
        if not line.lstrip().startswith("||"):
            if not LEGEND.fullmatch(line):
                raise CatalogError(f"line {number} is no header, case or legend: {line!r}", file=path, remedy=REMEDY)
            continue
        cells = [cell.strip() for cell in re.split(r"\|{1,2}", line.strip().removeprefix("||").removesuffix("||"))]
        if not header_seen:
            if tuple(cells) != HEADER:
                raise CatalogError(
                    "the header is not as released", file=path, ids=cells, remedy=f"expected {' | '.join(HEADER)}"
                )
            header_seen = True
            continue
        case = cells[0]
        if len(cells) != len(HEADER) or not CASE.fullmatch(case) or cells[2] not in LABELS:
            raise CatalogError(f"line {number} is not a case as released: {line!r}", file=path, remedy=REMEDY)
        if case in labels:
            raise CatalogError("a case stands in two rows", file=path, ids=[case], remedy="keep one row")
        labels[case] = LABELS[cells[2]]
    if not labels:
        raise CatalogError("the table has no cases", file=path, remedy=REMEDY)
    return labels
