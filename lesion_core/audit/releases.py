"""Does the catalog say what the releases say: their archives, tables and masks; and do the splits follow from it?"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from lesion_core.acquire.registry import release
from lesion_core.acquire.unpack import unpack_dataset
from lesion_core.audit.anew import differing
from lesion_core.audit.answer import NOT_ASKED, Answer
from lesion_core.catalog.splits import build_splits
from lesion_core.catalog.table import build_catalog, read_images
from lesion_core.files import read_json
from lesion_core.paths import Layout
from lesion_core.record.outputs import NAME as RECORD
from lesion_core.record.outputs import recorded_outputs
from lesion_core.settings import Duplicates, Plan
from lesion_core.settings.protocols import Homes
from lesion_core.settings.stored import stored


def catalog(root: Path, datasets: list[str], duplicates: Duplicates, count: int) -> Answer:
    """Archives unpacked anew hold the files under ``data/``; the catalog built anew from these is the one here.

    So every label, age, lesion, mask and hash in it is the releases' own. Of a release whose archives were deleted, the
    files under ``data/`` are taken as they are, which is told.

    Args:
        datasets: those of the settings.
        duplicates: when two images count as the same.
        count: 0 makes nothing.
    """
    answer = Answer("Are labels, masks and groups in the catalog those of the releases?")
    if count == 0:
        answer.skipped = NOT_ASKED
        return answer
    layout, told, absent = Layout(root), [], []
    with tempfile.TemporaryDirectory() as folder:
        again = Layout(Path(folder))
        (again.root / "data").mkdir()
        for dataset in datasets:
            listing = layout.downloads(dataset) / "files.json"
            if dataset == "custom":
                continue
            if listing.is_file() and all(
                (listing.parent / file["name"]).is_file() for file in read_json(listing)["files"]
            ):
                unpack_dataset(dataset, layout.downloads(dataset), again.data(dataset))
                answer.problems += _unlike_archives(again, layout, dataset)
                told.append(f"{dataset} ({_official(dataset, listing)})")
            else:
                again.data(dataset).symlink_to(layout.data(dataset).resolve())
                absent.append(dataset)
        build_catalog(
            {dataset: again.data(dataset) for dataset in datasets},
            again.root,
            duplicates,
            custom=stored(root).data.custom if "custom" in datasets else None,
            out_images=again.catalog,
            out_edges=again.edges,
            out_report=again.data_report,
        )
        images = read_images(again.catalog)
        answer.problems += _other_cells(images, read_images(layout.catalog))
        same = [layout.edges, layout.data_report, *([] if "custom" in datasets else [layout.catalog])]
        names = [path.relative_to(root).as_posix() for path in same]
        answer.problems += differing(again.root, root, names)
    answer.evidence = (
        f"{len(images)} images, {sum(row['mask_path'] is not None for row in images)} masks and"
        f" {sum(row['label'] is not None for row in images)} labels read anew, from archives unpacked anew of"
        f" {', '.join(told) or 'no release'}"
    )
    if absent:
        answer.evidence += (
            f"; no archives are here of {', '.join(absent)}, whose files were read as they lie under data/"
        )
    return answer


def _unlike_archives(again: Layout, here: Layout, dataset: str) -> list[str]:
    """Files under data/ that are missing, changed, or in none of the archives."""
    folder = again.data(dataset)
    right = {path.relative_to(again.root).as_posix() for path in [*recorded_outputs(folder / RECORD), folder / RECORD]}
    found = {path.relative_to(here.root).as_posix() for path in here.data(dataset).rglob("[!.]*") if path.is_file()}
    problems = [
        f"{line.split(': ')[0]}: not what the release's archive holds"
        for line in differing(again.root, here.root, right)
    ]
    return problems + [f"{name}: in none of the release's archives" for name in sorted(found - right)]


def _official(dataset: str, listing: Path) -> str:
    """How many of the archives have the checksum that this checkout knows of the release."""
    known = {file.name: file.sha256 for file in release(dataset).files if file.sha256}
    files = read_json(listing)["files"]
    official = sum(known.get(file["name"]) == file["sha256"] for file in files)
    return f"{official} of {len(files)} files with the official SHA-256"


def _other_cells(right: list[dict[str, Any]], here: list[dict[str, Any]]) -> list[str]:
    """Cells of the catalog that differ, each with image and column; images that are too many or too few."""
    wanted, found = ({(row["dataset"], row["image_id"]): row for row in rows} for rows in (right, here))
    return [
        f"catalog/images.parquet: {'/'.join(key)}: {column} is {found[key][column]!r}, the release gives {value!r}"
        for key in sorted(wanted.keys() & found.keys())
        for column, value in wanted[key].items()
        if found[key][column] != value and not (key[0] == "custom" and column.endswith("path"))
    ] + [
        f"catalog/images.parquet: {'/'.join(key)}: {'missing' if key in wanted else 'in no release'}"
        for key in sorted(wanted.keys() ^ found.keys())
    ]


def split_tables(root: Path, plan: Plan, homes: Homes, count: int) -> Answer:
    """Split tables and certificates made anew from the catalog and the settings' seed have the same bytes."""
    answer = Answer("Do the split tables follow from catalog and settings?")
    if count == 0:
        answer.skipped = NOT_ASKED
        return answer
    layout, files = Layout(root), 0
    used = sorted(set(plan.protocols.values()))
    with tempfile.TemporaryDirectory() as folder:
        again = Layout(Path(folder))
        for home in used:
            out = again.certificate(home).parent
            build_splits(layout.catalog, layout.edges, homes.materials[home].splits, out)
            names = [path.relative_to(again.root).as_posix() for path in sorted(out.iterdir())]
            answer.problems += differing(again.root, root, names)
            files += len(names)
    answer.evidence = f"{files} tables and certificates of {', '.join(used)} made anew and compared byte for byte"
    return answer
