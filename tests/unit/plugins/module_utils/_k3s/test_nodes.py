# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.nodes import (
    Node,
    Wish,
    parse_nodes,
    plan,
    refuse_removal,
    refuse_stop,
)

# In the shape that the API has.
SERVER = {
    "metadata": {"name": "head", "labels": {"node-role.kubernetes.io/etcd": "true", "zone": "a"}},
    "spec": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}, {"key": "old", "effect": "NoExecute"}]},
    "status": {
        "conditions": [{"type": "EtcdIsVoter", "status": "True"}, {"type": "Ready", "status": "True"}],
        "nodeInfo": {"kubeletVersion": "v1.34.2+k3s1"},
        "addresses": [{"type": "Hostname", "address": "head"}, {"type": "InternalIP", "address": "10.0.0.10"}],
    },
}
AGENT = {
    "metadata": {"name": "node1"},
    "spec": {"unschedulable": True},
    "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
}


def test_nodes_are_read_with_all_that_decides_about_them():
    nodes = parse_nodes(json.dumps({"items": [SERVER, AGENT]}))
    head = nodes["head"]
    assert (head.ready, head.voter, head.version, head.cordoned) == (True, True, "v1.34.2+k3s1", False)
    assert (head.address, nodes["node1"].address) == ("10.0.0.10", "")
    assert head.taints == {"gpu=yes:NoSchedule", "old:NoExecute"}
    node = nodes["node1"]
    assert (node.ready, node.voter, node.version, node.cordoned) == (False, None, "", True)


def test_a_server_of_which_etcd_has_said_nothing_yet_is_no_voter():
    fresh = {**SERVER, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    node = parse_nodes(json.dumps({"items": [fresh]}))["head"]
    assert node.voter is False
    assert not node.well


@pytest.mark.parametrize("text", ["", "{}", "No resources found", "[]"])
def test_what_is_no_list_of_nodes_is_an_error_and_not_an_empty_cluster(text):
    with pytest.raises(HpcError, match="no list of nodes"):
        parse_nodes(text)


def servers(states: str) -> list[Node]:
    """Make servers of letters: u up, l a learner, d down; and two agents, one of them down, which never count."""
    made = [Node(f"s{n}", ready=state != "d", voter=state != "l") for n, state in enumerate(states, start=1)]
    return [*made, Node("a1", ready=True), Node("a2", ready=False)]


@pytest.mark.parametrize(
    ("states", "may_stop", "may_leave"),
    [
        ("u", True, False),  # nobody else depends on it; but without it there is no cluster
        ("uu", True, True),  # two can't spare one; they never could
        ("ud", True, False),
        ("uuu", True, True),
        ("udu", False, False),
        ("ulu", False, False),
        ("duu", True, True),  # it is down itself
        ("udd", False, False),
        ("uuuuu", True, True),
        ("uduuu", True, True),
        ("uduud", False, False),
        ("udlud", False, False),
    ],
)
def test_a_server_stops_or_leaves_only_if_most_voters_stay(states, may_stop, may_leave):
    stop, leave = refuse_stop("s1", servers(states)), refuse_removal("s1", servers(states))
    assert (stop == "", leave == "") == (may_stop, may_leave), (stop, leave)
    for problem in filter(None, (stop, leave)):
        assert "Remedy:" in problem


def test_the_refusal_names_who_is_not_well():
    assert "Not well: s3." in refuse_stop("s1", servers("uud"))


@pytest.mark.parametrize("name", ["a1", "a2", "elsewhere"])
def test_agents_and_strangers_stop_and_leave_as_they_like(name):
    assert refuse_stop(name, servers("udd")) == refuse_removal(name, servers("udd")) == ""


def test_a_server_without_etcd_may_always_restart():
    assert refuse_stop("s1", [Node("s1", ready=True), Node("a1", ready=False)]) == ""


NODE = Node("n", ready=True, labels={"a": "1", "b": "2"}, taints=frozenset({"k=v:NoSchedule"}))


@pytest.mark.parametrize(
    ("wish", "calls"),
    [
        (Wish(), []),
        (Wish({"a": "1"}, ["k=v:NoSchedule"]), []),
        (Wish({"a": "2", "c": "3"}), [["label", "node", "n", "--overwrite", "a=2", "c=3"]]),
        (Wish({"b": None, "gone": None}), [["label", "node", "n", "--overwrite", "b-"]]),
        (Wish({}, ["k=w:NoSchedule"]), [["taint", "node", "n", "--overwrite", "k=w:NoSchedule"]]),
        (Wish({}, ["k=v:NoSchedule-", "x:NoExecute-"]), [["taint", "node", "n", "--overwrite", "k=v:NoSchedule-"]]),
        (Wish(cordoned=False), []),
        (Wish(cordoned=True), [["cordon", "n"]]),
    ],
)
def test_kubectl_is_told_just_what_differs(wish, calls):
    assert plan(NODE, wish) == calls


def test_all_taints_that_are_none_are_named_at_once():
    with pytest.raises(InvalidInput) as caught:
        plan(NODE, Wish({}, ["gpu", "k=v:Never", "k=v:NoSchedule"]))
    assert "'gpu'" in str(caught.value)
    assert "'k=v:Never'" in str(caught.value)
