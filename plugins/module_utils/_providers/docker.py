# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers with systemd and sshd as machines, on one Docker engine."""

from __future__ import annotations

import base64
import binascii
import errno
import getpass
import io
import ipaddress
import json
import shutil
import socket
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._errors import HpcError, join_problems
from .base import (
    Auth,
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
from .plan import Action, execute, existing, wanted

__all__ = [
    "ELASTIC",
    "ROLE",
    "DockerProvider",
    "connect_engine",
    "container_request",
    "explain_unreachable",
    "overlapping_routes",
    "translated",
]

CLUSTER = "turnkey.cluster"
ROLE = "turnkey.role"
NAME = "turnkey.name"
SPEC = "turnkey.spec"
SET = "turnkey.set"
GROUPS = "turnkey.groups"
BASTION = "turnkey.bastion"

# The value of ROLE for containers of elastic nodes, which node-power makes and removes.
ELASTIC = "elastic"

NETWORK_KEY = "main"
RECIPE = 1  # raise it when containers made by an older version must be replaced
SHM_BYTES = 256 * 2**20  # MPI's shared-memory transport; Docker's own 64 MB is too little for a few ranks
AUTHORIZED_KEYS = "/root/.ssh/authorized_keys"
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"
PENDING_KEY = "(the key that the first run makes)"
CONFLICT_SECONDS = 20
STOP_SECONDS = 20

Run = Callable[[list[str]], tuple[int, str, str]]


class DockerProvider(Provider):
    """Machines are containers, found by their labels; there is no state file."""

    login_user = "root"

    def __init__(self, api: Any, run: Run, remote_host: str = "") -> None:
        """Take a ``docker.APIClient``, ``run`` for local commands, and the engine's host unless it is this one."""
        self._api = api
        self._run = run
        self._local = not remote_host
        self._engine_host = remote_host or "127.0.0.1"

    @classmethod
    def connect(cls, run: Run) -> DockerProvider:
        """Connect to the engine; see ``connect_engine``."""
        return cls(connect_engine(), run)

    # What should be

    def desired(self, spec: ClusterSpec) -> list[Desired]:
        """Return the network, the volumes and the machines."""
        network = {"subnet": spec.network, "gateway": spec.gateway}
        result = [
            Desired(
                "network",
                NETWORK_KEY,
                spec_hash({"recipe": RECIPE, **network}),
                network,
                request=_labels(spec, "network", NETWORK_KEY),
            )
        ]
        result += [
            Desired("volume", name, spec_hash({"recipe": RECIPE}), {}, request=_labels(spec, "volume", name))
            for name in spec.volumes
        ]
        for machine in spec.machines:
            attributes = _machine_attributes(spec, machine)
            digest = spec_hash({"recipe": RECIPE, **attributes})
            result.append(
                Desired(
                    "machine",
                    machine.name,
                    digest,
                    {**attributes, "state": "running"},
                    settings={"operator_keys": frozenset({spec.admin_public_key or PENDING_KEY})},
                    depends=(f"network/{NETWORK_KEY}", *(f"volume/{mount.name}" for mount in machine.volumes)),
                    request=container_request(spec, machine, digest),
                )
            )
        return result

    # What is

    def discover(self, cluster: str) -> State:
        """Return all containers, networks and volumes with this cluster's label."""
        resources = []
        for network in self._labelled(self._api.networks, cluster):
            config = (network["IPAM"]["Config"] or [{}])[0]
            found = {"subnet": config.get("Subnet", ""), "gateway": config.get("Gateway", "")}
            resources.append(_resource(network["Labels"], network["Id"][:12], found))
        for volume in self._labelled(self._api.volumes, cluster):
            resources.append(_resource(volume["Labels"], volume["Name"], {}))
        for row in self._labelled(self._api.containers, cluster):
            try:
                with translated(f"inspect container {row['Id'][:12]}"):
                    container = self._api.inspect_container(row["Id"])
            except NotFound:  # removed since it was listed
                continue
            settings = {}
            if container["State"]["Status"] == "running":
                settings["operator_keys"] = frozenset(self._authorized_keys(container["Id"]))
            labels = container["Config"]["Labels"]
            resources.append(_resource(labels, container["Id"][:12], _found_machine(container), settings))
        return State(tuple(resources))

    def list_instances(self, cluster: str) -> list[Machine]:
        """Return the machines; one call."""
        machines = []
        for row in self._labelled(self._api.containers, cluster):
            labels = row["Labels"]
            if labels[ROLE] == ELASTIC:
                continue
            bind, _colon, port = labels.get(BASTION, "").partition(":")
            machines.append(
                Machine(
                    name=labels[NAME],
                    id=row["Id"][:12],
                    address=_address(row["NetworkSettings"]),
                    set_name=labels[SET],
                    groups=_split(labels[GROUPS]),
                    running=row["State"] == "running",
                    login_user=self.login_user,
                    bastion=bool(port),
                    public_address=self._engine_host if bind == "0.0.0.0" else bind,
                    public_port=int(port or 0),
                )
            )
        return sorted(machines, key=lambda machine: natural_key(machine.name))

    def host_keys(self, cluster: str, names: Sequence[str], timeout_seconds: float) -> dict[str, str]:
        """Wait for host key and sshd of these machines; both are read through the engine, not over the network."""
        ids = self._ids(cluster, names)
        problems: list[str] = []

        def one(name: str) -> str:
            try:
                return retry(
                    lambda: self.ready(ids[name], name), on=NotReady, deadline_seconds=timeout_seconds, cap_seconds=1
                )
            except NotReady as error:
                messages = self._last_messages(ids[name])
                problems.append(
                    f"machine {name} can't be reached after {timeout_seconds:g} s: {error.what} "
                    f"Its last messages:\n{messages}{hint(messages)}"
                )
            except HpcError as error:
                problems.append(str(error))
            return ""

        with ThreadPoolExecutor(max_workers=4) as pool:
            keys = dict(zip(names, pool.map(one, names)))
        if problems:
            raise HpcError(join_problems(sorted(problems)))
        return keys

    # Environment

    def check(self, spec: ClusterSpec, state: State) -> list[str]:
        """Return what would make creation fail: images, names, port, network, disk."""
        machines, volumes = state.of_kind("machine"), state.of_kind("volume")
        hashes = {item.ref: item.spec_hash for item in self.desired(spec)}
        new = [
            m
            for m in spec.machines
            if m.name not in machines or machines[m.name].spec_hash != hashes[f"machine/{m.name}"]
        ]
        with translated("list containers and networks"):
            containers = self._api.containers(all=True)
            networks = self._api.networks()
        problems = [
            f"image {image} is not in this Docker engine. Build it: ansible-playbook -i INVENTORY turnkey.hpc.image"
            for image in sorted({machine.image for machine in new})
            if not self._exists(self._api.inspect_image, image)
        ]
        problems += _foreign_names(spec, state, containers, networks)
        problems += [
            f"volume {_volume_name(spec.cluster, name)} exists but {_not_ours(spec)}"
            for name in spec.volumes
            if name not in volumes and self._exists(self._api.inspect_volume, _volume_name(spec.cluster, name))
        ]
        problems += self._check_port(spec, machines, containers)
        if not any(network.attributes["subnet"] == spec.network for network in state.of_kind("network").values()):
            problems += self._check_network(spec, networks)
        if new and self._local:
            problems += self._check_disk(float(spec.options.get("min_free_disk_gb") or 0))
        return problems

    def _check_port(self, spec: ClusterSpec, machines: Mapping[str, Resource], containers: Sequence[Any]) -> list[str]:
        wanted = f"{spec.bastion_bind}:{spec.bastion_port}"
        if not self._local and ipaddress.ip_address(spec.bastion_bind).is_loopback:
            return [
                f"bastion_bind {spec.bastion_bind} can't be reached: the Docker engine is on {self._engine_host}. "
                "Use 0.0.0.0."
            ]
        if any(m.attributes["bastion"] == wanted and m.attributes["state"] == "running" for m in machines.values()):
            return []
        remedy = "Stop that, or choose another cluster_bastion_port."
        for row in containers:
            for port in row.get("Ports") or ():
                same = port.get("IP") in (spec.bastion_bind, "0.0.0.0") or spec.bastion_bind == "0.0.0.0"
                ours = (row.get("Labels") or {}).get(CLUSTER) == spec.cluster
                if port.get("PublicPort") == spec.bastion_port and same and not ours:
                    return [f"port {wanted} is in use by container {row['Names'][0].lstrip('/')}. {remedy}"]
        error = _bind_error(spec.bastion_bind, spec.bastion_port) if self._local else 0
        if error == errno.EADDRINUSE:
            return [f"port {wanted} is in use by another program (ss -ltnp 'sport = {spec.bastion_port}'). {remedy}"]
        if error == errno.EADDRNOTAVAIL:
            return [
                f"bastion_bind {spec.bastion_bind} is not an address of this host. Use 127.0.0.1 or one of its own."
            ]
        return []

    def _check_network(self, spec: ClusterSpec, networks: Sequence[Any]) -> list[str]:
        wanted = ipaddress.ip_network(spec.network)
        remedy = "Choose another cluster_network."
        problems, bridges = [], {"docker0"}
        for network in networks:
            bridges.add(
                (network.get("Options") or {}).get("com.docker.network.bridge.name") or f"br-{network['Id'][:12]}"
            )
            if (network.get("Labels") or {}).get(CLUSTER) == spec.cluster:
                continue
            for config in (network.get("IPAM") or {}).get("Config") or ():
                subnet = ipaddress.ip_network(config["Subnet"])
                if subnet.version == 4 and subnet.overlaps(wanted):
                    problems.append(f"network {wanted} overlaps Docker network {network['Name']} ({subnet}). {remedy}")
        if self._local:
            try:
                rc, out, _err = self._run(["ip", "-j", "-4", "route", "show"])
            except OSError:  # no iproute2: the engine itself still refuses what overlaps its own networks
                return problems
            found = overlapping_routes(out, spec.network, bridges) if rc == 0 else []
            problems += [f"network {wanted} overlaps {route} of this host. {remedy}" for route in found]
        return problems

    def _check_disk(self, wanted_gb: float) -> list[str]:
        with translated("read the engine's settings"):
            root = Path(self._api.info()["DockerRootDir"])
        if not root.exists():  # an engine in a virtual machine of its own
            return []
        free = shutil.disk_usage(root).free / 2**30
        if free >= wanted_gb:
            return []
        return [
            f"{root} has {free:.1f} GB free, {wanted_gb:g} GB are needed. "
            "Make room (docker system df), or lower cluster_min_free_disk_gb."
        ]

    # Doing

    def apply(self, actions: Sequence[Action], progress: Callable[[Action], None] | None = None) -> list[Action]:
        """Carry the actions out."""
        return execute(actions, self._perform, progress)

    def start(self, cluster: str, names: Sequence[str], role: str = "machine") -> None:
        """Start containers."""
        for name, container in self._ids(cluster, names, role).items():
            self._start(container, name)

    def stop(self, cluster: str, names: Sequence[str], role: str = "machine") -> None:
        """Shut containers down in order."""
        for name, container in self._ids(cluster, names, role).items():
            with translated(f"stop machine {name}"):
                self._api.stop(container, timeout=STOP_SECONDS)

    def terminate(self, cluster: str, names: Sequence[str]) -> None:
        """Remove containers; only this cluster's are looked at, so others can't be hit."""
        doomed = [resource for name, resource in self.discover(cluster).of_kind("machine").items() if name in names]
        self.apply([Action("delete", "machine", resource.key, resource=resource) for resource in doomed])

    def _perform(self, action: Action) -> None:
        step = {
            ("create", "network"): self._create_network,
            ("create", "volume"): self._create_volume,
            ("create", "machine"): self.create,
            ("start", "machine"): self._start_machine,
            ("update", "machine"): self._authorize_action,
            ("delete", "machine"): self._delete,
            ("delete", ELASTIC): self._delete,
            ("delete", "network"): self._delete,
            ("delete", "volume"): self._delete,
        }[action.verb, action.kind]
        # A conflict passes where an earlier, interrupted run is still removing something.
        retry(lambda: step(action), on=Conflict, deadline_seconds=CONFLICT_SECONDS)

    def _create_network(self, action: Action) -> None:
        desired = wanted(action)
        labels = {**desired.request, SPEC: desired.spec_hash}
        with translated(str(action)):
            self._api.create_network(
                _network_name(labels[CLUSTER]),
                driver="bridge",
                ipam={
                    "Driver": "default",
                    "Config": [{"Subnet": desired.attributes["subnet"], "Gateway": desired.attributes["gateway"]}],
                },
                check_duplicate=True,
                labels=labels,
            )

    def _create_volume(self, action: Action) -> None:
        labels = {**wanted(action).request, SPEC: wanted(action).spec_hash}
        with translated(str(action)):
            self._api.create_volume(_volume_name(labels[CLUSTER], action.key), labels=labels)

    def create(self, action: Action) -> None:
        """Make a container, let the operator in, and start it."""
        request = wanted(action).request
        with translated(str(action)):
            container = self._api.create_container_from_config(request["config"], request["name"])["Id"]
        self._authorize(container, action)
        self._start(container, action.key)

    def _start_machine(self, action: Action) -> None:
        container = existing(action).id
        self._authorize(container, action)
        if existing(action).attributes["state"] == "paused":
            with translated(str(action)):
                self._api.unpause(container)
            return
        self._start(container, action.key)

    def _authorize_action(self, action: Action) -> None:
        self._authorize(existing(action).id, action)

    def _start(self, container: str, name: str) -> None:
        with translated(f"start machine {name}"):
            self._api.start(container)

    def _authorize(self, container: str, action: Action) -> None:
        """Let the operator's key in, beside those which are there."""
        present = self._authorized_keys(container)
        missing = wanted(action).settings["operator_keys"].difference(present)
        if missing:
            with translated(f"put the operator's key into machine {action.key}"):
                self._api.put_archive(container, "/", _key_archive([*present, *sorted(missing)]))

    def _delete(self, action: Action) -> None:
        resource = existing(action)
        try:
            with translated(str(action)):
                if resource.kind in ("machine", ELASTIC):
                    self._api.remove_container(resource.id, force=True, v=True)
                elif resource.kind == "network":
                    self._api.remove_network(resource.id)
                else:
                    self._api.remove_volume(resource.id)
        except NotFound:
            return

    # Reading

    def _labelled(self, call: Callable[..., Any], cluster: str) -> list[Any]:
        arguments: dict[str, Any] = {"filters": {"label": f"{CLUSTER}={cluster}"}}
        if call == self._api.containers:
            arguments["all"] = True
        with translated("list what carries the cluster's label"):
            rows = call(**arguments)
        # the list of volumes comes wrapped, and as null when it is empty
        return list(rows.get("Volumes") or []) if isinstance(rows, dict) else list(rows)

    def containers(self, cluster: str, role: str = "machine") -> dict[str, tuple[str, str]]:
        """Return ids and states of the cluster's containers in a role, by name; one call."""
        rows = self._labelled(self._api.containers, cluster)
        return {row["Labels"][NAME]: (row["Id"][:12], row["State"]) for row in rows if row["Labels"][ROLE] == role}

    def remove(self, container: str, name: str) -> None:
        """Remove a container; one that is gone is fine."""
        self._delete(Action("delete", "machine", name, resource=Resource("machine", name, container, "")))

    def _ids(self, cluster: str, names: Sequence[str], role: str = "machine") -> dict[str, str]:
        ids = {name: container for name, (container, _state) in self.containers(cluster, role).items()}
        missing = [name for name in names if name not in ids]
        if missing:
            raise NotFound(f"cluster {cluster} has no machine {', '.join(missing)}.")
        return {name: ids[name] for name in names}

    def _exists(self, call: Callable[[str], Any], name: str) -> bool:
        try:
            with translated(f"look for {name}"):
                call(name)
        except NotFound:
            return False
        return True

    def ready(self, container: str, name: str) -> str:
        """Return the host key of a machine that accepts logins; raise NotReady while it doesn't."""
        with translated(f"inspect machine {name}"):
            state = self._api.inspect_container(container)["State"]
        if state["Status"] != "running":
            raise HpcError(
                f"machine {name} is {state['Status']} with exit code {state['ExitCode']}, not running. "
                f"Its last messages:\n{self._last_messages(container)}"
            )
        key = _host_key(self._file(container, HOST_KEY))
        if not key:
            raise NotReady(f"it has no host key in {HOST_KEY} yet.")
        _rc, sockets = self._exec(container, ["cat", "/proc/net/tcp", "/proc/net/tcp6"])
        if not _listens(sockets, 22):
            raise NotReady("nothing listens on its port 22 yet.")
        return key

    def _authorized_keys(self, container: str) -> list[str]:
        lines = [line.strip() for line in self._file(container, AUTHORIZED_KEYS).splitlines()]
        return [line for line in lines if line]

    def _file(self, container: str, path: str) -> str:
        """Return the text of a small file in a container, empty if there is none."""
        try:
            with translated(f"read {path}"):
                stream, _stat = self._api.get_archive(container, path)
                packed = b"".join(stream)
        except NotFound:
            return ""
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            members = [member for member in archive if member.isfile()]
            content = archive.extractfile(members[0]) if members else None
            return content.read().decode("utf-8", "replace") if content else ""

    def _exec(self, container: str, argv: list[str]) -> tuple[int, str]:
        try:
            with translated(f"run {argv[0]}"):
                handle = self._api.exec_create(container, argv)["Id"]
                out = self._api.exec_start(handle)
                return int(self._api.exec_inspect(handle)["ExitCode"] or 0), out.decode("utf-8", "replace")
        except Conflict as error:  # it stopped in between
            return 1, str(error)

    def _last_messages(self, container: str) -> str:
        with translated("read the last messages"):
            text = str(self._api.logs(container, tail=15).decode("utf-8", "replace"))
        rc, journal = self._exec(container, ["journalctl", "--boot", "--no-pager", "--lines=15"])
        return (text + (journal if rc == 0 else "")).strip() or "(none)"


def connect_engine(timeout_seconds: int = 60) -> Any:
    """Return a ``docker.APIClient`` for the engine that the docker command uses, or say clearly why that fails."""
    try:
        import docker
        import docker.errors
        import docker.utils
    except ImportError as error:
        raise HpcError(
            f"The Python package 'docker' is missing in {sys.executable} ({error}).",
            f"Install it: {sys.executable} -m pip install docker",
        ) from error
    settings = docker.utils.kwargs_from_env()
    host = settings.get("base_url") or "unix:///var/run/docker.sock"
    try:
        return docker.APIClient(version="auto", timeout=timeout_seconds, **settings)
    except (docker.errors.DockerException, OSError) as error:
        installed = bool(shutil.which("dockerd") or shutil.which("docker"))
        raise explain_unreachable(error, host, installed, getpass.getuser()) from error


# Pure helpers


def container_request(spec: ClusterSpec, machine: MachineSpec, digest: str) -> dict[str, Any]:
    """Return name and configuration of a container, in the engine's own terms."""
    network = _network_name(spec.cluster)
    labels = {
        **_labels(spec, "machine", machine.name),
        SPEC: digest,
        SET: machine.set_name,
        GROUPS: ",".join(machine.groups),
    }
    host: dict[str, Any] = {
        "NetworkMode": network,
        # systemd needs most capabilities; the host's limits and clock stay out of reach.
        "CapAdd": ["ALL"],
        "CapDrop": ["SYS_RESOURCE", "SYS_TIME"],
        "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined"],
        "CgroupnsMode": "private",
        "Tmpfs": {"/run": "", "/run/lock": "", "/tmp": "exec"},
        "ShmSize": SHM_BYTES,
        "RestartPolicy": {"Name": "no"},
        "NanoCpus": int(machine.cpus * 10**9),
        "Memory": machine.memory_mb * 2**20,
        # Without NoCopy several machines would copy their image's directory into a new volume at the same time.
        "Mounts": [
            {
                "Type": "volume",
                "Source": _volume_name(spec.cluster, mount.name),
                "Target": mount.path,
                "VolumeOptions": {"NoCopy": True},
            }
            for mount in machine.volumes
        ],
    }
    config: dict[str, Any] = {
        "Image": machine.image,
        "Hostname": machine.name,
        "Labels": labels,
        "StopSignal": "SIGRTMIN+3",
        "HostConfig": host,
        "NetworkingConfig": {
            "EndpointsConfig": {network: {"Aliases": [machine.name], "IPAMConfig": {"IPv4Address": machine.address}}}
        },
    }
    if machine.bastion:
        labels[BASTION] = f"{spec.bastion_bind}:{spec.bastion_port}"
        config["ExposedPorts"] = {"22/tcp": {}}
        host["PortBindings"] = {"22/tcp": [{"HostIp": spec.bastion_bind, "HostPort": str(spec.bastion_port)}]}
    return {"name": _container_name(spec.cluster, machine.name), "config": config}


def explain_unreachable(error: BaseException, host: str, installed: bool, user: str) -> HpcError:
    """Return the clear message for an engine that can't be connected to."""
    cause = _os_error(error)
    number = cause.errno if cause else None
    if number in (errno.EACCES, errno.EPERM):
        return Auth(
            f"User {user} has no right to use the Docker engine at {host}.",
            f"Run as root, or add the user to the group of that socket (usermod -aG docker {user}) and log in again.",
        )
    if number == errno.ENOENT and not installed:
        return HpcError(
            f"Docker is not installed: there is neither a docker command nor {host}.",
            "Install the engine (on Debian: apt-get install docker.io) or set DOCKER_HOST to a remote one.",
        )
    if number in (errno.ENOENT, errno.ECONNREFUSED):
        return HpcError(
            f"The Docker engine is not running: nothing answers at {host}.",
            "Start it (systemctl start docker), or set DOCKER_HOST to a running one.",
        )
    return HpcError(f"The Docker engine at {host} can't be used: {error}.", "Compare: docker version")


def hint(messages: str) -> str:
    """Return the remedy for what a machine's last messages complain of, where it is on the engine's host."""
    if "inotify" in messages and "Too many open files" in messages:
        return (
            "\nRemedy: too many containers with systemd run on this computer for its limit of inotify instances. "
            "Remove some, or raise it: sysctl fs.inotify.max_user_instances=1024"
        )
    return ""


def overlapping_routes(routes_json: str, network: str, bridges: set[str]) -> list[str]:
    """Return the routes (output of ``ip -j route``) that overlap ``network``, without those over Docker's bridges."""
    wanted = ipaddress.ip_network(network)
    found = []
    for route in json.loads(routes_json or "[]"):
        if route["dst"] == "default" or route.get("dev") in bridges:
            continue
        target = ipaddress.ip_network(route["dst"])
        # Halves of the address space are default routes in disguise (VPN clients).
        if target.prefixlen >= 8 and target.overlaps(wanted):
            found.append(f"route {target} over {route.get('dev', 'no interface')}")
    return found


def _foreign_names(spec: ClusterSpec, state: State, containers: Sequence[Any], networks: Sequence[Any]) -> list[str]:
    """Return which of the names that are to be created others have."""
    wanted = {_container_name(spec.cluster, m.name) for m in spec.machines if m.name not in state.of_kind("machine")}
    taken = {name.lstrip("/") for row in containers for name in row.get("Names") or ()}
    problems = [f"container {name} exists but {_not_ours(spec)}" for name in sorted(wanted & taken, key=natural_key)]
    name = _network_name(spec.cluster)
    if not state.of_kind("network") and any(network["Name"] == name for network in networks):
        problems.append(f"Docker network {name} exists but {_not_ours(spec)}")
    return problems


def _not_ours(spec: ClusterSpec) -> str:
    label = f"{CLUSTER}={spec.cluster}"
    return f"isn't of this cluster (no label {label}). Remove or rename it, or choose another cluster_name."


def _labels(spec: ClusterSpec, kind: str, key: str) -> dict[str, str]:
    return {CLUSTER: spec.cluster, ROLE: kind, NAME: key}


def _machine_attributes(spec: ClusterSpec, machine: MachineSpec) -> dict[str, Any]:
    return {
        "address": machine.address,
        "bastion": f"{spec.bastion_bind}:{spec.bastion_port}" if machine.bastion else "",
        "cpus": f"{machine.cpus:g}",
        "groups": list(machine.groups),
        "image": machine.image,
        "memory_mb": machine.memory_mb,
        "set": machine.set_name,
        "volumes": [f"{mount.name}:{mount.path}" for mount in machine.volumes],
    }


def _found_machine(container: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a container in the shape of :func:`_machine_attributes`."""
    host, labels = container["HostConfig"], container["Config"]["Labels"]
    prefix = _volume_name(labels[CLUSTER], "")
    return {
        "address": _address(container["NetworkSettings"]),
        "bastion": labels.get(BASTION, ""),
        "cpus": f"{host['NanoCpus'] / 10**9:g}",
        "groups": list(_split(labels[GROUPS])),
        "image": container["Config"]["Image"],
        "memory_mb": host["Memory"] // 2**20,
        "set": labels[SET],
        "volumes": [f"{mount['Source'][len(prefix) :]}:{mount['Target']}" for mount in host.get("Mounts") or ()],
        "state": container["State"]["Status"],
    }


def _resource(
    labels: Mapping[str, str],
    identity: str,
    attributes: Mapping[str, Any],
    settings: Mapping[str, frozenset[str]] | None = None,
) -> Resource:
    return Resource(labels[ROLE], labels[NAME], identity, labels.get(SPEC, ""), attributes, settings or {})


def _network_name(cluster: str) -> str:
    return f"turnkey-{cluster}"


def _volume_name(cluster: str, name: str) -> str:
    return f"turnkey-{cluster}-{name}"


def _container_name(cluster: str, name: str) -> str:
    return f"{cluster}-{name}"


def _address(settings: Mapping[str, Any]) -> str:
    """Return the fixed address of a container, which a stopped one has too."""
    for endpoint in settings["Networks"].values():
        if address := (endpoint.get("IPAMConfig") or {}).get("IPv4Address"):
            return str(address)
    return ""


def _split(text: str) -> tuple[str, ...]:
    return tuple(item for item in text.split(",") if item)


def _key_archive(lines: Sequence[str]) -> bytes:
    """Return a tar archive, to be unpacked in /, with root's authorized keys."""
    content = "".join(f"{line}\n" for line in lines).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in ("root", "root/.ssh"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o700, int(time.time())
            archive.addfile(folder)
        file = tarfile.TarInfo(AUTHORIZED_KEYS.lstrip("/"))
        file.mode, file.size, file.mtime = 0o600, len(content), int(time.time())
        archive.addfile(file, io.BytesIO(content))
    return packed.getvalue()


def _host_key(text: str) -> str:
    """Return type and key of a public host key, empty if the file isn't complete (it may be read while written)."""
    words = text.split()
    try:
        complete = (
            text.endswith("\n") and words[0] == "ssh-ed25519" and len(base64.b64decode(words[1], validate=True)) == 51
        )
    except (IndexError, binascii.Error):
        return ""
    return f"{words[0]} {words[1]}" if complete else ""


def _listens(sockets: str, port: int) -> bool:
    """Tell from /proc/net/tcp whether something listens on a port of all addresses or of an outward one."""
    rows = [line.split() for line in sockets.splitlines()]
    return any(len(row) > 3 and row[3] == "0A" and row[1].endswith(f":{port:04X}") for row in rows)


def _bind_error(address: str, port: int) -> int:
    """Return the error number of listening on an address and port, 0 if that works."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
            listener.listen()
        except OSError as error:
            return error.errno or 0
    return 0


def _os_error(error: BaseException | None) -> OSError | None:
    """Find the system's error below the layers of HTTP libraries."""
    found = None
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            found = error
        error = error.__cause__ or error.__context__
    return found


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn the SDK's errors into ours."""
    import docker.errors
    import requests.exceptions

    try:
        yield
    except docker.errors.APIError as error:
        raise _classified(error.status_code or 500, str(error.explanation or error), what) from error
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise HpcError(f"could not {what}: the Docker engine doesn't answer properly ({error}).") from error


def _classified(status: int, text: str, what: str) -> HpcError:
    message = f"could not {what}: {text.strip().rstrip('.')}."
    if status == 404:
        return NotFound(message)
    if "no space left on device" in text:
        return Capacity(message, "Make room on the engine's disk (docker system df).")
    if status == 409 or "has active endpoints" in text:
        return Conflict(message)
    if status in (400, 403):
        return Invalid(message)
    return HpcError(message)
