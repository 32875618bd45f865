# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would go wrong between hosts: ports, ways, names, package sources, and what another cluster left.

Each host tries a few others, not all: the next one in a ring, so that every host is tried once, the head, and the hosts
of the services that it will use. So the number of attempts grows with the number of hosts, and not with its square.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput, join_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._preflight import Problem

__all__ = [
    "Port",
    "Probe",
    "Seen",
    "Surroundings",
    "find_local_problems",
    "find_problems_between",
    "name_listeners",
    "node_address",
    "parse_ss",
    "plan_probes",
    "read_ports",
    "unnamed_listeners",
]

KERNEL_FEATURES = ("nfs_client", "nfs_server")
# The head tries so many hosts at most, evenly spread.
HEAD_TRIES = 128


@dataclass(frozen=True)
class Port:
    """A port that a service of the cluster will use. ``hosts`` is None for all hosts."""

    port: int
    protocol: str
    service: str
    hosts: tuple[str, ...] | None = None
    programs: tuple[str, ...] = ()
    configured_by: tuple[str, ...] = ()

    def is_on(self, host: str) -> bool:
        """Tell whether the service will run on ``host``."""
        return self.hosts is None or host in self.hosts

    def __str__(self) -> str:
        """Return the port as people write it."""
        return f"{self.port}/{self.protocol} ({self.service})"


def read_ports(name: str, entries: Iterable[Mapping[str, Any]]) -> list[Port]:
    """Return the ports in the variable ``name``, or raise one error with all that is wrong with them."""
    keys = {"port", "protocol", "service", "hosts", "programs", "configured_by"}
    problems: list[str] = []
    found = []
    for number, entry in enumerate(entries, start=1):
        unknown = sorted(set(entry) - keys)
        protocol = str(entry.get("protocol") or "tcp")
        digits = str(entry.get("port", ""))
        port = int(digits) if digits.isdigit() else 0
        if unknown:
            problems.append(
                f"{name}[{number}] has {', '.join(unknown)}. Remedy: the keys are {', '.join(sorted(keys))}."
            )
        if not 0 < port < 65536:
            problems.append(f"{name}[{number}] has the port {digits!r}. Remedy: give a number from 1 to 65535.")
        if protocol not in ("tcp", "udp"):
            problems.append(f"{name}[{number}] has the protocol {protocol!r}. Remedy: choose tcp or udp.")
        hosts = entry.get("hosts")
        found.append(
            Port(
                port,
                protocol,
                str(entry.get("service") or "a service of the cluster"),
                None if hosts is None else tuple(str(host) for host in hosts if host),
                tuple(str(program) for program in entry.get("programs") or ()),
                tuple(str(path) for path in entry.get("configured_by") or ()),
            )
        )
    if problems:
        raise InvalidInput(join_problems(problems))
    return found


def node_address(variables: Mapping[str, Any]) -> str:
    """Return the address of a node in the cluster's network from its variables, or nothing if they don't tell it."""
    for key in ("cluster_address", "ansible_host", "ansible_ssh_host"):
        value = variables.get(key)
        if value is not None:
            try:
                return str(ipaddress.IPv4Address(str(value)))
            except ValueError:
                return ""
    return ""


@dataclass(frozen=True)
class Probe:
    """Something to try: whether packets get through to a port of another host (or full-sized ones, protocol mtu)."""

    peer: str
    port: Port


_MTU = Port(0, "mtu", "")


def plan_probes(host: str, members: Sequence[str], head: str, ports: Iterable[Port]) -> list[Probe]:
    """Return what ``host`` tries. ``members`` are the hosts of this run, in an order that is the same for all."""
    ports = list(ports)
    ring = []
    if host in members and len(members) > 1:
        ring = [members[(members.index(host) + 1) % len(members)]]
    near = [peer for peer in dict.fromkeys([*ring, head]) if peer and peer != host]
    far = []
    if host == head:
        others = [member for member in members if member != head]
        step = max(1, -(-len(others) // HEAD_TRIES))
        far = [peer for peer in others[::step] if peer not in near]
    probes = []
    for port in ports:
        if port.hosts is None:
            probes += [Probe(peer, port) for peer in (*near, *far)]
        else:
            probes += [Probe(peer, port) for peer in port.hosts if peer != host]
    return [*probes, *(Probe(peer, _MTU) for peer in near)]


@dataclass(frozen=True)
class Surroundings:
    """What a host must have around it."""

    host: str
    ports_free: Sequence[Port] = ()
    kernel_features: Sequence[str] = ()
    cluster_name: str = ""
    domain: str = ""
    # The cluster's user authority on the control node, as far as there is one.
    authority: str = ""
    authority_dir: str = ""


def find_local_problems(survey: Mapping[str, Any], wanted: Surroundings) -> list[Problem]:
    """Return what is wrong on the host that ``survey`` tells of, without regard to others."""
    return [
        *_kernel_problems(survey, wanted),
        *_leftover_problems(survey, wanted),
        *_port_problems(survey, wanted),
        *_source_problems(survey),
    ]


def _kernel_problems(survey: Mapping[str, Any], wanted: Surroundings) -> list[Problem]:
    problems = []
    kernel = survey.get("kernel")
    texts = {
        "nfs_client": (
            "can't mount NFS",
            "boot a kernel with the module nfsv4, or share a directory in another way "
            "(cluster_shared_dir_source: provided)",
        ),
        "nfs_server": (
            "has no NFS server of this host's own",
            "boot a kernel with the module nfsd, or set nfs_server_implementation: ganesha",
        ),
    }
    for feature in wanted.kernel_features:
        if kernel is not None and not kernel[feature]:
            what, remedy = texts[feature]
            who = "the kernel of this container" if kernel["container"] else "the running kernel"
            problems.append(Problem("kernel", f"{who} {what}", remedy))
    for text in survey.get("exports") or []:
        problem, _separator, remedy = text.partition(" Remedy: ")
        problems.append(Problem("export", problem.rstrip("."), remedy.rstrip(".") or "export another path"))
    return problems


def _leftover_problems(survey: Mapping[str, Any], wanted: Surroundings) -> list[Problem]:
    earlier = survey.get("earlier") or {}
    domain, authority = earlier.get("domain", ""), earlier.get("authority", "")
    if authority and authority == wanted.authority:
        # Whatever it was called then, it is this cluster.
        return []
    own = {wanted.domain.lower(), f"{wanted.cluster_name}.internal".lower()}
    reset = "reset it with that cluster's inventory"
    take = "ignore this check once to take it over"
    if domain and domain.lower() not in own:
        return [Problem("leftovers", f"is a node of another cluster, with the domain {domain}", f"{reset}, or {take}")]
    if authority and wanted.authority:
        return [
            Problem(
                "leftovers",
                f"lets users in whom another cluster's authority signed, not the one in {wanted.authority_dir}",
                f"if the directory was lost, put it back; else {reset}, or {take}",
            )
        ]
    return []


def _conflicts(survey: Mapping[str, Any], wanted: Surroundings) -> list[tuple[Port, Mapping[str, Any]]]:
    """Return who listens where a service of the cluster will, and is not that service."""
    own_files = set(survey.get("own_files") or [])
    found = []
    for port in wanted.ports_free:
        if not port.is_on(wanted.host) or own_files & set(port.configured_by):
            continue
        for listener in survey.get("listeners") or []:
            same = (listener["port"], listener["protocol"]) == (port.port, port.protocol)
            if same and listener["program"] not in port.programs:
                found.append((port, listener))
    return found


def _clashes(wanted: Surroundings) -> list[tuple[Port, Port]]:
    """Return pairs of services of the cluster that will be here on the same port, by different programs."""
    here = [port for port in wanted.ports_free if port.is_on(wanted.host)]
    return [
        (one, other)
        for index, one in enumerate(here)
        for other in here[index + 1 :]
        if (one.port, one.protocol) == (other.port, other.protocol) and not set(one.programs) & set(other.programs)
    ]


def unnamed_listeners(survey: Mapping[str, Any], wanted: Surroundings) -> bool:
    """Tell whether somebody is in the way whose name only root may see."""
    return any(not listener["program"] for _port, listener in _conflicts(survey, wanted))


def parse_ss(text: str) -> dict[tuple[str, int], str]:
    """Return the programs that listen, by protocol and port, from the output of ``ss -Hltunp`` as root."""
    found = {}
    for line in text.splitlines():
        columns = line.split()
        port = columns[4].rpartition(":")[2] if len(columns) > 4 else ""
        if port.isdigit():
            program = re.search(r'users:\(\("([^"]+)"', line)
            found[columns[0], int(port)] = program[1] if program else "kernel"
    return found


def name_listeners(survey: Mapping[str, Any], programs: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    """Return ``survey`` with the programs that were not named."""
    named = [
        {**each, "program": each["program"] or programs.get((each["protocol"], each["port"]), "")}
        for each in survey["listeners"]
    ]
    return {**survey, "listeners": named}


def _port_problems(survey: Mapping[str, Any], wanted: Surroundings) -> list[Problem]:
    problems = [
        Problem(
            "ports_free",
            f"port {one} is also that of {other.service}",
            "give one of them another port or another host in the inventory",
        )
        for one, other in _clashes(wanted)
    ]
    for port, listener in _conflicts(survey, wanted):
        program, user = listener["program"], listener["user"]
        who = "the kernel" if program == "kernel" else f"{program} of user {user}" if program else f"user {user}"
        problems.append(
            Problem(
                "ports_free",
                f"{who} listens on port {port}",
                f"stop it or move it to another port; `ss -lnp 'sport = :{port.port}'` as root shows it",
            )
        )
    # One listener for IPv4 and one for IPv6 are one problem.
    return list(dict.fromkeys(problems))


def _source_problems(survey: Mapping[str, Any]) -> list[Problem]:
    missing = [name.replace("|", " or ") for name in survey.get("missing_packages") or []]
    if not missing:
        return []
    more = len(missing) - 1
    need = missing[0] + (f" and {more} more packages are" if more > 1 else f" and {missing[1]} are" if more else " is")
    sources = survey.get("sources") or []
    if not sources:
        return [
            Problem(
                "sources",
                f"{need} not installed, and /etc/apt names no source of packages",
                "write one to /etc/apt/sources.list, or start from an image that has the packages",
            )
        ]
    problems = []
    for source in sources:
        if source["state"] == "dns":
            problems.append(
                Problem(
                    "dns",
                    f"the source of packages {source['detail']} has no address here",
                    "correct /etc/resolv.conf, or the source in /etc/apt",
                )
            )
        elif source["state"] in ("connect", "answer"):
            problems.append(
                Problem(
                    "sources",
                    f"{need} not installed, and a source of packages fails: {source['detail']}",
                    "correct the source in /etc/apt or Acquire::http::Proxy, let it through the firewall, or start "
                    "from an image that has the packages",
                )
            )
    return list(dict.fromkeys(problems))


@dataclass(frozen=True)
class Seen:
    """What a host looks like to the others, and what it saw of them."""

    address: str
    own_addresses: frozenset[str] = frozenset()
    # Neither answers the control node, nor has the address that the others try: nothing more need be told of it.
    lost: bool = False
    listeners: Sequence[Mapping[str, Any]] = ()
    probes: Sequence[Mapping[str, Any]] = ()
    resolved: Mapping[str, Sequence[str] | None] = field(default_factory=dict)
    hosts_file: Sequence[Mapping[str, Any]] = ()


def find_problems_between(
    hosts: Mapping[str, Seen], members: Iterable[str], domain: str, find_address: Callable[[str], str]
) -> dict[str, list[Problem]]:
    """Return what is wrong with the ways between hosts and with what they take each other's names for.

    ``members`` are all hosts of the cluster, of which ``hosts`` were looked at; ``find_address`` tells of the others.
    """
    names: dict[str, str] = {}
    for member in members:
        for name in (member, f"{member}.{domain}"):
            names[name.lower()] = member
    found: dict[str, list[Problem]] = {}
    for host, seen in hosts.items():
        problems = [*_way_problems(seen, hosts), *_name_problems(host, seen, hosts, names, find_address)]
        if problems:
            found[host] = problems
    return found


def _way_problems(seen: Seen, hosts: Mapping[str, Seen]) -> list[Problem]:
    blocked: dict[tuple[str, str, str, str], list[str]] = {}
    problems = []
    for probe in seen.probes:
        peer = hosts.get(probe["peer"])
        if peer is not None and peer.lost:
            continue
        shown = f"{probe['peer']} ({probe['address']})"
        if probe["protocol"] == "mtu":
            if probe["state"] == "too_big":
                limit = f", no more than {probe['detail']} bytes do" if probe["detail"] else ", small ones do"
                problems.append(
                    Problem(
                        "mtu",
                        f"packets of {probe['size']} bytes don't get to {shown}{limit}",
                        "give all interfaces and switches of cluster_network the same MTU",
                    )
                )
            continue
        state = _way_state(probe, peer)
        if state not in ("open", "closed"):
            key = (probe["peer"], shown, state, probe["detail"])
            text = f"{probe['port']}/{probe['protocol']} ({probe['service']})"
            blocked.setdefault(key, []).append(text)
    for (name, shown, state, detail), ports in blocked.items():
        listed = f"port {ports[0]}" if len(ports) == 1 else f"ports {', '.join(ports)}"
        texts = {
            "silent": f"no answer from {shown} on {listed}",
            "rejected": f"a firewall refuses {listed} of {shown}",
            "error": f"{listed} of {shown} can't be reached: {detail}",
        }
        remedy = f"let cluster_network through the firewall on {name}, on this host and between them"
        if name not in hosts:
            remedy = f"check that {name} runs; if it does, {remedy}"
        problems.append(Problem("ports_open", texts[state], remedy))
    return problems


def _way_state(probe: Mapping[str, Any], peer: Seen | None) -> str:
    state = str(probe["state"])
    listens = peer is not None and any(
        (each["port"], each["protocol"]) == (probe["port"], probe["protocol"])
        and each["address"] in ("0.0.0.0", "::", probe["address"])
        for each in peer.listeners
    )
    if state == "closed" and listens and probe["protocol"] == "tcp":
        return "rejected"
    # What listens on UDP need not answer.
    if state == "silent" and probe["protocol"] == "udp" and (listens or peer is None):
        return "open"
    return state


def _name_problems(
    host: str, seen: Seen, hosts: Mapping[str, Seen], names: Mapping[str, str], find_address: Callable[[str], str]
) -> list[Problem]:
    problems = []
    told = set()

    def expected(node: str) -> str:
        return hosts[node].address if node in hosts else find_address(node)

    def is_wrong(node: str, address: str) -> bool:
        peer = hosts.get(node)
        if node == host and address.startswith("127."):
            return False
        # An address of another network of the same host is right too.
        own = peer.own_addresses if peer is not None else ()
        return bool(expected(node)) and address != expected(node) and address not in own

    for line in seen.hosts_file:
        for name in line["names"]:
            node = names.get(name.lower())
            # Lines with the host's own name are put aside by the role baseline.
            if node is None or node == host or (node, line["address"]) in told:
                continue
            told.add((node, line["address"]))
            if is_wrong(node, line["address"]):
                problems.append(
                    Problem(
                        "names",
                        f"{name} is {line['address']} in /etc/hosts, and {expected(node)} in the inventory",
                        "correct the line or take it out, or set cluster_address",
                    )
                )
    in_file = {name.lower() for line in seen.hosts_file for name in line["names"]}
    for name, addresses in seen.resolved.items():
        node = names.get(name.lower())
        if node is None or name.lower() in in_file or not addresses:
            continue
        if all(is_wrong(node, address) for address in addresses):
            problems.append(
                Problem(
                    "names",
                    f"{name} resolves to {' and '.join(addresses)}, and is {expected(node)} in the inventory",
                    "correct the name service, or set cluster_address",
                )
            )
    return problems
