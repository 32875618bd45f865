# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``node-power status`` shows. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from .decide import Intent, intent
from .engine import SlurmNode
from .memory import Memory
from .settings import Settings

__all__ = ["overview", "table"]

_WORDS = {Intent.OFF: "off", Intent.COMING: "powering up", Intent.UP: "up", Intent.GOING: "powering down"}


def overview(settings: Settings, memory: Memory, nodes: Mapping[str, SlurmNode], now: float) -> dict[str, Any]:
    """Return everything that is worth knowing; nodes that are just off are only counted."""
    lines, counts = [], Counter[str]()
    for kind in settings.kinds:
        for name in kind.nodes:
            node = nodes.get(name)
            if node is None:
                counts["unknown to Slurm"] += 1
                continue
            wanted = intent(node.flags)
            state = "failed" if "DOWN" in node.flags else _WORDS[wanted]
            counts[state] += 1
            if state == "off":
                continue
            record = memory.nodes.get(name)
            seconds = now - record.since if record and record.intent == wanted.value else None
            text = f"{record.code}: {record.text}" if record and record.code else node.reason
            lines.append(
                {
                    "node": name,
                    "kind": kind.name,
                    "state": state,
                    "seconds": None if seconds is None else round(seconds),
                    "slurm": "+".join(sorted(node.flags)),
                    "text": text if state == "failed" else "",
                }
            )
    age = now - memory.heartbeat
    return {
        "nodes": lines,
        "counts": dict(sorted(counts.items())),
        "closed_partitions": sorted(memory.closed),
        "kinds_without_room": sorted(
            name for name, at in memory.no_room.items() if now - at < settings.limits.capacity_cool_down_seconds
        ),
        "node_hours_today": round(memory.hours, 2),
        "reconciled_seconds_ago": round(age) if memory.heartbeat else None,
        "healthy": bool(memory.heartbeat) and age <= (settings.limits.heartbeat_seconds or age),
        "errors": list(memory.errors),
    }


def table(found: Mapping[str, Any]) -> str:
    """Return the overview for people."""
    out = []
    for line in found["nodes"]:
        since = "" if line["seconds"] is None else f", {line['seconds']} s so far"
        text = f"  {line['text']}" if line["text"] else ""
        out.append(f"{line['node']:<16} {line['kind']:<12} {line['state']}{since}{text}")
    if out:
        out.append("")
    out.append(", ".join(f"{number} {state}" for state, number in found["counts"].items()) or "no elastic nodes")
    out.append(f"{found['node_hours_today']:.2f} node hours today")
    for partition in found["closed_partitions"]:
        out.append(f"partition {partition} is closed; when its nodes can start again: node-power reset {partition}")
    for kind in found["kinds_without_room"]:
        out.append(f"kind {kind} has no room at its provider")
    ago = found["reconciled_seconds_ago"]
    if not found["healthy"]:
        out.append(f"NOT RECONCILED {'yet' if ago is None else f'for {ago} s'}: no machine is started")
    if found["errors"]:
        out += ["last errors:", *(f"  {text}" for text in found["errors"][-5:])]
    return "\n".join(out) + "\n"
