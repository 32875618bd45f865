# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases of Slurm, and between which of them state and accounting data can be taken over.

The rule is that of https://slurm.schedmd.com/upgrades.html, "Compatibility Window": a release reads what the two before
it wrote; since 24.11, what the three before it wrote. What is older is refused by the daemons, or lost.
"""

from __future__ import annotations

import re

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError

__all__ = ["Release", "check_step", "release_of", "text", "way"]

Release = tuple[int, int]

# Every nine months at first, since 24.05 every six.
RELEASES: list[Release] = [
    (19, 5),
    (20, 2),
    (20, 11),
    (21, 8),
    (22, 5),
    (23, 2),
    (23, 11),
    *((year, month) for year in range(24, 50) for month in (5, 11)),
]


def release_of(version: str) -> Release | None:
    """Return the release of a version as Slurm or Debian writes it: ``slurm-wlm 22.05.8``, ``22.05.8-4+deb12u3``."""
    match = re.search(r"(?:^|[^0-9.])([0-9]{2})\.([0-9]{2})(?=\.)", version)
    return (int(match[1]), int(match[2])) if match else None


def text(release: Release) -> str:
    """Write a release as Slurm does."""
    return f"{release[0]}.{release[1]:02d}"


def _reads(new: Release) -> list[Release]:
    """Return the earlier releases that ``new`` can take over from."""
    position = RELEASES.index(new)
    count = 3 if new >= (24, 11) else 2
    return RELEASES[max(0, position - count) : position]


def way(old: Release, new: Release) -> list[Release]:
    """Return the releases to go through from ``old`` to ``new``, the last one included; as few as possible."""
    if old not in RELEASES or new not in RELEASES or old >= new:
        return []
    here, steps = old, []
    while here != new:
        here = max(release for release in RELEASES if release <= new and here in _reads(release))
        steps.append(here)
    return steps


def check_step(old: Release, new: Release, what: str) -> None:
    """Refuse to go from ``old`` to ``new`` in one step if Slurm can't; ``what`` is who would."""
    if new < old:
        raise HpcError(
            f"{what} is of Slurm {text(old)}, and here is {text(new)}: Slurm never goes back.",
            f"install Slurm {text(old)} or later first.",
        )
    steps = way(old, new)
    if len(steps) > 1:
        reads = ", ".join(text(release) for release in _reads(new))
        raise HpcError(
            f"{what} is of Slurm {text(old)}, and {text(new)} takes over from {reads} only.",
            f"go {' -> '.join(text(release) for release in [old, *steps])}, one after the other. A release of Debian "
            "has one of Slurm; packages of those between are built from SchedMD's sources, which have a debian/.",
        )
