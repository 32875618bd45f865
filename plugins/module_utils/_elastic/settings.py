# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What node-power is told: the kinds of elastic nodes, and its limits, which are checked against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from .._errors import InvalidInput, join_problems
from .._hostlist import expand

__all__ = ["LEVELS", "Kind", "Limits", "Settings"]

LEVELS = ("create", "power")
"""`create` makes and removes machines, `power` makes them once, and then starts and stops them."""


@dataclass(frozen=True)
class Limits:
    """Times in seconds, and how much there may be. 0 means no limit."""

    orphan_grace_seconds: float = 120
    """So long a machine that Slurm knows to be off may exist: Slurm's view and the provider's are not of one moment."""

    missing_rounds: int = 2
    """So often in a row a machine must be missing before its node is given up: lists of clouds lag behind."""

    cool_down_seconds: float = 300
    """So long a node that failed stays out of use."""

    capacity_cool_down_seconds: float = 600
    """So long a whole kind stays out of use when its provider had no room, so that Slurm takes another kind."""

    breaker_failures: int = 10
    """So many failures in a row close a partition to new machines."""

    heartbeat_seconds: float = 300
    """Without a reconciliation for so long, no machine is started: nobody would remove it."""

    launch_attempts: int = 3
    """So often a start that was cut off (by a crash, a reboot of the controller) is taken up again."""

    boot_seconds: float = 240
    """So long a machine may take until it accepts logins; less than Slurm's ResumeTimeout."""

    max_nodes: int = 0
    """More machines than that are not up at a time."""

    max_node_hours_a_day: float = 0
    """Machines that cost more than so many hours a day (UTC) are not started."""


@dataclass(frozen=True)
class Kind:
    """Elastic nodes of one kind, and the host that makes their machines."""

    name: str
    nodes: tuple[str, ...]
    provider: str
    host: str
    level: str = "create"
    batch: int = 100


@dataclass(frozen=True)
class Settings:
    """All of it."""

    kinds: tuple[Kind, ...]
    limits: Limits = Limits()
    controllers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "_kind_of", {name: kind for kind in self.kinds for name in kind.nodes})

    def kind_of(self, node: str) -> Kind | None:
        """Return the kind of an elastic node; nothing for every other node, which is never touched."""
        found: Kind | None = self._kind_of.get(node)  # type: ignore[attr-defined]
        return found

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Settings:
        """Read the settings; everything that is wrong is told at once."""
        problems: list[str] = []
        known = {item.name: item for item in fields(Limits)}
        limits: dict[str, Any] = {}
        for key, value in (data.get("limits") or {}).items():
            if key not in known:
                problems.append(f"`{key}` is no limit; they are {', '.join(sorted(known))}.")
            elif not isinstance(value, (int, float)) or isinstance(value, bool) or value < 0:
                problems.append(f"{key} is {value!r}; give a number that is not negative.")
            else:
                limits[key] = value
        chosen = Limits(**limits)
        resume = float(data.get("resume_timeout_seconds") or 0)
        if resume and chosen.boot_seconds >= resume:
            problems.append(
                f"boot_seconds is {chosen.boot_seconds:g} and Slurm's ResumeTimeout {resume:g}: "
                "give a machine less time than Slurm gives its node, or Slurm gives up first."
            )
        if chosen.heartbeat_seconds and chosen.heartbeat_seconds < 120:
            problems.append(
                f"heartbeat_seconds is {chosen.heartbeat_seconds:g}: give 120 or more, "
                "as a reconciliation is a minute away."
            )
        for key in ("missing_rounds", "breaker_failures", "launch_attempts"):
            if getattr(chosen, key) < 1:
                problems.append(f"{key} is {getattr(chosen, key)}; give 1 or more.")
        kinds = []
        owner: dict[str, str] = {}
        for item in data.get("kinds") or ():
            name = str(item.get("name") or "")
            level = str(item.get("level") or "create")
            if level not in LEVELS:
                problems.append(f"Kind {name} has the level {level!r}; give one of {', '.join(LEVELS)}.")
            if not item.get("host"):
                problems.append(f"Kind {name} has no host that makes its machines; give its `host`.")
            try:
                nodes = tuple(expand(str(item.get("nodes") or "")))
            except InvalidInput as error:
                problems.append(f"Kind {name}: {error}")
                nodes = ()
            for node in nodes:
                if owner.setdefault(node, name) != name:
                    problems.append(f"Node {node} is in the kinds {owner[node]} and {name}; leave it in one.")
            kinds.append(
                Kind(
                    name,
                    nodes,
                    str(item.get("provider") or ""),
                    str(item.get("host") or ""),
                    level,
                    int(item.get("batch") or 100),
                )
            )
        if problems:
            raise InvalidInput(join_problems(problems))
        return cls(tuple(kinds), chosen, tuple(str(host) for host in data.get("controllers") or ()))
