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
import shlex
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["parse_interfaces", "parse_memory_mb", "parse_os_release", "read_accounts", "survey"]

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


def survey(run: Run, paths: list[str], users: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what this host is like. ``clock`` is read last, so that it is as fresh as can be for the caller."""
    started = time.monotonic()
    uid = os.geteuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    found: dict[str, Any] = {
        "os": parse_os_release(_read("/etc/os-release")),
        "python": platform.python_version(),
        "cores": _cores(),
        "memory_mb": parse_memory_mb(_read("/proc/meminfo")),
        "disks": _disks(paths),
        "interfaces": _interfaces(run),
        "host_name": socket.gethostname(),
        "user": {"name": user, "uid": uid},
        "accounts": read_accounts(users, pwd.getpwnam, pwd.getpwuid, grp.getgrnam, grp.getgrgid),
    }
    found["seconds"] = round(time.monotonic() - started, 3)
    found["clock"] = time.time()
    return found
