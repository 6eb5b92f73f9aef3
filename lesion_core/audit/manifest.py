"""manifest.json: the SHA-256 of every file that a finished pipeline vouches for, and the settings it ran with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lesion_core.audit.current import Current
from lesion_core.errors import RunError
from lesion_core.files import read_csv, read_json, sha256_file, write_json
from lesion_core.paths import Layout
from lesion_core.settings import Plan

NAME = "manifest.json"
UNPACKED = "manifest.csv"  # of one dataset, written when it was unpacked
RECORDS = ("provenance.json",)  # tell of times and machines, so they differ between two equal results
NO_RESULTS = ("log.txt", "checkpoint.pt")


def write_manifest(root: Path, settings: dict[str, Any], plan: Plan) -> None:
    """Hash the results under ``root`` and write ``manifest.json``: {settings, products, records}.

    ``products`` and ``records`` map a path relative to ``root`` to its SHA-256. Two runs of the same settings and
    code have equal products on one machine; records tell of times. Unpacked photographs are not hashed again: the
    hashes taken when they were written are copied.

    Args:
        root: ``results/<profile>``.
        settings: all sections that the results depend on.
        plan: the present matrix; what belongs to runs of earlier settings is left out.

    Raises:
        RunError: a run of the matrix is not finished.
    """
    unpacked = _unpacked(root)
    products: dict[str, str] = {}
    records: dict[str, str] = {}
    for name in product_files(root, plan):
        target = records if name.rsplit("/", 1)[-1] in RECORDS else products
        target[name] = unpacked.get(name) or sha256_file(root / name)
    write_json(root / NAME, {"settings": settings, "products": products, "records": records})


def product_files(root: Path, plan: Plan) -> Iterator[str]:
    """Paths, relative to ``root``, of all results of the matrix, sorted.

    Raises:
        RunError: a run of the matrix is not finished.
    """
    current = Current.of_results(root, plan)
    for path in Layout(root).products():
        parts = path.relative_to(root).parts
        if current.owns(parts) and path.name not in NO_RESULTS and not path.name.startswith("."):
            yield "/".join(parts)


def read_manifest(root: Path) -> dict[str, Any]:
    """The manifest of a results folder.

    Raises:
        RunError: there is none, or it is not one.
    """
    path = root / NAME
    remedy = "run the pipeline to its end; its last rule writes the manifest"
    try:
        content = read_json(path)
    except OSError as error:
        raise RunError("These results have no manifest", file=path, remedy=remedy) from error
    except ValueError as error:
        raise RunError(f"The manifest cannot be read: {error}", file=path, remedy=remedy) from error
    if not isinstance(content, dict) or not {"settings", "products", "records"} <= content.keys():
        raise RunError("The manifest lacks its parts", file=path, remedy=remedy)
    return content


def recorded_settings(root: Path, manifest: dict[str, Any], **kinds: type) -> tuple[Any, ...]:
    """Sections of the settings that a manifest records, each as its kind, in the order asked for.

    Raises:
        RunError: a section is missing, or this checkout does not understand it.
    """
    try:
        return tuple(TypeAdapter(kind).validate_python(manifest["settings"][name]) for name, kind in kinds.items())
    except (KeyError, ValidationError) as error:
        raise RunError(
            f"The manifest's settings cannot be read: {error}",
            file=root / NAME,
            remedy="run the pipeline with this checkout, or use the checkout that wrote it",
        ) from error


def _unpacked(root: Path) -> dict[str, str]:
    hashes: dict[str, str] = {}
    for table in sorted((root / "data").glob(f"*/{UNPACKED}")):
        folder = table.parent.relative_to(root).as_posix()
        hashes.update({f"{folder}/{row['path']}": row["sha256"] for row in read_csv(table)})
    return hashes
