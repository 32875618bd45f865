# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.nodes import (
    fold_records,
    memory_of,
    plan_nodes,
    unfold_records,
)

SMALL = {"cpus": 4, "sockets": 1, "cores_per_socket": 2, "threads_per_core": 2, "memory_mb": 8000}
LARGE = {"cpus": 64, "sockets": 2, "cores_per_socket": 32, "threads_per_core": 1, "memory_mb": 515630}
ODD = {"cpus": 20, "memory_mb": 32000}
SMALL_TEXT = "CPUs=4 Sockets=1 CoresPerSocket=2 ThreadsPerCore=2 RealMemory=7600"


def lines(fixed, kinds=(), hardware=None, **more):
    problems: list[str] = []
    nodes = plan_nodes(fixed, kinds, hardware or {}, more.pop("release", "22.05"), problems, **more)
    assert problems == []
    return nodes.lines


def problems_of(fixed, kinds, release="22.05"):
    problems: list[str] = []
    plan_nodes(fixed, kinds, {}, release, problems)
    return problems


@pytest.mark.parametrize(
    ("reported", "factor", "promised"),
    [(24103, 0.95, 22800), (515630, 0.95, 489000), (950, 1.0, 950), (1999, 0.5, 999), (7, 0.5, 3)],
)
def test_memory_is_a_part_of_what_is_reported_in_three_digits(reported, factor, promised) -> None:
    assert memory_of(reported, factor) == promised


def test_machines_that_differ_by_a_few_megabytes_share_a_line() -> None:
    hardware = {"a1": LARGE, "a2": {**LARGE, "memory_mb": LARGE["memory_mb"] - 12}}
    assert len(lines(["a1", "a2"], hardware=hardware, reserve=0)) == 1


def test_equal_nodes_are_folded_and_the_others_have_lines_of_their_own() -> None:
    hardware = {f"node{number}": SMALL for number in range(1, 201)} | {"gpu1": LARGE, "odd": ODD}
    assert lines(list(hardware), hardware=hardware, reserve=0) == [
        "NodeName=gpu1 CPUs=64 Sockets=2 CoresPerSocket=32 ThreadsPerCore=1 RealMemory=489000",
        f"NodeName=node[1-200] {SMALL_TEXT}",
        "NodeName=odd CPUs=20 RealMemory=30400",
    ]


@pytest.mark.parametrize(
    ("names", "reserve", "free"),
    [
        (["n1", "n2", "n3"], 16, "n[4-16]"),
        (["n1", "n3"], 4, "n[2,4]"),
        (["n16"], 16, "n[1-15]"),
        (["n17"], 16, "n[18-32]"),
        (["n08", "n09"], 16, "n[01-07,10-16]"),
        (["n98", "n99"], 16, "n[97,100-112]"),
        (["n0"], 4, ""),
        (["n1"], 0, ""),
        (["alice", "bob"], 16, ""),
        (["r1n1", "r2n1"], 2, "r1n2,r2n2"),
        ([f"r{rack}n1" for rack in range(20)], 16, ""),
    ],
)
def test_names_are_kept_free_in_the_blocks_that_the_nodes_lie_in(names, reserve, free) -> None:
    found = lines(names, hardware=dict.fromkeys(names, SMALL), reserve=reserve)
    future = [line for line in found if line.endswith("State=FUTURE")]
    assert future == ([f"NodeName={free} {SMALL_TEXT} State=FUTURE"] if free else [])


def test_a_node_that_joins_or_leaves_does_not_change_the_set_of_names() -> None:
    from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.changes import parse

    def names(fixed):
        return set(parse("\n".join(lines(fixed, hardware=dict.fromkeys(fixed, SMALL)))).nodes)

    everybody = [f"n{number}" for number in range(1, 17)]
    assert {frozenset(names(everybody[:count])) for count in range(1, 17)} == {frozenset(everybody)}


def test_kinds_declare_what_is_not_measured_then() -> None:
    kinds = [
        {"name": "gpu", "nodes": "g[1-4]", "gres": "gpu:4", "features": ["a100", "ib"], "weight": 10},
        {"name": "fat", "nodes": ["f1"], "memory_mb": 1000000, "sockets": 2, "cores_per_socket": 8},
        {"name": "cloud", "nodes": "c[1-9]", "cpus": 8, "RealMemory": 16000, "state": "cloud"},
    ]
    assert lines(["g1", "f1", "n1"], kinds, {"g1": LARGE, "n1": SMALL}, reserve=2) == [
        "NodeName=c[1-9] CPUs=8 RealMemory=16000 State=CLOUD",
        "NodeName=f1 Sockets=2 CoresPerSocket=8 RealMemory=1000000",
        "NodeName=g1 CPUs=64 Sockets=2 CoresPerSocket=32 ThreadsPerCore=1 RealMemory=489000 Gres=gpu:4 "
        "Features=a100,ib Weight=10",
        f"NodeName=n1 {SMALL_TEXT}",
        "NodeName=g[2-4] CPUs=64 Sockets=2 CoresPerSocket=32 ThreadsPerCore=1 RealMemory=489000 Gres=gpu:4 "
        "Features=a100,ib Weight=10 State=FUTURE",
        f"NodeName=n2 {SMALL_TEXT} State=FUTURE",
    ]


def test_only_nodes_without_record_and_declaration_are_to_be_measured() -> None:
    kinds = [{"name": "declared", "nodes": "d[1-2]", "cpus": 2, "memory_mb": 100}]
    nodes = plan_nodes(["d1", "n1", "n2"], kinds, {"n1": SMALL}, "22.05", [])
    assert nodes.missing == ["n2"]


def test_a_node_that_does_not_answer_is_left_out_this_time() -> None:
    nodes = plan_nodes(["n1", "n2"], [], {"n1": SMALL}, "22.05", [], unmeasured=["n2"])
    assert nodes.missing == []
    assert nodes.names == ["n1"]


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ([{"nodes": "n1"}], "Kind 1 of slurm_node_kinds has no name"),
        ([{"name": "a", "nodes": "n[1"}], "a '[' without a ']'"),
        ([{"name": "a", "cpu": 2}], "did you mean `CPUs`?"),
        ([{"name": "a", "restricted_cores_per_gpu": 2}], "from 24.05 on"),
        ([{"name": "a", "nodes": "n1"}, {"name": "a", "nodes": "n2"}], "two kinds called `a`"),
        ([{"name": "a", "nodes": "n1"}, {"name": "b", "nodes": "n[1-2]"}], "Node n1 is in the kinds a and b"),
        ([{"name": "a"}, {"name": "b"}], "only one may take the rest"),
        ([{"name": "a", "nodes": "c1", "state": "CLOUD"}], "c1 of the kind `a` can't be measured"),
        ([{"name": "a", "nodes": "n1", "state": "IDLE"}], "has the state IDLE"),
        ([{"name": "a", "gres": ""}], "is empty"),
        ([{"name": "a", "gres": {"gpu": 1}}], "which is no text"),
    ],
)
def test_what_is_wrong_with_kinds_is_named(kinds, words) -> None:
    assert any(words in problem for problem in problems_of(["n1"], kinds))


def test_records_of_equal_nodes_are_stored_together() -> None:
    hardware = {f"n{number}": SMALL for number in range(1, 101)} | {"x": ODD}
    folded = fold_records(hardware)
    assert [record["nodes"] for record in folded] == ["n[1-100]", "x"]
    assert unfold_records(folded) == hardware


BURST = {
    "name": "burst",
    "nodes": "b[1-4]",
    "cpus": 2,
    "memory_mb": 900,
    "provider": "docker",
    "machine": {"image": "i"},
}


def test_a_kind_with_a_provider_is_of_cloud_nodes_and_names_its_machine_nowhere() -> None:
    assert lines(["n1"], [BURST], {"n1": SMALL}, reserve=0) == [
        "NodeName=b[1-4] CPUs=2 RealMemory=900 State=CLOUD",
        f"NodeName=n1 {SMALL_TEXT}",
    ]


def test_power_saving_leaves_alone_what_is_fixed_and_the_names_kept_free() -> None:
    assert plan_nodes(["n1"], [BURST], {"n1": SMALL}, "22.05", [], reserve=3).fixed == ["n1", "n2", "n3"]
    assert plan_nodes(["n1"], [], {"n1": SMALL}, "22.05", [], reserve=3).fixed == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cpus": None}, "can't be measured"),
        ({"memory_mb": None}, "can't be measured"),
        ({"nodes": None}, "no `nodes`"),
        ({"state": "FUTURE"}, "remove the state"),
        ({"provider": None}, "no `provider`"),
    ],
)
def test_what_an_elastic_kind_lacks_is_told(change, said) -> None:
    assert any(said in problem for problem in problems_of([], [{**BURST, **change}]))
