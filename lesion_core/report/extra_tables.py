"""Tables that no paper prints: what a prompt or the split is worth, dual scoring, borders, explanations, people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from lesion_core.report.external import NOTES as EXTERNAL_NOTES
from lesion_core.report.external import external_cells
from lesion_core.report.formats import dataset_name, explainer_name, metric_name, prompt_name
from lesion_core.report.human_reference import NOTES as PEOPLE_NOTES
from lesion_core.report.human_reference import model_cells, people_cells
from lesion_core.report.leak_worth import NOTES as LEAK_NOTES
from lesion_core.report.leak_worth import leak_worth_cells
from lesion_core.report.measures import BORDER_METRICS, EXPLANATION_METRICS, LESION_METRICS, Measure
from lesion_core.report.official_test import NOTES as OFFICIAL_NOTES
from lesion_core.report.official_test import official_test_cells
from lesion_core.report.table_cells import Cells

PROMPTS = ("none", "automatic", "automatic_masks", "oracle_click_1", "oracle_click_3", "oracle_box")


class ExtraTable(NamedTuple):
    """A table with its title and notes; ``cells`` fills it."""

    title: str
    notes: tuple[str, ...]
    cells: Callable[[Cells], list[dict[str, Any]]]


def prompt_worth_cells(made: Cells) -> list[dict[str, Any]]:
    """Mean Dice of the same weights under each prompt, and what each prompt adds to no prompt."""
    scored = {key[2] for key in made.store.segmentation}
    prompts = [prompt for prompt in PROMPTS if prompt in scored]
    for method, dataset, row, runs in _segmenters(made):
        if not any(
            (run, dataset, prompt, "native") in made.store.segmentation for run in runs for prompt in prompts[1:]
        ):
            continue
        for prompt in prompts:
            measure = Measure("segmentation", dataset, "dice", prompt)
            made.add(row, f"dice {prompt}", f"Dice (%), {prompt_name(prompt)}", method, measure)
        for prompt in prompts[1:]:
            heading = f"Dice (%), {prompt_name(prompt)} \u2212 {prompt_name('none')}"
            measure = Measure("segmentation", dataset, "dice", prompt, minus="none")
            made.add(row, f"dice {prompt} minus none", heading, method, measure)
    return made.with_best()


def dual_scoring_cells(made: Cells) -> list[dict[str, Any]]:
    """Dice and IoU at native and at model size, as mean over images and pooled over all pixels."""
    for method, dataset, row, _ in _segmenters(made):
        for metric in LESION_METRICS:
            for resolution in ("native", "model"):
                for averaging, how in (("image", "per image"), ("pooled", "pooled")):
                    measure = Measure("segmentation", dataset, metric, "none", resolution, averaging)
                    heading = f"{metric_name(metric, 'percent')}, {resolution} size, {how}"
                    made.add(row, f"{metric} {resolution} {averaging}", heading, method, measure)
    return made.with_best()


def border_cells(made: Cells) -> list[dict[str, Any]]:
    """Thresholded IoU and distances of outlines of every segmenter, under the prompt that it is meant for."""
    for method, dataset, row, _ in _segmenters(made):
        for metric in BORDER_METRICS:
            measure = Measure("segmentation", dataset, metric, made.plan.prompt_of(method))
            made.add(row, metric, metric_name(metric, "percent"), method, measure)
    return made.with_best()


def explanation_cells(made: Cells) -> list[dict[str, Any]]:
    """Pointing game and energy inside the lesion of every explained method, beside the centre prior."""
    for method, runs in made.plan.distinct_runs():
        own = {key: rows for key, rows in made.store.explanations.items() if key[0] in runs}
        for dataset, explainer in sorted({key[1:] for key in own}):
            role = next(rows["role"].iloc[0] for key, rows in own.items() if key[1] == dataset)
            row = f"{role.capitalize()} {_row(made, method, dataset)}: {explainer_name(explainer)}"
            for metric in EXPLANATION_METRICS:
                measure = Measure("explanation", dataset, metric, explainer=explainer)
                made.add(row, metric, metric_name(metric, "percent"), method, measure)
    return made.with_best()


def human_reference_cells(made: Cells) -> list[dict[str, Any]]:
    """People, then every segmenter beside them; without IMA++'s tables one row that says so."""
    people_cells(made)
    for method, dataset, row, runs in _segmenters(made) if made.store.people else ():
        model_cells(made, row, method, dataset, runs)
    return made.made


def _segmenters(made: Cells) -> Iterator[tuple[str, str, str, list[str]]]:
    """(method, dataset, row's label, runs) of every segmenter, dataset by dataset."""
    for dataset in sorted({key[1] for key in made.store.segmentation}):
        for method, runs in made.plan.distinct_runs():
            if any((run, dataset, "none", "native") in made.store.segmentation for run in runs):
                yield method, dataset, _row(made, method, dataset), runs


def _row(made: Cells, method: str, dataset: str) -> str:
    return f"{made.plan.name_of(method)}, {dataset_name(dataset)}"


EXTRA_TABLES = {
    "leak_worth": ExtraTable("What the split is worth: as published beside leak-free", LEAK_NOTES, leak_worth_cells),
    "external_validity": ExtraTable("External validity: segmenters on other datasets", EXTERNAL_NOTES, external_cells),
    "official_test": ExtraTable("Official test sets beside our own split", OFFICIAL_NOTES, official_test_cells),
    "prompt_worth": ExtraTable(
        "What a prompt is worth: the same weights under each prompt",
        (
            "Mean \u00b1 SD over seeds of the mean Dice over test images at native size. The automatic box surrounds"
            " the prediction without a prompt; oracle prompts are made from the true mask (boxes jittered by"
            " scoring.box_jitter), and so no score under them is one that a user could reach.",
        ),
        prompt_worth_cells,
    ),
    "dual_scoring": ExtraTable(
        "Dual scoring: native and model size, per image and pooled",
        (
            "The same predictions. Per image: mean over test images. Pooled: from tp, fp and fn summed over all test"
            " images, so that large lesions and large images weigh more; pooled IoU is D / (2 \u2212 D) exactly."
            " Without a prompt. An image without lesion in both masks counts 1.",
        ),
        dual_scoring_cells,
    ),
    "borders": ExtraTable(
        "Borders: thresholded IoU, and how far the outlines lie apart",
        (
            "Means over test images at native size, under the prompt that a method is meant for. Thresholded IoU: 0 for"
            " an image below 0.65 (ISIC 2018, Task 1). HD95: 95th percentile Hausdorff distance; surface"
            " distance: the symmetric mean; both by MONAI, in per cent of the diagonal, on masks of at most 512 pixels"
            " a side. One mask empty counts the whole diagonal.",
        ),
        border_cells,
    ),
    "explanations": ExtraTable(
        "Where networks look: pointing game and energy inside the lesion",
        (
            "Pointing game: share of test images whose map has its maximum in the true mask (tolerance:"
            " explain.tolerance). Energy: the map's share that lies inside. Centre prior: a Gaussian in the middle of"
            " the image, which knows nothing of it; what does not beat it shows nothing.",
            "Segmenters are explained by the lesion's logits, classifiers by the predicted class's.",
        ),
        explanation_cells,
    ),
    "human_reference": ExtraTable("People against people, models against people", PEOPLE_NOTES, human_reference_cells),
}
