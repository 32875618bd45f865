# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new site in a cloud is complete: its inventory is read, and its machines can be planned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.aws_calls import connect_ec2
from standins.aws_standin import REGION, AwsStandIn

BIN = Path(sys.executable).parent


def run(where: Path, *command: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "AWS_"))}
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=where,
        env={**kept, "PWD": str(where), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("source", ["aws", "alicloud"])
def test_a_new_site_has_the_same_region_in_both_places_and_the_commands_of_a_provider(tmp_path, source):
    run(tmp_path, "ansible-playbook", "turnkey.hpc.new", "-e", f"dir=lab source={source}")
    variables = yaml.safe_load((tmp_path / "lab/group_vars/all.yml").read_text())
    assert f'region = "{variables["cluster_cloud"]["region"]}"' in (tmp_path / "lab/inv.toml").read_text()
    assert variables["cluster_provider"] == source
    readme = (tmp_path / "lab/README.md").read_text()
    assert "ansible-playbook -i inv.toml provision.yml" in readme
    assert "turnkey.hpc.image" not in readme


def test_the_machines_of_a_new_site_at_aws_can_be_planned(tmp_path, monkeypatch):
    run(tmp_path, "ansible-playbook", "turnkey.hpc.new", "-e", "dir=lab source=aws")
    with AwsStandIn() as server:
        server.reset()
        given = {"AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        connect_ec2(REGION).register_image(Name="mine-1", RootDeviceName="/dev/xvda")
        sets = yaml.safe_load((tmp_path / "lab/group_vars/all.yml").read_text())["cluster_machine_sets"]
        mine = json.dumps({"cluster_machine_sets": [{**one, "image": "mine-*"} for one in sets]})
        options = ("-i", "inv.toml", "provision.yml", "--check", "--diff", "-e", mine)
        planned = run(tmp_path / "lab", "ansible-playbook", *options, **given)
        assert "+machine node2" in planned
        assert server.left() == {}
