# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster on two hypervisors, of which one is reached by SSH and is a container with a libvirtd of its own.

A bridge joins them: Docker's, which the container's own bridge has a port in.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sites import TOP, Lab, new_site

CLUSTER = "spread"
NETWORK = "10.97.23.0/24"
OTHER = "10.97.23.2"
BRIDGE, SHARED_NETWORK, CONTAINER = "turnkeyhv0", "turnkey-vm-shared", "turnkey-vm-hypervisor"
HERE, THERE = "qemu:///system", f"qemu+ssh://root@{OTHER}/system"
# As tests start containers elsewhere; machines want /dev/net/tun besides.
OPTIONS = ["--cap-add=ALL", "--cap-drop=SYS_RESOURCE", "--security-opt=seccomp=unconfined"]
OPTIONS += ["--security-opt=apparmor=unconfined", "--device=/dev/net/tun", "--cgroupns=private", "--init"]
JOIN = f"""
set -e
ip link add hpc0 type bridge
ip address flush dev eth0
ip link set eth0 master hpc0
ip link set hpc0 up
ip address add {OTHER}/24 dev hpc0
ip route add default via {ipaddress.ip_network(NETWORK)[1]}
mkdir -p /run/sshd /root/.ssh
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
cat >/root/.ssh/authorized_keys
/usr/sbin/sshd
"""
SHARED = "<network><name>{name}</name><forward mode='bridge'/><bridge name='{bridge}'/></network>"


def run(*argv: str, stdin: str = "", check: bool = True) -> str:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=400, check=False)
    assert not check or done.returncode == 0, f"{shlex.join(argv)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def inside(script: str, stdin: str = "") -> str:
    return run("docker", "exec", "--interactive", CONTAINER, "sh", "-c", script, stdin=stdin)


def domains() -> dict[str, list[str]]:
    """Return the cluster's domains by hypervisor."""
    found = {uri: run("virsh", "--quiet", "--connect", uri, "list", "--all", "--name").split() for uri in (HERE, THERE)}
    return {uri: [name for name in names if name.startswith(f"{CLUSTER}-")] for uri, names in found.items()}


@pytest.fixture(scope="module")
def hypervisors(golden_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two hypervisors with a network in common, and a directory in PATH whose ssh knows the second one."""
    place = tmp_path_factory.mktemp("hypervisor")
    key, known = place / "id", place / "known_hosts"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    # What people have in ~/.ssh: SSH's own configuration can't be told to libvirt in another way.
    program = place / "ssh"
    program.write_text(
        f'#!/bin/bash\nexec -a ssh /usr/bin/ssh -o GlobalKnownHostsFile={known} -o IdentityFile={key} "$@"\n'
    )
    program.chmod(0o755)
    before = os.environ["PATH"]
    try:
        remove()
        bridge = f"com.docker.network.bridge.name={BRIDGE}"
        run("docker", "network", "create", f"--subnet={NETWORK}", "--opt", bridge, CONTAINER)
        who = ["--name", CONTAINER, "--hostname", "hv2", "--network", CONTAINER, "--ip", OTHER]
        run("docker", "run", "--detach", *who, *OPTIONS, "turnkey/bootstrap:debian12", "sleep", "infinity")
        run("docker", "cp", str(TOP / "tools/libvirt-engine"), f"{CONTAINER}:/root/libvirt-engine")
        inside("/root/libvirt-engine")
        inside(JOIN, Path(f"{key}.pub").read_text())
        known.write_text(f"{OTHER} {inside('cat /etc/ssh/ssh_host_ed25519_key.pub')}\n")
        os.environ["PATH"] = f"{place}:{before}"
        for uri, name in ((HERE, BRIDGE), (THERE, "hpc0")):
            xml = place / "network.xml"
            xml.write_text(SHARED.format(name=SHARED_NETWORK, bridge=name))
            run("virsh", "--connect", uri, "net-define", str(xml))
            run("virsh", "--connect", uri, "net-start", SHARED_NETWORK)
        yield place
    finally:
        os.environ["PATH"] = before
        remove()


def remove() -> None:
    for command in ("net-destroy", "net-undefine"):
        run("virsh", "--connect", HERE, command, SHARED_NETWORK, check=False)
    run("docker", "rm", "--force", CONTAINER, check=False)
    run("docker", "network", "rm", CONTAINER, check=False)


@pytest.fixture(scope="module")
def spread(hypervisors: Path, golden_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A head on the hypervisor that is a container, and a node on this one."""
    common = {"image": golden_image, "instance_type": "small"}
    group_vars = {
        "cluster_provider": "libvirt",
        "cluster_network": NETWORK,
        "cluster_libvirt": {
            "hypervisors": [THERE, HERE],
            "network": SHARED_NETWORK,
            "spread": "round_robin",
            "accelerator": "emulation",
            "kinds": {"small": {"vcpus": 1, "memory_mb": 1024}},
        },
        "cluster_machine_sets": [
            {"name": "head", "groups": ["controller"], "bastion": True, **common},
            {"name": "node", "count": 1, "groups": ["compute"], **common},
        ],
    }
    site = new_site(TOP / ".cache/vm-spread-site", tmp_path_factory.mktemp("ssh"), CLUSTER, group_vars, [THERE, HERE])
    try:
        site.play("provision")
        yield site
    finally:
        site.play("destroy", "-e", f"destroy_confirm={CLUSTER}")


def test_machines_are_spread_over_hypervisors_and_found_on_both(spread):
    assert domains() == {HERE: [f"{CLUSTER}-node1"], THERE: [f"{CLUSTER}-head"]}
    argv = ["ansible-inventory", "-i", str(spread.path), "--graph"]
    listed = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=TOP).stdout
    assert set(re.findall(r"--(\w+)$", listed, re.MULTILINE)) == {"head", "node1"}


def test_a_bastion_on_another_hypervisor_is_reached_through_it_and_the_others_through_the_bastion(spread):
    jump = f"ProxyJump root@{OTHER}"
    assert jump in (spread.path / ".secrets/access/ssh_config").read_text()
    assert spread.root("head", "hostname") == "head"
    assert spread.root("node1", "hostname") == "node1"


def test_a_second_run_changes_nothing_and_a_machine_is_started_where_it_is(spread):
    assert "changed=0 " in spread.play("provision")
    spread.forget("head")
    run("virsh", "--quiet", "--connect", THERE, "destroy", f"{CLUSTER}-head")
    spread.play("provision")
    assert spread.root("head", "hostname") == "head"
    assert domains()[THERE] == [f"{CLUSTER}-head"]


def test_a_hypervisor_that_does_not_answer_is_named_before_anything_is_done(spread):
    inside("kill $(cat /run/sshd.pid)")
    try:
        refused = spread.run_playbook("provision")
    finally:
        inside("/usr/sbin/sshd")
    assert refused.returncode != 0
    assert f"hypervisor {THERE} can't be reached" in " ".join((refused.stdout + refused.stderr).split())


def test_nothing_is_left_on_either_hypervisor(spread):
    spread.play("destroy", "-e", f"destroy_confirm={CLUSTER}")
    assert domains() == {HERE: [], THERE: []}
    for uri in (HERE, THERE):
        assert f"turnkey-{CLUSTER}" not in run("virsh", "--quiet", "--connect", uri, "pool-list", "--all", "--name")
    assert inside("find /var/lib/libvirt/images -mindepth 1") == ""
