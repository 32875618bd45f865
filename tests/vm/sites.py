# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sites whose machines are virtual, and what their playbooks and their people do; the tests beside it import it."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ansible_mitogen
import yaml

TOP = Path(__file__).resolve().parents[2]
IMAGES = TOP / ".cache/images"
# A module run costs an emulated machine five seconds of its processor, with Mitogen one.
# Slurm's layer and its reset reach the controllers through connections of their own, which Mitogen refuses.
WITH_MITOGEN = ("preflight", "nodes", "shared_directory", "mpi", "reset_nodes")


@dataclass
class Lab:
    """The site in ``path``, and what was measured: seconds by step."""

    path: Path
    sockets: Path
    cluster: str
    network: str
    seconds: dict[str, float] = field(default_factory=dict)

    def play(self, playbook: str, *arguments: str) -> str:
        """Run a playbook of the collection to its end and return its output."""
        done = self.run_playbook(playbook, *arguments)
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
        return done.stdout

    def run_playbook(self, playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook of the collection to its end, which may be a failure."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        environment = {
            **clean,
            "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"),
            "ANSIBLE_HOME": str(TOP / ".cache/ansible"),
            "ANSIBLE_NOCOLOR": "1",
        }
        if playbook in WITH_MITOGEN:
            environment["ANSIBLE_STRATEGY_PLUGINS"] = str(Path(ansible_mitogen.__file__).parent / "plugins/strategy")
            environment["ANSIBLE_STRATEGY"] = "mitogen_linear"
        argv = ["ansible-playbook", "-i", str(self.path), str(TOP / "playbooks" / f"{playbook}.yml"), *arguments]
        started = time.monotonic()
        done = subprocess.run(argv, cwd=TOP, env=environment, capture_output=True, text=True, timeout=900, check=False)
        self.seconds[f"{self.cluster} {playbook}"] = time.monotonic() - started
        return done

    def _ssh(self, node: str) -> list[str]:
        # A machine that is shut down doesn't close its connections.
        alive = ["-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=4"]
        shared = [
            *alive,
            "-o",
            "ControlMaster=auto",
            "-o",
            "ControlPersist=300",
            "-o",
            f"ControlPath={self.sockets}/%C",
        ]
        return [
            "ssh",
            "-F",
            str(self.path / ".secrets/access/ssh_config"),
            "-o",
            "BatchMode=yes",
            *shared,
            f"root@{node}",
        ]

    def run(self, node: str, command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a shell command as root."""
        return subprocess.run(
            [*self._ssh(node), command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def root(self, node: str, command: str, timeout: float = 120) -> str:
        """Run a shell command as root, which must succeed; return its output."""
        done = self.run(node, command, timeout)
        assert done.returncode == 0, f"{node}: {command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def alice(self, node: str, command: str, timeout: float = 120) -> str:
        """Run a shell command as alice, in a login shell, which must succeed; return its output."""
        return self.root(node, f"su - alice -c {shlex.quote(command)}", timeout)

    def start(self, node: str, command: str) -> subprocess.Popen[str]:
        """Start a shell command as alice."""
        argv = [*self._ssh(node), f"su - alice -c {shlex.quote(command)}"]
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def forget(self, node: str) -> None:
        """Give up the connections to a machine that is about to stop."""
        subprocess.run([*self._ssh(node)[:-1], "-O", "exit", f"root@{node}"], capture_output=True, check=False)

    def power_off(self, node: str) -> None:
        """Take the power from a machine."""
        self.forget(node)
        argv = ["virsh", "--connect", "qemu:///system", "--quiet", "destroy", f"{self.cluster}-{node}"]
        subprocess.run(argv, capture_output=True, check=True)

    def traces(self) -> dict[str, list[str]]:
        """Return what the cluster has on its hypervisor."""
        return traces(self.cluster, self.network)

    def until(self, what: str, holds: Callable[[], bool], seconds: float) -> None:
        """Wait until ``holds`` does."""
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"{what}: not within {seconds} s"
            time.sleep(0.5)  # poll interval


def traces(cluster: str, network: str) -> dict[str, list[str]]:
    """Return what a cluster has on its hypervisor."""
    commands = {
        "networks": ["virsh", "-q", "-c", "qemu:///system", "net-list", "--all", "--name"],
        "domains": ["virsh", "-q", "-c", "qemu:///system", "list", "--all", "--name"],
        "pools": ["virsh", "-q", "-c", "qemu:///system", "pool-list", "--all", "--name"],
        "links": ["ip", "-brief", "-oneline", "link", "show", "type", "bridge"],
        "rules": ["iptables-save"],
        "leases": ["find", "/var/lib/libvirt/dnsmasq", "-type", "f"],
        "disks": ["find", "/var/lib/libvirt/images", "-mindepth", "1"],
    }
    found = {}
    for name, argv in commands.items():
        lines = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()
        marks = (f"{cluster}-", f"/{cluster}", f"turnkey-{cluster}", network)
        found[name] = sorted(line for line in lines if any(mark in line for mark in marks) or line == cluster)
    return found


def new_site(
    path: Path, sockets: Path, cluster: str, group_vars: dict[str, Any], hypervisors: Sequence[str] = ()
) -> Lab:
    """Write a site."""
    (path / "group_vars").mkdir(parents=True, exist_ok=True)
    (path / "group_vars/all.yml").write_text(yaml.safe_dump(group_vars))
    source = {"plugin": "turnkey.hpc.libvirt", "cluster_name": cluster}
    source |= {"hypervisors": list(hypervisors)} if hypervisors else {}
    (path / "machines.libvirt.yml").write_text(yaml.safe_dump(source))
    return Lab(path, sockets, cluster, group_vars["cluster_network"])
