# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Elastic nodes as machines of clouds: what a power host does, and the whole way from a request of slurmctld.

The same tests for each cloud. Clouds and slurmctld are stand-ins; SDKs, HTTP and the program node-power are real.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("alibabacloud_ecs20140526", reason="pip install -r requirements-alicloud.txt")

from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.client import PowerHost
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.decide import Machine
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.spool import submit
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.worker import Place, Worker, reconcile
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._program import program
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import expand_spec
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.cloud_elastic import CloudMachines, parse_nodes
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.plan import plan, plan_absent
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.figures import complete_kinds
from clusters import KEY, TIMING
from standins import alicloud_standin
from standins.alicloud_standin.service import REGION as ALICLOUD_REGION
from standins.alicloud_standin.use import provider_of
from standins.aws_standin import REGION, AwsStandIn

CONTROLLER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0lyfbIaVdrqYxFvXjbe7FDuBsuZ0SN9QEJHVT3k9mF node-power@lab"
SECRET = "secret-of-the-test"
FIRST = 200


class Aws:
    """EC2: machines one by one, as each has an address that was chosen."""

    name, region, image, instance_type = "aws", REGION, "node-*", "t3.small"

    def __init__(self, server: AwsStandIn) -> None:
        self.server = server
        self.figures = {"cpus": 2, "memory_mb": 2048, "sockets": 1, "cores_per_socket": 1, "threads_per_core": 2}
        self.environment = {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def provider(self):
        from ansible_collections.turnkey.hpc.plugins.module_utils._providers.aws import AwsProvider
        from ansible_collections.turnkey.hpc.plugins.module_utils._providers.aws_calls import connect_ec2

        return AwsProvider(connect_ec2(self.region), timing=TIMING, reach=lambda _address, _port: None)

    def begin(self) -> None:
        self.server.reset()
        self.provider()._client.register_image(Name="node-1", RootDeviceName="/dev/xvda", Architecture="x86_64")

    def elastic(self) -> dict[str, str]:
        """Return the ids of elastic instances by name."""
        found = {}
        for one in self.server._alive():
            tags = {tag["key"]: tag["value"] for tag in one.get_tags()}
            if tags.get("turnkey:role") == "elastic":
                found[tags["turnkey:name"]] = one.id
        return found

    def room_for(self, count: int) -> None:
        left = [count]

        def fault(action, _params):
            if action == "RunInstances":
                left[0] -= 1
                return "InsufficientInstanceCapacity" if left[0] < 0 else ""
            return ""

        self.server.fault = fault

    def misbehave(self) -> None:
        """Be slow to accept calls, and lose every third answer of a launch after the work was done."""
        seen: Counter[str] = Counter()

        def fault(action, _params):
            seen[action] += 1
            if action == "RunInstances" and seen[action] % 3 == 2:
                return "lost"
            return "RequestLimitExceeded" if seen[action] % 4 == 1 else ""

        self.server.fault = fault

    def silence(self) -> None:
        self.server.console = lambda _identity: "Kernel panic"

    def user_data(self) -> list[str]:
        launched = [params for action, params in self.server.requests if action == "RunInstances"]
        return [base64.b64decode(params["UserData"]).decode() for params in launched]

    def wait(self) -> None:
        """Let time pass until what goes is gone."""

    def left(self) -> object:
        return self.server.left()


class Alicloud:
    """ECS: machines with addresses that follow each other are made in one call."""

    name, region, image, instance_type = "alicloud", ALICLOUD_REGION, "system/debian_12_*", "ecs.c7.large"

    def __init__(self) -> None:
        self.standin = None
        self.figures = {"cpus": 2, "memory_mb": 4096}

    def begin(self) -> None:
        self.environment = {
            "TURNKEY_ALICLOUD_ENDPOINT": self.standin.endpoint,
            "ALIBABA_CLOUD_ACCESS_KEY_ID": alicloud_standin.ACCESS_KEY_ID,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": alicloud_standin.ACCESS_KEY_SECRET,
        }

    def provider(self):
        return provider_of(self.standin)

    def elastic(self) -> dict[str, str]:
        return {
            thing.data["HostName"]: thing.id
            for thing in self.standin.account.of("instance")
            if thing.tags.get("turnkey:role") == "elastic"
        }

    def room_for(self, count: int) -> None:
        self.standin.account.limits.stock = count

    def misbehave(self) -> None:
        self.standin.faults = alicloud_standin.Faults(seed=5, rate=0.4, lag=3)

    def silence(self) -> None:
        self.standin.account.console = lambda _thing: "Kernel panic"

    def user_data(self) -> list[str]:
        return [
            base64.b64decode(thing.data["UserData"]).decode()
            for thing in self.standin.account.of("instance")
            if thing.tags.get("turnkey:role") == "elastic"
        ]

    def wait(self) -> None:
        self.standin.account.clock.advance(120)

    def left(self) -> object:
        made = self.standin.account.made()
        return {kind: ids for kind, ids in made.items() if ids and kind != "image"}


@pytest.fixture(scope="module")
def aws_server():
    with AwsStandIn() as server:
        yield server


@pytest.fixture(params=["aws", "alicloud"])
def cloud(request, monkeypatch):
    """A cloud with the network of cluster `lab`, and a head in it."""
    if request.param == "aws":
        found = Aws(request.getfixturevalue("aws_server"))
        standin = None
    else:
        found = Alicloud()
        standin = found.standin = alicloud_standin.StandIn().__enter__()
    for name, value in {**getattr(found, "environment", {}), "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    found.begin()
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    provision(found)
    yield found
    if standin:
        standin.__exit__(None, None, None)


def provision(cloud) -> list[str]:
    """Do what provision.yml does; return what was done."""
    common = {"image": cloud.image, "instance_type": cloud.instance_type}
    spec = expand_spec(
        {
            "provider": cloud.name,
            "cluster_name": "lab",
            "network": "127.20.0.0/24",
            "machine_sets": [{"name": "head", "bastion": True, "groups": ["controller"], **common}],
            "cloud": {"region": cloud.region, "ssh_from": ["203.0.113.0/24"], "egress": "none"},
            "admin_public_key": KEY,
        }
    )
    provider = cloud.provider()
    state = provider.discover("lab")
    assert provider.check(spec, state) == []
    actions = plan(provider.desired(spec), state)
    provider.apply(actions)
    return [str(action) for action in actions]


def settings(cloud, **changes) -> dict:
    kind = {
        "name": "burst",
        "nodes": "burst[01-05]",
        "first_address": f"127.20.0.{FIRST}",
        "image": cloud.image,
        "instance_type": cloud.instance_type,
        "provider": cloud.name,
        **changes,
    }
    return {
        "cluster": "lab",
        "provider": cloud.name,
        "network": "127.20.0.0/24",
        "authorized_key": CONTROLLER,
        "boot_seconds": 60 if cloud.name == "alicloud" else 8,
        "cloud": {"region": cloud.region, "ssh_from": ["203.0.113.0/24"]},
        "kinds": [kind],
    }


def machines(cloud, **changes) -> CloudMachines:
    data = settings(cloud, **changes)
    return CloudMachines(cloud.provider(), data, parse_nodes(data))


def told(answers) -> dict[str, str]:
    """Return the code of each answer by node, or its address."""
    return {answer["node"]: answer.get("code") or answer.get("address", "") for answer in answers}


def test_nodes_come_in_their_cluster_and_go_and_provisioning_leaves_them_alone(cloud):
    before = cloud.left()
    found = list(machines(cloud).resume(["burst01", "burst02", "burst04"]))
    assert told(found) == {"burst01": "127.20.0.200", "burst02": "127.20.0.201", "burst04": "127.20.0.203"}
    assert {answer["user"] for answer in found} == {machines(cloud)._provider.login_user}
    assert len({answer["host_key"] for answer in found}) == 3
    assert machines(cloud).status() == dict.fromkeys(["burst01", "burst02", "burst04"], "running")
    ids = cloud.elastic()
    assert told(machines(cloud).resume(["burst01"])) == {"burst01": "127.20.0.200"}
    assert cloud.elastic() == ids
    assert provision(cloud) == []
    assert [machine.name for machine in cloud.provider().list_instances("lab")] == ["head"]
    assert told(machines(cloud).suspend(["burst01", "burst02", "burst03", "burst04"])) == dict.fromkeys(
        ["burst01", "burst02", "burst03", "burst04"], ""
    )
    assert set(machines(cloud).status().values()) <= {"going"}
    assert told(machines(cloud).resume(["burst01"])) == {"burst01": "127.20.0.200"}  # its address is free again
    list(machines(cloud).remove(["burst01"]))
    cloud.wait()
    assert {name: len(ids) for name, ids in cloud.left().items()} == {name: len(ids) for name, ids in before.items()}


def test_no_secret_is_in_user_data_and_the_controllers_key_is(cloud):
    list(machines(cloud).resume(["burst01"]))
    (text,) = [text for text in cloud.user_data() if CONTROLLER in text]
    assert "PRIVATE" not in text
    assert SECRET not in text
    assert "munge" not in text


def test_what_there_is_no_room_for_is_told_and_the_rest_comes(cloud):
    cloud.room_for(2)
    found = told(machines(cloud).resume([f"burst0{number}" for number in range(1, 6)]))
    assert Counter(code for code in found.values() if not code.startswith("127.")) == {"Capacity": 3}
    assert len(cloud.elastic()) == 2


def test_throttling_and_lost_answers_delay_nodes_and_make_none_twice(cloud):
    cloud.misbehave()
    names = [f"burst0{number}" for number in range(1, 6)]
    found = told(machines(cloud).resume(names))
    assert found == {name: f"127.20.0.{FIRST + number}" for number, name in enumerate(names)}
    assert sorted(cloud.elastic()) == names


def test_a_node_that_does_not_boot_is_told(cloud):
    cloud.silence()
    (answer,) = machines(cloud).resume(["burst01"])
    assert (answer["code"], "host key" in answer["text"]) == ("BootTimeout", True)
    list(machines(cloud).suspend(["burst01"]))


def test_an_image_that_is_missing_is_told(cloud):
    assert told(machines(cloud, image="nobody-*").resume(["burst01"]))["burst01"] in ("NotFound", "Invalid")


def test_a_cluster_whose_network_is_missing_is_told_so(cloud):
    provider = cloud.provider()
    provider.apply(plan_absent(provider.discover("lab")))
    (answer,) = machines(cloud).resume(["burst01"])
    assert (answer["code"], "provision.yml" in answer["text"]) == ("NotFound", True)


def test_destruction_of_the_cluster_takes_its_elastic_nodes_along(cloud):
    list(machines(cloud).resume(["burst01"]))
    provider = cloud.provider()
    provider.apply(plan_absent(provider.discover("lab")))
    assert cloud.left() == {}


def test_the_cloud_tells_what_its_instance_types_have(cloud):
    ((name, figures),) = cloud.provider().figures([cloud.instance_type]).items()
    assert (name, figures) == (cloud.instance_type, cloud.figures)


def test_an_instance_type_that_does_not_exist_is_told(cloud):
    kind = {"name": "burst", "provider": cloud.name, "machine": {"instance_type": "none.large"}}
    with pytest.raises(HpcError, match=r"none\.large"):
        complete_kinds([kind], {}, lambda _provider, types: cloud.provider().figures(types), 0.95)


def test_a_kind_that_keeps_its_machines_stops_and_starts_them(cloud):
    list(machines(cloud, level="power").resume(["burst01"]))
    ids = cloud.elastic()
    assert told(machines(cloud, level="power").suspend(["burst01"])) == {"burst01": ""}
    assert machines(cloud, level="power").status()["burst01"] in ("going", "stopped")
    assert told(machines(cloud, level="power").resume(["burst01"])) == {"burst01": "127.20.0.200"}
    assert cloud.elastic() == ids
    list(machines(cloud, level="power").remove(["burst01"]))
    cloud.wait()
    assert cloud.elastic() == {}


@pytest.mark.parametrize("name", ["head", "burst9", "", "*", "burst01;id", "i-0123456789abcdef0"])
def test_what_is_no_node_is_refused_and_nothing_happens(cloud, name):
    before = cloud.left()
    for answers in (machines(cloud).resume([name]), machines(cloud).suspend([name])):
        assert told(answers) == {name: "Invalid"}
    assert cloud.left() == before


class Controller:
    """A controller: node-power's own worker, and on the other side of `ssh` the program itself. Slurm is a stand-in."""

    def __init__(self, cloud, folder: Path) -> None:
        self.cloud, self.told, self.joined = cloud, [], []
        self.states = dict.fromkeys([f"burst0{n}" for n in range(1, 6)], "IDLE+CLOUD+POWERED_DOWN")
        self.now = 1000.0
        self.place = Place(
            **{name: folder / name for name in ("settings", "profile", "key", "memory", "lock")},
            spool=str(folder / "spool"),
        )
        (folder / "spool").mkdir()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.place.key], check=True)
        kind = {"name": "burst", "nodes": "burst[01-05]", "provider": cloud.name, "host": "power"}
        self.place.settings.write_text(json.dumps({"kinds": [kind], "limits": {"orphan_grace_seconds": 10}}))
        self.place.profile.write_text("{}")
        self.place.memory.write_text(json.dumps({"heartbeat": 1000}))
        (folder / "host.json").write_text(json.dumps({**settings(cloud), "boot_seconds": 60}))
        source = program("_elastic.main").replace("/etc/turnkey/node-power/host.json", str(folder / "host.json"))
        (folder / "node-power").write_text(source)
        self.ssh = folder / "ssh"
        # What sshd does with a forced command: what was asked for is in the environment.
        serve = f'SSH_ORIGINAL_COMMAND="${{!#}}" exec {sys.executable} -I {folder}/node-power serve'
        self.ssh.write_text(f"#!/bin/bash\n{serve}\n")
        self.ssh.chmod(self.ssh.stat().st_mode | stat.S_IXUSR)

    def run(self, argv, stdin=None):
        del stdin
        if "show" in argv:
            return 0, "\n".join(f"NodeName={n} State={s} Partitions=main" for n, s in self.states.items()), ""
        if argv[0] == "ssh-keygen":
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            return done.returncode, done.stdout, done.stderr
        self.told.append(" ".join(argv[2:]))
        return 0, "", ""

    def join(self, _address, node, *_rest):
        self.joined.append(node)

    def worker(self) -> Worker:
        return Worker(self.place, self.run, lambda: self.now, self.host, self.join)

    def host(self, name="power", key="key") -> PowerHost:
        return PowerHost(name, key, (str(self.ssh),))

    def ask(self, verb: str, nodes: str) -> None:
        submit(verb, nodes, {}, self.place.spool)
        self.worker().work()


@pytest.fixture
def logins():
    """Something that listens where the machines of clouds are said to be: on the loopback network."""
    addresses = [f"127.20.0.{FIRST + number}" for number in range(5)]
    listeners = [socket.create_server((address, 22), backlog=50) for address in addresses]
    yield
    for listener in listeners:
        listener.close()


# Alibaba's SDK takes seconds to load in each of the program's processes.
@pytest.mark.parametrize("cloud", ["aws", pytest.param("alicloud", marks=pytest.mark.minutes)], indirect=True)
@pytest.mark.usefixtures("logins")
def test_from_a_request_of_slurmctld_to_nodes_and_back_through_the_program_with_too_little_room(cloud, tmp_path):
    if cloud.name == "alicloud":
        cloud.standin.account.clock.speed = 20
    controller = Controller(cloud, tmp_path)
    cloud.room_for(3)
    controller.states.update(dict.fromkeys([f"burst0{n}" for n in range(1, 5)], "ALLOCATED+CLOUD+POWERING_UP"))
    controller.ask("resume", "burst[01-04]")
    lost = {f"burst0{n}" for n in range(1, 5)} - set(controller.joined)
    assert (len(controller.joined), len(lost)) == (3, 1)
    assert any("NodeAddr=127.20.0." in line for line in controller.told)
    assert any(f"NodeName={lost.pop()} State=DOWN Reason=(Code:Capacity)" in line for line in controller.told)
    # The rest of the kind is out of use for a while: Slurm takes another one.
    assert any("NodeName=burst05 State=DOWN Reason=(Code:Capacity) no room" in line for line in controller.told)
    assert controller.host().status() == dict.fromkeys(sorted(controller.joined), Machine.RUNNING)

    # Slurm has forgotten one: it is an orphan, and goes after the grace time.
    kept, orphan, *_rest = sorted(controller.joined)
    controller.states = dict.fromkeys(controller.states, "IDLE+CLOUD+POWERED_DOWN")
    controller.states.update(dict.fromkeys(controller.joined, "IDLE+CLOUD"))
    controller.states[orphan] = "IDLE+CLOUD+POWERED_DOWN"
    for _round in range(2):
        reconcile(controller.worker())
        controller.now += 60
    reconcile(controller.worker())
    assert orphan not in {n for n, s in controller.host().status().items() if s == Machine.RUNNING}
    assert kept in cloud.elastic()

    controller.ask("suspend", "burst[01-05]")
    assert not [name for name, state in controller.host().status().items() if state == Machine.RUNNING]
    refused = subprocess.run(
        [controller.ssh, "resume head"], capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert (refused.returncode, refused.stdout) == (3, "")


def test_settings_that_cannot_be_used_are_told_at_once(cloud):
    data = settings(cloud, first_address="127.20.0.20", instance_type="", image="")
    with pytest.raises(Exception, match=r"(?s)instance_type is missing.*no image.*not in 127.20.0.128/25"):
        parse_nodes(data)
