"""The README's results section: written from tables, and a stale one is found."""

from __future__ import annotations

import pytest

from lesion_core.errors import RunError
from lesion_core.report.readme import BEGIN, END, SHOWN, results_section, update_readme


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "mini" / "tables"
    folder.mkdir(parents=True)
    for name in (*SHOWN, "sam_vit_table_09"):
        (folder / f"{name}.md").write_text(f"**{name}**\n\n| Row |\n|---|\n| 1 |\n")
    return tmp_path / "mini"


@pytest.fixture
def readme(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nAfter.\n")
    return path


def test_section_is_replaced_and_the_rest_kept(root, readme):
    update_readme(root, readme)
    text = readme.read_text()
    assert text.startswith(f"# Title\n\n{BEGIN}\n\n")
    assert text.endswith(f"{END}\n\nAfter.\n")
    assert "old" not in text
    assert all(f"**{name}**" in text for name in SHOWN)
    assert "Profile `mini`; `make mini` makes these tables and 1 more." in text
    update_readme(root, readme)
    assert readme.read_text() == text
    update_readme(root, readme, check=True)


def test_a_stale_section_is_refused_and_not_touched(root, readme):
    before = readme.read_text()
    with pytest.raises(RunError, match="stale"):
        update_readme(root, readme, check=True)
    assert readme.read_text() == before
    update_readme(root, readme)
    (root / "tables" / "sam_vit_table_05.md").write_text("**changed**\n")
    with pytest.raises(RunError, match="stale"):
        update_readme(root, readme, check=True)


def test_a_folder_without_tables_says_so(tmp_path, readme):
    update_readme(tmp_path / "mini", readme)
    assert "No run of the mini profile is stored" in readme.read_text()


def test_missing_markers_and_tables(root, readme):
    readme.write_text("# Title\n")
    with pytest.raises(RunError, match="no results markers"):
        update_readme(root, readme)
    (root / "tables" / "sam_vit_table_05.md").unlink()
    with pytest.raises(RunError, match="A table is missing"):
        results_section(root)


def test_rows_without_a_number_are_left_out(root):
    table = (
        "**Table 5**\n\n| Row | Dice | Published |\n|---|---:|---:|\n| U-Net 2 | not run in this profile |  |\n"
        "| SAM | not run in this profile | 94.27 |\n| Otsu | 79.1 |  |\n\nnot run in this profile: why.\n"
    )
    (root / "tables" / "sam_vit_table_05.md").write_text(table)
    section = results_section(root)
    assert "U-Net 2" not in section
    assert "| SAM | not run in this profile | 94.27 |" in section
    assert "| Otsu | 79.1 |  |" in section
    assert "why." in section
    (root / "tables" / "sam_vit_table_05.md").write_text(table.replace("94.27", ""))
    assert "why." not in results_section(root)
