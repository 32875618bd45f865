# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What slurmctld needs to go from one configuration to another: the least that does. Pure.

In order: nothing, `scontrol update` of a few objects, `scontrol reconfigure`, a restart of slurmctld. Jobs live on
through all of them. Before 24.11 slurmctld can't change the set of node names while it runs (22.05 dies of it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ansible_collections.turnkey.hpc.plugins.module_utils._hostlist import expand, fold
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.keys import (
    HANDS_OVER,
    at_least,
    controller_step,
    normal,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.text import parse_line

__all__ = ["STEPS", "Change", "Parsed", "compare", "parse"]

STEPS = ("none", "update", "reconfigure", "restart")
"""From the least to the most."""

# From here on `scontrol reconfigure` may bring other names of nodes.
NEW_NAMES = "24.11"
_CPU_KEYS = frozenset(
    {"cpus", "procs", "boards", "sockets", "socketsperboard", "corespersocket", "threadspercore", "gres"}
)


@dataclass(frozen=True)
class Parsed:
    """A slurm.conf that was read back: single keys, and the attributes of each node and partition."""

    keys: Mapping[str, tuple[str, ...]]
    nodes: Mapping[str, Mapping[str, str]]
    partitions: Mapping[str, Mapping[str, str]]
    # The lines of nodes as they stand: equal ones need no closer look.
    node_lines: tuple[str, ...] = ()


@dataclass
class Change:
    """The step, the commands of scontrol that follow it, the nodes that leave, and why."""

    step: str = "none"
    commands: list[list[str]] = field(default_factory=list)
    leaving: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def need(self, step: str, reason: str) -> None:
        """Take at least ``step``."""
        if STEPS.index(step) > STEPS.index(self.step):
            self.step = step
        if step != "none" and reason not in self.reasons:
            self.reasons.append(reason)


def parse(text: str, with_nodes: bool = True) -> Parsed:
    """Read a slurm.conf that this collection wrote."""
    keys: dict[str, list[str]] = {}
    nodes: dict[str, Mapping[str, str]] = {}
    partitions: dict[str, Mapping[str, str]] = {}
    node_lines = []
    for row in text.splitlines():
        if row.startswith("NodeName=") and not with_nodes:
            node_lines.append(row)
            continue
        pairs = parse_line(row)
        if not pairs:
            continue
        key, value = normal(pairs[0][0]), pairs[0][1]
        if key == "nodename":
            node_lines.append(row)
            attributes = dict(pairs[1:])
            for name in expand(value):
                nodes[name] = attributes
        elif key == "partitionname":
            partitions[value] = dict(pairs[1:])
        else:
            keys.setdefault(key, []).append(row)
    return Parsed({key: tuple(rows) for key, rows in keys.items()}, nodes, partitions, tuple(node_lines))


def compare(old: Mapping[str, str], new: Mapping[str, str], release: str) -> Change:
    """Return what slurmctld needs to go from the files ``old`` to ``new``."""
    change = Change()
    for name in sorted({*old, *new} - {"slurm.conf"}):
        if old.get(name) != new.get(name):
            change.need(controller_step(name, "", release), name)
    if old.get("slurm.conf") == new.get("slurm.conf"):
        return change
    if not old.get("slurm.conf") or not new.get("slurm.conf"):
        change.need("restart", "slurm.conf")
        return change
    before, after = parse(old["slurm.conf"], with_nodes=False), parse(new["slurm.conf"], with_nodes=False)
    if before.node_lines != after.node_lines:
        before, after = parse(old["slurm.conf"]), parse(new["slurm.conf"])
    for key in sorted({*before.keys, *after.keys}):
        if before.keys.get(key) != after.keys.get(key):
            rows = after.keys.get(key) or before.keys.get(key) or ("",)
            change.need(controller_step("slurm.conf", key, release), rows[0].partition("=")[0])
    _compare_partitions(before, after, change)
    _compare_nodes(before, after, release, change)
    return change


def _compare_partitions(before: Parsed, after: Parsed, change: Change) -> None:
    for name in [*after.partitions, *(gone for gone in before.partitions if gone not in after.partitions)]:
        old, new = before.partitions.get(name), after.partitions.get(name)
        if old == new:
            continue
        if old is None or new is None or {**old, "Nodes": ""} != {**new, "Nodes": ""} or not new.get("Nodes"):
            change.need("reconfigure", f"partition {name}")
        else:
            change.need("update", f"the nodes of partition {name}")
            change.commands.append(["scontrol", "update", f"PartitionName={name}", f"Nodes={new['Nodes']}"])
    if change.step != "update":
        # What follows reads the partitions from the file.
        change.commands.clear()


def _compare_nodes(before: Parsed, after: Parsed, release: str, change: Change) -> None:
    appeared = [name for name in after.nodes if name not in before.nodes]
    vanished = [name for name in before.nodes if name not in after.nodes]
    if appeared or vanished:
        change.need(
            "reconfigure" if at_least(release, NEW_NAMES) else "restart", f"the names {fold([*appeared, *vanished])}"
        )
    change.leaving += [name for name in vanished if before.nodes[name].get("State") != "FUTURE"]
    reserved, joined, seen = [], [], {}
    for name, new in after.nodes.items():
        old = before.nodes.get(name)
        if old is None or old is new or old == new:
            continue
        # Nodes of a line share their attributes: one look for all.
        if (id(old), id(new)) not in seen:
            seen[id(old), id(new)] = _compare_attributes(old, new, release)
        step, what = seen[id(old), id(new)]
        change.need(step, f"{what} of {name}" if what not in ("joining", "leaving") else what)
        if what == "leaving" or (new.get("State") == "FUTURE" and old.get("State") != "FUTURE"):
            reserved.append(name)
        elif old.get("State") == "FUTURE" and new.get("State") != "FUTURE":
            joined.append(name)
    if joined:
        change.need("update", f"{fold(joined)} joins")
    if reserved:
        change.need("update", f"{fold(reserved)} leaves")
        change.leaving += reserved
        change.commands.append(["scontrol", "update", f"NodeName={fold(reserved)}", "State=FUTURE"])
    change.reasons = [reason for reason in change.reasons if reason not in ("joining", "leaving")]
    if change.step in ("none", "restart"):
        change.commands.clear()
    elif change.step == "reconfigure":
        change.commands = [command for command in change.commands if command[-1] == "State=FUTURE"]


def _compare_attributes(old: Mapping[str, str], new: Mapping[str, str], release: str) -> tuple[str, str]:
    """Return the step, and what differs; `joining` and `leaving` are the steps from and to a name that is free."""
    differ = sorted(key for key in {*old, *new} if old.get(key) != new.get(key) and key != "State")
    if any(normal(key) in _CPU_KEYS for key in differ) and not at_least(release, HANDS_OVER):
        return "restart", ", ".join(differ)
    if differ:
        return "reconfigure", ", ".join(differ)
    states = old.get("State", ""), new.get("State", "")
    if states == ("FUTURE", ""):
        return "update", "joining"
    if states == ("", "FUTURE"):
        return "update", "leaving"
    return "reconfigure", "State"
