# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From `slurm_node_kinds` to the settings of the controller and of the power hosts. Pure; runs on the control node."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._errors import InvalidInput, join_problems
from .._hostlist import expand
from .settings import Settings

__all__ = ["controller_settings", "host_settings"]

MACHINE_KEYS = {
    "alicloud": frozenset({"instance_type", "root_gb", "spot"}),
    "aws": frozenset({"instance_type", "root_gb", "spot"}),
    "docker": frozenset({"limit_cpus", "limit_memory_mb", "volumes"}),
    "libvirt": frozenset({"instance_type"}),
}
KEYS_OF_ALL = frozenset({"batch", "first_address", "host", "image", "level"})


def _kinds(kinds: Iterable[Mapping[str, Any]], default_host: str, problems: list[str]) -> list[dict[str, Any]]:
    found = []
    for kind in kinds:
        machine = kind.get("machine") or {}
        what = f"Kind `{kind.get('name')}` of slurm_node_kinds"
        known = MACHINE_KEYS.get(str(kind.get("provider")))
        if known is None:
            names = ", ".join(MACHINE_KEYS)
            problems.append(f"{what} has the provider {kind.get('provider')!r}; give one of {names}.")
            known = frozenset(machine)
        allowed = sorted(known | KEYS_OF_ALL)
        unknown = sorted(set(machine) - set(allowed))
        if unknown:
            problems.append(f"{what}: machine has {', '.join(unknown)}; it may have {', '.join(allowed)}.")
        nodes = kind.get("nodes")
        listed = ",".join(map(str, nodes)) if isinstance(nodes, (list, tuple)) else str(nodes or "")
        found.append(
            {
                "host": default_host,
                **machine,
                "name": kind.get("name"),
                "provider": kind.get("provider"),
                "nodes": listed,
            }
        )
    return found


def controller_settings(
    kinds: Iterable[Mapping[str, Any]],
    limits: Mapping[str, Any],
    controllers: Sequence[str],
    resume_timeout: float,
    default_host: str = "",
) -> dict[str, Any]:
    """Return the settings of the controller, checked as node-power checks them."""
    problems: list[str] = []
    found = _kinds(kinds, default_host, problems)
    addresses: dict[str, str] = {}
    for kind in found:
        try:
            first = ipaddress.IPv4Address(str(kind.get("first_address") or ""))
            addresses.update({name: str(first + number) for number, name in enumerate(expand(kind["nodes"]))})
        except (InvalidInput, ValueError):
            problems.append(
                f"Kind `{kind['name']}` of slurm_node_kinds needs machine.first_address, the address of its first node."
            )
    kept = ("name", "nodes", "provider", "host", "level", "batch")
    settings = {
        "kinds": [{key: kind[key] for key in kept if key in kind} for kind in found],
        "limits": dict(limits),
        "controllers": list(controllers),
        "resume_timeout_seconds": resume_timeout,
        "addresses": addresses,
    }
    try:
        Settings.parse(settings)
    except InvalidInput as error:
        problems.append(str(error))
    if problems:
        raise InvalidInput(join_problems(problems))
    return settings


def host_settings(
    kinds: Iterable[Mapping[str, Any]],
    host: str,
    cluster: str,
    authorized_key: str,
    boot_seconds: float,
    default_host: str = "",
) -> dict[str, Any]:
    """Return the settings of a power host: what it makes, and nothing of other hosts."""
    problems: list[str] = []
    found = [kind for kind in _kinds(kinds, default_host, problems) if kind["host"] == host]
    if problems:
        raise InvalidInput(join_problems(problems))
    return {
        "cluster": cluster,
        "authorized_key": authorized_key,
        "boot_seconds": boot_seconds,
        "kinds": found,
    }
