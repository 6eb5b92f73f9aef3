"""The papers' numbers, read strictly from ``published.yaml`` beside this file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lesion_core.errors import SettingsError
from lesion_core.metrics.feasibility.pairs import PairVerdict, check_pair
from lesion_core.settings import DATASETS

DATA_FILES = ("papers/published.yaml",)
FILE = Path(__file__).with_name("published.yaml")
TABLES = {
    "sam_vit": tuple(f"table_{number:02d}" for number in range(1, 17)),
    "gl_med_sa": ("gl_med_sa_table_1",),
    "dual_network": ("dual_network",),
    "segmae": tuple(f"segmae_table_{number}" for number in range(1, 5)),
    "peft_medsam": ("peft_medsam",),
}
RATES = ("percent", "fraction")
UNITS = {
    "dice": RATES,
    "iou": RATES,
    "sensitivity": RATES,
    "specificity": RATES,
    "accuracy": RATES,
    "balanced_accuracy": RATES,
    "precision": RATES,
    "recall": RATES,
    "f1": RATES,
    "auc": RATES,
    "pointing_game": RATES,
    "dice_sd": RATES,
    "dice_ci_low": RATES,
    "dice_ci_high": RATES,
    "cohens_d": ("effect_size",),
    "p_below": ("p",),
    "frozen_parameters": ("million",),
    "trainable_parameters": ("million",),
}
GREATEST = {"percent": 100.0, "fraction": 1.0, "p": 1.0}
UNSPECIFIED = "isic_unspecified"
SOURCES = ("text", "method")


@dataclass(frozen=True)
class Published:
    """One published number.

    Attributes:
        paper, table, row: where it stands; (paper, table, row, metric) is unique.
        dataset: a name of ``settings.DATASETS``, or ``isic_unspecified``.
        metric: a key of ``UNITS``; ``p_below`` is the claim p < value.
        value: the number in ``unit``: percent (0..100), fraction (0..1), effect_size, p or million.
        printed: the number as printed; ``decimals`` counts its decimals.
        averaging: as stated, None if not stated.
        n: images (seeds for effect_size and p), None if not stated.
        proposed: the row is the paper's own method.
        source: "text" (the paper's text) or "method" (the project's reading of it); ``where`` names the place there.
    """

    paper: str
    table: str
    row: str
    dataset: str
    metric: str
    value: float
    unit: str
    averaging: str | None
    n: int | None
    proposed: bool
    source: str
    where: str
    printed: str

    @property
    def decimals(self) -> int:
        """Printed decimals: 1 for "85.0"."""
        return len(self.printed.partition(".")[2])


@dataclass(frozen=True)
class PublishedPair:
    """Mean Dice and mean IoU of one row, and whether they can be true together."""

    dice: Published
    iou: Published
    verdict: PairVerdict


def load(path: Path = FILE) -> list[Published]:
    """Read all published numbers, in the file's order.

    Raises:
        SettingsError: a key, name, unit or value is unknown or out of range, or a claim stands twice.
    """
    import yaml

    # libyaml's loader where it is compiled in: ten times as fast on some 300 lines.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        entries = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=loader)
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"The published numbers cannot be read: {error}", file=path) from error
    if not isinstance(entries, list) or not entries:
        raise SettingsError("The published numbers are not a list of claims", file=path)
    claims = [_claim(entry, number, path) for number, entry in enumerate(entries, 1)]
    seen: set[tuple[str, ...]] = set()
    for claim in claims:
        key = (claim.paper, claim.table, claim.row, claim.metric)
        if key in seen:
            raise SettingsError(
                "A claim stands twice", file=path, ids=["/".join(key)], remedy="name rows of two datasets apart"
            )
        seen.add(key)
    return claims


def pairs(claims: list[Published]) -> list[PublishedPair]:
    """All rows that publish Dice and IoU on one dataset, with the verdict of ``check_pair``.

    Raises:
        SettingsError: the two are printed in different units.
    """
    by_row: dict[tuple[str, ...], dict[str, Published]] = {}
    for claim in claims:
        if claim.metric in ("dice", "iou"):
            by_row.setdefault((claim.paper, claim.table, claim.row, claim.dataset), {})[claim.metric] = claim
    result = []
    for key, both in by_row.items():
        if len(both) < 2:
            continue
        dice, iou = both["dice"], both["iou"]
        if dice.unit != iou.unit:
            raise SettingsError("Dice and IoU of one row have different units", ids=["/".join(key)])
        verdict = check_pair(
            dice.printed, iou.printed, dice.n, unit="percent" if dice.unit == "percent" else "fraction"
        )
        result.append(PublishedPair(dice, iou, verdict))
    return result


def _claim(entry: Any, number: int, path: Path) -> Published:
    """One checked claim; ``number`` is its place in the list, from 1."""

    def refuse(message: str) -> SettingsError:
        return SettingsError(f"Claim {number} of the published numbers: {message}", file=path)

    wanted = {field.name for field in fields(Published)} - {"printed"}
    if not isinstance(entry, dict) or set(entry) != wanted:
        keys = set(entry) if isinstance(entry, dict) else set()
        raise refuse(f"missing keys {sorted(wanted - keys)}, unknown keys {sorted(keys - wanted)}")
    for key in ("paper", "table", "row", "dataset", "metric", "value", "unit", "source", "where"):
        if not isinstance(entry[key], str) or not entry[key].strip():
            raise refuse(f"{key} is not a text: {entry[key]!r}")
    if entry["averaging"] is not None and not isinstance(entry["averaging"], str):
        raise refuse(f"averaging is neither a text nor null: {entry['averaging']!r}")
    if entry["n"] is not None and (type(entry["n"]) is not int or entry["n"] < 1):
        raise refuse(f"n is neither a count nor null: {entry['n']!r}")
    if type(entry["proposed"]) is not bool:
        raise refuse(f"proposed is neither true nor false: {entry['proposed']!r}")
    for key, known in (
        ("paper", TABLES),
        ("table", TABLES.get(entry["paper"], ())),
        ("dataset", (*DATASETS, UNSPECIFIED)),
        ("metric", UNITS),
        ("unit", UNITS.get(entry["metric"], ())),
        ("source", SOURCES),
    ):
        if entry[key] not in known:
            raise refuse(f"unknown {key} {entry[key]!r}, known are {', '.join(known)}")
    printed = entry["value"]
    if not printed.replace(".", "", 1).isdecimal() or not (printed[0].isdecimal() and printed[-1].isdecimal()):
        raise refuse(f"value is not a printed number: {printed!r}")
    if float(printed) > GREATEST.get(entry["unit"], float("inf")):
        raise refuse(f"{printed} is too great for {entry['unit']}")
    return Published(**{**entry, "value": float(printed)}, printed=printed)
