"""Classes for single images of any size, with the probability map of a segmenter as mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.acquire.readers.custom import OPTIONAL
from lesion_core.acquire.readers.rows import parse_age, parse_sex, read_table, text_or_none
from lesion_core.catalog.metadata import FIELDS, MetadataVocabulary
from lesion_core.errors import CatalogError
from lesion_core.inference.segments import Classifies, Classify
from lesion_core.metrics.calibration import log_probabilities, softmax
from lesion_core.pixels.harmonize import harmonize_image
from lesion_core.progress import say
from lesion_core.settings import CLASSES

UNKNOWN: Mapping[str, Any] = dict.fromkeys(FIELDS)


def image_classifier(
    classifier: Classifies,
    *,
    metadata: Path | None = None,
    image_ids: Sequence[str] = (),
    segmenter_run: str | None = None,
) -> Classify:
    """What classifies an image as the scoring stage does: ``predicted``, ``p_<class>``, ``temperature`` and
    ``calibrated_<class>``.

    ``p_<class>`` are the network's own probabilities, those of the score store; ``calibrated_<class>`` are
    softmax(log p / temperature), with the temperature that scoring fitted to validation images; blank where the run was
    not scored.

    Args:
        classifier: a `classify.RunClassifier`, or an exported one.
        metadata: CSV with the columns image_id (the image's name without ending), age (years), sex and site, for
            a classifier that reads them; an empty cell, or no line: unknown.
        image_ids: the images' names without ending; no other may stand in ``metadata``.
        segmenter_run: id of the run that makes the masks; it is told if the classifier learnt on another's.

    Raises:
        CatalogError: see ``read_metadata`` and ``check_categories``.
    """
    vocabulary, temperature, run = classifier.vocabulary, classifier.temperature, classifier.run
    known: dict[str, dict[str, Any]] = {}
    if metadata is not None:
        known = read_metadata(metadata, image_ids)
        if vocabulary is None:
            say(f"the classifier reads no age, sex or site: {metadata} changes nothing")
        else:
            check_categories(known, vocabulary, metadata)
        if silent := sorted(set(image_ids) - set(known)):
            say(f"{len(silent)} of {len(image_ids)} images have no row in {metadata}: no age, sex or site")
    if temperature is None:
        say("the classifier was not scored, so it has no temperature: the columns calibrated_<class> stay blank")
    if metadata is None and vocabulary is not None:
        say("the classifier reads age, sex and site, and none were given (--metadata): they count as unknown")
    if (
        classifier.needs_masks
        and classifier.learnt_on is not None
        and segmenter_run not in (None, classifier.learnt_on)
    ):
        say(f"the classifier learnt on masks of {classifier.learnt_on}; here it sees those of {segmenter_run}")

    def classify(name: str, original: np.ndarray, probability: np.ndarray) -> dict[str, Any]:
        trained_on = run.classification.train_on
        pixels = harmonize_image(original, classifier.size, classifier.reference, run.harmonization, trained_on)
        soft = np.round(probability * 255).astype(np.uint8)[None] if classifier.needs_masks else None
        codes = None if vocabulary is None else vocabulary.encode([known.get(name, UNKNOWN)])
        values = classifier.probabilities(pixels[None], soft, codes)
        calibrated: list[Any] = [""] * len(CLASSES)
        if temperature is not None:
            calibrated = [round(float(value), 6) for value in softmax(log_probabilities(values), temperature)[0]]
        return {
            "predicted": CLASSES[int(np.argmax(values[0]))],
            **{f"p_{label}": round(float(value), 6) for label, value in zip(CLASSES, values[0], strict=True)},
            "temperature": "" if temperature is None else round(temperature, 6),
            **{f"calibrated_{label}": value for label, value in zip(CLASSES, calibrated, strict=True)},
        }

    return classify


def read_metadata(path: Path, image_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Age (float, years), sex and site by image id, None where unknown; read as the catalog reads them.

    Args:
        path: CSV with the columns of a dataset of one's own; image_id, age, sex and site must be there.
        image_ids: of the images that the rows may speak of.

    Raises:
        CatalogError: a row of no image, an image in two rows, or a value that is no age or no sex.
    """
    table = read_table(path, ("image_id", *FIELDS), OPTIONAL, key="image_id")
    if strange := sorted(set(table) - set(image_ids)):
        raise CatalogError(
            "Rows of images that are not in the folder",
            file=path,
            ids=strange,
            remedy="image_id is an image's file name without its ending; take the rows of other images out",
        )
    return {
        name: {
            "age": parse_age(row["age"], name, path),
            "sex": parse_sex(row["sex"], name, path),
            "site": text_or_none(row["site"]),
        }
        for name, row in table.items()
    }


def check_categories(known: Mapping[str, Mapping[str, Any]], vocabulary: MetadataVocabulary, path: Path) -> None:
    """Refuse a sex or site that no training image has: the classifier would take it for unknown.

    Raises:
        CatalogError: naming the images, and what the classifier knows.
    """
    for field, learnt in (("sex", vocabulary.sexes), ("site", vocabulary.sites)):
        strange = {name: row[field] for name, row in known.items() if row[field] not in (None, *learnt)}
        if strange:
            raise CatalogError(
                f"The classifier did not learn the {field} {', '.join(map(repr, sorted(set(strange.values()))))}",
                file=path,
                ids=sorted(strange),
                remedy=f"leave the cell empty, or give one of: {', '.join(learnt) or 'none'}",
            )
