# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The CPUs and memory of this host as slurmd will count them, on a host that has no Slurm yet."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.turnkey.hpc.plugins.module_utils._hostlist import expand

__all__ = ["measure"]


def _number(path: Path, otherwise: int) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return otherwise


def measure(system: Path, memory_bytes: int) -> dict[str, int]:
    """Return CPUs, their arrangement and memory; ``system`` is /sys/devices/system/cpu.

    Where cores differ in their threads, the arrangement is left out: Slurm then counts each CPU by itself.
    """
    online = expand(f"[{(system / 'online').read_text(encoding='ascii').strip()}]")
    places = []
    for number in online:
        topology = system / f"cpu{number}" / "topology"
        places.append((_number(topology / "physical_package_id", 0), _number(topology / "core_id", int(number))))
    found = {"cpus": len(places), "memory_mb": memory_bytes // 1024 // 1024}
    sockets, cores = len({socket for socket, _core in places}), len(set(places))
    if cores % sockets == 0 and len(places) % cores == 0:
        found.update(sockets=sockets, cores_per_socket=cores // sockets, threads_per_core=len(places) // cores)
    return found
