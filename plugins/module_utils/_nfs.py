# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NFS: what a kernel can do, exports in one shape, and mounts as systemd units. Pure: text in, decisions out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput, join_problems

__all__ = [
    "RETRY_UNIT",
    "UNIT_DIRECTORY",
    "Action",
    "Mount",
    "MountSpec",
    "Support",
    "Unit",
    "filesystem_type",
    "is_container",
    "mount_specs",
    "normalize_exports",
    "parse_mountinfo",
    "parse_unit",
    "plan_mounts",
    "render_unit",
    "systemd_unit_name",
    "unwanted_filesystems",
]

Run = Callable[[list[str], Optional[str]], "tuple[int, str, str]"]

UNIT_DIRECTORY = "/etc/systemd/system"
RETRY_UNIT = "turnkey-mount-retry@.service"

_HEADER = "# Written by turnkey.hpc (module nfs_mounts). Changes made here are lost."
_MADE_DIRECTORY = "# The mount point was made with this unit."
_MODULES = {"nfs": "nfs", "nfs4": "nfsv4", "nfsd": "nfsd"}
_CONTAINER_MARKERS = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
# File systems whose files have no handles that NFS could hand out.
_NOT_EXPORTABLE = frozenset({"overlay", "nfs", "nfs4"})

# One try of mount.nfs lasts a minute; then this unit starts it again, for ever. So a node waits for its server for as
# long as it takes, while shutdown is never held up longer than TimeoutSec by a server that is gone.
_RETRY_TEXT = f"""{_HEADER}
[Unit]
Description=Try to mount %I until the server answers
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=/bin/systemctl start %i.mount
Restart=on-failure
RestartSec=15
"""


def systemd_unit_name(path: str, suffix: str = "mount") -> str:
    """Return the name systemd demands for the unit of ``path``, as ``systemd-escape --path --suffix`` does."""
    trimmed = "/".join(part for part in path.split("/") if part)
    if not trimmed:
        return f"-.{suffix}"
    escaped = []
    for position, byte in enumerate(trimmed.encode()):
        character = chr(byte)
        if character == "/":
            escaped.append("-")
        elif (character == "." and position == 0) or not re.fullmatch(r"[A-Za-z0-9:_.]", character):
            escaped.append(f"\\x{byte:02x}")
        else:
            escaped.append(character)
    return f"{''.join(escaped)}.{suffix}"


@dataclass(frozen=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    path: str
    type: str
    source: str


def parse_mountinfo(text: str) -> list[Mount]:
    """Return the mounts in ``text``, the content of /proc/self/mountinfo, in its order."""
    mounts = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        if separator:
            fields = after.split(" ")
            mounts.append(Mount(_unescape(before.split(" ")[4]), fields[0], _unescape(fields[1])))
    return mounts


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), field)


def filesystem_type(path: str, mounts: Sequence[Mount]) -> str:
    """Return the type of the file system that ``path`` is on, or would be on if it were made."""
    best = Mount("", "", "")
    for mount in mounts:
        inside = path == mount.path or path.startswith(mount.path.rstrip("/") + "/")
        # Of two mounts on one path the later one covers the earlier.
        if inside and len(mount.path) >= len(best.path):
            best = mount
    return best.type


def unwanted_filesystems(paths: Iterable[str], mounts: Sequence[Mount]) -> list[str]:
    """Return a problem for each of ``paths`` that no NFS server can export."""
    problems = []
    for path in paths:
        kind = filesystem_type(path, mounts)
        if kind in _NOT_EXPORTABLE:
            problems.append(
                f"{path} is on a file system of type {kind}, which NFS can't export. "
                "Remedy: mount a disk or a volume there (ext4, xfs, ...), or export another path."
            )
    return problems


def is_container(environment_of_init: str, marker_exists: bool) -> bool:
    """Tell from the environment of process 1 and the usual marker files whether this is a container."""
    return marker_exists or any(entry.startswith("container=") for entry in environment_of_init.split("\0"))


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        # A hardened host may hide process 1 even from root.
        return ""


@dataclass(frozen=True)
class Support:
    """What the running kernel offers."""

    client: bool
    server: bool
    container: bool

    @classmethod
    def of_this_host(cls, run: Run) -> Support:
        """Return what the kernel that this runs on offers."""
        markers = any(Path(marker).exists() for marker in _CONTAINER_MARKERS)
        container = is_container(_read("/proc/1/environ"), markers)
        return cls.probe(_read("/proc/filesystems"), container, run)

    @classmethod
    def probe(cls, filesystems: str, container: bool, run: Run) -> Support:
        """Look into ``filesystems`` (/proc/filesystems), then ask modprobe for what could be loaded."""
        known = {line.split()[-1] for line in filesystems.splitlines() if line.split()}

        def available(name: str) -> bool:
            if name in known:
                return True
            return not container and run(["modprobe", "--dry-run", "--quiet", _MODULES[name]], None)[0] == 0

        # A container shares one nfsd with its host and all its neighbours: that is nobody's own server.
        return cls(client=available("nfs4"), server=not container and available("nfsd"), container=container)


_EXPORT_KEYS = {"path", "clients", "read_only", "root_squash", "options", "mode"}


def normalize_exports(exports: Sequence[Mapping[str, Any]], network: str, mode: str) -> list[dict[str, Any]]:
    """Return ``exports`` complete, with an ``id`` each and a ``directory`` in the shape of turnkey.hpc.config_files."""
    problems = []
    result = []
    seen = set()
    for number, export in enumerate(exports, start=1):
        unknown = sorted(set(export) - _EXPORT_KEYS)
        path = str(export.get("path") or "")
        if unknown:
            problems.append(
                f"NFS export {number} has unknown keys {', '.join(unknown)}. "
                f"Remedy: use {', '.join(sorted(_EXPORT_KEYS))}."
            )
        if not path.startswith("/") or path == "/" or re.search(r'["\\\n]', path):
            problems.append(f"NFS export {number} has the path '{path}'. Remedy: give an absolute path below /.")
        if path in seen:
            problems.append(f"The path '{path}' is exported twice. Remedy: list all of its clients in one export.")
        seen.add(path)
        clients = [str(client) for client in export.get("clients") or [network]]
        for client in clients:
            if not re.fullmatch(r"[A-Za-z0-9.:/_*?@-]+", client):
                problems.append(
                    f"NFS export '{path}' has the client '{client}'. Remedy: give a host name or a network."
                )
        result.append(
            {
                "id": number,
                "path": path,
                "clients": clients,
                "read_only": bool(export.get("read_only", False)),
                "root_squash": bool(export.get("root_squash", True)),
                "options": [str(option) for option in export.get("options") or []],
                "directory": {"path": path, "mode": str(export.get("mode") or mode), "owner": "root", "group": "root"},
            }
        )
    if problems:
        raise InvalidInput(join_problems(problems))
    return result


@dataclass(frozen=True)
class MountSpec:
    """One mount that is wanted."""

    path: str
    server: str
    export: str
    options: tuple[str, ...]

    @property
    def source(self) -> str:
        """What mount.nfs is given."""
        host = f"[{self.server}]" if ":" in self.server else self.server
        return f"{host}:{self.export}"

    @property
    def unit(self) -> str:
        """Name of the mount's unit."""
        return systemd_unit_name(self.path)


def mount_specs(mounts: Sequence[Mapping[str, Any]], default_options: Sequence[str]) -> list[MountSpec]:
    """Return the wanted mounts, or raise one error that lists all that is wrong with them."""
    problems = []
    specs = []
    seen = set()
    for mount in mounts:
        path = "/" + str(mount["path"]).strip("/")
        server = str(mount["server"] or "")
        options = tuple(str(option) for option in (mount.get("options") or default_options))
        if path == "/":
            problems.append("An NFS mount has the path '/'. Remedy: give a directory below /.")
        if path in seen:
            problems.append(f"Two NFS mounts have the path '{path}'. Remedy: keep one of them.")
        seen.add(path)
        if not re.fullmatch(r"[A-Za-z0-9_.:-]+", server):
            problems.append(f"The NFS mount '{path}' has the server '{server}'. Remedy: give its host name or address.")
        for text in (path, str(mount.get("export") or path), *options):
            if re.search(r"[\s%\\]", text):
                problems.append(f"The NFS mount '{path}' has '{text}'. Remedy: use no blank, '%' or backslash.")
        specs.append(MountSpec(path, server, str(mount.get("export") or path), options))
    if problems:
        raise InvalidInput(join_problems(problems))
    return specs


def render_unit(spec: MountSpec, made_directory: bool) -> str:
    """Return the mount unit of ``spec``.

    ``nofail`` keeps it out of the way of remote-fs.target, so neither the boot nor a login waits for it; ``_netdev``
    orders it after the network and has it unmounted before the network goes.
    """
    options = [option for option in spec.options if option not in ("_netdev", "nofail")]
    if not any(option.startswith("retry=") for option in options):
        options.append("retry=1")
    lines = [
        _HEADER,
        *([_MADE_DIRECTORY] if made_directory else []),
        "[Unit]",
        f"Description={spec.path} from {spec.server}",
        "Wants=network-online.target",
        "After=network-online.target",
        "StartLimitIntervalSec=0",
        f"OnFailure=turnkey-mount-retry@{systemd_unit_name(spec.path, 'service')}",
        "",
        "[Mount]",
        f"What={spec.source}",
        f"Where={spec.path}",
        "Type=nfs",
        f"Options={','.join([*options, '_netdev', 'nofail'])}",
        "TimeoutSec=120",
        "",
        "[Install]",
        "WantedBy=remote-fs.target",
        "",
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class Unit:
    """A mount unit of ours that is on the host."""

    path: str
    text: str
    enabled: bool
    made_directory: bool


def parse_unit(text: str, enabled: bool) -> Unit | None:
    """Return the unit in ``text`` if this module wrote it, else nothing."""
    if not text.startswith(_HEADER):
        return None
    where = re.search(r"^Where=(.+)$", text, re.MULTILINE)
    if not where:
        return None
    return Unit(where.group(1), text, enabled, _MADE_DIRECTORY in text.splitlines())


@dataclass(frozen=True)
class Action:
    """One step. ``verb`` is stop, disable, delete, rmdir, mkdir, write, reload, enable or start."""

    verb: str
    target: str
    text: str = ""
    before: str = ""


def plan_mounts(
    specs: Sequence[MountSpec],
    units: Mapping[str, Unit],
    foreign_units: Iterable[str],
    mounts: Sequence[Mount],
    directories: Iterable[str],
    retry_text: str | None,
) -> list[Action]:
    """Return the steps that lead from what is there to ``specs`` and nothing else of ours.

    ``units`` are ours by path, ``foreign_units`` are names of unit files that stand in the way, ``mounts`` what is
    mounted, ``directories`` which of the wanted paths exist, ``retry_text`` the content of the retry unit's file.
    """
    mounted = {mount.path: mount for mount in mounts}
    existing = set(directories)
    wanted = {spec.path: spec for spec in specs}
    problems = []
    for path, spec in wanted.items():
        if path in units:
            continue
        if spec.unit in set(foreign_units):
            problems.append(
                f"{UNIT_DIRECTORY}/{spec.unit} exists and is not of this collection. Remedy: remove it, or set "
                "cluster_shared_dir_source=provided if it mounts the shared directory."
            )
        elif path in mounted:
            problems.append(
                f"{path} is already mounted from {mounted[path].source} ({mounted[path].type}), "
                "not by this collection. "
                "Remedy: set cluster_shared_dir_source=provided to use it, or unmount it and take it out of /etc/fstab."
            )
    if problems:
        raise HpcError(join_problems(problems))

    stop: list[Action] = []
    leave: list[Action] = []
    make: list[Action] = []
    start: list[Action] = []
    changed = False
    for path, unit in sorted(units.items(), reverse=True):
        if path in wanted:
            continue
        name = systemd_unit_name(path)
        # Not mounted is not idle: a try may be under way.
        stop += [Action("stop", f"turnkey-mount-retry@{systemd_unit_name(path, 'service')}"), Action("stop", name)]
        leave += [Action("disable", name)] if unit.enabled else []
        leave.append(Action("delete", f"{UNIT_DIRECTORY}/{name}", before=unit.text))
        leave += [Action("rmdir", path)] if unit.made_directory else []
        changed = True
    if wanted and retry_text != _RETRY_TEXT:
        make.append(Action("write", f"{UNIT_DIRECTORY}/{RETRY_UNIT}", text=_RETRY_TEXT, before=retry_text or ""))
        changed = True
    elif not wanted and retry_text is not None:
        leave.append(Action("delete", f"{UNIT_DIRECTORY}/{RETRY_UNIT}", before=retry_text))
        changed = True
    for path, spec in sorted(wanted.items()):
        current = units.get(path)
        text = render_unit(spec, current.made_directory if current else path not in existing)
        running = path in mounted
        if path not in existing:
            make.append(Action("mkdir", path))
        if current is None or current.text != text:
            stop += [Action("stop", spec.unit)] if running else []
            make.append(
                Action("write", f"{UNIT_DIRECTORY}/{spec.unit}", text=text, before=current.text if current else "")
            )
            changed = True
            running = False
        if current is None or not current.enabled:
            start.append(Action("enable", spec.unit))
        if not running:
            start.append(Action("start", spec.unit))
    # All stops come first: if users hold files open, no unit has been touched yet.
    return [*stop, *leave, *make, *([Action("reload", "systemd")] if changed else []), *start]
