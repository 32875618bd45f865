# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`image.yml` builds an image in a cloud, as people run it; the build machine of the stand-in is a container."""

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

pytest.importorskip("alibabacloud_ecs20140526", reason="pip install -r requirements-alicloud.txt")

from clusters import LONG
from standins.alicloud_standin import ACCESS_KEY_ID, ACCESS_KEY_SECRET, Clock, StandIn
from standins.alicloud_standin.service import REGION, console_block
from standins.alicloud_standin.use import provider_of

if not LONG:
    pytest.skip("one minute or more of installing packages", allow_module_level=True)

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--cap-add",
    "ALL",
    "--cap-drop",
    "SYS_RESOURCE",
    "--security-opt",
    "seccomp=unconfined",
    "--security-opt",
    "apparmor=unconfined",
    "--cgroupns=private",
    "--tmpfs",
    "/run",
    "--tmpfs",
    "/run/lock",
    "--tmpfs",
    "/tmp:exec",
]


def docker(*arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, input=stdin)
    if done.returncode:
        raise RuntimeError(f"docker {arguments[0]}: {done.stderr}")
    return done.stdout


class Machine:
    """The container that an instance of the stand-in is, and what was found in it when the image was made."""

    def __init__(self, standin: StandIn, network: str) -> None:
        self.name, self.found, self.standin = f"turnkey-image-{uuid.uuid4().hex[:6]}", "", standin
        docker("network", "create", "--subnet", network, self.name)
        account = standin.account
        account.launched, account.imaged, account.vanished = self.launch, self.look, self.remove
        account.console = self.console

    def launch(self, instance) -> None:
        address = instance.data["Address"]
        config = json.loads(base64.b64decode(instance.data["UserData"]).decode().partition("\n")[2])
        docker(
            "create", "--name", self.name, "--network", self.name, "--ip", address, *FLAGS, "turnkey/bootstrap:debian12"
        )
        docker("start", self.name)
        docker("exec", self.name, "mkdir", "-p", "-m", "700", "/root/.ssh")
        docker(
            "exec",
            "-i",
            self.name,
            "sh",
            "-c",
            "cat >/root/.ssh/authorized_keys",
            stdin=config["ssh_authorized_keys"][0] + "\n",
        )
        instance.data["Public"] = [address]

    def console(self, _instance) -> str:
        try:
            return console_block(docker("exec", self.name, "cat", "/etc/ssh/ssh_host_ed25519_key.pub").strip())
        except RuntimeError:  # it boots
            return ""

    def look(self, _instance) -> None:
        script = "cat /etc/machine-id; ls -A /root/.ssh /etc/ssh/ssh_host_* /var/lib/turnkey 2>&1; dpkg -s nfs-common"
        done = subprocess.run(
            ["docker", "exec", self.name, "sh", "-c", script], capture_output=True, text=True, check=False
        )
        self.found = done.stdout

    def remove(self, _instance=None) -> None:
        docker("rm", "--force", "--volumes", self.name)


@pytest.fixture
def built(tmp_path):
    routes = subprocess.run(["ip", "-4", "route"], capture_output=True, text=True, check=True).stdout
    network = [f"10.96.{n}.0/26" for n in range(100, 256) if f"10.96.{n}." not in routes][0]  # noqa: RUF015
    with StandIn(clock=Clock(0, 5)) as standin:
        machine = Machine(standin, network)
        variables = {
            "cluster_provider": "alicloud",
            "cluster_network": "10.20.0.0/24",
            "cluster_cloud": {"region": REGION, "ssh_from": ["203.0.113.7/32"]},
            "base_image_format": "cloud",
            "base_image_from": "system/debian_12_*",
            "base_image_instance_type": "ecs.c7.large",
            "base_image_network": network,
            "base_image_roles": ["nfs_client"],
        }
        (tmp_path / "group_vars").mkdir()
        (tmp_path / "group_vars/all.json").write_text(json.dumps(variables))
        place = {"plugin": "turnkey.hpc.cloud", "provider": "alicloud", "region": REGION, "cluster_name": "lab"}
        (tmp_path / "machines.cloud.yml").write_text(json.dumps(place))
        environment = {
            **os.environ,
            "TURNKEY_ALICLOUD_ENDPOINT": standin.endpoint,
            "ALIBABA_CLOUD_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": ACCESS_KEY_SECRET,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        }

        def play() -> str:
            command = [
                str(Path(sys.executable).parent / "ansible-playbook"),
                "-i",
                "machines.cloud.yml",
                "turnkey.hpc.image",
            ]
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        try:
            yield standin, machine, play, tmp_path
            assert standin.broken == []
        finally:
            docker("rm", "--force", "--volumes", machine.name) if machine.name in docker("ps", "-a") else None
            docker("network", "rm", machine.name)


def test_an_image_is_built_in_the_cloud_clean_once_and_its_machine_is_removed(built):
    standin, machine, play, folder = built
    play()
    assert {kind: len(ids) for kind, ids in standin.account.made().items()} == {"image": 1, "snapshot": 1}
    (image,) = provider_of(standin).images()
    assert re.fullmatch(r"turnkey-node-debian12-[0-9a-f]{16}", image.name)
    assert "Status: install ok installed" in machine.found, "what the role installs is in the image"
    assert "authorized_keys" not in machine.found
    assert "ssh_host_ed25519_key" not in machine.found
    assert not re.search(r"^[0-9a-f]{32}$", machine.found, re.MULTILINE), "the machine id is the next machine's own"
    assert not list(folder.rglob("operator_ed25519"))
    before = standin.calls["RunInstances"]
    assert "changed=0" in play()
    assert standin.calls["RunInstances"] == before, "the same inputs are not built twice"
