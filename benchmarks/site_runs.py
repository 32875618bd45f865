#!/usr/bin/env python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the first and the second run of site.yml on fresh nodes.

    benchmarks/site_runs.py [SITE]

SITE is a directory with an inventory whose machines come from a provider (default: molecule/shared/baked). Its
machines are made new and removed at the end. Prints a Markdown table; run it from the checkout's virtual environment,
on a machine that does nothing else.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def play(site: Path, playbook: str, *arguments: str) -> tuple[float, float, dict[str, dict[str, int]]]:
    """Run a playbook; return wall seconds, CPU seconds of the control node, and the counts of tasks by host."""
    with tempfile.TemporaryDirectory() as place:
        counts = Path(place) / "counts.json"
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "benchmarks/callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "module_runs",
            "MODULE_RUNS_FILE": str(counts),
        }
        argv = ["ansible-playbook", "-i", str(site), str(ROOT / "playbooks" / playbook), *arguments]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(
            argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            sys.exit(done.stdout)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return wall, cpu, json.loads(counts.read_text())


def main() -> None:
    """Print the table."""
    site = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "molecule/shared/baked").resolve()
    play(site, "image.yml")
    play(site, "provision.yml")
    try:
        print("| run | wall s | control node CPU s | module runs, skipped or set_fact on a compute node |")
        print("| --- | --- | --- | --- |")
        for name in ("first", "second"):
            wall, cpu, counts = play(site, "site.yml")
            node = counts["node2"]
            print(f"| {name} `site.yml` | {wall:.0f} | {cpu:.0f} | {node['runs']}, {node['idle']} |", flush=True)
        wall, cpu, _counts = play(site, "verify.yml")
        print(f"| `verify.yml` | {wall:.0f} | {cpu:.0f} | |")
    finally:
        cluster = next(
            line.split()[1]
            for line in (site / "machines.docker.yml").read_text().splitlines()
            if "cluster_name" in line
        )
        play(site, "destroy.yml", "-e", f"destroy_confirm={cluster}")


if __name__ == "__main__":
    main()
