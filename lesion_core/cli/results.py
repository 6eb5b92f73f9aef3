"""Commands that read results alone: tables, statistics, figures, the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lesion_core.cli.options import Profile, Root, sections


def tables(root: Root, profile: Profile = None) -> None:
    """Every table, ours beside published, as .csv, .md and .tex."""
    from lesion_core.report.tables import write_tables

    write_tables(root, sections("tables", root, profile).plan)


def statistics(root: Root, profile: Profile = None) -> None:
    """Paired tests, effect sizes and intervals (tables 15 and 16)."""
    from lesion_core.report.statistics import write_statistics

    write_statistics(root, sections("statistics", root, profile).plan)


def subgroups(root: Root, profile: Profile = None) -> None:
    """Classification metrics by sex, age, site and how the diagnosis was confirmed, with intervals."""
    from lesion_core.report.subgroups import write_subgroups

    given = sections("subgroups", root, profile)
    write_subgroups(root, given.plan, given.subgroups)


def figures(root: Root, profile: Profile = None) -> None:
    """Every figure, as PDF and PNG."""
    from lesion_core.paths import Layout
    from lesion_core.record import observe, outputs
    from lesion_core.report.figures import write_figures

    observe.begin()
    write_figures(root, sections("figures", root, profile).plan)
    folder = Layout(root).figures
    figures = [path for path in folder.iterdir() if not path.name.endswith(outputs.NAME)]
    outputs.record_job(folder / outputs.NAME, root, figures)


def ledger(root: Root, profile: Profile = None) -> None:
    """A verdict on each published number."""
    from lesion_core.report.ledger import write_ledger

    write_ledger(root, sections("ledger", root, profile).plan)


def checklists(root: Root, profile: Profile = None) -> None:
    """Reviewers' sheets, and cards of runs and datasets."""
    from lesion_core.report.checklists import write_checklists

    write_checklists(root, sections("checklists", root, profile).plan)


def report(root: Root, profile: Profile = None) -> None:
    """The page: one file that opens offline."""
    from lesion_core.paths import Layout
    from lesion_core.record import observe, outputs
    from lesion_core.report.page import write_page

    observe.begin()
    write_page(root, sections("report", root, profile).plan)
    outputs.record_job(Layout(root).figures / f"page.{outputs.NAME}", root, [])


def readme(
    root: Root,
    file: Annotated[Path, typer.Option("--readme")] = Path("README.md"),
    check: Annotated[bool, typer.Option("--check", help="Only say whether the section is up to date.")] = False,
) -> None:
    """Write the README's results section from a run's tables, and keep those under docs/<profile>."""
    from lesion_core.report.readme import store_tables, update_readme

    update_readme(root, file, check=check)
    store_tables(root, file.parent / "docs" / root.resolve().name, check=check)


def bench(root: Root) -> None:
    """Seconds and peak memory per rule, from the last run."""
    from lesion_core.report.bench import bench_table

    typer.echo(bench_table(root))


FOR_PEOPLE = (bench, readme)
FOR_RULES = (tables, statistics, subgroups, figures, ledger, checklists, report)
