# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Slurm says about the job of a notebook, and what its user should read about it.

Role jupyterhub installs this file, which imports nothing of the collection and works with Python 3.9.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Job", "Waiting", "nodes_argv", "parse_job", "place_argv", "squeue_argv", "start_timeout", "state_of"]

# Slurm's own words for why a job waits, in those of its user.
REASONS = {
    "AssocGrpCpuLimit": "your account uses all the cores that it may",
    "AssocMaxJobsLimit": "you have as many jobs as you may",
    "BeginTime": "its time to begin has not come",
    "Dependency": "another job has to end before",
    "JobHeldAdmin": "an administrator holds it",
    "JobHeldUser": "it is on hold",
    "Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved_for_jobs_in_higher_priority_partitions": (
        "the nodes that it needs are down, drained or reserved"
    ),
    "None": "Slurm has not looked at it yet",
    "PartitionDown": "the partition is down",
    "PartitionTimeLimit": "it asks for more time than the partition gives",
    "Priority": "others are before it",
    "QOSMaxJobsPerUserLimit": "you have as many jobs as you may",
    "ReqNodeNotAvail": "a node that it needs is not available",
    "Resources": "the nodes are busy",
    "WaitingForScheduling": "Slurm has not looked at it yet",
}
PENDING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD", "REQUEUE_FED")
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")


@dataclass(frozen=True)
class Job:
    """A line of squeue."""

    state: str
    reason: str = ""
    host: str = ""
    nodes: str = ""
    partition: str = ""
    start: str = ""


def squeue_argv(job: str) -> list[str]:
    """Return the command that asks for a job."""
    return ["squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T|%r|%B|%N|%P|%S"]


def place_argv(partition: str) -> list[str]:
    """Return the command that lists the waiting jobs of a partition, the next one first."""
    return ["squeue", "--noheader", "--states=PENDING", f"--partition={partition}", "--sort=-p,i", "--format=%i"]


def nodes_argv(nodes: str) -> list[str]:
    """Return the command that asks for the states of nodes."""
    return ["sinfo", "--noheader", "--Node", f"--nodes={nodes}", "--format=%N|%T"]


def parse_job(text: str) -> Job | None:
    """Read what squeue printed."""
    for line in text.splitlines():
        fields = line.strip().split("|")
        if len(fields) == 6:
            return Job(*fields)
    return None


def state_of(code: int, out: str, err: str) -> str:
    """Return ``running``, ``pending``, ``ended`` or ``unknown``.

    Only what Slurm says itself ends a notebook. Any other error (no answer, no memory, a time-out) is no news.
    """
    if code == 0:
        job = parse_job(out)
        if job is None:
            return "ended" if not out.strip() else "unknown"
        if job.state in RUNNING:
            return "running"
        return "pending" if job.state in PENDING else "ended"
    return "ended" if "Invalid job id" in err else "unknown"


def start_timeout(config: str, queue_seconds: int, boot_seconds: int = 60) -> int:
    """Return how long a start may take: the queue, the time that nodes have to power up, and the server's own start.

    ``config`` is what scontrol show config prints.
    """
    found = re.search(r"^ResumeTimeout\s*=\s*(\d+)", config, re.MULTILINE)
    powered = re.search(r"^ResumeProgram\s*=\s*(?!\(null\))\S", config, re.MULTILINE)
    return queue_seconds + (int(found[1]) if found and powered else 0) + boot_seconds


class Waiting:
    """Follows a job that is on its way to run, and says what its user waits for."""

    def __init__(self, job_id: str) -> None:
        """Begin."""
        self.job_id = job_id
        # When a node was first seen powering up.
        self.since: dict[str, float] = {}

    def message(self, job: Job | None, place: str, nodes: str, now: float) -> tuple[int, str]:
        """Return progress in percent and a sentence. ``place`` and ``nodes`` are what the commands above printed."""
        if job is None:
            return 5, f"Job {self.job_id}: Slurm does not answer. The job is not lost."
        if job.state == "PENDING":
            return 10, self._queued(job, place)
        if job.state == "CONFIGURING":
            return 50, self._powering_up(nodes, now)
        if job.state == "RUNNING":
            return 80, f"Job {self.job_id} runs on {job.host}. The notebook server starts."
        return 5, f"Job {self.job_id} is {job.state.lower().replace('_', ' ')}{self._reason(job)}."

    def _reason(self, job: Job) -> str:
        code = job.reason.split(",")[0] if job.reason not in REASONS else job.reason
        return f": {REASONS[code]} ({code})" if code in REASONS else f" ({job.reason})" if job.reason else ""

    def _queued(self, job: Job, place: str) -> str:
        waiting = place.split()
        text = f"Job {self.job_id} waits in partition {job.partition}"
        if self.job_id in waiting and len(waiting) > 1:
            text += f", place {waiting.index(self.job_id) + 1} of {len(waiting)}"
        text += self._reason(job)
        known = re.fullmatch(r"\d{4}-\d\d-\d\dT(\d\d:\d\d):\d\d", job.start)
        return text + (f". It starts at {job.start[:10]} {known[1]} at the latest." if known else ".")

    def _powering_up(self, text: str, now: float) -> str:
        states: Mapping[str, str] = dict(line.strip().split("|", 1) for line in text.splitlines() if "|" in line)
        # Slurm marks a node that powers up with #, one that is to be with %.
        coming = sorted(
            name for name, state in states.items() if re.search(r"powering_up|configuring|[#%]$", state.lower())
        )
        for name in coming:
            self.since.setdefault(name, now)
        if not coming:
            return f"Job {self.job_id}: its nodes get ready."
        shown = [f"{name} for {now - self.since[name]:.0f} s" for name in coming[:3]]
        more = f" and {len(coming) - 3} more" if len(coming) > 3 else ""
        return f"Job {self.job_id}: nodes are powering up: {', '.join(shown)}{more}."
