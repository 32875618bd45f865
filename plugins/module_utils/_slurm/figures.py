# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What machines that don't exist yet will have, from the provider's own figures. Runs on the control node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput, join_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.keys import normal
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.nodes import CPU_KEYS

__all__ = ["complete_kinds", "promised_mb"]

LookUp = Callable[[str, Sequence[str]], Mapping[str, Mapping[str, int]]]
"""Returns what instance types of a cloud have, by their names: ``cpus`` and ``memory_mb``, and perhaps ``sockets``,
``cores_per_socket`` and ``threads_per_core``."""

MEMORY_KEYS = frozenset({"memorymb", "realmemory"})
KERNEL_MB = 128
"""So much of a small machine's memory its kernel keeps for itself at most."""


def promised_mb(memory_mb: int, factor: float) -> int:
    """Return how much of a machine's memory jobs may be promised: slurmd refuses to run where there is less."""
    return max(min(int(memory_mb * factor), memory_mb - KERNEL_MB), 1)


def complete_kinds(
    kinds: Iterable[Mapping[str, Any]], libvirt: Mapping[str, Any], look_up: LookUp, factor: float
) -> list[dict[str, Any]]:
    """Return the kinds of nodes, those with a ``provider`` with the CPUs and the memory that they didn't declare.

    ``libvirt`` is as the variable cluster_libvirt. Of a container its limits count; instance types of a cloud are
    looked up in one call a cloud. What is declared is left as it is. All problems are told at once.
    """
    completed = [dict(kind) for kind in kinds]
    lacking = [kind for kind in completed if kind.get("provider") and not all(_declared(kind))]
    types: dict[str, dict[str, None]] = {}
    for kind in lacking:
        name = str(_machine(kind).get("instance_type") or "")
        if kind["provider"] in ("alicloud", "aws") and name:
            types.setdefault(str(kind["provider"]), {})[name] = None
    figures = {provider: look_up(provider, list(names)) for provider, names in types.items()}
    figures["libvirt"] = {
        str(name): {"cpus": int(kind.get("vcpus") or 0), "memory_mb": int(kind.get("memory_mb") or 0)}
        for name, kind in dict(libvirt.get("kinds") or {}).items()
    }
    problems = []
    for kind in lacking:
        problems += _complete(kind, figures.get(str(kind["provider"]), {}), factor)
    if problems:
        raise InvalidInput(join_problems(problems))
    return completed


def _machine(kind: Mapping[str, Any]) -> Mapping[str, Any]:
    machine = kind.get("machine")
    return machine if isinstance(machine, Mapping) else {}


def _declared(kind: Mapping[str, Any]) -> tuple[bool, bool]:
    """Return whether a kind says something of CPUs, and of memory."""
    keys = {normal(str(key)) for key, value in kind.items() if value is not None}
    return bool(keys & CPU_KEYS), bool(keys & MEMORY_KEYS)


def _complete(kind: dict[str, Any], figures: Mapping[str, Mapping[str, int]], factor: float) -> list[str]:
    """Add what a kind lacks; return what nobody knows."""
    machine, provider = _machine(kind), kind["provider"]
    cpus_declared, memory_declared = _declared(kind)
    if provider == "docker":
        limits = {"cpus": machine.get("limit_cpus"), "memory_mb": machine.get("limit_memory_mb")}
        found = {key: int(value) for key, value in limits.items() if value}
        source = "its containers have no limits (machine.limit_cpus, machine.limit_memory_mb)"
    else:
        name = str(machine.get("instance_type") or "")
        found = {key: value for key, value in figures.get(name, {}).items() if value}
        source = f"{provider} doesn't tell what the instance_type {name!r} has"
    problems = []
    if not cpus_declared:
        kind.update({key: value for key, value in found.items() if key != "memory_mb"})
        if not found.get("cpus"):
            problems.append("cpus")
    if not memory_declared:
        if found.get("memory_mb"):
            kind["memory_mb"] = promised_mb(found["memory_mb"], factor)
        else:
            problems.append("memory_mb")
    what = f"Kind `{kind.get('name')}` of slurm_node_kinds"
    return [f"{what} has no `{key}`, and {source}; declare it." for key in problems]
