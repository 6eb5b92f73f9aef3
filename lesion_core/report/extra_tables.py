"""Tables that no paper prints: what a prompt is worth, dual scoring, where networks look, and how people agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lesion_core.report.display_names import dataset_name, explainer_name, prompt_name
from lesion_core.report.formats import metric_name
from lesion_core.report.human_reference import NOTES, model_cells, people_cells
from lesion_core.report.leak_worth import NOTES as LEAK_NOTES
from lesion_core.report.leak_worth import leak_worth_cells
from lesion_core.report.measures import BORDER_METRICS, EXPLANATION_METRICS, LESION_METRICS, Measure
from lesion_core.report.score_store import Store
from lesion_core.report.table_cells import mark_best, our_cell
from lesion_core.settings import Plan

PROMPTS = ("none", "automatic", "automatic_masks", "oracle_click_1", "oracle_click_3", "oracle_box")
UNIT = "percent"


@dataclass(frozen=True)
class ExtraTable:
    """A table with its title and notes; ``cells`` makes its cells from the store."""

    title: str
    notes: tuple[str, ...]
    cells: Callable[[str, Store, Plan], list[dict[str, Any]]]


def prompt_worth_cells(name: str, store: Store, plan: Plan) -> list[dict[str, Any]]:
    """Mean Dice of the same weights under each prompt, and what each prompt adds to no prompt."""
    scored = {key[2] for key in store.segmentation}
    prompts = [prompt for prompt in PROMPTS if prompt in scored]
    cells = []
    for method, dataset, runs in _segmenters(store, plan):
        if not any((run, dataset, prompt, "native") in store.segmentation for run in runs for prompt in prompts[1:]):
            continue
        for prompt, minus in [(prompt, None) for prompt in prompts] + [(prompt, "none") for prompt in prompts[1:]]:
            measure = Measure("segmentation", dataset, "dice", prompt, minus=minus)
            column = f"dice {prompt}" if minus is None else f"dice {prompt} minus {minus}"
            heading = f"Dice (%), {prompt_name(prompt)}" + ("" if minus is None else f" \u2212 {prompt_name(minus)}")
            value = store.measure(runs, measure)
            cells.append(our_cell(name, _row(plan, method, dataset), column, method, measure, UNIT, value, heading))
    mark_best(cells, plan.trained_on)
    return cells


def dual_scoring_cells(name: str, store: Store, plan: Plan) -> list[dict[str, Any]]:
    """Dice and IoU at native and at model size, as mean over images and pooled over all pixels."""
    cells = []
    for method, dataset, runs in _segmenters(store, plan):
        for metric in LESION_METRICS:
            for resolution in ("native", "model"):
                for averaging in ("image", "pooled"):
                    measure = Measure("segmentation", dataset, metric, "none", resolution, averaging)
                    column = f"{metric} {resolution} {averaging}"
                    how = "per image" if averaging == "image" else "pooled"
                    heading = f"{metric_name(metric, UNIT)}, {resolution} size, {how}"
                    value = store.measure(runs, measure)
                    cells.append(
                        our_cell(name, _row(plan, method, dataset), column, method, measure, UNIT, value, heading)
                    )
    mark_best(cells, plan.trained_on)
    return cells


def border_cells(name: str, store: Store, plan: Plan) -> list[dict[str, Any]]:
    """Thresholded IoU and distances of outlines of every segmenter, under the prompt that it is meant for."""
    cells = []
    for method, dataset, runs in _segmenters(store, plan):
        for metric in BORDER_METRICS:
            measure = Measure("segmentation", dataset, metric, plan.prompt_of(method))
            value = store.measure(runs, measure)
            heading = metric_name(metric, UNIT)
            cells.append(our_cell(name, _row(plan, method, dataset), metric, method, measure, UNIT, value, heading))
    mark_best(cells, plan.trained_on)
    return cells


def explanation_cells(name: str, store: Store, plan: Plan) -> list[dict[str, Any]]:
    """Pointing game and energy inside the lesion of every explained method, beside the centre prior."""
    cells = []
    for method, runs in _distinct(plan):
        found = sorted({key[1:] for key in store.explanations if key[0] in runs})
        for dataset, explainer in found:
            role = next(
                rows[0]["role"] for key, rows in store.explanations.items() if key[0] in runs and key[1] == dataset
            )
            for metric in EXPLANATION_METRICS:
                measure = Measure("explanation", dataset, metric, explainer=explainer)
                value = store.measure(runs, measure)
                label = f"{role.capitalize()} {_row(plan, method, dataset)}: {explainer_name(explainer)}"
                cells.append(our_cell(name, label, metric, method, measure, UNIT, value, metric_name(metric, UNIT)))
    mark_best(cells, plan.trained_on)
    return cells


def human_reference_cells(name: str, store: Store, plan: Plan) -> list[dict[str, Any]]:
    """People, then every segmenter beside them; without IMA++'s tables one row that says so."""
    cells = people_cells(name, store.people)
    if store.people:
        for method, dataset, runs in _segmenters(store, plan):
            cells.extend(model_cells(name, _row(plan, method, dataset), method, dataset, runs, store))
    return cells


def _distinct(plan: Plan) -> Iterator[tuple[str, list[str]]]:
    """Methods with their runs; of names that share runs, the first."""
    seen: set[str] = set()
    for method, runs in plan.runs.items():
        if not seen & set(runs):
            seen.update(runs)
            yield method, runs


def _segmenters(store: Store, plan: Plan) -> Iterator[tuple[str, str, list[str]]]:
    """(method, dataset, runs) of every segmenter, dataset by dataset."""
    for dataset in sorted({key[1] for key in store.segmentation}):
        for method, runs in _distinct(plan):
            if any((run, dataset, "none", "native") in store.segmentation for run in runs):
                yield method, dataset, runs


def _row(plan: Plan, method: str, dataset: str) -> str:
    return f"{plan.name_of(method)}, {dataset_name(dataset)}"


EXTRA_TABLES = {
    "leak_worth": ExtraTable("What the split is worth: as published beside leak-free", LEAK_NOTES, leak_worth_cells),
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
    "human_reference": ExtraTable("People against people, models against people", NOTES, human_reference_cells),
}
