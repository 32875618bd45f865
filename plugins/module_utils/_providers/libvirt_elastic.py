# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Elastic nodes as virtual machines, in the network and the storage pool of their cluster."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .._errors import InvalidInput, join_problems
from .base import Desired, MachineSpec, spec_hash
from .elastic import ElasticMachines, answer_each, placed_nodes
from .libvirt import ELASTIC, LibvirtProvider, MachineRequest, Run
from .libvirt_spec import kind_problems, parse_libvirt
from .plan import Action

__all__ = ["LibvirtMachines", "parse_nodes"]


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
    kinds = list(data.get("kinds") or ())
    for kind in kinds:
        asked = {"instance_type": kind.get("instance_type"), "image": kind.get("image") or "(none)"}
        problems += kind_problems(asked, f"kind {kind.get('name')!r}", libvirt)
    for kind, name, address in placed_nodes(kinds, problems, network):
        if problems:
            continue
        machine = MachineSpec(name, address, str(kind["name"]), (), str(kind["image"]))
        attributes = {"address": address, "image": machine.image, "kind": str(kind["instance_type"])}
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


class LibvirtMachines(ElasticMachines):
    """Domains."""

    def __init__(self, provider: LibvirtProvider, data: Mapping[str, Any], nodes: Mapping[str, MachineRequest]) -> None:
        """Take the provider, the settings of this power host, and the nodes that they stand for."""
        super().__init__(data, {name: request.machine.set_name for name, request in nodes.items()})
        self._provider = provider
        self._nodes = nodes

    @classmethod
    def connect(cls, data: Mapping[str, Any], nodes: Mapping[str, MachineRequest], run: Run) -> LibvirtMachines:
        """Connect to the hypervisors of the settings."""
        return cls(LibvirtProvider.connect(dict(data.get("libvirt") or {}), run), data, nodes)

    def states(self) -> dict[str, str]:
        """Return the domains that exist."""
        words = {"running": "running", "unfinished": "starting"}
        return {
            name: words.get(state, "stopped") for name, state in self._provider.states(self.cluster, ELASTIC).items()
        }

    def bring(self, names: Sequence[str], new: Sequence[str], doomed: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Make or start domains, and tell of each when it can be logged in to."""
        if new:
            self._provider.ensure_pools(self.cluster, self._nodes[new[0]].libvirt)
            self._provider.place([self._nodes[name] for name in new], doomed)

        def one(name: str) -> dict[str, Any]:
            request = self._nodes[name]
            if name in doomed:
                self._provider.terminate(self.cluster, [name], ELASTIC)
            if name in new:
                wanted = Desired(ELASTIC, name, request.spec, request.attributes, request=request)
                self._provider.perform(Action("create", ELASTIC, name, desired=wanted))
            else:
                self._provider.start(self.cluster, [name], ELASTIC)
            keys = self._provider.host_keys(self.cluster, [name], self.seconds, ELASTIC)
            return {"address": request.machine.address, "host_key": keys[name], "user": self._provider.login_user}

        yield from answer_each(names, one)

    def stop(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Shut domains down."""
        yield from answer_each(names, lambda name: self._provider.stop(self.cluster, [name], ELASTIC))

    def discard(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Remove domains."""
        yield from answer_each(names, lambda name: self._provider.terminate(self.cluster, [name], ELASTIC))

    def clear(self) -> Iterator[dict[str, Any]]:
        """Remove all domains, and the storage pools if no other machine is left."""
        yield from super().clear()
        self._provider.drop_pools(self.cluster)
