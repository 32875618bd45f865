# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines that begin in memory, on libvirt's own driver for tests; what is restored is acted out here."""

from __future__ import annotations

import pytest

pytest.importorskip("libvirt", reason="libvirt-python is installed by `tools/setup vm` only")
pytest.importorskip("pycdlib", reason="pycdlib is installed by `tools/setup vm` only")

from xml.etree import ElementTree

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.libvirt_elastic import LibvirtMachines, parse_nodes
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.libvirt_state import (
    SavedState,
    parse_state,
    templates_of,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.libvirt_xml import mark_of
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.plan import plan
from ansible_collections.turnkey.hpc.tests.unit.plugins.module_utils._providers import libvirt_bench
from ansible_collections.turnkey.hpc.tests.unit.plugins.module_utils._providers.libvirt_bench import (
    KEY,
    NODE,
    destroy,
    everything,
    make_image,
    provider_of,
    provision,
    scanner,
    spec_of,
    volumes,
)

KINDS = {"kinds": {"small": {"vcpus": 1, "memory_mb": 512, "instant": True}}}
PARTS = ("complete", "console", "disk.qcow2", "seed.iso", "state")


class Pool(libvirt_bench.Pool):
    """A storage pool whose volumes can be copied and read."""

    def copy(self, source, name):
        self.create(name, 1 << 20)
        Pool.uploads[name] = Pool.uploads[source]

    def beginning(self, name, first_bytes):
        return Pool.uploads[name][:first_bytes]


class Hypervisor(libvirt_bench.Hypervisor):
    """Keeps the memory of machines that wait. ``plugged`` are the interfaces, ``restored`` the machines' XML."""

    def __init__(self, uri):
        super().__init__(uri)
        self.templates, self.restored, self.plugged = [], [], []

    def pool(self, uuid, start=True):
        found = super().pool(uuid, start)
        if found:
            found.__class__ = Pool
        return found

    def run_to_end(self, xml):
        self._fault("boot")
        self.templates.append(xml)
        domain = ElementTree.fromstring(xml)
        self._connection.createXML(NODE.format(domain.findtext("name")), 0)
        console = domain.find("./devices/serial/source").get("path")
        Pool.consoles[console.rpartition("/")[2]] = "Linux\n\nTURNKEY-WAITING\n"

    def save(self, name, path):
        self._fault("save")
        self._connection.lookupByName(name).destroy()
        pool = next(super(Hypervisor, self).pool(uuid) for uuid in self._pools())
        pool.create(path.rpartition("/")[2], 1 << 20)
        head = SavedState(self.templates[-1], b"", 1 << 16, 1, 0).packed()
        Pool.uploads[path.rpartition("/")[2]] = head + b"memory"

    def _pools(self):
        return [handle.UUIDString() for handle in self._connection.listAllStoragePools(0)]

    def restore(self, path):
        self._fault("restore")
        xml = parse_state(Pool.uploads[path.rpartition("/")[2]]).xml
        domain = ElementTree.fromstring(xml)
        self.restored.append(domain)
        self._connection.lookupByName(domain.findtext("name")).create()
        console = domain.find("./devices/serial/source").get("path")
        uuid = domain.findtext("uuid")
        told = f"\nTURNKEY-IDENTITY {uuid}\n\nTURNKEY-READY {uuid} {KEY}\n"
        Pool.consoles[console.rpartition("/")[2]] = "" if self.faults.get("identity") else told

    def plug_in(self, domain, xml):
        self._fault("plug_in")
        self.plugged.append((domain.name, ElementTree.fromstring(xml).find("mac").get("address")))


@pytest.fixture
def hypervisor():
    libvirt_bench.Pool.uploads.clear()
    libvirt_bench.Pool.consoles.clear()
    return Hypervisor("qemu:///system")


@pytest.fixture
def image(tmp_path):
    return make_image(tmp_path / "image", "0123456789abcdef", waiting="wait=yes")


def applied(spec, hypervisor):
    machines = provider_of(hypervisor)
    machines.apply(plan(machines.desired(spec), machines.discover("lab")))
    return machines


def templates(hypervisor):
    return sorted({name.split(".")[2] for name in volumes(hypervisor) if name.startswith("template.")})


def test_machines_are_copies_of_one_template_and_get_their_interface_last(hypervisor, image):
    machines = applied(spec_of(image, libvirt=KINDS), hypervisor)
    assert machines.warnings == []
    template = ElementTree.fromstring(*hypervisor.templates)
    assert template.find("./devices/interface") is None
    assert template.findtext("./os/cmdline").startswith("root=/dev/vda wait=yes")
    assert sorted(hypervisor.plugged) == [
        ("lab-head", "52:54:0a:61:0b:0a"),
        ("lab-node1", "52:54:0a:61:0b:0b"),
        ("lab-node2", "52:54:0a:61:0b:0c"),
    ]
    assert set(machines.states("lab", "machine").values()) == {"running"}
    assert not any(name.endswith(".state") for name in volumes(hypervisor) if not name.startswith("template."))


def test_what_is_restored_has_nothing_of_the_template_but_its_memory_and_the_disk_below_its_own(hypervisor, image):
    applied(spec_of(image, libvirt=KINDS), hypervisor)
    for domain in hypervisor.restored:
        name = domain.findtext("name")
        text = ElementTree.tostring(domain, encoding="unicode")
        assert "template" not in text
        assert "wait=yes" not in text
        short = name.partition("-")[2]
        assert text.count(f"/{short}.disk.qcow2") == text.count(f"/{short}.seed.iso") == 1
        assert domain.findtext("uuid") == hypervisor.domain(name).uuid
    assert len({domain.findtext("uuid") for domain in hypervisor.restored}) == 3


def test_the_next_run_uses_the_same_template_and_it_goes_with_the_last_machine(hypervisor, image):
    applied(spec_of(image, nodes=1, libvirt=KINDS), hypervisor)
    (build,) = templates(hypervisor)
    applied(spec_of(image, nodes=3, libvirt=KINDS), hypervisor)
    assert templates(hypervisor) == [build]
    assert len(hypervisor.templates) == 1
    mark = mark_of(hypervisor._connection.lookupByName("lab-node3").XMLDesc(0))
    assert mark["template"].endswith(build)
    provision(spec_of(image, nodes=0, libvirt={"kinds": {"small": {"vcpus": 1, "memory_mb": 512}}}), hypervisor)
    assert templates(hypervisor) == [build]  # the head's
    destroy("lab", hypervisor)
    assert everything(hypervisor) == {"domains": [], "networks": [], "pools": []}


def test_a_kind_that_becomes_instant_replaces_no_machine(hypervisor, image):
    provision(spec_of(image), hypervisor)
    assert provision(spec_of(image, libvirt={"kinds": {**KINDS["kinds"]}}), hypervisor) == []


@pytest.mark.parametrize(
    ("fault", "warning"),
    [
        ("boot", "since their memory can't be kept"),
        ("save", "since their memory can't be kept"),
        ("restore", "since it can't begin in memory"),
        ("identity", "didn't say that it is ready within 120 s"),
        ("plug_in", "since it can't begin in memory"),
    ],
)
def test_where_a_start_from_memory_fails_the_machine_boots_from_its_disk(hypervisor, image, fault, warning):
    hypervisor.faults = {fault: 1}
    spec = spec_of(image, nodes=0, libvirt=KINDS)
    machines = applied(spec, hypervisor)
    assert [warning in text for text in machines.warnings] == [True]
    assert machines.states("lab", "machine") == {"head": "running"}
    assert "head.state" not in volumes(hypervisor)
    assert provision(spec, hypervisor) == []
    destroy("lab", hypervisor)
    assert everything(hypervisor) == {"domains": [], "networks": [], "pools": []}


def test_elastic_nodes_begin_in_memory_too_and_their_template_stays(hypervisor, image):
    provision(spec_of(image, nodes=0), hypervisor)
    kind = {"name": "burst", "nodes": "e[1-2]", "first_address": "10.97.11.101", "image": image}
    data = {
        "cluster": "lab",
        "network": "10.97.11.0/24",
        "authorized_key": KEY,
        "libvirt": {**KINDS, "accelerator": "emulation"},
        "kinds": [{**kind, "instance_type": "small"}],
    }
    run = scanner({"10.97.11.101": KEY, "10.97.11.102": KEY})
    machines = LibvirtMachines(provider_of(hypervisor, run=run), data, parse_nodes(data))
    for _round in range(2):
        assert sorted(answer["host_key"] for answer in machines.resume(["e1", "e2"])) == [KEY, KEY]
        list(machines.suspend(["e1", "e2"]))
    assert len(hypervisor.templates) == 1
    assert len(hypervisor.restored) == 4
    assert machines.status() == {}


def test_an_image_that_cannot_wait_boots_from_its_disk_and_says_so(hypervisor, tmp_path):
    machines = applied(spec_of(make_image(tmp_path / "other", "0123456789abcdef"), libvirt=KINDS), hypervisor)
    assert ["can't wait in memory" in text for text in machines.warnings] == [True]
    assert set(machines.states("lab", "machine").values()) == {"running"}


def test_a_seed_that_is_too_large_for_the_disk_that_the_memory_knows_is_read_by_a_machine_that_boots(hypervisor, image):
    large = {**KINDS, "user_data": "#!/bin/sh\n" + "# a long story\n" * 80000}
    machines = applied(spec_of(image, nodes=0, libvirt=large), hypervisor)
    assert ["its seed is larger than" in text for text in machines.warnings] == [True]
    assert (hypervisor.templates, hypervisor.restored) == ([], [])
    assert machines.states("lab", "machine") == {"head": "running"}


@pytest.mark.parametrize("call", ["mark", "reserve", "start", "upload", "define"])
def test_a_run_that_died_anywhere_is_completed_by_the_next_one(hypervisor, image, call):
    spec = spec_of(image, libvirt=KINDS)
    hypervisor.faults = {call: 2}
    try:
        provision(spec, hypervisor)
    except HpcError:
        provision(spec, hypervisor)
    assert provision(spec, hypervisor) == []
    assert set(provider_of(hypervisor).states("lab", "machine").values()) == {"running"}
    assert all(
        found == set(map(template.volume, PARTS)) for template, found in templates_of(volumes(hypervisor)).items()
    )
