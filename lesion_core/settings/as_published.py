"""Methods that run a second time, under their paper's own split, beside the leak-free one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lesion_core.settings.paper import Paper

SUFFIX = "_as_published"
NEEDS = ("masks", "segmenter", "classifier")  # keys of methods that name another method


def with_published(
    raw: dict[str, Any], papers: Mapping[str, Paper], names: Iterable[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Methods and matrix with a second method, ``<name>_as_published``, for each that has a printed number.

    What it needs is its own second method. Where a paper's own split is the leak-free one, nothing is added.

    Args:
        raw: settings whose methods and protocols are resolved; ``matrix.as_published`` is ``all`` or names of methods.
        papers: by name.
        names: of those that are asked for.
    """
    methods, matrix = dict(raw["methods"]), raw["matrix"]
    wanted = matrix.get("as_published", "all")
    rows = [row for name in names for table in papers[name].tables.values() for row in table.rows if row.published]
    printed = {name for row in rows for name in (row.method, row.segmenter)}

    def second(name: str) -> str:
        own = methods.get(name, {})
        if "protocol" not in own or raw["protocols"][own["protocol"]]["as_published"] == "leak_free":
            return name
        if name + SUFFIX not in methods:
            body = own | {"rule": "as_published"}
            body |= {key: second(own[key]) for key in NEEDS if isinstance(own.get(key), str)}
            methods[name + SUFFIX] = body | ({"of": [second(member) for member in own["of"]]} if "of" in own else {})
        return name + SUFFIX

    chosen = [name for name in matrix["methods"] if name in printed and (wanted == "all" or name in wanted)]
    added = [found for found in map(second, chosen) if found.endswith(SUFFIX) and found not in matrix["methods"]]
    seeds_for = matrix.get("seeds_for", {})
    taken = {name + SUFFIX: seeds for name, seeds in seeds_for.items() if name + SUFFIX in methods}
    return methods, matrix | {"methods": [*matrix["methods"], *added], "seeds_for": seeds_for | taken}
