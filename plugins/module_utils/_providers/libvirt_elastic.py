# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Elastic nodes as virtual machines: what a power host does for a controller, limited to one cluster's nodes and kinds.

Nothing that is asked for becomes a part of a name, a path or XML: names are looked up among the nodes of the settings.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from .._errors import HpcError, InvalidInput, join_problems
from .._hostlist import expand
from .base import Desired, MachineSpec, NotReady, natural_key, spec_hash
from .libvirt import ELASTIC, LibvirtProvider, MachineRequest, Run
from .libvirt_spec import kind_problems, parse_libvirt
from .plan import Action

__all__ = ["LibvirtMachines", "parse_nodes"]

AT_A_TIME = 8
BOOT_SECONDS = 240
CODES = frozenset({"AddressInUse", "Auth", "Capacity", "Invalid", "NotFound", "Quota", "Throttled", "Unknown"})
"""Classes of errors that a controller tells apart."""


def parse_nodes(data: Mapping[str, Any]) -> dict[str, MachineRequest]:
    """Return the machines that this power host may make, by their names; all problems are told at once. Pure.

    ``data`` has ``cluster``, ``network``, ``authorized_key``, ``libvirt`` (as the variable cluster_libvirt), and
    ``kinds``, each with ``name``, ``nodes`` (a host list), ``first_address``, ``image`` and ``instance_type``.
    """
    problems: list[str] = []
    libvirt = parse_libvirt("libvirt", dict(data.get("libvirt") or {}), problems)
    try:
        network = ipaddress.IPv4Network(str(data.get("network") or ""))
    except ValueError as error:
        problems.append(f"network: {error}")
    if problems or libvirt is None:
        raise InvalidInput(join_problems(problems))
    cluster = str(data["cluster"])
    nodes: dict[str, MachineRequest] = {}
    owners: dict[str, str] = {}
    for kind in data.get("kinds") or ():
        what = f"kind {kind.get('name')!r}"
        problems += kind_problems(
            {"instance_type": kind.get("instance_type"), "image": kind.get("image") or "(none)"}, what, libvirt
        )
        try:
            names = expand(str(kind.get("nodes") or ""))
            first = ipaddress.IPv4Address(str(kind.get("first_address") or ""))
        except (InvalidInput, ValueError) as error:
            problems.append(f"{what}: {error}")
            continue
        for number, name in enumerate(names):
            address = first + number
            owner = owners.setdefault(str(address), name)
            if owner != name:
                problems.append(f"{what}: {name} would have the address {address} of {owner}.")
            if address not in network:
                problems.append(f"{what}: {name} would have the address {address}, which is not in {network}.")
            if name in nodes:
                problems.append(f"{what}: {name} is a node of kind {nodes[name].machine.set_name!r}, too.")
            if problems:
                continue
            machine = MachineSpec(name, str(address), str(kind["name"]), (), str(kind["image"]))
            attributes = {"address": str(address), "image": machine.image, "kind": str(kind["instance_type"])}
            nodes[name] = MachineRequest(
                cluster=cluster,
                machine=machine,
                kind=libvirt.kinds[str(kind["instance_type"])],
                libvirt=libvirt,
                network=libvirt.network or f"turnkey-{cluster}",
                prefix=network.prefixlen,
                gateway="" if libvirt.network_mode == "isolated" and not libvirt.network else str(network[1]),
                authorized_key=str(data.get("authorized_key") or ""),
                spec=spec_hash(attributes),
                attributes=attributes,
                role=ELASTIC,
            )
    if problems:
        raise InvalidInput(join_problems(problems))
    return nodes


class LibvirtMachines:
    """The domains of one cluster's elastic nodes; by the role in their mark, provisioning leaves them alone."""

    def __init__(self, provider: LibvirtProvider, data: Mapping[str, Any], nodes: Mapping[str, MachineRequest]) -> None:
        """Take the provider, the settings of this power host, and the nodes that they stand for."""
        self._provider = provider
        self._cluster = str(data["cluster"])
        self._nodes = nodes
        self._seconds = float(data.get("boot_seconds") or BOOT_SECONDS)
        self._kept = {str(kind["name"]) for kind in data.get("kinds") or () if kind.get("level") == "power"}

    @classmethod
    def connect(cls, data: Mapping[str, Any], nodes: Mapping[str, MachineRequest], run: Run) -> LibvirtMachines:
        """Connect to the hypervisors of the settings."""
        return cls(LibvirtProvider.connect(dict(data.get("libvirt") or {}), run), data, nodes)

    def status(self) -> dict[str, str]:
        """Return the machines that exist: running, starting or stopped, by node."""
        names = {"running": "running", "unfinished": "starting"}
        states = self._provider.states(self._cluster, ELASTIC)
        return {name: names.get(states[name], "stopped") for name in sorted(states, key=natural_key)}

    def resume(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Make or start machines, and tell of each when it can be logged in to."""
        known = self._known(names)
        states = self._provider.states(self._cluster, ELASTIC)
        doomed = [name for name in known if name in states and not self._stays(name, states[name])]
        new = [name for name in known if name not in states or name in doomed]
        if new:
            self._provider.place([self._nodes[name] for name in new], doomed)
        yield from self._refusals(names)
        yield from self._each(known, lambda name: self._resume(name, name in doomed, name in new))

    def suspend(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Remove machines, or stop those of a kind that keeps them; one that is gone is fine."""
        states = self._provider.states(self._cluster, ELASTIC)
        # What exists may go, also when its kind was taken out of the settings.
        known = [name for name in dict.fromkeys(names) if name in self._nodes or name in states]
        yield from self._refusals([name for name in names if name not in known])
        yield from self._each(known, lambda name: self._suspend(name, states.get(name, "")))

    def _known(self, names: Sequence[str]) -> list[str]:
        return [name for name in dict.fromkeys(names) if name in self._nodes]

    def _refusals(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        for name in dict.fromkeys(names):
            if name not in self._nodes:
                yield {"node": name, "code": "Invalid", "text": "this host has no such node"}

    def _stays(self, name: str, state: str) -> bool:
        """Tell whether an existing machine is used as it is; others are what a start that was cut off has left."""
        return state == "running" or (state in ("paused", "stopped") and self._keeps(name))

    def _keeps(self, name: str) -> bool:
        return name in self._nodes and self._nodes[name].machine.set_name in self._kept

    def _each(self, names: Sequence[str], act: Callable[[str], dict[str, Any]]) -> Iterator[dict[str, Any]]:
        with ThreadPoolExecutor(max_workers=AT_A_TIME) as pool:
            futures = {pool.submit(act, name): name for name in names}
            for future in as_completed(futures):
                name = futures[future]
                try:
                    yield {"node": name, **future.result()}
                except NotReady as error:
                    yield {"node": name, "code": "BootTimeout", "text": error.what}
                except HpcError as error:
                    kind = type(error).__name__
                    yield {"node": name, "code": kind if kind in CODES else "Failed", "text": str(error)}

    def _resume(self, name: str, doomed: bool, new: bool) -> dict[str, Any]:
        request = self._nodes[name]
        if doomed:
            self._provider.terminate(self._cluster, [name], ELASTIC)
        if new:
            wanted = Desired(ELASTIC, name, request.spec, request.attributes, request=request)
            self._provider.perform(Action("create", ELASTIC, name, desired=wanted))
        else:
            self._provider.start(self._cluster, [name], ELASTIC)
        keys = self._provider.host_keys(self._cluster, [name], self._seconds, ELASTIC)
        return {"address": request.machine.address, "host_key": keys[name], "user": self._provider.login_user}

    def _suspend(self, name: str, state: str) -> dict[str, Any]:
        if state and self._keeps(name):
            self._provider.stop(self._cluster, [name], ELASTIC)
        elif state:
            self._provider.terminate(self._cluster, [name], ELASTIC)
        return {}
