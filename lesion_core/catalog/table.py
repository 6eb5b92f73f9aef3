"""The catalog: every image of every dataset in one table, and the pairs that no split may part."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow

from lesion_core import settings
from lesion_core.acquire.readers import Row, joining_id, read_dataset
from lesion_core.catalog.duplicates import components
from lesion_core.catalog.edges import REASONS, Edge, find_edges
from lesion_core.catalog.inspection import Inspected, inspect_rows
from lesion_core.errors import CatalogError
from lesion_core.files import read_parquet, write_json, write_parquet
from lesion_core.progress import say
from lesion_core.seeding import key_to_int

COLUMNS = (
    ("dataset", "string"),
    ("image_id", "string"),
    ("lesion_id", "string"),
    ("group_id", "string"),
    ("path", "string"),
    ("width", "int32"),
    ("height", "int32"),
    ("label", "string"),
    ("age", "float64"),
    ("sex", "string"),
    ("site", "string"),
    ("dx_type", "string"),  # how the diagnosis was made: histopathology, follow-up, consensus, ...
    ("mask_path", "string"),
    ("sha256", "string"),
    ("phash", "string"),
    ("licence", "string"),
    ("part", "string"),
    ("mask_sha256", "string"),
)
EDGE_COLUMNS = (
    ("dataset_a", "string"),
    ("image_id_a", "string"),
    ("dataset_b", "string"),
    ("image_id_b", "string"),
    ("reason", "string"),
    ("value", "float64"),
)
COMMON_SIZES = 10


def build_catalog(
    datasets: Mapping[str, Path],
    root: Path,
    duplicates: settings.Duplicates,
    custom: settings.Custom | None = None,
    few: Mapping[str, int] | None = None,
    *,
    out_images: Path,
    out_edges: Path,
    out_report: Path,
) -> None:
    """Read, inspect and join all datasets; write images.parquet, edges.parquet and report.json.

    Args:
        datasets: name of settings.DATASETS -> folder with its unpacked archives side by side.
        root: paths in the catalog are relative to it.
        duplicates: when two images count as the same.
        custom: the user's own dataset, needed if ``datasets`` has ``custom``.
        few: how many images of a dataset take part (``draw_few``); all of a dataset that it does not name.

    Raises:
        CatalogError, MaskError: labels, metadata or masks do not fit the images.
        ImageError, MaskError: files that cannot be used; all of them are named.
    """
    rows = sorted(
        (
            row
            for name, folder in datasets.items()
            for row in draw_few(read_dataset(name, Path(folder), custom), (few or {}).get(name))
        ),
        key=lambda row: row.key,
    )
    if not rows:
        raise CatalogError("no dataset is given", remedy="list at least one under data.datasets")
    say(f"catalog: {len(rows)} images of {len(datasets)} datasets")
    inspected = inspect_rows(rows, duplicates.views)
    edges = find_edges(rows, inspected, duplicates)
    roots = components(len(rows), [(edge.first, edge.second) for edge in edges])
    group_ids = [":".join(rows[root_row].key) for root_row in roots]
    root = Path(root)
    records = [
        {
            "dataset": row.dataset,
            "image_id": row.image_id,
            "lesion_id": row.lesion_id,
            "group_id": group_id,
            "path": relative_path(row.path, root),
            "width": seen.pixels.width,
            "height": seen.pixels.height,
            "label": row.label,
            "age": row.age,
            "sex": row.sex,
            "site": row.site,
            "dx_type": row.dx_type,
            "mask_path": relative_path(row.mask_path, root) if row.mask_path and seen.mask_sha256 else None,
            "sha256": seen.sha256,
            "phash": seen.pixels.fingerprint.hex,
            "licence": row.licence,
            "part": row.part,
            "mask_sha256": seen.mask_sha256,
        }
        for row, seen, group_id in zip(rows, inspected, group_ids, strict=True)
    ]
    edge_records = [
        {
            "dataset_a": rows[edge.first].dataset,
            "image_id_a": rows[edge.first].image_id,
            "dataset_b": rows[edge.second].dataset,
            "image_id_b": rows[edge.second].image_id,
            "reason": edge.reason,
            "value": edge.value,
        }
        for edge in edges
    ]
    report: dict[str, Any] = {
        "datasets": _describe_datasets(records),
        "joins": _describe_joins(rows, edges, group_ids),
        "problems": _problems(rows, inspected),
    }
    write_table(out_images, COLUMNS, records)
    write_table(out_edges, EDGE_COLUMNS, edge_records)
    write_json(out_report, report)
    counts = report["joins"]["edges"]
    say(f"catalog: {len(set(group_ids))} groups; edges {counts}; {len(report['problems'])} problems told")


def draw_few(rows: Sequence[Row], count: int | None) -> Sequence[Row]:
    """``count`` rows in turns from each class and part, drawn by image id alone: what releases share stays shared.

    None: all.
    """
    if count is None:
        return rows
    alike: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: key_to_int("few", joining_id(row.image_id))):
        alike[row.label or "", row.part or ""].append(row)
    turns = sorted((place, name) for name, members in alike.items() for place in range(len(members)))
    return [alike[name][place] for place, name in turns[:count]]


def write_table(path: Path, columns: Sequence[tuple[str, str]], records: Sequence[Mapping[str, Any]]) -> None:
    """Write records as Parquet with the given columns and types, atomically, the same bytes for the same records."""
    write_parquet(path, pyarrow.Table.from_pylist(list(records), schema=pyarrow.schema(columns)))


def read_table(path: Path, columns: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Read a Parquet table written by :func:`write_table`; CatalogError if it is absent or has other columns."""

    try:
        table = read_parquet(path)
    except (OSError, ValueError) as error:
        raise CatalogError("the table cannot be read", file=path, remedy="run the catalog stage again") from error
    if table.column_names != [name for name, _ in columns]:
        raise CatalogError(
            "the columns are not those of the catalog",
            file=path,
            ids=table.column_names,
            remedy="run the catalog stage again",
        )
    return table.to_pylist()


def read_images(path: Path) -> list[dict[str, Any]]:
    """Rows of images.parquet, sorted by dataset and image_id."""
    return read_table(path, COLUMNS)


def read_edges(path: Path) -> list[dict[str, Any]]:
    """Rows of edges.parquet."""
    return read_table(path, EDGE_COLUMNS)


def relative_path(path: Path, root: Path) -> str:
    """Posix path from ``root`` to ``path``, through ``..`` where needed (a user's own files lie elsewhere).

    ``..`` leads out of the folder that results really lie in, which may be a link to another disk.
    """
    path, root = Path(path).absolute(), Path(root)
    inside = path.is_relative_to(root.absolute())
    return Path(os.path.relpath(path, root.absolute() if inside else root.resolve())).as_posix()


def _describe_datasets(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    by_dataset: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        by_dataset[record["dataset"]].append(record)
    described = {}
    for dataset, members in by_dataset.items():
        sizes = Counter(f"{record['width']} x {record['height']}" for record in members)
        labels = Counter(record["label"] for record in members if record["label"] is not None)
        common = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:COMMON_SIZES]
        missing = ("lesion_id", "label", "age", "sex", "site", "mask_path")
        described[dataset] = {
            "images": len(members),
            "masks": sum(record["mask_path"] is not None for record in members),
            "lesions": len({record["lesion_id"] for record in members} - {None}),
            "labels": dict(labels),
            "sizes": {"different": len(sizes), "common": dict(common)},
            "missing": {name: sum(record[name] is None for record in members) for name in missing},
        }
    return described


def _describe_joins(rows: Sequence[Row], edges: Sequence[Edge], group_ids: Sequence[str]) -> dict[str, Any]:
    edges_between: dict[str, Counter[str]] = defaultdict(Counter)
    for edge in edges:
        edges_between[_pair(rows[edge.first].dataset, rows[edge.second].dataset)][edge.reason] += 1
    counts = Counter(edge.reason for edge in edges)
    sizes = Counter(Counter(group_ids).values())
    return {
        "edges": {reason: counts[reason] for reason in REASONS},
        "edges_between": {pair: dict(counter) for pair, counter in edges_between.items()},
        "shared": _describe_shared(rows, group_ids),
        "lesions_joined": _lesions_joined(rows, group_ids),
        "groups": len(set(group_ids)),
        "groups_by_size": {str(size): count for size, count in sizes.items()},
    }


def _describe_shared(rows: Sequence[Row], group_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """What two datasets have in common: images by id, lesions by id, and groups however joined."""
    kinds: dict[str, dict[str, set[str]]] = {name: defaultdict(set) for name in ("image_ids", "lesion_ids", "groups")}
    for row, group_id in zip(rows, group_ids, strict=True):
        kinds["image_ids"][row.dataset].add(joining_id(row.image_id))
        kinds["groups"][row.dataset].add(group_id)
        if row.lesion_id is not None:
            kinds["lesion_ids"][row.dataset].add(row.lesion_id)
    return {
        _pair(first, second): {kind: len(names[first] & names[second]) for kind, names in kinds.items()}
        for first, second in combinations(sorted({row.dataset for row in rows}), 2)
    }


def _lesions_joined(rows: Sequence[Row], group_ids: Sequence[str]) -> list[list[str]]:
    """Lesion ids of the releases that pixels show to be one lesion: worth a look, and a note in the report."""
    lesions: dict[str, set[str]] = defaultdict(set)
    for row, group_id in zip(rows, group_ids, strict=True):
        if row.lesion_id is not None:
            lesions[group_id].add(row.lesion_id)
    return sorted(sorted(names) for names in lesions.values() if len(names) > 1)


def _pair(first: str, second: str) -> str:
    return " - ".join(sorted({first, second}))


def _problems(rows: Sequence[Row], inspected: Sequence[Inspected]) -> list[dict[str, str]]:
    return [
        {"dataset": row.dataset, "image_id": row.image_id, "kind": kind, "detail": detail}
        for row, seen in zip(rows, inspected, strict=True)
        for kind, detail in (*row.notes, *seen.problems)
    ]
