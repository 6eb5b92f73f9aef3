"""What a rule hands to the shell is quoted: names come from settings that a user writes."""

from __future__ import annotations

import re

import pytest
from chain import REPOSITORY

RULES = sorted(REPOSITORY.glob("workflow/rules/*.smk"))
SHELL = re.compile(r"^ +shell:\n +(?:lesion\()?(\".*\")\)?\n", re.MULTILINE)


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_every_value_on_a_shell_line_is_quoted(path):
    text = path.read_text()
    commands = SHELL.findall(text)
    assert len(commands) == text.count("shell:"), "a shell command is written in a way that this test cannot read"
    bare = [name for command in commands for name in re.findall(r"\{[^{}]*\}", command) if not name.endswith(":q}")]
    assert not bare
