# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.action import validate_inventory


def test_equal_values_of_many_hosts_are_kept_once():
    users = [{"name": "alice"}]
    collector = validate_inventory.SettingsCollector()
    for host in ("a", "b", "c"):
        collector.add(host, "cluster_name", "lab")
        collector.add(host, "cluster_users", users)
        collector.add(host, "cluster_flag", {"a": 1, "b": True}.get(host))
    assert list(collector.values()) == [
        ("cluster_name", "lab", ["a", "b", "c"]),
        ("cluster_users", users, ["a", "b", "c"]),
        ("cluster_flag", 1, ["a"]),
        ("cluster_flag", True, ["b"]),
        ("cluster_flag", None, ["c"]),
    ]


@pytest.mark.parametrize(
    ("value", "option", "fits"),
    [
        ("5", {"type": "int"}, True),
        ("many", {"type": "int"}, False),
        ("nfs", {"type": "str", "choices": ["nfs", "provided"]}, True),
        ("nsf", {"type": "str", "choices": ["nfs", "provided"]}, False),
        (["a"], {"type": "list", "elements": "str", "choices": ["a", "b"]}, True),
        (["c"], {"type": "list", "elements": "str", "choices": ["a", "b"]}, False),
        ([{"name": "x"}], {"type": "list", "elements": "dict", "options": {"name": {"required": True}}}, True),
        ([{}], {"type": "list", "elements": "dict", "options": {"name": {"required": True}}}, False),
    ],
)
def test_values_are_held_against_the_argument_spec(value, option, fits):
    assert (validate_inventory.check_type("slurm_x", value, option) == []) is fits


def test_the_collections_own_specs_are_found():
    assert (validate_inventory.ROLES_DIR / "cluster" / "meta" / "argument_specs.yml").is_file()
