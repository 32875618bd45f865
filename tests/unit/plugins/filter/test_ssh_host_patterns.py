# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import fnmatch
import ipaddress

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.filter.ssh_host_patterns import FilterModule

ssh_host_patterns = FilterModule().filters()["ssh_host_patterns"]


@pytest.mark.parametrize(
    ("members", "domain", "network", "expected"),
    [
        (["head", "node1", "node2"], "", "", ["head", "node?", "node??", "node???", "node????"]),
        ([f"node{n}" for n in range(1, 901)], "", "", ["node?", "node??", "node???", "node????"]),
        (["n00001"], "", "", ["n?", "n??", "n???", "n????", "n?????"]),
        (["head"], "demo.internal", "", ["head", "head.demo.internal"]),
        (["rack1-n12"], "", "", ["rack?-n?", "rack?-n??", "rack?-n???", "rack?-n????"]),
        (["n1.lab"], "", "", ["n?.lab", "n??.lab", "n???.lab", "n????.lab"]),
        (["12"], "", "", ["??"]),
        (["Head"], "Demo.Internal", "", ["head", "head.demo.internal"]),
        ([], "demo.internal", "10.213.77.0/24", ["10.213.77.*"]),
        ([], "", "10.213.76.0/22", ["10.213.76.*", "10.213.77.*", "10.213.78.*", "10.213.79.*"]),
        ([], "", "10.213.0.0/16", ["10.213.*"]),
        ([], "", "10.0.0.0/8", ["10.*"]),
        ([], "", "10.1.2.3/32", ["10.1.2.3"]),
        ([], "", "10.213.77.9/24", ["10.213.77.*"]),
    ],
)
def test_names_and_networks_are_folded(members, domain, network, expected) -> None:
    assert ssh_host_patterns(members, domain, network) == expected


def test_a_numbered_cluster_that_grows_keeps_its_patterns() -> None:
    small = ssh_host_patterns(["head", "node1"], "demo.internal", "10.0.0.0/16")
    large = ssh_host_patterns(["head", *(f"node{n}" for n in range(1, 2000))], "demo.internal", "10.0.0.0/16")
    assert small == large


@pytest.mark.parametrize("network", ["10.1.2.128/25", "10.1.2.0/25", "10.1.2.64/27", "10.1.2.248/30", "10.1.2.96/29"])
def test_patterns_match_the_addresses_of_the_network_and_no_other(network) -> None:
    patterns = ssh_host_patterns([], "", network)
    addresses = {f"10.1.2.{n}" for n in range(256)}
    matched = {address for address in addresses if any(fnmatch.fnmatch(address, item) for item in patterns)}
    assert matched == {str(address) for address in ipaddress.ip_network(network)}
    assert len(patterns) <= 24


def test_a_large_odd_network_needs_few_patterns() -> None:
    patterns = ssh_host_patterns([], "", "10.1.128.0/17")
    assert len(patterns) < 20
    assert any(fnmatch.fnmatch("10.1.200.7", item) for item in patterns)
    assert not any(fnmatch.fnmatch("10.1.127.7", item) for item in patterns)


@pytest.mark.parametrize(
    ("members", "domain", "network", "message"),
    [
        (["node 1", "a,b"], "", "", "'node 1' is not a host name"),
        (["*"], "", "", "is not a host name"),
        ("node1", "", "", "needs a list of names"),
        (["node1"], "bad domain", "", "'bad domain' is not a domain"),
        (["node1"], "", "10.1.2.0/40", "'10.1.2.0/40' is not a network"),
        (["node1"], "", "0.0.0.0/0", "is not an IPv4 network"),
        (["node1"], "", "fd00::/64", "is not an IPv4 network"),
    ],
)
def test_what_could_match_anything_is_refused(members, domain, network, message) -> None:
    with pytest.raises(AnsibleFilterError, match=message.replace("*", r"\*")):
        ssh_host_patterns(members, domain, network)
