# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.action import neighbour_files

HOSTS = ["head", "node1", "node2", "node3"]


class Cluster:
    """Hosts that know something or not, and a record of who was asked."""

    def __init__(self, knowing=(), dead=(), broken=()):
        self.knowing, self.dead, self.broken, self.calls = set(knowing), set(dead), set(broken), []

    def ask(self, host, look):
        self.calls.append((host, look))
        if host in self.dead:
            return {"unreachable": True}
        if host in self.broken:
            return {"failed": True, "msg": "read-only file system"}
        changed = host not in self.knowing
        if not look:
            self.knowing.add(host)
        return {"changed": changed}


@pytest.mark.parametrize(
    ("cluster", "calls"),
    [
        (Cluster(knowing=HOSTS), [("node3", True)]),
        (Cluster(), [("node3", True), ("head", False), ("node1", False), ("node2", False), ("node3", False)]),
        (Cluster(knowing=HOSTS[:2]), [("node3", True), *((name, False) for name in HOSTS)]),
        (Cluster(knowing=HOSTS[:3], dead=["node3"]), [("node3", True), *((name, False) for name in HOSTS[:3])]),
    ],
)
def test_all_are_told_unless_the_last_one_knows(cluster, calls) -> None:
    neighbour_files.tell(HOSTS, cluster.ask, 1, False)
    assert cluster.calls == calls
    assert cluster.knowing | cluster.dead == set(HOSTS)


def test_a_run_that_was_cut_off_is_completed_by_the_next() -> None:
    cluster = Cluster()

    def cut_off(host, look):
        if host == "node1":
            raise KeyboardInterrupt
        return cluster.ask(host, look)

    with pytest.raises(KeyboardInterrupt):
        neighbour_files.tell(HOSTS, cut_off, 1, False)
    assert "node3" not in cluster.knowing
    neighbour_files.tell(HOSTS, cluster.ask, 1, False)
    assert cluster.knowing == set(HOSTS)


def test_check_mode_tells_nobody() -> None:
    cluster = Cluster()
    answers = neighbour_files.tell(HOSTS, cluster.ask, 2, True)
    assert all(look for _host, look in cluster.calls)
    assert all(answer["changed"] for answer in answers.values())


def test_nobody_is_asked_where_nobody_is_left_out() -> None:
    cluster = Cluster()
    assert neighbour_files.tell([], cluster.ask, 2, False) == {}
    assert neighbour_files.ActionModule._summed_up({})["changed"] is False


def test_who_does_not_answer_is_warned_of_and_who_fails_is_an_error() -> None:
    cluster = Cluster(dead=["node1"], broken=["node2"])
    summary = neighbour_files.ActionModule._summed_up(neighbour_files.tell(HOSTS, cluster.ask, 2, False))
    assert summary["unreachable_hosts"] == ["node1"]
    assert "node1" in summary["warnings"][0]
    assert summary["failed"]
    assert summary["msg"] == "node2: read-only file system"
    assert sorted(summary["changed_hosts"]) == ["head", "node3"]


def test_each_host_has_its_own_name_in_the_patterns() -> None:
    arguments = {"files": [{"path": "/etc/hosts", "replaces": r"\s@name@$"}, {"path": "/etc/x"}], "_texts": "x"}
    assert neighbour_files.arguments_for(arguments, "n1.lab") == {
        "files": [{"path": "/etc/hosts", "replaces": r"\sn1\.lab$"}, {"path": "/etc/x"}],
        "_texts": "x",
    }
