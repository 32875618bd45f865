# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The providers that make elastic nodes, by their names. None of them imports its SDK before it connects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._errors import InvalidInput
from .host import Machines

__all__ = ["machines_of"]


def machines_of(data: Mapping[str, Any]) -> tuple[Machines, Mapping[str, object]]:
    """Return the machines that a power host's settings describe, and the names of their nodes."""
    provider = str(data.get("provider") or "")
    if provider != "docker":
        raise InvalidInput(f"provider {provider!r} makes no elastic nodes.", "give docker.")
    from .._providers.docker_elastic import DockerMachines, parse_nodes

    nodes = parse_nodes(data)
    return DockerMachines.connect(data, nodes), nodes
