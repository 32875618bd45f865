# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`image.yml` builds an image in a cloud, as people run it; the build machine of the stand-in is a container."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("alibabacloud_ecs20140526", reason="pip install -r requirements-alicloud.txt")

from ansible_collections.turnkey.hpc.plugins.module_utils._providers.aws import AwsProvider
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.aws_calls import connect_ec2
from containers import Containers, be_instances_of_ec2
from standins import alicloud_standin, aws_standin
from standins.alicloud_standin.service import REGION as ALICLOUD_REGION
from standins.alicloud_standin.service import console_block
from standins.alicloud_standin.use import provider_of

# Its runs install packages for a minute or more.
pytestmark = pytest.mark.minutes
ROOT = Path(__file__).parents[2]
LOOK = "cat /etc/machine-id; ls -A /root/.ssh /etc/ssh/ssh_host_* /var/lib/turnkey 2>&1; dpkg -s nfs-common"


class Aws:
    """An account in EC2, and what was found on an instance when an image was made of it."""

    name, region, image, instance_type = "aws", aws_standin.REGION, "debian-12-*", "t3.small"

    def __init__(self, server: aws_standin.AwsStandIn, containers: Containers) -> None:
        self.server, self.containers, self.found = server, containers, ""
        self.environment = {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
        }
        be_instances_of_ec2(containers, server)
        server.imaged = self.look

    def connect(self):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            return connect_ec2(self.region)

    def prepare(self) -> None:
        self.connect().register_image(Name="debian-12-1", RootDeviceName="/dev/xvda")

    def look(self, identity: str) -> None:
        self.found = self.containers.run(identity, f"{LOOK}; true")

    def images(self):
        return AwsProvider(self.connect()).images()

    def left(self) -> set[str]:
        return set(self.server.left())

    def launches(self) -> int:
        return self.server.actions.count("RunInstances")


class Alicloud:
    """The same for an account in ECS."""

    name, region, image, instance_type = "alicloud", ALICLOUD_REGION, "system/debian_12_*", "ecs.c7.large"

    def __init__(self, server: alicloud_standin.StandIn, containers: Containers) -> None:
        self.server, self.containers, self.found = server, containers, ""
        self.environment = {
            "TURNKEY_ALICLOUD_ENDPOINT": server.endpoint,
            "ALIBABA_CLOUD_ACCESS_KEY_ID": alicloud_standin.ACCESS_KEY_ID,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": alicloud_standin.ACCESS_KEY_SECRET,
        }
        account = server.account
        account.launched, account.imaged = self.launch, self.look
        account.vanished = lambda instance: containers.remove(instance.id)
        account.console = lambda instance: console_block(key) if (key := containers.host_key(instance.id)) else ""

    def prepare(self) -> None:
        """Distributions' images are there."""

    def launch(self, instance) -> None:
        self.containers.start(instance.id, instance.data["Address"], instance.data["UserData"])
        instance.data["Public"] = [instance.data["Address"]]

    def look(self, instance) -> None:
        self.found = self.containers.run(instance.id, f"{LOOK}; true")

    def images(self):
        return provider_of(self.server).images()

    def left(self) -> set[str]:
        assert self.server.broken == []
        return set(self.server.account.made()) - {"image", "snapshot"}

    def launches(self) -> int:
        return self.server.calls["RunInstances"]


@pytest.fixture(params=["aws", "alicloud"])
def cloud(request):
    server = {
        "aws": aws_standin.AwsStandIn,
        "alicloud": lambda: alicloud_standin.StandIn(clock=alicloud_standin.Clock(0, 5)),
    }[request.param]()
    with server, Containers("turnkey/bootstrap:debian12", bits=26) as containers:
        yield {"aws": Aws, "alicloud": Alicloud}[request.param](server, containers)


@pytest.fixture
def play(cloud, tmp_path):
    variables = {
        "cluster_provider": cloud.name,
        "cluster_network": "10.20.0.0/24",
        "cluster_cloud": {"region": cloud.region, "ssh_from": ["203.0.113.7/32"], "login_user": "root"},
        "base_image_format": "cloud",
        "base_image_from": cloud.image,
        "base_image_instance_type": cloud.instance_type,
        "base_image_network": cloud.containers.network,
        "base_image_roles": ["nfs_client"],
    }
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.json").write_text(json.dumps(variables))
    place = {"plugin": "turnkey.hpc.cloud", "provider": cloud.name, "region": cloud.region, "cluster_name": "lab"}
    (tmp_path / "machines.cloud.yml").write_text(json.dumps(place))
    environment = {**os.environ, **cloud.environment, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}

    def run() -> str:
        program = Path(sys.executable).parent / "ansible-playbook"
        command = [str(program), "-i", "machines.cloud.yml", "turnkey.hpc.image"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_an_image_is_built_in_the_cloud_clean_once_and_its_machine_is_removed(cloud, play, tmp_path):
    cloud.prepare()
    play()
    assert not cloud.left()
    assert not cloud.containers.names()
    (image,) = [image for image in cloud.images() if image.name.startswith("turnkey-")]
    assert re.fullmatch(r"turnkey-node-debian12-[0-9a-f]{16}", image.name)
    assert "Status: install ok installed" in cloud.found, "what the role installs is in the image"
    assert "authorized_keys" not in cloud.found
    assert "ssh_host_ed25519_key" not in cloud.found
    assert not re.search(r"^[0-9a-f]{32}$", cloud.found, re.MULTILINE), "the machine id is the next machine's own"
    assert not list(tmp_path.rglob("operator_ed25519"))
    launches = cloud.launches()
    assert "changed=0" in play()
    assert cloud.launches() == launches, "the same inputs are not built twice"
