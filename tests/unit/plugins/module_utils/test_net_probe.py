# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import socket
import threading
import time

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils import _net_probe
from ansible_collections.turnkey.hpc.plugins.module_utils._net_probe import Outcome, Target


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_without_a_listener_is_reached_all_the_same(free_port, protocol):
    assert _net_probe.probe([Target("127.0.0.1", protocol, free_port)]) == [Outcome("closed")]


def test_a_port_with_a_listener_is_open():
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert _net_probe.probe([Target("127.0.0.1", "tcp", server.getsockname()[1])]) == [Outcome("open")]


def test_silence_is_waited_for_once_for_all_targets_and_no_longer_than_agreed():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        started = time.monotonic()
        targets = [Target("127.0.0.1", "udp", mute.getsockname()[1])] * 20
        assert _net_probe.probe(targets, seconds=0.3) == [Outcome("silent")] * 20
    assert time.monotonic() - started < 2


def test_full_sized_packets_get_through_loopback():
    assert _net_probe.probe([Target("127.0.0.1", "mtu")], mtu=1500) == [Outcome("passed")]


def test_outcomes_come_in_the_order_of_the_targets_however_few_are_tried_at_once(free_port):
    with socket.create_server(("127.0.0.1", 0)) as server:
        ports = [free_port, server.getsockname()[1]] * 3
        found = _net_probe.probe([Target("127.0.0.1", "tcp", port) for port in ports], at_once=2)
    assert [each.state for each in found] == ["closed", "open"] * 3


def test_an_address_that_is_not_this_hosts_does_not_keep_it_from_trying(free_port):
    assert _net_probe.probe([Target("127.0.0.1", "tcp", free_port)], "192.0.2.1") == [Outcome("closed")]


@pytest.mark.parametrize(
    ("code", "answered", "expected"),
    [
        (errno.ECONNREFUSED, True, Outcome("closed")),
        (errno.ECONNREFUSED, False, Outcome("rejected")),
        (errno.EHOSTUNREACH, True, Outcome("error", "No route to host")),
        (errno.ENETUNREACH, True, Outcome("error", "Network is unreachable")),
    ],
)
def test_errors_are_told_apart(code, answered, expected):
    with socket.socket() as unused:
        attempt = _net_probe._Attempt(unused, tcp=True, payload=b"", started=0.0)
        assert attempt.judge(code, answered) == expected


@pytest.mark.parametrize(
    ("small", "big", "state"),
    [
        ("closed", "closed", "passed"),
        ("closed", None, "too_big"),
        ("open", None, "too_big"),
        (None, None, "unknown"),
        (None, "too_big", "too_big"),
        ("error", None, "unknown"),
        ("closed", "error", "unknown"),
    ],
)
def test_packets_are_too_big_where_small_ones_are_answered_and_big_ones_are_not(small, big, state):
    outcomes = [None if each is None else Outcome(each) for each in (small, big)]
    assert _net_probe._outcome(*outcomes).state == state


def test_work_in_the_background_is_not_waited_for_longer_than_agreed():
    started = time.monotonic()
    never = threading.Event()
    background = _net_probe.in_background(lambda seconds: never.wait(seconds) or "done", [0, 5], seconds=0.3)
    assert background.finish() == {0: "done"}
    assert time.monotonic() - started < 2


def test_a_name_that_does_not_exist_has_no_addresses():
    assert _net_probe.resolve("localhost") == ["127.0.0.1"]
    assert _net_probe.resolve("x" * 70) == []
