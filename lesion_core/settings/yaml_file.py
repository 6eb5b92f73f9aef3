"""YAML files of settings, strictly read, and the lines of what is wrong in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lesion_core.errors import SettingsError


class _Loader(yaml.SafeLoader):
    """YAML without repeated keys, of which plain YAML silently takes the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return node


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a file holds.

    Raises:
        SettingsError: there is no such file, it is no UTF-8 or YAML, a key stands twice, or it is no mapping.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError as error:
        raise SettingsError("Settings file not found", file=path, remedy="run from a full checkout") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"It is not UTF-8: {error}", file=path, remedy="save it as UTF-8") from error
    except RecursionError as error:
        raise SettingsError("It is nested too deeply", file=path, remedy="see params.yaml") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"Not valid YAML: {error}", file=path, remedy="fix the line named above") from error
    if not isinstance(content, dict):
        raise SettingsError("The file must hold a mapping", file=path, remedy="see params.yaml")
    return content


def line_of(path: Path, place: Sequence[str | int]) -> int:
    """The line, from 1, of the deepest part of ``place`` (keys and list positions) that the file has."""
    node = yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader)
    line = 1
    for step in place:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(step)]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line
