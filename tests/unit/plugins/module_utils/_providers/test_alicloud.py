# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of the provider for Alibaba Cloud is pure. What it does in a cloud is in tests/cloud."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._providers import alicloud
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.alicloud import AlicloudProvider
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import Capacity, Invalid, expand_spec

OFFERS = {"cn-a": {"small"}, "cn-b": {"small", "large"}, "cn-c": {"small", "large"}}


@pytest.mark.parametrize(
    ("kinds", "asked", "used", "zone"),
    [
        ({"small"}, "", set(), "cn-a"),
        ({"small", "large"}, "", set(), "cn-b"),
        ({"large"}, "cn-c", set(), "cn-c"),
        ({"large"}, "", {"cn-c"}, "cn-c"),
    ],
)
def test_the_zone_is_where_the_cluster_is_or_the_one_asked_for_or_the_first_that_fits(kinds, asked, used, zone):
    assert alicloud.choose_zone(OFFERS, kinds, asked, used) == zone


@pytest.mark.parametrize(
    ("kinds", "asked", "used", "error", "message"),
    [
        ({"large"}, "cn-a", set(), Capacity, "zone cn-a doesn't offer large.*cn-b, cn-c"),
        ({"large"}, "", {"cn-a"}, Capacity, "zone cn-a doesn't offer large"),
        ({"small"}, "cn-x", set(), Invalid, "zone cn-x doesn't exist.*cn-a, cn-b, cn-c"),
        ({"huge", "small"}, "", set(), Capacity, "no zone offers all of huge, small"),
    ],
)
def test_a_zone_that_can_not_be_is_told_with_those_that_can(kinds, asked, used, error, message):
    with pytest.raises(error, match=message):
        alicloud.choose_zone(OFFERS, kinds, asked, used)


def test_the_newest_image_is_taken_and_a_tie_is_an_error():
    images = {"m-1": ("node-1", "2026-01-01"), "m-2": ("node-2", "2026-03-01"), "m-3": ("node-3", "2026-02-01")}
    assert alicloud.newest_image("node-*", images) == "m-2"
    with pytest.raises(Invalid, match=r"equally new: m-2 \(node-2\), m-4 \(node-4\)"):
        alicloud.newest_image("node-*", {**images, "m-4": ("node-4", "2026-03-01")})
    with pytest.raises(Invalid, match="'node-x' is none of this region's"):
        alicloud.newest_image("node-x", {})


def rule(**changes):
    values = {
        "ip_protocol": "TCP",
        "port_range": "22/22",
        "source_cidr_ip": "203.0.113.0/24",
        "source_group_id": "",
        "ipv_6source_cidr_ip": "",
        "source_prefix_list_id": "",
        "policy": "Accept",
    }
    return SimpleNamespace(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "tcp 22 from 203.0.113.0/24"),
        ({"source_cidr_ip": "203.0.113.9"}, "tcp 22 from 203.0.113.9/32"),
        ({"port_range": "1/65535"}, "tcp 1-65535 from 203.0.113.0/24"),
        ({"ip_protocol": "ALL", "port_range": "-1/-1", "source_cidr_ip": "", "source_group_id": "sg-1"},
         "all from group cluster"),
        ({"source_cidr_ip": "", "source_group_id": "sg-9"}, "tcp 22 from group sg-9"),
        ({"source_cidr_ip": "", "ipv_6source_cidr_ip": "2001:db8::/32"}, "tcp 22 from 2001:db8::/32"),
        ({"source_cidr_ip": "", "source_prefix_list_id": "pl-1"}, "tcp 22 from list pl-1"),
        ({"policy": "Drop"}, "not tcp 22 from 203.0.113.0/24"),
    ],
)  # fmt: skip
def test_a_security_rule_reads_the_same_in_the_plan_and_in_the_cloud(changes, text):
    assert alicloud.text_of_rule(rule(**changes), {"sg-1": "cluster"}) == text


def machines(count, **node):
    provider = AlicloudProvider(SimpleNamespace())
    kind = {"image": "m-1", "instance_type": "ecs.c7.large"}
    sets = [{"name": "head", "bastion": True, **kind}, {"name": "node", "count": count, **kind, **node}]
    params = {
        "provider": "alicloud",
        "cluster_name": "demo",
        "network": "10.20.0.0/22",
        "machine_sets": sets,
        "cloud": {"region": "cn-hangzhou", "ssh_from": ["203.0.113.7/32"]},
    }
    desired = {item.key: item for item in provider.desired(expand_spec(params)) if item.kind == "machine"}
    return provider, desired


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["node1", "node2", "node3"], [["node1", "node2", "node3"]]),
        (["node3", "node1", "node2"], [["node1", "node2", "node3"]]),
        (["node1", "node2", "node4", "node7"], [["node1", "node2"], ["node4"], ["node7"]]),
        (["node9", "node10", "head"], [["head"], ["node9", "node10"]]),
    ],
)
def test_machines_are_made_together_where_their_addresses_follow_each_other(names, groups):
    provider, desired = machines(12)
    found = provider.launch_groups([desired[name] for name in names])
    assert sorted([item.key for item in group] for group in found) == sorted(groups)


def test_a_call_makes_a_hundred_machines_at_most():
    provider, desired = machines(230)
    assert [len(group) for group in provider.launch_groups(list(desired.values()))] == [1, 100, 100, 30]


def test_machines_with_volumes_are_made_one_by_one_for_their_user_data_differs():
    provider, desired = machines(3, volumes=[{"name": "scratch", "path": "/scratch", "size_gb": 20}])
    assert [len(group) for group in provider.launch_groups(list(desired.values()))] == [1, 1, 1, 1]


def test_a_machine_that_was_made_with_others_has_the_name_that_its_address_gives_it():
    def instance(address, batch):
        tags = [SimpleNamespace(tag_key="turnkey:batch", tag_value=batch)]
        private = SimpleNamespace(private_ip_address=SimpleNamespace(ip_address=[address]))
        return SimpleNamespace(vpc_attributes=private, tags=SimpleNamespace(tag=tags))

    def name(address, batch):
        return alicloud._machine_tags(instance(address, batch)).get("turnkey:name", "")

    assert name("10.20.2.10", "node1 10.20.2.10") == "node1"
    assert name("10.20.3.1", "node9 10.20.2.250") == "node16"
    assert name("10.20.2.10", "head 10.20.2.10") == "head"
    assert name("10.20.2.11", "head 10.20.2.10") == ""
    assert name("10.20.2.10", "") == ""


def test_a_machine_is_known_by_the_same_hash_whether_it_is_asked_for_or_found():
    provider, desired = machines(3)
    item = desired["node2"]
    assert item.spec_hash == alicloud.spec_hash(
        {"recipe": alicloud.RECIPE, **{name: value for name, value in item.attributes.items() if name != "state"}}
    )
    assert provider.launch_groups([desired["node1"], item])[0][1] is item
