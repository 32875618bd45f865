# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with an inventory as a whole, before any machine is asked."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._hostlist import fold, natural_key

__all__ = [
    "Inventory",
    "Problem",
    "Roles",
    "Setting",
    "check_cluster_name",
    "check_groups",
    "check_host_name",
    "check_hosts",
    "check_network",
    "check_path",
    "check_users",
    "check_variables",
    "find_problems",
    "nearest",
    "render",
    "shared_values",
]

MIN_UID, MAX_UID = 1000, 59999
# What cluster interfaces have: RFC 1918, and the shared range of RFC 6598 that some clouds and virtual networks use.
PRIVATE_NETWORKS = [
    ipaddress.IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
]

# Returns the messages of everything that is wrong with a value, given its name and its option of the argument spec.
CheckType = Callable[[str, Any, Mapping[str, Any]], "list[str]"]


@dataclass(frozen=True)
class Problem:
    """Something wrong: the variable, host or group; what is (with the value); what to do."""

    item: str
    problem: str
    remedy: str


@dataclass(frozen=True)
class Setting:
    """One value of a variable, and the hosts that have it. ``error`` says why a template gives none."""

    name: str
    value: Any
    hosts: Sequence[str]
    error: str = ""


@dataclass(frozen=True)
class Roles:
    """What the roles' argument specs say: every option, and the prefixes that belong to roles."""

    options: Mapping[str, Mapping[str, Any]]
    prefixes: tuple[str, ...]

    @classmethod
    def from_specs(cls, documents: Mapping[str, Any]) -> Roles:
        """Read the content of each role's ``meta/argument_specs.yml``."""
        options: dict[str, Mapping[str, Any]] = {}
        for document in documents.values():
            for spec in ((document or {}).get("argument_specs") or {}).values():
                for name, option in ((spec or {}).get("options") or {}).items():
                    options.setdefault(name, option or {})
        return cls(options, tuple(sorted(f"{role}_" for role in documents)))


@dataclass(frozen=True)
class Inventory:
    """What an inventory says: settings of the roles' variables, address of each host, members of each group."""

    settings: Sequence[Setting]
    addresses: Mapping[str, str]
    groups: Mapping[str, Sequence[str]]
    # Names, not values, of all variables: a missing one may be there, misspelt.
    names: Iterable[str] = ()
    extra_variables: Sequence[str] = field(default_factory=list)


def nearest(word: str, words: Iterable[str]) -> str:
    """Return a question with the name that was probably meant, or nothing."""
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.7)
    return f"did you mean {near[0]}?" if near else ""


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
        return [Problem("cluster_name", f"{name!r} is no text", f"{remedy}; put digits in quotes")]
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
    return [Problem("cluster_name", f"{name!r} {' and '.join(reasons)}", remedy)] if reasons else []


def check_network(value: Any) -> tuple[ipaddress.IPv4Network | None, list[Problem]]:
    """Judge ``cluster_network``, and return it if addresses can be compared with it."""
    item, example = "cluster_network", "write a private IPv4 network as in 10.20.0.0/24"
    if not isinstance(value, str) or "/" not in value:
        return None, [Problem(item, f"{value!r} is no network with a prefix length", example)]
    try:
        network = ipaddress.IPv4Network(value, strict=False)
    except ValueError:
        return None, [Problem(item, f"{value!r} is no IPv4 network", example)]
    problems = []
    if str(network.network_address) != value.partition("/")[0]:
        problems.append(Problem(item, f"{value!r} has host bits set", f"write {network}"))
    if not any(network.subnet_of(private) for private in PRIVATE_NETWORKS):
        private = ", ".join(str(private) for private in PRIVATE_NETWORKS)
        problems.append(Problem(item, f"{value!r} is no private network", f"take one inside {private}"))
    if network.prefixlen > 30:
        problems.append(Problem(item, f"{value!r} has no room for hosts", "take a prefix length of 30 or less"))
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
            problems.append(Problem(f"host {host}", f"the name {reason}", "rename it; ansible_host holds its address"))
        if not address:
            missing.append(host)
            continue
        try:
            parsed = ipaddress.IPv4Address(address)
        except ValueError:
            problems.append(Problem(f"host {host}", f"its address {address!r} is no IPv4 address", remedy))
            continue
        if network is None:
            continue
        if parsed not in network:
            problems.append(
                Problem(f"host {host}", f"its address {address} is outside of cluster_network {network}", remedy)
            )
        elif network.prefixlen <= 30 and parsed in (network.network_address, network.broadcast_address):
            kind = "network's own" if parsed == network.network_address else "broadcast"
            problems.append(
                Problem(f"host {host}", f"its address {address} is the {kind} address of {network}", remedy)
            )
    if missing:
        problems.append(
            Problem(
                f"host {_fold(missing)}", "has no cluster_address, and no ansible_host that is an IPv4 address", remedy
            )
        )
    for hosts in shared_values({host: host.lower() for host in addresses}).values():
        problems.append(
            Problem(f"host {hosts[0]}", f"differs from {', '.join(hosts[1:])} in case only", "rename all but one")
        )
    for address, hosts in shared_values(addresses).items():
        problems.append(
            Problem(
                f"host {_fold(hosts)}", f"they have the same address {address}", "give each host an address of its own"
            )
        )
    return problems


def _fold(hosts: Sequence[str]) -> str:
    plain = [host for host in hosts if not check_host_name(host)]
    odd = sorted(set(hosts) - set(plain), key=natural_key)
    return ",".join(([fold(plain)] if plain else []) + odd)


def check_users(users: Any, option: Mapping[str, Any]) -> list[Problem]:
    """Judge ``cluster_users``: names, ids, and that no key is misspelt."""
    item = "cluster_users"
    if not isinstance(users, list) or not all(isinstance(user, dict) for user in users):
        return [Problem(item, f"{_shorten(users)} is no list of accounts", "write a list of {name: alice, uid: 2001}")]
    problems = []
    uids: dict[str, str] = {}
    names: dict[str, str] = {}
    for position, user in enumerate(users, start=1):
        name, uid = user.get("name"), user.get("uid")
        who = f"{item}[{name if isinstance(name, str) and name else position}]"
        problems += _unknown_keys(who, user, option.get("options") or {})
        if name is None:
            problems.append(Problem(who, "has no name", "give it a name"))
        elif not isinstance(name, str) or not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", name):
            problems.append(
                Problem(
                    who,
                    f"{name!r} is no legal login name",
                    "use 1 to 32 of a-z, 0-9, '-' and '_', beginning with a letter",
                )
            )
        else:
            names[f"{position} {name}"] = name
        number = _integer(uid)
        if uid is None:
            problems.append(Problem(who, "has no uid", f"give it a uid of {MIN_UID} to {MAX_UID}"))
        elif number is None or not MIN_UID <= number <= MAX_UID:
            problems.append(
                Problem(who, f"uid {uid!r} is no number of {MIN_UID} to {MAX_UID}", "give it a uid in that range")
            )
        elif user.get("state", "present") != "absent":
            uids[f"{position} {name}"] = str(number)
    for name in shared_values(names):
        problems.append(
            Problem(f"{item}[{name}]", f"the name {name!r} is there more than once", "keep one of the entries")
        )
    for uid, keys in shared_values(uids).items():
        both = [key.partition(" ")[2] for key in keys]
        problems.append(
            Problem(f"{item}[{both[0]}]", f"uid {uid} belongs to {' and '.join(both)}", "give each a uid of its own")
        )
    return problems


def _integer(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return int(str(value))
    except ValueError:
        return None


def _unknown_keys(item: str, value: Any, options: Mapping[str, Any]) -> list[Problem]:
    """Find misspelt keys at any depth of a structure that the spec describes."""
    problems = []
    if not options or not isinstance(value, dict):
        return []
    for key, inner in value.items():
        if key not in options:
            remedy = nearest(str(key), options) or f"the keys are {', '.join(options)}"
            problems.append(Problem(item, f"key {str(key)!r} is unknown", remedy))
            continue
        inner_options = (options[key] or {}).get("options") or {}
        for part in inner if isinstance(inner, list) else [inner]:
            problems += _unknown_keys(f"{item}.{key}", part, inner_options)
    return problems


def check_path(name: str, value: Any) -> list[Problem]:
    """Judge a directory that must be named from the root on."""
    if isinstance(value, str) and value.startswith("/") and value.rstrip("/") and ".." not in value.split("/"):
        return []
    return [Problem(name, f"{value!r} is no absolute path of a directory below /", "write it as in /shared")]


def check_groups(groups: Mapping[str, Sequence[str]], shared_dir_source: Any) -> list[Problem]:
    """Judge who plays the parts that a cluster can't do without."""
    problems = []
    if not groups.get("controller"):
        problems.append(
            Problem(
                "group controller",
                "has no host, so the cluster has no head",
                "put the head node into the group controller",
            )
        )
    servers = sorted(groups.get("nfs_server") or [], key=natural_key)
    listed = f" ({_fold(servers)})" if servers else ""
    if shared_dir_source == "nfs" and len(servers) != 1:
        problems.append(
            Problem(
                "group nfs_server",
                f"has {len(servers)} hosts{listed}, and cluster_shared_dir_source is nfs",
                "put exactly one host into it, or set cluster_shared_dir_source: provided",
            )
        )
    return problems


def check_variables(inventory: Inventory, roles: Roles, check_type: CheckType) -> list[Problem]:
    """Judge every variable that belongs to a role: whether it exists, and whether its value fits."""
    problems = []
    everywhere = len(inventory.addresses)
    for setting in inventory.settings:
        name = setting.name
        option = roles.options.get(name)
        if option is None:
            if name not in inventory.extra_variables:
                hint = nearest(name, roles.options)
                free = "name it site_... or list it in cluster_extra_variables if it is your own"
                where = "" if len(setting.hosts) == everywhere else f" (set for {_fold(setting.hosts)})"
                problems.append(
                    Problem(name, f"is not a variable of any role{where}", f"{hint} else {free}" if hint else free)
                )
            continue
        where = "" if len(setting.hosts) == everywhere else f" for {_fold(setting.hosts)}"
        if setting.error:
            problems.append(
                Problem(
                    name, f"its template fails{where}: {setting.error}", "correct the expression, or set what it uses"
                )
            )
            continue
        secret = bool(option.get("no_log"))
        found = [] if name == "cluster_users" else _unknown_keys(name, setting.value, option.get("options") or {})
        if isinstance(setting.value, list) and name != "cluster_users":
            for number, element in enumerate(setting.value, start=1):
                found += _unknown_keys(f"{name}[{number}]", element, option.get("options") or {})
        if not found and check_type(name, setting.value, option):
            messages = check_type(name, setting.value, option)
            shown = "its value (hidden)" if secret else _shorten(setting.value)
            detail = "" if secret or not option.get("options") else f": {'; '.join(messages)}"
            found = [Problem(name, f"{shown} does not fit{where}{detail}", _wanted(option))]
        problems += found
    return problems


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _wanted(option: Mapping[str, Any]) -> str:
    if option.get("choices"):
        return f"choose one of {', '.join(str(choice) for choice in option['choices'])}"
    kind = str(option.get("type", "str"))
    if kind == "list" and option.get("elements"):
        kind = f"list of {option['elements']}"
    return f"give it a value of type {kind}"


def _check_shared(inventory: Inventory, roles: Roles) -> list[Problem]:
    """Judge the variables that all hosts share."""
    problems: list[Problem] = []
    values: dict[str, list[Setting]] = {}
    for setting in inventory.settings:
        if not setting.error:
            values.setdefault(setting.name, []).append(setting)
    broken = {setting.name for setting in inventory.settings if setting.error}
    for name in ("cluster_name", "cluster_network"):
        found = values.get(name, [])
        having = {host for setting in found for host in setting.hosts}
        without = [host for host in inventory.addresses if host not in having]
        if not found and name not in broken:
            near = nearest(name, inventory.names)
            remedy = f"set it in group_vars/all.yml beside the inventory{f'; {near}' if near else ''}"
            problems.append(Problem(name, "is not set", remedy))
        elif found and without and name not in broken:
            problems.append(Problem(name, f"is not set for {_fold(without)}", "set it for the group all"))
        distinct = {str(setting.value): setting for setting in found}
        if len(distinct) > 1:
            listed = ", ".join(f"{setting.value!r} for {_fold(setting.hosts)}" for setting in distinct.values())
            problems.append(Problem(name, f"differs between hosts: {listed}", "set one value for the group all"))
        problems += [entry for setting in distinct.values() for entry in _check_one(setting)]
    network = None
    if values.get("cluster_network"):
        network = check_network(values["cluster_network"][0].value)[0]
    problems += check_hosts(inventory.addresses, network)
    for setting in values.get("cluster_users", []):
        problems += check_users(setting.value, roles.options.get("cluster_users", {}))
    for setting in values.get("cluster_shared_dir", []):
        problems += check_path(setting.name, setting.value)
    sources = [setting.value for setting in values.get("cluster_shared_dir_source", [])]
    problems += check_groups(inventory.groups, sources[0] if sources else "nfs")
    return problems


def _check_one(setting: Setting) -> list[Problem]:
    return check_cluster_name(setting.value) if setting.name == "cluster_name" else check_network(setting.value)[1]


def find_problems(inventory: Inventory, roles: Roles, check_type: CheckType) -> list[Problem]:
    """Return everything that is wrong with ``inventory``, sorted, each problem once."""
    if not inventory.addresses:
        return [
            Problem(
                "the inventory",
                "has no hosts",
                "name it with -i; machines that are to be created exist after playbooks/provision.yml",
            )
        ]
    problems = _check_shared(inventory, roles)
    told = {problem.item.partition("[")[0] for problem in problems}
    # A value that was found wrong above need not be called wrong in other words.
    problems += [
        problem
        for problem in check_variables(inventory, roles, check_type)
        if problem.item.partition("[")[0] not in told
    ]
    return sorted(set(problems), key=lambda problem: (natural_key(problem.item), problem.problem))


def render(problems: Sequence[Problem]) -> str:
    """Return the report."""
    noun = "problem" if len(problems) == 1 else "problems"
    lines = [f"The inventory has {len(problems)} {noun}. Nothing was changed.", ""]
    for problem in problems:
        lines += [f"- {problem.item}: {problem.problem}", f"  Remedy: {problem.remedy}"]
    return "\n".join(lines)
