# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From nothing to a cluster and back with the playbooks that people run; the stand-in's instances are containers."""

from __future__ import annotations

import os
import re
import shlex
import socket
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from containers import Containers, be_instances_of_ec2, docker
from standins.aws_standin import REGION, AwsStandIn

TOP = Path(__file__).resolve().parents[2]
IMAGE = "turnkey/node:debian12"
CLUSTER = "cloudtest"
JOB_SECONDS = 5

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


# The head asks for instances itself, and makes them: it is in the network, and the SDK finds its credentials.
ELASTIC = {
    "cluster_scheduler": "slurm",
    "slurm_conf": {"SuspendTime": 15, "SuspendTimeout": 15, "ResumeTimeout": 200},
    "elastic_limits": {"boot_seconds": 120, "orphan_grace_seconds": 20},
    "slurm_partitions": [
        {"name": "main", "nodes": "head", "default": True},
        {"name": "burst", "kinds": ["burst"]},
    ],
}


class _Forwarder(socketserver.BaseRequestHandler):
    """Hands a connection on to the stand-in, which listens to this computer only."""

    def handle(self):
        with socket.create_connection(("127.0.0.1", self.server.to)) as other:

            def pump(source, sink):
                while data := source.recv(65536):
                    sink.sendall(data)
                sink.shutdown(socket.SHUT_WR)

            back = threading.Thread(target=pump, args=(other, self.request), daemon=True)
            back.start()
            pump(self.request, other)
            back.join()


@pytest.fixture
def endpoint(cloud):
    """The stand-in's URL for instances."""
    server, containers = cloud
    gateway = containers.network.replace(".0/24", ".1")
    socketserver.ThreadingTCPServer.daemon_threads = True
    with socketserver.ThreadingTCPServer((gateway, 0), _Forwarder) as forwarder:
        forwarder.to = int(server.url.rpartition(":")[2])
        threading.Thread(target=forwarder.serve_forever, daemon=True).start()
        yield f"http://{gateway}:{forwarder.server_address[1]}"
        forwarder.shutdown()


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

    def more(**variables) -> None:
        (site / "group_vars" / "all.yml").write_text(
            yaml.safe_dump({**GROUP_VARS, "cluster_network": network, **variables})
        )

    def run(playbook: str, *options: str, fails: bool = False) -> str:
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        command = [program, "-i", str(site), f"turnkey.hpc.{playbook}", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=site)
        output = done.stdout + done.stderr
        assert (done.returncode != 0) is fails, output[-6000:]
        assert "secret-of-the-test" not in output
        return output

    run.site, run.more = site, more
    return run


def register_image(environment) -> None:
    from ansible_collections.turnkey.hpc.plugins.module_utils._providers.aws_calls import connect_ec2

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**environment, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
            patch.setenv(name, value)
        connect_ec2(REGION).register_image(Name="turnkey-node-debian12-1", RootDeviceName="/dev/xvda")


def test_provision_site_and_destroy_make_a_cluster_that_works_and_leave_nothing(cloud, play):
    server, containers = cloud
    environment = {"AWS_ENDPOINT_URL": server.url}
    register_image(environment)
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


def until(what: str, holds, seconds: float):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(1)  # poll interval
    return found


@pytest.mark.minutes
def test_a_job_brings_an_instance_and_its_end_removes_it(cloud, play, endpoint):
    server, containers = cloud
    register_image({"AWS_ENDPOINT_URL": server.url})
    base = containers.network.removesuffix("0/24")
    machine = {"image": "turnkey-node-debian12-*", "instance_type": "t3.small", "first_address": f"{base}200"}
    kind = {"name": "burst", "nodes": "burst[1-2]", "cpus": 1, "memory_mb": 500, "provider": "aws", "machine": machine}
    head = {**GROUP_VARS["cluster_machine_sets"][0], "groups": ["controller", "nfs_server", "compute", "hypervisor"]}
    play.more(**ELASTIC, cluster_machine_sets=[head], slurm_node_kinds=[kind])
    play("provision")
    (name,) = containers.names()

    def root(script: str, check: bool = True) -> str:
        try:
            return docker("exec", name, "bash", "-c", script).strip()
        except RuntimeError:
            if check:
                raise
            return ""

    # An instance's role, as the SDK sees it there: credentials that nobody has written into a configuration.
    variables = {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "role",
        "AWS_SECRET_ACCESS_KEY": "of-the-instance",
    }
    root("".join(f"echo {key}={value} >>/etc/environment; " for key, value in variables.items()))
    play("site")

    job = f"cd /shared && sbatch --parsable --partition=burst --nodes=2 --wrap='srun hostname; sleep {JOB_SECONDS}'"
    script = shlex.quote(job)
    began = time.monotonic()
    number = root(f"su - alice -c {script}")
    until("the instances are there", lambda: len(containers.names()) == 3, 120)
    output = until("the output", lambda: sorted(root(f"cat /shared/slurm-{number}.out", check=False).split()), 240)
    print(f"from sbatch to output: {time.monotonic() - began:.1f} s")
    until(
        "both have written", lambda: sorted(root(f"cat /shared/slurm-{number}.out").split()) == ["burst1", "burst2"], 60
    )
    assert set(output) <= {"burst1", "burst2"}
    assert root("su - alice -c 'ssh -o BatchMode=yes burst2 hostname'") == "burst2"
    assert "changed=0" in play("provision")

    until("the instances are gone", lambda: containers.names() == [name], 180)
    until("the nodes are off", lambda: set(root("sinfo -h -N -p burst -o %T").split()) == {"idle~"}, 120)
    play("destroy", "-e", f"destroy_confirm={CLUSTER}")
    assert server.left() == {}
    launched = [params for action, params in server.requests if action == "RunInstances"]
    assert len(launched) == 3
    assert "of-the-instance" not in repr(server.requests)
