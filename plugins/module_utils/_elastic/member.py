# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new machine becomes a node: what the controller hands to it over SSH, and what it does with that.

Users, mounts and files come about as with Ansible, from the same code. slurmd starts last.
"""

from __future__ import annotations

import base64
import grp
import json
import os
import pwd
import re
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import _accounts
from .._config_files import with_block
from .._errors import HpcError
from .._nfs import mount_specs, render_unit
from .._state import Run, write_atomically

__all__ = ["become_a_member", "domain_of", "hosts_block", "payload_for"]

HOSTS_MARKER = "turnkey.hpc hosts"
UNITS = Path("/etc/systemd/system")
# Where sshd looks for it, with the configuration that role ssh_mesh wrote on the controller and that is copied.
HOST_CERTIFICATE = "/etc/ssh/turnkey/ssh_host_ed25519_key-cert.pub"


def hosts_block(text: str) -> str:
    """Return the lines of /etc/hosts that name the cluster's hosts. Pure."""
    inside, lines = False, []
    for line in text.splitlines():
        if HOSTS_MARKER in line and line.startswith("#"):
            inside = "BEGIN" in line
        elif inside:
            lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def _owner(path: Path) -> dict[str, Any]:
    found = path.stat()
    return {
        "mode": found.st_mode & 0o7777,
        "owner": pwd.getpwuid(found.st_uid).pw_name,
        "group": grp.getgrgid(found.st_gid).gr_name,
    }


def domain_of(profile: Mapping[str, Any]) -> str:
    """Return the cluster's domain."""
    return str(profile.get("domain") or "cluster.internal")


def payload_for(node: str, profile: Mapping[str, Any], hosts: str, certificate: str, root: Path = Path("/")) -> bytes:
    """Return what ``node`` is handed: the profile, with its certificate, and the files that are the same as here."""
    files = [*(profile.get("files") or ()), {"path": HOST_CERTIFICATE, "content": certificate}]
    for name in profile.get("copied") or ():
        path = root / str(name).lstrip("/")
        if path.is_file():
            content = base64.b64encode(path.read_bytes()).decode()
            files.append({"path": str(name), "base64": content, **_owner(path)})
    lines = hosts_block(hosts)
    addresses: Mapping[str, str] = profile.get("addresses") or {}
    lines += "".join(f"{address} {name}.{domain_of(profile)} {name}\n" for name, address in addresses.items())
    kept = {
        key: profile.get(key) or []
        for key in ("accounts", "mounts", "mount_options", "directories", "clock_units", "units")
    }
    return json.dumps({"node": node, "files": files, "hosts": lines, **kept}).encode()


def become_a_member(data: Mapping[str, Any], run: Run, root: Path = Path("/")) -> None:
    """Do what the payload says, in the order in which a node's parts need each other."""
    node = str(data["node"])
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", node):
        raise HpcError(f"{node!r} is no name of a node.")
    _write(root / "etc/hostname", f"{node}\n".encode(), 0o644, "root", "root")
    if socket.gethostname() != node:
        socket.sethostname(node)
    hosts = root / "etc/hosts"
    text = hosts.read_text(encoding="utf-8") if hosts.exists() else "127.0.0.1 localhost\n"
    own = rf"^(?!.*\blocalhost\b)\s*[0-9a-fA-F.:]+\s(.*\s)?{re.escape(node)}(\.\S*)?(\s|$)"
    _write(hosts, with_block(text, str(data["hosts"]), HOSTS_MARKER, own).encode(), 0o644, "root", "root")
    for item in data["files"]:
        content = base64.b64decode(item["base64"]) if "base64" in item else str(item["content"]).encode()
        mode = item.get("mode", 0o644)
        mode = int(mode, 8) if isinstance(mode, str) else int(mode)
        _write(
            root / str(item["path"]).lstrip("/"), content, mode, item.get("owner", "root"), item.get("group", "root")
        )
    _accounts_of(data["accounts"], run)
    missing = [path for path in data["directories"] if not (root / str(path).lstrip("/")).is_dir()]
    if missing:
        raise HpcError(f"{', '.join(missing)} is not there.", "mount it in the image, or by the kind's volumes.")
    specs = mount_specs(data["mounts"], data["mount_options"])
    for spec in specs:
        Path(spec.path).mkdir(parents=True, exist_ok=True)
        _write(UNITS / spec.unit, render_unit(spec, False).encode(), 0o644, "root", "root")
    # The clock of a container is its host's.
    container = run(["systemd-detect-virt", "--quiet", "--container"], None)[0] == 0
    clock = [] if container else list(data["clock_units"])
    units = [*clock, *(spec.unit for spec in specs), *data["units"]]
    # systemd reads units that it hasn't loaded yet anyway, and reading all of them again is what takes longest.
    _code, shown, _err = run(["systemctl", "show", "--property=NeedDaemonReload,LoadState", *units], None)
    if "NeedDaemonReload=no" not in shown or "NeedDaemonReload=yes" in shown or "LoadState=not-found" in shown:
        _call(run, ["systemctl", "daemon-reload"])
    # Nothing is enabled: a machine that boots again is no node until the controller has set it up again.
    for together in filter(None, (units[:-1], units[-1:])):
        _call(run, ["systemctl", "restart", *together])


def _accounts_of(items: list[dict[str, Any]], run: Run) -> None:
    host = _accounts.Host(run)
    wanted = _accounts.parse_accounts(items)
    system = host.system(wanted)
    problems = _accounts.conflicts(wanted, system)
    if problems:
        raise HpcError("; ".join(problems))
    made = host.made()
    _accounts.apply(host, wanted, _accounts.plan(wanted, system, made), made)


def _write(path: Path, content: bytes, mode: int, owner: str, group: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        ids = (pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid)
    except KeyError as error:
        raise HpcError(
            f"{path} is to belong to {owner}:{group}, which this image lacks.", "build the image anew."
        ) from error
    write_atomically(path, content, mode, ids)


def _call(run: Run, argv: list[str]) -> None:
    code, out, err = run(argv, None)
    if code:
        log = ""
        if argv[1] == "restart":
            units = [f"--unit={unit}" for unit in argv[2:]]
            log = run(["journalctl", "--no-pager", "--output=cat", "--lines=3", *units], None)[1]
        said = " / ".join(line.strip() for line in f"{err or out}\n{log}".splitlines() if line.strip())
        raise HpcError(f"{' '.join(argv)} failed: {said[:250]}")


def plain_run(argv: list[str], stdin: str | None = None) -> tuple[int, str, str]:
    """Run a program with the C locale; a missing one is 127."""
    environment = {"LC_ALL": "C", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, env={**os.environ, **environment}, check=False
        )
    except OSError as error:
        return 127, "", f"{argv[0]}: {error.strerror}"
    return done.returncode, done.stdout, done.stderr
