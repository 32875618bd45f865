# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host is like, found without changing anything on it. Runs on the host."""

from __future__ import annotations

import grp
import json
import os
import platform
import pwd
import re
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._apt_sources import (
    asked_host,
    check_source,
    parse_proxies,
    read_sources,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._net_probe import Target, in_background, probe, resolve
from ansible_collections.turnkey.hpc.plugins.module_utils._nfs import Support, parse_mountinfo, unwanted_filesystems

__all__ = [
    "Questions",
    "find_programs",
    "parse_hosts_file",
    "parse_interfaces",
    "parse_listeners",
    "parse_memory_mb",
    "parse_os_release",
    "parse_packages",
    "read_accounts",
    "survey",
]

Run = Callable[[list[str]], "tuple[int, str, str]"]
Find = Callable[[Any], Any]


def parse_os_release(text: str) -> dict[str, str]:
    """Return name (as in ``Debian``) and version (as in ``12``) from the content of /etc/os-release."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.strip().partition("=")
        if not separator or key.startswith("#"):
            continue
        try:
            words = shlex.split(value)
        except ValueError:
            words = [value]
        values[key] = words[0] if words else ""
    name = values.get("ID", "")
    # NAME is "Debian GNU/Linux", ID is what every distribution keeps to one word.
    return {"name": name[:1].upper() + name[1:], "version": values.get("VERSION_ID", "")}


def parse_memory_mb(text: str) -> int | None:
    """Return the memory of the machine in MB from the content of /proc/meminfo."""
    for line in text.splitlines():
        key, _separator, value = line.partition(":")
        if key == "MemTotal":
            return int(value.split()[0]) // 1024
    return None


def parse_interfaces(text: str) -> dict[str, list[str]]:
    """Return the IPv4 addresses (with prefix length) of each interface from the output of ``ip -json address``."""
    interfaces: dict[str, list[str]] = {}
    for link in json.loads(text or "[]"):
        name = link.get("ifname")
        if name:
            interfaces[name] = [
                f"{address['local']}/{address['prefixlen']}"
                for address in link.get("addr_info", [])
                if address.get("family") == "inet"
            ]
    return interfaces


def read_accounts(
    users: list[dict[str, Any]], find_user: Find, find_uid: Find, find_group: Find, find_gid: Find
) -> list[dict[str, Any]]:
    """Return for each of ``users`` who holds its name, its uid and its gid on this host (``None``: nobody).

    The functions look in the host's account database and raise ``KeyError`` for what isn't there.
    """

    def look(find: Find, key: Any, field: str) -> Any:
        try:
            return getattr(find(key), field)
        except KeyError:
            return None

    return [
        {
            "name": user["name"],
            "uid": user["uid"],
            "gid": user["gid"],
            "uid_of_name": look(find_user, user["name"], "pw_uid"),
            "name_of_uid": look(find_uid, user["uid"], "pw_name"),
            "gid_of_group": look(find_group, user["name"], "gr_gid"),
            "group_of_gid": look(find_gid, user["gid"], "gr_name"),
        }
        for user in users
    ]


@dataclass(frozen=True)
class Listener:
    """A socket that waits for packets. ``inode`` is what the files of its process are found by."""

    protocol: str
    port: int
    address: str
    uid: int
    inode: int


def parse_listeners(protocol: str, text: str, ports: Iterable[int]) -> list[Listener]:
    """Return who waits on ``ports``, from the content of /proc/net/tcp, tcp6, udp or udp6."""
    # TCP: LISTEN. UDP: not connected.
    waiting = "0A" if protocol == "tcp" else "07"
    wanted = set(ports)
    found = []
    for line in text.splitlines()[1:]:
        columns = line.split()
        if len(columns) < 10 or columns[3] != waiting:
            continue
        address, _separator, port = columns[1].rpartition(":")
        if int(port, 16) in wanted:
            found.append(
                Listener(protocol, int(port, 16), _address(address), uid=int(columns[7]), inode=int(columns[9]))
            )
    return found


def _address(digits: str) -> str:
    """Return an address of /proc/net, where each 32 bits are in the order of the processor."""
    words = [int(digits[start : start + 8], 16).to_bytes(4, sys.byteorder) for start in range(0, len(digits), 8)]
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, b"".join(words))


def parse_hosts_file(text: str, marker: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the IPv4 lines of a hosts file outside of the block of ``marker``, and all names inside of the block."""
    outside: list[dict[str, Any]] = []
    inside: list[str] = []
    in_block = False
    for line in text.splitlines():
        if line.strip() in (f"# BEGIN {marker}", f"# END {marker}"):
            in_block = line.strip().startswith("# BEGIN")
            continue
        words = line.partition("#")[0].split()
        if in_block:
            inside += words[1:]
        elif len(words) > 1 and ":" not in words[0]:
            outside.append({"address": words[0], "names": words[1:]})
    return outside, inside


def parse_packages(text: str, names: Iterable[str]) -> list[str]:
    """Return which of ``names`` (or ``name|alternative``) are not installed, from dpkg-query's names and states."""
    installed = {line.split()[0] for line in text.splitlines() if line.split()[1:] == ["installed"]}
    return [name for name in names if not installed & set(name.split("|"))]


def find_programs(inodes: Iterable[int], proc: Path) -> dict[int, str]:
    """Return the names of the programs that hold the sockets ``inodes``, as far as the user may see them."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, str] = {}
    for process in proc.glob("[0-9]*") if wanted else []:
        try:
            links = [os.readlink(link) for link in (process / "fd").iterdir()]  # noqa: PTH115 - a socket is no path
            held = [wanted[link] for link in links if link in wanted]
            if held:
                found.update(dict.fromkeys(held, (process / "comm").read_text().strip()))
        except OSError:
            # The process ended, or is another user's.
            continue
        if len(found) == len(wanted):
            break
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _interfaces(run: Run) -> dict[str, list[str]] | None:
    rc, out, _err = run(["ip", "-json", "address"])
    if rc != 0:
        return None
    try:
        return parse_interfaces(out)
    except ValueError:
        return None


def _disks(paths: list[str]) -> list[dict[str, Any]]:
    """Return the free space of each file system that holds one of ``paths``, with the paths it holds."""
    disks: dict[int, dict[str, Any]] = {}
    for path in paths:
        try:
            device = os.stat(path).st_dev  # noqa: PTH116 - the same for paths that are files
            space = os.statvfs(path)
        except OSError:
            continue
        disk = disks.setdefault(device, {"paths": [], "free_mb": space.f_bavail * space.f_frsize // 1024**2})
        disk["paths"].append(path)
    return list(disks.values())


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def _listeners(ports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: list[Listener] = []
    for protocol in ("tcp", "udp"):
        wanted = {int(port["port"]) for port in ports if port["protocol"] == protocol}
        for name in (protocol, f"{protocol}6") if wanted else ():
            found += parse_listeners(protocol, _read(f"/proc/net/{name}"), wanted)
    programs = find_programs({listener.inode for listener in found}, Path("/proc"))
    return [
        {
            "protocol": listener.protocol,
            "port": listener.port,
            "address": listener.address,
            "user": _user_name(listener.uid),
            # Root sees all processes, so what none of them holds is the kernel's own, as its NFS server is.
            "program": programs.get(listener.inode, "kernel" if os.geteuid() == 0 else ""),
        }
        for listener in found
    ]


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _mtu(interfaces: Mapping[str, Sequence[str]] | None, address: str) -> int:
    for name, addresses in (interfaces or {}).items():
        if address in (own.partition("/")[0] for own in addresses):
            digits = _read(f"/sys/class/net/{name}/mtu").strip()
            return int(digits) if digits.isdigit() else 1500
    return 1500


def _earlier(block_names: Sequence[str], ours: str) -> dict[str, Any]:
    """Return what an earlier run left: the domain of the nodes, and the key that signs logins."""
    domains = [name.partition(".")[2] for name in block_names if "." in name]
    return {"domain": domains[0] if domains else "", "authority": " ".join(_read(ours).split()[:2])}


def _own_files(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if "turnkey.hpc" in _read(path)[:300]]


@dataclass(frozen=True)
class Questions:
    """What to find out besides what is always told.

    ``ports``: who listens there ({port, protocol}). ``targets``: whether packets get there from ``source``
    ({address, port, protocol}). ``names``: their addresses. ``packages``: whether they are installed, and if not,
    whether there are sources that answer. ``exports``: whether NFS can serve these paths. ``own_files``: which of these
    were written by the collection. ``kernel``: whether to ask the kernel for its features.
    """

    paths: Sequence[str] = ("/", "/var")
    users: Sequence[dict[str, Any]] = ()
    ports: Sequence[Mapping[str, Any]] = ()
    targets: Sequence[Mapping[str, Any]] = ()
    source: str = ""
    names: Sequence[str] = ()
    packages: Sequence[str] = ()
    exports: Sequence[str] = ()
    own_files: Sequence[str] = ()
    kernel: bool = False
    hosts_marker: str = "turnkey.hpc hosts"
    authority: str = "/etc/ssh/turnkey/user_ca.pub"


def _missing_packages(run: Run, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    # Its return code only tells that one of the names is unknown.
    query = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\\n"]
    rc, out, _err = run([*query, *(each for name in names for each in name.split("|"))])
    return [] if rc == 127 else parse_packages(out, names)


def survey(run: Run, questions: Questions) -> dict[str, Any]:
    """Return what this host is like. ``clock`` is read last, so that it is as fresh as can be for the caller."""
    started = time.monotonic()
    lookups = in_background(resolve, dict.fromkeys(questions.names))
    missing = _missing_packages(run, questions.packages)
    sources = read_sources() if missing else []
    proxies = parse_proxies(run(["apt-config", "dump"])[1]) if sources else {}
    asked = in_background(lambda source: check_source(source, proxies), sources)
    # Looked up a second time only to tell a name server that hangs from a source that hangs.
    named = in_background(resolve, {asked_host(source, proxies) for source in sources} - {""})
    uid = os.geteuid()
    interfaces = _interfaces(run)
    outside, inside = parse_hosts_file(_read("/etc/hosts"), questions.hosts_marker)
    found: dict[str, Any] = {
        "os": parse_os_release(_read("/etc/os-release")),
        "python": platform.python_version(),
        "cores": _cores(),
        "memory_mb": parse_memory_mb(_read("/proc/meminfo")),
        "disks": _disks(list(questions.paths)),
        "interfaces": interfaces,
        "mtu": _mtu(interfaces, questions.source),
        "host_name": socket.gethostname(),
        "user": {"name": _user_name(uid), "uid": uid},
        "accounts": read_accounts(list(questions.users), pwd.getpwnam, pwd.getpwuid, grp.getgrnam, grp.getgrgid),
        "hosts_file": outside[:1000],
        "earlier": _earlier(inside, questions.authority),
        "own_files": _own_files(questions.own_files),
        "listeners": _listeners(questions.ports),
        "kernel": _kernel(run) if questions.kernel else None,
        "exports": unwanted_filesystems(questions.exports, parse_mountinfo(_read("/proc/self/mountinfo")))
        if questions.exports
        else [],
        "missing_packages": missing,
        "sources": [],
    }
    targets = [Target(target["address"], target["protocol"], target["port"]) for target in questions.targets]
    found["outcomes"] = [
        {"state": outcome.state, "detail": outcome.detail} for outcome in probe(targets, questions.source, found["mtu"])
    ]
    addresses = lookups.finish()
    found["resolved"] = {name: addresses.get(name) for name in questions.names}
    answers, has_name = asked.finish(), named.finish()
    for source in sources:
        host = asked_host(source, proxies)
        state, detail = answers.get(source) or (
            ("connect", f"{host}: no answer") if host in has_name else ("dns", host)
        )
        found["sources"].append({"uri": _without_password(source.uri), "state": state, "detail": detail})
    found["seconds"] = round(time.monotonic() - started, 3)
    found["clock"] = time.time()
    return found


def _without_password(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri)


def _kernel(run: Run) -> dict[str, bool]:
    def with_stdin(argv: list[str], _stdin: str | None = None) -> tuple[int, str, str]:
        return run(argv)

    support = Support.of_this_host(with_stdin)
    return {"nfs_client": support.client, "nfs_server": support.server, "container": support.container}
