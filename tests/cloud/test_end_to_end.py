# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From nothing to a cluster and back with the playbooks that people run; the stand-in's instances are containers."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import yaml
from standins.aws_standin import REGION, AwsStandIn, keys_block

TOP = Path(__file__).resolve().parents[2]
IMAGE = "turnkey/node:debian12"
CLUSTER = "cloudtest"

GROUP_VARS = {
    "cluster_provider": "aws",
    "cluster_cloud": {
        "region": REGION,
        "ssh_from": ["203.0.113.0/24"],
        "egress": "none",
        "login_user": "root",
    },
    "cluster_machine_sets": [
        {
            "name": "head",
            "bastion": True,
            "groups": ["controller", "nfs_server", "login", "compute"],
            "image": "turnkey-node-debian12-*",
            "instance_type": "t3.small",
            "volumes": [{"name": "shared", "path": "/shared", "size_gb": 10}],
        },
        {
            "name": "node",
            "count": 1,
            "groups": ["compute"],
            "image": "turnkey-node-debian12-*",
            "instance_type": "t3.small",
        },
    ],
    # Containers mount no NFS: a volume of the engine stands in for it, as in the demo.
    "cluster_shared_dir_source": "provided",
    "nfs_server_implementation": "ganesha",
    "cluster_users": [{"name": "alice", "uid": 2001}],
}


def docker(*arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, input=stdin)
    if done.returncode:
        raise RuntimeError(f"docker {arguments[0]}: {done.stderr}")
    return done.stdout


class Containers:
    """Instances that are containers on one bridge, with the address, name and key that EC2 was asked for."""

    def __init__(self, server: AwsStandIn, name: str, network: str):
        self.server, self.name = server, name
        docker("network", "create", "--subnet", network, name)
        docker("volume", "create", name)
        server.launched, server.terminated, server.console = self.launch, self.terminate, self.console

    def launch(self, identity: str, params: dict[str, str]) -> None:
        address = params["NetworkInterface.1.PrivateIpAddress"]
        config = json.loads(base64.b64decode(params["UserData"]).decode().partition("\n")[2])
        key = self.server.backend.key_pairs[params["KeyName"]].material_public
        key = key.decode() if isinstance(key, bytes) else key
        container = f"{self.name}-{identity}"
        flags = "--cap-add ALL --cap-drop SYS_RESOURCE --security-opt seccomp=unconfined --security-opt"
        flags += " apparmor=unconfined --cgroupns=private --tmpfs /run --tmpfs /run/lock --tmpfs /tmp:exec"
        command = ["create", "--name", container, "--hostname", config["hostname"], "--network", self.name]
        docker(*command, "--ip", address, "--volume", f"{self.name}:/shared", "--shm-size=256m", *flags.split(), IMAGE)
        docker("start", container)
        docker("exec", container, "mkdir", "-p", "-m", "700", "/root/.ssh")
        docker("exec", "-i", container, "sh", "-c", "cat >/root/.ssh/authorized_keys", stdin=f"{key.strip()}\n")
        instance = self.server.backend.get_instance(identity)
        if instance.public_ip:
            self.server.public_addresses[instance.public_ip] = address

    def terminate(self, identity: str) -> None:
        docker("rm", "--force", "--volumes", f"{self.name}-{identity}")

    def console(self, identity: str) -> str:
        try:
            key = docker("exec", f"{self.name}-{identity}", "cat", "/etc/ssh/ssh_host_ed25519_key.pub")
        except RuntimeError:  # it boots
            return ""
        return keys_block(" ".join(key.split()[:2]))

    def names(self) -> list[str]:
        return docker("ps", "--all", "--filter", f"name={self.name}-", "--format", "{{.Names}}").split()

    def remove(self) -> None:
        for name in self.names():
            docker("rm", "--force", "--volumes", name)
        docker("network", "rm", self.name)
        docker("volume", "rm", self.name)


def free_network() -> str:
    used = subprocess.run(["ip", "-4", "route"], capture_output=True, text=True, check=True).stdout
    return next(f"10.97.{n}.0/24" for n in range(100, 256) if f"10.97.{n}." not in used)


@pytest.fixture
def cloud(tmp_path):
    network = free_network()
    with AwsStandIn() as server:
        server.reset()
        containers = Containers(server, f"turnkey-e2e-{uuid.uuid4().hex[:6]}", network)
        try:
            yield server, containers, network
        finally:
            containers.remove()


@pytest.fixture
def play(cloud, tmp_path):
    server, _containers, network = cloud
    site = tmp_path / "site"
    (site / "group_vars").mkdir(parents=True)
    (site / "group_vars" / "all.yml").write_text(yaml.safe_dump({**GROUP_VARS, "cluster_network": network}))
    (site / "machines.cloud.yml").write_text(
        f"plugin: turnkey.hpc.cloud\nprovider: aws\nregion: {REGION}\ncluster_name: {CLUSTER}\n"
    )
    (site / "ansible.cfg").write_text(
        (TOP / "ansible.cfg").read_text().replace("turnkey.hpc.docker,", "turnkey.hpc.cloud,")
    )
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-test",
        "ANSIBLE_CONFIG": str(site / "ansible.cfg"),
        "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp"),
    }

    def run(playbook: str, *options: str, fails: bool = False) -> str:
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        command = [program, "-i", str(site), f"turnkey.hpc.{playbook}", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=site)
        output = done.stdout + done.stderr
        assert (done.returncode != 0) is fails, output[-6000:]
        assert "secret-of-the-test" not in output
        return output

    run.site = site
    return run


def test_provision_site_and_destroy_make_a_cluster_that_works_and_leave_nothing(cloud, play):
    server, containers, network = cloud
    environment = {"AWS_ENDPOINT_URL": server.url}
    from ansible_collections.turnkey.hpc.plugins.module_utils._providers.aws_calls import connect_ec2

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**environment, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
            patch.setenv(name, value)
        connect_ec2(REGION).register_image(Name="turnkey-node-debian12-1", RootDeviceName="/dev/xvda")

    planned = play("provision", "--check", "--diff")
    assert "+machine node1" in planned
    assert server.left() == {}
    assert not containers.names()

    made = play("provision")
    base = network.removesuffix("0/24")
    assert re.search(r"^ +[0-9]+/12 create machine head$", made, re.MULTILINE), made  # progress, as it goes
    assert f"head is reached at {base}10 port 22 as root; its address in the cluster is {base}10." in made
    assert len(containers.names()) == 2
    again = play("provision")
    assert "changed=0" in again

    play("site")
    play("verify")
    log_in = ["ssh", "-F", str(play.site / ".secrets/access/ssh_config"), "node1", "hostname"]
    assert subprocess.run(log_in, capture_output=True, text=True, check=True).stdout.strip() == "node1"

    refused = play("destroy", fails=True)
    assert "It would destroy the machines head, node1" in refused
    play("destroy", "-e", f"destroy_confirm={CLUSTER}")
    assert server.left() == {}
    assert not containers.names()
    assert "secret-of-the-test" not in repr(server.requests)
