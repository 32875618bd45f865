# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Elastic nodes as containers beside those of their cluster, in its network, on one Docker engine."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from .._errors import HpcError, InvalidInput, join_problems
from .._hostlist import expand
from .base import ClusterSpec, Conflict, Desired, MachineSpec, NotFound, NotReady, VolumeMount, retry
from .docker import CONFLICT_SECONDS, ELASTIC, ROLE, DockerProvider, connect_engine, container_request
from .plan import Action

__all__ = ["DockerMachines", "parse_nodes"]

AT_A_TIME = 8
_STATES = {"running": "running", "created": "starting", "restarting": "starting", "removing": "going"}


def parse_nodes(data: Mapping[str, Any]) -> dict[str, MachineSpec]:
    """Return the machines that this power host may make, by their names; all problems are told at once. Pure."""
    problems: list[str] = []
    nodes: dict[str, MachineSpec] = {}
    owners: dict[str, str] = {}
    for kind in data.get("kinds") or ():
        what = f"kind {kind.get('name')!r}"
        try:
            names = expand(str(kind.get("nodes") or ""))
            first = ipaddress.IPv4Address(str(kind.get("first_address") or ""))
        except (InvalidInput, ValueError) as error:
            problems.append(f"{what}: {error}")
            continue
        if not kind.get("image"):
            problems.append(f"{what} has no image that its machines start from.")
        for number, name in enumerate(names):
            address = str(first + number)
            if owners.setdefault(address, name) != name:
                problems.append(f"{what}: {name} would have the address {address} of {owners[address]}.")
            nodes[name] = MachineSpec(
                name=name,
                address=address,
                set_name=str(kind.get("name")),
                groups=(),
                image=str(kind.get("image") or ""),
                cpus=float(kind.get("limit_cpus") or 0),
                memory_mb=int(kind.get("limit_memory_mb") or 0),
                volumes=tuple(VolumeMount(str(v["name"]), str(v["path"])) for v in kind.get("volumes") or ()),
            )
    if problems:
        raise InvalidInput(join_problems(problems))
    return nodes


class DockerMachines:
    """The containers of one cluster's elastic nodes. Their label is their own, so provisioning leaves them alone."""

    def __init__(self, provider: DockerProvider, data: Mapping[str, Any], nodes: Mapping[str, MachineSpec]) -> None:
        self._provider = provider
        self._cluster = str(data["cluster"])
        self._nodes = nodes
        self._seconds = float(data.get("boot_seconds") or 60)
        self._kept = {str(kind["name"]) for kind in data.get("kinds") or () if kind.get("level") == "power"}
        self._spec = ClusterSpec(
            cluster=self._cluster,
            network="",
            gateway="",
            machines=(),
            volumes=(),
            bastion_bind="",
            bastion_port=0,
            admin_public_key=str(data.get("authorized_key") or ""),
        )

    @classmethod
    def connect(cls, data: Mapping[str, Any], nodes: Mapping[str, MachineSpec]) -> DockerMachines:
        """Connect to the engine."""

        def no_run(argv: list[str]) -> tuple[int, str, str]:
            return 127, "", f"{argv[0]} is not used here"

        os.environ.setdefault("DOCKER_HOST", str(data.get("engine") or "unix:///var/run/docker.sock"))
        return cls(DockerProvider(connect_engine(), no_run), data, nodes)

    def status(self) -> dict[str, str]:
        """Return the containers that exist."""
        return {name: _STATES.get(state, "stopped") for name, (_id, state) in self._found().items()}

    def resume(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Make or start containers, and tell of each when it can be logged in to."""
        found = self._found()
        yield from self._each(names, lambda name: self._resume(name, *found.get(name, ("", ""))))

    def suspend(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Remove containers, or stop those of a kind that keeps them."""
        found = self._found()
        yield from self._each(names, lambda name: self._suspend(name, *found.get(name, ("", ""))))

    def _each(self, names: Sequence[str], act: Callable[[str], dict[str, Any]]) -> Iterator[dict[str, Any]]:
        from .._elastic.host import code_for

        with ThreadPoolExecutor(max_workers=AT_A_TIME) as pool:
            futures = {pool.submit(act, name): name for name in names}
            for future in as_completed(futures):
                name = futures[future]
                try:
                    yield {"node": name, **future.result()}
                except NotReady as error:
                    yield {"node": name, "code": "BootTimeout", "text": f"no login after {self._seconds:g} s: {error}"}
                except HpcError as error:
                    yield {"node": name, "code": code_for(error), "text": str(error)}

    def _resume(self, name: str, container: str, state: str) -> dict[str, Any]:
        machine = self._nodes[name]
        if container and state != "running" and machine.set_name not in self._kept:
            # What a start that was cut off has left behind.
            self._provider.remove(container, name)
            container = ""
        if not container:
            request = container_request(self._spec, machine, "")
            request["config"]["Labels"][ROLE] = ELASTIC
            action = Action("create", ELASTIC, name, desired=self._desired(name, request))
            try:
                retry(lambda: self._provider.create(action), on=Conflict, deadline_seconds=CONFLICT_SECONDS)
            except NotFound as error:
                what = f"image {machine.image} or network of {self._cluster} is missing: {error.what}"
                raise NotFound(what) from None
            container = self._found()[name][0]
        elif state != "running":
            self._provider.start(self._cluster, [name], role=ELASTIC)
        key = retry(
            lambda: self._provider.ready(container, name), on=NotReady, deadline_seconds=self._seconds, cap_seconds=0.5
        )
        return {"address": machine.address, "host_key": key, "user": self._provider.login_user}

    def _desired(self, name: str, request: Mapping[str, Any]) -> Desired:
        keys = frozenset({self._spec.admin_public_key})
        return Desired(ELASTIC, name, "", {}, settings={"operator_keys": keys}, request=request)

    def _suspend(self, name: str, container: str, state: str) -> dict[str, Any]:
        if not container:
            return {}
        machine = self._nodes.get(name)
        if machine is not None and machine.set_name in self._kept:
            if state == "running":
                self._provider.stop(self._cluster, [name], role=ELASTIC)
        else:
            retry(lambda: self._provider.remove(container, name), on=Conflict, deadline_seconds=CONFLICT_SECONDS)
        return {}

    def _found(self) -> dict[str, tuple[str, str]]:
        """Return ids and states of the containers that exist, by node."""
        return self._provider.containers(self._cluster, ELASTIC)
