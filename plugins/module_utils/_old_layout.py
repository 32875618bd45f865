# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The old layout of inventories: its groups and variables, and what they are called now. The only place that knows."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.turnkey.hpc.plugins.module_utils._entry import Entry

__all__ = [
    "CANONICAL_GROUPS",
    "OLD_GROUPS",
    "OLD_VARIABLES",
    "PRIVATE_NETWORKS",
    "OldGroup",
    "OldVariable",
    "map_old_layout",
    "network_of",
    "render_tables",
]

CANONICAL_GROUPS = (
    "compute",
    "controller",
    "hypervisor",
    "jupyterhub",
    "k3s_agent",
    "k3s_server",
    "login",
    "nfs_server",
    "registry",
)
# What cluster interfaces have: RFC 1918, and the shared range of RFC 6598 that some clouds and virtual networks use.
PRIVATE_NETWORKS = [
    ipaddress.IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
]
ADDRESS_VARIABLES = ("cluster_address", "ansible_host", "ansible_ssh_host")
DEFAULT_NAME = "cluster"
TRUE, FALSE = ("1", "on", "t", "true", "y", "yes"), ("0", "f", "false", "n", "no", "off")


@dataclass(frozen=True)
class OldGroup:
    """A group of the old layout. Its hosts become members of ``groups``, its first host that of ``first``."""

    name: str
    groups: tuple[str, ...]
    first: tuple[str, ...]
    was: str


@dataclass(frozen=True)
class OldVariable:
    """A variable of the old layout, and the one that a role reads."""

    old: str
    new: str
    role: str
    type: str
    description: str
    secret: bool = False


OLD_GROUPS = (
    # The head of the old layout served everything. One host serves the shared directory.
    OldGroup("driver", ("controller", "jupyterhub", "k3s_server", "login"), ("nfs_server",), "the head"),
    OldGroup("master", ("controller", "jupyterhub", "k3s_server", "login"), ("nfs_server",), "the head, an older name"),
    OldGroup("worker", ("compute", "k3s_agent"), (), "machines that do the work"),
)

OLD_VARIABLES = (
    OldVariable("my_iface", "cluster_interface", "cluster", "str", "Network interface of the host in the cluster."),
    OldVariable("has_gpu", "gpu_present", "gpu", "bool", "Whether the host has a GPU that jobs may use."),
    OldVariable(
        "install_nvidia_driver",
        "gpu_install_driver",
        "gpu",
        "bool",
        "Install the driver of the GPU. Off, what is there is left alone.",
    ),
    OldVariable(
        "install_docker",
        "docker_engine_install",
        "docker_engine",
        "bool",
        "Install the Docker engine. Off, what is there is left alone.",
    ),
    OldVariable(
        "docker_repo",
        "container_registry_mirror",
        "container_registry",
        "str",
        "Where container images come from, as a host with an optional port and path.",
    ),
    OldVariable("convect_workdir", "k3s_work_dir", "k3s", "path", "Directory on the hosts for data of k3s."),
    OldVariable(
        "convect_token",
        "k3s_token",
        "k3s",
        "str",
        "Secret with which hosts join. Better left out: one is made.",
        secret=True,
    ),
    OldVariable(
        "jhub_config_path",
        "jupyterhub_config_file",
        "jupyterhub",
        "path",
        "The site's own configuration of JupyterHub, on the control node. It is read last.",
    ),
    OldVariable("http_port", "jupyterhub_http_port", "jupyterhub", "int", "Port that leads on to HTTPS."),
    OldVariable("https_port", "jupyterhub_https_port", "jupyterhub", "int", "Port of JupyterHub."),
)
_BY_OLD_NAME = {variable.old: variable for variable in OLD_VARIABLES}


def map_old_layout(
    groups: Mapping[str, Iterable[str]], entries: Iterable[Entry]
) -> tuple[dict[str, list[str]], list[Entry], list[str]]:
    """Return groups and entries with the old names mapped onto ours, and notes that name the new ones.

    The old groups stay, beside the new ones that have their hosts. They are mapped only if none of our groups but
    ``registry`` has hosts: elsewhere ``worker`` may be a group of the site's own. What the old layout did not have,
    name, network and addresses of the cluster, is added where the inventory does not say it.
    """
    given = list(entries)
    mapped = {name: list(hosts) for name, hosts in groups.items()}
    old_groups = [group for group in OLD_GROUPS if mapped.get(group.name)]
    old_entries = any(entry.name in _BY_OLD_NAME for entry in given)
    notes: list[str] = []
    if old_groups:
        ours = [name for name in CANONICAL_GROUPS if name != "registry" and mapped.get(name)]
        if ours:
            notes += [
                f"the group {group.name} is taken as one of your own, since the inventory has the group {ours[0]}"
                for group in old_groups
            ]
            old_groups = []
    for group in old_groups:
        for name in group.groups:
            _add(mapped.setdefault(name, []), mapped[group.name])
        for name in group.first:
            if not mapped.get(name):
                mapped[name] = mapped[group.name][:1]
        notes.append(f"the group {group.name} is now {', '.join(group.groups + group.first)}")
    if old_entries:
        given, more = _map_entries(given)
        notes += more
    if old_groups:
        more_entries, more = _complete(mapped, given)
        given += more_entries
        notes += more
    return mapped, given, notes


def _add(hosts: list[str], more: Sequence[str]) -> None:
    there = set(hosts)
    hosts += [host for host in more if host not in there]


def _map_entries(entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Return the entries under their new names. Where both names are set in one place, the new one counts."""
    new_names = {variable.new for variable in OLD_VARIABLES}
    there = {(entry.scope, entry.name) for entry in entries if entry.name in new_names}
    result: list[Entry] = []
    used: dict[str, list[Entry]] = {}
    ignored: list[str] = []
    for entry in entries:
        variable = _BY_OLD_NAME.get(entry.name)
        if variable is None:
            result.append(entry)
        elif (entry.scope, variable.new) in there:
            ignored.append(
                f"{_at(entry)}`{variable.old}` is ignored, since `{variable.new}`, its new name, is set beside it"
            )
        else:
            used.setdefault(variable.old, []).append(entry)
            result.append(entry._replace(name=variable.new, value=_coerce(entry.value, variable.type)))
    notes = []
    for old, found in used.items():
        variable = _BY_OLD_NAME[old]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        notes.append(f"{_at(found[0])}`{old}` is now `{variable.new}`{more}")
    return result, notes + ignored


def _at(entry: Entry) -> str:
    return f"{entry.origin}: " if entry.origin else ""


def _coerce(value: object, kind: str) -> object:
    """Return what the text of an INI file stands for. What doesn't fit stays, and is a problem of the check."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if kind == "bool" and text in TRUE + FALSE:
        return text in TRUE
    if kind == "int" and text.isascii() and text.isdigit():
        return int(text)
    return value


def network_of(addresses: Iterable[str]) -> str:
    """Return the smallest network with a prefix of 16 to 24 that has all the addresses, or nothing. Pure."""
    try:
        parsed = [ipaddress.IPv4Address(address) for address in addresses]
    except ValueError:
        return ""
    if not parsed:
        return ""
    for prefix in range(24, 15, -1):
        network = ipaddress.IPv4Network((min(parsed), prefix), strict=False)
        if max(parsed) in network:
            return str(network) if any(network.subnet_of(private) for private in PRIVATE_NETWORKS) else ""
    return ""


def _complete(groups: Mapping[str, Sequence[str]], entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Return what the old layout leaves open: name, network, and addresses where only ``ansible_ssh_host`` has them."""
    names = {entry.name for entry in entries}
    found: dict[str, dict[str, str]] = {}
    for entry in entries:
        if entry.name in ADDRESS_VARIABLES and entry.scope.startswith("host:"):
            found.setdefault(entry.scope[5:], {})[entry.name] = str(entry.value)
    hosts = list(dict.fromkeys(host for members in groups.values() for host in members))
    addresses = {}
    result, notes = [], []
    for host in hosts:
        own = found.get(host, {})
        addresses[host] = next((own[name] for name in ADDRESS_VARIABLES if name in own), host)
        if "cluster_address" not in own and "ansible_host" not in own and network_of([addresses[host]]):
            result.append(Entry(f"host:{host}", "cluster_address", addresses[host]))
    if "cluster_name" not in names:
        result.append(Entry("all", "cluster_name", DEFAULT_NAME))
        notes.append(f"`cluster_name` is not set: taken as {DEFAULT_NAME}")
    if "cluster_network" not in names:
        network = network_of(addresses.values())
        if network:
            result.append(Entry("all", "cluster_network", network))
            notes.append(f"`cluster_network` is not set: taken as {network}, which has the addresses of all hosts")
    return result, notes


def render_tables() -> str:
    """Return the tables of the documentation."""
    lines = ["| old group | was | its hosts are now in | its first host also in |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{group.name}` | {group.was} | {_code(group.groups)} | {_code(group.first) or '-'} |"
        for group in OLD_GROUPS
    ]
    lines += [
        "| `registry` | the private registry | `registry` | - |",
        "",
        "| old variable | is now | type | what it is | read by |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{variable.old}` | `{variable.new}` | {variable.type} | {variable.description} | role `{variable.role}` |"
        for variable in OLD_VARIABLES
    ]
    return "\n".join(lines)


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
