"""Clinical metadata as numbers: age, sex and site, each with a value of its own for "unknown"."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lesion_core.errors import WeightsError
from lesion_core.files import canonical_json

FIELDS = ("age", "sex", "site")
NO_AGE = -1.0
NO_CATEGORY = 0
LEAST_SD = 1.0  # years: a training set of one age must not divide by 0


@dataclass(frozen=True)
class MetadataVocabulary:
    """What a metadata encoder knows of age, sex and site: learnt from training images, and from no other.

    Attributes:
        sexes, sites: the categories that training images have, sorted; code 0 is "unknown", category i has i + 1.
        age_mean, age_sd: of the training images' known ages, in years.
    """

    sexes: tuple[str, ...]
    sites: tuple[str, ...]
    age_mean: float
    age_sd: float

    @classmethod
    def fit(cls, training: Iterable[Mapping[str, Any]]) -> MetadataVocabulary:
        """From index records (keys age, sex, site; None where unknown) of training images alone.

        Raises:
            ValueError: a record is no training record; statistics of other images would leak.
        """
        training = list(training)
        strange = [record["image_id"] for record in training if record["split"] != "train"]
        if strange:
            raise ValueError(f"metadata statistics are learnt from training images; these are none: {strange[:5]}")
        ages = np.array([record["age"] for record in training if record["age"] is not None], np.float64)
        return cls(
            sexes=tuple(sorted({record["sex"] for record in training} - {None})),
            sites=tuple(sorted({record["site"] for record in training} - {None})),
            age_mean=float(ages.mean()) if len(ages) else 0.0,
            age_sd=max(LEAST_SD, float(ages.std())) if len(ages) else LEAST_SD,
        )

    def encode(self, records: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """float32 (N, 3): age in years (-1 if unknown), code of the sex, code of the site.

        A category that no training image has counts as unknown: nothing was learnt of it.
        """
        sexes = {name: code for code, name in enumerate(self.sexes, start=1)}
        sites = {name: code for code, name in enumerate(self.sites, start=1)}
        rows = [
            (
                NO_AGE if record["age"] is None else record["age"],
                sexes.get(record["sex"], NO_CATEGORY),
                sites.get(record["site"], NO_CATEGORY),
            )
            for record in records
        ]
        return np.array(rows, np.float32).reshape(len(rows), len(FIELDS))

    def to_bytes(self) -> np.ndarray:
        """uint8 (n,): the vocabulary as text, to be kept among a run's tensors."""
        return np.frombuffer(canonical_json(asdict(self)).encode("utf-8"), np.uint8).copy()

    @classmethod
    def from_bytes(cls, content: np.ndarray) -> MetadataVocabulary:
        """The inverse of ``to_bytes``.

        Raises:
            WeightsError: this is no vocabulary.
        """
        try:
            value = json.loads(np.asarray(content, np.uint8).tobytes().decode("utf-8"))
            return cls(tuple(value["sexes"]), tuple(value["sites"]), value["age_mean"], value["age_sd"])
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(
                f"The metadata vocabulary of a run cannot be read: {error}", remedy="train the run again"
            ) from error
