# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._service import (
    Status,
    act,
    calls,
    look,
    newest,
    own_units,
    plan,
)

RUNNING = """LoadState=loaded
ActiveState=active
UnitFileState=enabled
ActiveEnterTimestamp=Sun 2026-11-22 06:56:37.250000 UTC
NeedDaemonReload=no
"""
NOT_INSTALLED = (
    "LoadState=not-found\nActiveState=inactive\nUnitFileState=\nActiveEnterTimestamp=\nNeedDaemonReload=no\n"
)
UP = Status(exists=True, enabled=True, active=True, since=100.0)


@pytest.mark.parametrize(
    ("code", "output", "status"),
    [
        (0, RUNNING, Status(True, True, True, 1795330597.25)),
        (0, RUNNING.replace("enabled", "static"), Status(True, True, True, 1795330597.25)),
        (0, RUNNING.replace("Reload=no", "Reload=yes"), Status(True, True, True, 1795330597.25, stale=True)),
        (0, NOT_INSTALLED, Status()),
        (1, "", Status()),
    ],
)
def test_the_state_is_what_systemd_says(code, output, status):
    assert look(lambda argv, stdin: (code, output, ""), ["x.service"]) == {"x.service": status}


def test_several_units_are_looked_at_with_one_call():
    def run(argv, stdin):
        assert argv[-2:] == ["a.service", "b.service"]
        return 0, f"{RUNNING}\n{NOT_INSTALLED}", ""

    assert look(run, ["a.service", "b.service"]) == {
        "a.service": Status(True, True, True, 1795330597.25),
        "b.service": Status(),
    }


@pytest.mark.parametrize(
    ("status", "changed_at", "verbs"),
    [
        (Status(exists=True), 0.0, ["enable", "start"]),
        (Status(), 0.0, ["enable", "start"]),
        (UP, 99.9, []),
        (UP, 100.1, ["restart"]),
        (Status(exists=True, enabled=False, active=True, since=100.0), 101.0, ["enable", "restart"]),
        (Status(exists=True, enabled=True, active=True, since=100.0, stale=True), 0.0, ["daemon-reload", "restart"]),
        (Status(exists=True, enabled=True, stale=True), 0.0, ["daemon-reload", "start"]),
    ],
)
def test_a_service_is_started_or_restarted_only_if_its_configuration_is_not_in_force(status, changed_at, verbs):
    assert plan(status, True, True, changed_at) == verbs


def test_systemd_reads_unit_files_that_are_part_of_the_configuration_before_it_starts_the_service():
    drop_in = "/etc/systemd/system/x.service.d/turnkey.conf"
    assert own_units(["/etc/x.conf", drop_in])
    assert not own_units(["/etc/x.conf"])
    assert plan(Status(exists=True, enabled=True), True, True, 0.0, True) == ["daemon-reload", "start"]
    assert plan(UP, True, True, 100.1, True) == ["daemon-reload", "restart"]
    assert plan(UP, True, True, 99.9, True) == []


@pytest.mark.parametrize(
    ("status", "enabled", "active", "verbs"),
    [
        (UP, False, False, ["disable", "stop"]),
        (UP, True, False, ["stop"]),
        (UP, True, True, ["restart"]),
        (Status(exists=True, enabled=True), False, False, ["disable"]),
        (Status(exists=True), False, False, []),
        (Status(), False, False, []),
    ],
)
def test_a_service_gets_back_the_state_that_it_had_before(status, enabled, active, verbs):
    assert plan(status, enabled, active, changed_at=1000.0) == verbs


def test_the_youngest_file_counts_and_missing_ones_do_not(tmp_path):
    for name, time in (("a", 10), ("b", 20)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time, time))
    paths = [str(tmp_path / name) for name in ("a", "b", "none")]
    assert newest(paths) == 20.0
    assert newest([]) == 0.0


def test_units_are_enabled_together_and_started_in_order():
    verbs = {
        "db.service": ["daemon-reload", "enable", "start"],
        "x.service": ["restart"],
        "y.service": ["enable", "start"],
    }
    assert calls(verbs) == [
        ["daemon-reload"],
        ["enable", "db.service", "y.service"],
        ["start", "db.service"],
        ["restart", "x.service"],
        ["start", "y.service"],
    ]
    assert calls({"x.service": []}) == []


def test_what_outlives_a_stopped_unit_is_ended_after_it():
    verbs = {"x.service": ["disable", "stop", "kill"], "db.service": ["stop"]}
    assert calls(verbs) == [
        ["disable", "x.service"],
        ["stop", "x.service"],
        ["kill", "--signal=KILL", "x.service"],
        ["stop", "db.service"],
    ]


def test_a_service_that_does_not_start_is_an_error_with_its_last_words():
    def run(argv, stdin):
        if argv[0] == "journalctl":
            return 0, "bad configuration in line 3\n", ""
        return (1, "", "Job failed.") if argv[1] == "start" else (0, "", "")

    with pytest.raises(HpcError, match=r"systemctl start x.service.*Job failed\.\nbad configuration in line 3"):
        act(run, [["enable", "x.service"], ["start", "x.service"]])


def test_a_unit_that_systemd_has_forgotten_has_nothing_left_to_end():
    act(
        lambda argv, stdin: (1, "", "Failed to kill unit x.service: Unit x.service not loaded."),
        [["kill", "x.service"]],
    )
    with pytest.raises(HpcError, match="Access denied"):
        act(lambda argv, stdin: (1, "", "Access denied"), [["kill", "x.service"]])
