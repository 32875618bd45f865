# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventories that are mappings of groups, in YAML and in TOML, read as Ansible's own plugins do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._inventory.steps import (
    MAX_HOSTS,
    AddChild,
    AddGroup,
    AddHosts,
    Expand,
    Fault,
    Parsed,
    SetVariable,
    Step,
    expand_pattern,
)

__all__ = ["LineOf", "parse_mapping"]

# Returns the line of what is at a path of keys; the last element is the key itself, as it came from the file.
LineOf = Callable[["tuple[Any, ...]"], int]

_KEYS = ("children", "hosts", "vars")
_WANTED = "a group has hosts, children and vars only"


class _Reader:
    """State of one walk over the groups."""

    def __init__(self, yaml: bool, line_of: LineOf, expand: Expand) -> None:
        self.yaml = yaml
        self.line_of = line_of
        self.expand = expand
        self.steps: list[Step] = []
        self.faults: list[Fault] = []
        self.warnings: list[tuple[int, str]] = []

    def fault(self, path: tuple[Any, ...], what: str, remedy: str) -> None:
        self.faults.append(Fault(self.line_of(path), what, remedy))

    def group(self, path: tuple[Any, ...], data: Any) -> None:
        """Read the group whose name is the last key of ``path``."""
        name = path[-1]
        if len(self.steps) > MAX_HOSTS:
            raise HpcError(f"there are more than {MAX_HOSTS} groups", "remove the aliases that repeat them")
        if data is not None and not isinstance(data, Mapping):
            self.warnings.append((self.line_of(path), f"{name!r} is skipped, since it is no group: {_WANTED}"))
            return
        if not isinstance(name, str) or not name:
            self.fault(path, f"{name!r} is no name of a group", "use text, in quotes if it looks like a number")
            return
        self.steps.append(AddGroup(name, self.line_of(path)))
        for key, content in (data or {}).items():
            self._section(path, key, content)

    def _section(self, path: tuple[Any, ...], key: Any, content: Any) -> None:
        here = (*path, key)
        if self.yaml and key in _KEYS and isinstance(content, str):
            content = {content: None}
        if self.yaml and content is None:
            return
        wanted: Any = list if key == "children" and not self.yaml else Mapping
        if key not in _KEYS:
            self.warnings.append((self.line_of(here), f"{key!r} of the group {path[-1]} is skipped: {_WANTED}"))
        elif not isinstance(content, wanted):
            kind = "list" if wanted is list else "mapping"
            self.fault(
                here,
                f"{key} of the group {path[-1]} is {content!r:.60}",
                f"make it a {kind}" + (", with a ':' after each name" if self.yaml else ""),
            )
        elif key == "vars":
            for name, value in content.items():
                self.steps.append(SetVariable(path[-1], name, value, self.line_of((*here, name))))
        elif key == "children":
            self._children(here, content)
        else:
            for pattern, variables in content.items():
                self._hosts((*here, pattern), variables)

    def _children(self, path: tuple[Any, ...], content: Any) -> None:
        group = path[-2]
        for child in content:
            here = (*path, child)
            self.group(here, content[child] if self.yaml else {})
            # YAML's skipped groups are put into their parent, which fails unless something else defines them.
            if isinstance(child, str) and child:
                self.steps.append(AddChild(group, child, self.line_of(here)))

    def _hosts(self, path: tuple[Any, ...], variables: Any) -> None:
        pattern, group = path[-1], path[-3]
        if self.yaml:
            variables = variables or {}
        if not isinstance(pattern, str) or not pattern:
            self.fault(path, f"{pattern!r} is no host name", "use text, in quotes if it looks like a number")
            return
        if not isinstance(variables, Mapping):
            self.fault(path, f"the variables of {pattern!r} are {variables!r:.60}", "write names with values")
            return
        names, port = [pattern], None
        if ":" in pattern or "[" in pattern:
            try:
                names, port = expand_pattern(pattern, self.expand)
            except Exception as error:  # noqa: BLE001 - whatever Ansible's function raises says that it can't
                reason = "its brackets don't match" if isinstance(error, ValueError) else " ".join(str(error).split())
                self.fault(
                    path,
                    f"{pattern!r} is no host name or range ({reason})",
                    "write a range as in node[01-16], node[1:9:2] or rack-[a-c]",
                )
                return
        lines = {name: self.line_of((*path, name)) for name in variables}
        self.steps.append(AddHosts(names, group, port, dict(variables), self.line_of(path), lines))


def parse_mapping(data: Mapping[Any, Any], yaml: bool, line_of: LineOf, expand: Expand) -> Parsed:
    """Read the content of a file. YAML has mappings as ``children`` and may leave things empty, TOML has lists."""
    reader = _Reader(yaml, line_of, expand)
    try:
        for name in data:
            reader.group((name,), data[name])
    except HpcError as error:
        reader.fault((), error.what, error.remedy)
    except RecursionError:
        reader.fault((), "groups are inside of each other without end", "remove the alias that refers to its own group")
    return Parsed(reader.steps, reader.faults, reader.warnings)
