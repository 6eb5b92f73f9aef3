"""What is downloaded: ``registry.yaml`` beside this file, typed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from lesion_core.errors import SettingsError
from lesion_core.settings import DATASETS, OFFICIAL, Method
from lesion_core.settings.pretrained import weights_name

DATA_FILES = ("acquire/registry.yaml",)
GIB = 1 << 30
EMBEDDED = "sam_vit_t"  # in this package
Part = Literal["training", "validation", "test", "masks"]


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
        files: its official files; without addresses a user supplies one of them.
        parts: the parts that are fetched unless others are asked for.
        unpacked_limit: bytes that its archives may unpack to.
        member_limit: files that its archives may hold together.
        loose: the table that names its images, the column, and the images' archives; none where no table does.
    """

    name: str
    files: tuple[RemoteFile, ...]
    parts: tuple[Part, ...] = ("training",)
    unpacked_limit: int = 64 * GIB
    member_limit: int = 200_000
    loose: tuple[str, ...] = ()

    def fetched(self, parts: tuple[Part, ...] | None = None) -> tuple[RemoteFile, ...]:
        """Files of ``parts`` (the release's own choice when None), sorted by name."""
        wanted = self.parts if parts is None else parts
        return tuple(sorted((file for file in self.files if file.part in wanted), key=lambda file: file.name))


@dataclass(frozen=True)
class Weights:
    """Published weights.

    Attributes:
        name: of a network, see ``settings.pretrained``.
        file: the published file; of a package, its path in there.
        trained_on: as its authors say.
        test_images: whether that can contain images that are tested on here.
        package: the Python package that holds the file; None: it is downloaded.
    """

    name: str
    file: RemoteFile
    trained_on: str
    test_images: str
    package: str | None = None


def _file(entry: dict[str, Any], common: dict[str, Any]) -> RemoteFile:
    known = {key: value for key, value in entry.items() if key not in ("addresses", "cite", "id", "also")}
    templates = entry.get("addresses", common["addresses"])
    addresses = tuple(address.format(name=entry["name"], id=entry.get("id")) for address in templates)
    citation, also = entry.get("cite", common["cite"]), tuple(entry.get("also", ()))
    return RemoteFile(addresses=addresses, licence=common["licence"], citation=citation, also=also, **known)


def _release(name: str, entry: dict[str, Any]) -> Release:
    files = tuple(_file(file, entry) for file in entry.get("files", ()))
    limits = {"unpacked_limit": entry.get("unpacked_gib", 64) * GIB, "member_limit": entry.get("members", 200_000)}
    return Release(name, files, tuple(entry.get("parts", ("training",))), loose=tuple(entry.get("loose", ())), **limits)


def _weights(name: str, entry: dict[str, Any]) -> Weights:
    file = _file({"name": f"{name}.safetensors", "id": name, **entry.get("file", {})}, entry)
    return Weights(name, file, entry["trained_on"], entry["test_images"], entry.get("package"))


_CONTENT = yaml.safe_load(Path(__file__).with_name("registry.yaml").read_text(encoding="utf-8"))
RELEASES = {name: _release(name, entry) for name, entry in _CONTENT["datasets"].items()}
RELEASES |= {
    name: replace(RELEASES[whole], name=name, parts=(cast(Part, part),)) for name, (whole, part) in OFFICIAL.items()
}
REFERENCES = {name: _release(name, entry) for name, entry in _CONTENT["references"].items()}
WEIGHTS = {name: _weights(name, entry) for name, entry in _CONTENT["weights"].items()}
NAMES = (*DATASETS, *WEIGHTS)


def release(dataset: str) -> Release:
    """The release of a dataset of the settings; SettingsError for another name."""
    if dataset not in RELEASES:
        raise SettingsError(f"no dataset is called {dataset!r}", remedy=f"use one of {', '.join(sorted(RELEASES))}")
    return RELEASES[dataset]


def weights(name: str) -> Weights:
    """Published weights by name; SettingsError for another name."""
    if name not in WEIGHTS:
        raise SettingsError(
            f"no published weights are called {name!r}",
            remedy=f"use one of {', '.join(sorted(WEIGHTS))}, or add them to lesion_core/acquire/registry.yaml",
        )
    return WEIGHTS[name]


def require_weights(specs: Iterable[Method]) -> None:
    """Every network starts from weights that are known, so that none is missed hours after the start.

    Raises:
        SettingsError: naming the weights that neither the registry nor the package has.
    """
    models = [spec.model for spec in specs if spec.task in ("segmentation", "classification")]
    missing = {name for model in models if (name := weights_name(model))} - {*WEIGHTS, EMBEDDED}
    if missing:
        remedy = f"use what is known ({', '.join(sorted(WEIGHTS))}), or add them to lesion_core/acquire/registry.yaml"
        raise SettingsError("The source of these weights is unknown", ids=sorted(missing), remedy=remedy)
