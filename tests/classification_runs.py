"""Classification and joint runs on small synthetic results, for the tests of training and of what builds on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from engine_tasks import SETTINGS as TRAINING
from material import HOME, MATERIAL
from torch import nn

from lesion_core.files import read_csv, write_csv
from lesion_core.models.trainable import Segmenter
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import INDEX_COLUMNS
from lesion_core.seeding import generator
from lesion_core.settings import CLASSES, JointMethod
from lesion_core.settings.run import Run

SIZE = 32
SEGMENTER = "segmenter-ham10000-s1-00000000"
SPLITS = ["train"] * 5 + ["val"] * 2 + ["test"]


def make_root(root: Path, dataset: str = "ham10000", drop: str | None = None) -> Layout:
    """56 images, one colour per class, 5 : 2 : 1; ``drop``: a class without training images."""
    layout = Layout(root)
    folder = layout.pixels(HOME, dataset, SIZE)
    folder.mkdir(parents=True)
    rng = generator("made root", dataset)
    colours = rng.integers(30, 226, size=(7, 3))
    images, masks, rows = [], [], []
    for number in range(56):
        name, split = CLASSES[number % 7], SPLITS[number // 7]
        if name == drop and split == "train":
            split = "val"
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[8:24, 6:22] = 255
        image = np.full((SIZE, SIZE, 3), 128.0)
        image[mask > 0] = colours[number % 7]
        images.append(np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8))
        mask_row = -1
        if split != "test":
            mask_row = len(masks)
            masks.append(mask)
        values = [number, f"im{number:03d}", f"le{number:03d}", f"g{number}", split, name, mask_row, 64, 64, "", "", ""]
        rows.append(dict(zip(INDEX_COLUMNS, values, strict=True)))
    np.save(folder / "images.npy", np.stack(images))
    np.save(folder / "masks.npy", np.stack(masks))
    write_csv(folder / "index.csv", INDEX_COLUMNS, rows)
    np.save(layout.reference(HOME), np.full((3, 256), 1 / 256))
    return layout


def make_pseudo_masks(layout: Layout, ids: list[str], dataset: str = "ham10000", size: int = 16) -> Path:
    home = layout.pseudo_masks(SEGMENTER, dataset)
    home.mkdir(parents=True)
    maps = np.zeros((len(ids), size, size), np.uint8)
    maps[:, 4:12, 4:12] = np.arange(100, 100 + len(ids), dtype=np.uint8)[:, None, None]
    np.save(home / "probabilities.npy", maps)
    write_csv(home / "masks.csv", ["image_id"], [{"image_id": name} for name in ids])
    return home


def make_run(*, masks: str | None = None, epochs: int = 3, segmenter: str | None = None, **model: object) -> Run:
    description = {"kind": "fusion", "backbone": "vit_t", "image_size": SIZE, "patch_size": 16, **model}
    return Run.model_validate(
        {
            "method": "test",
            "seed": 1,
            **MATERIAL,
            "threads": 1,
            "segmenter_run": segmenter,
            "harmonization": {
                "histogram": "specification",
                "colour": "none",
                "hair_removal": False,
                "mask_closing": 0,
                "mask_min_component": 0.0,
                "mask_smoothing": 0.0,
                "soft_mask_sigma": 0.0,
            },
            "extraction": {
                "threshold": 0.5,
                "closing": 0,
                "smoothing": 0.0,
                "largest_component": True,
                "crop_margin": 0.1,
                "blend": 0.7,
            },
            "spec": {
                "task": "classification",
                "protocol": "shared",
                "train_on": ["ham10000"],
                "masks": masks,
                "model": description,
                "loss": {
                    "weighting": "effective_number",
                    "beta": 0.99,
                    "focal_gamma": 0.0,
                    "label_smoothing": 0.05,
                    "sampling": "inverse_frequency",
                    "mixup_alpha": 0.2,
                },
                "training": TRAINING
                | {"epochs": epochs, "batch_size": 7, "learning_rate": 1e-3, "warmup_fraction": 0.0},
                "augmentation": [
                    {"transform": "Warp", "flip_horizontal": 0.5, "rotation_degrees": 10.0},
                    {"transform": "RandomBrightnessContrast", "brightness_limit": 0.02, "contrast_limit": 0, "p": 1.0},
                    {"transform": "GaussNoise", "std_range": [0.008, 0.008], "p": 1.0},
                ],
            },
        },
        strict=False,
    )


STARTS = {"segmenter_run": "seg", "classifier_run": "cls"}


class TinySegmenter(Segmenter):
    """A frozen convolution and a trainable one; logits at half the size, as SAM's are coarser than its input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frozen = nn.Conv2d(3, 4, 3, stride=2, padding=1).requires_grad_(False)
        self.adapter = nn.Conv2d(4, 1, 1)
        self.fix_trainable()

    def forward(self, images: torch.Tensor, prompts: object) -> torch.Tensor:
        assert prompts is None
        return self.adapter(torch.tanh(self.frozen(images / 128.0 - 1.0)))


def classifier_run(fusion: str = "cross_attention", source: str = "full") -> Run:
    return make_run(masks="true", epochs=1, fusion=fusion, input=source)


def joint_run(**changes: object) -> Run:
    base = classifier_run()
    spec = JointMethod(
        task="joint",
        protocol="shared",
        train_on=["ham10000"],
        segmenter="segmenter",
        classifier="classifier",
        segmentation_from="labelled_images",
        weight_segmentation=1.0,
        weight_classification=0.8,
        segmentation_loss={"dice": 1.0, "bce": 1.0, "soft_target": True},
        classification_loss=base.spec.loss,
        training=base.spec.training.model_copy(update={"epochs": 2}),
        augmentation=base.spec.augmentation,
    )
    return base.model_copy(update={"spec": spec.model_copy(update=changes), **STARTS})


SITES = {"train": ("back", "face"), "val": ("foot", "back"), "test": ("hand", "face")}
AGES = {"train": 40, "val": 90, "test": 5}


def with_metadata(layout: Layout) -> Layout:
    """Ages and sites that tell the split apart; every third image without an age."""
    path = layout.pixels(HOME, "ham10000", 32) / "index.csv"
    rows = read_csv(path)
    for number, row in enumerate(rows):
        row["site"] = SITES[row["split"]][number % 2]
        row["age"] = "" if number % 3 == 0 else AGES[row["split"]]
    write_csv(path, INDEX_COLUMNS, rows)
    return layout


def dual_run(**model: object) -> Run:
    described = {"kind": "dual", "input": "full", "fusion": "cross_attention", "metadata": "binned", **model}
    run = make_run(epochs=2, **{**described, "metadata": "none"})
    spec = run.spec.model_dump()
    spec["loss"]["mixup_alpha"] = 0.0
    spec["model"]["metadata"] = described["metadata"]
    return Run.model_validate({**run.model_dump(), "spec": spec}, strict=False)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path)
