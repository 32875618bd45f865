# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.config import (
    Layers,
    fingerprint,
    key_value_text,
    render,
)

SMALL = {"cpus": 4, "sockets": 1, "cores_per_socket": 4, "threads_per_core": 1, "memory_mb": 8000}
CONTROLLERS = [{"name": "head", "address": "10.0.0.1"}, {"name": "second"}]
MAIN = [{"name": "main", "default": True}]


def files(layers=None, nodes=("n1", "n2"), kinds=(), partitions=None, release="22.05", **more):
    hardware, partitions = dict.fromkeys(nodes, SMALL), MAIN if partitions is None else partitions
    return render("lab", CONTROLLERS, nodes, kinds, partitions, layers or Layers(), release, hardware, **more).files


def keys_of(layers, release="22.05"):
    rows = files(layers, release=release)["slurm.conf"].splitlines()
    return [
        row for row in rows if not row.startswith(("#", "NodeName", "PartitionName", "ClusterName", "SlurmctldHost"))
    ]


def refused(layers=None, **more):
    with pytest.raises(InvalidInput) as caught:
        files(layers, **more)
    return str(caught.value)


def test_the_whole_file_is_in_the_order_that_slurm_needs() -> None:
    layers = Layers(
        {"slurm.conf": {"SelectType": "select/cons_tres"}},
        {"slurm.conf": {"AuthType": "auth/munge"}},
        {
            "slurm.conf": {
                "NodeSet": [{"NodeSet": "small", "Feature": "s"}],
                "DownNodes": [{"DownNodes": "n2", "Reason": "no fan"}],
            }
        },
    )
    parts = [*MAIN, {"name": "s", "nodes": "small,n1", "max_time": "1:00:00"}]
    assert files(layers, partitions=parts, reserve=4)["slurm.conf"].splitlines() == [
        "# Made by turnkey.hpc; changes by hand are overwritten.",
        "ClusterName=lab",
        "SlurmctldHost=head(10.0.0.1)",
        "SlurmctldHost=second",
        "AuthType=auth/munge",
        "SelectType=select/cons_tres",
        "NodeName=n[1-2] CPUs=4 Sockets=1 CoresPerSocket=4 ThreadsPerCore=1 RealMemory=7600",
        "NodeName=n[3-4] CPUs=4 Sockets=1 CoresPerSocket=4 ThreadsPerCore=1 RealMemory=7600 State=FUTURE",
        'DownNodes=n2 Reason="no fan"',
        "NodeSet=small Feature=s",
        "PartitionName=main Nodes=n[1-2] Default=yes",
        "PartitionName=s Nodes=n1,small MaxTime=1:00:00",
    ]


@pytest.mark.parametrize(
    ("user", "rows"),
    [
        ({}, ["AuthType=auth/munge", "MessageTimeout=10", "SlurmctldParameters=enable_configless"]),
        ({"MessageTimeout": 60}, ["AuthType=auth/munge", "MessageTimeout=60", "SlurmctldParameters=enable_configless"]),
        ({"messagetimeout": None}, ["AuthType=auth/munge", "SlurmctldParameters=enable_configless"]),
        (
            {"MessageTimeout": None, "slurmctld_parameters": "a,enable_configless"},
            ["AuthType=auth/munge", "SlurmctldParameters=enable_configless,a"],
        ),
        (
            {"MessageTimeout": None, "PrivateData": ["jobs", "usage"], "UsePAM": False},
            ["AuthType=auth/munge", "PrivateData=jobs,usage", "SlurmctldParameters=enable_configless", "UsePAM=no"],
        ),
    ],
)
def test_the_user_changes_removes_and_adds_to_what_the_role_chose(user, rows) -> None:
    layers = Layers(
        {"slurm.conf": {"MessageTimeout": 10}},
        {"slurm.conf": {"AuthType": "auth/munge", "SlurmctldParameters": ["enable_configless"]}},
        {"slurm.conf": user},
    )
    assert keys_of(layers) == rows


@pytest.mark.parametrize(
    ("user", "kinds", "rows"),
    [
        ({}, [], ["DefMemPerCPU=1900"]),
        (
            {},
            [{"name": "lean", "nodes": "n2", "Boards": 1, "SocketsPerBoard": 2, "memory_mb": 1000}],
            ["DefMemPerCPU=500"],
        ),
        ({}, [{"name": "fat", "nodes": "n2", "cpus": 2, "memory_mb": 90000}], ["DefMemPerCPU=1900"]),
        ({}, [{"name": "all", "cpus": 2}], ["DefMemPerCPU=3800"]),
        ({}, [{"name": "all", "sockets": 2, "cores_per_socket": 2, "threads_per_core": 2}], ["DefMemPerCPU=950"]),
        ({"DefMemPerCPU": 100}, [], ["DefMemPerCPU=100"]),
        ({"def_mem_per_node": 700}, [], ["DefMemPerNode=700"]),
        ({"DefMemPerCPU": None}, [], []),
        ({"SelectTypeParameters": "CR_Core"}, [], []),
    ],
)
def test_a_job_that_asks_for_no_memory_gets_what_belongs_to_its_cpus(user, kinds, rows) -> None:
    layers = Layers({"slurm.conf": {"SelectTypeParameters": "CR_Core_Memory"}}, {}, {"slurm.conf": user})
    text = files(layers, kinds=kinds)["slurm.conf"]
    assert [row for row in text.splitlines() if row.startswith("DefMem")] == rows


def test_prologs_are_lines_or_a_list_as_the_release_wants_them() -> None:
    layers = Layers(options={"slurm.conf": {"Prolog": ["/a", "/b"]}})
    assert keys_of(layers, "22.05") == ["Prolog=/a,/b"]
    assert keys_of(layers, "24.11") == ["Prolog=/a", "Prolog=/b"]


def test_a_choice_of_the_role_for_another_release_is_left_out() -> None:
    layers = Layers(defaults={"cgroup.conf": {"CgroupAutomount": True, "ConstrainCores": True}})
    assert "CgroupAutomount=yes" in files(layers, release="22.05")["cgroup.conf"]
    assert "CgroupAutomount" not in files(layers, release="24.11")["cgroup.conf"]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    layers = Layers(
        owned={"slurm.conf": {"AuthType": "auth/munge"}},
        options={
            "slurm.conf": {"AuthType": "auth/none", "SelektType": 1, "ClusterName": "x", "PartitionName": []},
            "slurmctl.conf": {},
            "gres.conf": [{"Fil": "/dev/x"}],
            "cgroup.conf": {"ConstrainCores": "a\nb"},
        },
    )
    text = refused(
        layers,
        kinds=[{"name": "a", "cpu": 1, "nodes": "n1"}],
        partitions=[{"name": "p", "kinds": ["aa"], "nodes": "zz"}, {"defualt": True}],
    )
    for words in (
        "`AuthType` of slurm.conf belongs to the role",
        "did you mean `SelectType`?",
        "`ClusterName` of slurm.conf is made from cluster_name",
        "`PartitionName` of slurm.conf is made from slurm_partitions",
        "`slurmctl.conf` is no file of Slurm",
        "of gres.conf has no NodeName or Name or AutoDetect",
        "`ConstrainCores` of cgroup.conf",
        "`cpu` is no key of NodeName",
        "names the kind `aa`",
        "has zz, which no kind and no inventory has",
        "Partition 2 of slurm_partitions has no name",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"partitions": []}, "slurm_partitions is empty"),
        ({"partitions": [{"name": "a"}, {"name": "a"}]}, "is there twice"),
        ({"layers": Layers(options={"slurm.conf": {"maxjobcount": 1, "MaxJobCount": 2}})}, "are the same key"),
        ({"layers": Layers(options={"slurmdbd.conf": {"DbdHost": "x"}})}, "the database's host has it"),
        ({"layers": Layers(options={"topology.conf": [{"BlockName": "b", "Nodes": "n1"}]})}, "from 23.11 on"),
        ({"layers": Layers(options={"gres.conf": ["Name=gpu"]})}, "write it as a dict"),
    ],
)
def test_what_is_wrong_is_named(more, words) -> None:
    assert words in refused(**more)


def test_partitions_have_all_nodes_or_those_of_their_kinds() -> None:
    kinds = [
        {"name": "cloud", "nodes": "c[1-3]", "cpus": 2, "memory_mb": 100, "state": "CLOUD"},
        {"name": "gpu", "nodes": "n2"},
    ]
    parts = [{"name": "all"}, {"name": "cg", "kinds": ["cloud", "gpu"]}, {"name": "any", "nodes": "ALL"}]
    text = files(kinds=kinds, partitions=parts)["slurm.conf"]
    assert [row for row in text.splitlines() if row.startswith("PartitionName")] == [
        "PartitionName=all Nodes=c[1-3],n[1-2]",
        "PartitionName=cg Nodes=c[1-3],n2",
        "PartitionName=any Nodes=ALL",
    ]


def test_files_of_lines_are_written_line_by_line() -> None:
    options = {
        "gres.conf": [{"AutoDetect": "off"}, {"File": "/dev/nvidia[0-3]", "name": "gpu", "NodeName": "n[1-2]"}],
        "topology.conf": [{"SwitchName": "s1", "Nodes": "n[1-2]"}],
    }
    found = files(Layers(options=options))
    assert found["gres.conf"].splitlines()[1:] == ["AutoDetect=off", "NodeName=n[1-2] File=/dev/nvidia[0-3] Name=gpu"]
    assert found["topology.conf"].splitlines()[1:] == ["SwitchName=s1 Nodes=n[1-2]"]


def test_a_file_without_content_is_not_written() -> None:
    assert set(files(Layers(options={"gres.conf": [], "cgroup.conf": {}}))) == {"slurm.conf"}
    assert key_value_text("slurmdbd.conf", Layers(), "22.05", []) == ""


def test_the_fingerprint_differs_only_for_what_needs_a_restart_of_slurmd() -> None:
    def of(release="22.05", **slurm_conf):
        return fingerprint(Layers(options={"slurm.conf": slurm_conf}), release)

    assert of(TaskPlugin="task/cgroup") != of(TaskPlugin="task/affinity")
    assert of(MessageTimeout=1) == of(MessageTimeout=2) == of()
    assert of("24.11", TaskPlugin="task/cgroup") == of("24.11", TaskPlugin="task/affinity")
    assert of("24.11", SlurmdPort=1) != of("24.11", SlurmdPort=2)
    gres = Layers(options={"gres.conf": [{"Name": "gpu", "Count": 1}]})
    assert fingerprint(gres, "22.05") != fingerprint(Layers(), "22.05")
    assert fingerprint(gres, "24.11") == fingerprint(Layers(), "24.11")


def test_fixed_nodes_are_never_suspended_and_the_user_may_add_to_them() -> None:
    burst = {"name": "burst", "nodes": "b1", "cpus": 1, "memory_mb": 500, "provider": "docker"}
    user = Layers(options={"slurm.conf": {"SuspendExcNodes": "b1"}})
    assert "SuspendExcNodes=n[1-16]" in files(kinds=[burst])["slurm.conf"].splitlines()
    assert "SuspendExcNodes=b1,n[1-16]" in files(user, kinds=[burst])["slurm.conf"].splitlines()
    assert "SuspendExcNodes" not in files()["slurm.conf"]
