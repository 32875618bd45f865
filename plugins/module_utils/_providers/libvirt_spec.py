# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cluster of virtual machines says besides its machines: the hypervisors, the network, the kinds of machines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

__all__ = [
    "ACCELERATORS",
    "NETWORK_MODES",
    "SPREADS",
    "Kind",
    "LibvirtSpec",
    "kind_problems",
    "parse_hypervisors",
    "parse_libvirt",
]

DEFAULT_HYPERVISOR = "qemu:///system"
DEFAULT_DIRECTORY = "/var/lib/libvirt/images"
ACCELERATORS = ("auto", "kvm", "emulation")
NETWORK_MODES = ("nat", "isolated")
SPREADS = ("memory", "round_robin")

_KIND_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_CPU_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_NETWORK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_DIRECTORY = re.compile(r"(/[A-Za-z0-9._-]+)+")


@dataclass(frozen=True)
class Kind:
    """What a machine has. 0 and empty mean: as much as the image (disk), libvirt's choice (CPU model)."""

    vcpus: int
    memory_mb: int
    disk_gb: int = 0
    cpu_model: str = ""
    hugepages: bool = False
    devices: str = ""

    def attributes(self) -> dict[str, Any]:
        """Return what a machine of this kind is made from, without what is left to libvirt."""
        return {name: value for name, value in asdict(self).items() if value}


@dataclass(frozen=True)
class LibvirtSpec:
    """Where the cluster's virtual machines are. An empty ``network`` is one of the cluster's own, which is made."""

    hypervisors: tuple[str, ...]
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    network: str = ""
    network_mode: str = "nat"
    nameservers: tuple[str, ...] = ()
    directory: str = DEFAULT_DIRECTORY
    accelerator: str = "auto"
    spread: str = "memory"
    user_data: str = ""


def parse_libvirt(provider: str, given: Mapping[str, Any], problems: list[str]) -> LibvirtSpec | None:
    """Return where the virtual machines are, None for another provider; add what is wrong to ``problems``."""
    if provider != "libvirt":
        return None
    hypervisors = parse_hypervisors(given, problems)
    network = str(given.get("network") or "")
    if network and not _NETWORK_NAME.fullmatch(network):
        problems.append(f"cluster_libvirt.network {network!r} is not a name: give that of a network (virsh net-list).")
    if not network and len(hypervisors) > 1:
        problems.append(
            "cluster_libvirt.network is missing: a network that is made here ends at its hypervisor, and there are "
            f"{len(hypervisors)}. Give the name of one that all have, with a bridge that joins them."
        )
    directory = str(given.get("directory") or DEFAULT_DIRECTORY)
    if not _DIRECTORY.fullmatch(directory) or ".." in directory.split("/"):
        problems.append(f"cluster_libvirt.directory {directory!r} is not a plain absolute path: give one.")
    kinds = {
        str(name): _kind(f"cluster_libvirt.kinds.{name}", str(name), dict(options or {}), problems)
        for name, options in dict(given.get("kinds") or {}).items()
    }
    user_data = str(given.get("user_data") or "")
    if user_data.strip() and not user_data.startswith(("#cloud-config\n", "#!")):
        first = user_data.splitlines()[0]
        problems.append(
            f"cluster_libvirt.user_data begins with {first!r}: "
            "begin it with '#cloud-config', or with '#!' and a program."
        )
    return LibvirtSpec(
        hypervisors=hypervisors,
        kinds=kinds,
        network=network,
        network_mode=_choice(given, "network_mode", NETWORK_MODES, problems),
        nameservers=tuple(str(address) for address in given.get("nameservers") or ()),
        directory=directory.rstrip("/"),
        accelerator=_choice(given, "accelerator", ACCELERATORS, problems),
        spread=_choice(given, "spread", SPREADS, problems),
        user_data=user_data,
    )


def parse_hypervisors(given: Mapping[str, Any], problems: list[str]) -> tuple[str, ...]:
    """Return the hypervisors; add what is wrong to ``problems``."""
    hypervisors = tuple(str(uri) for uri in given.get("hypervisors") or (DEFAULT_HYPERVISOR,))
    problems.extend(problem for uri in hypervisors for problem in hypervisor_problems(uri))
    if len(set(hypervisors)) < len(hypervisors):
        problems.append(f"cluster_libvirt.hypervisors lists one twice ({', '.join(hypervisors)}): list each once.")
    return hypervisors


def hypervisor_problems(uri: str) -> list[str]:
    """Return what is wrong with a hypervisor's URI."""
    parts = urlsplit(uri)
    driver, _plus, transport = parts.scheme.partition("+")
    where = parts.hostname and not parts.password if transport == "ssh" else not (transport or parts.netloc)
    if driver == "qemu" and parts.path == "/system" and not parts.query and where:
        return []
    if "no_verify" in uri:
        return [f"hypervisor {uri!r} switches the check of its host key off: remove no_verify."]
    return [f"hypervisor {uri!r} can't be used: give qemu:///system, or qemu+ssh://USER@HOST/system."]


def kind_problems(item: Mapping[str, Any], where: str, spec: LibvirtSpec) -> list[str]:
    """Return which options of a set of machines don't fit virtual machines."""
    kind = str(item.get("instance_type") or "")
    known = ", ".join(sorted(spec.kinds)) or "none"
    problems = []
    if not kind:
        problems.append(f"{where}: instance_type is missing: give a kind of cluster_libvirt.kinds ({known}).")
    elif kind not in spec.kinds:
        problems.append(f"{where}: instance_type {kind!r} is no kind of cluster_libvirt.kinds: there is {known}.")
    others = ("cpus", "memory_mb", "root_gb", "spot", "placement")
    problems.extend(
        f"{where}: {name} is not for libvirt: put what its machines have into the kind {kind or '...'!r}."
        for name in others
        if item.get(name)
    )
    if item.get("volumes"):
        problems.append(f"{where}: volumes are not for libvirt: a machine has the disk of its kind (disk_gb).")
    image = str(item.get("image") or "")
    if image and not image.startswith(("/", "~")):
        problems.append(
            f"{where}: image {image!r} is not a path: give the directory that image.yml wrote, or a qcow2 file, "
            "beginning with / or ~."
        )
    return problems


def _kind(where: str, name: str, given: dict[str, Any], problems: list[str]) -> Kind:
    if not _KIND_NAME.fullmatch(name):
        problems.append(f"{where}: the name of the kind can't be used: give letters, digits, '.', '_' and '-'.")
    known = {"vcpus", "memory_mb", "disk_gb", "cpu_model", "hugepages", "devices"}
    problems.extend(
        f"{where}: {option!r} is no option of a kind: there are {', '.join(sorted(known))}."
        for option in sorted(set(given) - known)
    )
    numbers = {}
    for option, least in (("vcpus", 1), ("memory_mb", 128), ("disk_gb", 0)):
        value = given.get(option)
        try:
            numbers[option] = int(value or 0)
        except (TypeError, ValueError):
            numbers[option] = -1
        if numbers[option] < least:
            problems.append(f"{where}: {option} is {value!r}: give a number of {least} or more.")
    model = str(given.get("cpu_model") or "")
    if model and not _CPU_MODEL.fullmatch(model):
        problems.append(f"{where}: cpu_model {model!r} is no name: give one of 'virsh cpu-models x86_64'.")
    devices = str(given.get("devices") or "").strip()
    try:
        ElementTree.fromstring(f"<devices>{devices}</devices>")
    except ElementTree.ParseError as error:
        problems.append(f"{where}: devices is not XML ({error}): give what belongs into <devices>, as in <hostdev>.")
    return Kind(**numbers, cpu_model=model, hugepages=given.get("hugepages") in (True, "true", "yes"), devices=devices)


def _choice(given: Mapping[str, Any], name: str, choices: tuple[str, ...], problems: list[str]) -> str:
    value = str(given.get(name) or choices[0])
    if value not in choices:
        problems.append(f"cluster_libvirt.{name} {value!r} is unknown: give one of {', '.join(choices)}.")
    return value
