# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.filter.hosts_lines import FilterModule, hosts_lines
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput

HOSTVARS = {
    "head": {"cluster_address": "10.0.0.10"},
    "node2": {"ansible_host": "10.0.0.9"},
    "node1": {"cluster_address": "10.0.0.100", "ansible_host": "192.0.2.7"},
    "io.lab.org": {"ansible_ssh_host": "10.0.0.11"},
    "named": {"ansible_host": "named.lab.org"},
    "bare": {},
    "twin": {"cluster_address": "10.0.0.10"},
    "head.lab.org": {"cluster_address": "10.0.0.12"},
    "bad_name": {"cluster_address": "10.0.0.13"},
}


def test_every_node_has_one_line_and_lines_are_sorted_by_number_not_by_text():
    assert hosts_lines(["node1", "head", "node2"], HOSTVARS, "demo.internal") == (
        "10.0.0.9 node2.demo.internal node2\n10.0.0.10 head.demo.internal head\n10.0.0.100 node1.demo.internal node1\n"
    )


def test_an_inventory_name_with_dots_keeps_its_own_domain():
    assert hosts_lines(["io.lab.org"], HOSTVARS, "demo.internal") == "10.0.0.11 io.lab.org io\n"


def test_no_nodes_give_no_lines():
    assert hosts_lines([], HOSTVARS, "demo.internal") == ""


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["named"], "address of named"),
        (["bare"], "address of bare"),
        (["unheard"], "address of unheard"),
        (["head", "twin"], "twin and head have the same address 10.0.0.10"),
        (["head", "head.lab.org"], "have the same name 'head'"),
        (["bad_name"], "'bad_name' can't be a host name"),
    ],
)
def test_what_makes_no_sound_hosts_file_is_refused(members, message):
    with pytest.raises(InvalidInput, match=message):
        hosts_lines(members, HOSTVARS, "demo.internal")


def test_all_problems_are_reported_at_once_and_as_ansible_s_error():
    with pytest.raises(AnsibleFilterError, match=r"(?s)2 problems.*named.*set cluster_address.*bare"):
        FilterModule().filters()["hosts_lines"](["named", "bare"], HOSTVARS, "demo.internal")
