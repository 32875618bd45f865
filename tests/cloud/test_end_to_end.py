# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From nothing to a cluster and back with the playbooks that people run; the stand-in's instances are containers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from containers import Containers, be_instances_of_ec2
from standins.aws_standin import REGION, AwsStandIn

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
    # What machines of a cloud are to site.yml ends before Slurm begins, which other tests have enough of.
    "cluster_scheduler": "none",
}


@pytest.fixture
def cloud():
    with AwsStandIn() as server, Containers(IMAGE) as containers:
        be_instances_of_ec2(containers, server)
        yield server, containers


@pytest.fixture
def play(cloud, tmp_path):
    server, containers = cloud
    network = containers.network
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
    server, containers = cloud
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
    base = containers.network.removesuffix("0/24")
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
