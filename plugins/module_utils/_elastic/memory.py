# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What node-power remembers between runs. Losing it costs a grace time and nothing else."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Memory", "Record", "opened"]

MAX_ERRORS = 20


@dataclass
class Record:
    """One node: Slurm's intent and since when, what went wrong last, and how often."""

    intent: str = ""
    since: float = 0
    missing: int = 0
    attempts: int = 0
    code: str = ""
    text: str = ""
    failed_at: float = 0


@dataclass
class Memory:
    """All nodes that are not simply off, the partitions' failures, the kinds without room, hours used today."""

    heartbeat: float = 0
    nodes: dict[str, Record] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    closed: dict[str, float] = field(default_factory=dict)
    no_room: dict[str, float] = field(default_factory=dict)
    strangers: dict[str, float] = field(default_factory=dict)
    up: int = 0
    day: str = ""
    hours: float = 0
    errors: list[str] = field(default_factory=list)

    def record(self, name: str) -> Record:
        """Return the record of a node, a new one if there is none."""
        return self.nodes.setdefault(name, Record())

    def note(self, text: str) -> None:
        """Keep an error for ``node-power status``."""
        self.errors = [*self.errors, text][-MAX_ERRORS:]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Memory:
        """Return what ``asdict`` made a dict of."""
        values = {key: value for key, value in data.items() if key in cls.__dataclass_fields__}
        values["nodes"] = {name: Record(**record) for name, record in (data.get("nodes") or {}).items()}
        return cls(**values)


@contextmanager
def opened(path: Path) -> Iterator[Memory]:
    """Give the memory to one process at a time, and store it afterwards; a damaged one is begun anew."""
    with path.with_suffix(".lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            memory = Memory.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            memory = Memory()
        except (ValueError, TypeError, AttributeError):
            memory = Memory()
            memory.note(f"{path} was damaged and is begun anew.")
        try:
            yield memory
        finally:
            _store(path, memory)


def _store(path: Path, memory: Memory) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(asdict(memory), separators=(",", ":")), encoding="utf-8")
    new.replace(path)
