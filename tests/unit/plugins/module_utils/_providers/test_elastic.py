# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import ipaddress

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import Capacity, NotReady
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.elastic import (
    answer_each,
    placed_nodes,
    refusals,
)

KIND = {"name": "burst", "nodes": "b[9-11]", "first_address": "10.0.0.254"}


def placed(*kinds, network=None):
    problems = []
    found = {name: address for _kind, name, address in placed_nodes(kinds, problems, network)}
    return found, problems


def test_addresses_follow_the_order_of_the_names():
    assert placed(KIND) == ({"b9": "10.0.0.254", "b10": "10.0.0.255", "b11": "10.0.1.0"}, [])


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ([{**KIND, "nodes": "b[1-"}], "kind 'burst'"),
        ([{**KIND, "first_address": ""}], "kind 'burst'"),
        ([KIND, {**KIND, "name": "c", "nodes": "c1"}], "c1 would have the address 10.0.0.254 of b9"),
        ([KIND, {**KIND, "name": "c", "nodes": "b9"}], "b9 is a node of kind 'burst', too"),
        ([KIND], "b11 would have the address 10.0.1.0, which is not in 10.0.0.0/24"),
    ],
)
def test_what_is_wrong_with_nodes_is_told(kinds, said):
    _found, problems = placed(*kinds, network=ipaddress.IPv4Network("10.0.0.0/24"))
    assert any(said in problem for problem in problems), problems


def test_each_node_has_its_answer_and_each_failure_its_code():
    def act(name):
        if name == "b2":
            raise Capacity("no room")
        if name == "b3":
            raise NotReady("no login after 5 s")
        if name == "b4":
            raise HpcError("it is broken")
        return {"address": "10.0.0.1"}

    found = {answer.pop("node"): answer for answer in answer_each(["b1", "b2", "b3", "b4"], act)}
    assert found["b1"] == {"address": "10.0.0.1"}
    assert {name: answer.get("code") for name, answer in found.items() if name != "b1"} == {
        "b2": "Capacity",
        "b3": "BootTimeout",
        "b4": "Failed",
    }


def test_a_stranger_is_refused_once():
    assert [answer["code"] for answer in refusals(["x", "x"])] == ["Invalid"]
