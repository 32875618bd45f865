# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.filter.verify_report import FilterModule

verify_report = FilterModule().filters()["verify_report"]
GOOD = {"name": "ssh_mesh", "ok": True, "seconds": 1.5, "detail": {"failures": []}}
BAD = {**GOOD, "name": "mpi_hello", "ok": False}


def report(*results, seconds=0.0):
    return verify_report(results, "lab", "2026-01-01T00:00:00Z", "alice", "head", seconds)


def test_a_report_holds_the_login_and_then_every_check():
    assert report({"changed": False}, {"checks": [GOOD]}, seconds=2.0) == {
        "cluster": "lab",
        "time": "2026-01-01T00:00:00Z",
        "ok": True,
        "checks": [{"name": "login", "ok": True, "seconds": 0.5, "detail": {"user": "alice", "host": "head"}}, GOOD],
    }


def test_one_failed_check_makes_the_report_bad():
    assert report({"checks": [GOOD, BAD]})["ok"] is False


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ([{}, {"unreachable": True, "msg": "Permission denied (publickey)."}], "Permission denied (publickey)."),
        ([{"failed": True, "msg": "no authority"}, {}], "no authority"),
        ([{}, {"msg": "MODULE FAILURE", "module_stderr": "no python\n"}], "MODULE FAILURE\nno python"),
        ([{}, {}], "the task failed and said nothing"),
    ],
)
def test_who_does_not_get_in_fails_the_login_with_the_reason(results, reason):
    made = report(*results)
    assert made["ok"] is False
    assert [check["name"] for check in made["checks"]] == ["login"]
    assert made["checks"][0]["detail"]["failures"] == [reason]


def test_check_mode_proves_nothing_and_fails_nothing():
    made = report({}, {"skipped": True})
    assert made["ok"] is True
    assert made["checks"][0]["detail"]["skipped"] == "check mode"
