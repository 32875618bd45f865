# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The providers that make elastic nodes, by their names. None of them imports its SDK before it connects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._errors import InvalidInput
from .host import Machines

__all__ = ["machines_of"]


def _docker(data: Mapping[str, Any]) -> tuple[Machines, Mapping[str, object]]:
    from .._providers.docker_elastic import DockerMachines, parse_nodes

    nodes = parse_nodes(data)
    return DockerMachines.connect(data, nodes), nodes


def _libvirt(data: Mapping[str, Any]) -> tuple[Machines, Mapping[str, object]]:
    from .._providers.libvirt_elastic import LibvirtMachines, parse_nodes
    from .member import plain_run

    nodes = parse_nodes(data)
    return LibvirtMachines.connect(data, nodes, plain_run), nodes


_MAKERS: dict[str, Callable[[Mapping[str, Any]], tuple[Machines, Mapping[str, object]]]] = {
    "docker": _docker,
    "libvirt": _libvirt,
}


def machines_of(data: Mapping[str, Any]) -> tuple[Machines, Mapping[str, object]]:
    """Return the machines that a power host's settings describe, and the names of their nodes."""
    provider = str(data.get("provider") or "")
    if provider not in _MAKERS:
        raise InvalidInput(f"provider {provider!r} makes no elastic nodes.", f"give one of {', '.join(_MAKERS)}.")
    return _MAKERS[provider](data)
