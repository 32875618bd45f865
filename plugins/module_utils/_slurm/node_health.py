# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Slurm's HealthCheckProgram: takes a compute node that is not well out of service, and puts it back when it is.

Role slurm installs this file as a program, so it imports nothing of the collection and works with Python 3.9. It keeps
no state of its own: what it drained itself is told by the beginning of the reason, also after a reboot, and with a full
disk. What somebody else drained it leaves alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Facts", "Limits", "decide", "idle", "main", "memory_percent", "offset_seconds", "problems"]

LIMITS = "/etc/slurm/node-health.json"
OURS = "node health: "
# Slurm gives the whole program 60 seconds.
MOUNT_SECONDS = 10


@dataclass(frozen=True)
class Limits:
    """What a healthy node has. 0 switches a check off."""

    mounts: Sequence[str] = ()
    disks: Sequence[str] = ()
    min_free_disk_percent: float = 0
    min_idle_memory_percent: float = 0
    max_clock_offset_seconds: float = 0


@dataclass(frozen=True)
class Facts:
    """What this node is like. What could not be found out is not in it."""

    broken_mounts: Mapping[str, str] = field(default_factory=dict)
    free_disk_percent: Mapping[str, float] = field(default_factory=dict)
    idle_memory_percent: float | None = None
    clock_offset_seconds: float | None = None


def problems(facts: Facts, limits: Limits) -> list[str]:
    """Return what is wrong with the node.

    The numbers that change from minute to minute are left out, so that the reason of a drained node does not.
    """
    found = [f"{path} {what}" for path, what in facts.broken_mounts.items()]
    found += [
        f"{path} has less than {limits.min_free_disk_percent:g} % free"
        for path, percent in facts.free_disk_percent.items()
        if percent < limits.min_free_disk_percent
    ]
    if facts.idle_memory_percent is not None and facts.idle_memory_percent < limits.min_idle_memory_percent:
        found.append(f"without a job, less than {limits.min_idle_memory_percent:g} % of the memory is free")
    if facts.clock_offset_seconds is not None and 0 < limits.max_clock_offset_seconds < facts.clock_offset_seconds:
        found.append(f"the clock is off by more than {limits.max_clock_offset_seconds:g} s")
    return found


def decide(node: str, shown: str, found: Sequence[str]) -> list[str]:
    """Return the command to run, if any. ``shown`` is what ``scontrol --oneliner show node`` says of this one."""
    state = re.search(r"(?:^|\s)State=(\S+)", shown)
    reason = re.search(r"(?:^|\s)Reason=(.*?) \[\w+@", shown)
    drained = state is not None and "DRAIN" in state[1]
    ours = reason is not None and reason[1].startswith(OURS)
    update = ["scontrol", "update", f"NodeName={node}"]
    if found:
        wanted = OURS + "; ".join(found)
        if drained and (not ours or (reason is not None and reason[1] == wanted)):
            return []
        return [*update, "State=DRAIN", f"Reason={wanted}"]
    return [*update, "State=RESUME"] if drained and ours else []


def memory_percent(meminfo: str) -> float | None:
    """Return how much of the memory is available, from ``/proc/meminfo``."""
    found = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d+)", meminfo, re.MULTILINE))
    return 100 * int(found["MemAvailable"]) / int(found["MemTotal"]) if len(found) == 2 else None


def idle(titles: Sequence[str]) -> bool:
    """Return whether no job runs, from the titles of the processes: each step has its ``slurmstepd: [...]``."""
    return not any(title.startswith("slurmstepd: [") for title in titles)


def offset_seconds(tracking: str) -> float | None:
    """Return by how much the clock may be off, from ``chronyc -c tracking``; None if chrony has no source."""
    values = tracking.strip().split(",")
    if len(values) < 14 or values[13] == "Not synchronised":
        return None
    return abs(float(values[4])) + float(values[11])


def trouble_of(path: str) -> str:
    """Return what is wrong with a file system that should be mounted at ``path``; nothing if it answers."""
    # A process that waits for a dead NFS server can't be killed: nobody must wait for it.
    probe = subprocess.Popen(["mountpoint", "-q", path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        return "is not mounted" if probe.wait(MOUNT_SECONDS) else ""
    except subprocess.TimeoutExpired:
        probe.kill()
        return "does not answer"


def output_of(argv: Sequence[str]) -> str:
    """Return what a program prints; nothing if there is no such program."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def process_titles() -> list[str]:
    """Return the titles of all processes."""
    titles = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            titles.append(path.read_bytes().decode(errors="replace").replace("\0", " "))
        except OSError:
            continue  # it has ended meanwhile
    return titles


def look(limits: Limits) -> Facts:
    """Find out what this node is like."""
    troubles = {path: trouble_of(path) for path in limits.mounts}
    free = {}
    for path in limits.disks if limits.min_free_disk_percent else ():
        usage = shutil.disk_usage(path)
        free[path] = 100 * usage.free / usage.total
    memory = None
    if limits.min_idle_memory_percent and idle(process_titles()):
        memory = memory_percent(Path("/proc/meminfo").read_text("ascii"))
    clock = offset_seconds(output_of(["chronyc", "-n", "-c", "tracking"])) if limits.max_clock_offset_seconds else None
    return Facts({path: text for path, text in troubles.items() if text}, free, memory, clock)


def read_limits(text: str) -> Limits:
    """Read the file of limits."""
    values: dict[str, Any] = json.loads(text)
    return Limits(**values)


def main(arguments: Sequence[str]) -> int:
    """Check this node; ``--dry-run`` only says what is wrong."""
    limits = read_limits(Path(LIMITS).read_text("utf-8"))
    found = problems(look(limits), limits)
    if "--dry-run" in arguments:
        sys.stdout.write("".join(f"{problem}\n" for problem in found))
        return int(bool(found))
    node = socket.gethostname().partition(".")[0]
    shown = output_of(["scontrol", "--oneliner", "show", "node", node])
    # No answer: the controller is away, the next round will do.
    argv = decide(node, shown, found) if shown else []
    if argv:
        os.execvp(argv[0], argv)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
