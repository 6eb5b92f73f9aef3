"""What a rule hands to the shell is quoted: names come from settings that a user writes."""

from __future__ import annotations

import re

import pytest
from chain import REPOSITORY

RULES = sorted(REPOSITORY.glob("workflow/rules/*.smk"))
SHELL = re.compile(r"^ +shell:\n +(?:lesion\((\".*\")\)|(\".*\")|([A-Z]+))$", re.MULTILINE)


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_every_value_on_a_shell_line_is_quoted(path):
    text = path.read_text()
    commands = SHELL.findall(text)
    assert len(commands) == text.count("shell:"), "a shell command is written in a way that this test cannot read"
    bare = []
    for of_lesion, text_alone, constant in commands:
        command, names = of_lesion or text_alone, r"\{[^{}]*\}"
        if constant:  # an f-string, whose double braces are what Snakemake fills in
            command, names = re.search(rf"^{constant} = f(.*)$", text, re.MULTILINE)[1], r"\{\{[^{}]*\}\}"
            assert "{{" in command
        bare += [name for name in re.findall(names, command) if not name.rstrip("}").endswith(":q")]
    assert not bare
