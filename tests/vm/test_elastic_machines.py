# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes that are virtual machines, from nothing to the output of a job and back: Slurm, node-power, its forced command.

Controller and power host are containers, which the machines share a bridge with; the hypervisor is this computer's.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
CLUSTER = "elasvm"
NETWORK = "10.97.34.0/24"
NODE_IMAGE = "turnkey/node:debian12"
VIRSH = ("virsh", "--quiet", "--connect", "qemu:///system")
SHARED = "<network><name>{name}</name><forward mode='bridge'/><bridge name='{bridge}'/></network>"
JOB_SECONDS, BOOT_SECONDS = 5, 420

GROUP_VARS = {
    "cluster_provider": "docker",
    "cluster_network": NETWORK,
    "cluster_bastion_port": 2334,
    "cluster_machine_sets": [
        {
            "name": "head",
            "groups": ["controller", "nfs_server"],
            "image": NODE_IMAGE,
            "bastion": True,
            "volumes": [{"name": "shared", "path": "/shared"}],
        },
        {
            "name": "power",
            "groups": ["hypervisor"],
            "image": NODE_IMAGE,
            "volumes": [{"name": "libvirt", "path": "/hypervisor"}],
        },
    ],
    "nfs_server_implementation": "ganesha",
    "cluster_users": [{"name": "alice", "uid": 2001}],
    "preflight_min_cores": 1,
    "preflight_min_memory_mb": 900,
    "preflight_min_disk_gb": 5,
    "elastic_libvirt": {
        "kinds": {"small": {"vcpus": 1, "memory_mb": 1024}},
        "network": f"turnkey-{CLUSTER}-shared",
        "accelerator": "emulation",
    },
    # Emulated machines take their time.
    "elastic_limits": {"boot_seconds": BOOT_SECONDS, "orphan_grace_seconds": 30},
    "slurm_conf": {"SuspendTime": 5, "SuspendTimeout": 20, "ResumeTimeout": 2 * BOOT_SECONDS},
    "slurm_node_kinds": [
        {
            "name": "virtual",
            "nodes": "vm[1-2]",
            "provider": "libvirt",
            "machine": {"image": "/hypervisor/image", "instance_type": "small", "first_address": "10.97.34.100"},
        }
    ],
    "slurm_partitions": [{"name": "main", "kinds": ["virtual"], "default": True}],
}


def run(*argv: str, check: bool = True) -> str:
    """Run a command of this computer and return what it prints."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=1200, check=False, env=ENVIRONMENT)
    assert not check or done.returncode == 0, f"{shlex.join(argv)}: {done.stdout[-6000:]}{done.stderr[-2000:]}"
    return done.stdout.strip()


ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
    "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"),
    "ANSIBLE_HOME": str(TOP / ".cache/ansible"),
    "ANSIBLE_NOCOLOR": "1",
}


class Site:
    """The cluster, from the console of its head."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def play(self, playbook: str, *arguments: str) -> str:
        """Run a playbook of the collection to its end."""
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        return run(program, "-i", str(self.path), str(TOP / "playbooks" / f"{playbook}.yml"), *arguments)

    def root(self, command: str, check: bool = True) -> str:
        """Run a shell command on the head."""
        return run("docker", "exec", f"{CLUSTER}-head", "bash", "-c", command, check=check)

    def alice(self, command: str) -> str:
        """Run a shell command as alice on the head."""
        return self.root(f"su - alice -c {shlex.quote(command)}")

    def until(self, what: str, holds: Callable[[], bool], seconds: float) -> None:
        """Wait until ``holds`` does."""
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"{what}: not within {seconds} s; {self.log()}"
            time.sleep(1)  # poll interval

    def log(self) -> str:
        """Return what node-power said last."""
        said = self.root("journalctl --no-pager --lines=20 -u node-power; node-power status", check=False)
        return said + run(
            "docker", "exec", f"{CLUSTER}-power", "journalctl", "--no-pager", "-t", "node-power", "-n", "20"
        )


def domains() -> list[str]:
    """Return the cluster's virtual machines."""
    return [name for name in run(*VIRSH, "list", "--all", "--name").split() if name.startswith(f"{CLUSTER}-")]


def pools() -> list[str]:
    """Return the cluster's storage pools."""
    return [name for name in run(*VIRSH, "pool-list", "--all", "--name").split() if name == f"turnkey-{CLUSTER}"]


@pytest.fixture(scope="module")
def elastic_site(golden_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A cluster without a node: a controller, and a power host that drives this computer's libvirt."""
    path = tmp_path_factory.mktemp("site")
    (path / "group_vars").mkdir()
    (path / "group_vars/all.yml").write_text(yaml.safe_dump(GROUP_VARS))
    (path / "machines.docker.yml").write_text(f"plugin: turnkey.hpc.docker\ncluster_name: {CLUSTER}\n")
    shared = str(GROUP_VARS["elastic_libvirt"]["network"])
    site = Site(path)
    relay = None
    try:
        site.play("provision")
        found = json.loads(run("docker", "network", "inspect", f"turnkey-{CLUSTER}"))[0]
        bridge = found["Options"].get("com.docker.network.bridge.name") or f"br-{found['Id'][:12]}"
        xml = tmp_path_factory.mktemp("libvirt") / "network.xml"
        xml.write_text(SHARED.format(name=shared, bridge=bridge))
        run(*VIRSH, "net-create", str(xml))
        volume = run("docker", "volume", "inspect", "--format", "{{.Mountpoint}}", f"turnkey-{CLUSTER}-libvirt")
        shutil.copytree(golden_image, Path(volume) / "image")
        program = TOP / "tests/standins/socket_relay.py"
        relay = subprocess.Popen([sys.executable, program, f"{volume}/libvirt-sock", "/run/libvirt/libvirt-sock"])
        link = "mkdir -p /run/libvirt; ln -sf /hypervisor/libvirt-sock /run/libvirt/libvirt-sock"
        run("docker", "exec", f"{CLUSTER}-power", "sh", "-c", link)
        site.play("site")
        yield site
        site.play("reset_elastic")
        assert (domains(), pools()) == ([], [])
    finally:
        for name in domains():
            run(*VIRSH, "destroy", name, check=False)
            run(*VIRSH, "undefine", name, check=False)
        if relay:
            relay.terminate()
            relay.wait()
        run(*VIRSH, "net-destroy", shared, check=False)
        site.play("destroy", "-e", f"destroy_confirm={CLUSTER}")


def test_from_no_machine_to_the_output_of_a_job_on_a_virtual_machine_and_back(elastic_site: Site) -> None:
    assert (domains(), pools()) == ([], [])
    began = time.monotonic()
    script = (
        "hostname; id -u; findmnt --noheadings --output FSTYPE /shared; "
        "systemd-detect-virt --vm; systemctl is-active chrony munge; "
        f"getent hosts head | wc -l; sleep {JOB_SECONDS}"
    )
    number = elastic_site.alice(f"cd /shared && sbatch --parsable --wrap={shlex.quote(script)}")
    elastic_site.until("the machine is made", lambda: domains() == [f"{CLUSTER}-vm1"], 240)
    assert "powering up" in elastic_site.alice("node-power status")
    output = f"cat /shared/slurm-{number}.out"
    elastic_site.until(
        "the job runs", lambda: len(elastic_site.root(output, check=False).split()) == 7, 2 * BOOT_SECONDS
    )
    print(f"from sbatch to output: {time.monotonic() - began:.0f} s")
    assert elastic_site.root(output).split() == ["vm1", "2001", "nfs4", "qemu", "active", "active", "1"]
    # Users reach it as any other node, though its key is new.
    assert elastic_site.alice("ssh -o BatchMode=yes vm1 hostname") == "vm1"

    elastic_site.until("the machine is gone", lambda: domains() == [], 240)
    elastic_site.until("the node is off", lambda: elastic_site.root("sinfo -h -N -n vm1 -o %T") == "idle~", 240)
    log = run("docker", "exec", f"{CLUSTER}-power", "journalctl", "--no-pager", "-t", "node-power")
    assert ("event=resume" in log, "event=suspend" in log) == (True, True)


def test_the_forced_command_does_nothing_else(elastic_site: Site) -> None:
    ask = "ssh -i /etc/turnkey/node-power/key -o IdentitiesOnly=yes -o BatchMode=yes power"
    assert elastic_site.root(f"{ask} status") == '{"machines": {}}'
    for request in ("id", "'resume head'", "'resume vm1;reboot'", "'suspend power'"):
        assert "refused" in elastic_site.root(f"{ask} {request} </dev/null 2>&1", check=False)
