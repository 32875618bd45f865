# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every provider of machines has in common: the cluster's description, what was found, errors, the interface."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import random
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from .._errors import HpcError, InvalidInput, join_problems
from .cloud_spec import CloudSpec, parse_cloud, set_problems
from .libvirt_spec import LibvirtSpec, kind_problems, parse_libvirt

if TYPE_CHECKING:
    from .plan import Action

__all__ = [
    "AddressInUse",
    "Auth",
    "Capacity",
    "ClusterSpec",
    "Conflict",
    "Desired",
    "Exists",
    "Invalid",
    "Machine",
    "MachineSpec",
    "NotFound",
    "NotReady",
    "Provider",
    "Quota",
    "Resource",
    "State",
    "Throttled",
    "Unknown",
    "VolumeMount",
    "check_cluster_name",
    "expand_spec",
    "natural_key",
    "retry",
    "spec_hash",
]

T = TypeVar("T")

FIRST_DEFAULT_HOST = 10
"""Host number of the first machine whose set names none; the lower ones are left to gateways and site services."""

GATEWAY_HOST = 1

_CLUSTER_NAME = re.compile(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?")
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_GROUP_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_VOLUME_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,30}")
_VOLUME_PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")
_PUBLIC_KEY = re.compile(r"(sk-)?(ssh|ecdsa)-[a-z0-9@.-]+ [A-Za-z0-9+/]+=*( [^\n]*)?")


class Throttled(HpcError):
    """The provider asks to slow down: the same call may succeed later, and not before ``retry_after_seconds``."""

    retry_after_seconds: float = 0


class Capacity(HpcError):
    """The provider has no room left for what was asked (machines, disk)."""


class Quota(HpcError):
    """The account's limit is reached: no retry helps."""


class Auth(HpcError):
    """The credentials or rights don't allow the call."""


class Invalid(HpcError):
    """The provider refuses the request as such."""


class Conflict(HpcError):
    """Something is in a state, or in use, that forbids the call for now."""


class AddressInUse(Conflict):
    """Something has the address that a machine is to get: perhaps one that is still going away."""


class Exists(HpcError):
    """There is such a thing already."""


class Unknown(HpcError):
    """No answer, or none that says whether the request was carried out."""


class NotFound(HpcError):
    """What the call is about doesn't exist (any more)."""


class NotReady(HpcError):
    """A condition that is waited for doesn't hold yet."""


def retry(
    call: Callable[[], T],
    *,
    on: type[HpcError] | tuple[type[HpcError], ...],
    deadline_seconds: float,
    base_seconds: float = 0.2,
    cap_seconds: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    uniform: Callable[[float, float], float] = random.uniform,
) -> T:
    """Repeat ``call`` while it raises ``on``, with full jitter, until the deadline; then let its last error out."""
    end = clock() + deadline_seconds
    limit = base_seconds
    while True:
        try:
            return call()
        except on as error:
            left = end - clock()
            at_least = error.retry_after_seconds if isinstance(error, Throttled) else 0
            if left <= at_least:
                raise
        sleep(min(left, at_least + uniform(base_seconds / 2, limit)))
        limit = min(cap_seconds, limit * 2)


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts node2 before node10."""
    parts = re.findall(r"\d+|\D+", text)
    return tuple((0, int(part), part) if part.isdigit() else (1, 0, part) for part in parts)


def spec_hash(attributes: Mapping[str, Any]) -> str:
    """Short, stable hash of what a resource was made from."""
    text = json.dumps(attributes, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class VolumeMount:
    """A named volume of the cluster and where a machine has it. Size and type are for clouds."""

    name: str
    path: str
    size_gb: int = 0
    type: str = ""


@dataclass(frozen=True)
class MachineSpec:
    """One machine as it should be. ``cpus`` and ``memory_mb`` of 0 mean: no limit. The last block is for clouds."""

    name: str
    address: str
    set_name: str
    groups: tuple[str, ...]
    image: str
    cpus: float = 0
    memory_mb: int = 0
    volumes: tuple[VolumeMount, ...] = ()
    bastion: bool = False

    subnet: str = ""  # public or private
    instance_type: str = ""
    root_gb: int = 0
    spot: bool = False
    placement: str = ""


@dataclass(frozen=True)
class ClusterSpec:
    """All machines of a cluster with the one network and the one bastion that they share.

    An empty ``admin_public_key`` means that the key isn't known yet (check mode before the first run).
    """

    cluster: str
    network: str
    gateway: str
    machines: tuple[MachineSpec, ...]
    volumes: tuple[str, ...]
    bastion_bind: str
    bastion_port: int
    admin_public_key: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    cloud: CloudSpec | None = None
    libvirt: LibvirtSpec | None = None


@dataclass(frozen=True)
class Desired:
    """A resource as it should be.

    A difference in ``spec_hash`` means replacement. ``settings`` can be changed in place; the resource may hold more
    than what is asked for, except in those that ``exact`` names. ``depends`` names resources (``kind/key``) that must
    exist before. ``request`` is the provider's own: what its creating call needs.
    """

    kind: str
    key: str
    spec_hash: str
    attributes: Mapping[str, Any]
    settings: Mapping[str, frozenset[str]] = field(default_factory=dict)
    depends: tuple[str, ...] = ()
    request: Any = None
    exact: frozenset[str] = frozenset()

    @property
    def ref(self) -> str:
        """Logical name within the cluster."""
        return f"{self.kind}/{self.key}"


@dataclass(frozen=True)
class Resource:
    """A resource as it was found. ``attributes`` has the shape of the provider's ``Desired.attributes``."""

    kind: str
    key: str
    id: str
    spec_hash: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def ref(self) -> str:
        """Logical name within the cluster."""
        return f"{self.kind}/{self.key}"


@dataclass(frozen=True)
class State:
    """Everything that carries the cluster's tag; one resource a logical name."""

    resources: tuple[Resource, ...] = ()

    def __post_init__(self) -> None:
        seen: dict[str, Resource] = {}
        for resource in self.resources:
            other = seen.setdefault(resource.ref, resource)
            if other is not resource:
                raise Conflict(
                    f"{resource.kind} {resource.key} exists twice: {other.id} and {resource.id}.",
                    "Remove the one that is not in use; the collection doesn't guess.",
                )

    def of_kind(self, kind: str) -> dict[str, Resource]:
        """Resources of one kind by key."""
        return {resource.key: resource for resource in self.resources if resource.kind == kind}


@dataclass(frozen=True)
class Machine:
    """A machine as users and inventories see it.

    Those with a public address are reached there, over the host ``jump`` if it is given; others over the bastion.
    """

    name: str
    id: str
    address: str
    set_name: str
    groups: tuple[str, ...]
    running: bool
    login_user: str
    bastion: bool = False
    public_address: str = ""
    public_port: int = 0
    host_key: str = ""
    jump: str = ""


class Provider(ABC):
    """A place where machines can be made. Every verb may be repeated; ids are found by tags, never stored."""

    login_user: str
    ready_seconds: int = 120
    """How long a machine may take until it accepts logins."""
    warnings: Sequence[str] = ()
    """What the user should know of what was done, and what stops nothing."""
    say: Callable[[str], None] = staticmethod(lambda _line: None)
    """Shows a line to somebody who waits."""

    @abstractmethod
    def desired(self, spec: ClusterSpec) -> list[Desired]:
        """Return the resources that ``spec`` stands for. Pure."""

    @abstractmethod
    def discover(self, cluster: str) -> State:
        """Return everything that carries this cluster's tag."""

    @abstractmethod
    def check(self, spec: ClusterSpec, state: State) -> list[str]:
        """Return what in the environment would make ``apply`` fail. Changes nothing."""

    @abstractmethod
    def apply(self, actions: Sequence[Action], progress: Callable[[Action], None] | None = None) -> list[Action]:
        """Carry the actions out, independent ones in parallel, and return them in the order they were done."""

    @abstractmethod
    def list_instances(self, cluster: str) -> list[Machine]:
        """Return the cluster's machines, without host keys, in as few calls as possible."""

    @abstractmethod
    def host_keys(self, cluster: str, names: Sequence[str], timeout_seconds: float) -> dict[str, str]:
        """Wait until these running machines accept logins; return their SSH host keys, learned by a trusted channel."""

    def expected(self, spec: ClusterSpec, item: MachineSpec) -> Machine:
        """Return a machine as it will be, with what can be known before it is made. Pure."""
        return Machine(
            name=item.name,
            id="",
            address=item.address,
            set_name=item.set_name,
            groups=item.groups,
            running=True,
            login_user=self.login_user,
            bastion=item.bastion,
            public_address=spec.bastion_bind if item.bastion else "",
            public_port=spec.bastion_port if item.bastion else 0,
        )

    @abstractmethod
    def start(self, cluster: str, names: Sequence[str]) -> None:
        """Start stopped machines of this cluster."""

    @abstractmethod
    def stop(self, cluster: str, names: Sequence[str]) -> None:
        """Shut machines of this cluster down, keeping their disks."""

    @abstractmethod
    def terminate(self, cluster: str, names: Sequence[str]) -> None:
        """Remove machines of this cluster; one that is gone already is fine."""


def check_cluster_name(name: str) -> list[str]:
    """Return what is wrong with a cluster's name."""
    if _CLUSTER_NAME.fullmatch(name):
        return []
    return [
        f"cluster_name {name!r} can't be used: give 1 to 20 characters a-z, 0-9 and '-', "
        "beginning with a letter and not ending in '-'."
    ]


def expand_spec(params: Mapping[str, Any]) -> ClusterSpec:
    """Turn the user's machine sets into machines with names and addresses; report all problems at once. Pure."""
    cluster = str(params.get("cluster_name") or "")
    problems = check_cluster_name(cluster)
    network = _network(str(params.get("network") or ""), problems)
    sets = [dict(item) for item in params.get("machine_sets") or []]
    if not sets:
        problems.append("machine_sets is empty: give at least one set of machines, one of them with bastion: true.")
    cloud = parse_cloud(str(params.get("provider") or ""), dict(params.get("cloud") or {}), network, problems)
    libvirt = parse_libvirt(str(params.get("provider") or ""), dict(params.get("libvirt") or {}), problems)
    machines: list[MachineSpec] = []
    for area, members in _areas(sets, network, cloud):
        made: dict[int, list[MachineSpec]] = {}
        for number, start in zip(members, _first_hosts([sets[n] for n in members], area, problems)):
            made[number] = _machines_of_set(sets[number], start, area, problems)
            where = f"machine set {sets[number].get('name')!r}"
            if libvirt:
                problems.extend(kind_problems(sets[number], where, libvirt))
            else:
                problems.extend(set_problems(sets[number], where, cloud is not None))
        machines.extend(machine for number in members for machine in made[number])
    order = {str(item.get("name") or ""): number for number, item in enumerate(sets)}
    machines.sort(key=lambda machine: order[machine.set_name])
    _check_unique(machines, network if cloud is None else None, problems)
    bastions = [machine.name for machine in machines if machine.bastion]
    if sets and len(bastions) != 1:
        problems.append(
            f"exactly one machine must have bastion: true, found {len(bastions)}"
            f"{' (' + ', '.join(bastions) + ')' if bastions else ''}: set it on one set of one machine."
        )
    bind = str(params.get("bastion_bind") or "127.0.0.1")
    try:
        ipaddress.IPv4Address(bind)
    except ValueError:
        problems.append(f"bastion_bind {bind!r} is not an IPv4 address: give one, for example 127.0.0.1.")
    port = 2222 if params.get("bastion_port") is None else int(params["bastion_port"])
    if not 1 <= port <= 65535:
        problems.append(f"bastion_port {port} is out of range: give 1 to 65535.")
    key = str(params.get("admin_public_key") or "").strip()
    if key and not _PUBLIC_KEY.fullmatch(key):
        problems.append(
            f"admin_public_key {key[:40]!r} is not one line of an SSH public key: "
            "give for example the text of id_ed25519.pub."
        )
    if problems or network is None:
        raise InvalidInput(join_problems(problems))
    return ClusterSpec(
        cluster=cluster,
        network=str(network),
        gateway=str(network[GATEWAY_HOST]),
        machines=tuple(machines),
        volumes=tuple(sorted({mount.name for machine in machines for mount in machine.volumes})),
        bastion_bind=bind,
        bastion_port=port,
        admin_public_key=key,
        options=dict(params.get("options") or {}),
        cloud=cloud,
        libvirt=libvirt,
    )


def _network(text: str, problems: list[str]) -> ipaddress.IPv4Network | None:
    try:
        loose = ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        problems.append(
            f"network {text!r} is not an IPv4 network: give one in CIDR notation, for example 10.213.77.0/24."
        )
        return None
    if "/" not in text or str(loose) != text:
        problems.append(f"network {text!r} is not the address of a network: did you mean {loose}?")
    if loose.prefixlen > 29 or loose.prefixlen < 8:
        problems.append(f"network {loose} has a prefix of /{loose.prefixlen}: give one of /8 to /29.")
        return None
    return loose


@dataclass(frozen=True)
class _Area:
    """A network whose hosts are numbered, and the numbers that machines may have."""

    network: ipaddress.IPv4Network
    first: int
    last: int


def _areas(
    sets: list[dict[str, Any]], network: ipaddress.IPv4Network | None, cloud: CloudSpec | None
) -> list[tuple[_Area | None, list[int]]]:
    """Return the areas with the numbers of the sets in them: one, or in a cloud the two subnets."""
    everything = list(range(len(sets)))
    if network is None:
        return [(None, everything)]
    if cloud is None:
        return [(_Area(network, 1, network.num_addresses - 2), everything)]
    # AWS keeps the first four addresses of a subnet and the last, Alibaba Cloud the first and the last three.
    public, private = (
        _Area(subnet, 4, subnet.num_addresses - 5)
        for subnet in (ipaddress.IPv4Network(cloud.public_subnet), ipaddress.IPv4Network(cloud.private_subnet))
    )
    inside = [number for number in everything if not sets[number].get("bastion")]
    return [(public, [number for number in everything if number not in set(inside)]), (private, inside)]


def _first_hosts(sets: list[dict[str, Any]], area: _Area | None, problems: list[str]) -> list[int]:
    """Return each set's first host number: the given one, else the next run of free numbers from 10 on."""
    taken: set[int] = set()
    for item in sets:
        if item.get("first_host") is not None:
            taken.update(range(int(item["first_host"]), int(item["first_host"]) + _size(item)))
    starts = []
    for item in sets:
        start = item.get("first_host")
        if start is None:
            start = FIRST_DEFAULT_HOST
            while clash := taken.intersection(range(start, start + _size(item))):
                start = max(clash) + 1
            taken.update(range(start, start + _size(item)))
        starts.append(int(start))
    if area is not None:
        last = max((start + _size(item) - 1 for item, start in zip(sets, starts)), default=0)
        kept = area.network.num_addresses - 1 - area.last
        enough = 32 - (last + kept).bit_length()
        for item, start in zip(sets, starts):
            if start + _size(item) - 1 > area.last:
                problems.append(
                    f"network {area.network} is too small for set {item.get('name')!r} with {_size(item)} "
                    f"machine{'' if _size(item) == 1 else 's'} from host number {start}: "
                    f"it has host numbers up to {area.last}; use a network of /{enough} or larger."
                )
            if 1 <= start < area.first:
                problems.append(
                    f"machine set {item.get('name')!r}: the first {area.first} addresses of {area.network} are kept: "
                    f"give a first_host of {area.first} or more."
                )
    return starts


def _size(item: Mapping[str, Any]) -> int:
    """Return the number of machines of a set."""
    return 1 if item.get("count") is None else max(0, int(item["count"]))


def _machines_of_set(item: Mapping[str, Any], start: int, area: _Area | None, problems: list[str]) -> list[MachineSpec]:
    set_name = str(item.get("name") or "")
    count = item.get("count")
    where = f"machine set {set_name!r}"
    names = [set_name] if count is None else [f"{set_name}{number}" for number in range(1, _size(item) + 1)]
    if not _DNS_LABEL.fullmatch(names[-1] if names else set_name):
        problems.append(
            f"{where}: the name can't be a host name: give at most 63 characters a-z, 0-9 and '-' between them."
        )
    if count is not None and int(count) < 0:
        problems.append(f"{where}: count {count} is negative: give 0 or more.")
    if start < 1:
        problems.append(f"{where}: first_host {start} is not a host number: give 2 or more.")
    if not item.get("image"):
        problems.append(f"{where}: image is missing: give the image that its machines start from.")
    groups = tuple(str(group) for group in item.get("groups") or ())
    problems.extend(
        f"{where}: group {group!r} is not a group name: use a-z, 0-9 and '_'."
        for group in groups
        if not _GROUP_NAME.fullmatch(group)
    )
    cpus, memory_mb = float(item.get("cpus") or 0), int(item.get("memory_mb") or 0)
    if cpus < 0:
        problems.append(f"{where}: cpus {cpus:g} is negative: give more than 0, or leave it out for no limit.")
    if memory_mb < 0 or 0 < memory_mb < 64:
        problems.append(f"{where}: memory_mb {memory_mb} is too little: give 64 or more, or leave it out for no limit.")
    mounts = tuple(
        VolumeMount(
            str(v.get("name") or ""), str(v.get("path") or ""), int(v.get("size_gb") or 0), str(v.get("type") or "")
        )
        for v in item.get("volumes") or ()
    )
    problems.extend(_mount_problems(where, mounts))
    return [
        MachineSpec(
            name=name,
            address=_host(area, start + index),
            set_name=set_name,
            groups=groups,
            image=str(item.get("image") or ""),
            cpus=cpus,
            memory_mb=memory_mb,
            volumes=mounts,
            bastion=bool(item.get("bastion")),
            subnet="public" if item.get("bastion") else "private",
            instance_type=str(item.get("instance_type") or ""),
            root_gb=int(item.get("root_gb") or 0),
            spot=bool(item.get("spot")),
            placement=str(item.get("placement") or ""),
        )
        for index, name in enumerate(names)
    ]


def _host(area: _Area | None, number: int) -> str:
    """Return the address with that host number; empty where there is none (reported elsewhere)."""
    if area is None or not area.first <= number <= area.last:
        return ""
    return str(area.network[number])


def _mount_problems(where: str, mounts: Sequence[VolumeMount]) -> list[str]:
    problems = []
    for mount in mounts:
        if not _VOLUME_NAME.fullmatch(mount.name):
            problems.append(
                f"{where}: volume name {mount.name!r} can't be used: give up to 31 characters a-z, 0-9, '_', '-'."
            )
        if not _VOLUME_PATH.fullmatch(mount.path) or any(part in {".", ".."} for part in mount.path.split("/")):
            problems.append(
                f"{where}: volume {mount.name!r}: path {mount.path!r} is not a plain absolute path below /."
            )
    problems.extend(
        f"{where}: volume {name!r} is listed twice: list it once." for name in _twice(m.name for m in mounts)
    )
    problems.extend(
        f"{where}: two volumes have the path {path!r}: give each its own." for path in _twice(m.path for m in mounts)
    )
    return problems


def _twice(items: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    return sorted({item for item in items if item in seen or seen.add(item)})  # type: ignore[func-returns-value]


def _check_unique(machines: list[MachineSpec], network: ipaddress.IPv4Network | None, problems: list[str]) -> None:
    problems.extend(
        f"machine name {name!r} is used twice: rename one of the sets." for name in _twice(m.name for m in machines)
    )
    owners: dict[str, str] = {str(network[GATEWAY_HOST]): "the gateway"} if network else {}
    for machine in machines:
        if not machine.address:
            continue
        if machine.address in owners:
            problems.append(
                f"machine {machine.name!r} would have the address {machine.address} of {owners[machine.address]}: "
                f"change first_host of set {machine.set_name!r}."
            )
        owners.setdefault(machine.address, machine.name)
