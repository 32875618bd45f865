# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrade of Slurm's packages and daemons on one host."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._packages import refresh_lists, upgrade
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.accounting import Database
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.releases import check_step, release_of, text
from ansible_collections.turnkey.hpc.plugins.module_utils._state import Run

__all__ = ["DAEMONS", "Daemon", "Host", "Plan", "parse_candidates", "parse_daemons", "parse_installed", "plan"]

DAEMONS = ("slurmdbd", "slurmctld", "slurmd")
"""In the order in which they are upgraded and started."""

# slurmd stays up: it leaves the jobs alone when it is restarted, and does not look at the new files before.
STOPPED_MEANWHILE = frozenset({"slurmdbd", "slurmctld"})
SOURCE = "slurm-wlm"


@dataclass(frozen=True)
class Daemon:
    """A daemon as systemd sees it. ``replaced``: the program that it runs is not the one on disk any more."""

    name: str
    enabled: bool = False
    active: bool = False
    replaced: bool = False


@dataclass(frozen=True)
class Plan:
    """What is to do on a host: packages with their new versions, daemons to stop before and to (re)start after."""

    versions: dict[str, str] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    before: str = ""
    after: str = ""

    def __bool__(self) -> bool:
        return bool(self.versions or self.start)


def parse_installed(out: str) -> dict[str, str]:
    """Return Slurm's packages and versions from lines of ``dpkg-query``: package, version, source, status."""
    rows = [line.split("\t") for line in out.splitlines() if line.count("\t") == 3]
    return {
        name: version for name, version, source, status in rows if source.startswith(SOURCE) and status == "installed"
    }


def parse_candidates(out: str) -> dict[str, str]:
    """Return the versions that apt would install, from ``apt-cache policy``."""
    found = re.findall(r"^(\S+):\n  Installed: .*\n  Candidate: (.*)$", out, re.MULTILINE)
    return {name.partition(":")[0]: version for name, version in found if version != "(none)"}


def parse_daemons(out: str, replaced: Callable[[int], bool]) -> list[Daemon]:
    """Read the output of ``systemctl show`` for the daemons."""
    daemons = []
    for block in out.strip().split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines())
        name, pid = values.get("Id", "").replace(".service", ""), int(values.get("MainPID") or 0)
        if name in DAEMONS and values.get("LoadState") == "loaded":
            active = values.get("ActiveState") in ("active", "activating", "reloading")
            daemons.append(Daemon(name, values.get("UnitFileState") == "enabled", active, bool(pid) and replaced(pid)))
    return sorted(daemons, key=lambda daemon: DAEMONS.index(daemon.name))


def plan(
    installed: Mapping[str, str],
    candidates: Mapping[str, str],
    newer: Callable[[str, str], bool],
    daemons: list[Daemon],
) -> Plan:
    """Return what to do; refuse a step that Slurm can't take. ``newer`` compares versions as dpkg does."""
    versions = {
        name: candidates[name]
        for name, version in installed.items()
        if name in candidates and candidates[name] != version and newer(candidates[name], version)
    }
    for name in sorted(versions):
        old, new = release_of(installed[name]), release_of(versions[name])
        if old and new:
            check_step(old, new, f"What is installed ({name} {installed[name]})")
    lead = next((name for name in (*DAEMONS, "slurm-client", *sorted(installed)) if name in installed), "")
    stop = tuple(
        daemon.name for daemon in reversed(daemons) if versions and daemon.active and daemon.name in STOPPED_MEANWHILE
    )
    # Also those that a run which was cut off has stopped, or has not come to.
    start = tuple(
        daemon.name
        for daemon in daemons
        if (daemon.active and (versions or daemon.replaced)) or (daemon.enabled and not daemon.active)
    )
    before = installed.get(lead, "")
    return Plan(versions, stop, start, before, versions.get(lead, before))


class Host:
    """This host's packages and daemons."""

    def __init__(
        self, run: Run, pause: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.run = run
        self.pause = pause
        self.clock = clock

    def _out(self, argv: list[str]) -> str:
        code, out, err = self.run(argv, None)
        if code:
            raise HpcError(
                f"{' '.join(argv[:3])} failed: {err.strip()[-500:]}", "repair it on the host, then run again."
            )
        return out

    def refresh(self) -> None:
        """Fetch the package lists."""
        refresh_lists(self.run, pause=self.pause)

    def plan(self) -> Plan:
        """Look, and return what is to do."""
        form = r"${Package}\t${Version}\t${source:Package}\t${db:Status-Status}\n"
        installed = parse_installed(self._out(["dpkg-query", "--show", f"--showformat={form}"]))
        if not installed:
            return Plan()
        candidates = parse_candidates(self._out(["apt-cache", "policy", *sorted(installed)]))
        properties = "--property=Id,LoadState,ActiveState,UnitFileState,MainPID"
        units = self._out(["systemctl", "show", properties, *(f"{name}.service" for name in DAEMONS)])
        return plan(installed, candidates, self._newer, parse_daemons(units, _replaced))

    def _newer(self, one: str, other: str) -> bool:
        return self.run(["dpkg", "--compare-versions", one, "gt", other], None)[0] == 0

    def refuse_to_overtake(self, steps: Plan) -> None:
        """Refuse to make this host newer than the controllers, which Slurm does not support."""
        old, new = release_of(steps.before), release_of(steps.after)
        if new is None or new == old or "slurmctld" in steps.versions or "slurmdbd" in steps.versions:
            return
        # A host that has the commands only may not know the controller here; it runs no daemon that could be too new.
        _code, out, _err = self.run(["scontrol", "show", "config"], None)
        match = re.search(r"SLURM_VERSION\s*=\s*(\S+)", out)
        controller = release_of(match[1]) if match else None
        if controller and new > controller:
            raise HpcError(
                f"This host would get Slurm {text(new)}, and the controller runs {text(controller)}.",
                "give the controllers the same package source, and upgrade them first.",
            )

    def apply(self, steps: Plan, wait_seconds: float) -> None:
        """Do it, daemon by daemon; each answers before the next one is started."""
        for name in steps.stop:
            self._out(["systemctl", "stop", f"{name}.service"])
        upgrade(self.run, steps.versions, pause=self.pause)
        if steps.versions:
            self._out(["systemctl", "daemon-reload"])
        for name in steps.start:
            self._out(["systemctl", "restart", f"{name}.service"])
            if not self._answers(name, wait_seconds):
                raise HpcError(
                    f"{name} does not answer {wait_seconds:g} s after its upgrade.",
                    f"see `journalctl -u {name}`; slurmdbd may convert its tables for long: wait, then run again.",
                )

    def _answers(self, name: str, seconds: float) -> bool:
        if name == "slurmdbd":
            return Database(self.run, self.pause, self.clock).answers(seconds)
        deadline = self.clock() + seconds
        while name == "slurmctld":
            code, out, _err = self.run(["scontrol", "ping"], None)
            if code == 0 and "UP" in out:
                break
            if self.clock() >= deadline:
                return False
            self.pause(0.5)  # poll interval
        return True


def _replaced(pid: int) -> bool:
    try:
        return str(Path(f"/proc/{pid}/exe").readlink()).endswith(" (deleted)")
    except OSError:
        return False
