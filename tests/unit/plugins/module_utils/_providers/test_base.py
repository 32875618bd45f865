# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import (
    Conflict,
    NotReady,
    Resource,
    State,
    expand_spec,
    natural_key,
    retry,
)

HEAD = {"name": "head", "image": "i", "bastion": True, "groups": ["controller"]}
NODE = {"name": "node", "image": "i", "count": 3, "groups": ["compute"]}


def params(**changes):
    return {"cluster_name": "demo", "network": "10.0.0.0/24", "machine_sets": [HEAD, NODE], **changes}


def addresses(spec):
    return {machine.name: machine.address for machine in spec.machines}


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ([HEAD, NODE], {"head": "10.0.0.10", "node1": "10.0.0.11", "node2": "10.0.0.12", "node3": "10.0.0.13"}),
        ([{**NODE, "count": 1}, HEAD], {"node1": "10.0.0.10", "head": "10.0.0.11"}),
        (
            [HEAD, {**NODE, "count": 2, "first_host": 20}],
            {"head": "10.0.0.10", "node1": "10.0.0.20", "node2": "10.0.0.21"},
        ),
        # a run that doesn't fit before a fixed set moves behind it, even if the fixed set comes later
        (
            [{**NODE, "count": 2}, {**HEAD, "first_host": 11}],
            {"node1": "10.0.0.12", "node2": "10.0.0.13", "head": "10.0.0.11"},
        ),
        ([HEAD, {**NODE, "count": 0}], {"head": "10.0.0.10"}),
    ],
)
def test_machines_get_names_and_addresses_in_the_order_of_their_sets(sets, expected):
    assert addresses(expand_spec(params(machine_sets=sets))) == expected


def test_defaults_are_filled_in():
    spec = expand_spec(params(bastion_bind=None, bastion_port=None, admin_public_key=None))
    assert (spec.gateway, spec.bastion_bind, spec.bastion_port, spec.admin_public_key) == (
        "10.0.0.1",
        "127.0.0.1",
        2222,
        "",
    )


def test_volumes_of_the_same_name_are_one_volume():
    mount = {"name": "shared", "path": "/shared"}
    spec = expand_spec(params(machine_sets=[{**HEAD, "volumes": [mount]}, {**NODE, "volumes": [mount]}]))
    assert spec.volumes == ("shared",)
    assert all(machine.volumes[0].path == "/shared" for machine in spec.machines)


@pytest.mark.parametrize("name", ["demo", "a", "a-1", "a2345678901234567890"])
def test_these_cluster_names_are_accepted(name):
    assert expand_spec(params(cluster_name=name)).cluster == name


@pytest.mark.parametrize(
    "name", ["", "1a", "a-", "-a", "Demo", "a_b", "a b", "a;b", "é", "a23456789012345678901", "a\n"]
)
def test_these_cluster_names_are_refused(name):
    with pytest.raises(InvalidInput, match="cluster_name"):
        expand_spec(params(cluster_name=name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "10.0.0.5/24"}, "did you mean 10.0.0.0/24"),
        ({"network": "10.0.0.0"}, "did you mean 10.0.0.0/32"),
        ({"network": "nonsense"}, "'nonsense' is not an IPv4 network"),
        ({"network": "10.0.0.0/30"}, "prefix of /30"),
        ({"network": "fd00::/64"}, "is not an IPv4 network"),
        ({"machine_sets": []}, "machine_sets is empty"),
        ({"machine_sets": [{**HEAD, "bastion": False}]}, "exactly one machine must have bastion: true, found 0"),
        ({"machine_sets": [HEAD, {**NODE, "bastion": True}]}, r"found 4 \(head, node1, node2, node3\)"),
        ({"machine_sets": [HEAD, {**HEAD, "bastion": False}]}, "machine name 'head' is used twice"),
        (
            {"machine_sets": [{**HEAD, "first_host": 10}, {**NODE, "first_host": 9}]},
            "'node2' would have the address 10.0.0.10 of head",
        ),
        ({"machine_sets": [{**HEAD, "first_host": 1}]}, "10.0.0.1 of the gateway"),
        ({"machine_sets": [{**HEAD, "first_host": 0}]}, "first_host 0 is not a host number"),
        ({"machine_sets": [HEAD, {**NODE, "count": -1}]}, "count -1 is negative"),
        ({"machine_sets": [{**HEAD, "name": "he_ad"}]}, "'he_ad': the name can't be a host name"),
        ({"machine_sets": [{**HEAD, "groups": ["a-b"]}]}, "group 'a-b'"),
        ({"machine_sets": [{**HEAD, "image": ""}]}, "'head': image is missing"),
        ({"machine_sets": [{**HEAD, "memory_mb": 10}]}, "memory_mb 10"),
        ({"machine_sets": [{**HEAD, "cpus": -1}]}, "cpus -1"),
        ({"machine_sets": [{**HEAD, "volumes": [{"name": "v", "path": "v"}]}]}, "path 'v'"),
        ({"machine_sets": [{**HEAD, "volumes": [{"name": "v", "path": "/a/../b"}]}]}, "path '/a/../b'"),
        ({"machine_sets": [{**HEAD, "volumes": [{"name": "v", "path": "/v"}] * 2}]}, "'v' is listed twice"),
        ({"bastion_bind": "localhost"}, "bastion_bind 'localhost'"),
        ({"bastion_port": 70000}, "bastion_port 70000"),
        ({"bastion_port": 0}, "bastion_port 0 is out of range"),
        ({"admin_public_key": "hello"}, "admin_public_key 'hello'"),
        ({"admin_public_key": "ssh-ed25519 AAAA a\nssh-ed25519 BBBB b"}, "not one line"),
    ],
)
def test_unusable_input_is_refused_with_the_value(changes, message):
    with pytest.raises(InvalidInput, match=message):
        expand_spec(params(**changes))


@pytest.mark.parametrize(
    ("network", "count", "enough"),
    [("10.0.0.0/28", 6, "/27"), ("10.0.0.0/29", 3, "/28"), ("10.0.0.0/24", 300, "/23")],
)
def test_a_subnet_that_is_too_small_says_which_prefix_would_do(network, count, enough):
    sets = [{**NODE, "count": count}, {**HEAD, "first_host": 2}]
    with pytest.raises(
        InvalidInput, match=f"too small for set 'node' with {count} machines .* use a network of {enough}"
    ):
        expand_spec(params(network=network, machine_sets=sets))
    expand_spec(params(network="10.0.0.0" + enough, machine_sets=sets))


def test_all_problems_are_reported_at_once():
    with pytest.raises(InvalidInput) as caught:
        expand_spec(params(cluster_name="X", network="y", bastion_port=-1))
    assert str(caught.value).startswith("3 problems:")


def test_two_resources_for_one_logical_name_are_refused_with_both_ids():
    with pytest.raises(Conflict, match="machine a exists twice: id1 and id2"):
        State((Resource("machine", "a", "id1", ""), Resource("machine", "a", "id2", "")))


def test_names_sort_by_their_numbers():
    assert sorted(["node10", "node2", "head", "node1"], key=natural_key) == ["head", "node1", "node2", "node10"]


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_retry_repeats_until_the_condition_holds():
    clock, answers = Clock(), [NotReady("1"), NotReady("2"), "ready"]

    def call():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert retry(call, on=NotReady, deadline_seconds=60, clock=clock, sleep=clock.sleep) == "ready"


def test_retry_gives_the_last_error_at_the_deadline_and_sleeps_no_longer():
    clock = Clock()

    def call():
        raise NotReady(f"at {clock.now:g}")

    with pytest.raises(NotReady, match=r"at 7$"):
        retry(call, on=NotReady, deadline_seconds=7, clock=clock, sleep=clock.sleep, uniform=lambda _low, high: high)


def test_retry_lets_other_errors_out_at_once():
    clock = Clock()

    def call():
        raise Conflict("x")

    with pytest.raises(Conflict):
        retry(call, on=NotReady, deadline_seconds=7, clock=clock, sleep=clock.sleep)
    assert clock.now == 0
