# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Elastic nodes in simulated time: node-power's own engine between a slurmctld and a provider that are simulated.

The slurmctld does with a node's power what 22.05.8 and 24.11.5 were seen to do (the flags are theirs); the provider has
the latencies, limits and faults of a cloud. Every choice comes from one seed.
"""

from __future__ import annotations

import heapq
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.decide import Intent, Machine, intent
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.engine import Engine, Failure, Group, SlurmNode
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.memory import Memory
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.settings import Settings
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError

# What node-power itself takes, in seconds: from the spooled request to the worker, and a node's joining over SSH.
WORKER_START = 0.4
JOIN = 1.5
JOINS_AT_A_TIME = 64


class Events:
    """What happens when, in simulated seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + seconds, next(self._number), call))

    def run(self, until: float) -> None:
        while self._queue and self._queue[0][0] <= until:
            self.now, _number, call = heapq.heappop(self._queue)
            call()
        self.now = until


@dataclass
class Faults:
    """Probabilities, and what is out of order when. Periods are (from, to) in seconds."""

    throttled: float = 0
    no_room: float = 0
    hangs: float = 0
    dies: float = 0
    join_fails: float = 0
    lost_reply: float = 0
    lag_seconds: float = 0
    room: int = 10**9
    worker_crashes: list[float] = field(default_factory=list)
    node_power_away: list[tuple[float, float]] = field(default_factory=list)
    provider_away: list[tuple[float, float]] = field(default_factory=list)
    slurm_away: list[tuple[float, float]] = field(default_factory=list)

    @classmethod
    def random(cls, dice: random.Random, ends: float) -> Faults:
        """Choose some of everything; all of it is over at ``ends``."""

        def sometimes(most: float) -> float:
            return dice.choice([0, 0, dice.uniform(0, most)])

        def period() -> list[tuple[float, float]]:
            if dice.random() < 0.6:
                return []
            start = dice.uniform(0, ends * 0.8)
            return [(start, min(ends, start + dice.uniform(30, 900)))]

        return cls(
            sometimes(0.5),
            sometimes(0.4),
            sometimes(0.3),
            sometimes(0.2),
            sometimes(0.3),
            sometimes(0.3),
            dice.choice([0, 0, dice.uniform(1, 60)]),
            dice.choice([10**9, dice.randrange(2, 12)]),
            sorted(dice.uniform(0, ends) for _number in range(dice.choice([0, 0, 1, 3]))),
            period(),
            period(),
            period(),
        )

    def end(self) -> None:
        """From now on nothing goes wrong."""
        self.throttled = self.no_room = self.hangs = self.dies = self.join_fails = self.lost_reply = 0
        self.lag_seconds, self.room = 0, 10**9


def within(periods: Iterable[tuple[float, float]], now: float) -> bool:
    return any(start <= now < end for start, end in periods)


class Provider:
    """A cloud: a call for many machines, which boot, run, and go; lists that lag behind."""

    def __init__(self, events: Events, faults: Faults, dice: random.Random) -> None:
        self.events, self.faults, self.dice = events, faults, dice
        self.machines: dict[str, Machine] = {}
        self.born: dict[str, float] = {}
        self.went: dict[str, float] = {}
        self.most = 0
        self.launched = 0
        self.seconds: dict[str, float] = defaultdict(float)

    def launch(self, names: Sequence[str], all_or_nothing: bool) -> tuple[list[str], dict[str, Failure]]:
        """Make machines; names that have one already keep it."""
        if within(self.faults.provider_away, self.events.now):
            return [], dict.fromkeys(names, Failure("HostUnreachable", "the provider doesn't answer"))
        if self.dice.random() < self.faults.throttled / 10:
            return [], dict.fromkeys(names, Failure("Throttled", "too many requests"))
        new = [name for name in names if name not in self.machines]
        room = self.faults.room - len(self.machines)
        if self.dice.random() < self.faults.no_room:
            room = min(room, self.dice.randrange(0, len(names)))
        made = new[: max(0, room)]
        if all_or_nothing and len(made) < len(new):
            made = []
        for name in made:
            self.machines[name] = Machine.STARTING
            self.born[name] = self.events.now
            self.launched += 1
        self.most = max(self.most, len(self.machines))
        here = [name for name in names if name in self.machines]
        if self.dice.random() < self.faults.lost_reply:
            return [], dict.fromkeys(names, Failure("Unknown", "no answer"))
        return here, {name: Failure("Capacity", "no room") for name in names if name not in self.machines}

    def remove(self, names: Iterable[str]) -> None:
        if within(self.faults.provider_away, self.events.now):
            return
        for name in names:
            if self.machines.pop(name, None) is not None:
                self.went[name] = self.events.now

    def list(self) -> dict[str, Machine]:
        """Return the machines as they were a while ago."""
        if within(self.faults.provider_away, self.events.now):
            raise HpcError("The provider doesn't answer.")
        seen = self.events.now - self.faults.lag_seconds
        found = {name: state for name, state in self.machines.items() if self.born[name] <= seen}
        found.update({name: Machine.RUNNING for name, when in self.went.items() if when > seen and name not in found})
        return found


@dataclass
class Job:
    """So many nodes for so long."""

    number: int
    size: int
    seconds: float
    nodes: list[str] = field(default_factory=list)
    state: str = "PENDING"
    begin: float = 0
    started: float = 0
    ended: float = 0
    runs: int = 0


@dataclass
class Node:
    """A node of the simulated slurmctld."""

    name: str
    cloud: bool
    base: str = "IDLE"
    power: str = "POWERED_DOWN"  # or POWERING_UP, POWERING_DOWN, nothing
    reason: str = ""
    job: Job | None = None
    since: float = 0
    turn: int = 0
    """Counts changes of power, so that an old timer knows that it is late."""

    @property
    def flags(self) -> frozenset[str]:
        base = "ALLOCATED" if self.job and self.base == "IDLE" else self.base
        return frozenset(part for part in (base, "CLOUD" if self.cloud else "", self.power) if part)


class Slurmctld:
    """The power saving, the scheduler and the requeueing of slurmctld."""

    resume_timeout, suspend_timeout, suspend_time, requeue_delay, silence = 300.0, 60.0, 300.0, 120.0, 300.0

    def __init__(self, events: Events, faults: Faults, cloud: Sequence[str], fixed: Sequence[str]) -> None:
        self.events, self.faults = events, faults
        self.all = {name: Node(name, True) for name in cloud}
        self.all.update({name: Node(name, False, power="") for name in fixed})
        self.jobs: list[Job] = []
        self.waiting: list[Job] = []
        self.closed: set[str] = set()
        self.on_resume: Callable[[list[str], list[list[str]]], None] = lambda names, jobs: None
        self.on_suspend: Callable[[list[str]], None] = lambda names: None
        self.touched: set[str] = set()

    # What node-power asks for

    def nodes(self) -> Mapping[str, SlurmNode]:
        if within(self.faults.slurm_away, self.events.now):
            raise HpcError("slurmctld doesn't answer.")
        return {n.name: SlurmNode(n.name, n.flags, n.reason, ("main",)) for n in self.all.values()}

    def down(self, names: Sequence[str], reason: str) -> None:
        for name in names:
            self._give_up(self.all[name], reason)

    def power_down(self, names: Sequence[str]) -> None:
        for name in names:
            self._power_down(self.all[name])
        self.on_suspend(list(names))

    def partition(self, name: str, state: str) -> None:
        (self.closed.add if state == "DOWN" else self.closed.discard)(name)

    # What happens by itself

    def submit(self, size: int, seconds: float) -> None:
        job = Job(len(self.jobs) + 1, size, seconds)
        self.jobs.append(job)
        self.waiting.append(job)

    def schedule(self) -> None:
        """Start jobs, and resume what they need; suspend what has been idle for long."""
        now = self.events.now
        free = [
            n
            for n in self.all.values()
            if not n.job and n.base == "IDLE" and n.power in ("", "POWERED_DOWN", "POWERING_UP")
        ]
        free.sort(key=lambda n: n.power)  # nodes that are up first
        if self.closed:
            free = []
        coming: list[str] = []
        together: list[list[str]] = []
        taken = 0
        for job in list(self.waiting):
            if job.begin > now:
                continue
            if len(free) - taken < job.size:
                break
            chosen = free[taken : taken + job.size]
            taken += job.size
            self.waiting.remove(job)
            job.nodes, job.state = [n.name for n in chosen], "CONFIGURING"
            need = [n.name for n in chosen if n.power == "POWERED_DOWN"]
            for node in chosen:
                node.job = job
                if node.power == "POWERED_DOWN":
                    self._turn(node, "POWERING_UP", self.resume_timeout, self._resume_timeout)
            coming += need
            if need:
                together.append(need)
            self._maybe_start(job)
        if coming:
            self.on_resume(coming, together)
        idle = [
            n.name
            for n in self.all.values()
            if n.cloud and not n.job and n.base == "IDLE" and not n.power and now - n.since > self.suspend_time
        ]
        if idle:
            for name in idle:
                self._power_down(self.all[name])
            self.on_suspend(idle)

    def register(self, name: str) -> None:
        """A slurmd says that it is there."""
        node = self.all[name]
        if node.power != "POWERING_UP":
            return
        if node.base == "DOWN":
            node.base, node.reason = "IDLE", ""  # ReturnToService=2
        self._turn(node, "")
        if node.job:
            self._maybe_start(node.job)

    def lost(self, name: str) -> None:
        """The machine of a node that was up is gone; Slurm notices later."""
        node = self.all[name]
        turn = node.turn
        self.events.after(self.silence, lambda: self._silent(node, turn))

    def _silent(self, node: Node, turn: int) -> None:
        if node.turn == turn and not node.power and node.base != "DOWN":
            self._give_up(node, "Not responding")

    def _turn(self, node: Node, power: str, seconds: float = 0, then: Callable[[Node], None] | None = None) -> None:
        node.power, node.since = power, self.events.now
        node.turn += 1
        if then:
            turn = node.turn
            self.events.after(seconds, lambda: then(node) if node.turn == turn else None)

    def _resume_timeout(self, node: Node) -> None:
        self._turn(node, "POWERED_DOWN")
        if node.base != "DOWN":
            self._give_up(node, "ResumeTimeout reached", ours=False)

    def _power_down(self, node: Node) -> None:
        self.touched.add(node.name)
        self._requeue(node)
        node.base = "IDLE"
        self._turn(node, "POWERING_DOWN", self.suspend_timeout, lambda n: self._turn(n, "POWERED_DOWN"))

    def _give_up(self, node: Node, reason: str, ours: bool = True) -> None:
        if ours:
            self.touched.add(node.name)
        node.base, node.reason = "DOWN", reason
        self._requeue(node)

    def _requeue(self, node: Node) -> None:
        job = node.job
        if job is None:
            return
        for name in job.nodes:
            self.all[name].job = None
            self.all[name].since = self.events.now
        job.nodes, job.state, job.begin, job.started = [], "PENDING", self.events.now + self.requeue_delay, 0
        self.waiting.append(job)

    def _maybe_start(self, job: Job) -> None:
        if job.state != "CONFIGURING" or any(
            self.all[name].power or self.all[name].base == "DOWN" for name in job.nodes
        ):
            return
        job.state, job.started = "RUNNING", self.events.now
        job.runs += 1
        run = job.runs
        self.events.after(job.seconds, lambda: self._end(job, run))

    def _end(self, job: Job, run: int) -> None:
        if job.state != "RUNNING" or job.runs != run:
            return
        for name in job.nodes:
            self.all[name].job, self.all[name].since = None, self.events.now
        job.state, job.ended = "COMPLETED", self.events.now


class Cluster:
    """All of it together, with node-power in the middle."""

    def __init__(self, seed: int, settings: Settings, fixed: Sequence[str] = (), faults: Faults | None = None) -> None:
        self.dice = random.Random(seed)
        self.events = Events()
        self.faults = faults or Faults()
        self.settings = settings
        self.cloud = [name for kind in settings.kinds for name in kind.nodes]
        self.slurm = Slurmctld(self.events, self.faults, self.cloud, fixed)
        self.provider = Provider(self.events, self.faults, self.dice)
        self.memory = Memory()
        self.log: list[tuple[float, str, dict[str, object]]] = []
        self.engine = Engine(settings, self.memory, self.slurm, self._log)
        self.spool: list[tuple[str, list[str], list[list[str]]]] = []
        self.flying: dict[str, int] = {}
        self.joining = 0
        self.lives = 0
        self.boot_seconds = lambda: self.dice.uniform(15, 45)
        self.api_seconds = lambda names: self.dice.uniform(1, 4)
        self.slurm.on_resume = lambda names, jobs: self._spooled("resume", names, jobs)
        self.slurm.on_suspend = lambda names: self._spooled("suspend", names, [])
        for moment in self.faults.worker_crashes:
            self.events.after(moment, self._crash)
        self.longest: dict[str, float] = defaultdict(float)
        self._since: dict[tuple[str, str], float] = {}
        self._calm_since = 0.0
        self._every(5, self.slurm.schedule)
        self._every(30, self._watch)
        self._every(60, self._reconcile)

    def _log(self, event: str, **values: object) -> None:
        self.log.append((self.events.now, event, values))

    def _every(self, seconds: float, call: Callable[[], None]) -> None:
        def again() -> None:
            call()
            self.events.after(seconds, again)

        again()

    # node-power's worker

    def _spooled(self, verb: str, names: list[str], jobs: list[list[str]]) -> None:
        self.spool.append((verb, names, jobs))
        self.events.after(WORKER_START, self._work)

    def _away(self) -> bool:
        return within(self.faults.node_power_away, self.events.now)

    def _crash(self) -> None:
        """The worker dies and forgets what it had in hand. (Really it finds the request again; this is worse.)"""
        self.lives += 1
        self.flying.clear()
        self.joining = 0

    def _work(self) -> None:
        if self._away():
            if self.spool:
                self.events.after(5, self._work)
            return
        requests, self.spool = self.spool, []
        for verb, names, jobs in requests:
            if verb == "suspend":
                self.provider.remove(names)
                continue
            try:
                plan = self.engine.admit(names, jobs, self.events.now)
                self.engine.failed(plan.refused, self.events.now)
            except HpcError:
                continue
            for group in plan.groups:
                self._launch(group)

    def _launch(self, group: Group) -> None:
        life = self.lives
        for name in group.nodes:
            self.flying[name] = life

        def answered() -> None:
            made, failures = self.provider.launch(group.nodes, group.all_or_nothing)
            if life != self.lives:
                return
            self._failed(failures)
            for name in made:
                self._boot(name, life)

        self.events.after(self.api_seconds(group.nodes), answered)

    def _failed(self, failures: Mapping[str, Failure]) -> None:
        for name in failures:
            self.flying.pop(name, None)
        try:
            self.engine.failed(failures, self.events.now)
        except HpcError:
            return

    def _boot(self, name: str, life: int) -> None:
        if self.provider.machines.get(name) == Machine.RUNNING:
            self._join(name, life)
        elif self.dice.random() < self.faults.hangs:
            limit = self.settings.limits.boot_seconds
            self.events.after(limit, lambda: self._ended(name, life, Failure("BootTimeout", "it doesn't answer")))
        else:
            self.events.after(self.boot_seconds(), lambda: self._booted(name, life))

    def _booted(self, name: str, life: int) -> None:
        if name in self.provider.machines:
            self.provider.machines[name] = Machine.RUNNING
        self._join(name, life)

    def _join(self, name: str, life: int) -> None:
        if life != self.lives:
            return
        self.joining += 1
        wait = JOIN * (1 + self.joining // JOINS_AT_A_TIME)
        self.events.after(wait, lambda: self._joined(name, life))

    def _joined(self, name: str, life: int) -> None:
        if life != self.lives:
            return
        self.joining -= 1
        if name not in self.provider.machines:
            self._ended(name, life, Failure("JoinFailed", "its machine is gone"))
        elif self.dice.random() < self.faults.join_fails:
            self._ended(name, life, Failure("JoinFailed", "it could not be set up"))
        else:
            self._ended(name, life, None)
            self.slurm.register(name)
            if self.dice.random() < self.faults.dies:
                self.events.after(self.dice.uniform(1, 900), lambda: self._die(name))

    def _ended(self, name: str, life: int, failure: Failure | None) -> None:
        if life != self.lives:
            return
        self.flying.pop(name, None)
        if failure:
            self._failed({name: failure})
        else:
            try:
                self.engine.joined([name], {name: ("main",)}, self.events.now)
            except HpcError:
                return

    def _die(self, name: str) -> None:
        if self.provider.machines.get(name) == Machine.RUNNING:
            del self.provider.machines[name]
            self.slurm.lost(name)

    # node-power's reconciliation

    def _reconcile(self) -> None:
        if self._away():
            return
        machines: dict[str, Mapping[str, Machine] | None] = {}
        for kind in self.settings.kinds:
            try:
                mine = set(kind.nodes)
                machines[kind.name] = {
                    name: state
                    for name, state in self.provider.list().items()
                    if name in mine or name.startswith("stray")
                }
            except HpcError:
                machines[kind.name] = None
        requested = {name for _verb, names, _jobs in self.spool for name in names}
        try:
            work = self.engine.reconcile(machines, {*self.flying, *requested}, self.events.now)
        except HpcError:
            return
        for names in work.remove.values():
            self.provider.remove(names)
        for group in self.engine.admit(work.launch, [], self.events.now).groups if work.launch else []:
            self._launch(group)

    # What must hold

    def _watch(self) -> None:
        """Note for how long anything was not as it should be, while everybody was there to mend it."""
        now, faults = self.events.now, self.faults
        if any(within(periods, now) for periods in (faults.node_power_away, faults.provider_away, faults.slurm_away)):
            self._since.clear()
            return
        found = {("orphan", name) for name in self.orphans()} | {("stuck", name) for name in self.stuck()}
        for key in [key for key in self._since if key not in found]:
            del self._since[key]
        for key in found:
            self.longest[key[0]] = max(self.longest[key[0]], now - self._since.setdefault(key, now))

    def orphans(self) -> set[str]:
        """Return machines that nobody wants."""
        nodes = self.slurm.all
        return {
            name
            for name in self.provider.machines
            if name not in nodes or intent(nodes[name].flags) == Intent.OFF or nodes[name].base == "DOWN"
        }

    def stuck(self) -> set[str]:
        """Return elastic nodes that are neither up nor off and usable."""
        return {
            n.name for n in self.slurm.all.values() if n.base == "DOWN" or n.power in ("POWERING_UP", "POWERING_DOWN")
        }

    def states(self) -> Collection[str]:
        """Return the states that jobs have."""
        return {job.state for job in self.slurm.jobs}
