"""IMA++: masks of one ISIC image by several annotators, and the published tables of how well they agree.

Abhishek, Kawahara, Hamarneh, arXiv 2512.21472; doi 10.5281/zenodo.14201692. It has no images, and so is no dataset
of the settings.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from lesion_core.acquire.images import read_mask
from lesion_core.acquire.readers.rows import REMEDY
from lesion_core.errors import CatalogError, MaskError
from lesion_core.files import read_csv
from lesion_core.metrics.segmentation import confusion, dice, iou

FOLDER = "imaplusplus"  # in a mirror
IMAGES = "IMAplusplus_multiannotator_subset_image_level_metrics.csv"
PAIRS = "IMAplusplus_multiannotator_subset_IAA_metrics.csv"
MASKS = "IMAplusplus_multiannotator_subset_seg_metadata.csv"
CONSENSUS = {"ST", "MV"}  # masks of STAPLE and of the majority stand among the annotators'


@dataclass(frozen=True)
class Agreement:
    """How well the annotators of one image agree.

    Attributes:
        image_id: ISIC's.
        pairs: pairs of people's masks; None where the tables do not say.
        dice, iou: mean over pairs, 0..1.
        pair_dice: each pair's Dice, sorted; empty where the tables have the mean alone.
    """

    image_id: str
    pairs: int | None
    dice: float
    iou: float
    pair_dice: tuple[float, ...] = ()

    @classmethod
    def of(cls, image_id: str, scores: Iterable[tuple[float, float]]) -> Agreement:
        """From (Dice, IoU) of every pair."""
        dices, ious = zip(*scores, strict=True)
        return cls(image_id, len(dices), float(np.mean(dices)), float(np.mean(ious)), tuple(sorted(dices)))


def read_agreements(folder: Path) -> list[Agreement]:
    """Agreement on each image from the published tables in ``folder``, sorted by id.

    The table of pairs where it is there; else that of images, with the number of pairs from the table of masks.

    Raises:
        CatalogError: none of the two, a column is missing, a number is none of 0..1, or two tables name other images.
    """
    if (folder / PAIRS).is_file():
        return read_pairs(folder / PAIRS)
    pairs = None
    if (folder / MASKS).is_file():
        counts = Counter(image_id for image_id, _ in read_masks(folder / MASKS))
        pairs = {image_id: math.comb(count, 2) for image_id, count in counts.items()}
    return read_images(folder / IMAGES, pairs)


def read_images(path: Path, pairs: dict[str, int] | None = None) -> list[Agreement]:
    """The table of images: mean Dice and IoU over pairs. ``pairs``: how many each image has, where that is known.

    Without ``pairs``, an image whose Dice has no SD has one pair, of others it is not known.
    """
    found: dict[str, Agreement] = {}
    for row in _rows(path, ("img_id", "dice_score_mean", "dice_score_std", "jaccard_score_mean")):
        image_id = _image_id(row["img_id"])
        if image_id in found or (pairs is not None and image_id not in pairs):
            what = "an image that stands twice" if image_id in found else f"an image that {MASKS} does not have"
            raise CatalogError(what, file=path, ids=[image_id], remedy=REMEDY)
        means = [_share(row[name], image_id, path) for name in ("dice_score_mean", "jaccard_score_mean")]
        count = pairs[image_id] if pairs is not None else None if row["dice_score_std"].strip() else 1
        found[image_id] = Agreement(image_id, count, means[0], means[1], (means[0],) if count == 1 else ())
    if lacking := sorted((pairs or {}).keys() - found.keys()):
        raise CatalogError(f"images of {MASKS} are missing", file=path, ids=lacking, remedy=REMEDY)
    return _sorted(found, path)


def read_pairs(path: Path) -> list[Agreement]:
    """The table of pairs; those with a consensus are left out."""
    scores: dict[str, list[tuple[float, float]]] = {}
    for row in _rows(path, ("img_id", "annotator1", "annotator2", "dice_score", "jaccard_score")):
        if not CONSENSUS & {row["annotator1"], row["annotator2"]}:
            image_id = _image_id(row["img_id"])
            pair = (_share(row["dice_score"], image_id, path), _share(row["jaccard_score"], image_id, path))
            scores.setdefault(image_id, []).append(pair)
    return _sorted({image_id: Agreement.of(image_id, own) for image_id, own in scores.items()}, path)


def read_masks(path: Path) -> list[tuple[str, str]]:
    """(image_id, file name) of every mask that a person drew; CatalogError for a table without these columns."""
    rows = _rows(path, ("ISIC_id", "seg_filename", "annotator"))
    return [(row["ISIC_id"], row["seg_filename"]) for row in rows if row["annotator"] not in CONSENSUS]


def score_masks(table: Path, folder: Path) -> list[Agreement]:
    """Agreement from the masks themselves (``segs.zip`` unpacked into ``folder``), by the rules of our scores.

    Two empty masks agree (1.0). Images of one mask are left out.

    Raises:
        CatalogError: the table of masks cannot be read.
        MaskError: a mask is missing or damaged, or an image's masks have different sizes.
    """
    files: dict[str, list[str]] = {}
    for image_id, name in read_masks(table):
        files.setdefault(image_id, []).append(name)
    several = {image_id: names for image_id, names in files.items() if len(names) > 1}
    if lacking := sorted(name for names in several.values() for name in names if not (folder / name).is_file()):
        raise MaskError("masks are missing", file=folder, ids=lacking, remedy="unpack IMA++'s segs.zip there")
    found = {}
    for image_id, names in several.items():
        masks = [read_mask(folder / name) for name in names]
        if len({mask.shape for mask in masks}) > 1:
            raise MaskError("an image's masks have different sizes", file=folder, ids=names, remedy=REMEDY)
        counts = [confusion(*pair) for pair in combinations(masks, 2)]
        found[image_id] = Agreement.of(image_id, [(float(dice(own)), float(iou(own))) for own in counts])
    return _sorted(found, table)


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    if not path.is_file():
        raise CatalogError("IMA++'s table is missing", file=path, remedy="docs/evidence.md says where it is published")
    rows = read_csv(path)
    if missing := [name for name in columns if not rows or name not in rows[0]]:
        raise CatalogError("missing columns", file=path, ids=missing, remedy=REMEDY)
    return rows


def _image_id(name: str) -> str:
    return Path(name).stem


def _share(cell: str, image_id: str, path: Path) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise CatalogError(f"{cell!r} is no share of 0 to 1", file=path, ids=[image_id], remedy=REMEDY)
    return value


def _sorted(found: dict[str, Agreement], path: Path) -> list[Agreement]:
    if not found:
        raise CatalogError("no image with two annotators", file=path, remedy=REMEDY)
    return [found[image_id] for image_id in sorted(found)]
