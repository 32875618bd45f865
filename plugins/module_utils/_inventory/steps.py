# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a reader of inventory files gives: the steps that fill an inventory, and what is wrong, with lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any, NamedTuple, Union

from ansible_collections.turnkey.hpc.plugins.module_utils._entry import Entry, Problem
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._old_layout import OLD_GROUPS, OLD_VARIABLES, map_old_layout

__all__ = [
    "AddChild",
    "AddGroup",
    "AddHosts",
    "Expand",
    "Fault",
    "Parsed",
    "SetVariable",
    "Step",
    "TooManyHosts",
    "entries_of",
    "expand_pattern",
    "fault_of",
    "map_steps",
    "members_of",
    "render_faults",
]

# More than the largest clusters have: a slip like node[1:99999999] must not eat the memory.
MAX_HOSTS = 100_000

# Returns the names and the port of a pattern in Ansible's syntax, and raises if it can't.
Expand = Callable[[str], "tuple[list[str], int | None]"]

_BRACKETS = re.compile(r"\[([^\]]*)\]")
_HYPHEN = re.compile(r"([0-9]+|[A-Za-z])-([0-9]+|[A-Za-z])((?::[0-9]+)?)")
_SINGLE = re.compile(r"[0-9]+|[A-Za-z]")


class TooManyHosts(HpcError):
    """Host ranges that give more names than any cluster has."""


class AddGroup(NamedTuple):
    """Define a group."""

    name: Any
    line: int


class AddChild(NamedTuple):
    """Put the group ``child`` into ``group``."""

    group: str
    child: str
    line: int


class AddHosts(NamedTuple):
    """Put hosts into a group (empty: into none), and set variables of them.

    ``lines`` has the lines of variables that aren't on ``line``.
    """

    names: list[str]
    group: str
    port: int | None
    variables: dict[Any, Any]
    line: int
    lines: dict[Any, int] | None = None


class SetVariable(NamedTuple):
    """Set a variable of a group."""

    group: str
    name: Any
    value: Any
    line: int


Step = Union[AddGroup, AddChild, AddHosts, SetVariable]


class Fault(NamedTuple):
    """Something wrong on a line of the file."""

    line: int
    what: str
    remedy: str


class Parsed(NamedTuple):
    """All that a file says. ``warnings`` are for what is legal and without effect."""

    steps: list[Step]
    faults: list[Fault]
    warnings: list[tuple[int, str]]


def render_faults(path: str, faults: list[Fault]) -> list[str]:
    """Return one line a fault, in the order of the file, each once."""
    return [
        f"{path}:{fault.line}: {fault.what}{'' if fault.what.endswith(('.', '?')) else '.'} Remedy: {fault.remedy}."
        for fault in sorted(set(faults))
    ]


def expand_pattern(pattern: str, expand: Expand) -> tuple[list[str], int | None]:
    """Return the names and the port of ``pattern``, which may have ranges as in node[01:16] or node[01-16,20]."""
    names: list[str] = []
    port = None
    for variant in _to_colons(pattern, expand):
        _check_size(variant, pattern)
        found, port = expand(variant)
        names.extend(found)
    return names, port


def _to_colons(pattern: str, expand: Expand) -> list[str]:
    """Return patterns that Ansible understands for one with ranges in the style of Slurm."""
    patterns = [""]
    position = 0
    listed = any("," in inside for inside in _BRACKETS.findall(pattern))
    for match in _BRACKETS.finditer(pattern):
        parts = match[1].split(",")
        choices = [match[0]]
        if all(_HYPHEN.fullmatch(part) or _SINGLE.fullmatch(part) for part in parts):
            choices = [_HYPHEN.sub(r"[\1:\2\3]", part) for part in parts]
        if listed:
            # A list must be taken apart, and then all ranges, so that the names are in order.
            for choice in choices:
                _check_size(choice, pattern)
            choices = [name[1:] for choice in choices for name in expand(f"x{choice}")[0]]
        before = pattern[position : match.start()]
        if len(patterns) * len(choices) > MAX_HOSTS:
            raise _too_many(pattern)
        patterns = [start + before + choice for start in patterns for choice in choices]
        position = match.end()
    return [start + pattern[position:] for start in patterns]


def _check_size(variant: str, pattern: str) -> None:
    """Raise before a range is built that nobody can want."""
    size = 1
    for inside in _BRACKETS.findall(variant):
        bounds = inside.split(":")
        if len(bounds) in (2, 3) and all(re.fullmatch("[0-9]*", bound, re.ASCII) for bound in bounds):
            if any(len(bound) > 18 for bound in bounds):
                raise _too_many(pattern)
            low, high, step = (int(bound or 0) for bound in [*bounds, "1"][:3])
            size *= max(1, (high - low) // max(1, step) + 1)
        if size > MAX_HOSTS:
            raise _too_many(pattern)


def _too_many(pattern: str) -> TooManyHosts:
    return TooManyHosts(f"{pattern!r} gives more than {MAX_HOSTS} hosts", "check its range")


def entries_of(steps: Iterable[Step], path: str, without: Container[Any] = ()) -> Iterator[Entry]:
    """Return every variable of the file, with its place, but for the names that are in ``without``."""
    for step in steps:
        if isinstance(step, AddHosts):
            line, lines = step.line, step.lines or {}
            for name, value in step.variables.items():
                if name in without:
                    continue
                origin = f"{path}:{lines.get(name, line)}"
                for host in step.names:
                    yield Entry(f"host:{host}", str(name), value, origin)
        elif isinstance(step, SetVariable):
            scope = "all" if step.group == "all" else f"group:{step.group}"
            yield Entry(scope, str(step.name), step.value, f"{path}:{step.line}")


def fault_of(problem: Problem) -> Fault:
    """Return what the check of variables has found as a fault of the file. Its origin ends in the line."""
    return Fault(int(problem.origin.rpartition(":")[2]), problem.text, problem.remedy)


def members_of(steps: Iterable[Step]) -> dict[str, list[str]]:
    """Return the hosts of each group, those of its children included."""
    hosts: dict[str, dict[str, None]] = {}
    children: dict[str, dict[str, None]] = {}
    for step in steps:
        if isinstance(step, AddHosts):
            hosts.setdefault(step.group, {}).update(dict.fromkeys(step.names))
        elif isinstance(step, AddChild):
            children.setdefault(step.group, {})[step.child] = None
    members = {}
    for group in {**hosts, **children}:
        reached = {group: None}
        waiting = [group]
        while waiting:
            new = [child for child in children.get(waiting.pop(), ()) if child not in reached]
            reached.update(dict.fromkeys(new))
            waiting += new
        members[group] = list(dict.fromkeys(host for name in reached for host in hosts.get(name, ())))
    return members


def map_steps(parsed: Parsed, path: str, variables: bool) -> tuple[Parsed, list[str]]:
    """Return the steps with the names of the old layout mapped, and notes that name the new ones.

    Without ``variables``, those of files that have none of the old groups keep their names.
    """
    old_names = {variable.old for variable in OLD_VARIABLES}
    old_groups = {group.name for group in OLD_GROUPS}
    used = {step.group for step in parsed.steps if isinstance(step, (AddHosts, AddChild))} & old_groups
    if not used and not (variables and any(_uses(step, old_names) for step in parsed.steps)):
        return parsed, []
    before = list(entries_of(parsed.steps, path))
    groups = members_of(parsed.steps)
    mapped, after, notes = map_old_layout(groups, before)
    steps = [kept for step in parsed.steps if (kept := _without(step, old_names)) is not None]
    for group, hosts in mapped.items():
        there = set(groups.get(group, ()))
        more = [host for host in hosts if host not in there]
        if more:
            steps += [AddGroup(group, 1), AddHosts(more, group, None, {}, 1)]
    known = {(entry.scope, entry.name, entry.origin) for entry in before}
    for entry in after:
        if (entry.scope, entry.name, entry.origin) not in known:
            steps.append(_step_of(entry))
    return Parsed(steps, parsed.faults, parsed.warnings), notes


def _uses(step: Step, names: set[str]) -> bool:
    if isinstance(step, AddHosts):
        return not names.isdisjoint(step.variables)
    return isinstance(step, SetVariable) and step.name in names


def _without(step: Step, names: set[str]) -> Step | None:
    if not _uses(step, names):
        return step
    if isinstance(step, AddHosts):
        return step._replace(variables={name: value for name, value in step.variables.items() if name not in names})
    return None


def _step_of(entry: Entry) -> Step:
    kind, _colon, name = entry.scope.partition(":")
    place = entry.origin.rpartition(":")[2]
    line = int(place) if place else 1
    if kind == "host":
        return AddHosts([name], "", None, {entry.name: entry.value}, line)
    return SetVariable(name or "all", entry.name, entry.value, line)
