# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that node-power decides, on what it remembers; only ``slurm`` is outside. The simulator drives it as well.

Time is given, never asked for.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .decide import Decision, Intent, Machine, Sight, Verb, code_of, coded, decide, intent
from .memory import Memory
from .settings import Kind, Settings

__all__ = ["Engine", "Failure", "Group", "Plan", "SlurmNode", "SlurmSide", "groups_of"]

# These are everybody's fault but the partition's: they close nothing.
_NO_BOOT = frozenset({"Capacity", "CutOff", "LimitHours", "LimitNodes", "ReconcilerStale", "PartitionClosed"})


@dataclass(frozen=True)
class SlurmNode:
    """A node as slurmctld sees it."""

    name: str
    flags: frozenset[str]
    reason: str = ""
    partitions: tuple[str, ...] = ()


class SlurmSide(Protocol):
    """slurmctld, real or simulated. Every call is one for many nodes."""

    def nodes(self) -> Mapping[str, SlurmNode]:
        """Return all nodes, or raise HpcError."""

    def down(self, names: Sequence[str], reason: str) -> None:
        """Take nodes down; their jobs are queued again."""

    def power_down(self, names: Sequence[str]) -> None:
        """Give nodes back to power saving, also those that are down or being resumed."""

    def partition(self, name: str, state: str) -> None:
        """Set the state of a partition."""


@dataclass(frozen=True)
class Failure:
    """Why there is no machine."""

    code: str
    text: str


@dataclass(frozen=True)
class Group:
    """Nodes of one kind that are launched together; with ``all_or_nothing`` a part of them is of no use."""

    kind: Kind
    nodes: tuple[str, ...]
    all_or_nothing: bool = False


@dataclass(frozen=True)
class Plan:
    """What a request for nodes comes to."""

    groups: list[Group]
    refused: dict[str, Failure]


@dataclass
class Work:
    """What a reconciliation leaves to be done with machines."""

    launch: list[str] = field(default_factory=list)
    remove: dict[str, list[str]] = field(default_factory=dict)
    """Names of machines by kind."""


Log = Callable[..., None]


def groups_of(nodes: Iterable[str], settings: Settings, jobs: Sequence[Collection[str]] = ()) -> list[Group]:
    """Divide nodes into groups: those of a job of several nodes together, all others as they come. Pure.

    ``jobs`` has the nodes that must be resumed for each job.
    """
    left = dict.fromkeys(nodes)
    groups: list[Group] = []

    def add(names: Iterable[str], together: bool) -> None:
        by_kind: dict[str, list[str]] = defaultdict(list)
        kinds: dict[str, Kind] = {}
        for name in names:
            kind = settings.kind_of(name)
            if kind is not None:
                by_kind[kind.name].append(name)
                kinds[kind.name] = kind
        for name, members in by_kind.items():
            # A job that is larger than what a provider makes in one call is launched in several, the best that can be.
            size = kinds[name].batch
            groups.extend(
                Group(kinds[name], tuple(members[start : start + size]), together)
                for start in range(0, len(members), size)
            )

    for members in jobs:
        mine = [name for name in members if name in left]
        if len(mine) > 1:
            add(mine, True)
            for name in mine:
                del left[name]
    add(left, False)
    return groups


class Engine:
    """Decisions about requests, their results, and the state of everything."""

    def __init__(self, settings: Settings, memory: Memory, slurm: SlurmSide, log: Log) -> None:
        """Take what it knows, what it remembers, Slurm, and ``log(event, **fields)``."""
        self.settings = settings
        self.memory = memory
        self.slurm = slurm
        self.log = log

    # Requests

    def admit(self, nodes: Sequence[str], jobs: Sequence[Collection[str]], now: float) -> Plan:
        """Decide which nodes of a request are launched."""
        limits, memory = self.settings.limits, self.memory
        ours = [name for name in nodes if self.settings.kind_of(name)]
        for name in ours:
            record = memory.record(name)
            if record.intent != Intent.COMING.value:
                record.intent, record.since, record.missing, record.attempts = Intent.COMING.value, now, 0, 0
        refused: dict[str, Failure] = {}
        if limits.heartbeat_seconds and now - memory.heartbeat > limits.heartbeat_seconds:
            text = "reconciliation has not run for too long; see systemctl status node-power-reconcile.timer"
            refused = dict.fromkeys(ours, Failure("ReconcilerStale", text))
        elif limits.max_node_hours_a_day and self._hours(now) >= limits.max_node_hours_a_day:
            text = f"{memory.hours:.1f} node hours were used today, {limits.max_node_hours_a_day:g} are allowed"
            refused = dict.fromkeys(ours, Failure("LimitHours", text))
        elif limits.max_nodes and memory.up + len(ours) > limits.max_nodes:
            room = max(0, limits.max_nodes - memory.up)
            refused = dict.fromkeys(ours[room:], Failure("LimitNodes", f"at most {limits.max_nodes} nodes may be up"))
        groups = groups_of([name for name in ours if name not in refused], self.settings, jobs)
        memory.up += sum(len(group.nodes) for group in groups)
        return Plan(groups, refused)

    def joined(self, names: Sequence[str], partitions: Mapping[str, Sequence[str]], now: float) -> None:
        """Note that nodes are members now: what went wrong before is forgotten."""
        for name in names:
            record = self.memory.record(name)
            record.attempts, record.code, record.text, record.failed_at = 0, "", "", 0
            for partition in partitions.get(name, ()):
                self.memory.failures.pop(partition, None)
                self._open(partition)
        if names:
            self.log("joined", nodes=names)

    def failed(self, failures: Mapping[str, Failure], now: float) -> None:
        """Tell Slurm about nodes that will not come, unless it doesn't want them any more.

        They count as up until the next reconciliation: something of them may be there.
        """
        if not failures:
            return
        memory = self.memory
        nodes = self.slurm.nodes()
        groups: dict[Failure, list[str]] = defaultdict(list)
        for name, failure in failures.items():
            node = nodes.get(name)
            if node is None or intent(node.flags) != Intent.COMING:
                self.log("not wanted any more", nodes=[name], code=failure.code, why=failure.text)
                continue
            groups[failure].append(name)
            record = memory.record(name)
            record.code, record.text, record.failed_at = failure.code, failure.text, now
        for failure, names in groups.items():
            self.log("failed", nodes=names, code=failure.code, why=failure.text)
            memory.note(
                f"{_clock(now)} {names[0]}{f' and {len(names) - 1} more' * (len(names) > 1)}: "
                f"{failure.code}: {failure.text}"
            )
            self.slurm.down(names, coded(failure.code, failure.text))
            if failure.code == "Capacity":
                self._no_room(names, failure, nodes, now)
            elif failure.code not in _NO_BOOT:
                self._count(names, nodes, now)

    def _no_room(self, names: Sequence[str], failure: Failure, nodes: Mapping[str, SlurmNode], now: float) -> None:
        """Take all of a kind that is off out of service for a while, so that Slurm takes another kind."""
        for kind in self.settings.kinds:
            if not set(names) & set(kind.nodes):
                continue
            self.memory.no_room[kind.name] = now
            idle = [name for name in kind.nodes if name in nodes and name not in names and _is_free(nodes[name].flags)]
            for name in idle:
                record = self.memory.record(name)
                record.code, record.text, record.failed_at = failure.code, failure.text, now
            if idle:
                self.log("no room", kind=kind.name, nodes=idle)
                self.slurm.down(idle, coded(failure.code, f"no room for nodes of kind {kind.name}"))

    def _count(self, names: Sequence[str], nodes: Mapping[str, SlurmNode], now: float) -> None:
        """Count failures by partition; close one with too many of them, unless it has nodes that need no machine."""
        memory = self.memory
        for partition in sorted({part for name in names for part in nodes[name].partitions}):
            here = sum(partition in nodes[name].partitions for name in names)
            memory.failures[partition] = memory.failures.get(partition, 0) + here
            if memory.failures[partition] < self.settings.limits.breaker_failures or partition in memory.closed:
                continue
            memory.closed[partition] = now
            text = f"partition {partition} is closed after {memory.failures[partition]} nodes in a row did not start"
            memory.note(f"{_clock(now)} {text}; when that is mended: node-power reset {partition}")
            self.log("closed", partition=partition, failures=memory.failures[partition])
            if self._elastic_only(partition, nodes):
                self.slurm.partition(partition, "DOWN")

    def _elastic_only(self, partition: str, nodes: Mapping[str, SlurmNode]) -> bool:
        return all(self.settings.kind_of(n.name) for n in nodes.values() if partition in n.partitions)

    def _open(self, partition: str) -> None:
        if self.memory.closed.pop(partition, None) is None:
            return
        self.memory.failures.pop(partition, None)
        self.log("opened", partition=partition)
        if self._elastic_only(partition, self.slurm.nodes()):
            self.slurm.partition(partition, "UP")

    def reset(self, partition: str) -> bool:
        """Open a partition again, by hand; its nodes need no cool-down any more."""
        known = partition in self.memory.closed or partition in self.memory.failures
        self.memory.failures.pop(partition, None)
        self._open(partition)
        for node in self.slurm.nodes().values():
            if partition in node.partitions and node.name in self.memory.nodes:
                # Long ago; 0 would mean that it has not failed.
                self.memory.nodes[node.name].failed_at = 1
        return known

    # Reconciliation

    def reconcile(
        self,
        machines: Mapping[str, Mapping[str, Machine] | None],
        in_flight: Collection[str],
        now: float,
    ) -> Work:
        """Compare Slurm with the machines by kind (nothing where a provider can't be asked), and act on Slurm's side.

        Raises HpcError, having done nothing, if Slurm can't be asked.
        """
        nodes = self.slurm.nodes()
        self._use(machines, nodes, in_flight, now)
        work = Work()
        decisions: dict[Decision, list[str]] = defaultdict(list)
        for kind in self.settings.kinds:
            found = machines.get(kind.name)
            if found is None:
                continue
            for name in kind.nodes:
                node = nodes.get(name)
                machine = found.get(name, Machine.ABSENT)
                if node is None:
                    continue
                decision = self._decide(kind, node, machine, name in in_flight, now)
                if decision.verb != Verb.NOTHING:
                    decisions[decision].append(name)
            self._strangers(kind, found, nodes, work, now)
        for decision, names in decisions.items():
            self.log(decision.verb.value, nodes=names, code=decision.code, why=decision.why)
            if decision.verb == Verb.REMOVE:
                for name in names:
                    kind_of = self.settings.kind_of(name)
                    if kind_of is not None:
                        work.remove.setdefault(kind_of.name, []).append(name)
            elif decision.verb == Verb.LAUNCH:
                for name in names:
                    self.memory.record(name).attempts += 1
                work.launch += names
            elif decision.verb == Verb.FAIL:
                for name in names:
                    record = self.memory.record(name)
                    record.code, record.text, record.failed_at = decision.code, decision.why, now
                self.memory.note(
                    f"{_clock(now)} {names[0]}{f' and {len(names) - 1} more' * (len(names) > 1)}: "
                    f"{decision.code}: {decision.why}"
                )
                self.slurm.down(names, coded(decision.code, decision.why))
            elif decision.verb == Verb.POWER_DOWN:
                self.slurm.power_down(names)
        for name in [name for name in self.memory.nodes if name not in nodes]:
            del self.memory.nodes[name]
        self.memory.heartbeat = now
        for partition in self.memory.closed:
            # A slurmctld that was restarted has it open again.
            if self._elastic_only(partition, nodes):
                self.slurm.partition(partition, "DOWN")
        return work

    def _decide(self, kind: Kind, node: SlurmNode, machine: Machine, in_flight: bool, now: float) -> Decision:
        wanted = intent(node.flags)
        if wanted == Intent.OFF and machine == Machine.ABSENT and not node.flags & {"DOWN", "NOT_RESPONDING"}:
            # Most nodes, most of the time: there is nothing to do, and nothing to remember.
            self.memory.nodes.pop(node.name, None)
            return Decision(Verb.NOTHING)
        record = self.memory.record(node.name)
        if record.intent != wanted.value:
            record.intent, record.since, record.missing, record.attempts = wanted.value, now, 0, 0
        gone = machine in (Machine.ABSENT, Machine.STOPPED)
        record.missing = record.missing + 1 if gone and wanted == Intent.UP else 0
        if "DOWN" in node.flags and not record.failed_at:
            # Slurm's own verdict, or our memory is lost: the cool-down begins now.
            record.code, record.text, record.failed_at = code_of(node.reason), node.reason, now
        sight = Sight(
            node.flags,
            machine,
            node.reason,
            kind.level,
            in_flight,
            now - record.since,
            record.missing,
            record.attempts,
            self._usable(kind, node, now),
        )
        decision = decide(sight, self.settings.limits)
        if decision.verb == Verb.POWER_DOWN:
            record.code, record.text, record.failed_at = "", "", 0
        return decision

    def _usable(self, kind: Kind, node: SlurmNode, now: float) -> bool:
        limits, memory = self.settings.limits, self.memory
        since_failure = now - memory.record(node.name).failed_at
        since_no_room = now - memory.no_room.get(kind.name, 0)
        if any(partition in memory.closed for partition in node.partitions):
            return False
        if since_no_room < limits.capacity_cool_down_seconds:
            return False
        # Where only the kind had no room, its own time has passed.
        return code_of(node.reason) == "Capacity" or since_failure >= limits.cool_down_seconds

    def _strangers(
        self,
        kind: Kind,
        found: Mapping[str, Machine],
        nodes: Mapping[str, SlurmNode],
        work: Work,
        now: float,
    ) -> None:
        """Find machines of a kind that Slurm doesn't know; their time begins when they are first seen."""
        strange = {name for name in found if name not in nodes and found[name] not in (Machine.ABSENT, Machine.GOING)}
        for name in strange:
            since = self.memory.strangers.setdefault(name, now)
            if now - since >= self.settings.limits.orphan_grace_seconds:
                work.remove.setdefault(kind.name, []).append(name)
                self.log("remove", nodes=[name], why="Slurm knows no such node")
        for name in [name for name in self.memory.strangers if name in kind.nodes or name in found]:
            if name not in strange:
                del self.memory.strangers[name]

    def _use(
        self,
        machines: Mapping[str, Mapping[str, Machine] | None],
        nodes: Mapping[str, SlurmNode],
        in_flight: Collection[str],
        now: float,
    ) -> None:
        """Count what is up or on its way, and the hours of it since the last reconciliation."""
        memory = self.memory
        self._hours(now)
        if any(found is None for found in machines.values()):
            return
        up = {
            name
            for found in machines.values()
            for name, machine in (found or {}).items()
            if machine in (Machine.STARTING, Machine.RUNNING)
        }
        if memory.heartbeat:
            memory.hours += len(up) * min(now - memory.heartbeat, 3600) / 3600
        # Lists of machines lag behind: what is on its way, or is up for Slurm, counts as well.
        up.update(name for name in in_flight if self.settings.kind_of(name))
        up.update(
            node.name
            for node in nodes.values()
            if "DOWN" not in node.flags
            and intent(node.flags) in (Intent.UP, Intent.COMING)
            and self.settings.kind_of(node.name)
        )
        memory.up = len(up)

    def _hours(self, now: float) -> float:
        day = time.strftime("%Y-%m-%d", time.gmtime(now))
        if day != self.memory.day:
            self.memory.day, self.memory.hours = day, 0.0
        return self.memory.hours


def _is_free(flags: frozenset[str]) -> bool:
    """Tell whether a node is off, and nobody has decided anything about it."""
    return {"IDLE", "POWERED_DOWN"} <= flags and not flags & {"DRAIN", "POWERING_UP", "POWERING_DOWN"}


def _clock(now: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
