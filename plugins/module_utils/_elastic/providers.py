# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The providers that make elastic nodes, by their names. None of them imports its SDK before it connects."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._errors import InvalidInput
from .host import Machines

__all__ = ["Several", "machines_of"]

Made = tuple[Machines, Mapping[str, object]]


def _docker(data: Mapping[str, Any]) -> Made:
    from .._providers.docker_elastic import DockerMachines, parse_nodes

    nodes = parse_nodes(data)
    return DockerMachines.connect(data, nodes), nodes


def _libvirt(data: Mapping[str, Any]) -> Made:
    from .._providers.libvirt_elastic import LibvirtMachines, parse_nodes
    from .member import plain_run

    nodes = parse_nodes(data)
    return LibvirtMachines.connect(data, nodes, plain_run), nodes


def _cloud(data: Mapping[str, Any]) -> Made:
    environment = str(data.get("environment") or "")
    if environment:
        # After the system's, whose packages other providers use.
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        sys.path.append(str(Path(environment, "lib", version, "site-packages")))
    from .._providers.cloud_elastic import CloudMachines, parse_nodes

    spec = parse_nodes(data)
    return CloudMachines.connect(data, spec), {machine.name: machine for machine in spec.machines}


_MAKERS: dict[str, Callable[[Mapping[str, Any]], Made]] = {
    "alicloud": _cloud,
    "aws": _cloud,
    "docker": _docker,
    "libvirt": _libvirt,
}


class Several:
    """The machines of several providers as one."""

    def __init__(self, parts: Sequence[Made]) -> None:
        """Take machines and the names of their nodes."""
        self._parts = parts

    def status(self) -> dict[str, str]:
        """Return the machines that exist. Where one provider can't be asked, nothing is known."""
        return {name: state for machines, _names in self._parts for name, state in machines.status().items()}

    def resume(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Make or start machines."""
        for machines, mine in self._divided(names):
            yield from machines.resume(mine)

    def suspend(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Remove or stop machines."""
        for machines, mine in self._divided(names):
            yield from machines.suspend(mine)

    def remove(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Remove machines whatever their level."""
        for machines, mine in self._divided(names):
            yield from machines.remove(mine)

    def clear(self) -> Iterator[dict[str, Any]]:
        """Remove all machines, and what was made for them only."""
        for machines, _names in self._parts:
            yield from machines.clear()

    def _divided(self, names: Sequence[str]) -> Iterator[tuple[Machines, list[str]]]:
        """Give each provider the nodes that are its own, or whose machines it has though their kind is gone."""
        left = [name for name in names if not any(name in known for _machines, known in self._parts)]
        for machines, known in self._parts:
            there = machines.status() if left else {}
            mine = [name for name in names if name in known or (name in left and name in there)]
            if mine:
                yield machines, mine


def machines_of(data: Mapping[str, Any]) -> Made:
    """Return the machines that a power host's settings describe, and the names of their nodes."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for kind in data.get("kinds") or ():
        kinds.setdefault(str(kind.get("provider") or ""), []).append(kind)
    unknown = [name for name in kinds if name not in _MAKERS]
    if unknown:
        named = ", ".join(map(repr, unknown))
        raise InvalidInput(f"provider {named} makes no elastic nodes.", f"give one of {', '.join(_MAKERS)}.")
    parts = [_MAKERS[name]({**data, "provider": name, "kinds": members}) for name, members in kinds.items()]
    if len(parts) == 1:
        return parts[0]
    return Several(parts), {name: value for _machines, names in parts for name, value in names.items()}
