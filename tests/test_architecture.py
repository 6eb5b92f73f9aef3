"""Imports go one way (docs/architecture.md): what a package may know, and no circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from chain import REPOSITORY

PACKAGE = REPOSITORY / "lesion_core"
# From the bottom: a package imports from its own line and those above it in this list.
LAYERS = (
    ("errors", "files", "paths", "progress", "seeding", "metrics", "stats"),
    ("settings",),
    ("record", "papers", "scores", "arrow"),
    ("acquire",),
    ("catalog",),
    ("pixels",),
    ("models",),
    ("training",),
    ("inference", "explain"),
    ("report", "audit", "sharing", "plan", "serve"),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# Today's exceptions, to be removed one by one: (importing module, imported package).
UPWARDS = {("lesion_core.record.observe", "catalog"), ("lesion_core.record.provenance", "pixels")}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(tree: ast.Module, *, at_load: bool) -> set[str]:
    """Names that a module imports; ``at_load``: those alone that it imports when it is loaded, not in functions."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        hints = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not (at_load and (lazy or hints)):
            for child in ast.iter_child_nodes(node):
                visit(child)

    visit(tree)
    return found


def ours(names: set[str]) -> set[str]:
    """The modules of the package among names, of ``from a.b import c`` a.b.c where it is one and else a.b."""
    return {name if name in MODULES else name.rpartition(".")[0] for name in names if name.startswith("lesion_core")}


TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
AT_LOAD = {name: imported(tree, at_load=True) for name, tree in TREES.items()}


def level(module: str) -> int:
    return LEVEL[module.split(".")[1]]


@pytest.mark.parametrize("module", [name for name in MODULES if name != "lesion_core"])
def test_imports_go_down(module):
    known = ours(imported(TREES[module], at_load=False)) - {"lesion_core"}
    up = {(module, other.split(".")[1]) for other in known if level(other) > level(module)}
    assert up - UPWARDS == set()


def test_no_circle():
    graph = {name: ours(names) - {name} for name, names in AT_LOAD.items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules that import each other: {' <- '.join(error.args[1])}")
