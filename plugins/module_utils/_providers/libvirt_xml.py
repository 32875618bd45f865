# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's XML, written and read. Pure: every text goes through the library, so no value can become an element."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from .libvirt_spec import Kind

__all__ = [
    "NAMESPACE",
    "PREFIX",
    "DomainRequest",
    "bridge_of",
    "domain_xml",
    "host_entry_xml",
    "mac_of",
    "mark_of",
    "mark_xml",
    "network_xml",
    "networks_of",
    "path_of",
    "pool_xml",
    "probe_xml",
    "reservations_of",
    "supports_kvm",
    "volume_xml",
]

Element = ElementTree.Element

NAMESPACE = "https://turnkey.hpc/libvirt/1"
"""What marks a domain or a network as a cluster's own."""

PREFIX = "turnkey"
ElementTree.register_namespace(PREFIX, NAMESPACE)

ARCH, MACHINE = "x86_64", "q35"
CONSOLE_ARGUMENTS = ("console=ttyS0", "net.ifnames=0", "panic=-1")
# Translated code is kept; QEMU's own choice grows with the host's memory.
TRANSLATION_CACHE_MIB = 256


@dataclass(frozen=True)
class DomainRequest:
    """What a domain is made from. Paths are those of the hypervisor; an empty ``kernel`` boots from the disk."""

    name: str
    uuid: str
    domain_type: str  # kvm or qemu
    kind: Kind
    network: str
    mac: str
    disk: str
    seed: str
    console: str
    mark: Mapping[str, str]
    kernel: str = ""
    initrd: str = ""
    cmdline: str = ""


def mac_of(address: str) -> str:
    """Return the MAC address that belongs to an IPv4 address: locally administered, and unique where that is."""
    return "52:54:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(address).packed)


def domain_xml(request: DomainRequest) -> str:
    """Return the XML of a machine."""
    kind = request.kind
    emulated = request.domain_type != "kvm"
    boot = [_element("type", {"arch": ARCH, "machine": MACHINE}, "hvm")]
    if request.kernel:
        boot.append(_element("kernel", {}, request.kernel))
        if request.initrd:
            boot.append(_element("initrd", {}, request.initrd))
        boot.append(_element("cmdline", {}, _with_console(request.cmdline)))
    features = [_element("acpi"), _element("apic")]
    if emulated:
        cache = _element("tb-cache", {"unit": "MiB"}, str(TRANSLATION_CACHE_MIB))
        features.append(_element("tcg", {}, cache))
    memory = [_element("memoryBacking", {}, _element("hugepages"))] if kind.hugepages else []
    devices = _element(
        "devices",
        {},
        _disk(request.disk, "qcow2", "vda"),
        _disk(request.seed, "raw", "vdb", _element("readonly")),
        _element(
            "interface",
            {"type": "network"},
            _element("mac", {"address": request.mac}),
            _element("source", {"network": request.network}),
            _element("model", {"type": "virtio"}),
        ),
        _element(
            "serial",
            {"type": "file"},
            # Emptied at each start: what is read from it is about the boot that is going on.
            _element("source", {"path": request.console, "append": "off"}),
            _element("target", {"port": "0"}),
        ),
        _element("channel", {"type": "unix"}, _element("target", {"type": "virtio", "name": "org.qemu.guest_agent.0"})),
        _element("rng", {"model": "virtio"}, _element("backend", {"model": "random"}, "/dev/urandom")),
        _element("controller", {"type": "usb", "model": "none"}),
        _element("memballoon", {"model": "none"}),
        *ElementTree.fromstring(f"<devices>{kind.devices}</devices>"),
    )
    return _text(
        _element(
            "domain",
            {"type": request.domain_type},
            _element("name", {}, request.name),
            _element("uuid", {}, request.uuid),
            _element("metadata", {}, _mark(request.mark)),
            _element("memory", {"unit": "MiB"}, str(kind.memory_mb)),
            *memory,
            _element("vcpu", {}, str(kind.vcpus)),
            _element("os", {}, *boot),
            _element("features", {}, *features),
            _cpu(kind.cpu_model, emulated),
            _element("clock", {"offset": "utc"}),
            _element("on_reboot", {}, "restart"),
            _element("on_crash", {}, "restart"),
            devices,
        )
    )


def probe_xml(name: str, uuid: str, kernel: str) -> str:
    """Return a machine under KVM that ends by itself, if KVM works: its kernel finds no root, and reboots at once."""
    return _text(
        _element(
            "domain",
            {"type": "kvm"},
            _element("name", {}, name),
            _element("uuid", {}, uuid),
            _element("memory", {"unit": "MiB"}, "256"),
            _element("vcpu", {}, "1"),
            _element(
                "os",
                {},
                _element("type", {"arch": ARCH, "machine": MACHINE}, "hvm"),
                _element("kernel", {}, kernel),
                _element("cmdline", {}, "panic=-1 quiet"),
            ),
            _element("features", {}, _element("acpi"), _element("apic")),
            _element("cpu", {"mode": "host-passthrough"}),
            _element("on_reboot", {}, "destroy"),
            _element("on_crash", {}, "destroy"),
            _element("devices", {}, _element("memballoon", {"model": "none"})),
        )
    )


def network_xml(name: str, uuid: str, network: str, gateway: str, mode: str, mark: Mapping[str, str]) -> str:
    """Return a network that gives addresses to machines it knows, and to nobody else."""
    subnet = ipaddress.ip_network(network)
    forward = [_element("forward", {"mode": "nat"})] if mode == "nat" else []
    # Its DHCP server starts with the first machine that is entered.
    address = _element("ip", {"address": gateway, "netmask": str(subnet.netmask)}, _element("dhcp"))
    return _text(
        _element(
            "network",
            {},
            _element("name", {}, name),
            _element("uuid", {}, uuid),
            _element("metadata", {}, _mark(mark)),
            *forward,
            address,
        )
    )


def host_entry_xml(entry: Mapping[str, str]) -> str:
    """Return a network's entry (mac, name, ip) that keeps an address for a machine."""
    return _text(_element("host", entry))


def pool_xml(name: str, uuid: str, path: str) -> str:
    """Return a storage pool that is a directory."""
    permissions = _element("permissions", {}, _element("mode", {}, "0711"))
    target = _element("target", {}, _element("path", {}, path), permissions)
    return _text(_element("pool", {"type": "dir"}, _element("name", {}, name), _element("uuid", {}, uuid), target))


def volume_xml(name: str, capacity_bytes: int, kind: str = "raw", backing: str = "") -> str:
    """Return a volume; with ``backing`` it holds only what differs from that qcow2 file."""
    parts = [
        _element("name", {}, name),
        _element("capacity", {"unit": "bytes"}, str(capacity_bytes)),
        _element("allocation", {}, "0"),
        _element("target", {}, _element("format", {"type": kind})),
    ]
    if backing:
        base = _element("backingStore", {}, _element("path", {}, backing), _element("format", {"type": "qcow2"}))
        parts.append(base)
    return _text(_element("volume", {}, *parts))


def mark_of(xml: str) -> dict[str, str]:
    """Return the mark in the XML of a domain or a network, empty if it isn't ours."""
    found = ElementTree.fromstring(xml).find(f"./metadata/{{{NAMESPACE}}}item")
    return dict(found.attrib) if found is not None else {}


def mark_xml(mark: Mapping[str, str]) -> str:
    """Return a mark as the call that changes it wants it: without its namespace."""
    return _text(_element("item", dict(mark)))


def bridge_of(xml: str) -> str:
    """Return the bridge of a network, empty if there is none."""
    found = ElementTree.fromstring(xml).find("./bridge")
    return "" if found is None else found.get("name", "")


def path_of(xml: str) -> str:
    """Return the directory of a storage pool."""
    return ElementTree.fromstring(xml).findtext("./target/path") or ""


def networks_of(xml: str) -> list[str]:
    """Return the IPv4 networks of a libvirt network."""
    found = []
    for item in ElementTree.fromstring(xml).iterfind("./ip"):
        if item.get("family", "ipv4") == "ipv4" and item.get("address"):
            size = item.get("netmask") or item.get("prefix") or "24"
            found.append(str(ipaddress.ip_network(f"{item.get('address')}/{size}", strict=False)))
    return found


def reservations_of(xml: str) -> list[dict[str, str]] | None:
    """Return the addresses that a network keeps (mac, name, ip), None if it gives no addresses."""
    dhcp = ElementTree.fromstring(xml).find("./ip/dhcp")
    return None if dhcp is None else [dict(host.attrib) for host in dhcp.iterfind("host")]


def supports_kvm(capabilities: str) -> bool:
    """Tell whether a hypervisor offers KVM. That it does doesn't mean that it works."""
    path = f"./guest/arch[@name='{ARCH}']/domain[@type='kvm']"
    return ElementTree.fromstring(capabilities).find(path) is not None


def _cpu(model: str, emulated: bool) -> Element:
    if not model:
        return _element("cpu", {"mode": "maximum" if emulated else "host-passthrough"})
    if model in ("host-model", "host-passthrough", "maximum"):
        return _element("cpu", {"mode": model})
    return _element("cpu", {"mode": "custom", "match": "exact"}, _element("model", {"fallback": "forbid"}, model))


def _disk(path: str, kind: str, target: str, *more: Element) -> Element:
    driver = {"name": "qemu", "type": kind}
    if kind == "qcow2":
        driver["discard"] = "unmap"
    return _element(
        "disk",
        {"type": "file", "device": "disk"},
        _element("driver", driver),
        _element("source", {"file": path}),
        _element("target", {"dev": target, "bus": "virtio"}),
        *more,
    )


def _with_console(cmdline: str) -> str:
    words = cmdline.split()
    return " ".join([*words, *(word for word in CONSOLE_ARGUMENTS if word not in words)])


def _mark(mark: Mapping[str, str]) -> Element:
    return _element(f"{{{NAMESPACE}}}item", dict(mark))


def _element(tag: str, attributes: Mapping[str, Any] | None = None, *content: Element | str) -> Element:
    made = Element(tag, {name: str(value) for name, value in (attributes or {}).items()})
    for item in content:
        if isinstance(item, str):
            made.text = item
        else:
            made.append(item)
    return made


def _text(element: Element) -> str:
    return ElementTree.tostring(element, encoding="unicode")
