# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster of two machines in a real account of Alibaba Cloud: made, used, made again (nothing to do), removed.

It costs money: two small instances, a NAT gateway and an address for a quarter of an hour, less than one US dollar.
It runs only with TURNKEY_LIVE_ALICLOUD=1, with credentials where the SDK finds them, and with

    TURNKEY_LIVE_SSH_FROM     your own address as a network, as in 203.0.113.7/32
    TURNKEY_LIVE_REGION       default cn-hangzhou
    TURNKEY_LIVE_TYPE         default ecs.e-c1m2.large

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

if not os.environ.get("TURNKEY_LIVE_ALICLOUD"):
    pytest.skip("costs money; see the file's docstring", allow_module_level=True)

from ansible_collections.turnkey.hpc.plugins.module_utils._providers.alicloud_api import connect_api
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import Invalid

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
REGION = os.environ.get("TURNKEY_LIVE_REGION", "cn-hangzhou")
KIND = {
    "image": "system/debian_12_*_x64_20G_alibase_*.vhd",
    "instance_type": os.environ.get("TURNKEY_LIVE_TYPE", "ecs.e-c1m2.large"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with pytest.raises(Invalid, match="DryRunOperation"):
        connect_api(REGION).vpc("CreateVpc", cidr_block="10.217.0.0/24", dry_run=True)
    folder = tmp_path_factory.mktemp("live")
    machines = [
        {"name": "head", "groups": ["controller"], "bastion": True, **KIND},
        {"name": "node", "count": 1, "groups": ["compute"], **KIND},
    ]
    variables = {
        "cluster_provider": "alicloud",
        "cluster_network": "10.217.0.0/24",
        "cluster_cloud": {"region": REGION, "ssh_from": [os.environ["TURNKEY_LIVE_SSH_FROM"]]},
        "cluster_machine_sets": machines,
    }
    place = {"plugin": "turnkey.hpc.cloud", "provider": "alicloud", "region": REGION, "cluster_name": "turnkey-live"}
    (folder / "machines.cloud.yml").write_text(json.dumps(place))
    (folder / "group_vars").mkdir()
    (folder / "group_vars/all.json").write_text(json.dumps(variables))
    yield folder
    assert changed(folder, "destroy", "-e", "destroy_confirm=turnkey-live") == 1
    assert changed(folder, "destroy", "-e", "destroy_confirm=turnkey-live") == 0


def run(site: Path, *command: str) -> str:
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(
        [str(BIN / command[0]), "-i", "machines.cloud.yml", *command[1:]],
        cwd=site,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def changed(site: Path, playbook: str, *options: str) -> int:
    found = re.search(r"localhost .*changed=(\d+)", run(site, "ansible-playbook", f"turnkey.hpc.{playbook}", *options))
    assert found
    return int(found[1])


def test_a_cluster_is_made_reached_through_its_head_and_found_complete(site):
    assert changed(site, "provision", "--check", "--diff") == 1
    assert changed(site, "provision") == 1
    assert changed(site, "provision") == 0
    answers = run(site, "ansible", "all", "-m", "ansible.builtin.ping")
    assert answers.count("SUCCESS") == 2
    egress = run(site, "ansible", "node1", "-m", "ansible.builtin.command", "-a", "apt-get update")
    assert "CHANGED" in egress
