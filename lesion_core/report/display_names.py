"""Methods, datasets and prompts as they are called in print."""

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
METHOD_NAMES = {
    "otsu": "Otsu",
    "unet": "U-Net",
    "unet_plus_plus": "U-Net++",
    "deeplabv3_plus": "DeepLabV3+",
    "segformer": "SegFormer",
    "deep_unet": "Deep-UNet",
    "segmae": "SegMAE",
    "sam_frozen": "SAM frozen",
    "sam_zero_shot": "SAM zero-shot",
    "sam_h_frozen": "SAM-H frozen",
    "medsam_zero_shot": "MedSAM zero-shot",
    "peft_medsam": "PEFT-MedSAM",
    "med_sa_1": "Med-SA, 1 point",
    "med_sa_3": "Med-SA, 3 points",
    "gmed_sa_1": "GMed-SA, 1 point",
    "gmed_sa_3": "GMed-SA, 3 points",
    "gl_med_sa_1": "GL-Med-SA, 1 point",
    "gl_med_sa_3": "GL-Med-SA, 3 points",
    "sam_adapter": "SAM-Adapter",
    "majority": "Majority class",
    "color_histogram": "Colour histogram",
    "vit_none": "ViT, no fusion",
    "vit_cross_attention": "ViT, cross-attention",
    "vit_cross_attention_true_masks": "ViT, true masks",
    "vit_cross_attention_shuffled_masks": "ViT, shuffled masks",
    "vit_cross_attention_tta": "ViT, 8 views",
    "vit_cross_attention_ensemble": "ViT, seed ensemble",
    "dual_network": "Dual network",
    "joint_proposed": "SAM-ViT, joint",
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


def method_name(method: str) -> str:
    """A method as it is called in print."""
    return METHOD_NAMES.get(method, method.replace("_", " "))


def dataset_name(dataset: str) -> str:
    """A dataset as it is called in print."""
    return DATASET_NAMES.get(dataset, dataset)


def prompt_name(prompt: str) -> str:
    """A prompt as it is called in print."""
    return PROMPT_NAMES.get(prompt, prompt.replace("_", " "))


def explainer_name(explainer: str) -> str:
    """An explanation's method as it is called in print."""
    return EXPLAINER_NAMES.get(explainer, explainer.replace("_", " "))
