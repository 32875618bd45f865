# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Elastic nodes as machines of a cloud, in the private subnet and the security group of their cluster.

Tags say whose they are, and each node has its own address: a request whose answer was lost can't make a second machine.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from .._errors import HpcError, InvalidInput, join_problems
from .base import ClusterSpec, Conflict, MachineSpec, NotFound, NotReady, Throttled, Unknown
from .cloud import ALIVE, ELASTIC, WORKERS, CloudProvider, Row, Timing, chunks
from .cloud_spec import parse_cloud, set_problems
from .elastic import ElasticMachines, failure, placed_nodes

__all__ = ["CloudMachines", "parse_nodes"]

Act = Callable[[Sequence[str]], None]
"""Does something with instances by their ids."""

_STATES = {"pending": "starting", "running": "running", "stopping": "going", "stopped": "stopped", "going": "going"}


def parse_nodes(data: Mapping[str, Any]) -> ClusterSpec:
    """Return the cluster with the machines that this power host may make; all problems are told at once. Pure.

    ``data`` has ``cluster``, ``provider``, ``network``, ``authorized_key``, ``cloud`` (as the variable cluster_cloud),
    and ``kinds``, each with ``name``, ``nodes`` (a host list), ``first_address``, ``image`` and ``instance_type``, and
    perhaps ``root_gb`` and ``spot``.
    """
    problems: list[str] = []
    network = None
    try:
        network = ipaddress.IPv4Network(str(data.get("network") or ""))
    except ValueError as error:
        problems.append(f"network: {error}")
    provider = str(data.get("provider") or "")
    cloud = parse_cloud(provider, dict(data.get("cloud") or {}), network, problems)
    if problems or cloud is None:
        raise InvalidInput(join_problems(problems or [f"provider {provider!r} is no cloud."]))
    kinds = list(data.get("kinds") or ())
    for kind in kinds:
        what = f"kind {kind.get('name')!r}"
        problems += set_problems({key: kind.get(key) for key in ("instance_type", "root_gb")}, what, True)
        if not kind.get("image"):
            problems.append(f"{what} has no image that its machines start from.")
    private = ipaddress.IPv4Network(cloud.private_subnet)
    machines = tuple(
        MachineSpec(
            name=name,
            address=address,
            set_name=str(kind.get("name")),
            groups=(),
            image=str(kind.get("image") or ""),
            subnet="private",
            instance_type=str(kind.get("instance_type") or ""),
            root_gb=int(kind.get("root_gb") or 0),
            spot=bool(kind.get("spot")),
        )
        for kind, name, address in placed_nodes(kinds, problems, private)
    )
    if problems:
        raise InvalidInput(join_problems(problems))
    return ClusterSpec(
        cluster=str(data["cluster"]),
        network=str(network),
        gateway="",
        machines=machines,
        volumes=(),
        bastion_bind="",
        bastion_port=0,
        admin_public_key=str(data.get("authorized_key") or ""),
        cloud=cloud,
    )


def timing_for(boot_seconds: float) -> Timing:
    """Return how long is waited for what: Slurm must hear of a failure before it gives the node up by itself."""
    half = boot_seconds / 2
    return Timing(visible_seconds=min(90, half), conflict_seconds=half, throttle_seconds=half)


class CloudMachines(ElasticMachines):
    """Instances."""

    def __init__(self, provider: CloudProvider, data: Mapping[str, Any], spec: ClusterSpec) -> None:
        """Take the provider, the settings of this power host, and the nodes that they stand for."""
        super().__init__(data, {machine.name: machine.set_name for machine in spec.machines})
        provider.role = ELASTIC
        self._provider = provider
        self._spec = spec
        self._nodes = {machine.name: machine for machine in spec.machines}
        self._rows: dict[str, Row] = {}
        """What was found when the states were asked for last."""

    @classmethod
    def connect(cls, data: Mapping[str, Any], spec: ClusterSpec) -> CloudMachines:
        """Connect to the cloud, with the credentials that its SDK finds."""
        from .registry import connect_cloud

        provider = connect_cloud(str(data["provider"]), dict(data.get("cloud") or {}))
        machines = cls(provider, data, spec)
        provider.timing = timing_for(machines.seconds)
        return machines

    def states(self) -> dict[str, str]:
        """Return the instances that exist, by their tags."""
        rows = [row for row in self._provider.my_rows(self.cluster) if row.state in _STATES]
        # One that goes away may have the name of its successor.
        self._rows = {row.name: row for row in sorted(rows, key=lambda row: row.state in ALIVE)}
        return {name: _STATES[row.state] for name, row in self._rows.items()}

    def usable(self, name: str, state: str) -> bool:
        """Tell whether an instance is used as it is; one that is pending will run."""
        return state == "starting" or super().usable(name, state) or (state == "going" and self.keeps(name))

    def bring(self, names: Sequence[str], new: Sequence[str], doomed: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Make or start instances in few calls, and tell of each when it can be logged in to."""
        there = {name: self._rows[name] for name in names if name not in new}
        asleep = [row for row in there.values() if row.state in ("stopping", "stopped")]
        failed = self._in_calls([self._rows[name] for name in doomed], self._provider.terminate_all)
        failed.update(self._in_calls(asleep, self._start))
        ids = {name: row.id for name, row in there.items() if name not in failed}
        wanted = [name for name in new if name not in failed]
        if wanted:
            launched, missing = self._launch(wanted)
            ids.update(launched)
            failed.update(missing)
        yield from (failure(name, error) for name, error in failed.items())
        yield from self._logins(ids)

    def stop(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Stop instances, so that they cost as little as possible."""
        provider = self._provider
        yield from self._told(
            names, lambda ids: provider.patient(lambda: provider.stop_machines(ids)), ("pending", "running")
        )

    def discard(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Remove instances. None is waited for: who gets the address of one that still goes has to."""
        yield from self._told(names, self._provider.terminate_all, ALIVE)

    def _told(self, names: Sequence[str], act: Act, states: Collection[str]) -> Iterator[dict[str, Any]]:
        """Do something with the instances of nodes that are in one of these states, and answer for all of them."""
        found = [self._rows[name] for name in names if self._rows[name].state in states]
        failed = self._in_calls(found, act)
        yield from (failure(name, failed[name]) if name in failed else {"node": name} for name in names)

    def _in_calls(self, rows: Sequence[Row], act: Act) -> dict[str, HpcError]:
        """Do something with instances, as many at once as a call takes; return the errors by node."""
        failed: dict[str, HpcError] = {}
        for chunk in chunks(rows, self._provider.limits.terminate):
            try:
                act([row.id for row in chunk])
            except HpcError as error:
                failed.update({row.name: error for row in chunk})
        return failed

    def _start(self, ids: Sequence[str]) -> None:
        self._provider.patient(lambda: self._provider.start_machines(ids))

    def _launch(self, names: Sequence[str]) -> tuple[dict[str, str], dict[str, HpcError]]:
        """Make instances; return their ids, and why there is none."""
        provider = self._provider
        provider.discover(self.cluster)
        if "subnet/private" not in provider.ids:
            error = NotFound(f"cluster {self.cluster} has no network in this region.", "run provision.yml.")
            return {}, dict.fromkeys(names, error)
        missing = self._without_image(names)
        spec = replace(self._spec, machines=tuple(self._nodes[name] for name in names if name not in missing))
        launched, failed = provider.launch_all([item for item in provider.desired(spec) if item.kind == ELASTIC])
        return launched, {**failed, **missing}

    def _without_image(self, names: Sequence[str]) -> dict[str, HpcError]:
        """Return the nodes whose image doesn't exist: a launch would wait for it to appear."""
        provider, timing = self._provider, self._provider.timing
        errors: dict[str, HpcError] = {}
        for image in sorted({self._nodes[name].image for name in names}):
            try:
                look = partial(provider.find_image, image)
                timing.retry(look, (Throttled, Unknown), timing.throttle_seconds)
            except HpcError as error:
                errors[image] = error
        return {name: errors[self._nodes[name].image] for name in names if self._nodes[name].image in errors}

    def _logins(self, ids: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """Wait until machines accept logins; tell of each as soon as it does, and of those that don't."""
        provider, timing = self._provider, self._provider.timing
        left = dict(ids)
        began = timing.clock()
        why = dict.fromkeys(left, "nothing was seen of it yet.")
        with ThreadPoolExecutor(max_workers=WORKERS) as pool:
            while left:
                rows = {row.id: row for row in provider.my_rows(self.cluster)}
                here = {name: rows[identity] for name, identity in left.items() if identity in rows}
                for name, row in here.items():
                    if row.state in ("going", "gone"):
                        del left[name]
                        text = f"machine {name} ({row.id}) went away again: {row.reason or 'no reason given'}."
                        yield failure(name, Conflict(text))
                running = [name for name in left if name in here and here[name].state == "running"]
                looks = {name: pool.submit(provider.host_key_now, here[name]) for name in running}
                for name, look in looks.items():
                    try:
                        key = look.result()
                    except NotReady as error:
                        why[name] = error.what
                    except HpcError as error:
                        del left[name]
                        yield failure(name, error)
                    else:
                        del left[name]
                        address = self._nodes[name].address
                        yield {"node": name, "address": address, "host_key": key, "user": provider.login_user}
                over = timing.clock() - began >= self.seconds
                for name in list(left) if over else ():
                    del left[name]
                    yield failure(name, NotReady(f"no login after {self.seconds:g} s: {why[name]}"))
                if left:
                    timing.sleep(timing.poll_seconds)
