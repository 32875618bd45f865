# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._inventory.ini import parse_ini, parse_value
from ansible_collections.turnkey.hpc.plugins.module_utils._inventory.steps import (
    AddChild,
    AddGroup,
    AddHosts,
    Parsed,
    SetVariable,
)


def expand(pattern: str) -> tuple[list[str], int | None]:
    """Stand in for Ansible's function where no range matters."""
    if "[" in pattern:
        raise ValueError("not enough values to unpack")
    name, _colon, port = pattern.partition(":")
    return [name], int(port) if port else None


def read(text: str) -> Parsed:
    return parse_ini(text.splitlines(), ["all", "ungrouped"], expand, lambda name: name)


def test_sections_become_steps_with_their_lines() -> None:
    parsed = read("h0\n[web]\nh1:22 a=1  b='x y' # c\n[top:children]\nweb\n[all:vars]\nk = v w\n")
    assert parsed.faults == []
    assert parsed.steps == [
        AddHosts(["h0"], "ungrouped", None, {}, 1),
        AddGroup("web", 2),
        AddHosts(["h1"], "web", 22, {"a": 1, "b": "x y"}, 3),
        AddGroup("top", 4),
        AddChild("top", "web", 5),
        SetVariable("all", "k", "v w", 7),
    ]


def test_a_child_may_be_defined_later() -> None:
    parsed = read("[top:children]\nweb\n[web]\nh\n")
    assert parsed.faults == []
    assert AddChild("top", "web", 2) in parsed.steps


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("abc", "abc"),
        ("True", True),
        ("None", None),
        ("true", "true"),
        ("0", 0),
        ("42", 42),
        ("042", "042"),
        ("1_000", 1000),
        ("10.0.0.1", "10.0.0.1"),
        ("1.5", 1.5),
        ("[1, 'a']", [1, "a"]),
        ("(1, 2)", [1, 2]),
        ("{'a': (1,)}", {"a": [1]}),
        ("'q'", "q"),
        ("True # yes", True),
        ("abc # no", "abc # no"),
        ("1+2j", "(1+2j)"),
        ("...", "..."),
        ("", ""),
        ("{{ x }}", "{{ x }}"),
    ],
)
def test_a_value_is_a_literal_or_text(text: str, value: object) -> None:
    found = parse_value(text)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("text", ["{{ [1] }}", "{[]: 1}", "{1j: 2}"])
def test_a_literal_that_can_not_be_a_variable_is_an_error(text: str) -> None:
    with pytest.raises(HpcError):
        parse_value(text)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("h\nh2 a\n", 2, "'a' on the line of 'h2' is no variable"),
        ("h a = 1\n", 1, "'a = 1' on the line of 'h' is no variable"),
        ("a=1\n", 1, "'a=1' is no host name"),
        ("h, b=1\n", 1, "'h,' is no host name"),
        ("h 'a\n", 1, "No closing quotation"),
        ("---\n", 1, "'---' is no host name"),
        ("h:\n", 1, "ends in ':'"),
        ("h[1\n", 1, "its brackets don't match"),
        ("[web:var]\n", 1, "[web:var] is no kind of section"),
        ("[we b]\n", 1, "'[we b]' is no section"),
        ("[all:vars]\nabc\n", 2, "'abc' is no variable"),
        ("[all:vars]\n=1\n", 2, "'=1' is no variable"),
        ("[web:vars]\na=1\n", 1, "is for a group that is not defined"),
        ("[web]\n[top:children]\nwep\n", 3, "the group wep, which is not defined"),
        ("[top:children]\na b\n", 2, "'a b' is no group name"),
    ],
)
def test_a_broken_line_is_named(text: str, line: int, what: str) -> None:
    (fault,) = read(text).faults
    assert fault.line == line
    assert what in fault.what
    assert fault.remedy


def test_all_broken_lines_are_told() -> None:
    assert [fault.line for fault in read("a b\nc\n[x y]\nd=1\n[all:vars]\ne\n").faults] == [1, 3, 4, 6]


def test_a_misspelt_group_has_a_suggestion() -> None:
    (fault,) = read("[compute]\nh\n[top:children]\ncomptue\n").faults
    assert fault.remedy.startswith("did you mean compute?")
