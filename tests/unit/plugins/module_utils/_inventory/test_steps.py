# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._inventory.steps import (
    MAX_HOSTS,
    AddChild,
    AddGroup,
    AddHosts,
    Fault,
    Parsed,
    SetVariable,
    TooManyHosts,
    entries_of,
    expand_pattern,
    map_steps,
    members_of,
    render_faults,
)

STEPS = [
    AddGroup("top", 1),
    AddHosts(["a", "b"], "web", None, {"x": 1}, 2),
    AddChild("top", "web", 3),
    SetVariable("all", "y", 2, 4),
    SetVariable("web", "z", 3, 5),
]


def same(pattern: str) -> tuple[list[str], int | None]:
    return [pattern], None


def test_entries_have_scope_and_place() -> None:
    assert [(entry.scope, entry.name, entry.origin) for entry in entries_of(STEPS, "f")] == [
        ("host:a", "x", "f:2"),
        ("host:b", "x", "f:2"),
        ("all", "y", "f:4"),
        ("group:web", "z", "f:5"),
    ]


def test_a_group_has_the_hosts_of_its_children() -> None:
    assert members_of(STEPS) == {"web": ["a", "b"], "top": ["a", "b"]}


@pytest.mark.parametrize(
    ("pattern", "given"),
    [
        ("n[01-16]", "n[01:16]"),
        ("n[a-c]x[1-9:2]:22", "n[a:c]x[1:9:2]:22"),
        ("n[1:3]", "n[1:3]"),
        ("n[x-]", "n[x-]"),
        ("[::1]:22", "[::1]:22"),
    ],
)
def test_ranges_with_hyphens_are_given_to_ansible_with_colons(pattern: str, given: str) -> None:
    assert expand_pattern(pattern, same) == ([given], None)


@pytest.mark.parametrize("pattern", [f"n[1:{MAX_HOSTS + 1}]", "n[1:999]x[1-999]", "n[1:99999999999999999999999]"])
def test_a_range_without_end_is_refused_before_it_is_built(pattern: str) -> None:
    with pytest.raises(TooManyHosts):
        expand_pattern(pattern, same)


def test_faults_are_lines_in_order_and_each_once() -> None:
    faults = [Fault(10, "b", "c"), Fault(9, "a?", "d"), Fault(10, "b", "c")]
    assert render_faults("f", faults) == ["f:9: a? Remedy: d.", "f:10: b. Remedy: c."]


def test_old_names_become_steps_with_the_new_ones() -> None:
    steps = [
        AddHosts(["head"], "driver", None, {"my_iface": "eth0"}, 2),
        AddHosts(["w1"], "worker", None, {}, 4),
        SetVariable("all", "http_port", 80, 6),
    ]
    parsed, notes = map_steps(Parsed(list(steps), [], []), "f", variables=False)
    assert SetVariable("all", "jupyterhub_http_port", 80, 6) in parsed.steps
    assert AddHosts(["head"], "", None, {"cluster_interface": "eth0"}, 2) in parsed.steps
    assert members_of(parsed.steps)["compute"] == ["w1"]
    assert members_of(parsed.steps)["controller"] == ["head"]
    assert not any(isinstance(step, SetVariable) and step.name == "http_port" for step in parsed.steps)
    assert any(note.startswith("f:6: `http_port` is now") for note in notes)


def test_without_old_groups_old_variables_are_mapped_on_demand() -> None:
    parsed = Parsed([SetVariable("all", "http_port", 80, 1)], [], [])
    assert map_steps(parsed, "f", variables=False) == (parsed, [])
    assert map_steps(parsed, "f", variables=True)[0].steps == [SetVariable("all", "jupyterhub_http_port", 80, 1)]
