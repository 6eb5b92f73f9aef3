"""Combinations across sections of the settings that no single section can see."""

from __future__ import annotations

from typing import Any

from lesion_core.errors import SettingsError
from lesion_core.settings import SegmentationModel, Settings
from lesion_core.settings.matrix import closure, needs, seeds

PARAMS = "params.yaml"
WITH_MASKS = ("isic2016", "isic2017", "isic2018_task1", "ph2", "ham10000", "custom")
WITH_LABELS = ("isic2018_task3", "isic2019", "ham10000", "custom")


def check(settings: Settings) -> None:
    """Refuse combinations across sections that no single section can see.

    Raises:
        SettingsError: naming the key and what is allowed.
    """
    problems: list[str] = []
    methods = settings.methods
    present = set(settings.data.datasets)

    def expect(condition: bool, key: str, text: str) -> None:
        if not condition:
            problems.append(f"{key}: {text}")

    expect(
        ("custom" in present) == (settings.data.custom is not None),
        "data.custom",
        "must be set exactly when data.datasets lists custom",
    )
    for name in settings.splits.official:
        expect(name in present, "splits.official", f"'{name}' is not in data.datasets ({', '.join(sorted(present))})")
    expect(
        settings.profile != "smoke" or settings.synthetic is not None,
        "synthetic",
        "the smoke profile makes its own images and needs this section",
    )
    for key, names in (
        ("scoring.segmentation_on", settings.scoring.segmentation_on),
        ("scoring.classification_on", settings.scoring.classification_on),
    ):
        for name in names:
            expect(name in present, key, f"'{name}' is not in data.datasets ({', '.join(sorted(present))})")
    for key in ("methods", "ablations"):
        for name in getattr(settings.matrix, key):
            expect(name in methods, f"matrix.{key}", f"'{name}' is none of methods ({', '.join(sorted(methods))})")
    for name in settings.matrix.ablations:
        expect(name not in settings.matrix.methods, "matrix.ablations", f"'{name}' stands in matrix.methods too")
    expect(len(set(settings.matrix.seeds)) == len(settings.matrix.seeds), "matrix.seeds", "a seed stands twice")
    for name, asked in settings.matrix.seeds_for.items():
        key = f"matrix.seeds_for.{name}"
        expect(name in methods, key, "is none of methods")
        expect(set(asked) <= set(settings.matrix.seeds), key, f"must be among matrix.seeds ({settings.matrix.seeds})")
        expect(len(set(asked)) == len(asked), key, "a seed stands twice")
    for name in (settings.statistics.segmentation_proposed, settings.statistics.classification_proposed):
        expect(name in methods, "statistics", f"'{name}' is none of methods")
    for name in settings.explain.methods:
        expect(
            name in methods and methods[name].task != "derived",
            "explain.methods",
            f"'{name}' is no method with a network of its own (an average has several: explain what it averages)",
        )
        padded = name in methods and methods[name].task == "segmentation" and methods[name].model.frame == "padded"
        expect(not padded, "explain.methods", f"'{name}' has SAM's frame, and maps are of squeezed photographs")
    for name in settings.subgroups.methods:
        scored = name in methods and methods[name].task != "segmentation"
        expect(scored, "subgroups.methods", f"'{name}' is no method that classifies")
    for name in settings.robustness.methods:
        expect(_reached(methods.get(name)), "robustness.methods", f"'{name}' is no classifier with masks of its own")
    for table, spec in settings.tables.items():
        for row in spec.rows:
            expect(
                row.method in methods,
                f"tables.{table}.rows",
                f"'{row.method}' is none of methods",
            )
    for name in closure(settings, problems):
        method = methods[name]
        if method.task == "derived":
            lone = method.how == "ensemble" and len(seeds(settings, method.of)) < 2
            said = f"'{method.of}' has one seed, and one run is no ensemble: take '{name}' out of matrix.methods"
            expect(not lone, f"methods.{name}.of", said)
            continue
        for key, needed, task in needs(settings, name):
            if task == "segmentation" and needed in methods and methods[needed].task == task:
                expect(*_promptable(method.task, f"methods.{name}.{key}", needed, methods[needed].model))
        allowed = WITH_LABELS if method.task == "classification" else WITH_MASKS
        for dataset in method.train_on:
            expect(
                dataset in present,
                f"methods.{name}.train_on",
                f"'{dataset}' is not in data.datasets ({', '.join(sorted(present))})",
            )
            expect(
                dataset in allowed,
                f"methods.{name}.train_on",
                f"'{dataset}' cannot train a {method.task} method; allowed: {', '.join(allowed)}",
            )
    if problems:
        raise SettingsError(
            "Settings refused:\n    " + "\n    ".join(dict.fromkeys(problems)),
            file=PARAMS,
            remedy="each key is explained in params.yaml",
        )


def _reached(method: Any) -> bool:
    """Whether a corruption of a photograph reaches all that the method sees; true and shuffled masks stay the same."""
    if method is None or method.task in ("segmentation", "derived"):
        return False
    return method.task == "joint" or (method.masks != "true" and method.mask_order == "own")


def _promptable(task: str, key: str, name: str, model: SegmentationModel) -> tuple[bool, str, str]:
    """(whether a segmenter gets the prompts that it learnt with, key, what is said otherwise)."""
    if task == "joint":
        return model.prompt == "none", key, f"'{name}' learnt with {model.prompt}, and joint training gives no prompts"
    said = f"'{name}' learnt with {model.prompt}, and nobody clicks for masks: take one with prompt none or oracle_box"
    return model.unaided_prompt is not None, key, said
