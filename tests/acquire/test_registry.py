"""Every name of the settings is known, and what is known about a file is well formed."""

from __future__ import annotations

import re

import pytest

from lesion_core.acquire import registry
from lesion_core.errors import SettingsError
from lesion_core.settings import BACKBONE_PATCHES, DATASETS, OFFICIAL
from lesion_core.settings.load import load
from lesion_core.settings.pretrained import TIMM_NAMES

FILES = [file for name, release in registry.RELEASES.items() if name not in OFFICIAL for file in release.files] + [
    weights.file for weights in registry.WEIGHTS.values()
]


def test_names_are_those_of_the_settings_and_the_weights() -> None:
    assert tuple(registry.RELEASES) == DATASETS
    assert (*DATASETS, *registry.WEIGHTS) == registry.NAMES
    assert {"sam_vit_b", "sam_vit_l", "sam_vit_h", "medsam", "resnet34.imagenet"} < set(registry.WEIGHTS)
    encoders = {backbone for backbone in BACKBONE_PATCHES if backbone != "vit_t"}
    assert {backbone for backbone, _ in TIMM_NAMES} == encoders
    assert set(TIMM_NAMES.values()) <= set(registry.WEIGHTS)


def test_every_network_of_the_paper_profile_starts_from_known_weights() -> None:
    methods = load("paper").methods
    registry.require_weights(methods.values())
    unet = methods["unet"]
    other = unet.model_copy(update={"model": unet.model.model_copy(update={"encoder": "resnet18"})})
    with pytest.raises(SettingsError, match="registry") as refused:
        registry.require_weights([other])
    assert refused.value.ids == ("resnet18.imagenet",)


def test_what_weights_were_trained_on_is_said_of_all() -> None:
    for weights in registry.WEIGHTS.values():
        assert weights.trained_on
        assert weights.test_images
        assert (weights.package is None) == bool(weights.file.addresses)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_file_is_well_formed(file: registry.RemoteFile) -> None:
    assert re.fullmatch(r"[\w./-]+", file.name)
    assert file.licence
    assert file.citation
    assert file.md5 is None or re.fullmatch(r"[0-9a-f]{32}", file.md5)
    assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)
    assert all(address.startswith("https://") for address in file.addresses)
    assert file.addresses or file.name.startswith(("PH2Dataset", "models/"))


def test_no_two_files_share_a_name_or_a_checksum() -> None:
    for values in ([file.name for file in FILES], [file.md5 or file.sha256 or file.name for file in FILES]):
        assert len(values) == len(set(values))


def test_isic_files_have_both_bases_in_order() -> None:
    first, second = registry.RELEASES["isic2018_task1"].files[0].addresses
    name = "ISIC2018_Task1-2_Training_Input.zip"
    assert first == f"https://isic-challenge-data.s3.amazonaws.com/2018/{name}"
    assert second == f"https://isic-archive.s3.amazonaws.com/challenges/2018/{name}"


def test_limits_leave_room_for_the_known_sizes() -> None:
    for release in registry.RELEASES.values():
        assert release.unpacked_limit > 2 * sum(file.bytes or 0 for file in release.files)


def test_fetched_parts() -> None:
    task1 = registry.release("isic2018_task1")
    assert [file.name for file in task1.fetched()] == [
        "ISIC2018_Task1-2_Training_Input.zip",
        "ISIC2018_Task1_Training_GroundTruth.zip",
    ]
    assert len(task1.fetched(("validation", "test"))) == 4
    assert len(registry.release("isic2017").fetched()) == 6
    assert len(registry.release("isic2016").fetched()) == 4
    assert "ISIC2018_Task3_Test_Images.zip" not in [file.name for file in registry.release("ham10000").fetched()]


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="isic2018_task1"):
        registry.release("isic2042")
    with pytest.raises(SettingsError, match="medsam"):
        registry.weights("sam_vit_x")
