# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.modules import mpi_app

APPS = ["/usr/local/bin/apps", "run", "--json", "--tar=-"]


@pytest.mark.parametrize(
    ("current", "user", "options", "wait", "argv"),
    [
        (
            "root",
            "alice",
            {"hosts": 2},
            True,
            ["runuser", "-u", "alice", "--", *APPS, "--option=hosts=2", "--", "hello"],
        ),
        ("alice", "alice", {}, True, [*APPS, "--", "hello"]),
        ("alice", "alice", {}, False, [*APPS, "--detach", "--", "hello"]),
    ],
)
def test_the_tree_is_run_as_its_user(current, user, options, wait, argv):
    assert mpi_app.command(current, user, "hello", options, wait) == argv


@pytest.mark.parametrize(
    ("current", "user", "complaint"), [("root", "root", "'root'"), ("alice", "bob", "become: true")]
)
def test_nothing_is_run_as_root_or_as_somebody_else(current, user, complaint):
    with pytest.raises(HpcError, match=complaint):
        mpi_app.command(current, user, "hello", {}, True)


def test_a_run_that_failed_fails_the_task_with_its_last_words_and_all_that_is_known():
    run = {"app": "hello", "number": 3, "state": "failed", "output": "one\ntwo\n", "exit_code": 139}
    found = mpi_app.outcome("hello", 139, json.dumps(run), "")
    assert found["failed"]
    assert found["msg"] == "hello run 3: failed, exit code 139\none\ntwo"
    assert found["exit_code"] == 139
    assert "failed" not in mpi_app.outcome("hello", 0, json.dumps({**run, "state": "completed"}), "")


@pytest.mark.parametrize(
    ("rc", "err", "complaint"),
    [
        (1, "apps: mpi.yml:3: 'hosts' is 'x'.\n", "^mpi.yml:3"),
        (127, "runuser: failed to execute /usr/local/bin/apps: No such file", "cluster_mpi_service: true"),
        (1, "", "said nothing"),
    ],
)
def test_what_was_refused_is_an_error_with_the_reason(rc, err, complaint):
    with pytest.raises(HpcError, match=complaint):
        mpi_app.outcome("hello", rc, "", err)
