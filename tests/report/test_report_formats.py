"""Markdown and LaTeX of a table: whatever a label holds, a reader sees the label and the best in bold."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lesion_core.report.formats import TEX, Grid, markdown, metric_name, tex

ODD = st.text(st.sampled_from("ab1 |\\&_*%$#~^`<>{}[]()!\n\t-±−é"), max_size=12).map(str.strip)
BACK = {mark: chr(code) for code, mark in TEX.items() if mark != " "}
# single marks first: \$ is a dollar and \textbackslash{} a backslash, wherever they stand
MARKS = re.compile("|".join(re.escape(mark) for mark in sorted(BACK, key=len, reverse=True)))


@st.composite
def grids(draw):
    width = draw(st.integers(1, 4))
    line = st.lists(ODD.filter(bool), min_size=width, max_size=width)
    rows = draw(st.lists(line, max_size=4))
    places = [(row, column) for row in range(len(rows)) for column in range(width)]
    bold = draw(st.sets(st.sampled_from(places))) if places else set()
    return Grid(draw(ODD), draw(line), rows, draw(st.lists(ODD, max_size=2)), frozenset(bold))


def one_line(text):
    return " ".join(text.split())


def markdown_cells(text):
    """(text, bold) of every cell as a CommonMark reader with tables sees them, row by row."""
    rows, in_cell = [], False
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and in_cell:
            kinds = {child.type for child in token.children}
            assert kinds <= {"text", "strong_open", "strong_close", "text_special"}, kinds
            rows[-1].append(("".join(child.content for child in token.children), "strong_open" in kinds))
        in_cell = token.type in ("th_open", "td_open")
    return rows


def tex_cells(text):
    """The same of a LaTeX table."""
    body = text.split("\\toprule\n", 1)[1].split("\\bottomrule\n", 1)[0].replace("\\midrule\n", "")
    rows = []
    for line in body.splitlines():
        cells = re.split(r"(?<!\\)&", line.removesuffix(r" \\"))
        rows.append([])
        for cell in map(str.strip, cells):
            is_bold = cell.startswith(r"\textbf{")
            inner = cell.removeprefix(r"\textbf{").removesuffix("}") if is_bold else cell
            rows[-1].append((MARKS.sub(lambda found: BACK[found[0]], inner), is_bold))
    return rows


@settings(deadline=None, max_examples=150)
@given(grids())
@example(Grid("t", ("Row",), (("a",),), notes=("|", "--")))
def test_readers_see_every_label_and_what_is_best(grid):
    wanted = [[(one_line(cell), False) for cell in grid.columns]]
    wanted += [
        [(one_line(cell), (number, at) in grid.bold) for at, cell in enumerate(row)]
        for number, row in enumerate(grid.rows)
    ]
    assert markdown_cells(markdown(grid)) == wanted
    found = [[(one_line(cell), bold) for cell, bold in row] for row in tex_cells(tex(grid, "t"))]
    assert found == wanted


def test_formats_escape_their_own_marks():
    grid = Grid("A & B_c", ("Row", "50 %"), (("a|b", "1 ± 2"), ("{x}", "< 0.1")), bold=frozenset({(0, 1)}))
    assert "| a\\|b | **1 ± 2** |" in markdown(grid)
    text = tex(grid, "t")
    assert r"A \& B\_c" in text
    assert r"\textbf{1 $\pm$ 2}" in text
    assert r"\{x\} & $<$ 0.1" in text


@pytest.mark.parametrize("write", [markdown, lambda grid: tex(grid, "t")])
def test_a_table_without_rows_has_its_headings(write):
    assert "Dice" in write(Grid("Empty", ("Row", "Dice"), ()))


def test_names():
    assert metric_name("balanced_accuracy", "percent") == "Balanced accuracy (%)"
    assert metric_name("auc", "fraction") == "AUC"
