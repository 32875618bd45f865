# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would go wrong on a host, decided from a survey of it, and the report over all hosts."""

from __future__ import annotations

import difflib
import ipaddress
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._hostlist import fold, natural_key
from ansible_collections.turnkey.hpc.plugins.module_utils._validate import check_host_name, shared_values

__all__ = [
    "CHECKS",
    "Problem",
    "Report",
    "Requirements",
    "build_report",
    "check_ignored",
    "clock_skew",
    "explain_connection_error",
    "explain_module_failure",
    "find_problems",
    "find_shared_problems",
    "judge_sudo",
    "wanted_accounts",
]

# In the order in which the report names them, and a user solves them.
CHECKS = {
    "reachable": "the control node can log in",
    "python": "Python is there, and new enough",
    "survey": "the host can be looked at",
    "os": "the distribution and its release are supported",
    "kernel": "the running kernel has what the roles need",
    "sudo": "the login user may become root",
    "cores": "there are enough processors",
    "memory": "there is enough memory",
    "disk": "there is enough free space",
    "export": "NFS can export the shared directory",
    "host_name": "the name can be a host name, and is unique",
    "address": "the host has its address in the cluster's network, and no other host has it",
    "interface": "the interface exists and is in the cluster's network",
    "names": "nothing takes a node's name for another address",
    "clock": "the clock is that of the control node",
    "accounts": "names and ids of the cluster's users are free",
    "leftovers": "the host is no node of another cluster",
    "ports_free": "nobody listens where a service of the cluster will",
    "ports_open": "packets get through to the ports of other nodes",
    "mtu": "full-sized packets get through to other nodes",
    "dns": "the names of the package sources have addresses",
    "sources": "the package sources answer, if a package is missing",
}


@dataclass(frozen=True)
class Problem:
    """Something that would go wrong: the check that found it, what is (with the value), what to do."""

    id: str
    problem: str
    remedy: str

    def as_dict(self) -> dict[str, str]:
        """Return the problem as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Requirements:
    """What a host must be like."""

    supported_releases: Sequence[str]
    min_python: str
    min_cores: int
    min_memory_mb: int
    min_disk_gb: float
    max_clock_skew_seconds: float
    network: str
    address: str
    interface: str = ""
    # On a host that is a node already, whose disk has the packages on it.
    min_disk_configured_gb: float = 0


@dataclass(frozen=True)
class Report:
    """The end of preflight: whether all is well, and what to tell the user."""

    failed: bool
    text: str


def check_ignored(ignored: Iterable[str]) -> None:
    """Refuse names that are no checks."""
    for name in ignored:
        if name not in CHECKS:
            near = difflib.get_close_matches(name, CHECKS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InvalidInput(
                f"preflight_ignore names {name!r}, which is no check.", f"{hint}the checks are {', '.join(CHECKS)}."
            )


def wanted_accounts(users: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return name, uid and gid of the accounts that will exist. Entries that can't be read are validate's business."""
    accounts = []
    for user in users:
        if user.get("state", "present") == "absent":
            continue
        try:
            uid = int(user["uid"])
            gid = uid if user.get("gid") is None else int(user["gid"])
            accounts.append({"name": str(user["name"]), "uid": uid, "gid": gid})
        except (KeyError, TypeError, ValueError):
            continue
    return accounts


def clock_skew(started: float, ended: float, clock: float, seconds: float) -> float:
    """Return by how many seconds the host's clock is certainly ahead (positive) or behind (negative).

    The host read ``clock`` at some moment between ``started + seconds`` and ``ended`` of the control node's clock,
    where ``seconds`` is what its own work took. What the round trip may explain is no skew.
    """
    earliest = min(started + seconds, ended)
    if clock > ended:
        return clock - ended
    if clock < earliest:
        return clock - earliest
    return 0.0


def judge_sudo(rc: int, error: str, password_given: bool) -> str:
    """Return ``ok`` or what is wrong with sudo, from the outcome of ``sudo true`` in the C locale."""
    if rc == 0:
        return "ok"
    low = error.lower()
    # 126 and 127 come from the shell, if there is no sudo.
    if rc in (126, 127) or ("not found" in low and "sudo:" in low):
        return "missing"
    if "not in the sudoers" in low or "not allowed" in low or "may not run" in low:
        return "not_allowed"
    if "incorrect password" in low or "try again" in low or "authentication failure" in low:
        return "wrong_password"
    if "password is required" in low or "a terminal is required" in low or "no password was provided" in low:
        return "wrong_password" if password_given else "password_required"
    return "failed"


def explain_connection_error(message: str) -> Problem:
    """Return the entry for a host that can't be reached or logged in to, from the connection plugin's message."""
    # ssh prints its banner and its warnings first, and the reason last.
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    reason = lines[-1] if lines else "no reason given"
    # Ansible's own sentences before it only say that ssh was used.
    reason = re.sub(r"^.*(?:via|over) ssh: ", "", reason).rstrip(".")
    low = message.lower()
    if "host key verification failed" in low or "host identification has changed" in low:
        what = "the host key is not the known one"
        remedy = "get the key's fingerprint from the machine's own console and put the key into known_hosts"
    elif "permission denied" in low or "authentication" in low or "incorrect password" in low:
        what, remedy = "login is refused", "check ansible_user and its key or password"
    else:
        what, remedy = (
            "can't be reached",
            "check that the machine runs, its ansible_host and ansible_port, and the network",
        )
    return Problem("reachable", f"{what}: {reason}", remedy)


def explain_module_failure(message: str, interpreter: str, probe: str, min_python: str) -> Problem:
    """Return the entry for a host that can be reached but didn't answer.

    ``probe`` is what ``<interpreter> --version`` printed there, if anything.
    """
    version = re.search(r"Python ([0-9][0-9.]*)", probe)
    if version is None:
        return Problem(
            "python",
            f"{interpreter} doesn't run",
            f"install Python {min_python} or newer (apt-get install python3), or set ansible_python_interpreter",
        )
    if _version(version[1]) < _version(min_python):
        return _old_python(version[1], min_python)
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return Problem(
        "survey",
        f"the survey failed: {' '.join(lines)[:300] or 'no reason given'}",
        "see what `ansible -m turnkey.hpc.host_survey -vvv` says of the host",
    )


def _old_python(version: str, wanted: str) -> Problem:
    return Problem(
        "python",
        f"Python is {version}, {wanted} or newer is wanted",
        f"install Python {wanted} or newer, or set ansible_python_interpreter",
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]+", text))


def find_problems(survey: Mapping[str, Any], requirements: Requirements) -> list[Problem]:
    """Return what would go wrong on the host that ``survey`` tells of."""
    return [
        *_python_problems(survey, requirements),
        *_os_problems(survey, requirements),
        *_sudo_problems(survey),
        *_size_problems(survey, requirements),
        *_network_problems(survey, requirements),
        *_clock_problems(survey, requirements),
        *_account_problems(survey),
    ]


def _python_problems(survey: Mapping[str, Any], requirements: Requirements) -> list[Problem]:
    version = survey["python"]
    return (
        [_old_python(version, requirements.min_python)] if _version(version) < _version(requirements.min_python) else []
    )


def _os_problems(survey: Mapping[str, Any], requirements: Requirements) -> list[Problem]:
    found = f"{survey['os']['name']} {survey['os']['version']}".strip()
    if found.lower() in (release.lower() for release in requirements.supported_releases):
        return []
    supported = ", ".join(requirements.supported_releases)
    return [
        Problem(
            "os",
            f"runs {found or 'an unknown system'}, supported: {supported}",
            "install a supported release; to try this one, add it to preflight_supported_releases",
        )
    ]


def _sudo_problems(survey: Mapping[str, Any]) -> list[Problem]:
    state, user = survey.get("sudo", "ok"), survey["user"]["name"]
    rule = f"'{user} ALL=(ALL) NOPASSWD: ALL' in /etc/sudoers.d"
    texts = {
        "missing": ("sudo is not installed, and the login user is {user}", "install sudo, or log in as root"),
        "password_required": (
            "sudo wants a password of {user}, and none was given",
            f"run with --ask-become-pass, set ansible_become_password in a vault, or put {rule}",
        ),
        "wrong_password": ("sudo refuses the become password of {user}", "give the right become password"),
        "not_allowed": ("{user} may not use sudo to become root", f"put {rule}, or log in as another user"),
        "failed": ("sudo fails for {user}: {error}", f"make `sudo true` work for {user}"),
    }
    if state == "ok":
        return []
    problem, remedy = texts[state]
    return [Problem("sudo", problem.format(user=user, error=survey.get("sudo_error", "no reason given")), remedy)]


def _size_problems(survey: Mapping[str, Any], requirements: Requirements) -> list[Problem]:
    problems = []
    if survey["cores"] < requirements.min_cores:
        problems.append(
            Problem(
                "cores",
                f"{_count(survey['cores'], 'core')}, at least {requirements.min_cores} wanted",
                "give it more cores, or lower preflight_min_cores",
            )
        )
    memory = survey["memory_mb"]
    if memory is not None and memory < requirements.min_memory_mb:
        problems.append(
            Problem(
                "memory",
                f"{memory} MB of memory, at least {requirements.min_memory_mb} MB wanted",
                "give it more memory, or lower preflight_min_memory_mb",
            )
        )
    configured = bool((survey.get("earlier") or {}).get("domain"))
    min_gb = requirements.min_disk_configured_gb if configured else requirements.min_disk_gb
    variable = "preflight_min_disk_configured_gb" if configured else "preflight_min_disk_gb"
    for disk in survey["disks"]:
        free_gb = disk["free_mb"] / 1024
        if free_gb < min_gb:
            problems.append(
                Problem(
                    "disk",
                    f"{free_gb:.1f} GB free on {' and '.join(disk['paths'])}, at least {min_gb:g} GB wanted",
                    f"free some space or enlarge the disk, or lower {variable}",
                )
            )
    return problems


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _network_problems(survey: Mapping[str, Any], requirements: Requirements) -> list[Problem]:
    interfaces = survey["interfaces"]
    if interfaces is None:
        return [
            Problem("interface", "its addresses can't be read: `ip -json address` fails", "install iproute2 5 or newer")
        ]
    try:
        network = ipaddress.IPv4Network(requirements.network)
    except ValueError as error:
        return [
            Problem("address", f"cluster_network is {requirements.network!r}: {error}", "write it as in 10.20.0.0/24")
        ]
    if requirements.interface:
        return _interface_problems(interfaces, requirements.interface, network)
    address = requirements.address
    remedy = "set cluster_address to the host's own address in cluster_network"
    if not address:
        return [Problem("address", "has no cluster_address", remedy)]
    try:
        inside = ipaddress.IPv4Address(address) in network
    except ValueError:
        return [Problem("address", f"cluster_address {address!r} is no IPv4 address", remedy)]
    problems = []
    if not inside:
        problems.append(
            Problem("address", f"cluster_address {address} is outside of cluster_network {network}", remedy)
        )
    if address not in (_bare(own) for owns in interfaces.values() for own in owns):
        problems.append(
            Problem(
                "address",
                f"no interface has cluster_address {address}; there are {_list_interfaces(interfaces)}",
                remedy,
            )
        )
    return problems


def _interface_problems(
    interfaces: Mapping[str, Sequence[str]], wanted: str, network: ipaddress.IPv4Network
) -> list[Problem]:
    if wanted not in interfaces:
        return [
            Problem(
                "interface",
                f"there is no interface {wanted}; there are {_list_interfaces(interfaces)}",
                "set preflight_interface to the interface of the cluster's network",
            )
        ]
    found = " and ".join(interfaces[wanted]) or "no address"
    if not any(ipaddress.IPv4Address(_bare(own)) in network for own in interfaces[wanted]):
        return [
            Problem(
                "interface",
                f"interface {wanted} has {found}, nothing in cluster_network {network}",
                "give it an address there, or set preflight_interface to another one",
            )
        ]
    return []


def _bare(address: str) -> str:
    return address.partition("/")[0]


def _list_interfaces(interfaces: Mapping[str, Sequence[str]]) -> str:
    shown = [
        f"{name} ({', '.join(addresses) or 'no address'})"
        for name, addresses in sorted(interfaces.items())
        if name != "lo"
    ]
    return ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "") if shown else "none besides lo"


def _clock_problems(survey: Mapping[str, Any], requirements: Requirements) -> list[Problem]:
    skew, allowed = survey["clock_skew"], requirements.max_clock_skew_seconds
    if abs(skew) <= allowed:
        return []
    side = "ahead of" if skew > 0 else "behind"
    return [
        Problem(
            "clock",
            f"the clock is at least {abs(skew):.0f} s {side} the control node's, {allowed:g} s allowed",
            "set the clock, and keep it with chrony or systemd-timesyncd, on the host or on the control node",
        )
    ]


def _account_problems(survey: Mapping[str, Any]) -> list[Problem]:
    """Find names and ids that others hold here. An account of the same name and the same ids is the cluster's own."""
    problems: list[Problem] = []
    for account in survey["accounts"]:
        name = account["name"]
        found = _holder_problems(name, "user", "uid", account["uid"], account["uid_of_name"], account["name_of_uid"])
        # A user and its group mostly have the same name and number: told once is enough.
        problems += found or _holder_problems(
            name, "group", "gid", account["gid"], account["gid_of_group"], account["group_of_gid"]
        )
    return problems


def _holder_problems(
    name: str, kind: str, id_kind: str, wanted: int, has: int | None, holder: str | None
) -> list[Problem]:
    problems = []
    if has not in (None, wanted):
        problems.append(
            Problem(
                "accounts",
                f"{kind} {name!r} has {id_kind} {has} here, cluster_users gives it {wanted}",
                f"set {id_kind}: {has} in cluster_users if that is free everywhere, or rename the {kind} here",
            )
        )
    if holder not in (None, name):
        problems.append(
            Problem(
                "accounts",
                f"{id_kind} {wanted} of {name!r} in cluster_users belongs to {kind} {holder!r} here",
                f"give {name!r} another {id_kind} in cluster_users, or give {holder!r} another one here",
            )
        )
    return problems


def find_shared_problems(addresses: Mapping[str, str]) -> dict[str, list[Problem]]:
    """Return what is wrong with names and ``addresses`` (empty: not known) when all hosts are seen together."""
    problems: dict[str, list[Problem]] = {}
    for host in addresses:
        reason = check_host_name(host)
        if reason:
            problems.setdefault(host, []).append(
                Problem(
                    "host_name",
                    f"the name {host!r} {reason}",
                    "rename it in the inventory; ansible_host holds its address",
                )
            )
    for name, hosts in shared_values({host: host.lower() for host in addresses}).items():
        for host in hosts:
            problems.setdefault(host, []).append(
                Problem(
                    "host_name", f"host names differ only in case: {', '.join(hosts)}", f"keep one host called {name}"
                )
            )
    for address, hosts in shared_values(addresses).items():
        for host in hosts:
            problems.setdefault(host, []).append(
                Problem(
                    "address",
                    f"they have the same cluster_address {address}",
                    "give each host an address of its own",
                )
            )
    return problems


# Widths of the columns. The whole stays below 120 characters, which is what people's terminals and CI logs have.
_WIDTHS = (22, 10, 42, 40)


def build_report(problems: Mapping[str, Iterable[Problem]], ignored: Iterable[str] = ()) -> Report:
    """Return the report over all hosts. ``problems`` has an entry for every host, be it empty."""
    ignored = list(ignored)
    check_ignored(ignored)
    hosts_of: dict[Problem, list[str]] = {}
    for host, found in problems.items():
        for problem in dict.fromkeys(found):
            hosts_of.setdefault(problem, []).append(host)
    order = list(CHECKS)
    rows = sorted(
        hosts_of.items(),
        key=lambda row: (order.index(row[0].id), natural_key(sorted(row[1], key=natural_key)[0]), row[0].problem),
    )
    wrong = [row for row in rows if row[0].id not in ignored]
    skipped = [row for row in rows if row[0].id in ignored]
    lines = []
    if wrong:
        bad_hosts = len({host for _problem, hosts in wrong for host in hosts})
        where = f"{bad_hosts} of {_count(len(problems), 'host')}"
        lines.append(f"Preflight found {_count(len(wrong), 'problem')} on {where}. Nothing was changed.")
        lines += ["", *_table(wrong), "", "Solve them and run again. preflight_ignore: [CHECK, ...] skips checks."]
    if ignored:
        lines += [""] if lines else []
        lines.append(f"Skipped because of preflight_ignore: {', '.join(sorted(set(ignored), key=order.index))}.")
        lines += ["They would have reported:", "", *_table(skipped)] if skipped else []
    return Report(bool(wrong), "\n".join(lines))


def _table(rows: Iterable[tuple[Problem, list[str]]]) -> list[str]:
    lines = _row("HOSTS", "CHECK", "PROBLEM", "REMEDY")
    for problem, hosts in rows:
        lines += _row(_host_cell(hosts), problem.id, problem.problem, problem.remedy)
    return lines


def _host_cell(hosts: list[str]) -> str:
    try:
        # A space lets long lists break into lines.
        return re.sub(r",(?![^\[]*\])", ", ", fold(hosts))
    except InvalidInput:
        return ", ".join(sorted(hosts, key=natural_key))


def _row(*cells: str) -> list[str]:
    columns = [textwrap.wrap(cell, width, break_on_hyphens=False) or [""] for cell, width in zip(cells, _WIDTHS)]
    height = max(len(column) for column in columns)
    lines = []
    for index in range(height):
        texts = [column[index] if index < len(column) else "" for column in columns]
        lines.append("  ".join(text.ljust(width) for text, width in zip(texts, _WIDTHS)).rstrip())
    return lines
