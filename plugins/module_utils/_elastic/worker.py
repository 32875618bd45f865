# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries out what slurmctld asked for, and what a reconciliation found, with the real Slurm, power hosts and nodes."""

from __future__ import annotations

import fcntl
import json
import queue
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._errors import HpcError, InvalidInput
from .._hostlist import expand, fold
from .._state import Run
from .client import PowerHost, PowerHostError, join
from .decide import Machine
from .engine import Engine, Failure, Group
from .member import payload_for
from .memory import Memory, opened
from .settings import Settings
from .slurm_side import Scontrol
from .spool import SPOOL, claim, finish, pending, submit

__all__ = ["Place", "Worker", "log_line", "reconcile"]

JOINS_AT_A_TIME = 64
GROUPS_AT_A_TIME = 16


@dataclass(frozen=True)
class Place:
    """Where things are on the controller."""

    settings: Path = Path("/etc/turnkey/node-power/settings.json")
    profile: Path = Path("/etc/turnkey/node-power/profile.json")
    key: Path = Path("/etc/turnkey/node-power/key")
    memory: Path = Path("/var/lib/node-power/memory.json")
    lock: Path = Path("/var/lib/node-power/worker.lock")
    spool: str = SPOOL

    def load(self) -> Settings:
        """Return the settings."""
        return Settings.parse(json.loads(self.settings.read_text(encoding="utf-8")))


def log_line(event: str, **values: object) -> None:
    """Write one line a decision, as key=value; systemd adds the time."""
    parts = [f"event={event.replace(' ', '-')}"]
    for key, value in values.items():
        if value in ("", None):
            continue
        text = fold(value) if key == "nodes" and isinstance(value, (list, tuple)) else str(value)
        parts.append(f"{key}={text if text.isprintable() and not set(text) & set(' =') else json.dumps(text)}")
    sys.stdout.write(" ".join(parts) + "\n")
    sys.stdout.flush()


class Worker:
    """Works until no request is left."""

    def __init__(
        self,
        place: Place,
        run: Run,
        clock: Callable[[], float] = time.time,
        connect: Callable[[str, str], PowerHost] = PowerHost,
        join_node: Callable[..., Failure | None] = join,
    ) -> None:
        """Take where things are, ``run`` for scontrol, and how to reach power hosts and new machines."""
        self.place = place
        self._connect = connect
        self._join = join_node
        self.settings = place.load()
        self.slurm = Scontrol(run)
        self.clock = clock
        self._joins = ThreadPoolExecutor(max_workers=JOINS_AT_A_TIME)
        self._groups = ThreadPoolExecutor(max_workers=GROUPS_AT_A_TIME)

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """Give the engine with what is remembered, to one thread of one process at a time."""
        with opened(self.place.memory) as memory:
            yield Engine(self.settings, memory, self.slurm, log_line)

    def host(self, name: str) -> PowerHost:
        """Return the power host of that name."""
        return self._connect(name, str(self.place.key))

    def work(self) -> None:
        """Carry requests out until there are none. Only one worker works."""
        with self.place.lock.open("w", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            self._work()

    def _work(self) -> None:
        waiting = claim(self.place.spool, again=True)
        active: dict[Future[None], tuple[str, frozenset[str]]] = {}
        while waiting or active:
            busy = frozenset(name for _path, names in active.values() for name in names)
            later = []
            for path, request in waiting:
                try:
                    names = expand(str(request["nodes"]))
                except InvalidInput as error:
                    log_line("refused", why=str(error))
                    finish(path)
                    continue
                # Requests about a node are carried out in their order.
                if busy.intersection(names):
                    later.append((path, request))
                    continue
                busy = busy.union(names)
                active[self._groups.submit(self._request, path, request, names)] = (path, frozenset(names))
            waiting = later
            done, _rest = wait(active, timeout=0.1, return_when=FIRST_COMPLETED)
            for future in done:
                path, names_of = active.pop(future)
                trouble = future.exception()
                if trouble is not None:
                    log_line("error", nodes=sorted(names_of), why=f"{type(trouble).__name__}: {trouble}")
                finish(path)
            waiting += claim(self.place.spool)

    def _request(self, path: str, request: Mapping[str, Any], names: list[str]) -> None:
        del path
        verb = str(request["verb"])
        waited = self.clock() - float(request.get("at") or self.clock())
        log_line(verb, nodes=names, waited_seconds=f"{waited:.2f}")
        if verb == "resume":
            self.resume(names, _jobs(request))
        else:
            self.remove(names)

    # Starting

    def resume(self, names: Sequence[str], jobs: Sequence[Sequence[str]] = ()) -> None:
        """Launch nodes."""
        with self.engine() as engine:
            plan = engine.admit(names, jobs, self.clock())
            engine.failed(plan.refused, self.clock())
        # More threads than for requests, as each of those waits here for its groups.
        with ThreadPoolExecutor(max_workers=GROUPS_AT_A_TIME) as pool:
            for future in [pool.submit(self.launch, group) for group in plan.groups]:
                future.result()

    def launch(self, group: Group) -> None:
        """Have the machines of a group made, and make them nodes, each as soon as it can be reached."""
        answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        left = dict.fromkeys(group.nodes)
        failures: dict[str, Failure] = {}
        problem: list[Failure] = []

        def ask() -> None:
            try:
                for answer in self.host(group.kind.host).resume(group.nodes):
                    answers.put(answer)
            except PowerHostError as error:
                problem.append(Failure(error.code, str(error)))
            except HpcError as error:
                problem.append(Failure("HostUnreachable", str(error)))
            finally:
                answers.put(None)

        with ThreadPoolExecutor(max_workers=1) as asking, tempfile.TemporaryDirectory(prefix="node-power-") as scratch:
            asking.submit(ask)
            joins: dict[Future[Failure | None], str] = {}
            ended = False
            profile = json.loads(self.place.profile.read_text(encoding="utf-8"))
            hosts = Path("/etc/hosts").read_text(encoding="utf-8")
            while not ended or joins:
                batch = _drain(answers, 0.05 if joins or ended else 0.5) if not ended else []
                ended = ended or None in batch
                here = [answer for answer in batch if answer and answer.get("node") in left]
                for answer in here:
                    left.pop(answer["node"], None)
                new = {str(a["node"]): Failure(str(a["code"]), str(a["text"])) for a in here if "code" in a}
                ready = [answer for answer in here if "code" not in answer]
                self.slurm.addresses({str(a["node"]): str(a["address"]) for a in ready})
                for answer in ready:
                    name = str(answer["node"])
                    known = Path(scratch) / name
                    known.write_text(f"{name} {answer['host_key']}\n", encoding="ascii")
                    payload = payload_for(name, profile, hosts)
                    arguments = (answer["address"], name, str(answer.get("user") or "root"), str(self.place.key), known)
                    joins[self._joins.submit(self._join, *arguments, payload, self.settings.limits.boot_seconds)] = name
                done, _rest = wait(joins, timeout=0.05 if ended else 0, return_when=FIRST_COMPLETED)
                joined = []
                for future in done:
                    name = joins.pop(future)
                    error = future.exception()
                    failure = Failure("JoinFailed", str(error)) if error else future.result()
                    if failure:
                        new[name] = failure
                    else:
                        joined.append(name)
                if ended and problem and left:
                    new.update(dict.fromkeys(left, problem[0]))
                    left.clear()
                failures.update(new)
                self._tell(joined, new)
        lost = {name: Failure("Failed", "the power host said nothing about it") for name in left}
        self._tell([], lost)
        failures.update(lost)
        if failures:
            self.remove(list(failures))

    def _tell(self, joined: list[str], failures: Mapping[str, Failure]) -> None:
        if not joined and not failures:
            return
        with self.engine() as engine:
            nodes = engine.slurm.nodes() if joined and engine.memory.failures else {}
            partitions = {name: nodes[name].partitions if name in nodes else () for name in joined}
            engine.joined(joined, partitions, self.clock())
            engine.failed(failures, self.clock())

    # Removing

    def clear(self) -> None:
        """Remove all machines of all kinds."""
        for host in dict.fromkeys(kind.host for kind in self.settings.kinds):
            names = list(self.host(host).status())
            failed = [a for a in self.host(host).suspend(names) if "code" in a] if names else []
            if failed:
                raise HpcError(f"{failed[0]['node']} could not be removed: {failed[0]['text']}")

    def remove(self, names: Sequence[str], kind_name: str = "") -> None:
        """Have machines removed; what can't be removed now is found again by a reconciliation."""
        by_host: dict[str, list[str]] = {}
        for kind in self.settings.kinds:
            mine = [name for name in names if name in kind.nodes or kind.name == kind_name]
            if mine:
                by_host.setdefault(kind.host, []).extend(
                    name for name in mine if name not in by_host.get(kind.host, ())
                )
        for host, members in by_host.items():
            failed = []
            try:
                failed = [a for a in self.host(host).suspend(members) if "code" in a]
            except HpcError as error:
                failed = [{"node": members[0], "text": str(error)}]
            if failed:
                with self.engine() as engine:
                    engine.memory.note(f"{failed[0]['node']} could not be removed: {failed[0]['text']}")
                log_line("not removed", nodes=[a["node"] for a in failed], why=failed[0]["text"])
            else:
                log_line("removed", nodes=members)


def reconcile(worker: Worker) -> None:
    """Compare once, and act."""
    place, clock = worker.place, worker.clock
    # Requests are read before the machines: one that is done in between was about machines that are seen.
    in_flight = {name for request in pending(place.spool) for name in _names(request)}
    machines: dict[str, Mapping[str, Machine] | None] = {}
    found: dict[str, Mapping[str, Machine] | None] = {}
    owner = {name: kind.name for kind in worker.settings.kinds for name in kind.nodes}
    first = {kind.host: kind.name for kind in reversed(worker.settings.kinds)}
    for kind in worker.settings.kinds:
        if kind.host not in found:
            try:
                found[kind.host] = worker.host(kind.host).status()
            except HpcError as error:
                found[kind.host] = None
                log_line("unreadable", host=kind.host, why=str(error))
        here = found[kind.host]
        # A machine of no kind is looked at with the first kind of its host.
        machines[kind.name] = (
            None
            if here is None
            else {
                name: state
                for name, state in here.items()
                if owner.get(name) == kind.name or (name not in owner and first[kind.host] == kind.name)
            }
        )
    with worker.engine() as engine:
        work = engine.reconcile(machines, in_flight, clock())
    in_flight = {name for request in pending(place.spool) for name in _names(request)}
    for kind_name, names in work.remove.items():
        free = [name for name in names if name not in in_flight]
        if free:
            worker.remove(free, kind_name)
    if work.launch:
        submit("resume", fold(work.launch), {}, place.spool)


def _names(request: Mapping[str, object]) -> list[str]:
    try:
        return expand(str(request["nodes"]))
    except InvalidInput:
        return []


def _jobs(request: Mapping[str, Any]) -> list[list[str]]:
    """Return the nodes that each job of a request needs."""
    found = []
    for job in request.get("jobs") or ():
        try:
            found.append(expand(str(job.get("nodes_resume") or "")))
        except (InvalidInput, AttributeError):
            continue
    return found


def _drain(answers: queue.Queue[dict[str, Any] | None], seconds: float) -> list[dict[str, Any] | None]:
    """Return all answers that are there; wait for the first."""
    try:
        batch = [answers.get(timeout=seconds)]
    except queue.Empty:
        return []
    while True:
        try:
            batch.append(answers.get_nowait())
        except queue.Empty:
            return batch


def remembered(place: Place) -> Memory:
    """Return what is remembered, to look at."""
    try:
        return Memory.from_dict(json.loads(place.memory.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Memory()
