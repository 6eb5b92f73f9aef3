"""Types that the sections share, and the names that settings may use."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+-]*")


def _check_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError("a name takes letters, digits, _, - and +, and starts with a letter, a digit or _")
    return name


Item = TypeVar("Item")


def _check_distinct(items: list[Item]) -> list[Item]:
    if twice := sorted({str(item) for item in items if items.count(item) > 1}):
        raise ValueError(f"{', '.join(twice)} stands twice")
    return items


Distinct = Annotated[list[Item], AfterValidator(_check_distinct)]
# Names of methods, bases, tables and runs become parts of paths and of shell lines.
Name = Annotated[str, AfterValidator(_check_name), Field(max_length=64)]
RunId = Annotated[str, AfterValidator(_check_name), Field(max_length=200)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
BACKBONE_PATCHES = {  # patch sizes, or the stride of a convolutional network's last map
    "vit_t": (4, 8, 16, 32),
    "vit_base": (8, 16, 32),
    "efficientnet_b4": (32,),
    "efficientnet_lite0": (32,),
    "efficientnet_lite1": (32,),
    "efficientnet_lite2": (32,),
    "convnext_tiny": (32,),
    "densenet201": (32,),
    "resnet50": (32,),
    "vgg16": (32,),
    "inception_v3": (32,),
    "swin_tiny": (32,),
    "deit_small": (16,),
}
UNALIGNED = ("inception_v3",)  # without padding: the last map has fewer places than the image has patches
NETWORKS = ("fusion", "dual")  # kinds of classifiers that are trained by gradient descent
CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
Dataset = Literal[
    "isic2016",
    "isic2017",
    "isic2018_task1",
    "isic2018_task3",
    "isic2019",
    "ham10000",
    "ph2",
    "custom",
    "isic2016_test",
    "isic2017_validation",
    "isic2017_test",
    "isic2018_task1_validation",
    "isic2018_task1_test",
    "isic2018_task3_validation",
    "isic2018_task3_test",
]
DATASETS: tuple[Dataset, ...] = get_args(Dataset)
# A challenge's own part, on which nothing trains: name -> release, part.
OFFICIAL: dict[str, tuple[str, str]] = {
    name: (name.rpartition("_")[0], name.rpartition("_")[2])
    for name in DATASETS
    if name.endswith(("_validation", "_test"))
}
ProfileName = Literal["smoke", "mini", "rehearsal", "paper"]
Prompt = Literal["none", "automatic", "automatic_masks", "oracle_box", "oracle_click_1", "oracle_click_3"]
# What a method can be trained with: an automatic prompt comes from a trained model.
TrainingPrompt = Literal["none", "oracle_box", "oracle_click_1", "oracle_click_3"]


class Strict(BaseModel):
    """Unknown keys fail; values are not coerced from other types; settings do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
