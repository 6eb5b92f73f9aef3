"""Figures, sheets, cards and the page of a small store, made anew: equal bytes pass, and each change is named."""

from __future__ import annotations

import pytest
from report_store import PIXEL, make_images, make_plan, make_results

from lesion_core.audit import anew
from lesion_core.audit.current import Current
from lesion_core.files import read_json, write_bytes
from lesion_core.paths import Layout
from lesion_core.report import data_report
from lesion_core.report.checklists import write_checklists
from lesion_core.report.figures import write_figures
from lesion_core.report.ledger import write_ledger
from lesion_core.report.page import write_page
from lesion_core.report.statistics import write_statistics
from lesion_core.report.tables import write_tables
from lesion_core.sharing.summary import write_summary

SHEET = "protocols/shared/leak_free/pixels/ph2/32/contact_sheet.png"


def small_data_report(root) -> None:
    """In place of the data report, which reads a whole catalog."""
    for kind in ("overview.png", "colours.png"):
        write_bytes(root / "protocols" / kind, PIXEL)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Made under a relative path, as the workflow does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data_report, "write_data_report", small_data_report)
    monkeypatch.setattr(Current, "of_results", lambda root, plan: Current({}, frozenset()))
    plan, root = make_plan(), Layout(tmp_path / "results" / "smoke").root
    relative = root.relative_to(tmp_path)
    make_results(relative, plan)
    make_images(relative)
    write_bytes(root / SHEET, PIXEL)  # of no run here
    for write in (write_tables, write_statistics, write_ledger, write_figures, write_checklists, write_summary):
        write(relative, plan)
    small_data_report(relative)
    write_page(relative, plan)
    return root


def test_what_follows_has_the_same_bytes_and_nothing_here_is_written(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    answer = anew.page(root, make_plan(), None, 1)
    assert answer.problems == []
    figures = [item["name"] for item in read_json(Layout(root).figure_list, list)]
    assert len(figures) > 3
    assert int(answer.evidence.split()[0]) > 2 * len(figures) + 10
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert anew.page(root, make_plan(), None, 0).verdict == "not checked"


def test_each_change_is_named_and_no_other_file(root):
    wanted = []
    for name in ("report.html", "checklists/claim.md", "cards/runs/sam_adapter-s0.md", "cards/datasets/ham10000.md"):
        text = (root / name).read_text()
        line = next(line for line in text.splitlines()[5:] if len(line) > 20)
        (root / name).write_text(text.replace(line, line[:-1] + "~", 1))
        wanted.append((name, "line "))
    figure = read_json(Layout(root).figure_list, list)[0]["name"]
    for name, content in ((f"figures/{figure}.png", PIXEL), ("protocols/colours.png", b"x")):
        write_bytes(root / name, content)
        wanted.append((name, "made anew it is another"))
    write_bytes(root / "figures" / "figure_99.png", PIXEL)
    (root / "figures" / "all.pdf").unlink()
    wanted += [("figures/figure_99.png", "follows from nothing"), ("figures/all.pdf", "missing")]
    problems = anew.page(root, make_plan(), None, 1).problems
    assert len(problems) == len(wanted)
    for name, said in wanted:
        assert any(line.startswith(f"{name}: {said}") for line in problems), name
