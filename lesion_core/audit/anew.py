"""What a reader sees, made anew by the functions that the workflow calls, and compared byte for byte."""

from __future__ import annotations

import filecmp
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from threadpoolctl import threadpool_limits

from lesion_core.audit.answer import NOT_ASKED, Answer
from lesion_core.audit.current import Current
from lesion_core.files import read_parquet
from lesion_core.inference.robustness_table import gather_robustness
from lesion_core.paths import Layout
from lesion_core.record.outputs import NAME as RECORD
from lesion_core.report.ledger import write_ledger
from lesion_core.report.statistics import write_statistics
from lesion_core.report.subgroups import write_subgroups
from lesion_core.report.tables import write_tables
from lesion_core.settings import Plan, Robustness, Subgroups
from lesion_core.settings.matrix import tried_runs
from lesion_core.settings.protocols import Homes

# Folders and files that hold nothing but what follows from the others; * as in a pattern of paths.
COMPUTED = ("tables", "statistics", "ledger")
SHOWN = ("figures", "checklists", "cards", "summary", "report.html")
DATA_FIGURES = ("protocols/overview.*", "protocols/colours.p*", "protocols/large_groups.*")
TEXT = (".csv", ".md", ".tex", ".json", ".html", ".txt")


def tables(root: Path, plan: Plan, subgroups: Subgroups, robustness: Robustness) -> Answer:
    """Every table, statistic and verdict, computed anew from the score store, has the same bytes; there is no other.

    ``statistics/robustness.csv`` is joined anew from the runs' own tables under ``robustness/``.
    """
    answer = Answer("Does each table cell recompute from the scores to the last digit?")
    with _but_for(root, COMPUTED) as again:
        write_tables(again, plan)
        write_statistics(again, plan)
        write_ledger(again, plan)
        write_subgroups(again, plan, subgroups)
        measured = [Layout(again).robustness(run_id) for run_id in tried_runs(plan, robustness)]
        gather_robustness(measured, Layout(again).statistics("robustness"))
        count = _compare(answer, again, root, COMPUTED)
        cells = read_parquet(Layout(again).cells, ["value"]).column("value")
    answer.evidence = (
        f"{count} files written anew from scores/, {len(cells) - cells.null_count} cells of ours among them, byte for"
        " byte"
    )
    return answer


def page(root: Path, plan: Plan, homes: Homes, count: int) -> Answer:
    """Figures, contact sheets, sheets for reviewers, cards, summary and page, made anew, have the same bytes.

    Args:
        homes: what the pixels of each protocol depend on, for the contact sheets.
        count: 0 makes nothing.
    """
    answer = Answer("Do figures, sheets, cards and page follow from scores, tables and images?")
    if count == 0:
        answer.skipped = NOT_ASKED
        return answer
    from lesion_core.report.checklists import write_checklists
    from lesion_core.report.data_report import write_data_report
    from lesion_core.report.figures import write_figures
    from lesion_core.report.page import write_page
    from lesion_core.sharing.summary import write_summary

    made = (*SHOWN, *DATA_FIGURES)
    with _but_for(root, made) as again:
        write_data_report(again)
        write_figures(again, plan)
        write_checklists(again, plan)
        write_summary(again, plan)
        write_page(again, plan)
        files = _compare(answer, again, root, made)
        sheets = list(_contact_sheets(root, plan, homes, again.parent))
    answer.problems += [problem for problem in sheets if problem]
    answer.evidence = f"{files} files and {len(sheets)} contact sheets made anew and compared byte for byte"
    return answer


def _contact_sheets(root: Path, plan: Plan, homes: Homes, folder: Path) -> Iterator[str]:
    """Of each contact sheet of the matrix what is wrong with it; empty: nothing."""
    from lesion_core.pixels.harmonized_arrays import write_sheet

    layout, current = Layout(root), Current.of_results(root, plan)
    for path in sorted(root.glob("protocols/*/*/pixels/*/*/contact_sheet.png")):
        parts = path.relative_to(root).parts
        if not current.owns(parts):
            continue
        home, dataset, size = "/".join(parts[1:3]), parts[4], int(parts[5])
        splits = layout.certificate(plan.protocols[home]).parent
        again = folder / path.name
        settings = homes.materials[home].harmonization
        write_sheet(dataset, size, layout.catalog, splits, layout.reference(home), root, again, settings)
        yield "" if filecmp.cmp(again, path, shallow=False) else f"{'/'.join(parts)}: {_difference(again, path)}"


@contextmanager
def _but_for(root: Path, made: Iterable[str]) -> Iterator[Path]:
    """A folder of the same name with links to all results but those of ``made``, on one thread, as the jobs have.

    Sums of another number of threads round otherwise, and may break a tie.
    """
    left_out = {path.relative_to(root) for name in made for path in root.glob(name)}
    opened = {name.parent for name in left_out} - {Path()}  # folders of which a part is left out
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(limits=1):
        again = Path(folder) / root.resolve().name
        for inside in [Path(), *opened]:
            (again / inside).mkdir(parents=True, exist_ok=True)
            for entry in (root / inside).iterdir():
                name = inside / entry.name
                if name not in left_out and name not in opened:
                    (again / name).symlink_to(entry.resolve())
        yield again


def _compare(answer: Answer, again: Path, root: Path, made: Iterable[str]) -> int:
    """Name what differs in, is missing from or does not belong to ``made``; how many files were compared."""
    right, here = _files(again, made), _files(root, made)
    answer.problems += differing(again, root, right)
    answer.problems += [f"{name}: follows from nothing here; delete it" for name in sorted(here - right)]
    return len(right)


def _files(root: Path, made: Iterable[str]) -> set[str]:
    """Names of all files there; not jobs' own records, and not hidden ones."""
    tops = [path for name in made for path in root.glob(name)]
    found = [path for top in tops for path in ([top] if top.is_file() else top.rglob("[!.]*"))]
    return {path.relative_to(root).as_posix() for path in found if path.is_file() and not path.name.endswith(RECORD)}


def differing(again: Path, here: Path, names: Collection[str]) -> list[str]:
    """What is wrong with files under ``here``, of which ``again`` has the right content: one line for each."""
    problems = []
    for name in sorted(names):
        if not (here / name).is_file():
            problems.append(f"{name}: missing")
        elif not filecmp.cmp(again / name, here / name, shallow=False):
            problems.append(f"{name}: {_difference(again / name, here / name)}")
    return problems


def _difference(right: Path, here: Path) -> str:
    if right.suffix not in TEXT:
        return "made anew it is another"
    wanted, found = (path.read_text("utf-8", errors="replace").splitlines() for path in (right, here))
    for number, (line, other) in enumerate(zip(wanted, found, strict=False), start=1):
        if line != other:
            at = max(
                0,
                next((place for place, pair in enumerate(zip(line, other, strict=False)) if pair[0] != pair[1]), 0)
                - 30,
            )
            return f"line {number} is '{other[at : at + 80]}', made anew '{line[at : at + 80]}'"
    return "made anew it has more or fewer lines"
