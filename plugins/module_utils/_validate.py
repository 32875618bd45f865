# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with an inventory as a whole, before any machine is asked."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._entry import Problem, sort_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._hostlist import natural_key
from ansible_collections.turnkey.hpc.plugins.module_utils._old_layout import OLD_GROUPS, PRIVATE_NETWORKS
from ansible_collections.turnkey.hpc.plugins.module_utils._variable_check import (
    Setting,
    Specs,
    check_settings,
    fold_hosts,
    is_template,
)

__all__ = [
    "Inventory",
    "Problem",
    "Setting",
    "check_cluster_name",
    "check_groups",
    "check_host_name",
    "check_hosts",
    "check_network",
    "check_path",
    "check_servers",
    "check_users",
    "find_problems",
    "render",
    "shared_values",
]

MIN_UID, MAX_UID = 1000, 59999


@dataclass(frozen=True)
class Inventory:
    """What an inventory says: settings of variables, address of each host, members of each group."""

    settings: Sequence[Setting]
    addresses: Mapping[str, str]
    groups: Mapping[str, Sequence[str]]
    extra_variables: Sequence[str] = field(default_factory=list)


def _problem(item: str, problem: str, remedy: str) -> Problem:
    return Problem("", f"{item}: {problem}", remedy, item)


def shared_values(values: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the values that several keys have, each with its keys in natural order. Empty values don't count."""
    keys_of: dict[str, list[str]] = {}
    for key, value in values.items():
        if value:
            keys_of.setdefault(value, []).append(key)
    return {value: sorted(keys, key=natural_key) for value, keys in keys_of.items() if len(keys) > 1}


def check_host_name(name: str) -> str:
    """Return why ``name`` can't be a host name, or nothing."""
    odd = sorted(set(re.sub(r"[A-Za-z0-9-]", "", name)))
    if odd:
        return f"has {_characters(odd)}, and may have letters, digits and '-' only"
    if not name or len(name) > 63:
        return f"has {len(name)} characters, and may have 1 to 63"
    if name[0] == "-" or name[-1] == "-":
        return "begins or ends with '-'"
    if name.isdigit():
        return "has digits only, so that it would be taken for an address"
    return ""


def _characters(characters: Sequence[str]) -> str:
    noun = "the character" if len(characters) == 1 else "the characters"
    return f"{noun} {' '.join(repr(character) for character in characters)}"


def check_cluster_name(name: Any) -> list[Problem]:
    """Judge the cluster's name, which becomes part of machine names, labels and directories."""
    remedy = "use 1 to 20 of a-z, 0-9 and '-', beginning with a letter, as in lab-2"
    if not isinstance(name, str):
        return [_problem("cluster_name", f"{name!r} is no text", f"{remedy}; put digits in quotes")]
    reasons = []
    odd = sorted(set(re.sub(r"[a-z0-9-]", "", name)))
    if odd:
        reasons.append(f"has {_characters(odd)}")
    if not name or len(name) > 20:
        reasons.append(f"has {len(name)} characters")
    if name[:1].isdigit() or name.startswith("-"):
        reasons.append(f"begins with {name[0]!r}")
    if name.endswith("-"):
        reasons.append("ends with '-'")
    return [_problem("cluster_name", f"{name!r} {' and '.join(reasons)}", remedy)] if reasons else []


def check_network(value: Any) -> tuple[ipaddress.IPv4Network | None, list[Problem]]:
    """Judge ``cluster_network``, and return it if addresses can be compared with it."""
    item, example = "cluster_network", "write a private IPv4 network as in 10.20.0.0/24"
    if not isinstance(value, str) or "/" not in value:
        return None, [_problem(item, f"{value!r} is no network with a prefix length", example)]
    try:
        network = ipaddress.IPv4Network(value, strict=False)
    except ValueError:
        return None, [_problem(item, f"{value!r} is no IPv4 network", example)]
    problems = []
    if str(network.network_address) != value.partition("/")[0]:
        problems.append(_problem(item, f"{value!r} has host bits set", f"write {network}"))
    if not any(network.subnet_of(private) for private in PRIVATE_NETWORKS):
        private = ", ".join(str(private) for private in PRIVATE_NETWORKS)
        problems.append(_problem(item, f"{value!r} is no private network", f"take one inside {private}"))
    if network.prefixlen > 30:
        problems.append(_problem(item, f"{value!r} has no room for hosts", "take a prefix length of 30 or less"))
    return network, problems


def check_hosts(addresses: Mapping[str, str], network: ipaddress.IPv4Network | None) -> list[Problem]:
    """Judge names and ``addresses`` (empty: none given) of all hosts together."""
    problems = []
    inside = f"in {network}" if network else "in cluster_network"
    remedy = f"set cluster_address of the host to its address {inside}"
    missing = []
    for host, address in addresses.items():
        reason = check_host_name(host)
        if reason:
            problems.append(_problem(f"host {host}", f"the name {reason}", "rename it; ansible_host holds its address"))
        if not address:
            missing.append(host)
            continue
        try:
            parsed = ipaddress.IPv4Address(address)
        except ValueError:
            problems.append(_problem(f"host {host}", f"its address {address!r} is no IPv4 address", remedy))
            continue
        if network is None:
            continue
        if parsed not in network:
            problems.append(
                _problem(f"host {host}", f"its address {address} is outside of cluster_network {network}", remedy)
            )
        elif network.prefixlen <= 30 and parsed in (network.network_address, network.broadcast_address):
            kind = "network's own" if parsed == network.network_address else "broadcast"
            problems.append(
                _problem(f"host {host}", f"its address {address} is the {kind} address of {network}", remedy)
            )
    if missing:
        problems.append(
            _problem(
                f"host {fold_hosts(missing)}",
                "has no cluster_address, and no ansible_host that is an IPv4 address",
                remedy,
            )
        )
    for hosts in shared_values({host: host.lower() for host in addresses}).values():
        problems.append(
            _problem(f"host {hosts[0]}", f"differs from {', '.join(hosts[1:])} in case only", "rename all but one")
        )
    for address, hosts in shared_values(addresses).items():
        problems.append(
            _problem(
                f"host {fold_hosts(hosts)}",
                f"they have the same address {address}",
                "give each host an address of its own",
            )
        )
    return problems


def check_users(users: Any) -> list[Problem]:
    """Judge ``cluster_users`` beyond what its argument spec says: names and ids that are legal, and unique."""
    item = "cluster_users"
    problems = []
    uids: dict[str, str] = {}
    names: dict[str, str] = {}
    accounts = users if isinstance(users, list) else []
    for position, user in enumerate(accounts, start=1):
        if not isinstance(user, dict):
            continue
        name, uid = user.get("name"), user.get("uid")
        who = f"{item}[{name if isinstance(name, str) and name else position}]"
        if name is not None and not (isinstance(name, str) and re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", name)):
            remedy = "use 1 to 32 of a-z, 0-9, '-' and '_', beginning with a letter"
            problems.append(_problem(who, f"{name!r} is no legal login name", remedy))
        elif name is not None:
            names[f"{position} {name}"] = name
        if isinstance(uid, bool) or not str(uid).isdecimal():
            continue
        number = int(str(uid))
        if not MIN_UID <= number <= MAX_UID:
            problems.append(
                _problem(who, f"uid {uid!r} is not one of {MIN_UID} to {MAX_UID}", "give it a uid in that range")
            )
        elif user.get("state", "present") != "absent":
            uids[f"{position} {name}"] = str(number)
    for name in shared_values(names):
        problems.append(
            _problem(f"{item}[{name}]", f"the name {name!r} is there more than once", "keep one of the entries")
        )
    for uid, keys in shared_values(uids).items():
        both = [key.partition(" ")[2] for key in keys]
        problems.append(
            _problem(f"{item}[{both[0]}]", f"uid {uid} belongs to {' and '.join(both)}", "give each a uid of its own")
        )
    return problems


def check_path(name: str, value: Any) -> list[Problem]:
    """Judge a directory that must be named from the root on."""
    if isinstance(value, str) and value.startswith("/") and value.rstrip("/") and ".." not in value.split("/"):
        return []
    return [_problem(name, f"{value!r} is no absolute path of a directory below /", "write it as in /shared")]


def _old_head(groups: Mapping[str, Sequence[str]]) -> str:
    old = [group.name for group in OLD_GROUPS if "controller" in group.groups and groups.get(group.name)]
    return f"; the old group {old[0]} means that only in files that turnkey.hpc.static reads" if old else ""


def check_groups(groups: Mapping[str, Sequence[str]], shared_dir_source: Any) -> list[Problem]:
    """Judge who plays the parts that a cluster can't do without."""
    problems = []
    if not groups.get("controller"):
        problems.append(
            _problem(
                "group controller",
                "has no host, so the cluster has no head",
                f"put the head node into the group controller{_old_head(groups)}",
            )
        )
    servers = sorted(groups.get("nfs_server") or [], key=natural_key)
    listed = f" ({fold_hosts(servers)})" if servers else ""
    if shared_dir_source == "nfs" and len(servers) != 1:
        problems.append(
            _problem(
                "group nfs_server",
                f"has {len(servers)} hosts{listed}, and cluster_shared_dir_source is nfs",
                "put exactly one host into it, or set cluster_shared_dir_source: provided",
            )
        )
    return problems


def check_servers(name: str, hosts: Sequence[Any], groups: Mapping[str, Sequence[str]]) -> list[Problem]:
    """Judge whether ``hosts``, which variable ``name`` makes servers of Slurm, are where playbooks look for these."""
    lost = [str(host) for host in hosts if host not in groups.get("controller", [])]
    if not lost:
        return []
    what = f"{fold_hosts(lost)} {'is' if len(lost) == 1 else 'are'} not in the group controller"
    return [_problem(name, f"{what}, whose hosts run Slurm's servers", "put the host into that group, after the head")]


def _check_shared(inventory: Inventory) -> list[Problem]:
    """Judge what all hosts share, and names, addresses, accounts and groups, beyond what argument specs say."""
    problems: list[Problem] = []
    values: dict[str, list[Setting]] = {}
    for setting in inventory.settings:
        if not setting.error and not is_template(setting.value):
            values.setdefault(setting.name, []).append(setting)
    for name in ("cluster_name", "cluster_network"):
        distinct = {str(setting.value): setting for setting in values.get(name, [])}
        if len(distinct) > 1:
            listed = ", ".join(f"{setting.value!r} for {fold_hosts(setting.hosts)}" for setting in distinct.values())
            problems.append(_problem(name, f"differs between hosts: {listed}", "set one value for the group all"))
        for setting in distinct.values():
            found = check_cluster_name(setting.value) if name == "cluster_name" else check_network(setting.value)[1]
            problems += _located(found, setting)
    network = None
    if values.get("cluster_network"):
        network = check_network(values["cluster_network"][0].value)[0]
    problems += check_hosts(inventory.addresses, network)
    for setting in values.get("cluster_users", []):
        problems += _located(check_users(setting.value), setting)
    for setting in values.get("cluster_shared_dir", []):
        problems += _located(check_path(setting.name, setting.value), setting)
    for setting in values.get("slurm_backup_controllers", []):
        hosts = setting.value if isinstance(setting.value, list) else []
        problems += _located(check_servers(setting.name, hosts, inventory.groups), setting)
    for setting in values.get("slurm_database_host", []):
        problems += _located(check_servers(setting.name, [setting.value], inventory.groups), setting)
    sources = [setting.value for setting in values.get("cluster_shared_dir_source", [])]
    problems += check_groups(inventory.groups, sources[0] if sources else "nfs")
    return problems


def _located(problems: Sequence[Problem], setting: Setting) -> list[Problem]:
    return [replace(problem, origin=setting.origin) for problem in problems]


def find_problems(inventory: Inventory, specs: Specs, roles_by_group: Mapping[str, Collection[str]]) -> list[Problem]:
    """Return everything that is wrong with ``inventory``, sorted, each problem once."""
    if not inventory.addresses:
        remedy = "name it with -i; machines that are to be created exist after playbooks/provision.yml"
        return [_problem("the inventory", "has no hosts", remedy)]
    problems = check_settings(inventory.settings, inventory.groups, specs, roles_by_group, inventory.extra_variables)
    # A value that was found wrong above need not be called wrong in other words.
    told = {problem.item for problem in problems}
    problems += [problem for problem in _check_shared(inventory) if problem.item not in told]
    return sort_problems(problems)


def render(problems: Sequence[Problem]) -> str:
    """Return the report."""
    noun = "problem" if len(problems) == 1 else "problems"
    lines = [f"The inventory has {len(problems)} {noun}. Nothing was changed.", ""]
    for problem in problems:
        lines += [f"- {problem.origin}: {problem.text}" if problem.origin else f"- {problem.text}"]
        lines += [f"  Remedy: {problem.remedy}"]
    return "\n".join(lines)
