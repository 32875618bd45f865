# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which syntax a file is in, whatever its name, and on which lines the keys of a TOML file are."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["is_plugin_config", "read_toml", "syntax_of", "toml_lines", "toml_looks_meant"]

# In INI a host can't end in ':', so that a file with such a first line can't be one.
_YAML_KEY = re.compile(r"(?:- +)?([\"']?)[^\s\"'\[\]{}#=]+\1\s*:(?:\s|$)")
_YAML_START = re.compile(r"---(?:\s|$)|%YAML|\{|\?\s|!|&")
_HEADER = re.compile(r"\[[^\]]*\]\s*(?:#.*)?")
_INI_HEADER = re.compile(r"\[[^\]\s\"']+:\w+\]\s*(?:#.*)?")
_TOML_TABLE = re.compile(r"\[\s*[^\s\[\].][^\[\]]*\.\s*[\"']?(?:hosts|vars|children)\b")
# INI has no blanks around '=' on lines of hosts, and no quotes around all of a value in variables of a file in TOML.
_TOML_KEY = re.compile(r"""(?:[\w.-]+|"[^"]*"|'[^']*')\s*=\s*(?:["'\[{]|[+-]?[0-9]|true\b|false\b)""")
_PLUGIN = re.compile(r"""^(?:["']?plugin["']?\s*[:=]|\{\s*"plugin"\s*:)""", re.MULTILINE)
_SAMPLE = 200


def is_plugin_config(text: str) -> bool:
    """Whether ``text`` is the configuration of an inventory plugin, in YAML, JSON or TOML."""
    match = _PLUGIN.search(text)
    if match is None:
        return False
    # In INI it is a variable of a section, or a strange host; YAML and TOML have it above the first section.
    return not any(_HEADER.fullmatch(line.strip()) for line in text[: match.start()].splitlines())


def _significant(text: str) -> list[str]:
    found = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped and stripped[0] not in "#;":
            found.append(stripped)
            if len(found) == _SAMPLE:
                break
    return found


def toml_looks_meant(text: str) -> bool:
    """Whether a file that is no valid TOML was meant to be."""
    lines = _significant(text)
    if any(_INI_HEADER.fullmatch(line) for line in lines):
        return False
    headers = [line for line in lines if _HEADER.fullmatch(line)]
    tables = [line for line in headers if _TOML_TABLE.match(line)]
    # A line of hosts in INI begins with a name; in TOML all lines but headers are keys, or go on with a list.
    keys = [line for line in lines if _TOML_KEY.match(line)]
    return len(tables) * 2 >= len(headers) and 2 * len(keys) >= len(lines) - len(headers) and bool(tables or keys)


def syntax_of(text: str) -> str:
    """Return ``yaml``, ``toml`` or ``ini``: the one that ``text`` is in, or was meant to be in if it has errors."""
    lines = _significant(text)
    if not lines:
        return "yaml" if re.search(r"^---", text, re.MULTILINE) else "ini"
    if _YAML_START.match(lines[0]) or _YAML_KEY.match(lines[0]):
        return "yaml"
    if any(_HEADER.fullmatch(line) for line in lines):
        return "toml" if _is_toml(text) or toml_looks_meant(text) else "ini"
    keys = sum(1 for line in lines if _YAML_KEY.match(line))
    if keys * 2 > len(lines):
        return "yaml"
    return "toml" if _is_toml(text) or toml_looks_meant(text) else "ini"


def _is_toml(text: str) -> bool:
    """Whether ``text`` is valid TOML in the shape of an inventory: then no line of it is a host in INI."""
    try:
        data = read_toml(text)
    except (ValueError, RecursionError):
        return False
    keys = {"vars", "children", "hosts"}
    return bool(data) and all(isinstance(group, dict) and keys.issuperset(group) for group in data.values())


def read_toml(text: str) -> dict[str, Any]:
    """Return the content of ``text``, or raise a ValueError that ends in ``(at line N, column M)``."""
    import tomllib  # only on the control node, whose Python has it

    return tomllib.loads(text)


_KEY_PART = re.compile(r"""\s*(?:([A-Za-z0-9_-]+)|"((?:[^"\\]|\\.)*)"|'([^']*)')\s*""")
_STRINGS = re.compile(r'"""(?:[^\\]|\\.)*?"""|\'\'\'.*?\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#[^\n]*', re.DOTALL)


def toml_lines(text: str) -> dict[tuple[str, ...], int]:
    """Return the lines of the keys of valid TOML. What is in an inline table has no line of its own."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    depth = 0
    inside = False
    for number, (line, blank) in enumerate(zip(text.split("\n"), _blanked(text).split("\n")), start=1):
        if depth == 0 and not inside:
            stripped = line.strip()
            if stripped.startswith("["):
                table = _key(stripped.lstrip("["))
                lines.setdefault(table, number)
                continue
            key = _key(stripped)
            if key and stripped[0] != "#":
                for end in range(1, len(key) + 1):
                    lines.setdefault(table + key[:end], number)
        depth = max(0, depth + sum(blank.count(c) for c in "[{") - sum(blank.count(c) for c in "]}"))
        inside = "\x00" in blank
    return lines


def _blanked(text: str) -> str:
    """Return ``text`` with strings and comments taken out, and a mark on each line that a string goes on after."""
    return _STRINGS.sub(lambda match: "\x00\n" * match[0].count("\n"), text)


def _key(text: str) -> tuple[str, ...]:
    """Return the parts of the dotted key at the beginning of ``text``."""
    parts: list[str] = []
    position = 0
    while True:
        match = _KEY_PART.match(text, position)
        if match is None:
            return tuple(parts)
        parts.append(next(part for part in match.groups() if part is not None))
        position = match.end()
        if text[position : position + 1] != ".":
            return tuple(parts)
        position += 1
