# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import expand_spec

CLOUD = {"region": "eu-central-1", "ssh_from": ["203.0.113.7/32"]}
HEAD = {"name": "head", "image": "i-*", "instance_type": "t3.small", "bastion": True}
NODE = {"name": "node", "image": "i-*", "instance_type": "t3.small", "count": 3}


def params(cloud=None, head=None, node=None, **changes):
    given = {
        "provider": "aws",
        "cluster_name": "lab",
        "network": "10.20.0.0/24",
        "cloud": {**CLOUD, **(cloud or {})},
        "machine_sets": [{**HEAD, **(head or {})}, {**NODE, **(node or {})}],
    }
    return {**given, **changes}


def test_the_bastion_is_in_the_lower_half_of_the_network_and_all_others_in_the_upper():
    spec = expand_spec(params())
    assert (spec.cloud.public_subnet, spec.cloud.private_subnet) == ("10.20.0.0/25", "10.20.0.128/25")
    assert {machine.name: (machine.address, machine.subnet) for machine in spec.machines} == {
        "head": ("10.20.0.10", "public"),
        "node1": ("10.20.0.138", "private"),
        "node2": ("10.20.0.139", "private"),
        "node3": ("10.20.0.140", "private"),
    }


def test_host_numbers_count_within_the_subnet():
    spec = expand_spec(params(node={"first_host": 20}))
    assert spec.machines[1].address == "10.20.0.148"


def test_machines_stay_in_the_order_of_their_sets():
    given = params()
    given["machine_sets"].reverse()
    assert [machine.name for machine in expand_spec(given).machines] == ["node1", "node2", "node3", "head"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cloud": {"region": "Frankfurt"}}, "cluster_cloud.region 'Frankfurt'"),
        ({"cloud": {"zone": "us-east-1a"}}, "zone 'us-east-1a' is not in region 'eu-central-1'"),
        ({"cloud": {"ssh_from": []}}, "ssh_from is empty"),
        ({"cloud": {"ssh_from": ["me"]}}, "ssh_from: 'me' is not an IPv4 network"),
        ({"cloud": {"egress": "proxy"}}, "proxy_url '' is not a URL"),
        ({"cloud": {"egress": "proxy", "proxy_url": "http://u:p@x"}}, "has a password in it"),
        ({"cloud": {"proxy_url": "http://x:3128"}}, "is for egress: proxy"),
        ({"cloud": {"login_user": "a b"}}, "login_user 'a b'"),
        ({"network": "10.0.0.0/8"}, "can't be a cloud's: give one of /16 to /26"),
        ({"network": "10.0.0.0/28"}, "can't be a cloud's"),
        ({"head": {"instance_type": None}}, "'head': instance_type is missing"),
        ({"head": {"cpus": 2}}, "'head': cpus is for Docker"),
        ({"head": {"placement": "near"}}, "placement 'near' is unknown"),
        ({"head": {"volumes": [{"name": "v", "path": "/v"}]}}, "volume 'v': size_gb is missing"),
        (
            {"head": {"volumes": [{"name": f"v{n}", "path": f"/v{n}", "size_gb": 1} for n in range(12)]}},
            "12 volumes are too many: give at most 11",
        ),
        ({"node": {"first_host": 3}}, "the first 4 addresses of 10.20.0.128/25 are kept"),
        ({"node": {"first_host": 10, "count": 115}}, "too small for set 'node'"),
    ],
)
def test_what_does_not_fit_a_cloud_is_refused_with_the_value(changes, message):
    with pytest.raises(InvalidInput, match=message):
        expand_spec(params(**changes))


def test_options_of_clouds_are_refused_for_containers():
    with pytest.raises(InvalidInput, match=r"'head': instance_type is for clouds"):
        expand_spec(params(provider="docker"))
