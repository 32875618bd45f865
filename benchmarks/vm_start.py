#!/usr/bin/env python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure what a virtual machine costs until SSH shows its key: booted from its disk, and as a copy in memory.

    benchmarks/vm_start.py IMAGE

IMAGE is a directory that image.yml wrote. Makes one machine after the other on qemu:///system, emulated, in a cluster
`vmstart` that is removed again. Counts the processor time of QEMU, so other work on the machine matters little. Prints
a Markdown table; the exit status is 1 if the copy needs more than 10 CPU seconds, or didn't begin in memory.
"""

from __future__ import annotations

import subprocess
import sys
import time

import libvirt
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import expand_spec
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.libvirt import LibvirtProvider
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.plan import plan, plan_absent

CLUSTER = "vmstart"
LIMIT_SECONDS = 10
# Nobody logs in.
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB0UMHxFnQTFghS+U1IJIeeLMXh7cUzIWQyHxeqsS8tc"


def connected() -> LibvirtProvider:
    """Return the provider."""

    def run(argv: list[str]) -> tuple[int, str, str]:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    return LibvirtProvider.connect({}, run)


def started(image: str, kind: str, nodes: int) -> tuple[float, float, list[str]]:
    """Have a head and so many nodes; return CPU and wall seconds of the last one, and the warnings."""
    small = {"vcpus": 1, "memory_mb": 1024}
    common = {"image": image, "instance_type": kind}
    spec = expand_spec(
        {
            "provider": "libvirt",
            "cluster_name": CLUSTER,
            "network": "10.97.27.0/24",
            "admin_public_key": KEY,
            "machine_sets": [
                {"name": "head", "bastion": True, **common},
                {"name": "node", "count": nodes, **common},
            ],
            "libvirt": {"accelerator": "emulation", "kinds": {"cold": small, "instant": {**small, "instant": True}}},
        }
    )
    provider, name, began = connected(), spec.machines[-1].name, time.monotonic()
    provider.apply(plan(provider.desired(spec), provider.discover(CLUSTER)))
    provider.host_keys(CLUSTER, [name], 900)
    wall = time.monotonic() - began
    domain = libvirt.open("qemu:///system").lookupByName(f"{CLUSTER}-{name}")
    spent = domain.info()[4] / 1e9
    domain.suspend()
    return spent, wall, provider.warnings


def removed() -> None:
    """Remove everything."""
    provider = connected()
    provider.apply(plan_absent(provider.discover(CLUSTER)))


def main() -> int:
    """Start the machines."""
    image = sys.argv[1]
    rows, warnings = [], []
    try:
        for what, kind, nodes in (
            ("booted from its disk", "cold", 0),
            ("the first of its kind, with the template's boot in the wall seconds", "instant", 0),
            ("copy of a template", "instant", 1),
        ):
            if (kind, nodes) == ("instant", 0):
                removed()
            spent, wall, warned = started(image, kind, nodes)
            rows.append((what, spent, wall))
            warnings += warned
    finally:
        removed()
    print("| machine | CPU s | wall s |\n| --- | --- | --- |")
    for what, spent, wall in rows:
        print(f"| {what} | {spent:.1f} | {wall:.0f} |")
    print("\n".join(warnings))
    return 1 if warnings or rows[-1][1] > LIMIT_SECONDS else 0


if __name__ == "__main__":
    sys.exit(main())
