"""The README's numbers are those of the stored tables, and these are those of the last mini run."""

from __future__ import annotations

import pytest
import yaml
from chain import REPOSITORY

from lesion_core.errors import RunError
from lesion_core.report.readme import list_tables, store_tables, update_readme
from lesion_core.settings import load as config

STORED = REPOSITORY / "docs" / "mini"
RESULTS = REPOSITORY / "results" / "mini"


def test_readme_shows_the_stored_tables():
    update_readme(STORED, REPOSITORY / "README.md", check=True)


@pytest.mark.skipif(not (RESULTS / "report.html").is_file(), reason="no finished mini run in this checkout (make mini)")
def test_stored_tables_are_those_of_the_mini_run():
    store_tables(RESULTS, STORED, check=True)


def test_the_lines_for_own_data_are_settings_that_load():
    """As they stand, over the paper profile; in the smaller profiles without ISIC 2017, which those do not have."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    own = yaml.safe_load(text.split("```yaml\n", 1)[1].split("```", 1)[0])
    settings = config.load("paper", own)
    assert settings.data.custom is not None
    assert "custom" in settings.scoring.segmentation_on
    assert "custom" in settings.scoring.classification_on
    for part, name in (("data", "datasets"), ("scoring", "segmentation_on")):
        own[part][name].remove("isic2017")
    for profile in ("smoke", "mini"):
        assert config.expand(config.load(profile, own))


def test_storing_follows_the_run(tmp_path):
    root, stored = tmp_path / "mini", tmp_path / "docs" / "mini"
    (root / "tables").mkdir(parents=True)
    (root / "tables" / "sam_vit_table_05.md").write_text("5")
    (root / "tables" / "gone.md").write_text("x")
    store_tables(root, stored)
    (root / "tables" / "gone.md").unlink()
    (root / "tables" / "sam_vit_table_05.md").write_text("6")
    with pytest.raises(RunError, match="stale") as error:
        store_tables(root, stored, check=True)
    assert error.value.ids == ("gone.md", "sam_vit_table_05.md")
    store_tables(root, stored)
    assert [(path.name, path.read_text()) for path in list_tables(stored)] == [("sam_vit_table_05.md", "6")]
    store_tables(root, stored, check=True)
