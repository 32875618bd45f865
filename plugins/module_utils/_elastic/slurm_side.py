# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""slurmctld, as scontrol reaches it: one call for many nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from .._errors import HpcError
from .._hostlist import fold
from .._state import Run
from .engine import SlurmNode

__all__ = ["Scontrol", "parse"]

_NAME = re.compile(r"NodeName=(\S+)")
_STATE = re.compile(r"\sState=(\S+)")
_PARTITIONS = re.compile(r"\sPartitions=(\S+)")
_REASON = re.compile(r"\sReason=(.*?)(?: \[[^][]*@[^][]*\])?\s*(?:\sComment=.*)?$")
_WORD = re.compile(r"[A-Z_]+")


def parse(text: str) -> dict[str, SlurmNode]:
    """Read the output of ``scontrol --oneliner show node``. Pure."""
    nodes: dict[str, SlurmNode] = {}
    seen: dict[str, frozenset[str]] = {}
    parts: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        name, state = _NAME.match(line), _STATE.search(line)
        if not name or not state:
            continue
        # Ten thousand nodes have a handful of states.
        flags = seen.get(state[1])
        if flags is None:
            flags = seen[state[1]] = frozenset(_WORD.findall(state[1].upper()))
        partitions = _PARTITIONS.search(line)
        listed = partitions[1] if partitions else ""
        if listed not in parts:
            parts[listed] = tuple(part for part in listed.split(",") if part)
        reason = _REASON.search(line) if " Reason=" in line else None
        nodes[name[1]] = SlurmNode(name[1], flags, reason[1].strip() if reason else "", parts[listed])
    return nodes


class Scontrol:
    """The real ``SlurmSide``."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def nodes(self) -> Mapping[str, SlurmNode]:
        """Return all nodes."""
        nodes = parse(self._call(["scontrol", "--oneliner", "--all", "show", "node"]))
        if not nodes:
            raise HpcError("scontrol shows no node.", "see that slurmctld runs (scontrol ping).")
        return nodes

    def down(self, names: Sequence[str], reason: str) -> None:
        """Take nodes down with a reason."""
        self._call(["scontrol", "update", f"NodeName={fold(names)}", "State=DOWN", f"Reason={reason}"])

    def power_down(self, names: Sequence[str]) -> None:
        """Give nodes back to power saving, also those that are still being resumed."""
        self._call(["scontrol", "update", f"NodeName={fold(names)}", "State=POWER_DOWN_FORCE"])

    def partition(self, name: str, state: str) -> None:
        """Set the state of a partition."""
        self._call(["scontrol", "update", f"PartitionName={name}", f"State={state}"])

    def addresses(self, addresses: Mapping[str, str]) -> None:
        """Tell where nodes are, in one call."""
        if addresses:
            names, values = ",".join(addresses), ",".join(addresses.values())
            self._call(["scontrol", "update", f"NodeName={names}", f"NodeAddr={values}"])

    def _call(self, argv: list[str]) -> str:
        code, out, err = self._run(argv, None)
        if code or err.startswith("slurm_load"):
            said = " / ".join(line.strip() for line in (err + "\n" + out).splitlines() if line.strip())
            raise HpcError(
                f"{' '.join(argv[:3])[:200]} failed: {said[:300]}.", "see that slurmctld runs (scontrol ping)."
            )
        return out
