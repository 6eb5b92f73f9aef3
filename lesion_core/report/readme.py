"""The README's results section, written from a run's tables; a test fails if it is stale."""

from __future__ import annotations

from pathlib import Path

from lesion_core.errors import RunError
from lesion_core.files import read_text, write_text
from lesion_core.record.rehearsed import refuse_rehearsal
from lesion_core.report.table_cells import NOT_RUN

BEGIN = "<!-- results: begin (written by `make readme`; do not edit) -->"
END = "<!-- results: end -->"
SHOWN = ("sam_vit_table_05", "sam_vit_table_06", "sam_vit_table_08", "sam_vit_table_07")


def results_section(root: Path) -> str:
    """The generated Markdown between the markers; of a folder without tables, that there is no run.

    Raises:
        RunError: a table is missing.
    """
    if not list_tables(root):
        return f"No run of the {root.name} profile is stored for the present code and images.\n"
    more = len(list_tables(root)) - len(SHOWN)
    parts = [
        f"Profile `{root.name}`; `make {root.name}` makes these tables and {more} more. Its networks are scaled down",
        f"(what it leaves out: `workflow/profiles/{root.name}.yaml`): this is no replication of the papers.",
        "",
    ]
    for name in SHOWN:
        path = root / "tables" / f"{name}.md"
        if not path.is_file():
            raise RunError("A table is missing", file=path, remedy=f"run the pipeline with profile={root.name}")
        parts.extend([_with_numbers(read_text(path)).rstrip(), ""])
    return "\n".join(parts)


def _with_numbers(table: str) -> str:
    """A printed table without the rows that hold no number, ours or published, and without what explains only those."""
    lines, head = [], True
    for line in table.splitlines():
        row = line.startswith("|")
        if row and not head and not any(sign.isdigit() for cell in line.split("|")[2:] for sign in cell):
            continue
        head = head and not line.startswith("|---")
        lines.append(line)
    kept = "\n".join(line for line in lines if line.startswith("|"))
    return "\n".join(line for line in lines if not line.startswith(NOT_RUN) or NOT_RUN in kept)


def list_tables(root: Path) -> list[Path]:
    """All tables of a run."""
    return sorted((root / "tables").glob("*.md"))


def store_tables(root: Path, stored: Path, *, check: bool = False) -> None:
    """Keep a run's printed tables in the checkout, so that a clone without results can tell a stale README.

    Args:
        root: ``results/<profile>``. stored: ``docs/<profile>``.
        check: only compare.

    Raises:
        RunError: (with ``check``) the stored tables are not the run's; the first that differs is named.
    """
    new = {path.name: read_text(path) for path in list_tables(root)}
    old = {path.name: read_text(path) for path in list_tables(stored)}
    if new == old:
        return
    if check:
        differs = sorted(name for name in new.keys() | old.keys() if new.get(name) != old.get(name))
        raise RunError("The stored tables are stale", file=stored, ids=differs, remedy="run `make readme`")
    for name in old.keys() - new.keys():
        (stored / "tables" / name).unlink()
    for name, text in new.items():
        write_text(stored / "tables" / name, text)


def update_readme(root: Path, file: Path, *, check: bool = False) -> None:
    """Put the section between the markers of ``file``; with ``check``, only compare.

    Raises:
        RunError: the folder is a rehearsal's, a marker or a table is missing, or (with ``check``) the section is stale.
    """
    refuse_rehearsal(root)
    text = read_text(file)
    if BEGIN not in text or END not in text:
        raise RunError("The file has no results markers", file=file, remedy=f"add the lines '{BEGIN}' and '{END}'")
    head, rest = text.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    new = f"{head}{BEGIN}\n\n{results_section(root)}\n{END}{tail}"
    if new == text:
        return
    if check:
        raise RunError("The results section is stale", file=file, remedy="run `make readme`")
    write_text(file, new)
