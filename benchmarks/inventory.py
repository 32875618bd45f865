#!/usr/bin/env python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure what reading an inventory file costs, beside Ansible's own plugin for INI.

    benchmarks/inventory.py [HOSTS] [RUNS]

Writes a file in INI syntax with HOSTS hosts (default: 10000), two variables on each, and runs
`ansible all --list-hosts` on it RUNS times (default: 5) with each plugin in turn. The CPU time of the same on a file
with one host is taken off. Prints a Markdown table; the exit status is 1 if our plugin needs more than 0.35 times the
CPU of the other, or more than 80 MB. Run it from the checkout's virtual environment, as in
`.venv/bin/python benchmarks/inventory.py`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT_RATIO = 0.35
LIMIT_MB = 80
PLUGINS = ("ansible.builtin.ini", "turnkey.hpc.static")


def content(hosts: int) -> str:
    """Return an inventory as people write it: two addresses on each host, the rest on groups."""
    lines = ["[all:vars]", "ansible_user=admin", "cluster_name=big", "cluster_network=10.0.0.0/12", "", "[controller]"]
    for number in range(hosts):
        if number == 1:
            lines += ["", "[compute]"]
        address = f"{number >> 16}.{number >> 8 & 255}.{number & 255}"
        lines.append(f"node{number:05} ansible_host=10.{address} cluster_address=10.{address}")
    return "\n".join(lines) + "\n"


def measure(plugin: str, path: Path) -> tuple[float, float]:
    """Return CPU seconds and the largest size in MB of listing the hosts."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "TURNKEY_"))}
    environment |= {
        "ANSIBLE_CONFIG": str(path.parent / "ansible.cfg"),
        "ANSIBLE_INVENTORY_ENABLED": plugin,
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
        "ANSIBLE_HOME": str(path.parent / "ansible"),
    }
    argv = [sys.executable, "-m", "ansible", "adhoc", "all", "-i", str(path), "--list-hosts"]
    process = subprocess.Popen(argv, env=environment, cwd=path.parent, stdout=subprocess.DEVNULL)
    _pid, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(argv)} with {plugin} has failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> int:
    """Measure and print."""
    arguments = [int(text) for text in sys.argv[1:3]]
    hosts, runs = (*arguments, *(10_000, 5)[len(arguments) :])
    cpu: dict[str, list[float]] = {plugin: [] for plugin in PLUGINS}
    start: dict[str, list[float]] = {plugin: [] for plugin in PLUGINS}
    size: dict[str, float] = dict.fromkeys(PLUGINS, 0.0)
    with tempfile.TemporaryDirectory() as place:
        big, small = Path(place) / "big.ini", Path(place) / "small.ini"
        big.write_text(content(hosts))
        small.write_text(content(1))
        (Path(place) / "ansible.cfg").write_text("[defaults]\n")
        for _run in range(runs):
            for plugin in PLUGINS:
                start[plugin].append(measure(plugin, small)[0])
                seconds, megabytes = measure(plugin, big)
                cpu[plugin].append(seconds)
                size[plugin] = max(size[plugin], megabytes)
    net = {plugin: statistics.median(cpu[plugin]) - statistics.median(start[plugin]) for plugin in PLUGINS}
    stock, ours = PLUGINS
    print("| plugin | hosts | CPU s | of these start-up | net | ratio | MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for plugin in PLUGINS:
        print(
            f"| `{plugin}` | {hosts} | {statistics.median(cpu[plugin]):.2f} | {statistics.median(start[plugin]):.2f} "
            f"| {net[plugin]:.2f} | {net[plugin] / net[stock]:.2f} | {size[plugin]:.0f} |"
        )
    return int(net[ours] > LIMIT_RATIO * net[stock] or size[ours] > LIMIT_MB)


if __name__ == "__main__":
    sys.exit(main())
