# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.changes import compare, parse

NODES = "NodeName=n[1-2] CPUs=4 RealMemory=100\nNodeName=n[3-16] CPUs=4 RealMemory=100 State=FUTURE"
JOINED = "NodeName=n[1-3] CPUs=4 RealMemory=100\nNodeName=n[4-16] CPUs=4 RealMemory=100 State=FUTURE"
DRAINED = NODES.replace("RealMemory=100\n", "RealMemory=100 State=DRAIN\n")
MAIN = "PartitionName=main Nodes=n[1-2] Default=yes"


def conf(keys="MessageTimeout=10", nodes=NODES, partitions=MAIN):
    return {"slurm.conf": f"# comment\nClusterName=lab\n{keys}\n{nodes}\n{partitions}\n"}


def step(new, release, old=None):
    return compare(old or conf(), new, release).step


@pytest.mark.parametrize(
    ("new", "old_release", "new_release"),
    [
        (conf(), "none", "none"),
        (conf(keys="MessageTimeout=20"), "reconfigure", "reconfigure"),
        (conf(keys="SelectType=select/linear"), "restart", "reconfigure"),
        (conf(keys="SlurmctldPort=7000"), "restart", "restart"),
        ({**conf(), "cgroup.conf": "ConstrainCores=yes\n"}, "reconfigure", "reconfigure"),
        ({**conf(), "gres.conf": "Name=gpu\n"}, "restart", "reconfigure"),
        (conf(nodes=JOINED), "update", "update"),
        (conf(partitions="PartitionName=main Nodes=n1 Default=yes"), "update", "update"),
        (conf(partitions="PartitionName=main Nodes=n[1-2]"), "reconfigure", "reconfigure"),
        (conf(partitions=MAIN + "\nPartitionName=b Nodes=n1"), "reconfigure", "reconfigure"),
        (conf(partitions="PartitionName=b Nodes=n1"), "reconfigure", "reconfigure"),
        (conf(nodes=NODES.replace("RealMemory=100", "RealMemory=200")), "reconfigure", "reconfigure"),
        (conf(nodes=NODES.replace("CPUs=4", "CPUs=8")), "restart", "reconfigure"),
        (conf(nodes=NODES + "\nNodeName=x CPUs=4"), "restart", "reconfigure"),
        (conf(nodes=NODES.splitlines()[0]), "restart", "reconfigure"),
        (conf(nodes=DRAINED), "reconfigure", "reconfigure"),
    ],
)
def test_each_change_gets_the_least_that_does_in_its_release(new, old_release, new_release) -> None:
    assert step(new, "22.05") == old_release
    assert step(new, "24.11") == new_release


def test_before_24_11_other_names_need_a_restart_even_where_the_daemon_hands_over() -> None:
    assert step(conf(nodes=NODES + "\nNodeName=x CPUs=4"), "23.11") == "restart"


def test_a_node_that_joins_costs_one_command_a_partition() -> None:
    change = compare(conf(), conf(nodes=JOINED, partitions="PartitionName=main Nodes=n[1-3] Default=yes"), "22.05")
    assert change.step == "update"
    assert change.commands == [["scontrol", "update", "PartitionName=main", "Nodes=n[1-3]"]]
    assert change.leaving == []
    assert change.reasons == ["the nodes of partition main", "n3 joins"]


@pytest.mark.parametrize("release", ["22.05", "24.11"])
def test_a_node_that_leaves_is_taken_from_its_partitions_first(release) -> None:
    change = compare(conf(nodes=JOINED, partitions="PartitionName=main Nodes=n[1-3] Default=yes"), conf(), release)
    assert change.step == "update"
    assert change.leaving == ["n3"]
    assert change.commands == [
        ["scontrol", "update", "PartitionName=main", "Nodes=n[1-2]"],
        ["scontrol", "update", "NodeName=n3", "State=FUTURE"],
    ]


def test_after_a_reconfiguration_the_leaving_node_still_has_to_be_hidden() -> None:
    change = compare(conf(nodes=JOINED), conf(keys="MessageTimeout=20"), "22.05")
    assert change.step == "reconfigure"
    assert change.commands == [["scontrol", "update", "NodeName=n3", "State=FUTURE"]]


def test_after_a_restart_nothing_is_left_to_do() -> None:
    change = compare(conf(nodes=JOINED), conf(keys="SlurmctldPort=7000"), "22.05")
    assert (change.step, change.commands) == ("restart", [])


def test_a_name_that_vanishes_leaves_unless_it_was_free() -> None:
    change = compare(conf(), conf(nodes="NodeName=n1 CPUs=4 RealMemory=100"), "24.11")
    assert change.leaving == ["n2"]


def test_a_joining_node_of_other_hardware_is_more_than_an_update() -> None:
    other = JOINED.replace("n[1-3]", "n[1-2]") + "\nNodeName=n3 CPUs=8 RealMemory=100"
    assert step(conf(nodes=other), "22.05") == "restart"
    assert step(conf(nodes=other), "24.11") == "reconfigure"


def test_what_was_written_is_read_back() -> None:
    found = parse('# x\nSlurmctldHost=a\nSlurmctldHost=b\nNodeName=n[1-2] Reason="a b"\nPartitionName=p Nodes=n1\n')
    assert found.keys == {"slurmctldhost": ("SlurmctldHost=a", "SlurmctldHost=b")}
    assert found.nodes == {"n1": {"Reason": "a b"}, "n2": {"Reason": "a b"}}
    assert found.partitions == {"p": {"Nodes": "n1"}}
