# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Elastic nodes as containers beside those of their cluster, in its network, on one Docker engine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .._errors import InvalidInput, join_problems
from .base import ClusterSpec, Conflict, Desired, MachineSpec, NotFound, NotReady, VolumeMount, retry
from .docker import CONFLICT_SECONDS, ELASTIC, ROLE, DockerProvider, connect_engine, container_request
from .elastic import answer_each, kept, placed_nodes
from .plan import Action

__all__ = ["DockerMachines", "parse_nodes"]

_STATES = {"running": "running", "created": "starting", "restarting": "starting", "removing": "going"}


def parse_nodes(data: Mapping[str, Any]) -> dict[str, MachineSpec]:
    """Return the machines that this power host may make, by their names; all problems are told at once. Pure."""
    problems = [
        f"kind {kind.get('name')!r} has no image that its machines start from."
        for kind in data.get("kinds") or ()
        if not kind.get("image")
    ]
    nodes = {
        name: MachineSpec(
            name=name,
            address=address,
            set_name=str(kind.get("name")),
            groups=(),
            image=str(kind.get("image") or ""),
            cpus=float(kind.get("limit_cpus") or 0),
            memory_mb=int(kind.get("limit_memory_mb") or 0),
            volumes=tuple(VolumeMount(str(v["name"]), str(v["path"])) for v in kind.get("volumes") or ()),
        )
        for kind, name, address in placed_nodes(data.get("kinds") or (), problems)
    }
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
        self._kept = kept(data)
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
        yield from answer_each(names, lambda name: self._resume(name, *found.get(name, ("", ""))))

    def suspend(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Remove containers, or stop those of a kind that keeps them."""
        found = self._found()
        yield from answer_each(names, lambda name: self._suspend(name, *found.get(name, ("", ""))))

    def remove(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Remove containers."""
        found = self._found()
        yield from answer_each(names, lambda name: self._remove(name, found.get(name, ("", ""))[0]))

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
        try:
            key = retry(
                lambda: self._provider.ready(container, name),
                on=NotReady,
                deadline_seconds=self._seconds,
                base_seconds=0.1,
                cap_seconds=0.3,
            )
        except NotReady as error:
            raise NotReady(f"no login after {self._seconds:g} s: {error.what}") from None
        return {"address": machine.address, "host_key": key, "user": self._provider.login_user}

    def _desired(self, name: str, request: Mapping[str, Any]) -> Desired:
        keys = frozenset({self._spec.admin_public_key})
        return Desired(ELASTIC, name, "", {}, settings={"operator_keys": keys}, request=request)

    def _suspend(self, name: str, container: str, state: str) -> dict[str, Any]:
        machine = self._nodes.get(name)
        if machine is None or machine.set_name not in self._kept:
            return self._remove(name, container)
        if state == "running":
            self._provider.stop(self._cluster, [name], role=ELASTIC)
        return {}

    def _remove(self, name: str, container: str) -> dict[str, Any]:
        if container:
            retry(lambda: self._provider.remove(container, name), on=Conflict, deadline_seconds=CONFLICT_SECONDS)
        return {}

    def _found(self) -> dict[str, tuple[str, str]]:
        """Return ids and states of the containers that exist, by node."""
        return self._provider.containers(self._cluster, ELASTIC)
