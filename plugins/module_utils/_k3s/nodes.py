# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes of a Kubernetes cluster as its API tells them; what may be stopped without losing the quorum."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput, join_problems

__all__ = ["Node", "Wish", "check_taints", "parse_nodes", "plan", "refuse_removal", "refuse_stop"]

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


@dataclass(frozen=True)
class Node:
    """A node. ``voter`` is None without etcd: agents, and a single server with SQLite. ``address`` may be unknown."""

    name: str
    ready: bool
    version: str = ""
    voter: bool | None = None
    cordoned: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: frozenset[str] = frozenset()
    address: str = ""

    @property
    def well(self) -> bool:
        """Whether it counts: ready, and a voter if it is a member of etcd."""
        return self.ready and self.voter is not False


@dataclass(frozen=True)
class Wish:
    """What a node shall have. A label that is None, and a taint that ends in ``-``, shall be gone."""

    labels: Mapping[str, str | None] = field(default_factory=dict)
    taints: Sequence[str] = ()
    cordoned: bool | None = None


def parse_nodes(text: str) -> dict[str, Node]:
    """Read the output of ``kubectl get nodes -o json``."""
    try:
        items = json.loads(text)["items"]
    except (ValueError, KeyError, TypeError) as exc:
        raise HpcError(f"kubectl returned no list of nodes: {text[:200]!r}.", "look at the journal of k3s.") from exc
    return {node.name: node for node in map(_node, items)}


def _node(item: Mapping[str, Any]) -> Node:
    status, spec, metadata = item.get("status") or {}, item.get("spec") or {}, item["metadata"]
    conditions = {entry["type"]: entry["status"] == "True" for entry in status.get("conditions") or []}
    labels = metadata.get("labels") or {}
    # A server that has just joined has the label before etcd has said anything about it.
    voter = conditions.get("EtcdIsVoter", False if "node-role.kubernetes.io/etcd" in labels else None)
    return Node(
        name=metadata["name"],
        ready=conditions.get("Ready", False),
        version=(status.get("nodeInfo") or {}).get("kubeletVersion", ""),
        voter=voter,
        cordoned=bool(spec.get("unschedulable")),
        labels=labels,
        taints=frozenset(_taint(entry) for entry in spec.get("taints") or []),
        address=next((one["address"] for one in status.get("addresses") or [] if one["type"] == "InternalIP"), ""),
    )


def _taint(entry: Mapping[str, str]) -> str:
    value = f"={entry['value']}" if entry.get("value") else ""
    return f"{entry['key']}{value}:{entry['effect']}"


def check_taints(taints: Iterable[str]) -> list[str]:
    """Return what is wrong with taints as a user writes them."""
    problems = []
    for taint in taints:
        key, _colon, effect = str(taint).rpartition(":")
        if not key or effect.rstrip("-") not in EFFECTS:
            problems.append(
                f"The taint {taint!r} is none. "
                f"Remedy: write KEY=VALUE:EFFECT or KEY:EFFECT with one of {', '.join(EFFECTS)}."
            )
    return problems


def plan(node: Node, wish: Wish) -> list[list[str]]:
    """Return the arguments of kubectl, a list a call, that give the node what it shall have. Pure."""
    problems = check_taints(wish.taints)
    if problems:
        raise InvalidInput(join_problems(problems))
    labels = [
        f"{key}={value}" for key, value in wish.labels.items() if value is not None and node.labels.get(key) != value
    ]
    labels += [f"{key}-" for key, value in wish.labels.items() if value is None and key in node.labels]
    taints = [taint for taint in wish.taints if not taint.endswith("-") and taint not in node.taints]
    gone = {taint.rstrip("-") for taint in wish.taints if taint.endswith("-")}
    taints += [f"{taint}-" for taint in sorted(gone & node.taints)]
    calls = [["label", "node", node.name, "--overwrite", *labels]] * bool(labels)
    calls += [["taint", "node", node.name, "--overwrite", *taints]] * bool(taints)
    if wish.cordoned is not None and wish.cordoned != node.cordoned:
        calls.append(["cordon" if wish.cordoned else "uncordon", node.name])
    return calls


def _members(nodes: Iterable[Node]) -> list[Node]:
    return [node for node in nodes if node.voter is not None]


def _well(nodes: Iterable[Node]) -> list[Node]:
    return [node for node in nodes if node.well]


def _states(nodes: Iterable[Node]) -> str:
    names: dict[bool, list[str]] = {True: [], False: []}
    for node in nodes:
        names[node.well].append(node.name)
    return f"Well: {', '.join(sorted(names[True])) or 'none'}. Not well: {', '.join(sorted(names[False]))}."


def refuse_stop(name: str, nodes: Iterable[Node]) -> str:
    """Return why the server ``name`` must not stop for a moment, or nothing if etcd goes on without it."""
    members = _members(nodes)
    others = [node for node in members if node.name != name]
    if len(members) < 2 or len(members) == len(others):
        return ""
    need = len(members) // 2 + 1
    # Of two, neither can be spared; but then it is no cluster that promises to outlive a server.
    if len(members) > 2 and len(_well(others)) < need:
        return (
            f"Without {name} etcd would lose its quorum: of {len(members)} servers {need} must be well. "
            f"{_states(others)} Remedy: bring these back first, or remove them."
        )
    return ""


def refuse_removal(name: str, nodes: Iterable[Node]) -> str:
    """Return why the server ``name`` must not leave for good, or nothing if the others can go on."""
    members = _members(nodes)
    others = [node for node in members if node.name != name]
    if len(members) == len(others):
        return ""
    if not others:
        return f"{name} is the last server: without it there is no cluster. Remedy: reset the cluster as a whole."
    need = len(others) // 2 + 1
    if len(_well(others)) < need:
        return (
            f"Without {name} etcd would have {len(others)} members, of which {need} must be well. "
            f"{_states(others)} Remedy: bring these back first."
        )
    return ""
