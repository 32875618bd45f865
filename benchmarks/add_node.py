#!/usr/bin/env python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure what it costs the control node to add one node to clusters of several sizes.

    benchmarks/add_node.py [SIZE ...]

The hosts don't exist (tests/scale/connection_plugins/fake.py): what is measured is Ansible's work on the control node,
in CPU seconds with its children, less what starting and reading the inventory cost. Prints a Markdown table; run it
from the checkout's virtual environment, on a machine that does nothing else.
"""

from __future__ import annotations

import collections
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Cost(NamedTuple):
    """What one command cost: CPU seconds of the control node, and module runs by host."""

    cpu: float
    runs: collections.Counter[str]


def write_inventory(directory: Path, size: int) -> tuple[Path, str]:
    """Write an inventory of ``size`` hosts; return it with the name of the last."""
    names = ["head", *(f"node{number}" for number in range(1, size))]
    hosts = "".join(
        f'"{name}":{{"cluster_address":"10.0.{number // 250}.{number % 250 + 1}"}},'
        for number, name in enumerate(names)
    )
    compute = ",".join(f'"{name}":{{}}' for name in names)
    variables = (
        '{"cluster_name":"big","cluster_network":"10.0.0.0/16","ansible_connection":"fake",'
        '"ansible_python_interpreter":"/usr/bin/python3","cluster_shared_dir_source":"provided",'
        '"cluster_users":[{"name":"alice","uid":2001}]}'
    )
    head = '{"hosts":{"head":{}}}'
    path = directory / f"cluster{size}.yml"
    path.write_text(
        f'---\n{{"all":{{"vars":{variables},"hosts":{{{hosts.rstrip(",")}}}}},"controller":{head},"nfs_server":{head},'
        f'"login":{head},"compute":{{"hosts":{{{compute}}}}}}}\n'
    )
    return path, names[-1]


def run(inventory: Path, *argv: str, changed: bool = False) -> Cost:
    """Run a command of Ansible against hosts that don't exist."""
    log = inventory.parent / "log"
    log.write_text("")
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_INVENTORY_ENABLED": "ansible.builtin.yaml",
        "ANSIBLE_CONNECTION_PLUGINS": str(ROOT / "tests/scale/connection_plugins"),
        "ANSIBLE_HOME": str(inventory.parent / "home"),
        "FAKE_LOG": str(log),
        "FAKE_CHANGED": str(int(changed)),
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        argv,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(done.stdout)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(cpu, collections.Counter(line.split()[0] for line in log.read_text().splitlines()))


def add_node(inventory: Path, node: str, *arguments: str, changed: bool) -> Cost:
    """Run site.yml for one node. Preflight is left out: what it asks of a machine can't be faked well."""
    book = str(ROOT / "playbooks/site.yml")
    limit = ("--limit", node, "--skip-tags", "preflight")
    return run(inventory, "ansible-playbook", "-i", str(inventory), book, *limit, *arguments, changed=changed)


def read_only(inventory: Path) -> float:
    """Return the CPU seconds of starting, and reading the inventory."""
    return run(inventory, "ansible", "all", "-i", str(inventory), "--list-hosts").cpu


def main() -> None:
    """Print the table."""
    sizes = [int(argument) for argument in sys.argv[1:]] or [10, 100, 1000]
    heads = ["hosts", "inventory", "node that all know", "new node, all told", "modules: new node", "each other node"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    with tempfile.TemporaryDirectory() as place:
        for size in sizes:
            inventory, node = write_inventory(Path(place), size)
            listing = read_only(inventory)
            known = add_node(inventory, node, changed=False)
            new = add_node(inventory, node, changed=True)
            others = [count for host, count in new.runs.items() if host not in (node, "head", f"node{size - 2}")]
            row = [f"{size:,}", f"{listing:.1f}", f"{known.cpu - listing:.1f}", f"{new.cpu - listing:.1f}"]
            print(f"| {' | '.join(row)} | {new.runs[node]} | {max(others, default=0)} |", flush=True)


if __name__ == "__main__":
    main()
