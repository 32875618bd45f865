# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the clouds have in common. A provider of one of them translates single calls; what is done when is said here."""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import random
import re
import socket
import sys
import threading
import time
import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar, Union

from .._errors import HpcError, join_problems
from .base import (
    AddressInUse,
    ClusterSpec,
    Conflict,
    Desired,
    Exists,
    Machine,
    MachineSpec,
    NotFound,
    NotReady,
    Provider,
    Resource,
    State,
    Throttled,
    Unknown,
    VolumeMount,
    natural_key,
    retry,
    spec_hash,
)
from .cloud_spec import CloudSpec
from .plan import Action, execute_batches, existing, wanted
from .user_data import render_user_data, user_data_problems

__all__ = [
    "ELASTIC",
    "MACHINES",
    "CloudProvider",
    "CloudRequest",
    "Limits",
    "Row",
    "Rule",
    "Timing",
    "chunks",
    "host_key_of_console",
    "machine_attributes",
    "row_of",
    "tags_of",
]

T = TypeVar("T")
Errors = Union[type[HpcError], tuple[type[HpcError], ...]]

CLUSTER = "turnkey:cluster"
ROLE = "turnkey:role"
NAME = "turnkey:name"
SPEC = "turnkey:spec"
HOST_KEY = "turnkey:host-key"
GROUPS = "turnkey:groups"
BASTION = "turnkey:bastion"
SET = "turnkey:set"
BUILD = "turnkey:build"
EXPIRES = "turnkey:expires"
INPUTS = "turnkey:inputs"

ALIVE = frozenset({"pending", "running", "stopping", "stopped"})

MACHINE, ELASTIC = MACHINES = ("machine", "elastic")
"""Roles of machines: those of the site's sets, and those that node-power makes and removes."""

OURS = "turnkey"
"""Description of the security rules that this collection made."""

RECIPE = 1  # raise it when machines made by an older version must be replaced
WORKERS = 4  # requests at the same time
BATCH = 500  # machines that are made, started or removed together
PENDING_KEY = "(the key that the first run makes)"
PENDING_ADDRESS = "(given when it runs)"

# Attributes of a machine that the provider can't be asked for: they are tags.
_TAGGED = ("bastion", "image", "placement", "root_gb", "set", "spot", "subnet", "user_data", "volumes")
_RULE = re.compile(r"(?P<protocol>all|tcp|udp|icmp|[0-9]+)(?: (?P<ports>[0-9]+(?:-[0-9]+)?))? from (?P<source>.+)")
_CONSOLE_KEY = re.compile(r"^.*?(ssh-ed25519 [A-Za-z0-9+/]{68})(?![A-Za-z0-9+/=])", re.MULTILINE)
_KEYS_BEGIN, _KEYS_END = "-----BEGIN SSH HOST KEY KEYS-----", "-----END SSH HOST KEY KEYS-----"


@dataclass(frozen=True)
class Limits:
    """How much one call may take."""

    run: int
    terminate: int
    user_data_bytes: int


@dataclass(frozen=True)
class Timing:
    """How long is waited for what, and the clock it is measured with."""

    poll_seconds: float = 3
    settle_seconds: float = 15  # until a lost creation shows up in a listing
    visible_seconds: float = 90  # until what was created is known everywhere
    conflict_seconds: float = 300  # until what is in the way is gone
    throttle_seconds: float = 300
    ready_seconds: float = 600  # until a machine runs, or is gone
    base_seconds: float = 1
    cap_seconds: float = 20
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    uniform: Callable[[float, float], float] = random.uniform

    def retry(self, call: Callable[[], T], on: Errors, seconds: float) -> T:
        """Make a call, and again after one of these errors, until it succeeds or the time is over."""
        return self._retry(call, on, seconds, self.base_seconds, self.cap_seconds)

    def poll(self, look: Callable[[], T], seconds: float) -> T:
        """Look until something is ready, or the time is over."""
        return self._retry(look, NotReady, seconds, self.poll_seconds, self.poll_seconds * 3)

    def _retry(self, call: Callable[[], T], on: Errors, seconds: float, base_seconds: float, cap_seconds: float) -> T:
        return retry(
            call,
            on=on,
            deadline_seconds=seconds,
            base_seconds=base_seconds,
            cap_seconds=cap_seconds,
            clock=self.clock,
            sleep=self.sleep,
            uniform=self.uniform,
        )


@dataclass(frozen=True)
class Row:
    """A machine as a listing of the provider gives it.

    ``state`` is pending, running, stopping, stopped, or going (it still has its address and its disks) and gone.
    """

    name: str
    id: str
    address: str
    state: str
    cluster: str = ""
    set_name: str = ""
    groups: tuple[str, ...] = ()
    bastion: bool = False
    public_address: str = ""
    host_key: str = ""
    instance_type: str = ""
    reason: str = ""
    role: str = MACHINE


@dataclass(frozen=True)
class CloudRequest:
    """What a creating call is made from."""

    spec: ClusterSpec
    machine: MachineSpec | None = None
    volume: VolumeMount | None = None

    @property
    def cloud(self) -> CloudSpec:
        """Return the cluster's place."""
        if self.spec.cloud is None:
            raise AssertionError(self.spec.cluster)
        return self.spec.cloud


@dataclass(frozen=True, order=True)
class Rule:
    """Who may reach a security group. ``source`` is a network, or ``group <key>`` of the same cluster."""

    protocol: str
    source: str
    first_port: int = -1
    last_port: int = -1

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read what ``str`` wrote."""
        match = _RULE.fullmatch(text)
        if match is None:
            raise ValueError(text)
        first, _dash, last = (match["ports"] or "-1").partition("-") if match["ports"] else ("-1", "", "")
        return cls(match["protocol"], match["source"], int(first), int(last or first))

    def __str__(self) -> str:
        ports = ""
        if self.first_port >= 0:
            ports = f" {self.first_port}" + (f"-{self.last_port}" if self.last_port != self.first_port else "")
        return f"{self.protocol}{ports} from {self.source}"


class CloudProvider(Provider):
    """A cloud. The abstract methods below are single calls, and raise the errors of ``base``; all else is here."""

    ready_seconds = 600
    limits: Limits
    role = MACHINE
    """Which machines this provider makes, starts and waits for."""

    def __init__(self, timing: Timing | None = None, reach: Callable[[str, int], None] | None = None) -> None:
        """Take the times, and ``reach`` which raises OSError where nothing listens."""
        self.timing = timing or Timing()
        self.ids: dict[str, str] = {}
        """What exists, as far as this run has seen it: ids by ``kind/key``."""
        self._reach = reach or _reach
        self._run_id = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._cluster = ""

    # What a provider gives

    @abstractmethod
    def extra(self, spec: ClusterSpec) -> list[Desired]:
        """Return the resources that only this cloud has. Pure."""

    @abstractmethod
    def preflight(self, spec: ClusterSpec, state: State) -> list[str]:
        """Return what would make creation fail: rights, kinds of machines, images. Changes nothing."""

    @abstractmethod
    def resources(self, cluster: str) -> list[Resource]:
        """Return what carries this cluster's tag and isn't gone."""

    @abstractmethod
    def find(self, desired: Desired) -> str:
        """Return the id of one resource by its tags, empty if there is none."""

    @abstractmethod
    def create(self, desired: Desired) -> str:
        """Make one resource that is no machine, with its tags, in one call, and return its id."""

    @abstractmethod
    def settle(self, desired: Desired, identity: str, resource: Resource | None) -> None:
        """Make the settings of a resource what they should be; ``resource`` as it was found, None if it is new."""

    @abstractmethod
    def delete(self, resource: Resource) -> None:
        """Remove one resource that is no machine."""

    @abstractmethod
    def launch_groups(self, items: Sequence[Desired]) -> list[list[Desired]]:
        """Return machines in groups that one call can make."""

    @abstractmethod
    def launch(self, group: Sequence[Desired]) -> Mapping[str, str]:
        """Make machines in one call; return the ids by name of those that there was room for."""

    @abstractmethod
    def start_machines(self, ids: Sequence[str]) -> None:
        """Start stopped machines."""

    @abstractmethod
    def stop_machines(self, ids: Sequence[str]) -> None:
        """Shut machines down, so that they cost as little as possible."""

    @abstractmethod
    def terminate_machines(self, ids: Sequence[str]) -> None:
        """Remove machines for good."""

    @abstractmethod
    def find_image(self, text: str) -> None:
        """Look an image up; raise NotFound or Invalid if there is none."""

    @abstractmethod
    def figures(self, types: Sequence[str]) -> dict[str, dict[str, int]]:
        """Return what instance types have: ``cpus``, ``memory_mb``, and the CPUs' layout where the cloud tells it."""

    @abstractmethod
    def rows(self, cluster: str = "") -> list[Row]:
        """Return the machines of a cluster, in whatever role, or of all clusters of the account."""

    @abstractmethod
    def console(self, identity: str) -> str:
        """Return what a machine has written to its console."""

    @abstractmethod
    def tag_host_key(self, identity: str, key: str) -> None:
        """Keep a machine's host key in its tags."""

    # What should be

    def desired(self, spec: ClusterSpec) -> list[Desired]:
        """Return everything that ``spec`` stands for. Pure."""
        cloud = CloudRequest(spec).cloud
        request = CloudRequest(spec)
        key = _fingerprint(spec.admin_public_key)
        result = [item_of("network", "main", {"cidr": spec.network}, request)]
        result += [
            item_of(
                "subnet",
                name,
                {"cidr": cloud.subnet(name), **_given(zone=cloud.zone)},
                request,
                depends=("network/main",),
            )
            for name in ("public", "private")
        ]
        result += [self._security_group(spec, name) for name in ("bastion", "cluster")]
        result.append(item_of("key_pair", "operator", {"public_key": key}, request))
        result += [
            item_of("placement", name, {"strategy": strategy}, request)
            for name, strategy in sorted({(m.set_name, m.placement) for m in spec.machines if m.placement})
        ]
        if cloud.egress == "nat":
            result.append(item_of("address", "nat", {}, request))
        result += self.extra(spec)
        result += [
            item_of(
                "volume",
                _volume_key(machine, mount),
                {"size_gb": str(mount.size_gb), **_given(type=mount.type, zone=cloud.zone)},
                CloudRequest(spec, machine, mount),
                # Where the subnets are, the volumes must be.
                depends=(f"subnet/{machine.subnet}",),
            )
            for machine in spec.machines
            for mount in machine.volumes
        ]
        return result + [self._machine(spec, machine) for machine in spec.machines]

    def before_machines(self, spec: ClusterSpec, machine: MachineSpec) -> tuple[str, ...]:
        """Return what must be there before a machine besides what it is made from: its way out. Pure."""
        return ("nat/main",) if machine.subnet == "private" and CloudRequest(spec).cloud.egress == "nat" else ()

    def expected(self, spec: ClusterSpec, item: MachineSpec) -> Machine:
        """Return a machine as it will be. Pure."""
        return replace(
            super().expected(spec, item),
            login_user=CloudRequest(spec).cloud.login_user or self.login_user,
            public_address=PENDING_ADDRESS if item.bastion else "",
            public_port=22 if item.bastion else 0,
        )

    def _security_group(self, spec: ClusterSpec, name: str) -> Desired:
        cloud = CloudRequest(spec).cloud
        if name == "bastion":
            rules = {str(Rule("tcp", source, 22, 22)) for source in cloud.ssh_from}
        else:
            rules = {str(Rule("all", "group cluster"))}
        return item_of(
            "security_group",
            name,
            {},
            CloudRequest(spec),
            depends=("network/main",),
            settings={"rules": frozenset(rules), "foreign_rules": frozenset()},
            exact=frozenset({"rules", *(["foreign_rules"] if cloud.remove_foreign_rules else [])}),
        )

    def _machine(self, spec: ClusterSpec, machine: MachineSpec) -> Desired:
        cloud = CloudRequest(spec).cloud
        attributes = {
            "address": machine.address,
            "bastion": "yes" if machine.bastion else "",
            "image": machine.image,
            "instance_type": machine.instance_type,
            "placement": machine.placement,
            "root_gb": str(machine.root_gb or ""),
            "set": machine.set_name,
            "spot": "yes" if machine.spot else "",
            "subnet": machine.subnet,
            "user_data": spec_hash({"user_data": cloud.user_data, "proxy": cloud.proxy_url})[:8]
            if cloud.user_data or cloud.proxy_url
            else "",
            "volumes": " ".join(f"{mount.name}:{mount.path}" for mount in machine.volumes),
        }
        groups = (
            ("security_group/bastion", "security_group/cluster") if machine.bastion else ("security_group/cluster",)
        )
        return Desired(
            self.role,
            machine.name,
            spec_hash({"recipe": RECIPE, **attributes}),
            {**attributes, "state": "running"},
            settings={
                "groups": frozenset(machine.groups),
                "attached": frozenset(_volume_key(machine, mount) for mount in machine.volumes),
            },
            depends=(
                f"subnet/{machine.subnet}",
                *groups,
                "key_pair/operator",
                *((f"placement/{machine.set_name}",) if machine.placement else ()),
                *(f"volume/{_volume_key(machine, mount)}" for mount in machine.volumes),
                *self.before_machines(spec, machine),
            ),
            request=CloudRequest(spec, machine),
            exact=frozenset({"groups"}),
        )

    def user_data(
        self, desired: Desired, device_of: Callable[[str], str], *, hostname: bool = True, authorized_key: str = ""
    ) -> bytes:
        """Return the user data of a machine. ``device_of`` gives the device that a volume's id stands for."""
        machine, cloud = machine_of(desired), desired.request.cloud
        volumes = {
            mount.path: device_of(self.ids[f"volume/{_volume_key(machine, mount)}"]) for mount in machine.volumes
        }
        return render_user_data(
            machine.name if hostname else "",
            volumes,
            cloud.proxy_url,
            cloud.user_data,
            self.limits.user_data_bytes,
            authorized_key,
        )

    def token(self, *parts: str) -> str:
        """Return the token by which the provider knows that a repeated request is the same.

        It differs from run to run. One that didn't would bring back a machine that was removed and is made again; what
        an earlier, cut-off run has made is found by its tags, and a second machine can't have the same address.
        """
        return hashlib.sha256("\0".join((self._run_id, self._cluster, *parts)).encode()).hexdigest()[:32]

    # What is

    def discover(self, cluster: str) -> State:
        """Return everything that carries this cluster's tag."""
        self._cluster = cluster
        state = State(tuple(self.patient(lambda: self.resources(cluster))))
        self.ids = {resource.ref: resource.id for resource in state.resources}
        return state

    def list_instances(self, cluster: str) -> list[Machine]:
        """Return the machines."""
        found = [row for row in self.my_rows(cluster) if row.state in ALIVE]
        return sorted((self._machine_of(row) for row in found), key=lambda machine: natural_key(machine.name))

    def my_rows(self, cluster: str) -> list[Row]:
        """Return the machines of a cluster that this provider is about."""
        self._cluster = cluster
        return [row for row in self.patient(lambda: self.rows(cluster)) if row.role == self.role]

    def clusters(self) -> dict[str, list[Row]]:
        """Return the machines of all clusters that this account has in the region."""
        found: dict[str, list[Row]] = {}
        for row in self.patient(self.rows):
            if row.state in ALIVE:
                found.setdefault(row.cluster, []).append(row)
        return dict(sorted(found.items()))

    def check(self, spec: ClusterSpec, state: State) -> list[str]:
        """Return what would make creation fail."""
        cloud = CloudRequest(spec).cloud
        problems = user_data_problems(cloud.user_data)
        try:
            longest = max((machine.name for machine in spec.machines), key=len)
            volumes = {mount.path: "/dev/disk/by-id/" + "x" * 64 for m in spec.machines for mount in m.volumes}
            render_user_data(longest, volumes, cloud.proxy_url, cloud.user_data, self.limits.user_data_bytes)
        except HpcError as error:
            problems.append(str(error))
        return problems + self.patient(lambda: self.preflight(spec, state))

    def host_keys(self, cluster: str, names: Sequence[str], timeout_seconds: float) -> dict[str, str]:
        """Wait for the host keys, which a machine writes to its console; those that are known are in its tags."""
        rows = {row.name: row for row in self.my_rows(cluster) if row.state in ALIVE}
        missing = [name for name in names if name not in rows]
        if missing:
            raise NotFound(f"cluster {cluster} has no machine {', '.join(missing)}.")
        problems: list[str] = []

        def one(name: str) -> str:
            try:
                return self.timing.poll(lambda: self.host_key_now(rows[name]), timeout_seconds)
            except NotReady as error:
                problems.append(f"machine {name} is not ready after {timeout_seconds:g} s: {error.what}")
            except HpcError as error:
                problems.append(f"machine {name}: {error}")
            return ""

        with ThreadPoolExecutor(max_workers=WORKERS) as pool:
            keys = dict(zip(names, pool.map(one, names)))
        if problems:
            raise HpcError(join_problems(sorted(problems, key=natural_key)))
        return keys

    def host_key_now(self, row: Row) -> str:
        """Return the host key of a machine that accepts logins; raise NotReady as long as it doesn't."""
        key = row.host_key or host_key_of_console(self.patient(lambda: self.console(row.id)))
        if not key:
            raise NotReady("it has not written an ed25519 host key to its console yet.")
        # Elastic ones are in the network of whoever makes them; others are behind the bastion.
        address = row.public_address if row.bastion else row.address if self.role == ELASTIC else ""
        if address:
            try:
                self._reach(address, 22)
            except OSError as error:
                hint = " Is your address in ssh_from?" if row.bastion else ""
                raise NotReady(f"nothing answers at {address} port 22 ({error}).{hint}") from error
        if not row.host_key:
            self.patient(lambda: self.tag_host_key(row.id, key))
        return key

    def _machine_of(self, row: Row) -> Machine:
        return Machine(
            name=row.name,
            id=row.id,
            address=row.address,
            set_name=row.set_name,
            groups=row.groups,
            running=row.state in ("pending", "running"),
            login_user=self.login_user,
            bastion=row.bastion,
            public_address=row.public_address if row.bastion else "",
            public_port=22 if row.bastion else 0,
            host_key=row.host_key,
        )

    # Doing

    def apply(self, actions: Sequence[Action], progress: Callable[[Action], None] | None = None) -> list[Action]:
        """Carry the actions out."""
        return execute_batches(actions, self._perform, _batch_of, progress, WORKERS)

    def start(self, cluster: str, names: Sequence[str]) -> None:
        """Start stopped machines and wait until they run."""
        ids = self._ids_of(cluster, names)
        for chunk in chunks(list(ids.values()), self.limits.terminate):
            self.patient(lambda chunk=chunk: self.start_machines(chunk))  # type: ignore[misc]
        self._await_running(cluster, set(ids), lambda _row: None)

    def stop(self, cluster: str, names: Sequence[str]) -> None:
        """Shut machines down."""
        for chunk in chunks(list(self._ids_of(cluster, names).values()), self.limits.terminate):
            self.patient(lambda chunk=chunk: self.stop_machines(chunk))  # type: ignore[misc]

    def terminate(self, cluster: str, names: Sequence[str]) -> None:
        """Remove machines of this cluster; only those are looked at, so others can't be hit."""
        doomed = [resource for name, resource in self.discover(cluster).of_kind(self.role).items() if name in names]
        self.apply([Action("delete", self.role, resource.key, resource=resource) for resource in doomed])

    def patient(self, call: Callable[[], T], *, repeatable: bool = True) -> T:
        """Make a call, and again if it is throttled, hindered, about something new, or (if harmless) not answered."""
        timing = self.timing
        passing = (Throttled, Unknown) if repeatable else Throttled
        visible = partial(timing.retry, call, NotFound, timing.visible_seconds)
        calm = partial(timing.retry, visible, passing, timing.throttle_seconds)
        return timing.retry(calm, Conflict, timing.conflict_seconds)

    def _perform(self, actions: Sequence[Action], done: Callable[[Action], None]) -> None:
        first = actions[0]
        if first.kind in MACHINES and first.verb != "update":
            {"create": self._create_machines, "start": self._start_machines, "delete": self._delete_machines}[
                first.verb
            ](actions, done)
            return
        for action in actions:
            if action.verb == "create":
                self._create(wanted(action))
            elif action.verb == "update":
                self._settle(wanted(action), existing(action).id, existing(action))
            else:
                self._delete(existing(action))
            done(action)

    def _create(self, desired: Desired) -> None:
        end = self.timing.clock() + self.timing.throttle_seconds
        while True:
            try:
                identity = self.patient(lambda: self.create(desired), repeatable=False)
                break
            except (Unknown, Exists) as error:
                # It may have been made: look before making another one.
                identity = self._find(desired)
                if identity:
                    break
                if isinstance(error, Exists) or self.timing.clock() >= end:
                    raise
        with self._lock:
            self.ids[desired.ref] = identity
        self._settle(desired, identity, None)

    def _find(self, desired: Desired) -> str:
        end = self.timing.clock() + self.timing.settle_seconds
        while True:
            # The look that gives up must have begun after the time was over, however long a look takes.
            over = self.timing.clock() >= end
            identity = self.patient(lambda: self.find(desired))
            if identity or over:
                return identity
            self.timing.sleep(self.timing.poll_seconds)

    def _settle(self, desired: Desired, identity: str, resource: Resource | None) -> None:
        self.patient(lambda: self.settle(desired, identity, resource))

    def _delete(self, resource: Resource) -> None:
        self.until_gone(lambda: self.delete(resource))

    def until_gone(self, step: Callable[[], None]) -> None:
        """Take a step of a removal, and again while something is in the way of it."""
        try:
            self.timing.retry(step, (Conflict, Throttled, Unknown), self.timing.conflict_seconds)
        except NotFound:
            return

    def _create_machines(self, actions: Sequence[Action], done: Callable[[Action], None]) -> None:
        by_name = {action.key: action for action in actions}
        launched, missing = self.launch_all([wanted(action) for action in actions])
        failures = list(dict.fromkeys(str(error) for error in missing.values()))

        def ready(row: Row) -> None:
            desired = wanted(by_name[row.name])
            if desired.settings["attached"]:
                self._settle(desired, row.id, None)
            done(by_name[row.name])

        try:
            self._await_running(self._cluster, set(launched), ready)
        except HpcError as error:
            failures.append(str(error))
        if failures:
            raise HpcError(join_problems(failures))

    def launch_all(self, items: Sequence[Desired]) -> tuple[dict[str, str], dict[str, HpcError]]:
        """Launch machines; return the ids of those that were, and why others weren't."""
        launched: dict[str, str] = {}
        failures: dict[str, HpcError] = {}
        hopeless: list[HpcError] = []

        def one(group: Sequence[Desired]) -> None:
            try:
                if hopeless:  # no room, no right: the next one would fare the same
                    raise hopeless[0]
                self._launch(group, launched)
            except HpcError as error:
                failures.update({item.key: error for item in group if item.key not in launched})
                if not isinstance(error, AddressInUse):
                    hopeless.append(error)

        groups = self.launch_groups(items)
        with ThreadPoolExecutor(max_workers=WORKERS) as pool:
            for future in [pool.submit(one, group) for group in groups]:
                future.result()
        return launched, failures

    def _launch(self, group: Sequence[Desired], launched: dict[str, str]) -> None:
        timing = self.timing
        left = {item.key: item for item in group}
        end = timing.clock() + timing.conflict_seconds
        while left:
            try:
                ids: Mapping[str, str] = timing.retry(
                    lambda: self.launch(list(left.values())), (Throttled, NotFound), timing.throttle_seconds
                )
            except (AddressInUse, Unknown, Conflict):
                # An earlier request without an answer may have made them; else a removed machine still goes away.
                rows = self.my_rows(self._cluster)
                ids = {row.name: row.id for row in rows if row.name in left and row.state in ALIVE}
                if not ids:
                    if timing.clock() >= end:
                        raise
                    timing.sleep(timing.uniform(timing.poll_seconds / 2, timing.poll_seconds))
            with self._lock:
                for name, identity in ids.items():
                    left.pop(name)
                    launched[name] = self.ids[f"{self.role}/{name}"] = identity

    def _start_machines(self, actions: Sequence[Action], done: Callable[[Action], None]) -> None:
        by_name = {action.key: action for action in actions}
        for chunk in chunks([existing(action).id for action in actions], self.limits.terminate):
            self.patient(lambda chunk=chunk: self.start_machines(chunk))  # type: ignore[misc]

        def ready(row: Row) -> None:
            action = by_name[row.name]
            self._settle(wanted(action), row.id, existing(action))
            done(action)

        self._await_running(self._cluster, set(by_name), ready)

    def _await_running(self, cluster: str, names: set[str], ready: Callable[[Row], None]) -> None:
        """Wait until these machines run; call ``ready`` for each as it comes up."""
        left, failures = set(names), []
        seen: set[str] = set()
        end = self.timing.clock() + self.timing.ready_seconds
        unseen_end = self.timing.clock() + self.timing.visible_seconds
        while left:
            rows = self.my_rows(cluster)
            # What is gone may have the name of what is coming.
            states = {row.name: row for row in sorted(rows, key=lambda row: row.state in ALIVE) if row.name in left}
            for name, row in sorted(states.items(), key=lambda pair: natural_key(pair[0])):
                if row.state not in ALIVE and self.ids.get(f"{self.role}/{name}", row.id) != row.id:
                    continue
                seen.add(name)
                if row.state == "running":
                    left.discard(name)
                    ready(row)
                elif row.state not in ALIVE:
                    left.discard(name)
                    failures.append(f"machine {name} ({row.id}) went away again: {row.reason or 'no reason given'}.")
            if not left:
                break
            now = self.timing.clock()
            lost = left - seen if now >= unseen_end else set()
            late = left if now >= end else lost
            if late:
                listed = ", ".join(sorted(late, key=natural_key))
                failures.append(f"these machines don't run after {self.timing.ready_seconds:g} s: {listed}.")
                break
            self.timing.sleep(self.timing.poll_seconds)
        if failures:
            raise HpcError(join_problems(failures), "Run it again; if it comes back, look at the provider's console.")

    def _delete_machines(self, actions: Sequence[Action], done: Callable[[Action], None]) -> None:
        by_id = {existing(action).id: action for action in actions}
        for chunk in chunks(list(by_id), self.limits.terminate):
            self.terminate_all(chunk)
        end = self.timing.clock() + self.timing.ready_seconds
        while by_id:
            # Its network can't go before the machine is gone.
            alive = {row.id for row in self.patient(lambda: self.rows(self._cluster)) if row.state != "gone"}
            for identity in [identity for identity in by_id if identity not in alive]:
                done(by_id.pop(identity))
            if by_id and self.timing.clock() >= end:
                names = ", ".join(action.key for action in by_id.values())
                raise HpcError(f"these machines are not gone after {self.timing.ready_seconds:g} s: {names}.")
            if by_id:
                self.timing.sleep(self.timing.poll_seconds)

    def terminate_all(self, ids: Sequence[str]) -> None:
        """Have machines removed, as many as one call takes; those that are gone are fine."""

        def step() -> None:
            try:
                self.terminate_machines(left)
            except NotFound:
                # One unknown id fails the whole request.
                alive = {row.id for row in self.rows(self._cluster) if row.state in ALIVE}
                left[:] = [identity for identity in left if identity in alive]
                if left:
                    self.terminate_machines(left)

        left = list(ids)
        try:
            self.patient(step)
        except NotFound:
            return

    def _ids_of(self, cluster: str, names: Iterable[str]) -> dict[str, str]:
        self._cluster = cluster
        ids = {machine.name: machine.id for machine in self.list_instances(cluster)}
        missing = [name for name in names if name not in ids]
        if missing:
            raise NotFound(f"cluster {cluster} has no machine {', '.join(missing)}.")
        return {name: ids[name] for name in names}


# Pure helpers


def item_of(
    kind: str,
    key: str,
    attributes: Mapping[str, str],
    request: CloudRequest,
    *,
    depends: tuple[str, ...] = (),
    settings: Mapping[str, frozenset[str]] | None = None,
    exact: frozenset[str] = frozenset(),
) -> Desired:
    """Return a resource that is no machine."""
    digest = spec_hash({"recipe": RECIPE, **attributes})
    return Desired(kind, key, digest, attributes, settings or {}, depends, request, exact)


def tags_of(desired: Desired) -> dict[str, str]:
    """Return the tags that a resource gets when it is created; empty ones are left out."""
    cluster = desired.request.spec.cluster
    tags = {
        "Name": f"{cluster}-{desired.key}" if desired.kind in MACHINES else f"{cluster}-{desired.kind}-{desired.key}",
        CLUSTER: cluster,
        ROLE: desired.kind,
        NAME: desired.key,
        SPEC: desired.spec_hash,
    }
    if desired.kind in MACHINES:
        tags.update({f"turnkey:{name}": str(desired.attributes[name]) for name in _TAGGED})
        tags[GROUPS] = ":".join(sorted(desired.settings["groups"]))
    return {name: value for name, value in tags.items() if value}


def machine_attributes(tags: Mapping[str, str], address: str, instance_type: str, state: str) -> dict[str, Any]:
    """Return the attributes of a machine that was found, in the shape of those that are wanted."""
    return {
        **{name: tags.get(f"turnkey:{name}", "") for name in _TAGGED},
        "address": address,
        "instance_type": instance_type,
        "state": "running" if state in ("pending", "running") else "stopped",
    }


def row_of(
    tags: Mapping[str, str],
    identity: str,
    address: str,
    state: str,
    *,
    public_address: str = "",
    instance_type: str = "",
    reason: str = "",
) -> Row:
    """Return a machine's row from its tags and what the provider's listing says.

    Of what thousands of machines have in common one copy is kept.
    """
    return Row(
        name=tags.get(NAME, identity),
        id=identity,
        address=address,
        state=state,
        cluster=sys.intern(tags.get(CLUSTER, "")),
        set_name=sys.intern(tags.get(SET, "")),
        groups=groups_of(tags),
        bastion=tags.get(BASTION) == "yes",
        public_address=public_address,
        host_key=tags.get(HOST_KEY, ""),
        instance_type=sys.intern(instance_type),
        reason=reason,
        role=sys.intern(tags.get(ROLE, MACHINE)),
    )


def groups_of(tags: Mapping[str, str]) -> tuple[str, ...]:
    """Return the inventory groups of a machine."""
    return tuple(sys.intern(group) for group in tags.get(GROUPS, "").split(":") if group)


def host_key_of_console(text: str) -> str:
    """Return the ed25519 host key that cloud-init wrote to the console last, empty if there is none (yet)."""
    begin = text.rfind(_KEYS_BEGIN)
    end = text.find(_KEYS_END, begin)
    if begin < 0 or end < 0:
        return ""
    for match in _CONSOLE_KEY.finditer(text[begin:end]):
        try:
            blob = base64.b64decode(match[1].split()[1], validate=True)
        except binascii.Error:
            continue
        if len(blob) == 51:
            return match[1]
    return ""


def machine_of(desired: Desired) -> MachineSpec:
    """Return the machine that a resource stands for."""
    machine = desired.request.machine
    if not isinstance(machine, MachineSpec):
        raise AssertionError(desired.ref)
    return machine


def groups_for(machine: MachineSpec) -> tuple[str, ...]:
    """Return the keys of the security groups that a machine is in."""
    return ("bastion", "cluster") if machine.bastion else ("cluster",)


def consecutive(addresses: Sequence[str]) -> bool:
    """Tell whether addresses follow each other without a gap."""
    numbers = [int(ipaddress.IPv4Address(address)) for address in addresses]
    return all(second - first == 1 for first, second in zip(numbers, numbers[1:]))


def _volume_key(machine: MachineSpec, mount: VolumeMount) -> str:
    return f"{machine.name}-{mount.name}"


def _given(**attributes: str) -> dict[str, str]:
    """Return what was said; the rest is the provider's choice."""
    return {name: value for name, value in attributes.items() if value}


def _fingerprint(public_key: str) -> str:
    if not public_key:
        return PENDING_KEY
    try:
        blob = base64.b64decode(public_key.split()[1])
    except (IndexError, binascii.Error):
        return public_key
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _batch_of(action: Action) -> tuple[str, int]:
    if action.kind in MACHINES and action.verb != "update":
        return action.verb, BATCH
    return "", 1


def chunks(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    """Yield the items, so many at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _reach(address: str, port: int) -> None:
    socket.create_connection((address, port), timeout=5).close()
