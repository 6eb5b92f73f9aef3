"""Segmentation runs on small synthetic results, for the tests of training and of what builds on it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from engine_tasks import SETTINGS as TRAINING
from material import HOME, MATERIAL
from safetensors.torch import load_file

from lesion_core.files import write_csv
from lesion_core.models.sam.network import build_sam
from lesion_core.paths import Layout
from lesion_core.seeding import seed_torch
from lesion_core.settings.run import Run
from lesion_core.training.checkpoint import write_safetensors

SIZE = 64
SPLITS = ["train"] * 8 + ["val"] * 3 + ["test"] * 2
COLUMNS = (
    *("row", "image_id", "lesion_id", "group_id", "split", "label", "mask_row"),
    *("width", "height", "age", "sex", "site"),
)


def write_dataset(root, dataset: str, size: int, seed: int, splits: list[str]) -> None:
    """A harmonized dataset: dark discs on skin."""
    folder = Layout(root).pixels(HOME, dataset, size)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    images, masks, index = [], [], []
    for row, split in enumerate(splits):
        centre, radius = rng.uniform(0.35, 0.65, 2) * size, rng.uniform(0.15, 0.3) * size
        mask = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
        image = np.where(mask[..., None], [90, 60, 50], [210, 170, 150]) + rng.normal(0, 8, (size, size, 3))
        images.append(image.clip(0, 255).astype(np.uint8))
        closed = split == "test"
        if not closed:
            masks.append(mask.astype(np.uint8) * 255)
        numbers = {"row": row, "mask_row": -1 if closed else len(masks) - 1, "width": size, "height": size}
        blank = dict.fromkeys(COLUMNS, "")
        index.append({**blank, **numbers, "image_id": f"{dataset}_{row:02d}", "group_id": f"g{row}", "split": split})
    np.save(folder / "images.npy", np.stack(images))
    np.save(folder / "masks.npy", np.stack(masks))
    write_csv(folder / "index.csv", COLUMNS, index)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("results") / "smoke"
    write_dataset(root, "isic2018_task1", SIZE, 0, SPLITS)
    write_dataset(root, "ph2", SIZE, 1, SPLITS)
    np.save(Layout(root).reference(HOME), np.full((3, 256), 1 / 256))
    seed_torch(0, "test weights")
    write_safetensors(Layout(root).weights("sam_vit_t"), dict(build_sam("sam_vit_t").state_dict()))
    return root


def shaken_sam(image_size: int | None = None) -> torch.nn.Module:
    """A tiny SAM whose tables and biases are not zero, so that forgetting one of them shows."""
    seed_torch(7, "shaken sam")
    sam = build_sam("sam_vit_t", image_size=image_size)
    with torch.no_grad():
        for parameter in sam.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return sam


@pytest.fixture(autouse=True)
def restore_torch():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


SETTINGS = {
    "method": "unet",
    "seed": 3,
    **MATERIAL,
    "threads": 1,
    "harmonization": {
        "histogram": "specification",
        "colour": "none",
        "hair_removal": False,
        "mask_closing": 1,
        "mask_min_component": 0.01,
        "mask_smoothing": 1.0,
        "soft_mask_sigma": 1.0,
    },
    "extraction": {
        "threshold": 0.5,
        "closing": 1,
        "smoothing": 1.0,
        "largest_component": True,
        "crop_margin": 0.1,
        "blend": 0.7,
    },
    "spec": {
        "task": "segmentation",
        "protocol": "shared",
        "train_on": ["isic2018_task1"],
        "model": {"kind": "unet", "image_size": SIZE},
        "loss": {"dice": 1.0, "bce": 1.0, "soft_target": True},
        "training": TRAINING | {"learning_rate": 0.003, "checkpoint_steps": 1},
        "augmentation": [
            {
                "transform": "Warp",
                "flip_horizontal": 0.5,
                "flip_vertical": 0.5,
                "rotation_degrees": 20.0,
                "affine": 0.05,
                "translation": 0.05,
                "elastic_alpha": 4.0,
            },
            {"transform": "RandomBrightnessContrast", "brightness_limit": 0.05, "contrast_limit": 0.1, "p": 1.0},
            {"transform": "GaussNoise", "std_range": [0.008, 0.008], "p": 1.0},
        ],
    },
}


def make_run(*, model: dict | None = None, training: dict | None = None, **spec) -> Run:
    settings = copy.deepcopy(SETTINGS)
    if model is not None:
        settings["spec"]["model"] = {"image_size": SIZE, **model}
    settings["spec"]["training"] |= training or {}
    settings["spec"] |= spec
    return Run.model_validate(settings)


def tensors(run_dir) -> dict[str, torch.Tensor]:
    return load_file(run_dir / "weights.safetensors")


def folder(root, run: Run, suffix: str = ""):
    return Layout(root).run("segmentation", run.run_id + suffix)


SAM = {"kind": "sam", "backbone": "sam_vit_t"}
