# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory files in INI syntax, read as Ansible's own plugin does, with all problems at once."""

from __future__ import annotations

import ast
import difflib
import re
import shlex
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._inventory.steps import (
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

__all__ = ["parse_ini", "parse_value"]

_SECTION = re.compile(r"\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?")
_SLOPPY_SECTION = re.compile(r"\[\s*([^:\]\s]+)\s*(?::\s*(\w+)\s*)?\]")
_GROUP_NAME = re.compile(r"([^:\]\s]+)\s*(?:#.*)?")
_STATES = ("hosts", "children", "vars")
# Lines that str.split cuts exactly as shlex does.
_NEEDS_SHLEX = re.compile(r"[\"'\\#\x1f]|[^\x00-\x7f]")
# What literal_eval refuses, seen without asking it. True, False and None are taken out by hand.
_PLAIN_TEXT = re.compile(r"[A-Za-z_/~][A-Za-z0-9_./:@~-]*|[0-9]{1,3}(?:\.[0-9]{1,3}){3}", re.ASCII)
_PLAIN_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
_LITERAL_WORDS = {"True": True, "False": False, "None": None}
# Ansible takes them for host names; no host pattern can name such a host, so the line is broken.
_NO_HOST_NAME = re.compile(r"[\s=,;\"'{}\x00-\x1f]")
_BRACKETS = re.compile(r"\[[^\]]*\]")
_WRITE_VARIABLE = "write name=value, without spaces around '='; put a value with spaces in quotes"


def parse_value(text: str) -> Any:
    """Return the value of a variable as Ansible reads it: a Python literal, or the text itself."""
    if _PLAIN_TEXT.fullmatch(text):
        return _LITERAL_WORDS.get(text, text)
    if _PLAIN_NUMBER.fullmatch(text):
        return int(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    except (MemoryError, RecursionError, TypeError) as error:
        raise HpcError(
            f"the value {_shorten(text)} is no Python literal that can be read ({type(error).__name__})",
            "put text in two pairs of quotes, as in \"'text'\"",
        ) from None
    return _coerce(value)


def _coerce(value: Any) -> Any:
    """Turn what Python's literals have and variables haven't into lists and text."""
    if isinstance(value, (list, tuple, set)):
        return [_coerce(item) for item in value]
    if isinstance(value, dict):
        for key in value:
            if isinstance(key, complex) or key is ...:
                raise HpcError(f"the key {key!r} can't be used in a dictionary", "use text")
        return {key: _coerce(item) for key, item in value.items()}
    if value is ...:
        return "..."
    if isinstance(value, complex):
        return str(value)
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else value


def _shorten(text: str) -> str:
    return repr(text) if len(text) <= 60 else f"{text[:57]!r}..."


class _Reader:
    """State of one pass over the lines."""

    def __init__(self, groups: Iterable[str], expand: Expand, safe_name: Callable[[str], str]) -> None:
        self.groups = set(groups)
        self.expand = expand
        self.safe_name = safe_name
        self.steps: list[Step] = []
        self.faults: list[Fault] = []
        self.group = "ungrouped"
        self.state = "hosts"
        self.line = 0
        # Groups that are used before their section comes: variables (line), or as children of (group, line).
        self.pending_variables: dict[str, int] = {}
        self.pending_children: dict[str, list[tuple[str, int]]] = {}

    def fault(self, what: str, remedy: str) -> None:
        self.faults.append(Fault(self.line, what, remedy))

    def read(self, lines: list[str]) -> Parsed:
        for number, raw in enumerate(lines, start=1):
            text = raw.strip()
            if not text or text[0] in ";#":
                continue
            self.line = number
            if text[0] == "[" and self._section(text):
                continue
            try:
                if self.state == "hosts":
                    self._hosts(text)
                elif self.state == "vars":
                    self._variable(text)
                elif self.state == "children":
                    self._child(text)
            except HpcError as error:
                self.fault(error.what, error.remedy)
        self._report_pending()
        return Parsed(self.steps, self.faults, [])

    def _section(self, text: str) -> bool:
        """Begin a section if ``text`` is its header."""
        match = _SECTION.fullmatch(text)
        if match is None:
            if not text.endswith("]"):
                return False
            sloppy = _SLOPPY_SECTION.fullmatch(text)
            meant = "[" + ":".join(part for part in sloppy.groups() if part) + "]" if sloppy else "[group]"
            self.fault(f"{_shorten(text)} is no section", f"write {meant}, without spaces and other characters")
            # What follows is read as what it was meant for, so that its problems are told as well.
            kind = re.search(r":\s*(\w+)\s*\]$", text)
            self.state = kind[1] if kind and kind[1] in _STATES else "hosts"
            self.group = sloppy[1] if sloppy else ""
            return True
        name, state = match[1], match[2] or "hosts"
        if state not in _STATES:
            near = difflib.get_close_matches(state.lower(), _STATES, n=1, cutoff=0.5)
            hint = f"write [{name}:{near[0]}]" if near else f"write [{name}], [{name}:children] or [{name}:vars]"
            self.fault(f"[{name}:{state}] is no kind of section", hint)
            state = near[0] if near else "skip"
            self.groups.add(self.safe_name(name))
        self.group, self.state = self.safe_name(name), state
        self._declare()
        return True

    def _declare(self) -> None:
        group = self.group
        if group not in self.groups:
            if self.state == "vars" and group not in self.pending_children:
                self.pending_variables.setdefault(group, self.line)
            self.groups.add(group)
            self.steps.append(AddGroup(group, self.line))
        if self.state != "vars":
            self.pending_variables.pop(group, None)
            for parent, line in self.pending_children.pop(group, ()):
                self.steps.append(AddChild(parent, group, line))

    def _hosts(self, text: str) -> None:
        if _NEEDS_SHLEX.search(text):
            try:
                tokens = shlex.split(text, comments=True)
            except ValueError as error:
                raise HpcError(
                    f"the quotes of {_shorten(text)} don't match ({error})", "close each quote, and write \\\\ for \\"
                ) from None
        else:
            tokens = text.split()
        pattern = tokens[0]
        port: int | None = None
        if ":" in pattern or "[" in pattern:
            names, port = self._expand(pattern)
        else:
            names = [pattern]
        if not pattern or _NO_HOST_NAME.search(_BRACKETS.sub("", pattern)):
            why = "begin the line with a name or a range" if "=" in pattern else "use letters, digits, '.' and '-'"
            raise HpcError(f"{_shorten(pattern)} is no host name", f"{why}, as in node1 or node[01-16]")
        if pattern == "---":
            raise HpcError("'---' is no host name", "remove it; it begins a file in YAML, and this one is read as INI")
        variables: dict[str, Any] = {}
        odd = []
        for token in tokens[1:]:
            name, sign, value = token.partition("=")
            if not sign or not name:
                odd.append(token)
                continue
            try:
                variables[name] = parse_value(value)
            except HpcError as error:
                self.fault(f"{name}: {error.what}", error.remedy)
        if odd:
            what = _shorten(" ".join(odd))
            self.fault(f"{what} on the line of {_shorten(pattern)} is no variable", _WRITE_VARIABLE)
        self.steps.append(AddHosts(names, self.group, port, variables, self.line))

    def _expand(self, pattern: str) -> tuple[list[str], int | None]:
        remedy = "write a range as in node[01-16], node[1:9:2] or rack-[a-c], and a port as in node1:2222"
        try:
            names, port = expand_pattern(pattern, self.expand)
        except HpcError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever Ansible's function raises says that it can't
            raise HpcError(f"{_shorten(pattern)} is no host name or range ({_reason(error)})", remedy) from None
        if not names:
            raise HpcError(f"the range {_shorten(pattern)} has no hosts", "let it run from the lower to the higher end")
        if pattern.strip().endswith(":") and port is None:
            raise HpcError(f"{_shorten(pattern)} ends in ':'", "write the port behind it, or remove it")
        return names, port

    def _variable(self, text: str) -> None:
        name, sign, value = text.partition("=")
        name = name.strip()
        if not sign or not name:
            raise HpcError(f"{_shorten(text)} is no variable", "write name=value")
        try:
            self.steps.append(SetVariable(self.group, name, parse_value(value.strip()), self.line))
        except HpcError as error:
            self.fault(f"{name}: {error.what}", error.remedy)

    def _child(self, text: str) -> None:
        match = _GROUP_NAME.fullmatch(text)
        if match is None:
            raise HpcError(f"{_shorten(text)} is no group name", "write one name of a group a line")
        child = match[1]
        if child in self.groups:
            self.steps.append(AddChild(self.group, child, self.line))
        else:
            self.pending_children.setdefault(child, []).append((self.group, self.line))

    def _report_pending(self) -> None:
        for group, line in self.pending_variables.items():
            self.line = line
            self.fault(f"[{group}:vars] is for a group that is not defined", self._define(group))
        for child, parents in self.pending_children.items():
            for parent, line in parents:
                self.line = line
                self.fault(f"[{parent}:children] has the group {child}, which is not defined", self._define(child))

    def _define(self, group: str) -> str:
        known = self.groups - set(self.pending_variables)
        near = difflib.get_close_matches(group, sorted(known), n=1, cutoff=0.7)
        return f"did you mean {near[0]}? Else add a section [{group}]" if near else f"add a section [{group}]"


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    # Python's own words about unpacking and int() say nothing to the author of an inventory.
    return "its brackets don't match" if isinstance(error, ValueError) and "unpack" in text else text


def parse_ini(lines: list[str], groups: Iterable[str], expand: Expand, safe_name: Callable[[str], str]) -> Parsed:
    """Read ``lines``. ``groups`` are those that other sources of the same inventory have defined."""
    return _Reader(groups, expand, safe_name).read(lines)
