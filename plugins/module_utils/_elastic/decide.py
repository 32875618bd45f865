# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done about one node, from what Slurm says and what its provider says. Pure.

Slurm's states are matched by single flags, never as a whole: flags come and go beside those that matter. Nothing is
done about a node that isn't elastic, nor about one whose machine could not be looked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from .settings import Limits

__all__ = ["Decision", "Intent", "Machine", "Sight", "Verb", "code_of", "coded", "decide", "intent"]


class Machine(str, Enum):
    """The machine of a node, as its provider sees it."""

    ABSENT = "absent"
    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"
    GOING = "going"


class Intent(str, Enum):
    """What Slurm wants of a node's machine."""

    OFF = "off"
    COMING = "coming"
    UP = "up"
    GOING = "going"


class Verb(str, Enum):
    """What is to be done."""

    NOTHING = "nothing"
    LAUNCH = "launch"  # take up a start that was cut off
    REMOVE = "remove"  # remove (or stop) the machine
    FAIL = "fail"  # tell Slurm that the node is down, so that its jobs run elsewhere at once
    POWER_DOWN = "power_down"  # let a node that failed be used again, by giving it back to Slurm's power saving


@dataclass(frozen=True)
class Decision:
    """What is to be done, with a code for a failure and the reason for the log."""

    verb: Verb
    code: str = ""
    why: str = ""


@dataclass(frozen=True)
class Sight:
    """All that a decision depends on. ``machine`` is nothing if its provider could not be asked."""

    flags: frozenset[str]
    machine: Machine | None
    reason: str = ""
    level: str = "create"
    in_flight: bool = False
    """A request about this node is being carried out."""
    age: float = 0
    """Seconds since Slurm's intent was first seen."""
    missing: int = 0
    """Reconciliations in a row, with this one, in which the node was up and its machine wasn't."""
    attempts: int = 0
    """How often its start was taken up again."""
    usable: bool = True
    """The cool-downs of node and kind are over, and no partition of it is closed."""


NOTHING = Decision(Verb.NOTHING)
# Written by slurmctld. What an administrator wrote is left alone.
_BY_SLURM = re.compile(r"(ResumeTimeout reached|Not responding|Node unexpectedly rebooted|Low RealMemory|Invalid)")
_CODE = re.compile(r"\(Code:(\w+)\)")


def coded(code: str, text: str) -> str:
    """Return the reason that users read in ``sinfo -R``."""
    clean = re.sub(r"[\s\"'\\\[\]]+", " ", text).strip()
    return f"(Code:{code}) {clean}"[:240].strip()


def code_of(reason: str) -> str:
    """Return the code in a reason of ours, or nothing."""
    found = _CODE.match(reason)
    return found[1] if found else ""


def intent(flags: frozenset[str]) -> Intent:
    """Return what Slurm wants; where flags contradict each other, what is more urgent."""
    if "POWERING_DOWN" in flags:
        return Intent.GOING
    if "POWERING_UP" in flags:
        return Intent.COMING
    if "POWERED_DOWN" in flags:
        return Intent.OFF
    return Intent.UP


def decide(sight: Sight, limits: Limits) -> Decision:
    """Return what is to be done about a node."""
    flags = sight.flags
    if "CLOUD" not in flags or flags & {"FUTURE", "UNKNOWN"} or sight.machine is None or sight.in_flight:
        return NOTHING
    wanted = intent(flags)
    kept_when_off = sight.level == "power"
    off = sight.machine == Machine.ABSENT or (kept_when_off and sight.machine == Machine.STOPPED)
    remains = not off and sight.machine != Machine.GOING
    late = sight.age >= limits.orphan_grace_seconds
    if "DOWN" in flags and (code_of(sight.reason) or _BY_SLURM.match(sight.reason)):
        return _failed(sight, wanted, off, remains, late)
    if wanted in (Intent.OFF, Intent.GOING):
        if remains and late:
            return Decision(Verb.REMOVE, why=f"Slurm has it {wanted.value} for {sight.age:.0f} s")
        if off and wanted == Intent.OFF and {"IDLE", "NOT_RESPONDING"} <= flags:
            # Somebody resumed it by hand; Slurm gives it no job like that.
            return Decision(Verb.POWER_DOWN, why="it is off and is said not to respond")
        return NOTHING
    if "DOWN" in flags:
        # An administrator took it down, and will bring it back.
        return NOTHING
    if wanted == Intent.COMING:
        if not late:
            return NOTHING
        if sight.attempts < limits.launch_attempts:
            return Decision(Verb.LAUNCH, why="its start was cut off")
        return Decision(Verb.FAIL, "LaunchLost", f"its start was cut off {sight.attempts} times")
    if (off or sight.machine == Machine.STOPPED) and sight.missing >= limits.missing_rounds:
        return Decision(Verb.FAIL, "MachineLost", f"its machine is {sight.machine.value}")
    return NOTHING


def _failed(sight: Sight, wanted: Intent, off: bool, remains: bool, late: bool) -> Decision:
    """Decide about a node that we, or Slurm, have given up: clean away, wait, then let it be used again.

    Slurm makes a node idle the moment that it is powered down by force, so that comes after the cool-down. To resume it
    would leave NOT_RESPONDING on a node that is off, which then gets no job.
    """
    why = code_of(sight.reason) or sight.reason
    # Slurm's own verdict may be about a network that comes back: it gets the grace time.
    if remains and (late or code_of(sight.reason)):
        return Decision(Verb.REMOVE, why=f"its node failed: {why}")
    if not off or not sight.usable or wanted == Intent.GOING:
        return NOTHING
    return Decision(Verb.POWER_DOWN, why=f"its cool-down after {why} is over")
