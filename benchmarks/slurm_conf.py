#!/usr/bin/env python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure what slurm.conf of a large cluster costs, and start the real slurmctld with it.

    benchmarks/slurm_conf.py [NODES] [IMAGE...]

Renders the files for NODES measured nodes of three kinds (default: 10000), finds out what one more node needs, and
starts slurmctld with them in a container of each IMAGE that has one (default: turnkey/node:debian12). Prints a Markdown
table; the exit status is 1 if rendering needs more than 0.5 CPU seconds, or a slurmctld doesn't start. Run it from
the checkout's virtual environment, as in `.venv/bin/python benchmarks/slurm_conf.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.changes import compare
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.config import Layers, Rendered, render
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.controller import trial_text
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.nodes import fold_records, unfold_records

LIMIT_SECONDS = 0.5
LAYERS = Layers(
    defaults={
        "slurm.conf": {"SelectType": "select/cons_tres", "ProctrackType": "proctrack/linuxproc", "GresTypes": ["gpu"]}
    },
    owned={
        "slurm.conf": {
            "AuthType": "auth/none",
            "CredType": "cred/none",
            "SlurmUser": "slurm",
            "StateSaveLocation": "/tmp/state",
            "SlurmctldPidFile": "/tmp/slurmctld.pid",
        }
    },
)
# Starts slurmctld as slurm_config tries it: no node is looked up, which takes minutes in a hosts file of 10,000 lines.
START = r"""
import json, os, re, subprocess, sys, time
text = json.load(sys.stdin)
os.makedirs("/tmp/state")
open("/tmp/slurm.conf", "w").write(text)
# Without an address other than 127.0.0.1 it finds no protocol to listen with.
subprocess.run("ip link set lo up; ip address add 192.0.2.1/32 dev lo", shell=True, check=True)
subprocess.run(["chown", "-R", "slurm:", "/tmp/state", "/tmp/slurm.conf"], check=True)
begin = time.monotonic()
daemon = subprocess.Popen(["slurmctld", "-D", "-v", "-f", "/tmp/slurm.conf"], stderr=subprocess.PIPE, text=True)
last = []
for line in daemon.stderr:
    last.append(line)
    if "Running as primary controller" in line:
        size = re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{daemon.pid}/status").read())
        print(f"{time.monotonic() - begin:.1f} {int(size[1]) // 1024}", flush=True)
        os._exit(0)
sys.exit("".join(last[-5:]))
"""


def hardware(nodes: int) -> dict[str, dict[str, int]]:
    """Return what the nodes report: memory differs by a little, as on real machines."""
    found = {}
    for number in range(1, nodes + 1):
        large = number % 10 == 0
        found[f"node{number:05d}"] = {
            "cpus": 128 if large else 64,
            "sockets": 2,
            "cores_per_socket": 64 if large else 32,
            "threads_per_core": 1,
            "memory_mb": (1031000 if large else 515630) + number % 7,
        }
    return found


def rendered(records: list[dict[str, object]], names: list[str]) -> Rendered:
    """Return the files, from records of hardware as they are stored."""
    kinds = [
        {"name": "gpu", "nodes": "gpu[001-100]", "cpus": 128, "memory_mb": 1000000, "gres": "gpu:8"},
        {"name": "cloud", "nodes": "cloud[1-1000]", "cpus": 32, "memory_mb": 60000, "state": "CLOUD"},
    ]
    partitions = [
        {"name": "main", "default": True},
        {"name": "burst", "kinds": ["cloud"]},
        {"name": "gpu", "nodes": "gpu[001-100]"},
    ]
    gpus = [f"gpu{number:03d}" for number in range(1, 101)]
    controllers = [{"name": "head"}]
    return render("big", controllers, [*names, *gpus], kinds, partitions, LAYERS, "22.05", unfold_records(records))


def start(image: str, files: dict[str, str]) -> str:
    """Return the seconds that slurmctld takes to start, and its size in MB."""
    argv = [
        "docker",
        "run",
        "--rm",
        "--interactive",
        "--network=none",
        "--cap-add=NET_ADMIN",
        "--hostname=head",
        "--entrypoint=python3",
        image,
    ]
    text = json.dumps(trial_text(files["slurm.conf"], "/tmp", "head"))
    done = subprocess.run([*argv, "-c", START], input=text, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        sys.exit(f"slurmctld of {image} doesn't start:\n{done.stderr}")
    return done.stdout.strip()


def main() -> int:
    """Measure and print."""
    nodes = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    measured = hardware(nodes)
    names = list(measured)
    records = fold_records(measured)
    begin = time.process_time()
    now = rendered(records, names)
    seconds = time.process_time() - begin
    others = [name for name in names if name != names[-2]]
    before = rendered(fold_records({name: measured[name] for name in others}), others)
    begin = time.process_time()
    change = compare(before.files, now.files, "22.05")
    compared = time.process_time() - begin
    print("| what | nodes | figure |")
    print("| --- | --- | --- |")
    print(f"| all files rendered, {len(now.files['slurm.conf']) // 1024 + 1} KB | {nodes} | {seconds:.2f} CPU s |")
    print(f"| what one more node needs: {change.step} | {nodes} | {compared:.2f} CPU s |")
    for image in sys.argv[2:] or ["turnkey/node:debian12"]:
        took, size = start(image, now.files).split()
        print(f"| slurmctld of {image} ready | {nodes} | {took} s, {size} MB |")
    return int(seconds > LIMIT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
