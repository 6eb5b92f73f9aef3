"""People against people, and models against people: what a Dice means beside what annotators reach among themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lesion_core.acquire.readers.rows import joining_id
from lesion_core.catalog.human_reference import Reference
from lesion_core.report.measures import Measure
from lesion_core.report.score_store import Store
from lesion_core.report.table_cells import NOT_RUN, PUBLISHED_ONLY, our_cell

ABSENT = "IMA++'s tables are not here (docs/evidence.md says where they are published)"
DICE = "dice"
HEADINGS = {
    "people_images": "Images of several annotators",
    "people_pairs": "Pairs of annotators",
    "people_dice": "People: mean Dice (%)",
    "people_median": "People: median Dice (%)",
    "people_iou": "People: mean IoU (%)",
    "people_pair_dice": "People: mean Dice of all pairs (%)",
    "people_pair_iou": "People: mean IoU of all pairs (%)",
    "people_pair_median": "People: median Dice of all pairs (%)",
    DICE: "Model: Dice on its test images (%)",
    "dice_there": "Model: Dice on these images (%)",
    "people_share": "Images on which people agree as well (%)",
}
NOTES = (
    "A human reference, not a ceiling. People: IMA++ (arXiv 2512.21472), mean over images of the mean over all pairs of"
    " an image's annotators, without consensus masks. In a model's row: people on those of its test images that several"
    " annotated, and the model's own mean on them against the release's mask. As well: the share of all IMA++ images"
    " whose annotators reach the model's mean Dice among themselves.",
    "Caveats: the images that several annotated are a selected sample; tools differ (outlines by hand against flood"
    " fill: Dice 0.66, by hand by experts: 0.852); 59 masks are empty; one mask against the consensus (STAPLE) reaches"
    " 0.890. These four numbers are quoted, all others are counted from the published tables.",
)


@dataclass(frozen=True)
class Summary:
    """Agreement over images, 0..1; ``pair_*`` over all their pairs, None where the tables do not tell."""

    images: int
    pairs: int | None
    dice: float
    dice_median: float
    iou: float
    pair_dice: float | None
    pair_iou: float | None
    pair_median: float | None


def summarise(people: Sequence[Reference]) -> Summary:
    """Mean and median over images, each of which counts once, and over pairs, of which an image of n masks has many."""
    found = [item.agreement for item in people]
    dice, iou = (np.array([getattr(item, name) for item in found]) for name in ("dice", "iou"))
    pairs = None if any(item.pairs is None for item in found) else np.array([item.pairs for item in found])
    single = [value for item in found for value in item.pair_dice]
    return Summary(
        images=len(found),
        pairs=None if pairs is None else int(pairs.sum()),
        dice=float(dice.mean()),
        dice_median=float(np.median(dice)),
        iou=float(iou.mean()),
        pair_dice=None if pairs is None else float((dice * pairs).sum() / pairs.sum()),
        pair_iou=None if pairs is None else float((iou * pairs).sum() / pairs.sum()),
        pair_median=float(np.median(single)) if pairs is not None and len(single) == pairs.sum() else None,
    )


def share_as_good(people: Sequence[Reference], dice: float) -> float:
    """The share of images whose annotators agree, on average over pairs, at least at ``dice`` (0..1)."""
    return sum(item.agreement.dice >= dice for item in people) / len(people)


def people_cells(name: str, people: Sequence[Reference]) -> list[dict[str, Any]]:
    """Rows of people alone: all images, then each part of a release."""
    if not people:
        return [our_cell(name, ABSENT, DICE, None, None, "percent", None, HEADINGS[DICE]) | {"status": NOT_RUN}]
    parts = sorted({part for item in people for part in item.releases})
    groups = {"People, all of IMA++": list(people)}
    groups |= {f"People, ISIC {part}": [item for item in people if part in item.releases] for part in parts}
    return [cell for label, own in groups.items() for cell in _row(name, label, _texts(summarise(own)))]


def model_cells(
    name: str, label: str, method: str, dataset: str, runs: Sequence[str], store: Store
) -> list[dict[str, Any]]:
    """One model on one dataset beside people."""
    measure = Measure("segmentation", dataset, DICE, "none")
    value = store.measure(runs, measure)
    by_id = {item.agreement.image_id: item for item in store.people}
    texts, common = {}, []
    scored = {run: {joining_id(row["image_id"]): row[DICE] for row in store.rows(run, measure)} for run in runs}
    scored = {run: own for run, own in scored.items() if own}
    if value is not None:
        texts["people_share"] = f"{100 * share_as_good(store.people, value.mean):.1f}"
        common = sorted(next(iter(scored.values())).keys() & by_id.keys()) if dataset != "custom" else []
    if common:
        texts |= _texts(summarise([by_id[image_id] for image_id in common]))
        there = np.mean([np.mean([own[image_id] for image_id in common]) for own in scored.values()])
        texts["dice_there"] = f"{100 * there:.1f}"
    cells = [cell | {"method": method, "dataset": dataset} for cell in _row(name, label, texts)]
    ours = our_cell(name, label, DICE, method, measure, "percent", value, HEADINGS[DICE])
    return [ours if cell["column"] == DICE else cell for cell in cells]


def _texts(summary: Summary) -> dict[str, str]:
    shares = {
        "people_dice": summary.dice,
        "people_median": summary.dice_median,
        "people_iou": summary.iou,
        "people_pair_dice": summary.pair_dice,
        "people_pair_iou": summary.pair_iou,
        "people_pair_median": summary.pair_median,
    }
    texts = {key: f"{100 * value:.1f}" for key, value in shares.items() if value is not None}
    texts["people_images"] = str(summary.images)
    return texts if summary.pairs is None else texts | {"people_pairs": str(summary.pairs)}


def _row(name: str, label: str, texts: dict[str, str]) -> list[dict[str, Any]]:
    """A row whose numbers come from published tables, not from runs; every column has a cell."""
    return [
        our_cell(name, label, column, None, None, "percent", None, heading)
        | {"status": PUBLISHED_ONLY, "published_text": texts.get(column, "")}
        for column, heading in HEADINGS.items()
    ]
