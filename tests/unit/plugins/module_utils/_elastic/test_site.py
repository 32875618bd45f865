# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.site import controller_settings, host_settings
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.nodes import parse_kinds

MACHINE = {"image": "turnkey/node:debian12", "first_address": "10.0.0.100"}
KIND = {"name": "burst", "nodes": "burst[1-3]", "cpus": 2, "provider": "docker", "machine": MACHINE}


def test_addresses_follow_each_other_from_the_first():
    settings = controller_settings([KIND], {"max_nodes": 2}, ["head"], 300, "power")
    assert settings["addresses"] == {"burst1": "10.0.0.100", "burst2": "10.0.0.101", "burst3": "10.0.0.102"}
    assert settings["kinds"] == [{"name": "burst", "nodes": "burst[1-3]", "provider": "docker", "host": "power"}]


def test_a_power_host_learns_nothing_of_others():
    other = {**KIND, "name": "far", "nodes": "far1", "machine": {**MACHINE, "host": "elsewhere"}}
    settings = host_settings([KIND, other], "power", "lab", "ssh-ed25519 AAAA", 240, "power")
    assert [kind["name"] for kind in settings["kinds"]] == ["burst"]
    assert [kind["provider"] for kind in settings["kinds"]] == ["docker"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ({**KIND, "provider": "vmware"}, "has the provider 'vmware'"),
        ({**KIND, "machine": {**MACHINE, "imgae": "x"}}, "machine has imgae"),
        ({**KIND, "machine": {"image": "x"}}, "needs machine.first_address"),
        ({**KIND, "machine": {**MACHINE, "level": "sleep"}}, "has the level 'sleep'"),
        ({**KIND, "provider": "libvirt", "machine": {**MACHINE, "volumes": []}}, "machine has volumes"),
    ],
)
def test_what_is_wrong_with_a_kind_is_told(kind, said):
    with pytest.raises(InvalidInput) as error:
        controller_settings([kind], {}, ["head"], 300, "power")
    assert said in str(error.value)


def test_kinds_of_metal_containers_virtual_machines_and_clouds_are_one_cluster():
    place = {"image": "x", "instance_type": "small"}
    kinds = [
        KIND,
        {
            **KIND,
            "name": "vm",
            "nodes": "vm1",
            "provider": "libvirt",
            "machine": {**place, "first_address": "10.0.0.9"},
        },
        {**KIND, "name": "c", "nodes": "c1", "provider": "aws", "machine": {**place, "first_address": "10.0.0.150"}},
        {
            **KIND,
            "name": "d",
            "nodes": "d[01-02]",
            "provider": "alicloud",
            "machine": {**place, "first_address": "10.0.0.160", "spot": True, "host": "far"},
        },
    ]
    settings = controller_settings(kinds, {}, ["head"], 300, "power")
    assert {kind["provider"]: kind["host"] for kind in settings["kinds"]} == {
        "docker": "power",
        "libvirt": "power",
        "aws": "power",
        "alicloud": "far",
    }
    assert [kind["name"] for kind in host_settings(kinds, "power", "lab", "k", 240, "power")["kinds"]] == [
        "burst",
        "vm",
        "c",
    ]
    problems = []
    fixed = [{"name": "metal", "nodes": "m[1-2]", "weight": 1}]
    elastic = [{**kind, "memory_mb": 500} for kind in kinds]
    found = {kind.name: kind.elastic for kind in parse_kinds(fixed + elastic, "22.05", problems)}
    assert found == {"metal": False, "burst": True, "vm": True, "c": True, "d": True, "default": False}
    assert problems == []


def test_a_cluster_without_a_power_host_is_told_so():
    with pytest.raises(InvalidInput, match="no host that makes its machines"):
        controller_settings([KIND], {}, ["head"], 300, "")
