# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from xml.etree import ElementTree

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._providers import libvirt_xml as xml
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.libvirt_spec import Kind

UUID = "2c1c1b0c-3d0b-4f57-9d2c-0d5e6f1f2a3b"


def domain(kind=None, **changes):
    given = {
        "name": "lab-node1",
        "uuid": UUID,
        "domain_type": "kvm",
        "kind": kind or Kind(2, 1024),
        "network": "hpc",
        "mac": "52:54:0a:61:0b:0b",
        "disk": "/p/node1.disk.qcow2",
        "seed": "/p/node1.seed.iso",
        "console": "/p/node1.console",
        "mark": {"cluster": "lab", "name": "node1"},
        "kernel": "/p/vmlinuz",
        "initrd": "/p/initrd",
        "cmdline": "root=/dev/vda console=ttyS0",
    }
    return ElementTree.fromstring(xml.domain_xml(xml.DomainRequest(**{**given, **changes})))


def test_a_mac_belongs_to_its_address():
    assert xml.mac_of("10.97.11.11") == "52:54:0a:61:0b:0b"
    assert len({xml.mac_of(f"10.0.{a}.{b}") for a in range(64) for b in range(256)}) == 64 * 256


def test_what_the_kernel_is_told_has_each_word_once():
    assert domain().findtext("os/cmdline") == "root=/dev/vda console=ttyS0 net.ifnames=0 panic=-1"


def test_an_image_that_boots_by_itself_gets_no_kernel():
    boot = domain(kernel="", initrd="/p/initrd").find("os")
    assert [child.tag for child in boot] == ["type"]


def test_the_translation_cache_is_limited_under_emulation_only():
    assert domain().find("features/tcg") is None
    emulated = domain(domain_type="qemu")
    assert emulated.findtext("features/tcg/tb-cache") == "256"
    assert emulated.find("cpu").get("mode") == "maximum"
    assert domain().find("cpu").get("mode") == "host-passthrough"


@pytest.mark.parametrize(
    ("model", "expected"), [("host-model", {"mode": "host-model"}), ("EPYC", {"mode": "custom", "match": "exact"})]
)
def test_a_kind_has_its_cpu_model(model, expected):
    assert domain(Kind(1, 512, cpu_model=model)).find("cpu").attrib == expected


def test_a_kind_has_its_hugepages_and_devices():
    found = domain(Kind(1, 512, hugepages=True, devices="<hostdev mode='subsystem'/><hostdev mode='subsystem'/>"))
    assert found.find("memoryBacking/hugepages") is not None
    assert len(found.findall("devices/hostdev")) == 2
    assert domain().find("memoryBacking") is None


def test_the_console_is_emptied_at_each_start_and_the_seed_cannot_be_written():
    found = domain()
    assert found.find("devices/serial/source").attrib == {"path": "/p/node1.console", "append": "off"}
    disks = {disk.find("target").get("dev"): disk for disk in found.findall("devices/disk")}
    assert disks["vdb"].find("readonly") is not None
    assert disks["vda"].find("readonly") is None


def test_no_value_becomes_an_element():
    found = domain(name="<b>&'\"", mark={"cluster": "</metadata><x/>"}, disk="/p/a'/><x/>")
    assert found.findtext("name") == "<b>&'\""
    assert found.find(".//x") is None


def test_a_mark_is_read_as_it_was_written_and_another_program_s_is_none():
    mark = {"cluster": "lab", "attributes": '{"a": "<>&\'"}'}
    assert xml.mark_of(ElementTree.tostring(domain(mark=mark), encoding="unicode")) == mark
    foreign = "<domain><metadata><v:item xmlns:v='https://example.org' cluster='lab'/></metadata></domain>"
    assert xml.mark_of(foreign) == {}
    assert xml.mark_of("<domain/>") == {}


@pytest.mark.parametrize(("mode", "forwards"), [("nat", True), ("isolated", False)])
def test_an_isolated_network_forwards_nothing(mode, forwards):
    found = xml.network_xml("turnkey-lab", UUID, "10.97.11.0/24", "10.97.11.1", mode, {"cluster": "lab"})
    assert ("<forward" in found) is forwards
    assert xml.networks_of(found) == ["10.97.11.0/24"]
    assert "<range" not in found


def test_networks_are_read_in_all_their_spellings():
    text = (
        "<network><bridge name='virbr7'/><ip address='10.1.2.3' prefix='20'/><ip family='ipv6' address='fd00::1' "
        "prefix='64'/><ip address='192.168.122.1' netmask='255.255.255.0'><dhcp><host mac='m' ip='i'/></dhcp></ip>"
        "</network>"
    )
    assert xml.networks_of(text) == ["10.1.0.0/20", "192.168.122.0/24"]
    assert xml.reservations_of(text) == [{"mac": "m", "ip": "i"}]
    assert xml.bridge_of(text) == "virbr7"
    assert xml.reservations_of("<network/>") is None
    assert xml.bridge_of("<network/>") == ""


def test_an_overlay_names_what_it_lies_on():
    found = ElementTree.fromstring(xml.volume_xml("a", 10, "qcow2", "/p/base"))
    assert found.findtext("backingStore/path") == "/p/base"
    assert found.find("backingStore/format").get("type") == "qcow2"
    assert "backingStore" not in xml.volume_xml("a", 10)


def test_the_trial_machine_ends_instead_of_starting_again():
    found = ElementTree.fromstring(xml.probe_xml("p", UUID, "/p/vmlinuz"))
    assert (found.get("type"), found.findtext("on_reboot"), found.findtext("on_crash")) == ("kvm", "destroy", "destroy")


@pytest.mark.parametrize(
    ("domains", "expected"), [("<domain type='qemu'/><domain type='kvm'/>", True), ("<domain type='qemu'/>", False)]
)
def test_kvm_is_offered_or_not(domains, expected):
    text = f"<capabilities><guest><arch name='x86_64'>{domains}</arch></guest></capabilities>"
    assert xml.supports_kvm(text) is expected
