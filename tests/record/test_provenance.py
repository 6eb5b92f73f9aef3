"""A module's code identity follows its imports, and does not follow comments."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lesion_core.record import provenance


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package whose files may be changed."""
    copy = tmp_path / "lesion_core"
    shutil.copytree(provenance.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", copy)

    def clear():
        for cached in (provenance._parsed, provenance.code_files, provenance.code_hash):
            cached.cache_clear()

    clear()
    yield copy, clear
    clear()


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_lazy_imports_count():
    modules = provenance.code_files("lesion_core.inference.score_segmentation")
    assert "lesion_core.metrics.segmentation" in modules
    assert "lesion_core.report.tables" not in modules


def test_comment_and_docstring_do_not_count_but_code_does(package):
    folder, clear = package
    entries = ("lesion_core.inference.predict", "lesion_core.report.tables")
    before = [provenance.code_hash(entry) for entry in entries]
    edit(folder / "inference" / "refine.py", '"""Lesion extraction', '"""Extraction of lesions')
    edit(folder / "inference" / "refine.py", "def upsample", "# a remark\ndef upsample")
    clear()
    assert [provenance.code_hash(entry) for entry in entries] == before
    edit(folder / "inference" / "refine.py", "REFERENCE_SIDE = 512", "REFERENCE_SIDE = 511")
    clear()
    after = [provenance.code_hash(entry) for entry in entries]
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_data_files_count(package):
    folder, clear = package
    weights = folder / "weights" / "sam_vit_t.safetensors"
    entries = ("report.tables", "report.ledger", "report.page", "models.published_weights", "training.segmentation")

    def hashes() -> dict[str, str]:
        clear()
        return {entry: provenance.code_hash(f"lesion_core.{entry}") for entry in entries}

    def changed(before: dict[str, str]) -> set[str]:
        after = hashes()
        return {entry for entry in entries if after[entry] != before[entry]}

    first = hashes()
    edit(folder / "report" / "templates" / "page.css", "{", "{ ")
    assert changed(first) == {"report.page"}
    second = hashes()
    weights.write_bytes(b"weighty")
    assert changed(second) == {"models.published_weights"}


def test_every_file_of_the_package_is_declared_by_a_module():
    """A file that no module declares would be no part of any identity."""
    files = {path for path in provenance.PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    modules = [path.relative_to(provenance.PACKAGE) for path in provenance.PACKAGE.rglob("*.py")]
    names = [".".join(("lesion_core", *path.with_suffix("").parts)).removesuffix(".__init__") for path in modules]
    assert files
    assert files == {file for name in names for file in provenance.data_files(name)}


def test_unknown_module_is_refused():
    with pytest.raises(ValueError, match="not a module"):
        provenance.code_files("lesion_core.nowhere")
