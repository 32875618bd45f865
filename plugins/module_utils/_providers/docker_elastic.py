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
from .elastic import ElasticMachines, answer_each, placed_nodes
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


class DockerMachines(ElasticMachines):
    """Containers."""

    def __init__(self, provider: DockerProvider, data: Mapping[str, Any], nodes: Mapping[str, MachineSpec]) -> None:
        """Take the provider, the settings of this power host, and the nodes that they stand for."""
        super().__init__(data, {name: machine.set_name for name, machine in nodes.items()})
        self._provider = provider
        self._nodes = nodes
        self._spec = ClusterSpec(
            cluster=self.cluster,
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

    def states(self) -> dict[str, str]:
        """Return the containers that exist."""
        return {name: _STATES.get(state, "stopped") for name, (_id, state) in self._found().items()}

    def bring(self, names: Sequence[str], new: Sequence[str], doomed: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Make or start containers, and tell of each when it can be logged in to."""
        found = self._found()

        def one(name: str) -> dict[str, Any]:
            container, state = found.get(name, ("", ""))
            if name in doomed:
                self._remove(container, name)
            if name in new:
                self._create(name)
                container = self._found()[name][0]
            elif state != "running":
                self._provider.start(self.cluster, [name], role=ELASTIC)
            try:
                key = retry(
                    lambda: self._provider.ready(container, name),
                    on=NotReady,
                    deadline_seconds=self.seconds,
                    base_seconds=0.1,
                    cap_seconds=0.3,
                )
            except NotReady as error:
                raise NotReady(f"no login after {self.seconds:g} s: {error.what}") from None
            return {"address": self._nodes[name].address, "host_key": key, "user": self._provider.login_user}

        yield from answer_each(names, one)

    def stop(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Stop containers."""
        running = {name for name, (_id, state) in self._found().items() if state == "running"}

        def one(name: str) -> None:
            if name in running:
                self._provider.stop(self.cluster, [name], role=ELASTIC)

        yield from answer_each(names, one)

    def discard(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Remove containers."""
        found = self._found()
        there = [name for name in names if name in found]
        yield from ({"node": name} for name in names if name not in found)
        yield from answer_each(there, lambda name: self._remove(found[name][0], name))

    def _create(self, name: str) -> None:
        machine = self._nodes[name]
        request = container_request(self._spec, machine, "")
        request["config"]["Labels"][ROLE] = ELASTIC
        keys = frozenset({self._spec.admin_public_key})
        desired = Desired(ELASTIC, name, "", {}, settings={"operator_keys": keys}, request=request)
        action = Action("create", ELASTIC, name, desired=desired)
        try:
            retry(lambda: self._provider.create(action), on=Conflict, deadline_seconds=CONFLICT_SECONDS)
        except NotFound as error:
            what = f"image {machine.image} or network of {self.cluster} is missing: {error.what}"
            raise NotFound(what) from None

    def _remove(self, container: str, name: str) -> None:
        retry(lambda: self._provider.remove(container, name), on=Conflict, deadline_seconds=CONFLICT_SECONDS)

    def _found(self) -> dict[str, tuple[str, str]]:
        """Return ids and states of the containers that exist, by node."""
        return self._provider.containers(self.cluster, ELASTIC)
