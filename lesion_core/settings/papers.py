"""The papers' files, read and laid together with params.yaml and a profile."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lesion_core.errors import SettingsError
from lesion_core.settings.paper import Paper, TestTable
from lesion_core.settings.yaml_file import line_of, read_yaml

FOLDER = Path("workflow") / "papers"
NUMBERED = re.compile(r".*_table_\d\d")
REMEDY = "`lesion paper check FILE` tells of all that is wrong in it; docs/your_paper.md explains each key"


def read_paper(path: Path) -> Paper:
    """One paper's file, its tables marked with the paper's name, which is the file's.

    Raises:
        SettingsError: naming the file and the line of each key, value or name that is wrong.
    """
    content = read_yaml(path)
    try:
        paper = Paper.model_validate(content)
    except ValidationError as error:
        wrong = [(line_of(path, item["loc"]), ".".join(map(str, item["loc"])), item) for item in error.errors()]
        raise refused(path, [(line, f"{key}: {_text(item)}") for line, key, item in wrong]) from None
    name = path.stem
    problems = []
    for key in paper.tables:
        if NUMBERED.fullmatch(key) and not key.startswith(f"{name}_table_"):
            text = f"tables.{key}: a numbered table of this file is called {name}_table_<two digits>"
            problems.append((line_of(path, ("tables", key)), text))
    for method in sorted(paper.names.keys() - paper.methods.keys()):
        text = f"names.{method}: this file has no such method; a shared method's name stands in params.yaml"
        problems.append((line_of(path, ("names", method)), text))
    if problems:
        raise refused(path, problems)
    tables = {}
    for key, table in paper.tables.items():
        tables[key] = table.model_copy(update={"paper": name, "title": f"{_number_of(paper, key)}{table.title}"})
    tests = {
        key: spec.model_copy(update={"title": f"{_number_of(paper, key)}{spec.title}"})
        for key, spec in paper.tests.items()
    }
    proposed = [key for key, table in tables.items() if any(row.method and row.proposed for row in table.rows)]
    if not tests and proposed:
        tests[f"{name}_tests"] = TestTable(title=f"{paper.reference.short}: significance of differences", of=proposed)
    return paper.model_copy(update={"tables": tables, "tests": tests})


def _number_of(paper: Paper, table: str) -> str:
    return f"{paper.reference.short}, Table {int(table[-2:])}: " if NUMBERED.fullmatch(table) else ""


def refused(path: Path, problems: Iterable[tuple[int, str]]) -> SettingsError:
    """The error for what is wrong in a paper's file: (line, text) each."""
    lines = [f"line {line}: {text}" for line, text in sorted(problems)]
    return SettingsError("The paper's file is refused:\n    " + "\n    ".join(lines), file=path, remedy=REMEDY)


def read_papers(checkout: Path, shared: Mapping[str, Any]) -> dict[str, Paper]:
    """All papers' files of a checkout by name, sorted; ``shared`` is params.yaml.

    Raises:
        SettingsError: a file is wrong, or two of them give one name to two things.
    """
    files = sorted((checkout / FOLDER).glob("*.yaml"))
    papers = {path.stem: read_paper(path) for path in files}
    for kind in ("protocols", "bases", "methods", "tables"):
        owner = dict.fromkeys(shared.get(kind, {}), "params")
        for name, paper in papers.items():
            for key in getattr(paper, kind):
                if key in owner:
                    path = checkout / FOLDER / f"{name}.yaml"
                    text = f"{kind}.{key}: it stands in {owner[key]}.yaml too; give it another name"
                    raise refused(path, [(line_of(path, (kind, key)), text)])
                owner[key] = name
    return papers


def chosen(papers: Mapping[str, Paper], wanted: Any) -> list[str]:
    """The papers that a profile or a command line asks for: ``all``, or a list of names.

    Raises:
        SettingsError: a name is none of them.
    """
    if wanted == "all":
        return list(papers)
    names = wanted if isinstance(wanted, list) else [wanted]
    if unknown := [str(name) for name in names if str(name) not in papers]:
        raise SettingsError(
            "papers: there is no such file in workflow/papers", ids=unknown, remedy=f"use all, or: {', '.join(papers)}"
        )
    return names


def laid_over(raw: dict[str, Any], papers: Mapping[str, Paper], names: list[str], profile: str) -> dict[str, Any]:
    """``raw`` with what the papers add: their tables, the methods that the profile runs, what is looked at.

    Args:
        raw: params.yaml with the profile over it; bases and methods of all papers are in it already.
        papers: all of them.
        names: those that are asked for.
        profile: its name.
    """
    matrix = dict(raw["matrix"])
    methods, ablations, seeds_for = list(matrix.get("methods", [])), [], dict(matrix.get("seeds_for", {}))
    looked_at: dict[str, list[str]] = {"explain": [], "robustness": [], "subgroups": []}
    for name in names:
        paper, scaled = papers[name], papers[name].scaled(profile)
        run = None if scaled is None else scaled.run
        named = paper.methods_of_tables() if run is None else run
        methods += [key for key in named if key not in paper.ablations]
        ablations += [key for key in paper.ablations if run is None or key in run]
        seeds_for |= {} if scaled is None else scaled.seeds_for
        for kind, listed in looked_at.items():
            asked = None if scaled is None else getattr(scaled, kind, None)
            listed += getattr(paper, kind) if asked is None else asked
    matrix |= {
        "methods": list(dict.fromkeys(methods)),
        "ablations": list(dict.fromkeys(ablations)),
        "seeds_for": seeds_for,
    }
    looks = {kind: {**raw[kind], "methods": list(dict.fromkeys(listed))} for kind, listed in looked_at.items()}
    own = {
        name: papers[name].model_dump(exclude={"protocols", "bases", "methods", "names", "profiles"}) for name in names
    }
    called = dict(raw.get("names", {}))
    for paper in papers.values():  # a method of one may be built on another's
        called |= paper.names
    return {**raw, **looks, "matrix": matrix, "papers": own, "names": called}


def check_rows(checkout: Path, papers: Mapping[str, Paper], methods: Mapping[str, Any]) -> None:
    """Every name that a paper's file takes for a method's is one.

    Raises:
        SettingsError: naming the file and the lines.
    """
    for name, paper in papers.items():
        path = checkout / FOLDER / f"{name}.yaml"
        places: list[tuple[str, tuple[str | int, ...]]] = []
        for table_name, table in paper.tables.items():
            for number, row in enumerate(table.rows):
                for key in ("method", "segmenter"):
                    named = getattr(row, key)
                    places += [(named, ("tables", table_name, "rows", number, key))] if named else []
        places += [(figure.method, ("figures", key, "method")) for key, figure in paper.figures.items()]
        for kind in ("ablations", "explain", "robustness", "subgroups"):
            places += [(key, (kind, number)) for number, key in enumerate(getattr(paper, kind))]
        for profile, own in paper.profiles.items():
            places += [(key, ("profiles", profile, "run", number)) for number, key in enumerate(own.run or [])]
            places += [(key, ("profiles", profile, "methods", key)) for key in own.methods]
        wrong = [(place, f"no method is called '{key}'") for key, place in places if key not in methods]
        for key, figure in paper.figures.items():
            if not key.startswith(f"{name}_figure_"):
                wrong.append((("figures", key), f"a figure of this paper is called {name}_figure_..."))
            if figure.kind == "explanations" and figure.method not in paper.explain:
                wrong.append((("figures", key, "method"), f"'{figure.method}' does not stand under explain"))
        known = {*paper.tables, *paper.tests}
        tables: list[tuple[str, tuple[str | int, ...]]] = []
        tables += [(claim.table, ("claims", number, "table")) for number, claim in enumerate(paper.claims)]
        tables += [(key, ("tests", test, "of")) for test, spec in paper.tests.items() for key in spec.of]
        wrong += [(place, f"no table is called '{key}'") for key, place in tables if key not in known]
        if wrong:
            raise refused(path, [(line_of(path, place), text) for place, text in wrong])


def _text(item: Any) -> str:
    given = "" if isinstance(item.get("input"), Mapping | list) else f" (given: {item.get('input')!r})"
    return ("unknown key" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")) + given
