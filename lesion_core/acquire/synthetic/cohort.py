"""Patients and their images: synthetic lesions, ids and metadata with HAM10000's proportions and gaps."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from lesion_core import settings
from lesion_core.acquire.synthetic.lesion import Lesion, make_lesion
from lesion_core.errors import SettingsError
from lesion_core.seeding import generator

# Images per class of HAM10000 (Tschandl et al., Sci Data 5:180161, 2018, table 1), order of settings.CLASSES.
FREQUENCIES = (327, 514, 1099, 115, 1113, 6705, 142)
MINIMUM_LESIONS = 6
FIRST_ID, LAST_ID = 24306, 34320  # the range of HAM10000's ISIC numbers
FIRST_TEST_ID = 35068  # the test image to which the challenge gives no weight
# Of the ISIC 2018 Task 1 images: also in HAM10000 under the same id; of a HAM10000 lesion under another id.
SHARED_IMAGES, SHARED_LESIONS = 0.07, 0.06
CONFIRMED = {
    "akiec": {"histo": 1.0},
    "bcc": {"histo": 1.0},
    "bkl": {"histo": 0.72, "consensus": 0.23, "confocal": 0.05},
    "df": {"histo": 0.4, "consensus": 0.6},
    "mel": {"histo": 1.0},
    "nv": {"histo": 0.35, "follow_up": 0.57, "consensus": 0.08},
    "vasc": {"histo": 0.4, "consensus": 0.6},
}
SITES = {
    "back": 0.22,
    "lower extremity": 0.2,
    "trunk": 0.14,
    "upper extremity": 0.11,
    "abdomen": 0.09,
    "face": 0.07,
    "chest": 0.04,
    "foot": 0.03,
    "neck": 0.02,
    "scalp": 0.015,
    "hand": 0.01,
    "genital": 0.005,
    "ear": 0.005,
    "acral": 0.005,
    "unknown": 0.04,
}
MEAN_AGE = {"akiec": 67, "bcc": 67, "bkl": 64, "df": 52, "mel": 61, "nv": 46, "vasc": 51}


@dataclass(frozen=True)
class Case:
    """One synthetic lesion with its patient's data; texts as in HAM10000_metadata.csv (an unknown age is "")."""

    lesion_id: str
    lesion: Lesion
    dx_type: str
    age: str
    sex: str
    site: str


@dataclass(frozen=True)
class Shot:
    """One image: its id, its case and its seed number within the collection."""

    image_id: str
    case: Case
    number: int


@dataclass(frozen=True)
class Cohort:
    """Images by archive, sorted by image id; ``ham`` and ``task3`` share shots, ``task1`` a few, the tests none."""

    ham: list[Shot]
    task1: list[Shot]
    task3: list[Shot]
    task1_test: list[Shot]
    task3_test: list[Shot]


def class_counts(lesions: int) -> list[int]:
    """Lesions per class: HAM10000's proportions, at least 6 of each where ``lesions`` allows it."""
    floor = min(MINIMUM_LESIONS, lesions // len(FREQUENCIES))
    share = np.array(FREQUENCIES) / sum(FREQUENCIES)
    counts = np.maximum(floor, np.floor(share * lesions).astype(int))
    while counts.sum() > lesions:
        counts[int(np.argmax(counts))] -= 1
    counts[settings.CLASSES.index("nv")] += lesions - counts.sum()
    return counts.tolist()


def make_cohort(chosen: settings.Synthetic) -> Cohort:
    """Lesions, patients and ids for one mirror; depends on ``chosen`` alone.

    Raises:
        SettingsError: more images are asked for than there are ids.
    """
    rng = generator(chosen.seed, "cohort")
    cases = [
        label
        for label, count in zip(settings.CLASSES, class_counts(chosen.ham10000_lesions), strict=True)
        for _ in range(count)
    ]
    own = max(1, round(SHARED_IMAGES * chosen.isic2018_task1))
    siblings = max(1, round(SHARED_LESIONS * chosen.isic2018_task1))
    fresh = max(0, chosen.isic2018_task1 - own - siblings)
    further = rng.choice(len(FREQUENCIES), fresh, p=np.array(FREQUENCIES) / sum(FREQUENCIES))
    labels = cases + [settings.CLASSES[int(i)] for i in further]
    in_ham = max(len(cases), round(chosen.ham10000_lesions * chosen.images_per_lesion))
    needed = in_ham + chosen.isic2018_task1
    if needed > LAST_ID - FIRST_ID:
        raise SettingsError(
            f"{needed} synthetic images are asked for, but there are only {LAST_ID - FIRST_ID} ids",
            remedy="lower synthetic.ham10000_lesions, images_per_lesion or isic2018_task1",
        )
    lesion_ids = rng.choice(8000, len(labels), replace=False)
    people = [_case(chosen.seed, i, label, int(lesion_ids[i])) for i, label in enumerate(labels)]

    ham_owner = list(range(len(cases))) + rng.integers(0, len(cases), in_ham - len(cases)).tolist()
    # A lesion has at most a handful of images in HAM10000: siblings come from all lesions alike.
    sibling_owner = rng.integers(0, len(cases), siblings).tolist()
    fresh_owner = list(range(len(cases), len(labels)))
    owners = ham_owner + sibling_owner + fresh_owner
    numbers = FIRST_ID + rng.choice(LAST_ID - FIRST_ID + 1, len(owners), replace=False)
    shots = [Shot(f"ISIC_{numbers[i]:07d}", people[owner], i) for i, owner in enumerate(owners)]
    ham, apart = shots[:in_ham], shots[in_ham:]
    shared = [ham[i] for i in rng.choice(in_ham, min(own, in_ham), replace=False)]
    task1 = (shared + apart)[: chosen.isic2018_task1]
    subset = rng.choice(in_ham, min(chosen.isic2018_task3, in_ham), replace=False)
    tests = [
        Shot(f"ISIC_{FIRST_TEST_ID + i:07d}", _case(chosen.seed, len(labels) + i, label, 8000 + i), len(owners) + i)
        for i, label in enumerate(islice(cycle(settings.CLASSES), 2 * chosen.official_test))
    ]
    return Cohort(
        task3_test=tests[: chosen.official_test],
        task1_test=tests[chosen.official_test :],
        ham=_by_id(ham),
        task1=_by_id(task1),
        task3=_by_id([ham[i] for i in subset]),
    )


def _by_id(shots: list[Shot]) -> list[Shot]:
    return sorted(shots, key=lambda shot: shot.image_id)


def _case(seed: int, number: int, label: str, lesion_id: int) -> Case:
    rng = generator(seed, "case", number)
    age = int(np.clip(5 * round(rng.normal(MEAN_AGE[label], 15) / 5), 0, 85))
    confirmed = CONFIRMED[label]
    return Case(
        lesion_id=f"HAM_{lesion_id:07d}",
        lesion=make_lesion(rng, label),
        dx_type=str(rng.choice(list(confirmed), p=list(confirmed.values()))),
        age="" if rng.random() < 0.04 else f"{age}.0",
        sex=str(rng.choice(["male", "female", "unknown"], p=[0.55, 0.42, 0.03])),
        site=str(rng.choice(list(SITES), p=np.array(list(SITES.values())) / sum(SITES.values()))),
    )
