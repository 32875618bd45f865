# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a stand-in can't show well; tests/cloud has the rest."""

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.aws import AwsProvider
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import (
    Capacity,
    Conflict,
    Throttled,
    Unknown,
    expand_spec,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.cloud import (
    Rule,
    Timing,
    host_key_of_console,
    machine_attributes,
    tags_of,
)

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB0UMHxFnQTFghS+U1IJIeeLMXh7cUzIWQyHxeqsS8tc"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMSnaSicHGKOVs5jPfWBM4chJaFGFXsBZzTieyJ9ED6O"


class NoClient:
    """Nothing is called."""

    class meta:
        class events:
            @staticmethod
            def register(_event, _handler):
                pass


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def provider():
    clock = Clock()
    return AwsProvider(NoClient(), timing=Timing(clock=clock, sleep=clock.sleep))


def spec(**changes):
    head = {"name": "head", "image": "n-*", "instance_type": "t", "bastion": True, "groups": ["login", "controller"]}
    node = {"name": "node", "image": "n-*", "instance_type": "t", "count": 1, "placement": "spread", "spot": True}
    given = {
        "provider": "aws",
        "cluster_name": "lab",
        "network": "10.20.0.0/24",
        "cloud": {"region": "eu-central-1", "ssh_from": ["203.0.113.7/32"], **changes},
        "machine_sets": [head, node],
        "admin_public_key": KEY,
    }
    return expand_spec(given)


def item(ref, **changes):
    return next(one for one in provider().desired(spec(**changes)) if one.ref == ref)


@pytest.mark.parametrize(
    "text",
    ["tcp 22 from 203.0.113.0/24", "udp 60000-61000 from 10.0.0.0/8", "all from group cluster", "icmp from ::/0"],
)
def test_a_rule_is_read_as_it_is_written(text):
    assert str(Rule.parse(text)) == text


def test_what_tags_say_of_a_machine_is_what_was_wanted():
    wanted = item("machine/node1")
    found = machine_attributes(tags_of(wanted), "10.20.0.138", "t", "pending")
    assert found == wanted.attributes
    assert tags_of(item("machine/head"))["turnkey:groups"] == "controller:login"
    assert all(len(value) <= 256 for value in tags_of(wanted).values())


def test_the_hash_of_a_machine_knows_neither_groups_nor_the_image_behind_a_pattern_nor_who_may_log_in():
    assert item("machine/node1").spec_hash == item("machine/node1", ssh_from=["0.0.0.0/0"]).spec_hash
    assert item("machine/node1").spec_hash != item("machine/node1", user_data="#!/bin/sh").spec_hash


def test_private_machines_come_after_their_way_out():
    assert "routes/private" in item("machine/node1").depends
    assert "nat/main" in item("routes/private").depends
    assert "nat/main" not in item("routes/private", egress="none").depends


def test_a_token_is_the_same_for_the_same_request_of_a_run_and_another_in_the_next_run():
    one, other = provider(), provider()
    assert one.token("a", "b") == one.token("a", "b")
    assert len({one.token("a", "b"), one.token("a", "c"), other.token("a", "b")}) == 3
    assert len(one.token("a")) == 32


CONSOLE = """[   12.3] cloud-init[500]: done
<14>Nov 22 09:00:00 cloud-init: -----BEGIN SSH HOST KEY KEYS-----
ecdsa-sha2-nistp256 AAAAE2VjZHNh root@node1
{} root@node1
-----END SSH HOST KEY KEYS-----
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CONSOLE.format(KEY), KEY),
        (CONSOLE.format(KEY) + CONSOLE.format(OTHER), OTHER),
        (CONSOLE.format(KEY).replace("\n", "\r\n"), KEY),
        (CONSOLE.format(KEY).partition("-----END")[0], ""),
        (f"{KEY} root@node1", ""),
        (CONSOLE.format(KEY[:60]), ""),
        ("", ""),
    ],
    ids=["whole", "the last boot counts", "line ends", "unfinished", "outside of the block", "cut", "empty"],
)
def test_the_host_key_is_read_from_the_console_when_it_is_complete(text, expected):
    assert host_key_of_console(text) == expected


@pytest.mark.parametrize(
    ("errors", "repeatable"), [([Throttled("x")] * 3, False), ([Unknown("x"), Conflict("y"), Throttled("z")], True)]
)
def test_what_passes_is_waited_for(errors, repeatable):
    answers = list(errors)

    def call():
        if answers:
            raise answers.pop()
        return "done"

    assert provider().patient(call, repeatable=repeatable) == "done"


@pytest.mark.parametrize("error", [Capacity("x"), Unknown("x")])
def test_what_may_have_been_done_and_what_no_waiting_helps_is_not_repeated(error):
    calls = []

    def call():
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        provider().patient(call, repeatable=False)
    assert len(calls) == 1


@pytest.mark.parametrize(("seconds", "looks"), [(20, 2), (1, 5)])
def test_after_a_lost_answer_the_last_look_begins_when_the_time_is_over(monkeypatch, seconds, looks):
    one, times = provider(), []

    def find(_desired):
        times.append(one.timing.clock())
        one.timing.sleep(seconds)
        return ""

    monkeypatch.setattr(one, "find", find)
    assert one._find(item("network/main")) == ""
    assert len(times) == looks
    assert times[-1] >= one.timing.settle_seconds


def test_a_provider_that_says_when_to_come_back_is_not_asked_before():
    one, times = provider(), []

    def call():
        times.append(one.timing.clock())
        if len(times) == 1:
            error = Throttled("x")
            error.retry_after_seconds = 42
            raise error

    one.patient(call)
    assert times[1] - times[0] >= 42
