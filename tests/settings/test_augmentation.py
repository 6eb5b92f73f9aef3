"""Names of transforms and parameters are known before any job; the table of them is albumentations' own."""

from __future__ import annotations

import inspect
import json

import albumentations
import pytest
from albumentations.core.composition import BaseCompose
from albumentations.core.transforms_interface import BasicTransform, Transform3D

from lesion_core.errors import SettingsError
from lesion_core.pixels.augment import Warp
from lesion_core.settings import load as config
from lesion_core.settings.augmentation import TRANSFORMS

# Not for a lone image and its mask of fixed size and type: abstract, in need of boxes, functions or other images,
# or changing size or type whatever their parameters.
LEFT_OUT = {
    *("BasicTransform", "DualTransform", "ImageOnlyTransform", "BaseCompose", "Compose", "ReplayCompose", "Lambda"),
    *("AtLeastOneBBoxRandomCrop", "BBoxSafeRandomCrop", "RandomCropNearBBox", "RandomSizedBBoxSafeCrop", "MaskDropout"),
    *("FDA", "HistogramMatching", "Mosaic", "OverlayElements", "PixelDistributionAdaptation", "TextImage"),
    *("FromFloat", "Normalize", "ToFloat", "ToTensor3D", "ToTensorV2"),
}


def test_the_table_is_albumentations_own_and_warp():
    classes = {"Warp": Warp}
    for name, found in inspect.getmembers(albumentations, inspect.isclass):
        if issubclass(found, (BasicTransform, BaseCompose)) and not issubclass(found, Transform3D):
            classes[name] = found
    table = {
        name: sorted(set(inspect.signature(found).parameters) - {"args", "kwargs"})
        for name, found in sorted(classes.items())
        if name not in LEFT_OUT
    }
    assert table == TRANSFORMS, json.dumps(table)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"transform": "HorizontalFlop"}, "HorizontalFlop is no transform of albumentations; use HorizontalFlip"),
        ({"transform": "Wrap"}, "use Warp"),
        ({"transform": "Warp", "rotation": 15.0}, "Warp has no parameter rotation; use rotation_degrees"),
        ({"p": 1.0}, "None is no transform"),
        ({"transform": "OneOf", "transforms": [{"transform": "Blurr"}]}, "Blurr is no transform .*; use Blur"),
        ({"transform": "OneOf", "transforms": "Blur"}, "must be a list"),
        ("Blur", "valid dict"),
    ],
)
def test_a_wrong_name_is_refused_when_settings_are_read(entry, said):
    with pytest.raises(SettingsError, match=rf"(?s)methods\.unet\.augmentation\.0: .*{said}"):
        config.load("smoke", {"methods": {"unet": {"augmentation": [entry]}}})


def test_transforms_of_albumentations_can_be_added():
    added = [{"transform": "OneOf", "p": 0.5, "transforms": [{"transform": "CLAHE"}, {"transform": "MedianBlur"}]}]
    settings = config.load("smoke", {"methods": {"unet": {"augmentation": added}}})
    assert settings.methods["unet"].augmentation == added
    ids = [{run.run_id for run in config.expand(each).values()} for each in (settings, config.load("smoke"))]
    assert {run.split("-")[0] for run in ids[0] - ids[1]} == {"unet"}
