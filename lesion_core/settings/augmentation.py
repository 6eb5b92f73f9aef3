"""Random changes of a training sample: an albumentations pipeline, as settings name its transforms."""

from __future__ import annotations

import json
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, JsonValue

# The names of albumentations 2.0.8, the pinned and last version under the MIT licence, and of our Warp. They stand in
# a file since importing albumentations takes two seconds (it imports torch); a test compares the two.
DATA_FILES = ("settings/transforms.json",)
TRANSFORMS: dict[str, list[str]] = json.loads(Path(__file__).with_name("transforms.json").read_text(encoding="utf-8"))


def check_transform(entry: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Check the names of a transform and its parameters; their values are checked where the pipeline is built.

    Args:
        entry: ``transform``, its name, and its parameters; OneOf and the like have ``transforms``, a list of such.

    Raises:
        ValueError: a name is unknown.
    """
    name = str(entry.get("transform"))
    if name not in TRANSFORMS:
        raise ValueError(f"transform: {name} is no transform of albumentations{_meant(name, TRANSFORMS)}")
    for key in entry.keys() - {"transform"}:
        if key not in TRANSFORMS[name]:
            raise ValueError(f"{name} has no parameter {key}{_meant(key, TRANSFORMS[name])}")
    nested = entry.get("transforms", [])
    for part in nested if isinstance(nested, list) else [nested]:
        if not isinstance(part, dict):
            raise ValueError(f"{name}.transforms must be a list of transforms")
        check_transform(part)
    return entry


def _meant(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = get_close_matches(name, known, cutoff=0.5) or known[:20]
    return f"; use {', '.join(close)}"


Augmentation = list[Annotated[dict[str, JsonValue], AfterValidator(check_transform)]]
