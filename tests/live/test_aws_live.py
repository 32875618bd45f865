# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster of two machines in a real account at AWS: made, used, made again (nothing to do), grown, removed.

It costs money: three small instances, a NAT gateway, two addresses and a volume for a quarter of an hour, less than one
US dollar. It runs only with TURNKEY_LIVE_AWS=1, with credentials where the SDK finds them, and with

    TURNKEY_LIVE_SSH_FROM     your own address as a network, as in 203.0.113.7/32
    TURNKEY_LIVE_REGION       default eu-central-1
    TURNKEY_LIVE_TYPE         default t3.small

The first call is a dry run, which tells wrong credentials and missing rights before anything is made. Everything
carries the tag turnkey:cluster=turnkey-live; should the removal fail, run it again, or look for the tag in the console.
If something fails, report the message with its error code: that is what no stand-in can know.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

if not os.environ.get("TURNKEY_LIVE_AWS"):
    pytest.skip("costs money; see the file's docstring", allow_module_level=True)

import botocore.exceptions
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.aws_calls import connect_ec2

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CLUSTER = "turnkey-live"
REGION = os.environ.get("TURNKEY_LIVE_REGION", "eu-central-1")
KIND = {"image": "136693071363/debian-12-amd64-*", "instance_type": os.environ.get("TURNKEY_LIVE_TYPE", "t3.small")}
VOLUME = {"name": "data", "path": "/srv/data", "size_gb": 4}


def configure(folder: Path, count: int) -> None:
    head = {"name": "head", "groups": ["controller"], "bastion": True, "volumes": [VOLUME], **KIND}
    variables = {
        "cluster_provider": "aws",
        "cluster_network": "10.217.0.0/24",
        "cluster_cloud": {"region": REGION, "ssh_from": [os.environ["TURNKEY_LIVE_SSH_FROM"]]},
        "cluster_machine_sets": [head, {"name": "node", "count": count, "groups": ["compute"], **KIND}],
    }
    place = {"plugin": "turnkey.hpc.cloud", "provider": "aws", "region": REGION, "cluster_name": CLUSTER}
    (folder / "machines.cloud.yml").write_text(json.dumps(place))
    (folder / "group_vars").mkdir(exist_ok=True)
    (folder / "group_vars/all.json").write_text(json.dumps(variables))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with pytest.raises(botocore.exceptions.ClientError, match="DryRunOperation"):
        connect_ec2(REGION).create_vpc(CidrBlock="10.217.0.0/24", DryRun=True)
    folder = tmp_path_factory.mktemp("live")
    configure(folder, 1)
    yield folder
    assert changed(folder, "destroy", "-e", f"destroy_confirm={CLUSTER}") > 0
    assert (
        connect_ec2(REGION).describe_vpcs(Filters=[{"Name": "tag:turnkey:cluster", "Values": [CLUSTER]}])["Vpcs"] == []
    )


def run(site: Path, *command: str) -> str:
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    argv = [str(BIN / command[0]), "-i", "machines.cloud.yml", *command[1:]]
    done = subprocess.run(argv, cwd=site, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def changed(site: Path, playbook: str, *options: str) -> int:
    found = re.search(r"localhost .*changed=(\d+)", run(site, "ansible-playbook", f"turnkey.hpc.{playbook}", *options))
    assert found
    return int(found[1])


def test_a_cluster_is_made_reached_through_its_head_and_grows(site):
    assert changed(site, "provision", "--check", "--diff") == 1
    assert changed(site, "provision") == 1
    assert changed(site, "provision") == 0
    assert run(site, "ansible", "all", "-m", "ansible.builtin.ping").count("SUCCESS") == 2
    ready = "mountpoint /srv/data || timeout 120 sh -c 'until mountpoint /srv/data; do :; done'"
    run(site, "ansible", "head", "-m", "ansible.builtin.shell", "-a", ready)
    run(site, "ansible", "node1", "--become", "-m", "ansible.builtin.command", "-a", "apt-get update")
    configure(site, 2)
    assert changed(site, "provision") == 1
    assert run(site, "ansible", "all", "-m", "ansible.builtin.ping").count("SUCCESS") == 3
