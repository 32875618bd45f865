# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.action import validate_inventory
from ansible_collections.turnkey.hpc.plugins.module_utils._variable_check import Specs

SPECS = Specs.from_documents({"slurm": {"argument_specs": {"main": {"options": {"slurm_x": {}}}}}})


def test_equal_values_of_many_hosts_are_kept_once_with_the_place_of_the_first():
    users = [{"name": "alice"}]
    asked = []

    def origin_of(name, _value):
        asked.append(name)
        return f"all.yml:{len(asked)}"

    collector = validate_inventory.SettingsCollector(origin_of)
    for host in ("a", "b", "c"):
        collector.add(host, "cluster_name", "lab")
        collector.add(host, "cluster_users", users)
        collector.add(host, "cluster_flag", {"a": 1, "b": True}.get(host))
    assert list(collector.values()) == [
        ("cluster_name", "lab", ["a", "b", "c"], "all.yml:1"),
        ("cluster_users", users, ["a", "b", "c"], "all.yml:2"),
        ("cluster_flag", 1, ["a"], "all.yml:3"),
        ("cluster_flag", True, ["b"], "all.yml:4"),
        ("cluster_flag", None, ["c"], "all.yml:5"),
    ]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/site/inv.ini", "/site/inv.ini:7"),
        ("/inv/hosts.ini", "/inv/hosts.ini:7"),
        ("/elsewhere/group_vars/all.yml", "/elsewhere/group_vars/all.yml:7"),
        ("/elsewhere/play.yml", ""),
    ],
)
def test_a_place_is_told_if_it_is_in_the_inventory(path, expected):
    tag = pytest.importorskip("ansible._internal._datatag._tags").Origin(path=path, line_num=7)
    origins = validate_inventory.Origins(["/site/inv.ini", "/inv"])
    assert origins.of(tag.tag("name"), True) == expected
    assert origins.of("name", tag.tag([1])) == expected


def test_a_value_without_a_place_has_none():
    assert validate_inventory.Origins(["/site"]).of("name", "value") == ""


@pytest.mark.parametrize(
    ("name", "origin", "foreign"),
    [
        ("instance_type", "", True),
        ("instance_type", "all.yml:1", False),
        ("slurm_y", "", False),
        ("slurm_x", "", False),
        ("http_port", "", False),
        ("__slurm_x", "all.yml:1", True),
    ],
)
def test_what_inventory_plugins_and_plays_add_is_none_of_ours(name, origin, foreign):
    assert validate_inventory.is_foreign(name, origin, SPECS) is foreign


def test_the_collections_own_specs_are_found():
    assert (validate_inventory.ROLES_DIR / "cluster" / "meta" / "argument_specs.yml").is_file()
