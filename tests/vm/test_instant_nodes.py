# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines that begin in memory: each is somebody of its own before anything can reach it, and soon.

At most one machine runs at a time; the others are suspended.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import libvirt
import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import ClusterSpec, expand_spec
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.libvirt import LibvirtProvider
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.plan import plan, plan_absent

CLUSTER = "inst"
READY_SECONDS = 240
INSTANT_CPU_SECONDS = 10
WHO_AM_I = r"""
import json, pathlib, subprocess, time
read = lambda path: pathlib.Path(path).read_text().strip()
run = lambda *argv: subprocess.run(argv, capture_output=True, text=True).stdout.strip()
print(json.dumps({
    "own": {
        "host name": read("/proc/sys/kernel/hostname"),
        "machine id": read("/etc/machine-id"),
        "boot id": read("/proc/sys/kernel/random/boot_id"),
        "identifier of the hardware": read("/sys/class/dmi/id/product_uuid"),
        "host key": read("/etc/ssh/ssh_host_ed25519_key"),
        "random numbers": pathlib.Path("/dev/urandom").open("rb").read(32).hex(),
        "MAC address": read("/sys/class/net/eth0/address"),
        "address": run("hostname", "-I"),
        "instance": read("/var/lib/turnkey-machine/instance-id"),
        "journals": sorted(path.name for path in pathlib.Path("/var/log/journal").glob("[0-9a-f]*")),
    },
    "clock": time.time(),
    "random seed": pathlib.Path("/var/lib/systemd/random-seed").exists(),
    "host keys": sorted(path.name for path in pathlib.Path("/etc/ssh").glob("ssh_host_*key")),
    "failed": run("systemctl", "--failed", "--no-legend", "--plain"),
    "system": run("systemctl", "is-system-running"),
}))
"""


@dataclass
class Machines:
    """Machines of one cluster, made one after the other. ``spent`` are CPU seconds until SSH showed the right key."""

    image: str
    key: str
    spent: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def make(self, nodes: int) -> None:
        """Have a head and so many nodes; those that are there keep what they are."""
        provider, spec = self.provider(), self._spec(nodes)
        state = provider.discover(CLUSTER)
        provider.apply(plan(provider.desired(spec), state))
        made = [item.name for item in spec.machines if item.name not in state.of_kind("machine")]
        self.know(spec, provider.host_keys(CLUSTER, made, READY_SECONDS))
        self.warnings += provider.warnings
        for name in made:
            self.spent[name] = self.domain(name).info()[4] / 1e9

    def know(self, spec: ClusterSpec, keys: dict[str, str]) -> None:
        """Know machines by the keys that they told their consoles."""
        lines = [f"{item.address} {keys[item.name]}\n" for item in spec.machines if item.name in keys]
        with Path(f"{self.key}.known_hosts").open("a") as file:
            file.writelines(lines)

    def remove(self) -> None:
        """Remove all."""
        provider = self.provider()
        provider.apply(plan_absent(provider.discover(CLUSTER)))

    def domain(self, name: str) -> libvirt.virDomain:
        """Return a machine's domain."""
        return libvirt.open("qemu:///system").lookupByName(f"{CLUSTER}-{name}")

    def who_is(self, address: str) -> dict:
        """Return what a machine knows of itself."""
        options = ["-o", f"UserKnownHostsFile={self.key}.known_hosts", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]
        done = subprocess.run(
            ["ssh", "-i", self.key, *options, f"root@{address}", "python3 -"],
            input=WHO_AM_I,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def provider(self) -> LibvirtProvider:
        """Return the provider, as it is connected anew for each run."""

        def run(argv: list[str]) -> tuple[int, str, str]:
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            return done.returncode, done.stdout, done.stderr

        return LibvirtProvider.connect({}, run)

    def _spec(self, nodes: int) -> ClusterSpec:
        public = Path(f"{self.key}.pub").read_text().strip()
        common = {"image": self.image, "instance_type": "small"}
        kinds = {"small": {"vcpus": 1, "memory_mb": 1024, "instant": True}}
        return expand_spec(
            {
                "provider": "libvirt",
                "cluster_name": CLUSTER,
                "network": "10.97.20.0/24",
                "admin_public_key": public,
                "machine_sets": [
                    {"name": "head", "bastion": True, **common},
                    {"name": "node", "count": nodes, **common},
                ],
                "libvirt": {"kinds": kinds, "accelerator": "emulation"},
            }
        )


@pytest.fixture(scope="module")
def machines(golden_image, tmp_path_factory) -> Iterator[Machines]:
    key = tmp_path_factory.mktemp("key") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True)
    machines = Machines(golden_image, str(key))
    try:
        yield machines
    finally:
        machines.remove()
        print(f"\nCPU seconds until ready: {machines.spent}")


def test_two_copies_of_one_memory_share_no_secret_and_no_identifier_and_are_ready_soon(machines):
    machines.make(0)
    first = machines.who_is("10.97.20.10")
    looked_at = time.time()
    machines.domain("head").suspend()
    machines.make(1)
    second = machines.who_is("10.97.20.11")
    assert machines.warnings == []
    assert {name for name, value in first["own"].items() if value == second["own"][name]} == set()
    assert first["own"]["host name"] == "head"
    assert second["own"]["identifier of the hardware"] == machines.domain("node1").UUIDString()
    assert abs(first["clock"] - looked_at) < 60
    assert abs(second["clock"] - time.time()) < 5
    assert second["host keys"] == ["ssh_host_ed25519_key"]
    assert second["failed"] == ""
    assert max(machines.spent.values()) < INSTANT_CPU_SECONDS


def test_a_machine_that_began_in_memory_boots_from_its_disk_as_who_it_is(machines):
    before = machines.who_is("10.97.20.11")["own"]
    provider = machines.provider()
    machines.domain("node1").destroy()
    provider.start(CLUSTER, ["node1"])
    provider.host_keys(CLUSTER, ["node1"], READY_SECONDS)
    after = machines.who_is("10.97.20.11")["own"]
    changed = {name for name, value in before.items() if value != after[name]}
    assert changed == {"boot id", "random numbers"}
