# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The laboratory: a cluster of two virtual machines with kernels of their own, made by the product's playbooks."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ansible_mitogen
import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
CLUSTER = "lab"
NETWORK = "10.97.12.0/24"
IMAGES = TOP / ".cache/images"
# The layers of site.yml. A module run costs an emulated machine five seconds of its processor, with Mitogen one.
# Slurm's layer reaches the controllers through connections of its own, which Mitogen refuses.
LAYERS = ("validate", "preflight", "nodes", "shared_directory", "mpi", "slurm")
WITH_MITOGEN = ("preflight", "nodes", "shared_directory", "mpi", "reset")

GROUP_VARS = {
    "base_image_format": "qcow2",
    "base_image_directory": str(IMAGES),
    "base_image_source": "mmdebstrap",
    # What is not tested here would cost its installation, and its size with each copy.
    "base_image_roles": ["baseline", "users", "ssh_mesh", "nfs_server", "nfs_client", "openmpi", "slurm"],
    "cluster_provider": "libvirt",
    "cluster_network": NETWORK,
    "cluster_libvirt": {"kinds": {"small": {"vcpus": 1, "memory_mb": 1024}}},
    "cluster_machine_sets": [
        {
            "name": "head",
            "groups": ["controller", "nfs_server", "compute"],
            "image": str(IMAGES / "turnkey-node-debian12"),
            "instance_type": "small",
            "bastion": True,
        },
        {
            "name": "node",
            "count": 1,
            "groups": ["compute"],
            "image": str(IMAGES / "turnkey-node-debian12"),
            "instance_type": "small",
        },
    ],
    "cluster_users": [{"name": "alice", "uid": 2001}],
    # Emulated machines are as small as they can be.
    "preflight_min_cores": 1,
    "preflight_min_memory_mb": 900,
    "preflight_min_disk_gb": 5,
}


@dataclass
class Lab:
    """The site in ``path``, and what was measured: seconds by step."""

    path: Path
    sockets: Path
    seconds: dict[str, float] = field(default_factory=dict)
    cluster: str = CLUSTER
    network: str = NETWORK

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
    return Lab(path, sockets, cluster=cluster, network=group_vars["cluster_network"])


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The laboratory's site, whose image is there and whose machines are not."""
    lab = new_site(TOP / ".cache/vm-site", tmp_path_factory.mktemp("ssh"), CLUSTER, GROUP_VARS)
    try:
        lab.play("image")
        yield lab
    finally:
        print("\n" + "\n".join(f"{name}: {seconds:.0f} s" for name, seconds in lab.seconds.items()))


@pytest.fixture(scope="session")
def golden_image(request: pytest.FixtureRequest) -> str:
    """The path of the image; TURNKEY_VM_IMAGE is one that is there already."""
    given = os.environ.get("TURNKEY_VM_IMAGE")
    if not given:
        request.getfixturevalue("site")
    return given or str(IMAGES / "turnkey-node-debian12")


@pytest.fixture(scope="session")
def lab(site: Lab) -> Iterator[Lab]:
    """A cluster of two virtual machines, from nothing. TURNKEY_VM_KEEP=1 leaves it for the next run."""
    try:
        for playbook in ("provision", *LAYERS):
            site.play(playbook)
        yield site
    finally:
        if not os.environ.get("TURNKEY_VM_KEEP"):
            site.play("destroy", "-e", f"destroy_confirm={CLUSTER}")
