# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.action.slurm_config import configure_all

HARDWARE = [{"nodes": "n[1-2]", "cpus": 4, "memory_mb": 100}]
DONE = {"changed": True, "applied": "update", "hardware": HARDWARE, "release": "22.05", "reasons": ["n2 joins"]}


class Cluster:
    """Controllers that want nodes measured first, and a record of what they were told."""

    def __init__(self, missing="", silent=(), answers=()):
        self.missing, self.silent, self.answers = missing, silent, dict(answers)
        self.told, self.asked = [], []

    def configure(self, host, given):
        self.told.append((host, dict(given)))
        if self.missing and "measured" not in given and given["primary"]:
            return {"changed": False, "missing": self.missing}
        return self.answers.get(host, DONE)

    def measure(self, names):
        self.asked += names
        silent = {"unreachable": True, "msg": "no route"}
        return {name: silent if name in self.silent else {"hardware": {"cpus": 4}} for name in names}

    def run(self, *hosts):
        return configure_all(hosts, self.configure, self.measure)


def test_a_second_run_asks_no_node_and_each_controller_once() -> None:
    cluster = Cluster(answers={host: {**DONE, "changed": False, "applied": "none"} for host in ("head", "second")})
    result = cluster.run("head", "second")
    assert not result["changed"]
    assert result["asked"] == cluster.asked == []
    assert [host for host, _given in cluster.told] == ["head", "second"]


def test_nodes_that_are_new_are_measured_and_the_other_controllers_are_told() -> None:
    cluster = Cluster(missing="n[1-2]")
    result = cluster.run("head", "second")
    assert cluster.asked == ["n1", "n2"]
    assert cluster.told == [
        ("head", {"primary": True, "measured": {"n1": {"cpus": 4}, "n2": {"cpus": 4}}, "unmeasured": []})
        if number
        else ("head", {"primary": True})
        for number in range(2)
    ] + [("second", {"primary": False, "known": HARDWARE, "unmeasured": []})]
    assert result["applied"] == {"head": "update", "second": "update"}


def test_a_node_that_does_not_answer_is_warned_of_and_left_out() -> None:
    cluster = Cluster(missing="n[1-2]", silent=["n2"])
    result = cluster.run("head")
    assert "n2 (no route)" in result["warnings"][0]
    assert cluster.told[-1][1]["unmeasured"] == ["n2"]
    assert "failed" not in result


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"failed": True, "msg": "slurmctld refuses"}, "head: slurmctld refuses"),
        ({"unreachable": True, "msg": "no route"}, "head, the primary controller, can't be reached: no route"),
    ],
)
def test_nobody_else_is_told_what_the_primary_controller_did_not_take(answer, words) -> None:
    cluster = Cluster(answers={"head": answer})
    result = cluster.run("head", "second")
    assert result["failed"]
    assert words in result["msg"]
    assert [host for host, _given in cluster.told] == ["head"]


def test_a_backup_controller_that_does_not_answer_is_warned_of() -> None:
    result = Cluster(answers={"second": {"unreachable": True, "msg": "no route"}}).run("head", "second")
    assert result["unreachable_hosts"] == ["second"]
    assert "second" in result["warnings"][0]
    assert "failed" not in result


def test_the_diff_names_the_host() -> None:
    part = {"before_header": "/etc/slurm/slurm.conf", "before": "", "after": "x"}
    result = Cluster(answers={"head": {**DONE, "diff": [part]}}).run("head")
    assert result["diff"][0]["before_header"] == "head: /etc/slurm/slurm.conf"
    assert "diff" not in Cluster().run("head")
