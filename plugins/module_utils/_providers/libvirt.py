# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual machines on one or several hypervisors, by libvirt."""

from __future__ import annotations

import dataclasses
import io
import ipaddress
import json
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

from .._errors import HpcError, join_problems
from .base import (
    Capacity,
    ClusterSpec,
    Conflict,
    Desired,
    Invalid,
    Machine,
    MachineSpec,
    NotFound,
    NotReady,
    Provider,
    Resource,
    State,
    natural_key,
    retry,
    spec_hash,
)
from .cloud import host_key_of_console
from .docker import overlapping_routes
from .libvirt_api import Domain, Hypervisor, Network, Pool, connect_hypervisor
from .libvirt_image import DISK, INITRD, KERNEL, VmImage, put_image, read_image, unused_images, volume_names
from .libvirt_instant import DOMAIN_PREFIX, SEED_BYTES, STATE, InstantMachines
from .libvirt_spec import Kind, LibvirtSpec, parse_hypervisors
from .libvirt_state import unused_templates
from .libvirt_xml import (
    DomainRequest,
    domain_xml,
    mac_of,
    network_xml,
    networks_of,
    pool_xml,
    probe_xml,
    supports_kvm,
)
from .plan import Action, execute, existing, plan_absent, wanted
from .seed import seed_files, seed_medium

__all__ = [
    "ELASTIC",
    "MACHINE",
    "LibvirtProvider",
    "MachineRequest",
    "address_of",
    "announced_key",
    "place",
    "scanned_keys",
]

MACHINE = "machine"
ELASTIC = "elastic"
"""Roles of domains: those that provisioning makes, and elastic nodes, which node-power makes and removes."""

NETWORK_KEY = "main"
RECIPE = 1  # raise it when machines made by an older version must be replaced
WORKERS = 4
CONFLICT_SECONDS = 20
STOP_SECONDS = 60
PROBE_SECONDS = 20
SCAN_SECONDS = 5
CONSOLE_BYTES = 64 * 1024
CONSOLE_LINES = 15
UNFINISHED = "unfinished"
"""Marks a domain whose volumes are not all there yet."""
PENDING_KEY = "(the key that the first run makes)"

_IDENTIFIERS = uuid.UUID("5c8f6d0e-6d4d-5b0b-9a5e-2d1a4f3c7b11")
_READY = re.compile(r"^TURNKEY-READY (\S+) (ssh-ed25519 [A-Za-z0-9+/]{68})\s*$", re.MULTILINE)
_KEY_LINE = re.compile(r"^(\S+) (ssh-ed25519 [A-Za-z0-9+/]+=*)$", re.MULTILINE)

Run = Callable[[list[str]], tuple[int, str, str]]
Connect = Callable[[str], Hypervisor]


@dataclass(frozen=True)
class MachineRequest:
    """What a machine is made from, besides what is known only when it is made (where, the image's content)."""

    cluster: str
    machine: MachineSpec
    kind: Kind
    libvirt: LibvirtSpec
    network: str
    prefix: int
    gateway: str
    authorized_key: str
    spec: str
    attributes: Mapping[str, Any]
    role: str = MACHINE


@dataclass(frozen=True)
class Found:
    """A machine of the cluster and where it is."""

    hypervisor: Hypervisor
    domain: Domain

    @property
    def mark(self) -> dict[str, str]:
        """What the domain was marked with."""
        return self.domain.mark


class LibvirtProvider(Provider):
    """Machines are domains, found by the mark in their XML; there is no state file."""

    login_user = "root"
    ready_seconds = 600  # the slow case: no KVM

    def __init__(
        self,
        hypervisors: Sequence[Hypervisor],
        run: Run,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the connections, and ``run`` for commands on the control node."""
        self._hypervisors = {hypervisor.uri: hypervisor for hypervisor in hypervisors}
        self._run = run
        self._clock, self._sleep = clock, sleep
        self.warnings: list[str] = []
        self._places: dict[str, str] = {}
        self._put: set[tuple[str, str]] = set()
        self._accelerators: dict[str, str] = {}
        self._locks = {hypervisor.uri: threading.Lock() for hypervisor in hypervisors}
        self._instant = InstantMachines(self._hypervisors, self.warnings.append, clock, sleep)

    @classmethod
    def connect(cls, place: Mapping[str, Any], run: Run, connect: Connect = connect_hypervisor) -> LibvirtProvider:
        """Connect to the hypervisors; those that don't answer are named all at once."""
        problems: list[str] = []
        hypervisors = parse_hypervisors(place, problems)
        found = []
        for uri in () if problems else hypervisors:
            try:
                found.append(connect(uri))
            except HpcError as error:
                problems.append(str(error))
        if problems:
            raise HpcError(join_problems(problems))
        return cls(found, run)

    # What should be

    def desired(self, spec: ClusterSpec) -> list[Desired]:
        """Return the storage pools, the network if it is the cluster's own, and the machines."""
        libvirt = _libvirt_of(spec)
        pools = self._pools(spec.cluster, libvirt)
        networks = []
        if not libvirt.network:
            attributes = {"subnet": spec.network, "gateway": spec.gateway, "mode": libvirt.network_mode}
            digest = spec_hash({"recipe": RECIPE, **attributes})
            request = network_xml(
                _network_name(spec.cluster),
                str(_identifier(spec.cluster, "network")),
                spec.network,
                spec.gateway,
                libvirt.network_mode,
                {"cluster": spec.cluster, "role": "network", "name": NETWORK_KEY, "spec": digest, **attributes},
            )
            networks = [Desired("network", NETWORK_KEY, digest, {**attributes, "state": "running"}, request=request)]
        before = tuple(item.ref for item in (*pools, *networks))
        return [*pools, *networks, *(self._desired_machine(spec, libvirt, item, before) for item in spec.machines)]

    def _pools(self, cluster: str, libvirt: LibvirtSpec) -> list[Desired]:
        path = f"{libvirt.directory}/{_pool_name(cluster)}"
        request = pool_xml(_pool_name(cluster), _pool_id(cluster), path)
        digest = spec_hash({"recipe": RECIPE})
        return [Desired("pool", uri, digest, {"path": path}, request=request) for uri in libvirt.hypervisors]

    def _desired_machine(
        self, spec: ClusterSpec, libvirt: LibvirtSpec, item: MachineSpec, before: tuple[str, ...]
    ) -> Desired:
        kind = libvirt.kinds[item.instance_type]
        attributes = {
            "address": item.address,
            "bastion": item.bastion,
            "image": item.image,
            "kind": item.instance_type,
            "network": libvirt.network or _network_name(spec.cluster),
            "set": item.set_name,
            **kind.attributes(),
            **({"user_data": spec_hash({"": libvirt.user_data})} if libvirt.user_data.strip() else {}),
        }
        digest = spec_hash({"recipe": RECIPE, **attributes})
        request = MachineRequest(
            cluster=spec.cluster,
            machine=item,
            kind=kind,
            libvirt=libvirt,
            network=str(attributes["network"]),
            prefix=ipaddress.ip_network(spec.network).prefixlen,
            gateway="" if libvirt.network_mode == "isolated" and not libvirt.network else spec.gateway,
            authorized_key=spec.admin_public_key or PENDING_KEY,
            spec=digest,
            attributes=attributes,
        )
        shown = {**attributes, "state": "running"}
        return Desired(
            "machine",
            item.name,
            digest,
            shown,
            settings={"groups": frozenset(item.groups)},
            exact=frozenset({"groups"}),
            depends=before,
            request=request,
        )

    # What is

    def discover(self, cluster: str) -> State:
        """Return all domains and networks with this cluster's mark, and its storage pools."""
        resources = []
        for uri, hypervisor in self._hypervisors.items():
            pool = hypervisor.pool(_pool_id(cluster), start=False)
            if pool:
                digest = spec_hash({"recipe": RECIPE})
                resources.append(Resource("pool", uri, pool.name, digest, {"path": pool.path}))
            for network in hypervisor.networks():
                if network.mark.get("cluster") == cluster:
                    resources.append(_network_resource(network))
        resources += [_machine_resource(found) for found in self._found(cluster, "")]
        return State(tuple(resources))

    def clusters(self) -> list[str]:
        """Return the names of the clusters of which there is anything."""
        found: set[str] = set()
        for hypervisor in self._hypervisors.values():
            marks = [domain.mark for domain in hypervisor.domains("")]
            marks += [network.mark for network in hypervisor.networks()]
            found.update(mark["cluster"] for mark in marks if "cluster" in mark)
            prefix = _pool_name("")
            names = [name[len(prefix) :] for name in hypervisor.pool_names() if name.startswith(prefix)]
            found.update(name for name in names if hypervisor.pool(_pool_id(name), start=False))
        return sorted(found)

    def export_disk(self, cluster: str, target: BinaryIO) -> None:
        """Switch the only machine of a cluster off, and write its disk as one qcow2 file that needs no other."""
        machines = self._found(cluster)
        if len(machines) != 1:
            raise Invalid(f"cluster {cluster} has {len(machines)} machines, and an image is made from one.")
        found = machines[0]
        found.hypervisor.power_off(found.domain.name)
        pool = self._pool_of(cluster, found.hypervisor)
        disk, *_others = _own_volumes(found.mark["name"])
        whole = f"whole-{disk}"
        try:
            pool.flatten(disk, whole)
            pool.save(whole, target)
        finally:
            pool.remove(whole)

    def list_instances(self, cluster: str) -> list[Machine]:
        """Return the machines, with their addresses from leases, agent, ARP, or as they were given: in this order."""
        found = self._found(cluster)
        leases = {
            (hypervisor.uri, network): hypervisor.leases(network)
            for hypervisor, network in {
                (item.hypervisor.uri, item.mark["network"]): (item.hypervisor, item.mark["network"]) for item in found
            }.values()
        }
        given = {item.mark["address"] for item in found}

        def machine(item: Found) -> Machine:
            mark, hypervisor = item.mark, item.hypervisor
            running = item.domain.state == "running"
            mac = mac_of(mark["address"])
            lease = leases[hypervisor.uri, mark["network"]].get(mac, "")
            reported = [] if lease or not running else hypervisor.addresses(item.domain).get(mac, [])
            address = address_of(mark["address"], mark["prefix"], given, lease, reported)
            return Machine(
                name=mark["name"],
                id=item.domain.uuid,
                address=address,
                set_name=mark["set"],
                groups=_groups(mark),
                running=running,
                login_user=self.login_user,
                bastion=mark["bastion"] == "yes",
                public_address=address,
                public_port=22,
                jump=_jump(hypervisor),
            )

        with ThreadPoolExecutor(max_workers=2 * WORKERS) as workers:
            return sorted(workers.map(machine, found), key=lambda item: natural_key(item.name))

    def expected(self, spec: ClusterSpec, item: MachineSpec) -> Machine:
        """Return a machine as it will be."""
        jump = _jump(next(iter(self._hypervisors.values())))
        return dataclasses.replace(super().expected(spec, item), public_address=item.address, public_port=22, jump=jump)

    def host_keys(
        self, cluster: str, names: Sequence[str], timeout_seconds: float, role: str = MACHINE
    ) -> dict[str, str]:
        """Wait until these machines answer by SSH with the host key that they told their console.

        The console is read through libvirt. A key that was learned once is kept in the machine's mark.
        """
        found = {item.mark["name"]: item for item in self._named(cluster, names, role)}
        keys = {name: found[name].mark.get("host_key", "") for name in names}
        waiting = dict.fromkeys(names, "nothing was seen of it yet.")
        told: list[str] = []

        def look() -> None:
            for name in waiting:
                keys[name] = keys[name] or self._learn(found[name])
            answers = self._scan([found[name] for name in waiting])
            for name in list(waiting):
                answer = answers.get(name, "")
                if keys[name] and answer == keys[name]:
                    del waiting[name]
                    continue
                waiting[name] = _not_ready(found[name], keys[name], answer)
            if waiting:
                line = f"waiting for {len(waiting)} of {len(names)} machines: {', '.join(waiting)}"
                if told[-1:] != [line]:
                    told.append(line)
                    self.say(line)
                raise NotReady("; ".join(waiting.values()))

        try:
            retry(
                look,
                on=NotReady,
                deadline_seconds=timeout_seconds if names else 0,
                base_seconds=1,
                cap_seconds=4,
                clock=self._clock,
                sleep=self._sleep,
            )
        except NotReady:
            problems = [
                f"machine {name} is not ready after {timeout_seconds:g} s: {why} Its console ends with:\n"
                f"{self._console_end(found[name])}"
                for name, why in waiting.items()
            ]
            raise NotReady(join_problems(problems)) from None
        return keys

    # Environment

    def check(self, spec: ClusterSpec, state: State) -> list[str]:
        """Return what would make creation fail: images, names, networks, memory, disk."""
        libvirt = _libvirt_of(spec)
        machines = state.of_kind("machine")
        desired = {item.key: item for item in self.desired(spec) if item.kind == "machine"}
        new = [
            item for key, item in desired.items() if key not in machines or machines[key].spec_hash != item.spec_hash
        ]
        problems = []
        for image in sorted({str(item.attributes["image"]) for item in new}):
            try:
                read_image(image)
            except HpcError as error:
                problems.append(str(error))
        problems += [problem for hv in self._hypervisors.values() for problem in self._check_names(spec, hv)]
        if libvirt.network:
            problems += [
                f"hypervisor {uri} has no network {libvirt.network} that runs. Make it there (virsh net-define, "
                "net-start), or leave cluster_libvirt.network out to have one made."
                for uri, hypervisor in self._hypervisors.items()
                if not any(network.name == libvirt.network and network.active for network in hypervisor.networks())
            ]
        elif not any(item.attributes["subnet"] == spec.network for item in state.of_kind("network").values()):
            problems += self._check_network(spec)
        if new:
            problems += self._check_room(spec, new, float(spec.options.get("min_free_disk_gb") or 0))
        return problems

    def _check_names(self, spec: ClusterSpec, hypervisor: Hypervisor) -> list[str]:
        def foreign(what: str) -> str:
            return (
                f"{what} on {hypervisor.uri} exists but doesn't carry the mark of this cluster. "
                "Remove or rename it, or choose another cluster_name."
            )

        names = {_domain_name(spec.cluster, machine.name) for machine in spec.machines}
        problems = [
            foreign(f"domain {domain.name}")
            for domain in hypervisor.domains(f"{spec.cluster}-")
            if domain.name in names and domain.mark.get("cluster") != spec.cluster
        ]
        name = _pool_name(spec.cluster)
        if name in hypervisor.pool_names() and hypervisor.pool(_pool_id(spec.cluster), start=False) is None:
            problems.append(foreign(f"storage pool {name}"))
        return problems

    def _check_network(self, spec: ClusterSpec) -> list[str]:
        """Return what is in the way of the cluster's own network, which is on the one hypervisor."""
        hypervisor = next(iter(self._hypervisors.values()))
        name, remedy = _network_name(spec.cluster), "Choose another cluster_network."
        problems, bridges = [], set()
        for network in hypervisor.networks():
            if network.name == name and network.mark.get("cluster") != spec.cluster:
                problems.append(
                    f"network {name} on {hypervisor.uri} exists but doesn't carry the mark of this cluster. "
                    "Remove it, or choose another cluster_name."
                )
            if network.mark.get("cluster") == spec.cluster:
                bridges.add(network.bridge)
                continue
            for subnet in networks_of(network.xml):
                if ipaddress.ip_network(subnet).overlaps(ipaddress.ip_network(spec.network)):
                    bridges.add(network.bridge)  # named once
                    other = f"libvirt's network {network.name} ({subnet})"
                    problems.append(f"network {spec.network} overlaps {other}. {remedy}")
        try:
            rc, out, _err = self._run(hypervisor.on_host(["ip", "-j", "-4", "route", "show"]))
        except OSError:  # no iproute2: libvirt itself refuses what overlaps a route
            return problems
        found = overlapping_routes(out, spec.network, bridges) if rc == 0 else []
        return problems + [f"network {spec.network} overlaps {route} of {hypervisor.uri}. {remedy}" for route in found]

    def _check_room(self, spec: ClusterSpec, new: Sequence[Desired], wanted_gb: float) -> list[str]:
        problems = []
        try:
            self._place(spec.cluster, [item.request for item in new], [item.key for item in new])
        except Capacity as error:
            problems.append(str(error))
        for uri, hypervisor in self._hypervisors.items():
            pool, directory = hypervisor.pool(_pool_id(spec.cluster)), _libvirt_of(spec).directory
            if pool:
                free = pool.free_gb()
            elif hypervisor.host:
                continue
            else:
                free = _free_gb(directory)
            if free < wanted_gb:
                problems.append(
                    f"{directory} on {uri} has {free:.1f} GB free, {wanted_gb:g} GB are needed. "
                    "Make room, use another cluster_libvirt.directory, or lower cluster_min_free_disk_gb."
                )
        return problems

    # Doing

    def apply(self, actions: Sequence[Action], progress: Callable[[Action], None] | None = None) -> list[Action]:
        """Carry the actions out."""
        created = [wanted(action).request for action in actions if action.id.startswith("create machine/")]
        if created:
            doomed = {action.key for action in actions if action.id.startswith("delete machine/")}
            self.place(created, doomed)
        done = execute(actions, self.perform, progress, WORKERS)
        gone = [existing(action).id for action in actions if action.id.startswith("delete machine/")]
        if gone:
            self._prune(gone[0].split("|")[2])
        return done

    def ensure_pools(self, cluster: str, libvirt: LibvirtSpec) -> None:
        """Make the cluster's storage pools where there is none, for who has no machines of playbooks."""
        for item in self._pools(cluster, libvirt):
            hypervisor = self._hypervisors[item.key]
            if hypervisor.pool(_pool_id(cluster), start=False) is None:
                try:
                    hypervisor.create_pool(str(item.request))
                except HpcError:
                    if hypervisor.pool(_pool_id(cluster), start=False) is None:  # nobody else has made it meanwhile
                        raise

    def drop_pools(self, cluster: str) -> None:
        """Remove the cluster's storage pools with the images in them, unless there are machines."""
        state = self.discover(cluster)
        if not any(state.of_kind(kind) for kind in (MACHINE, ELASTIC)):
            self.apply([action for action in plan_absent(state) if action.kind == "pool"])

    def place(self, requests: Sequence[MachineRequest], doomed: Iterable[str] = ()) -> None:
        """Decide on which hypervisors machines will be made. Raises Capacity."""
        self._places.update(self._place(requests[0].cluster, requests, doomed))

    def states(self, cluster: str, role: str) -> dict[str, str]:
        """Return the states of the domains in a role: running, paused, stopped, or unfinished."""
        found = self._found(cluster, role)
        return {item.mark["name"]: UNFINISHED if UNFINISHED in item.mark else item.domain.state for item in found}

    def start(self, cluster: str, names: Sequence[str], role: str = MACHINE) -> None:
        """Start machines."""
        for found in self._named(cluster, names, role):
            self._switch_on(found.hypervisor, found.mark, found.domain.name)

    def stop(self, cluster: str, names: Sequence[str], role: str = MACHINE) -> None:
        """Shut machines down in order, and switch off those that don't."""
        running = {found.domain.name: found.hypervisor for found in self._named(cluster, names, role)}
        for name, hypervisor in running.items():
            hypervisor.shut_down(name)

        def look() -> None:
            left = [
                found.domain.name
                for name in names
                for found in self._find(cluster, name, role)
                if found.domain.state != "stopped"
            ]
            if left:
                raise NotReady(f"{', '.join(left)} still runs.")

        try:
            retry(look, on=NotReady, deadline_seconds=STOP_SECONDS, clock=self._clock, sleep=self._sleep)
        except NotReady:
            for name, hypervisor in running.items():
                hypervisor.power_off(name)

    def terminate(self, cluster: str, names: Sequence[str], role: str = MACHINE) -> None:
        """Remove machines; only this cluster's are looked at, so others can't be hit."""
        doomed = [item for name in names for item in self._find(cluster, name, role)]
        resources = [_machine_resource(item) for item in doomed]
        execute(
            [Action("delete", role, resource.key, resource=resource) for resource in resources],
            self.perform,
            None,
            WORKERS,
        )

    def perform(self, action: Action) -> None:
        """Carry one action out."""
        step = {
            ("create", "pool"): self._create_pool,
            ("create", "network"): self._create_network,
            ("create", "machine"): self._create_machine,
            ("create", ELASTIC): self._create_machine,
            ("start", "network"): self._start_network,
            ("start", "machine"): self._start_machine,
            ("update", "machine"): self._update_machine,
            ("delete", "machine"): self._delete_machine,
            ("delete", ELASTIC): self._delete_machine,
            ("delete", "network"): self._delete_network,
            ("delete", "pool"): self._delete_pool,
        }[action.verb, action.kind]
        # A conflict passes where an earlier, interrupted run is still removing something.
        retry(
            lambda: step(action),
            on=Conflict,
            deadline_seconds=CONFLICT_SECONDS,
            clock=self._clock,
            sleep=self._sleep,
        )

    def _create_pool(self, action: Action) -> None:
        self._hypervisors[action.key].create_pool(str(wanted(action).request))

    def _create_network(self, action: Action) -> None:
        next(iter(self._hypervisors.values())).create_network(str(wanted(action).request))

    def _start_network(self, action: Action) -> None:
        for hypervisor, network in self._networks_with(existing(action).id):
            hypervisor.start_network(network.name)

    def _create_machine(self, action: Action) -> None:
        request: MachineRequest = wanted(action).request
        for found in self._find(request.cluster, action.key, request.role):
            if UNFINISHED not in found.mark:  # this is another try
                self._switch_on(found.hypervisor, found.mark, found.domain.name)
                return
            self._places[action.key] = found.hypervisor.uri
            self._remove(found.hypervisor, found.domain.name, request.cluster, action.key)
        hypervisor = self._hypervisors[self._places[action.key]]
        pool = self._pool_of(request.cluster, hypervisor)
        with self._locks[hypervisor.uri]:
            image = read_image(request.machine.image)
            if (hypervisor.uri, image.version) not in self._put:
                put_image(pool, image)
                self._put.add((hypervisor.uri, image.version))
            accelerator = self._accelerator(request, hypervisor, pool, image)
        identity, base = str(uuid.uuid4()), volume_names(image)
        disk, seed, console, _state = _own_volumes(action.key)
        domain = DomainRequest(
            name=_domain_name(request.cluster, action.key),
            uuid=identity,
            domain_type=accelerator,
            kind=request.kind,
            network=request.network,
            mac=mac_of(request.machine.address),
            disk=f"{pool.path}/{disk}",
            seed=f"{pool.path}/{seed}",
            console=f"{pool.path}/{console}",
            mark={},
            kernel=f"{pool.path}/{base[KERNEL]}" if KERNEL in base else "",
            initrd=f"{pool.path}/{base[INITRD]}" if INITRD in base else "",
            cmdline=image.cmdline,
            firmware=image.firmware,
        )
        medium = seed_medium(_seed(request, identity))
        template = None
        if request.kind.instant and len(medium) > SEED_BYTES:
            self.warnings.append(
                f"machine {action.key} boots from its disk: its seed is larger than {SEED_BYTES} bytes."
            )
        elif request.kind.instant:
            template = self._instant.template(hypervisor, pool, image, domain, base[DISK])
        mark = _mark(request, image, accelerator, template.name if template else "")
        # The domain comes first, with its mark: so an interrupted run leaves nothing that the next one can't see.
        hypervisor.define(domain_xml(dataclasses.replace(domain, mark={**mark, UNFINISHED: "yes"})))
        backing = template.volume("disk.qcow2") if template else base[DISK]
        size = max(request.kind.disk_gb * 2**30, pool.capacity_bytes(backing))
        pool.create(disk, size, "qcow2", f"{pool.path}/{backing}")
        pool.create(seed, max(len(medium), SEED_BYTES))
        pool.upload(seed, io.BytesIO(medium), len(medium))
        pool.create(console, 0)
        if template:
            self._instant.start(hypervisor, pool, template, domain)
        for found in self._named(request.cluster, [action.key], request.role):
            hypervisor.mark(found.domain, mark)
            self._switch_on(hypervisor, mark, found.domain.name)

    def _start_machine(self, action: Action) -> None:
        request: MachineRequest = wanted(action).request
        for found in self._named(request.cluster, [action.key]):
            if UNFINISHED in found.mark:
                self._create_machine(action)
            else:
                self._update_machine(action)
                self._switch_on(found.hypervisor, found.mark, found.domain.name)

    def _update_machine(self, action: Action) -> None:
        """Bring in line what is only in the mark."""
        request: MachineRequest = wanted(action).request
        groups = ",".join(request.machine.groups)
        for found in self._named(request.cluster, [action.key]):
            if found.mark["groups"] != groups:
                found.hypervisor.mark(found.domain, {**found.mark, "groups": groups})

    def _switch_on(self, hypervisor: Hypervisor, mark: Mapping[str, str], domain: str) -> None:
        entry = {"mac": mac_of(mark["address"]), "name": mark["name"], "ip": mark["address"]}
        own = mark["network"] == _network_name(mark["cluster"])
        with self._locks[hypervisor.uri]:  # libvirt restarts the DHCP server of a network
            hypervisor.reserve(mark["network"], entry, first=own)
        hypervisor.start(domain)

    def _delete_machine(self, action: Action) -> None:
        uri, domain, cluster = existing(action).id.split("|")
        self._remove(self._hypervisors[uri], domain, cluster, action.key)

    def _remove(self, hypervisor: Hypervisor, domain: str, cluster: str, name: str) -> None:
        found = hypervisor.domain(domain)
        if found is None or found.mark.get("cluster") != cluster:  # gone, or another's by now
            return
        mark = found.mark
        hypervisor.power_off(domain)
        with self._locks[hypervisor.uri]:
            hypervisor.release(mark["network"], mac_of(mark["address"]))
        pool = hypervisor.pool(_pool_id(cluster))
        if pool:
            for volume in _own_volumes(name):
                pool.remove(volume)
        hypervisor.undefine(domain)  # last: it is how the rest is found

    def _prune(self, cluster: str) -> None:
        """Remove the copies of images, and the templates, that no machine has any more."""
        marks = [found.mark for found in self._found(cluster, "")]
        used = [mark["inputs"] for mark in marks]
        for hypervisor in self._hypervisors.values():
            pool = hypervisor.pool(_pool_id(cluster))
            if pool:
                # Those that are being made have no machine yet.
                made = [domain.name[len(DOMAIN_PREFIX) :] for domain in hypervisor.domains(DOMAIN_PREFIX)]
                waiting = unused_templates(pool.names(), [*made, *(mark.get("template", "") for mark in marks)])
                for volume in [*waiting, *unused_images(pool.names(), used)]:
                    pool.remove(volume)

    def _delete_network(self, action: Action) -> None:
        for hypervisor, network in self._networks_with(existing(action).id):
            hypervisor.remove_network(network.name)

    def _delete_pool(self, action: Action) -> None:
        hypervisor = self._hypervisors[action.key]
        cluster = existing(action).id[len(_pool_name("")) :]
        pool = hypervisor.pool(_pool_id(cluster))
        if pool is None:
            return
        pool.refresh()
        names = pool.names()
        ours = {name for name in names if name.endswith(_OWN_SUFFIXES)}.union(
            unused_images(names, ()), unused_templates(names, ())
        )
        for name in sorted(ours):
            pool.remove(name)
        foreign = [name for name in names if name not in ours]
        if foreign:
            raise HpcError(
                f"{pool.path} on {hypervisor.uri} holds files that are not of this cluster: {', '.join(foreign)}.",
                "Move them elsewhere, and run it again.",
            )
        pool.delete()

    def _networks_with(self, identity: str) -> list[tuple[Hypervisor, Network]]:
        """Return a network that was found, and its hypervisor; nothing if it is gone."""
        return [
            (hypervisor, network)
            for hypervisor in self._hypervisors.values()
            for network in hypervisor.networks()
            if network.uuid == identity
        ]

    def _pool_of(self, cluster: str, hypervisor: Hypervisor) -> Pool:
        pool = hypervisor.pool(_pool_id(cluster))
        if pool is None:
            raise NotFound(f"hypervisor {hypervisor.uri} has no storage pool {_pool_name(cluster)}.")
        return pool

    def _place(self, cluster: str, requests: Sequence[MachineRequest], doomed: Iterable[str] = ()) -> dict[str, str]:
        """Return the hypervisor of each machine that is to be made."""
        gone = set(doomed)
        count = dict.fromkeys(self._hypervisors, 0)
        room = {uri: hypervisor.free_memory_mb() for uri, hypervisor in self._hypervisors.items()}
        for found in self._found(cluster, ""):
            uri = found.hypervisor.uri
            if found.mark["name"] not in gone:
                count[uri] += 1
            elif found.domain.state != "stopped":  # what it has is free before anything is made
                room[uri] += int(json.loads(found.mark["attributes"]).get("memory_mb", 0))
        wants = {request.machine.name: request.kind.memory_mb for request in requests}
        return place(wants, room, count, requests[0].libvirt.spread)

    def _accelerator(self, request: MachineRequest, hypervisor: Hypervisor, pool: Pool, image: VmImage) -> str:
        """Return the type of new domains: KVM where it works, which only a try can tell."""
        if request.libvirt.accelerator != "auto":
            return "kvm" if request.libvirt.accelerator == "kvm" else "qemu"
        if hypervisor.uri not in self._accelerators:
            known = [
                found.mark["accelerator"]
                for found in self._found(request.cluster, "")
                if found.hypervisor.uri == hypervisor.uri
            ]
            self._accelerators[hypervisor.uri] = known[0] if known else self._try_kvm(hypervisor, pool, image)
        return self._accelerators[hypervisor.uri]

    def _try_kvm(self, hypervisor: Hypervisor, pool: Pool, image: VmImage) -> str:
        warning = f"KVM doesn't work on {hypervisor.uri}: machines are emulated there, which is many times slower."
        if supports_kvm(hypervisor.capabilities()):
            kernel = volume_names(image).get(KERNEL)
            if kernel is None or self._boots_under_kvm(hypervisor, f"{pool.path}/{kernel}"):
                return "kvm"
            warning += " It is offered, but a kernel doesn't come up under it."
        self.warnings.append(warning)
        return "qemu"

    def _boots_under_kvm(self, hypervisor: Hypervisor, kernel: str) -> bool:
        name = f"turnkey-probe-{uuid.uuid4()}"
        try:
            hypervisor.run_to_end(probe_xml(name, name[len("turnkey-probe-") :], kernel))
        except HpcError:
            return False

        def look() -> None:
            if hypervisor.domain(name):
                raise NotReady("it still runs.")

        try:
            retry(look, on=NotReady, deadline_seconds=PROBE_SECONDS, clock=self._clock, sleep=self._sleep)
        except NotReady:
            hypervisor.power_off(name)
            return False
        return True

    # Reading

    def _found(self, cluster: str, role: str = MACHINE) -> list[Found]:
        """Return the cluster's domains in a role; an empty one means all."""
        return [
            Found(hypervisor, domain)
            for hypervisor in self._hypervisors.values()
            for domain in hypervisor.domains(f"{cluster}-")
            if domain.mark.get("cluster") == cluster
            and domain.mark.get("role") in ((role,) if role else (MACHINE, ELASTIC))
        ]

    def _find(self, cluster: str, name: str, role: str) -> list[Found]:
        """Return one machine without looking at all others; nothing if there is none."""
        found = [
            Found(hypervisor, domain)
            for hypervisor in self._hypervisors.values()
            if (domain := hypervisor.domain(_domain_name(cluster, name)))
        ]
        return [item for item in found if item.mark.get("cluster") == cluster and item.mark.get("role") == role]

    def _named(self, cluster: str, names: Sequence[str], role: str = MACHINE) -> list[Found]:
        found = [self._find(cluster, name, role) for name in names]
        missing = [name for name, machines in zip(names, found) if not machines]
        if missing:
            raise NotFound(f"cluster {cluster} has no machine {', '.join(missing)}.")
        return [machines[0] for machines in found]

    def _console(self, found: Found) -> str:
        pool = found.hypervisor.pool(_pool_id(found.mark["cluster"]))
        _disk, _seed, console, _state = _own_volumes(found.mark["name"])
        return pool.download(console, CONSOLE_BYTES).decode("utf-8", "replace") if pool else ""

    def _console_end(self, found: Found) -> str:
        # What a machine writes is shown on a terminal: without what would control that.
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x20-\x7e\n]", "", self._console(found))
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        return "\n".join(lines[-CONSOLE_LINES:]) or "(nothing)"

    def _learn(self, found: Found) -> str:
        """Return the host key that a machine told its console, and keep it in its mark."""
        key = announced_key(self._console(found), found.domain.uuid)
        if key:
            found.hypervisor.mark(found.domain, {**found.mark, "host_key": key})
        return key

    def _scan(self, machines: Sequence[Found]) -> dict[str, str]:
        """Return the host keys that machines show, by the machines' names; one command a hypervisor."""
        keys: dict[str, str] = {}
        for hypervisor in self._hypervisors.values():
            names = {item.mark["address"]: item.mark["name"] for item in machines if item.hypervisor is hypervisor}
            if names:
                argv = ["ssh-keyscan", "-T", str(SCAN_SECONDS), "-t", "ed25519", *names]
                _rc, out, _err = self._run(hypervisor.on_host(argv))
                keys.update({names[address]: key for address, key in scanned_keys(out).items() if address in names})
        return keys


# Pure helpers

_OWN_SUFFIXES = (".disk.qcow2", ".seed.iso", ".console", STATE)


def place(wants: Mapping[str, int], room: Mapping[str, int], count: Mapping[str, int], spread: str) -> dict[str, str]:
    """Return a hypervisor for each machine, by the MB that machines want and hypervisors have.

    ``memory`` takes the one with most left, ``round_robin`` the one with fewest machines of the cluster (``count``).
    """
    left, taken = dict(room), dict(count)
    places: dict[str, str] = {}
    for name, wanted_mb in sorted(wants.items(), key=lambda item: natural_key(item[0])):
        able = [uri for uri in left if left[uri] >= wanted_mb]
        if not able:
            most = max(left, key=lambda uri: left[uri])
            raise Capacity(
                f"no hypervisor has {wanted_mb} MB of memory free for machine {name}: {most} has most, "
                f"{left[most]} MB after {len(places)} of {len(wants)} new machines.",
                "Stop other machines, add a hypervisor, or choose fewer machines or smaller kinds.",
            )
        chosen = max(able, key=left.__getitem__) if spread == "memory" else min(able, key=taken.__getitem__)
        places[name] = chosen
        left[chosen] -= wanted_mb
        taken[chosen] += 1
    return places


def address_of(given: str, prefix: str, taken: Iterable[str], lease: str, reported: Sequence[str]) -> str:
    """Return a machine's address: that of its lease, the one it has itself, or the one that it was given.

    What a machine says of itself counts within the cluster's network, and if no other machine was given it.
    """
    network = ipaddress.ip_network(f"{given}/{prefix}", strict=False)
    others = set(taken) - {given}
    candidates = [lease] if lease else [given] if given in reported else list(reported)
    for address in candidates:
        if ipaddress.ip_address(address) in network and address not in others:
            return address
    return given


def scanned_keys(text: str) -> dict[str, str]:
    """Return what ssh-keyscan found, by address."""
    return {match[1]: match[2] for match in _KEY_LINE.finditer(text)}


def announced_key(console: str, identity: str) -> str:
    """Return the host key that a machine wrote to its console when its first boot was over, empty if it didn't yet.

    Our images write one line, images with cloud-init a block of lines.
    """
    keys = [match[2] for match in _READY.finditer(console) if match[1] == identity]
    return keys[-1] if keys else host_key_of_console(console)


def _not_ready(found: Found, key: str, answer: str) -> str:
    address = found.mark["address"]
    if found.domain.state != "running":
        return f"it is {found.domain.state}."
    if key and answer:
        return (
            f"{address} shows another host key ({answer}) than the machine told its console ({key}). "
            "Has something else that address?"
        )
    if key:
        return f"it told its console a host key, but no SSH server answers at {address}."
    return "it has not written an ed25519 host key to its console yet."


def _libvirt_of(spec: ClusterSpec) -> LibvirtSpec:
    if spec.libvirt is None:
        raise AssertionError(spec)
    return spec.libvirt


def _mark(request: MachineRequest, image: VmImage, accelerator: str, template: str) -> dict[str, str]:
    machine = request.machine
    return {
        "cluster": request.cluster,
        "role": request.role,
        "name": machine.name,
        "spec": request.spec,
        "set": machine.set_name,
        "groups": ",".join(machine.groups),
        "bastion": "yes" if machine.bastion else "no",
        "address": machine.address,
        "prefix": str(request.prefix),
        "network": request.network,
        "inputs": image.version,
        "accelerator": accelerator,
        **({"template": template} if template else {}),
        "attributes": json.dumps(request.attributes, sort_keys=True),
    }


def _seed(request: MachineRequest, identity: str) -> dict[str, bytes]:
    machine, libvirt = request.machine, request.libvirt
    return seed_files(
        instance_id=identity,
        hostname=machine.name,
        mac=mac_of(machine.address),
        address=f"{machine.address}/{request.prefix}",
        gateway=request.gateway,
        nameservers=libvirt.nameservers or ((request.gateway,) if request.gateway else ()),
        authorized_keys=[request.authorized_key],
        user_data=libvirt.user_data,
    )


def _machine_resource(found: Found) -> Resource:
    mark = found.mark
    # One that began in memory may run before it is finished.
    state = "stopped" if UNFINISHED in mark else found.domain.state
    attributes = {**json.loads(mark["attributes"]), "state": state}
    identity = f"{found.hypervisor.uri}|{found.domain.name}|{mark['cluster']}"
    return Resource(
        mark["role"], mark["name"], identity, mark["spec"], attributes, {"groups": frozenset(_groups(mark))}
    )


def _groups(mark: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(group for group in mark["groups"].split(",") if group)


def _network_resource(network: Network) -> Resource:
    mark = network.mark
    attributes = {name: mark.get(name, "") for name in ("subnet", "gateway", "mode")}
    attributes["state"] = "running" if network.active else "stopped"
    return Resource("network", mark["name"], network.uuid, mark.get("spec", ""), attributes)


def _jump(hypervisor: Hypervisor) -> str:
    port = f":{hypervisor.port}" if hypervisor.port else ""
    return f"{hypervisor.host}{port}" if hypervisor.host else ""


def _free_gb(directory: str) -> float:
    """Return the free space of the disk that a directory is on, or will be."""
    for path in (directory, "/var/lib", "/"):
        try:
            return shutil.disk_usage(path).free / 2**30
        except FileNotFoundError:
            continue
    return 0


def _identifier(cluster: str, what: str) -> uuid.UUID:
    """Return the identifier of what libvirt can't mark: nobody else has it."""
    return uuid.uuid5(_IDENTIFIERS, f"{what}/{cluster}")


def _pool_id(cluster: str) -> str:
    return str(_identifier(cluster, "pool"))


def _pool_name(cluster: str) -> str:
    return f"turnkey-{cluster}"


def _network_name(cluster: str) -> str:
    return f"turnkey-{cluster}"


def _domain_name(cluster: str, name: str) -> str:
    return f"{cluster}-{name}"


def _own_volumes(name: str) -> tuple[str, str, str, str]:
    """Return disk, seed, console, and the passing copy of the memory, of a machine."""
    disk, seed, console, state = (f"{name}{suffix}" for suffix in _OWN_SUFFIXES)
    return disk, seed, console, state
