# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._inventory.mapping import parse_mapping
from ansible_collections.turnkey.hpc.plugins.module_utils._inventory.steps import (
    AddChild,
    AddGroup,
    AddHosts,
    Parsed,
    SetVariable,
)


def read(data: dict[Any, Any], yaml: bool = True) -> Parsed:
    return parse_mapping(data, yaml, len, lambda pattern: ([pattern], None))


def test_groups_become_steps_in_their_order() -> None:
    data = {"web": {"hosts": {"h": {"a": 1}}, "vars": {"v": 2}, "children": {"sub": None}}}
    assert read(data).steps == [
        AddGroup("web", 1),
        AddHosts(["h"], "web", None, {"a": 1}, 3, {"a": 4}),
        SetVariable("web", "v", 2, 3),
        AddGroup("sub", 3),
        AddChild("web", "sub", 3),
    ]


def test_children_are_a_list_in_toml() -> None:
    assert AddChild("web", "sub", 3) in read({"web": {"children": ["sub"]}}, yaml=False).steps


@pytest.mark.parametrize(
    ("data", "yaml"),
    [
        ({5: {}}, True),
        ({"web": {"hosts": {5: {}}}}, True),
        ({"web": {"hosts": ["h"]}}, True),
        ({"web": {"hosts": {"h": "x"}}}, True),
        ({"web": {"vars": [1]}}, True),
        ({"web": {"hosts": {"h": ""}}}, False),
        ({"web": {"children": {"sub": {}}}}, False),
        ({"web": {"hosts": "h"}}, False),
    ],
)
def test_a_wrong_shape_is_an_error(data: dict[Any, Any], yaml: bool) -> None:
    assert len(read(data, yaml).faults) == 1


def test_what_is_skipped_is_warned_of() -> None:
    assert [line for line, _text in read({"web": {"host": {}}, "x": "y"}).warnings] == [2, 1]


def test_a_group_inside_of_itself_is_an_error() -> None:
    group: dict[str, Any] = {}
    group["children"] = {"web": group}
    assert "without end" in read({"web": group}).faults[0].what
