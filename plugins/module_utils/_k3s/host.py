# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""k3s on one host: its files, its service, what it says of itself."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, join_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.nodes import Node, parse_nodes, refuse_stop
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.release import sha256_of
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.versions import version_in
from ansible_collections.turnkey.hpc.plugins.module_utils._state import STATE_DIR, Run, load_json, save_json

__all__ = [
    "ETC",
    "LINKS",
    "PROGRAM",
    "RECORDS",
    "Host",
    "Seen",
    "Unit",
    "decide",
    "find_host_problems",
    "fingerprint",
    "parse_unit",
    "secret_in",
]

PROGRAM = "/usr/local/bin/k3s"
ETC = "/etc/rancher/k3s"
API_PORT = 6443
RECORDS = Path(STATE_DIR) / "k3s.json"
"""What was installed, and with what the service runs."""
LINKS = ("kubectl", "crictl", "ctr")
UNITS = {"server": "k3s.service", "agent": "k3s-agent.service"}
CGROUPS = ("cpu", "cpuset", "memory", "pids")
# So many starts that fail one after the other are not a server that is slow.
CRASHES = 4


@dataclass(frozen=True)
class Unit:
    """What systemd says of the service."""

    exists: bool = False
    enabled: bool = False
    active: str = "inactive"
    sub: str = ""
    restarts: int = 0
    stale: bool = False

    @property
    def runs(self) -> bool:
        """Whether systemd runs it, or tries to."""
        return self.active in ("active", "activating", "reloading")


@dataclass(frozen=True)
class Seen:
    """What a host's k3s was found to be."""

    version: str
    member: bool
    joined: bool
    secret_fits: bool


def parse_unit(text: str) -> Unit:
    """Read the output of ``systemctl show``."""
    values = dict(line.partition("=")[::2] for line in text.splitlines())
    return Unit(
        exists=values.get("LoadState") == "loaded",
        enabled=values.get("UnitFileState") == "enabled",
        active=values.get("ActiveState", "inactive"),
        sub=values.get("SubState", ""),
        restarts=int(values.get("NRestarts") or 0),
        stale=values.get("NeedDaemonReload") == "yes",
    )


def decide(unit: Unit, wanted: str, running: str) -> list[str]:
    """Return the verbs of systemctl, in order. ``wanted`` and ``running`` are fingerprints. Pure."""
    verbs = [] if unit.enabled else ["enable"]
    if not unit.runs:
        verbs.append("start")
    elif wanted != running:
        verbs.append("restart")
    return ["daemon-reload"] * (bool(verbs) or unit.stale) + verbs


def fingerprint(paths: Iterable[str]) -> str:
    """Return a text that changes when one of the files does."""
    digest = hashlib.sha256()
    for path in paths:
        there = Path(path).is_file()
        digest.update(f"{path} {sha256_of(path) if there else 'absent'}\n".encode())
    return digest.hexdigest()[:32]


def secret_in(token: str) -> str:
    """Return the secret part of a token, short or full."""
    return re.sub(r"^K10[0-9a-f]{64}::(\w+:)?", "", token.strip())


def find_host_problems(cgroups_v1: str, controllers_v2: str) -> list[str]:
    """Return what the kernel lacks, from /proc/cgroups and /sys/fs/cgroup/cgroup.controllers. Pure."""
    rows = [line.split() for line in cgroups_v1.splitlines() if not line.startswith("#")]
    enabled = {row[0] for row in rows if len(row) == 4 and row[3] == "1"} | set(controllers_v2.split())
    missing = [name for name in CGROUPS if name not in enabled]
    if not missing:
        return []
    return [
        f"The kernel's cgroups have no {', '.join(missing)}. Remedy: boot with "
        f"{' '.join(f'cgroup_enable={name}' for name in missing)}, see /proc/cgroups."
    ]


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def takes_connections(address: str) -> bool:
    """Whether a server's API takes connections."""
    try:
        socket.create_connection((address, API_PORT), timeout=3).close()
    except OSError:
        return False
    return True


class Host:
    """The host that a module runs on."""

    def __init__(
        self, run: Run, work_dir: str = "/var/lib/rancher/k3s", answers: Callable[[str], bool] | None = None
    ) -> None:
        """``answers`` tells whether a server takes connections at an address."""
        self.run = run
        self.data = Path(work_dir)
        self.answers = answers or takes_connections

    # --- what is there

    def records(self) -> dict[str, Any]:
        """Return what was recorded here."""
        return load_json(RECORDS)

    def version(self) -> str:
        """Return the version of the program that is installed, or nothing."""
        return version_in(self.run([PROGRAM, "--version"], None)[1])

    def look(self, secret: str) -> Seen:
        """Return what this host's k3s is. ``secret`` is the one that the cluster shall have, or nothing."""
        stored = secret_in(_read(str(self.data / "server/token")))
        member = (self.data / "server/db/etcd").is_dir() or (self.data / "server/db/state.db").exists()
        return Seen(
            version=self.version(),
            member=member,
            joined=Path(ETC, "config.yaml.d/10-join.yaml").exists(),
            secret_fits=not (member and secret and stored) or stored == secret,
        )

    def ca_sha256(self) -> str:
        """Return the sum of the cluster's CA, which a server writes into its token."""
        found = re.match(r"K10([0-9a-f]{64})::", _read(str(self.data / "server/token")))
        return found[1] if found else ""

    def problems(self, interface: str = "") -> list[str]:
        """Return what the kernel lacks, and that there is no such interface."""
        problems = find_host_problems(_read("/proc/cgroups"), _read("/sys/fs/cgroup/cgroup.controllers"))
        present = sorted(name for _index, name in socket.if_nameindex() if name != "lo")
        if interface and interface not in present:
            problems.append(
                f"There is no interface {interface} here, only {', '.join(present)}. Remedy: correct k3s_interface."
            )
        return problems

    # --- files of the release

    def missing(self, wanted: Mapping[str, str]) -> list[str]:
        """Return which of the files, paths with their sums, are not there as they should be."""
        return [path for path, digest in wanted.items() if not Path(path).is_file() or sha256_of(path) != digest]

    def stale_images(self, keep: Iterable[str]) -> list[str]:
        """Return tarballs of other versions that came by us."""
        recorded = self.records().get("images", [])
        return [path for path in recorded if path not in set(keep) and Path(path).exists()]

    def missing_links(self) -> list[str]:
        """Return the names of the commands that k3s brings, and that nothing else here is called."""
        return [f"/usr/local/bin/{name}" for name in LINKS if shutil.which(name) is None]

    def put(self, source: str, target: str, digest: str, mode: int) -> None:
        """Move a file that was sent here to its place, if it is what it should be. Nobody ever sees a part of it."""
        if sha256_of(source) != digest:
            raise HpcError(
                f"What arrived for {target} has not the SHA-256 {digest}.",
                "check the disk and the memory of this host, and run again.",
            )
        place = Path(target)
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{place.name}.turnkey")
        try:
            with Path(source).open("rb") as reader, partial.open("wb") as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)
                writer.flush()
                os.fsync(writer.fileno())
            partial.chmod(mode)
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)

    def note(self, **values: Any) -> None:
        """Record something about this host's k3s."""
        save_json(RECORDS, {**self.records(), **values})

    # --- the service

    def unit(self, part: str) -> Unit:
        """Return what systemd says of the service."""
        names = "LoadState,UnitFileState,ActiveState,SubState,NRestarts,NeedDaemonReload"
        return parse_unit(self.run(["systemctl", "show", f"--property={names}", UNITS[part]], None)[1])

    def act(self, part: str, verbs: Sequence[str]) -> None:
        """Call systemctl with each verb; starts don't wait, as a start may never end."""
        for verb in verbs:
            options = ["--no-block"] if verb in ("start", "restart") else []
            argv = ["systemctl", *options, verb, *([] if verb == "daemon-reload" else [UNITS[part]])]
            code, _out, err = self.run(argv, None)
            if code:
                raise HpcError(f"'{' '.join(argv)}' failed: {err.strip()}", f"see 'systemctl status {UNITS[part]}'.")

    def journal(self, part: str) -> str:
        """Return the last lines of the service."""
        argv = ["journalctl", "--no-pager", "--lines=12", "--output=cat", f"--unit={UNITS[part]}"]
        return self.run(argv, None)[1].strip()

    # --- the cluster

    def kubectl(self, *arguments: str, stdin: str | None = None) -> tuple[int, str, str]:
        """Ask the API of this server, which answers soon or not at all."""
        return self.run([PROGRAM, "kubectl", "--request-timeout=15s", *arguments], stdin)

    def nodes(self) -> dict[str, Node] | None:
        """Return the nodes of the cluster, or None if this server's API doesn't answer."""
        code, out, _err = self.kubectl("get", "nodes", "-o", "json")
        return parse_nodes(out) if code == 0 else None

    def refuse_stop(self, name: str, seconds: float, clock: Callable[[], float] = time.monotonic) -> str:
        """Return why this server must not stop, also after ``seconds``, in which others may come back.

        One whose API doesn't answer is lost already.
        """
        end = clock() + seconds
        while True:
            nodes = self.nodes()
            # The API calls a server ready for up to a minute after its end.
            seen = [node if self._there(node, name) else replace(node, ready=False) for node in (nodes or {}).values()]
            problem = refuse_stop(name, seen)
            if not problem or clock() >= end:
                return problem
            time.sleep(0.5)  # poll interval

    def _there(self, node: Node, own: str) -> bool:
        return node.voter is None or node.name == own or not node.address or self.answers(node.address)

    def unready(self, part: str, name: str, version: str) -> str:
        """Return what is still to come until this host does its part, or nothing. Agents are seen by servers only."""
        unit = self.unit(part)
        if unit.active != "active":
            return f"{UNITS[part]} is {unit.active} ({unit.sub})"
        if part == "agent":
            return ""
        code, out, err = self.kubectl("get", "--raw", "/readyz")
        if code:
            return f"the API is not ready: {(err or out).strip()[-300:]}"
        node = (self.nodes() or {}).get(name)
        if node is None:
            return f"there is no node {name}"
        if not node.ready:
            return f"the node {name} is not ready"
        if node.version != version:
            return f"the node {name} runs {node.version or 'an unknown version'}, not {version}"
        return "" if node.well else f"{name} is a learner of etcd, not yet a voter"

    def wait(
        self, part: str, name: str, version: str, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Wait until this host does its part; give up at the deadline, or when the service ends again and again."""
        end = clock() + seconds
        crashes = self.unit(part).restarts + CRASHES
        while reason := self.unready(part, name, version):
            if self.unit(part).restarts >= crashes:
                reason += f"; it ended {CRASHES} times"
            elif clock() < end:
                time.sleep(0.5)  # poll interval
                continue
            remedy = "mend what the lines above say, and run again; nothing else was stopped for this."
            raise HpcError(
                f"k3s is not well on {name} after {seconds:.0f} s: {reason}.\n{self.journal(part)}\n", remedy
            )

    def refuse_if_any(self, problems: Sequence[str]) -> None:
        """Raise one error for all problems, if there are any."""
        if problems:
            raise HpcError(join_problems(list(problems)))
