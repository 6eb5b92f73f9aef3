"""People against people, and models against people: what a Dice means beside what annotators reach among themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lesion_core.acquire.readers.rows import joining_id
from lesion_core.catalog.human_reference import Reference
from lesion_core.report.measures import Measure
from lesion_core.report.table_cells import PUBLISHED_ONLY, Cells

ABSENT = "IMA++'s tables are not here (docs/evidence.md says where they are published)"
DICE = "dice"
COUNTS = ("people_images", "people_pairs")
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


def summarise(people: Sequence[Reference]) -> dict[str, float]:
    """Agreement by ``HEADINGS``' names, 0..1: over images, each of which counts once, and over all their pairs.

    What a release's tables do not tell is left out.
    """
    found = [item.agreement for item in people]
    dice, iou = (np.array([getattr(item, name) for item in found]) for name in ("dice", "iou"))
    told = {
        "people_images": len(found),
        "people_dice": float(dice.mean()),
        "people_median": float(np.median(dice)),
        "people_iou": float(iou.mean()),
    }
    if any(item.pairs is None for item in found):
        return told
    pairs = np.array([item.pairs for item in found])
    told |= {
        "people_pairs": int(pairs.sum()),
        "people_pair_dice": float((dice * pairs).sum() / pairs.sum()),
        "people_pair_iou": float((iou * pairs).sum() / pairs.sum()),
    }
    single = [value for item in found for value in item.pair_dice]
    return told | ({"people_pair_median": float(np.median(single))} if len(single) == pairs.sum() else {})


def share_as_good(people: Sequence[Reference], dice: float) -> float:
    """The share of images whose annotators agree, on average over pairs, at least at ``dice`` (0..1)."""
    return sum(item.agreement.dice >= dice for item in people) / len(people)


def people_cells(made: Cells) -> None:
    """Rows of people alone: all images, then each part of a release."""
    people = made.store.people
    if not people:
        made.add(ABSENT, DICE, HEADINGS[DICE])
        return
    groups = {"People, all of IMA++": people}
    for part in sorted({part for item in people for part in item.releases}):
        groups[f"People, ISIC {part}"] = [item for item in people if part in item.releases]
    for label, own in groups.items():
        _add_row(made, label, summarise(own))


def model_cells(made: Cells, label: str, method: str, dataset: str, runs: Sequence[str]) -> None:
    """One model on one dataset beside people."""
    store = made.store
    measure = Measure("segmentation", dataset, DICE, "none")
    value = store.measure(runs, measure)
    by_id = {item.agreement.image_id: item for item in store.people}
    scored = [
        dict(zip(rows["image_id"].map(joining_id), rows[DICE], strict=True))
        for run in runs
        if len(rows := store.rows(run, measure))
    ]
    told: dict[str, float] = {}
    if value is not None and dataset != "custom" and (common := sorted(scored[0].keys() & by_id.keys())):
        told = summarise([by_id[image_id] for image_id in common])
        told["dice_there"] = float(np.mean([np.mean([own[image_id] for image_id in common]) for own in scored]))
    if value is not None:
        told["people_share"] = share_as_good(store.people, value.mean)
    _add_row(made, label, told, method, measure)


def _add_row(
    made: Cells, label: str, told: dict[str, float], method: str | None = None, measure: Measure | None = None
) -> None:
    """A row whose numbers, but for the model's own Dice, come from published tables; every column has a cell."""
    for column, heading in HEADINGS.items():
        if measure is not None and column == DICE:
            made.add(label, column, heading, method, measure)
            continue
        text = "" if column not in told else str(told[column]) if column in COUNTS else f"{100 * told[column]:.1f}"
        known = {"status": PUBLISHED_ONLY, "published_text": text, "dataset": measure and measure.dataset}
        made.add(label, column, heading, method, known=known)
