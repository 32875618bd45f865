# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a power host does with virtual machines, on libvirt's own driver for tests."""

from __future__ import annotations

import pytest

pytest.importorskip("libvirt", reason="libvirt-python is installed by `tools/setup vm` only")
pytest.importorskip("pycdlib", reason="pycdlib is installed by `tools/setup vm` only")

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._providers import libvirt_elastic as elastic
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import Capacity
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.plan import plan
from ansible_collections.turnkey.hpc.tests.unit.plugins.module_utils._providers import libvirt_bench as bench

HOSTILE = [
    "head",
    "../head",
    "e1;reboot",
    "e1 head",
    "e1\nhead",
    "$(reboot)",
    "<name>head</name>",
    "e1'/><x a='",
    "e9",
    "E1",
    "",
    "e1\x00",
    "-e1",
    "e[1-2]",
    "turnkey-lab",
    "*",
]


def settings(path, **changes):
    kind = {
        "name": "burst",
        "nodes": "e[1-3]",
        "first_address": "10.97.11.101",
        "image": path,
        "instance_type": "small",
    }
    return {
        "cluster": "lab",
        "network": "10.97.11.0/24",
        "authorized_key": bench.KEY,
        "boot_seconds": 10,
        "libvirt": {"kinds": {"small": {"vcpus": 1, "memory_mb": 512}}, "accelerator": "emulation"},
        "kinds": [{**kind, **changes}],
    }


def machines_of(hypervisor, image, **changes):
    data = settings(image, **changes)
    run = bench.scanner({f"10.97.11.10{number}": bench.KEY for number in (1, 2, 3)})
    return elastic.LibvirtMachines(bench.provider_of(hypervisor, run=run), data, elastic.parse_nodes(data))


@pytest.fixture
def cluster(hypervisor, image, monkeypatch):
    """A cluster of two fixed machines, on a hypervisor whose machines boot at once."""
    bench.provision(bench.spec_of(image, nodes=1), hypervisor)
    start = hypervisor.start

    def boots(name):
        start(name)
        domain = next(domain for domain in hypervisor.domains(name) if domain.name == name)
        text = f"TURNKEY-READY {domain.uuid} {bench.KEY}\n"
        bench.Pool.consoles[f"{domain.mark['name']}.console"] = text

    monkeypatch.setattr(hypervisor, "start", boots)
    return hypervisor


def names(answers):
    return sorted(answer["node"] for answer in answers)


def test_nodes_come_from_zero_and_go_again_and_fixed_machines_stay(cluster, image):
    before = bench.everything(cluster)
    machines = machines_of(cluster, image)
    answers = {answer["node"]: answer for answer in machines.resume(["e1", "e3"])}
    assert answers["e3"] == {"node": "e3", "address": "10.97.11.103", "host_key": bench.KEY, "user": "root"}
    assert machines.status() == {"e1": "running", "e3": "running"}
    assert names(machines.resume(["e1", "e2"])) == ["e1", "e2"]
    assert bench.provision(bench.spec_of(image, nodes=1), cluster) == []
    assert [machine.name for machine in bench.provider_of(cluster).list_instances("lab")] == ["head", "node1"]
    assert names(machines.suspend(["e1", "e2", "e3", "e1"])) == ["e1", "e2", "e3"]
    assert machines.status() == {}
    assert bench.everything(cluster) == before
    assert not [name for name in bench.volumes(cluster) if name.startswith("e")]


def test_without_machines_of_playbooks_the_storage_is_made_and_goes_with_the_last_node(cluster, image):
    bench.destroy("lab", cluster)
    provider, spec = bench.provider_of(cluster), bench.spec_of(image)
    actions = plan(provider.desired(spec), provider.discover("lab"))
    provider.apply([action for action in actions if action.kind == "network"])
    machines = machines_of(cluster, image)
    assert names(machines.resume(["e1"])) == ["e1"]
    assert bench.everything(cluster)["pools"] == ["turnkey-lab"]
    assert names(machines.clear()) == ["e1"]
    assert bench.everything(cluster)["pools"] == []


def test_storage_that_fixed_machines_use_stays(cluster, image):
    machines = machines_of(cluster, image)
    list(machines.resume(["e1"]))
    list(machines.clear())
    assert bench.everything(cluster)["pools"] == ["turnkey-lab"]


def test_destruction_of_the_cluster_takes_its_elastic_nodes_along(cluster, image):
    list(machines_of(cluster, image).resume(["e1"]))
    bench.destroy("lab", cluster)
    assert bench.everything(cluster) == {"domains": [], "networks": [], "pools": []}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_node_is_refused_and_nothing_happens(cluster, image, name):
    before = bench.everything(cluster)
    machines = machines_of(cluster, image)
    for answers in (machines.resume([name]), machines.suspend([name])):
        assert [(answer["node"], answer["code"]) for answer in answers] == [(name, "Invalid")]
    assert bench.everything(cluster) == before
    assert {machine.running for machine in bench.provider_of(cluster).list_instances("lab")} == {True}


def test_a_fixed_machine_with_the_name_of_a_node_is_not_touched(cluster, image):
    machines = machines_of(cluster, image, nodes="node1", first_address="10.97.11.101")
    assert names(machines.suspend(["node1"])) == ["node1"]
    assert "lab-node1" in bench.everything(cluster)["domains"]


def test_a_node_whose_kind_is_gone_may_still_go(cluster, image):
    list(machines_of(cluster, image).resume(["e3"]))
    fewer = machines_of(cluster, image, nodes="e[1-2]")
    assert [answer.get("code") for answer in fewer.resume(["e3"])] == ["Invalid"]
    assert list(fewer.suspend(["e3"])) == [{"node": "e3"}]
    assert fewer.status() == {}


def test_a_kind_that_keeps_its_machines_stops_and_starts_them(cluster, image):
    machines = machines_of(cluster, image, level="power")
    list(machines.resume(["e1"]))
    disk = bench.provider_of(cluster)._found("lab", "elastic")[0].domain.uuid
    list(machines.suspend(["e1"]))
    assert machines.status() == {"e1": "stopped"}
    list(machines.resume(["e1"]))
    assert machines.status() == {"e1": "running"}
    assert bench.provider_of(cluster)._found("lab", "elastic")[0].domain.uuid == disk
    list(machines.remove(["e1", "e2"]))
    assert machines.status() == {}


@pytest.mark.parametrize("call", ["define", "mark", "reserve", "start"])
def test_a_node_that_could_not_be_made_is_told_and_made_the_next_time(cluster, image, call):
    cluster.faults = {call: 1}
    machines = machines_of(cluster, image)
    if call == "start":
        cluster.start = type(cluster).start.__get__(cluster)
    (answer,) = machines.resume(["e1"])
    assert answer["code"] in ("Failed", "BootTimeout")
    bench.Pool.consoles.clear()
    cluster.faults = {}
    list(machines.suspend(["e1"]))
    assert machines.status() == {}


def test_a_node_that_does_not_boot_is_told_with_its_console(cluster, image):
    cluster.start = type(cluster).start.__get__(cluster)
    bench.Pool.consoles["e1.console"] = "Kernel panic\n"
    (answer,) = machines_of(cluster, image).resume(["e1"])
    assert answer["code"] == "BootTimeout"
    assert "Kernel panic" in answer["text"]


def test_too_little_memory_has_its_own_code(cluster, image):
    cluster.memory_mb = 100
    with pytest.raises(Capacity, match="no hypervisor has 512 MB"):
        list(machines_of(cluster, image).resume(["e1"]))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"nodes": "e[1-"}, "kind 'burst'"),
        ({"first_address": "10.98.0.1"}, "which is not in 10.97.11.0/24"),
        ({"first_address": "10.97.11.300"}, "10.97.11.300"),
        ({"instance_type": "big"}, "'big' is no kind"),
        ({"image": ""}, "image '(none)' is not a path"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(image, changes, problem):
    with pytest.raises(InvalidInput) as failure:
        elastic.parse_nodes(settings(image, **changes))
    assert problem in str(failure.value)
