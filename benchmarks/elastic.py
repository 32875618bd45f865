#!/usr/bin/env python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What node-power costs: a request of slurmctld, and a reconciliation of ten thousand nodes. Needs no cluster.

usage: .venv/bin/python benchmarks/elastic.py [CLUSTER]

With the name of a cluster in Docker like that of molecule/shared/elastic, whose engine can be reached: also where the
time goes from sbatch to the output of a job whose node is off.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.decide import Machine
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.engine import Engine
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.memory import Memory
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.settings import Settings
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.slurm_side import Scontrol
from ansible_collections.turnkey.hpc.plugins.module_utils._program import program

RUNS = 5
COUNT = 10_000
NODES = ("burst14", "burst15", "burst16")
# A line of `scontrol --oneliner show node` of Slurm 22.05.8.
LINE = (
    "NodeName=n{number} CoresPerSocket=1  CPUAlloc=0 CPUEfctv=1 CPUTot=1 CPULoad=0.00 AvailableFeatures=(null) "
    "ActiveFeatures=(null) Gres=(null) NodeAddr=10.0.0.1 NodeHostName=n{number}  RealMemory=500 AllocMem=0 FreeMem=N/A "
    "Sockets=1 Boards=1 State={state} ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A Partitions=burst  "
    "BootTime=None SlurmdStartTime=None LastBusyTime=2026-11-22T12:59:22 CfgTRES=cpu=1,mem=500M,billing=1 AllocTRES= "
    "CapWatts=n/a CurrentWatts=0 AveWatts=0 ExtSensorsJoules=n/s ExtSensorsWatts=0 ExtSensorsTemp=n/s"
)


def requests(place: Path) -> None:
    """Print how long slurmctld waits for its program."""
    source = program("_elastic.main").replace("/var/spool/node-power", str(place / "spool"))
    path = place / "node-power"
    path.write_text(source, encoding="utf-8")
    (place / "spool").mkdir()
    for count in (1, 100, 1000):
        wall, cpu = [], []
        for _run in range(RUNS):
            began, before = time.monotonic(), os.times()
            subprocess.run([sys.executable, "-I", str(path), "resume", f"n[1-{count}]"], check=True)
            after = os.times()
            wall.append(time.monotonic() - began)
            cpu.append(after.children_user + after.children_system - before.children_user - before.children_system)
        print(f"resume of {count:>4} nodes: {min(wall):.3f} s, {min(cpu):.3f} s of CPU (best of {RUNS})")


def reconciliation() -> None:
    """Print what a reconciliation costs, with reading what scontrol prints."""
    states = ("IDLE+CLOUD+POWERED_DOWN", "ALLOCATED+CLOUD", "IDLE+CLOUD+POWERING_DOWN", "ALLOCATED+CLOUD+POWERING_UP")
    text = "\n".join(LINE.format(number=n, state=states[n % 4]) for n in range(1, COUNT + 1))
    kind = {"name": "burst", "nodes": f"n[1-{COUNT}]", "provider": "docker", "host": "p"}
    settings = Settings.parse({"kinds": [kind]})
    machines = {"burst": {f"n{n}": Machine.RUNNING for n in range(1, COUNT + 1) if n % 4}}
    engine = Engine(settings, Memory(), Scontrol(lambda _argv, _stdin: (0, text, "")), lambda *_a, **_k: None)
    seconds = []
    for run in range(RUNS):
        began = time.process_time()
        engine.reconcile(machines, (), 1000.0 + run)
        seconds.append(time.process_time() - began)
    print(f"reconciliation of {COUNT} nodes: {min(seconds):.2f} s of CPU (best of {RUNS}), without scontrol's own")


def console(container: str, command: str) -> str:
    """Return what a command says on the console of a container."""
    argv = ["docker", "exec", container, "sh", "-c", command]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def moment(log: str, *words: str) -> float:
    """Return the time of the first line that has all the words."""
    return next(float(line.split()[0]) for line in log.splitlines() if all(word in line for word in words))


def from_sbatch_to_output(cluster: str) -> None:
    """Print where the time goes, for nodes that nobody uses."""
    head, parts = f"{cluster}-head", []
    for node in NODES:
        began = time.time()
        job = f"sbatch --parsable --chdir=/shared --partition=burst --nodelist={node} --wrap='date +%s.%N'"
        number = console(head, f'su - alice -c "{job}"').strip()
        output = f"cat /shared/slurm-{number}.out 2>/dev/null || true"
        while not (said := console(head, output).strip()):
            time.sleep(0.5)  # poll interval
        journal = f"journalctl --no-pager --output=short-unix --since=@{began:.0f}"
        log = console(head, f"{journal} --unit=node-power --unit=slurmctld")
        asked = moment(log, "event=resume", node)
        ready = moment(console(f"{cluster}-power", f"{journal} --identifier=node-power"), "event=resume", f'"{node}"')
        there = moment(log, f"Node {node} now responding")
        parts.append((asked - began, ready - asked, there - ready, float(said) - there))
    for name, seconds in zip(("Slurm asks", "machine is made and boots", "it joins", "Slurm looks again"), zip(*parts)):
        print(
            f"{name:>26}: {min(seconds):5.1f} s, at most {max(seconds):.1f} s ({len(parts)} nodes, one after the other)"
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        requests(Path(scratch))
    reconciliation()
    if sys.argv[1:]:
        from_sbatch_to_output(sys.argv[1])
