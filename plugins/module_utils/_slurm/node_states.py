# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""States of Slurm's nodes: a base state and flags, read as a set, as flags come and go beside those of interest."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Callable

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._hostlist import fold
from ansible_collections.turnkey.hpc.plugins.module_utils._state import Run

__all__ = ["Controller", "Job", "Node", "parse_jobs", "parse_nodes", "plan"]

BUSY = frozenset({"ALLOCATED", "MIXED", "COMPLETING"})
OUT_OF_SERVICE = frozenset({"DRAIN", "DOWN", "FAIL"})
ON_NODES = "running,suspended,completing,configuring,resizing,signaling,stage_out,stopped"
SHOWN_JOBS = 10


@dataclass(frozen=True)
class Node:
    """A node as slurmctld sees it."""

    name: str
    flags: frozenset[str]
    reason: str = ""

    @property
    def busy(self) -> bool:
        """Whether a job holds it, or has not let go of it yet."""
        return bool(self.flags & BUSY)

    @property
    def out_of_service(self) -> bool:
        """Whether it was taken out of service, so that it can be resumed."""
        return bool(self.flags & OUT_OF_SERVICE)

    def __str__(self) -> str:
        return "+".join(sorted(self.flags)) + (f" ({self.reason})" if self.reason else "")


@dataclass(frozen=True)
class Job:
    """A job that holds a node."""

    number: str
    user: str
    state: str
    nodes: str
    name: str

    def __str__(self) -> str:
        return f"job {self.number} ({self.name}) of {self.user}, {self.state} on {self.nodes}"


def parse_nodes(text: str) -> dict[str, Node]:
    """Read the output of ``scontrol --oneliner show node``."""
    nodes = {}
    for line in text.splitlines():
        name, state = (re.search(rf"(?:^|\s){key}=(\S+)", line) for key in ("NodeName", "State"))
        # What a user wrote as the reason may look like anything; who gave it, and when, follows in brackets.
        reason = re.search(r"\sReason=(.*?)(?: \[[^][]*@[^][]*\])?\s*(?:\sComment=.*)?$", line)
        if name and state:
            # Some releases mark a flag with a sign at the end (IDLE*, DOWN~) instead of a word.
            flags = frozenset(re.findall(r"[A-Z_]+", state[1].upper()))
            nodes[name[1]] = Node(name[1], flags, reason[1].strip() if reason else "")
    return nodes


def parse_jobs(text: str) -> list[Job]:
    """Read the output of ``squeue --format=%i|%u|%T|%N|%j``."""
    return [Job(*line.split("|", 4)) for line in text.splitlines() if line.count("|") >= 4]


def plan(nodes: Iterable[Node], state: str, reason: str) -> list[str]:
    """Return the names of the nodes whose state has to be changed.

    A node that somebody else took out of service before keeps their reason, and with a ``reason`` it isn't resumed.
    """
    if state == "resume":
        names = [node.name for node in nodes if node.out_of_service and (not reason or node.reason == reason)]
    else:
        names = [node.name for node in nodes if state.upper() not in node.flags]
    return names


class Controller:
    """slurmctld, as ``scontrol`` and ``squeue`` reach it."""

    def __init__(
        self, run: Run, pause: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.run = run
        self.pause = pause
        self.clock = clock

    def nodes(self, names: list[str], ignore_unknown: bool = False) -> dict[str, Node]:
        """Return the states of nodes, all of which must exist, or of those that do."""
        code, out, err = self.run(["scontrol", "--oneliner", "show", "node", fold(names)], None)
        nodes = parse_nodes(out)
        # A node of a range that is unknown is reported on stdout, and the return code depends on the release.
        unknown = [name for name in names if name not in nodes]
        told = (nodes and unknown) or "not found" in out
        if told and not ignore_unknown:
            raise InvalidInput(f"Slurm knows no node {fold(unknown)}.", "see `sinfo -N` for those that it knows.")
        if (code or not nodes) and not told:
            raise _failure("scontrol show node", out, err)
        return {name: nodes[name] for name in names if name in nodes}

    def update(self, names: list[str], state: str, reason: str) -> None:
        """Change the state of nodes."""
        argv = ["scontrol", "update", f"NodeName={fold(names)}", f"State={state.upper()}"]
        argv += [f"Reason={reason}"] if state != "resume" else []
        code, out, err = self.run(argv, None)
        if code:
            raise _failure(" ".join(argv[:4]), out, err)

    def jobs(self, names: list[str]) -> list[Job]:
        """Return the jobs that hold one of the nodes."""
        argv = ["squeue", "--noheader", f"--nodelist={fold(names)}", f"--states={ON_NODES}", "--format=%i|%u|%T|%N|%j"]
        code, out, err = self.run(argv, None)
        if code:
            raise _failure("squeue", out, err)
        return parse_jobs(out)

    def wait_until_idle(self, names: list[str], seconds: float) -> None:
        """Wait until no job holds one of the nodes; after ``seconds`` say which ones do."""
        deadline = self.clock() + seconds
        while True:
            jobs = self.jobs(names)
            busy = [node.name for node in self.nodes(names).values() if node.busy]
            if not jobs and not busy:
                return
            if self.clock() >= deadline:
                break
            self.pause(min(5.0, max(1.0, seconds / 60)))  # poll interval
        shown = "; ".join(str(job) for job in jobs[:SHOWN_JOBS]) + ("; ..." if len(jobs) > SHOWN_JOBS else "")
        raise HpcError(
            f"After {seconds:g} s jobs still hold {fold(names if jobs else busy)}: {shown or 'they are completing'}.",
            "wait longer, or end them with scancel; the nodes take no new jobs meanwhile.",
        )


def _failure(what: str, out: str, err: str) -> HpcError:
    said = " / ".join(line.strip() for line in (err + "\n" + out).splitlines() if line.strip())
    return HpcError(f"{what} failed: {said[:500]}.", "see that slurmctld runs (scontrol ping), then run again.")
