"""The page's tables and statistics, every number of ours a button that shows its chain."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from lesion_core.files import read_csv
from lesion_core.paths import Layout
from lesion_core.report.cells import NOT_RUN, value_text
from lesion_core.report.extra_tables import EXTRA_TABLES
from lesion_core.report.formats import full_title, table_name
from lesion_core.report.html import number, table
from lesion_core.report.page_chain import ChainData
from lesion_core.report.statistics_tables import judgement
from lesion_core.report.tables import columns_of, notes_of
from lesion_core.settings import Plan

TEST_COLUMNS = {
    "other": "Compared with",
    "dataset": "Dataset",
    "metric": "Metric",
    "level": "Level",
    "judgement": "Judgement",
    "n": "n",
    "clusters": "Lesions",
    "difference": "Difference",
    "ci_low": "CI low",
    "ci_high": "CI high",
    "shapiro_p": "Shapiro p",
    "p_t": "t p",
    "p_wilcoxon": "Wilcoxon p",
    "p_wilcoxon_smallest": "smallest p",
    "p_holm": "Holm p",
    "d_z": "d_z",
    "d_av": "d_av",
    "detectable_d_z": "detectable d_z",
    "p_mcnemar": "McNemar p",
    "p_mcnemar_by_lesion": "McNemar p by lesion",
    "p_delong_melanoma": "DeLong p (melanoma)",
    "notes": "Notes",
}
NOT_RUN_SHORT = "not run"  # the note below a table says what it means; in full it would push columns off the screen
TEXT_COLUMNS = ("other", "dataset", "metric", "level", "judgement", "notes")
PLAIN = ("n", "clusters")


def tables_section(plan: Plan, cells: list[dict[str, Any]], chains: ChainData) -> str:
    """Every table: the numbered ones first, then those of the other papers, then what no paper prints."""
    parts = []
    for name, spec in sorted(plan.tables.items(), key=lambda item: (not item[0].startswith("table_"), item[0])):
        own = [cell for cell in cells if cell["table"] == name]
        parts.append(_table(name, spec.title, own, notes_of(spec, own), chains))
    for name, extra in EXTRA_TABLES.items():
        own = [cell for cell in cells if cell["table"] == name]
        notes = extra.notes if own else ("Nothing of this was run in this profile.",)
        parts.append(_table(name, extra.title, own, notes, chains))
    return "".join(parts)


def _table(name: str, title: str, own: list[dict[str, Any]], notes: Any, chains: ChainData) -> str:
    by_place = {(cell["row"], cell["column"]): cell for cell in own}
    columns = columns_of(own)
    rows = []
    for label in dict.fromkeys(cell["row"] for cell in own):
        line = "".join(
            _value(by_place[label, column], chains) if kind == "value" else _published(by_place[label, column])
            for column, kind, _ in columns
        )
        rows.append(f"<tr><td>{escape(label)}</td>{line}</tr>")
    shown = full_title(name, title)
    body = table(shown, ["Row", *(heading for *_, heading in columns)], rows)
    return f'<h3 id="{name}">{escape(shown)}</h3>{body}' + "".join(f"<p class='note'>{escape(n)}</p>" for n in notes)


def _value(cell: dict[str, Any], chains: ChainData) -> str:
    if cell["value"] is None:
        text = value_text(cell)
        return f'<td class="none" data-value="">{NOT_RUN_SHORT if text == NOT_RUN else text}</td>'
    return (
        f'<td data-value="{cell["value"]!r}"{" class=best" if cell["best"] else ""}>'
        f'<button type="button" data-cell="{chains.add_cell(cell)}">{value_text(cell)}</button></td>'
    )


def _published(cell: dict[str, Any]) -> str:
    if cell["published"] is None:
        return '<td data-value=""></td>'
    return f"<td{' class=best' if cell['best_published'] else ''}>{escape(cell['published_text'])}</td>"


def statistics_section(root: Path, plan: Plan, chains: ChainData) -> str:
    """Tables 15 and 16 with everything that stands beside a p."""
    tests = read_csv(Layout(root).statistics("tests"))
    chosen = plan.statistics
    parts = [
        "<p class='note'>Differences are fractions, proposed minus other. Level seed pairs seeds, as the papers do;"
        " level image pairs test images, averaged within lesions for the tests, with intervals from a bootstrap"
        f" clustered by lesion. Holm's correction: over the tests of one {escape(', '.join(chosen.family))}."
        " McNemar by lesion is Durkalski's; DeLong is by lesion too. Both are made for every pair of seeds and combined"
        " by Rüger's rule, valid under any dependence: K/k times the k-th smallest of K values, k the upper median.</p>"
    ]
    for name, kind, proposed in (
        ("table_15", "segmentation", chosen.segmentation_proposed),
        ("table_16", "classification", chosen.classification_proposed),
    ):
        own = [test for test in tests if test["table"] == name]
        used = {key: head for key, head in TEST_COLUMNS.items() if key == "judgement" or any(test[key] for test in own)}
        title = f"{table_name(name)}. Significance of {kind} differences, {proposed} minus the other"
        rows = []
        for test in own:
            place = chains.add_test(test, kind)
            cells = (_test_cell(test, key, chosen.alpha, place) for key in used)
            rows.append("".join(("<tr>", *cells, "</tr>")))
        text = [TEST_COLUMNS[key] for key in TEXT_COLUMNS]
        body = table(title, list(used.values()), rows, text=text)
        parts.append(f'<h3 id="{name}">{escape(title)}</h3>{body}')
    return "".join(parts)


def _test_cell(test: dict[str, str], key: str, alpha: float, place: int) -> str:
    if key == "judgement":
        said = judgement(test, alpha)
        return f'<td class="text{" wrap" * (len(said) > 20)}">{escape(said)}</td>'
    if key in TEXT_COLUMNS:
        return f'<td class="{"prose long" if key == "notes" else "text"}">{escape(test[key])}</td>'
    shown = number(test[key])
    if test[key] and key not in PLAIN:
        shown = f'<button type="button" data-test="{place}" data-key="{key}">{shown}</button>'
    return f'<td data-value="{escape(test[key])}">{shown}</td>'
