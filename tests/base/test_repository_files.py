"""The files that a forge, Snakemake's catalog and a contributor look for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["CITATION.cff", ".pre-commit-config.yaml", ".snakemake-workflow-catalog.yml"])
def test_they_are_yaml(name: str):
    assert isinstance(yaml.safe_load((REPOSITORY / name).read_text(encoding="utf-8")), dict)


def test_the_forge_runs_the_readmes_test_command():
    jobs = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert commands
    assert all(f"\n{command} " in readme for command in commands)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "CHANGELOG.md"])
def test_files_that_they_name_exist(name: str):
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    named = [word for word in re.findall(r"`([^` ]+)`", text) if re.search(r"/|\.(md|toml|in|lock)$", word)]
    assert named
    assert not [path for path in named if not (REPOSITORY / path).exists()]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CODE_OF_CONDUCT.md"])
def test_links_lead_to_a_file(name: str):
    """Pages of docs/ are checked by `make docs`."""
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert not [link for link in links if not (REPOSITORY / link).is_file()]
