"""Combinations across sections of the settings that no single section can see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from lesion_core.errors import SettingsError
from lesion_core.settings import (
    ClassificationMethod,
    DerivedMethod,
    JointMethod,
    Method,
    SegmentationMethod,
    SegmentationModel,
    Settings,
)
from lesion_core.settings.as_published import SUFFIX
from lesion_core.settings.matrix import closure, needs, seeds

WITH_MASKS = ("isic2016", "isic2017", "isic2018_task1", "ph2", "ham10000", "custom")
WITH_LABELS = ("isic2018_task3", "isic2019", "ham10000", "custom")


class Problems(dict[str, None]):
    """What is wrong, each once, in the order found."""

    def expect(self, condition: bool, key: str, text: str) -> None:
        if not condition:
            self[f"{key}: {text}"] = None

    def expect_among(self, names: Iterable[str], known: Iterable[str], key: str, text: str) -> None:
        for name in set(names) - set(known):
            self.expect(False, key, f"'{name}' {text} ({', '.join(sorted(known))})")


def check(settings: Settings) -> None:
    """Check combinations across sections that no single section can see.

    Raises:
        SettingsError: naming the keys and what is allowed.
    """
    problems, methods, matrix = Problems(), settings.methods, settings.matrix
    _check_data(settings, problems)
    for key, names in {"matrix.methods": matrix.methods, "matrix.ablations": matrix.ablations}.items():
        problems.expect_among(names, methods, key, "is none of methods")
    for name in set(matrix.ablations) & set(matrix.methods):
        problems.expect(False, "matrix.ablations", f"'{name}' stands in matrix.methods too")
    problems.expect_among(settings.names, methods, "names", "is none of methods")
    called = Counter(settings.names.values())
    for name, text in settings.names.items():
        problems.expect(called[text] == 1, f"names.{name}", f"'{text}' is another method's name too")
    for name, asked in matrix.seeds_for.items():
        key = f"matrix.seeds_for.{name}"
        # under a paper's own split a method exists only where the matrix has it
        problems.expect(name in methods or name.removesuffix(SUFFIX) in methods, key, "is none of methods")
        problems.expect(set(asked) <= set(matrix.seeds), key, f"must be among matrix.seeds ({matrix.seeds})")
    _check_extras(settings, problems)
    found: list[str] = []
    for name in closure(settings, found):
        _check_method(settings, name, methods[name], problems)
    if problems or found:
        raise SettingsError(
            "Settings refused:\n    " + "\n    ".join(dict.fromkeys([*problems, *found])),
            file="params.yaml",
            remedy="each key is explained in params.yaml",
        )


def _check_data(settings: Settings, problems: Problems) -> None:
    present, scoring = settings.data.datasets, settings.scoring
    problems.expect(
        ("custom" in present) == (settings.data.custom is not None),
        "data.custom",
        "must be set exactly when data.datasets lists custom",
    )
    problems.expect(
        settings.profile != "smoke" or settings.synthetic is not None,
        "synthetic",
        "the smoke profile makes its own images and needs this section",
    )
    for key, names in (
        ("scoring.segmentation_on", scoring.segmentation_on),
        ("scoring.classification_on", scoring.classification_on),
    ):
        problems.expect_among(names, present, key, "is not in data.datasets")


def _check_extras(settings: Settings, problems: Problems) -> None:
    """What is looked at beside the scores needs methods that have it."""
    for name in settings.explain.methods:
        method = settings.methods.get(name)
        own = method is not None and not isinstance(method, DerivedMethod)
        text = f"'{name}' is no method with a network of its own (an average has several: explain what it averages)"
        problems.expect(own, "explain.methods", text)
        padded = isinstance(method, SegmentationMethod) and method.model.frame == "padded"
        text = f"'{name}' has SAM's frame, and maps are of images that were resized without preserving aspect ratio"
        problems.expect(not padded, "explain.methods", text)
    for name in settings.subgroups.methods:
        scored = name in settings.methods and not isinstance(settings.methods[name], SegmentationMethod)
        problems.expect(scored, "subgroups.methods", f"'{name}' is no method that classifies")
    for name in settings.robustness.methods:
        reached = _is_reached(settings.methods.get(name))
        problems.expect(reached, "robustness.methods", f"'{name}' is no classifier with masks of its own")


def _check_method(settings: Settings, name: str, method: Method, problems: Problems) -> None:
    if isinstance(method, DerivedMethod):
        if not set(method.of) <= set(settings.methods):
            return  # told by closure
        lone = method.of_seeds and len(seeds(settings, method.of[0])) < 2
        text = f"'{method.of[0]}' has one seed, and one run is no ensemble: take '{name}' out of matrix.methods"
        problems.expect(not lone, f"methods.{name}.of", text)
        for member in method.of:
            has = set(seeds(settings, name)) <= set(seeds(settings, member))
            problems.expect(has, f"matrix.seeds_for.{name}", f"'{member}' is not run with all of these seeds")
        return
    homes = settings.homes
    own = homes.pixels(method.protocol, method.rule)
    for key, needed, _ in needs(settings, name):
        other = settings.methods.get(needed)
        if other is not None:
            theirs = homes.pixels(other.protocol, other.rule)
            alike = theirs == own if isinstance(method, JointMethod) else homes.splits(theirs) == homes.splits(own)
            text = f"'{needed}' sees {theirs}, and this method {own}: take one of the same protocol and rule"
            problems.expect(alike, f"methods.{name}.{key}", text)
        segmenter = settings.methods.get(needed)
        if isinstance(segmenter, SegmentationMethod):
            _check_prompt(method, f"methods.{name}.{key}", needed, segmenter.model, problems)
    key = f"methods.{name}.train_on"
    problems.expect_among(method.train_on, settings.data.datasets, key, "is not in data.datasets")
    allowed = WITH_MASKS if isinstance(method, SegmentationMethod) else WITH_LABELS
    problems.expect_among(method.train_on, allowed, key, f"cannot train a {method.task} method; allowed:")
    if isinstance(method, JointMethod) and method.segmentation_from == "labelled_images":
        problems.expect_among(method.train_on, WITH_MASKS, key, "has no true masks for segmentation_from; allowed:")


def _is_reached(method: Method | None) -> bool:
    """Whether a corruption of an image reaches all that the method sees; true and shuffled masks stay the same."""
    if isinstance(method, ClassificationMethod):
        return method.masks != "true" and method.mask_order == "own"
    return isinstance(method, JointMethod)


def _check_prompt(method: Method, key: str, name: str, model: SegmentationModel, problems: Problems) -> None:
    """A segmenter gets the prompts that it learnt with."""
    learnt = f"'{name}' learnt with {model.prompt}, and"
    if isinstance(method, JointMethod):
        problems.expect(model.prompt == "none", key, f"{learnt} joint training gives no prompts")
    else:
        text = f"{learnt} clicks cannot be provided for pseudo-masks: take one with prompt none or oracle_box"
        problems.expect(model.unaided_prompt is not None, key, text)
