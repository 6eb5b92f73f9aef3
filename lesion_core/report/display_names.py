"""Datasets, prompts and explanations as they are called in print; a method's name is its paper's (`Plan.name_of`)."""

from __future__ import annotations

DATASET_NAMES = {
    "isic2018_task1": "ISIC 2018 Task 1",
    "isic2018_task3": "ISIC 2018 Task 3",
    "ham10000": "HAM10000",
    "ph2": "PH2",
    "isic2016": "ISIC 2016",
    "isic2017": "ISIC 2017",
    "isic2019": "ISIC 2019",
}
PROMPT_NAMES = {
    "none": "no prompt",
    "automatic": "automatic box",
    "oracle_box": "oracle box",
    "automatic_masks": "automatic masks",
    "oracle_click_1": "oracle click",
    "oracle_click_3": "3 oracle clicks",
}
EXPLAINER_NAMES = {"grad_cam": "Grad-CAM", "rollout": "attention roll-out", "centre_prior": "centre prior"}


def dataset_name(dataset: str) -> str:
    """A dataset as it is called in print."""
    return DATASET_NAMES.get(dataset, dataset)


def prompt_name(prompt: str) -> str:
    """A prompt as it is called in print."""
    return PROMPT_NAMES.get(prompt, prompt.replace("_", " "))


def explainer_name(explainer: str) -> str:
    """An explanation's method as it is called in print."""
    return EXPLAINER_NAMES.get(explainer, explainer.replace("_", " "))
