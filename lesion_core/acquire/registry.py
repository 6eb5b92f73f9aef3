"""What is downloaded: every official file with its addresses, size, checksum, licence and citation.

Collected from public code that fetches these files. A file without a checksum is pinned at its first download
(see ``lesion_core.acquire.download``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lesion_core.errors import SettingsError
from lesion_core.settings import DATASETS

GIB = 1 << 30
Part = Literal["training", "validation", "test"]


@dataclass(frozen=True)
class RemoteFile:
    """One official file.

    Attributes:
        name: file name on disk and in a mirror.
        addresses: official addresses, tried in this order.
        licence: terms of use.
        citation: what to cite.
        bytes: official size, if known.
        md5, sha256: official hex digests, if known.
        part: the part of the release it belongs to.
        also: other names under which a mirror may hold the same bytes.
    """

    name: str
    addresses: tuple[str, ...]
    licence: str
    citation: str
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    part: Part = "training"
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Release:
    """One dataset as released.

    Attributes:
        name: the dataset's name in the settings.
        files: its official files.
        parts: the parts that are fetched unless others are asked for.
        supplied: names under which a user may supply the release, where it cannot be downloaded.
        unpacked_limit: bytes that its archives may unpack to; several times the real size.
        member_limit: files that its archives may hold together; several times the real number.
    """

    name: str
    files: tuple[RemoteFile, ...]
    parts: tuple[Part, ...] = ("training",)
    supplied: tuple[str, ...] = ()
    unpacked_limit: int = 64 * GIB
    member_limit: int = 200_000

    def fetched(self, parts: tuple[Part, ...] | None = None) -> tuple[RemoteFile, ...]:
        """Files of ``parts`` (the release's own choice when None), sorted by name."""
        wanted = self.parts if parts is None else parts
        return tuple(sorted((file for file in self.files if file.part in wanted), key=lambda file: file.name))


@dataclass(frozen=True)
class Weights:
    """Published weights of a foundation model, and what they were trained on."""

    name: str
    file: RemoteFile
    trained_on: str


GUTMAN_2016 = "Gutman et al., Skin lesion analysis toward melanoma detection (ISBI 2016), arXiv:1605.01397"
CODELLA_2017 = "Codella et al., Skin lesion analysis toward melanoma detection (ISBI 2017), arXiv:1710.05006"
CODELLA_2018 = "Codella et al., Skin lesion analysis toward melanoma detection 2018, arXiv:1902.03368"
TSCHANDL_2018 = "Tschandl, Rosendahl, Kittler, The HAM10000 dataset, Sci Data 5:180161, 2018"
TSCHANDL_2020 = "Tschandl et al., Human-computer collaboration for skin cancer recognition, Nat Med 26:1229, 2020"
COMBALIA_2019 = "Combalia et al., BCN20000: dermoscopic lesions in the wild, arXiv:1908.02288"
MENDONCA_2013 = "Mendonca et al., PH2: a dermoscopic image database for research and benchmarking, EMBC 2013"
KIRILLOV_2023 = "Kirillov et al., Segment anything, ICCV 2023"
MA_2024 = "Ma et al., Segment anything in medical images, Nat Commun 15:654, 2024"

CC0 = "CC0 1.0"
CC_BY_NC = "CC BY-NC 4.0"
HAM_TERMS = "CC BY-NC 4.0 in the literature, custom terms on the dataset's page"
PH2_TERMS = "research and education only, no redistribution"


def _isic(year: int, name: str, licence: str, citation: str, **known) -> RemoteFile:
    """A file of an ISIC challenge: two public buckets hold them."""
    addresses = (
        f"https://isic-challenge-data.s3.amazonaws.com/{year}/{name}",
        f"https://isic-archive.s3.amazonaws.com/challenges/{year}/{name}",
    )
    return RemoteFile(name, addresses, licence, citation, **known)


def _dataverse(name: str, number: int, citation: str, query: str = "", **known) -> RemoteFile:
    """A file of the HAM10000 dataverse, doi:10.7910/DVN/DBW86T version 4."""
    address = f"https://dataverse.harvard.edu/api/access/datafile/{number}{query}"
    return RemoteFile(name, (address,), HAM_TERMS, citation, **known)


def _2016(name: str, md5: str, part: Part) -> RemoteFile:
    return _isic(2016, f"ISBI2016_ISIC_Part1_{name}.zip", CC0, GUTMAN_2016, md5=md5, part=part)


def _2017(name: str, md5: str, part: Part) -> RemoteFile:
    return _isic(2017, f"ISIC-2017_{name}.zip", CC0, CODELLA_2017, md5=md5, part=part)


def _2018(name: str, part: Part = "training", **known) -> RemoteFile:
    citation = f"{CODELLA_2018}; {TSCHANDL_2018}"
    return _isic(2018, f"ISIC2018_{name}", CC_BY_NC, citation, part=part, **known)


def _2019(name: str, size: int) -> RemoteFile:
    citation = f"{TSCHANDL_2018}; {CODELLA_2017}; {COMBALIA_2019}"
    return _isic(2019, f"ISIC_2019_Training_{name}", CC_BY_NC, citation, bytes=size)


ISIC2016 = Release(
    "isic2016",
    (
        _2016("Training_Data", "2029f387e62dcc062b1370b1efc1f7fb", "training"),
        _2016("Training_GroundTruth", "fbd77134298f3511479a37bac93109c7", "training"),
        _2016("Test_Data", "efebcaeaae751007401a40a60d391f93", "test"),
        _2016("Test_GroundTruth", "492a7711a2e19b96114cab6c96bd1ad5", "test"),
    ),
    parts=("training", "test"),
)
ISIC2017 = Release(
    "isic2017",
    (
        _2017("Training_Data", "a14a7e622c67a358797ae59abb8a0b0c", "training"),
        _2017("Training_Part1_GroundTruth", "77fdbeb6fbec4139937224416b250f4c", "training"),
        _2017("Validation_Data", "8d6419d942112f709894c0d82f6c9038", "validation"),
        _2017("Validation_Part1_GroundTruth", "64d3e68fa2deeb8a5e89aa8dec2efd44", "validation"),
        _2017("Test_v2_Data", "5f6a0b5e1f2972bd1f5ea02680489f09", "test"),
        _2017("Test_v2_Part1_GroundTruth", "b1742de6bd257faca3b2b21a4aa3b781", "test"),
    ),
    parts=("training", "validation", "test"),
)
ISIC2018_TASK1 = Release(
    "isic2018_task1",
    (
        _2018(
            "Task1-2_Training_Input.zip",
            bytes=11_165_358_566,
            sha256="80f98572347a2d7a376227fa9eb2e4f7459d317cb619865b8b9910c81446675f",
        ),
        _2018(
            "Task1_Training_GroundTruth.zip",
            bytes=27_402_895,
            sha256="99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c",
        ),
        _2018(
            "Task1-2_Validation_Input.zip",
            "validation",
            bytes=239_231_159,
            sha256="0ea920fcfe512d12a6e620b50b50233c059f67b10146e1479c82be58ff15a797",
        ),
        _2018(
            "Task1_Validation_GroundTruth.zip",
            "validation",
            bytes=759_706,
            sha256="f6911e9c0a64e6d687dd3ca466ca927dd5e82145cb2163b7a1e5b37d7a716285",
        ),
        _2018(
            "Task1-2_Test_Input.zip",
            "test",
            bytes=2_370_457_338,
            sha256="e59ae1f69f4ed16f09db2cb1d76c2a828487b63d28f6ab85997f5616869b127d",
        ),
        _2018(
            "Task1_Test_GroundTruth.zip",
            "test",
            bytes=9_680_101,
            sha256="2e8f6edce454a5bdee52485e39f92bd6eddf357e81f39018d05512175238ef82",
        ),
    ),
)
ISIC2018_TASK3 = Release(
    "isic2018_task3",
    (
        _2018("Task3_Training_Input.zip", bytes=2_771_732_744),
        _2018("Task3_Training_GroundTruth.zip", md5="8302427e4ce0c107559531b9f444abe9"),
        _2018("Task3_Training_LesionGroupings.csv", md5="9517b6aa6902d6c27e234bac8279a64a"),
    ),
)
ISIC2019 = Release(
    "isic2019",
    (
        _2019("Input.zip", 9_771_618_190),
        _2019("GroundTruth.csv", 1_291_479),
        _2019("Metadata.csv", 1_214_351),
    ),
)
HAM10000 = Release(
    "ham10000",
    (
        _dataverse(
            "HAM10000_images_part_1.zip",
            3172585,
            TSCHANDL_2018,
            bytes=1_366_522_108,
            md5="4639bfa73ab251610530a97c898e6e46",
        ),
        _dataverse(
            "HAM10000_images_part_2.zip",
            3172584,
            TSCHANDL_2018,
            bytes=1_403_566_547,
            md5="da43d6cc50f6613013be07e8986b384b",
        ),
        _dataverse(
            "HAM10000_metadata.csv",
            4338392,
            TSCHANDL_2018,
            query="?format=original",
            bytes=690_218,
            md5="8f85fb1aa29d80a2797247e434deb79d",
            also=("HAM10000_metadata",),  # as the dataverse lists it
        ),
        _dataverse(
            "HAM10000_segmentations_lesion_tschandl.zip",
            3838943,
            TSCHANDL_2020,
            md5="6e8d252e09cfdb0189199f15985a5b84",
        ),
        _dataverse(
            "ISIC2018_Task3_Test_Images.zip",
            3855824,
            TSCHANDL_2018,
            md5="0488b6f65849e310857d9207daa55a21",
            part="test",
        ),
    ),
    unpacked_limit=32 * GIB,
)
PH2 = Release(
    "ph2",
    (
        RemoteFile("PH2Dataset.zip", (), PH2_TERMS, MENDONCA_2013),
        RemoteFile("PH2Dataset.rar", (), PH2_TERMS, MENDONCA_2013),
    ),
    supplied=("PH2Dataset.zip", "PH2Dataset.rar", "PH2Dataset"),
    unpacked_limit=4 * GIB,
    member_limit=20_000,
)
CUSTOM = Release("custom", ())

RELEASES: dict[str, Release] = {
    release.name: release
    for release in (ISIC2016, ISIC2017, ISIC2018_TASK1, ISIC2018_TASK3, ISIC2019, HAM10000, PH2, CUSTOM)
}


def _sam(name: str, sha256: str, size: int | None = None) -> RemoteFile:
    address = f"https://dl.fbaipublicfiles.com/segment_anything/{name}"
    return RemoteFile(name, (address,), "Apache-2.0", KIRILLOV_2023, bytes=size, sha256=sha256)


SA_1B = "SA-1B (11 million licensed photographs, no dermoscopy set named)"
WEIGHTS: dict[str, Weights] = {
    weights.name: weights
    for weights in (
        Weights(
            "sam_vit_b",
            _sam(
                "sam_vit_b_01ec64.pth",
                "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
                375_042_383,
            ),
            SA_1B,
        ),
        Weights(
            "sam_vit_l",
            _sam("sam_vit_l_0b3195.pth", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"),
            SA_1B,
        ),
        Weights(
            "sam_vit_h",
            _sam("sam_vit_h_4b8939.pth", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"),
            SA_1B,
        ),
        Weights(
            "medsam",
            RemoteFile(
                "medsam_vit_b.pth",
                ("https://zenodo.org/records/10689643/files/medsam_vit_b.pth",),
                "code Apache-2.0; weights CC BY 4.0 according to third parties",
                MA_2024,
                md5="3bb6db55bd0c9ca30b61248bca72f8d6",
            ),
            "public medical images of many modalities; whether ISIC images are among them is not known",
        ),
    )
}
NAMES = (*DATASETS, *WEIGHTS)


def release(dataset: str) -> Release:
    """The release of a dataset of the settings; SettingsError for another name."""
    if dataset not in RELEASES:
        raise SettingsError(f"no dataset is called {dataset!r}", remedy=f"use one of {', '.join(sorted(RELEASES))}")
    return RELEASES[dataset]


def weights(name: str) -> Weights:
    """Published weights by backbone name; SettingsError for another name."""
    if name not in WEIGHTS:
        raise SettingsError(
            f"no downloadable weights are called {name!r}", remedy=f"use one of {', '.join(sorted(WEIGHTS))}"
        )
    return WEIGHTS[name]
