# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import Capacity, NotFound, NotReady
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.docker_elastic import DockerMachines, parse_nodes

KIND = {"name": "burst", "nodes": "b[1-3]", "first_address": "10.0.0.100", "image": "turnkey/node:debian12"}
DATA = {"cluster": "lab", "authorized_key": "ssh-ed25519 AAAA", "boot_seconds": 0.1, "kinds": [KIND]}


class Provider:
    """What a DockerProvider does, on a dictionary."""

    login_user = "root"

    def __init__(self, **states):
        self.states = states
        self.requests = {}
        self.error = {}
        self.done = []

    def containers(self, cluster, role):
        assert (cluster, role) == ("lab", "elastic")
        return {name: (f"id-{name}", state) for name, state in self.states.items()}

    def create(self, action):
        if action.key in self.error:
            raise self.error[action.key]
        self.done.append(f"create {action.key}")
        self.requests[action.key] = action.desired.request
        self.states[action.key] = "running"

    def remove(self, container, name):
        self.done.append(f"remove {name}")
        self.states.pop(name, None)

    def start(self, cluster, names, role):
        self.done.append(f"start {names[0]}")

    def stop(self, cluster, names, role):
        self.done.append(f"stop {names[0]}")

    def ready(self, container, name):
        if name == "b3":
            raise NotReady("it has no host key yet.")
        return "ssh-ed25519 BBBB"


def machines(provider, **kind):
    data = {**DATA, "kinds": [{**KIND, **kind}]}
    return DockerMachines(provider, data, parse_nodes(data))


def test_a_node_is_a_container_of_its_cluster_that_provisioning_leaves_alone():
    provider = Provider()
    (answer,) = machines(provider).resume(["b1"])
    assert answer == {"node": "b1", "address": "10.0.0.100", "host_key": "ssh-ed25519 BBBB", "user": "root"}
    config = provider.requests["b1"]["config"]
    assert config["Labels"]["turnkey.role"] == "elastic"
    assert config["HostConfig"]["NetworkMode"] == "turnkey-lab"
    assert provider.requests["b1"]["name"] == "lab-b1"


def test_a_container_that_runs_is_taken_and_a_left_over_one_is_made_anew():
    provider = Provider(b1="running", b2="exited")
    list(machines(provider).resume(["b1", "b2"]))
    assert provider.done == ["remove b2", "create b2"]


def test_where_machines_are_kept_they_are_started_and_stopped():
    provider = Provider(b1="exited", b2="running")
    list(machines(provider, level="power").resume(["b1"]))
    list(machines(provider, level="power").suspend(["b2"]))
    assert provider.done == ["start b1", "stop b2"]


def test_removing_what_is_gone_or_of_no_kind_any_more_is_fine():
    provider = Provider(old="running", b1="exited")
    found = {answer["node"]: answer for answer in machines(provider).suspend(["b1", "b2", "old"])}
    assert found == {name: {"node": name} for name in ("b1", "b2", "old")}
    assert provider.states == {}


def test_each_failure_is_that_of_its_node_with_a_code():
    provider = Provider()
    provider.error = {"b1": Capacity("disk full"), "b2": NotFound("no such image")}
    found = {answer["node"]: answer for answer in machines(provider).resume(["b1", "b2", "b3"])}
    assert (found["b1"]["code"], found["b2"]["code"], found["b3"]["code"]) == ("Capacity", "NotFound", "BootTimeout")
    assert "turnkey/node:debian12" in found["b2"]["text"]


def test_states_are_told_in_words_of_machines():
    provider = Provider(b1="running", b2="created", b3="exited", x="removing")
    assert machines(provider).status() == {"b1": "running", "b2": "starting", "b3": "stopped", "x": "going"}


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ([{**KIND, "first_address": "10.0.0"}], "10.0.0"),
        ([{**KIND, "image": ""}], "no image"),
        ([KIND, {**KIND, "name": "c", "nodes": "c1", "first_address": "10.0.0.101"}], "10.0.0.101 of b2"),
    ],
)
def test_a_kind_that_cannot_be_made_is_an_error(kinds, said):
    with pytest.raises(InvalidInput) as error:
        parse_nodes({"kinds": kinds})
    assert said in str(error.value)


def test_an_error_of_the_engine_is_one_of_its_node():
    provider = Provider()
    provider.error = {"b1": HpcError("the engine doesn't answer")}
    (answer,) = machines(provider).resume(["b1"])
    assert answer["code"] == "Failed"
